/* What the kernels must compute, in double precision: one plain loop after another, nothing of
 * Peridot. Arrays are row-major and dense unless a stride is given; sizes and strides count
 * elements. An output overlaps an input only where that is said to be allowed. */
#ifndef REFERENCE_H
#define REFERENCE_H

#include <stddef.h>
#include <stdint.h>

/* ---- Memory ---- */

/* Zeroed memory, the caller's to free(); ends the test program with a message if there is none. */
void *reference_allocate(size_t count, size_t size);
double *reference_doubles(size_t count);

/* ---- Number formats, as bit patterns ---- */

/* Exact: subnormals, infinities and the sign of zero are kept; a NaN becomes a quiet NaN. */
double reference_bf16_to_double(uint16_t bits);
double reference_f16_to_double(uint16_t bits);
double reference_f32_to_double(uint32_t bits);

/* Rounded once, from the double, to nearest with ties to even; beyond the largest value infinity;
 * a NaN becomes the format's quiet NaN of the same sign. */
uint16_t reference_double_to_bf16(double value);
uint16_t reference_double_to_f16(double value);
uint32_t reference_double_to_f32(double value);

/* wide [count] = narrow [count]. */
/* A row of a KV cache in q8: for every 32 elements a float16 scale, their greatest magnitude / 127
 * (multiplied in float32, as shaders do) or the next one up where that leaves the greatest no code,
 * 65504 at most; and codes to nearest by it. `row` [count] becomes what they stand for; `codes`
 * [count] and `scales` [ceil(count / 32)] may be NULL. */
void reference_q8(double *row, size_t count, int8_t *codes, uint16_t *scales);

void reference_widen_bf16(double *wide, const uint16_t *narrow, size_t count);
void reference_widen_f16(double *wide, const uint16_t *narrow, size_t count);
void reference_widen_f32(double *wide, const float *narrow, size_t count);

/* ---- Operations ---- */

/* y [T][D] = table [V][D] rows of tokens [T], times scale (Gemma: the square root of D). */
void reference_embedding(double *y, const double *table, const int32_t *tokens, size_t T, size_t D,
                         double scale);

/* y [T][D] = x [T][D] / sqrt(mean of x² over the row + eps) * (1 + weight [D]); y may be x. */
void reference_rmsnorm(double *y, const double *x, const double *weight, size_t T, size_t D,
                       double eps);

/* y[t][r] = Σ_k x[t][k] w[r][k], for t < T, r < R, k < K; rows begin a stride apart: y [T][≥ R],
 * x [T][≥ K], w [R][≥ K]. What lies between rows is neither read nor written. */
void reference_matmul(double *y, size_t y_stride, const double *x, size_t x_stride, const double *w,
                      size_t w_stride, size_t T, size_t R, size_t K);
/* The same for one row: y [R], x [K]. */
void reference_matvec(double *y, const double *x, const double *w, size_t w_stride, size_t R,
                      size_t K);

/* x/2 (1 + tanh(√(2/π) (x + 0.044715 x³))) */
double reference_gelu_tanh(double x);
/* y [count] = gelu_tanh(gate [count]) * up [count]; y may be either. */
void reference_geglu(double *y, const double *gate, const double *up, size_t count);

enum reference_angles {
    REFERENCE_ANGLES_EXACT,  /* position * theta^(-2i / head_dim) in double */
    REFERENCE_ANGLES_FLOAT32 /* a float32 product with a float32 frequency, as Gemma was trained:
                                at position 8000 up to 5e-4 from exact */
};
/* One row: x [heads][head_dim] in place, elements (i, i + head_dim/2) of each head turned by angle
 * i. */
void reference_rope(double *x, size_t heads, size_t head_dim, double position, double theta,
                    enum reference_angles angles);

/* y [count]: positive, sum 1; y may be x. */
void reference_softmax(double *y, const double *x, size_t count);

/* Causal attention of a chunk whose first row stands at position `base`: row t sees positions 0 to
 * base + t, so k and v have at least base + T positions.
 * out and q [T][heads][head_dim]; k and v [positions][kv_heads][head_dim]; query head h reads
 * key/value head h / (heads / kv_heads); scores are q·k * scale. */
void reference_attention(double *out, const double *q, const double *k, const double *v, size_t T,
                         size_t heads, size_t kv_heads, size_t head_dim, size_t base, double scale);

/* ---- Comparing ---- */

/* Σ (got - want)² / Σ want² over [count]; 0 if both are all zeros, infinite if only want is. A NaN
 * or an infinity on either side gives NaN or infinity, never a small number. */
double reference_nmse(const double *got, const double *want, size_t count);
double reference_nmse_f32(const float *got, const double *want, size_t count);
/* The largest |got - want|; NaN if there is a NaN (or equal infinities) in any place. */
double reference_max_error(const double *got, const double *want, size_t count);
double reference_max_error_f32(const float *got, const double *want, size_t count);

#endif
