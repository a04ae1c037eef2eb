/* The barriers of random recordings, of decode and of prefill, judged by synchronization validation
 * on their mirrors: silent as derived, heard when any one is left out. Needs the validation layer;
 * runs nothing on the device. */
#include "forward.h"
#include "mirror.h"
#include "model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>
#include <stb/stb_ds.h>

#define MUST(call)                                                                                 \
    do {                                                                                           \
        peridot_error error = {0};                                                                 \
        if ((call) != PERIDOT_OK)                                                                  \
            fail_msg("%s", error.message);                                                         \
    } while (0)

static peridot_device *device; /* NULL: no validation layer, the tests are skipped */
static uint32_t hazards, others, random_state;
static char last_message[400];

static uint32_t random_below(uint32_t bound) {
    random_state = random_state * 1664525 + 1013904223;
    return (random_state >> 8) % bound;
}

static void hear(const char *text, void *user) {
    (void)user;
    uint32_t *count = strstr(text, "SYNC-HAZARD") ? &hazards : &others;
    (*count)++;
    snprintf(last_message, sizeof last_message, "%s", text);
}

static int open_device(void **state) {
    (void)state;
    setenv("PERIDOT_VALIDATION", "sync", 1);
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

/* Whether the barrier that begins recording `at` separates anything: a recording begins with one
 * whatever came before. */
static bool is_needed(const struct mirror *mirror, uint32_t at, const bool *barriers_before) {
    const struct recording *before = mirror->recordings[at - 1], *after = mirror->recordings[at];
    bool barriers[1024];
    recording_barriers(after, barriers);
    uint32_t last = recording_count(before) - 1;
    for (uint32_t i = 0; i < recording_count(after) && (i == 0 || !barriers[i]); i++)
        for (uint32_t j = last + 1; j-- > 0;) {
            if (dispatches_conflict(&before->dispatches[j], &after->dispatches[i]))
                return true;
            if (barriers_before[j])
                break;
        }
    return false;
}

/* Leaves out each barrier in turn; how many there were to leave out. */
static uint32_t check_each_barrier(struct court *court, const struct mirror *mirror) {
    uint32_t tried = 0;
    bool barriers[2][1024];
    for (uint32_t i = 0; i < mirror->count; i++) {
        uint32_t count = recording_count(mirror->recordings[i]);
        assert_true(count > 0 && count <= 1024);
        recording_barriers(mirror->recordings[i], barriers[i % 2]);
        for (uint32_t j = 0; j < count; j++) {
            if (!barriers[i % 2][j] || (i == 0 && j == 0))
                continue;
            bool needed = j > 0 || is_needed(mirror, i, barriers[(i + 1) % 2]);
            uint32_t heard = hazards_without(court, mirror, i, j);
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
                                .operand_count = 1 + random_below(4),
                                .label = "random"};
    for (uint32_t i = 0; i < dispatch.operand_count; i++) {
        /* some odd ends, some operands not used, some that overlap within the dispatch */
        uint32_t unit = random_below(3) ? 16 : 1, offset = random_below(12) * unit;
        dispatch.operands[i] =
            (struct operand){random_below(8) ? buffers[random_below(BUFFERS)] : NULL, offset,
                             (1 + random_below(4)) * unit};
        dispatch.access[i] = (enum access)(1 + random_below(3));
    }
    if (random_below(5) == 0) {
        /* not what it writes itself, which would be a fault of the dispatch */
        dispatch.indirect = buffers[random_below(BUFFERS)];
        dispatch.indirect_offset = random_below(60) * 4;
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
        uint32_t count = 1 + random_below(3);
        for (uint32_t i = 0; i < 3; i++) {
            recording_begin(&recordings[i], device->engine);
            for (uint32_t j = 1 + random_below(10); j > 0; j--)
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

/* The recordings of one pass in order; how many. */
static uint32_t list_pass(const struct peridot_session *session, const struct pass *pass,
                          uint32_t sampler, const struct recording **list) {
    uint32_t count = 0;
    list[count++] = &pass->embed.recording;
    for (uint32_t i = 0; i < session->model->config.layers; i++)
        list[count++] = &pass->layers[i].recording;
    list[count++] = &session->head.recording;
    if (pass == &session->passes[0])
        list[count++] = &session->samplers[sampler].recording;
    return count;
}

static void check_model(const char *name) {
    char path[512];
    const struct recording *list[64];
    peridot_model *model;
    peridot_session *session;
    peridot_session_params params = {.struct_size = sizeof params, .context = 64};
    snprintf(path, sizeof path, "%s/%s", TEST_DATA, name);
    MUST(peridot_model_load(device, path, NULL, &model, &error));
    MUST(peridot_session_create(model, &params, &session, &error));
    assert_true(2 * (model->config.layers + 3) <= 64);
    MUST(forward_record_head(session, &error));
    for (uint32_t i = 0; i < PASS_BUCKETS; i++) {
        MUST(forward_record_pass(session, &session->passes[i], &error));
        if (i == 0)
            continue;
        uint32_t count = list_pass(session, &session->passes[i], 0, list);
        uint32_t tried = judge(list, count);
        print_message("%s, prefill of %u rows: %u barriers left out, each heard\n", name,
                      session->passes[i].rows, tried);
        assert_true(tried >= 4 * model->config.layers);
    }
    for (uint32_t kind = 0; kind < SAMPLER_KINDS; kind++) {
        MUST(forward_record_sampler(session, kind, &error));
        uint32_t count = list_pass(session, &session->passes[0], kind, list);
        count += list_pass(session, &session->passes[0], kind, list + count); /* the next step */
        uint32_t tried = judge(list, count);
        print_message("%s, two steps with sampler %u: %u barriers left out, each heard\n", name,
                      kind, tried);
        assert_true(tried >= 8 * model->config.layers);
    }
    peridot_session_close(session);
    peridot_model_close(model);
}

static void test_forward_pass(void **state) {
    (void)state;
    if (!device)
        skip();
    check_model("gqa-bf16");
    check_model("small-f32");
}

int main(void) {
    random_state = (uint32_t)time(NULL);
    print_message("seed %u\n", random_state);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_recordings),
        cmocka_unit_test(test_forward_pass),
    };
    return cmocka_run_group_tests_name("mirror", tests, open_device, close_device);
}
