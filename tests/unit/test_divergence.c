/* Softmax, KL divergence and statistics against sums written out, and against known answers. */
#include "divergence.h"
#include "reference/random.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define VOCABULARY 1000

static void assert_near(double value, double expected, double tolerance) {
    if (!(fabs(value - expected) <= tolerance))
        fail_msg("%.17g is not %.17g, within %g", value, expected, tolerance);
}

static struct softmax softmax(const float *logits, uint32_t count) {
    struct softmax made;
    assert_true(softmax_of(logits, count, &made));
    return made;
}

static double kl(const float *base, const float *own, uint32_t count) {
    struct softmax base_softmax = softmax(base, count), own_softmax = softmax(own, count);
    return divergence(base, &base_softmax, own, &own_softmax, count);
}

/* Logits of a wide range. */
static void fill(float *logits, uint32_t count, struct random *random) {
    for (uint32_t i = 0; i < count; i++)
        logits[i] = (float)(random_uniform(random) * 60 - 30);
}

/* ---- Known answers ---- */

static void test_uniform_logits(void **state) {
    (void)state;
    float logits[VOCABULARY];
    double losses[7];
    for (size_t i = 0; i < COUNT(logits); i++)
        logits[i] = -3.25f;
    struct softmax even = softmax(logits, VOCABULARY);
    for (size_t i = 0; i < COUNT(losses); i++)
        losses[i] = -softmax_log(&even, logits[i]);
    struct estimate perplexity = estimate_exp(estimate_mean(losses, COUNT(losses)));
    assert_near(perplexity.mean, VOCABULARY, 1e-9);
    assert_near(perplexity.error, 0, 1e-9);
    assert_int_equal(even.top, 0);
}

/* 3/4 and 1/4 against two halves, by hand: 3/4 ln(3/2) + 1/4 ln(1/2); and the other way round. */
static void test_two_tokens(void **state) {
    (void)state;
    const float skewed[] = {1.0986122886681098f, 0}, even[] = {5, 5};
    struct softmax three_to_one = softmax(skewed, 2);
    assert_near(softmax_log(&three_to_one, skewed[0]), -0.2876820724517809, 1e-7);
    assert_near(softmax_log(&three_to_one, skewed[1]), -1.3862943611198906, 1e-7);
    assert_near(kl(skewed, even, 2), 0.13081203594113694, 1e-7);
    assert_near(kl(even, skewed, 2), 0.14384103622589042, 1e-7);
}

static void test_equal_rows(void **state) {
    (void)state;
    struct random random = random_announced();
    float logits[VOCABULARY], shifted[VOCABULARY];
    fill(logits, VOCABULARY, &random);
    for (size_t i = 0; i < COUNT(logits); i++) {
        logits[i] = roundf(logits[i] * 256) / 256; /* so that adding 64 is exact */
        shifted[i] = logits[i] + 64;
    }
    assert_true(kl(logits, logits, VOCABULARY) == 0);
    assert_near(kl(logits, shifted, VOCABULARY), 0, 1e-14);
    shifted[softmax(logits, VOCABULARY).top] += 1;
    assert_true(kl(logits, shifted, VOCABULARY) > 0);
}

static void test_extremes(void **state) {
    (void)state;
    const float far[] = {-FLT_MAX, FLT_MAX, 0}, one[] = {-7.5f};
    struct softmax certain = softmax(far, 3), only = softmax(one, 1);
    assert_int_equal(certain.top, 1);
    assert_true(softmax_log(&certain, far[1]) == 0);
    assert_true(softmax_log(&certain, far[0]) == -2.0 * FLT_MAX);
    assert_true(softmax_log(&only, one[0]) == 0);
    const float faults[] = {NAN, INFINITY, -INFINITY}, tied[] = {1, 3, 2, 3};
    for (size_t fault = 0; fault < COUNT(faults); fault++)
        for (size_t place = 0; place < 4; place++) {
            float logits[] = {1, 2, 3, 4};
            struct softmax none;
            logits[place] = faults[fault];
            assert_false(softmax_of(logits, 4, &none));
        }
    assert_int_equal(softmax(tied, 4).top, 1);
}

/* ---- Sums written out ---- */

/* log p of each token by its own sum: no maximum, no shared parts. */
static void slow_logs(const float *logits, double *logs) {
    for (size_t i = 0; i < VOCABULARY; i++) {
        double sum = 0;
        for (size_t j = 0; j < VOCABULARY; j++)
            sum += exp((double)logits[j] - logits[i]);
        logs[i] = -log(sum);
    }
}

static void test_random_rows(void **state) {
    (void)state;
    struct random random = random_announced();
    static float base[VOCABULARY], own[VOCABULARY];
    static double base_logs[VOCABULARY], own_logs[VOCABULARY];
    for (int round = 0; round < 10; round++) {
        double sum = 0;
        uint32_t top = 0;
        fill(base, VOCABULARY, &random);
        fill(own, VOCABULARY, &random);
        slow_logs(base, base_logs);
        slow_logs(own, own_logs);
        struct softmax own_softmax = softmax(own, VOCABULARY);
        for (uint32_t i = 0; i < VOCABULARY; i++) {
            sum += exp(base_logs[i]) * (base_logs[i] - own_logs[i]);
            top = own_logs[i] > own_logs[top] ? i : top;
            assert_near(softmax_log(&own_softmax, own[i]), own_logs[i], 1e-12);
        }
        assert_near(kl(base, own, VOCABULARY), sum, 1e-11 * sum);
        assert_int_equal(own_softmax.top, top);
    }
}

/* ---- Statistics ---- */

static void test_estimates(void **state) {
    (void)state;
    const double values[] = {1, 2, 3, 4}, large[] = {1e9 + 1, 1e9 + 2, 1e9 + 3, 1e9 + 4};
    struct estimate estimate = estimate_mean(values, 4), far = estimate_mean(large, 4);
    assert_near(estimate.mean, 2.5, 1e-15);
    assert_near(estimate.error, 0.6454972243679028, 1e-15); /* sqrt(5/3) / 2 */
    assert_near(far.mean, 1e9 + 2.5, 1e-6);
    assert_near(far.error, 0.6454972243679028, 1e-9);
    assert_true(estimate_mean(values, 1).mean == 1);
    assert_true(isnan(estimate_mean(values, 1).error));
    struct estimate raised = estimate_exp((struct estimate){1.6094379124341003, 0.1});
    assert_near(raised.mean, 5, 1e-12);
    assert_near(raised.error, 0.5, 1e-12);
}

static void test_percentiles(void **state) {
    (void)state;
    double values[] = {7, -1, 3, 0, 10, 5, 1, 2, 9, 4, 8}; /* -1 to 10 without 6 */
    sort_values(values, COUNT(values));
    for (size_t i = 1; i < COUNT(values); i++)
        assert_true(values[i - 1] < values[i]);
    const struct {
        double share, expected;
    } cases[] = {{0, -1}, {0.5, 4}, {0.9, 9}, {0.25, 1.5}, {0.99, 9.9}, {0.999, 9.99}, {1, 10}};
    for (size_t i = 0; i < COUNT(cases); i++)
        assert_near(percentile(values, COUNT(values), cases[i].share), cases[i].expected, 1e-12);
    assert_true(percentile(values, 1, 0.999) == -1);
    assert_near(percentile(values, 2, 0.75), -0.25, 1e-15);
    double ties[] = {2, 1, 2, 1};
    sort_values(ties, 4);
    assert_true(ties[0] == 1 && ties[1] == 1 && ties[2] == 2 && ties[3] == 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_uniform_logits), cmocka_unit_test(test_two_tokens),
        cmocka_unit_test(test_equal_rows),     cmocka_unit_test(test_extremes),
        cmocka_unit_test(test_random_rows),    cmocka_unit_test(test_estimates),
        cmocka_unit_test(test_percentiles),
    };
    return cmocka_run_group_tests_name("divergence", tests, NULL, NULL);
}
