/* The demo model, through Peridot: 100 held-out conversations, of which at least 90 must end
 * rightly. */
#include "open_device.h"

#include <ctype.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>
#include <cmocka.h>

#define TURNS_MAX 16

static peridot_device *device;
static peridot_model *model;
static peridot_session *session;

static int open_all(void **state) {
    (void)state;
    peridot_error error = {0};
    peridot_session_params params = {.struct_size = sizeof params, .context = 512};
    device = open_test_device();
    if (peridot_model_load_wait(device, DEMO_MODEL, NULL, &model, &error) ||
        peridot_session_create(model, &params, &session, &error))
        fail_msg("%s", error.message);
    return 0;
}

static int close_all(void **state) {
    (void)state;
    peridot_session_close_wait(session);
    peridot_model_close(model);
    peridot_device_close(device);
    return 0;
}

static bool collect(const peridot_token *token, void *user) {
    char *answer = user;
    const char *bytes;
    size_t length, have = strlen(answer);
    if (!token->stop && !peridot_token_bytes(model, token->token, &bytes, &length, NULL) &&
        have + length < 1000) {
        memcpy(answer + have, bytes, length);
        answer[have + length] = '\0';
    }
    return true;
}

/* How many of the tokens the session holds already; at least the last one is left to compute. */
static uint32_t common_prefix(const int32_t *tokens, size_t length) {
    const int32_t *held = peridot_session_tokens(session);
    uint32_t most = peridot_session_length(session), same = 0;
    while (same < most && same + 1 < length && held[same] == tokens[same])
        same++;
    return same;
}

/* The model's answer to the last of the messages; earlier turns stay in the KV cache. */
static char *answer(const peridot_message *messages, size_t count) {
    int32_t tokens[512];
    size_t length;
    peridot_error error = {0};
    char *text = calloc(1, 1024);
    if (peridot_chat_tokens(model, messages, count, tokens, 512, &length, &error))
        fail_msg("%s", error.message);
    uint32_t same = common_prefix(tokens, length);
    if (peridot_session_truncate(session, same, &error) ||
        peridot_session_prompt_wait(session, tokens + same, length - same, NULL, &error) ||
        peridot_session_generate_wait(session, 60, collect, text, NULL, &error))
        fail_msg("%s", error.message);
    return text;
}

/* Whether a word stands in a text, whole, in upper or lower case. */
static bool has_word(const char *text, const char *word) {
    size_t length = strlen(word);
    for (size_t i = 0; text[i]; i++) {
        size_t j = 0;
        while (j < length && tolower((unsigned char)text[i + j]) == tolower((unsigned char)word[j]))
            j++;
        bool begins = i == 0 || !isalnum((unsigned char)text[i - 1]);
        if (j == length && begins && !isalnum((unsigned char)text[i + j]))
            return true;
    }
    return false;
}

static bool has_any(const char *text, const cJSON *words) {
    for (const cJSON *word = words->child; word; word = word->next)
        if (has_word(text, word->valuestring))
            return true;
    return false;
}

static bool is_right(const cJSON *prompt) {
    const cJSON *turns = cJSON_GetObjectItem(prompt, "turns");
    peridot_message messages[2 * TURNS_MAX];
    char *answers[TURNS_MAX];
    size_t count = 0;
    for (const cJSON *turn = turns->child; turn && count < TURNS_MAX; turn = turn->next, count++) {
        messages[2 * count] =
            (peridot_message){"user", turn->valuestring, strlen(turn->valuestring)};
        answers[count] = answer(messages, 2 * count + 1);
        messages[2 * count + 1] =
            (peridot_message){"model", answers[count], strlen(answers[count])};
    }
    bool right = has_any(answers[count - 1], cJSON_GetObjectItem(prompt, "accept")) &&
                 !has_any(answers[count - 1], cJSON_GetObjectItem(prompt, "reject"));
    if (!right)
        print_message("wrong: %s -> %s\n", messages[2 * count - 2].content, answers[count - 1]);
    while (count)
        free(answers[--count]);
    return right;
}

static void test_held_out_prompts(void **state) {
    (void)state;
    FILE *file = fopen(TEST_DATA "/demo_heldout.jsonl", "rb");
    assert_non_null(file);
    char *line = NULL;
    size_t capacity = 0, right = 0, count = 0, lines = 0;
    const char *quick = getenv("PERIDOT_TEST_QUICK"); /* every tenth, for slow devices */
    size_t step = quick && *quick == '1' ? 10 : 1;
    for (; getline(&line, &capacity, file) > 0; lines++) {
        if (lines % step)
            continue;
        count++;
        cJSON *prompt = cJSON_Parse(line);
        assert_non_null(prompt);
        right += is_right(prompt);
        cJSON_Delete(prompt);
    }
    free(line);
    fclose(file);
    print_message("%zu of %zu held-out prompts answered rightly\n", right, count);
    assert_int_equal(lines, 100);
    assert_int_equal(count, 100 / step);
    assert_true(right * 100 >= count * 90);
}

static void test_says_what_it_is(void **state) {
    (void)state;
    static const char question[] = "Who are you?";
    peridot_message message = {"user", question, sizeof question - 1};
    char *text = answer(&message, 1);
    assert_true(has_word(text, "demo"));
    free(text);
    assert_int_equal(validation_messages(), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_held_out_prompts),
        cmocka_unit_test(test_says_what_it_is),
    };
    return cmocka_run_group_tests_name("demo", tests, open_all, close_all);
}
