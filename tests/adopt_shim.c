#include "adopt_shim.h"
#include "platform.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <stb/stb_ds.h>

/* Functions that may fail: name, parameters, arguments, whether they may find the device lost. */
#define FALLIBLE(X)                                                                                \
    X(BindBufferMemory2, (VkDevice a, uint32_t b, const VkBindBufferMemoryInfo *c), (a, b, c), 0)  \
    X(MapMemory,                                                                                   \
      (VkDevice a, VkDeviceMemory b, VkDeviceSize c, VkDeviceSize d, VkMemoryMapFlags e,           \
       void **f),                                                                                  \
      (a, b, c, d, e, f), 0)                                                                       \
    X(FlushMappedMemoryRanges, (VkDevice a, uint32_t b, const VkMappedMemoryRange *c), (a, b, c),  \
      0)                                                                                           \
    X(InvalidateMappedMemoryRanges, (VkDevice a, uint32_t b, const VkMappedMemoryRange *c),        \
      (a, b, c), 0)                                                                                \
    X(GetPipelineCacheData, (VkDevice a, VkPipelineCache b, size_t * c, void *d), (a, b, c, d), 0) \
    X(BeginCommandBuffer, (VkCommandBuffer a, const VkCommandBufferBeginInfo *b), (a, b), 0)       \
    X(EndCommandBuffer, (VkCommandBuffer a), (a), 0)                                               \
    X(QueueSubmit2, (VkQueue a, uint32_t b, const VkSubmitInfo2 *c, VkFence d), (a, b, c, d), 1)   \
    X(GetSemaphoreCounterValue, (VkDevice a, VkSemaphore b, uint64_t * c), (a, b, c), 1)

/* Of these, those that wait, or may. */
#define WAITING(X)                                                                                 \
    X(WaitSemaphores, (VkDevice a, const VkSemaphoreWaitInfo *b, uint64_t c), (a, b, c), 1, true)  \
    X(GetQueryPoolResults,                                                                         \
      (VkDevice a, VkQueryPool b, uint32_t c, uint32_t d, size_t e, void *f, VkDeviceSize g,       \
       VkQueryResultFlags h),                                                                      \
      (a, b, c, d, e, f, g, h), 1, h &VK_QUERY_RESULT_WAIT_BIT)

/* Functions that make one object, which their last parameter `out` gets. */
#define CREATE(X)                                                                                  \
    X(CreateBuffer, VkBufferCreateInfo, VkBuffer)                                                  \
    X(CreateShaderModule, VkShaderModuleCreateInfo, VkShaderModule)                                \
    X(CreatePipelineLayout, VkPipelineLayoutCreateInfo, VkPipelineLayout)                          \
    X(CreatePipelineCache, VkPipelineCacheCreateInfo, VkPipelineCache)                             \
    X(CreateCommandPool, VkCommandPoolCreateInfo, VkCommandPool)                                   \
    X(CreateQueryPool, VkQueryPoolCreateInfo, VkQueryPool)                                         \
    X(CreateSemaphore, VkSemaphoreCreateInfo, VkSemaphore)

#define DESTROY(X)                                                                                 \
    X(DestroyBuffer, VkBuffer)                                                                     \
    X(DestroyShaderModule, VkShaderModule)                                                         \
    X(DestroyPipelineLayout, VkPipelineLayout)                                                     \
    X(DestroyPipelineCache, VkPipelineCache)                                                       \
    X(DestroyPipeline, VkPipeline)                                                                 \
    X(DestroyCommandPool, VkCommandPool)                                                           \
    X(DestroyQueryPool, VkQueryPool)                                                               \
    X(DestroySemaphore, VkSemaphore)

#define FUNCTIONS_MAX 64
#define POISON                                                                                     \
    0xa5 /* each byte of a handle that a failed call leaves: undefined, as Vulkan has it */

static struct {
    void *library;
    PFN_vkGetInstanceProcAddr get;
    PFN_vkGetDeviceProcAddr get_device;
    VkInstance instance;
    VkPhysicalDevice physical;
    VkDevice device, second;
    VkQueue queue;
    uint32_t family, families; /* the device's; transfers are of one more */
    VkDebugUtilsMessengerEXT messenger;
    struct device_functions real;
} app;

/* An object that was made and is not destroyed. */
struct object {
    uint64_t handle, bytes; /* bytes: of memory */
    bool named;
};

struct command_buffer {
    VkCommandBuffer handle;
    VkCommandPool pool;
    bool named;
};

/* A queue that the device does not have: what goes there runs on the one that it has. */
static char transfer_queue;
#define TRANSFER_QUEUE ((VkQueue)(void *)&transfer_queue)

/* Of a command buffer's dispatches to come. */
struct command_priority {
    VkCommandBuffer commands;
    float dispatches;
};

static struct {
    struct platform_mutex *mutex;    /* pipelines are made on several threads */
    struct object *objects;          /* stb_ds array */
    struct command_buffer *commands; /* stb_ds array, of those not freed */
    uint32_t unnamed;                /* of those destroyed */
    uint64_t free;
    float priority;
    VkPipelineCache cache;
    const VkAllocationCallbacks *callbacks;
    pthread_t thread;
    uint32_t foreign;
    bool no_waits;
    struct {
        const char *name;
        uint32_t calls;
    } functions[FUNCTIONS_MAX];
    const char *function;
    uint32_t nth, every, candidates;
    VkResult code;
    bool allocations, making, armed, failed, lost, locked, transfer_locked, held, handed_over;
    uint32_t unlocked, trespasses, transfers, messages;
    int32_t live;
    uint64_t copied, largest_copy, transfer_value; /* what the transfer queue signals last */
    VkSemaphore transfer_timeline;
    /* stb_ds arrays of handles with a property; a handle may be another object's later */
    uint64_t *transfer_pools, *transfer_commands, *concurrent_buffers;
    bool occupancy;
    struct command_priority *priorities; /* stb_ds array */
    uint32_t dispatch_priorities;
} shim;

#define INSTANCE(name) ((PFN_##name)app.get(app.instance, #name))

/* ---- Interception ---- */

static uint32_t count_call(const char *name) {
    for (uint32_t i = 0; i < FUNCTIONS_MAX; i++) {
        if (!shim.functions[i].name)
            shim.functions[i].name = name;
        if (strcmp(shim.functions[i].name, name) == 0)
            return shim.functions[i].calls++;
    }
    return 0;
}

static bool may_fail(const char *name, bool loses) {
    if (shim.allocations)
        return strncmp(name, "vkCreate", 8) == 0 || strncmp(name, "vkAllocate", 10) == 0;
    if (shim.function)
        return strcmp(shim.function, name) == 0;
    return shim.code != VK_ERROR_DEVICE_LOST || loses;
}

static bool is_due(void) {
    uint32_t before = shim.candidates++;
    return shim.every ? (before + 1) % shim.every == 0 : before == shim.nth;
}

/* The result that this call must fail with, or VK_SUCCESS. */
static VkResult judge(const char *name, bool loses) {
    platform_mutex_lock(shim.mutex);
    shim.foreign += !pthread_equal(pthread_self(), shim.thread);
    (void)count_call(name);
    VkResult code = shim.lost && loses ? VK_ERROR_DEVICE_LOST : VK_SUCCESS;
    if (shim.armed && may_fail(name, loses) && is_due()) {
        code = shim.code;
        shim.armed = shim.every > 0;
        shim.failed = true;
        shim.lost = code == VK_ERROR_DEVICE_LOST;
    }
    bool now_lost = code == VK_ERROR_DEVICE_LOST;
    platform_mutex_unlock(shim.mutex);
    if (now_lost)
        (void)app.real.DeviceWaitIdle(app.device);
    return code;
}

static void add_object(uint64_t handle, uint64_t bytes, const VkAllocationCallbacks *callbacks) {
    struct object object = {handle, bytes, false};
    platform_mutex_lock(shim.mutex);
    shim.live++;
    shim.trespasses += callbacks != shim.callbacks;
    arrput(shim.objects, object);
    platform_mutex_unlock(shim.mutex);
}

static void drop_object(uint64_t handle, const VkAllocationCallbacks *callbacks) {
    if (!handle)
        return;
    platform_mutex_lock(shim.mutex);
    shim.live--;
    shim.trespasses += callbacks != shim.callbacks;
    for (ptrdiff_t i = arrlen(shim.objects) - 1; i >= 0; i--)
        if (shim.objects[i].handle == handle) {
            shim.unnamed += !shim.objects[i].named;
            arrdelswap(shim.objects, i);
            break;
        }
    platform_mutex_unlock(shim.mutex);
}

static VKAPI_ATTR VkResult VKAPI_CALL
shim_SetDebugUtilsObjectNameEXT(VkDevice device, const VkDebugUtilsObjectNameInfoEXT *info) {
    (void)device;
    platform_mutex_lock(shim.mutex);
    for (ptrdiff_t i = arrlen(shim.objects) - 1; i >= 0; i--)
        if (shim.objects[i].handle == info->objectHandle && info->pObjectName[0])
            shim.objects[i].named = true;
    for (ptrdiff_t i = arrlen(shim.commands) - 1; i >= 0; i--)
        if ((uint64_t)(uintptr_t)shim.commands[i].handle == info->objectHandle &&
            info->pObjectName[0])
            shim.commands[i].named = true;
    platform_mutex_unlock(shim.mutex);
    return VK_SUCCESS;
}

static VKAPI_ATTR void VKAPI_CALL
shim_CmdBeginDebugUtilsLabelEXT(VkCommandBuffer commands, const VkDebugUtilsLabelEXT *label) {
    (void)commands;
    (void)label;
}

static VKAPI_ATTR void VKAPI_CALL shim_CmdEndDebugUtilsLabelEXT(VkCommandBuffer commands) {
    (void)commands;
}

/* A call that allocates. */
#define MAKE(call) (shim.making = true, made(call))
static VkResult made(VkResult code) {
    shim.making = false;
    return code;
}

static bool is_poison(const void *handle, size_t size) {
    for (size_t i = 0; i < size; i++)
        if (((const unsigned char *)handle)[i] != POISON)
            return false;
    return true;
}

#define DEFINE(name, parameters, arguments, loses)                                                 \
    static VKAPI_ATTR VkResult VKAPI_CALL shim_##name parameters {                                 \
        VkResult code = judge("vk" #name, loses);                                                  \
        return code ? code : app.real.name arguments;                                              \
    }
FALLIBLE(DEFINE)
#undef DEFINE

#define DEFINE(name, parameters, arguments, loses, waits)                                          \
    static VKAPI_ATTR VkResult VKAPI_CALL shim_##name parameters {                                 \
        shim.trespasses += shim.no_waits && (waits);                                               \
        VkResult code = judge("vk" #name, loses);                                                  \
        return code ? code : app.real.name arguments;                                              \
    }
WAITING(DEFINE)
#undef DEFINE

#define DEFINE(name, info_type, handle_type)                                                       \
    static VKAPI_ATTR VkResult VKAPI_CALL shim_##name(VkDevice device, const info_type *info,      \
                                                      const VkAllocationCallbacks *callbacks,      \
                                                      handle_type *out) {                          \
        VkResult code = judge("vk" #name, false);                                                  \
        if (code)                                                                                  \
            memset(out, POISON, sizeof *out);                                                      \
        else if ((code = MAKE(app.real.name(device, info, callbacks, out))) == VK_SUCCESS)         \
            add_object((uint64_t)*out, 0, callbacks);                                              \
        return code;                                                                               \
    }
CREATE(DEFINE)
#undef DEFINE

#define DEFINE(name, handle_type)                                                                  \
    static VKAPI_ATTR void VKAPI_CALL shim_##name(VkDevice device, handle_type handle,             \
                                                  const VkAllocationCallbacks *callbacks) {        \
        if (is_poison(&handle, sizeof handle)) {                                                   \
            shim.trespasses++;                                                                     \
            return;                                                                                \
        }                                                                                          \
        drop_object((uint64_t)handle, callbacks);                                                  \
        app.real.name(device, handle, callbacks);                                                  \
    }
DESTROY(DEFINE)
#undef DEFINE

static VKAPI_ATTR VkResult VKAPI_CALL shim_AllocateMemory(VkDevice device,
                                                          const VkMemoryAllocateInfo *info,
                                                          const VkAllocationCallbacks *callbacks,
                                                          VkDeviceMemory *out) {
    VkResult code = judge("vkAllocateMemory", false);
    memset(out, POISON, sizeof *out);
    if (code)
        return code;
    /* the driver may not know what the test adopted the device with */
    VkMemoryAllocateFlagsInfo flags = *(const VkMemoryAllocateFlagsInfo *)info->pNext;
    const VkMemoryPriorityAllocateInfoEXT *priority = flags.pNext;
    shim.priority = priority ? priority->priority : -1;
    flags.pNext = NULL;
    VkMemoryAllocateInfo plain = *info;
    plain.pNext = &flags;
    code = MAKE(app.real.AllocateMemory(device, &plain, callbacks, out));
    if (!code)
        add_object((uint64_t)*out, info->allocationSize, callbacks);
    return code;
}

static VKAPI_ATTR void VKAPI_CALL shim_FreeMemory(VkDevice device, VkDeviceMemory memory,
                                                  const VkAllocationCallbacks *callbacks) {
    if (is_poison(&memory, sizeof memory)) {
        shim.trespasses++;
        return;
    }
    drop_object((uint64_t)memory, callbacks);
    app.real.FreeMemory(device, memory, callbacks);
}

static VKAPI_ATTR void VKAPI_CALL shim_GetPhysicalDeviceMemoryProperties2(
    VkPhysicalDevice physical, VkPhysicalDeviceMemoryProperties2 *memory) {
    VkBaseOutStructure *next = memory->pNext;
    if (shim.free)
        memory->pNext = NULL; /* the driver may not know it */
    ((PFN_vkGetPhysicalDeviceMemoryProperties2)app.get(
        app.instance, "vkGetPhysicalDeviceMemoryProperties2"))(physical, memory);
    memory->pNext = next;
    for (; next && shim.free; next = next->pNext)
        if (next->sType == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_BUDGET_PROPERTIES_EXT) {
            VkPhysicalDeviceMemoryBudgetPropertiesEXT *budget = (void *)next;
            for (uint32_t i = 0; i < VK_MAX_MEMORY_HEAPS; i++) {
                budget->heapUsage[i] = 4321;
                budget->heapBudget[i] = 4321 + shim.free;
            }
        }
}

static VKAPI_ATTR VkResult VKAPI_CALL
shim_CreateComputePipelines(VkDevice device, VkPipelineCache cache, uint32_t count,
                            const VkComputePipelineCreateInfo *infos,
                            const VkAllocationCallbacks *callbacks, VkPipeline *out) {
    VkResult code = judge("vkCreateComputePipelines", false);
    if (code) {
        memset(out, 0, count * sizeof *out);
        return code;
    }
    shim.cache = cache;
    code = MAKE(app.real.CreateComputePipelines(device, cache, count, infos, callbacks, out));
    for (uint32_t i = 0; i < count && !code; i++)
        add_object((uint64_t)out[i], 0, callbacks);
    return code;
}

/* ---- Two queues ---- */

static ptrdiff_t find_mark(const uint64_t *marked, uint64_t handle) {
    ptrdiff_t i = arrlen(marked) - 1;
    while (i >= 0 && marked[i] != handle)
        i--;
    return i;
}

static bool is_marked(const uint64_t *marked, uint64_t handle) {
    return find_mark(marked, handle) >= 0;
}

static void mark(uint64_t **marked, uint64_t handle, bool yes) {
    ptrdiff_t i = find_mark(*marked, handle);
    if (yes && i < 0)
        arrput(*marked, handle);
    else if (!yes && i >= 0)
        arrdelswap(*marked, i);
}

static VKAPI_ATTR VkResult VKAPI_CALL make_pool(VkDevice device,
                                                const VkCommandPoolCreateInfo *info,
                                                const VkAllocationCallbacks *callbacks,
                                                VkCommandPool *out) {
    VkCommandPoolCreateInfo real = *info;
    bool transfers = info->queueFamilyIndex == app.families;
    if (transfers)
        real.queueFamilyIndex = app.family;
    VkResult code = shim_CreateCommandPool(device, &real, callbacks, out);
    if (!code)
        mark(&shim.transfer_pools, (uint64_t)*out, transfers);
    return code;
}

static VKAPI_ATTR VkResult VKAPI_CALL make_buffer(VkDevice device, const VkBufferCreateInfo *info,
                                                  const VkAllocationCallbacks *callbacks,
                                                  VkBuffer *out) {
    VkBufferCreateInfo real = *info;
    bool concurrent = info->sharingMode == VK_SHARING_MODE_CONCURRENT;
    if (concurrent) {
        const uint32_t *families = info->pQueueFamilyIndices;
        shim.trespasses += info->queueFamilyIndexCount != 2 || families[0] != app.family ||
                           families[1] != app.families;
        real.sharingMode = VK_SHARING_MODE_EXCLUSIVE;
        real.queueFamilyIndexCount = 0;
    }
    VkResult code = shim_CreateBuffer(device, &real, callbacks, out);
    if (!code)
        mark(&shim.concurrent_buffers, (uint64_t)*out, concurrent);
    return code;
}

static void add_commands(VkCommandBuffer commands, VkCommandPool pool) {
    struct command_buffer added = {commands, pool, false};
    platform_mutex_lock(shim.mutex);
    arrput(shim.commands, added);
    platform_mutex_unlock(shim.mutex);
}

/* One command buffer, or all of a pool's. */
static void drop_commands(VkCommandBuffer commands, VkCommandPool pool) {
    platform_mutex_lock(shim.mutex);
    for (ptrdiff_t i = arrlen(shim.commands) - 1; i >= 0; i--)
        if (shim.commands[i].pool == pool && (!commands || shim.commands[i].handle == commands)) {
            shim.unnamed += !shim.commands[i].named;
            arrdelswap(shim.commands, i);
        }
    platform_mutex_unlock(shim.mutex);
}

static VKAPI_ATTR void VKAPI_CALL shim_FreeCommandBuffers(VkDevice device, VkCommandPool pool,
                                                          uint32_t count,
                                                          const VkCommandBuffer *commands) {
    for (uint32_t i = 0; i < count; i++)
        if (commands[i])
            drop_commands(commands[i], pool);
    app.real.FreeCommandBuffers(device, pool, count, commands);
}

static VKAPI_ATTR void VKAPI_CALL destroy_pool(VkDevice device, VkCommandPool pool,
                                               const VkAllocationCallbacks *callbacks) {
    if (pool && !is_poison(&pool, sizeof pool))
        drop_commands(VK_NULL_HANDLE, pool);
    shim_DestroyCommandPool(device, pool, callbacks);
}

static VKAPI_ATTR VkResult VKAPI_CALL shim_AllocateCommandBuffers(
    VkDevice device, const VkCommandBufferAllocateInfo *info, VkCommandBuffer *out) {
    VkResult code = judge("vkAllocateCommandBuffers", false);
    if (!code)
        code = MAKE(app.real.AllocateCommandBuffers(device, info, out));
    else
        memset(out, 0, info->commandBufferCount * sizeof *out);
    for (uint32_t i = 0; i < info->commandBufferCount && !code; i++) {
        add_commands(out[i], info->commandPool);
        mark(&shim.transfer_commands, (uint64_t)(uintptr_t)out[i],
             is_marked(shim.transfer_pools, (uint64_t)info->commandPool));
    }
    return code;
}

static VKAPI_ATTR void VKAPI_CALL shim_CmdCopyBuffer(VkCommandBuffer commands, VkBuffer from,
                                                     VkBuffer to, uint32_t count,
                                                     const VkBufferCopy *regions) {
    for (uint32_t i = 0; i < count; i++) {
        shim.copied += regions[i].size;
        shim.largest_copy =
            regions[i].size > shim.largest_copy ? regions[i].size : shim.largest_copy;
    }
    shim.trespasses += is_marked(shim.transfer_commands, (uint64_t)(uintptr_t)commands) &&
                       !is_marked(shim.concurrent_buffers, (uint64_t)to);
    app.real.CmdCopyBuffer(commands, from, to, count, regions);
}

/* Each queue runs commands of its own family; the one for compute must come to wait for the other.
 */
static void follow(const VkSubmitInfo2 *batch, bool transfer) {
    for (uint32_t i = 0; i < batch->commandBufferInfoCount; i++) {
        VkCommandBuffer commands = batch->pCommandBufferInfos[i].commandBuffer;
        if (arrlen(shim.transfer_pools))
            shim.trespasses +=
                is_marked(shim.transfer_commands, (uint64_t)(uintptr_t)commands) != transfer;
    }
    for (uint32_t i = 0; i < batch->waitSemaphoreInfoCount && !transfer; i++)
        shim.handed_over |= batch->pWaitSemaphoreInfos[i].semaphore == shim.transfer_timeline &&
                            batch->pWaitSemaphoreInfos[i].value >= shim.transfer_value;
    for (uint32_t i = 0; i < batch->signalSemaphoreInfoCount && transfer; i++) {
        shim.transfer_timeline = batch->pSignalSemaphoreInfos[i].semaphore;
        shim.transfer_value = batch->pSignalSemaphoreInfos[i].value;
        shim.handed_over = false;
    }
}

/* ---- Priorities of dispatches ---- */

static float *priority_in(VkCommandBuffer commands) {
    ptrdiff_t i = 0;
    while (i < arrlen(shim.priorities) && shim.priorities[i].commands != commands)
        i++;
    if (i == arrlen(shim.priorities)) {
        struct command_priority fresh = {commands, VK_COMPUTE_OCCUPANCY_PRIORITY_NORMAL_NV};
        arrput(shim.priorities, fresh);
    }
    return &shim.priorities[i].dispatches;
}

/* A driver may list more between the calls; this one never does. */
static VKAPI_ATTR VkResult VKAPI_CALL list_extensions(VkPhysicalDevice physical, const char *layer,
                                                      uint32_t *count,
                                                      VkExtensionProperties *extensions) {
    uint32_t room = *count;
    VkResult code =
        INSTANCE(vkEnumerateDeviceExtensionProperties)(physical, layer, count, extensions);
    if (!shim.occupancy || code)
        return code;
    if (extensions && *count < room)
        extensions[*count] =
            (VkExtensionProperties){VK_NV_COMPUTE_OCCUPANCY_PRIORITY_EXTENSION_NAME, 1};
    *count += !extensions || *count < room;
    return VK_SUCCESS;
}

/* The driver is not asked for what it does not know. */
static VKAPI_ATTR void VKAPI_CALL list_features(VkPhysicalDevice physical,
                                                VkPhysicalDeviceFeatures2 *features) {
    VkPhysicalDeviceComputeOccupancyPriorityFeaturesNV *asked = features->pNext;
    bool alone =
        asked &&
        asked->sType == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COMPUTE_OCCUPANCY_PRIORITY_FEATURES_NV;
    if (!alone)
        INSTANCE(vkGetPhysicalDeviceFeatures2)(physical, features);
    else
        asked->computeOccupancyPriority = shim.occupancy;
}

static VKAPI_ATTR VkResult VKAPI_CALL begin_commands(VkCommandBuffer commands,
                                                     const VkCommandBufferBeginInfo *info) {
    VkResult code = shim_BeginCommandBuffer(commands, info);
    if (!code && shim.occupancy)
        *priority_in(commands) = VK_COMPUTE_OCCUPANCY_PRIORITY_NORMAL_NV;
    return code;
}

static VKAPI_ATTR void VKAPI_CALL shim_CmdSetComputeOccupancyPriorityNV(
    VkCommandBuffer commands, const VkComputeOccupancyPriorityParametersNV *parameters) {
    (void)count_call("vkCmdSetComputeOccupancyPriorityNV");
    shim.trespasses +=
        is_marked(shim.transfer_commands, (uint64_t)(uintptr_t)commands) ||
        parameters->sType != VK_STRUCTURE_TYPE_COMPUTE_OCCUPANCY_PRIORITY_PARAMETERS_NV ||
        parameters->pNext || parameters->occupancyThrottling != 0;
    *priority_in(commands) = parameters->occupancyPriority;
}

static void note_dispatch(VkCommandBuffer commands) {
    if (!shim.occupancy)
        return;
    float priority = *priority_in(commands);
    bool low = priority == VK_COMPUTE_OCCUPANCY_PRIORITY_LOW_NV;
    bool normal = priority == VK_COMPUTE_OCCUPANCY_PRIORITY_NORMAL_NV;
    bool high = priority == VK_COMPUTE_OCCUPANCY_PRIORITY_HIGH_NV;
    shim.trespasses += !low && !normal && !high;
    shim.dispatch_priorities |= (low ? DISPATCHES_LOW : 0u) | (normal ? DISPATCHES_NORMAL : 0u) |
                                (high ? DISPATCHES_HIGH : 0u);
}

static VKAPI_ATTR void VKAPI_CALL shim_CmdDispatch(VkCommandBuffer commands, uint32_t x, uint32_t y,
                                                   uint32_t z) {
    note_dispatch(commands);
    app.real.CmdDispatch(commands, x, y, z);
}

static VKAPI_ATTR void VKAPI_CALL shim_CmdDispatchBase(VkCommandBuffer commands, uint32_t bx,
                                                       uint32_t by, uint32_t bz, uint32_t x,
                                                       uint32_t y, uint32_t z) {
    note_dispatch(commands);
    app.real.CmdDispatchBase(commands, bx, by, bz, x, y, z);
}

static VKAPI_ATTR void VKAPI_CALL shim_CmdDispatchIndirect(VkCommandBuffer commands,
                                                           VkBuffer buffer, VkDeviceSize offset) {
    note_dispatch(commands);
    app.real.CmdDispatchIndirect(commands, buffer, offset);
}

static VKAPI_ATTR VkResult VKAPI_CALL shim_submit(VkQueue queue, uint32_t count,
                                                  const VkSubmitInfo2 *infos, VkFence fence) {
    bool transfer = queue == TRANSFER_QUEUE;
    shim.unlocked += transfer ? !shim.transfer_locked : !shim.locked;
    shim.transfers += transfer;
    for (uint32_t i = 0; i < count; i++)
        follow(&infos[i], transfer);
    return shim_QueueSubmit2(app.queue, count, infos, fence);
}

static VKAPI_ATTR VkResult VKAPI_CALL read_counter(VkDevice device, VkSemaphore semaphore,
                                                   uint64_t *value) {
    VkResult code = shim_GetSemaphoreCounterValue(device, semaphore, value);
    if (!code && shim.held)
        *value = 0;
    return code;
}

static VKAPI_ATTR void VKAPI_CALL list_families(VkPhysicalDevice physical, uint32_t *count,
                                                VkQueueFamilyProperties2 *families) {
    uint32_t room = *count;
    ((PFN_vkGetPhysicalDeviceQueueFamilyProperties2)app.get(
        app.instance, "vkGetPhysicalDeviceQueueFamilyProperties2"))(physical, count, families);
    if (families && *count < room)
        families[*count].queueFamilyProperties =
            (VkQueueFamilyProperties){.queueFlags = VK_QUEUE_TRANSFER_BIT, .queueCount = 1};
    *count += !families || *count < room;
}

/* ---- What no guest may do ---- */

static VKAPI_ATTR void VKAPI_CALL shim_DestroyInstance(VkInstance instance,
                                                       const VkAllocationCallbacks *callbacks) {
    (void)instance;
    (void)callbacks;
    shim.trespasses++;
}

#define OTHERS(X)                                                                                  \
    X(AllocateMemory, )                                                                            \
    X(FreeMemory, )                                                                                \
    X(GetPhysicalDeviceMemoryProperties2, )                                                        \
    X(SetDebugUtilsObjectNameEXT, )                                                                \
    X(CmdBeginDebugUtilsLabelEXT, )                                                                \
    X(CmdEndDebugUtilsLabelEXT, )                                                                  \
    X(CreateComputePipelines, )                                                                    \
    X(AllocateCommandBuffers, )                                                                    \
    X(FreeCommandBuffers, )                                                                        \
    X(CmdCopyBuffer, )                                                                             \
    X(CmdSetComputeOccupancyPriorityNV, )                                                          \
    X(CmdDispatch, )                                                                               \
    X(CmdDispatchBase, )                                                                           \
    X(CmdDispatchIndirect, )                                                                       \
    X(DestroyInstance, )

/* Functions that a guest has no use for: to ask for one is a trespass, as to call it would be. */
static void judge_name(const char *name) {
    static const char *const forbidden[] = {
        "vkQueueSubmit",   "vkQueueBindSparse", "vkSignalSemaphore", "vkQueueWaitIdle",
        "vkWaitForFences", "vkDeviceWaitIdle",  "vkDestroyDevice"};
    for (size_t i = 0; i < sizeof forbidden / sizeof *forbidden; i++)
        shim.trespasses += strcmp(name, forbidden[i]) == 0;
}

static PFN_vkVoidFunction intercepted(const char *name) {
    judge_name(name);
    static const struct {
        const char *name;
        PFN_vkVoidFunction function;
    } table[] = {/* found before those below */
                 {"vkQueueSubmit2", (PFN_vkVoidFunction)shim_submit},
                 {"vkCreateCommandPool", (PFN_vkVoidFunction)make_pool},
                 {"vkDestroyCommandPool", (PFN_vkVoidFunction)destroy_pool},
                 {"vkCreateBuffer", (PFN_vkVoidFunction)make_buffer},
                 {"vkGetSemaphoreCounterValue", (PFN_vkVoidFunction)read_counter},
                 {"vkBeginCommandBuffer", (PFN_vkVoidFunction)begin_commands},
                 {"vkEnumerateDeviceExtensionProperties", (PFN_vkVoidFunction)list_extensions},
                 {"vkGetPhysicalDeviceFeatures2", (PFN_vkVoidFunction)list_features},
#define ENTRY(name, ...) {"vk" #name, (PFN_vkVoidFunction)shim_##name},
                 FALLIBLE(ENTRY) WAITING(ENTRY) CREATE(ENTRY) DESTROY(ENTRY) OTHERS(ENTRY)
#undef ENTRY
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (strcmp(name, table[i].name) == 0)
            return table[i].function;
    return NULL;
}

static VKAPI_ATTR PFN_vkVoidFunction VKAPI_CALL get_device_function(VkDevice device,
                                                                    const char *name) {
    PFN_vkVoidFunction function = intercepted(name);
    return function ? function : app.get_device(device, name);
}

static VKAPI_ATTR PFN_vkVoidFunction VKAPI_CALL get_function(VkInstance instance,
                                                             const char *name) {
    if (strcmp(name, "vkGetDeviceProcAddr") == 0)
        return (PFN_vkVoidFunction)get_device_function;
    if (strcmp(name, "vkGetPhysicalDeviceQueueFamilyProperties2") == 0)
        return (PFN_vkVoidFunction)list_families;
    PFN_vkVoidFunction function = intercepted(name);
    return function ? function : app.get(instance, name);
}

static void lock_queue(void *user) {
    (void)user;
    shim.trespasses += shim.locked;
    shim.locked = true;
}

static void unlock_queue(void *user) {
    (void)user;
    shim.trespasses += !shim.locked;
    shim.locked = false;
}

static void lock_transfer_queue(void *user) {
    (void)user;
    shim.trespasses += shim.transfer_locked;
    shim.transfer_locked = true;
}

static void unlock_transfer_queue(void *user) {
    (void)user;
    shim.trespasses += !shim.transfer_locked;
    shim.transfer_locked = false;
}

/* ---- The application ---- */

static VKAPI_ATTR VkBool32 VKAPI_CALL hear(VkDebugUtilsMessageSeverityFlagBitsEXT severity,
                                           VkDebugUtilsMessageTypeFlagsEXT types,
                                           const VkDebugUtilsMessengerCallbackDataEXT *data,
                                           void *user) {
    (void)severity;
    (void)types;
    (void)user;
    shim.messages++;
    fprintf(stderr, "validation: %s\n", data->pMessage);
    return VK_FALSE;
}

/* With PERIDOT_TEST_VALIDATION=1: the layer, its look at synchronization included. */
static VkResult make_instance(VkInstanceCreateInfo *info) {
    static const char *const layers[] = {"VK_LAYER_KHRONOS_validation"};
    static const char *const extensions[] = {VK_EXT_DEBUG_UTILS_EXTENSION_NAME,
                                             VK_EXT_VALIDATION_FEATURES_EXTENSION_NAME};
    static const VkValidationFeatureEnableEXT enables[] = {
        VK_VALIDATION_FEATURE_ENABLE_SYNCHRONIZATION_VALIDATION_EXT};
    const VkDebugUtilsMessengerCreateInfoEXT messenger = {
        .sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_MESSENGER_CREATE_INFO_EXT,
        .messageSeverity = VK_DEBUG_UTILS_MESSAGE_SEVERITY_WARNING_BIT_EXT |
                           VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT,
        .messageType = VK_DEBUG_UTILS_MESSAGE_TYPE_VALIDATION_BIT_EXT,
        .pfnUserCallback = hear};
    const VkValidationFeaturesEXT features = {.sType = VK_STRUCTURE_TYPE_VALIDATION_FEATURES_EXT,
                                              .enabledValidationFeatureCount = 1,
                                              .pEnabledValidationFeatures = enables};
    const char *wanted = getenv("PERIDOT_TEST_VALIDATION");
    bool validation = wanted && strcmp(wanted, "1") == 0;
    if (validation) {
        info->pNext = &features;
        info->enabledLayerCount = 1;
        info->enabledExtensionCount = 2;
        info->ppEnabledLayerNames = layers;
        info->ppEnabledExtensionNames = extensions;
    }
    VkResult code =
        ((PFN_vkCreateInstance)app.get(NULL, "vkCreateInstance"))(info, NULL, &app.instance);
    if (!code && validation)
        code = ((PFN_vkCreateDebugUtilsMessengerEXT)app.get(
            app.instance, "vkCreateDebugUtilsMessengerEXT"))(app.instance, &messenger, NULL,
                                                             &app.messenger);
    return code;
}

static const char *create_instance(void) {
    void *symbol = NULL;
    app.library = platform_open_library("libvulkan.so.1");
    if (app.library)
        symbol = platform_library_symbol(app.library, "vkGetInstanceProcAddr");
    if (!symbol)
        return "no Vulkan loader";
    memcpy(&app.get, &symbol, sizeof symbol);
    VkApplicationInfo about = {.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO,
                               .apiVersion = VK_API_VERSION_1_3};
    VkInstanceCreateInfo info = {.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO,
                                 .pApplicationInfo = &about};
    if (make_instance(&info)) {
        app.instance = VK_NULL_HANDLE;
        return "no Vulkan driver, or no validation layer";
    }
    uint32_t one = 1;
    VkResult code = INSTANCE(vkEnumeratePhysicalDevices)(app.instance, &one, &app.physical);
    return code < 0 || one == 0 ? "no Vulkan device" : NULL;
}

static bool find_family(void) {
    VkQueueFamilyProperties families[32];
    uint32_t count = 32;
    INSTANCE(vkGetPhysicalDeviceQueueFamilyProperties)(app.physical, &count, families);
    app.families = count;
    for (app.family = 0; app.family < count; app.family++)
        if (families[app.family].queueFlags & VK_QUEUE_COMPUTE_BIT)
            return true;
    return false;
}

static VkDevice make_device(void) {
    struct device_features features;
    device_required_features(&features);
    float priority = 1;
    VkDevice device = VK_NULL_HANDLE;
    VkDeviceQueueCreateInfo queue = {.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
                                     .queueFamilyIndex = app.family,
                                     .queueCount = 1,
                                     .pQueuePriorities = &priority};
    VkDeviceCreateInfo info = {.sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
                               .pNext = &features.base,
                               .queueCreateInfoCount = 1,
                               .pQueueCreateInfos = &queue};
    VkResult code = INSTANCE(vkCreateDevice)(app.physical, &info, NULL, &device);
    return code ? VK_NULL_HANDLE : device;
}

static const char *create_device(void) {
    if (!find_family())
        return "no queue for compute";
    app.device = make_device();
    if (!app.device)
        return "no device with the features that Peridot requires";
    app.get_device = INSTANCE(vkGetDeviceProcAddr);
#define LOAD(name) app.real.name = (PFN_vk##name)app.get_device(app.device, "vk" #name);
    DEVICE_FUNCTIONS(LOAD)
    OWN_DEVICE_FUNCTIONS(LOAD)
#undef LOAD
    app.real.GetDeviceQueue(app.device, app.family, 0, &app.queue);
    return NULL;
}

static void free_lists(void) {
    arrfree(shim.objects);
    arrfree(shim.commands);
    arrfree(shim.priorities);
    arrfree(shim.transfer_pools);
    arrfree(shim.transfer_commands);
    arrfree(shim.concurrent_buffers);
}

const char *adopt_shim_open(void) {
    memset(&app, 0, sizeof app);
    shim.mutex = platform_mutex_create();
    const char *why = shim.mutex ? create_instance() : "no memory";
    if (!why)
        why = create_device();
    if (why)
        adopt_shim_close();
    else
        adopt_shim_reset();
    return why;
}

void adopt_shim_close(void) {
    adopt_shim_close_second();
    if (app.device)
        app.real.DestroyDevice(app.device, NULL);
    if (app.messenger)
        INSTANCE(vkDestroyDebugUtilsMessengerEXT)(app.instance, app.messenger, NULL);
    if (app.instance)
        INSTANCE(vkDestroyInstance)(app.instance, NULL);
    platform_close_library(app.library);
    platform_mutex_destroy(shim.mutex);
    free_lists();
    shim.mutex = NULL;
    memset(&app, 0, sizeof app);
}

int adopt_shim_set_up(void **state) {
    const char *why = adopt_shim_open();
    (void)state;
    if (why)
        fprintf(stderr, "no application: %s\n", why);
    return why != NULL;
}

int adopt_shim_tear_down(void **state) {
    (void)state;
    adopt_shim_close();
    return 0;
}

struct device_adoption adopt_shim_adoption(void) {
    return (struct device_adoption){
        .instance = app.instance,
        .physical = app.physical,
        .device = app.device,
        .get_instance_proc_addr = get_function,
        .queue = app.queue,
        .queue_family = app.family,
        .callbacks = {lock_queue, unlock_queue, NULL},
    };
}

struct device_adoption adopt_shim_second(void) {
    struct device_adoption adoption = {
        .instance = app.instance,
        .physical = app.physical,
        .device = app.second = make_device(),
        .get_instance_proc_addr = app.get,
        .queue_family = app.family,
    };
    if (app.second)
        ((PFN_vkGetDeviceQueue)app.get_device(app.second, "vkGetDeviceQueue"))(
            app.second, app.family, 0, &adoption.queue);
    return adoption;
}

void adopt_shim_close_second(void) {
    if (app.second)
        ((PFN_vkDestroyDevice)app.get_device(app.second, "vkDestroyDevice"))(app.second, NULL);
    app.second = VK_NULL_HANDLE;
}

PFN_vkGetInstanceProcAddr adopt_shim_loader(void) {
    return app.get;
}

struct device_adoption adopt_shim_adoption_transfer(bool own_family) {
    struct device_adoption adoption = adopt_shim_adoption();
    adoption.transfer_queue = TRANSFER_QUEUE;
    adoption.transfer_family = own_family ? app.families : app.family;
    adoption.transfer_callbacks =
        (struct device_callbacks){lock_transfer_queue, unlock_transfer_queue, NULL};
    return adoption;
}

/* ---- What the test asks ---- */

void adopt_shim_reset(void) {
    struct platform_mutex *mutex = shim.mutex;
    free_lists();
    memset(&shim, 0, sizeof shim);
    shim.mutex = mutex;
    shim.thread = pthread_self();
}

void adopt_shim_fail(const char *function, uint32_t nth, VkResult code) {
    shim.function = function;
    shim.allocations = false;
    shim.nth = nth;
    shim.every = 0;
    shim.code = code;
    shim.armed = true;
    shim.failed = false;
    shim.candidates = 0;
}

void adopt_shim_refuse(uint32_t every, bool allocations, VkResult code) {
    shim.function = NULL;
    shim.allocations = allocations;
    shim.every = every;
    shim.code = code;
    shim.armed = true;
}

const bool *adopt_shim_making(void) {
    return &shim.making;
}

void adopt_shim_mend(void) {
    shim.armed = shim.lost = false;
}

void adopt_shim_forbid_waits(bool forbid) {
    shim.no_waits = forbid;
}

void adopt_shim_set_free(uint64_t bytes) {
    shim.free = bytes;
}

void adopt_shim_expect_callbacks(const VkAllocationCallbacks *callbacks) {
    shim.callbacks = callbacks;
}

bool adopt_shim_failed(void) {
    return shim.failed;
}

uint32_t adopt_shim_calls(const char *function) {
    for (uint32_t i = 0; i < FUNCTIONS_MAX && shim.functions[i].name; i++)
        if (strcmp(shim.functions[i].name, function) == 0)
            return shim.functions[i].calls;
    return 0;
}

uint32_t adopt_shim_unlocked_submissions(void) {
    return shim.unlocked;
}

int32_t adopt_shim_live(void) {
    return shim.live;
}

uint32_t adopt_shim_trespasses(void) {
    return shim.trespasses;
}

uint64_t adopt_shim_memory(void) {
    uint64_t bytes = 0;
    for (ptrdiff_t i = 0; i < arrlen(shim.objects); i++)
        bytes += shim.objects[i].bytes;
    return bytes;
}

uint32_t adopt_shim_unnamed(void) {
    uint32_t count = shim.unnamed;
    for (ptrdiff_t i = 0; i < arrlen(shim.objects); i++)
        count += !shim.objects[i].named;
    for (ptrdiff_t i = 0; i < arrlen(shim.commands); i++)
        count += !shim.commands[i].named;
    return count;
}

bool adopt_shim_sound(bool closed) {
    const struct {
        const char *what;
        uint64_t count;
    } faults[] = {
        {"calls that no guest may make", shim.trespasses},
        {"submissions without the queue's lock", shim.unlocked},
        {"objects without a name", adopt_shim_unnamed()},
        {"messages of the validation layer", shim.messages},
        {"objects left", closed ? (uint64_t)shim.live : 0},
        {"bytes of memory left", closed ? adopt_shim_memory() : 0},
    };
    bool sound = true;
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        sound &= faults[i].count == 0;
        if (faults[i].count)
            fprintf(stderr, "%llu %s\n", (unsigned long long)faults[i].count, faults[i].what);
    }
    return sound;
}

float adopt_shim_priority(void) {
    return shim.priority;
}

uint32_t adopt_shim_foreign_calls(void) {
    return shim.foreign;
}

VkPipelineCache adopt_shim_make_cache(void) {
    VkPipelineCacheCreateInfo info = {.sType = VK_STRUCTURE_TYPE_PIPELINE_CACHE_CREATE_INFO};
    VkPipelineCache cache = VK_NULL_HANDLE;
    (void)app.real.CreatePipelineCache(app.device, &info, NULL, &cache);
    return cache;
}

VkPipelineCache adopt_shim_cache(void) {
    return shim.cache;
}

void adopt_shim_destroy_cache(VkPipelineCache cache) {
    app.real.DestroyPipelineCache(app.device, cache, NULL);
}

void adopt_shim_hold(bool held) {
    shim.held = held;
}

uint64_t adopt_shim_copied(void) {
    return shim.copied;
}

uint64_t adopt_shim_largest_copy(void) {
    return shim.largest_copy;
}

uint32_t adopt_shim_transfers(void) {
    return shim.transfers;
}

bool adopt_shim_handed_over(void) {
    return shim.handed_over;
}

void adopt_shim_offer_occupancy_priority(void) {
    shim.occupancy = true;
}

uint32_t adopt_shim_dispatch_priorities(void) {
    return shim.dispatch_priorities;
}

float adopt_shim_priority_in(VkCommandBuffer commands) {
    return *priority_in(commands);
}

uint32_t adopt_shim_messages(void) {
    return shim.messages;
}
