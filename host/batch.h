/* Several sessions that decode in one pass. */
#ifndef HOST_BATCH_H
#define HOST_BATCH_H

#include "session.h"

struct peridot_batch {
    /* What a session has for its passes: lane, scratch, block and recordings. Its rows are those of
     * its members; it has no tokens, no KV cache and no sampler of its own. */
    struct peridot_session own;
    struct segment stops[BATCH_MAX]; /* says to member i's kernels that it is done */
    uint32_t returns[BATCH_MAX];     /* of its members, when passes were recorded */
    peridot_batch_statistics statistics;
};

/* Whether each session with a count can generate now, and any has one. Errors, which name the
 * session: as peridot_batch_start. */
peridot_result batch_check_counts(const struct peridot_batch *batch, const uint32_t *counts,
                                  peridot_error *error);
/* Says in the message of a failure which session of a batch it is about; `own`: the batch's, or of
 * a session alone, which needs no name. */
peridot_result batch_name_session(const struct peridot_session *own, uint32_t index,
                                  peridot_result result, peridot_error *error);
/* Records what a call needs that is not recorded yet, but for samplers. */
peridot_result batch_record(struct peridot_batch *batch, peridot_error *error);
/* Sets the image of the batch's block: its rows, and where their sessions are. */
void batch_set_block(struct peridot_session *own);

#endif
