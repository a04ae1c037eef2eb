/* Scales for blocks of weights, by least squares. Sixteen blocks are fitted side by side: element i
 * of block l is x[i][l], so that every step is the same for all lanes, and a compiler uses
 * vectors. */
#ifndef HOST_BLOCKS_FIT_H
#define HOST_BLOCKS_FIT_H

#include <stdbool.h>
#include <stdint.h>

enum { LANES = 16, FIT_ROWS = 32 };

/* Integers q from low to high, low <= 0, and where a search begins. fit_scale tries the scales that
 * map the element of largest magnitude to each of `starts` (fit_codes: to these values of c);
 * fit_affine, with pairs, those that map the smallest to -starts[2 i] and the largest to high +
 * starts[2 i + 1], and low is 0. */
struct levels {
    float low, high;
    const float *starts;
    int count; /* of starts, or pairs */
    bool half; /* scale and offset are float16 numbers */
};

/* Blocks of `rows` values, one after another, into the lanes; those from `lanes` on become zero.
 * Values beyond what any type holds are clamped, so that no square is infinite. */
void fit_load(const float *values, int lanes, int rows, float x[][LANES]);

/* x ~ scale q */
void fit_scale(const float x[][LANES], int rows, const struct levels *levels, float scale[LANES]);

/* x ~ scale q + offset, scale >= 0, and offset <= 0 unless they are float16 numbers (K formats have
 * no other) */
void fit_affine(const float x[][LANES], int rows, const struct levels *levels, float scale[LANES],
                float offset[LANES]);

/* x ~ scale c, c one of NF4's codes */
void fit_codes(const float x[][LANES], int rows, const struct levels *levels, float scale[LANES]);

/* The squared error of x ~ scale q + offset with the best q. */
void fit_error(const float x[][LANES], int rows, const struct levels *levels,
               const float scale[LANES], const float offset[LANES], float error[LANES]);

/* Over a block with the best q: sums of q, q q, x q and x. */
struct fit_sums {
    float q[LANES], qq[LANES], xq[LANES], x[LANES];
};
void fit_sums(const float x[][LANES], int rows, const struct levels *levels,
              const float scale[LANES], const float offset[LANES], struct fit_sums *sums);

/* The best q of `count` values, less low; of codes their numbers. */
void fit_levels(const float *values, int count, const struct levels *levels, float scale,
                float offset, uint8_t *q);
void fit_code_levels(const float values[32], float scale, uint8_t q[32]);

/* The nearest float16 number, none beyond 65504. */
float fit_half(float value);

#endif
