#include "sentencepiece.h"

#include <stdlib.h>
#include <string.h>

#define PIECES_MAX (1u << 22) /* sixteen times Gemma's */

/* A protobuf message being read. */
struct reader {
    const uint8_t *at, *end;
};

struct field {
    uint32_t number, wire;
    uint64_t value;         /* varint, or fixed32 */
    struct reader contents; /* length-delimited */
};

static bool read_varint(struct reader *reader, uint64_t *value) {
    *value = 0;
    for (int shift = 0; shift < 64 && reader->at < reader->end; shift += 7) {
        uint8_t byte = *reader->at++;
        *value |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80))
            return true;
    }
    return false;
}

static bool skip(struct reader *reader, uint64_t bytes, struct reader *skipped) {
    if (bytes > (uint64_t)(reader->end - reader->at))
        return false;
    *skipped = (struct reader){reader->at, reader->at + bytes};
    reader->at += bytes;
    return true;
}

static bool read_field(struct reader *reader, struct field *field) {
    uint64_t tag;
    if (!read_varint(reader, &tag))
        return false;
    *field = (struct field){.number = (uint32_t)(tag >> 3), .wire = tag & 7};
    switch (field->wire) {
    case 0:
        return read_varint(reader, &field->value);
    case 1:
        return skip(reader, 8, &field->contents);
    case 2:
        return read_varint(reader, &field->value) && skip(reader, field->value, &field->contents);
    case 5:
        if (!skip(reader, 4, &field->contents))
            return false;
        for (int i = 0; i < 4; i++)
            field->value |= (uint64_t)field->contents.at[i] << 8 * i;
        return true;
    default:
        return false;
    }
}

static bool read_piece(struct reader reader, struct piece *piece) {
    struct field field;
    *piece = (struct piece){.type = PIECE_NORMAL};
    while (reader.at < reader.end) {
        if (!read_field(&reader, &field))
            return false;
        if (field.number == 1 && field.wire == 2) {
            piece->text = (const char *)field.contents.at;
            piece->length = (size_t)(field.contents.end - field.contents.at);
        } else if (field.number == 2 && field.wire == 5) {
            uint32_t bits = (uint32_t)field.value;
            memcpy(&piece->score, &bits, sizeof bits);
        } else if (field.number == 3 && field.wire == 0) {
            piece->type = (enum piece_type)(field.value & 0xff);
        }
    }
    return true;
}

struct settings {
    bool present;
    uint64_t model_type; /* 1: unigram, 2: BPE */
    bool charsmap, dummy_prefix, remove_whitespace, escape_whitespace, suffix;
};

static bool read_trainer(struct reader reader, struct sentencepiece_model *model,
                         struct settings *settings) {
    struct field field;
    settings->present = true;
    while (reader.at < reader.end) {
        if (!read_field(&reader, &field))
            return false;
        if (field.number == 44 && field.wire == 2) {
            model->unk_surface = (const char *)field.contents.at;
            model->unk_surface_length = (size_t)(field.contents.end - field.contents.at);
        }
        if (field.wire != 0)
            continue;
        int32_t id = (int32_t)(uint32_t)field.value;
        switch (field.number) {
        case 3:
            settings->model_type = field.value;
            break;
        case 24:
            settings->suffix = field.value != 0;
            break;
        case 35:
            model->byte_fallback = field.value != 0;
            break;
        case 41:
            model->bos = id;
            break;
        case 42:
            model->eos = id;
            break;
        case 43:
            model->pad = id;
            break;
        default:
            break;
        }
    }
    return true;
}

static bool read_normalizer(struct reader reader, struct settings *settings) {
    struct field field;
    while (reader.at < reader.end) {
        if (!read_field(&reader, &field))
            return false;
        if (field.number == 2 && field.wire == 2)
            settings->charsmap |= field.contents.at < field.contents.end;
        else if (field.number == 3 && field.wire == 0)
            settings->dummy_prefix = field.value != 0;
        else if (field.number == 4 && field.wire == 0)
            settings->remove_whitespace = field.value != 0;
        else if (field.number == 5 && field.wire == 0)
            settings->escape_whitespace = field.value != 0;
    }
    return true;
}

/* Decoding would apply its table of rules, and nothing else of it. */
static bool read_denormalizer(struct reader reader, struct settings *settings) {
    struct settings unused = {0};
    bool good = read_normalizer(reader, &unused);
    settings->charsmap |= unused.charsmap;
    return good;
}

/* As many as PIECES_MAX + 1: too many. */
static uint32_t count_pieces(struct reader reader) {
    struct field field;
    uint32_t count = 0;
    while (reader.at < reader.end && read_field(&reader, &field) && count <= PIECES_MAX)
        count += field.number == 1 && field.wire == 2;
    return count;
}

static bool read_model(struct reader reader, struct sentencepiece_model *model,
                       struct settings *settings) {
    struct field field;
    uint32_t room = model->count;
    model->count = 0;
    while (reader.at < reader.end) {
        if (!read_field(&reader, &field))
            return false;
        bool good = true;
        if (field.number == 1 && field.wire == 2 && model->count < room)
            good = read_piece(field.contents, &model->pieces[model->count++]);
        else if (field.number == 2 && field.wire == 2)
            good = read_trainer(field.contents, model, settings);
        else if (field.number == 3 && field.wire == 2)
            good = read_normalizer(field.contents, settings);
        else if (field.number == 5 && field.wire == 2)
            good = read_denormalizer(field.contents, settings);
        if (!good)
            return false;
    }
    return true;
}

static peridot_result check_settings(const struct settings *settings, const char *name,
                                     peridot_error *error) {
    if (!settings->present)
        return fail(error, PERIDOT_ERROR_FORMAT,
                    "%s: damaged or truncated after its pieces: fetch it again", name);
    if (settings->model_type != 2)
        return fail(error, PERIDOT_ERROR_UNSUPPORTED,
                    "%s: not a BPE model; Gemma's tokenizer is one", name);
    const char *odd = settings->charsmap            ? "a normalisation table"
                      : settings->dummy_prefix      ? "add_dummy_prefix"
                      : settings->remove_whitespace ? "remove_extra_whitespaces"
                      : settings->suffix            ? "treat_whitespace_as_suffix"
                      : settings->escape_whitespace ? NULL
                                                    : "unescaped white space";
    if (odd)
        return fail(error, PERIDOT_ERROR_UNSUPPORTED,
                    "%s: it uses %s, which Gemma's tokenizer does not have", name, odd);
    return PERIDOT_OK;
}

peridot_result sentencepiece_parse(const void *data, size_t size, const char *name,
                                   struct sentencepiece_model *model, peridot_error *error) {
    *model = (struct sentencepiece_model){.bos = 1, .eos = 2, .pad = -1};
    struct settings settings = {false, 1, false, true, true, true, false}; /* the defaults */
    struct reader reader = {data, size ? (const uint8_t *)data + size : data};
    model->count = count_pieces(reader);
    if (model->count == 0)
        return fail(error, PERIDOT_ERROR_FORMAT,
                    "%s: there are no pieces in it: not a SentencePiece model, or a damaged one",
                    name);
    if (model->count > PIECES_MAX)
        return fail(error, PERIDOT_ERROR_UNSUPPORTED,
                    "%s: it has more than %u pieces, the most that Peridot takes", name,
                    PIECES_MAX);
    model->pieces = calloc(model->count, sizeof *model->pieces);
    if (!model->pieces)
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory while reading %s", name);
    peridot_result result = PERIDOT_OK;
    if (!read_model(reader, model, &settings))
        result =
            fail(error, PERIDOT_ERROR_FORMAT,
                 "%s: damaged or truncated after piece %u: fetch it again", name, model->count);
    if (!result)
        result = check_settings(&settings, name, error);
    if (result)
        sentencepiece_free(model);
    return result;
}

void sentencepiece_free(struct sentencepiece_model *model) {
    free(model->pieces);
    *model = (struct sentencepiece_model){0};
}
