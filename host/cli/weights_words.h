/* Types of weights and of the KV cache by the words that --weights and --kv take. */
#ifndef CLI_WEIGHTS_WORDS_H
#define CLI_WEIGHTS_WORDS_H

#include "peridot.h"

#include <stdbool.h>

/* "bf16", "q4_k" …; "mixed" for PERIDOT_WEIGHTS_AUTO. */
const char *weights_name(peridot_weights weights);
/* A type, "int8", "q4", "auto" or "file" to what it means; false: none of them. */
bool weights_read(const char *text, peridot_weights *weights);
/* All words that weights_read knows, ended by NULL. */
const char *const *weights_words(void);

extern const char *const kv_words[]; /* by peridot_kv, ended by NULL */

#endif
