#include "gguf_tokenizer.h"

#include <stdlib.h>
#include <string.h>

#define SPACE "\xe2\x96\x81" /* U+2581 stands for a space in pieces */
#define TOKENS_MAX (1 << 22)

/* The three lists of a vocabulary, equally long. */
struct lists {
    const struct gguf_value *tokens, *scores, *types;
    uint32_t count;
};

static peridot_result check_model(const struct gguf *file, bool *there, peridot_error *error) {
    struct gguf_string model = {0};
    char shown[64];
    peridot_result result = gguf_string(file, "tokenizer.ggml.model", &model, error);
    *there = model.text && !gguf_string_is(model, "no_vocab") && !gguf_string_is(model, "none");
    if (!result && *there && !gguf_string_is(model, "llama"))
        result = fail(error, PERIDOT_ERROR_UNSUPPORTED,
                      "%s: tokenizer.ggml.model is \"%s\"; Gemma's tokenizer, which Peridot reads, "
                      "is \"llama\" (SentencePiece BPE): use a file converted with tokenizer.model",
                      file->name, gguf_show(model, shown, sizeof shown));
    return result;
}

/* What would change texts before they are split. <bos> comes first whatever add_bos_token says:
 * without it, Gemma talks nonsense. */
static peridot_result check_rules(const struct gguf *file, peridot_error *error) {
    static const char *const keys[] = {"tokenizer.ggml.add_space_prefix",
                                       "tokenizer.ggml.remove_extra_whitespaces"};
    for (int i = 0; i < 2; i++) {
        bool value = false;
        peridot_result result = gguf_bool(file, keys[i], &value, error);
        if (result)
            return result;
        if (value)
            return fail(error, PERIDOT_ERROR_UNSUPPORTED,
                        "%s: %s is set, which Gemma's tokenizer does not have", file->name,
                        keys[i]);
    }
    return PERIDOT_OK;
}

static peridot_result read_lists(const struct gguf *file, struct lists *lists,
                                 peridot_error *error) {
    *lists = (struct lists){0};
    peridot_result result =
        gguf_array(file, "tokenizer.ggml.tokens", GGUF_STRING, &lists->tokens, error);
    if (!result)
        result = gguf_array(file, "tokenizer.ggml.scores", GGUF_FLOAT32, &lists->scores, error);
    if (!result)
        result = gguf_array(file, "tokenizer.ggml.token_type", GGUF_INT32, &lists->types, error);
    if (result)
        return result;
    const char *missing = !lists->tokens   ? "tokens"
                          : !lists->scores ? "scores"
                          : !lists->types  ? "token_type"
                                           : NULL;
    if (missing)
        return fail(error, PERIDOT_ERROR_FORMAT,
                    "%s: there is a tokenizer in its metadata, but no tokenizer.ggml.%s: it was "
                    "converted badly; use another file",
                    file->name, missing);
    uint64_t count = lists->tokens->count;
    if (lists->scores->count != count || lists->types->count != count)
        return fail(error, PERIDOT_ERROR_FORMAT,
                    "%s: its metadata has %llu tokens, %llu scores and %llu token types, which "
                    "must be as many: the file is damaged, fetch it again",
                    file->name, (unsigned long long)count, (unsigned long long)lists->scores->count,
                    (unsigned long long)lists->types->count);
    if (count == 0 || count > TOKENS_MAX)
        return fail(error, PERIDOT_ERROR_FORMAT,
                    "%s: tokenizer.ggml.tokens has %llu tokens; Peridot takes 1 to %d", file->name,
                    (unsigned long long)count, TOKENS_MAX);
    lists->count = (uint32_t)count;
    return PERIDOT_OK;
}

static bool piece_is(const struct piece *piece, const char *text) {
    return gguf_string_is((struct gguf_string){piece->text, piece->length}, text);
}

/* ---- Making pieces ---- */

static size_t count_spaces(const struct piece *piece) {
    size_t count = 0;
    for (size_t i = 0; i < piece->length; i++)
        count += piece->text[i] == ' ';
    return count;
}

/* Newer converters write the spaces of user-defined pieces as they are. Gives these pieces their
 * U+2581 again, in new memory that holds the texts; false without memory. */
static bool restore_spaces(struct piece *pieces, uint32_t count, char **texts) {
    size_t room = 1;
    for (uint32_t i = 0; i < count; i++) {
        size_t spaces = count_spaces(&pieces[i]);
        room += spaces ? pieces[i].length + 2 * spaces : 0;
    }
    char *out = *texts = malloc(room);
    if (!out)
        return false;
    for (uint32_t i = 0; i < count; i++) {
        if (!count_spaces(&pieces[i]))
            continue;
        const char *text = pieces[i].text, *begin = out;
        for (size_t j = 0; j < pieces[i].length; j++) {
            size_t bytes = text[j] == ' ' ? 3 : 1;
            memcpy(out, text[j] == ' ' ? SPACE : text + j, bytes);
            out += bytes;
        }
        pieces[i].text = begin;
        pieces[i].length = (size_t)(out - begin);
    }
    return true;
}

static bool is_numbered(const struct piece *piece, const char *begin, char end) {
    size_t at = strlen(begin);
    if (piece->length < at + 2 || memcmp(piece->text, begin, at) != 0)
        return false;
    while (at < piece->length && piece->text[at] >= '0' && piece->text[at] <= '9')
        at++;
    return at + 1 == piece->length && piece->text[at] == end;
}

/* What converters append where the embedding has more rows than the tokenizer pieces. */
static bool is_padding(const struct piece *piece) {
    static const struct {
        const char *begin;
        char end;
    } names[] = {{"[PAD", ']'}, {"<pad", '>'}, {"<dummy", '>'}, {"<unk", '>'}};
    if (piece->length == 0 || piece->type == PIECE_UNUSED || piece_is(piece, "<pad>"))
        return true;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (is_numbered(piece, names[i].begin, names[i].end))
            return true;
    return false;
}

/* Gemma's user-defined pieces at the end of its vocabulary, which have no place to know them by. */
static bool is_late_defined(const struct piece *piece) {
    size_t tabs = 0;
    while (tabs < piece->length && piece->text[tabs] == '\t')
        tabs++;
    return (tabs > 1 && tabs == piece->length) || piece_is(piece, "[toxicity=0]");
}

/* Converters cannot ask SentencePiece for user-defined pieces: these became normal ones, or, where
 * a list of special tokens names them, control ones. In a vocabulary that SentencePiece trained,
 * nothing but control, unknown and user-defined pieces stands before the bytes. */
static void restore_types(struct piece *pieces, uint32_t count) {
    uint32_t first_byte = 0;
    while (first_byte < count && pieces[first_byte].type != PIECE_BYTE)
        first_byte++;
    for (uint32_t i = 0; i < count; i++) {
        struct piece *piece = &pieces[i];
        bool normal = piece->type == PIECE_NORMAL;
        if (((normal || piece->type == PIECE_CONTROL) && tokenizer_is_reserved(piece)) ||
            (normal && ((i < first_byte && first_byte < count) || is_late_defined(piece))))
            piece->type = PIECE_USER_DEFINED;
    }
}

/* The id of a special piece: by the name it has in Gemma, else what the metadata say. */
static peridot_result find_special(const struct gguf *file, const struct piece *pieces,
                                   uint32_t count, const char *name, const char *key, int32_t *id,
                                   peridot_error *error) {
    int64_t value = -1;
    peridot_result result = gguf_integer(file, key, -1, UINT32_MAX, &value, error);
    *id = value >= 0 && value < count ? (int32_t)value : -1;
    for (uint32_t i = 0; i < count && !result; i++)
        if (piece_is(&pieces[i], name)) {
            *id = (int32_t)i;
            break;
        }
    return result;
}

/* Also gives these pieces their types: lists of special tokens make <unk> a control piece. */
static peridot_result find_specials(const struct gguf *file, struct sentencepiece_model *model,
                                    peridot_error *error) {
    struct piece *pieces = model->pieces;
    int32_t unknown = -1;
    peridot_result result = find_special(file, pieces, model->count, "<bos>",
                                         "tokenizer.ggml.bos_token_id", &model->bos, error);
    if (!result)
        result = find_special(file, pieces, model->count, "<eos>", "tokenizer.ggml.eos_token_id",
                              &model->eos, error);
    if (!result)
        result = find_special(file, pieces, model->count, "<pad>",
                              "tokenizer.ggml.padding_token_id", &model->pad, error);
    if (!result)
        result = find_special(file, pieces, model->count, "<unk>",
                              "tokenizer.ggml.unknown_token_id", &unknown, error);
    if (result)
        return result;
    const int32_t ids[] = {model->bos, model->eos, model->pad};
    for (int i = 0; i < 3; i++)
        if (ids[i] >= 0 && pieces[ids[i]].type == PIECE_NORMAL)
            pieces[ids[i]].type = PIECE_CONTROL;
    bool there = false;
    for (uint32_t i = 0; i < model->count; i++)
        there = there || pieces[i].type == PIECE_UNKNOWN;
    if (!there && unknown >= 0)
        pieces[unknown].type = PIECE_UNKNOWN;
    return PERIDOT_OK;
}

static peridot_result make_pieces(const struct gguf *file, const struct lists *lists,
                                  struct sentencepiece_model *model, char **texts,
                                  peridot_error *error) {
    const uint8_t *at = lists->tokens->data;
    model->pieces = calloc(lists->count, sizeof *model->pieces);
    if (!model->pieces)
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory while reading %s", file->name);
    model->count = lists->count;
    for (uint32_t i = 0; i < lists->count; i++) {
        struct gguf_string token = gguf_next_string(&at);
        int32_t type = gguf_integer_at(lists->types, i);
        model->pieces[i] = (struct piece){token.text, token.length, gguf_real_at(lists->scores, i),
                                          (enum piece_type)(type & 0xff)};
        model->byte_fallback = model->byte_fallback || type == PIECE_BYTE;
    }
    while (model->count > 1 && is_padding(&model->pieces[model->count - 1]))
        model->count--;
    peridot_result result = find_specials(file, model, error);
    if (result)
        return result;
    restore_types(model->pieces, model->count);
    if (!restore_spaces(model->pieces, model->count, texts))
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory while reading %s", file->name);
    return PERIDOT_OK;
}

peridot_result gguf_tokenizer_pieces(const struct gguf *file, struct sentencepiece_model *model,
                                     char **texts, peridot_error *error) {
    struct lists lists;
    bool there;
    *model = (struct sentencepiece_model){0};
    *texts = NULL;
    peridot_result result = check_model(file, &there, error);
    if (result || !there)
        return result;
    result = check_rules(file, error);
    if (!result)
        result = read_lists(file, &lists, error);
    return result ? result : make_pieces(file, &lists, model, texts, error);
}

peridot_result gguf_tokenizer_create(const struct gguf *file, struct tokenizer **tokenizer,
                                     peridot_error *error) {
    struct sentencepiece_model model;
    char *texts;
    *tokenizer = NULL;
    peridot_result result = gguf_tokenizer_pieces(file, &model, &texts, error);
    if (!result && model.count)
        result = tokenizer_create_pieces(&model, file->name, tokenizer, error);
    free(texts);
    sentencepiece_free(&model);
    return result;
}

int64_t gguf_tokenizer_find(const struct gguf *file, const char *token) {
    const struct gguf_value *tokens = NULL;
    if (gguf_array(file, "tokenizer.ggml.tokens", GGUF_STRING, &tokens, NULL) || !tokens)
        return -1;
    const uint8_t *at = tokens->data;
    for (uint64_t i = 0; i < tokens->count; i++)
        if (gguf_string_is(gguf_next_string(&at), token))
            return (int64_t)i;
    return -1;
}
