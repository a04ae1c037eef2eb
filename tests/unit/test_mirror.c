/* The barriers of random recordings, of decode and of prefill, judged by synchronization validation
 * on their mirrors: silent as derived, heard when any one is left out. Needs the validation layer;
 * runs nothing on the device. */
#include "mirror.h"
#include "model.h"
#include "open_device.h"
#include "recorded_passes.h"
#include "reference/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <stb/stb_ds.h>

static peridot_device *device; /* NULL: no validation layer, the tests are skipped */
static uint32_t hazards, others;
static struct random generator;
static char last_message[400];

static uint32_t below(uint32_t bound) {
    return (uint32_t)random_below(&generator, bound);
}

static void hear(const char *text, void *user) {
    (void)user;
    /* newer layers leave the message's name out of its text */
    bool hazard = strstr(text, "SYNC-HAZARD") || strstr(text, " hazard detected");
    uint32_t *count = hazard ? &hazards : &others;
    (*count)++;
    snprintf(last_message, sizeof last_message, "%s", text);
}

static int open_device(void **state) {
    (void)state;
    setenv("PERIDOT_VALIDATION", "sync", 1);
    setenv("VK_LAYER_ENABLE_MESSAGE_LIMIT", "false", 1); /* else it falls silent after ten */
    peridot_device_params params = {
        .struct_size = sizeof params, .validation = true, .cache_directory = "", .message = hear};
    peridot_error error = {0};
    peridot_result result = peridot_device_open(&params, &device, &error);
    if (result && strstr(error.message, "not installed"))
        print_message("skipped: %s\n", error.message);
    else if (result)
        fail_msg("%s", error.message);
    return 0;
}

static int close_device(void **state) {
    (void)state;
    peridot_device_close(device);
    return 0;
}

/* ---- Judging ---- */

#define RECORDINGS_MAX 64
#define DISPATCHES_MAX 128

struct court {
    struct lane lane;
    struct arena *arena;
    const struct buffer *scratch;
};

static void open_court(struct court *court, const struct mirror *mirror) {
    struct device *engine = device->engine;
    *court = (struct court){0};
    MUST(lane_create(engine, &court->lane, &error));
    MUST(arena_create(engine, MEMORY_DEVICE, 0, &court->arena, &error));
    MUST(arena_buffer(court->arena, mirror_scratch(mirror), "scratch", &court->scratch, &error));
}

static void close_court(struct court *court) {
    lane_destroy(&court->lane);
    arena_destroy(court->arena);
}

/* How many hazards are found without the barrier before that dispatch. */
static uint32_t hazards_without(struct court *court, const struct mirror *mirror,
                                uint32_t recording, uint32_t dispatch) {
    VkCommandBuffer commands;
    struct mirror with = *mirror;
    with.omitted_recording = recording;
    with.omitted_dispatch = dispatch;
    hazards = others = 0;
    MUST(lane_commands(&court->lane, &commands, &error));
    MUST(lane_begin(&court->lane, commands, false, &error));
    MUST(mirror_emit(&with, court->scratch, commands, &error));
    MUST(lane_end(&court->lane, commands, &error));
    lane_free_commands(&court->lane, commands);
    if (others)
        fail_msg("%s", last_message);
    return hazards;
}

/* The dispatch with one of its operands, or with its indirect arguments alone. */
static struct dispatch with_one_operand(const struct dispatch *dispatch, uint32_t index) {
    struct dispatch one = *dispatch;
    one.operand_count = 0;
    if (index < dispatch->operand_count) {
        one.indirect = NULL;
        one.operands[0] = dispatch->operands[index];
        one.access[0] = dispatch->access[index];
        one.operand_count = 1;
    }
    return one;
}

/* Whether the layer hears of two dispatches' conflict when nothing else is there. */
static bool is_heard_alone(struct court *court, const struct dispatch *a,
                           const struct dispatch *b) {
    bool heard = false;
    for (uint32_t i = 0; i <= a->operand_count; i++)
        for (uint32_t j = 0; j <= b->operand_count && !heard; j++) {
            struct dispatch one = with_one_operand(a, i), other = with_one_operand(b, j);
            if (!dispatches_conflict(&one, &other))
                continue;
            struct recording pair;
            recording_begin(&pair, device->engine);
            arrput(pair.dispatches, one);
            arrput(pair.dispatches, other);
            const struct recording *list[] = {&pair};
            struct mirror alone = {list, 1, 0, 0};
            heard = hazards_without(court, &alone, 0, 1) > 0;
            recording_free(&pair);
        }
    return heard;
}

/* Whether some pair of dispatches that the barrier before `dispatch` of recording `at` separates,
 * and no other barrier does, conflicts; with a court, whether the layer hears of such a pair. */
static bool separates(struct court *court, const struct mirror *mirror, uint32_t at,
                      uint32_t dispatch, bool barriers[2][DISPATCHES_MAX]) {
    const struct recording *after = mirror->recordings[at];
    uint32_t earlier = dispatch ? at : at - 1;
    const struct recording *before = mirror->recordings[earlier];
    uint32_t end = dispatch ? dispatch : recording_count(before);
    for (uint32_t j = dispatch; j < recording_count(after); j++) {
        if (j > dispatch && barriers[at % 2][j])
            break;
        for (uint32_t i = end; i-- > 0;) {
            const struct dispatch *a = &before->dispatches[i], *b = &after->dispatches[j];
            if (court ? is_heard_alone(court, a, b) : dispatches_conflict(a, b))
                return true;
            if (barriers[earlier % 2][i])
                break;
        }
    }
    return false;
}

/* Leaves out each barrier in turn; how many there were to leave out. */
static uint32_t check_each_barrier(struct court *court, const struct mirror *mirror) {
    uint32_t tried = 0;
    bool barriers[2][DISPATCHES_MAX];
    for (uint32_t i = 0; i < mirror->count; i++) {
        const struct recording *recording = mirror->recordings[i];
        uint32_t count = recording_count(recording);
        assert_true(count > 0 && count <= DISPATCHES_MAX);
        recording_barriers(recording, barriers[i % 2]);
        for (uint32_t j = 0; j < count; j++) {
            if (!barriers[i % 2][j] || (i == 0 && j == 0))
                continue;
            /* a recording begins with a barrier whatever came before */
            bool needed = separates(NULL, mirror, i, j, barriers);
            uint32_t heard = hazards_without(court, mirror, i, j);
            /* layer 1.3.239 forgets some writes to ranges that touch others, written before an
             * earlier barrier or by the same dispatch */
            if (needed && !heard)
                heard = separates(court, mirror, i, j, barriers);
            assert_true(needed || j == 0);
            if (needed != (heard > 0))
                fail_msg("recording %u, dispatch %u: %u hazards without its barrier", i, j, heard);
            tried += needed;
        }
    }
    return tried;
}

static uint32_t judge(const struct recording *const *recordings, uint32_t count) {
    struct mirror mirror = {recordings, count, MIRROR_ALL_BARRIERS, MIRROR_ALL_BARRIERS};
    struct court court;
    open_court(&court, &mirror);
    if (hazards_without(&court, &mirror, MIRROR_ALL_BARRIERS, MIRROR_ALL_BARRIERS))
        fail_msg("%s", last_message);
    uint32_t tried = check_each_barrier(&court, &mirror);
    close_court(&court);
    return tried;
}

/* ---- Random recordings ---- */

#define BUFFERS 4

static struct pipeline *any_pipeline(void) {
    struct pipeline_key key = pipeline_key(device->engine, kernel_variants(NULL), WEIGHT_F32);
    struct pipeline *pipeline = pipelines_want(device->engine, &key);
    assert_non_null(pipeline);
    MUST(pipelines_compile(device->engine, NULL, NULL, &error));
    return pipeline;
}

static struct dispatch random_dispatch(struct pipeline *pipeline,
                                       const struct buffer *const *buffers) {
    struct dispatch dispatch = {.pipeline = pipeline,
                                .grid = {1, 1, 1},
                                .constants_size = 64,
                                .operand_count = 1 + below(4),
                                .label = "random"};
    for (uint32_t i = 0; i < dispatch.operand_count; i++) {
        /* some odd ends, some operands not used, some that overlap within the dispatch */
        uint32_t unit = below(3) ? 16 : 1, offset = below(12) * unit;
        dispatch.operands[i] = (struct operand){below(8) ? buffers[below(BUFFERS)] : NULL, offset,
                                                (1 + below(4)) * unit};
        dispatch.access[i] = (enum access)(1 + below(3));
    }
    if (below(5) == 0) {
        /* not what it writes itself, which would be a fault of the dispatch */
        dispatch.indirect = buffers[below(BUFFERS)];
        dispatch.indirect_offset = below(60) * 4;
        struct dispatch arguments = {.indirect = dispatch.indirect,
                                     .indirect_offset = dispatch.indirect_offset};
        if (dispatches_conflict(&arguments, &dispatch))
            dispatch.indirect = NULL;
    }
    return dispatch;
}

static void test_random_recordings(void **state) {
    (void)state;
    if (!device)
        skip();
    struct pipeline *pipeline = any_pipeline();
    struct arena *arena;
    const struct buffer *buffers[BUFFERS];
    MUST(arena_create(device->engine, MEMORY_DEVICE, 0, &arena, &error));
    for (int i = 0; i < BUFFERS; i++)
        MUST(arena_buffer(arena, 256, "operand", &buffers[i], &error));
    uint32_t tried = 0;
    for (int round = 0; round < 60; round++) {
        struct recording recordings[3];
        const struct recording *list[] = {&recordings[0], &recordings[1], &recordings[2]};
        uint32_t count = 1 + below(3);
        for (uint32_t i = 0; i < 3; i++) {
            recording_begin(&recordings[i], device->engine);
            for (uint32_t j = 1 + below(10); j > 0; j--)
                arrput(recordings[i].dispatches, random_dispatch(pipeline, buffers));
        }
        tried += judge(list, count);
        for (uint32_t i = 0; i < 3; i++)
            recording_free(&recordings[i]);
    }
    print_message("%u barriers left out, each heard\n", tried);
    assert_true(tried > 60);
    arena_destroy(arena);
}

/* ---- The forward pass ---- */

static void check_model(const char *name, peridot_weights weights, peridot_kv kv,
                        peridot_activations activations) {
    char path[512];
    const struct recording *list[RECORDINGS_MAX];
    peridot_model *model;
    peridot_session *session;
    peridot_session_params params = {
        .struct_size = sizeof params, .context = 64, .kv = kv, .activations = activations};
    peridot_model_params loading = {.struct_size = sizeof loading, .weights = weights};
    snprintf(path, sizeof path, "%s/%s", TEST_DATA, name);
    MUST(peridot_model_load_wait(device, path, &loading, &model, &error));
    MUST(peridot_session_create(model, &params, &session, &error));
    assert_true(2 * (model->config.layers + 3) <= RECORDINGS_MAX);
    record_everything(session);
    for (uint32_t i = 1; i < PASS_BUCKETS; i++) {
        uint32_t tried = judge(list, list_pass(session, i, 0, list));
        print_message("%s, KV %s, prefill of %u rows: %u barriers left out, each heard\n", name,
                      kv_name(kv), session->passes[i].rows, tried);
        assert_true(tried >= 4 * model->config.layers);
    }
    for (uint32_t kind = 0; kind < SAMPLER_KINDS; kind++) {
        uint32_t count = list_pass(session, 0, kind, list);
        count += list_pass(session, 0, kind, list + count); /* the next step */
        uint32_t tried = judge(list, count);
        print_message("%s, two steps with sampler %u: %u barriers left out, each heard\n", name,
                      kind, tried);
        assert_true(tried >= 8 * model->config.layers);
    }
    peridot_session_close_wait(session);
    peridot_model_close(model);
}

/* Two steps of a batch of two sessions. */
static void check_batch(const char *name, peridot_kv kv, peridot_weights weights,
                        peridot_activations activations) {
    char path[512];
    const struct recording *list[RECORDINGS_MAX];
    peridot_model *model;
    peridot_session *sessions[2];
    peridot_batch *batch;
    peridot_session_params params = {
        .struct_size = sizeof params, .context = 64, .kv = kv, .activations = activations};
    peridot_model_params loading = {.struct_size = sizeof loading, .weights = weights};
    snprintf(path, sizeof path, "%s/%s", TEST_DATA, name);
    MUST(peridot_model_load_wait(device, path, &loading, &model, &error));
    for (int i = 0; i < 2; i++) {
        MUST(peridot_session_create(model, &params, &sessions[i], &error));
        record_everything(sessions[i]);
    }
    MUST(peridot_batch_create(sessions, 2, &batch, &error));
    uint32_t count = list_batch(batch, 0, list);
    assert_true(2 * count <= RECORDINGS_MAX);
    count += list_batch(batch, 0, list + count);
    uint32_t tried = judge(list, count);
    print_message("%s, KV %s, two steps of two sessions: %u barriers left out, each heard\n", name,
                  kv_name(kv), tried);
    assert_true(tried >= 8 * model->config.layers);
    peridot_batch_close_wait(batch);
    for (int i = 0; i < 2; i++)
        peridot_session_close_wait(sessions[i]);
    peridot_model_close(model);
}

static void test_batch(void **state) {
    (void)state;
    if (!device)
        skip();
    check_batch("gqa-bf16", PERIDOT_KV_F16, PERIDOT_WEIGHTS_AUTO, PERIDOT_ACTIVATIONS_F32);
    check_batch("gqa-bf16", PERIDOT_KV_Q8, PERIDOT_WEIGHTS_Q8_0, PERIDOT_ACTIVATIONS_INT8);
}

static void test_forward_pass(void **state) {
    (void)state;
    if (!device)
        skip();
    check_model("gqa-bf16", PERIDOT_WEIGHTS_AUTO, PERIDOT_KV_F16, PERIDOT_ACTIVATIONS_F32);
    check_model("gqa-bf16", PERIDOT_WEIGHTS_AUTO, PERIDOT_KV_Q8, PERIDOT_ACTIVATIONS_F32);
    check_model("small-f32", PERIDOT_WEIGHTS_AUTO, PERIDOT_KV_F16, PERIDOT_ACTIVATIONS_F32);
    check_model("gqa-bf16", PERIDOT_WEIGHTS_Q8_0, PERIDOT_KV_Q8, PERIDOT_ACTIVATIONS_INT8);
}

int main(void) {
    generator = random_announced();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_recordings),
        cmocka_unit_test(test_forward_pass),
        cmocka_unit_test(test_batch),
    };
    return cmocka_run_group_tests_name("mirror", tests, open_device, close_device);
}
