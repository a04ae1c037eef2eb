/* Hidden states of every layer: the head's product of them, after the final norm, is the logits of
 * a reference model that has no more layers; the same from a prompt, from decoding and in slices;
 * and results where they are on the device. */
#include "conformance.h"
#include "open_device.h"
#include "reference/random.h"
#include "reference/reference_checkpoint.h"
#include "session.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define COUNT 21

static peridot_device *device;
static peridot_model *model;
static peridot_model_info info = {.struct_size = sizeof(peridot_model_info)};
static struct reference_model *reference;
static int32_t tokens[COUNT];

static int open_all(void **state) {
    (void)state;
    struct random random = random_announced();
    struct checkpoint *checkpoint;
    device = open_test_device();
    MUST(peridot_model_load_wait(device, path_of("gqa-bf16"), NULL, &model, &error));
    MUST(checkpoint_open(path_of("gqa-bf16"), &checkpoint, &error));
    reference = reference_checkpoint_load(checkpoint);
    checkpoint_close(checkpoint);
    peridot_model_describe(model, &info);
    for (int i = 0; i < COUNT; i++)
        tokens[i] = i ? 3 + (int32_t)random_below(&random, info.vocabulary - 3) : 2;
    return 0;
}

static int close_all(void **state) {
    (void)state;
    unsigned messages = validation_messages();
    reference_checkpoint_free(reference);
    peridot_model_close(model);
    peridot_device_close(device);
    return messages != 0;
}

static peridot_session *create(uint32_t layer) {
    peridot_session *session;
    peridot_session_params params = {
        .struct_size = sizeof params, .kv = PERIDOT_KV_F32, .hidden_layer = layer};
    MUST(peridot_session_create(model, &params, &session, &error));
    return session;
}

/* Logits [COUNT][vocabulary] of hidden states [COUNT][d_model]. */
static double *head(const float *hidden, bool normed) {
    size_t D = info.d_model, V = info.vocabulary;
    double *logits = calloc(COUNT * V, sizeof *logits), *row = calloc(D, sizeof *row);
    assert_non_null(logits);
    assert_non_null(row);
    for (size_t t = 0; t < COUNT; t++) {
        for (size_t i = 0; i < D; i++)
            row[i] = hidden[t * D + i];
        if (!normed)
            reference_rmsnorm(row, row, reference->final_norm, 1, D, reference->rms_eps);
        for (size_t v = 0; v < V; v++)
            for (size_t i = 0; i < D; i++)
                logits[t * V + v] += row[i] * reference->embedding[v * D + i];
    }
    free(row);
    return logits;
}

static double *reference_logits(size_t layers) {
    struct reference_model shorter = *reference;
    shorter.layer_count = layers;
    double *logits = calloc((size_t)COUNT * info.vocabulary, sizeof *logits);
    assert_non_null(logits);
    struct reference_cache *cache = reference_cache_create(&shorter, REFERENCE_KV_DOUBLE);
    reference_model_append(&shorter, cache, tokens, COUNT, logits);
    reference_cache_free(cache);
    return logits;
}

static void check_states(const float *hidden, uint32_t layer) {
    bool normed = layer == PERIDOT_HIDDEN_NORMED;
    double *want = reference_logits(normed ? info.layers : layer), *got = head(hidden, normed);
    double off = 0, size = 0;
    for (size_t i = 0; i < (size_t)COUNT * info.vocabulary; i++) {
        off += (want[i] - got[i]) * (want[i] - got[i]);
        size += want[i] * want[i];
    }
    if (!(off <= 1e-9 * size))
        fail_msg("hidden states of layer %u: NMSE %g", layer, off / size);
    free(want);
    free(got);
}

static void run_slices(peridot_session *session) {
    peridot_work work = {sizeof work, tokens, COUNT, 0, NULL, NULL};
    peridot_advance advance = {.struct_size = sizeof advance, .budget_ms = 0.05f};
    peridot_work_status status = {.struct_size = sizeof status};
    MUST(peridot_session_start(session, &work, &error));
    do {
        peridot_error error = {0};
        if (peridot_session_advance(session, &advance, NULL, &error) < 0)
            fail_msg("%s", error.message);
        MUST(peridot_session_poll(session, &status, &error));
    } while (status.active);
}

static void test_every_layer(void **state) {
    (void)state;
    float *hidden = calloc((size_t)COUNT * info.d_model, sizeof *hidden);
    assert_non_null(hidden);
    for (uint32_t i = 1; i <= info.layers + 1; i++) {
        uint32_t layer = i > info.layers ? PERIDOT_HIDDEN_NORMED : i;
        for (int way = 0; way < 3; way++) {
            peridot_session *session = create(layer);
            for (int t = 0; way == 1 && t < COUNT; t++)
                MUST(peridot_session_prompt_wait(session, tokens + t, 1, NULL, &error));
            if (way == 0)
                MUST(peridot_session_prompt_wait(session, tokens, COUNT, NULL, &error));
            if (way == 2)
                run_slices(session);
            memset(hidden, 0xa5, (size_t)COUNT * info.d_model * sizeof *hidden);
            MUST(peridot_session_hidden_wait(session, 0, COUNT, hidden, &error));
            check_states(hidden, layer);
            peridot_session_close_wait(session);
        }
    }
    free(hidden);
}

/* What the application would find on the device is what the host gets. */
static void test_results_on_the_device(void **state) {
    (void)state;
    peridot_session *session = create(2);
    float *want = calloc(info.vocabulary, sizeof *want), *got = calloc(info.vocabulary, 4);
    assert_non_null(want);
    assert_non_null(got);
    peridot_result_buffer at = {.struct_size = sizeof at};
    int32_t copied[COUNT];
    MUST(peridot_session_prompt_wait(session, tokens, COUNT, NULL, &error));
    MUST(peridot_session_result(session, PERIDOT_RESULT_LOGITS, &at, &error));
    assert_int_equal(at.columns, info.vocabulary);
    struct buffer buffer = {.handle = at.buffer, .size = (uint64_t)at.columns * 4};
    MUST(session_read(session, &buffer, at.offset, buffer.size, got, &error));
    MUST(peridot_session_logits_wait(session, want, &error));
    assert_memory_equal(want, got, buffer.size);
    MUST(peridot_session_result(session, PERIDOT_RESULT_TOKENS, &at, &error));
    buffer.handle = at.buffer;
    MUST(session_read(session, &buffer, at.offset, sizeof copied, copied, &error));
    assert_memory_equal(copied, tokens, sizeof copied);
    MUST(peridot_session_result(session, PERIDOT_RESULT_HIDDEN, &at, &error));
    buffer.handle = at.buffer;
    uint32_t row = COUNT - 2;
    MUST(session_read(session, &buffer, at.offset + (uint64_t)row * at.stride * 4,
                      (uint64_t)at.columns * 4, got, &error));
    MUST(peridot_session_hidden_wait(session, row, 1, want, &error));
    assert_memory_equal(want, got, (size_t)at.columns * 4);
    assert_true(at.address != 0 && at.rows == peridot_session_context(session));
    free(want);
    free(got);
    peridot_session_close_wait(session);
}

static void test_refusals(void **state) {
    (void)state;
    peridot_error error;
    peridot_session *session = NULL;
    float hidden[1024];
    peridot_result_buffer at = {.struct_size = sizeof at};
    peridot_session_params params = {.struct_size = sizeof params, .hidden_layer = info.layers + 1};
    assert_int_equal(peridot_session_create(model, &params, &session, &error),
                     PERIDOT_ERROR_ARGUMENT);
    session = create(0);
    assert_int_equal(peridot_session_hidden_wait(session, 0, 1, hidden, &error),
                     PERIDOT_ERROR_ARGUMENT);
    assert_int_equal(peridot_session_result(session, PERIDOT_RESULT_HIDDEN, &at, &error),
                     PERIDOT_ERROR_ARGUMENT);
    peridot_session_close_wait(session);
    session = create(1);
    MUST(peridot_session_prompt_wait(session, tokens, 3, NULL, &error));
    assert_int_equal(peridot_session_hidden_wait(session, 2, 2, hidden, &error),
                     PERIDOT_ERROR_ARGUMENT);
    assert_int_equal(peridot_session_hidden_wait(session, UINT32_MAX, 2, hidden, &error),
                     PERIDOT_ERROR_ARGUMENT);
    peridot_session_close_wait(session);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_layer),
        cmocka_unit_test(test_results_on_the_device),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
