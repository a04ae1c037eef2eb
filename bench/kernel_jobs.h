/* What the lab measures: every variant of the kernel table, built as untuned sessions build it, and
 * what is tuned with other constants besides, on every shape that the models give it. */
#ifndef BENCH_KERNEL_JOBS_H
#define BENCH_KERNEL_JOBS_H

#include "gemma_sizes.h"
#include "kernels/kernel_checks.h"
#include "options.h"
#include "user_variants.h"

struct kernel_job {
    const struct kernel_variant *variant;
    struct pipeline_key key;
    struct case_shape shape;
    char name[96];        /* of the shape: "2b, 1 token" */
    char label[96];       /* of the variant, with its constants where they are tuned ones */
    bool in_use;          /* what a session of that model runs */
    bool tuned;           /* and would not without tuning */
    const char *left_out; /* why the device cannot run it; NULL: it can */
};

struct kernel_choice {
    const char *kernels, *types, *models; /* patterns; NULL: all */
    struct numbers contexts;              /* positions that attention looks back on */
    uint32_t tokens;                      /* of a prompt's pass */
    peridot_kv kv;
    uint64_t plane_most;             /* bytes of a matrix */
    const struct user_variants *own; /* and these, of one kernel; NULL: none */
    const struct tuning *tuning;     /* of the device */
};

/* Jobs in the table's order, those of one kernel, type and shape one after another; stb_ds, the
 * caller's to free. NULL: nothing matches. */
struct kernel_job *kernel_jobs_list(struct device *device, const struct kernel_choice *choice);
/* Whether two jobs do the same work, so that their times compare. */
bool kernel_jobs_alike(const struct kernel_job *a, const struct kernel_job *b);

#endif
