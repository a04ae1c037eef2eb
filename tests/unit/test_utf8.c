/* Whole characters out of a stream of bytes, and stop strings within a stream of text. */
#include "utf8.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define BAD "\xef\xbf\xbd"

/* ---- Sequences ---- */

/* A character as its definition says it: the shortest form, no surrogate, at most U+10FFFF. */
static size_t write_character(uint32_t c, char *out) {
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    size_t size = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = size; i-- > 1; c >>= 6)
        out[i] = (char)(0x80 | (c & 0x3f));
    out[0] = (char)((size == 2 ? 0xc0 : size == 3 ? 0xe0 : 0xf0) | c);
    return size;
}

static void test_every_character(void **state) {
    (void)state;
    for (uint32_t c = 0; c < 0x110000; c++) {
        char text[4];
        size_t size = write_character(c, text);
        bool surrogate = c >= 0xd800 && c < 0xe000;
        assert_int_equal(utf8_sequence(text, size), surrogate ? 0 : size);
        assert_int_equal(utf8_sequence(text, size - 1), 0);
    }
    static const char *const none[] = {"\x80",
                                       "\xbf",
                                       "\xc0\x80",
                                       "\xc1\xbf",
                                       "\xe0\x9f\xbf",
                                       "\xf0\x8f\xbf\xbf",
                                       "\xf4\x90\x80\x80",
                                       "\xf5\x80\x80\x80",
                                       "\xff",
                                       "\xe2\x28\xa1",
                                       "\xc3("};
    for (size_t i = 0; i < COUNT(none); i++)
        assert_int_equal(utf8_sequence(none[i], strlen(none[i])), 0);
}

/* ---- The stream ---- */

static void test_stream(void **state) {
    (void)state;
    static const struct {
        const char *in, *out;
    } cases[] = {
        {"caf\xc3\xa9 \xf0\x9f\x98\x80!", "caf\xc3\xa9 \xf0\x9f\x98\x80!"},
        {"a\xff"
         "b",
         "a" BAD "b"},
        {"\xc3(", BAD "("},
        {"\xe4\xb8", BAD BAD},
        {"\xe4\xb8"
         "a",
         BAD BAD "a"},
        {"\xf0\x9f\x98\xf0\x9f\x98\x80", BAD BAD BAD "\xf0\x9f\x98\x80"},
        {"\xed\xa0\x80", BAD BAD BAD},
        {"\xc0\x80", BAD BAD},
        {"\xf4\x90", BAD BAD},
    };
    for (size_t i = 0; i < COUNT(cases); i++)
        for (size_t cut = 0; cut <= strlen(cases[i].in); cut++) {
            struct utf8_stream stream = {0};
            char out[64];
            size_t length = utf8_stream_push(&stream, cases[i].in, cut, out);
            length += utf8_stream_push(&stream, cases[i].in + cut, strlen(cases[i].in) - cut,
                                       out + length);
            length += utf8_stream_flush(&stream, out + length);
            out[length] = '\0';
            assert_string_equal(out, cases[i].out);
        }
}

/* Only what may still become a character is held back: nothing of a whole one, at most 3 bytes. */
static void test_stream_holds_little_back(void **state) {
    (void)state;
    struct utf8_stream stream = {0};
    char out[16];
    assert_int_equal(utf8_stream_push(&stream, "\xf0\x9f", 2, out), 0);
    assert_int_equal(utf8_stream_push(&stream, "\x98", 1, out), 0);
    assert_int_equal(stream.count, 3);
    assert_int_equal(utf8_stream_push(&stream, "\x80", 1, out), 4);
    assert_int_equal(stream.count, 0);
    assert_int_equal(utf8_stream_push(&stream, "\xed", 1, out), 0);
    assert_int_equal(utf8_stream_push(&stream, "\xa0", 1, out), 6); /* no character begins so */
    assert_int_equal(stream.count, 0);
}

/* ---- Stop strings ---- */

struct outcome {
    size_t end;
    bool found;
};

/* Feeds a text in steps as a generator does: what is safe is given out and not passed again. */
static struct outcome feed(const struct stop_matcher *matcher, const char *text, size_t length,
                           size_t step) {
    struct outcome outcome = {0, false};
    for (size_t have = 0; have < length && !outcome.found;) {
        have = have + step < length ? have + step : length;
        outcome.end +=
            stop_matcher_scan(matcher, text + outcome.end, have - outcome.end, &outcome.found);
    }
    return outcome;
}

static void test_stop_strings(void **state) {
    (void)state;
    static const char *const stops[] = {"abcX", "bc", "END", "\n\n"};
    const struct stop_matcher matcher = {stops, COUNT(stops)};
    static const struct {
        const char *text;
        size_t end;
        bool found;
    } cases[] = {
        {"", 0, false},        {"xxab", 2, false},     {"xxabc", 3, true},      {"xxabcX", 3, true},
        {"hello E", 6, false}, {"hello Es", 8, false}, {"hello EEND", 7, true}, {"ENEND", 2, true},
        {"a\n", 1, false},     {"a\n\n\n", 1, true},   {"ENDbc", 0, true},      {"aab", 1, false},
    };
    for (size_t i = 0; i < COUNT(cases); i++)
        for (size_t step = 1; step <= 8; step++) {
            struct outcome outcome = feed(&matcher, cases[i].text, strlen(cases[i].text), step);
            assert_int_equal(outcome.end, cases[i].end);
            assert_int_equal(outcome.found, cases[i].found);
        }
    bool found = true;
    const struct stop_matcher empty = {(const char *const[]){""}, 1}, none = {NULL, 0};
    assert_int_equal(stop_matcher_scan(&empty, "text", 4, &found), 4);
    assert_false(found);
    assert_int_equal(stop_matcher_scan(&none, "text", 4, &found), 4);
    assert_false(found);
}

/* The plain definition: the stop string that ends first, the longest of those. */
static struct outcome define(const struct stop_matcher *matcher, const char *text, size_t length) {
    for (size_t end = 1; end <= length; end++) {
        size_t longest = 0;
        for (size_t i = 0; i < matcher->count; i++) {
            size_t size = strlen(matcher->stops[i]);
            if (size <= end && memcmp(text + end - size, matcher->stops[i], size) == 0)
                longest = size > longest ? size : longest;
        }
        if (longest)
            return (struct outcome){end - longest, true};
    }
    return (struct outcome){length, false};
}

static void test_random_stop_strings(void **state) {
    (void)state;
    const char *given = getenv("PERIDOT_TEST_SEED");
    uint32_t seed = given ? (uint32_t)strtoul(given, NULL, 10) : (uint32_t)time(NULL);
    print_message("PERIDOT_TEST_SEED=%u\n", seed);
    for (int round = 0; round < 20000; round++) {
        char text[17] = "", words[3][6] = {"", "", ""};
        const char *const stops[] = {words[0], words[1], words[2]};
        const struct stop_matcher matcher = {stops, 3};
        for (size_t i = 0; i < 16 + 15; i++) {
            seed = seed * 1664525 + 1013904223;
            char letter = "ab"[seed >> 31];
            if (i < 16)
                text[i] = letter;
            else if ((i - 16) % 5 <= (seed >> 24 & 3) + 1)
                words[(i - 16) / 5][strlen(words[(i - 16) / 5])] = letter;
        }
        struct outcome expected = define(&matcher, text, 16);
        for (size_t step = 1; step <= 16; step += 3) {
            struct outcome outcome = feed(&matcher, text, 16, step);
            assert_int_equal(outcome.found, expected.found);
            if (expected.found)
                assert_int_equal(outcome.end, expected.end);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_character),          cmocka_unit_test(test_stream),
        cmocka_unit_test(test_stream_holds_little_back), cmocka_unit_test(test_stop_strings),
        cmocka_unit_test(test_random_stop_strings),
    };
    return cmocka_run_group_tests_name("utf8", tests, NULL, NULL);
}
