#include "grammar_match.h"

#include <stdlib.h>
#include <string.h>

/* Where a rule goes on when the one that it called ends, on top of another frame. Equal ones are
 * one, so that stacks are equal where their numbers are. Frame 0 is the bottom. */
struct frame {
    uint32_t node, parent, depth;
};

/* A place: a node of the network and the stack there, in one word. */
typedef uint64_t config;

struct state {
    uint32_t first, count; /* its places at nodes that take a byte, in order */
    bool accepts;
};

/* A hash table of numbers from 1 on, by open addressing; what they stand for is elsewhere. */
struct table {
    uint32_t *slots, size, count;
};

struct grammar_match {
    const struct peridot_grammar *grammar;
    struct frame *frames;
    struct state *states;
    config *configs; /* of all states */
    uint32_t *next;  /* [state][class]; 0: not known yet */
    uint32_t frame_count, frame_capacity, state_count, state_capacity, config_count,
        config_capacity, row_capacity;
    struct table frame_table, state_table, seen_table;
    config *seen; /* the places passed in the step at hand: also those still to be looked at */
    uint32_t seen_count, seen_capacity;
    config *found; /* of those the ones that take a byte */
    uint32_t found_count, found_capacity;
    bool accepts; /* in the step at hand */
    uint32_t start;
    enum { FINE, OVER_BOUND, NO_MEMORY } failure;
};

static uint32_t node_of(config c) {
    return (uint32_t)(c >> 32);
}

static uint32_t frame_of(config c) {
    return (uint32_t)c;
}

static bool over(struct grammar_match *m) {
    m->failure = OVER_BOUND;
    return false;
}

/* Room for one more. */
static bool grow(struct grammar_match *m, void **items, uint32_t count, uint32_t *capacity,
                 uint32_t most, size_t size) {
    if (grammar_grow(items, count, capacity, most, size))
        return true;
    m->failure = count >= most ? OVER_BOUND : NO_MEMORY;
    return false;
}

/* ---- Hash tables ---- */

static uint64_t mix(uint64_t value) {
    value = (value ^ value >> 31) * 0x9e3779b97f4a7c15u;
    value = (value ^ value >> 29) * 0xbf58476d1ce4e5b9u;
    return value ^ value >> 32;
}

static uint64_t hash_frame(const struct grammar_match *m, uint32_t frame) {
    return mix((uint64_t)m->frames[frame].node << 32 | m->frames[frame].parent);
}

static uint64_t hash_configs(const config *configs, uint32_t count, bool accepts) {
    uint64_t hash = accepts;
    for (uint32_t i = 0; i < count; i++)
        hash = mix(hash ^ configs[i]);
    return mix(hash);
}

static uint64_t hash_entry(const struct grammar_match *m, const struct table *table,
                           uint32_t entry) {
    if (table == &m->frame_table)
        return hash_frame(m, entry);
    if (table == &m->seen_table)
        return mix(m->seen[entry - 1]);
    const struct state *state = &m->states[entry];
    return hash_configs(m->configs + state->first, state->count, state->accepts);
}

/* Room for one more entry. */
static bool table_reserve(struct grammar_match *m, struct table *table) {
    if (2 * (table->count + 1) <= table->size)
        return true;
    uint32_t size = table->size ? 2 * table->size : 256;
    uint32_t *slots = calloc(size, sizeof *slots);
    if (!slots) {
        m->failure = NO_MEMORY;
        return false;
    }
    for (uint32_t i = 0; i < table->size; i++) {
        if (!table->slots[i])
            continue;
        uint32_t slot = (uint32_t)hash_entry(m, table, table->slots[i]) & (size - 1);
        while (slots[slot])
            slot = (slot + 1) & (size - 1);
        slots[slot] = table->slots[i];
    }
    free(table->slots);
    table->slots = slots;
    table->size = size;
    return true;
}

static void table_clear(struct table *table) {
    if (table->count)
        memset(table->slots, 0, table->size * sizeof *table->slots);
    table->count = 0;
}

/* ---- Stacks ---- */

/* The number of the frame; 0: it failed. */
static uint32_t find_frame(struct grammar_match *m, uint32_t node, uint32_t parent) {
    struct table *table = &m->frame_table;
    if (!table_reserve(m, table) || !grow(m, (void **)&m->frames, m->frame_count,
                                          &m->frame_capacity, MATCH_FRAMES_MAX, sizeof *m->frames))
        return 0;
    m->frames[m->frame_count] = (struct frame){node, parent, m->frames[parent].depth + 1};
    uint32_t slot = (uint32_t)hash_frame(m, m->frame_count) & (table->size - 1);
    for (; table->slots[slot]; slot = (slot + 1) & (table->size - 1)) {
        const struct frame *frame = &m->frames[table->slots[slot]];
        if (frame->node == node && frame->parent == parent)
            return table->slots[slot];
    }
    table->slots[slot] = m->frame_count;
    table->count++;
    return m->frame_count++;
}

/* A place that the step at hand passes. */
static bool pass(struct grammar_match *m, uint32_t node, uint32_t frame) {
    struct table *table = &m->seen_table;
    config place = (config)node << 32 | frame;
    if (!table_reserve(m, table) || !grow(m, (void **)&m->seen, m->seen_count, &m->seen_capacity,
                                          MATCH_CONFIGS_MAX, sizeof *m->seen))
        return false;
    uint32_t slot = (uint32_t)mix(place) & (table->size - 1);
    for (; table->slots[slot]; slot = (slot + 1) & (table->size - 1))
        if (m->seen[table->slots[slot] - 1] == place)
            return true;
    m->seen[m->seen_count++] = place;
    table->slots[slot] = m->seen_count;
    table->count++;
    return true;
}

static bool call(struct grammar_match *m, const struct grammar_node *node, uint32_t frame) {
    const struct peridot_grammar *grammar = m->grammar;
    uint32_t start = grammar->rules[node->a].start;
    if (grammar->nodes[node->b].kind == GRAMMAR_END) /* nothing to come back for */
        return pass(m, start, frame);
    if (m->frames[frame].depth >= MATCH_DEPTH_MAX)
        return true;
    uint32_t above = find_frame(m, node->b, frame);
    return above && pass(m, start, above);
}

static bool look_at(struct grammar_match *m, config place) {
    const struct grammar_node *node = &m->grammar->nodes[node_of(place)];
    uint32_t frame = frame_of(place);
    switch (node->kind) {
    case GRAMMAR_FORK:
        return pass(m, node->a, frame) && pass(m, node->b, frame);
    case GRAMMAR_CALL:
        return call(m, node, frame);
    case GRAMMAR_END:
        if (frame)
            return pass(m, m->frames[frame].node, m->frames[frame].parent);
        m->accepts = true;
        return true;
    default:
        if (!grow(m, (void **)&m->found, m->found_count, &m->found_capacity, MATCH_CONFIGS_MAX,
                  sizeof *m->found))
            return false;
        m->found[m->found_count++] = place;
        return true;
    }
}

/* ---- States ---- */

static int in_order(const void *a, const void *b) {
    config x = *(const config *)a, y = *(const config *)b;
    return x < y ? -1 : x > y;
}

static bool is_state(const struct grammar_match *m, const struct state *state) {
    return state->count == m->found_count && state->accepts == m->accepts &&
           memcmp(m->configs + state->first, m->found, m->found_count * sizeof *m->found) == 0;
}

static bool add_state(struct grammar_match *m) {
    uint32_t classes = m->grammar->class_count;
    uint32_t most = MATCH_TABLE_MAX / classes;
    if (m->state_count >= most || MATCH_STORED_MAX - m->config_count < m->found_count)
        return over(m);
    if (!grow(m, (void **)&m->states, m->state_count, &m->state_capacity, MATCH_STATES_MAX,
              sizeof *m->states) ||
        !grow(m, (void **)&m->next, m->state_count, &m->row_capacity, MATCH_STATES_MAX,
              classes * sizeof *m->next))
        return false;
    for (uint32_t i = 0; i < m->found_count; i++) {
        if (!grow(m, (void **)&m->configs, m->config_count + i, &m->config_capacity,
                  MATCH_STORED_MAX, sizeof *m->configs))
            return false;
        m->configs[m->config_count + i] = m->found[i];
    }
    m->states[m->state_count] = (struct state){m->config_count, m->found_count, m->accepts};
    memset(m->next + (size_t)m->state_count * classes, 0, classes * sizeof *m->next);
    m->config_count += m->found_count;
    m->state_count++;
    return true;
}

/* The state of what the step at hand found. */
static uint32_t find_state(struct grammar_match *m) {
    struct table *table = &m->state_table;
    if (!m->found_count && !m->accepts)
        return MATCH_DEAD;
    if (m->found_count > 1)
        qsort(m->found, m->found_count, sizeof *m->found, in_order);
    if (!table_reserve(m, table))
        return MATCH_FAILED;
    uint32_t slot =
        (uint32_t)hash_configs(m->found, m->found_count, m->accepts) & (table->size - 1);
    for (; table->slots[slot]; slot = (slot + 1) & (table->size - 1))
        if (is_state(m, &m->states[table->slots[slot]]))
            return table->slots[slot];
    if (!add_state(m))
        return MATCH_FAILED;
    table->slots[slot] = m->state_count - 1;
    table->count++;
    return m->state_count - 1;
}

static void begin_step(struct grammar_match *m) {
    table_clear(&m->seen_table);
    m->seen_count = m->found_count = 0;
    m->accepts = false;
}

/* Follows all that was passed. */
static uint32_t end_step(struct grammar_match *m) {
    for (uint32_t i = 0; i < m->seen_count; i++)
        if (!look_at(m, m->seen[i]))
            return MATCH_FAILED;
    return find_state(m);
}

static uint32_t make_step(struct grammar_match *m, uint32_t from, uint8_t byte) {
    begin_step(m);
    struct state state = m->states[from];
    for (uint32_t i = 0; i < state.count; i++) {
        config place = m->configs[state.first + i];
        const struct grammar_node *node = &m->grammar->nodes[node_of(place)];
        const struct grammar_edge *edges = m->grammar->edges + node->a;
        for (uint32_t j = 0; j < node->b; j++)
            if (byte >= edges[j].low && byte <= edges[j].high &&
                !pass(m, edges[j].target, frame_of(place)))
                return MATCH_FAILED;
    }
    return end_step(m);
}

uint32_t grammar_match_step(struct grammar_match *match, uint32_t state, uint8_t byte) {
    size_t place = (size_t)state * match->grammar->class_count + match->grammar->class_of[byte];
    if (!match->next[place] && state > MATCH_DEAD) {
        uint32_t next = make_step(match, state, byte);
        match->next[place] = next; /* which adding states may have moved */
    }
    return match->next[place];
}

/* ---- Making one ---- */

bool grammar_match_is_crowded(const struct grammar_match *match) {
    uint32_t most = MATCH_TABLE_MAX / match->grammar->class_count;
    most = most < MATCH_STATES_MAX ? most : MATCH_STATES_MAX;
    return match->failure || match->state_count > most / 2 ||
           match->config_count > MATCH_STORED_MAX / 2 || match->frame_count > MATCH_FRAMES_MAX / 2;
}

peridot_result grammar_match_error(const struct grammar_match *match, peridot_error *error) {
    if (match->failure == NO_MEMORY)
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory while matching the grammar");
    return fail(error, PERIDOT_ERROR_UNSUPPORTED,
                "the grammar leaves too many possibilities open at once: write it so that fewer "
                "of its rules fit the same text");
}

/* Frame 0, the bottom; state 0, which is none; state 1, the dead one; and where matching begins. */
static bool start(struct grammar_match *m) {
    begin_step(m);
    if (!grow(m, (void **)&m->frames, 0, &m->frame_capacity, MATCH_FRAMES_MAX, sizeof *m->frames))
        return false;
    m->frames[0] = (struct frame){GRAMMAR_NONE, 0, 0};
    m->frame_count = 1;
    while (m->state_count <= MATCH_DEAD)
        if (!add_state(m))
            return false;
    for (uint32_t i = 0; i < m->grammar->class_count; i++)
        m->next[m->grammar->class_count + i] = MATCH_DEAD;
    m->start = pass(m, m->grammar->root, 0) ? end_step(m) : MATCH_FAILED;
    return m->start != MATCH_FAILED;
}

peridot_result grammar_match_reset(struct grammar_match *match, peridot_error *error) {
    table_clear(&match->frame_table);
    table_clear(&match->state_table);
    match->state_count = match->config_count = match->frame_count = 0;
    match->failure = FINE;
    return start(match) ? PERIDOT_OK : grammar_match_error(match, error);
}

peridot_result grammar_match_create(const struct peridot_grammar *grammar,
                                    struct grammar_match **match, peridot_error *error) {
    *match = calloc(1, sizeof **match);
    if (!*match)
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory for the grammar");
    (*match)->grammar = grammar;
    peridot_result result = grammar_match_reset(*match, error);
    if (result) {
        grammar_match_destroy(*match);
        *match = NULL;
    }
    return result;
}

void grammar_match_destroy(struct grammar_match *match) {
    if (!match)
        return;
    free(match->frames);
    free(match->states);
    free(match->configs);
    free(match->next);
    free(match->frame_table.slots);
    free(match->state_table.slots);
    free(match->seen_table.slots);
    free(match->seen);
    free(match->found);
    free(match);
}

uint32_t grammar_match_start(const struct grammar_match *match) {
    return match->start;
}

bool grammar_match_accepts(const struct grammar_match *match, uint32_t state) {
    return match->states[state].accepts;
}
