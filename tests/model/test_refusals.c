/* An application that refuses every Nth allocation, and goes on doing so: of device memory and
 * objects, of any call of Vulkan, of the host's memory, of the driver's own by
 * VkAllocationCallbacks. Whatever Peridot is asked for works or says in a sentence that it did not;
 * nothing leaks, and once nothing is refused all is as it was. */
#include "guest_adoption.h"
#include "must.h"
#include "refusing_memory.h"
#include "test_filter.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define WANTED 5      /* tokens of an answer */
#define TALKS 2       /* in a batch */
#define PATIENCE 3    /* times that a call is refused before it is let */
#define ROUNDS 12     /* of work, likewise */
#define ANY_TIME 1e6f /* no prompt is cut by measured time: sums round alike */

/* ---- What is refused ---- */

enum refusal { NOTHING, ALLOCATIONS, CALLS, LIBRARY, DRIVER, REFUSALS };

static struct {
    enum refusal kind;
    uint32_t every, seen; /* seen: errors that calls of Peridot's gave */
    bool on, spared;      /* spared: nothing is refused for a while */
} pressure;

/* Lavapipe has no answer to a refusal while commands are recorded: not then. */
static VkAllocationCallbacks callbacks;
static VkPipelineCache cache; /* the application's; what follows need not compile again */

static void press(void) {
    uint32_t every = pressure.every;
    if (pressure.on || pressure.spared)
        return;
    pressure.on = true;
    if (pressure.kind == ALLOCATIONS)
        adopt_shim_refuse(every, true, VK_ERROR_OUT_OF_DEVICE_MEMORY);
    else if (pressure.kind == CALLS)
        adopt_shim_refuse(every, false, VK_ERROR_OUT_OF_HOST_MEMORY);
    else if (pressure.kind == LIBRARY)
        refusing_memory_fail(LIBRARY_MEMORY, every - 1, every);
    else if (pressure.kind == DRIVER)
        refusing_memory_fail(DRIVER_MEMORY, every - 1, every);
}

static void relax(void) {
    pressure.on = false;
    adopt_shim_mend();
    refusing_memory_mend(LIBRARY_MEMORY);
    refusing_memory_mend(DRIVER_MEMORY);
}

static void spare(bool spared) {
    pressure.spared = spared;
    if (spared)
        relax();
    else
        press();
}

/* A call that is refused too often is let. */
static void note(peridot_result result, const peridot_error *error, uint32_t *attempts) {
    if (*attempts >= PATIENCE || pressure.kind == NOTHING)
        fail_msg("nothing is refused, and it fails: %s", error->message);
    if (result != PERIDOT_ERROR_HOST_MEMORY && result != PERIDOT_ERROR_DEVICE_MEMORY)
        fail_msg("not memory, but %d: %s", (int)result, error->message);
    assert_int_equal(error->code, result);
    assert_true(strlen(error->message) > 10);
    pressure.seen++;
    if (++*attempts == PATIENCE)
        relax();
}

/* A call, until it works. */
#define TRY(call)                                                                                  \
    do {                                                                                           \
        uint32_t attempts = 0;                                                                     \
        peridot_error error = {0};                                                                 \
        peridot_result tried;                                                                      \
        while ((tried = (call)) < 0)                                                               \
            note(tried, &error, &attempts);                                                        \
        press();                                                                                   \
    } while (0)

/* ---- Opening ---- */

/* Float32, as after an error tokens may be run in other passes: what rounds elsewhere is small. */
static const peridot_session_params session_params = {.struct_size = sizeof session_params,
                                                      .context = 64,
                                                      .kv = PERIDOT_KV_F32,
                                                      .prefill_rows = 8,
                                                      .submission_ms = ANY_TIME};
static const peridot_model_params model_params = {
    .struct_size = sizeof model_params, .session = &session_params, .compile_pipelines = true};

static peridot_device *open_device(void) {
    const struct device_adoption from = adopt_shim_adoption_transfer(true);
    peridot_adoption adoption = guest_adoption(&from);
    peridot_device *device;
    adoption.pipeline_cache = cache;
    adoption.allocator = pressure.kind == DRIVER ? &callbacks : NULL;
    adopt_shim_expect_callbacks(adoption.allocator);
    TRY(peridot_device_adopt(&adoption, &guest_params, &device, &error));
    assert_non_null(device);
    return device;
}

static peridot_result load_in_steps(peridot_device *device, peridot_model **model,
                                    peridot_error *error) {
    peridot_loading *loading;
    peridot_result result =
        peridot_model_load_begin(device, DEMO_MODEL, &model_params, &loading, error);
    if (result) {
        assert_null(loading);
        return result;
    }
    while ((result = peridot_loading_advance(loading, 0.5f, NULL, error)) == PERIDOT_NOT_READY)
        continue;
    if (!result)
        result = peridot_loading_finish(loading, model, error);
    while (result && peridot_loading_cancel(loading) == PERIDOT_NOT_READY)
        continue;
    return result;
}

static void look_at(peridot_device *device, const peridot_model *model) {
    static const char said[] = "<html>   What is 12 + 30?";
    peridot_message message = {"user", said, sizeof said - 1};
    peridot_memory_plan plan = {.struct_size = sizeof plan};
    int32_t tokens[64];
    size_t count;
    TRY(peridot_model_inspect(device, DEMO_MODEL, &model_params, NULL, NULL, &plan, &error));
    assert_true(plan.weight_bytes > 1 << 20);
    TRY(peridot_tokenize(model, said, sizeof said - 1, true, tokens, 64, &count, &error));
    TRY(peridot_chat_tokens(model, &message, 1, tokens, 64, &count, &error));
    assert_true(count > 10 && count < 64);
}

/* ---- Talking ---- */

static const int32_t prompt[] = {2, 38, 119, 342, 171, 231, 170, 230, 11, 261, 355, 17};
#define PROMPT_COUNT (sizeof prompt / sizeof *prompt)

struct answer {
    int32_t tokens[64];
    uint32_t count;
};

/* All that is said in a life. */
struct told {
    struct answer waited, moved, loaded, sliced, masked, batch[TALKS], batch_sliced[TALKS],
        followed;
};

static bool take(const peridot_token *token, void *user) {
    struct answer *answer = user;
    answer->tokens[answer->count++] = token->token;
    return true;
}

static bool take_of(uint32_t session, const peridot_token *token, void *user) {
    return take(token, (struct answer *)user + session);
}

static peridot_session *create(peridot_model *model, uint64_t seed) {
    const peridot_sampling sampling = {.struct_size = sizeof sampling,
                                       .temperature = 1.5f,
                                       .min_tokens = 40,
                                       .repetition_penalty = 1.3f,
                                       .seed = seed};
    peridot_session *session;
    TRY(peridot_session_create(model, &session_params, &session, &error));
    TRY(peridot_session_sampling(session, &sampling, &error));
    return session;
}

static void generate(peridot_session *session, struct answer *answer, uint32_t wanted) {
    while (answer->count < wanted)
        TRY(peridot_session_generate_wait(session, wanted - answer->count, take, answer, NULL,
                                          &error));
}

static peridot_session *prompted(peridot_model *model, uint64_t seed) {
    peridot_session *session = create(model, seed);
    TRY(peridot_session_prompt_wait(session, prompt, PROMPT_COUNT, NULL, &error));
    assert_int_equal(peridot_session_length(session), PROMPT_COUNT);
    return session;
}

/* Closing waits for nothing and cannot fail; when a look at the device is refused each time, it is
 * let. */
static void close_session(peridot_session *session) {
    for (uint32_t i = 0; peridot_session_close(session) == PERIDOT_NOT_READY; i++)
        if (i == 1000)
            relax();
    press();
}

/* An error in any step is one of all. */
static peridot_result suspend(peridot_session *session, peridot_error *error) {
    peridot_result result;
    while ((result = peridot_session_suspend_step(session, 20000, error)) == PERIDOT_NOT_READY)
        continue;
    return result;
}

static peridot_result resume(peridot_session *session, peridot_error *error) {
    peridot_result result;
    while ((result = peridot_session_resume_step(session, 20000, error)) == PERIDOT_NOT_READY)
        continue;
    return result;
}

/* With calls that wait, from one handle of the model to the other, to a file and back. */
static void talk_waiting(peridot_model *model, peridot_model *other, struct told *told) {
    static float logits[1024];
    char path[] = "/tmp/peridot-refusals-XXXXXX";
    peridot_session *session = prompted(model, 11);
    TRY(peridot_session_logits_wait(session, logits, &error));
    generate(session, &told->waited, WANTED);
    TRY(suspend(session, &error));
    TRY(peridot_session_move(session, other, &error));
    TRY(resume(session, &error));
    generate(session, &told->moved, WANTED);
    assert_int_equal(close(mkstemp(path)), 0);
    TRY(peridot_session_save_wait(session, path, "mine", 4, &error));
    void *extra;
    size_t size;
    TRY(peridot_session_load_wait(session, path, &extra, &size, &error));
    assert_memory_equal(extra, "mine", size);
    peridot_free(extra);
    remove(path);
    TRY(peridot_session_suspend_wait(session, &error));
    TRY(peridot_session_resume_wait(session, &error));
    generate(session, &told->loaded, WANTED);
    peridot_session_close_wait(session);
}

/* ---- Slices ---- */

/* Either's functions. */
struct sliced {
    peridot_session *session;
    peridot_batch *batch;
};

static peridot_result poll(struct sliced sliced, bool *active, peridot_error *error) {
    peridot_work_status status = {.struct_size = sizeof status};
    peridot_batch_status of_batch = {.struct_size = sizeof of_batch};
    peridot_result result = sliced.batch ? peridot_batch_poll(sliced.batch, &of_batch, error)
                                         : peridot_session_poll(sliced.session, &status, error);
    *active = sliced.batch ? of_batch.active : status.active;
    return result;
}

static peridot_result advance(struct sliced sliced, peridot_error *error) {
    const peridot_advance step = {.struct_size = sizeof step, .budget_ms = 5};
    peridot_result result = sliced.batch
                                ? peridot_batch_advance(sliced.batch, &step, NULL, error)
                                : peridot_session_advance(sliced.session, &step, NULL, error);
    if (result == PERIDOT_NOT_READY)
        nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
    return result;
}

/* Until the work is over, done or not. */
static void run_frames(struct sliced sliced) {
    uint32_t attempts = 0;
    for (bool active = true; active;) {
        peridot_error error = {0};
        peridot_result result = advance(sliced, &error), polled;
        if (result < 0)
            note(result, &error, &attempts);
        while ((polled = poll(sliced, &active, &error)) < 0)
            note(polled, &error, &attempts);
        if (result >= 0) {
            attempts = 0;
            press();
        }
    }
    press();
}

/* Started anew where an error has ended the work; with a refusal in each round it would never end.
 */
static void run_slices(peridot_session *session, struct answer *answer) {
    for (uint32_t rounds = 0; answer->count < WANTED; rounds++) {
        bool first = peridot_session_length(session) == 0;
        const peridot_work work = {.struct_size = sizeof work,
                                   .tokens = first ? prompt : NULL,
                                   .token_count = first ? PROMPT_COUNT : 0,
                                   .generate = WANTED - answer->count,
                                   .on_token = take,
                                   .user = answer};
        spare(rounds >= ROUNDS);
        TRY(peridot_session_start(session, &work, &error));
        run_frames((struct sliced){.session = session});
    }
    spare(false);
}

static void talk_in_slices(peridot_model *model, struct told *told) {
    peridot_session *session = create(model, 12);
    run_slices(session, &told->sliced);
    close_session(session);
}

/* ---- Batches ---- */

static bool count_left(const struct answer *answers, uint32_t *counts) {
    uint32_t left = 0;
    for (uint32_t i = 0; i < TALKS; i++)
        left += counts[i] = WANTED - answers[i].count;
    return left > 0;
}

/* What came before an error stays. */
static peridot_result go_on(peridot_batch *batch, struct answer *answers, peridot_error *error) {
    uint32_t counts[TALKS];
    if (!count_left(answers, counts))
        return PERIDOT_OK;
    return peridot_batch_generate_wait(batch, counts, take_of, answers, NULL, error);
}

static void talk_in_batch(peridot_model *model, struct told *told) {
    peridot_session *sessions[TALKS];
    peridot_batch *batch;
    uint32_t counts[TALKS];
    for (uint32_t i = 0; i < TALKS; i++)
        sessions[i] = prompted(model, 20 + i);
    TRY(peridot_batch_create(sessions, TALKS, &batch, &error));
    TRY(go_on(batch, told->batch, &error));
    const peridot_batch_work work = {sizeof work, counts, take_of, told->batch_sliced};
    for (uint32_t rounds = 0; count_left(told->batch_sliced, counts); rounds++) {
        spare(rounds >= ROUNDS);
        TRY(peridot_batch_start(batch, &work, &error));
        run_frames((struct sliced){.batch = batch});
    }
    spare(false);
    peridot_batch_close_wait(batch);
    for (uint32_t i = 0; i < TALKS; i++)
        close_session(sessions[i]);
}

/* ---- Limits ---- */

static void talk_limited(peridot_model *model, struct told *told) {
    static const char rules[] = "root ::= ( [a-z]{1,3} \" \" ){2,9}\n";
    uint32_t mask[1024 / 32];
    peridot_grammar *grammar;
    peridot_session *session = prompted(model, 30);
    memset(mask, 0xaa, sizeof mask); /* odd tokens alone */
    TRY(peridot_session_mask(session, mask, 1024 / 32, &error));
    generate(session, &told->masked, WANTED);
    TRY(peridot_session_mask(session, NULL, 0, &error));
    TRY(peridot_grammar_parse(model, rules, sizeof rules - 1, &grammar, &error));
    TRY(peridot_session_grammar(session, grammar, &error));
    run_slices(session, &told->followed);
    TRY(peridot_session_grammar(session, NULL, &error));
    peridot_session_close_wait(session);
    peridot_grammar_free(grammar);
}

/* ---- A life ---- */

static void live(struct told *told) {
    peridot_model *model, *other;
    memset(told, 0, sizeof *told);
    adopt_shim_reset();
    pressure.seen = 0;
    press();
    peridot_device *device = open_device();
    TRY(peridot_model_load_wait(device, DEMO_MODEL, &model_params, &model, &error));
    TRY(load_in_steps(device, &other, &error));
    look_at(device, model);
    talk_waiting(model, other, told);
    talk_in_slices(other, told);
    talk_in_batch(model, told);
    talk_limited(other, told);
    peridot_model_close(other);
    peridot_model_close(model);
    peridot_device_close(device);
    relax();
    assert_true(adopt_shim_sound(true));
}

static struct told expected;

static void check(enum refusal kind, uint32_t every, uint32_t *seen) {
    static struct told told;
    int64_t library = refusing_memory_live(LIBRARY_MEMORY);
    int64_t driver = refusing_memory_live(DRIVER_MEMORY);
    pressure.kind = kind;
    pressure.every = every;
    live(&told);
    assert_memory_equal(&told, &expected, sizeof told);
    assert_int_equal(refusing_memory_live(LIBRARY_MEMORY), library);
    assert_int_equal(refusing_memory_live(DRIVER_MEMORY), driver);
    *seen = pressure.seen;
}

static void check_all(enum refusal kind) {
    static const uint32_t counts[] = {2, 3, 5, 7, 11, 23, 53, 101, 211};
    uint32_t seen, all = 0;
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        check(kind, counts[i], &seen);
        print_message("every %u. refused: %u errors\n", counts[i], seen);
        all += seen;
    }
    assert_true(all > 50);
    check(NOTHING, 0, &seen); /* and all is well again */
}

static void test_allocations(void **state) {
    (void)state;
    check_all(ALLOCATIONS);
}

static void test_calls(void **state) {
    (void)state;
    check_all(CALLS);
}

static void test_library(void **state) {
    (void)state;
    check_all(LIBRARY);
}

static void test_driver(void **state) {
    (void)state;
    check_all(DRIVER);
}

/* ---- */

static int set_up(void **state) {
    if (adopt_shim_set_up(state))
        return -1;
    cache = adopt_shim_make_cache();
    callbacks = refusing_callbacks;
    callbacks.pUserData = (void *)(uintptr_t)adopt_shim_making();
    live(&expected);
    return 0;
}

static int tear_down(void **state) {
    adopt_shim_destroy_cache(cache);
    return adopt_shim_tear_down(state);
}

int main(void) {
    TAKE_TEST_FILTER();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_allocations),
        cmocka_unit_test(test_calls),
        cmocka_unit_test(test_library),
        cmocka_unit_test(test_driver),
    };
    return cmocka_run_group_tests_name("refusals", tests, set_up, tear_down);
}
