/* Where a decode step's time goes: by kernel, from steps with timestamps around every dispatch. */
#ifndef BENCH_MODEL_BREAKDOWN_H
#define BENCH_MODEL_BREAKDOWN_H

#include "session.h"
#include "statistics.h"

/* All dispatches of one pipeline in a step. */
struct kernel_share {
    const struct pipeline *pipeline;
    uint32_t dispatches;         /* in a step */
    double bytes;                /* that they read and write */
    double seconds[SAMPLES_MAX]; /* in a step, the mean of each run's */
};

#define SHARES_MAX 64

/* Entry i of each list is run i's. */
struct breakdown {
    struct kernel_share shares[SHARES_MAX]; /* in the order in which they first come */
    uint32_t share_count;
    double kernels[SAMPLES_MAX]; /* seconds of all dispatches of a step */
    double timed[SAMPLES_MAX];   /* of the step, as the host sees it */
    double plain[SAMPLES_MAX];   /* the same without timestamps */
};

/* One run, which becomes entry `index`: `steps` decode steps of either kind from `depth` tokens on,
 * one a call, after one of each that is left out. The breakdown is zero at first. Errors:
 * UNSUPPORTED (the device has no timestamps), and those of generating. */
peridot_result breakdown_run(struct peridot_session *session, uint32_t depth, uint32_t steps,
                             struct breakdown *breakdown, uint32_t index, peridot_error *error);

#endif
