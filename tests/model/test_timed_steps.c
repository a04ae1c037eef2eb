/* Decode steps with timestamps around every dispatch: the same bits as without, and times that make
 * sense. PERIDOT_TEST_VALIDATION=1 as in open_device.h. */
#include "open_device.h"
#include "platform.h"
#include "timed_steps.h"
#include "timestamps.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define STEPS 12
#define CONTEXT 64
#define VOCABULARY_MAX 1024

static peridot_device *device;
static peridot_model *model;

static int open_all(void **state) {
    (void)state;
    peridot_model_params params = {.struct_size = sizeof params};
    device = open_test_device();
    MUST(peridot_model_load_wait(device, DEMO_MODEL, &params, &model, &error));
    return 0;
}

static int close_all(void **state) {
    (void)state;
    peridot_model_close(model);
    peridot_device_close(device);
    return validation_messages() > 0;
}

static peridot_session *open_session(void) {
    static const int32_t prompt[] = {2, 106, 300, 400, 500, 108};
    peridot_session_params params = {.struct_size = sizeof params, .context = CONTEXT};
    peridot_sampling sampling = {.struct_size = sizeof sampling, .min_tokens = CONTEXT};
    peridot_session *session = NULL;
    MUST(peridot_session_create(model, &params, &session, &error));
    MUST(peridot_session_sampling(session, &sampling, &error));
    MUST(peridot_session_prompt_wait(session, prompt, 6, NULL, &error));
    return session;
}

struct trace {
    int32_t tokens[CONTEXT];
    float probabilities[STEPS];
    float logits[STEPS][VOCABULARY_MAX];
};

static bool take_token(const peridot_token *token, void *user) {
    *(float *)user = token->log_probability;
    return true;
}

static void step(peridot_session *session, struct trace *trace, int index) {
    MUST(peridot_session_generate_wait(session, 1, take_token, &trace->probabilities[index], NULL,
                                       &error));
    MUST(peridot_session_logits_wait(session, trace->logits[index], &error));
}

static void check_times(const struct timed_steps *timed, double wall) {
    double sum = 0, *seconds = malloc(timed->dispatch_count * sizeof *seconds);
    uint32_t listed = 0;
    assert_non_null(seconds);
    MUST(timed_steps_read(timed, seconds, &error));
    for (uint32_t i = 0; i < timed->dispatch_count; i++) {
        assert_true(seconds[i] >= 0 && isfinite(seconds[i]));
        sum += seconds[i];
    }
    for (uint32_t i = 0; i < timed->segment_count; i++)
        listed += recording_count(&timed->segments[i].segment->recording);
    assert_int_equal(listed, timed->dispatch_count);
    assert_string_equal(timed_steps_dispatch(timed, 0)->label, "embed");
    assert_string_equal(timed_steps_dispatch(timed, timed->dispatch_count - 1)->label,
                        "sample_finish");
    assert_true(sum > 0 && sum < wall);
    free(seconds);
}

static void test_same_bits(void **state) {
    (void)state;
    static struct trace plain, with; /* zeroed: unused ends compare equal */
    peridot_session *session = open_session();
    for (int i = 0; i < STEPS; i++)
        step(session, &plain, i);
    memcpy(plain.tokens, peridot_session_tokens(session), (6 + STEPS) * sizeof(int32_t));
    peridot_session_close_wait(session);

    session = open_session();
    struct timed_steps timed;
    if (!timestamps_supported(session->lane.device)) {
        peridot_error error;
        assert_int_equal(timed_steps_begin(session, &timed, &error), PERIDOT_ERROR_UNSUPPORTED);
        peridot_session_close_wait(session);
        skip();
    }
    MUST(timed_steps_begin(session, &timed, &error));
    for (int i = 0; i < STEPS; i++) {
        double start = platform_seconds();
        step(session, &with, i);
        if (i > 0)
            check_times(&timed, platform_seconds() - start);
        if (i == STEPS / 2) { /* and back to plain ones and on */
            timed_steps_end(&timed);
            step(session, &with, ++i);
            MUST(timed_steps_begin(session, &timed, &error));
        }
    }
    timed_steps_end(&timed);
    memcpy(with.tokens, peridot_session_tokens(session), (6 + STEPS) * sizeof(int32_t));
    assert_int_equal(peridot_session_length(session), 6 + STEPS);
    peridot_session_close_wait(session);
    assert_memory_equal(&plain, &with, sizeof plain);
}

/* A device that cannot take the time says so, and its session goes on. */
static void test_no_timestamps(void **state) {
    (void)state;
    struct timed_steps timed;
    peridot_error error;
    peridot_session *session = open_session();
    struct device_limits *limits = &session->lane.device->info.limits;
    float period = limits->timestamp_period;
    limits->timestamp_period = 0;
    assert_int_equal(timed_steps_begin(session, &timed, &error), PERIDOT_ERROR_UNSUPPORTED);
    assert_non_null(strstr(error.message, "timestamps"));
    timed_steps_end(&timed);
    MUST(peridot_session_generate_wait(session, 3, NULL, NULL, NULL, &error));
    assert_int_equal(peridot_session_length(session), 9);
    limits->timestamp_period = period;
    peridot_session_close_wait(session);
}

/* A timestamp counter of few bits starts over. */
static void test_ticks(void **state) {
    (void)state;
    struct device few = {.info.limits = {.timestamp_bits = 36, .timestamp_period = 2}};
    uint64_t end = (uint64_t)1 << 36;
    assert_true(fabs(timestamps_seconds(&few, 100, 600) - 1e-6) <= 1e-18);
    assert_true(fabs(timestamps_seconds(&few, end - 100, 400) - 1e-6) <= 1e-18);
    few.info.limits.timestamp_bits = 64;
    assert_true(fabs(timestamps_seconds(&few, UINT64_MAX - 99, 400) - 1e-6) <= 1e-18);
    few.info.limits.timestamp_period = 0;
    assert_false(timestamps_supported(&few));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_bits),
        cmocka_unit_test(test_no_timestamps),
        cmocka_unit_test(test_ticks),
    };
    return cmocka_run_group_tests_name("timed steps", tests, open_all, close_all);
}
