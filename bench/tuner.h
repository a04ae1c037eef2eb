/* Finds the fastest right way to run a model's kernels on a device: every candidate is checked
 * against double precision before it is timed, and the winner has to beat what is used untuned by
 * more than noise. */
#ifndef BENCH_TUNER_H
#define BENCH_TUNER_H

#include "kernel_set.h"

/* How far it is, and what came of a kernel. */
struct tuner_progress {
    uint32_t done, all; /* kernels, each in one type and number of columns */
    struct kernel_want want;
    uint32_t tried, candidates, wrong; /* wrong: failed their check */
    bool broken; /* the kernel failed its check as it is used untuned: `fault`; it stays as it is */
    bool finished; /* the kernel: what follows is there */
    struct tuned chosen;
    double before, after; /* seconds, untuned and chosen */
    const char *fault;    /* of the last candidate that was wrong; NULL: none was */
};

struct tuner_params {
    const struct peridot_model *model; /* its sizes and types; planned will do */
    peridot_kv kv;
    bool int8;      /* activations */
    double seconds; /* about how long it may take */
    uint64_t seed;
    void (*progress)(const struct tuner_progress *progress, void *user); /* may be NULL */
    bool (*stop)(void *user); /* may be NULL; true: ends soon, and what was found is kept */
    void *user;
    /* candidates beside those of kernel_search_list, for tests */
    const struct pipeline_key *planted;
    uint32_t planted_count;
};

/* Adds to `tuning` what it finds, the kernels that take the most of a model's time first and those
 * that are in it already last; those for which no time is left stay as they were. `left` (may be
 * NULL): how many. What was added before an error is there. Errors: DEVICE_MEMORY, VULKAN,
 * HOST_MEMORY, DEVICE_LOST, UNSUPPORTED. */
peridot_result tuner_run(const struct tuner_params *params, struct tuning *tuning, uint32_t *left,
                         peridot_error *error);

#endif
