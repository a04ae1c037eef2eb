/* Which pipelines a session runs: a variant for every kernel, chosen for the device, with the
 * model's sizes as specialisation constants. */
#ifndef HOST_KERNEL_SET_H
#define HOST_KERNEL_SET_H

#include "model.h"
#include "pipelines.h"

/* Passes of few rows (a decode step, a short prompt) run matvec kernels, which share a weight's
 * read among the rows; longer ones run matmul kernels on tiles. */
enum pass_shape { PASS_ONE_ROW, PASS_FEW_ROWS, PASS_MANY_ROWS, PASS_SHAPE_COUNT };
#define FEW_ROWS 8

/* The roles of a projection in the forward pass. */
enum projection { PROJECT_QKV, PROJECT_RESIDUAL, PROJECT_GEGLU, PROJECT_HEAD, PROJECTION_COUNT };

struct kernel_set {
    struct pipeline *embed[WEIGHT_TYPE_COUNT];
    struct pipeline *rmsnorm;
    struct pipeline *project[PASS_SHAPE_COUNT][PROJECTION_COUNT][WEIGHT_TYPE_COUNT];
    struct pipeline *kv_store; /* NULL but for a KV cache in q8 */
    struct pipeline *attention_decode, *attention_join, *attention_prefill;
    struct pipeline *sample_mark, *sample_score, *sample_histogram, *sample_cut, *sample_draw,
        *sample_finish;
};

/* Registers every pipeline that the model needs; pipelines_compile makes them.
 * Errors: HOST_MEMORY, UNSUPPORTED (a size that no variant can handle). */
peridot_result kernel_set_create(const struct peridot_model *model, peridot_kv kv,
                                 struct kernel_set *set, peridot_error *error);

#endif
