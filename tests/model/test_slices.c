/* Work in slices: submitted or recorded, at any budget, it gives the tokens, the probabilities and
 * the logits of the calls that block, to the bit; it can be cancelled at every slice. */
#include "begin_recording.h"
#include "conformance.h"
#include "open_device.h"
#include "reference/random.h"
#include "session.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define TOKENS_MOST 700
#define LOGITS_MOST 512 /* the largest vocabulary here */

static peridot_device *device;
static uint64_t seed;

static int open_device(void **state) {
    (void)state;
    device = open_test_device();
    seed = random_seed();
    print_message("seed %llu\n", (unsigned long long)seed);
    return 0;
}

static int close_device(void **state) {
    (void)state;
    unsigned messages = validation_messages();
    peridot_device_close(device);
    return messages != 0;
}

/* ---- The application ---- */

/* Its own command buffers on the device's queue, and its own timeline. */
struct application {
    struct lane lane;
};

enum way { OWN, BUDGETED, RECORDED };

/* What a conversation gives. */
struct answer {
    peridot_token tokens[TOKENS_MOST];
    uint32_t count;
    uint32_t stop_after; /* tokens until the callback has enough; 0: never */
    float logits[LOGITS_MOST];
    uint32_t slices;
};

static bool take(const peridot_token *token, void *user) {
    struct answer *answer = user;
    answer->tokens[answer->count++] = *token;
    return answer->count != answer->stop_after;
}

static float any_budget(struct random *random) {
    static const float budgets[] = {0.002f, 0.02f, 0.1f, 1, 20};
    return budgets[random_below(random, 5)];
}

/* One slice in a command buffer of the application's, between its own work. */
static bool record_slice(struct application *app, peridot_session *session, float budget_ms) {
    struct lane *lane = &app->lane;
    peridot_slice_plan slice = {.struct_size = sizeof slice};
    peridot_recording recording = begin_recording(lane, budget_ms, 1);
    VkCommandBuffer commands = recording.commands;
    peridot_error error = {0};
    peridot_result result = peridot_session_record(session, &recording, &slice, &error);
    if (result < 0)
        fail_msg("%s", error.message);
    MUST(lane_end(lane, commands, &error));
    MUST(lane_submit(lane, &(struct batch){&commands, 1}, 1, &error));
    MUST(lane_wait(lane, lane->submitted, &error)); /* so that it can be freed */
    lane_free_commands(lane, commands);
    return result == PERIDOT_OK;
}

static bool submit_slice(peridot_session *session, float budget_ms) {
    peridot_advance advance = {.struct_size = sizeof advance, .budget_ms = budget_ms};
    peridot_slice_plan slice = {.struct_size = sizeof slice};
    peridot_error error = {0};
    peridot_result result = peridot_session_advance(session, &advance, &slice, &error);
    if (result < 0)
        fail_msg("%s", error.message);
    assert_int_equal(result == PERIDOT_OK, slice.dispatches > 0);
    return result == PERIDOT_OK;
}

/* Runs work to its end. */
static void run_work(struct application *app, peridot_session *session, enum way way,
                     const int32_t *tokens, size_t count, uint32_t generate,
                     struct answer *answer) {
    struct random random = random_start(seed + 77);
    peridot_work work = {.struct_size = sizeof work,
                         .tokens = tokens,
                         .token_count = count,
                         .generate = generate,
                         .on_token = take,
                         .user = answer};
    peridot_work_status status = {.struct_size = sizeof status};
    peridot_session_statistics before = {.struct_size = sizeof before};
    uint32_t slices = answer->slices, tokens_before = answer->count;
    peridot_session_describe(session, &before);
    MUST(peridot_session_start(session, &work, &error));
    do {
        float budget = way == OWN ? 0 : any_budget(&random);
        bool ran =
            way == RECORDED ? record_slice(app, session, budget) : submit_slice(session, budget);
        answer->slices += ran;
        MUST(peridot_session_poll(session, &status, &error));
    } while (status.active);
    assert_int_equal(status.slices_in_flight, 0);
    assert_int_equal(status.generated, answer->count);
    peridot_session_statistics statistics = {.struct_size = sizeof statistics};
    peridot_session_describe(session, &statistics);
    assert_int_equal(statistics.slices - before.slices, answer->slices - slices);
    assert_int_equal(statistics.slice_tokens - before.slice_tokens, answer->count - tokens_before);
    assert_true(statistics.slice_seconds > before.slice_seconds);
}

/* ---- The same in every way ---- */

struct conversation {
    const char *checkpoint;
    peridot_weights weights; /* AUTO: the file's */
    peridot_session_params params;
    peridot_sampling sampling;
    int32_t tokens[TOKENS_MOST];
    size_t first, second; /* tokens of two prompts */
    uint32_t generate;
};

static void blocking_answer(peridot_model *model, const struct conversation *conversation,
                            struct answer *first, struct answer *second) {
    peridot_session *session;
    MUST(peridot_session_create(model, &conversation->params, &session, &error));
    MUST(peridot_session_sampling(session, &conversation->sampling, &error));
    MUST(peridot_session_prompt_wait(session, conversation->tokens, conversation->first, NULL,
                                     &error));
    MUST(peridot_session_generate_wait(session, conversation->generate, take, first, NULL, &error));
    MUST(peridot_session_logits_wait(session, first->logits, &error));
    MUST(peridot_session_prompt_wait(session, conversation->tokens + conversation->first,
                                     conversation->second, NULL, &error));
    MUST(
        peridot_session_generate_wait(session, conversation->generate, take, second, NULL, &error));
    MUST(peridot_session_logits_wait(session, second->logits, &error));
    peridot_session_close_wait(session);
}

static void sliced_answer(peridot_model *model, const struct conversation *conversation,
                          enum way way, struct answer *first, struct answer *second) {
    peridot_session *session;
    struct application app;
    MUST(peridot_session_create(model, &conversation->params, &session, &error));
    MUST(lane_create(session->lane.device, &app.lane, &error));
    MUST(peridot_session_sampling(session, &conversation->sampling, &error));
    run_work(&app, session, way, conversation->tokens, conversation->first, conversation->generate,
             first);
    MUST(peridot_session_logits_wait(session, first->logits, &error));
    run_work(&app, session, way, conversation->tokens + conversation->first, conversation->second,
             0, second);
    run_work(&app, session, way, NULL, 0, conversation->generate, second);
    MUST(peridot_session_logits_wait(session, second->logits, &error));
    lane_destroy(&app.lane);
    peridot_session_close_wait(session);
}

static void compare(const struct answer *expected, const struct answer *got, size_t vocabulary) {
    assert_int_equal(expected->count, got->count);
    for (uint32_t i = 0; i < expected->count; i++) {
        assert_int_equal(expected->tokens[i].token, got->tokens[i].token);
        assert_int_equal(expected->tokens[i].position, got->tokens[i].position);
        assert_memory_equal(&expected->tokens[i].log_probability, &got->tokens[i].log_probability,
                            sizeof(float));
    }
    assert_memory_equal(expected->logits, got->logits, vocabulary * sizeof(float));
}

static void check(struct conversation *conversation) {
    static struct answer expected[2], got[2];
    peridot_model *model;
    peridot_model_info info = {.struct_size = sizeof info};
    const peridot_model_params params = {.struct_size = sizeof params,
                                         .weights = conversation->weights};
    MUST(peridot_model_load_wait(device, path_of(conversation->checkpoint), &params, &model,
                                 &error));
    peridot_model_describe(model, &info);
    assert_true(info.vocabulary <= LOGITS_MOST);
    struct random random = random_start(seed++);
    for (size_t i = 0; i < conversation->first + conversation->second; i++)
        conversation->tokens[i] = i ? 3 + (int32_t)random_below(&random, info.vocabulary - 3) : 2;
    conversation->params.struct_size = sizeof conversation->params;
    conversation->sampling.struct_size = sizeof conversation->sampling;
    conversation->sampling.seed = seed;
    memset(expected, 0, sizeof expected);
    blocking_answer(model, conversation, &expected[0], &expected[1]);
    for (enum way way = OWN; way <= RECORDED; way++) {
        memset(got, 0, sizeof got);
        sliced_answer(model, conversation, way, &got[0], &got[1]);
        print_message("%-22s way %d: %u + %u slices\n", conversation->checkpoint, way,
                      got[0].slices, got[1].slices);
        compare(&expected[0], &got[0], info.vocabulary);
        compare(&expected[1], &got[1], info.vocabulary);
        if (way != OWN)
            assert_true(got[0].slices > 8);
    }
    peridot_model_close(model);
}

static void test_small(void **state) {
    (void)state;
    check(&(struct conversation){.checkpoint = "small-f32",
                                 .sampling = {.temperature = 1.5f, .min_tokens = 9},
                                 .first = 21,
                                 .second = 1,
                                 .generate = 9});
}

static void test_all_samplers_q8_cache(void **state) {
    (void)state;
    check(&(struct conversation){.checkpoint = "gqa-bf16",
                                 .params = {.kv = PERIDOT_KV_Q8, .prefill_rows = 40},
                                 .sampling = {.temperature = 1.5f,
                                              .min_tokens = 7,
                                              .top_k = 50,
                                              .top_p = 0.9f,
                                              .repetition_penalty = 1.2f},
                                 .first = 93,
                                 .second = 3,
                                 .generate = 7});
}

/* Parts of the rows of weights in blocks, one of their types with integer dot products. */
static void test_blocks(void **state) {
    (void)state;
    static const peridot_weights types[] = {PERIDOT_WEIGHTS_Q8_0, PERIDOT_WEIGHTS_Q4_K,
                                            PERIDOT_WEIGHTS_Q4_K};
    static const char *const names[] = {"q8_0", "q4_k", "q4_k, int8"};
    for (int i = 0; i < 3; i++) {
        print_message("%s: ", names[i]);
        check(&(struct conversation){.checkpoint = "mqa-bf16",
                                     .weights = types[i],
                                     .params.activations =
                                         i < 2 ? PERIDOT_ACTIVATIONS_F32 : PERIDOT_ACTIVATIONS_INT8,
                                     .sampling = {.temperature = 1, .min_tokens = 4},
                                     .first = 37,
                                     .second = 5,
                                     .generate = 4});
    }
}

/* Prompt and answer pass the end of a KV chunk. */
static void test_chunks(void **state) {
    (void)state;
    check(&(struct conversation){.checkpoint = "long-f16",
                                 .sampling = {.temperature = 1, .min_tokens = 6},
                                 .first = 508,
                                 .second = 9,
                                 .generate = 6});
}

/* ---- Cancelling ---- */

static peridot_model *load_small(void) {
    peridot_model *model;
    MUST(peridot_model_load_wait(device, path_of("small-f32"), NULL, &model, &error));
    return model;
}

static const int32_t prompt[] = {2, 38, 119, 342, 171, 231, 170, 230, 11, 261, 355, 17};
#define PROMPT_COUNT (sizeof prompt / sizeof *prompt)

static void finish(peridot_session *session) {
    peridot_work_status status = {.struct_size = sizeof status};
    do
        MUST(peridot_session_poll(session, &status, &error));
    while (status.active);
}

/* Runs so many slices, or all there are; whether the work is over. */
static bool run_some(struct application *app, peridot_session *session, enum way way,
                     uint32_t slices) {
    peridot_work_status status = {.struct_size = sizeof status, .active = true};
    for (uint32_t ran = 0; ran < slices && status.active;) {
        ran += way == RECORDED ? record_slice(app, session, 0.05f) : submit_slice(session, 0.05f);
        if (ran < slices) /* the last ones are in flight when the work is cancelled */
            MUST(peridot_session_poll(session, &status, &error));
    }
    return !status.active;
}

static void cancel_everywhere(peridot_session *session, enum way way,
                              const struct answer *expected) {
    static struct answer got;
    struct application app;
    struct random random = random_start(seed++);
    uint32_t slices = 0, begun = 0;
    MUST(lane_create(session->lane.device, &app.lane, &error));
    for (bool over = false; !over; slices += 1 + (uint32_t)random_below(&random, 2 + slices)) {
        memset(&got, 0, sizeof got);
        MUST(peridot_session_truncate(session, 0, &error));
        peridot_work work = {sizeof work, prompt, PROMPT_COUNT, expected->count, take, &got, NULL};
        MUST(peridot_session_start(session, &work, &error));
        over = run_some(&app, session, way, slices);
        peridot_session_cancel(session);
        finish(session);
        begun += got.count > 0 && got.count < expected->count;
        if (got.count < expected->count)
            MUST(peridot_session_generate_wait(session, expected->count - got.count, take, &got,
                                               NULL, &error));
        compare(expected, &got, 0);
    }
    print_message("cancelled after up to %u slices, %u times between tokens\n", slices, begun);
    lane_destroy(&app.lane);
}

/* Cancelled after any number of slices, what goes on afterwards is what would have been. */
static void test_cancel(void **state) {
    (void)state;
    peridot_model *model = load_small();
    static struct answer expected;
    memset(&expected, 0, sizeof expected);
    peridot_sampling sampling = {.struct_size = sizeof sampling, .temperature = 1, .min_tokens = 5};
    peridot_session *session;
    MUST(peridot_session_create(model, NULL, &session, &error));
    MUST(peridot_session_sampling(session, &sampling, &error));
    MUST(peridot_session_prompt_wait(session, prompt, PROMPT_COUNT, NULL, &error));
    MUST(peridot_session_generate_wait(session, 5, take, &expected, NULL, &error));
    cancel_everywhere(session, BUDGETED, &expected);
    cancel_everywhere(session, RECORDED, &expected);
    peridot_session_close_wait(session);
    peridot_model_close(model);
}

/* ---- Plans ---- */

/* What the slices of a prompt and of the tokens after it add up to, and how many there were. */
static peridot_slice_plan sum_of_work(peridot_session *session, float budget_ms) {
    peridot_slice_plan sum = {0}, slice = {.struct_size = sizeof slice};
    peridot_work_status status = {.struct_size = sizeof status};
    peridot_work work = {sizeof work, prompt, PROMPT_COUNT, 3, NULL, NULL, NULL};
    peridot_advance advance = {.struct_size = sizeof advance, .budget_ms = budget_ms};
    MUST(peridot_session_truncate(session, 0, &error));
    MUST(peridot_session_start(session, &work, &error));
    do {
        peridot_result result = peridot_session_advance(session, &advance, &slice, NULL);
        assert_true(result >= 0);
        if (result == PERIDOT_OK) {
            sum.slices++;
            sum.bytes += slice.bytes;
            sum.flops += slice.flops;
        }
        MUST(peridot_session_poll(session, &status, &error));
    } while (status.active);
    assert_int_equal(status.generated, 3);
    return sum;
}

/* However work is sliced, there is as much of it. */
static void test_costs(void **state) {
    (void)state;
    peridot_model *model = load_small();
    peridot_session *session;
    peridot_sampling sampling = {.struct_size = sizeof sampling, .min_tokens = 3};
    MUST(peridot_session_create(model, NULL, &session, &error));
    MUST(peridot_session_sampling(session, &sampling, &error));
    peridot_slice_plan whole = sum_of_work(session, 0);
    assert_true(whole.bytes > 0 && whole.flops > 0);
    static const float budgets[] = {1e-4f, 0.01f, 0.1f, 1, 1000};
    for (int i = 0; i < 5; i++) {
        peridot_slice_plan sum = sum_of_work(session, budgets[i]);
        print_message("%g ms: %u slices, %.0f bytes, %.0f flops\n", (double)budgets[i], sum.slices,
                      sum.bytes, sum.flops);
        assert_true(fabs(sum.bytes / whole.bytes - 1) < 1e-9);
        assert_true(fabs(sum.flops / whole.flops - 1) < 1e-9);
    }
    peridot_session_close_wait(session);
    peridot_model_close(model);
}

/* With a slice in flight whose token nobody receives: the logits are overwritten by then. */
static void test_cancel_in_flight(void **state) {
    (void)state;
    peridot_model *model = load_small();
    peridot_session *session;
    static struct answer expected, got;
    uint32_t mask[384 / 32];
    peridot_sampling sampling = {.struct_size = sizeof sampling, .temperature = 1, .min_tokens = 5};
    memset(&expected, 0, sizeof expected);
    memset(mask, 0xff, sizeof mask); /* so that each token is waited for */
    MUST(peridot_session_create(model, NULL, &session, &error));
    MUST(peridot_session_sampling(session, &sampling, &error));
    MUST(peridot_session_mask(session, mask, 384 / 32, &error));
    MUST(peridot_session_prompt_wait(session, prompt, PROMPT_COUNT, NULL, &error));
    MUST(peridot_session_generate_wait(session, 5, take, &expected, NULL, &error));
    for (uint32_t slices = 0; slices < 12; slices++) {
        memset(&got, 0, sizeof got);
        MUST(peridot_session_truncate(session, 0, &error));
        peridot_work work = {sizeof work, prompt, PROMPT_COUNT, 5, take, &got, NULL};
        MUST(peridot_session_start(session, &work, &error));
        for (uint32_t i = 0; i < slices; i++) {
            peridot_work_status status = {.struct_size = sizeof status};
            do
                MUST(peridot_session_poll(session, &status, &error));
            while (status.slices_in_flight);
            if (status.active)
                (void)submit_slice(session, 1000);
        }
        peridot_session_cancel(session);
        finish(session);
        if (got.count < 5)
            MUST(peridot_session_generate_wait(session, 5 - got.count, take, &got, NULL, &error));
        assert_int_equal(got.count, 5);
        for (uint32_t i = 0; i < 5; i++) { /* in other passes, which may round otherwise */
            assert_int_equal(got.tokens[i].token, expected.tokens[i].token);
            assert_float_equal(got.tokens[i].log_probability, expected.tokens[i].log_probability,
                               1e-3f);
        }
    }
    peridot_session_close_wait(session);
    peridot_model_close(model);
}

/* A budget in which few slices reach the next token, and their plan. */
static float few_slices(peridot_session *session, peridot_slice_plan *plan) {
    float budget_ms = 0.05f;
    do
        MUST(peridot_session_plan(session, budget_ms *= 1.3f, plan, &error));
    while (plan->slices > PERIDOT_SLICES_MAX);
    return budget_ms;
}

/* What was planned is what comes, while nothing new is learned; then the token is there. */
static void run_planned(peridot_session *session, peridot_work_status *status,
                        uint32_t *completed) {
    peridot_slice_plan plan = {.struct_size = sizeof plan}, slice = plan;
    peridot_advance advance = {.struct_size = sizeof advance};
    float sum = 0, largest = 0;
    advance.budget_ms = few_slices(session, &plan);
    for (uint32_t i = 0; i < plan.slices; i++) {
        MUST(peridot_session_advance(session, &advance, &slice, &error));
        if (i == 0)
            assert_true(slice.dispatches == plan.dispatches && slice.bytes == plan.bytes);
        assert_true(!slice.completes || i + 1 == plan.slices);
        *completed += slice.completes;
        sum += slice.estimated_ms;
        largest = slice.estimated_ms > largest ? slice.estimated_ms : largest;
    }
    assert_true(fabsf(sum / plan.left_ms - 1) < 1e-4f && largest == plan.largest_ms);
    do
        MUST(peridot_session_poll(session, status, &error));
    while (status->slices_in_flight);
}

static void test_plan(void **state) {
    (void)state;
    peridot_model *model = load_small();
    peridot_session *session;
    peridot_work_status status = {.struct_size = sizeof status};
    peridot_sampling sampling = {.struct_size = sizeof sampling, .min_tokens = 9};
    peridot_work work = {sizeof work, prompt, PROMPT_COUNT, 9, NULL, NULL, NULL};
    MUST(peridot_session_create(model, NULL, &session, &error));
    MUST(peridot_session_sampling(session, &sampling, &error));
    MUST(peridot_session_start(session, &work, &error));
    uint32_t completed = 0;
    for (uint32_t token = 1; token <= 9; token++) {
        run_planned(session, &status, &completed);
        assert_int_equal(status.generated, token);
    }
    assert_true(completed > 0); /* the last one, for sure */
    assert_false(status.active);
    peridot_session_close_wait(session);
    peridot_model_close(model);
}

/* ---- Stopping, semaphores ---- */

static void test_callback_stops(void **state) {
    (void)state;
    peridot_model *model = load_small();
    peridot_session *session;
    static struct answer answer;
    memset(&answer, 0, sizeof answer);
    answer.stop_after = 3;
    MUST(peridot_session_create(model, NULL, &session, &error));
    run_work(NULL, session, BUDGETED, prompt, PROMPT_COUNT, 40, &answer);
    assert_int_equal(answer.count, 3);
    assert_int_equal(peridot_session_length(session), PROMPT_COUNT + 3);
    peridot_session_close_wait(session);
    peridot_model_close(model);
}

/* A slice waits for the application's semaphore, and nobody else does. */
static void test_semaphores(void **state) {
    (void)state;
    peridot_model *model = load_small();
    peridot_session *session;
    struct lane app;
    peridot_work_status status = {.struct_size = sizeof status};
    MUST(peridot_session_create(model, NULL, &session, &error));
    MUST(lane_create(session->lane.device, &app, &error));
    peridot_work work = {sizeof work, prompt, PROMPT_COUNT, 0, NULL, NULL, NULL};
    MUST(peridot_session_start(session, &work, &error));
    VkSemaphoreSubmitInfo wait = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_SUBMIT_INFO,
                                  .semaphore = app.timeline,
                                  .value = 1,
                                  .stageMask = VK_PIPELINE_STAGE_2_ALL_COMMANDS_BIT};
    VkSemaphoreSubmitInfo signal = wait;
    signal.value = 2;
    peridot_advance advance = {.struct_size = sizeof advance,
                               .waits = &wait,
                               .wait_count = 1,
                               .signals = &signal,
                               .signal_count = 1};
    MUST(peridot_session_advance(session, &advance, NULL, &error));
    for (int i = 0; i < 20; i++)
        MUST(peridot_session_poll(session, &status, &error));
    assert_int_equal(status.slices_in_flight, 1);
    assert_int_equal(status.prompt_left, PROMPT_COUNT);
    assert_int_equal(peridot_session_close(session), PERIDOT_NOT_READY);
    struct device *engine = session->lane.device;
    PFN_vkSignalSemaphore signal_semaphore =
        (PFN_vkSignalSemaphore)engine->vi.GetDeviceProcAddr(engine->handle, "vkSignalSemaphore");
    VkSemaphoreSignalInfo info = {
        .sType = VK_STRUCTURE_TYPE_SEMAPHORE_SIGNAL_INFO, .semaphore = app.timeline, .value = 1};
    assert_int_equal(signal_semaphore(engine->handle, &info), VK_SUCCESS);
    MUST(lane_wait(&app, 2, &error));
    while (peridot_session_close(session) == PERIDOT_NOT_READY)
        continue;
    app.completed = app.submitted;
    lane_destroy(&app);
    peridot_model_close(model);
}

/* Without work each frame's calls have nothing to do. */
static void expect_idle(peridot_session *session) {
    peridot_slice_plan plan = {.struct_size = sizeof plan, .slices = 7, .left_ms = 7};
    peridot_work_status status = {.struct_size = sizeof status, .active = true};
    MUST(peridot_session_plan(session, 1, &plan, &error));
    assert_true(plan.slices == 0 && plan.dispatches == 0 && plan.left_ms == 0 && !plan.completes);
    MUST(peridot_session_poll(session, &status, &error));
    assert_false(status.active);
    plan.slices = 7;
    assert_int_equal(peridot_session_advance(session, NULL, &plan, NULL), PERIDOT_NOT_READY);
    assert_int_equal(plan.slices, 0);
}

/* What is not done while there is work, or without any. */
static void test_refusals(void **state) {
    (void)state;
    peridot_model *model = load_small();
    peridot_session *session;
    peridot_error error;
    peridot_work none = {.struct_size = sizeof none}, work = none;
    peridot_slice_plan plan = {.struct_size = sizeof plan};
    float logits[LOGITS_MOST];
    MUST(peridot_session_create(model, NULL, &session, &error));
    assert_int_equal(peridot_session_start(session, &none, &error), PERIDOT_ERROR_ARGUMENT);
    expect_idle(session);
    assert_int_equal(peridot_session_plan(session, 1, NULL, &error), PERIDOT_ERROR_ARGUMENT);
    assert_int_equal(peridot_session_plan(session, 1, &(peridot_slice_plan){0}, &error),
                     PERIDOT_ERROR_ARGUMENT);
    assert_int_equal(peridot_session_poll(session, &(peridot_work_status){0}, &error),
                     PERIDOT_ERROR_ARGUMENT);
    assert_int_equal(peridot_session_discard(session, &error), PERIDOT_ERROR_ARGUMENT);
    work.tokens = (const int32_t[]){384};
    work.token_count = 1;
    assert_int_equal(peridot_session_start(session, &work, &error), PERIDOT_ERROR_ARGUMENT);
    work.tokens = prompt;
    work.token_count = 9000;
    assert_int_equal(peridot_session_start(session, &work, &error), PERIDOT_ERROR_CONTEXT_FULL);
    work.token_count = PROMPT_COUNT;
    assert_int_equal(peridot_session_length(session), 0);
    MUST(peridot_session_start(session, &work, &error));
    MUST(peridot_session_plan(session, 0.01f, &plan, &error));
    assert_true(plan.slices > 1 && plan.dispatches > 0 && plan.left_ms >= plan.largest_ms);
    assert_int_equal(peridot_session_start(session, &work, &error), PERIDOT_ERROR_ARGUMENT);
    assert_int_equal(peridot_session_prompt_wait(session, prompt, 1, NULL, &error),
                     PERIDOT_ERROR_ARGUMENT);
    assert_int_equal(peridot_session_generate_wait(session, 1, NULL, NULL, NULL, &error),
                     PERIDOT_ERROR_ARGUMENT);
    assert_int_equal(peridot_session_truncate(session, 0, &error), PERIDOT_ERROR_ARGUMENT);
    assert_int_equal(peridot_session_logits_wait(session, logits, &error), PERIDOT_ERROR_ARGUMENT);
    assert_int_equal(peridot_session_save_wait(session, "/nowhere/x", NULL, 0, &error),
                     PERIDOT_ERROR_ARGUMENT);
    peridot_session_close_wait(session); /* with work that was never begun */
    peridot_model_close(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_small),          cmocka_unit_test(test_all_samplers_q8_cache),
        cmocka_unit_test(test_blocks),         cmocka_unit_test(test_costs),
        cmocka_unit_test(test_plan),           cmocka_unit_test(test_chunks),
        cmocka_unit_test(test_cancel),         cmocka_unit_test(test_cancel_in_flight),
        cmocka_unit_test(test_callback_stops), cmocka_unit_test(test_semaphores),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}
