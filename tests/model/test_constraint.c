/* Tokens constrained by a mask and by a grammar: what comes is allowed, is as likely as it should
 * be, and is the same however it was run. */
#include "open_device.h"
#include "reference/random.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>
#include <cmocka.h>

#define CONTEXT 256
#define WORDS_MAX 64
#define TEXT_MAX 4096

/* JSON that comes to an end by itself. */
static const char small_json[] =
    "root   ::= object\n"
    "object ::= \"{\" ( member ( \",\" member ){0,2} )? \"}\"\n"
    "member ::= string \":\" ( string | number | \"true\" | \"null\" | array )\n"
    "array  ::= \"[\" ( ( string | number ) ( \",\" number ){0,3} )? \"]\"\n"
    "string ::= \"\\\"\" ( [^\"\\\\\\x00-\\x1f] | \"\\\\\" [nt\\\\] ){0,6} \"\\\"\"\n"
    "number ::= \"-\"? ( \"0\" | [1-9] [0-9]{0,3} )\n";

static peridot_device *device;
static peridot_model *model;
static peridot_session *session; /* one step in a submission, eight in the other */
static peridot_session *session_of_eight;
static peridot_model_info info = {.struct_size = sizeof info};
static uint64_t seed;
static uint32_t rounds = 12; /* fewer with PERIDOT_TEST_QUICK=1, for slow devices */

static peridot_session *open_session(uint32_t steps) {
    peridot_session_params params = {
        .struct_size = sizeof params, .context = CONTEXT, .steps_per_submission = steps};
    peridot_session *opened;
    MUST(peridot_session_create(model, &params, &opened, &error));
    return opened;
}

static int open_all(void **state) {
    (void)state;
    const char *quick = getenv("PERIDOT_TEST_QUICK");
    device = open_test_device();
    MUST(peridot_model_load_wait(device, DEMO_MODEL, NULL, &model, &error));
    peridot_model_describe(model, &info);
    assert_true(info.vocabulary <= 32 * WORDS_MAX);
    session = open_session(1);
    session_of_eight = open_session(8);
    seed = random_seed();
    rounds = quick && *quick == '1' ? 2 : rounds;
    print_message("seed %llu\n", (unsigned long long)seed);
    return 0;
}

static int close_all(void **state) {
    (void)state;
    peridot_session_close_wait(session);
    peridot_session_close_wait(session_of_eight);
    peridot_model_close(model);
    peridot_device_close(device);
    return 0;
}

/* ---- What several tests need ---- */

static void ask(peridot_session *s, const char *text) {
    peridot_message message = {"user", text, strlen(text)};
    int32_t tokens[128];
    size_t count;
    MUST(peridot_chat_tokens(model, &message, 1, tokens, 128, &count, &error));
    MUST(peridot_session_truncate(s, 0, &error));
    MUST(peridot_session_prompt_wait(s, tokens, count, NULL, &error));
}

static void set_sampling(peridot_session *s, peridot_sampling sampling, uint64_t own_seed) {
    sampling.struct_size = sizeof sampling;
    sampling.seed = own_seed;
    MUST(peridot_session_sampling(s, &sampling, &error));
}

static peridot_grammar *parse(const char *text) {
    peridot_grammar *grammar;
    MUST(peridot_grammar_parse(model, text, strlen(text), &grammar, &error));
    return grammar;
}

static bool is_stop(int32_t token) {
    for (uint32_t i = 0; i < info.stop_token_count; i++)
        if ((int32_t)info.stop_tokens[i] == token)
            return true;
    return false;
}

/* The text of the tokens from `from` on, without a stop token; whether there is one at the end. */
static bool read_text(const peridot_session *s, uint32_t from, char *text) {
    const int32_t *tokens = peridot_session_tokens(s);
    uint32_t length = peridot_session_length(s);
    bool stopped = length > from && is_stop(tokens[length - 1]);
    size_t used = 0;
    for (uint32_t i = from; i < length - stopped; i++) {
        const char *bytes;
        size_t count;
        MUST(peridot_token_bytes(model, tokens[i], &bytes, &count, &error));
        assert_true(!is_stop(tokens[i]) && used + count < TEXT_MAX);
        memcpy(text + used, bytes, count);
        used += count;
    }
    text[used] = '\0';
    return stopped;
}

/* An answer under the grammar, from the session's present length on. */
static bool answer(peridot_session *s, const peridot_grammar *grammar, char *text) {
    uint32_t from = peridot_session_length(s);
    MUST(peridot_session_grammar(s, grammar, &error));
    MUST(peridot_session_generate_wait(s, CONTEXT, NULL, NULL, NULL, &error));
    return read_text(s, from, text);
}

/* The same in slices. */
static bool sliced_answer(peridot_session *s, const peridot_grammar *grammar, char *text) {
    uint32_t from = peridot_session_length(s);
    peridot_work work = {.struct_size = sizeof work, .generate = CONTEXT};
    peridot_advance advance = {.struct_size = sizeof advance, .budget_ms = 0.3f};
    peridot_work_status status = {.struct_size = sizeof status};
    MUST(peridot_session_grammar(s, grammar, &error));
    MUST(peridot_session_start(s, &work, &error));
    do {
        peridot_error error = {0};
        if (peridot_session_advance(s, &advance, NULL, &error) < 0)
            fail_msg("%s", error.message);
        MUST(peridot_session_poll(s, &status, &error));
    } while (status.active);
    return read_text(s, from, text);
}

static void allow(uint32_t *words, int32_t token) {
    words[token / 32] |= 1u << token % 32;
}

static size_t word_count(void) {
    return (info.vocabulary + 31) / 32;
}

/* Nothing constrained, and nothing left of what was. */
static void let_go(peridot_session *s) {
    MUST(peridot_session_mask(s, NULL, 0, &error));
    MUST(peridot_session_grammar(s, NULL, &error));
}

#define EXPECT(call, code, text)                                                                   \
    do {                                                                                           \
        peridot_error error = {0};                                                                 \
        assert_int_equal((call), (code));                                                          \
        if (!strstr(error.message, (text)))                                                        \
            fail_msg("\"%s\" does not say \"%s\"", error.message, (text));                         \
    } while (0)

/* ---- Masks ---- */

/* One of N tokens: the most likely of them when greedy, each as often as the logits say otherwise,
 * with the log probability that it has among all. */
static void test_one_of_several(void **state) {
    (void)state;
    float *logits = malloc(info.vocabulary * sizeof *logits);
    uint32_t words[WORDS_MAX] = {0};
    int32_t choices[3];
    ask(session, "Shall I go left or right?");
    MUST(peridot_session_logits_wait(session, logits, &error));
    uint32_t length = peridot_session_length(session), counts[3] = {0}, draws = 20 * rounds;
    double sum = 0, best = -INFINITY;
    for (uint32_t i = 0; i < 3; i++) {
        choices[i] = (int32_t)(300 + seed % 100 + 101 * i);
        allow(words, choices[i]);
        best = fmax(best, logits[choices[i]]);
    }
    for (uint32_t i = 0; i < 3; i++)
        sum += exp((logits[choices[i]] - best) / 3);
    MUST(peridot_session_mask(session, words, word_count(), &error));
    for (uint32_t i = 0; i <= draws; i++) {
        peridot_token token;
        bool greedy = i == draws;
        set_sampling(session, (peridot_sampling){.temperature = greedy ? 0 : 3}, seed + i);
        MUST(peridot_session_generate_wait(session, 1, NULL, NULL, NULL, &error));
        token.token = peridot_session_tokens(session)[length];
        uint32_t which = 0;
        while (which < 3 && choices[which] != token.token)
            which++;
        assert_int_not_equal(which, 3);
        counts[which]++;
        assert_true(!greedy || logits[token.token] == best);
        MUST(peridot_session_truncate(session, length, &error));
    }
    for (uint32_t i = 0; i < 3; i++) {
        double p = exp((logits[choices[i]] - best) / 3) / sum, n = draws;
        double deviation = sqrt(n * p * (1 - p)) + 1;
        print_message("token %d: %u times of %u, expected %.1f\n", choices[i], counts[i], draws,
                      p * n);
        assert_true(fabs(counts[i] - p * n) < 6 * deviation);
    }
    let_go(session);
    free(logits);
}

static bool note_probability(const peridot_token *token, void *user) {
    *(double *)user = token->log_probability;
    return true;
}

static void test_log_probability(void **state) {
    (void)state;
    float *logits = malloc(info.vocabulary * sizeof *logits);
    uint32_t words[WORDS_MAX] = {0};
    double all = 0, told = 1;
    ask(session, "Hello");
    MUST(peridot_session_logits_wait(session, logits, &error));
    for (uint32_t i = 0; i < info.vocabulary; i++)
        all += exp(logits[i]);
    allow(words, 777);
    MUST(peridot_session_mask(session, words, word_count(), &error));
    MUST(peridot_session_generate_wait(session, 1, note_probability, &told, NULL, &error));
    assert_true(fabs(told - (logits[777] - log(all))) < 1e-3);
    let_go(session);
    free(logits);
}

/* The mask of the next token set as each one comes: a sequence is forced. */
struct forced {
    const int32_t *tokens;
    uint32_t count, at;
};

static bool force_next(const peridot_token *token, void *user) {
    struct forced *forced = user;
    uint32_t words[WORDS_MAX] = {0};
    assert_int_equal(token->token, forced->tokens[forced->at]);
    if (++forced->at == forced->count)
        return false;
    allow(words, forced->tokens[forced->at]);
    MUST(peridot_session_mask(session, words, word_count(), &error));
    return true;
}

static void test_mask_from_a_callback(void **state) {
    (void)state;
    int32_t tokens[20];
    struct forced forced = {tokens, 20, 0};
    uint32_t words[WORDS_MAX] = {0};
    for (uint32_t i = 0; i < 20; i++)
        tokens[i] = (int32_t)(300 + (seed + 37 * i) % 500);
    ask(session, "Hello");
    uint32_t length = peridot_session_length(session);
    allow(words, tokens[0]);
    MUST(peridot_session_mask(session, words, word_count(), &error));
    MUST(peridot_session_generate_wait(session, CONTEXT, force_next, &forced, NULL, &error));
    assert_int_equal(forced.at, 20);
    assert_memory_equal(peridot_session_tokens(session) + length, tokens, sizeof tokens);
    let_go(session);
}

/* ---- Grammars ---- */

static peridot_sampling settings(uint32_t round) {
    const peridot_sampling kinds[] = {
        {.temperature = 1},
        {.temperature = 1.5f, .top_k = 40},
        {.temperature = 1, .top_p = 0.9f, .repetition_penalty = 1.1f},
        {.temperature = 3, .min_p = 0.001f},
        {.temperature = 0},
        {.temperature = 2, .top_k = 300, .top_p = 0.95f, .repetition_penalty = 1.3f},
    };
    return kinds[round % 6];
}

static void test_json(void **state) {
    (void)state;
    peridot_grammar *grammar = parse(small_json);
    char text[TEXT_MAX], other[TEXT_MAX];
    peridot_session_statistics before = {.struct_size = sizeof before}, after = before;
    for (uint32_t i = 0; i < rounds; i++) {
        ask(session, "What is your name?");
        ask(session_of_eight, "What is your name?");
        set_sampling(session, settings(i), seed + i);
        set_sampling(session_of_eight, settings(i), seed + i);
        bool ended = answer(session, grammar, text);
        peridot_session_describe(session_of_eight, &before);
        assert_int_equal(answer(session_of_eight, grammar, other), ended);
        peridot_session_describe(session_of_eight, &after);
        assert_string_equal(text, other);
        uint64_t tokens = after.decoded_tokens - before.decoded_tokens;
        assert_int_equal(after.submissions - before.submissions, tokens); /* a step each */
        if (!ended)
            fail_msg("the answer does not end: %s", text);
        cJSON *json = cJSON_ParseWithOpts(text, NULL, 1);
        if (!cJSON_IsObject(json))
            fail_msg("not a JSON object: %s", text);
        cJSON_Delete(json);
        ask(session, "What is your name?");
        assert_true(sliced_answer(session, grammar, other));
        assert_string_equal(text, other);
        if (i < 3)
            print_message("%s\n", text);
    }
    let_go(session);
    let_go(session_of_eight);
    peridot_grammar_free(grammar);
}

/* Work in slices to its end; the code that it ended with. */
static peridot_result run_slices(peridot_session *s, const peridot_work *work, float budget_ms) {
    peridot_work_status status = {.struct_size = sizeof status, .active = true};
    peridot_advance advance = {.struct_size = sizeof advance, .budget_ms = budget_ms};
    peridot_result result = PERIDOT_OK, last;
    MUST(peridot_session_start(s, work, &error));
    while (status.active) {
        last = peridot_session_advance(s, &advance, NULL, NULL);
        result = last && last != PERIDOT_NOT_READY && !result ? last : result;
        MUST(peridot_session_poll(s, &status, &error));
    }
    return result;
}

/* An answer in slices is that of peridot_session_generate_wait. */
static void test_slices(void **state) {
    (void)state;
    peridot_grammar *grammar = parse(small_json);
    char text[TEXT_MAX], other[TEXT_MAX];
    peridot_work work = {.struct_size = sizeof work, .generate = CONTEXT};
    for (uint32_t i = 0; i < 2; i++) {
        ask(session, "What is your name?");
        set_sampling(session, settings(i), seed + i);
        uint32_t from = peridot_session_length(session);
        assert_true(answer(session, grammar, text));
        MUST(peridot_session_truncate(session, from, &error));
        assert_int_equal(run_slices(session, &work, i ? 2.0f : 0), PERIDOT_OK);
        assert_true(read_text(session, from, other));
        assert_string_equal(text, other);
    }
    peridot_grammar_free(grammar);
    /* nothing in common after the first token: the work ends there */
    int32_t a;
    size_t count;
    uint32_t words[WORDS_MAX] = {0}, length;
    grammar = parse("root ::= \"ax\"");
    ask(session, "Hello");
    length = peridot_session_length(session);
    MUST(peridot_tokenize(model, "a", 1, false, &a, 1, &count, &error));
    allow(words, a);
    MUST(peridot_session_grammar(session, grammar, &error));
    MUST(peridot_session_mask(session, words, word_count(), &error));
    assert_int_equal(run_slices(session, &work, 0), PERIDOT_ERROR_ARGUMENT);
    assert_int_equal(peridot_session_length(session), length + 1);
    let_go(session);
    peridot_grammar_free(grammar);
}

/* The example of a grammar for all of JSON: an answer that ends within the context is JSON. */
static void test_any_json(void **state) {
    (void)state;
    char *text = NULL, out[TEXT_MAX];
    size_t capacity = 0;
    FILE *file = fopen(TEST_DATA "/json.gbnf", "rb");
    assert_non_null(file);
    assert_true(getdelim(&text, &capacity, EOF, file) > 0);
    fclose(file);
    peridot_grammar *grammar = parse(text);
    uint32_t ended = 0;
    bool quick = rounds < 3;
    for (uint32_t i = 0; i < rounds && !quick; i++) {
        ask(session, "Tell me something");
        set_sampling(session, settings(i), seed + 1000 + i);
        if (!answer(session, grammar, out))
            continue;
        cJSON *json = cJSON_ParseWithOpts(out, NULL, 1);
        if (!json)
            fail_msg("not JSON: %s", out);
        cJSON_Delete(json);
        ended++;
    }
    print_message("%u of %u answers ended within the context\n", ended, quick ? 0 : rounds);
    assert_true(ended > 0 || quick); /* it takes its time */
    let_go(session);
    peridot_grammar_free(grammar);
    free(text);
}

/* What the vocabulary has no word for comes byte by byte; and where a text must end it does, even
 * if min_tokens would have more. */
static void test_bytes_and_ends(void **state) {
    (void)state;
    peridot_grammar *grammar =
        parse("root ::= \"\xe6\x97\xa5\xe6\x9c\xac\" [\xc3\xa4-\xc3\xbc]{3} \"\\U0001F600\"");
    char text[TEXT_MAX];
    ask(session, "Hello");
    set_sampling(session, (peridot_sampling){.temperature = 2, .min_tokens = 100}, seed);
    assert_true(answer(session, grammar, text));
    print_message("%s\n", text);
    assert_int_equal(strlen(text), 16);
    assert_memory_equal(text, "\xe6\x97\xa5\xe6\x9c\xac", 6);
    for (int i = 0; i < 3; i++)
        assert_true(text[6 + 2 * i] == '\xc3' && (uint8_t)text[7 + 2 * i] >= 0xa4 &&
                    (uint8_t)text[7 + 2 * i] <= 0xbc);
    assert_string_equal(text + 12, "\xf0\x9f\x98\x80");
    /* the text has ended */
    EXPECT(peridot_session_generate_wait(session, 1, NULL, NULL, NULL, &error),
           PERIDOT_ERROR_ARGUMENT, "has ended");
    let_go(session);
    peridot_grammar_free(grammar);
}

/* ---- Going back ---- */

struct limit {
    uint32_t left;
};

static bool count_down(const peridot_token *token, void *user) {
    struct limit *limit = user;
    (void)token;
    return --limit->left > 0;
}

/* However an answer was cut into calls, truncated and made again, it is the same. */
static void test_truncation(void **state) {
    (void)state;
    peridot_grammar *grammar = parse(small_json);
    char text[TEXT_MAX], again[TEXT_MAX];
    for (uint32_t i = 0; i < rounds / 2; i++) {
        ask(session, "What can you do?");
        set_sampling(session, settings(i), seed + 2000 + i);
        uint32_t from = peridot_session_length(session);
        assert_true(answer(session, grammar, text));
        uint32_t length = peridot_session_length(session) - from, kept = i % length;
        MUST(peridot_session_truncate(session, from + kept, &error));
        for (;;) { /* a few tokens at a time, stopped from outside */
            struct limit limit = {1 + i % 3};
            MUST(peridot_session_generate_wait(session, CONTEXT, count_down, &limit, NULL, &error));
            if (is_stop(peridot_session_tokens(session)[peridot_session_length(session) - 1]))
                break;
        }
        assert_true(read_text(session, from, again));
        assert_string_equal(text, again);
        /* to before it, where the grammar then begins */
        MUST(peridot_session_truncate(session, from - 1, &error));
        MUST(peridot_session_generate_wait(session, CONTEXT, NULL, NULL, NULL, &error));
        assert_true(read_text(session, from - 1, again));
        assert_int_equal(again[0], '{');
    }
    let_go(session);
    peridot_grammar_free(grammar);
}

/* Another text at the same positions: the states of the first must be gone. */
static void test_tokens_of_a_prompt(void **state) {
    (void)state;
    peridot_grammar *grammar = parse("root ::= \"a\" [0-9]{3} | \"b\" [x-z]{3}");
    char text[TEXT_MAX];
    ask(session, "Hello");
    set_sampling(session, (peridot_sampling){.temperature = 1}, seed);
    uint32_t from = peridot_session_length(session);
    MUST(peridot_session_grammar(session, grammar, &error));
    for (int i = 0; i < 4; i++) {
        int32_t token;
        size_t count;
        const char *start = i % 2 ? "a" : "b";
        MUST(peridot_tokenize(model, start, 1, false, &token, 1, &count, &error));
        MUST(peridot_session_truncate(session, from, &error));
        MUST(peridot_session_prompt_wait(session, &token, 1, NULL, &error));
        MUST(peridot_session_generate_wait(session, CONTEXT, NULL, NULL, NULL, &error));
        assert_true(read_text(session, from, text));
        assert_int_equal(strlen(text), 4);
        assert_int_equal(strspn(text + 1, i % 2 ? "0123456789" : "xyz"), 3);
    }
    int32_t token;
    size_t count;
    MUST(peridot_tokenize(model, "c", 1, false, &token, 1, &count, &error));
    MUST(peridot_session_truncate(session, from, &error));
    MUST(peridot_session_prompt_wait(session, &token, 1, NULL, &error));
    EXPECT(peridot_session_generate_wait(session, 1, NULL, NULL, NULL, &error),
           PERIDOT_ERROR_ARGUMENT, "does not fit the grammar");
    let_go(session);
    peridot_grammar_free(grammar);
}

/* A session that was constrained is as one that never was. */
static void test_letting_go(void **state) {
    (void)state;
    peridot_grammar *grammar = parse(small_json);
    char text[TEXT_MAX], want[TEXT_MAX];
    peridot_session *fresh = open_session(4);
    peridot_session *sessions[2] = {fresh, session};
    ask(session, "Who are you?");
    answer(session, grammar, text);
    let_go(session);
    for (int i = 0; i < 2; i++) {
        ask(sessions[i], "Who are you?");
        uint32_t from = peridot_session_length(sessions[i]);
        set_sampling(sessions[i], (peridot_sampling){.temperature = 1}, seed);
        MUST(peridot_session_generate_wait(sessions[i], 40, NULL, NULL, NULL, &error));
        read_text(sessions[i], from, i ? text : want);
    }
    assert_string_equal(text, want);
    peridot_session_close_wait(fresh);
    peridot_grammar_free(grammar);
}

static void test_saved_sessions(void **state) {
    (void)state;
    char path[] = "/tmp/peridot-constraint-XXXXXX", text[TEXT_MAX];
    int file = mkstemp(path);
    assert_true(file >= 0);
    fclose(fdopen(file, "wb"));
    peridot_grammar *grammar = parse(small_json);
    ask(session, "Hello");
    set_sampling(session, (peridot_sampling){.temperature = 1}, seed);
    MUST(peridot_session_save_wait(session, path, NULL, 0, &error));
    uint32_t from = peridot_session_length(session);
    answer(session, grammar, text);
    MUST(peridot_session_load_wait(session, path, NULL, NULL, &error));
    MUST(peridot_session_generate_wait(session, CONTEXT, NULL, NULL, NULL, &error));
    assert_true(read_text(session, from, text)); /* the grammar began again */
    cJSON *json = cJSON_Parse(text);
    assert_non_null(json);
    cJSON_Delete(json);
    remove(path);
    let_go(session);
    peridot_grammar_free(grammar);
}

/* ---- Both, and neither ---- */

static void test_mask_and_grammar(void **state) {
    (void)state;
    peridot_grammar *grammar = parse("root ::= [0-9a-c]{12}");
    uint32_t words[WORDS_MAX];
    char text[TEXT_MAX];
    memset(words, 0xff, sizeof words);
    for (uint32_t i = 0; i < info.vocabulary; i++) {
        const char *bytes;
        size_t count;
        MUST(peridot_token_bytes(model, (int32_t)i, &bytes, &count, &error));
        for (size_t j = 0; j < count; j++)
            if (bytes[j] >= '0' && bytes[j] <= '9')
                words[i / 32] &= ~(1u << i % 32);
    }
    ask(session, "Hello");
    set_sampling(session, (peridot_sampling){.temperature = 1}, seed);
    MUST(peridot_session_mask(session, words, word_count(), &error));
    assert_true(answer(session, grammar, text));
    assert_int_equal(strspn(text, "abc"), 12);
    /* nothing in common after the first token */
    int32_t x;
    size_t count;
    MUST(peridot_tokenize(model, "a", 1, false, &x, 1, &count, &error));
    memset(words, 0, sizeof words);
    allow(words, x);
    peridot_grammar *other = parse("root ::= \"ax\"");
    ask(session, "Hello");
    uint32_t length = peridot_session_length(session), generated = 99;
    MUST(peridot_session_mask(session, words, word_count(), &error));
    MUST(peridot_session_grammar(session, other, &error));
    EXPECT(peridot_session_generate_wait(session, 9, NULL, NULL, &generated, &error),
           PERIDOT_ERROR_ARGUMENT, "the mask allows none of the tokens");
    assert_int_equal(generated, 1);
    assert_int_equal(peridot_session_length(session), length + 1);
    let_go(session);
    /* and it goes on */
    MUST(peridot_session_generate_wait(session, 3, NULL, NULL, NULL, &error));
    peridot_grammar_free(grammar);
    peridot_grammar_free(other);
}

static void test_errors(void **state) {
    (void)state;
    uint32_t words[WORDS_MAX + 1] = {0};
    peridot_grammar *grammar = NULL;
    peridot_model *other;
    EXPECT(peridot_session_mask(session, words, word_count(), &error), PERIDOT_ERROR_ARGUMENT,
           "allows no token");
    words[0] = 1;
    EXPECT(peridot_session_mask(session, words, word_count() + 1, &error), PERIDOT_ERROR_ARGUMENT,
           "a bit for each");
    EXPECT(peridot_session_mask(session, words, 1, &error), PERIDOT_ERROR_ARGUMENT,
           "a bit for each");
    EXPECT(peridot_session_mask(NULL, words, 1, &error), PERIDOT_ERROR_ARGUMENT, "session");
    EXPECT(peridot_session_grammar(NULL, NULL, &error), PERIDOT_ERROR_ARGUMENT, "session");
    EXPECT(peridot_grammar_parse(model, NULL, 0, &grammar, &error), PERIDOT_ERROR_ARGUMENT, "text");
    EXPECT(peridot_grammar_parse(model, "root ::= x", 10, &grammar, &error), PERIDOT_ERROR_FORMAT,
           "no rule \"x\"");
    assert_null(grammar);
    MUST(peridot_model_load_wait(device, TEST_DATA "/small-f32", NULL, &other, &error));
    EXPECT(peridot_grammar_parse(other, "root ::= \"x\"", 12, &grammar, &error),
           PERIDOT_ERROR_UNSUPPORTED, "no tokenizer");
    peridot_session *its;
    MUST(peridot_session_create(other, NULL, &its, &error));
    grammar = parse("root ::= \"x\"");
    EXPECT(peridot_session_grammar(its, grammar, &error), PERIDOT_ERROR_ARGUMENT, "another model");
    peridot_session_close_wait(its);
    peridot_model_close(other);
    peridot_grammar_free(grammar);
    peridot_grammar_free(NULL);
    assert_int_equal(validation_messages(), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_of_several),
        cmocka_unit_test(test_log_probability),
        cmocka_unit_test(test_mask_from_a_callback),
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_slices),
        cmocka_unit_test(test_any_json),
        cmocka_unit_test(test_bytes_and_ends),
        cmocka_unit_test(test_truncation),
        cmocka_unit_test(test_tokens_of_a_prompt),
        cmocka_unit_test(test_letting_go),
        cmocka_unit_test(test_saved_sessions),
        cmocka_unit_test(test_mask_and_grammar),
        cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests_name("constraint", tests, open_all, close_all);
}
