/* What is interrupted goes on exactly: generation that finds no memory, a batch that is closed in
 * the middle, masks and grammars that change between slices, slices that were recorded and will not
 * run, a lost device. On an application's device. */
#include "adopt_shim.h"
#include "batch.h"
#include "begin_recording.h"
#include "conformance.h"
#include "guest_adoption.h"
#include "must.h"
#include "pipelines.h"
#include "reference/random.h"
#include "work.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define VOCABULARY_MOST 4096
#define TOKENS_MOST 64

static peridot_device *device;
static peridot_model *model;
static peridot_model_info info;
static struct random generator;

static int open_all(void **state) {
    (void)state;
    device = guest_open();
    generator = random_announced();
    return 0;
}

static int close_all(void **state) {
    (void)state;
    return guest_close(device);
}

static void load(const char *path) {
    info = (peridot_model_info){.struct_size = sizeof info};
    MUST(peridot_model_load_wait(device, path, NULL, &model, &error));
    peridot_model_describe(model, &info);
    assert_true(info.vocabulary <= VOCABULARY_MOST);
}

static int32_t any_token(void) {
    return 10 + (int32_t)random_below(&generator, info.vocabulary - 10);
}

static peridot_session *open_session(void) {
    peridot_session *session;
    const peridot_sampling greedy = {.struct_size = sizeof greedy, .min_tokens = 1000};
    MUST(peridot_session_create(model, NULL, &session, &error));
    MUST(peridot_session_sampling(session, &greedy, &error));
    return session;
}

struct answer {
    int32_t tokens[TOKENS_MOST];
    uint32_t count;
};

static bool take(const peridot_token *token, void *user) {
    struct answer *answer = user;
    assert_true(answer->count < TOKENS_MOST);
    answer->tokens[answer->count++] = token->token;
    return true;
}

static bool take_first(uint32_t session, const peridot_token *token, void *user) {
    return session > 0 || take(token, user);
}

static void compare(const struct answer *expected, const struct answer *got) {
    assert_int_equal(expected->count, got->count);
    assert_memory_equal(expected->tokens, got->tokens, got->count * sizeof *got->tokens);
}

/* The logits are those of a session that was never interrupted. */
static void check_logits(peridot_session *session) {
    static float want[VOCABULARY_MOST], got[VOCABULARY_MOST];
    peridot_session *fresh = open_session();
    uint32_t length = peridot_session_length(session);
    MUST(peridot_session_logits_wait(session, got, &error));
    MUST(peridot_session_prompt_wait(fresh, peridot_session_tokens(session), length, NULL, &error));
    MUST(peridot_session_logits_wait(fresh, want, &error));
    for (uint32_t i = 0; i < info.vocabulary; i++)
        assert_float_equal(want[i], got[i], 2e-2 * (1 + (want[i] > 0 ? want[i] : -want[i])));
    peridot_session_close_wait(fresh);
}

/* ---- No memory for more ---- */

static void give_no_more(bool more) {
    MUST(peridot_device_memory_limit(device, more ? 0 : 1, &error));
}

/* Tokens that there is room for come, whoever asks, and the rest when there is more. */
static void test_no_room(void **state) {
    (void)state;
    int32_t prompt[507] = {2};
    struct answer expected, got;
    load(path_of("long-f16"));
    for (int i = 1; i < 507; i++)
        prompt[i] = any_token();
    for (int way = 0; way < 3; way++) { /* undisturbed, alone, in a batch */
        peridot_session *sessions[] = {open_session(), open_session()};
        struct answer *answer = way ? &got : &expected;
        peridot_error error = {0};
        uint32_t generated = 0;
        peridot_batch *batch;
        memset(answer, 0, sizeof *answer);
        MUST(peridot_batch_create(sessions, 2, &batch, &error));
        for (int i = 0; i < 2; i++)
            MUST(peridot_session_prompt_wait(sessions[i], prompt, 507, NULL, &error));
        give_no_more(way == 0);
        const uint32_t counts[] = {20, 20};
        peridot_result result =
            way == 2
                ? peridot_batch_generate_wait(batch, counts, take_first, answer, NULL, &error)
                : peridot_session_generate_wait(sessions[0], 20, take, answer, &generated, &error);
        assert_int_equal(result, way ? PERIDOT_ERROR_DEVICE_MEMORY : PERIDOT_OK);
        give_no_more(true);
        if (way) { /* as far as the first chunk goes: a token more than it has room for */
            assert_in_range(answer->count, 1, 6);
            check_logits(sessions[0]);
            check_logits(sessions[1]);
            MUST(peridot_session_generate_wait(sessions[0], 20 - answer->count, take, answer, NULL,
                                               &error));
            compare(&expected, answer);
        }
        peridot_batch_close_wait(batch);
        peridot_session_close_wait(sessions[0]);
        peridot_session_close_wait(sessions[1]);
    }
    peridot_model_close(model);
}

/* ---- Closed in the middle ---- */

/* What a batch has overwritten its sessions know of, however far it was. */
static void test_batch_closed(void **state) {
    (void)state;
    const int32_t prompt[] = {2, 30, 40, 50, 60, 70};
    load(path_of("small-f32"));
    for (uint32_t slices = 0; slices < 12; slices++) {
        peridot_session *sessions[] = {open_session(), open_session()};
        peridot_batch *batch;
        static const uint32_t counts[] = {5, 4};
        peridot_batch_work work = {.struct_size = sizeof work, .counts = counts};
        peridot_advance advance = {.struct_size = sizeof advance};
        for (int i = 0; i < 2; i++)
            MUST(peridot_session_prompt_wait(sessions[i], prompt, 6 - i, NULL, &error));
        MUST(peridot_batch_create(sessions, 2, &batch, &error));
        MUST(peridot_batch_start(batch, &work, &error));
        for (uint32_t i = 0; i < slices; i++) {
            advance.budget_ms = random_below(&generator, 2) ? 0 : 0.5f;
            assert_true(peridot_batch_advance(batch, &advance, NULL, NULL) >= 0);
            if (i % 3 == 2)
                MUST(peridot_batch_poll(batch, NULL, &error));
        }
        peridot_batch_close_wait(batch);
        for (int i = 0; i < 2; i++) {
            check_logits(sessions[i]);
            peridot_session_close_wait(sessions[i]);
        }
    }
    peridot_model_close(model);
}

/* ---- Masks that change ---- */

static void allow(peridot_session *session, int32_t token) {
    uint32_t words[VOCABULARY_MOST / 32] = {0};
    words[token / 32] |= 1u << token % 32;
    MUST(peridot_session_mask(session, words, (info.vocabulary + 31) / 32, &error));
}

/* Tokens whose sampling has begun. */
static uint32_t begun(const peridot_session *session) {
    const struct work_place *place = &session->work->place;
    return place->members[0].sampled + (place->stage == STAGE_SAMPLE && !work_list_between(place));
}

static void advance(peridot_session *session, float budget_ms) {
    const peridot_advance advance = {.struct_size = sizeof advance, .budget_ms = budget_ms};
    peridot_error error = {0};
    if (peridot_session_advance(session, &advance, NULL, &error) < 0)
        fail_msg("%s", error.message);
}

/* A mask of one token is for all whose sampling has not begun, wherever between slices it is set.
 */
static void test_mask_changes(void **state) {
    (void)state;
    const int32_t prompt[] = {2, 30, 40, 50};
    int32_t want[TOKENS_MOST], set = 100;
    uint32_t changes = 0;
    load(path_of("small-f32"));
    peridot_session *session = open_session();
    struct answer got = {{0}, 0};
    peridot_work work = {.struct_size = sizeof work,
                         .tokens = prompt,
                         .token_count = 4,
                         .generate = 40,
                         .on_token = take,
                         .user = &got};
    peridot_work_status status = {.struct_size = sizeof status, .active = true};
    for (int i = 0; i < TOKENS_MOST; i++)
        want[i] = set;
    allow(session, set);
    MUST(peridot_session_start(session, &work, &error));
    while (status.active) {
        advance(session, random_below(&generator, 2) ? 0.1f : 1);
        if (random_below(&generator, 2))
            MUST(peridot_session_poll(session, &status, &error));
        if (status.active && !random_below(&generator, 3)) {
            set = 100 + (set + 1) % 200;
            changes++;
            allow(session, set);
            for (uint32_t i = begun(session); i < TOKENS_MOST; i++)
                want[i] = set;
        }
    }
    print_message("%u masks, %u tokens\n", changes, got.count);
    assert_int_equal(got.count, 40);
    assert_memory_equal(got.tokens, want, sizeof *want * got.count);
    peridot_session_close_wait(session);
    peridot_model_close(model);
}

static const char letters[] = "root ::= [a-z ]*\n", digits[] = "root ::= [0-9]*\n";

static peridot_grammar *parse(const char *text) {
    peridot_grammar *grammar;
    MUST(peridot_grammar_parse(model, text, strlen(text), &grammar, &error));
    return grammar;
}

static bool is_of(int32_t token, char least, char most) {
    const char *bytes;
    size_t length;
    MUST(peridot_token_bytes(model, token, &bytes, &length, &error));
    for (size_t i = 0; i < length; i++)
        if ((bytes[i] < least || bytes[i] > most) && bytes[i] != ' ')
            return false;
    return true;
}

/* Set anywhere between slices a grammar begins behind what was begun, and the work goes on. */
static void test_grammar_changes(void **state) {
    (void)state;
    load(DEMO_MODEL);
    peridot_grammar *grammars[] = {parse(letters), parse(digits)};
    const char bounds[][2] = {{'a', 'z'}, {'0', '9'}};
    for (uint32_t at = 0; at < 60; at += 1 + (uint32_t)random_below(&generator, 6)) {
        peridot_session *session = open_session();
        struct answer got = {{0}, 0};
        const int32_t prompt[] = {2, 500, 600};
        peridot_work work = {.struct_size = sizeof work,
                             .tokens = prompt,
                             .token_count = 3,
                             .generate = 8,
                             .on_token = take,
                             .user = &got,
                             .grammar = grammars[0]};
        peridot_work_status status = {.struct_size = sizeof status, .active = true};
        uint32_t changed = UINT32_MAX;
        MUST(peridot_session_start(session, &work, &error));
        for (uint32_t i = 0; status.active; i++) {
            advance(session, 3);
            if (i == at) {
                changed = begun(session);
                MUST(peridot_session_grammar(session, grammars[1], &error));
            }
            if (random_below(&generator, 2))
                MUST(peridot_session_poll(session, &status, &error));
        }
        assert_int_equal(got.count, 8);
        for (uint32_t i = 0; i < got.count; i++)
            assert_true(is_of(got.tokens[i], bounds[i >= changed][0], bounds[i >= changed][1]));
        peridot_session_close_wait(session);
    }
    for (int i = 0; i < 2; i++)
        peridot_grammar_free(grammars[i]);
    peridot_model_close(model);
}

/* Work that began with neither has no sampler that would look. */
static void test_mask_too_late(void **state) {
    (void)state;
    const int32_t prompt[] = {2, 30, 40, 50};
    load(path_of("small-f32"));
    peridot_session *session = open_session();
    peridot_work work = {
        .struct_size = sizeof work, .tokens = prompt, .token_count = 4, .generate = 3};
    const uint32_t words[VOCABULARY_MOST / 32] = {~0u};
    peridot_error error = {0};
    MUST(peridot_session_start(session, &work, &error));
    assert_int_equal(peridot_session_mask(session, words, (info.vocabulary + 31) / 32, &error),
                     PERIDOT_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "neither mask nor grammar"));
    MUST(peridot_session_mask(session, NULL, 0, &error));
    peridot_session_close_wait(session);
    peridot_model_close(model);
}

/* ---- Recorded and thrown away ---- */

#define AT_ONCE 4 /* command buffers */

/* Records as many slices as there are. */
static uint32_t record(peridot_session *session, struct lane *lane, VkCommandBuffer *commands) {
    for (uint32_t count = 0; count < AT_ONCE; count++) {
        const peridot_recording recording = begin_recording(lane, 0.2f, count + 1);
        commands[count] = recording.commands;
        peridot_result result = peridot_session_record(session, &recording, NULL, NULL);
        assert_true(result >= 0);
        MUST(lane_end(lane, commands[count], &error));
        if (result) {
            lane_free_commands(lane, commands[count]);
            return count;
        }
    }
    return AT_ONCE;
}

/* Records slices of which some are thrown away, until the work is done. */
static void record_some(peridot_session *session, struct lane *lane, const peridot_work *work) {
    VkCommandBuffer commands[AT_ONCE];
    peridot_work_status status = {.struct_size = sizeof status};
    MUST(peridot_session_start(session, work, &error));
    do {
        uint32_t count = record(session, lane, commands);
        uint32_t kept = (uint32_t)random_below(&generator, count + 1);
        for (uint32_t i = kept; i < count; i++)
            MUST(peridot_session_discard(session, &error));
        for (uint32_t i = 0; i < kept; i++)
            MUST(lane_submit(lane, &(struct batch){&commands[i], 1}, 1, &error));
        MUST(lane_wait(lane, lane->submitted, &error));
        for (uint32_t i = 0; i < count; i++)
            lane_free_commands(lane, commands[i]);
        MUST(peridot_session_poll(session, &status, &error));
        assert_int_equal(status.slices_in_flight, 0);
    } while (status.active);
    assert_int_equal(peridot_session_discard(session, NULL), PERIDOT_ERROR_ARGUMENT);
}

static void test_discard(void **state) {
    (void)state;
    struct answer answers[2] = {{{0}, 0}, {{0}, 0}};
    int32_t prompt[510] = {2};
    struct lane lane;
    load(path_of("long-f16"));
    MUST(lane_create(device->engine, &lane, &error));
    for (int i = 1; i < 510; i++)
        prompt[i] = any_token();
    for (int way = 0; way < 2; way++) { /* past the end of a chunk */
        peridot_session *session = open_session();
        const peridot_work work = {.struct_size = sizeof work,
                                   .tokens = prompt,
                                   .token_count = 510,
                                   .generate = 9,
                                   .on_token = take,
                                   .user = &answers[way]};
        if (way) {
            record_some(session, &lane, &work);
        } else {
            MUST(peridot_session_prompt_wait(session, prompt, 510, NULL, &error));
            MUST(peridot_session_generate_wait(session, 9, take, &answers[0], NULL, &error));
        }
        check_logits(session);
        peridot_session_close_wait(session);
    }
    compare(&answers[0], &answers[1]);
    lane_destroy(&lane);
    peridot_model_close(model);
}

/* A value that is there already would tell of a slice that has not run. */
static void test_reached_value(void **state) {
    (void)state;
    const int32_t prompt[] = {2, 30, 40, 50};
    struct lane lane;
    VkCommandBuffer commands;
    peridot_error error = {0};
    load(path_of("small-f32"));
    peridot_session *session = open_session();
    peridot_work work = {.struct_size = sizeof work, .tokens = prompt, .token_count = 4};
    MUST(lane_create(device->engine, &lane, &error));
    MUST(lane_commands(&lane, &commands, &error));
    MUST(lane_begin(&lane, commands, false, &error));
    MUST(peridot_session_start(session, &work, &error));
    const peridot_recording recording = {
        .struct_size = sizeof recording, .commands = commands, .timeline = lane.timeline};
    assert_int_equal(peridot_session_record(session, &recording, NULL, &error),
                     PERIDOT_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "already"));
    MUST(lane_end(&lane, commands, &error));
    peridot_session_cancel(session);
    check_logits(session);
    peridot_session_close_wait(session);
    lane_destroy(&lane);
    peridot_model_close(model);
}

/* ---- Kernels that do not compile ---- */

/* One session's kernel that the driver refuses is no other's business. */
static void test_failed_kernel(void **state) {
    (void)state;
    const peridot_session_params other = {.struct_size = sizeof other, .kv = PERIDOT_KV_Q8};
    const peridot_model_params params = {.struct_size = sizeof params, .compile_pipelines = true};
    peridot_session *session = NULL;
    peridot_error error = {0};
    load(path_of("small-f32"));
    peridot_session_close_wait(open_session());
    adopt_shim_fail("vkCreateComputePipelines", 0, VK_ERROR_OUT_OF_HOST_MEMORY);
    assert_int_equal(peridot_session_create(model, &other, &session, &error),
                     PERIDOT_ERROR_HOST_MEMORY);
    adopt_shim_fail("vkCreateComputePipelines", 0, VK_ERROR_OUT_OF_HOST_MEMORY);
    peridot_session_close_wait(open_session()); /* compiles none */
    adopt_shim_mend();
    peridot_model_close(model);
    adopt_shim_fail("vkCreateComputePipelines", 0, VK_ERROR_OUT_OF_HOST_MEMORY);
    assert_int_equal(peridot_model_load_wait(device, path_of("gqa-bf16"), &params, &model, &error),
                     PERIDOT_ERROR_HOST_MEMORY);
    assert_int_equal(pipelines_missing(device->engine), 0);
    adopt_shim_mend();
}

/* ---- Leaving and returning ---- */

static peridot_result step(peridot_session *session, bool away, peridot_error *error) {
    return away ? peridot_session_suspend_step(session, 5000, error)
                : peridot_session_resume_step(session, 5000, error);
}

/* Steps of suspending, or resuming, until call number `call` of those that may fails; whether one
 * did. No step waits, whatever runs; in the end the session is where it was. */
static bool fail_at(peridot_session *session, bool away, uint32_t call) {
    peridot_error error = {0};
    peridot_result result;
    adopt_shim_fail(NULL, call, VK_ERROR_OUT_OF_DEVICE_MEMORY);
    adopt_shim_forbid_waits(true);
    do
        result = step(session, away, &error);
    while (result == PERIDOT_NOT_READY && !adopt_shim_failed());
    bool failed = adopt_shim_failed();
    adopt_shim_hold(failed && result == PERIDOT_NOT_READY);
    for (int i = 0; i < 3 && result == PERIDOT_NOT_READY; i++)
        result = step(session, away, &error);
    adopt_shim_hold(false);
    while (result == PERIDOT_NOT_READY)
        result = step(session, away, &error);
    adopt_shim_forbid_waits(false);
    adopt_shim_mend();
    peridot_session_statistics now = {.struct_size = sizeof now};
    peridot_session_describe(session, &now);
    assert_int_equal(now.suspended, away == (result == PERIDOT_OK));
    return failed;
}

static void test_turning_back(void **state) {
    (void)state;
    const int32_t prompt[] = {2, 30, 40, 50};
    load(path_of("small-f32"));
    peridot_session *session = open_session();
    MUST(peridot_session_prompt_wait(session, prompt, 4, NULL, &error));
    for (int away = 1; away >= 0; away--) {
        uint32_t call = 0;
        while (fail_at(session, away, call)) { /* smaller pieces may do */
            MUST(away ? peridot_session_resume_wait(session, &error)
                      : peridot_session_suspend_wait(session, &error));
            call++;
        }
        print_message("%u calls failed\n", call);
        assert_true(call > 3);
    }
    check_logits(session);
    peridot_session_close_wait(session);
    peridot_model_close(model);
}

/* Copies keep to what the device allocates at once. */
static void test_small_allocations(void **state) {
    (void)state;
    int32_t prompt[1500] = {2}; /* 2.9 MiB of keys and values */
    const struct device_adoption app = adopt_shim_adoption();
    const peridot_adoption adoption = guest_adoption(&app);
    peridot_device *usual = device;
    peridot_device_params params = guest_params;
    params.max_allocation = 2 << 20;
    MUST(peridot_device_adopt(&adoption, &params, &device, &error));
    load(path_of("small-f32"));
    peridot_session *session;
    const peridot_session_params small = {
        .struct_size = sizeof small, .context = 1536, .kv = PERIDOT_KV_F32, .prefill_rows = 64};
    for (int i = 1; i < 1500; i++)
        prompt[i] = any_token();
    MUST(peridot_session_create(model, &small, &session, &error));
    MUST(peridot_session_prompt_wait(session, prompt, 1500, NULL, &error));
    MUST(peridot_session_suspend_wait(session, &error));
    MUST(peridot_session_resume_wait(session, &error));
    assert_int_equal(peridot_session_suspend_step(session, 100, NULL), PERIDOT_NOT_READY);
    peridot_result result;
    do
        result = peridot_session_suspend_step(session, UINT64_MAX, NULL);
    while (result == PERIDOT_NOT_READY);
    MUST(result == PERIDOT_OK ? PERIDOT_OK : peridot_session_suspend_wait(session, &error));
    MUST(peridot_session_resume_wait(session, &error));
    static float logits[VOCABULARY_MOST];
    MUST(peridot_session_logits_wait(session, logits, &error));
    peridot_session_close_wait(session);
    peridot_model_close(model);
    peridot_device_close(device);
    device = usual;
}

/* ---- A conversation that goes on ---- */

/* What is left of it, run in the session that holds the rest; the answer to the last message. */
static struct answer reply(peridot_session *session, const peridot_message *messages, size_t count,
                           size_t *ran) {
    int32_t tokens[512];
    struct answer answer = {{0}, 0};
    const peridot_sampling greedy = {.struct_size = sizeof greedy};
    MUST(peridot_session_sampling(session, &greedy, &error));
    MUST(peridot_session_chat(session, messages, count, tokens, 512, ran, &error));
    MUST(peridot_session_prompt_wait(session, tokens, *ran, NULL, &error));
    MUST(peridot_session_generate_wait(session, 40, take, &answer, NULL, &error));
    return answer;
}

static void test_conversation(void **state) {
    (void)state;
    peridot_message messages[] = {
        {"user", "My name is Ana.", 15}, {"model", "", 0}, {"user", "What is my name?", 16}};
    int32_t tokens[4], untouched[4] = {7, 7, 7, 7};
    char text[256];
    size_t length = 0, ran, again, all;
    peridot_error error;
    load(DEMO_MODEL);
    peridot_session *session = open_session(), *fresh = open_session();
    struct answer first = reply(session, messages, 1, &ran);
    for (uint32_t i = 0; i + 1 < first.count; i++) { /* but for the stop token */
        const char *bytes;
        size_t more;
        MUST(peridot_token_bytes(model, first.tokens[i], &bytes, &more, &error));
        memcpy(text + length, bytes, more);
        length += more;
    }
    messages[1] = (peridot_message){"model", text, length};
    uint32_t held = peridot_session_length(session);
    memcpy(tokens, untouched, sizeof tokens);
    MUST(peridot_session_chat(session, messages, 3, tokens, 4, &again, &error));
    assert_true(again > 4 && again < held); /* too many for the place, and not all of them */
    assert_memory_equal(tokens, untouched, sizeof tokens);
    assert_int_equal(peridot_session_length(session), held);
    struct answer second = reply(session, messages, 3, &ran);
    assert_int_equal(ran, again);
    struct answer expected = reply(fresh, messages, 3, &all);
    compare(&expected, &second);
    assert_true(all > again);
    MUST(peridot_session_chat(session, messages, 1, tokens, 4, &ran, &error)); /* back to it */
    assert_int_equal(ran, 1);
    assert_int_equal(peridot_session_chat(session, messages, 2, tokens, 4, &ran, &error),
                     PERIDOT_ERROR_ARGUMENT);
    peridot_session_close_wait(session);
    peridot_session_close_wait(fresh);
    peridot_model_close(model);
}

/* As many tokens before a stop token as there can be. */
static void test_no_stop(void **state) {
    (void)state;
    const peridot_message message = {"user", "My name is Ana.", 15};
    const peridot_sampling sampling = {.struct_size = sizeof sampling, .min_tokens = UINT32_MAX};
    int32_t tokens[64];
    size_t count;
    struct answer got = {{0}, 0};
    load(DEMO_MODEL);
    peridot_session *session = open_session();
    MUST(peridot_session_sampling(session, &sampling, &error));
    MUST(peridot_session_chat(session, &message, 1, tokens, 64, &count, &error));
    MUST(peridot_session_prompt_wait(session, tokens, count, NULL, &error));
    MUST(peridot_session_generate_wait(session, 50, take, &got, NULL, &error));
    assert_int_equal(got.count, 50);
    peridot_session_close_wait(session);
    peridot_model_close(model);
}

/* ---- A device that another session found lost ---- */

static void test_lost_elsewhere(void **state) {
    (void)state;
    const int32_t prompt[] = {2, 30, 40, 50};
    peridot_error error = {0};
    load(path_of("small-f32"));
    peridot_session *session = open_session();
    peridot_work work = {.struct_size = sizeof work, .tokens = prompt, .token_count = 4};
    peridot_work_status status = {.struct_size = sizeof status};
    MUST(peridot_session_start(session, &work, &error));
    device->engine->lost = true;
    assert_int_equal(peridot_session_poll(session, &status, &error), PERIDOT_ERROR_DEVICE_LOST);
    assert_false(status.active);
    MUST(peridot_session_poll(session, &status, &error));
    assert_int_equal(peridot_session_start(session, &work, &error), PERIDOT_ERROR_DEVICE_LOST);
    device->engine->lost = false;
    peridot_session_close_wait(session);
    peridot_model_close(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_room),        cmocka_unit_test(test_batch_closed),
        cmocka_unit_test(test_mask_changes),   cmocka_unit_test(test_grammar_changes),
        cmocka_unit_test(test_mask_too_late),  cmocka_unit_test(test_discard),
        cmocka_unit_test(test_reached_value),  cmocka_unit_test(test_failed_kernel),
        cmocka_unit_test(test_turning_back),   cmocka_unit_test(test_small_allocations),
        cmocka_unit_test(test_conversation),   cmocka_unit_test(test_no_stop),
        cmocka_unit_test(test_lost_elsewhere),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
