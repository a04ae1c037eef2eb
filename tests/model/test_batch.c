/* Sessions that decode in one pass give the tokens, the probabilities and the logits of separate
 * runs, to the bit: with any prompts, lengths, sampling settings and ends, in every weight type. */
#include "any_sampling.h"
#include "conformance.h"
#include "open_device.h"
#include "session.h"
#include "test_filter.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define TOKENS_MOST 64
#define PROMPT_MOST 600
#define LOGITS_MOST 512 /* the largest vocabulary here */
#define ROUNDS 2

static peridot_device *device;
static struct random generator;

static int open_device(void **state) {
    (void)state;
    device = open_test_device();
    generator = random_announced();
    return 0;
}

static int close_device(void **state) {
    (void)state;
    unsigned messages = validation_messages();
    peridot_device_close(device);
    return messages != 0;
}

static uint32_t below(uint32_t bound) {
    return (uint32_t)random_below(&generator, bound);
}

/* ---- What is said ---- */

struct talk {
    peridot_sampling sampling;
    int32_t prompt[PROMPT_MOST];
    uint32_t prompts[ROUNDS]; /* tokens of it before each round */
    uint32_t counts[ROUNDS];  /* asked for; 0: it sits out */
    uint32_t enough[ROUNDS];  /* tokens after which the callback ends it; 0: never */
};

struct answer {
    peridot_token tokens[TOKENS_MOST];
    uint32_t count, enough;
    float logits[ROUNDS][LOGITS_MOST];
};

static bool take(const peridot_token *token, void *user) {
    struct answer *answer = user;
    assert_true(answer->count < TOKENS_MOST);
    answer->tokens[answer->count++] = *token;
    return !answer->enough || --answer->enough > 0;
}

static bool take_of(uint32_t session, const peridot_token *token, void *user) {
    return take(token, (struct answer *)user + session);
}

static void choose_talk(struct talk *talk, uint32_t length, uint32_t tokens, uint32_t vocabulary) {
    memset(talk, 0, sizeof *talk);
    talk->sampling = any_sampling(&generator);
    talk->prompt[0] = 2;
    for (uint32_t i = 1; i < PROMPT_MOST; i++)
        talk->prompt[i] = 3 + (int32_t)below(vocabulary - 3);
    talk->prompts[0] = length;
    talk->prompts[1] = below(4);
    for (int round = 0; round < ROUNDS; round++) {
        talk->counts[round] = below(5) ? 1 + below(tokens) : 0;
        talk->enough[round] = below(4) ? 0 : 1 + below(tokens);
    }
}

/* ---- Alone and together ---- */

static peridot_session *open_talk(peridot_model *model, const peridot_session_params *params,
                                  const struct talk *talk) {
    peridot_session *session;
    MUST(peridot_session_create(model, params, &session, &error));
    MUST(peridot_session_sampling(session, &talk->sampling, &error));
    return session;
}

static void prompt_round(peridot_session *session, const struct talk *talk, int round,
                         struct answer *answer) {
    const int32_t *from = talk->prompt + (round ? talk->prompts[0] : 0);
    if (talk->prompts[round])
        MUST(peridot_session_prompt_wait(session, from, talk->prompts[round], NULL, &error));
    answer->enough = talk->enough[round];
}

static void talk_alone(peridot_model *model, const peridot_session_params *params,
                       const struct talk *talk, struct answer *answer) {
    peridot_session *session = open_talk(model, params, talk);
    memset(answer, 0, sizeof *answer);
    for (int round = 0; round < ROUNDS; round++) {
        prompt_round(session, talk, round, answer);
        if (talk->counts[round])
            MUST(peridot_session_generate_wait(session, talk->counts[round], take, answer, NULL,
                                               &error));
        MUST(peridot_session_logits_wait(session, answer->logits[round], &error));
    }
    peridot_session_close_wait(session);
}

static uint32_t max_count(const uint32_t *counts, uint32_t count) {
    uint32_t most = 0;
    for (uint32_t i = 0; i < count; i++)
        most = counts[i] > most ? counts[i] : most;
    return most;
}

static void talk_together(peridot_model *model, const peridot_session_params *params,
                          const struct talk *talks, uint32_t count, struct answer *answers) {
    peridot_session *sessions[PERIDOT_BATCH_MAX];
    peridot_batch *batch;
    memset(answers, 0, count * sizeof *answers);
    for (uint32_t i = 0; i < count; i++)
        sessions[i] = open_talk(model, params, &talks[i]);
    MUST(peridot_batch_create(sessions, count, &batch, &error));
    for (int round = 0; round < ROUNDS; round++) {
        uint32_t counts[PERIDOT_BATCH_MAX], generated[PERIDOT_BATCH_MAX];
        uint32_t before[PERIDOT_BATCH_MAX];
        if (round == 1) { /* one of them comes back to other buffers */
            uint32_t away = below(count);
            MUST(peridot_session_suspend_wait(sessions[away], &error));
            MUST(peridot_session_resume_wait(sessions[away], &error));
        }
        for (uint32_t i = 0; i < count; i++) {
            prompt_round(sessions[i], &talks[i], round, &answers[i]);
            counts[i] = talks[i].counts[round];
            before[i] = answers[i].count;
        }
        if (max_count(counts, count))
            MUST(peridot_batch_generate_wait(batch, counts, take_of, answers, generated, &error));
        for (uint32_t i = 0; i < count; i++) {
            if (max_count(counts, count))
                assert_int_equal(generated[i], answers[i].count - before[i]);
            MUST(peridot_session_logits_wait(sessions[i], answers[i].logits[round], &error));
        }
    }
    peridot_batch_close_wait(batch);
    for (uint32_t i = 0; i < count; i++)
        peridot_session_close_wait(sessions[i]);
}

static void compare(const struct answer *expected, const struct answer *got, size_t vocabulary) {
    assert_int_equal(expected->count, got->count);
    for (uint32_t i = 0; i < expected->count; i++) {
        assert_int_equal(expected->tokens[i].position, got->tokens[i].position);
        assert_int_equal(expected->tokens[i].token, got->tokens[i].token);
        assert_int_equal(expected->tokens[i].stop, got->tokens[i].stop);
        assert_memory_equal(&expected->tokens[i].log_probability, &got->tokens[i].log_probability,
                            sizeof(float));
    }
    for (int round = 0; round < ROUNDS; round++)
        assert_memory_equal(expected->logits[round], got->logits[round],
                            vocabulary * sizeof(float));
}

struct circle {
    const char *checkpoint;
    peridot_weights weights;
    peridot_session_params params;
    uint32_t count;
    uint32_t shortest, longest; /* prompts */
    uint32_t tokens;            /* of an answer at most */
};

static peridot_model *load(const struct circle *circle, uint32_t *vocabulary) {
    peridot_model *model;
    peridot_model_info info = {.struct_size = sizeof info};
    peridot_model_params params = {.struct_size = sizeof params, .weights = circle->weights};
    MUST(peridot_model_load_wait(device, path_of(circle->checkpoint), &params, &model, &error));
    peridot_model_describe(model, &info);
    assert_true(info.vocabulary <= LOGITS_MOST);
    *vocabulary = info.vocabulary;
    return model;
}

static void check_on(peridot_model *model, struct circle *circle, uint32_t vocabulary) {
    static struct talk talks[PERIDOT_BATCH_MAX];
    static struct answer expected[PERIDOT_BATCH_MAX], got[PERIDOT_BATCH_MAX];
    circle->params.struct_size = sizeof circle->params;
    uint32_t tokens = 0, stops = 0;
    for (uint32_t i = 0; i < circle->count; i++) {
        uint32_t length = circle->shortest + below(circle->longest - circle->shortest + 1);
        choose_talk(&talks[i], length, circle->tokens, vocabulary);
        talk_alone(model, &circle->params, &talks[i], &expected[i]);
        tokens += expected[i].count;
        for (uint32_t j = 0; j < expected[i].count; j++)
            stops += expected[i].tokens[j].stop;
    }
    talk_together(model, &circle->params, talks, circle->count, got);
    print_message("%s, weights %d: %u sessions, %u tokens, %u stop tokens\n", circle->checkpoint,
                  (int)circle->weights, circle->count, tokens, stops);
    for (uint32_t i = 0; i < circle->count; i++)
        compare(&expected[i], &got[i], vocabulary);
}

static void check(struct circle *circle) {
    uint32_t vocabulary;
    peridot_model *model = load(circle, &vocabulary);
    check_on(model, circle, vocabulary);
    peridot_model_close(model);
}

static void test_every_number(void **state) {
    (void)state;
    struct circle circle = {.checkpoint = "small-f32", .shortest = 1, .longest = 40, .tokens = 24};
    uint32_t vocabulary;
    peridot_model *model = load(&circle, &vocabulary);
    uint32_t first = is_quick() ? 2 + below(PERIDOT_BATCH_MAX - 1) : 1;
    uint32_t last = is_quick() ? first : PERIDOT_BATCH_MAX;
    for (uint32_t count = first; count <= last; count++) {
        circle.count = count;
        circle.params.steps_per_submission = 1 + below(6);
        circle.params.shuffle_seed = below(3);
        check_on(model, &circle, vocabulary);
    }
    peridot_model_close(model);
}

/* Some sessions pass the end of a KV chunk, some the end of their context. */
static void test_chunks(void **state) {
    (void)state;
    check(&(struct circle){
        .checkpoint = "long-f16", .count = 3, .shortest = 505, .longest = 514, .tokens = 16});
    check(&(struct circle){.checkpoint = "small-f32",
                           .params = {.context = 40, .kv = PERIDOT_KV_F32},
                           .count = 4,
                           .shortest = 20,
                           .longest = 27,
                           .tokens = 6});
}

static void test_q8_cache(void **state) {
    (void)state;
    check(&(struct circle){.checkpoint = "gqa-bf16",
                           .params = {.kv = PERIDOT_KV_Q8, .shuffle_seed = 1 + below(1000)},
                           .count = 2 + below(5),
                           .shortest = 1,
                           .longest = 50,
                           .tokens = 12});
}

static void check_type(peridot_weights type) {
    struct circle circle = {.checkpoint = "mqa-bf16",
                            .weights = type,
                            .count = 2 + below(7),
                            .shortest = 1,
                            .longest = 12,
                            .tokens = 5};
    uint32_t vocabulary;
    peridot_model *model = load(&circle, &vocabulary);
    check_on(model, &circle, vocabulary);
    circle.params.activations = PERIDOT_ACTIVATIONS_INT8;
    if (type >= PERIDOT_WEIGHTS_Q8_0)
        check_on(model, &circle, vocabulary);
    peridot_model_close(model);
}

/* Each type has its own way of making sums, with float32 activations and with eight bits. Drivers
 * take their time to compile them, so it is some of them, others each run; or the one that
 * PERIDOT_TEST_TYPE names by its number. */
static void test_weight_types(void **state) {
    (void)state;
    const char *one = getenv("PERIDOT_TEST_TYPE");
    if (one && *one) {
        check_type((peridot_weights)atoi(one));
        return;
    }
    if (!is_quick()) {
        check_type((peridot_weights)(PERIDOT_WEIGHTS_F32 + (int)below(3)));
        check_type((peridot_weights)(PERIDOT_WEIGHTS_Q8_0 + (int)below(5)));
    }
    check_type((peridot_weights)(PERIDOT_WEIGHTS_Q2_K + (int)below(6)));
}

/* ---- Stop tokens ---- */

/* A seed with which the session stops by itself, soon but not at once. */
static uint64_t find_stop(peridot_session *session, const struct talk *talk, uint32_t *after) {
    struct answer answer;
    peridot_sampling sampling = talk->sampling;
    for (sampling.seed = 1; sampling.seed < 2000; sampling.seed++) {
        memset(&answer, 0, sizeof answer);
        MUST(peridot_session_sampling(session, &sampling, &error));
        MUST(peridot_session_truncate(session, talk->prompts[0], &error));
        MUST(peridot_session_generate_wait(session, 12, take, &answer, NULL, &error));
        *after = answer.count;
        if (answer.count > 3 && answer.tokens[answer.count - 1].stop)
            return sampling.seed;
    }
    fail_msg("no seed gives a stop token");
    return 0;
}

/* One stops, the others go on; then all have stopped, and steps ahead of that return at once. */
static void test_stop_tokens(void **state) {
    (void)state;
    static struct talk talks[3];
    static struct answer expected[3], got[3];
    struct circle circle = {.checkpoint = "small-f32"};
    peridot_session_params params = {.struct_size = sizeof params};
    uint32_t vocabulary, after;
    peridot_model *model = load(&circle, &vocabulary);
    for (uint32_t i = 0; i < 3; i++) {
        choose_talk(&talks[i], 5 + i, 1, vocabulary);
        talks[i].sampling =
            (peridot_sampling){.struct_size = sizeof talks[i].sampling, .temperature = 2};
        talks[i].enough[0] = talks[i].enough[1] = 0;
        talks[i].counts[0] = talks[i].counts[1] = 25;
        peridot_session *session = open_talk(model, &params, &talks[i]);
        MUST(peridot_session_prompt_wait(session, talks[i].prompt, talks[i].prompts[0], NULL,
                                         &error));
        talks[i].sampling.seed = i < 2 ? find_stop(session, &talks[i], &after) : 77;
        peridot_session_close_wait(session);
        talk_alone(model, &params, &talks[i], &expected[i]);
    }
    talk_together(model, &params, talks, 3, got);
    for (uint32_t i = 0; i < 3; i++)
        compare(&expected[i], &got[i], vocabulary);
    talk_together(model, &params, talks, 2, got);
    for (uint32_t i = 0; i < 2; i++)
        compare(&expected[i], &got[i], vocabulary);
    peridot_model_close(model);
}

/* ---- What is refused ---- */

static void expect_refusal(peridot_result result, const peridot_error *error, peridot_result want,
                           const char *words) {
    assert_int_equal(result, want);
    if (!strstr(error->message, words))
        fail_msg("\"%s\" does not say \"%s\"", error->message, words);
}

static void test_refusals(void **state) {
    (void)state;
    static const int32_t prompt[] = {2, 38, 119, 342};
    uint32_t vocabulary, counts[3] = {0, 4, 0}, generated[3] = {9, 9, 9};
    peridot_model *model = load(&(struct circle){.checkpoint = "small-f32"}, &vocabulary);
    peridot_model *other = load(&(struct circle){.checkpoint = "small-f32"}, &vocabulary);
    peridot_session_params params = {.struct_size = sizeof params, .context = 5}, wide = params;
    wide.kv = PERIDOT_KV_F32;
    peridot_session *sessions[3], *stranger, *wider;
    peridot_batch *batch = NULL;
    peridot_error error;
    for (int i = 0; i < 3; i++)
        MUST(peridot_session_create(model, &params, &sessions[i], &error));
    MUST(peridot_session_create(other, &params, &stranger, &error));
    MUST(peridot_session_create(model, &wide, &wider, &error));

    peridot_session *odd[] = {sessions[0], stranger, wider, sessions[0], NULL};
#define REFUSE(first, count, words)                                                                \
    expect_refusal(peridot_batch_create(first, count, &batch, &error), &error,                     \
                   PERIDOT_ERROR_ARGUMENT, words);                                                 \
    assert_null(batch)
    REFUSE(sessions, 0, "1 to 8");
    REFUSE(sessions, 9, "1 to 8");
    REFUSE(odd, 2, "session 1 of the batch is another model's");
    odd[1] = sessions[1];
    REFUSE(odd, 3, "session 2 of the batch has another KV cache type");
    odd[2] = sessions[2];
    REFUSE(odd, 4, "sessions 0 and 3 of the batch are the same");
    odd[3] = NULL;
    REFUSE(odd, 4, "session 3 of the batch is NULL");

    MUST(peridot_batch_create(sessions, 3, &batch, &error));
#define REFUSE_RUN(want, words)                                                                    \
    expect_refusal(peridot_batch_generate_wait(batch, counts, NULL, NULL, NULL, &error), &error,   \
                   want, words)
    REFUSE_RUN(PERIDOT_ERROR_ARGUMENT, "session 1 of the batch: generating needs a prompt");
    MUST(peridot_session_prompt_wait(sessions[1], prompt, 4, NULL, &error));
    counts[1] = 0;
    REFUSE_RUN(PERIDOT_ERROR_ARGUMENT, "all counts are 0");
    counts[1] = 4;
    peridot_work work = {sizeof work, prompt, 4, 0, NULL, NULL, NULL};
    MUST(peridot_session_start(sessions[2], &work, &error));
    REFUSE_RUN(PERIDOT_ERROR_ARGUMENT, "session 2 of the batch: the session's work is not done");
    peridot_session_cancel(sessions[2]);
    MUST(peridot_session_suspend_wait(sessions[0], &error));
    REFUSE_RUN(PERIDOT_ERROR_ARGUMENT, "session 0 of the batch: the session is suspended");
    MUST(peridot_session_resume_wait(sessions[0], &error));
    MUST(peridot_batch_generate_wait(batch, counts, NULL, NULL, generated, &error));
    assert_int_equal(generated[0] + generated[1] + generated[2], 1); /* the context's end */
    REFUSE_RUN(PERIDOT_ERROR_CONTEXT_FULL, "session 1 of the batch: the context of 5 tokens");
    peridot_batch_statistics statistics = {.struct_size = sizeof statistics};
    peridot_batch_describe(batch, &statistics);
    assert_int_equal(statistics.sessions, 3);
    assert_int_equal(statistics.decoded_tokens, 1);
    assert_true(statistics.dispatches_per_step > 20 && statistics.barriers_per_step > 10);
    peridot_batch_close_wait(batch);
    peridot_batch_close_wait(NULL);
    for (int i = 0; i < 3; i++)
        peridot_session_close_wait(sessions[i]);
    peridot_session_close_wait(stranger);
    peridot_session_close_wait(wider);
    peridot_model_close(model);
    peridot_model_close(other);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_number), cmocka_unit_test(test_chunks),
        cmocka_unit_test(test_q8_cache),     cmocka_unit_test(test_weight_types),
        cmocka_unit_test(test_stop_tokens),  cmocka_unit_test(test_refusals),
    };
    /* one of them, for a device that takes minutes to compile the pipelines of all */
    TAKE_TEST_FILTER();
    return cmocka_run_group_tests(tests, open_device, close_device);
}
