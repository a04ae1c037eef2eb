/* Arenas: VkBuffers placed one behind the other in blocks of device memory. */
#include "memory.h"
#include "platform.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <stb/stb_ds.h>

#define BLOCK_DEFAULT (64u << 20)
#define PLACEMENT 256 /* alignment of buffers within a block at least; drivers ask for less */

/* A block's buffers lie one behind the other from `begin`, where the address is aligned, on. How
 * much room that leaves does not depend on the block's own address, so that a plan is exact. */
struct block {
    VkDeviceMemory memory;
    uint64_t size, room, used; /* used: of the room */
    uint64_t begin;
    void *mapped;
    bool coherent;
    bool counted; /* it lies where device memory does: in memory_used, and under memory_limit */
};

struct arena {
    struct device *device;
    enum memory_kind kind;
    bool planned; /* counts and allocates nothing */
    bool exceeds; /* the device's limit does not hold for it */
    bool shared;  /* with the transfer queue */
    uint64_t block_size, bytes, allocated;
    struct block *blocks;    /* stb_ds */
    struct buffer **buffers; /* stb_ds; each allocated, so that pointers stay */
};

/* What the device asks for a buffer: the same alignment and types for all, as their usage is one.
 */
struct demand {
    uint64_t size, alignment; /* size: a multiple of the alignment */
    uint32_t types;
};

static peridot_result create_arena(struct device *device, enum memory_kind kind, bool planned,
                                   uint64_t block, struct arena **arena, peridot_error *error) {
    *arena = calloc(1, sizeof **arena);
    if (!*arena)
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory for a memory arena");
    (*arena)->device = device;
    (*arena)->kind = kind;
    (*arena)->planned = planned;
    (*arena)->block_size = block;
    return PERIDOT_OK;
}

peridot_result arena_create(struct device *device, enum memory_kind kind, uint64_t block,
                            struct arena **arena, peridot_error *error) {
    return create_arena(device, kind, false, block, arena, error);
}

peridot_result arena_plan(struct device *device, enum memory_kind kind, uint64_t block,
                          struct arena **arena, peridot_error *error) {
    return create_arena(device, kind, true, block, arena, error);
}

void arena_share(struct arena *arena) {
    arena->shared = true;
}

bool arena_is_plan(const struct arena *arena) {
    return arena->planned;
}

void arena_exceed_limit(struct arena *arena) {
    arena->exceeds = true;
}

void arena_destroy(struct arena *arena) {
    if (!arena)
        return;
    struct device *device = arena->device;
    for (ptrdiff_t i = 0; i < arrlen(arena->buffers); i++) {
        device->vk.DestroyBuffer(device->handle, arena->buffers[i]->handle, device->allocator);
        free(arena->buffers[i]);
    }
    for (ptrdiff_t i = 0; i < arrlen(arena->blocks) && !arena->planned; i++) {
        device->vk.FreeMemory(device->handle, arena->blocks[i].memory, device->allocator);
        if (arena->blocks[i].counted)
            device->memory_used -= arena->blocks[i].size;
    }
    arrfree(arena->buffers);
    arrfree(arena->blocks);
    free(arena);
}

uint64_t arena_bytes(const struct arena *arena) {
    return arena->bytes;
}

uint64_t arena_allocated(const struct arena *arena) {
    return arena->allocated;
}

/* The best memory type among `types` for a kind; UINT32_MAX: none. */
static uint32_t memory_type(const struct device *device, enum memory_kind kind, uint32_t types) {
    static const struct {
        VkMemoryPropertyFlags needed, liked, disliked;
    } wishes[] = {
        [MEMORY_DEVICE] = {0, VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT,
                           VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT},
        [MEMORY_UPLOAD] = {VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT,
                           VK_MEMORY_PROPERTY_HOST_COHERENT_BIT,
                           VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT},
        [MEMORY_READBACK] = {VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT,
                             VK_MEMORY_PROPERTY_HOST_CACHED_BIT,
                             VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT},
    };
    const VkPhysicalDeviceMemoryProperties *memory = &device->memory;
    uint32_t best = UINT32_MAX;
    int best_score = -1;
    for (uint32_t i = 0; i < memory->memoryTypeCount; i++) {
        VkMemoryPropertyFlags has = memory->memoryTypes[i].propertyFlags;
        if (!(types >> i & 1) || (has & wishes[kind].needed) != wishes[kind].needed)
            continue;
        int score = (has & wishes[kind].liked ? 4 : 0) + (has & wishes[kind].disliked ? 0 : 2) +
                    (has & VK_MEMORY_PROPERTY_HOST_COHERENT_BIT ? 1 : 0);
        if (score > best_score) {
            best = i;
            best_score = score;
        }
    }
    return best;
}

/* Whether memory of a type lies in the heap of device memory. */
static bool is_device_heap(const struct device *device, uint32_t type) {
    uint32_t own = memory_type(device, MEMORY_DEVICE, UINT32_MAX);
    const VkMemoryType *types = device->memory.memoryTypes;
    return own == UINT32_MAX || types[type].heapIndex == types[own].heapIndex;
}

static peridot_result refuse(struct arena *arena, VkResult code, uint64_t size, const char *name,
                             peridot_error *error) {
    if (code != VK_ERROR_OUT_OF_DEVICE_MEMORY)
        return device_fail(arena->device, code, "allocating memory", error);
    return fail(error, PERIDOT_ERROR_DEVICE_MEMORY,
                "%s refused %.1f MiB for %s, with %.1f MiB free: use a smaller --context or model",
                arena->device->info.name, (double)size / (1 << 20), name,
                (double)memory_free(arena->device) / (1 << 20));
}

static VkResult create_buffer(struct device *device, uint64_t size, bool shared, const char *name,
                              VkBuffer *buffer) {
    const uint32_t families[] = {device->queue_family, device->transfer_family};
    bool concurrent = shared && device->transfer_queue && families[0] != families[1];
    VkBufferCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
        .size = size,
        .usage = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT | VK_BUFFER_USAGE_TRANSFER_SRC_BIT |
                 VK_BUFFER_USAGE_TRANSFER_DST_BIT | VK_BUFFER_USAGE_INDIRECT_BUFFER_BIT |
                 VK_BUFFER_USAGE_SHADER_DEVICE_ADDRESS_BIT,
        .sharingMode = concurrent ? VK_SHARING_MODE_CONCURRENT : VK_SHARING_MODE_EXCLUSIVE,
        .queueFamilyIndexCount = concurrent ? 2 : 0,
        .pQueueFamilyIndices = families,
    };
    VkResult code = device->vk.CreateBuffer(device->handle, &info, device->allocator, buffer);
    if (code)
        *buffer = VK_NULL_HANDLE; /* what a failed call leaves there is undefined */
    device_name_object(device, VK_OBJECT_TYPE_BUFFER, (uint64_t)*buffer, name);
    return code;
}

static VkResult bind(struct device *device, VkBuffer buffer, VkDeviceMemory memory, uint64_t offset,
                     uint64_t *address) {
    VkBindBufferMemoryInfo info = {.sType = VK_STRUCTURE_TYPE_BIND_BUFFER_MEMORY_INFO,
                                   .buffer = buffer,
                                   .memory = memory,
                                   .memoryOffset = offset};
    VkBufferDeviceAddressInfo about = {.sType = VK_STRUCTURE_TYPE_BUFFER_DEVICE_ADDRESS_INFO,
                                       .buffer = buffer};
    VkResult code = device->vk.BindBufferMemory2(device->handle, 1, &info);
    if (!code)
        *address = device->vk.GetBufferDeviceAddress(device->handle, &about);
    return code;
}

/* Learns where the block's address is aligned from a buffer placed at its beginning for that. */
static VkResult probe_address(struct device *device, uint64_t alignment, struct block *block) {
    VkBuffer probe;
    uint64_t address = 0;
    VkResult code = create_buffer(device, 16, false, "probe", &probe);
    if (!code)
        code = bind(device, probe, block->memory, 0, &address);
    device->vk.DestroyBuffer(device->handle, probe, device->allocator);
    block->begin = (alignment - address % alignment) % alignment;
    return code;
}

static const char *const kind_names[] = {
    [MEMORY_DEVICE] = "Peridot device memory",
    [MEMORY_UPLOAD] = "Peridot upload memory",
    [MEMORY_READBACK] = "Peridot readback memory",
};

static VkResult allocate(const struct arena *arena, uint32_t type, struct block *block) {
    struct device *device = arena->device;
    VkMemoryPriorityAllocateInfoEXT priority = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_PRIORITY_ALLOCATE_INFO_EXT, .priority = device->priority};
    VkMemoryAllocateFlagsInfo flags = {.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_FLAGS_INFO,
                                       .pNext = device->memory_priority ? &priority : NULL,
                                       .flags = VK_MEMORY_ALLOCATE_DEVICE_ADDRESS_BIT};
    VkMemoryAllocateInfo info = {.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
                                 .pNext = &flags,
                                 .allocationSize = block->size,
                                 .memoryTypeIndex = type};
    block->counted = is_device_heap(device, type);
    uint64_t limit = arena->exceeds || !block->counted ? 0 : device->memory_limit;
    VkResult code = VK_ERROR_OUT_OF_DEVICE_MEMORY;
    if (!limit || (device->memory_used <= limit && block->size <= limit - device->memory_used))
        code = device->vk.AllocateMemory(device->handle, &info, device->allocator, &block->memory);
    if (code)
        block->memory = VK_NULL_HANDLE;
    device_name_object(device, VK_OBJECT_TYPE_DEVICE_MEMORY, (uint64_t)block->memory,
                       kind_names[arena->kind]);
    return code;
}

/* Memory for a block, mapped where the host reads or writes it. */
static peridot_result fill_block(struct arena *arena, const struct demand *demand,
                                 struct block *block, const char *name, peridot_error *error) {
    struct device *device = arena->device;
    uint32_t type = memory_type(device, arena->kind, demand->types);
    if (type == UINT32_MAX)
        return fail(error, PERIDOT_ERROR_VULKAN, "%s has no memory type for %s", device->info.name,
                    name);
    VkResult code = allocate(arena, type, block);
    if (code == VK_ERROR_OUT_OF_DEVICE_MEMORY && block->room > demand->size) {
        block->room = demand->size; /* what is left may do for this buffer alone */
        block->size = demand->size + demand->alignment;
        code = allocate(arena, type, block);
    }
    if (code)
        return refuse(arena, code, demand->size, name, error);
    VkMemoryPropertyFlags has = device->memory.memoryTypes[type].propertyFlags;
    block->coherent = has & VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
    code = probe_address(device, demand->alignment, block);
    if (!code && arena->kind != MEMORY_DEVICE)
        code = device->vk.MapMemory(device->handle, block->memory, 0, VK_WHOLE_SIZE, 0,
                                    &block->mapped);
    if (code) {
        device->vk.FreeMemory(device->handle, block->memory, device->allocator);
        return device_fail(device, code, "preparing memory", error);
    }
    device->memory_used += block->counted ? block->size : 0;
    return PERIDOT_OK;
}

/* A new block with room for the buffer at least. */
static peridot_result add_block(struct arena *arena, const struct demand *demand, const char *name,
                                peridot_error *error) {
    uint64_t least = demand->size + demand->alignment, alone = least;
    uint64_t most = arena->device->info.limits.max_allocation;
    uint64_t usual = arena->block_size ? arena->block_size + demand->alignment : BLOCK_DEFAULT;
    uint64_t sharing =
        arena->block_size ? usual : BLOCK_DEFAULT / 8; /* larger ones leave too much */
    if (least < sharing && usual <= most)
        alone = usual;
    struct block block = {.size = alone, .room = alone - demand->alignment};
    peridot_result result =
        arena->planned ? PERIDOT_OK : fill_block(arena, demand, &block, name, error);
    if (result)
        return result;
    arena->allocated += block.size;
    arrput(arena->blocks, block);
    return PERIDOT_OK;
}

/* The first block with room. Buffers of one usage go into memory of the same types, so any block
 * will do. */
static struct block *find_room(struct arena *arena, uint64_t size) {
    for (ptrdiff_t i = 0; i < arrlen(arena->blocks); i++) {
        struct block *block = &arena->blocks[i];
        if (size <= block->room - block->used)
            return block;
    }
    return NULL;
}

static struct demand demand_of(const struct device *device, VkBuffer buffer) {
    VkMemoryRequirements2 needs = {.sType = VK_STRUCTURE_TYPE_MEMORY_REQUIREMENTS_2};
    VkBufferMemoryRequirementsInfo2 about = {
        .sType = VK_STRUCTURE_TYPE_BUFFER_MEMORY_REQUIREMENTS_INFO_2, .buffer = buffer};
    device->vk.GetBufferMemoryRequirements2(device->handle, &about, &needs);
    uint64_t alignment = needs.memoryRequirements.alignment;
    alignment = alignment < PLACEMENT ? PLACEMENT : alignment;
    if (alignment < device->info.limits.non_coherent_atom)
        alignment = device->info.limits.non_coherent_atom;
    uint64_t size = (needs.memoryRequirements.size + alignment - 1) / alignment * alignment;
    return (struct demand){size, alignment, needs.memoryRequirements.memoryTypeBits};
}

static peridot_result place(struct arena *arena, struct buffer *buffer, peridot_error *error) {
    struct device *device = arena->device;
    struct demand demand = demand_of(device, buffer->handle);
    struct block *block = find_room(arena, demand.size);
    if (!block) {
        peridot_result result = add_block(arena, &demand, buffer->name, error);
        if (result)
            return result;
        block = &arrlast(arena->blocks);
    }
    if (!arena->planned) {
        uint64_t at = block->begin + block->used;
        buffer->memory = block->memory;
        buffer->memory_offset = at;
        buffer->coherent = block->coherent;
        buffer->mapped = block->mapped ? (char *)block->mapped + at : NULL;
        VkResult code = bind(device, buffer->handle, block->memory, at, &buffer->address);
        if (code)
            return device_fail(device, code, "placing a buffer", error);
    }
    block->used += demand.size;
    arena->bytes += demand.size;
    return PERIDOT_OK;
}

peridot_result arena_buffer(struct arena *arena, uint64_t size, const char *name,
                            const struct buffer **out, peridot_error *error) {
    struct device *device = arena->device;
    *out = NULL;
    if (size == 0)
        return fail(error, PERIDOT_ERROR_ARGUMENT, "a buffer of no bytes for %s", name);
    if (size > device->info.limits.max_allocation)
        return fail(error, PERIDOT_ERROR_ARGUMENT,
                    "a buffer of %.1f MiB for %s: %s allocates up to %.1f MiB at once",
                    (double)size / (1 << 20), name, device->info.name,
                    (double)device->info.limits.max_allocation / (1 << 20));
    struct buffer *buffer = calloc(1, sizeof *buffer);
    if (!buffer)
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory for a buffer");
    buffer->size = size;
    snprintf(buffer->name, sizeof buffer->name, "%s", name);
    VkResult code = create_buffer(device, size, arena->shared, buffer->name, &buffer->handle);
    peridot_result result = code ? refuse(arena, code, size, name, error) : PERIDOT_OK;
    if (!result)
        result = place(arena, buffer, error);
    if (result || arena->planned) {
        device->vk.DestroyBuffer(device->handle, buffer->handle, device->allocator);
        free(buffer);
        return result;
    }
    arrput(arena->buffers, buffer);
    *out = buffer;
    return PERIDOT_OK;
}

/* ---- What is free ---- */

/* The memory type that arenas of a kind get; UINT32_MAX where that cannot be told. */
static uint32_t type_of_kind(struct device *device, enum memory_kind kind) {
    VkBuffer probe;
    uint32_t type = UINT32_MAX;
    if (create_buffer(device, 16, false, "probe", &probe) == VK_SUCCESS)
        type = memory_type(device, kind, demand_of(device, probe).types);
    device->vk.DestroyBuffer(device->handle, probe, device->allocator);
    return type;
}

/* What the heap of device memory has left, as far as Vulkan tells. */
static uint64_t heap_free(struct device *device, uint32_t type) {
    VkPhysicalDeviceMemoryBudgetPropertiesEXT budget = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_BUDGET_PROPERTIES_EXT};
    VkPhysicalDeviceMemoryProperties2 memory = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_PROPERTIES_2,
        .pNext = device->memory_budget ? &budget : NULL};
    device->vi.GetPhysicalDeviceMemoryProperties2(device->info.physical, &memory);
    uint32_t heap = memory.memoryProperties.memoryTypes[type].heapIndex;
    uint64_t limit = memory.memoryProperties.memoryHeaps[heap].size, used = device->memory_used;
    if (device->memory_budget) {
        limit = budget.heapBudget[heap];
        used = budget.heapUsage[heap];
    }
    return limit > used ? limit - used : 0;
}

static uint64_t device_free(struct device *device) {
    uint32_t type = type_of_kind(device, MEMORY_DEVICE);
    uint64_t host_total = 0, host_free = 0;
    platform_host_memory(&host_free, &host_total);
    bool software = device_is_software(device);
    /* without a budget, software devices name a heap of some round size, and allocate beyond it */
    if (software && !device->memory_budget && host_total)
        return host_free;
    uint64_t all = device_memory_free(device);
    if (type == UINT32_MAX)
        return all;
    uint64_t own = heap_free(device, type);
    return own < all ? own : all;
}

uint64_t memory_free(struct device *device) {
    uint64_t there = device_free(device), used = device->memory_used, limit = device->memory_limit;
    uint64_t allowed = limit > used ? limit - used : 0;
    return limit && allowed < there ? allowed : there;
}

bool memory_shared(struct device *device, enum memory_kind kind) {
    uint32_t type = type_of_kind(device, kind), own = type_of_kind(device, MEMORY_DEVICE);
    return type == UINT32_MAX || own == UINT32_MAX ||
           device->memory.memoryTypes[type].heapIndex == device->memory.memoryTypes[own].heapIndex;
}

/* ---- Reading and writing by the host ---- */

/* The range widened to whole atoms, as the specification asks. */
static VkMappedMemoryRange atoms(const struct device *device, const struct buffer *buffer,
                                 uint64_t offset, uint64_t size) {
    uint64_t atom = device->info.limits.non_coherent_atom;
    atom = atom ? atom : 1;
    uint64_t begin = (buffer->memory_offset + offset) / atom * atom;
    uint64_t end = (buffer->memory_offset + offset + size + atom - 1) / atom * atom;
    return (VkMappedMemoryRange){.sType = VK_STRUCTURE_TYPE_MAPPED_MEMORY_RANGE,
                                 .memory = buffer->memory,
                                 .offset = begin,
                                 .size = end - begin};
}

peridot_result buffer_flush(struct device *device, const struct buffer *buffer, uint64_t offset,
                            uint64_t size, peridot_error *error) {
    if (buffer->coherent)
        return PERIDOT_OK;
    VkMappedMemoryRange range = atoms(device, buffer, offset, size);
    VkResult code = device->vk.FlushMappedMemoryRanges(device->handle, 1, &range);
    return code ? device_fail(device, code, "flushing memory", error) : PERIDOT_OK;
}

peridot_result buffer_invalidate(struct device *device, const struct buffer *buffer,
                                 uint64_t offset, uint64_t size, peridot_error *error) {
    if (buffer->coherent)
        return PERIDOT_OK;
    VkMappedMemoryRange range = atoms(device, buffer, offset, size);
    VkResult code = device->vk.InvalidateMappedMemoryRanges(device->handle, 1, &range);
    return code ? device_fail(device, code, "invalidating memory", error) : PERIDOT_OK;
}
