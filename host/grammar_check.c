/* Left recursion: which rules come to which others before any character. */
#include "grammar.h"

#include <stdlib.h>
#include <string.h>

/* Nodes that are reached from the beginning of their rule without a character. A call is passed
 * when its rule is known to be able to be empty; until then it waits. */
struct reach {
    const struct peridot_grammar *grammar;
    bool *reached;                          /* [node_count] */
    bool *empty;                            /* [rule_count] */
    uint32_t *owner;                        /* [node_count]: the rule that a node belongs to */
    uint32_t *work, left;                   /* reached nodes that are still to be looked at */
    uint32_t *next_waiting, *first_waiting; /* calls of a rule that wait: [node], [rule] */
};

static void reach_node(struct reach *r, uint32_t node) {
    if (!r->reached[node]) {
        r->reached[node] = true;
        r->work[r->left++] = node;
    }
}

static void call(struct reach *r, uint32_t node) {
    const struct grammar_node *calling = &r->grammar->nodes[node];
    if (r->empty[calling->a]) {
        reach_node(r, calling->b);
    } else {
        r->next_waiting[node] = r->first_waiting[calling->a];
        r->first_waiting[calling->a] = node;
    }
}

static void look_at(struct reach *r, uint32_t index) {
    const struct grammar_node *node = &r->grammar->nodes[index];
    if (node->kind == GRAMMAR_FORK) {
        reach_node(r, node->a);
        reach_node(r, node->b);
    } else if (node->kind == GRAMMAR_CALL) {
        call(r, index);
    } else if (node->kind == GRAMMAR_END && !r->empty[r->owner[index]]) {
        uint32_t rule = r->owner[index];
        r->empty[rule] = true;
        for (uint32_t i = r->first_waiting[rule]; i != GRAMMAR_NONE; i = r->next_waiting[i])
            reach_node(r, r->grammar->nodes[i].b);
    }
}

static void reach_all(struct reach *r) {
    for (uint32_t i = 0; i < r->grammar->rule_count; i++) {
        const struct grammar_rule *rule = &r->grammar->rules[i];
        r->first_waiting[i] = GRAMMAR_NONE;
        for (uint32_t node = rule->begin; node < rule->end; node++)
            r->owner[node] = i;
    }
    for (uint32_t i = 0; i < r->grammar->rule_count; i++)
        reach_node(r, r->grammar->rules[i].start);
    while (r->left)
        look_at(r, r->work[--r->left]);
}

/* A rule on a circle of calls that are reached, by taking rules that no other one calls away. */
static uint32_t find_circle(const struct reach *r, uint32_t *callers, uint32_t *queue) {
    const struct peridot_grammar *grammar = r->grammar;
    uint32_t count = 0;
    for (uint32_t i = 0; i < grammar->node_count; i++)
        if (r->reached[i] && grammar->nodes[i].kind == GRAMMAR_CALL)
            callers[grammar->nodes[i].a]++;
    for (uint32_t i = 0; i < grammar->rule_count; i++)
        if (!callers[i])
            queue[count++] = i;
    for (uint32_t done = 0; done < count; done++) {
        const struct grammar_rule *rule = &grammar->rules[queue[done]];
        for (uint32_t i = rule->begin; i < rule->end; i++)
            if (r->reached[i] && grammar->nodes[i].kind == GRAMMAR_CALL &&
                --callers[grammar->nodes[i].a] == 0)
                queue[count++] = grammar->nodes[i].a;
    }
    /* what is left is on a circle or called from one */
    uint32_t rule = 0;
    while (rule < grammar->rule_count && !callers[rule])
        rule++;
    return rule < grammar->rule_count ? rule : GRAMMAR_NONE;
}

/* From a rule that is left over one of its callers, again and again: the rule that is met twice is
 * on a circle. */
static uint32_t rule_on_circle(const struct reach *r, const uint32_t *callers, uint32_t rule,
                               uint32_t *caller_of, bool *seen) {
    const struct grammar_node *nodes = r->grammar->nodes;
    for (uint32_t i = 0; i < r->grammar->node_count; i++)
        if (r->reached[i] && nodes[i].kind == GRAMMAR_CALL && callers[r->owner[i]])
            caller_of[nodes[i].a] = r->owner[i];
    for (; !seen[rule]; rule = caller_of[rule])
        seen[rule] = true;
    return rule;
}

peridot_result grammar_find_left_recursion(const struct peridot_grammar *grammar, uint32_t *rule,
                                           peridot_error *error) {
    uint32_t nodes = grammar->node_count, rules = grammar->rule_count;
    struct reach r = {
        .grammar = grammar,
        .reached = calloc(nodes, sizeof *r.reached),
        .empty = calloc(rules, sizeof *r.empty),
        .owner = calloc(nodes, sizeof *r.owner),
        .work = calloc(nodes, sizeof *r.work),
        .next_waiting = calloc(nodes, sizeof *r.next_waiting),
        .first_waiting = calloc(rules, sizeof *r.first_waiting),
    };
    uint32_t *callers = calloc(rules, sizeof *callers), *queue = calloc(rules, sizeof *queue);
    bool *seen = calloc(rules, sizeof *seen);
    bool memory = r.reached && r.empty && r.owner && r.work && r.next_waiting && r.first_waiting &&
                  callers && queue && seen;
    if (memory) {
        reach_all(&r);
        *rule = find_circle(&r, callers, queue);
        if (*rule != GRAMMAR_NONE)
            *rule = rule_on_circle(&r, callers, *rule, queue, seen);
    }
    free(r.reached);
    free(r.empty);
    free(r.owner);
    free(r.work);
    free(r.next_waiting);
    free(r.first_waiting);
    free(callers);
    free(queue);
    free(seen);
    return memory ? PERIDOT_OK
                  : fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory for the grammar");
}
