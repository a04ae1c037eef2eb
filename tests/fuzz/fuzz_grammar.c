/* A grammar from outside, then a text to match, behind the first byte 0. What may come next is
 * asked of a tree of a few tokens, and must be what matching each of them says. */
#include "token_trie.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const tokens[] = {"a",   "ab", "\"", "{\"",  "\n",       " ",    "0",
                                     "123", "b",  "x",  "\xc3", "\xc3\xa9", "\xa9", "true"};
#define TOKENS (sizeof tokens / sizeof *tokens)

static uint32_t follow(struct grammar_match *match, uint32_t state, const char *text,
                       size_t length) {
    for (size_t i = 0; i < length && state > MATCH_DEAD; i++)
        state = grammar_match_step(match, state, (uint8_t)text[i]);
    return state;
}

static void check_mask(const struct token_trie *trie, struct grammar_match *match, uint32_t state) {
    uint32_t words[1] = {0};
    if (token_trie_allow(trie, match, state, words, NULL))
        return;
    for (size_t i = 0; i < TOKENS; i++) {
        uint32_t after = follow(match, state, tokens[i], strlen(tokens[i]));
        if ((after > MATCH_DEAD) != (words[0] >> i & 1))
            abort();
    }
}

static void match_text(const struct peridot_grammar *grammar, const char *text, size_t length) {
    struct token_text texts[TOKENS];
    struct token_trie *trie;
    struct grammar_match *match;
    if (grammar_match_create(grammar, &match, NULL))
        return;
    for (uint32_t i = 0; i < TOKENS; i++)
        texts[i] = (struct token_text){tokens[i], (uint32_t)strlen(tokens[i]), i};
    if (token_trie_create(texts, TOKENS, &trie, NULL))
        abort();
    uint32_t state = grammar_match_start(match);
    check_mask(trie, match, state);
    for (size_t i = 0; i < length && i < 200 && state > MATCH_DEAD; i++) {
        state = follow(match, state, text + i, 1);
        if (state > MATCH_DEAD && i < 8)
            check_mask(trie, match, state);
    }
    token_trie_destroy(trie);
    grammar_match_destroy(match);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const uint8_t *end = size ? memchr(data, 0, size) : NULL;
    size_t length = end ? (size_t)(end - data) : size;
    struct peridot_grammar *grammar;
    if (grammar_parse((const char *)data, length, &grammar, NULL))
        return 0;
    match_text(grammar, (const char *)data + length, size - length);
    if (end)
        match_text(grammar, (const char *)end + 1, size - length - 1);
    grammar_free(grammar);
    return 0;
}
