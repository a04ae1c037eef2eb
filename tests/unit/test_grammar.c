/* GBNF: what is a grammar and what is none, which texts fit, and which tokens may come next. Random
 * grammars are checked against a slow recogniser of this test's own. */
#include "grammar_match.h"
#include "must.h"
#include "platform.h"
#include "reference/random.h"
#include "token_trie.h"
#include "utf8.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>
#include <cmocka.h>

static struct random generator;

static uint32_t between(uint32_t least, uint32_t most) {
    return least + (uint32_t)random_below(&generator, most - least + 1);
}

/* ---- Grammars and texts ---- */

struct compiled {
    struct peridot_grammar *grammar;
    struct grammar_match *match;
};

static struct compiled compile(const char *text) {
    struct compiled c;
    MUST(grammar_parse(text, strlen(text), &c.grammar, &error));
    MUST(grammar_match_create(c.grammar, &c.match, &error));
    return c;
}

static void release(struct compiled *c) {
    grammar_match_destroy(c->match);
    grammar_free(c->grammar);
}

static uint32_t follow(struct grammar_match *match, const char *text, size_t length) {
    uint32_t state = grammar_match_start(match);
    for (size_t i = 0; i < length && state > MATCH_DEAD; i++)
        state = grammar_match_step(match, state, (uint8_t)text[i]);
    return state;
}

static bool fits(struct grammar_match *match, const char *text, size_t length) {
    uint32_t state = follow(match, text, length);
    assert_int_not_equal(state, MATCH_FAILED);
    return grammar_match_accepts(match, state);
}

static void test_what_fits(void **state) {
    (void)state;
    /* grammar; texts that fit, texts that do not, each list ended by NULL */
    static const struct {
        const char *grammar, *good[8], *bad[8];
    } cases[] = {
        {"root ::= \"yes\" | \"no\"", {"yes", "no"}, {"", "y", "yesno", "maybe", "Yes"}},
        {"root ::= \"\"", {""}, {"a"}},
        {"root ::=", {""}, {"a"}},
        {"root ::= | \"a\" root", {"", "a", "aaaaaaaa"}, {"b", "ab"}},
        {"root ::= \"a\"* \"b\"+ \"c\"?", {"b", "abc", "aabb", "bbc"}, {"", "ac", "abcc", "bcb"}},
        {"root ::= (\"a\" | \"bc\")*", {"", "a", "bc", "abca"}, {"b", "ab", "cb"}},
        {"root ::= \"ab\"{2}", {"abab"}, {"", "ab", "ababab", "abb"}},
        {"root ::= \"a\"{2,}", {"aa", "aaaaa"}, {"", "a"}},
        {"root ::= \"a\"{,2} \"b\"", {"b", "ab", "aab"}, {"aaab", "a"}},
        {"root ::= \"a\"{1,3}", {"a", "aa", "aaa"}, {"", "aaaa"}},
        {"root ::= \"a\"{0} \"b\"", {"b"}, {"ab", ""}},
        {"root ::= (\"a\"? \"b\"?)* \"c\"", {"c", "abc", "bac", "bbc"}, {"", "ab", "cc"}},
        {"root ::= (\"a\"{2}){1,2}", {"aa", "aaaa"}, {"a", "aaa", "aaaaaa"}},
        {"root ::= (\"a\"*)* \"b\"", {"b", "aab"}, {"a", "ba"}},
        {"root ::= \"a\"*{2}", {"", "a", "aaa"}, {"b"}},
        {"root ::= [a-cx]", {"a", "b", "c", "x"}, {"d", "", "ab", "-"}},
        {"root ::= [^a-c]", {"d", "\xc3\xa9", "\n"}, {"a", "c", "", "\xc3", "dd"}},
        {"root ::= [a-]", {"a", "-"}, {"b"}},
        {"root ::= [-a]", {"a", "-"}, {"b"}},
        {"root ::= [\\]\\[\\\\^\\-a]", {"]", "[", "\\", "^", "-", "a"}, {"b", ""}},
        {"root ::= [a^]", {"a", "^"}, {"b"}},
        {"root ::= [\\x41-\\u0043]", {"A", "B", "C"}, {"D", "@"}},
        {"root ::= \"\\U0001F600\\t\\r\\n\\\"\"", {"\xf0\x9f\x98\x80\t\r\n\""}, {"", "\t"}},
        {"root ::= \"caf\xc3\xa9\"", {"caf\xc3\xa9"}, {"caf", "caf\xc3", "cafe", "caf\xc3\xa8"}},
        {"root ::= . .", {"ab", "\n\n", "\xe2\x82\xac\xf0\x9f\x98\x80"}, {"a", "abc", "a\xe2\x82"}},
        {"root ::= [\xce\xb1-\xcf\x89]+", {"\xce\xb1\xcf\x89", "\xce\xb2"}, {"a", "\xcf\x8a", ""}},
        {"# what?\nroot ::= a # b\n\n  # c\r\na ::= \"x\"\r\n", {"x"}, {"a", ""}},
        {"root ::=\n  \"a\" |\n  \"b\" # or\n  | \"c\"\n", {"a", "b", "c"}, {"", "ab"}},
        {"root ::= ( \"a\"\n  # within\n  \"b\" |\n \"c\" ) *\n", {"", "ab", "abc"}, {"a"}},
        {"root ::= \"a\" |\nb ::= \"c\"", {"a", ""}, {"c", "b"}},
        {"a-1_B ::= \"x\"\nroot ::= a-1_B", {"x"}, {""}},
        {"root ::= \"(\" root \")\" | \"\"", {"", "()", "((()))"}, {"(", ")", "())", "(()"}},
        {"root ::= e\ne ::= t (\"+\" t)*\nt ::= [0-9] | \"(\" e \")\"",
         {"1", "1+2", "(1+2)+3", "((4))"},
         {"", "1+", "(1", "1)", "+1"}},
        {"root ::= x x x\nx ::= y?\ny ::= \"a\" | \"b\" x", {"", "a", "aaa", "bba"}, {"aaaa"}},
        {"root ::= a \"c\"\na ::= | \"b\" a", {"c", "bbc"}, {"b", ""}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct compiled c = compile(cases[i].grammar);
        for (int j = 0; j < 8 && cases[i].good[j]; j++)
            if (!fits(c.match, cases[i].good[j], strlen(cases[i].good[j])))
                fail_msg("%s: \"%s\" does not fit", cases[i].grammar, cases[i].good[j]);
        for (int j = 0; j < 8 && cases[i].bad[j]; j++)
            if (fits(c.match, cases[i].bad[j], strlen(cases[i].bad[j])))
                fail_msg("%s: \"%s\" fits", cases[i].grammar, cases[i].bad[j]);
        release(&c);
    }
}

static void expect_refusal(const char *text, size_t length, peridot_result result,
                           const char *message) {
    struct peridot_grammar *grammar = NULL;
    peridot_error error = {0};
    assert_int_equal(grammar_parse(text, length, &grammar, &error), result);
    if (!strstr(error.message, message))
        fail_msg("%.200s: the message is \"%s\", without \"%s\"", text, error.message, message);
    assert_null(grammar);
}

static void test_what_is_no_grammar(void **state) {
    (void)state;
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"", "no rule \"root\""},
        {"a ::= \"b\"", "no rule \"root\""},
        {"root ::= a\n\nb ::= c", "line 1: there is no rule \"a\""},
        {"root ::= \"x\"\nb ::= c d", "line 2: there is no rule \"c\""},
        {"root ::= root", "line 1: the rule \"root\" can come to itself"},
        {"root ::= root \"a\" | \"b\"", "left recursion"},
        {"root ::= \"x\" a\na ::= b\nb ::= c \"y\"\nc ::= \"z\" | a", "left recursion"},
        {"root ::= e root\ne ::= \"a\"*", "left recursion"},
        {"root ::= (\"a\"? root \"b\")?", "left recursion"},
        {"root ::= \"a\"\nroot ::= \"b\"", "line 2: a rule of that name is there already"},
        {"root ::= \"a", "line 1: a \" is missing"},
        {"root ::= \"a\nb\"", "a \" is missing"},
        {"root ::= [a", "a ] is missing"},
        {"root ::= [a\n]", "a ] is missing"},
        {"root ::= [z-a]", "goes backwards"},
        {"root ::= []", "no character"},
        {"root ::= [^\\x00-\\U0010FFFF]", "no character"},
        {"root ::= (\"a\"", "a ) is missing"},
        {"root ::= (\"a\" ::= )", "cannot stand here"},
        {"root ::= \"a\")", "cannot stand here"},
        {"root ::= * \"a\"", "cannot stand here"},
        {"root ::= \"a\" }", "cannot stand here"},
        {"root ::= \"a\"{", "a repetition is"},
        {"root ::= \"a\"{,}", "a repetition is"},
        {"root ::= \"a\"{3,2}", "least number above"},
        {"root ::= \"a\"{2;3}", "a repetition is"},
        {"root ::= \"a\"{99999999999}", "too large"},
        {"root ::= \"\\q\"", "no such escape"},
        {"root ::= \"\\x4\"", "hexadecimal"},
        {"root ::= \"\\uD800\"", "no character of Unicode"},
        {"root ::= \"\\U00110000\"", "no character of Unicode"},
        {"root ::= \"\\", "within an escape"},
        {"root ::= \"\xff\"", "not UTF-8"},
        {"root ::= [\xc3]", "not UTF-8"},
        {"root \"a\"", "::= is missing"},
        {"root := \"a\"", "::= is missing"},
        {"::= \"a\"", "name is missing"},
        {"root ::= \"a\" \xc3\xa9", "cannot stand here"},
        {"\n\n\nroot ::= \"a\" \"\\z\"", "line 4"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        expect_refusal(cases[i].text, strlen(cases[i].text), PERIDOT_ERROR_FORMAT,
                       cases[i].message);
    expect_refusal("root ::= \"a\0b", 13, PERIDOT_ERROR_FORMAT, "a \" is missing");
    expect_refusal("root ::= \"a\"{1000}{1000}{1000}", 30, PERIDOT_ERROR_UNSUPPORTED, "too large");
}

static void test_bounds(void **state) {
    (void)state;
    char *text = malloc(2000000);
    size_t length = (size_t)sprintf(text, "root ::= ");
    memset(text + length, '(', 1000);
    expect_refusal(text, length + 1000, PERIDOT_ERROR_FORMAT, "nested too deeply");
    length = (size_t)sprintf(text, "root ::= \"a\"\n");
    for (uint32_t i = 0; i <= GRAMMAR_RULES_MAX; i++)
        length += (size_t)sprintf(text + length, "r%u ::= \"a\"\n", i);
    expect_refusal(text, length, PERIDOT_ERROR_UNSUPPORTED, "too large");
    /* a chain of rules that are all able to be empty, and a circle at its end */
    length = (size_t)sprintf(text, "root ::= r0\n");
    for (uint32_t i = 0; i < 60000; i++)
        length += (size_t)sprintf(text + length, "r%u ::= r%u \"a\"*\n", i, i + 1);
    size_t chain = length;
    length += (size_t)sprintf(text + length, "r60000 ::= \"b\"?\n");
    struct peridot_grammar *grammar;
    MUST(grammar_parse(text, length, &grammar, &error));
    grammar_free(grammar);
    length = chain + (size_t)sprintf(text + chain, "r60000 ::= \"b\"? r59999\n");
    expect_refusal(text, length, PERIDOT_ERROR_FORMAT, "left recursion");
    free(text);
    /* 2^30 stacks at once */
    char doubling[2000] = "root ::= r0\n";
    for (int i = 0; i < 30; i++)
        sprintf(doubling + strlen(doubling), "r%d ::= r%d | r%d \"x\"\n", i, i + 1, i + 1);
    strcat(doubling, "r30 ::= \"y\"\n");
    struct grammar_match *match = NULL;
    peridot_error error = {0};
    MUST(grammar_parse(doubling, strlen(doubling), &grammar, &error));
    assert_int_equal(grammar_match_create(grammar, &match, &error), PERIDOT_ERROR_UNSUPPORTED);
    assert_non_null(strstr(error.message, "too many possibilities"));
    assert_null(match);
    grammar_free(grammar);
}

/* Nesting is followed to a depth that no text needs, and then no further. */
static void test_nesting(void **state) {
    (void)state;
    struct compiled c = compile("root ::= \"[\" root? \"]\"");
    uint32_t deep = grammar_match_start(c.match), levels = 0;
    while (levels < 2 * MATCH_DEPTH_MAX) {
        uint32_t next = grammar_match_step(c.match, deep, '[');
        if (next == MATCH_DEAD)
            break;
        deep = next;
        levels++;
    }
    assert_in_range(levels, 1000, MATCH_DEPTH_MAX + 1);
    for (uint32_t i = 0; i < levels; i++) {
        assert_false(grammar_match_accepts(c.match, deep));
        deep = grammar_match_step(c.match, deep, ']');
        assert_true(deep > MATCH_DEAD);
    }
    assert_true(grammar_match_accepts(c.match, deep));
    release(&c);
    /* recursion at the end of a rule leaves nothing on the stack */
    c = compile("root ::= \"a\" root | \"b\"");
    deep = grammar_match_start(c.match);
    for (uint32_t i = 0; i < 100000; i++)
        deep = grammar_match_step(c.match, deep, 'a');
    assert_true(grammar_match_accepts(c.match, grammar_match_step(c.match, deep, 'b')));
    release(&c);
}

/* More states than are kept. */
static void test_forgetting(void **state) {
    (void)state;
    struct compiled c = compile("root ::= \"a\"{100000} \"b\"");
    uint32_t at = grammar_match_start(c.match), done = 0, resets = 0;
    while (done < 100000) {
        if (grammar_match_is_crowded(c.match)) {
            MUST(grammar_match_reset(c.match, &error));
            resets++;
            at = grammar_match_start(c.match); /* what was read is read again, elsewhere */
            break;
        }
        at = grammar_match_step(c.match, at, 'a');
        assert_true(at > MATCH_DEAD);
        done++;
    }
    assert_int_equal(resets, 1);
    for (uint32_t i = 0; i < 100000; i++)
        at = grammar_match_step(c.match, at, 'a');
    assert_int_equal(grammar_match_step(c.match, at, 'a'), MATCH_DEAD);
    assert_true(grammar_match_accepts(c.match, grammar_match_step(c.match, at, 'b')));
    release(&c);
}

/* ---- Characters ---- */

static size_t encode(uint32_t c, char *out) {
    static const uint8_t leads[5] = {0, 0, 0xc0, 0xe0, 0xf0};
    size_t size = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = size; i-- > 1; c >>= 6)
        out[i] = (char)(0x80 | (c & 0x3f));
    out[0] = (char)(leads[size] | c);
    return size;
}

static uint32_t random_character(void) {
    static const uint32_t edges[] = {0,      0x7f,   0x80,    0x7ff,   0x800,   0xd7ff,
                                     0xe000, 0xffff, 0x10000, 0x3ffff, 0x40000, 0x10ffff};
    uint32_t c =
        between(0, 2) ? between(0, between(0, 1) ? 0x10ffff : 0x1000) : edges[between(0, 11)];
    c = between(0, 1) || c > 0x10fff0 ? c : c + between(0, 3);
    return c >= 0xd800 && c < 0xe000 ? c - 0x800 : c;
}

/* Every character of Unicode against a random class, and bytes that are none. */
static void check_class(bool inverted) {
    uint32_t low[8], high[8], count = between(1, 8);
    char text[400] = "root ::= [", one[4];
    strcat(text, inverted ? "^" : "");
    for (uint32_t i = 0; i < count; i++) {
        uint32_t a = random_character(), b = between(0, 3) ? random_character() : a;
        low[i] = a < b ? a : b;
        high[i] = a < b ? b : a;
        sprintf(text + strlen(text), "\\U%08X-\\U%08X", low[i], high[i]);
    }
    strcat(text, "]");
    struct peridot_grammar *grammar;
    peridot_error error;
    if (grammar_parse(text, strlen(text), &grammar, &error)) {
        assert_true(inverted && strstr(error.message, "no character"));
        return;
    }
    grammar_free(grammar);
    struct compiled c = compile(text);
    for (uint32_t character = 0; character <= 0x10ffff; character++) {
        bool in = false, surrogate = character >= 0xd800 && character < 0xe000;
        for (uint32_t i = 0; i < count; i++)
            in = in || (character >= low[i] && character <= high[i]);
        if (fits(c.match, one, encode(character, one)) != (!surrogate && in != inverted))
            fail_msg("%s: U+%04X", text, character);
    }
    for (int i = 0; i < 20000; i++) { /* overlong forms, stray bytes, ends missing */
        size_t length = between(1, 4);
        for (size_t j = 0; j < length && j < sizeof one; j++)
            one[j] = (char)between(0x70, 0xff);
        bool fit = fits(c.match, one, length);
        assert_false(fit && utf8_sequence(one, length) != length);
    }
    release(&c);
}

static void test_characters(void **state) {
    (void)state;
    for (int i = 0; i < 6; i++)
        check_class(i % 2);
}

/* ---- Random grammars ---- */

#define RULES 5
#define LENGTH_MAX 60 /* characters of a text, so that places in it are bits of a word */

static const uint32_t alphabet[] = {'a', 'b', 'c', '"', ']', '\n', 0xe9, 0x20ac, 0x1f600};
#define ALPHABET (sizeof alphabet / sizeof *alphabet)

enum kind { LITERAL, CLASS, ANY, RULE, SEQUENCE, CHOICE, REPEAT };
struct expression {
    enum kind kind;
    uint32_t characters[4], count; /* LITERAL, CLASS */
    bool inverted;
    uint32_t rule;
    struct expression *parts[4]; /* count of them; REPEAT: one */
    uint32_t least, most;        /* most = 99: no matter */
};

#define POOL 4000
static struct expression pool[POOL];
static uint32_t pool_count;
static struct expression *rules[RULES];

static struct expression *make(enum kind kind) {
    assert_true(pool_count < POOL);
    pool[pool_count] = (struct expression){.kind = kind};
    return &pool[pool_count++];
}

static struct expression *random_expression(uint32_t rule, uint32_t depth);

static struct expression *random_text(enum kind kind) {
    struct expression *e = make(kind);
    e->count = between(kind == CLASS, 3);
    e->inverted = kind == CLASS && between(0, 3) == 0;
    for (uint32_t i = 0; i < e->count; i++)
        e->characters[i] = alphabet[between(0, ALPHABET - 1)];
    return e;
}

/* ( "x" rule )? : recursion that begins with a character, and can be left out. */
static struct expression *random_recursion(void) {
    struct expression *e = make(REPEAT), *sequence = make(SEQUENCE);
    struct expression *literal = random_text(CLASS), *rule = make(RULE);
    rule->rule = between(0, RULES - 1);
    sequence->count = 2;
    sequence->parts[0] = literal;
    sequence->parts[1] = rule;
    e->parts[0] = sequence;
    e->most = between(0, 1) ? 1 : 99;
    return e;
}

static struct expression *random_list(enum kind kind, uint32_t rule, uint32_t depth) {
    struct expression *e = make(kind);
    e->count = between(1, 3);
    for (uint32_t i = 0; i < e->count; i++)
        e->parts[i] = random_expression(rule, depth + 1);
    return e;
}

static struct expression *random_repeat(uint32_t rule, uint32_t depth) {
    struct expression *e = make(REPEAT);
    e->parts[0] = random_expression(rule, depth + 1);
    e->least = between(0, 2);
    e->most = between(0, 1) ? 99 : e->least + between(0, 2);
    return e;
}

static struct expression *random_expression(uint32_t rule, uint32_t depth) {
    switch (between(0, depth > 3 ? 4 : 8)) {
    case 0:
    case 1:
        return random_text(LITERAL);
    case 2:
        return random_text(CLASS);
    case 3:
        if (rule + 1 < RULES) { /* a later rule, which cannot lead back before a character */
            struct expression *e = make(RULE);
            e->rule = between(rule + 1, RULES - 1);
            return e;
        }
        return make(ANY);
    case 4:
        return random_recursion();
    case 5:
        return random_repeat(rule, depth);
    case 6:
        return random_list(CHOICE, rule, depth);
    default:
        return random_list(SEQUENCE, rule, depth);
    }
}

static void put_character(char **at, uint32_t c, bool in_class) {
    if (c == '\n')
        *at += sprintf(*at, "\\n");
    else if (c == '"' || (in_class && c == ']'))
        *at += sprintf(*at, "\\%c", (char)c);
    else if (c >= 0x80 && between(0, 1))
        *at += sprintf(*at, "\\U%08x", c);
    else
        *at += encode(c, *at);
}

static void put(char **at, const struct expression *e);

static void put_list(char **at, const struct expression *e) {
    *at += sprintf(*at, "(");
    for (uint32_t i = 0; i < e->count; i++) {
        static const char *const spaces[] = {" ", "\n", " # \" ( comment\n  ", "\t"};
        *at += sprintf(*at, "%s%s", i && e->kind == CHOICE ? "|" : "", spaces[between(0, 3)]);
        put(at, e->parts[i]);
    }
    *at += sprintf(*at, " )");
}

static void put(char **at, const struct expression *e) {
    switch (e->kind) {
    case LITERAL:
    case CLASS:
        *at += sprintf(*at, "%s", e->kind == LITERAL ? "\"" : e->inverted ? "[^" : "[");
        for (uint32_t i = 0; i < e->count; i++)
            put_character(at, e->characters[i], e->kind == CLASS);
        *at += sprintf(*at, "%s", e->kind == LITERAL ? "\"" : "]");
        break;
    case ANY:
        *at += sprintf(*at, ".");
        break;
    case RULE:
        *at += sprintf(*at, e->rule ? "r%u" : "root", e->rule);
        break;
    case REPEAT:
        put(at, e->parts[0]);
        if (e->most == 99 && e->least < 2 && between(0, 1))
            *at += sprintf(*at, e->least ? "+" : "*");
        else if (e->most == 99)
            *at += sprintf(*at, "{%u,}", e->least);
        else if (e->most == 1 && !e->least && between(0, 1))
            *at += sprintf(*at, "?");
        else
            *at += sprintf(*at, "{%u,%u}", e->least, e->most);
        break;
    default:
        put_list(at, e);
    }
}

/* ---- The slow recogniser: sets of places, a bit each ---- */

static const uint32_t *subject;
static uint32_t subject_length;
/* Of each expression, or repeats in repeats would take for ever. */
static uint64_t known[POOL][LENGTH_MAX + 1];
static bool is_known[POOL][LENGTH_MAX + 1];

static uint64_t ends_of_set(const struct expression *e, uint64_t places);

static bool has_character(const struct expression *e, uint32_t c) {
    for (uint32_t i = 0; i < e->count; i++)
        if (e->characters[i] == c)
            return !e->inverted;
    return e->inverted;
}

static uint64_t ends_of_repeat(const struct expression *e, uint64_t places) {
    uint64_t all = 0;
    for (uint32_t i = 0; i <= e->most && i <= subject_length + 3 && places; i++) {
        if (i >= e->least)
            all |= places;
        places = ends_of_set(e->parts[0], places);
    }
    return all;
}

static uint64_t ends(const struct expression *e, uint32_t place);

static uint64_t find_ends(const struct expression *e, uint32_t place) {
    uint64_t places = 1ull << place;
    switch (e->kind) {
    case LITERAL:
        for (uint32_t i = 0; i < e->count; i++, place++)
            if (place >= subject_length || subject[place] != e->characters[i])
                return 0;
        return 1ull << place;
    case CLASS:
        return place < subject_length && has_character(e, subject[place]) ? places << 1 : 0;
    case ANY:
        return place < subject_length ? places << 1 : 0;
    case RULE:
        return ends(rules[e->rule], place);
    case REPEAT:
        return ends_of_repeat(e, places);
    case CHOICE: {
        uint64_t all = 0;
        for (uint32_t i = 0; i < e->count; i++)
            all |= ends(e->parts[i], place);
        return all;
    }
    default:
        for (uint32_t i = 0; i < e->count; i++)
            places = ends_of_set(e->parts[i], places);
        return places;
    }
}

static uint64_t ends(const struct expression *e, uint32_t place) {
    uint64_t *found = &known[e - pool][place];
    if (!is_known[e - pool][place])
        *found = find_ends(e, place);
    is_known[e - pool][place] = true;
    return *found;
}

static uint64_t ends_of_set(const struct expression *e, uint64_t places) {
    uint64_t all = 0;
    for (uint32_t place = 0; place <= subject_length; place++)
        if (places >> place & 1)
            all |= ends(e, place);
    return all;
}

static bool fits_slowly(const uint32_t *text, uint32_t length) {
    memset(is_known, 0, pool_count * sizeof *is_known);
    subject = text;
    subject_length = length;
    return ends(rules[0], 0) >> length & 1;
}

/* ---- Texts from the grammar ---- */

static void write_text(const struct expression *e, uint32_t *text, uint32_t *length,
                       uint32_t depth) {
    if (*length + 4 > LENGTH_MAX)
        return; /* cut off: perhaps no such text any more, as a mutated one */
    switch (e->kind) {
    case LITERAL:
        for (uint32_t i = 0; i < e->count; i++)
            text[(*length)++] = e->characters[i];
        break;
    case CLASS:
    case ANY: {
        uint32_t c = alphabet[between(0, ALPHABET - 1)];
        for (int i = 0; i < 30 && e->kind == CLASS && !has_character(e, c); i++)
            c = alphabet[between(0, ALPHABET - 1)];
        text[(*length)++] = c;
        break;
    }
    case RULE:
        write_text(rules[e->rule], text, length, depth + 1);
        break;
    case REPEAT: {
        uint32_t most = e->most == 99 ? e->least + 2 : e->most;
        uint32_t times = depth > 6 ? e->least : between(e->least, most);
        for (uint32_t i = 0; i < times; i++)
            write_text(e->parts[0], text, length, depth + 1);
        break;
    }
    case CHOICE:
        write_text(e->parts[between(0, e->count - 1)], text, length, depth + 1);
        break;
    default:
        for (uint32_t i = 0; i < e->count; i++)
            write_text(e->parts[i], text, length, depth + 1);
    }
}

static uint32_t mutate(uint32_t *text, uint32_t length) {
    uint32_t at = between(0, length), c = alphabet[between(0, ALPHABET - 1)];
    switch (between(0, 2)) {
    case 0:
        if (length == LENGTH_MAX)
            return length;
        memmove(text + at + 1, text + at, (length - at) * sizeof *text);
        text[at] = c;
        return length + 1;
    case 1:
        if (at == length)
            return length;
        memmove(text + at, text + at + 1, (length - at - 1) * sizeof *text);
        return length - 1;
    default:
        if (at < length)
            text[at] = c;
        return length;
    }
}

static uint32_t write_grammar(char *out) {
    pool_count = 0;
    for (uint32_t i = 0; i < RULES; i++)
        rules[i] = random_expression(i, 0);
    char *at = out;
    for (uint32_t i = 0; i < RULES; i++) {
        at += sprintf(at, i ? "r%u ::= " : "root ::= ", i);
        put(&at, rules[i]);
        at += sprintf(at, between(0, 1) ? "\n" : " # end\r\n\n");
    }
    return (uint32_t)(at - out);
}

/* The state after each byte is a live one as long as the text can still be made to fit, and it
 * cannot be otherwise than that after an accepted text's beginning. */
static void check_text(struct compiled *c, const char *grammar, const uint32_t *text,
                       uint32_t length, uint32_t *accepted, uint32_t *refused) {
    char bytes[4 * LENGTH_MAX];
    size_t size = 0;
    for (uint32_t i = 0; i < length; i++)
        size += encode(text[i], bytes + size);
    if (follow(c->match, bytes, size) == MATCH_FAILED) { /* too many ways to read it */
        (*refused)++;
        MUST(grammar_match_reset(c->match, &error));
        return;
    }
    bool want = fits_slowly(text, length), got = fits(c->match, bytes, size);
    if (want != got)
        fail_msg("%s\nthe text %.*s %s", grammar, (int)size, bytes,
                 want ? "should fit" : "should not fit");
    *accepted += got;
}

static void test_random_grammars(void **state) {
    (void)state;
    char *grammar = malloc(1 << 20);
    uint32_t accepted = 0, refused = 0, texts = 0;
    for (int i = 0; i < 800; i++) {
        write_grammar(grammar);
        struct compiled c = compile(grammar);
        for (int j = 0; j < 12; j++) {
            uint32_t text[LENGTH_MAX + 4], length = 0;
            write_text(rules[0], text, &length, 0);
            for (int k = 0; k < 4; k++, texts++) {
                check_text(&c, grammar, text, length, &accepted, &refused);
                length = mutate(text, length);
            }
        }
        release(&c);
    }
    free(grammar);
    print_message("%u texts, of which %u fit; %u were over the bounds\n", texts, accepted, refused);
    assert_in_range(accepted, texts / 5, texts - texts / 5);
    assert_in_range(refused, 0, texts / 100);
}

/* ---- Tokens ---- */

#define TOKENS 3000

static uint32_t random_token(char *bytes) {
    uint32_t length = between(1, 6);
    if (between(0, 4) == 0) { /* a byte, perhaps of a character */
        bytes[0] = (char)between(0, 255);
        return 1;
    }
    uint32_t size = 0;
    for (uint32_t i = 0; i < length; i++)
        size += (uint32_t)encode(alphabet[between(0, ALPHABET - 1)], bytes + size);
    uint32_t cut = between(0, 3) ? 0 : between(0, size - 1); /* characters' ends and beginnings */
    memmove(bytes, bytes + cut, size - cut);
    size -= cut;
    return between(0, 3) ? size : between(1, size);
}

/* What the tree allows is what walking each token's bytes allows. False: there are too many ways to
 * read what comes. */
static bool check_mask(struct compiled *c, const struct token_trie *trie,
                       const struct token_text *texts, uint32_t state, uint32_t *allowed) {
    uint32_t words[(TOKENS + 31) / 32] = {0};
    peridot_error error;
    peridot_result result = token_trie_allow(trie, c->match, state, words, &error);
    if (result == PERIDOT_ERROR_UNSUPPORTED)
        return false;
    assert_int_equal(result, PERIDOT_OK);
    for (uint32_t i = 0; i < TOKENS; i++) {
        uint32_t at = state, id = texts[i].id;
        for (uint32_t j = 0; j < texts[i].length && at > MATCH_DEAD; j++)
            at = grammar_match_step(c->match, at, (uint8_t)texts[i].bytes[j]);
        assert_int_equal(at > MATCH_DEAD, words[id / 32] >> id % 32 & 1);
        *allowed += at > MATCH_DEAD;
    }
    return true;
}

static void test_tokens(void **state) {
    (void)state;
    static char bytes[TOKENS][32];
    struct token_text *texts = malloc(TOKENS * sizeof *texts);
    struct token_trie *trie;
    char *grammar = malloc(1 << 20);
    uint32_t allowed = 0, masks = 0, refused = 0;
    for (uint32_t i = 0; i < TOKENS; i++)
        texts[i] = (struct token_text){bytes[i], random_token(bytes[i]), i};
    MUST(token_trie_create(texts, TOKENS, &trie, &error));
    for (int i = 0; i < 60; i++) {
        write_grammar(grammar);
        struct compiled c = compile(grammar);
        uint32_t at = grammar_match_start(c.match);
        for (int step = 0; step < 6 && at > MATCH_DEAD; step++, masks++) {
            if (!check_mask(&c, trie, texts, at, &allowed)) {
                refused++;
                break;
            }
            for (int tries = 0; tries < 300; tries++) { /* on with some token that may come */
                const struct token_text *token = &texts[between(0, TOKENS - 1)];
                uint32_t next = at;
                for (uint32_t j = 0; j < token->length && next > MATCH_DEAD; j++)
                    next = grammar_match_step(c.match, next, (uint8_t)token->bytes[j]);
                if (next > MATCH_DEAD) {
                    at = next;
                    break;
                }
            }
        }
        release(&c);
    }
    print_message("%u masks of %u tokens, %u of them allowed on average\n", masks, TOKENS,
                  allowed / masks);
    assert_true(allowed > masks);
    assert_in_range(refused, 0, 6);
    token_trie_destroy(trie);
    MUST(token_trie_create(texts, 0, &trie, &error));
    token_trie_destroy(trie);
    free(texts);
    free(grammar);
}

/* ---- JSON ---- */

static char *read_grammar(const char *path) {
    struct file_bytes file;
    MUST(platform_read_file(path, &file, &error));
    char *text = malloc(file.size + 1);
    memcpy(text, file.data, file.size);
    text[file.size] = '\0';
    platform_free_file(&file);
    return text;
}

static cJSON *random_json(uint32_t depth) {
    static const char *const strings[] = {"", "a", "\xc3\xa9\n\t\"\\", "\x01\x1f",
                                          "\xf0\x9f\x98\x80"};
    uint32_t kind = between(0, depth > 4 ? 4 : 6);
    cJSON *json;
    switch (kind) {
    case 0:
        return cJSON_CreateNull();
    case 1:
        return cJSON_CreateBool((int)between(0, 1));
    case 2:
        return cJSON_CreateNumber((double)between(0, 2000000) - 1e6);
    case 3:
        return cJSON_CreateNumber(random_normal(&generator) * (between(0, 1) ? 1e-9 : 1e30));
    case 4:
        return cJSON_CreateString(strings[between(0, 4)]);
    case 5:
        json = cJSON_CreateArray();
        for (uint32_t i = between(0, 4); i > 0; i--)
            cJSON_AddItemToArray(json, random_json(depth + 1));
        return json;
    default:
        json = cJSON_CreateObject();
        for (uint32_t i = between(0, 4); i > 0; i--)
            cJSON_AddItemToObject(json, strings[between(0, 4)], random_json(depth + 1));
        return json;
    }
}

/* What a JSON library prints fits, as it is and in lines; with a byte changed it fits only if it
 * still is JSON to the library, which is laxer about numbers alone. */
static void test_json(void **state) {
    (void)state;
    char *grammar = read_grammar(TEST_DATA "/json.gbnf");
    struct compiled c = compile(grammar);
    uint32_t changed = 0;
    for (int i = 0; i < 400; i++) {
        cJSON *json = random_json(0);
        char *text = i % 2 ? cJSON_PrintUnformatted(json) : cJSON_Print(json);
        size_t length = strlen(text);
        if (!fits(c.match, text, length))
            fail_msg("does not fit: %s", text);
        for (int j = 0; j < 20; j++) {
            size_t at = random_below(&generator, length);
            char was = text[at];
            text[at] = "{}[]\",:0e-x \\"[between(0, 12)];
            cJSON *again = cJSON_ParseWithLengthOpts(text, length + 1, NULL, 1);
            if (!again && fits(c.match, text, length))
                fail_msg("fits: %s", text);
            changed += !again;
            cJSON_Delete(again);
            text[at] = was;
        }
        cJSON_free(text);
        cJSON_Delete(json);
    }
    static const char *const bad[] = {"",        "01",     "1.",      ".5",          "+1",
                                      "1e",      "\"\t\"", "\"\\x\"", "\"\\u12G4\"", "[1,]",
                                      "{\"a\"}", "{,}",    "nul",     "\"\x80\""};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(fits(c.match, bad[i], strlen(bad[i])));
    assert_true(changed > 1000);
    release(&c);
    free(grammar);
}

/* How long a mask takes over a vocabulary as large as Gemma's; told, not judged. */
static void test_time(void **state) {
    (void)state;
    enum { COUNT = 256000 };
    static char bytes[COUNT][16];
    static uint32_t words[COUNT / 32];
    struct token_text *texts = malloc(COUNT * sizeof *texts);
    struct token_trie *trie;
    for (uint32_t i = 0; i < COUNT; i++) {
        uint32_t length = between(1, 12);
        for (uint32_t j = 0; j < length; j++)
            bytes[i][j] = (char)(j == 0 && between(0, 1) ? ' '
                                 : between(0, 30)        ? 'a' + between(0, between(0, 25))
                                                         : between(0x20, 0xff));
        texts[i] = (struct token_text){bytes[i], length, i};
    }
    double start = platform_seconds();
    MUST(token_trie_create(texts, COUNT, &trie, &error));
    print_message("a tree of %u tokens: %.0f ms\n", COUNT, 1e3 * (platform_seconds() - start));
    char *grammar = read_grammar(TEST_DATA "/json.gbnf");
    struct compiled c = compile(grammar);
    static const char *const before[] = {"", "{", "{\"", "{\"name\": ", "[[\"", "{\"a\":{\"b"};
    for (size_t i = 0; i < sizeof before / sizeof *before; i++)
        for (int again = 0; again < 2; again++) {
            uint32_t at = follow(c.match, before[i], strlen(before[i])), allowed = 0;
            memset(words, 0, sizeof words);
            start = platform_seconds();
            MUST(token_trie_allow(trie, c.match, at, words, &error));
            double took = platform_seconds() - start;
            for (uint32_t id = 0; id < COUNT; id++)
                allowed += words[id / 32] >> id % 32 & 1;
            print_message("%-12s %6u tokens, %.3f ms%s\n", before[i], allowed, 1e3 * took,
                          again ? " again" : "");
        }
    release(&c);
    free(grammar);
    token_trie_destroy(trie);
    free(texts);
}

int main(void) {
    generator = random_announced();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_fits),
        cmocka_unit_test(test_what_is_no_grammar),
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_nesting),
        cmocka_unit_test(test_forgetting),
        cmocka_unit_test(test_characters),
        cmocka_unit_test(test_random_grammars),
        cmocka_unit_test(test_tokens),
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_time),
    };
    return cmocka_run_group_tests_name("grammar", tests, NULL, NULL);
}
