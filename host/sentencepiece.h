/* Reading a SentencePiece model file: a protobuf message of pieces and settings.
 * Format: https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto */
#ifndef HOST_SENTENCEPIECE_H
#define HOST_SENTENCEPIECE_H

#include "error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum piece_type {
    PIECE_NORMAL = 1,
    PIECE_UNKNOWN = 2,
    PIECE_CONTROL = 3,
    PIECE_USER_DEFINED = 4,
    PIECE_UNUSED = 5,
    PIECE_BYTE = 6
};

struct piece {
    const char *text; /* not NUL-terminated; points into the file's bytes */
    size_t length;
    float score;
    enum piece_type type; /* as it stands in the file: perhaps none of the above */
};

struct sentencepiece_model {
    struct piece *pieces;
    uint32_t count;
    bool byte_fallback;
    int32_t bos, eos, pad;   /* negative: none */
    const char *unk_surface; /* what the unknown piece decodes to; NULL: the library's default */
    size_t unk_surface_length;
};

/* Parses the file; the result points into `data`. Refuses what Gemma's tokenizer is not: unigram
 * models, normalisation rules, dummy prefixes. What the pieces hold is for tokenizer_create_pieces
 * to judge. Errors: FORMAT, UNSUPPORTED, HOST_MEMORY. */
peridot_result sentencepiece_parse(const void *data, size_t size, const char *name,
                                   struct sentencepiece_model *model, peridot_error *error);
void sentencepiece_free(struct sentencepiece_model *model);

#endif
