/* Blocks of quantised weights: what their bytes mean, and how near to the values the quantisers
 * come. */
#include "blocks.h"
#include "half.h"
#include "reference/random.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct random random_state;

/* ---- the formats, each element by the places of its bits ---- */

static uint32_t field(const uint8_t *block, int bit, int count) {
    uint32_t value = 0;
    for (int i = 0; i < count; i++)
        value |= (uint32_t)(block[(bit + i) / 8] >> (bit + i) % 8 & 1) << i;
    return value;
}

/* A little-endian floating-point number of so many bits of exponent and of mantissa */
static double number(const uint8_t *bytes, int exponent_bits, int mantissa_bits) {
    int top = (1 << exponent_bits) - 1, exponent = (int)field(bytes, mantissa_bits, exponent_bits);
    double mantissa = field(bytes, 0, mantissa_bits), magnitude;
    int least = 2 - (1 << (exponent_bits - 1)) - mantissa_bits;
    if (exponent == top)
        magnitude = mantissa != 0 ? NAN : INFINITY;
    else if (exponent == 0)
        magnitude = ldexp(mantissa, least);
    else
        magnitude = ldexp(mantissa + ldexp(1, mantissa_bits), least + exponent - 1);
    return field(bytes, exponent_bits + mantissa_bits, 1) ? -magnitude : magnitude;
}

static double half_at(const uint8_t *bytes) {
    return number(bytes, 5, 10);
}

/* The 4-bit field of element i of 32 that begins at a byte */
static uint32_t nibble(const uint8_t *bytes, int i) {
    return field(bytes, 8 * (i % 16) + 4 * (i / 16), 4);
}

static double nf4_code(uint32_t q) {
    static const double codes[16] = {-1.0,
                                     -0.6961928009986877,
                                     -0.5250730514526367,
                                     -0.39491748809814453,
                                     -0.28444138169288635,
                                     -0.18477343022823334,
                                     -0.09105003625154495,
                                     0.0,
                                     0.07958029955625534,
                                     0.16093020141124725,
                                     0.24611230194568634,
                                     0.33791524171829224,
                                     0.44070982933044434,
                                     0.5626170039176941,
                                     0.7229568362236023,
                                     1.0};
    return codes[q];
}

/* s and m of sub-block j of Q4_K and Q5_K */
static uint32_t scale_of(const uint8_t *bytes, int j, bool minimum) {
    if (j < 4)
        return field(bytes, 8 * (j + (minimum ? 4 : 0)), 6);
    return field(bytes, 8 * (8 + j - 4) + (minimum ? 4 : 0), 4) |
           field(bytes, 8 * (j - 4 + (minimum ? 4 : 0)) + 6, 2) << 4;
}

static double element_k(enum weight_type type, const uint8_t *b, int i) {
    int row = i / 32, column = i % 32, sub = i / 16, half = i / 128;
    double s, m, q;
    switch (type) {
    case WEIGHT_Q2_K:
        s = field(b, 8 * sub, 4), m = field(b, 8 * sub + 4, 4);
        q = field(b + 16, 8 * (32 * half + column) + 2 * (row % 4), 2);
        return half_at(b + 80) * s * q - half_at(b + 82) * m;
    case WEIGHT_Q3_K:
        s = field(b + 96, 8 * (sub % 8) + 4 * (sub / 8), 4) |
            field(b + 104, 8 * (sub % 4) + 2 * (sub / 4), 2) << 4;
        q = field(b + 32, 8 * (32 * half + column) + 2 * (row % 4), 2) |
            field(b, 8 * column + row, 1) << 2;
        return half_at(b + 108) * (s - 32) * (q - 4);
    case WEIGHT_Q4_K:
        s = scale_of(b + 4, row, false), m = scale_of(b + 4, row, true);
        q = field(b + 16, 8 * (32 * (row / 2) + column) + 4 * (row % 2), 4);
        return half_at(b) * s * q - half_at(b + 2) * m;
    case WEIGHT_Q5_K:
        s = scale_of(b + 4, row, false), m = scale_of(b + 4, row, true);
        q = field(b + 48, 8 * (32 * (row / 2) + column) + 4 * (row % 2), 4) |
            field(b + 16, 8 * column + row, 1) << 4;
        return half_at(b) * s * q - half_at(b + 2) * m;
    default: /* Q6_K */
        s = (int8_t)b[192 + sub];
        q = field(b, 8 * (64 * half + 32 * (row % 2) + column) + 4 * (row / 2 % 2), 4) |
            field(b + 128, 8 * (32 * half + column) + 2 * (row % 4), 2) << 4;
        return half_at(b + 208) * s * (q - 32);
    }
}

static double element(enum weight_type type, const uint8_t *b, int i) {
    switch (type) {
    case WEIGHT_F32:
        return number(b, 8, 23);
    case WEIGHT_BF16:
        return number(b, 8, 7);
    case WEIGHT_F16:
        return half_at(b);
    case WEIGHT_Q8_0:
        return half_at(b) * (int8_t)b[2 + i];
    case WEIGHT_Q4_0:
        return half_at(b) * ((int)nibble(b + 2, i) - 8);
    case WEIGHT_Q4_1:
        return half_at(b) * nibble(b + 4, i) + half_at(b + 2);
    case WEIGHT_Q5_0:
        return half_at(b) * ((int)(nibble(b + 6, i) | field(b + 2, i, 1) << 4) - 16);
    case WEIGHT_Q5_1:
        return half_at(b) * (nibble(b + 8, i) | field(b + 4, i, 1) << 4) + half_at(b + 2);
    case WEIGHT_NF4:
        return half_at(b) * nf4_code(nibble(b + 2, i));
    default:
        return element_k(type, b, i);
    }
}

static bool same(float got, float expected) {
    return isnan(expected) ? isnan(got) : memcmp(&got, &expected, sizeof got) == 0;
}

/* Random bytes: every scale there is, infinities and all. Double precision holds all the sums
 * exactly. */
static void test_formats(void **state) {
    (void)state;
    enum { ROUNDS = 400 };
    uint8_t bytes[1 + 2 * 210];
    float values[512];
    for (int round = 0; round < ROUNDS; round++)
        for (enum weight_type type = 0; type < WEIGHT_TYPE_COUNT; type++) {
            const struct weight_type_info *info = weight_type_info(type);
            for (size_t i = 0; i < sizeof bytes; i++)
                bytes[i] = (uint8_t)random_bits(&random_state);
            blocks_dequantise(type, bytes + 1, 2 * info->block, values);
            for (uint32_t i = 0; i < 2 * info->block; i++) {
                const uint8_t *block = bytes + 1 + i / info->block * info->block_bytes;
                float expected = (float)element(type, block, (int)(i % info->block));
                if (!same(values[i], expected))
                    fail_msg("%s, element %u: %a, not %a", info->name, i, values[i], expected);
            }
        }
}

/* Every float16 number is exact, and halfway between two the even one is the nearest. */
static void test_halves(void **state) {
    (void)state;
    for (uint32_t bits = 0; bits < 0x10000; bits++) {
        uint8_t bytes[2] = {(uint8_t)bits, (uint8_t)(bits >> 8)};
        float value = half_to_float((uint16_t)bits);
        assert_true(same(value, (float)half_at(bytes)));
        if ((bits & 0x7fff) >= 0x7bff) /* the largest, infinity, and what is no number */
            continue;
        float next = half_to_float((uint16_t)(bits + 1)), middle = (value + next) / 2;
        assert_int_equal(half_from_float(value), bits);
        assert_int_equal(half_from_float(middle), bits + (bits & 1));
        assert_int_equal(half_from_float(nextafterf(middle, value)), bits);
        assert_int_equal(half_from_float(nextafterf(middle, next)), bits + 1);
    }
}

/* ---- distributions ---- */

enum shape { NORMAL, LAPLACE, STUDENT, SHAPES };

static double draw(enum shape shape) {
    double normal = random_normal(&random_state), squares = 0;
    switch (shape) {
    case LAPLACE:
        return (random_below(&random_state, 2) ? 1 : -1) * log(1 - random_uniform(&random_state));
    case STUDENT: /* of 4 degrees of freedom */
        for (int i = 0; i < 4; i++) {
            double other = random_normal(&random_state);
            squares += other * other;
        }
        return normal / sqrt(squares / 4);
    default:
        return normal;
    }
}

static void draw_values(enum shape shape, double scale, float *values, size_t count) {
    for (size_t i = 0; i < count; i++)
        values[i] = (float)(scale * draw(shape));
}

static double squared_error(enum weight_type type, const float *values, const uint8_t *blocks,
                            size_t count) {
    float got[8192];
    double sum = 0;
    assert_true(count <= 8192);
    blocks_dequantise(type, blocks, count, got);
    for (size_t i = 0; i < count; i++)
        sum += ((double)values[i] - got[i]) * ((double)values[i] - got[i]);
    return sum;
}

/* The normalised mean squared error on normally distributed weights. Each limit is a few per cent
 * above what there is, and below what scales by the maximum give. */
static void test_errors(void **state) {
    (void)state;
    static const double limits[WEIGHT_TYPE_COUNT] = {
        [WEIGHT_BF16] = 3e-6,    [WEIGHT_F16] = 5e-8,     [WEIGHT_Q8_0] = 2.4e-5,
        [WEIGHT_Q4_0] = 7.0e-3,  [WEIGHT_Q4_1] = 5.1e-3,  [WEIGHT_Q5_0] = 1.7e-3,
        [WEIGHT_Q5_1] = 1.18e-3, [WEIGHT_Q2_K] = 7.1e-2,  [WEIGHT_Q3_K] = 2.15e-2,
        [WEIGHT_Q4_K] = 5.2e-3,  [WEIGHT_Q5_K] = 1.25e-3, [WEIGHT_Q6_K] = 3.0e-4,
        [WEIGHT_NF4] = 6.0e-3};
    enum { COUNT = 8192, REPEATS = 8 };
    static float values[COUNT];
    static uint8_t blocks[4 * COUNT];
    for (enum weight_type type = 0; type < WEIGHT_TYPE_COUNT; type++) {
        double error = 0, squares = 0;
        for (int repeat = 0; repeat < REPEATS; repeat++) {
            draw_values(NORMAL, 0.02, values, COUNT);
            blocks_quantise(type, values, COUNT, blocks);
            error += squared_error(type, values, blocks, COUNT);
            for (int i = 0; i < COUNT; i++)
                squares += (double)values[i] * values[i];
        }
        if (error > limits[type] * squares)
            fail_msg("%s: %g", weight_type_info(type)->name, error / squares);
    }
}

/* ---- against every float16 scale ---- */

static double nearest(enum weight_type type, double value, int low, int high) {
    if (type != WEIGHT_NF4)
        return fmin(fmax(rint(value), low), high);
    double best = nf4_code(0);
    for (uint32_t q = 1; q < 16; q++)
        best = fabs(value - nf4_code(q)) < fabs(value - best) ? nf4_code(q) : best;
    return best;
}

static double error_with(enum weight_type type, const float values[32], double scale, double offset,
                         int low, int high) {
    double sum = 0;
    for (int i = 0; i < 32; i++) {
        double value = values[i] - offset;
        double left = value - scale * nearest(type, value / scale, low, high);
        sum += left * left;
    }
    return sum;
}

/* The least error with any float16 scale that maps the largest magnitude to between `from` and `to`
 */
static double least_error(enum weight_type type, const float values[32], int low, int high,
                          double from, double to) {
    double largest = 0, least = INFINITY;
    for (int i = 0; i < 32; i++)
        largest = fmax(largest, fabs((double)values[i]));
    for (uint16_t bits = 1; bits < 0x7c00; bits++) {
        double scale = half_to_float(bits);
        if (largest < from * scale || largest > to * scale)
            continue;
        least = fmin(least, error_with(type, values, scale, 0, low, high));
        least = fmin(least, error_with(type, values, -scale, 0, low, high));
    }
    return least;
}

/* With offsets: the least error on a grid of ends for the range of values */
static double least_error_affine(enum weight_type type, const float values[32], int high) {
    enum { STEPS = 60 };
    double low_end = INFINITY, high_end = -INFINITY, least = INFINITY;
    for (int i = 0; i < 32; i++) {
        low_end = fmin(low_end, (double)values[i]);
        high_end = fmax(high_end, (double)values[i]);
    }
    double unit = (high_end - low_end) / high;
    for (int i = 0; i <= STEPS; i++)
        for (int j = 0; j <= STEPS; j++) {
            double below = low_end + unit * (2.5 * i / STEPS - 1);
            double above = high_end - unit * (2.5 * j / STEPS - 1);
            double scale = half_to_float(half_from_float((float)((above - below) / high)));
            double offset = half_to_float(half_from_float((float)below));
            least = fmin(least, error_with(type, values, scale, offset, 0, high));
        }
    return least;
}

static void test_against_search(void **state) {
    (void)state;
    static const struct {
        enum weight_type type;
        int low, high;
        double from, to; /* 0: with an offset */
        double limit;    /* times the least error, on average */
    } cases[] = {
        {WEIGHT_Q4_0, -8, 7, 4, 11, 1.012},       {WEIGHT_Q5_0, -16, 15, 9, 20, 1.015},
        {WEIGHT_Q8_0, -127, 127, 105, 130, 1.09}, {WEIGHT_NF4, -1, 1, .6, 1.4, 1.04},
        {WEIGHT_Q4_1, 0, 15, 0, 0, 1.04},         {WEIGHT_Q5_1, 0, 31, 0, 0, 1.055},
    };
    enum { BLOCKS = 60 };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        double ratio = 0;
        for (int i = 0; i < BLOCKS; i++) {
            float values[32];
            uint8_t block[34];
            draw_values((enum shape)(i % SHAPES), 0.02, values, 32);
            blocks_quantise(cases[c].type, values, 32, block);
            double error = squared_error(cases[c].type, values, block, 32);
            double least = cases[c].to > 0
                               ? least_error(cases[c].type, values, cases[c].low, cases[c].high,
                                             cases[c].from, cases[c].to)
                               : least_error_affine(cases[c].type, values, cases[c].high);
            ratio += error / least / BLOCKS;
        }
        if (ratio > cases[c].limit)
            fail_msg("%s: %g times the least error", weight_type_info(cases[c].type)->name, ratio);
    }
}

/* ---- edges ---- */

static void check_finite(enum weight_type type, const float *values) {
    uint8_t blocks[4 * 256];
    float got[256];
    blocks_quantise(type, values, 256, blocks);
    blocks_dequantise(type, blocks, 256, got);
    for (int i = 0; i < 256; i++)
        if (!isfinite(got[i]))
            fail_msg("%s: %a became %a", weight_type_info(type)->name, values[i], got[i]);
}

/* From the least float32 numbers to the largest, alone among zeros and everywhere, of either sign
 */
static void test_finite(void **state) {
    (void)state;
    static const float magnitudes[] = {0,        0x1p-149f, 0x1p-126f, 1e-20f, 0x1p-25f,
                                       0x1p-24f, 1e-4f,     1e4f,      65504,  65520,
                                       1e6f,     1e9f,      1e20f,     FLT_MAX};
    for (enum weight_type type = 0; type < WEIGHT_TYPE_COUNT; type++)
        for (size_t m = 0; m < sizeof magnitudes / sizeof *magnitudes; m++) {
            float values[256] = {0};
            values[77] = magnitudes[m];
            check_finite(type, values);
            values[78] = -magnitudes[m];
            check_finite(type, values);
            for (int i = 0; i < 256; i++)
                values[i] = magnitudes[m];
            check_finite(type, values);
            for (int i = 0; i < 256; i++)
                values[i] = -magnitudes[m];
            check_finite(type, values);
            for (int i = 0; i < 256; i++)
                values[i] = magnitudes[m] * (float)(2 * random_uniform(&random_state) - 1);
            check_finite(type, values);
        }
}

static void test_zeros(void **state) {
    (void)state;
    static const float zeros[256];
    for (enum weight_type type = 0; type < WEIGHT_TYPE_COUNT; type++) {
        uint8_t blocks[4 * 256];
        float got[256];
        blocks_quantise(type, zeros, 256, blocks);
        blocks_dequantise(type, blocks, 256, got);
        for (int i = 0; i < 256; i++)
            assert_true(got[i] == 0);
    }
}

/* Beyond what a type holds: the nearest that it holds, with the right sign */
static void test_clamped(void **state) {
    (void)state;
    static const struct {
        enum weight_type type;
        float low, high; /* at least so far out */
    } cases[] = {
        {WEIGHT_BF16, -3.3e38f, 3.3e38f},
        {WEIGHT_F16, -65504, 65504},
        {WEIGHT_Q8_0, -127 * 65504.f, 127 * 65504.f},
        {WEIGHT_Q4_0, -7 * 65504.f, 7 * 65504.f},
        {WEIGHT_Q5_0, -15 * 65504.f, 15 * 65504.f},
        {WEIGHT_NF4, -65504, 65504},
        {WEIGHT_Q4_1, -65504, 14 * 65504.f},
        {WEIGHT_Q5_1, -65504, 30 * 65504.f},
        {WEIGHT_Q3_K, -90 * 65504.f, 90 * 65504.f},
        {WEIGHT_Q6_K, -3900 * 65504.f, 3900 * 65504.f},
    };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        uint8_t blocks[4 * 256];
        float values[256], got[256];
        for (int i = 0; i < 256; i++)
            values[i] = i % 2 ? FLT_MAX : -FLT_MAX;
        blocks_quantise(cases[c].type, values, 256, blocks);
        blocks_dequantise(cases[c].type, blocks, 256, got);
        for (int i = 0; i < 256; i++)
            if (i % 2 ? got[i] < cases[c].high : got[i] > cases[c].low)
                fail_msg("%s: %g", weight_type_info(cases[c].type)->name, got[i]);
    }
}

/* Multiples of the least float16 number, which only that scale gives exactly */
static void test_subnormal(void **state) {
    (void)state;
    static const enum weight_type types[] = {WEIGHT_Q8_0, WEIGHT_Q4_0, WEIGHT_Q4_1, WEIGHT_Q5_0,
                                             WEIGHT_Q5_1};
    for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
        float values[32], got[32];
        uint8_t block[34];
        for (int i = 0; i < 32; i++)
            values[i] = 0x1p-24f * (float)(i % 16 - 8);
        blocks_quantise(types[t], values, 32, block);
        blocks_dequantise(types[t], block, 32, got);
        assert_memory_equal(got, values, sizeof got);
    }
}

/* A block is what it is wherever it stands, whatever stands beside it, and however aligned its
 * bytes are. */
static void test_alone(void **state) {
    (void)state;
    enum { MOST = 37 };
    static float values[256 * MOST];
    static uint8_t together[4 * 256 * MOST], alone[1 + 4 * 256];
    for (enum weight_type type = 0; type < WEIGHT_TYPE_COUNT; type++) {
        const struct weight_type_info *info = weight_type_info(type);
        size_t count = 1 + random_below(&random_state, MOST);
        draw_values(STUDENT, 1, values, count * info->block);
        memset(together, 0xee, sizeof together);
        blocks_quantise(type, values, count * info->block, together);
        for (size_t i = 0; i < count; i++) {
            blocks_quantise(type, values + i * info->block, info->block, alone + 1);
            assert_memory_equal(alone + 1, together + i * info->block_bytes, info->block_bytes);
        }
        assert_int_equal(together[count * info->block_bytes], 0xee);
    }
}

/* What the quantiser made comes back as it is, but for few blocks; of K formats, whose scales
 * depend on each other, nearly as it is. */
static void test_stable(void **state) {
    (void)state;
    enum { COUNT = 8192 };
    static float values[COUNT], first[COUNT];
    static uint8_t blocks[4 * COUNT], again[4 * COUNT];
    for (enum weight_type type = 0; type < WEIGHT_TYPE_COUNT; type++) {
        draw_values((enum shape)random_below(&random_state, SHAPES), 0.02, values, COUNT);
        blocks_quantise(type, values, COUNT, blocks);
        blocks_dequantise(type, blocks, COUNT, first);
        blocks_quantise(type, first, COUNT, again);
        double error = squared_error(type, values, blocks, COUNT);
        double moved = squared_error(type, first, again, COUNT);
        double limit = type <= WEIGHT_F16 ? 0 : weight_type_info(type)->block == 256 ? 0.1 : 1e-2;
        if (moved > limit * error)
            fail_msg("%s: moved by %g of its error", weight_type_info(type)->name, moved / error);
    }
}

/* The same bytes from every compiler and on every machine */
static void test_same_everywhere(void **state) {
    (void)state;
    static const uint64_t expected[WEIGHT_TYPE_COUNT] = {
        [WEIGHT_F32] = 0x045eee007023000b,  [WEIGHT_BF16] = 0x58f3c0cd74a6e420,
        [WEIGHT_F16] = 0x5ec3c069a639de50,  [WEIGHT_Q8_0] = 0xa257714dbbad3eee,
        [WEIGHT_Q4_0] = 0xf8a112c4c1c8de96, [WEIGHT_Q4_1] = 0xfd9bc67142677383,
        [WEIGHT_Q5_0] = 0x9b14a1b32597ba0c, [WEIGHT_Q5_1] = 0x1cfc7f41f00c16c1,
        [WEIGHT_Q2_K] = 0x47f05cbd0752be34, [WEIGHT_Q3_K] = 0xb87c62e1f8e8eafa,
        [WEIGHT_Q4_K] = 0x901cefb62cccd007, [WEIGHT_Q5_K] = 0x8b60ef66e4e4f295,
        [WEIGHT_Q6_K] = 0x898db32ed309c215, [WEIGHT_NF4] = 0x47eba2dd8071b4a9};
    enum { COUNT = 256 * 40 };
    static float values[COUNT];
    static uint8_t blocks[4 * COUNT];
    bool good = true;
    struct random random = random_start(1);
    for (int i = 0; i < COUNT; i++) {
        double sum = -6; /* of uniform numbers: exact, where a logarithm need not be */
        for (int j = 0; j < 12; j++)
            sum += random_uniform(&random);
        values[i] = (float)(sum * (i % 64 == 0 ? 0.25 : 0.0625));
    }
    for (enum weight_type type = 0; type < WEIGHT_TYPE_COUNT; type++) {
        const struct weight_type_info *info = weight_type_info(type);
        blocks_quantise(type, values, COUNT, blocks);
        uint64_t hash = 14695981039346656037u; /* FNV-1a */
        for (size_t i = 0; i < COUNT / info->block * info->block_bytes; i++)
            hash = (hash ^ blocks[i]) * 1099511628211u;
        if (hash != expected[type])
            print_error("%s: 0x%016llx\n", info->name, (unsigned long long)hash);
        good = good && hash == expected[type];
    }
    assert_true(good);
}

int main(void) {
    random_state = random_announced();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_formats),         cmocka_unit_test(test_halves),
        cmocka_unit_test(test_errors),          cmocka_unit_test(test_against_search),
        cmocka_unit_test(test_finite),          cmocka_unit_test(test_zeros),
        cmocka_unit_test(test_clamped),         cmocka_unit_test(test_subnormal),
        cmocka_unit_test(test_alone),           cmocka_unit_test(test_stable),
        cmocka_unit_test(test_same_everywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
