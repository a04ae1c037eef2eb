/* What a session records, for the tests that look at its dispatches. */
#ifndef TESTS_RECORDED_PASSES_H
#define TESTS_RECORDED_PASSES_H

#include "batch.h"

/* Records every pass, the head and every sampler. Fails the test on an error. */
void record_everything(struct peridot_session *session);

/* The recordings of pass `index` in order, and how many: embedding, layers, head, and of a decode
 * step (pass 0) the sampler of a kind (bits of SAMPLER_*). `list` has room for layers + 3. */
uint32_t list_pass(const struct peridot_session *session, uint32_t index, uint32_t sampler,
                   const struct recording **list);
/* The same of a batch's step, with a sampler for each session. `list` has room for layers + 2 and
 * the sessions. */
uint32_t list_batch(const struct peridot_batch *batch, uint32_t sampler,
                    const struct recording **list);

#endif
