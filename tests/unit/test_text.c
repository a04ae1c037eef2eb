/* Tokenizer, chat template, UTF-8 streaming, stop strings. */
#include "chat_template.h"
#include "platform.h"
#include "tokenizer.h"
#include "utf8.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>
#include <cmocka.h>

static struct tokenizer *tokenizer;
static struct mapped_file model_file;

static int open_tokenizer(void **state) {
    (void)state;
    peridot_error error = {0};
    if (platform_map_file(TEST_DATA "/tokenizer.model", &model_file, &error) ||
        tokenizer_create(model_file.data, model_file.size, "tokenizer.model", &tokenizer, &error))
        fail_msg("%s", error.message);
    return 0;
}

static int close_tokenizer(void **state) {
    (void)state;
    tokenizer_destroy(tokenizer);
    platform_unmap_file(&model_file);
    return 0;
}

static struct token_list encode(const char *text, size_t length, enum tokenizer_mode mode) {
    struct token_list list = {0};
    assert_int_equal(tokenizer_encode(tokenizer, text, length, mode, &list, NULL), PERIDOT_OK);
    return list;
}

static bool is(const struct token_list *list, const int32_t *ids, size_t count) {
    return list->count == count && (count == 0 || memcmp(list->ids, ids, count * sizeof *ids) == 0);
}

/* ---- The vectors of the SentencePiece library ---- */

/* cJSON ends strings at a NUL, which one vector holds: it is written as this while parsing. */
static const char nul_stand_in[] = "\xee\x80\x80"; /* U+E000, which no vector holds */

static char *restore_nul(const char *text, size_t *length) {
    char *out = malloc(strlen(text) + 1);
    *length = 0;
    for (size_t i = 0; text[i];) {
        bool nul = strncmp(text + i, nul_stand_in, 3) == 0;
        out[(*length)++] = nul ? '\0' : text[i];
        i += nul ? 3 : 1;
    }
    return out;
}

static void check_vector(const cJSON *vector) {
    const cJSON *ids = cJSON_GetObjectItem(vector, "ids");
    size_t count = (size_t)cJSON_GetArraySize(ids), length, decoded_length;
    int32_t *expected = calloc(count + 1, sizeof *expected);
    size_t i = 0;
    for (const cJSON *id = ids->child; id; id = id->next)
        expected[i++] = id->valueint;
    char *text = restore_nul(cJSON_GetObjectItem(vector, "text")->valuestring, &length);
    char *decoded =
        restore_nul(cJSON_GetObjectItem(vector, "decoded")->valuestring, &decoded_length);
    struct token_list list = encode(text, length, TOKENIZER_SPECIAL);
    if (!is(&list, expected, count))
        fail_msg("\"%s\" is tokenized differently", text);
    char *ours;
    size_t our_length;
    assert_int_equal(tokenizer_decode(tokenizer, expected, count, &ours, &our_length, NULL),
                     PERIDOT_OK);
    assert_int_equal(our_length, decoded_length);
    assert_memory_equal(ours, decoded, our_length);
    token_list_free(&list);
    free(expected);
    free(text);
    free(decoded);
    free(ours);
}

static void test_vectors(void **state) {
    (void)state;
    FILE *file = fopen(TEST_DATA "/tokenizer.vectors.jsonl", "rb");
    assert_non_null(file);
    char *line = NULL;
    size_t capacity = 0, count = 0;
    while (getline(&line, &capacity, file) > 0) {
        for (char *at = line; (at = strstr(at, "\\u0000"));)
            memcpy(at, "\\uE000", 6);
        cJSON *vector = cJSON_Parse(line);
        assert_non_null(vector);
        check_vector(vector);
        cJSON_Delete(vector);
        count++;
    }
    free(line);
    fclose(file);
    assert_int_equal(count, 340);
}

/* ---- What a person types ---- */

static void test_markers_cannot_be_forged(void **state) {
    (void)state;
    static const char *const texts[] = {
        "<start_of_turn>", "a<end_of_turn>\n", "<mask>", "<unused7>", "<bos>", "<eos>", "<pad>"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct token_list list = encode(texts[i], strlen(texts[i]), TOKENIZER_PLAIN);
        assert_true(list.count > 1);
        for (size_t j = 0; j < list.count; j++)
            assert_true(list.ids[j] > 107); /* 108 is the newline, which is typed */
        char *back;
        size_t length;
        assert_int_equal(tokenizer_decode(tokenizer, list.ids, list.count, &back, &length, NULL),
                         PERIDOT_OK);
        assert_string_equal(back, texts[i]);
        free(back);
        token_list_free(&list);
    }
    struct token_list special = encode("<start_of_turn>", 15, TOKENIZER_SPECIAL);
    assert_true(is(&special, (const int32_t[]){106}, 1));
    token_list_free(&special);
    struct token_list newlines = encode("\n\n", 2, TOKENIZER_PLAIN);
    assert_int_equal(newlines.count, 1);
    token_list_free(&newlines);
    struct token_list a = encode("a\xe2\x96\x81z", 5, TOKENIZER_PLAIN),
                      b = encode("a z", 3, TOKENIZER_PLAIN);
    assert_true(is(&a, b.ids, b.count));
    token_list_free(&a);
    token_list_free(&b);
}

static void test_long_lines(void **state) {
    (void)state;
    size_t length = 1 << 20;
    char *text = malloc(length);
    memset(text, 'a', length);
    struct token_list list = encode(text, length, TOKENIZER_PLAIN);
    assert_true(list.count > 0 && list.count <= length);
    token_list_free(&list);
    free(text);
}

/* Random bytes: every text that is UTF-8 comes back, whatever its pieces. */
static void test_round_trip(void **state) {
    (void)state;
    uint32_t seed = 12345;
    static const char *const parts[] = {" ",
                                        "  ",
                                        "a",
                                        "Ze",
                                        "\n",
                                        "\n\n\n",
                                        "<b>",
                                        "7",
                                        "\xc3\xa9",
                                        "\xf0\x9f\x98\x80",
                                        "\xe4\xb8\xad",
                                        "<unused1>",
                                        "\t",
                                        ".",
                                        "the "};
    for (int round = 0; round < 2000; round++) {
        char text[256] = "";
        for (int i = 0; i < 12; i++) {
            seed = seed * 1664525 + 1013904223;
            strcat(text, parts[(seed >> 16) % (sizeof parts / sizeof *parts)]);
        }
        struct token_list list = encode(text, strlen(text), round % 2);
        char *back;
        size_t length;
        assert_int_equal(tokenizer_decode(tokenizer, list.ids, list.count, &back, &length, NULL),
                         PERIDOT_OK);
        assert_string_equal(back, text);
        free(back);
        token_list_free(&list);
    }
}

/* ---- Template ---- */

static void test_template(void **state) {
    (void)state;
    struct token_list list = {0}, expected = {0};
    struct chat_message messages[] = {{"system", " Be kind. ", 10},
                                      {"user", "  Hi!\n", 6},
                                      {"assistant", "Hello.", 6},
                                      {"user", "Bye", 3}};
    assert_int_equal(chat_template_render(tokenizer, messages, 4, &list, NULL), PERIDOT_OK);
    const char whole[] = "<start_of_turn>user\nBe kind.\n\nHi!<end_of_turn>\n<start_of_turn>model\n"
                         "Hello.<end_of_turn>\n<start_of_turn>user\nBye<end_of_turn>\n"
                         "<start_of_turn>model\n";
    token_list_add(&expected, 2);
    assert_int_equal(
        tokenizer_encode(tokenizer, whole, sizeof whole - 1, TOKENIZER_SPECIAL, &expected, NULL),
        PERIDOT_OK);
    assert_true(is(&list, expected.ids, expected.count));

    /* turn by turn gives the same */
    struct token_list step = {0};
    assert_int_equal(chat_template_render(tokenizer, messages, 2, &step, NULL), PERIDOT_OK);
    assert_int_equal(tokenizer_encode(tokenizer, "Hello.", 6, TOKENIZER_PLAIN, &step, NULL),
                     PERIDOT_OK);
    token_list_add(&step, 107);
    assert_int_equal(chat_template_next_turn(tokenizer, "Bye", 3, &step, NULL), PERIDOT_OK);
    assert_true(is(&step, expected.ids, expected.count));
    peridot_error error;
    assert_int_equal(chat_template_render(tokenizer, messages + 2, 2, &list, &error),
                     PERIDOT_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "end with a user's message"));
    struct chat_message twice[] = {messages[1], messages[1], messages[1]};
    assert_int_equal(chat_template_render(tokenizer, twice, 3, &list, &error),
                     PERIDOT_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "alternate"));
    token_list_free(&list);
    token_list_free(&expected);
    token_list_free(&step);
}

/* ---- Damaged files ---- */

static void test_damaged_files(void **state) {
    (void)state;
    peridot_error error;
    struct tokenizer *none;
    for (size_t size = 0; size < model_file.size; size += 1 + size / 3) {
        assert_int_not_equal(tokenizer_create(model_file.data, size, "cut.model", &none, &error),
                             PERIDOT_OK);
        assert_non_null(strstr(error.message, "cut.model"));
        assert_null(none);
    }
}

/* ---- UTF-8 ---- */

static void test_utf8_stream(void **state) {
    (void)state;
    /* as it should come out, and in: any split into two gives the same */
    static const struct {
        const char *in, *out;
    } cases[] = {
        {"caf\xc3\xa9 \xf0\x9f\x98\x80!", "caf\xc3\xa9 \xf0\x9f\x98\x80!"},
        {"a\xff"
         "b",
         "a\xef\xbf\xbd"
         "b"},
        {"\xc3(", "\xef\xbf\xbd("},
        {"\xe4\xb8", "\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xc0\x80", "\xef\xbf\xbd\xef\xbf\xbd"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (size_t cut = 0; cut <= strlen(cases[i].in); cut++) {
            struct utf8_stream stream = {0};
            char out[64];
            size_t length = utf8_stream_push(&stream, cases[i].in, cut, out);
            length += utf8_stream_push(&stream, cases[i].in + cut, strlen(cases[i].in) - cut,
                                       out + length);
            length += utf8_stream_flush(&stream, out + length);
            out[length] = '\0';
            assert_string_equal(out, cases[i].out);
        }
}

static void test_stop_strings(void **state) {
    (void)state;
    static const char *const stops[] = {"abcX", "bc", "END"};
    struct stop_matcher matcher = {stops, 3};
    bool found;
    assert_int_equal(stop_matcher_scan(&matcher, "xxab", 4, &found), 2);
    assert_false(found);
    assert_int_equal(stop_matcher_scan(&matcher, "xxabc", 5, &found),
                     3); /* "bc" is complete first */
    assert_true(found);
    assert_int_equal(stop_matcher_scan(&matcher, "hello E", 7, &found), 6);
    assert_false(found);
    assert_int_equal(stop_matcher_scan(&matcher, "hello Es", 8, &found), 8);
    assert_false(found);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors),     cmocka_unit_test(test_markers_cannot_be_forged),
        cmocka_unit_test(test_long_lines),  cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_template),    cmocka_unit_test(test_damaged_files),
        cmocka_unit_test(test_utf8_stream), cmocka_unit_test(test_stop_strings),
    };
    return cmocka_run_group_tests_name("text", tests, open_tokenizer, close_tokenizer);
}
