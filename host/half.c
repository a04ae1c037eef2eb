#include "half.h"

#include <string.h>

static float from_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static uint32_t to_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* ---- Widening and narrowing ---- */

float half_to_float(uint16_t bits) {
    uint32_t sign = (uint32_t)(bits & 0x8000) << 16;
    uint32_t exponent = bits >> 10 & 31, mantissa = bits & 0x3ff;
    if (exponent == 31)
        return from_bits(sign | 0x7f800000 | mantissa << 13);
    if (exponent != 0)
        return from_bits(sign | (exponent + 112) << 23 | mantissa << 13);
    if (mantissa == 0)
        return from_bits(sign);
    exponent = 113; /* subnormal: moved up until the leading one is the implicit one */
    while (!(mantissa & 0x400)) {
        mantissa <<= 1;
        exponent--;
    }
    return from_bits(sign | exponent << 23 | (mantissa & 0x3ff) << 13);
}

/* value / 2^shift, to nearest, ties to even; shift is 1 to 31. */
static uint32_t shift_rounded(uint32_t value, uint32_t shift) {
    uint32_t half = 1u << (shift - 1);
    return (value + half - 1 + (value >> shift & 1)) >> shift;
}

uint16_t half_from_float(float value) {
    uint32_t bits = to_bits(value);
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    uint32_t magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000)
        return sign | 0x7e00;
    if (magnitude >= 0x477ff000) /* 65520 and more round to infinity */
        return sign | 0x7c00;
    if (magnitude < 0x33000000) /* below 2^-25, half of the least subnormal */
        return sign;
    if (magnitude < 0x38800000) { /* below 2^-14: a multiple of 2^-24 */
        uint32_t mantissa = (magnitude & 0x7fffff) | 0x800000;
        return sign | (uint16_t)shift_rounded(mantissa, 126 - (magnitude >> 23));
    }
    return sign | (uint16_t)(shift_rounded(magnitude, 13) - (112u << 10));
}

float bfloat_to_float(uint16_t bits) {
    return from_bits((uint32_t)bits << 16);
}

uint16_t bfloat_from_float(float value) {
    uint32_t bits = to_bits(value);
    if ((bits & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* ---- Finding NaNs and infinities: exponents of all ones ---- */

#define BLOCK 512 /* elements looked at together, without a branch, so that compilers vectorise it */

static bool any_bad_16(const uint8_t *data, size_t count, uint16_t mask) {
    uint16_t bad = 0;
    for (size_t i = 0; i < count; i++) {
        uint16_t bits;
        memcpy(&bits, data + 2 * i, 2);
        bad |= (bits & mask) == mask;
    }
    return bad;
}

static bool any_bad_32(const uint8_t *data, size_t count) {
    uint32_t bad = 0;
    for (size_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, data + 4 * i, 4);
        bad |= (bits & 0x7f800000) == 0x7f800000;
    }
    return bad;
}

static bool any_bad(enum tensor_type type, const uint8_t *data, size_t count) {
    if (type == TENSOR_F32)
        return any_bad_32(data, count);
    return any_bad_16(data, count, type == TENSOR_BF16 ? 0x7f80 : 0x7c00);
}

size_t half_first_nonfinite(enum tensor_type type, const void *data, size_t count) {
    const uint8_t *bytes = data;
    size_t size = tensor_type_size(type);
    for (size_t start = 0; size && start < count; start += BLOCK) {
        size_t length = count - start < BLOCK ? count - start : BLOCK;
        if (!any_bad(type, bytes + start * size, length))
            continue;
        while (!any_bad(type, bytes + start * size, 1))
            start++;
        return start;
    }
    return count;
}
