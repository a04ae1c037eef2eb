/* Buffers, each a VkBuffer of its own (so that GPU-assisted validation sees an overrun of any
 * tensor), placed in few VkDeviceMemory blocks. */
#ifndef ENGINE_MEMORY_H
#define ENGINE_MEMORY_H

#include "device.h"

enum memory_kind {
    MEMORY_DEVICE,   /* device-local; mapped only if the device shares its memory anyway */
    MEMORY_UPLOAD,   /* host-visible, for the host to write, mapped */
    MEMORY_READBACK, /* host-visible, cached where possible, mapped */
};

struct buffer {
    VkBuffer handle;
    uint64_t address; /* device address, a multiple of 256 */
    uint64_t size;    /* as asked for */
    void *mapped;     /* the host's view, or NULL */
    VkDeviceMemory memory;
    uint64_t memory_offset;
    bool coherent;
    char name[40]; /* also its debug name */
};

/* Owns the buffers that it made: freed all at once. Not thread-safe. */
struct arena;
/* `block`: bytes that a memory block has room for at least (0: 64 MiB in all), so that small
 * buffers share one. */
peridot_result arena_create(struct device *device, enum memory_kind kind, uint64_t block,
                            struct arena **arena, peridot_error *error);
/* An arena that only counts: its buffers are NULL, and its figures what those of the same arena
 * would be, had it been asked for the same buffers in the same order and been refused none. */
peridot_result arena_plan(struct device *device, enum memory_kind kind, uint64_t block,
                          struct arena **arena, peridot_error *error);
bool arena_is_plan(const struct arena *arena);
/* Lets it take memory beyond device->memory_limit: for what is there for a moment. */
void arena_exceed_limit(struct arena *arena);
void arena_destroy(struct arena *arena); /* accepts NULL */
/* The buffers that it makes from now on are written by the transfer queue too, where the device has
 * one. They are concurrent then, if that is of another family: a buffer has no layout or
 * compression that an exclusive owner would profit from, and no barrier on both queues is needed
 * for each. */
void arena_share(struct arena *arena);
/* A buffer of `size` > 0 bytes, usable for storage, transfer both ways, indirect arguments and by
 * address. `buffer` stays valid until arena_destroy. Errors: DEVICE_MEMORY (with what was asked and
 * what is free), ARGUMENT (size over the device's limit), VULKAN. */
peridot_result arena_buffer(struct arena *arena, uint64_t size, const char *name,
                            const struct buffer **buffer, peridot_error *error);
uint64_t arena_bytes(const struct arena *arena);     /* of its buffers, aligned */
uint64_t arena_allocated(const struct arena *arena); /* of its blocks, which hold them */

/* Bytes free for MEMORY_DEVICE: in the heap that its arenas use, by VK_EXT_memory_budget where the
 * device has it. Where the memory is the host's, no more than the operating system has. */
uint64_t memory_free(struct device *device);
/* Whether arenas of this kind use the same heap as those of MEMORY_DEVICE. */
bool memory_shared(struct device *device, enum memory_kind kind);

/* For non-coherent memory; no-ops on coherent memory. Ranges within the buffer. */
peridot_result buffer_flush(struct device *device, const struct buffer *buffer, uint64_t offset,
                            uint64_t size, peridot_error *error);
peridot_result buffer_invalidate(struct device *device, const struct buffer *buffer,
                                 uint64_t offset, uint64_t size, peridot_error *error);
#endif
