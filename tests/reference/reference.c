#include "reference.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- Memory ---- */

void *reference_allocate(size_t count, size_t size) {
    void *memory = calloc(count ? count : 1, size);
    if (!memory) {
        fprintf(stderr, "reference: no memory for %zu times %zu bytes\n", count, size);
        exit(1);
    }
    return memory;
}

double *reference_doubles(size_t count) {
    return reference_allocate(count, sizeof(double));
}

/* ---- Number formats ---- */

/* Any IEEE format of 1 sign bit, `exponent_bits` and `fraction_bits`. */
static double widen(uint32_t bits, int exponent_bits, int fraction_bits) {
    int bias = (1 << (exponent_bits - 1)) - 1;
    uint32_t fraction = bits & ((UINT32_C(1) << fraction_bits) - 1);
    int exponent = (int)(bits >> fraction_bits & ((UINT32_C(1) << exponent_bits) - 1));
    double sign = bits >> (exponent_bits + fraction_bits) & 1 ? -1 : 1;
    if (exponent == (1 << exponent_bits) - 1)
        return copysign(fraction ? (double)NAN : (double)INFINITY, sign);
    if (exponent == 0)
        return sign * ldexp(fraction, 1 - bias - fraction_bits);
    return sign * ldexp(fraction + ldexp(1, fraction_bits), exponent - bias - fraction_bits);
}

static uint32_t narrow(double value, int exponent_bits, int fraction_bits) {
    int bias = (1 << (exponent_bits - 1)) - 1, smallest = 1 - bias;
    uint32_t sign = signbit(value) ? UINT32_C(1) << (exponent_bits + fraction_bits) : 0;
    uint32_t infinity = ((UINT32_C(1) << exponent_bits) - 1) << fraction_bits;
    if (isnan(value))
        return sign | infinity | UINT32_C(1) << (fraction_bits - 1);
    if (isinf(value))
        return sign | infinity;
    int exponent;
    frexp(value, &exponent);
    exponent -= 1; /* |value| is in [2^exponent, 2^(exponent + 1)) */
    if (value == 0 || exponent < smallest)
        exponent = smallest;
    /* Scaling by a power of two is exact, so nearbyint's is the only rounding. */
    double units = nearbyint(ldexp(fabs(value), fraction_bits - exponent));
    /* A normal number's units hold the implicit one, which counts the exponent up by one; so does
     * the carry of a fraction that is rounded up to the next power of two. */
    uint64_t bits = ((uint64_t)(exponent - smallest) << fraction_bits) + (uint64_t)units;
    return sign | (bits < infinity ? (uint32_t)bits : infinity);
}

double reference_bf16_to_double(uint16_t bits) {
    return widen(bits, 8, 7);
}

double reference_f16_to_double(uint16_t bits) {
    return widen(bits, 5, 10);
}

double reference_f32_to_double(uint32_t bits) {
    return widen(bits, 8, 23);
}

uint16_t reference_double_to_bf16(double value) {
    return (uint16_t)narrow(value, 8, 7);
}

uint16_t reference_double_to_f16(double value) {
    return (uint16_t)narrow(value, 5, 10);
}

uint32_t reference_double_to_f32(double value) {
    return narrow(value, 8, 23);
}

void reference_widen_bf16(double *wide, const uint16_t *narrow, size_t count) {
    for (size_t i = 0; i < count; i++)
        wide[i] = reference_bf16_to_double(narrow[i]);
}

void reference_widen_f16(double *wide, const uint16_t *narrow, size_t count) {
    for (size_t i = 0; i < count; i++)
        wide[i] = reference_f16_to_double(narrow[i]);
}

void reference_widen_f32(double *wide, const float *narrow, size_t count) {
    for (size_t i = 0; i < count; i++)
        wide[i] = narrow[i];
}

static uint16_t q8_scale(double greatest) {
    uint16_t bits = reference_double_to_f16((float)greatest * (float)(1.0 / 127));
    bits += greatest > 127.5 * reference_f16_to_double(bits);
    return bits < 0x7bff ? bits : 0x7bff;
}

void reference_q8(double *row, size_t count, int8_t *codes, uint16_t *scales) {
    for (size_t begin = 0; begin < count; begin += 32) {
        size_t end = begin + 32 < count ? begin + 32 : count;
        double greatest = 0;
        for (size_t i = begin; i < end; i++)
            greatest = fmax(greatest, fabs(row[i]));
        uint16_t bits = q8_scale(greatest);
        double scale = reference_f16_to_double(bits);
        if (scales)
            scales[begin / 32] = bits;
        for (size_t i = begin; i < end; i++) {
            double code = scale > 0 ? fmin(fmax(nearbyint(row[i] / scale), -127), 127) : 0;
            if (codes)
                codes[i] = (int8_t)code;
            row[i] = code * scale;
        }
    }
}

/* ---- Operations ---- */

void reference_embedding(double *y, const double *table, const int32_t *tokens, size_t T, size_t D,
                         double scale) {
    for (size_t t = 0; t < T; t++)
        for (size_t i = 0; i < D; i++)
            y[t * D + i] = table[(size_t)tokens[t] * D + i] * scale;
}

/* Four sums, so that an addition does not wait for the one before. */
static double dot(const double *a, const double *b, size_t count) {
    double sums[4] = {0};
    size_t i = 0;
    for (; i + 4 <= count; i += 4)
        for (size_t lane = 0; lane < 4; lane++)
            sums[lane] += a[i + lane] * b[i + lane];
    for (; i < count; i++)
        sums[0] += a[i] * b[i];
    return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

void reference_rmsnorm(double *y, const double *x, const double *weight, size_t T, size_t D,
                       double eps) {
    for (size_t t = 0; t < T; t++) {
        const double *row = x + t * D;
        double root = sqrt(dot(row, row, D) / (double)D + eps);
        for (size_t i = 0; i < D; i++)
            y[t * D + i] = row[i] / root * (1 + weight[i]);
    }
}

void reference_matmul(double *y, size_t y_stride, const double *x, size_t x_stride, const double *w,
                      size_t w_stride, size_t T, size_t R, size_t K) {
    /* rows of w outermost: each is read from memory once, the few rows of x stay in the cache */
    for (size_t r = 0; r < R; r++)
        for (size_t t = 0; t < T; t++)
            y[t * y_stride + r] = dot(x + t * x_stride, w + r * w_stride, K);
}

void reference_matvec(double *y, const double *x, const double *w, size_t w_stride, size_t R,
                      size_t K) {
    reference_matmul(y, R, x, K, w, w_stride, 1, R, K);
}

double reference_gelu_tanh(double x) {
    static const double root_2_over_pi = 0.79788456080286535588;
    double inner = root_2_over_pi * (x + 0.044715 * x * x * x);
    /* (1 + tanh u) / 2 = 1 / (1 + exp(-2u)), which does not cancel where tanh is near -1 */
    return x / (1 + exp(-2 * inner));
}

void reference_geglu(double *y, const double *gate, const double *up, size_t count) {
    for (size_t i = 0; i < count; i++)
        y[i] = reference_gelu_tanh(gate[i]) * up[i];
}

static double angle_of(size_t pair, size_t head_dim, double position, double theta,
                       enum reference_angles angles) {
    if (angles == REFERENCE_ANGLES_EXACT)
        return position * pow(theta, -2.0 * (double)pair / (double)head_dim);
    float exponent = (float)(2 * pair) / (float)head_dim;
    float frequency = 1.0f / (float)pow(theta, exponent);
    float angle = (float)position * frequency;
    return angle;
}

void reference_rope(double *x, size_t heads, size_t head_dim, double position, double theta,
                    enum reference_angles angles) {
    size_t half = head_dim / 2;
    for (size_t i = 0; i < half; i++) {
        double angle = angle_of(i, head_dim, position, theta, angles);
        double c = cos(angle), s = sin(angle);
        for (size_t head = 0; head < heads; head++) {
            double *first = x + head * head_dim + i, *second = first + half;
            double a = *first, b = *second;
            *first = a * c - b * s;
            *second = b * c + a * s;
        }
    }
}

void reference_softmax(double *y, const double *x, size_t count) {
    double largest = -INFINITY, sum = 0;
    for (size_t i = 0; i < count; i++)
        largest = x[i] > largest ? x[i] : largest;
    for (size_t i = 0; i < count; i++)
        sum += y[i] = exp(x[i] - largest);
    for (size_t i = 0; i < count; i++)
        y[i] /= sum;
}

void reference_attention(double *out, const double *q, const double *k, const double *v, size_t T,
                         size_t heads, size_t kv_heads, size_t head_dim, size_t base,
                         double scale) {
    size_t group = heads / kv_heads, kv_stride = kv_heads * head_dim;
    double *weights = reference_doubles(base + T);
    for (size_t t = 0; t < T; t++) {
        size_t seen = base + t + 1;
        for (size_t head = 0; head < heads; head++) {
            const double *query = q + (t * heads + head) * head_dim;
            const double *keys = k + head / group * head_dim;
            const double *values = v + head / group * head_dim;
            double *result = out + (t * heads + head) * head_dim;
            for (size_t p = 0; p < seen; p++)
                weights[p] = dot(query, keys + p * kv_stride, head_dim) * scale;
            reference_softmax(weights, weights, seen);
            for (size_t i = 0; i < head_dim; i++)
                result[i] = 0;
            for (size_t p = 0; p < seen; p++)
                for (size_t i = 0; i < head_dim; i++)
                    result[i] += weights[p] * values[p * kv_stride + i];
        }
    }
    free(weights);
}

/* ---- Comparing ---- */

/* Of sums: what the errors' power is relative to the wanted values' power. */
static double relative(double error, double power) {
    if (power == 0 && error == 0)
        return 0;
    return error / power;
}

double reference_nmse(const double *got, const double *want, size_t count) {
    double error = 0, power = 0;
    for (size_t i = 0; i < count; i++) {
        error += (got[i] - want[i]) * (got[i] - want[i]);
        power += want[i] * want[i];
    }
    return relative(error, power);
}

double reference_nmse_f32(const float *got, const double *want, size_t count) {
    double error = 0, power = 0;
    for (size_t i = 0; i < count; i++) {
        error += (got[i] - want[i]) * (got[i] - want[i]);
        power += want[i] * want[i];
    }
    return relative(error, power);
}

/* Written so that a NaN, once met, stays. */
static double larger(double largest, double error) {
    return isnan(largest) || error <= largest ? largest : error;
}

double reference_max_error(const double *got, const double *want, size_t count) {
    double largest = 0;
    for (size_t i = 0; i < count; i++)
        largest = larger(largest, fabs(got[i] - want[i]));
    return largest;
}

double reference_max_error_f32(const float *got, const double *want, size_t count) {
    double largest = 0;
    for (size_t i = 0; i < count; i++)
        largest = larger(largest, fabs(got[i] - want[i]));
    return largest;
}
