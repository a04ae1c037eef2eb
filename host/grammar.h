/* A grammar in GBNF, compiled to a network over bytes: what the matcher (grammar_match.h) walks.
 * Characters are taken apart into the bytes of their UTF-8, so that a token may end within one. */
#ifndef HOST_GRAMMAR_H
#define HOST_GRAMMAR_H

#include "error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bounds on what a text from outside can ask for. */
#define GRAMMAR_TEXT_MAX (16u << 20)
#define GRAMMAR_RULES_MAX (1u << 16)
#define GRAMMAR_NODES_MAX (1u << 20)
#define GRAMMAR_EDGES_MAX (1u << 21)
#define GRAMMAR_NESTING_MAX 200 /* of parentheses */

#define GRAMMAR_NONE UINT32_MAX

enum grammar_node_kind {
    GRAMMAR_EMPTY, /* goes on to a; none is left in a finished grammar */
    GRAMMAR_FORK,  /* goes on to a and to b */
    GRAMMAR_CALL,  /* goes on to rule a, and where that ends to b */
    GRAMMAR_BYTES, /* takes a byte, by edges [a, a + b) */
    GRAMMAR_END,   /* of a rule */
};

struct grammar_node {
    enum grammar_node_kind kind;
    uint32_t a, b;
};

struct grammar_edge {
    uint8_t low, high; /* both taken */
    uint32_t target;
};

struct grammar_rule {
    uint32_t name, length; /* in the text */
    uint32_t line;         /* where it is defined, or else first named */
    uint32_t start;        /* GRAMMAR_NONE: not defined */
    uint32_t begin, end;   /* its nodes */
};

struct peridot_model;

struct peridot_grammar {
    struct grammar_node *nodes;
    struct grammar_edge *edges;
    struct grammar_rule *rules;
    uint32_t node_count, node_capacity, edge_count, edge_capacity, rule_count, rule_capacity;
    uint32_t root;         /* where it starts */
    uint8_t class_of[256]; /* bytes that no edge tells apart have the same class */
    uint32_t class_count;
    bool over_bound;                   /* that is why a part of it could not be made */
    const struct peridot_model *model; /* whose tokens it is for */
};

/* Errors: FORMAT (which line, what is wrong there; an undefined rule; left recursion), UNSUPPORTED
 * (over a bound), HOST_MEMORY. */
peridot_result grammar_parse(const char *text, size_t length, struct peridot_grammar **grammar,
                             peridot_error *error);
void grammar_free(struct peridot_grammar *grammar); /* accepts NULL */

/* ---- For the parser ---- */

/* Nodes [begin, end): entered at `entry`, left at `exit`, an empty node that leads nowhere yet. */
struct grammar_part {
    uint32_t begin, end, entry, exit;
};

/* A set of characters, in order and apart from each other once grammar_set_settle was called. */
struct grammar_range {
    uint32_t low, high;
};
struct grammar_set {
    struct grammar_range *ranges;
    uint32_t count, capacity;
};

/* These return false where memory or a bound does not suffice. */
bool grammar_add_node(struct peridot_grammar *grammar, enum grammar_node_kind kind, uint32_t a,
                      uint32_t b, uint32_t *index);
bool grammar_add_edge(struct peridot_grammar *grammar, struct grammar_edge edge);
/* The part repeated, at least `least` times and at most `most`; GRAMMAR_NONE: no matter how often.
 */
bool grammar_repeat(struct peridot_grammar *grammar, struct grammar_part *part, uint32_t least,
                    uint32_t most);
bool grammar_set_add(struct grammar_set *set, uint32_t low, uint32_t high);
/* Puts the ranges in order, inverts them if asked, and drops surrogates, which are no characters.
 */
bool grammar_set_settle(struct grammar_set *set, bool inverted);
/* A part that takes one character of a set, which is settled and not empty. */
bool grammar_add_set(struct peridot_grammar *grammar, const struct grammar_set *set,
                     struct grammar_part *part);
/* Room for one more of `size` bytes each; `most`: a bound. */
bool grammar_grow(void **items, uint32_t count, uint32_t *capacity, uint32_t most, size_t size);

/* Takes the empty nodes out, and finds the classes of bytes. */
void grammar_finish(struct peridot_grammar *grammar);
/* A rule that can come to itself before any character, so that matching would never end; the caller
 * tells of it. GRAMMAR_NONE: there is none. Errors: HOST_MEMORY. */
peridot_result grammar_find_left_recursion(const struct peridot_grammar *grammar, uint32_t *rule,
                                           peridot_error *error);

#endif
