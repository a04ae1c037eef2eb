/* Which pipelines a session runs: a variant for every kernel, as the device's tuning says or else
 * chosen for the device, with the model's sizes as specialisation constants. */
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
    bool int8;  /* activations in eight bits, wherever weights have blocks */
    bool tuned; /* some of it other than by default, as measured on the device */
    struct pipeline *embed[WEIGHT_TYPE_COUNT];
    struct pipeline *rmsnorm;
    struct pipeline *quantise, *quantise_norm; /* NULL without int8 */
    struct pipeline *project[PASS_SHAPE_COUNT][PROJECTION_COUNT][WEIGHT_TYPE_COUNT];
    struct pipeline *capture;
    struct pipeline *kv_store; /* NULL but for a KV cache in q8 */
    struct pipeline *attention_decode, *attention_join, *attention_prefill;
    struct pipeline *sample_mark, *sample_score, *sample_score_masked, *sample_histogram,
        *sample_cut, *sample_draw, *sample_finish;
    struct pipeline *batch_rows; /* NULL but in a batch's */
};

/* The variant of a kernel that sessions of a model run on its device where it is not tuned; NULL:
 * it can run none.
 * `columns` as kernel_set_columns has them. */
const struct kernel_variant *kernel_set_variant(const struct peridot_model *model,
                                                enum kernel kernel, uint32_t columns);
/* How they build a variant: of the model its device and sizes count. */
struct pipeline_key kernel_set_key(const struct peridot_model *model,
                                   const struct kernel_variant *variant, uint32_t type,
                                   uint32_t columns, peridot_kv kv);
/* The variant that they do run, and how they build it: `*tuned` where that is other than untuned.
 * False: there is none. */
bool kernel_set_used(const struct peridot_model *model, enum kernel kernel, uint32_t type,
                     uint32_t columns, peridot_kv kv, struct pipeline_key *key, bool *tuned);
/* The SPEC_COLUMNS that a kernel's variants are built with (0: the variant's own, for passes of
 * many rows); how many. */
#define KERNEL_SET_COLUMNS_MAX 3
uint32_t kernel_set_columns(const struct peridot_model *model, enum kernel kernel,
                            uint32_t columns[KERNEL_SET_COLUMNS_MAX]);

/* What a tuning of a kernel is found by. */
struct tuning_place kernel_set_place(const struct peridot_model *model, enum kernel kernel,
                                     uint32_t type, uint32_t columns, peridot_kv kv);

/* A kernel that sessions of a model run, as they build it where it is not tuned. */
struct kernel_want {
    struct tuning_place place;
    struct pipeline_key key;
};
/* Calls `visit` for each, for some several times. Errors: UNSUPPORTED, as below. */
peridot_result kernel_set_visit(const struct peridot_model *model, peridot_kv kv, bool int8,
                                void (*visit)(const struct kernel_want *want, void *user),
                                void *user, peridot_error *error);

/* Registers every pipeline that a part of a model needs; pipelines_compile makes them.
 * Errors: HOST_MEMORY, UNSUPPORTED (a size that no variant can handle). */
peridot_result kernel_set_create(const struct peridot_model *model, peridot_kv kv, bool int8,
                                 struct kernel_set *set, peridot_error *error);
/* Makes a set of a session's for a batch of `count` such sessions: the pipelines that a pass of one
 * row has, for as many rows, in the place of those for few rows. Errors: HOST_MEMORY. */
peridot_result kernel_set_for_batch(struct kernel_set *set, struct device *device, uint32_t count,
                                    peridot_error *error);
/* Whether projections of such weights take quantised activations. */
bool kernel_set_quantises(const struct kernel_set *set, enum weight_type type);

#endif
