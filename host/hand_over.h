/* Activation rows from one device of a session to the next, through memory that the host sees: a
 * copy to the outbox, by the host into the next one's inbox, and a copy from there. With the rows
 * comes the session block's image, for devices that have no sampler to advance it. */
#ifndef HOST_HAND_OVER_H
#define HOST_HAND_OVER_H

#include "session.h"

/* Bytes of an inbox or outbox for passes of up to `rows` rows. */
uint64_t hand_over_bytes(const struct peridot_model *part, uint32_t rows);

/* Makes a part's boxes. Errors: DEVICE_MEMORY, VULKAN, HOST_MEMORY. */
peridot_result hand_over_create(struct peridot_session *part, peridot_error *error);
void hand_over_destroy(struct peridot_session *part);

/* Record the copies: rows (and, except at home, the block) out of the inbox, and rows to the outbox
 * for the host to read. What they touch on the device is ordered by the barriers that begin a
 * transfer and a segment. */
void hand_over_take(const struct peridot_session *part, VkCommandBuffer commands, uint32_t rows);
void hand_over_give(const struct peridot_session *part, VkCommandBuffer commands, uint32_t rows);
/* Makes the segments that do the same for a decode step's one row, once. */
peridot_result hand_over_record(struct peridot_session *part, peridot_error *error);

/* From one part's outbox, whose copy is done, to another's inbox. */
peridot_result hand_over_carry(const struct peridot_session *from, const struct peridot_session *to,
                               uint32_t rows, peridot_error *error);

#endif
