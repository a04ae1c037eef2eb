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
    uint64_t size, used;
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
        int score = (has & wishes[arena->kind].liked ? 2 : 0) +
                    (has & wishes[arena->kind].disliked ? 0 : 1);
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

static peridot_result add_block(struct arena *arena, uint64_t size, uint32_t types,
                                const char *name, peridot_error *error) {
    struct device *device = arena->device;
    uint64_t most = device->info.limits.max_allocation;
    struct block block = {.size = size > arena->block_size ? size : arena->block_size};
    block.size = block.size > most && size <= most ? size : block.size;
    uint32_t type = memory_type(arena, types);
    if (type == UINT32_MAX)
        return fail(error, PERIDOT_ERROR_VULKAN, "%s has no memory type for %s", device->info.name,
                    name);
    VkMemoryAllocateFlagsInfo flags = {.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_FLAGS_INFO,
                                       .flags = VK_MEMORY_ALLOCATE_DEVICE_ADDRESS_BIT};
    VkMemoryAllocateInfo info = {.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
                                 .pNext = &flags,
                                 .allocationSize = block.size,
                                 .memoryTypeIndex = type};
    VkResult code =
        device->vk.AllocateMemory(device->handle, &info, device->allocator, &block.memory);
    if (code == VK_ERROR_OUT_OF_DEVICE_MEMORY && block.size > size) {
        info.allocationSize = block.size = size; /* what is left may do for this buffer alone */
        code = device->vk.AllocateMemory(device->handle, &info, device->allocator, &block.memory);
    }
    if (code)
        return refuse(arena, code, size, name, error);
    VkMemoryPropertyFlags has = device->memory.memoryTypes[type].propertyFlags;
    block.coherent = has & VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
    if (arena->kind != MEMORY_DEVICE)
        code =
            device->vk.MapMemory(device->handle, block.memory, 0, VK_WHOLE_SIZE, 0, &block.mapped);
    if (code) {
        device->vk.FreeMemory(device->handle, block.memory, device->allocator);
        return device_fail(device, code, "mapping memory", error);
    }
    device->memory_used += block.size;
    arrput(arena->blocks, block);
    return PERIDOT_OK;
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
    struct block *block = arrlen(arena->blocks) ? &arrlast(arena->blocks) : NULL;
    uint64_t at = block ? (block->used + alignment - 1) / alignment * alignment : 0;
    if (!block || at + size > block->size) {
        peridot_result result =
            add_block(arena, size, needs.memoryRequirements.memoryTypeBits, buffer->name, error);
        if (result)
            return result;
        block = &arrlast(arena->blocks);
        at = 0;
    }
    block->used = at + size;
    arena->bytes += size;
    buffer->memory = block->memory;
    buffer->memory_offset = at;
    buffer->coherent = block->coherent;
    buffer->mapped = block->mapped ? (char *)block->mapped + at : NULL;
    VkBindBufferMemoryInfo bind = {.sType = VK_STRUCTURE_TYPE_BIND_BUFFER_MEMORY_INFO,
                                   .buffer = buffer->handle,
                                   .memory = block->memory,
                                   .memoryOffset = at};
    VkResult code = device->vk.BindBufferMemory2(device->handle, 1, &bind);
    return code ? device_fail(device, code, "placing a buffer", error) : PERIDOT_OK;
}

peridot_result arena_buffer(struct arena *arena, uint64_t size, const char *name,
                            const struct buffer **out, peridot_error *error) {
    struct device *device = arena->device;
    *out = NULL;
    if (size == 0 || size > device->info.limits.max_allocation)
        return fail(error, PERIDOT_ERROR_ARGUMENT,
                    "a buffer of %.1f MiB for %s: %s allocates up to %.1f MiB at once",
                    (double)size / (1 << 20), name, device->info.name,
                    (double)device->info.limits.max_allocation / (1 << 20));
    struct buffer *buffer = calloc(1, sizeof *buffer);
    if (!buffer)
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory for a buffer");
    buffer->size = size;
    snprintf(buffer->name, sizeof buffer->name, "%s", name);
    VkBufferCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
        .size = size,
        .usage = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT | VK_BUFFER_USAGE_TRANSFER_SRC_BIT |
                 VK_BUFFER_USAGE_TRANSFER_DST_BIT | VK_BUFFER_USAGE_INDIRECT_BUFFER_BIT |
                 VK_BUFFER_USAGE_SHADER_DEVICE_ADDRESS_BIT,
    };
    VkResult code =
        device->vk.CreateBuffer(device->handle, &info, device->allocator, &buffer->handle);
    peridot_result result = code ? refuse(arena, code, size, name, error) : PERIDOT_OK;
    if (!result)
        result = place(arena, buffer, error);
    if (result) {
        if (buffer->handle)
            device->vk.DestroyBuffer(device->handle, buffer->handle, device->allocator);
        free(buffer);
        return result;
    }
    VkBufferDeviceAddressInfo about = {.sType = VK_STRUCTURE_TYPE_BUFFER_DEVICE_ADDRESS_INFO,
                                       .buffer = buffer->handle};
    buffer->address = device->vk.GetBufferDeviceAddress(device->handle, &about);
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
