/* Sets of characters, and the bytes of their UTF-8. */
#include "grammar.h"

#include <stdlib.h>

#define CHARACTER_MAX 0x10ffffu
#define SURROGATES_BEGIN 0xd800u
#define SURROGATES_END 0xe000u

bool grammar_set_add(struct grammar_set *set, uint32_t low, uint32_t high) {
    if (!grammar_grow((void **)&set->ranges, set->count, &set->capacity, GRAMMAR_TEXT_MAX,
                      sizeof *set->ranges))
        return false;
    set->ranges[set->count++] = (struct grammar_range){low, high};
    return true;
}

static int lowest_first(const void *a, const void *b) {
    const struct grammar_range *x = a, *y = b;
    return x->low < y->low ? -1 : x->low > y->low;
}

/* Leaves as few ranges as there can be. */
static void merge(struct grammar_set *set) {
    uint32_t kept = 0;
    if (set->count)
        qsort(set->ranges, set->count, sizeof *set->ranges, lowest_first);
    for (uint32_t i = 0; i < set->count; i++) {
        struct grammar_range range = set->ranges[i];
        if (kept && range.low <= set->ranges[kept - 1].high + 1) {
            if (range.high > set->ranges[kept - 1].high)
                set->ranges[kept - 1].high = range.high;
        } else {
            set->ranges[kept++] = range;
        }
    }
    set->count = kept;
}

/* What a merged set does not have. */
static bool invert(struct grammar_set *set) {
    struct grammar_set other = {0};
    uint32_t next = 0;
    bool good = true;
    for (uint32_t i = 0; i < set->count && good; i++) {
        if (set->ranges[i].low > next)
            good = grammar_set_add(&other, next, set->ranges[i].low - 1);
        next = set->ranges[i].high + 1;
    }
    if (good && next <= CHARACTER_MAX)
        good = grammar_set_add(&other, next, CHARACTER_MAX);
    free(set->ranges);
    *set = other;
    return good;
}

static bool drop_surrogates(struct grammar_set *set) {
    struct grammar_set kept = {0};
    bool good = true;
    for (uint32_t i = 0; i < set->count && good; i++) {
        struct grammar_range range = set->ranges[i];
        if (range.low < SURROGATES_BEGIN)
            good =
                grammar_set_add(&kept, range.low,
                                range.high < SURROGATES_BEGIN ? range.high : SURROGATES_BEGIN - 1);
        if (good && range.high >= SURROGATES_END)
            good = grammar_set_add(&kept, range.low >= SURROGATES_END ? range.low : SURROGATES_END,
                                   range.high);
    }
    free(set->ranges);
    *set = kept;
    return good;
}

bool grammar_set_settle(struct grammar_set *set, bool inverted) {
    merge(set);
    return (!inverted || invert(set)) && drop_surrogates(set);
}

/* ---- UTF-8 ---- */

/* The last character whose UTF-8 has so many bytes. */
static const uint32_t last_of_length[5] = {0, 0x7f, 0x7ff, 0xffff, CHARACTER_MAX};

static uint32_t encode(uint32_t character, uint8_t bytes[4]) {
    static const uint8_t leads[5] = {0, 0, 0xc0, 0xe0, 0xf0};
    uint32_t length = 1;
    while (character > last_of_length[length])
        length++;
    for (uint32_t i = length; i-- > 1; character >>= 6)
        bytes[i] = (uint8_t)(0x80 | (character & 0x3f));
    bytes[0] = (uint8_t)(leads[length] | character);
    return length;
}

/* Bytes [low[i], high[i]] at place i, independent of each other. */
struct byte_sequence {
    uint8_t low[4], high[4];
    uint32_t length;
};

/* The sequence that takes the most characters from `low` on, and no others than those to `high`;
 * `*next` is the one behind its last. */
static struct byte_sequence first_sequence(uint32_t low, uint32_t high, uint32_t *next) {
    struct byte_sequence sequence;
    uint8_t bytes[4];
    uint32_t length = encode(low, bytes), last = high;
    if (last > last_of_length[length])
        last = last_of_length[length];
    /* as many last bytes as can run through all their values */
    for (uint32_t free_bits = 6 * (length - 1);; free_bits -= 6) {
        uint32_t block = 1u << free_bits; /* characters that differ in those bytes alone */
        if (low % block == 0 && last - low >= block - 1) {
            /* and of the byte before them every value to the end of its own run */
            uint32_t run = free_bits + 6 > 6 * (length - 1) ? CHARACTER_MAX + 1 : block * 64;
            uint32_t end = run > CHARACTER_MAX ? last : (low / run + 1) * run - 1;
            if (end > last)
                end = last;
            last = low + (end + 1 - low) / block * block - 1;
            break;
        }
    }
    sequence.length = encode(low, sequence.low);
    encode(last, sequence.high);
    *next = last + 1;
    return sequence;
}

/* What a sequence is made of behind its first byte: nodes of one set that are alike are one. */
struct tail {
    uint32_t low, high, target, node;
};
struct tails {
    struct tail *list;
    uint32_t count, capacity;
};

static bool find_tail(struct peridot_grammar *grammar, struct tails *tails, uint8_t low,
                      uint8_t high, uint32_t target, uint32_t *node) {
    /* those that are used again were made lately */
    for (uint32_t i = 0; i < 16 && i < tails->count; i++) {
        const struct tail *tail = &tails->list[tails->count - 1 - i];
        if (tail->low == low && tail->high == high && tail->target == target) {
            *node = tail->node;
            return true;
        }
    }
    if (!grammar_add_node(grammar, GRAMMAR_BYTES, grammar->edge_count, 1, node) ||
        !grammar_add_edge(grammar, (struct grammar_edge){low, high, target}) ||
        !grammar_grow((void **)&tails->list, tails->count, &tails->capacity, GRAMMAR_NODES_MAX,
                      sizeof *tails->list))
        return false;
    tails->list[tails->count++] = (struct tail){low, high, target, *node};
    return true;
}

/* The edges by which the set's characters begin; those of one node must follow each other, so they
 * are kept until the other nodes are made. */
struct heads {
    struct grammar_edge *list;
    uint32_t count, capacity;
};

static bool add_sequence(struct peridot_grammar *grammar, const struct byte_sequence *sequence,
                         uint32_t exit, struct tails *tails, struct heads *heads) {
    uint32_t target = exit;
    for (uint32_t i = sequence->length; i-- > 1;)
        if (!find_tail(grammar, tails, sequence->low[i], sequence->high[i], target, &target))
            return false;
    if (!grammar_grow((void **)&heads->list, heads->count, &heads->capacity, GRAMMAR_EDGES_MAX,
                      sizeof *heads->list))
        return false;
    heads->list[heads->count++] =
        (struct grammar_edge){sequence->low[0], sequence->high[0], target};
    return true;
}

bool grammar_add_set(struct peridot_grammar *grammar, const struct grammar_set *set,
                     struct grammar_part *part) {
    struct tails tails = {0};
    struct heads heads = {0};
    part->begin = grammar->node_count;
    bool good = grammar_add_node(grammar, GRAMMAR_EMPTY, GRAMMAR_NONE, 0, &part->exit);
    for (uint32_t i = 0; i < set->count && good; i++)
        for (uint32_t low = set->ranges[i].low; low <= set->ranges[i].high && good;) {
            struct byte_sequence sequence = first_sequence(low, set->ranges[i].high, &low);
            good = add_sequence(grammar, &sequence, part->exit, &tails, &heads);
        }
    good = good &&
           grammar_add_node(grammar, GRAMMAR_BYTES, grammar->edge_count, heads.count, &part->entry);
    for (uint32_t i = 0; i < heads.count && good; i++)
        good = grammar_add_edge(grammar, heads.list[i]);
    free(tails.list);
    free(heads.list);
    part->end = grammar->node_count;
    return good;
}
