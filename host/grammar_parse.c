/* GBNF, as llama.cpp's users write it, to a network. */
#include "grammar.h"
#include "utf8.h"

#include <stdlib.h>
#include <string.h>

struct parser {
    const char *text;
    size_t length, at;
    struct peridot_grammar *grammar;
    uint32_t *table; /* open addressing: rule + 1, or 0 */
    uint32_t table_size;
    uint32_t nesting;
    size_t counted; /* bytes whose lines are counted */
    uint32_t lines;
    peridot_error *error;
    peridot_result result; /* the first error */
};

/* ---- Errors ---- */

/* From 1 on; goes on from the place that was asked for last. */
static uint32_t line_of(struct parser *p, size_t at) {
    for (; p->counted < at; p->counted++)
        p->lines += p->text[p->counted] == '\n';
    for (; p->counted > at; p->counted--)
        p->lines -= p->text[p->counted - 1] == '\n';
    return p->lines + 1;
}

/* Always false. */
static bool wrong(struct parser *p, const char *what) {
    if (!p->result)
        p->result =
            fail(p->error, PERIDOT_ERROR_FORMAT, "grammar, line %u: %s", line_of(p, p->at), what);
    return false;
}

/* Always false: a part of the network cannot be made. */
static bool no_room(struct parser *p) {
    if (p->result)
        return false;
    if (p->grammar->over_bound)
        p->result = fail(p->error, PERIDOT_ERROR_UNSUPPORTED,
                         "grammar, line %u: here it becomes too large (more than %u nodes or %u "
                         "rules): make repetitions smaller",
                         line_of(p, p->at), GRAMMAR_NODES_MAX, GRAMMAR_RULES_MAX);
    else
        p->result = fail(p->error, PERIDOT_ERROR_HOST_MEMORY, "out of memory for the grammar");
    return false;
}

/* ---- Characters ---- */

static char peek(const struct parser *p) {
    return p->at < p->length ? p->text[p->at] : '\0';
}

static bool is_end(const struct parser *p) {
    return p->at >= p->length;
}

static bool is_name(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_';
}

static void skip_comment(struct parser *p) {
    while (!is_end(p) && peek(p) != '\n' && peek(p) != '\r')
        p->at++;
}

/* Spaces and comments, and with `lines` the ends of lines. */
static void skip_space(struct parser *p, bool lines) {
    while (!is_end(p)) {
        char c = peek(p);
        if (c == '#')
            skip_comment(p);
        else if (c == ' ' || c == '\t' || (lines && (c == '\n' || c == '\r')))
            p->at++;
        else
            break;
    }
}

static bool take(struct parser *p, char c) {
    if (is_end(p) || peek(p) != c)
        return false;
    p->at++;
    return true;
}

static int hexadecimal(char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

static bool read_code(struct parser *p, uint32_t digits, uint32_t *character) {
    *character = 0;
    for (uint32_t i = 0; i < digits; i++) {
        int digit = is_end(p) ? -1 : hexadecimal(peek(p));
        if (digit < 0)
            return wrong(p, "\\x takes 2 hexadecimal digits, \\u 4 and \\U 8");
        *character = *character << 4 | (uint32_t)digit;
        p->at++;
    }
    if (*character > 0x10ffff || (*character >= 0xd800 && *character <= 0xdfff))
        return wrong(p, "an escape names no character of Unicode");
    return true;
}

static bool read_escape(struct parser *p, uint32_t *character) {
    static const char plain[] = "\\\"[]-^'/.";
    char c = peek(p);
    if (is_end(p))
        return wrong(p, "the text ends within an escape");
    p->at++;
    switch (c) {
    case 'n':
        *character = '\n';
        return true;
    case 't':
        *character = '\t';
        return true;
    case 'r':
        *character = '\r';
        return true;
    case 'x':
        return read_code(p, 2, character);
    case 'u':
        return read_code(p, 4, character);
    case 'U':
        return read_code(p, 8, character);
    default:
        *character = (uint8_t)c;
        if (c && strchr(plain, c))
            return true;
        return wrong(p, "no such escape: there are \\n \\r \\t \\\\ \\\" \\[ \\] \\- \\^ \\xNN "
                        "\\uNNNN \\UNNNNNNNN");
    }
}

static uint32_t decode(const char *text, size_t size) {
    uint32_t character = size == 1   ? (uint8_t)text[0]
                         : size == 2 ? text[0] & 0x1fu
                         : size == 3 ? text[0] & 0x0fu
                                     : text[0] & 0x07u;
    for (size_t i = 1; i < size; i++)
        character = character << 6 | (text[i] & 0x3fu);
    return character;
}

/* One character of a literal or class, escaped or not. */
static bool read_character(struct parser *p, uint32_t *character) {
    if (take(p, '\\'))
        return read_escape(p, character);
    size_t size = utf8_sequence(p->text + p->at, p->length - p->at);
    if (!size)
        return wrong(p, "there are bytes that are not UTF-8");
    *character = decode(p->text + p->at, size);
    p->at += size;
    return true;
}

/* ---- Rules ---- */

/* The slot of a name in the table, or of the hole where it would go. */
static uint32_t slot_of(const struct parser *p, const char *name, uint32_t length) {
    uint32_t hash = 2166136261u; /* FNV-1a */
    for (uint32_t i = 0; i < length; i++)
        hash = (hash ^ (uint8_t)name[i]) * 16777619u;
    uint32_t slot = (hash ^ hash >> 15) & (p->table_size - 1);
    while (p->table[slot]) {
        const struct grammar_rule *rule = &p->grammar->rules[p->table[slot] - 1];
        if (rule->length == length && memcmp(p->text + rule->name, name, length) == 0)
            break;
        slot = (slot + 1) & (p->table_size - 1);
    }
    return slot;
}

static bool table_insert(struct parser *p, uint32_t rule) {
    const struct grammar_rule *rules = p->grammar->rules;
    if (2 * (rule + 1) > p->table_size) {
        uint32_t size = p->table_size ? 2 * p->table_size : 256;
        uint32_t *table = calloc(size, sizeof *table);
        if (!table)
            return no_room(p);
        free(p->table);
        p->table = table;
        p->table_size = size;
        for (uint32_t i = 0; i < rule; i++)
            table[slot_of(p, p->text + rules[i].name, rules[i].length)] = i + 1;
    }
    p->table[slot_of(p, p->text + rules[rule].name, rules[rule].length)] = rule + 1;
    return true;
}

/* The rule of the name at `at`, made if there is none yet. */
static bool find_rule(struct parser *p, size_t at, uint32_t length, uint32_t *rule) {
    struct peridot_grammar *grammar = p->grammar;
    if (p->table_size) {
        uint32_t found = p->table[slot_of(p, p->text + at, length)];
        if (found) {
            *rule = found - 1;
            return true;
        }
    }
    grammar->over_bound |= grammar->rule_count >= GRAMMAR_RULES_MAX;
    if (!grammar_grow((void **)&grammar->rules, grammar->rule_count, &grammar->rule_capacity,
                      GRAMMAR_RULES_MAX, sizeof *grammar->rules))
        return no_room(p);
    *rule = grammar->rule_count++;
    grammar->rules[*rule] = (struct grammar_rule){
        .name = (uint32_t)at, .length = length, .line = line_of(p, at), .start = GRAMMAR_NONE};
    return table_insert(p, *rule);
}

static bool read_name(struct parser *p, uint32_t *rule) {
    size_t begin = p->at;
    while (!is_end(p) && is_name(peek(p)))
        p->at++;
    if (p->at == begin)
        return wrong(p, "a rule's name is missing: letters, digits, - and _");
    return find_rule(p, begin, (uint32_t)(p->at - begin), rule);
}

/* ---- Items ---- */

static bool read_alternatives(struct parser *p, struct grammar_part *part);

static bool add_empty(struct parser *p, uint32_t *index) {
    return grammar_add_node(p->grammar, GRAMMAR_EMPTY, GRAMMAR_NONE, 0, index) || no_room(p);
}

static bool read_literal(struct parser *p, struct grammar_part *part) {
    struct peridot_grammar *grammar = p->grammar;
    if (!add_empty(p, &part->entry))
        return false;
    part->exit = part->entry;
    while (!take(p, '"')) {
        uint32_t head = part->exit;
        struct grammar_range range;
        struct grammar_part next;
        if (is_end(p) || peek(p) == '\n')
            return wrong(p, "a \" is missing");
        if (!read_character(p, &range.low))
            return false;
        range.high = range.low;
        if (!grammar_add_set(grammar, &(struct grammar_set){&range, 1, 1}, &next))
            return no_room(p);
        grammar->nodes[head].a = next.entry;
        part->exit = next.exit;
    }
    return true;
}

/* One character or a range of a class. */
static bool read_range(struct parser *p, struct grammar_set *set) {
    uint32_t low, high;
    if (is_end(p) || peek(p) == '\n')
        return wrong(p, "a ] is missing");
    if (!read_character(p, &low))
        return false;
    high = low;
    if (peek(p) == '-' && p->at + 1 < p->length && p->text[p->at + 1] != ']') {
        p->at++;
        if (!read_character(p, &high))
            return false;
    }
    if (high < low)
        return wrong(p, "a range of characters goes backwards");
    return grammar_set_add(set, low, high) || no_room(p);
}

static bool read_set(struct parser *p, struct grammar_set *set, bool *inverted) {
    *inverted = take(p, '^');
    while (!take(p, ']'))
        if (!read_range(p, set))
            return false;
    return true;
}

/* Behind its [, or with `any` the full stop. */
static bool read_class(struct parser *p, bool any, struct grammar_part *part) {
    struct grammar_set set = {0};
    bool inverted = true;
    bool good = any || read_set(p, &set, &inverted);
    if (good && !grammar_set_settle(&set, inverted))
        good = no_room(p);
    if (good && !set.count)
        good = wrong(p, "a class has no character");
    if (good && !grammar_add_set(p->grammar, &set, part))
        good = no_room(p);
    free(set.ranges);
    return good;
}

static bool read_call(struct parser *p, struct grammar_part *part) {
    uint32_t rule;
    if (!read_name(p, &rule) || !add_empty(p, &part->exit))
        return false;
    return grammar_add_node(p->grammar, GRAMMAR_CALL, rule, part->exit, &part->entry) || no_room(p);
}

static bool read_group(struct parser *p, struct grammar_part *part) {
    if (++p->nesting > GRAMMAR_NESTING_MAX)
        return wrong(p, "parentheses are nested too deeply");
    if (!read_alternatives(p, part))
        return false;
    p->nesting--;
    return take(p, ')') || wrong(p, is_end(p) ? "a ) is missing" : "this cannot stand here");
}

static bool read_count(struct parser *p, uint32_t *count) {
    size_t begin = p->at;
    *count = 0;
    while (!is_end(p) && peek(p) >= '0' && peek(p) <= '9') {
        *count = *count * 10 + (uint32_t)(peek(p) - '0');
        if (*count > GRAMMAR_NODES_MAX)
            return wrong(p, "a repetition is too large");
        p->at++;
    }
    return p->at > begin;
}

/* Behind its {: {m}, {m,}, {m,n} or {,n}. */
static bool read_counts(struct parser *p, uint32_t *least, uint32_t *most) {
    skip_space(p, false);
    bool first = read_count(p, least);
    *most = *least;
    skip_space(p, false);
    bool comma = take(p, ','), second = false;
    if (comma) {
        skip_space(p, false);
        second = read_count(p, most);
        skip_space(p, false);
        if (!second)
            *most = GRAMMAR_NONE;
    }
    if (!take(p, '}') || (!first && !second))
        return wrong(p, "a repetition is {m}, {m,}, {m,n} or {,n}");
    return *least <= *most || wrong(p, "a repetition has a least number above its most");
}

/* * + ? and { behind an item. */
static bool read_repetitions(struct parser *p, struct grammar_part *part) {
    for (;;) {
        uint32_t least = 0, most = GRAMMAR_NONE;
        skip_space(p, p->nesting > 0);
        if (take(p, '+'))
            least = 1;
        else if (take(p, '?'))
            most = 1;
        else if (take(p, '{')) {
            if (!read_counts(p, &least, &most))
                return false;
        } else if (!take(p, '*'))
            return true;
        if (!grammar_repeat(p->grammar, part, least, most))
            return no_room(p);
    }
}

static bool read_item(struct parser *p, struct grammar_part *part) {
    uint32_t begin = p->grammar->node_count;
    bool good = take(p, '"')   ? read_literal(p, part)
                : take(p, '[') ? read_class(p, false, part)
                : take(p, '.') ? read_class(p, true, part)
                : take(p, '(') ? read_group(p, part)
                               : read_call(p, part);
    part->begin = begin;
    part->end = p->grammar->node_count;
    return good && read_repetitions(p, part);
}

/* A name and ::=, which may follow an empty last alternative. */
static bool begins_rule(const struct parser *p) {
    size_t at = p->at;
    while (at < p->length && is_name(p->text[at]))
        at++;
    while (at < p->length && (p->text[at] == ' ' || p->text[at] == '\t'))
        at++;
    return at > p->at && p->length - at >= 3 && memcmp(p->text + at, "::=", 3) == 0;
}

static bool begins_item(const struct parser *p) {
    char c = peek(p);
    return !is_end(p) && (c == '"' || c == '[' || c == '.' || c == '(' || is_name(c)) &&
           !begins_rule(p);
}

static bool begins_line(const struct parser *p) {
    size_t at = p->at;
    while (at > 0 && (p->text[at - 1] == ' ' || p->text[at - 1] == '\t'))
        at--;
    return at == 0 || p->text[at - 1] == '\n' || p->text[at - 1] == '\r';
}

static bool read_sequence(struct parser *p, struct grammar_part *part) {
    if (!add_empty(p, &part->entry))
        return false;
    part->exit = part->entry;
    skip_space(p, p->nesting > 0);
    while (begins_item(p)) {
        struct grammar_part item;
        if (!read_item(p, &item))
            return false;
        p->grammar->nodes[part->exit].a = item.entry;
        part->exit = item.exit;
        skip_space(p, p->nesting > 0);
    }
    return true;
}

/* Whether another alternative follows; a line may begin with its |. */
static bool take_bar(struct parser *p) {
    size_t before = p->at;
    skip_space(p, true);
    if (take(p, '|')) {
        skip_space(p, true);
        return true;
    }
    if (!p->nesting)
        p->at = before;
    return false;
}

static bool read_alternatives(struct parser *p, struct grammar_part *part) {
    struct peridot_grammar *grammar = p->grammar;
    uint32_t fork = GRAMMAR_NONE, next;
    if (!add_empty(p, &part->exit))
        return false;
    do {
        struct grammar_part sequence;
        if (!grammar_add_node(grammar, GRAMMAR_FORK, 0, 0, &next))
            return no_room(p);
        if (fork == GRAMMAR_NONE)
            part->entry = next;
        else
            grammar->nodes[fork].b = next;
        fork = next;
        if (!read_sequence(p, &sequence))
            return false;
        grammar->nodes[fork].a = sequence.entry;
        grammar->nodes[sequence.exit].a = part->exit;
    } while (take_bar(p));
    grammar->nodes[fork].kind = GRAMMAR_EMPTY; /* the last one does not fork */
    return true;
}

/* ---- All of it ---- */

static bool read_rule(struct parser *p) {
    struct peridot_grammar *grammar = p->grammar;
    struct grammar_part part;
    size_t begin = p->at;
    uint32_t rule, end, first = grammar->node_count;
    if (!read_name(p, &rule))
        return false;
    skip_space(p, false);
    if (p->length - p->at < 3 || memcmp(p->text + p->at, "::=", 3) != 0)
        return wrong(p,
                     "::= is missing behind a rule's name (a rule goes on in a further line only "
                     "within parentheses and at a |)");
    if (grammar->rules[rule].start != GRAMMAR_NONE)
        return wrong(p, "a rule of that name is there already");
    p->at += 3;
    grammar->rules[rule].line = line_of(p, begin);
    skip_space(p, true);
    if (!read_alternatives(p, &part))
        return false;
    if (!is_end(p) && peek(p) != '\n' && peek(p) != '\r' && !begins_line(p))
        return wrong(p, "this cannot stand here");
    if (!grammar_add_node(grammar, GRAMMAR_END, GRAMMAR_NONE, 0, &end))
        return no_room(p);
    grammar->nodes[part.exit].a = end;
    grammar->rules[rule].start = part.entry;
    grammar->rules[rule].begin = first;
    grammar->rules[rule].end = grammar->node_count;
    return true;
}

static bool read_rules(struct parser *p) {
    skip_space(p, true);
    while (!is_end(p)) {
        if (!read_rule(p))
            return false;
        skip_space(p, true);
    }
    return true;
}

/* A name for a message, cut if it is long. */
static int name_length(const struct grammar_rule *rule) {
    return rule->length < 64 ? (int)rule->length : 64;
}

static peridot_result check_rules(struct parser *p) {
    struct peridot_grammar *grammar = p->grammar;
    uint32_t found = p->table_size ? p->table[slot_of(p, "root", 4)] : 0;
    for (uint32_t i = 0; i < grammar->rule_count; i++)
        if (grammar->rules[i].start == GRAMMAR_NONE)
            return fail(p->error, PERIDOT_ERROR_FORMAT,
                        "grammar, line %u: there is no rule \"%.*s\"", grammar->rules[i].line,
                        name_length(&grammar->rules[i]), p->text + grammar->rules[i].name);
    if (!found)
        return fail(p->error, PERIDOT_ERROR_FORMAT,
                    "the grammar has no rule \"root\", with which a text begins");
    grammar->root = found - 1;
    grammar_finish(grammar);
    uint32_t rule;
    peridot_result result = grammar_find_left_recursion(grammar, &rule, p->error);
    if (!result && rule != GRAMMAR_NONE)
        return fail(p->error, PERIDOT_ERROR_FORMAT,
                    "grammar, line %u: the rule \"%.*s\" can come to itself before any character "
                    "(left recursion): put the recursion behind something, or use * or +",
                    grammar->rules[rule].line, name_length(&grammar->rules[rule]),
                    p->text + grammar->rules[rule].name);
    return result;
}

peridot_result grammar_parse(const char *text, size_t length, struct peridot_grammar **grammar,
                             peridot_error *error) {
    struct parser p = {.text = text, .length = length, .error = error};
    *grammar = NULL;
    if (length > GRAMMAR_TEXT_MAX)
        return fail(error, PERIDOT_ERROR_UNSUPPORTED, "a grammar of more than %u MiB",
                    GRAMMAR_TEXT_MAX >> 20);
    p.grammar = calloc(1, sizeof *p.grammar);
    if (!p.grammar)
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory for the grammar");
    peridot_result result = read_rules(&p) ? check_rules(&p) : p.result;
    free(p.table);
    if (result)
        grammar_free(p.grammar);
    else
        *grammar = p.grammar;
    return result;
}
