/* The network that a grammar is compiled to: putting its parts together. */
#include "grammar.h"

#include <stdlib.h>
#include <string.h>

bool grammar_grow(void **items, uint32_t count, uint32_t *capacity, uint32_t most, size_t size) {
    if (count < *capacity)
        return true;
    if (count >= most)
        return false;
    uint32_t grown = *capacity ? 2 * *capacity : 64;
    void *memory = realloc(*items, (size_t)grown * size);
    if (!memory)
        return false;
    *items = memory;
    *capacity = grown;
    return true;
}

void grammar_free(struct peridot_grammar *grammar) {
    if (!grammar)
        return;
    free(grammar->nodes);
    free(grammar->edges);
    free(grammar->rules);
    free(grammar);
}

/* ---- Parts ---- */

bool grammar_add_node(struct peridot_grammar *grammar, enum grammar_node_kind kind, uint32_t a,
                      uint32_t b, uint32_t *index) {
    grammar->over_bound |= grammar->node_count >= GRAMMAR_NODES_MAX;
    if (!grammar_grow((void **)&grammar->nodes, grammar->node_count, &grammar->node_capacity,
                      GRAMMAR_NODES_MAX, sizeof *grammar->nodes))
        return false;
    *index = grammar->node_count++;
    grammar->nodes[*index] = (struct grammar_node){kind, a, b};
    return true;
}

bool grammar_add_edge(struct peridot_grammar *grammar, struct grammar_edge edge) {
    grammar->over_bound |= grammar->edge_count >= GRAMMAR_EDGES_MAX;
    if (!grammar_grow((void **)&grammar->edges, grammar->edge_count, &grammar->edge_capacity,
                      GRAMMAR_EDGES_MAX, sizeof *grammar->edges))
        return false;
    grammar->edges[grammar->edge_count++] = edge;
    return true;
}

static uint32_t moved(uint32_t node, const struct grammar_part *part, uint32_t by) {
    return node >= part->begin && node < part->end ? node + by : node;
}

/* Appends a copy of a part that was not yet linked to anything. */
static bool copy_part(struct peridot_grammar *grammar, const struct grammar_part *part) {
    uint32_t by = grammar->node_count - part->begin, index;
    for (uint32_t i = part->begin; i < part->end; i++) {
        struct grammar_node node = grammar->nodes[i];
        uint32_t edges = grammar->edge_count;
        if (node.kind == GRAMMAR_BYTES) {
            for (uint32_t j = 0; j < node.b; j++) {
                struct grammar_edge edge = grammar->edges[node.a + j];
                edge.target = moved(edge.target, part, by);
                if (!grammar_add_edge(grammar, edge))
                    return false;
            }
            node.a = edges;
        } else {
            if (node.kind != GRAMMAR_CALL) /* whose a is a rule */
                node.a = moved(node.a, part, by);
            node.b = moved(node.b, part, by);
        }
        if (!grammar_add_node(grammar, node.kind, node.a, node.b, &index))
            return false;
    }
    return true;
}

/* Which copies there are, and what they are linked by. */
struct repetition {
    struct peridot_grammar *grammar;
    const struct grammar_part *part;
    uint32_t size, current; /* the exit so far */
    uint32_t exit;
};

static bool append_copy(struct repetition *r, uint32_t copy, bool optional) {
    struct grammar_node *nodes = r->grammar->nodes;
    uint32_t entry = r->part->entry + copy * r->size, fork;
    if (optional) {
        if (!grammar_add_node(r->grammar, GRAMMAR_FORK, entry, r->exit, &fork))
            return false;
        nodes = r->grammar->nodes;
        entry = fork;
    }
    nodes[r->current].a = entry;
    r->current = r->part->exit + copy * r->size;
    return true;
}

/* From the end of copy `copy` back to its beginning, or on. */
static bool append_loop(struct repetition *r, uint32_t copy) {
    uint32_t entry = r->part->entry + copy * r->size, fork;
    if (!grammar_add_node(r->grammar, GRAMMAR_FORK, entry, r->exit, &fork))
        return false;
    r->grammar->nodes[r->current].a = fork;
    r->grammar->nodes[r->part->exit + copy * r->size].a = fork;
    return true;
}

bool grammar_repeat(struct peridot_grammar *grammar, struct grammar_part *part, uint32_t least,
                    uint32_t most) {
    bool endless = most == GRAMMAR_NONE;
    uint32_t copies = endless ? (least ? least : 1) : most, entry;
    struct repetition r = {.grammar = grammar, .part = part, .size = part->end - part->begin};
    if ((uint64_t)copies * r.size > GRAMMAR_NODES_MAX) {
        grammar->over_bound = true;
        return false;
    }
    for (uint32_t i = 1; i < copies; i++)
        if (!copy_part(grammar, part))
            return false;
    if (!grammar_add_node(grammar, GRAMMAR_EMPTY, GRAMMAR_NONE, 0, &entry) ||
        !grammar_add_node(grammar, GRAMMAR_EMPTY, GRAMMAR_NONE, 0, &r.exit))
        return false;
    r.current = entry;
    for (uint32_t i = 0; i < copies && !(endless && least == 0); i++)
        if (!append_copy(&r, i, i >= least))
            return false;
    if (endless && !append_loop(&r, copies - 1))
        return false;
    if (!endless)
        grammar->nodes[r.current].a = r.exit;
    *part = (struct grammar_part){part->begin, grammar->node_count, entry, r.exit};
    return true;
}

/* ---- The finished network ---- */

/* Where a chain of empty nodes leads; shortens it for those who come after. */
static uint32_t resolve(struct peridot_grammar *grammar, uint32_t node) {
    struct grammar_node *nodes = grammar->nodes;
    uint32_t end = node;
    while (end != GRAMMAR_NONE && nodes[end].kind == GRAMMAR_EMPTY)
        end = nodes[end].a;
    while (node != end) {
        uint32_t next = nodes[node].a;
        nodes[node].a = end;
        node = next;
    }
    return end;
}

static void find_classes(struct peridot_grammar *grammar) {
    bool begins[257] = {[0] = true};
    for (uint32_t i = 0; i < grammar->edge_count; i++) {
        begins[grammar->edges[i].low] = true;
        begins[grammar->edges[i].high + 1] = true;
    }
    uint32_t class = 0;
    for (uint32_t byte = 0; byte < 256; byte++) {
        class += byte > 0 && begins[byte];
        grammar->class_of[byte] = (uint8_t) class;
    }
    grammar->class_count = class + 1;
}

void grammar_finish(struct peridot_grammar *grammar) {
    for (uint32_t i = 0; i < grammar->node_count; i++) {
        struct grammar_node *node = &grammar->nodes[i];
        if (node->kind == GRAMMAR_FORK)
            node->a = resolve(grammar, node->a);
        if (node->kind == GRAMMAR_FORK || node->kind == GRAMMAR_CALL)
            node->b = resolve(grammar, node->b);
    }
    for (uint32_t i = 0; i < grammar->edge_count; i++)
        grammar->edges[i].target = resolve(grammar, grammar->edges[i].target);
    for (uint32_t i = 0; i < grammar->rule_count; i++)
        grammar->rules[i].start = resolve(grammar, grammar->rules[i].start);
    grammar->root = grammar->rules[grammar->root].start;
    find_classes(grammar);
}
