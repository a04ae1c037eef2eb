/* The GPU sampler against the CPU's distribution: the same support, and by chi-square the same
 * chances. */
#include "open_device.h"
#include "reference/random.h"
#include "reference/reference_chi_square.h"
#include "reference/reference_distribution.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define DRAWS_MOST 1000
#define VOCABULARY 384 /* of small-f32 */

static peridot_device *device;
static peridot_model *model;
static peridot_session *session;
static const uint32_t *mask; /* of the session; NULL: none */
static uint64_t seed;
static uint32_t draws = DRAWS_MOST; /* fewer with PERIDOT_TEST_QUICK=1, for slow devices */

static int open_all(void **state) {
    (void)state;
    peridot_session_params params = {.struct_size = sizeof params, .context = 64};
    device = open_test_device();
    MUST(peridot_model_load_wait(device, TEST_DATA "/small-f32", NULL, &model, &error));
    MUST(peridot_session_create(model, &params, &session, &error));
    seed = random_seed();
    const char *quick = getenv("PERIDOT_TEST_QUICK");
    if (quick && *quick == '1')
        draws = 60;
    print_message("seed %llu\n", (unsigned long long)seed);
    return 0;
}

static int close_all(void **state) {
    (void)state;
    peridot_session_close_wait(session);
    peridot_model_close(model);
    peridot_device_close(device);
    return 0;
}

/* The conformance text's beginning, after which no token has more than a tenth of the probability.
 */
static const int32_t prompt[] = {2,  38, 119, 342, 171, 231, 170, 230, 11,  261, 355, 17,
                                 24, 66, 365, 296, 159, 62,  43,  156, 105, 288, 11,  88};
#define PROMPT_COUNT (sizeof prompt / sizeof *prompt)

/* One draw after the prompt. */
static int32_t draw(peridot_sampling sampling, uint64_t own_seed) {
    sampling.struct_size = sizeof sampling;
    sampling.seed = own_seed;
    MUST(peridot_session_sampling(session, &sampling, &error));
    MUST(peridot_session_generate_wait(session, 1, NULL, NULL, NULL, &error));
    int32_t token = peridot_session_tokens(session)[PROMPT_COUNT];
    MUST(peridot_session_truncate(session, PROMPT_COUNT, &error));
    return token;
}

static void read_logits(float *logits) {
    MUST(peridot_session_truncate(session, 0, &error));
    MUST(peridot_session_prompt_wait(session, prompt, PROMPT_COUNT, NULL, &error));
    MUST(peridot_session_logits_wait(session, logits, &error));
}

/* What the GPU must draw from after the prompt. */
static size_t expect(const float *logits, const peridot_sampling *sampling,
                     const int32_t *suppressed, size_t suppressed_count, double *probabilities) {
    struct reference_sampler sampler = reference_sampler_plain();
    if (sampling->repetition_penalty > 0)
        sampler.repetition_penalty = sampling->repetition_penalty;
    if (sampling->top_p > 0)
        sampler.top_p = sampling->top_p;
    sampler.allowed = mask;
    sampler.suppressed = suppressed;
    sampler.suppressed_count = suppressed_count;
    sampler.top_k = sampling->top_k;
    sampler.min_p = sampling->min_p;
    sampler.temperature = sampling->temperature;
    return reference_distribution(probabilities, logits, VOCABULARY, prompt, PROMPT_COUNT,
                                  &sampler);
}

/* `least`: tokens that must be possible, without which the test would show nothing. */
static void check(const char *name, peridot_sampling sampling, const int32_t *suppressed,
                  uint32_t suppressed_count, size_t least) {
    float logits[VOCABULARY];
    double expected[VOCABULARY];
    uint32_t counts[VOCABULARY] = {0};
    read_logits(logits);
    size_t support = expect(logits, &sampling, suppressed, suppressed_count, expected);
    assert_true(support >= least);
    for (uint32_t i = 0; i < draws; i++)
        counts[draw(sampling, seed * DRAWS_MOST + i)]++;
    for (uint32_t i = 0; i < VOCABULARY; i++)
        if (expected[i] == 0 && counts[i])
            fail_msg("%s: token %u was drawn %u times and has no chance", name, i, counts[i]);
    double p = reference_chi_square(counts, expected, VOCABULARY).p_value;
    print_message("%-28s %3zu tokens possible, p = %.3f\n", name, support, p);
    assert_true(p > 1e-5); /* 14 such tests fail by chance once in seven thousand runs */
}

static void test_distributions(void **state) {
    (void)state;
    const int32_t stops[] = {1};
    check("temperature 1", (peridot_sampling){.temperature = 1}, NULL, 0, 384);
    check("temperature 2.5", (peridot_sampling){.temperature = 2.5f}, NULL, 0, 384);
    check("temperature 0.4", (peridot_sampling){.temperature = 0.4f}, NULL, 0, 384);
    check("top-k 7", (peridot_sampling){.temperature = 1.5f, .top_k = 7}, NULL, 0, 7);
    check("top-k 1", (peridot_sampling){.temperature = 1.5f, .top_k = 1}, NULL, 0, 1);
    check("top-p 0.5", (peridot_sampling){.temperature = 1.2f, .top_p = 0.5f}, NULL, 0, 5);
    check("top-p 0.95", (peridot_sampling){.temperature = 2, .top_p = 0.95f}, NULL, 0, 50);
    check("min-p 0.2", (peridot_sampling){.temperature = 3, .min_p = 0.2f}, NULL, 0, 5);
    check("penalty 1.5", (peridot_sampling){.temperature = 1, .repetition_penalty = 1.5f}, NULL, 0,
          384);
    check("no stop token yet", (peridot_sampling){.temperature = 3, .min_tokens = 1}, stops, 1,
          383);
    check("all of them",
          (peridot_sampling){.temperature = 1.3f,
                             .top_k = 40,
                             .top_p = 0.9f,
                             .min_p = 0.02f,
                             .repetition_penalty = 1.2f},
          NULL, 0, 10);
}

/* The same over the tokens that a random mask allows, about `share` in 256 of them. */
static void check_masked(const char *name, peridot_sampling sampling, uint32_t share,
                         size_t least) {
    uint32_t words[VOCABULARY / 32] = {0};
    struct random random = random_start(seed + share);
    for (uint32_t id = 0; id < VOCABULARY; id++)
        if (random_below(&random, 256) < share)
            words[id / 32] |= 1u << id % 32;
    MUST(peridot_session_mask(session, words, VOCABULARY / 32, &error));
    mask = words;
    check(name, sampling, NULL, 0, least);
    mask = NULL;
    MUST(peridot_session_mask(session, NULL, 0, &error));
}

static void test_masked_distributions(void **state) {
    (void)state;
    check_masked("masked, temperature 1", (peridot_sampling){.temperature = 1}, 128, 100);
    check_masked("masked, few left", (peridot_sampling){.temperature = 2, .top_k = 20}, 12, 2);
    check_masked("masked, all of them",
                 (peridot_sampling){.temperature = 1.3f,
                                    .top_k = 40,
                                    .top_p = 0.9f,
                                    .min_p = 0.02f,
                                    .repetition_penalty = 1.2f},
                 100, 5);
}

/* Greedy is exact, with and without a penalty; the same seed gives the same token. */
static void test_greedy_and_seeds(void **state) {
    (void)state;
    float logits[VOCABULARY];
    double expected[VOCABULARY];
    static const float penalties[] = {1, 1.1f, 2, 8};
    read_logits(logits);
    for (int i = 0; i < 4; i++) {
        peridot_sampling sampling = {.repetition_penalty = penalties[i]};
        expect(logits, &sampling, NULL, 0, expected);
        assert_true(expected[draw(sampling, 1)] == 1);
    }
    peridot_sampling sampling = {.temperature = 2, .top_p = 0.99f};
    for (uint64_t i = 0; i < 20; i++)
        assert_int_equal(draw(sampling, seed + i), draw(sampling, seed + i));
    assert_int_equal(validation_messages(), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_distributions),
        cmocka_unit_test(test_masked_distributions),
        cmocka_unit_test(test_greedy_and_seeds),
    };
    return cmocka_run_group_tests_name("sampling", tests, open_all, close_all);
}
