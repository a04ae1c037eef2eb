#include "token_trie.h"

#include <stdlib.h>
#include <string.h>

/* Nodes stand in the order of a walk through the tree, so that walking is going on by one, and
 * leaving out what lies under a node a jump. */
struct node {
    uint32_t skip;  /* the first node that does not lie under this one */
    uint32_t first; /* of the tokens that end here, [first, next node's first) */
    uint16_t depth; /* bytes before it */
    uint8_t byte;
};

struct token_trie {
    struct node *nodes;
    uint32_t count;
    uint32_t *ids; /* of tokens, in the order of the nodes at which they end */
    uint32_t depth_max;
};

static uint32_t common_length(const struct token_text *a, const struct token_text *b) {
    uint32_t length = 0, most = a->length < b->length ? a->length : b->length;
    while (length < most && a->bytes[length] == b->bytes[length])
        length++;
    return length;
}

static int in_order(const void *a, const void *b) {
    const struct token_text *x = a, *y = b;
    int order = memcmp(x->bytes, y->bytes, x->length < y->length ? x->length : y->length);
    return order                    ? order
           : x->length != y->length ? (x->length < y->length ? -1 : 1)
           : x->id < y->id          ? -1
                                    : x->id > y->id;
}

/* Nodes for the bytes of a text that the one before it does not share; `open` are the nodes on the
 * way to that one. */
static void add_text(struct token_trie *trie, const struct token_text *text, uint32_t shared,
                     uint32_t index, uint32_t *open) {
    for (uint32_t depth = shared; depth < text->length; depth++) {
        open[depth] = trie->count;
        trie->nodes[trie->count++] = (struct node){
            .first = index, .depth = (uint16_t)depth, .byte = (uint8_t)text->bytes[depth]};
    }
}

static void close_nodes(struct token_trie *trie, const uint32_t *open, uint32_t from, uint32_t to) {
    for (uint32_t depth = from; depth < to; depth++)
        trie->nodes[open[depth]].skip = trie->count;
}

/* `texts` are in order. */
static void fill(struct token_trie *trie, const struct token_text *texts, uint32_t count,
                 uint32_t *open) {
    for (uint32_t i = 0; i < count; i++) {
        uint32_t shared = i ? common_length(&texts[i - 1], &texts[i]) : 0;
        if (i)
            close_nodes(trie, open, shared, texts[i - 1].length);
        add_text(trie, &texts[i], shared, i, open);
        trie->ids[i] = texts[i].id;
    }
    if (count)
        close_nodes(trie, open, 0, texts[count - 1].length);
    trie->nodes[trie->count].first = count; /* ends the last node's tokens */
}

peridot_result token_trie_create(struct token_text *texts, uint32_t count, struct token_trie **trie,
                                 peridot_error *error) {
    uint64_t nodes = 1;
    uint32_t depth = 1;
    if (count)
        qsort(texts, count, sizeof *texts, in_order);
    for (uint32_t i = 0; i < count; i++) {
        nodes += texts[i].length - (i ? common_length(&texts[i - 1], &texts[i]) : 0);
        depth = texts[i].length > depth ? texts[i].length : depth;
    }
    struct token_trie *made = calloc(1, sizeof *made);
    uint32_t *open = calloc(depth, sizeof *open);
    if (made && depth <= UINT16_MAX && nodes < UINT32_MAX) {
        made->depth_max = depth;
        made->nodes = calloc(nodes, sizeof *made->nodes);
        made->ids = calloc(count ? count : 1, sizeof *made->ids);
    }
    *trie = NULL;
    if (!made || !open || !made->nodes || !made->ids) {
        free(open);
        token_trie_destroy(made);
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory for the tokens' texts");
    }
    fill(made, texts, count, open);
    free(open);
    *trie = made;
    return PERIDOT_OK;
}

void token_trie_destroy(struct token_trie *trie) {
    if (!trie)
        return;
    free(trie->nodes);
    free(trie->ids);
    free(trie);
}

static void allow(const struct token_trie *trie, const struct node *node, uint32_t *words) {
    for (uint32_t i = node->first; i < node[1].first; i++)
        words[trie->ids[i] / 32] |= 1u << trie->ids[i] % 32;
}

peridot_result token_trie_allow(const struct token_trie *trie, struct grammar_match *match,
                                uint32_t state, uint32_t *words, peridot_error *error) {
    uint32_t *states = malloc((trie->depth_max + 1) * sizeof *states); /* by depth */
    if (!states)
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory while matching the grammar");
    peridot_result result = PERIDOT_OK;
    states[0] = state;
    for (uint32_t i = 0; i < trie->count && !result;) {
        const struct node *node = &trie->nodes[i];
        uint32_t next = grammar_match_step(match, states[node->depth], node->byte);
        states[node->depth + 1] = next;
        if (next > MATCH_DEAD) {
            allow(trie, node, words);
            i++;
        } else {
            i = node->skip;
            if (next == MATCH_FAILED)
                result = grammar_match_error(match, error);
        }
    }
    free(states);
    return result;
}
