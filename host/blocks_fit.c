#include "blocks_fit.h"
#include "block_formats.h"

#include <string.h>

/* Nothing is fused: the same results from every compiler. gcc has no pragma for it, only
 * -ffp-contract. */
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#endif

/* One function for several instruction sets, chosen as the program starts. Only glibc does that,
 * and a sanitizer is not up that early. */
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED
#endif
#elif defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED
#endif
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__has_attribute) && !defined(SANITIZED)
#if __has_attribute(target_clones)
#define CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#endif
#endif
#ifndef CLONES
#define CLONES
#endif
#if defined(__GNUC__)
#define INLINE static inline __attribute__((always_inline))
#else
#define INLINE static inline
#endif

#define EACH_LANE for (int l = 0; l < LANES; l++)

static const float smallest = 0x1p-24f;    /* of positive float16 numbers */
static const float to_integer = 0x1.8p23f; /* a float32 plus this has no fraction left */

INLINE float from_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

INLINE uint32_t to_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* `?:` that stays without a branch, so that loops become vectors */
INLINE float choose(bool which, float first, float second) {
    uint32_t mask = 0 - (uint32_t)which;
    return from_bits((to_bits(first) & mask) | (to_bits(second) & ~mask));
}

/* As half_from_float and back, without branches. */
INLINE float round_to_half(float value) {
    uint32_t bits = to_bits(value), magnitude = bits & 0x7fffffff;
    uint32_t normal = (magnitude + 0xfff + (magnitude >> 13 & 1)) & 0xffffe000;
    float sum = from_bits(magnitude) + 0.5f; /* a multiple of 2^-24, as subnormals are */
    uint32_t subnormal = to_bits(sum - 0.5f);
    uint32_t rounded = magnitude < 0x38800000 ? subnormal : normal;
    rounded = rounded > 0x477fe000 ? 0x477fe000 : rounded; /* 65504 */
    return from_bits(rounded | (bits & 0x80000000));
}

float fit_half(float value) {
    return round_to_half(value);
}

/* The bits of low and high plus to_integer: as int32 numbers, those of all sums are in order. */
struct bounds {
    int32_t low, high;
};

INLINE struct bounds bounds_of(const struct levels *levels) {
    float low = levels->low + to_integer, high = levels->high + to_integer;
    return (struct bounds){(int32_t)to_bits(low), (int32_t)to_bits(high)};
}

INLINE int32_t level_bits(float value, struct bounds bounds) {
    float sum = value + to_integer;
    int32_t bits = (int32_t)to_bits(sum);
    bits = bits < bounds.low ? bounds.low : bits;
    return bits > bounds.high ? bounds.high : bits;
}

/* The integer nearest to a value, within bounds */
INLINE float level(float value, struct bounds bounds) {
    return from_bits((uint32_t)level_bits(value, bounds)) - to_integer;
}

INLINE float inverse(float scale) {
    return choose(scale == 0, 0, 1 / scale);
}

void fit_load(const float *values, int lanes, int rows, float x[][LANES]) {
    const float most = 0x1p29f; /* Q6_K's 65504 * 128 * 32 is the largest of all */
    memset(x, 0, (size_t)rows * sizeof *x);
    for (int l = 0; l < lanes; l++)
        for (int i = 0; i < rows; i++) {
            float value = values[l * rows + i];
            value = value < most ? value : most; /* what is no number goes, too */
            x[i][l] = value > -most ? value : -most;
        }
}

/* ---- x ~ scale q ---- */

/* The element of largest magnitude, and the sum of squares */
INLINE void extremes(const float x[][LANES], int rows, float extreme[LANES], float squares[LANES]) {
    float largest[LANES];
    EACH_LANE extreme[l] = largest[l] = squares[l] = 0;
    for (int i = 0; i < rows; i++)
        EACH_LANE {
            float value = x[i][l], magnitude = from_bits(to_bits(value) & 0x7fffffff);
            bool larger = magnitude > largest[l];
            extreme[l] = choose(larger, value, extreme[l]);
            largest[l] = choose(larger, magnitude, largest[l]);
            squares[l] += value * value;
        }
}

/* Squares of what is left of x after scale q, r, and its products with q */
struct residue {
    float rr[LANES], rq[LANES], qq[LANES];
};

INLINE void residue_of(const float x[][LANES], int rows, struct bounds bounds,
                       const float scale[LANES], struct residue *sums) {
    float by[LANES];
    EACH_LANE {
        by[l] = 1 / scale[l];
        sums->rr[l] = sums->rq[l] = sums->qq[l] = 0;
    }
    for (int i = 0; i < rows; i++)
        EACH_LANE {
            float scaled = x[i][l] * by[l], q = level(scaled, bounds), r = scaled - q;
            sums->rr[l] += r * r;
            sums->rq[l] += r * q;
            sums->qq[l] += q * q;
        }
}

/* With the q of `scale`, the least squares scale is better than what there was, or not. */
INLINE void refit_scale(const struct residue *sums, bool half, const float scale[LANES],
                        float best[LANES], float error[LANES]) {
    EACH_LANE {
        float s = scale[l], more = choose(sums->qq[l] > 0, s * sums->rq[l] / sums->qq[l], 0);
        float refit = choose(half, round_to_half(s + more), s + more), less = s - refit;
        float left = s * s * sums->rr[l] + less * (2 * s * sums->rq[l] + less * sums->qq[l]);
        bool better = left < error[l];
        error[l] = choose(better, left, error[l]);
        best[l] = choose(better, refit, best[l]);
    }
}

/* No scale of less than 2^-24 can be stored, and their inverses could be infinite. */
INLINE float usable(float scale, bool half) {
    float rounded = choose(half, round_to_half(scale), scale);
    float magnitude = from_bits(to_bits(rounded) & 0x7fffffff);
    return choose(magnitude < smallest, smallest, rounded);
}

CLONES static void lanes_scale(const float x[][LANES], int rows, const struct levels *levels,
                               float scale[LANES]) {
    struct bounds bounds = bounds_of(levels);
    float extreme[LANES], error[LANES], best[LANES], start[LANES];
    struct residue sums;
    extremes(x, rows, extreme, error);
    EACH_LANE best[l] = 0;
    for (int c = 0; c < levels->count; c++) {
        EACH_LANE start[l] = usable(extreme[l] / levels->starts[c], levels->half);
        residue_of(x, rows, bounds, start, &sums);
        refit_scale(&sums, levels->half, start, best, error);
    }
    /* the q of the best scale may differ from those it was fitted to */
    EACH_LANE start[l] = usable(best[l], levels->half);
    residue_of(x, rows, bounds, start, &sums);
    refit_scale(&sums, levels->half, start, best, error);
    memcpy(scale, best, sizeof best);
}

/* ---- x ~ scale q + offset ---- */

/* x less its mean, and the ends of what that leaves */
struct centred {
    float x[FIT_ROWS][LANES], mean[LANES], low[LANES], high[LANES];
};

INLINE void centre(const float x[][LANES], int rows, struct centred *centred) {
    float *mean = centred->mean, *low = centred->low, *high = centred->high;
    EACH_LANE {
        mean[l] = 0;
        low[l] = high[l] = x[0][l];
    }
    for (int i = 0; i < rows; i++)
        EACH_LANE {
            float value = x[i][l];
            mean[l] += value;
            low[l] = choose(value < low[l], value, low[l]);
            high[l] = choose(value > high[l], value, high[l]);
        }
    EACH_LANE {
        mean[l] /= (float)rows;
        low[l] -= mean[l];
        high[l] -= mean[l];
    }
    for (int i = 0; i < rows; i++)
        EACH_LANE centred->x[i][l] = x[i][l] - mean[l];
}

INLINE void sums_of(const float x[][LANES], int rows, struct bounds bounds,
                    const float scale[LANES], const float offset[LANES], struct fit_sums *sums) {
    float by[LANES];
    EACH_LANE {
        by[l] = inverse(scale[l]);
        sums->q[l] = sums->qq[l] = sums->xq[l] = 0;
    }
    for (int i = 0; i < rows; i++)
        EACH_LANE {
            float value = x[i][l], q = level((value - offset[l]) * by[l], bounds);
            sums->q[l] += q;
            sums->qq[l] += q * q;
            sums->xq[l] += value * q;
        }
}

/* The best fit so far: by how much the squared error is less than that of the mean. Offsets are of
 * centred x. */
struct affine {
    float scale[LANES], offset[LANES], gain[LANES];
};

INLINE float allowed_offset(float offset, bool half) {
    return choose(half, round_to_half(offset), choose(offset > 0, 0, offset));
}

INLINE void refit_affine(const struct fit_sums *sums, int rows, bool half, const float mean[LANES],
                         const float scale[LANES], struct affine *best) {
    EACH_LANE {
        float n = (float)rows, q = sums->q[l], qq = sums->qq[l], xq = sums->xq[l];
        float spread = qq - q * q / n, fitted = choose(spread > 0, xq / spread, scale[l]);
        float s = choose(fitted > 0, fitted, scale[l]);
        s = choose(half, round_to_half(s), s);
        float offset = allowed_offset(mean[l] - s * q / n, half);
        /* where the offset had to be another, the scale that is best with it */
        float o = offset - mean[l], other = choose(qq > 0, (xq - o * q) / qq, s);
        s = choose(half | !(other > 0), s, other);
        float gain = s * (2 * xq - s * qq) - o * (n * o + 2 * s * q);
        bool better = gain > best->gain[l];
        best->gain[l] = choose(better, gain, best->gain[l]);
        best->scale[l] = choose(better, s, best->scale[l]);
        best->offset[l] = choose(better, o, best->offset[l]);
    }
}

CLONES static void lanes_affine(const float x[][LANES], int rows, const struct levels *levels,
                                float scale[LANES], float offset[LANES]) {
    struct bounds bounds = bounds_of(levels);
    struct centred centred;
    struct affine best;
    struct fit_sums sums;
    float s[LANES], o[LANES];
    centre(x, rows, &centred);
    const float(*y)[LANES] = (const float(*)[LANES])centred.x;
    EACH_LANE {
        best.scale[l] = 0;
        best.offset[l] = allowed_offset(centred.mean[l], levels->half) - centred.mean[l];
        best.gain[l] = -(float)rows * best.offset[l] * best.offset[l];
    }
    for (int c = 0; c < levels->count; c++) {
        float below = levels->starts[2 * c], above = levels->starts[2 * c + 1];
        float steps = levels->high + below + above;
        EACH_LANE {
            s[l] = usable((centred.high[l] - centred.low[l]) / steps, levels->half);
            o[l] = centred.low[l] + below * s[l];
        }
        sums_of(y, rows, bounds, s, o, &sums);
        refit_affine(&sums, rows, levels->half, centred.mean, s, &best);
    }
    for (int again = 0; again < 2; again++) {
        EACH_LANE s[l] = usable(best.scale[l], levels->half);
        sums_of(y, rows, bounds, s, best.offset, &sums);
        refit_affine(&sums, rows, levels->half, centred.mean, s, &best);
    }
    EACH_LANE {
        scale[l] = best.scale[l];
        offset[l] = allowed_offset(best.offset[l] + centred.mean[l], levels->half);
    }
}

/* ---- x ~ scale c ---- */

struct code_table {
    float codes[16], between[15]; /* in the middle between two codes */
};

/* A copy: of constants a compiler would choose the squares as well, one by one. */
INLINE struct code_table code_table(void) {
    struct code_table table;
    memcpy(table.codes, nf4_codes, sizeof table.codes);
    for (int k = 0; k < 15; k++)
        table.between[k] = (nf4_codes[k] + nf4_codes[k + 1]) * 0.5f;
    return table;
}

INLINE float nearest_code(float value, const struct code_table *table) {
    float code = table->codes[0];
    for (int k = 0; k < 15; k++)
        code = value > table->between[k] ? table->codes[k + 1] : code;
    return code;
}

CLONES static void lanes_codes(const float x[][LANES], int rows, const struct levels *levels,
                               float scale[LANES]) {
    float extreme[LANES], squares[LANES], best[LANES], gain[LANES], s[LANES], by[LANES];
    float xc[LANES], cc[LANES];
    struct code_table table = code_table();
    extremes(x, rows, extreme, squares);
    EACH_LANE best[l] = gain[l] = 0;
    for (int c = 0; c < levels->count; c++) {
        EACH_LANE {
            s[l] = usable(extreme[l] / levels->starts[c], true);
            by[l] = 1 / s[l];
            xc[l] = cc[l] = 0;
        }
        for (int i = 0; i < rows; i++)
            EACH_LANE {
                float value = x[i][l], code = nearest_code(value * by[l], &table);
                xc[l] += value * code;
                cc[l] += code * code;
            }
        EACH_LANE {
            float refit = choose(cc[l] > 0, round_to_half(xc[l] / cc[l]), 0);
            float more = refit * (2 * xc[l] - refit * cc[l]);
            bool better = more > gain[l];
            best[l] = choose(better, refit, best[l]);
            gain[l] = choose(better, more, gain[l]);
        }
    }
    memcpy(scale, best, sizeof best);
}

/* ---- a given scale and offset ---- */

CLONES static void lanes_error(const float x[][LANES], int rows, const struct levels *levels,
                               const float scale[LANES], const float offset[LANES],
                               float error[LANES]) {
    struct bounds bounds = bounds_of(levels);
    float by[LANES], squares[LANES];
    EACH_LANE {
        by[l] = inverse(scale[l]);
        squares[l] = 0;
    }
    for (int i = 0; i < rows; i++)
        EACH_LANE {
            float value = x[i][l] - offset[l], r = value - scale[l] * level(value * by[l], bounds);
            squares[l] += r * r;
        }
    memcpy(error, squares, sizeof squares);
}

CLONES static void lanes_sums(const float x[][LANES], int rows, const struct levels *levels,
                              const float scale[LANES], const float offset[LANES],
                              struct fit_sums *sums) {
    struct fit_sums local;
    sums_of(x, rows, bounds_of(levels), scale, offset, &local);
    EACH_LANE local.x[l] = 0;
    for (int i = 0; i < rows; i++)
        EACH_LANE local.x[l] += x[i][l];
    *sums = local;
}

CLONES static void row_levels(const float *values, int count, const struct levels *levels,
                              float scale, float offset, uint8_t *q) {
    struct bounds bounds = bounds_of(levels);
    float by = inverse(scale);
    for (int i = 0; i < count; i++)
        q[i] = (uint8_t)(level_bits((values[i] - offset) * by, bounds) - bounds.low);
}

CLONES static void row_code_levels(const float values[32], float scale, uint8_t q[32]) {
    float by = inverse(scale);
    int32_t numbers[32];
    struct code_table table = code_table();
    for (int i = 0; i < 32; i++) {
        float value = values[i] * by;
        int32_t number = 0;
        for (int k = 0; k < 15; k++)
            number += value > table.between[k];
        numbers[i] = number;
    }
    for (int i = 0; i < 32; i++)
        q[i] = (uint8_t)numbers[i];
}

/* ---- what other files call: some compilers give a clone no name there ---- */

void fit_scale(const float x[][LANES], int rows, const struct levels *levels, float scale[LANES]) {
    lanes_scale(x, rows, levels, scale);
}

void fit_affine(const float x[][LANES], int rows, const struct levels *levels, float scale[LANES],
                float offset[LANES]) {
    lanes_affine(x, rows, levels, scale, offset);
}

void fit_codes(const float x[][LANES], int rows, const struct levels *levels, float scale[LANES]) {
    lanes_codes(x, rows, levels, scale);
}

void fit_error(const float x[][LANES], int rows, const struct levels *levels,
               const float scale[LANES], const float offset[LANES], float error[LANES]) {
    lanes_error(x, rows, levels, scale, offset, error);
}

void fit_sums(const float x[][LANES], int rows, const struct levels *levels,
              const float scale[LANES], const float offset[LANES], struct fit_sums *sums) {
    lanes_sums(x, rows, levels, scale, offset, sums);
}

void fit_levels(const float *values, int count, const struct levels *levels, float scale,
                float offset, uint8_t *q) {
    row_levels(values, count, levels, scale, offset, q);
}

void fit_code_levels(const float values[32], float scale, uint8_t q[32]) {
    row_code_levels(values, scale, q);
}
