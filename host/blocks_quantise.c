#include "blocks.h"
#include "blocks_fit.h"
#include "blocks_quantise_k.h"
#include "half.h"

#include <string.h>

static void write_16(uint8_t *bytes, uint16_t value) {
    bytes[0] = (uint8_t)value;
    bytes[1] = (uint8_t)(value >> 8);
}

/* ---- blocks of 32: the bytes are said in blocks_dequantise.c ---- */

/* Where searches begin. A few of these come within a per cent of the best of a dense search, on
 * normal and on heavy-tailed weights; whole numbers find the scale again of values that are blocks
 * already. */
static const float q8_0_starts[] = {127, 126, 125, 124, 123, 122, 121, 120};
static const float q4_0_starts[] = {-9, -8.5f, -8, -7.5f, -7, -6, 7};
static const float q5_0_starts[] = {-17, -16.5f, -16, -15.5f, -15, -14.5f, -14, 15, 14, 13};
static const float q4_1_starts[] = {0,   0,    .2f,  .2f, -.8f, .2f,  .2f,  -.8f,
                                    .4f, -.2f, -.2f, .4f, -.8f, -.6f, -.2f, -.2f};
static const float q5_1_starts[] = {0, 0,   0,    -1,    -1,    0,     -1,   -1,
                                    0, .5f, .25f, -.25f, -1.5f, -.75f, -.5f, -1.5f};
static const float nf4_starts[] = {1, 1.08f, .95f, .73f, -1, -1.08f, -.7f};

static const struct levels q8_0 = {-127, 127, q8_0_starts, 8, true};
static const struct levels q4_0 = {-8, 7, q4_0_starts, 7, true};
static const struct levels q5_0 = {-16, 15, q5_0_starts, 10, true};
static const struct levels q4_1 = {0, 15, q4_1_starts, 8, true};
static const struct levels q5_1 = {0, 31, q5_1_starts, 8, true};
static const struct levels nf4 = {-1, 1, nf4_starts, 7, true};

/* Conversions round a finite value beyond the largest to infinity. */
static uint16_t half_clamped(float value) {
    uint16_t bits = half_from_float(value);
    return (bits & 0x7fff) == 0x7c00 ? bits - 1 : bits;
}

static uint16_t bfloat_clamped(float value) {
    uint16_t bits = bfloat_from_float(value);
    return (bits & 0x7fff) == 0x7f80 ? bits - 1 : bits;
}

static void write_half(uint8_t *bytes, float value) {
    write_16(bytes, half_from_float(value));
}

/* Two nibbles a byte: element i in the low, i + 16 in the high one */
static void write_nibbles(uint8_t *bytes, const uint8_t q[32]) {
    for (int i = 0; i < 16; i++)
        bytes[i] = (uint8_t)((q[i] & 15) | q[i + 16] << 4);
}

static void write_5_bits(uint8_t *bytes, const uint8_t q[32]) {
    uint32_t high = 0;
    for (int i = 0; i < 32; i++)
        high |= (uint32_t)(q[i] >> 4) << i;
    write_16(bytes, (uint16_t)high);
    write_16(bytes + 2, (uint16_t)(high >> 16));
    write_nibbles(bytes + 4, q);
}

static void write_signed_bytes(uint8_t *bytes, const uint8_t q[32]) {
    for (int i = 0; i < 32; i++)
        bytes[i] = (uint8_t)(q[i] - 127);
}

/* A block is its scale, perhaps an offset, and the codes. */
struct format {
    const struct levels *levels;
    bool has_offset;
    void (*write_codes)(uint8_t *bytes, const uint8_t q[32]);
};

static const struct format formats[WEIGHT_TYPE_COUNT] = {
    [WEIGHT_Q8_0] = {&q8_0, false, write_signed_bytes},
    [WEIGHT_Q4_0] = {&q4_0, false, write_nibbles},
    [WEIGHT_Q4_1] = {&q4_1, true, write_nibbles},
    [WEIGHT_Q5_0] = {&q5_0, false, write_5_bits},
    [WEIGHT_Q5_1] = {&q5_1, true, write_5_bits},
    [WEIGHT_NF4] = {&nf4, false, write_nibbles},
};

static void write_block(const struct format *format, const float *values, float scale, float offset,
                        uint8_t *block) {
    uint8_t q[32];
    if (format->levels == &nf4)
        fit_code_levels(values, scale, q);
    else
        fit_levels(values, 32, format->levels, scale, offset, q);
    write_half(block, scale);
    if (format->has_offset)
        write_half(block + 2, offset);
    format->write_codes(block + (format->has_offset ? 4 : 2), q);
}

static void fit_tile(const struct levels *levels, const float tile[][LANES], float scale[LANES],
                     float offset[LANES]) {
    memset(offset, 0, LANES * sizeof *offset);
    if (levels == &nf4)
        fit_codes(tile, 32, levels, scale);
    else if (levels->low < 0)
        fit_scale(tile, 32, levels, scale);
    else
        fit_affine(tile, 32, levels, scale, offset);
}

static void quantise_blocks(enum weight_type type, const float *values, size_t count,
                            uint8_t *blocks) {
    const struct format *format = &formats[type];
    uint32_t bytes = weight_type_info(type)->block_bytes;
    float tile[FIT_ROWS][LANES], scale[LANES], offset[LANES];
    for (size_t done = 0; done < count / 32; done += LANES) {
        size_t left = count / 32 - done;
        int lanes = left < LANES ? (int)left : LANES;
        fit_load(values + 32 * done, lanes, 32, tile);
        fit_tile(format->levels, (const float(*)[LANES])tile, scale, offset);
        for (int l = 0; l < lanes; l++)
            write_block(format, values + 32 * (done + l), scale[l], offset[l],
                        blocks + bytes * (done + l));
    }
}

void blocks_quantise(enum weight_type type, const float *values, size_t count, uint8_t *blocks) {
    switch (type) {
    case WEIGHT_F32:
        for (size_t i = 0; i < count; i++) {
            uint32_t bits;
            memcpy(&bits, values + i, sizeof bits);
            write_16(blocks + 4 * i, (uint16_t)bits);
            write_16(blocks + 4 * i + 2, (uint16_t)(bits >> 16));
        }
        break;
    case WEIGHT_BF16:
        for (size_t i = 0; i < count; i++)
            write_16(blocks + 2 * i, bfloat_clamped(values[i]));
        break;
    case WEIGHT_F16:
        for (size_t i = 0; i < count; i++)
            write_16(blocks + 2 * i, half_clamped(values[i]));
        break;
    case WEIGHT_Q2_K:
    case WEIGHT_Q3_K:
    case WEIGHT_Q4_K:
    case WEIGHT_Q5_K:
    case WEIGHT_Q6_K:
        quantise_super_blocks(type, values, count, blocks);
        break;
    default:
        quantise_blocks(type, values, count, blocks);
    }
}
