/* A batch's work in slices, on an application's device where no call may wait: submitted or
 * recorded, at any budget, with masks and grammars, it gives the tokens, the probabilities and the
 * logits of separate sessions, to the bit; it can be cancelled at every slice, and lose its device
 * at every call. */
#include "any_sampling.h"
#include "batch.h"
#include "begin_recording.h"
#include "conformance.h"
#include "guest_adoption.h"
#include "must.h"
#include "test_filter.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#define SMALL "small-f32"
#define TOKENS_MOST 64
#define PROMPT_MOST 600
#define VOCABULARY_MOST 2048
#define MODEL_MOST 256  /* columns of hidden states */
#define HIDDEN_MOST 128 /* tokens, of which they are compared */
#define ROUNDS 2
#define IN_FLIGHT 64 /* command buffers of the application's */

/* Ends by itself. */
static const char short_text[] = "root ::= \"{\" [a-z0-9]{1,9} ( \",\" [a-z]{0,7} ){0,3} \"}\"\n";

static peridot_device *device;
static peridot_model *model; /* the one that a test has loaded */
static peridot_grammar *grammar;
static peridot_model_info info;
static struct random generator;

static uint32_t below(uint32_t bound) {
    return (uint32_t)random_below(&generator, bound);
}

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

/* ---- What is said ---- */

enum limit { ANYTHING, MASK, GRAMMAR };
enum pending { NOTHING, NOT_RUN, TRUNCATED }; /* of a prompt, when the batch's work begins */

struct talk {
    peridot_sampling sampling;
    enum limit limit;
    uint32_t mask[VOCABULARY_MOST / 32];
    enum pending pending;
    uint32_t hidden_layer; /* whose states are kept */
    int32_t prompt[PROMPT_MOST + 1];
    uint32_t length;
    uint32_t counts[ROUNDS]; /* asked for; 0: it sits out */
    uint32_t enough;         /* tokens after which the callback ends it; 0: never */
};

struct answer {
    peridot_token tokens[TOKENS_MOST];
    uint32_t count, enough;
    float logits[ROUNDS][VOCABULARY_MOST];
    float hidden[HIDDEN_MOST * MODEL_MOST];
};

static bool take(const peridot_token *token, void *user) {
    struct answer *answer = user;
    assert_true(answer->count < TOKENS_MOST);
    answer->tokens[answer->count++] = *token;
    return !answer->enough || --answer->enough > 0;
}

static struct answer got[PERIDOT_BATCH_MAX];
static uint32_t order[PERIDOT_BATCH_MAX]; /* tokens of each session in the work at hand */

/* Tokens come step by step, within a step in the order of the sessions. */
static bool take_of(uint32_t session, const peridot_token *token, void *user) {
    uint32_t step = order[session]++;
    for (uint32_t i = 0; i < PERIDOT_BATCH_MAX; i++)
        assert_true(i > session ? order[i] <= step : order[i] <= step + 1);
    return take(token, (struct answer *)user + session);
}

/* One token in eight and, soon the likeliest, those that stop. */
static void choose_mask(struct talk *talk) {
    for (uint32_t i = 0; i < info.vocabulary; i++)
        if (!below(8))
            talk->mask[i / 32] |= 1u << i % 32;
    for (uint32_t i = 0; i < info.stop_token_count; i++)
        talk->mask[info.stop_tokens[i] / 32] |= 1u << info.stop_tokens[i] % 32;
}

static void choose_talk(struct talk *talk, uint32_t length, uint32_t tokens) {
    memset(talk, 0, sizeof *talk);
    talk->sampling = any_sampling(&generator);
    talk->prompt[0] = 2;
    for (uint32_t i = 1; i <= PROMPT_MOST; i++)
        talk->prompt[i] = 10 + (int32_t)below(info.vocabulary - 10);
    talk->length = length;
    talk->pending = (enum pending)below(3);
    for (int round = 0; round < ROUNDS; round++)
        talk->counts[round] = below(5) ? 1 + below(tokens) : 0;
    talk->enough = below(4) ? 0 : 1 + below(tokens);
    const uint32_t layers[] = {0, 1 + below(info.layers), PERIDOT_HIDDEN_NORMED};
    talk->hidden_layer = length + ROUNDS * tokens < HIDDEN_MOST ? layers[below(3)] : 0;
    choose_mask(talk);
}

static peridot_session *open_talk(const peridot_session_params *params, const struct talk *talk) {
    peridot_session_params own = *params;
    peridot_session *session;
    own.hidden_layer = talk->hidden_layer;
    MUST(peridot_session_create(model, &own, &session, &error));
    MUST(peridot_session_sampling(session, &talk->sampling, &error));
    return session;
}

/* What is pending has to be run in passes of the same sizes, whichever way. */
static void prompt_talk(peridot_session *session, const struct talk *talk, enum pending pending) {
    peridot_work work = {
        .struct_size = sizeof work, .tokens = talk->prompt, .token_count = talk->length};
    uint32_t more = pending == TRUNCATED;
    if (pending == NOT_RUN) {
        MUST(peridot_session_start(session, &work, &error));
        peridot_session_cancel(session);
    } else {
        MUST(peridot_session_prompt_wait(session, talk->prompt, talk->length, NULL, &error));
        if (more)
            MUST(
                peridot_session_prompt_wait(session, talk->prompt + talk->length, 1, NULL, &error));
        MUST(peridot_session_truncate(session, talk->length, &error));
    }
    if (talk->limit == MASK)
        MUST(peridot_session_mask(session, talk->mask, (info.vocabulary + 31) / 32, &error));
    if (talk->limit == GRAMMAR)
        MUST(peridot_session_grammar(session, grammar, &error));
}

/* Another text begins, where the last one may have come to its end. */
static void go_on(peridot_session *session, const struct talk *talk) {
    if (talk->limit == GRAMMAR)
        MUST(peridot_session_grammar(session, grammar, &error));
}

/* Hidden states of all tokens; the last one's are made with its logits, which were read. */
static void read_hidden(peridot_session *session, const struct talk *talk, struct answer *answer) {
    uint32_t length = peridot_session_length(session);
    assert_true(info.d_model <= MODEL_MOST);
    if (talk->hidden_layer)
        MUST(peridot_session_hidden_wait(session, 0, length, answer->hidden, &error));
}

static void talk_alone(const peridot_session_params *params, const struct talk *talk,
                       struct answer *answer) {
    peridot_session *session = open_talk(params, talk);
    memset(answer, 0, sizeof *answer);
    prompt_talk(session, talk, talk->pending);
    for (int round = 0; round < ROUNDS; round++) {
        answer->enough = talk->enough;
        go_on(session, talk);
        if (talk->counts[round])
            MUST(peridot_session_generate_wait(session, talk->counts[round], take, answer, NULL,
                                               &error));
        MUST(peridot_session_logits_wait(session, answer->logits[round], &error));
    }
    read_hidden(session, talk, answer);
    peridot_session_close_wait(session);
}

/* ---- The application ---- */

enum way { TINY, WAITING, AT_ONCE, BUDGETED, FRAMES, RECORDED };

/* Command buffers of its own, and which of them have not run. */
struct application {
    struct lane lane;
    VkCommandBuffer commands[IN_FLIGHT];
    uint64_t first; /* value of the oldest */
};

static void open_application(struct application *app) {
    memset(app, 0, sizeof *app);
    MUST(lane_create(model->device->engine, &app->lane, &error));
    app->first = 1;
}

static void free_run(struct application *app) {
    for (bool there = true; app->first <= app->lane.submitted && there;) {
        MUST(lane_poll(&app->lane, app->first, &there, &error));
        if (there)
            lane_free_commands(&app->lane, app->commands[app->first++ % IN_FLIGHT]);
    }
}

/* What is left of a frame is another's: the device's, where that is the same processor. */
static void end_frame(void) {
    (void)nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL);
}

static void finish(peridot_batch *batch) {
    peridot_batch_status status = {.struct_size = sizeof status};
    do {
        MUST(peridot_batch_poll(batch, &status, &error));
        end_frame();
    } while (status.active);
}

static bool record_slice(struct application *app, peridot_batch *batch, float budget_ms) {
    struct lane *lane = &app->lane;
    peridot_error error = {0};
    assert_true(lane->submitted - app->first + 1 < IN_FLIGHT);
    peridot_recording recording = begin_recording(lane, budget_ms, 1);
    VkCommandBuffer commands = recording.commands;
    uint32_t before = adopt_shim_calls("vkQueueSubmit2");
    peridot_result result = peridot_batch_record(batch, &recording, NULL, &error);
    if (result < 0)
        fail_msg("%s", error.message);
    assert_int_equal(adopt_shim_calls("vkQueueSubmit2"), before);
    MUST(lane_end(lane, commands, &error));
    if (result == PERIDOT_NOT_READY) {
        lane_free_commands(lane, commands);
        return false;
    }
    MUST(lane_submit(lane, &(struct batch){&commands, 1}, 1, &error));
    app->commands[lane->submitted % IN_FLIGHT] = commands;
    return true;
}

static float budget_of(enum way way) {
    static const float budgets[] = {0.002f, 0.02f, 0.1f, 1, 20};
    return way == AT_ONCE ? 0 : way == BUDGETED ? 0.5f : way == TINY ? 1e-4f : budgets[below(5)];
}

/* One submission at most, that was asked for, and of what was planned. */
static bool submit_slice(peridot_batch *batch, float budget_ms) {
    peridot_advance advance = {.struct_size = sizeof advance, .budget_ms = budget_ms};
    peridot_slice_plan slice = {.struct_size = sizeof slice}, plan = slice;
    peridot_error error = {0};
    uint32_t before = adopt_shim_calls("vkQueueSubmit2");
    MUST(peridot_batch_plan(batch, budget_ms, &plan, &error));
    peridot_result result = peridot_batch_advance(batch, &advance, &slice, &error);
    if (result < 0)
        fail_msg("%s", error.message);
    assert_int_equal(adopt_shim_calls("vkQueueSubmit2") - before, result == PERIDOT_OK);
    assert_int_equal(result == PERIDOT_OK, slice.dispatches > 0);
    if (result == PERIDOT_OK && plan.slices)
        assert_true(plan.dispatches == slice.dispatches && plan.left_ms >= plan.largest_ms);
    return result == PERIDOT_OK;
}

static void run_waiting(peridot_batch *batch, const uint32_t *counts) {
    uint32_t generated[PERIDOT_BATCH_MAX] = {0};
    memset(order, 0, sizeof order);
    MUST(peridot_batch_generate_wait(batch, counts, take_of, got, generated, &error));
    assert_memory_equal(generated, order, sizeof order);
}

/* Runs work to its end, without a wait; returns how many frames that took. */
static uint32_t run(peridot_batch *batch, struct application *app, const uint32_t *counts,
                    enum way way) {
    peridot_batch_work work = {
        .struct_size = sizeof work, .counts = counts, .on_token = take_of, .user = got};
    peridot_batch_status status = {.struct_size = sizeof status, .active = true};
    uint32_t frames = 0;
    memset(order, 0, sizeof order);
    adopt_shim_forbid_waits(true);
    MUST(peridot_batch_start(batch, &work, &error));
    for (; status.active; frames++) {
        for (uint32_t slices = way == FRAMES ? below(4) : 1; slices; slices--)
            if (!(way == RECORDED ? record_slice(app, batch, budget_of(way))
                                  : submit_slice(batch, budget_of(way))))
                end_frame();
        if (way != FRAMES || below(3))
            MUST(peridot_batch_poll(batch, &status, &error));
        free_run(app);
    }
    adopt_shim_forbid_waits(false);
    assert_int_equal(status.slices_in_flight, 0);
    assert_int_equal(status.prompt_left, 0);
    assert_memory_equal(status.generated, order, sizeof order);
    return frames;
}

/* ---- The same in every way ---- */

struct circle {
    peridot_session_params params;
    struct talk talks[PERIDOT_BATCH_MAX];
    struct answer expected[PERIDOT_BATCH_MAX];
    uint32_t count;
};
static struct circle circle;

static void compare(const struct answer *expected, const struct answer *answer) {
    assert_int_equal(expected->count, answer->count);
    for (uint32_t i = 0; i < expected->count; i++) {
        assert_int_equal(expected->tokens[i].position, answer->tokens[i].position);
        assert_int_equal(expected->tokens[i].token, answer->tokens[i].token);
        assert_int_equal(expected->tokens[i].stop, answer->tokens[i].stop);
        assert_memory_equal(&expected->tokens[i].log_probability,
                            &answer->tokens[i].log_probability, sizeof(float));
    }
    for (int round = 0; round < ROUNDS; round++)
        assert_memory_equal(expected->logits[round], answer->logits[round],
                            info.vocabulary * sizeof(float));
    assert_memory_equal(expected->hidden, answer->hidden, sizeof expected->hidden);
}

static void open_circle(peridot_session **sessions, peridot_batch **batch) {
    for (uint32_t i = 0; i < circle.count; i++)
        sessions[i] = open_talk(&circle.params, &circle.talks[i]);
    MUST(peridot_batch_create(sessions, circle.count, batch, &error));
}

static void close_circle(peridot_session **sessions, peridot_batch *batch) {
    peridot_batch_close_wait(batch);
    for (uint32_t i = 0; i < circle.count; i++)
        peridot_session_close_wait(sessions[i]);
}

static bool any_of(const uint32_t *counts) {
    bool any = false;
    for (uint32_t i = 0; i < circle.count; i++)
        any |= counts[i] > 0;
    return any;
}

static uint32_t talk_together(enum way way) {
    peridot_session *sessions[PERIDOT_BATCH_MAX];
    peridot_batch *batch;
    struct application app;
    uint32_t frames = 0;
    memset(got, 0, sizeof got);
    open_circle(sessions, &batch);
    open_application(&app);
    for (uint32_t i = 0; i < circle.count; i++)
        prompt_talk(sessions[i], &circle.talks[i], circle.talks[i].pending);
    for (int round = 0; round < ROUNDS; round++) {
        uint32_t counts[PERIDOT_BATCH_MAX] = {0};
        for (uint32_t i = 0; i < circle.count; i++) {
            counts[i] = circle.talks[i].counts[round];
            got[i].enough = circle.talks[i].enough;
            go_on(sessions[i], &circle.talks[i]);
        }
        if (round == 1) { /* one of them comes back to other buffers */
            uint32_t away = below(circle.count);
            MUST(peridot_session_suspend_wait(sessions[away], &error));
            MUST(peridot_session_resume_wait(sessions[away], &error));
        }
        if (any_of(counts) && way == WAITING)
            run_waiting(batch, counts);
        else if (any_of(counts))
            frames += run(batch, &app, counts, way);
        for (uint32_t i = 0; i < circle.count; i++)
            MUST(peridot_session_logits_wait(sessions[i], got[i].logits[round], &error));
    }
    for (uint32_t i = 0; i < circle.count; i++)
        read_hidden(sessions[i], &circle.talks[i], &got[i]);
    lane_destroy(&app.lane);
    close_circle(sessions, batch);
    return frames;
}

/* Each of them alone, then together in those ways. */
static void check(enum way first, enum way last) {
    uint32_t tokens = 0, stops = 0;
    for (uint32_t i = 0; i < circle.count; i++) {
        struct answer *answer = &circle.expected[i];
        talk_alone(&circle.params, &circle.talks[i], answer);
        tokens += answer->count;
        for (uint32_t j = 0; j < answer->count; j++)
            stops += answer->tokens[j].stop;
    }
    print_message("%u sessions, %u tokens, %u stops:", circle.count, tokens, stops);
    for (enum way way = first; way <= last; way++) {
        uint32_t frames = talk_together(way);
        print_message(" way %d %u frames;", way, frames);
        for (uint32_t i = 0; i < circle.count; i++)
            compare(&circle.expected[i], &got[i]);
    }
    print_message("\n");
}

static void choose_circle(uint32_t count, uint32_t shortest, uint32_t longest, uint32_t tokens) {
    circle.count = count;
    circle.params = (peridot_session_params){.struct_size = sizeof circle.params};
    for (uint32_t i = 0; i < count; i++)
        choose_talk(&circle.talks[i], shortest + below(longest - shortest + 1), tokens);
}

static void test_every_way(void **state) {
    (void)state;
    load(path_of("mqa-bf16"));
    choose_circle(3 + below(PERIDOT_BATCH_MAX - 2), 1, 100, 8);
    circle.params.steps_per_submission = 1 + below(6);
    circle.params.shuffle_seed = below(3);
    circle.talks[0].length = 1 + below(20); /* attention's grids differ */
    circle.talks[2].length = 70 + below(30);
    circle.talks[0].counts[0] = circle.talks[2].counts[0] = 8;
    circle.talks[0].enough = circle.talks[2].enough = 0;
    circle.talks[1].counts[0] = 0; /* it sits out, and its logits stay */
    circle.talks[1].pending = NOTHING;
    check(TINY, RECORDED);
    peridot_model_close(model);
}

/* Some have a mask, one nothing but the mask's and the stop tokens. */
static void test_masks(void **state) {
    (void)state;
    load(path_of(SMALL));
    choose_circle(4, 1, 20, 10);
    for (uint32_t i = 0; i < 3; i++) {
        circle.talks[i].limit = i < 2 ? MASK : ANYTHING;
        circle.talks[i].counts[0] = circle.talks[i].counts[1] = 10;
    }
    circle.talks[1].sampling.temperature = 2;
    circle.talks[1].sampling.min_tokens = 2;
    check(WAITING, RECORDED);
    peridot_model_close(model);
}

static void test_grammar(void **state) {
    (void)state;
    load(DEMO_MODEL);
    MUST(peridot_grammar_parse(model, short_text, strlen(short_text), &grammar, &error));
    choose_circle(4, 1, 20, 16);
    for (uint32_t i = 0; i < 4; i++) {
        circle.talks[i].limit = i == 1 ? ANYTHING : i == 3 ? MASK : GRAMMAR;
        circle.talks[i].counts[0] = i == 3 ? 3 : 16;
    }
    check(WAITING, RECORDED);
    peridot_model_close(model);
    peridot_grammar_free(grammar);
}

/* Some pass the end of a KV chunk, some the end of their context; one ends with a token for which
 * it has no chunk. */
static void test_chunks(void **state) {
    (void)state;
    load(path_of("long-f16"));
    choose_circle(3, 505, 512, 9);
    circle.params.context = 520;
    circle.params.kv = below(2) ? PERIDOT_KV_Q8 : PERIDOT_KV_F16;
    circle.talks[0].length = 511;
    for (uint32_t i = 0; i < 3; i++) {
        circle.talks[i].counts[0] = i ? 4 : 2;
        circle.talks[i].enough = 0;
        circle.talks[i].sampling.min_tokens = 4;
    }
    check(FRAMES, RECORDED);
    peridot_model_close(model);
}

/* ---- Masks while the layers run ---- */

/* What a member's mask hangs on is a slice of its own, and the layers after it are on their way
 * before anything of it has come. */
static void test_masks_beside_layers(void **state) {
    (void)state;
    peridot_session *session;
    peridot_slice_plan sampler = {.struct_size = sizeof sampler}, layers = sampler;
    peridot_work_status status = {.struct_size = sizeof status};
    peridot_session_statistics step = {.struct_size = sizeof step};
    peridot_error error;
    load(path_of(SMALL));
    choose_circle(1, 3, 9, 6);
    struct talk *talk = &circle.talks[0];
    talk->hidden_layer = 0;
    talk->limit = MASK;
    session = open_talk(&circle.params, talk);
    prompt_talk(session, talk, NOTHING);
    peridot_work work = {.struct_size = sizeof work, .generate = 3};
    MUST(peridot_session_start(session, &work, &error));
    peridot_session_describe(session, &step);
    adopt_shim_hold(true); /* as if none had ended */
    MUST(peridot_session_advance(session, NULL, &sampler, &error));
    MUST(peridot_session_advance(session, NULL, &layers, &error));
    assert_int_equal(sampler.dispatches + layers.dispatches, step.dispatches_per_step);
    assert_true(layers.bytes > sampler.bytes);
    assert_int_equal(peridot_session_advance(session, NULL, NULL, &error), PERIDOT_NOT_READY);
    MUST(peridot_session_poll(session, &status, &error));
    assert_true(status.slices_in_flight == 2 && status.generated == 0);
    adopt_shim_hold(false);
    while (status.active) {
        assert_true(peridot_session_advance(session, NULL, NULL, &error) >= 0);
        MUST(peridot_session_poll(session, &status, &error));
    }
    peridot_session_close_wait(session);
    peridot_model_close(model);
}

/* ---- Semaphores ---- */

static VkSemaphoreSubmitInfo at(VkSemaphore semaphore, uint64_t value) {
    return (VkSemaphoreSubmitInfo){.sType = VK_STRUCTURE_TYPE_SEMAPHORE_SUBMIT_INFO,
                                   .semaphore = semaphore,
                                   .value = value,
                                   .stageMask = VK_PIPELINE_STAGE_2_ALL_COMMANDS_BIT};
}

static VkSemaphore make_binary(void) {
    struct device *engine = device->engine;
    VkSemaphoreCreateInfo create = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO};
    VkSemaphore semaphore;
    assert_int_equal(engine->vk.CreateSemaphore(engine->handle, &create, NULL, &semaphore), 0);
    device_name_object(engine, VK_OBJECT_TYPE_SEMAPHORE, (uint64_t)semaphore, "the test's");
    return semaphore;
}

static uint64_t value_of(VkSemaphore timeline) {
    uint64_t value = 0;
    const struct device *engine = device->engine;
    assert_int_equal(engine->vk.GetSemaphoreCounterValue(engine->handle, timeline, &value), 0);
    return value;
}

/* A slice waits for what another signals, by a binary semaphore and by a timeline; with nothing to
 * submit signals come all the same, after what came before. */
static void test_semaphores(void **state) {
    (void)state;
    peridot_session *sessions[PERIDOT_BATCH_MAX];
    peridot_batch *batch;
    struct application app;
    peridot_error error;
    load(path_of(SMALL));
    choose_circle(2, 3, 9, 6);
    circle.talks[0].limit = MASK; /* so that there will be nothing to submit */
    open_circle(sessions, &batch);
    open_application(&app);
    for (uint32_t i = 0; i < 2; i++)
        prompt_talk(sessions[i], &circle.talks[i], NOTHING);
    static const uint32_t counts[] = {3, 3};
    peridot_batch_work work = {.struct_size = sizeof work, .counts = counts};
    VkSemaphore binary = make_binary();
    VkSemaphoreSubmitInfo first[] = {at(binary, 0), at(app.lane.timeline, 1)};
    VkSemaphoreSubmitInfo end = at(app.lane.timeline, 2);
    peridot_advance one = {.struct_size = sizeof one, .signals = first, .signal_count = 2};
    peridot_advance two = {.struct_size = sizeof two, .waits = first, .wait_count = 2};
    peridot_advance nothing = {.struct_size = sizeof nothing, .signals = &end, .signal_count = 1};
    MUST(peridot_batch_start(batch, &work, &error));
    adopt_shim_hold(true);
    MUST(peridot_batch_advance(batch, &one, NULL, &error));
    MUST(peridot_batch_advance(batch, &two, NULL, &error));
    uint32_t before = adopt_shim_calls("vkQueueSubmit2");
    assert_int_equal(peridot_batch_advance(batch, &nothing, NULL, &error), PERIDOT_NOT_READY);
    assert_int_equal(adopt_shim_calls("vkQueueSubmit2"), before + 1);
    assert_int_equal(peridot_batch_advance(batch, &two, NULL, &error), PERIDOT_NOT_READY);
    assert_int_equal(adopt_shim_calls("vkQueueSubmit2"), before + 1); /* nothing is signalled */
    adopt_shim_hold(false);
    while (value_of(app.lane.timeline) < 2)
        end_frame();
    peridot_batch_cancel(batch);
    finish(batch);
    device->engine->vk.DestroySemaphore(device->engine->handle, binary, NULL);
    lane_destroy(&app.lane);
    close_circle(sessions, batch);
    peridot_model_close(model);
}

/* ---- Cancelling ---- */

/* What is left of each after a cancelled work, by itself. */
static void finish_alone(peridot_session **sessions) {
    for (uint32_t i = 0; i < circle.count; i++) {
        const struct talk *talk = &circle.talks[i];
        bool over = got[i].count && got[i].tokens[got[i].count - 1].stop;
        if (!over && got[i].count < talk->counts[0])
            MUST(peridot_session_generate_wait(sessions[i], talk->counts[0] - got[i].count, take,
                                               &got[i], NULL, &error));
        MUST(peridot_session_logits_wait(sessions[i], got[i].logits[0], &error));
        memcpy(got[i].logits[1], got[i].logits[0], sizeof got[i].logits[1]);
        read_hidden(sessions[i], talk, &got[i]);
        compare(&circle.expected[i], &got[i]);
    }
}

/* Cancelled after any number of slices, what goes on afterwards is what would have been; and
 * nothing of it is left over. */
static void test_cancel(void **state) {
    (void)state;
    peridot_session *sessions[PERIDOT_BATCH_MAX];
    peridot_batch *batch;
    load(path_of(SMALL));
    choose_circle(3, 3, 9, 6);
    for (uint32_t i = 0; i < 3; i++) {
        struct talk *talk = &circle.talks[i];
        talk->counts[0] = 3 + i;
        talk->counts[1] = talk->enough = 0;
        talk->sampling.repetition_penalty = 1.7f;
        talk->limit = i == 1 ? MASK : ANYTHING;
        talk->pending = NOTHING;
        talk_alone(&circle.params, talk, &circle.expected[i]);
    }
    uint32_t counts[] = {3, 4, 5}, at = 0;
    open_circle(sessions, &batch);
    for (bool ended = false; !ended; at += 1 + below(2 + at)) {
        memset(got, 0, sizeof got);
        memset(order, 0, sizeof order);
        for (uint32_t i = 0; i < 3; i++) {
            MUST(peridot_session_truncate(sessions[i], 0, &error));
            prompt_talk(sessions[i], &circle.talks[i], below(2) ? NOTHING : NOT_RUN);
        }
        peridot_batch_work work = {sizeof work, counts, take_of, got};
        peridot_batch_status status = {.struct_size = sizeof status, .active = true};
        MUST(peridot_batch_start(batch, &work, &error));
        for (uint32_t slices = 0; slices < at && status.active;) {
            bool ran = submit_slice(batch, 0.1f);
            slices += ran;
            if (!ran)
                end_frame();
            if (!ran || below(2))
                MUST(peridot_batch_poll(batch, &status, &error));
        }
        ended = !status.active;
        peridot_batch_cancel(batch);
        finish(batch);
        if (ended || below(2)) /* or else what was begun goes */
            finish_alone(sessions);
    }
    print_message("cancelled after up to %u slices\n", at);
    close_circle(sessions, batch);
    peridot_model_close(model);
}

/* ---- A lost device ---- */

/* Runs until the device is lost, at its `call`th call that can tell; false: it was not. */
static bool lose(uint32_t call) {
    static const uint32_t counts[] = {3, 2};
    peridot_session *sessions[PERIDOT_BATCH_MAX];
    peridot_batch *batch;
    peridot_error error = {0};
    peridot_result result = PERIDOT_OK;
    peridot_batch_work work = {sizeof work, counts, take_of, got};
    peridot_batch_status status = {.struct_size = sizeof status, .active = true};
    peridot_advance advance = {.struct_size = sizeof advance, .budget_ms = 0.3f};
    memset(got, 0, sizeof got);
    memset(order, 0, sizeof order);
    open_circle(sessions, &batch);
    for (uint32_t i = 0; i < 2; i++)
        prompt_talk(sessions[i], &circle.talks[i], circle.talks[i].pending);
    adopt_shim_forbid_waits(true);
    adopt_shim_fail(NULL, call, VK_ERROR_DEVICE_LOST);
    result = peridot_batch_start(batch, &work, &error);
    while (result >= 0 && status.active) {
        result = peridot_batch_advance(batch, &advance, NULL, &error);
        if (result == PERIDOT_NOT_READY)
            end_frame();
        if (result >= 0)
            result = peridot_batch_poll(batch, &status, &error);
    }
    bool failed = adopt_shim_failed();
    assert_true(result == PERIDOT_OK || failed);
    if (result) {
        assert_int_equal(result, PERIDOT_ERROR_DEVICE_LOST);
        assert_non_null(strstr(error.message, "was lost"));
        peridot_batch_cancel(batch);
        if (batch->own.work) {
            (void)peridot_batch_poll(batch, &status, &error);
            MUST(peridot_batch_poll(batch, &status, &error));
            assert_int_equal(status.slices_in_flight + status.active, 0);
        }
        if (peridot_batch_start(batch, &work, &error) == PERIDOT_OK) /* as far as it needs none */
            result = peridot_batch_advance(batch, &advance, NULL, &error);
        assert_int_equal(result, PERIDOT_ERROR_DEVICE_LOST);
    }
    assert_int_equal(peridot_batch_close(batch), PERIDOT_OK);
    adopt_shim_mend();
    adopt_shim_forbid_waits(false);
    for (uint32_t i = 0; i < 2; i++)
        peridot_session_close_wait(sessions[i]);
    device->engine->lost = false;
    return failed;
}

static void test_lost(void **state) {
    (void)state;
    uint32_t calls = 0;
    load(path_of(SMALL));
    choose_circle(2, 3, 9, 6);
    circle.talks[0].pending = NOT_RUN;
    while (lose(calls))
        calls += 1 + below(2 + calls / 4);
    print_message("lost at one of %u calls\n", calls);
    assert_true(calls > 20);
    peridot_model_close(model);
}

/* ---- What is refused ---- */

static void expect_refusal(peridot_result result, const peridot_error *error, const char *words) {
    assert_int_equal(result, PERIDOT_ERROR_ARGUMENT);
    if (!strstr(error->message, words))
        fail_msg("\"%s\" does not say \"%s\"", error->message, words);
}
#define REFUSE(call, words) expect_refusal(call, &error, words)

static void refuse_without_work(peridot_batch *batch) {
    peridot_error error;
    peridot_slice_plan plan = {.struct_size = sizeof plan};
    peridot_advance advance = {.struct_size = sizeof advance};
    peridot_recording recording = {.struct_size = sizeof recording};
    peridot_batch_work work = {.struct_size = sizeof work};
    MUST(peridot_batch_plan(batch, 1, &plan, &error));
    assert_int_equal(plan.slices, 0);
    assert_int_equal(peridot_batch_advance(batch, &advance, NULL, &error), PERIDOT_NOT_READY);
    REFUSE(peridot_batch_record(batch, &recording, NULL, &error), "command buffer");
    REFUSE(peridot_batch_discard(batch, &error), "no recorded slice");
    MUST(peridot_batch_poll(batch, NULL, &error));
    REFUSE(peridot_batch_start(batch, &work, &error), "a count for each session");
    REFUSE(peridot_batch_start(batch, NULL, &error), "needs a batch and work");
    peridot_batch_cancel(batch);
    peridot_batch_cancel(NULL);
}

/* What the sessions do not while their batch is at work, one that sits out included. */
static void refuse_at_work(peridot_session *session) {
    peridot_error error;
    static float logits[VOCABULARY_MOST];
    peridot_sampling sampling = {.struct_size = sizeof sampling};
    const int32_t token = 5;
    peridot_work work = {sizeof work, &token, 1, 0, NULL, NULL, NULL};
    REFUSE(peridot_session_start(session, &work, &error), "peridot_batch_poll");
    REFUSE(peridot_session_prompt_wait(session, &token, 1, NULL, &error), "peridot_batch_poll");
    REFUSE(peridot_session_generate_wait(session, 1, NULL, NULL, NULL, &error),
           "peridot_batch_poll");
    REFUSE(peridot_session_truncate(session, 0, &error), "peridot_batch_poll");
    REFUSE(peridot_session_sampling(session, &sampling, &error), "peridot_batch_poll");
    REFUSE(peridot_session_logits_wait(session, logits, &error), "peridot_batch_poll");
    REFUSE(peridot_session_suspend_step(session, 0, &error), "peridot_batch_poll");
    assert_int_equal(peridot_session_close(session), PERIDOT_NOT_READY);
}

static void test_refusals(void **state) {
    (void)state;
    peridot_session *sessions[PERIDOT_BATCH_MAX];
    peridot_batch *batch, *other;
    peridot_error error;
    load(path_of(SMALL));
    choose_circle(2, 3, 9, 6);
    open_circle(sessions, &batch);
    MUST(peridot_batch_create(sessions, 2, &other, &error));
    refuse_without_work(batch);
    uint32_t counts[] = {4, 0};
    peridot_batch_work work = {sizeof work, counts, NULL, NULL};
    REFUSE(peridot_batch_start(batch, &work, &error), "session 0 of the batch: generating needs");
    prompt_talk(sessions[0], &circle.talks[0], NOT_RUN);
    prompt_talk(sessions[1], &circle.talks[1], NOTHING);
    MUST(peridot_batch_start(batch, &work, &error));
    for (uint32_t i = 0; i < 2; i++)
        refuse_at_work(sessions[i]);
    REFUSE(peridot_batch_start(batch, &work, &error), "the batch's work is not done");
    REFUSE(peridot_batch_start(other, &work, &error), "session 0 of the batch: the session is in");
    REFUSE(peridot_batch_generate_wait(other, counts, NULL, NULL, NULL, &error), "session 0 of");
    adopt_shim_hold(true); /* as if the device got nowhere */
    MUST(peridot_batch_advance(batch, &(peridot_advance){.struct_size = sizeof(peridot_advance)},
                               NULL, &error));
    assert_int_equal(peridot_batch_close(batch), PERIDOT_NOT_READY);
    assert_int_equal(peridot_batch_close(batch), PERIDOT_NOT_READY);
    adopt_shim_hold(false);
    while (peridot_batch_close(batch) == PERIDOT_NOT_READY)
        continue;
    MUST(peridot_batch_generate_wait(other, counts, NULL, NULL, NULL, &error)); /* free again */
    MUST(peridot_batch_start(other, &work, &error));
    submit_slice(other, 0.01f);
    close_circle(sessions, other); /* in the middle of it */
    peridot_model_close(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_way),
        cmocka_unit_test(test_masks),
        cmocka_unit_test(test_grammar),
        cmocka_unit_test(test_chunks),
        cmocka_unit_test(test_masks_beside_layers),
        cmocka_unit_test(test_semaphores),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_lost),
        cmocka_unit_test(test_refusals),
    };
    TAKE_TEST_FILTER();
    return cmocka_run_group_tests(tests, open_all, close_all);
}
