/* A ring of host-visible memory through which uploads pass. */
#ifndef HOST_STAGING_H
#define HOST_STAGING_H

#include "queue.h"

#define STAGING_SLOTS 2
#define STAGING_SLOT_BYTES (16u << 20)

struct staging {
    struct lane lane; /* on the transfer queue, if it was created so */
    uint64_t slot_bytes;
    struct arena *arena;
    const struct buffer *slots[STAGING_SLOTS];
    VkCommandBuffer commands[STAGING_SLOTS];
    uint64_t pending[STAGING_SLOTS]; /* the timeline value after which a slot is free again */
    uint32_t slot;
    uint64_t used; /* bytes of the slot that are filled; 0: its commands are not being recorded */
};

/* Slots of `slot_bytes`, or of what the device allocates at most if that is less. */
peridot_result staging_create(struct device *device, uint64_t slot_bytes, struct staging *staging,
                              peridot_error *error);
/* The same through the transfer queue, where the device has one. */
peridot_result staging_create_transfer(struct device *device, uint64_t slot_bytes,
                                       struct staging *staging, peridot_error *error);
void staging_destroy(struct staging *staging); /* waits until everything sent has arrived */

/* Memory for the next up to slot_bytes bytes; waits until the device has read what was there. */
peridot_result staging_next(struct staging *staging, void **memory, peridot_error *error);
/* Sends the first `size` bytes of that memory to `buffer` at `offset`. */
peridot_result staging_send(struct staging *staging, const struct buffer *buffer, uint64_t offset,
                            uint64_t size, peridot_error *error);
/* Waits until everything sent has arrived. */
peridot_result staging_finish(struct staging *staging, peridot_error *error);

/* The same without waiting. Memory for `least` bytes, at most slot_bytes, or more: `*room`.
 * NOT_READY: the device still reads it, and polling tells when no longer. */
peridot_result staging_room(struct staging *staging, uint64_t least, void **memory, uint64_t *room,
                            peridot_error *error);
/* Puts the first `size` bytes of that memory, to go to `buffer` at `offset`, into what is sent
 * next.
 */
peridot_result staging_put(struct staging *staging, const struct buffer *buffer, uint64_t offset,
                           uint64_t size, peridot_error *error);
/* Sends what was put, if anything. */
peridot_result staging_flush(struct staging *staging, peridot_error *error);
/* Waits until there is room, without anything being put. */
peridot_result staging_wait(struct staging *staging, peridot_error *error);

#endif
