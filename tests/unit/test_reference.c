/* The CPU reference against values worked out by hand, identities, and other people's logits. */
#include "npy.h"
#include "reference/random.h"
#include "reference/reference_checkpoint.h"
#include "reference/reference_chi_square.h"
#include "reference/reference_distribution.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct random generator;

static int start(void **state) {
    (void)state;
    generator = random_announced();
    return 0;
}

static double *normals(size_t count) {
    double *values = reference_doubles(count);
    for (size_t i = 0; i < count; i++)
        values[i] = random_normal(&generator);
    return values;
}

static void check_near(double got, double want, double tolerance, const char *what) {
    if (!(fabs(got - want) <= tolerance))
        fail_msg("%s: %.17g instead of %.17g", what, got, want);
}

/* ---- Number formats ---- */

static double f32(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static void test_formats_round_trip(void **state) {
    (void)state;
    for (uint32_t bits = 0; bits < 65536; bits++) {
        double half = reference_f16_to_double((uint16_t)bits);
        double brain = reference_bf16_to_double((uint16_t)bits);
        bool half_nan = (bits & 0x7fff) > 0x7c00, brain_nan = (bits & 0x7fff) > 0x7f80;
        assert_int_equal(!!isnan(half), half_nan);
        assert_int_equal(!!isnan(brain), brain_nan);
        assert_int_equal(!!signbit(half), bits >> 15);
        assert_int_equal(!!signbit(brain), bits >> 15);
        assert_int_equal(reference_double_to_f16(half), half_nan ? (bits & 0x8000) | 0x7e00 : bits);
        assert_int_equal(reference_double_to_bf16(brain),
                         brain_nan ? (bits & 0x8000) | 0x7fc0 : bits);
        if (!brain_nan) /* a bfloat16 is the upper half of a float */
            assert_true(brain == f32(bits << 16));
    }
}

static void test_f16_values(void **state) {
    (void)state;
    static const struct {
        uint16_t bits;
        double value;
    } cases[] = {{0x3c00, 1},          {0xc000, -2},       {0x7bff, 65504},
                 {0x0400, 0x1p-14},    {0x0001, 0x1p-24},  {0x03ff, 1023 * 0x1p-24},
                 {0x3555, 0x1.554p-2}, {0x8001, -0x1p-24}, {0x7c00, INFINITY}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_true(reference_f16_to_double(cases[i].bits) == cases[i].value);
    const uint16_t bits[] = {0x3f80, 0x0001};
    const float floats[] = {1.5f, -0.25f};
    double wide[6];
    reference_widen_f16(wide, bits, 2);
    reference_widen_bf16(wide + 2, bits, 2);
    reference_widen_f32(wide + 4, floats, 2);
    const double want[] = {1.875, 0x1p-24, 1, 0x1p-133, 1.5, -0.25};
    assert_memory_equal(wide, want, sizeof wide);
}

/* Ties go to even, once: what lies just above a tie goes up, though a float in between would lose
 * it. */
static void test_rounding(void **state) {
    (void)state;
    static const struct {
        double value;
        uint16_t f16, bf16;
    } cases[] = {{0, 0, 0},
                 {-0.0, 0x8000, 0x8000},
                 {1 + 0x1p-11, 0x3c00, 0x3f80},
                 {1 + 0x1p-11 + 0x1p-45, 0x3c01, 0x3f80},
                 {1 + 3 * 0x1p-11, 0x3c02, 0x3f80},
                 {1 + 0x1p-8, 0x3c04, 0x3f80},
                 {1 + 0x1p-8 + 0x1p-50, 0x3c04, 0x3f81},
                 {1 + 3 * 0x1p-8, 0x3c0c, 0x3f82},
                 {2 - 0x1p-20, 0x4000, 0x4000},
                 {65519.999999999, 0x7bff, 0x4780},
                 {65520, 0x7c00, 0x4780},
                 {-1e300, 0xfc00, 0xff80},
                 {0x1.fep127, 0x7c00, 0x7f7f},
                 {0x1.ffp127, 0x7c00, 0x7f80},
                 {0x1p-25, 0x0000, 0x3300},
                 {0x1.0000000001p-25, 0x0001, 0x3300},
                 {0x1.8p-24, 0x0002, 0x33c0},
                 {1023.75 * 0x1p-24, 0x0400, 0x3880},
                 {0x1p-134, 0, 0x0000},
                 {-0x1.0000000001p-134, 0x8000, 0x8001},
                 {1e-320, 0, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(reference_double_to_f16(cases[i].value), cases[i].f16);
        assert_int_equal(reference_double_to_bf16(cases[i].value), cases[i].bf16);
    }
    for (uint32_t i = 0; i < 1000000; i++) { /* against the processor's own float */
        uint32_t bits = (uint32_t)random_bits(&generator);
        double wide = reference_f32_to_double(bits);
        assert_true(isnan(wide) || (wide == f32(bits) && reference_double_to_f32(wide) == bits));
        double value = ldexp(random_normal(&generator), (int)random_below(&generator, 300) - 160);
        assert_true(f32(reference_double_to_f32(value)) == (float)value);
    }
}

/* ---- Operations ---- */

static void test_small_products(void **state) {
    (void)state;
    const double x[] = {1, 2, 3, 99, 4, 5, 6, 99}; /* rows of 3, 4 apart */
    const double w[] = {1, 0, -1, 77, 77, 2, 2, 2, 77, 77};
    double y[] = {-1, -1, -1, -1, -1, -1};
    reference_matmul(y, 3, x, 4, w, 5, 2, 2, 3);
    const double want[] = {-2, 12, -1, -2, 30, -1};
    assert_memory_equal(y, want, sizeof y);
    reference_matvec(y, x + 4, w, 5, 2, 3);
    assert_true(y[0] == -2 && y[1] == 30 && y[2] == -1);

    const double table[] = {1, 2, 3, 4, 5, 6};
    const int32_t tokens[] = {2, 0, 2};
    double rows[6];
    reference_embedding(rows, table, tokens, 3, 2, 10);
    const double want_rows[] = {50, 60, 10, 20, 50, 60};
    assert_memory_equal(rows, want_rows, sizeof rows);
}

/* Every length from 0 on, so that none of the unrolled sum's ends is missed. */
static void test_products_of_every_length(void **state) {
    (void)state;
    double a[13] = {0}, b[13] = {0};
    for (size_t count = 0; count <= 13; count++) {
        double want = 0, got;
        for (size_t i = 0; i < count; i++) {
            a[i] = (double)random_below(&generator, 1000);
            b[i] = (double)random_below(&generator, 1000);
            want += a[i] * b[i];
        }
        reference_matvec(&got, a, b, 13, 1, count);
        assert_true(got == want);
    }
}

static void test_rmsnorm(void **state) {
    (void)state;
    double x[] = {3, -4, 0, 0, 1, 1, 1, 1}, y[8];
    const double weight[] = {0, 1, 2, -1};
    reference_rmsnorm(y, x, weight, 2, 4, 0); /* the roots are 2.5 and 1 */
    const double want[] = {1.2, -3.2, 0, 0, 1, 2, 3, 0};
    check_near(reference_max_error(y, want, 8), 0, 1e-15, "rmsnorm");
    const double zero[4] = {0};
    double small[] = {1e-3, 1e-3, 1e-3, 1e-3};
    reference_rmsnorm(small, small, zero, 1, 4, 3e-6); /* in place; the root is 2e-3 */
    check_near(small[3], 0.5, 1e-15, "rmsnorm with eps");
}

static void test_gelu(void **state) {
    (void)state;
    assert_true(reference_gelu_tanh(0) == 0);
    check_near(reference_gelu_tanh(1), 0.84119199060827676, 1e-15, "gelu(1)");
    check_near(reference_gelu_tanh(-2), -0.045402305912224594, 1e-15, "gelu(-2)");
    assert_true(reference_gelu_tanh(100) == 100 && reference_gelu_tanh(1e200) == 1e200);
    assert_true(reference_gelu_tanh(-100) == 0 && reference_gelu_tanh(-1e200) == 0);
    double gate[] = {0, 0, 1}, up[] = {7, 8, -3};
    for (int i = 0; i < 1000; i++) {
        double x = 3 * random_normal(&generator);
        double formula = x / 2 * (1 + tanh(sqrt(2 / acos(-1.0)) * (x + 0.044715 * pow(x, 3))));
        check_near(reference_gelu_tanh(x), formula, 1e-14, "gelu by its formula");
        check_near(reference_gelu_tanh(x) - reference_gelu_tanh(-x), x, 1e-14, "gelu's symmetry");
    }
    reference_geglu(gate, gate, up, 3);
    assert_true(gate[0] == 0 && gate[1] == 0);
    check_near(gate[2], -3 * 0.84119199060827676, 1e-14, "geglu");
}

/* The score of a query turned to `at` and a key turned to `other`. */
static double turned_product(const double *query, const double *key, size_t head_dim, double at,
                             double other) {
    double q[64], k[64];
    memcpy(q, query, head_dim * sizeof *q);
    memcpy(k, key, head_dim * sizeof *k);
    reference_rope(q, 1, head_dim, at, 10000, REFERENCE_ANGLES_EXACT);
    reference_rope(k, 1, head_dim, other, 10000, REFERENCE_ANGLES_EXACT);
    double product;
    reference_matvec(&product, q, k, head_dim, 1, head_dim);
    return product;
}

static void test_rope(void **state) {
    (void)state;
    double x[] = {1, 0, 0, 2, 0, 1, 3, 0}; /* two heads of four: pairs (0, 2) and (1, 3) */
    reference_rope(x, 2, 4, 1, 100, REFERENCE_ANGLES_EXACT); /* angles 1 and 1/10 */
    const double want[] = {cos(1),      -2 * sin(0.1), sin(1),     2 * cos(0.1),
                           -3 * sin(1), cos(0.1),      3 * cos(1), sin(0.1)};
    check_near(reference_max_error(x, want, 8), 0, 1e-15, "rope");

    double *q = normals(64), *k = normals(64);
    double score = turned_product(q, k, 64, 5, 2), norm, still;
    reference_matvec(&norm, q, q, 64, 1, 64);
    reference_matvec(&still, q, k, 64, 1, 64);
    check_near(turned_product(q, k, 64, 0, 0), still, 1e-13, "rope at 0");
    check_near(turned_product(q, q, 64, 4321, 4321), norm, 1e-11, "norm");
    check_near(turned_product(q, k, 64, 805, 802), score, 1e-10, "relative positions");
    assert_true(fabs(turned_product(q, k, 64, 802, 805) - score) > 1e-6);

    memcpy(k, q, 64 * sizeof *k);
    reference_rope(q, 1, 64, 8000, 10000, REFERENCE_ANGLES_FLOAT32);
    reference_rope(k, 1, 64, 8000, 10000, REFERENCE_ANGLES_EXACT);
    double difference = reference_max_error(q, k, 64);
    assert_true(difference > 1e-7 && difference < 1e-2); /* near, but not exact */
    free(q);
    free(k);
}

static void test_softmax(void **state) {
    (void)state;
    double x[] = {0, log(3), log(4)};
    reference_softmax(x, x, 3);
    check_near(reference_max_error(x, (double[]){0.125, 0.375, 0.5}, 3), 0, 1e-15, "softmax");
    double large[] = {1e4, 1e4 - 1000, 1e4};
    reference_softmax(large, large, 3);
    assert_true(large[0] == 0.5 && large[1] == 0 && large[2] == 0.5);
    double *values = normals(1000), sum = 0;
    reference_softmax(values, values, 1000);
    for (int i = 0; i < 1000; i++)
        sum += values[i] > 0 ? values[i] : NAN;
    check_near(sum, 1, 1e-13, "the sum");
    free(values);
}

static void test_attention_by_hand(void **state) {
    (void)state;
    /* one head of two; scores times scale: row 0 sees {0, ln 3}, row 1 {0, 0, 0} */
    const double q[] = {2, 0, 0, 0}, k[] = {0, 5, log(3), 5, 9, 9}, v[] = {8, 4, 0, 8, 1, 0};
    double out[4];
    reference_attention(out, q, k, v, 2, 1, 1, 2, 1, 0.5);
    check_near(reference_max_error(out, (double[]){2, 7, 3, 4}, 4), 0, 1e-14, "attention");
}

/* Chunks of any size give the rows that one chunk gives; heads share keys and values in groups; a
 * single position gives its values. */
static void test_attention_identities(void **state) {
    (void)state;
    enum { T = 9, HEADS = 6, KV = 2, DIM = 5, Q = HEADS * DIM, K = KV * DIM };
    double *q = normals(T * Q), *k = normals(T * K), *v = normals(T * K);
    double all[T * Q], part[T * Q];
    reference_attention(all, q, k, v, T, HEADS, KV, DIM, 0, 0.7);
    for (size_t cut = 1; cut < T; cut++) {
        reference_attention(part, q, k, v, cut, HEADS, KV, DIM, 0, 0.7);
        reference_attention(part + cut * Q, q + cut * Q, k, v, T - cut, HEADS, KV, DIM, cut, 0.7);
        assert_memory_equal(all, part, sizeof all);
    }
    for (size_t head = 0; head < HEADS; head++) {
        assert_memory_equal(all + head * DIM, v + head / 3 * DIM, DIM * sizeof *v);
        double one_q[T * DIM], one_k[T * DIM], one_v[T * DIM], one[T * DIM];
        for (size_t t = 0; t < T; t++) {
            memcpy(one_q + t * DIM, q + t * Q + head * DIM, DIM * sizeof *q);
            memcpy(one_k + t * DIM, k + t * K + head / 3 * DIM, DIM * sizeof *k);
            memcpy(one_v + t * DIM, v + t * K + head / 3 * DIM, DIM * sizeof *v);
        }
        reference_attention(one, one_q, one_k, one_v, T, 1, 1, DIM, 0, 0.7);
        for (size_t t = 0; t < T; t++)
            assert_memory_equal(one + t * DIM, all + t * Q + head * DIM, DIM * sizeof *one);
    }
    free(q);
    free(k);
    free(v);
}

static void test_comparing(void **state) {
    (void)state;
    const double want[] = {3, 4, 0}, got[] = {3, 4.5, -0.5}, zero[] = {0, 0, 0};
    const double bad[] = {1, NAN, 100};
    const float got_f32[] = {3, 4.5f, -0.5f}, bad_f32[] = {NAN, 4, 0};
    assert_true(reference_nmse(got, want, 3) == 0.02);
    assert_true(reference_nmse_f32(got_f32, want, 3) == 0.02);
    assert_true(reference_max_error(got, want, 3) == 0.5);
    assert_true(reference_max_error_f32(got_f32, want, 3) == 0.5);
    assert_true(reference_nmse(zero, zero, 3) == 0 && isinf(reference_nmse(got, zero, 3)));
    assert_true(isnan(reference_nmse(bad, want, 3)) && isnan(reference_nmse(got, bad, 3)));
    assert_true(isnan(reference_nmse_f32(bad_f32, want, 3)));
    assert_true(isnan(reference_max_error(bad, want, 3)));
    assert_true(isnan(reference_max_error_f32(bad_f32, want, 3)));
}

/* ---- Whole models ---- */

static const char *data_path(const char *name, const char *file) {
    static char path[512];
    snprintf(path, sizeof path, TEST_DATA "/%s%s", name, file);
    return path;
}

static struct reference_model *load(const char *name) {
    peridot_error error = {0};
    struct checkpoint *checkpoint;
    if (checkpoint_open(data_path(name, ""), &checkpoint, &error) != PERIDOT_OK)
        fail_msg("%s", error.message);
    struct reference_model *model = reference_checkpoint_load(checkpoint);
    checkpoint_close(checkpoint);
    return model;
}

/* Logits [T][vocabulary] of a new context, appended in chunks; the caller's to free. */
static double *run_model(const struct reference_model *model, enum reference_kv kv,
                         const int32_t *tokens, size_t T, size_t chunk) {
    double *logits = reference_doubles(T * model->vocabulary);
    struct reference_cache *cache = reference_cache_create(model, kv);
    for (size_t t = 0; t < T; t += chunk)
        reference_model_append(model, cache, tokens + t, chunk < T - t ? chunk : T - t,
                               logits + t * model->vocabulary);
    assert_int_equal(cache->length, T);
    reference_cache_free(cache);
    return logits;
}

static void test_conformance(void **state) {
    (void)state;
    static const char *const names[] = {"small-f32", "gqa-bf16", "mqa-bf16",
                                        "mha-wide-bf16-sharded", "long-f16"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct reference_model *model = load(names[i]);
        int32_t *tokens;
        float *theirs;
        size_t T, rows, vocabulary;
        const char *path = data_path(names[i], "/tokens.npy");
        assert_int_equal(npy_read_tokens(path, &tokens, &T, NULL), PERIDOT_OK);
        path = data_path(names[i], "/logits.npy");
        assert_int_equal(npy_read_floats(path, &theirs, &rows, &vocabulary, NULL), PERIDOT_OK);
        assert_true(rows == T && vocabulary == model->vocabulary);
        double *ours = run_model(model, REFERENCE_KV_DOUBLE, tokens, T, T);
        double nmse = reference_nmse_f32(theirs, ours, T * vocabulary);
        print_message("%-22s NMSE %.2g, largest error %.2g\n", names[i], nmse,
                      reference_max_error_f32(theirs, ours, T * vocabulary));
        assert_true(nmse < 2e-12);
        free(ours);
        free(theirs);
        free(tokens);
        reference_checkpoint_free(model);
    }
}

static void test_chunks_and_truncation(void **state) {
    (void)state;
    enum { T = 20 };
    struct reference_model *model = load("small-f32");
    size_t vocabulary = model->vocabulary, width = vocabulary * sizeof(double);
    int32_t tokens[T];
    for (size_t t = 0; t < T; t++)
        tokens[t] = (int32_t)random_below(&generator, vocabulary);
    double *whole = run_model(model, REFERENCE_KV_DOUBLE, tokens, T, T);
    static const size_t chunks[] = {1, 7, 19};
    for (size_t i = 0; i < 3; i++) {
        double *cut = run_model(model, REFERENCE_KV_DOUBLE, tokens, T, chunks[i]);
        assert_memory_equal(cut, whole, T * width);
        free(cut);
    }
    /* a detour that is taken back leaves no trace */
    double *row = reference_doubles(vocabulary);
    struct reference_cache *cache = reference_cache_create(model, REFERENCE_KV_DOUBLE);
    reference_model_append(model, cache, tokens, 5, NULL);
    reference_model_append(model, cache, tokens, 9, NULL);
    reference_cache_truncate(cache, 5);
    reference_model_append(model, cache, tokens + 5, T - 6, NULL);
    reference_model_append(model, cache, tokens + T - 1, 1, row);
    assert_memory_equal(row, whole + (T - 1) * vocabulary, width);
    reference_cache_free(cache);
    free(row);
    free(whole);
    reference_checkpoint_free(model);
}

/* float16 keys and values: each stored number is one, and the logits move, a little. */
static void test_f16_cache(void **state) {
    (void)state;
    const int32_t tokens[] = {2, 30, 4, 155, 61, 7};
    struct reference_model *model = load("gqa-bf16");
    double *exact = run_model(model, REFERENCE_KV_DOUBLE, tokens, 6, 6);
    double *rounded = run_model(model, REFERENCE_KV_F16, tokens, 6, 6);
    double nmse = reference_nmse(rounded, exact, 6 * model->vocabulary);
    assert_true(nmse > 1e-12 && nmse < 1e-6);
    struct reference_cache *cache = reference_cache_create(model, REFERENCE_KV_F16);
    reference_model_append(model, cache, tokens, 6, NULL);
    for (size_t layer = 0; layer < cache->layer_count; layer++)
        for (size_t i = 0; i < 6 * model->kv_heads * model->head_dim; i++) {
            double kept[] = {cache->keys[layer][i], cache->values[layer][i]};
            for (int j = 0; j < 2; j++)
                assert_true(kept[j] == reference_f16_to_double(reference_double_to_f16(kept[j])));
        }
    reference_cache_free(cache);
    free(exact);
    free(rounded);
    reference_checkpoint_free(model);
}

/* Scales to nearest, up where that leaves no code, and within float16; codes to nearest, to even.
 */
static void test_q8(void **state) {
    (void)state;
    double row[100] = {254, -1, 3, -254, 100.9}, tiny = 1e-9, huge = -1e9;
    row[32] = tiny;
    row[64] = huge;
    row[99] = 0.5;
    int8_t codes[100];
    uint16_t scales[4];
    reference_q8(row, 100, codes, scales);
    static const int8_t first[] = {127, 0, 2, -127, 50};
    assert_memory_equal(codes, first, sizeof first);
    assert_true(row[0] == 254 && row[1] == 0 && row[2] == 4 && row[4] == 100);
    assert_int_equal(scales[0], 0x4000); /* 2 */
    assert_int_equal(scales[1], 1);
    assert_int_equal(codes[32], 0);
    assert_int_equal(scales[2], 0x7bff);
    assert_int_equal(codes[64], -127);
    assert_true(row[99] == 127 * reference_f16_to_double(scales[3]));
}

/* Keys and values in q8: rounding them again changes nothing, and the logits move, a little. */
static void test_q8_cache(void **state) {
    (void)state;
    const int32_t tokens[] = {2, 30, 4, 155, 61, 7};
    struct reference_model *model = load("gqa-bf16");
    size_t dim = model->head_dim, count = 6 * model->kv_heads * dim;
    double *exact = run_model(model, REFERENCE_KV_DOUBLE, tokens, 6, 6);
    double *rounded = run_model(model, REFERENCE_KV_Q8, tokens, 6, 6);
    double nmse = reference_nmse(rounded, exact, 6 * model->vocabulary);
    assert_true(nmse > 1e-7 && nmse < 1e-3);
    struct reference_cache *cache = reference_cache_create(model, REFERENCE_KV_Q8);
    reference_model_append(model, cache, tokens, 6, NULL);
    double *again = reference_doubles(count);
    memcpy(again, cache->values[0], count * sizeof *again);
    reference_q8(again, count, NULL, NULL);
    assert_memory_equal(again, cache->values[0], count * sizeof *again);
    for (size_t i = 0; i < count; i++) /* keys in pair order */
        again[i] = cache->keys[0][i / dim * dim + i % dim / 2 + i % 2 * (dim / 2)];
    double *kept = reference_doubles(count);
    memcpy(kept, again, count * sizeof *kept);
    reference_q8(again, count, NULL, NULL);
    assert_memory_equal(again, kept, count * sizeof *again);
    reference_cache_free(cache);
    free(again);
    free(kept);
    free(exact);
    free(rounded);
    reference_checkpoint_free(model);
}

/* ---- Sampling ---- */

#define V 6

/* `shares` are the probabilities wanted, but for a common factor. */
static void check_shares(const char *what, const float *logits, const int32_t *recent,
                         size_t recent_count, struct reference_sampler sampler,
                         const double shares[V]) {
    double got[V], total = 0;
    for (int i = 0; i < V; i++)
        total += shares[i];
    reference_distribution(got, logits, V, recent, recent_count, &sampler);
    for (int i = 0; i < V; i++) {
        check_near(got[i], shares[i] / total, 1e-6, what); /* the logits are float32 */
        assert_int_equal(got[i] == 0, shares[i] == 0);
    }
}

/* Of logits whose probabilities are 0.1, 0.4, 0.1, 0.3, 0, 0.1 at temperature 1. */
static void check_tenths(const char *what, size_t top_k, double top_p, double min_p,
                         double temperature, const double shares[V]) {
    static const double tenths[V] = {1, 4, 1, 3, 0, 1};
    struct reference_sampler sampler = {.repetition_penalty = 1,
                                        .top_k = top_k,
                                        .top_p = top_p,
                                        .min_p = min_p,
                                        .temperature = temperature};
    float logits[V];
    for (int i = 0; i < V; i++)
        logits[i] = (float)(log(tenths[i]) + 2.5);
    check_shares(what, logits, NULL, 0, sampler, shares);
}

static void test_cuts(void **state) {
    (void)state;
    check_tenths("nothing", 0, 1, 0, 1, (double[V]){1, 4, 1, 3, 0, 1});
    check_tenths("temperature", 0, 1, 0, 2, (double[V]){1, 2, 1, sqrt(3), 0, 1});
    check_tenths("top-k", 2, 1, 0, 1, (double[V]){0, 4, 0, 3, 0, 0});
    check_tenths("top-k, tie", 4, 1, 0, 1, (double[V]){1, 4, 1, 3, 0, 0});
    check_tenths("top-k above V", 99, 1, 0, 1, (double[V]){1, 4, 1, 3, 0, 1});
    check_tenths("top-p", 0, 0.5, 0, 1, (double[V]){0, 4, 0, 3, 0, 0});
    check_tenths("top-p, first alone", 0, 0.39, 0, 1, (double[V]){0, 4, 0, 0, 0, 0});
    check_tenths("top-p, first too little", 0, 0.41, 0, 1, (double[V]){0, 4, 0, 3, 0, 0});
    check_tenths("top-p, tie", 0, 0.75, 0, 1, (double[V]){1, 4, 0, 3, 0, 0});
    check_tenths("top-p 0", 0, 0, 0, 1, (double[V]){0, 4, 0, 0, 0, 0});
    check_tenths("top-p of the top-k", 2, 0.57, 0, 1, (double[V]){0, 4, 0, 0, 0, 0});
    check_tenths("top-p before temperature", 0, 0.65, 0, 9,
                 (double[V]){0, pow(4, 1 / 9.), 0, pow(3, 1 / 9.), 0, 0});
    check_tenths("min-p", 0, 1, 0.3, 1, (double[V]){0, 4, 0, 3, 0, 0});
    check_tenths("min-p below", 0, 1, 0.24, 1, (double[V]){1, 4, 1, 3, 0, 1});
    check_tenths("min-p above 1", 0, 1, 2, 1, (double[V]){0, 4, 0, 0, 0, 0});
    check_tenths("min-p before temperature", 0, 1, 0.3, 2, (double[V]){0, 2, 0, sqrt(3), 0, 0});
    check_tenths("all", 3, 0.9, 0.3, 2, (double[V]){0, 2, 0, sqrt(3), 0, 0});
    check_tenths("greedy", 0, 1, 0, 0, (double[V]){0, 1, 0, 0, 0, 0});

    const float equal[V] = {0};
    struct reference_sampler sampler = reference_sampler_plain();
    sampler.top_p = 0.5; /* reached exactly by the third */
    check_shares("half of equals", equal, NULL, 0, sampler, (double[V]){1, 1, 1, 0, 0, 0});
    sampler.top_p = 1;
    sampler.min_p = 1;
    check_shares("min-p of equals", equal, NULL, 0, sampler, (double[V]){1, 1, 1, 1, 1, 1});
}

static void test_log_probability(void **state) {
    (void)state;
    const float logits[] = {1000, 0}, even[] = {-INFINITY, 7, 7};
    assert_true(reference_log_probability(logits, 2, 1) == -1000);
    check_near(reference_log_probability(even, 3, 2), -log(2), 1e-15, "one of two");
    assert_true(reference_log_probability(even, 3, 0) == -INFINITY);
}

static void test_penalty_and_suppression(void **state) {
    (void)state;
    const float logits[V] = {2, -2, 0, 1, -1, 2};
    const int32_t recent[] = {3, 0, 1, 2, 0, 99, -1, 1, 0}, all[] = {0, 1, 2, 3, 4, 5};
    struct reference_sampler sampler = reference_sampler_plain();
    sampler.repetition_penalty = 2;
    const double full[V] = {exp(1), exp(-4), 1, exp(0.5), exp(-1), exp(2)};
    check_shares("penalty", logits, recent, 9, sampler, full);
    sampler.penalty_window = 8; /* no longer 3 */
    const double eight[V] = {exp(1), exp(-4), 1, exp(1), exp(-1), exp(2)};
    check_shares("window", logits, recent, 9, sampler, eight);
    sampler.penalty_window = 0;
    const double none[V] = {exp(2), exp(-2), 1, exp(1), exp(-1), exp(2)};
    check_shares("no window", logits, recent, 9, sampler, none);
    sampler.suppressed = (const int32_t[]){5, 5, -3, 1000};
    sampler.suppressed_count = 4;
    const double suppressed[V] = {exp(2), exp(-2), 1, exp(1), exp(-1), 0};
    check_shares("suppressed", logits, NULL, 0, sampler, suppressed);

    double got[V], zeros[V] = {0};
    sampler.suppressed = all;
    sampler.suppressed_count = V;
    assert_int_equal(reference_distribution(got, logits, V, NULL, 0, &sampler), 0);
    assert_memory_equal(got, zeros, sizeof got);
}

static void test_greedy(void **state) {
    (void)state;
    const float logits[V] = {1, -3, 4, 2, 4, 4};
    const int32_t recent[] = {2, 4, 5}, stop[] = {2};
    struct reference_sampler sampler = reference_sampler_plain();
    sampler.temperature = 0;
    check_shares("lowest of a tie", logits, NULL, 0, sampler, (double[V]){0, 0, 1, 0, 0, 0});
    sampler.repetition_penalty = 2; /* 3 now has what 2, 4 and 5 are left with */
    check_shares("penalised", logits, recent, 3, sampler, (double[V]){0, 0, 1, 0, 0, 0});
    sampler.repetition_penalty = 2.01;
    check_shares("penalised more", logits, recent, 3, sampler, (double[V]){0, 0, 0, 1, 0, 0});
    sampler.repetition_penalty = 1;
    sampler.suppressed = stop;
    sampler.suppressed_count = 1;
    check_shares("suppressed", logits, NULL, 0, sampler, (double[V]){0, 0, 0, 0, 1, 0});
}

static bool before(const float *logits, size_t a, size_t b) {
    return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
}

/* The cuts by their definitions, each token by itself, without sorting. */
static void test_cuts_by_definition(void **state) {
    (void)state;
    enum { WORDS = 60 };
    for (int trial = 0; trial < 500; trial++) {
        float logits[WORDS];
        double got[WORDS], want[WORDS], largest = -INFINITY, total = 0, sum = 0;
        bool within[WORDS];
        for (size_t i = 0; i < WORDS; i++) { /* steps of a quarter: many ties */
            logits[i] = (float)round(6 * random_normal(&generator)) / 4;
            largest = fmax(largest, logits[i]);
        }
        struct reference_sampler sampler = reference_sampler_plain();
        sampler.top_k = random_below(&generator, WORDS + 9);
        sampler.top_p = 1.2 * random_uniform(&generator);
        sampler.min_p = pow(random_uniform(&generator), 4);
        sampler.temperature = 0.1 + random_uniform(&generator);
        for (size_t i = 0; i < WORDS; i++) {
            size_t better = 0;
            for (size_t j = 0; j < WORDS; j++)
                better += before(logits, j, i);
            within[i] = !sampler.top_k || better < sampler.top_k;
            total += within[i] ? exp(logits[i] - largest) : 0;
        }
        for (size_t i = 0; i < WORDS; i++) {
            double mass = 0; /* of those before it */
            for (size_t j = 0; j < WORDS; j++)
                mass += within[j] && before(logits, j, i) ? exp(logits[j] - largest) : 0;
            bool kept = within[i] && (mass < sampler.top_p * total || sampler.top_p >= 1) &&
                        exp(logits[i] - largest) >= sampler.min_p;
            sum += want[i] = kept ? exp((logits[i] - largest) / sampler.temperature) : 0;
        }
        reference_distribution(got, logits, WORDS, NULL, 0, &sampler);
        for (size_t i = 0; i < WORDS; i++)
            check_near(got[i], want[i] / sum, 1e-14, "by definition");
    }
}

/* ---- Goodness of fit ---- */

static void test_upper_gamma(void **state) {
    (void)state;
    static const struct {
        double freedom, statistic, p; /* tabulated quantiles of the chi-square distribution */
    } table[] = {{1, 3.841458820694124, 0.05},   {1, 10.827566170662733, 0.001},
                 {2, 9.210340371976184, 0.01},   {3, 0.5843743741551835, 0.9},
                 {5, 15.08627246938899, 0.01},   {10, 18.307038053275146, 0.05},
                 {30, 59.70306430442993, 0.001}, {100, 124.34211340400407, 0.05}};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        check_near(reference_upper_gamma(table[i].freedom / 2, table[i].statistic / 2), table[i].p,
                   1e-12, "a quantile");
    for (int i = 0; i < 2000; i++) {
        /* for whole a it is the chance of fewer than a events where x are expected */
        double a = 1 + (double)random_below(&generator, 300);
        double x = 2 * a * random_uniform(&generator), term = exp(-x), sum = 0;
        for (double n = 0; n < a; n++) {
            sum += term;
            term *= x / (n + 1);
        }
        check_near(reference_upper_gamma(a, x), sum, 1e-11, "a Poisson sum");
        check_near(reference_upper_gamma(0.5, x), erfc(sqrt(x)), 1e-13, "erfc");
    }
    assert_true(reference_upper_gamma(3, 0) == 1 && reference_upper_gamma(3, INFINITY) == 0);
    check_near(reference_upper_gamma(128000, 128000), 0.5, 1e-3, "a whole vocabulary");
}

static void check_fit(const uint32_t *counts, const double *probabilities, size_t cells,
                      double statistic, size_t freedom, double p) {
    struct reference_chi_square fit = reference_chi_square(counts, probabilities, cells);
    assert_int_equal(fit.degrees_of_freedom, freedom);
    assert_true(fit.statistic == statistic || fabs(fit.statistic - statistic) < 1e-12);
    check_near(fit.p_value, p, 1e-12, "chi-square");
}

static void test_chi_square(void **state) {
    (void)state;
    check_fit((uint32_t[]){10, 20, 30}, (double[]){1 / 3., 1 / 3., 1 / 3.}, 3, 10, 2, exp(-5));
    check_fit((uint32_t[]){60, 40}, (double[]){0.5, 0.5}, 2, 4, 1, erfc(sqrt(2)));
    /* three cells pooled to 10 expected, 14 counted */
    double statistic = 25 / 45. + 1 / 45. + 16 / 10.;
    check_fit((uint32_t[]){40, 5, 46, 4, 5}, (double[]){0.45, 0.04, 0.45, 0.03, 0.03}, 5, statistic,
              2, exp(-statistic / 2));
    /* a pool of 2 joins the smallest: 50 expected, 46 counted */
    check_fit((uint32_t[]){54, 44, 2}, (double[]){0.5, 0.48, 0.02}, 3, 32 / 50., 1,
              erfc(sqrt(16 / 50.)));
    check_fit((uint32_t[]){1, 2}, (double[]){0.5, 0.5}, 2, 0, 0, 1);
    check_fit((uint32_t[]){50, 50, 0}, (double[]){0.5, 0.5, 0}, 3, 0, 1, 1);
    check_fit((uint32_t[]){50, 50, 1}, (double[]){0.5, 0.5, 0}, 3, INFINITY, 1, 0);
}

/* ---- Random numbers ---- */

static void test_random_known_values(void **state) {
    (void)state;
    /* the published generators' first outputs */
    struct random counted = {{1, 2, 3, 4}}, seeded = random_start(1234567);
    static const uint64_t outputs[] = {11520, 0, 1509978240, 1215971899390074240};
    static const uint64_t states[] = {6457827717110365317, 3203168211198807973,
                                      9817491932198370423u, 4593380528125082431};
    for (int i = 0; i < 4; i++)
        assert_true(random_bits(&counted) == outputs[i]);
    assert_memory_equal(seeded.state, states, sizeof states);

    setenv("PERIDOT_TEST_SEED", "12345678901234567890", 1);
    assert_true(random_seed() == 12345678901234567890u);
}

static void test_random_distributions(void **state) {
    (void)state;
    enum { CELLS = 20, DRAWS = 200000 };
    uint32_t uniform[CELLS] = {0}, normal[CELLS] = {0}, below[CELLS] = {0};
    double even[CELLS], uneven[CELLS]; /* of which the second differs by five parts in a hundred */
    for (int i = 0; i < CELLS; i++) {
        even[i] = 1. / CELLS;
        uneven[i] = (i % 2 ? 1.05 : 0.95) / CELLS;
    }
    for (int i = 0; i < DRAWS; i++) {
        double at = random_uniform(&generator);
        assert_true(at >= 0 && at < 1);
        uniform[(int)(CELLS * at)]++;
        /* the normal distribution's own function makes its numbers even */
        double mass = erfc(-random_normal(&generator) / sqrt(2)) / 2;
        normal[mass < 1 ? (int)(CELLS * mass) : CELLS - 1]++;
        below[random_below(&generator, CELLS)]++;
    }
    assert_true(reference_chi_square(uniform, even, CELLS).p_value > 1e-9);
    assert_true(reference_chi_square(normal, even, CELLS).p_value > 1e-9);
    assert_true(reference_chi_square(below, even, CELLS).p_value > 1e-9);
    assert_true(reference_chi_square(below, uneven, CELLS).p_value < 1e-9);
    for (int i = 0; i < 1000; i++) { /* a bound that rejects a quarter of all bits */
        uint64_t bound = UINT64_C(3) << 62;
        assert_true(random_below(&generator, bound) < bound);
        assert_true(random_below(&generator, 1) == 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_formats_round_trip),
        cmocka_unit_test(test_f16_values),
        cmocka_unit_test(test_rounding),
        cmocka_unit_test(test_small_products),
        cmocka_unit_test(test_products_of_every_length),
        cmocka_unit_test(test_rmsnorm),
        cmocka_unit_test(test_gelu),
        cmocka_unit_test(test_rope),
        cmocka_unit_test(test_softmax),
        cmocka_unit_test(test_attention_by_hand),
        cmocka_unit_test(test_attention_identities),
        cmocka_unit_test(test_comparing),
        cmocka_unit_test(test_conformance),
        cmocka_unit_test(test_chunks_and_truncation),
        cmocka_unit_test(test_f16_cache),
        cmocka_unit_test(test_q8),
        cmocka_unit_test(test_q8_cache),
        cmocka_unit_test(test_cuts),
        cmocka_unit_test(test_penalty_and_suppression),
        cmocka_unit_test(test_greedy),
        cmocka_unit_test(test_cuts_by_definition),
        cmocka_unit_test(test_log_probability),
        cmocka_unit_test(test_upper_gamma),
        cmocka_unit_test(test_chi_square),
        cmocka_unit_test(test_random_known_values),
        cmocka_unit_test(test_random_distributions),
    };
    return cmocka_run_group_tests_name("reference", tests, start, NULL);
}
