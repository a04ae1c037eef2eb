#include "block_formats.h"
#include "blocks.h"
#include "half.h"

#include <string.h>

#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF /* each product is rounded; gcc knows -ffp-contract alone */
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

/* ---- one element to a block ---- */

static void read_f32(const uint8_t *block, float *values) {
    uint32_t bits = read_32(block);
    memcpy(values, &bits, sizeof bits);
}

static void read_bf16(const uint8_t *block, float *values) {
    *values = bfloat_to_float(read_16(block));
}

static void read_f16(const uint8_t *block, float *values) {
    *values = read_half(block);
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

/* half d, 16 bytes of q as in Q4_0: d code[q] */
static void read_nf4(const uint8_t *block, float *values) {
    static const float codes[16] = NF4_CODES;
    float scale = read_half(block);
    for (int i = 0; i < 16; i++) {
        values[i] = scale * codes[bits_of(block[2 + i], 0, 4)];
        values[i + 16] = scale * codes[bits_of(block[2 + i], 4, 4)];
    }
}

/* ---- K formats: blocks of 256, s of element i its sub-block ---- */

/* 16 bytes of s (4 bits, of m the 4 above), 64 of q, half d, half dmin: (d s) q - (dmin m),
 * sub-blocks of 16. q: 2 bits of byte 32 (i / 128) + i % 32, from bit 2 (i / 32 % 4) on. */
static void read_q2_k(const uint8_t *block, float *values) {
    const uint8_t *low = block + 16;
    float scale = read_half(block + 80), minimum = read_half(block + 82);
    for (int row = 0; row < 8; row++)
        for (int i = 0; i < 32; i++) {
            uint8_t sub = block[2 * row + i / 16];
            float d = scale * (float)bits_of(sub, 0, 4), m = minimum * (float)bits_of(sub, 4, 4);
            int q = bits_of(low[32 * (row / 4) + i], 2 * (row % 4), 2);
            values[32 * row + i] = d * (float)q - m;
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
        int s = bits_of(scales[j % 8], 4 * (j / 8), 4) | bits_of(scales[8 + j % 4], 2 * (j / 4), 2)
                                                             << 4;
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
            int q = bits_of(low[32 * (row / 2) + i], 4 * (row % 2), 4) | bits_of(high[i], row, 1)
                                                                             << 4;
            values[32 * row + i] = scale * (float)s[row] * (float)q - minimum * (float)m[row];
        }
}

/* 128 bytes of low bits, 64 of high bits, int8 s[16], half d: (d s) (q - 32), sub-blocks of 16.
 * q: the low 4 bits in byte 64 (i / 128) + i % 64, nibble i / 64 % 2; the high 2 in byte 32 (i /
 * 128) + i % 32, from bit 2 (i / 32 % 4) on. */
static void read_q6_k(const uint8_t *block, float *values) {
    const uint8_t *low = block, *high = block + 128, *scales = block + 192;
    float scale = read_half(block + 208);
    for (int row = 0; row < 8; row++)
        for (int i = 0; i < 32; i++) {
            float d = scale * (float)(int8_t)scales[2 * row + i / 16];
            int q = bits_of(low[64 * (row / 4) + 32 * (row % 2) + i], 4 * (row / 2 % 2), 4) |
                    bits_of(high[32 * (row / 4) + i], 2 * (row % 4), 2) << 4;
            values[32 * row + i] = d * (float)(q - 32);
        }
}

void blocks_dequantise(enum weight_type type, const uint8_t *blocks, size_t count, float *values) {
    static void (*const readers[])(const uint8_t *, float *) = {
#define WEIGHT(name, NAME, block, block_bytes, gguf, low, high, header, scale) read_##name,
#include "weight_types.def"
#undef WEIGHT
    };
    const struct weight_type_info *info = weight_type_info(type);
    for (size_t i = 0; i < count; i += info->block) {
        readers[type](blocks, values + i);
        blocks += info->block_bytes;
    }
}
