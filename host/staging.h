/* A ring of host-visible memory through which uploads pass. */
#ifndef HOST_STAGING_H
#define HOST_STAGING_H

#include "queue.h"

#define STAGING_SLOTS 2
#define STAGING_SLOT_BYTES (16u << 20)

struct staging {
    struct lane lane;
    uint64_t slot_bytes;
    struct arena *arena;
    const struct buffer *slots[STAGING_SLOTS];
    VkCommandBuffer commands[STAGING_SLOTS];
    uint64_t pending[STAGING_SLOTS]; /* the timeline value after which a slot is free again */
    uint32_t slot;
};

/* Slots of `slot_bytes`, or of what the device allocates at most if that is less. */
peridot_result staging_create(struct device *device, uint64_t slot_bytes, struct staging *staging,
                              peridot_error *error);
void staging_destroy(struct staging *staging);
/* Memory for the next up to slot_bytes bytes; waits until the device has read what was there. */
peridot_result staging_next(struct staging *staging, void **memory, peridot_error *error);
/* Sends the first `size` bytes of that memory to `buffer` at `offset`. */
peridot_result staging_send(struct staging *staging, const struct buffer *buffer, uint64_t offset,
                            uint64_t size, peridot_error *error);
/* Waits until everything sent has arrived. */
peridot_result staging_finish(struct staging *staging, peridot_error *error);

#endif
