/* Tokenizers from GGUF metadata: whatever a converter made of tokenizer.model, texts become the ids
 * that they become with the original. */
#include "gguf_tokenizer.h"
#include "must.h"
#include "platform.h"
#include "unit/gguf_writer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>
#include <cmocka.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define START_OF_TURN 106
#define END_OF_TURN 107

/* The pieces of tests/data/tokenizer.model, and those at the end of Google's vocabulary. */
static struct file_bytes model_file;
static struct sentencepiece_model model;
static struct tokenizer *original;

static int open_model(void **state) {
    (void)state;
    static const char *const late[] = {"[toxicity=0]", "\t\t", "\t\t\t", "<unused99>"};
    MUST(platform_read_file(TEST_DATA "/tokenizer.model", &model_file, &error));
    MUST(sentencepiece_parse(model_file.data, model_file.size, "tokenizer.model", &model, &error));
    model.pieces = realloc(model.pieces, (model.count + COUNT(late)) * sizeof *model.pieces);
    assert_non_null(model.pieces);
    for (size_t i = 0; i < COUNT(late); i++)
        model.pieces[model.count++] =
            (struct piece){late[i], strlen(late[i]), -100, PIECE_USER_DEFINED};
    MUST(tokenizer_create_pieces(&model, "tokenizer.model", &original, &error));
    return 0;
}

static int close_model(void **state) {
    (void)state;
    tokenizer_destroy(original);
    sentencepiece_free(&model);
    platform_free_file(&model_file);
    return 0;
}

/* ---- What converters make of it ---- */

enum style {
    AS_IT_IS,
    NO_TYPES, /* all but the bytes are normal pieces */
    EARLY,    /* user-defined pieces have become normal ones */
    LISTED,   /* and the special tokens of a short list control ones, <unk> among them */
    LATE,     /* all are listed; some look special; spaces are spaces */
    STYLES
};

static bool is_special(uint32_t id) {
    return id < 4 || id == START_OF_TURN || id == END_OF_TURN;
}

static int convert_type(enum style style, uint32_t id) {
    const struct piece *piece = &model.pieces[id];
    bool defined = piece->type == PIECE_USER_DEFINED;
    if (style == NO_TYPES && piece->type != PIECE_BYTE)
        return PIECE_NORMAL;
    if ((style == LISTED || style == LATE) && is_special(id))
        return PIECE_CONTROL;
    if (style == LATE && defined && tokenizer_is_reserved(piece))
        return PIECE_CONTROL;
    return (style == EARLY || style == LISTED) && defined ? PIECE_NORMAL : (int)piece->type;
}

static void write_token(struct gguf_writer *w, enum style style, uint32_t id) {
    const struct piece *piece = &model.pieces[id];
    char text[256];
    size_t length = 0;
    for (size_t i = 0; i < piece->length; i++) {
        bool space = style == LATE && piece->type == PIECE_USER_DEFINED && i + 3 <= piece->length &&
                     memcmp(piece->text + i, "\xe2\x96\x81", 3) == 0;
        text[length++] = space ? ' ' : piece->text[i];
        i += space ? 2 : 0;
    }
    gguf_write_number(w, length, 8);
    gguf_write_bytes(w, text, length);
}

/* What some converters append up to the rows of the embedding. */
#define PADDING 3
static const char *const padding[STYLES][PADDING] = {
    [AS_IT_IS] = {"unused", "unused", "unused"}, /* by their type */
    [NO_TYPES] = {"<pad>", "<pad>", "<pad>"},           [EARLY] = {"<dummy00001>", "", "<unk4101>"},
    [LISTED] = {"[PAD4100]", "[PAD4101]", "[PAD4102]"}, [LATE] = {"[PAD0]", "[PAD1]", "<pad2>"},
};

static int padding_type(enum style style) {
    return style == AS_IT_IS || style == LISTED ? PIECE_UNUSED
           : style == NO_TYPES                  ? PIECE_NORMAL
                                                : PIECE_USER_DEFINED;
}

static void write_vocabulary(struct gguf_writer *w, enum style style) {
    uint32_t count = model.count + PADDING;
    gguf_write_array(w, "tokenizer.ggml.tokens", GGUF_STRING, count);
    for (uint32_t i = 0; i < model.count; i++)
        write_token(w, style, i);
    for (int i = 0; i < PADDING; i++)
        gguf_write_text(w, padding[style][i]);
    gguf_write_array(w, "tokenizer.ggml.scores", GGUF_FLOAT32, count);
    for (uint32_t i = 0; i < count; i++) {
        float score =
            i < model.count && !(style == LATE && i < 217) ? model.pieces[i].score : -1e3f;
        uint32_t bits;
        memcpy(&bits, &score, 4);
        gguf_write_number(w, bits, 4);
    }
    gguf_write_array(w, "tokenizer.ggml.token_type", style == LATE ? GGUF_UINT32 : GGUF_INT32,
                     count);
    for (uint32_t i = 0; i < model.count; i++)
        gguf_write_number(w, (uint64_t)convert_type(style, i), 4);
    for (uint32_t i = 0; i < PADDING; i++)
        gguf_write_number(w, (uint64_t)padding_type(style), 4);
}

static void write_tokenizer(struct gguf_writer *w, enum style style) {
    gguf_write_begin(w);
    gguf_write_string(w, "tokenizer.ggml.model", "llama");
    write_vocabulary(w, style);
    gguf_write_u32(w, "tokenizer.ggml.bos_token_id", 2);
    gguf_write_u32(w, "tokenizer.ggml.eos_token_id", style == LATE ? END_OF_TURN : 1);
    gguf_write_u32(w, "tokenizer.ggml.unknown_token_id", 3);
    gguf_write_u32(w, "tokenizer.ggml.padding_token_id", style == LATE ? UINT32_MAX : 0);
    if (style == AS_IT_IS || style == EARLY)
        return;
    gguf_write_u32(w, "tokenizer.ggml.eot_token_id", END_OF_TURN);
    gguf_write_bool(w, "tokenizer.ggml.add_bos_token", 1);
    gguf_write_bool(w, "tokenizer.ggml.add_space_prefix", 0);
    gguf_write_string(w, "tokenizer.ggml.pre", "default");
    gguf_write_string(w, "tokenizer.chat_template", "{{ bos_token }}");
}

static peridot_result create(const struct gguf_writer *w, struct tokenizer **tokenizer,
                             peridot_error *error) {
    struct gguf file;
    MUST(gguf_parse(w->bytes, w->size, "some.gguf", &file, &error));
    peridot_result result = gguf_tokenizer_create(&file, tokenizer, error);
    gguf_free(&file);
    return result;
}

/* ---- The same as the original ---- */

static void check_pieces(const struct tokenizer *tokenizer) {
    assert_int_equal(tokenizer_vocabulary(tokenizer), model.count);
    for (int32_t i = 0; i < (int32_t)model.count; i++) {
        const char *ours, *theirs;
        size_t length, expected;
        assert_true(tokenizer_piece(tokenizer, i, &ours, &length));
        assert_true(tokenizer_piece(original, i, &theirs, &expected));
        assert_int_equal(length, expected);
        assert_memory_equal(ours, theirs, length);
        assert_int_equal(tokenizer_type(tokenizer, i), tokenizer_type(original, i));
    }
    struct tokenizer_specials ours = tokenizer_specials(tokenizer);
    struct tokenizer_specials theirs = tokenizer_specials(original);
    assert_memory_equal(&ours, &theirs, sizeof ours);
    assert_int_equal(ours.end_of_turn, END_OF_TURN);
    assert_int_equal(ours.eos, 1);
}

static void check_text(const struct tokenizer *tokenizer, const char *text) {
    for (int mode = TOKENIZER_SPECIAL; mode <= TOKENIZER_PLAIN; mode++) {
        struct token_list ours = {0}, theirs = {0};
        MUST(tokenizer_encode(tokenizer, text, strlen(text), (enum tokenizer_mode)mode, &ours,
                              &error));
        MUST(tokenizer_encode(original, text, strlen(text), (enum tokenizer_mode)mode, &theirs,
                              &error));
        assert_int_equal(ours.count, theirs.count);
        for (size_t i = 0; i < ours.count; i++)
            assert_int_equal(ours.ids[i], theirs.ids[i]);
        token_list_free(&ours);
        token_list_free(&theirs);
    }
}

static void check_texts(const struct tokenizer *tokenizer) {
    FILE *file = fopen(TEST_DATA "/tokenizer.vectors.jsonl", "rb");
    assert_non_null(file);
    char *line = NULL;
    size_t capacity = 0, count = 0;
    while (getline(&line, &capacity, file) > 0) {
        cJSON *vector = cJSON_Parse(line);
        check_text(tokenizer, cJSON_GetObjectItem(vector, "text")->valuestring);
        cJSON_Delete(vector);
        count++;
    }
    free(line);
    fclose(file);
    assert_int_equal(count, 340);
    check_text(tokenizer, "a\t\tb\t\t\t\t\tc [toxicity=0]<unused99>[PAD4100][PAD4101]<dummy00001>");
}

static void test_styles(void **state) {
    (void)state;
    for (int style = AS_IT_IS; style < STYLES; style++) {
        struct gguf_writer w;
        struct tokenizer *tokenizer;
        write_tokenizer(&w, (enum style)style);
        MUST(create(&w, &tokenizer, &error));
        check_pieces(tokenizer);
        check_texts(tokenizer);
        tokenizer_destroy(tokenizer);
        gguf_write_free(&w);
    }
}

static void test_find(void **state) {
    (void)state;
    struct gguf_writer w;
    struct gguf file;
    write_tokenizer(&w, EARLY);
    MUST(gguf_parse(w.bytes, w.size, "some.gguf", &file, &error));
    assert_int_equal(gguf_tokenizer_find(&file, "<eos>"), 1);
    assert_int_equal(gguf_tokenizer_find(&file, "<end_of_turn>"), END_OF_TURN);
    assert_int_equal(gguf_tokenizer_find(&file, "<end_of_turn"), -1);
    gguf_free(&file);
    gguf_write_free(&w);
}

/* ---- None, and ones that are refused ---- */

static void test_none(void **state) {
    (void)state;
    static const char *const models[] = {NULL, "no_vocab", "none"};
    for (size_t i = 0; i < COUNT(models); i++) {
        struct gguf_writer w;
        struct tokenizer *tokenizer = original;
        gguf_write_begin(&w);
        if (models[i])
            gguf_write_string(&w, "tokenizer.ggml.model", models[i]);
        MUST(create(&w, &tokenizer, &error));
        assert_null(tokenizer);
        gguf_write_free(&w);
    }
}

/* `tokens` of three bytes each, "000" on, all of one type. */
static void write_lists(struct gguf_writer *w, uint32_t tokens, uint32_t scores, uint32_t types,
                        int type) {
    gguf_write_array(w, "tokenizer.ggml.tokens", GGUF_STRING, tokens);
    for (uint32_t i = 0; i < tokens; i++) {
        char text[8];
        snprintf(text, sizeof text, "%03u", i % 1000);
        gguf_write_text(w, text);
    }
    gguf_write_array(w, "tokenizer.ggml.scores", GGUF_FLOAT32, scores);
    for (uint32_t i = 0; i < scores; i++)
        gguf_write_number(w, 0, 4);
    gguf_write_array(w, "tokenizer.ggml.token_type", GGUF_INT32, types);
    for (uint32_t i = 0; i < types; i++)
        gguf_write_number(w, (uint64_t)type, 4);
}

static void no_tokens(struct gguf_writer *w) {
    gguf_write_array(w, "tokenizer.ggml.scores", GGUF_FLOAT32, 0);
}
static void no_scores(struct gguf_writer *w) {
    gguf_write_array(w, "tokenizer.ggml.tokens", GGUF_STRING, 0);
}
static void no_types(struct gguf_writer *w) {
    no_tokens(w);
    no_scores(w);
}
static void empty_lists(struct gguf_writer *w) {
    write_lists(w, 0, 0, 0, 1);
}
static void other_counts(struct gguf_writer *w) {
    write_lists(w, 3, 2, 3, 1);
}
static void fewer_types(struct gguf_writer *w) {
    write_lists(w, 3, 3, 1, 1);
}
static void odd_types(struct gguf_writer *w) {
    write_lists(w, 3, 3, 3, 9);
}
static void no_unknown(struct gguf_writer *w) {
    write_lists(w, 3, 3, 3, 1);
}
static void equal_tokens(struct gguf_writer *w) {
    write_lists(w, 1001, 1001, 1001, 1);
    gguf_write_u32(w, "tokenizer.ggml.unknown_token_id", 3);
}
static void space_prefix(struct gguf_writer *w) {
    write_lists(w, 3, 3, 3, 1);
    gguf_write_bool(w, "tokenizer.ggml.add_space_prefix", 1);
}
static void fewer_spaces(struct gguf_writer *w) {
    write_lists(w, 3, 3, 3, 1);
    gguf_write_bool(w, "tokenizer.ggml.remove_extra_whitespaces", 1);
}
static void number_texts(struct gguf_writer *w) {
    gguf_write_array(w, "tokenizer.ggml.tokens", GGUF_UINT8, 0);
}

static void test_refused(void **state) {
    (void)state;
    static const struct {
        const char *model;
        void (*add)(struct gguf_writer *w);
        peridot_result code;
        const char *says;
    } cases[] = {
        {"gpt2", no_types, PERIDOT_ERROR_UNSUPPORTED, "tokenizer.ggml.model is \"gpt2\""},
        {"llama", no_tokens, PERIDOT_ERROR_FORMAT, "no tokenizer.ggml.tokens"},
        {"llama", no_scores, PERIDOT_ERROR_FORMAT, "no tokenizer.ggml.scores"},
        {"llama", no_types, PERIDOT_ERROR_FORMAT, "no tokenizer.ggml.token_type"},
        {"llama", number_texts, PERIDOT_ERROR_FORMAT, "tokens must be an array of texts"},
        {"llama", empty_lists, PERIDOT_ERROR_FORMAT, "tokenizer.ggml.tokens has 0 tokens"},
        {"llama", other_counts, PERIDOT_ERROR_FORMAT, "3 tokens, 2 scores and 3 token types"},
        {"llama", fewer_types, PERIDOT_ERROR_FORMAT, "3 tokens, 3 scores and 1 token types"},
        {"llama", odd_types, PERIDOT_ERROR_FORMAT, "piece 0 has a type"},
        {"llama", no_unknown, PERIDOT_ERROR_FORMAT, "there is no unknown piece"},
        {"llama", equal_tokens, PERIDOT_ERROR_FORMAT, "piece 1000 is the same as piece 0"},
        {"llama", space_prefix, PERIDOT_ERROR_UNSUPPORTED, "add_space_prefix is set"},
        {"llama", fewer_spaces, PERIDOT_ERROR_UNSUPPORTED, "remove_extra_whitespaces is set"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct gguf_writer w;
        struct tokenizer *tokenizer = original;
        peridot_error error = {0};
        gguf_write_begin(&w);
        gguf_write_string(&w, "tokenizer.ggml.model", cases[i].model);
        cases[i].add(&w);
        assert_int_equal(create(&w, &tokenizer, &error), cases[i].code);
        assert_null(tokenizer);
        assert_non_null(strstr(error.message, "some.gguf"));
        if (!strstr(error.message, cases[i].says))
            fail_msg("\"%s\" does not say \"%s\"", error.message, cases[i].says);
        gguf_write_free(&w);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_styles),
        cmocka_unit_test(test_find),
        cmocka_unit_test(test_none),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests_name("gguf_tokenizer", tests, open_model, close_model);
}
