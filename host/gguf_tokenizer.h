/* Gemma's tokenizer as GGUF metadata holds it. */
#ifndef HOST_GGUF_TOKENIZER_H
#define HOST_GGUF_TOKENIZER_H

#include "gguf.h"
#include "tokenizer.h"

/* Makes the tokenizer that the tokenizer.model was from which the file was converted; NULL: the
 * file has none. Errors: FORMAT (something missing or damaged: what), UNSUPPORTED (another kind of
 * tokenizer: which), HOST_MEMORY. */
peridot_result gguf_tokenizer_create(const struct gguf *file, struct tokenizer **tokenizer,
                                     peridot_error *error);

/* The pieces themselves, which a tokenizer is made of; none: the file has no tokenizer. Their texts
 * lie in the file and in `*texts`, which is to be freed after the last use of them; so is the
 * model with sentencepiece_free, also after an error. */
peridot_result gguf_tokenizer_pieces(const struct gguf *file, struct sentencepiece_model *model,
                                     char **texts, peridot_error *error);

/* The id of a token, without making the tokenizer; -1: there is none. */
int64_t gguf_tokenizer_find(const struct gguf *file, const char *token);

#endif
