#include "block_formats.h"
#include "blocks.h"
#include "half.h"

#include <string.h>

/* Nothing is fused: the same results from every compiler. gcc has no pragma for it, only
 * -ffp-contract. */
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#endif

static uint16_t read_16(const uint8_t *bytes) {
    return (uint16_t)(bytes[0] | bytes[1] << 8);
}

static uint32_t read_32(const uint8_t *bytes) {
    return read_16(bytes) | (uint32_t)read_16(bytes + 2) << 16;
}

static float read_half(const uint8_t *bytes) {
    return half_to_float(read_16(bytes));
}

static int bits_of(uint32_t value, int at, int count) {
    return (int)(value >> at & ((1u << count) - 1));
}

/* ---- blocks of 32 ---- */

/* half d, int8 q[32]: d q */
static void read_q8_0(const uint8_t *block, float *values) {
    float scale = read_half(block);
    for (int i = 0; i < 32; i++)
        values[i] = scale * (float)(int8_t)block[2 + i];
}

/* half d, 16 bytes of q (element i in the low, i + 16 in the high nibble of byte i): d (q - 8) */
static void read_q4_0(const uint8_t *block, float *values) {
    float scale = read_half(block);
    for (int i = 0; i < 16; i++) {
        values[i] = scale * (float)(bits_of(block[2 + i], 0, 4) - 8);
        values[i + 16] = scale * (float)(bits_of(block[2 + i], 4, 4) - 8);
    }
}

/* half d, half m, 16 bytes of q as in Q4_0: d q + m */
static void read_q4_1(const uint8_t *block, float *values) {
    float scale = read_half(block), minimum = read_half(block + 2);
    for (int i = 0; i < 16; i++) {
        values[i] = scale * (float)bits_of(block[4 + i], 0, 4) + minimum;
        values[i + 16] = scale * (float)bits_of(block[4 + i], 4, 4) + minimum;
    }
}

/* The 5-bit q of blocks of 32: 4 bytes of high bits (element i in bit i), 16 bytes of low bits as
 * in Q4_0 */
static void read_5_bits(const uint8_t *bytes, int q[32]) {
    uint32_t high = read_32(bytes);
    for (int i = 0; i < 16; i++) {
        q[i] = bits_of(bytes[4 + i], 0, 4) | bits_of(high, i, 1) << 4;
        q[i + 16] = bits_of(bytes[4 + i], 4, 4) | bits_of(high, i + 16, 1) << 4;
    }
}

/* half d, 20 bytes of 5-bit q: d (q - 16) */
static void read_q5_0(const uint8_t *block, float *values) {
    float scale = read_half(block);
    int q[32];
    read_5_bits(block + 2, q);
    for (int i = 0; i < 32; i++)
        values[i] = scale * (float)(q[i] - 16);
}

/* half d, half m, 20 bytes of 5-bit q: d q + m */
static void read_q5_1(const uint8_t *block, float *values) {
    float scale = read_half(block), minimum = read_half(block + 2);
    int q[32];
    read_5_bits(block + 4, q);
    for (int i = 0; i < 32; i++)
        values[i] = scale * (float)q[i] + minimum;
}

const float nf4_codes[16] = {-1,
                             -0.6961928009986877f,
                             -0.5250730514526367f,
                             -0.39491748809814453f,
                             -0.28444138169288635f,
                             -0.18477343022823334f,
                             -0.09105003625154495f,
                             0,
                             0.07958029955625534f,
                             0.16093020141124725f,
                             0.24611230194568634f,
                             0.33791524171829224f,
                             0.44070982933044434f,
                             0.5626170039176941f,
                             0.7229568362236023f,
                             1};

/* half d, 16 bytes of q as in Q4_0: d code[q] */
static void read_nf4(const uint8_t *block, float *values) {
    float scale = read_half(block);
    for (int i = 0; i < 16; i++) {
        values[i] = scale * nf4_codes[bits_of(block[2 + i], 0, 4)];
        values[i + 16] = scale * nf4_codes[bits_of(block[2 + i], 4, 4)];
    }
}

/* ---- K formats: blocks of 256, s of element i its sub-block ---- */

/* 16 bytes of s (4 bits, of m the 4 above), 64 of q, half d, half dmin: (d s) q - (dmin m),
 * sub-blocks of 16. q: 2 bits of byte 32 (i / 128) + i % 32, from bit 2 (i / 32 % 4) on. */
static void read_q2_k(const uint8_t *block, float *values) {
    const uint8_t *low = block + 16;
    float scale = read_half(block + 80), minimum = read_half(block + 82);
    for (int j = 0; j < 16; j++) {
        float d = scale * (float)bits_of(block[j], 0, 4);
        float m = minimum * (float)bits_of(block[j], 4, 4);
        const uint8_t *bytes = low + 32 * (j / 8) + 16 * (j % 2);
        for (int i = 0; i < 16; i++)
            values[16 * j + i] = d * (float)bits_of(bytes[i], 2 * (j / 2 % 4), 2) - m;
    }
}

/* 32 bytes of high bits, 64 of low bits, 12 of s, half d: (d (s - 32)) (q - 4), sub-blocks of 16.
 * q: the low 2 bits as in Q2_K, the high one bit i / 32 of byte i % 32.
 * s of sub-block j: the low 4 bits in byte j % 8, nibble j / 8; the high 2 in byte 8 + j % 4, from
 * bit 2 (j / 4). */
static void read_q3_k(const uint8_t *block, float *values) {
    const uint8_t *low = block + 32, *scales = block + 96;
    float scale = read_half(block + 108), d[16];
    for (int j = 0; j < 16; j++) {
        int top = bits_of(scales[8 + j % 4], 2 * (j / 4), 2);
        int s = bits_of(scales[j % 8], 4 * (j / 8), 4) | top << 4;
        d[j] = scale * (float)(s - 32);
    }
    for (int row = 0; row < 8; row++)
        for (int i = 0; i < 32; i++) {
            int q = bits_of(low[32 * (row / 4) + i], 2 * (row % 4), 2) | bits_of(block[i], row, 1)
                                                                             << 2;
            values[32 * row + i] = d[2 * row + i / 16] * (float)(q - 4);
        }
}

/* The 8 scales and minima, 6 bits each, of Q4_K and Q5_K: those of sub-blocks 0 to 3 are the low
 * bits of bytes 0 to 3 (s) and 4 to 7 (m). Of sub-blocks 4 to 7 the low 4 bits are in bytes 8 to 11
 * (s in the low nibble, m in the high), and the high 2 bits on top of those of sub-block - 4. */
static void read_scales(const uint8_t *bytes, int s[8], int m[8]) {
    for (int j = 0; j < 4; j++) {
        s[j] = bits_of(bytes[j], 0, 6);
        m[j] = bits_of(bytes[4 + j], 0, 6);
        s[4 + j] = bits_of(bytes[8 + j], 0, 4) | bits_of(bytes[j], 6, 2) << 4;
        m[4 + j] = bits_of(bytes[8 + j], 4, 4) | bits_of(bytes[4 + j], 6, 2) << 4;
    }
}

/* half d, half dmin, 12 bytes of scales, 128 of q: (d s) q - (dmin m), sub-blocks of 32.
 * q: byte 32 (i / 64) + i % 32, nibble i / 32 % 2. */
static void read_q4_k(const uint8_t *block, float *values) {
    const uint8_t *low = block + 16;
    float scale = read_half(block), minimum = read_half(block + 2);
    int s[8], m[8];
    read_scales(block + 4, s, m);
    for (int row = 0; row < 8; row++)
        for (int i = 0; i < 32; i++) {
            int q = bits_of(low[32 * (row / 2) + i], 4 * (row % 2), 4);
            values[32 * row + i] = scale * (float)s[row] * (float)q - minimum * (float)m[row];
        }
}

/* half d, half dmin, 12 bytes of scales, 32 of high bits, 128 of low bits: as Q4_K, with a fifth
 * bit of q: bit i / 32 of byte i % 32. */
static void read_q5_k(const uint8_t *block, float *values) {
    const uint8_t *high = block + 16, *low = block + 48;
    float scale = read_half(block), minimum = read_half(block + 2);
    int s[8], m[8];
    read_scales(block + 4, s, m);
    for (int row = 0; row < 8; row++)
        for (int i = 0; i < 32; i++) {
            int top = bits_of(high[i], row, 1);
            int q = bits_of(low[32 * (row / 2) + i], 4 * (row % 2), 4) | top << 4;
            values[32 * row + i] = scale * (float)s[row] * (float)q - minimum * (float)m[row];
        }
}

/* 128 bytes of low bits, 64 of high bits, int8 s[16], half d: (d s) (q - 32), sub-blocks of 16.
 * q: the low 4 bits in byte 64 (i / 128) + i % 64, nibble i / 64 % 2; the high 2 bits in byte
 * 32 (i / 128) + i % 32, from bit 2 (i / 32 % 4) on. */
static void read_q6_k(const uint8_t *block, float *values) {
    const uint8_t *scales = block + 192;
    float scale = read_half(block + 208);
    for (int j = 0; j < 16; j++) {
        float d = scale * (float)(int8_t)scales[j];
        const uint8_t *low = block + 64 * (j / 8) + 16 * (j % 4);
        const uint8_t *high = block + 128 + 32 * (j / 8) + 16 * (j % 2);
        for (int i = 0; i < 16; i++) {
            int q = bits_of(low[i], 4 * (j / 4 % 2), 4) | bits_of(high[i], 2 * (j / 2 % 4), 2) << 4;
            values[16 * j + i] = d * (float)(q - 32);
        }
    }
}

/* ---- one element to a block ---- */

static void read_f32(const uint8_t *bytes, size_t count, float *values) {
    for (size_t i = 0; i < count; i++) {
        uint32_t bits = read_32(bytes + 4 * i);
        memcpy(values + i, &bits, sizeof bits);
    }
}

static void read_bf16(const uint8_t *bytes, size_t count, float *values) {
    for (size_t i = 0; i < count; i++) {
        uint32_t bits = (uint32_t)read_16(bytes + 2 * i) << 16;
        memcpy(values + i, &bits, sizeof bits);
    }
}

static void read_f16(const uint8_t *bytes, size_t count, float *values) {
    for (size_t i = 0; i < count; i++)
        values[i] = read_half(bytes + 2 * i);
}

typedef void (*reader)(const uint8_t *block, float *values);

static reader reader_of(enum weight_type type) {
    static const reader readers[WEIGHT_TYPE_COUNT] = {
        [WEIGHT_Q8_0] = read_q8_0, [WEIGHT_Q4_0] = read_q4_0, [WEIGHT_Q4_1] = read_q4_1,
        [WEIGHT_Q5_0] = read_q5_0, [WEIGHT_Q5_1] = read_q5_1, [WEIGHT_Q2_K] = read_q2_k,
        [WEIGHT_Q3_K] = read_q3_k, [WEIGHT_Q4_K] = read_q4_k, [WEIGHT_Q5_K] = read_q5_k,
        [WEIGHT_Q6_K] = read_q6_k, [WEIGHT_NF4] = read_nf4};
    return readers[type];
}

void blocks_dequantise(enum weight_type type, const uint8_t *blocks, size_t count, float *values) {
    const struct weight_type_info *info = weight_type_info(type);
    switch (type) {
    case WEIGHT_F32:
        read_f32(blocks, count, values);
        break;
    case WEIGHT_BF16:
        read_bf16(blocks, count, values);
        break;
    case WEIGHT_F16:
        read_f16(blocks, count, values);
        break;
    default:
        for (size_t i = 0; i < count; i += info->block) {
            reader_of(type)(blocks, values + i);
            blocks += info->block_bytes;
        }
    }
}
