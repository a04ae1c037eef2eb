/* Arenas: VkBuffers placed one behind the other in blocks of device memory. */
#include "memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <stb/stb_ds.h>

#define BLOCK_DEFAULT (64u << 20)
#define PLACEMENT 256 /* alignment of buffers within a block; drivers ask for less */

struct block {
    VkDeviceMemory memory;
    uint64_t size, used; /* `used` begins where the address is a multiple of PLACEMENT */
    uint64_t address;    /* of the block's first byte */
    void *mapped;
    bool coherent;
};

struct arena {
    struct device *device;
    enum memory_kind kind;
    uint64_t block_size, bytes;
    struct block *blocks;    /* stb_ds */
    struct buffer **buffers; /* stb_ds; each allocated, so that pointers stay */
};

peridot_result arena_create(struct device *device, enum memory_kind kind, uint64_t block,
                            struct arena **arena, peridot_error *error) {
    *arena = calloc(1, sizeof **arena);
    if (!*arena)
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory for a memory arena");
    (*arena)->device = device;
    (*arena)->kind = kind;
    (*arena)->block_size = block ? block : BLOCK_DEFAULT;
    return PERIDOT_OK;
}

void arena_destroy(struct arena *arena) {
    if (!arena)
        return;
    struct device *device = arena->device;
    for (ptrdiff_t i = 0; i < arrlen(arena->buffers); i++) {
        device->vk.DestroyBuffer(device->handle, arena->buffers[i]->handle, device->allocator);
        free(arena->buffers[i]);
    }
    for (ptrdiff_t i = 0; i < arrlen(arena->blocks); i++) {
        device->vk.FreeMemory(device->handle, arena->blocks[i].memory, device->allocator);
        device->memory_used -= arena->blocks[i].size;
    }
    arrfree(arena->buffers);
    arrfree(arena->blocks);
    free(arena);
}

uint64_t arena_bytes(const struct arena *arena) {
    return arena->bytes;
}

/* The best memory type among `types` for the arena's kind; UINT32_MAX: none. */
static uint32_t memory_type(const struct arena *arena, uint32_t types) {
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
    const VkPhysicalDeviceMemoryProperties *memory = &arena->device->memory;
    uint32_t best = UINT32_MAX;
    int best_score = -1;
    for (uint32_t i = 0; i < memory->memoryTypeCount; i++) {
        VkMemoryPropertyFlags has = memory->memoryTypes[i].propertyFlags;
        if (!(types >> i & 1) || (has & wishes[arena->kind].needed) != wishes[arena->kind].needed)
            continue;
        int score = (has & wishes[arena->kind].liked ? 4 : 0) +
                    (has & wishes[arena->kind].disliked ? 0 : 2) +
                    (has & VK_MEMORY_PROPERTY_HOST_COHERENT_BIT ? 1 : 0);
        if (score > best_score) {
            best = i;
            best_score = score;
        }
    }
    return best;
}

static peridot_result refuse(struct arena *arena, VkResult code, uint64_t size, const char *name,
                             peridot_error *error) {
    if (code != VK_ERROR_OUT_OF_DEVICE_MEMORY)
        return device_fail(arena->device, code, "allocating memory", error);
    return fail(error, PERIDOT_ERROR_DEVICE_MEMORY,
                "%s refused %.1f MiB for %s, with %.1f MiB free: use a smaller --context or model",
                arena->device->info.name, (double)size / (1 << 20), name,
                (double)device_memory_free(arena->device) / (1 << 20));
}

static VkResult create_buffer(struct device *device, uint64_t size, VkBuffer *buffer) {
    VkBufferCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
        .size = size,
        .usage = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT | VK_BUFFER_USAGE_TRANSFER_SRC_BIT |
                 VK_BUFFER_USAGE_TRANSFER_DST_BIT | VK_BUFFER_USAGE_INDIRECT_BUFFER_BIT |
                 VK_BUFFER_USAGE_SHADER_DEVICE_ADDRESS_BIT,
    };
    VkResult code = device->vk.CreateBuffer(device->handle, &info, device->allocator, buffer);
    if (code)
        *buffer = VK_NULL_HANDLE; /* what a failed call leaves there is undefined */
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

/* Learns the block's address from a buffer placed at its beginning for that. */
static VkResult probe_address(struct device *device, struct block *block) {
    VkBuffer probe;
    VkResult code = create_buffer(device, 16, &probe);
    if (!code)
        code = bind(device, probe, block->memory, 0, &block->address);
    device->vk.DestroyBuffer(device->handle, probe, device->allocator);
    block->used = (PLACEMENT - block->address % PLACEMENT) % PLACEMENT;
    return code;
}

static VkResult allocate(struct device *device, uint32_t type, struct block *block) {
    VkMemoryAllocateFlagsInfo flags = {.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_FLAGS_INFO,
                                       .flags = VK_MEMORY_ALLOCATE_DEVICE_ADDRESS_BIT};
    VkMemoryAllocateInfo info = {.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
                                 .pNext = &flags,
                                 .allocationSize = block->size,
                                 .memoryTypeIndex = type};
    VkResult code =
        device->vk.AllocateMemory(device->handle, &info, device->allocator, &block->memory);
    if (code)
        block->memory = VK_NULL_HANDLE;
    return code;
}

/* A new block with room for `size` bytes at least. */
static peridot_result add_block(struct arena *arena, uint64_t size, uint32_t types,
                                const char *name, peridot_error *error) {
    struct device *device = arena->device;
    uint64_t most = device->info.limits.max_allocation;
    uint32_t type = memory_type(arena, types);
    if (type == UINT32_MAX)
        return fail(error, PERIDOT_ERROR_VULKAN, "%s has no memory type for %s", device->info.name,
                    name);
    struct block block = {.size = size > arena->block_size ? size : arena->block_size};
    block.size = block.size > most ? size : block.size;
    VkResult code = allocate(device, type, &block);
    if (code == VK_ERROR_OUT_OF_DEVICE_MEMORY && block.size > size) {
        block.size = size; /* what is left may do for this buffer alone */
        code = allocate(device, type, &block);
    }
    if (code)
        return refuse(arena, code, size, name, error);
    VkMemoryPropertyFlags has = device->memory.memoryTypes[type].propertyFlags;
    block.coherent = has & VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
    code = probe_address(device, &block);
    if (!code && arena->kind != MEMORY_DEVICE)
        code =
            device->vk.MapMemory(device->handle, block.memory, 0, VK_WHOLE_SIZE, 0, &block.mapped);
    if (code) {
        device->vk.FreeMemory(device->handle, block.memory, device->allocator);
        return device_fail(device, code, "preparing memory", error);
    }
    device->memory_used += block.size;
    arrput(arena->blocks, block);
    return PERIDOT_OK;
}

/* The first block with room; the offset there into `at`. Buffers of one usage go into memory of the
 * same types, so any block will do. */
static struct block *find_room(struct arena *arena, uint64_t size, uint64_t alignment,
                               uint64_t *at) {
    for (ptrdiff_t i = 0; i < arrlen(arena->blocks); i++) {
        struct block *block = &arena->blocks[i];
        uint64_t address = block->address + block->used;
        *at = block->used + (alignment - address % alignment) % alignment;
        if (*at <= block->size && size <= block->size - *at)
            return block;
    }
    return NULL;
}

static peridot_result place(struct arena *arena, struct buffer *buffer, peridot_error *error) {
    struct device *device = arena->device;
    VkMemoryRequirements2 needs = {.sType = VK_STRUCTURE_TYPE_MEMORY_REQUIREMENTS_2};
    VkBufferMemoryRequirementsInfo2 about = {
        .sType = VK_STRUCTURE_TYPE_BUFFER_MEMORY_REQUIREMENTS_INFO_2, .buffer = buffer->handle};
    device->vk.GetBufferMemoryRequirements2(device->handle, &about, &needs);
    uint64_t alignment = needs.memoryRequirements.alignment;
    alignment = alignment < PLACEMENT ? PLACEMENT : alignment;
    if (alignment < device->info.limits.non_coherent_atom)
        alignment = device->info.limits.non_coherent_atom;
    uint64_t size = (needs.memoryRequirements.size + alignment - 1) / alignment * alignment;
    uint64_t at = 0;
    struct block *block = find_room(arena, size, alignment, &at);
    if (!block) {
        /* the slack is for a block whose own address is not aligned enough */
        peridot_result result = add_block(
            arena, size + alignment, needs.memoryRequirements.memoryTypeBits, buffer->name, error);
        if (result)
            return result;
        block = find_room(arena, size, alignment, &at);
    }
    buffer->memory = block->memory;
    buffer->memory_offset = at;
    buffer->coherent = block->coherent;
    buffer->mapped = block->mapped ? (char *)block->mapped + at : NULL;
    VkResult code = bind(device, buffer->handle, block->memory, at, &buffer->address);
    if (code)
        return device_fail(device, code, "placing a buffer", error);
    block->used = at + size;
    arena->bytes += size;
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
    VkResult code = create_buffer(device, size, &buffer->handle);
    peridot_result result = code ? refuse(arena, code, size, name, error) : PERIDOT_OK;
    if (!result)
        result = place(arena, buffer, error);
    if (result) {
        device->vk.DestroyBuffer(device->handle, buffer->handle, device->allocator);
        free(buffer);
        return result;
    }
    device_name_object(device, VK_OBJECT_TYPE_BUFFER, (uint64_t)buffer->handle, buffer->name);
    arrput(arena->buffers, buffer);
    *out = buffer;
    return PERIDOT_OK;
}

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
