/* Gemma's tokenizer: SentencePiece BPE with byte fallback, text to ids and back. */
#ifndef HOST_TOKENIZER_H
#define HOST_TOKENIZER_H

#include "sentencepiece.h"

struct tokenizer;

enum tokenizer_mode {
    TOKENIZER_SPECIAL, /* as SentencePiece does: every user-defined piece in the text counts */
    /* what a person types: turn markers, <mask>, <2mass>, [@BOS@] and <unusedN> are characters */
    TOKENIZER_PLAIN,
};

/* A growing list of token ids; all-zero is empty. */
struct token_list {
    int32_t *ids;
    size_t count, capacity;
};
bool token_list_add(struct token_list *list, int32_t id); /* false without memory */
void token_list_free(struct token_list *list);

struct tokenizer_specials {
    int32_t bos, eos, unk, pad, start_of_turn, end_of_turn; /* -1: there is none */
};

/* Whether a piece steers the model (the turn markers, <mask>, <2mass>, [@BOS@], <unusedN>), so that
 * no person must be able to type it. */
bool tokenizer_is_reserved(const struct piece *piece);

/* From a tokenizer.model in memory; copies what it needs. `name` stands in messages. Errors: FORMAT
 * (damaged; two equal pieces; a byte without its piece; an id beyond the pieces), UNSUPPORTED (not
 * BPE, or with rules that Gemma's tokenizer does not have), HOST_MEMORY. */
peridot_result tokenizer_create(const void *data, size_t size, const char *name,
                                struct tokenizer **tokenizer, peridot_error *error);
/* The same from pieces, whatever file they stand in; the array and the texts are copied. */
peridot_result tokenizer_create_pieces(const struct sentencepiece_model *model, const char *name,
                                       struct tokenizer **tokenizer, peridot_error *error);
/* The same in steps, each of so many pieces: NOT_READY until the last one, which gives the
 * tokenizer. `model` and `name` live until tokenizer_end, which is due after an error too. */
struct tokenizer_making;
peridot_result tokenizer_begin(const struct sentencepiece_model *model, const char *name,
                               struct tokenizer_making **making, peridot_error *error);
peridot_result tokenizer_step(struct tokenizer_making *making, uint32_t pieces,
                              struct tokenizer **tokenizer, peridot_error *error);
void tokenizer_end(struct tokenizer_making *making); /* accepts NULL */
void tokenizer_destroy(struct tokenizer *tokenizer); /* accepts NULL */

/* Appends the ids of a text, without <bos>. Bytes that are not UTF-8 count as U+FFFD each. On an
 * error the list is as it was. Errors: HOST_MEMORY, ARGUMENT (a text of 512 MiB or more). */
peridot_result tokenizer_encode(const struct tokenizer *tokenizer, const char *text, size_t length,
                                enum tokenizer_mode mode, struct token_list *list,
                                peridot_error *error);
/* The text of ids as the SentencePiece library decodes them; `*text` is valid UTF-8, NUL-terminated
 * and the caller's to free. Errors: ARGUMENT (an id out of range), HOST_MEMORY. */
peridot_result tokenizer_decode(const struct tokenizer *tokenizer, const int32_t *ids, size_t count,
                                char **text, size_t *length, peridot_error *error);
/* The bytes that a token adds to a stream: spaces for U+2581, one byte for a byte piece, " \u2047 "
 * for the unknown piece, none for a control piece. Owned by the tokenizer. False: out of range. */
bool tokenizer_piece(const struct tokenizer *tokenizer, int32_t id, const char **bytes,
                     size_t *length);

/* Whether a token stands for text that an answer may have: not the turn markers and their like, nor
 * control, unknown and unused pieces. */
bool tokenizer_writes(const struct tokenizer *tokenizer, int32_t id);

uint32_t tokenizer_vocabulary(const struct tokenizer *tokenizer);
/* The id of a piece of any type, as it stands in the file (U+2581 for spaces); -1: there is none.
 */
int32_t tokenizer_find(const struct tokenizer *tokenizer, const char *piece);
enum piece_type tokenizer_type(const struct tokenizer *tokenizer, int32_t id); /* id is in range */
struct tokenizer_specials tokenizer_specials(const struct tokenizer *tokenizer);

#endif
