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

/* Records what a call needs that is not recorded yet, but for samplers. */
peridot_result batch_record(struct peridot_batch *batch, peridot_error *error);
/* Sets the image of the batch's block: its rows, and where their sessions are. */
void batch_set_block(struct peridot_session *own);

#endif
