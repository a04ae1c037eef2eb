/* One check for every kernel of the table: runs a variant on a random case and compares. */
#ifndef TESTS_KERNEL_CHECKS_H
#define TESTS_KERNEL_CHECKS_H

#include "kernel_bench.h"
#include "model.h"

/* Float32 sums against double ones: rounding alone leaves 1e-15 to 1e-13. */
#define NMSE_F32 1e-11
/* Where results are stored as float16: 2^-11 at most for each, so 8e-8 on average. */
#define NMSE_F16 1e-6
/* Products with activations in eight bits against those with the float32 ones. */
#define NMSE_INT8 5e-4

typedef void kernel_check(struct bench *bench, const struct kernel_variant *variant, uint32_t type);

kernel_check check_projection; /* matvec_*, matmul_*, dot_* */
kernel_check check_embed, check_rmsnorm, check_capture;
kernel_check check_kv_store;
kernel_check check_batch_rows;
kernel_check check_quantise; /* quantise, quantise_norm */
kernel_check check_attention_decode, check_attention_join, check_attention_prefill;
/* The sampler's kernels read each other's work: this runs all of them, in order, with `variant` for
 * its own kernel and the first variants for the others. */
kernel_check check_sampler;

/* The check of a kernel; NULL: it has none. */
kernel_check *kernel_check_of(enum kernel kernel);
/* A model's sizes, for a pass of one token at position 0. */
struct case_shape case_shape_of(const struct model_config *config);
/* Runs a check once; false: bench->failure says what is wrong. */
bool kernel_passes(struct bench *bench, kernel_check *check, const struct kernel_variant *variant,
                   uint32_t type);

/* ---- What several of them need ---- */

/* Floats [32 * blocks] to a row of quantised activations as abi.h has it; `values` gets what its
 * elements are worth. */
void quantise_row(const float *x, uint32_t blocks, uint32_t *row, double *values);

/* The plane of a session block with random contents, for `rows` rows at `position`; one in eight is
 * done, and then a kernel must not do anything. */
struct plane *session_plane(struct bench *bench, uint32_t position, uint32_t rows);
struct session_block *session_of(struct plane *plane);

uint32_t divide_up(uint32_t value, uint32_t by);

/* The KV cache of a case: poisoned chunks for positions [begin, end), entered in the session block.
 */
struct kv_case {
    uint32_t layers, layer, kv_heads, head_dim, padded;
    uint32_t type; /* KV_F16 ... */
    struct plane *chunks[KV_CHUNKS_MAX];
};
void kv_create(struct bench *bench, struct kv_case *kv, struct plane *session, uint32_t begin,
               uint32_t end);
/* The layer's place in a chunk, in quads, as kernels are told. */
uint32_t kv_layer_offset(const struct kv_case *kv);
/* Where a position's key (which = 0) or value (1) begins in its chunk's plane, in bytes. */
uint64_t kv_row_at(const struct kv_case *kv, uint32_t which, uint32_t head, uint32_t position);
/* Stores a key or value [padded], which becomes what is stored. */
void kv_write(const struct kv_case *kv, uint32_t which, uint32_t head, uint32_t position,
              double *row);
/* Element i of a key or value, not in q8. A kernel may write elements i and i + 1. */
double kv_read(const struct kv_case *kv, uint32_t which, uint32_t head, uint32_t position,
               uint32_t i);
void kv_expect_pair(struct bench *bench, const struct kv_case *kv, uint32_t which, uint32_t head,
                    uint32_t position, uint32_t i);

#endif
