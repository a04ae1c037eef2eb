/* The forward pass and the sampler, recorded as segments. */
#ifndef HOST_FORWARD_H
#define HOST_FORWARD_H

#include "session.h"

/* Bits of a sampler kind. */
#define SAMPLER_PENALTY 1
#define SAMPLER_TOP_K 2
#define SAMPLER_TOP_P 4
#define SAMPLER_MASK 8

/* Records what is not recorded yet; the segments stay until forward_free_segment. */
peridot_result forward_record_pass(struct peridot_session *session, struct pass *pass,
                                   peridot_error *error);
peridot_result forward_record_head(struct peridot_session *session, peridot_error *error);
peridot_result forward_record_sampler(struct peridot_session *session, uint32_t kind,
                                      peridot_error *error);
/* The head for all rows of a pass, into `logits` [rows][vocabulary]; recorded into one command
 * buffer by the caller, once. */
peridot_result forward_record_logits(struct peridot_session *session, const struct pass *pass,
                                     const struct buffer *logits, VkCommandBuffer commands,
                                     peridot_error *error);
void forward_free_pass(struct peridot_session *session, struct pass *pass);
void forward_free_segment(struct peridot_session *session, struct segment *segment);

/* What attention of `rows` new rows costs at a context of `length`, in one layer. */
struct cost forward_attention_cost(const struct peridot_session *session, uint32_t rows,
                                   uint32_t length);
/* Sets a block for a pass over the `rows` tokens from position `base` on. */
void forward_begin_pass(struct session_block *block, uint32_t base, uint32_t rows);
/* How decode attention cuts `length` positions; the sampler's last kernel computes the same. */
void forward_attention_grid(struct session_block *block, uint32_t length, uint32_t rows);

#endif
