#include "simulated_gpu.h"
#include "reference/random.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <stb/stb_ds.h>

#define QUERIES_MOST 64
#define FRAMES_KEPT 8
#define DISPATCH_SECONDS 2e-6
#define FILL_SECONDS 2e-11 /* a byte */
#define INDIRECT_GROUPS 4  /* as attention has them after a short text */

enum what { COSTS, TIMES };

/* What a command buffer does to the clock. */
struct op {
    enum what what;
    double seconds;
    uint32_t query;
};

struct buffer_ops {
    VkCommandBuffer key;
    struct op *ops; /* stb_ds array */
    double group;   /* seconds, of the pipeline bound */
};

struct pipeline_time {
    VkPipeline key;
    double group;
};

static struct {
    struct simulated_gpu gpu;
    struct device_functions real;
    PFN_vkGetInstanceProcAddr get;
    PFN_vkGetDeviceProcAddr get_device;
    struct random random;
    struct buffer_ops *buffers; /* stb_ds arrays */
    struct pipeline_time *pipelines;
    double clock;  /* seconds */
    double factor; /* of all times in this submission */
    uint64_t queries[QUERIES_MOST];
    uint64_t seen[FRAMES_KEPT]; /* the timeline's value at the end of each frame */
    uint32_t frame, submissions;
    uint64_t signalled;
    double last, began;
    bool timed, armed;
} sim;

/* ---- What is recorded ---- */

static struct buffer_ops *ops_of(VkCommandBuffer commands) {
    for (ptrdiff_t i = 0; i < arrlen(sim.buffers); i++)
        if (sim.buffers[i].key == commands)
            return &sim.buffers[i];
    arrput(sim.buffers, ((struct buffer_ops){.key = commands}));
    return &arrlast(sim.buffers);
}

static void add_op(VkCommandBuffer commands, struct op op) {
    struct buffer_ops *ops = ops_of(commands);
    arrput(ops->ops, op);
}

static VKAPI_ATTR VkResult VKAPI_CALL sim_Begin(VkCommandBuffer commands,
                                                const VkCommandBufferBeginInfo *info) {
    arrsetlen(ops_of(commands)->ops, 0);
    return sim.real.BeginCommandBuffer(commands, info);
}

static VKAPI_ATTR void VKAPI_CALL sim_BindPipeline(VkCommandBuffer commands,
                                                   VkPipelineBindPoint point, VkPipeline pipeline) {
    ptrdiff_t i = 0;
    while (i < arrlen(sim.pipelines) && sim.pipelines[i].key != pipeline)
        i++;
    if (i == arrlen(sim.pipelines)) {
        double span = log(sim.gpu.group_most / sim.gpu.group_least);
        double group = sim.gpu.group_least * exp(span * random_uniform(&sim.random));
        arrput(sim.pipelines, ((struct pipeline_time){pipeline, group}));
    }
    ops_of(commands)->group = sim.pipelines[i].group;
    sim.real.CmdBindPipeline(commands, point, pipeline);
}

static void add_groups(VkCommandBuffer commands, double groups) {
    struct op op = {.what = COSTS, .seconds = DISPATCH_SECONDS + groups * ops_of(commands)->group};
    add_op(commands, op);
}

static VKAPI_ATTR void VKAPI_CALL sim_Dispatch(VkCommandBuffer commands, uint32_t x, uint32_t y,
                                               uint32_t z) {
    add_groups(commands, (double)x * y * z);
    sim.real.CmdDispatch(commands, x, y, z);
}

static VKAPI_ATTR void VKAPI_CALL sim_DispatchBase(VkCommandBuffer commands, uint32_t bx,
                                                   uint32_t by, uint32_t bz, uint32_t x, uint32_t y,
                                                   uint32_t z) {
    add_groups(commands, (double)x * y * z);
    sim.real.CmdDispatchBase(commands, bx, by, bz, x, y, z);
}

static VKAPI_ATTR void VKAPI_CALL sim_DispatchIndirect(VkCommandBuffer commands, VkBuffer buffer,
                                                       VkDeviceSize offset) {
    add_groups(commands, INDIRECT_GROUPS);
    sim.real.CmdDispatchIndirect(commands, buffer, offset);
}

static VKAPI_ATTR void VKAPI_CALL sim_FillBuffer(VkCommandBuffer commands, VkBuffer buffer,
                                                 VkDeviceSize offset, VkDeviceSize size,
                                                 uint32_t word) {
    if (size != VK_WHOLE_SIZE)
        add_op(commands, (struct op){.what = COSTS, .seconds = (double)size * FILL_SECONDS});
    sim.real.CmdFillBuffer(commands, buffer, offset, size, word);
}

static VKAPI_ATTR void VKAPI_CALL sim_WriteTimestamp(VkCommandBuffer commands,
                                                     VkPipelineStageFlags2 stage, VkQueryPool pool,
                                                     uint32_t query) {
    if (query < QUERIES_MOST)
        add_op(commands, (struct op){.what = TIMES, .query = query});
    sim.real.CmdWriteTimestamp2(commands, stage, pool, query);
}

/* ---- What runs ---- */

static double drifting(void) {
    double turn = 6.283185307179586 * sim.frame / (sim.gpu.drift_period ? sim.gpu.drift_period : 1);
    return sim.gpu.slower * (1 + sim.gpu.drift * sin(turn));
}

static void run_commands(VkCommandBuffer commands) {
    const struct buffer_ops *ops = ops_of(commands);
    for (ptrdiff_t i = 0; i < arrlen(ops->ops); i++) {
        const struct op *op = &ops->ops[i];
        if (op->what == COSTS) {
            sim.clock += op->seconds * sim.factor;
            continue;
        }
        if (sim.timed)
            sim.last = sim.clock - sim.began;
        sim.timed = true;
        sim.began = sim.clock;
        sim.queries[op->query] = sim.gpu.zero ? 0 : sim.gpu.start + (uint64_t)(sim.clock * 1e9);
    }
}

static VKAPI_ATTR VkResult VKAPI_CALL sim_Submit(VkQueue queue, uint32_t count,
                                                 const VkSubmitInfo2 *infos, VkFence fence) {
    sim.submissions++;
    sim.timed = false;
    sim.last = 0;
    sim.factor = drifting() * (1 + sim.gpu.noise * (2 * random_uniform(&sim.random) - 1));
    if (random_uniform(&sim.random) < sim.gpu.spike_chance)
        sim.factor *= sim.gpu.spike_factor;
    for (uint32_t i = 0; i < count; i++) {
        for (uint32_t j = 0; j < infos[i].commandBufferInfoCount; j++)
            run_commands(infos[i].pCommandBufferInfos[j].commandBuffer);
        sim.signalled = infos[i].pSignalSemaphoreInfos[0].value;
    }
    return sim.real.QueueSubmit2(queue, count, infos, fence);
}

static VKAPI_ATTR VkResult VKAPI_CALL sim_QueryResults(VkDevice device, VkQueryPool pool,
                                                       uint32_t first, uint32_t count, size_t size,
                                                       void *to, VkDeviceSize stride,
                                                       VkQueryResultFlags flags) {
    if (!sim.armed)
        return sim.real.GetQueryPoolResults(device, pool, first, count, size, to, stride, flags);
    for (uint32_t i = 0; i < count && first + i < QUERIES_MOST; i++)
        memcpy((char *)to + i * stride, &sim.queries[first + i], sizeof(uint64_t));
    return VK_SUCCESS;
}

/* What was submitted in the last `latency` frames is not seen to be done; the rest is, however long
 * it takes here. */
static VKAPI_ATTR VkResult VKAPI_CALL sim_CounterValue(VkDevice device, VkSemaphore semaphore,
                                                       uint64_t *value) {
    uint64_t wanted = 0;
    if (!sim.armed)
        return sim.real.GetSemaphoreCounterValue(device, semaphore, value);
    if (sim.frame > sim.gpu.latency)
        wanted = sim.seen[(sim.frame - 1 - sim.gpu.latency) % FRAMES_KEPT];
    VkResult code;
    do
        code = sim.real.GetSemaphoreCounterValue(device, semaphore, value);
    while (!code && *value < wanted);
    *value = wanted;
    return code;
}

static VKAPI_ATTR VkResult VKAPI_CALL sim_Wait(VkDevice device, const VkSemaphoreWaitInfo *info,
                                               uint64_t timeout) {
    if (!sim.armed)
        return sim.real.WaitSemaphores(device, info, timeout);
    fprintf(stderr, "a call that must not wait did\n");
    abort();
}

static VKAPI_ATTR VkResult VKAPI_CALL sim_WaitIdle(VkDevice device) {
    (void)device;
    fprintf(stderr, "a guest waited for the whole device\n");
    abort();
}

/* ---- Opening ---- */

static PFN_vkVoidFunction own(const char *name) {
    static const struct {
        const char *name;
        PFN_vkVoidFunction function;
    } table[] = {
        {"vkBeginCommandBuffer", (PFN_vkVoidFunction)sim_Begin},
        {"vkCmdBindPipeline", (PFN_vkVoidFunction)sim_BindPipeline},
        {"vkCmdDispatch", (PFN_vkVoidFunction)sim_Dispatch},
        {"vkCmdDispatchBase", (PFN_vkVoidFunction)sim_DispatchBase},
        {"vkCmdDispatchIndirect", (PFN_vkVoidFunction)sim_DispatchIndirect},
        {"vkCmdFillBuffer", (PFN_vkVoidFunction)sim_FillBuffer},
        {"vkCmdWriteTimestamp2", (PFN_vkVoidFunction)sim_WriteTimestamp},
        {"vkQueueSubmit2", (PFN_vkVoidFunction)sim_Submit},
        {"vkGetQueryPoolResults", (PFN_vkVoidFunction)sim_QueryResults},
        {"vkGetSemaphoreCounterValue", (PFN_vkVoidFunction)sim_CounterValue},
        {"vkWaitSemaphores", (PFN_vkVoidFunction)sim_Wait},
        {"vkDeviceWaitIdle", (PFN_vkVoidFunction)sim_WaitIdle},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (strcmp(name, table[i].name) == 0)
            return table[i].function;
    return NULL;
}

static VKAPI_ATTR PFN_vkVoidFunction VKAPI_CALL device_function(VkDevice device, const char *name) {
    PFN_vkVoidFunction function = own(name);
    return function ? function : sim.get_device(device, name);
}

static VKAPI_ATTR PFN_vkVoidFunction VKAPI_CALL instance_function(VkInstance instance,
                                                                  const char *name) {
    if (strcmp(name, "vkGetDeviceProcAddr") == 0)
        return (PFN_vkVoidFunction)device_function;
    return sim.get(instance, name);
}

PFN_vkGetInstanceProcAddr simulated_gpu_open(PFN_vkGetInstanceProcAddr real,
                                             PFN_vkGetInstanceProcAddr loader, VkInstance instance,
                                             VkDevice device, uint64_t seed) {
    memset(&sim, 0, sizeof sim);
    sim.get = real;
    sim.get_device = (PFN_vkGetDeviceProcAddr)real(instance, "vkGetDeviceProcAddr");
    sim.random = random_start(seed);
    PFN_vkGetDeviceProcAddr direct =
        (PFN_vkGetDeviceProcAddr)loader(instance, "vkGetDeviceProcAddr");
#define LOAD(name) sim.real.name = (PFN_vk##name)direct(device, "vk" #name);
    DEVICE_FUNCTIONS(LOAD)
#undef LOAD
    sim.real.QueueSubmit2 = (PFN_vkQueueSubmit2)sim.get_device(device, "vkQueueSubmit2");
    return instance_function;
}

void simulated_gpu_close(void) {
    for (ptrdiff_t i = 0; i < arrlen(sim.buffers); i++)
        arrfree(sim.buffers[i].ops);
    arrfree(sim.buffers);
    arrfree(sim.pipelines);
    memset(&sim, 0, sizeof sim);
}

void simulated_gpu_model(const struct simulated_gpu *gpu) {
    sim.gpu = *gpu;
    arrsetlen(sim.pipelines, 0);
}

void simulated_gpu_start(void) {
    sim.armed = true;
    sim.submissions = sim.frame = 0;
    sim.signalled = 0;
    memset(sim.seen, 0, sizeof sim.seen);
}

void simulated_gpu_stop(void) {
    sim.armed = false;
}

void simulated_gpu_slow_down(double factor) {
    sim.gpu.slower *= factor;
}

void simulated_gpu_next_frame(void) {
    sim.seen[sim.frame % FRAMES_KEPT] = sim.signalled;
    sim.frame++;
}

double simulated_gpu_last(void) {
    return sim.last;
}

uint32_t simulated_gpu_submissions(void) {
    return sim.submissions;
}
