/* The bytes of all tokens that write text, as a tree: what a grammar allows is found by walking it,
 * so that what many tokens begin with is matched once. */
#ifndef HOST_TOKEN_TRIE_H
#define HOST_TOKEN_TRIE_H

#include "grammar_match.h"

struct token_text {
    const char *bytes; /* the caller's, only read while the tree is made */
    uint32_t length;   /* not 0 */
    uint32_t id;
};

struct token_trie;

/* Reorders `texts`. Errors: HOST_MEMORY. */
peridot_result token_trie_create(struct token_text *texts, uint32_t count, struct token_trie **trie,
                                 peridot_error *error);
void token_trie_destroy(struct token_trie *trie); /* accepts NULL */

/* Sets the bit of each token whose bytes a match in this state can go on with; `words` has room for
 * the largest id. Errors: as grammar_match_error. */
peridot_result token_trie_allow(const struct token_trie *trie, struct grammar_match *match,
                                uint32_t state, uint32_t *words, peridot_error *error);

#endif
