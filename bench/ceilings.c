#include "ceilings.h"
#include "bench_modules.h" /* module_read_memory, module_multiply_add */
#include "platform.h"
#include "queue.h"
#include "statistics.h"
#include "timestamps.h"

#include <string.h>

#include <stb/stb_ds.h>

#define LOADS 64                   /* of 16 bytes, by each invocation */
#define CHAIN_STEPS (16.0 * 3 * 4) /* of each invocation in a round: multiply_add.comp */
#define INVOCATIONS (1u << 20)
#define INVOCATIONS_SOFTWARE (1u << 14)
#define ROUNDS_MOST (1u << 20)
#define RUNS 7
#define RUNS_QUICK 3

struct read_constants {
    uint64_t source, sums;
    uint32_t loads;
};

struct multiply_constants {
    uint64_t sums;
    float factor, addend;
    uint32_t rounds;
};

struct measurement {
    struct device *device;
    struct lane lane;
    struct arena *arena;
    const struct buffer *source, *target;
    VkQueryPool queries;
    /* of no kernel in the table: destroyed here */
    VkPipeline reads, multiplies, dots; /* dots: null where the device has no instruction */
    VkPipeline computes;                /* one of the last two, at hand */
    uint32_t rounds;                    /* of it */
    uint32_t workgroup;
    uint64_t bytes; /* of source and target */
};

static VkResult create_pipeline(struct measurement *m, const uint32_t *words, const uint32_t *end,
                                VkPipeline *pipeline) {
    struct device *device = m->device;
    VkShaderModuleCreateInfo code = {.sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO,
                                     .codeSize = (size_t)(end - words) * sizeof(uint32_t),
                                     .pCode = words};
    VkShaderModule module;
    VkResult result =
        device->vk.CreateShaderModule(device->handle, &code, device->allocator, &module);
    if (result)
        return result;
    VkSpecializationMapEntry entry = {0, 0, sizeof m->workgroup};
    VkSpecializationInfo special = {1, &entry, sizeof m->workgroup, &m->workgroup};
    VkComputePipelineCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO,
        .stage = {.sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO,
                  .stage = VK_SHADER_STAGE_COMPUTE_BIT,
                  .module = module,
                  .pName = "main",
                  .pSpecializationInfo = &special},
        .layout = pipelines_layout(device),
    };
    result = device->vk.CreateComputePipelines(device->handle, VK_NULL_HANDLE, 1, &info,
                                               device->allocator, pipeline);
    device->vk.DestroyShaderModule(device->handle, module, device->allocator);
    return result;
}

static VkResult create_pipelines(struct measurement *m) {
    const struct device_info *info = &m->device->info;
    VkResult result = create_pipeline(m, module_read_memory, module_read_memory_end, &m->reads);
    if (!result)
        result = create_pipeline(m, module_multiply_add, module_multiply_add_end, &m->multiplies);
    if (!result && info->needs_met & NEEDS_PACKED_DOT && info->limits.packed_dot_accelerated)
        result = create_pipeline(m, module_multiply_add_packed, module_multiply_add_packed_end,
                                 &m->dots);
    return result;
}

/* Enough for no cache to hold, a multiple of what a workgroup reads, within limits and a third of
 * the memory that is free. */
static uint64_t choose_bytes(struct measurement *m, bool quick) {
    bool software = device_is_software(m->device);
    uint64_t wanted = quick ? 32u << 20 : software ? 256u << 20 : 1u << 30;
    uint64_t most = m->device->info.limits.max_allocation, third = memory_free(m->device) / 3;
    uint64_t unit = (uint64_t)m->workgroup * LOADS * 16;
    wanted = wanted < most ? wanted : most;
    wanted = third && third < wanted ? third : wanted;
    return wanted < unit ? unit : wanted / unit * unit;
}

static peridot_result prepare(struct measurement *m, bool quick, peridot_error *error) {
    struct device *device = m->device;
    /* on a CPU an invocation of a wide workgroup is a lane; elsewhere several subgroups hide
     * latency
     */
    m->workgroup = device_is_software(device) ? device->info.limits.subgroup_size : 128;
    m->bytes = choose_bytes(m, quick);
    VkResult code = create_pipelines(m);
    if (code)
        return device_fail(device, code, "compiling the kernels that measure ceilings", error);
    peridot_result result = lane_create(device, &m->lane, error);
    if (!result)
        result = timestamps_create(device, 2, &m->queries, error);
    if (!result)
        result = arena_create(device, MEMORY_DEVICE, 2 * m->bytes, &m->arena, error);
    if (!result)
        result = arena_buffer(m->arena, m->bytes, "ceiling source", &m->source, error);
    if (!result)
        result = arena_buffer(m->arena, m->bytes, "ceiling target", &m->target, error);
    return result;
}

/* ---- Work ---- */

static void put_barrier(struct measurement *m, VkCommandBuffer commands) {
    VkMemoryBarrier2 barrier = recording_barrier(true, false);
    barrier.dstStageMask |= VK_PIPELINE_STAGE_2_ALL_TRANSFER_BIT;
    barrier.dstAccessMask |= VK_ACCESS_2_TRANSFER_WRITE_BIT | VK_ACCESS_2_TRANSFER_READ_BIT;
    m->device->vk.CmdPipelineBarrier2(
        commands, &(VkDependencyInfo){.sType = VK_STRUCTURE_TYPE_DEPENDENCY_INFO,
                                      .memoryBarrierCount = 1,
                                      .pMemoryBarriers = &barrier});
}

static void fill(struct measurement *m, VkCommandBuffer commands) {
    m->device->vk.CmdFillBuffer(commands, m->source->handle, 0, VK_WHOLE_SIZE, 0x3f803f80);
    m->device->vk.CmdFillBuffer(commands, m->target->handle, 0, VK_WHOLE_SIZE, 0);
}

static void copy(struct measurement *m, VkCommandBuffer commands) {
    VkBufferCopy region = {0, 0, m->bytes};
    m->device->vk.CmdCopyBuffer(commands, m->source->handle, m->target->handle, 1, &region);
}

static void read_all(struct measurement *m, VkCommandBuffer commands) {
    const struct device_functions *vk = &m->device->vk;
    struct read_constants constants = {m->source->address, m->target->address, LOADS};
    uint32_t groups = (uint32_t)(m->bytes / ((uint64_t)m->workgroup * LOADS * 16));
    uint32_t most = m->device->info.limits.max_grid[0];
    vk->CmdBindPipeline(commands, VK_PIPELINE_BIND_POINT_COMPUTE, m->reads);
    vk->CmdPushConstants(commands, pipelines_layout(m->device), VK_SHADER_STAGE_COMPUTE_BIT, 0,
                         sizeof constants, &constants);
    vk->CmdDispatch(commands, groups < most ? groups : most, 1, 1);
}

/* Workgroups of `computes`, whose sums the target holds. */
static uint32_t compute_groups(const struct measurement *m) {
    bool software = device_is_software(m->device);
    uint64_t wanted = software ? INVOCATIONS_SOFTWARE : INVOCATIONS, most = m->bytes / 4;
    uint64_t groups = (wanted < most ? wanted : most) / m->workgroup;
    uint32_t grid = m->device->info.limits.max_grid[0];
    return groups < grid ? (uint32_t)groups : grid;
}

static void compute(struct measurement *m, VkCommandBuffer commands) {
    const struct device_functions *vk = &m->device->vk;
    struct multiply_constants constants = {m->target->address, 0.75f, 0.5f, m->rounds};
    vk->CmdBindPipeline(commands, VK_PIPELINE_BIND_POINT_COMPUTE, m->computes);
    vk->CmdPushConstants(commands, pipelines_layout(m->device), VK_SHADER_STAGE_COMPUTE_BIT, 0,
                         sizeof constants, &constants);
    vk->CmdDispatch(commands, compute_groups(m), 1, 1);
}

/* One piece of work in a submission of its own; its seconds. */
static peridot_result time_once(struct measurement *m,
                                void (*work)(struct measurement *, VkCommandBuffer),
                                double *seconds, peridot_error *error) {
    const struct device_functions *vk = &m->device->vk;
    VkCommandBuffer commands;
    peridot_result result = lane_commands(&m->lane, &commands, error);
    if (result)
        return result;
    result = lane_begin(&m->lane, commands, false, error);
    if (!result) {
        put_barrier(m, commands);
        if (m->queries) {
            vk->CmdResetQueryPool(commands, m->queries, 0, 2);
            vk->CmdWriteTimestamp2(commands, VK_PIPELINE_STAGE_2_ALL_COMMANDS_BIT, m->queries, 0);
        }
        work(m, commands);
        if (m->queries)
            vk->CmdWriteTimestamp2(commands, VK_PIPELINE_STAGE_2_ALL_COMMANDS_BIT, m->queries, 1);
        result = lane_end(&m->lane, commands, error);
    }
    double start = platform_seconds();
    if (!result)
        result = lane_submit(&m->lane, &(struct batch){&commands, 1}, 1, error);
    if (!result)
        result = lane_wait(&m->lane, m->lane.submitted, error);
    *seconds = platform_seconds() - start;
    uint64_t ticks[2];
    if (!result && m->queries) {
        result = timestamps_read(m->device, m->queries, 0, 2, ticks, error);
        *seconds = result ? 0 : timestamps_seconds(m->device, ticks[0], ticks[1]);
    }
    lane_free_commands(&m->lane, commands);
    return result;
}

/* The median rate of `bytes` by a piece of work, after one run that is left out. */
static peridot_result time_rate(struct measurement *m,
                                void (*work)(struct measurement *, VkCommandBuffer), double bytes,
                                uint32_t runs, double *gbs, peridot_error *error) {
    double rates[RUNS];
    for (uint32_t i = 0; i <= runs; i++) {
        double seconds;
        peridot_result result = time_once(m, work, &seconds, error);
        if (result)
            return result;
        if (i > 0)
            rates[i - 1] = bytes / seconds * 1e-9;
    }
    *gbs = samples_quantile(rates, runs, 0.5);
    return PERIDOT_OK;
}

/* The rate of a pipeline of chains, each step of which is `operations`; by as many rounds as take
 * long enough for a start and an end to be nothing, found by trying. */
static peridot_result time_chains(struct measurement *m, VkPipeline pipeline, double operations,
                                  bool quick, double *rate, peridot_error *error) {
    double seconds = 0, enough = quick ? 2e-3 : 10e-3;
    m->computes = pipeline;
    m->rounds = 1;
    peridot_result result = time_once(m, compute, &seconds, error); /* warms up */
    for (; !result && m->rounds < ROUNDS_MOST; m->rounds *= 4) {
        result = time_once(m, compute, &seconds, error);
        if (seconds >= enough)
            break;
    }
    if (result)
        return result;
    operations *= CHAIN_STEPS * m->rounds * m->workgroup * compute_groups(m);
    return time_rate(m, compute, operations, quick ? RUNS_QUICK : RUNS, rate, error);
}

double ceilings_arithmetic(const struct ceilings *ceilings, bool packed_dot) {
    return packed_dot && ceilings->packed_dot_gops > 0 ? ceilings->packed_dot_gops
                                                       : ceilings->multiply_add_gflops;
}

double ceilings_bandwidth(const struct ceilings *ceilings) {
    return ceilings->read_gbs > ceilings->copy_gbs ? ceilings->read_gbs : ceilings->copy_gbs;
}

peridot_result ceilings_measure(struct device *device, bool quick, struct ceilings *ceilings,
                                peridot_error *error) {
    struct measurement m = {.device = device};
    uint32_t runs = quick ? RUNS_QUICK : RUNS;
    double unused;
    peridot_result result = prepare(&m, quick, error);
    if (!result)
        result = time_once(&m, fill, &unused, error); /* untouched pages are no memory */
    if (!result)
        result = time_rate(&m, read_all, (double)m.bytes, runs, &ceilings->read_gbs, error);
    if (!result)
        result = time_rate(&m, copy, 2.0 * (double)m.bytes, runs, &ceilings->copy_gbs, error);
    if (!result)
        result = time_chains(&m, m.multiplies, 2, quick, &ceilings->multiply_add_gflops, error);
    if (!result && m.dots)
        result = time_chains(&m, m.dots, 8, quick, &ceilings->packed_dot_gops, error);
    ceilings->bytes = m.bytes;
    if (m.lane.device)
        lane_destroy(&m.lane);
    arena_destroy(m.arena);
    timestamps_destroy(device, m.queries);
    VkPipeline pipelines[] = {m.reads, m.multiplies, m.dots};
    for (size_t i = 0; i < sizeof pipelines / sizeof *pipelines; i++)
        device->vk.DestroyPipeline(device->handle, pipelines[i], device->allocator);
    return result;
}
