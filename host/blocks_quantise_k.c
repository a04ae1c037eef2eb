#include "blocks_quantise_k.h"
#include "block_formats.h"
#include "blocks_fit.h"
#include "half.h"

#include <string.h>

/* Nothing is fused: the same results from every compiler. gcc has no pragma for it, only
 * -ffp-contract. */
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#endif

/* The scales of a super-block are d s and its offsets -dmin m, d and dmin float16 numbers, s and m
 * small integers. Sub-blocks are lanes; all lanes of a super-block have the same d and dmin. */
struct grid {
    float d[LANES], dmin[LANES], s[LANES], m[LANES];
    float error[LANES]; /* squared, of a sub-block */
};

typedef const float (*tile)[LANES];

struct kind {
    int rows, sub_blocks; /* elements of a sub-block, sub-blocks of a super-block */
    float least, most;    /* s; m is between 0 and most, or always 0 where least is negative */
    struct levels levels;
    int moves; /* of those that its scales may make */
    void (*write)(const struct grid *grid, int first, const uint8_t *q, uint8_t *block);
};

static float clamped(float value, float low, float high) {
    return value < low ? low : value > high ? high : value;
}

/* To the nearest integer; what this is given is small */
static float rounded(float value) {
    return (float)(int)(value < 0 ? value - 0.5f : value + 0.5f);
}

static void scales_of(const struct grid *grid, float scale[LANES], float offset[LANES]) {
    for (int l = 0; l < LANES; l++) {
        scale[l] = grid->d[l] * grid->s[l];
        offset[l] = -(grid->dmin[l] * grid->m[l]);
    }
}

static void measure(const struct kind *kind, tile x, struct grid *grid) {
    float scale[LANES], offset[LANES];
    scales_of(grid, scale, offset);
    fit_error(x, kind->rows, &kind->levels, scale, offset, grid->error);
}

/* The step that brings the largest of the values of a super-block's lanes to `most` steps */
static float step_of(const float *values, int lanes, float most) {
    float largest = 0;
    for (int l = 0; l < lanes; l++) {
        float now = values[l] < 0 ? -values[l] : values[l];
        float before = largest < 0 ? -largest : largest;
        largest = now > before ? values[l] : largest;
    }
    float step = fit_half(largest / most);
    return step == 0 ? 0x1p-24f : step;
}

/* The grid nearest to the scales and offsets fitted to each sub-block by itself */
static void begin(const struct kind *kind, const float scale[LANES], const float offset[LANES],
                  struct grid *grid) {
    bool affine = kind->least == 0;
    for (int first = 0; first < LANES; first += kind->sub_blocks) {
        float d = step_of(scale + first, kind->sub_blocks, affine ? kind->most : kind->least);
        float dmin = affine ? step_of(offset + first, kind->sub_blocks, -kind->most) : 0;
        for (int l = first; l < first + kind->sub_blocks; l++) {
            grid->d[l] = d;
            grid->dmin[l] = dmin;
            grid->s[l] = clamped(rounded(scale[l] / d), kind->least, kind->most);
            grid->m[l] = affine ? clamped(rounded(-offset[l] / dmin), 0, kind->most) : 0;
        }
    }
}

/* Steps of s and m. A larger scale goes with a lower offset, so that those two moves against each
 * other gain little. */
static const signed char affine_moves[][2] = {{1, 0}, {-1, 0}, {0, 1}, {0, -1}, {1, 1}, {-1, -1}};
static const signed char scale_moves[][2] = {{1, 0}, {-1, 0}, {2, 0}, {-2, 0}};

/* s and m of each lane become the best of their neighbours. */
static void vary(const struct kind *kind, tile x, struct grid *grid) {
    const signed char(*moves)[2] = kind->least == 0 ? affine_moves : scale_moves;
    struct grid centre = *grid, trial = *grid;
    for (int i = 0; i < kind->moves; i++) {
        for (int l = 0; l < LANES; l++) {
            trial.s[l] = clamped(centre.s[l] + (float)moves[i][0], kind->least, kind->most);
            trial.m[l] = clamped(centre.m[l] + (float)moves[i][1], 0, kind->most);
        }
        measure(kind, x, &trial);
        for (int l = 0; l < LANES; l++)
            if (trial.error[l] < grid->error[l]) {
                grid->error[l] = trial.error[l];
                grid->s[l] = trial.s[l];
                grid->m[l] = trial.m[l];
            }
    }
}

/* d and dmin by least squares, given s, m and q: x ~ d (s q) - dmin m */
static void solve(const struct kind *kind, const struct fit_sums *sums, int first,
                  struct grid *grid) {
    double ss = 0, sm = 0, mm = 0, xs = 0, xm = 0;
    for (int l = first; l < first + kind->sub_blocks; l++) {
        double s = grid->s[l], m = grid->m[l];
        ss += s * s * sums->qq[l];
        sm += s * m * sums->q[l];
        mm += m * m * kind->rows;
        xs += s * sums->xq[l];
        xm += m * sums->x[l];
    }
    double determinant = ss * mm - sm * sm;
    float d = grid->d[first], dmin = grid->dmin[first];
    if (determinant > 1e-6 * ss * mm) {
        d = (float)((xs * mm - sm * xm) / determinant);
        dmin = (float)((xs * sm - ss * xm) / determinant);
    } else if (ss > 0) {
        d = (float)(xs / ss);
    }
    for (int l = first; l < first + kind->sub_blocks; l++) {
        grid->d[l] = fit_half(d);
        grid->dmin[l] = fit_half(dmin);
    }
}

/* The same for all super-blocks, where that is better */
static void refit(const struct kind *kind, tile x, struct grid *grid) {
    struct grid trial = *grid;
    struct fit_sums sums;
    float scale[LANES], offset[LANES];
    scales_of(grid, scale, offset);
    fit_sums(x, kind->rows, &kind->levels, scale, offset, &sums);
    for (int first = 0; first < LANES; first += kind->sub_blocks)
        solve(kind, &sums, first, &trial);
    measure(kind, x, &trial);
    for (int first = 0; first < LANES; first += kind->sub_blocks) {
        float gain = 0;
        for (int l = first; l < first + kind->sub_blocks; l++)
            gain += grid->error[l] - trial.error[l];
        for (int l = first; l < first + kind->sub_blocks && gain > 0; l++) {
            grid->d[l] = trial.d[l];
            grid->dmin[l] = trial.dmin[l];
            grid->error[l] = trial.error[l];
        }
    }
}

static void fit_grid(const struct kind *kind, tile x, struct grid *grid) {
    float scale[LANES], offset[LANES] = {0};
    if (kind->least == 0)
        fit_affine(x, kind->rows, &kind->levels, scale, offset);
    else
        fit_scale(x, kind->rows, &kind->levels, scale);
    begin(kind, scale, offset, grid);
    measure(kind, x, grid);
    vary(kind, x, grid);
    refit(kind, x, grid);
    vary(kind, x, grid);
}

/* ---- bytes, as said in blocks_dequantise.c ---- */

static void write_half(uint8_t *bytes, float value) {
    uint16_t bits = half_from_float(value);
    bytes[0] = (uint8_t)bits;
    bytes[1] = (uint8_t)(bits >> 8);
}

/* Element i of 256: `bits` bits of q from bit `from` on, `rows` rows of 32 elements to a byte. Row
 * r of a group of `rows` is at bit r * bits. */
static void pack(const uint8_t *q, int from, int bits, int rows, uint8_t *bytes) {
    for (int group = 0; group < 8 / rows; group++)
        for (int i = 0; i < 32; i++) {
            int byte = 0;
            for (int row = 0; row < rows; row++)
                byte |= (q[32 * (group * rows + row) + i] >> from & ((1 << bits) - 1))
                        << row * bits;
            bytes[32 * group + i] = (uint8_t)byte;
        }
}

static void write_q2_k(const struct grid *grid, int first, const uint8_t *q, uint8_t *block) {
    for (int j = 0; j < 16; j++)
        block[j] = (uint8_t)((int)grid->s[first + j] | (int)grid->m[first + j] << 4);
    pack(q, 0, 2, 4, block + 16);
    write_half(block + 80, grid->d[first]);
    write_half(block + 82, grid->dmin[first]);
}

static void write_q3_k(const struct grid *grid, int first, const uint8_t *q, uint8_t *block) {
    uint8_t *scales = block + 96;
    pack(q, 2, 1, 8, block);
    pack(q, 0, 2, 4, block + 32);
    memset(scales, 0, 12);
    for (int j = 0; j < 16; j++) {
        int s = (int)grid->s[first + j] + 32;
        scales[j % 8] |= (uint8_t)((s & 15) << 4 * (j / 8));
        scales[8 + j % 4] |= (uint8_t)(s >> 4 << 2 * (j / 4));
    }
    write_half(block + 108, grid->d[first]);
}

static void write_scales(const struct grid *grid, int first, uint8_t *bytes) {
    for (int j = 0; j < 4; j++) {
        int s = (int)grid->s[first + j], m = (int)grid->m[first + j];
        int s_4 = (int)grid->s[first + j + 4], m_4 = (int)grid->m[first + j + 4];
        bytes[j] = (uint8_t)(s | s_4 >> 4 << 6);
        bytes[4 + j] = (uint8_t)(m | m_4 >> 4 << 6);
        bytes[8 + j] = (uint8_t)((s_4 & 15) | (m_4 & 15) << 4);
    }
}

static void write_q4_k(const struct grid *grid, int first, const uint8_t *q, uint8_t *block) {
    write_half(block, grid->d[first]);
    write_half(block + 2, grid->dmin[first]);
    write_scales(grid, first, block + 4);
    pack(q, 0, 4, 2, block + 16);
}

static void write_q5_k(const struct grid *grid, int first, const uint8_t *q, uint8_t *block) {
    write_half(block, grid->d[first]);
    write_half(block + 2, grid->dmin[first]);
    write_scales(grid, first, block + 4);
    pack(q, 4, 1, 8, block + 16);
    pack(q, 0, 4, 2, block + 48);
}

static void write_q6_k(const struct grid *grid, int first, const uint8_t *q, uint8_t *block) {
    for (int i = 0; i < 128;
         i++) { /* the low bits of rows 0 and 2, 1 and 3, 4 and 6, 5 and 7 share bytes */
        const uint8_t *low = q + 128 * (i / 64) + i % 64;
        block[i] = (uint8_t)((low[0] & 15) | (low[64] & 15) << 4);
    }
    pack(q, 4, 2, 4, block + 128);
    for (int j = 0; j < 16; j++)
        block[192 + j] = (uint8_t)(int)grid->s[first + j];
    write_half(block + 208, grid->d[first]);
}

/* ---- the kinds ---- */

static const float q2_starts[] = {.27f,  .27f,  .53f, 0,    0,     .53f,
                                  -.13f, -.53f, .4f,  .53f, -.27f, -.13f};
static const float q3_starts[] = {-4.5f, -4, -3.5f, -3, -2, 3};
static const float q4_starts[] = {0, 0, .2f, .2f, -.8f, .2f, .2f, -.8f, .4f, -.2f, -.2f, .4f};
static const float q5_starts[] = {0, 0, 0, -1, -1, 0, -1, -1, 0, .5f, .25f, -.25f};
static const float q6_starts[] = {-32, -31, -30, -29, 31, 30, 29};

static const struct kind q2_k = {16, 16, 0, 15, {0, 3, q2_starts, 6, false}, 6, write_q2_k};
static const struct kind q3_k = {16, 16, -32, 31, {-4, 3, q3_starts, 6, false}, 2, write_q3_k};
static const struct kind q4_k = {32, 8, 0, 63, {0, 15, q4_starts, 6, false}, 6, write_q4_k};
static const struct kind q5_k = {32, 8, 0, 63, {0, 31, q5_starts, 6, false}, 6, write_q5_k};
static const struct kind q6_k = {16, 16, -128, 127, {-32, 31, q6_starts, 7, false}, 4, write_q6_k};

static const struct kind *kind_of(enum weight_type type) {
    switch (type) {
    case WEIGHT_Q2_K:
        return &q2_k;
    case WEIGHT_Q3_K:
        return &q3_k;
    case WEIGHT_Q4_K:
        return &q4_k;
    case WEIGHT_Q5_K:
        return &q5_k;
    default:
        return &q6_k;
    }
}

static void write_super_block(const struct kind *kind, const float *values, const struct grid *grid,
                              int first, uint8_t *block) {
    uint8_t q[SUPER_BLOCK];
    float scale[LANES], offset[LANES];
    scales_of(grid, scale, offset);
    for (int j = 0; j < kind->sub_blocks; j++)
        fit_levels(values + kind->rows * j, kind->rows, &kind->levels, scale[first + j],
                   offset[first + j], q + kind->rows * j);
    kind->write(grid, first, q, block);
}

void quantise_super_blocks(enum weight_type type, const float *values, size_t count,
                           uint8_t *blocks) {
    const struct kind *kind = kind_of(type);
    uint32_t bytes = weight_type_info(type)->block_bytes;
    float x[FIT_ROWS][LANES];
    struct grid grid;
    size_t supers = count / SUPER_BLOCK, at_once = (size_t)(LANES / kind->sub_blocks);
    for (size_t done = 0; done < supers; done += at_once) {
        size_t now = supers - done < at_once ? supers - done : at_once;
        fit_load(values + SUPER_BLOCK * done, (int)now * kind->sub_blocks, kind->rows, x);
        fit_grid(kind, (tile)x, &grid);
        for (size_t i = 0; i < now; i++)
            write_super_block(kind, values + SUPER_BLOCK * (done + i), &grid,
                              (int)i * kind->sub_blocks, blocks + bytes * (done + i));
    }
}
