/* What the memory plan says, against what the engine's arenas really allocate. */
#include "open_device.h"
#include "platform.h"
#include "session.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static peridot_device *device;

static int open_device(void **state) {
    (void)state;
    device = open_test_device();
    return 0;
}

static int close_device(void **state) {
    (void)state;
    peridot_device_close(device);
    return 0;
}

static uint64_t allocated(void) {
    return device->engine->memory_used;
}

static const char *path_of(const char *name) {
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", TEST_DATA, name);
    return path;
}

static peridot_memory_plan plan_for(const char *name, const peridot_model_params *params,
                                    const peridot_session_params *session,
                                    peridot_model_info *info) {
    peridot_memory_plan plan = {.struct_size = sizeof plan};
    uint64_t before = allocated();
    MUST(peridot_model_inspect(device, path_of(name), params, session, info, &plan, &error));
    assert_int_equal(allocated(), before);
    return plan;
}

static bool watch(const peridot_progress *progress, void *user) {
    uint64_t *most = user;
    (void)progress;
    if (allocated() > *most)
        *most = allocated();
    return true;
}

/* What an application is told of a model before and after loading it, all but the time. */
static void check_alike(const peridot_model_info *a, const peridot_model_info *b) {
    assert_int_equal(a->layers, b->layers);
    assert_int_equal(a->vocabulary, b->vocabulary);
    assert_int_equal(a->parameters, b->parameters);
    assert_int_equal(a->weight_bytes, b->weight_bytes);
    assert_int_equal(a->ideal_bytes, b->ideal_bytes);
    assert_int_equal(a->padded_bytes, b->padded_bytes);
    assert_int_equal(a->fingerprint, b->fingerprint);
    assert_int_equal(a->weights, b->weights);
    assert_int_equal(a->has_tokenizer, b->has_tokenizer);
    assert_int_equal(a->stop_token_count, b->stop_token_count);
}

/* Loads as planned, and compares; the caller closes it. */
static peridot_model *load(const char *name, peridot_weights weights, uint64_t max_piece) {
    uint64_t before = allocated(), most = before;
    peridot_model_params params = {.struct_size = sizeof params,
                                   .weights = weights,
                                   .max_piece = max_piece,
                                   .progress = watch,
                                   .progress_user = &most};
    peridot_model_info planned = {.struct_size = sizeof planned};
    peridot_model_info loaded = {.struct_size = sizeof loaded};
    peridot_memory_plan plan = plan_for(name, &params, NULL, &planned);
    peridot_model *model = NULL;
    MUST(peridot_model_load_wait(device, path_of(name), &params, &model, &error));
    assert_int_equal(allocated() - before, plan.weight_bytes);
    assert_int_equal(most - before, plan.weight_bytes + plan.staging_bytes);
    peridot_model_describe(model, &loaded);
    check_alike(&planned, &loaded);
    assert_int_equal(plan.weight_bytes, loaded.weight_bytes);
    assert_true(plan.weight_bytes >= loaded.padded_bytes);
    return model;
}

static void check_session(peridot_model *model, const char *name,
                          const peridot_session_params *params) {
    peridot_memory_plan plan = plan_for(name, NULL, params, NULL);
    uint64_t before = allocated();
    peridot_session *session = NULL;
    MUST(peridot_session_create(model, params, &session, &error));
    assert_int_equal(plan.context, peridot_session_context(session));
    MUST(kv_cache_reserve(session, plan.context, &error));
    assert_int_equal(allocated() - before, plan.working_bytes + plan.kv_bytes);
    assert_int_equal(plan.total_bytes, plan.weight_bytes + plan.working_bytes + plan.kv_bytes);
    peridot_session_statistics statistics = {.struct_size = sizeof statistics};
    peridot_session_describe(session, &statistics);
    assert_int_equal(statistics.scratch_bytes, plan.working_bytes);
    assert_int_equal(statistics.kv_bytes, plan.kv_bytes);
    assert_true(plan.kv_bytes >= plan.kv_token_bytes * plan.context);
    assert_true(plan.fits);
    assert_true(plan.largest_context >= plan.context);
    peridot_session_close_wait(session);
    assert_int_equal(allocated(), before);
}

/* ---- Tests ---- */

static const char *const checkpoints[] = {"small-f32", "gqa-bf16", "mha-wide-bf16-sharded",
                                          "mqa-bf16",  "long-f16", "deep-f32"};
#define CHECKPOINTS (sizeof checkpoints / sizeof *checkpoints)

static void test_weights(void **state) {
    (void)state;
    static const uint64_t pieces[] = {0, 9000, 100000};
    for (size_t i = 0; i < CHECKPOINTS; i++)
        for (int weights = PERIDOT_WEIGHTS_AUTO; weights <= PERIDOT_WEIGHTS_NF4; weights++)
            for (size_t j = 0; j < sizeof pieces / sizeof *pieces; j++) {
                uint64_t before = allocated();
                peridot_model_close(load(checkpoints[i], (peridot_weights)weights, pieces[j]));
                assert_int_equal(allocated(), before);
            }
}

static void test_sessions(void **state) {
    (void)state;
    static const peridot_session_params some[] = {
        {.context = 1},
        {.context = 511, .prefill_rows = 1},
        {.context = 512},
        {.context = 513, .prefill_rows = 33},
        {.context = 513, .prefill_rows = 33, .activations = PERIDOT_ACTIVATIONS_INT8},
        {.context = 8192, .prefill_rows = 4096},
        {0},
    };
    for (size_t i = 0; i < CHECKPOINTS; i++) {
        peridot_model *model = load(checkpoints[i], PERIDOT_WEIGHTS_AUTO, 0);
        for (size_t j = 0; j < sizeof some / sizeof *some; j++)
            for (int kv = PERIDOT_KV_F16; kv <= PERIDOT_KV_Q8; kv++) {
                peridot_session_params params = some[j];
                params.struct_size = sizeof params;
                params.kv = (peridot_kv)kv;
                check_session(model, checkpoints[i], &params);
            }
        peridot_model_close(model);
    }
}

/* ---- Too little memory ---- */

static const peridot_weights precisions[] = {
    PERIDOT_WEIGHTS_FILE, PERIDOT_WEIGHTS_Q8_0, PERIDOT_WEIGHTS_Q6_K, PERIDOT_WEIGHTS_Q5_K,
    PERIDOT_WEIGHTS_Q4_K, PERIDOT_WEIGHTS_Q3_K, PERIDOT_WEIGHTS_Q2_K};
#define PRECISIONS (sizeof precisions / sizeof *precisions)
static const char limited[] = "mqa-bf16";
static const peridot_session_params small_session = {.struct_size = sizeof small_session,
                                                     .context = 64};

/* Bytes of the device that loading and a small session take at the most; the weights' alone. */
static uint64_t need(peridot_weights weights, uint64_t *alone) {
    peridot_model_params params = {.struct_size = sizeof params, .weights = weights};
    peridot_memory_plan plan = plan_for(limited, &params, &small_session, NULL);
    uint64_t loading = plan.weight_bytes + plan.staging_bytes;
    *alone = plan.weight_bytes;
    return loading > plan.total_bytes ? loading : plan.total_bytes;
}

/* AUTO takes the file's types, or the first smaller ones that fit, and stays within the limit. */
static void test_choice(void **state) {
    (void)state;
    uint64_t needed[PRECISIONS], alone[PRECISIONS], before = allocated();
    for (size_t i = 0; i < PRECISIONS; i++)
        needed[i] = need(precisions[i], &alone[i]);
    for (size_t i = 0; i < PRECISIONS; i++) {
        size_t best = 0;
        while (needed[best] > needed[i] || (best > 0 && alone[best] >= alone[0]))
            best++;
        uint64_t most = before;
        peridot_model_params params = {.struct_size = sizeof params,
                                       .session = &small_session,
                                       .progress = watch,
                                       .progress_user = &most};
        peridot_model_info info = {.struct_size = sizeof info};
        peridot_model *model = NULL;
        peridot_session *session = NULL;
        device->engine->memory_limit = before + needed[i];
        MUST(peridot_model_load_wait(device, path_of(limited), &params, &model, &error));
        peridot_model_describe(model, &info);
        assert_int_equal(info.weight_bytes, alone[best]);
        assert_int_equal(info.weights_chosen, best > 0);
        assert_true(most <= device->engine->memory_limit);
        MUST(peridot_session_create(model, &small_session, &session, &error));
        assert_true(allocated() <= device->engine->memory_limit);
        peridot_session_close_wait(session);
        peridot_model_close(model);
    }
    assert_true(alone[PRECISIONS - 1] < alone[1]); /* or there was nothing to choose */
    device->engine->memory_limit = 0;
}

static void expect_refusal(peridot_weights weights, const peridot_session_params *session,
                           const char *advice) {
    peridot_model_params params = {
        .struct_size = sizeof params, .weights = weights, .session = session};
    peridot_model *model;
    peridot_error error = {0};
    uint64_t before = allocated();
    assert_int_equal(peridot_model_load_wait(device, path_of(limited), &params, &model, &error),
                     PERIDOT_ERROR_DEVICE_MEMORY);
    assert_non_null(strstr(error.message, advice));
    assert_int_equal(allocated(), before);
}

static void test_refusals(void **state) {
    (void)state;
    static const peridot_session_params large = {
        .struct_size = sizeof large, .context = 8192, .kv = PERIDOT_KV_F32};
    uint64_t alone, before = allocated();
    device->engine->memory_limit = before + need(PERIDOT_WEIGHTS_Q8_0, &alone);
    expect_refusal(PERIDOT_WEIGHTS_F32, &small_session, "--weights q8_0 would fit");
    expect_refusal(PERIDOT_WEIGHTS_F32, &large, "--weights q8_0 --context ");
    device->engine->memory_limit = before + need(PERIDOT_WEIGHTS_FILE, &alone);
    expect_refusal(PERIDOT_WEIGHTS_F32, &small_session, "--weights file");
    device->engine->memory_limit = before + need(PERIDOT_WEIGHTS_Q2_K, &alone) - 1;
    expect_refusal(PERIDOT_WEIGHTS_AUTO, &small_session, "not even as q2_k");
    device->engine->memory_limit = 0;
}

/* A session whose caller names no context gets what fits, in whole chunks. */
static void test_default_context(void **state) {
    (void)state;
    peridot_model *model = load("deep-f32", PERIDOT_WEIGHTS_AUTO, 0);
    peridot_memory_plan plan = plan_for("deep-f32", NULL, NULL, NULL);
    peridot_session *session = NULL;
    uint64_t before = allocated();
    device->engine->memory_limit =
        before + plan.working_bytes + plan.kv_token_bytes * (plan.context / 2);
    MUST(peridot_session_create(model, NULL, &session, &error));
    uint32_t context = peridot_session_context(session);
    assert_true(context < plan.context && context >= plan.context / 2 - KV_CHUNK);
    assert_int_equal(context % KV_CHUNK, 0);
    MUST(kv_cache_reserve(session, context, &error));
    assert_true(allocated() <= device->engine->memory_limit);
    peridot_session_close_wait(session);
    const peridot_session_params params = {.struct_size = sizeof params, .context = plan.context};
    peridot_error error = {0};
    assert_int_equal(peridot_session_create(model, &params, &session, &error),
                     PERIDOT_ERROR_DEVICE_MEMORY);
    device->engine->memory_limit = 0;
    peridot_model_close(model);
}

/* Where the context fits with a smaller type of KV cache, the refusal names the first such one. */
static void test_kv_advice(void **state) {
    (void)state;
    static const char wide[] = "mqa-bf16";
    peridot_model *model = load(wide, PERIDOT_WEIGHTS_AUTO, 0);
    uint64_t before = allocated();
    static const peridot_kv fitting[] = {PERIDOT_KV_Q8, PERIDOT_KV_F16};
    for (int i = 0; i < 2; i++) {
        peridot_kv kv = fitting[i];
        peridot_session_params params = {.struct_size = sizeof params, .kv = kv};
        device->engine->memory_limit = 0;
        peridot_memory_plan plan = plan_for(wide, NULL, &params, NULL);
        peridot_session *session = NULL;
        peridot_error refused = {0};
        char wanted[32];
        device->engine->memory_limit = before + plan.working_bytes + plan.kv_bytes;
        params.context = plan.context;
        params.kv = PERIDOT_KV_F32;
        assert_int_equal(peridot_session_create(model, &params, &session, &refused),
                         PERIDOT_ERROR_DEVICE_MEMORY);
        snprintf(wanted, sizeof wanted, "or this one with --kv %s", kv_name(kv));
        assert_non_null(strstr(refused.message, wanted));
        params.kv = kv;
        MUST(peridot_session_create(model, &params, &session, &error));
        peridot_session_close_wait(session);
        device->engine->memory_limit--;
        assert_int_equal(peridot_session_create(model, &params, &session, &refused),
                         PERIDOT_ERROR_DEVICE_MEMORY);
        assert_true(kv == PERIDOT_KV_F16 || !strstr(refused.message, "--kv"));
    }
    device->engine->memory_limit = 0;
    peridot_model_close(model);
}

/* A piece that holds no two rows is an error in the plan as it is in loading. */
static void test_pieces_too_small(void **state) {
    (void)state;
    peridot_model_params params = {.struct_size = sizeof params, .max_piece = 100};
    peridot_memory_plan plan = {.struct_size = sizeof plan};
    peridot_model *model;
    peridot_error planned = {0}, loaded = {0};
    uint64_t before = allocated();
    assert_int_equal(
        peridot_model_inspect(device, path_of("small-f32"), &params, NULL, NULL, &plan, &planned),
        PERIDOT_ERROR_DEVICE_MEMORY);
    assert_int_equal(
        peridot_model_load_wait(device, path_of("small-f32"), &params, &model, &loaded),
        PERIDOT_ERROR_DEVICE_MEMORY);
    assert_string_equal(planned.message, loaded.message);
    assert_int_equal(allocated(), before);
}

static void test_bad_arguments(void **state) {
    (void)state;
    peridot_session_params params = {.struct_size = sizeof params, .context = 1 << 20};
    peridot_memory_plan plan = {.struct_size = sizeof plan};
    peridot_error error = {0};
    assert_int_equal(
        peridot_model_inspect(device, path_of("small-f32"), NULL, &params, NULL, &plan, &error),
        PERIDOT_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "1048576"));
    assert_int_equal(
        peridot_model_inspect(device, path_of("no-such-model"), NULL, NULL, NULL, &plan, &error),
        PERIDOT_ERROR_FILE);
    assert_int_equal(peridot_model_inspect_files(device, NULL, 0, NULL, NULL, NULL, &plan, &error),
                     PERIDOT_ERROR_ARGUMENT);
    MUST(peridot_model_inspect(device, path_of("small-f32"), NULL, NULL, NULL, NULL, &error));
}

struct shrinking {
    char path[64];
    off_t size;
};

static bool shrink(const peridot_progress *progress, void *user) {
    const struct shrinking *file = user;
    return progress->done == 0 || truncate(file->path, file->size) == 0;
}

/* A file that gets shorter while it is loaded ends the loading, with a word, and nothing else. */
static void test_shrinking(void **state) {
    (void)state;
    struct shrinking file = {.path = "/tmp/peridot-shrinking-XXXXXX"};
    peridot_error error = {0};
    struct file_bytes bytes;
    MUST(platform_read_file(path_of("gguf/late-q4_0.gguf"), &bytes, &error));
    file.size = (off_t)bytes.size / 2;
    FILE *stream = fdopen(mkstemp(file.path), "wb");
    assert_non_null(stream);
    assert_int_equal(fwrite(bytes.data, 1, bytes.size, stream), bytes.size);
    assert_int_equal(fclose(stream), 0);
    platform_free_file(&bytes);
    peridot_model_params params = {
        .struct_size = sizeof params, .progress = shrink, .progress_user = &file};
    peridot_model *model = NULL;
    uint64_t before = allocated();
    assert_int_equal(peridot_model_load_wait(device, file.path, &params, &model, &error),
                     PERIDOT_ERROR_FILE);
    assert_null(model);
    assert_non_null(strstr(error.message, file.path));
    assert_int_equal(allocated(), before);
    unlink(file.path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_weights),          cmocka_unit_test(test_sessions),
        cmocka_unit_test(test_choice),           cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_default_context),  cmocka_unit_test(test_kv_advice),
        cmocka_unit_test(test_pieces_too_small), cmocka_unit_test(test_bad_arguments),
        cmocka_unit_test(test_shrinking),
    };
    return cmocka_run_group_tests_name("memory plan", tests, open_device, close_device);
}
