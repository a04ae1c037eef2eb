/* A text cut into windows, against the plain definition and as pictures. */
#include "text_windows.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#define TEXT_MAX 45

/* The window that scores a token, by the definition: the first that has half a window before it. */
static size_t define(size_t token, size_t count, uint32_t size, uint32_t stride) {
    for (size_t number = 0; number * stride <= token; number++) {
        size_t begin = number * stride;
        bool inside = token < begin + size - 1;
        if (inside && (count < size || token - begin + 1 >= size / 2))
            return number;
    }
    return SIZE_MAX;
}

static void check(size_t count, uint32_t size, uint32_t stride) {
    size_t by[TEXT_MAX], run = 0, scored = 0, number = 0;
    for (size_t i = 0; i < count; i++)
        by[i] = SIZE_MAX;
    struct text_windows windows = text_windows(count, size, stride);
    for (; text_windows_next(&windows); number++) {
        assert_int_equal(windows.begin, number * stride);
        assert_true(windows.end <= count && windows.end - windows.begin < size);
        assert_true(windows.begin <= windows.scored && windows.scored < windows.end);
        run += windows.end - windows.begin;
        for (size_t i = windows.scored; i < windows.end; i++, scored++) {
            assert_true(by[i] == SIZE_MAX);
            by[i] = number;
        }
    }
    assert_false(text_windows_next(&windows));
    for (size_t i = 0; i < count; i++)
        assert_true(by[i] == define(i, count, size, stride));
    struct text_windows_sum sum = text_windows_sum(count, size, stride);
    assert_int_equal(sum.windows, number);
    assert_int_equal(sum.scored, scored);
    assert_int_equal(sum.run, run);
    assert_true(count == 0 || scored > 0);
}

static void test_definition(void **state) {
    (void)state;
    for (size_t count = 0; count <= TEXT_MAX; count++)
        for (uint32_t size = 2; size <= 12; size++)
            for (uint32_t stride = 1; stride < size; stride++)
                check(count, size, stride);
}

static void assert_windows(size_t count, uint32_t size, uint32_t stride,
                           const size_t (*expected)[3], size_t windows) {
    struct text_windows at = text_windows(count, size, stride);
    for (size_t i = 0; i < windows; i++) {
        assert_true(text_windows_next(&at));
        assert_int_equal(at.begin, expected[i][0]);
        assert_int_equal(at.scored, expected[i][1]);
        assert_int_equal(at.end, expected[i][2]);
    }
    assert_false(text_windows_next(&at));
}

/* begin, first scored, end */
static void test_pictures(void **state) {
    (void)state;
    const size_t whole[][3] = {{0, 0, 511}};
    assert_windows(511, 512, 511, whole, 1);
    const size_t short_rest[][3] = {{0, 255, 511}};
    assert_windows(511 + 255, 512, 511, short_rest, 1);
    const size_t rest[][3] = {{0, 255, 511}, {511, 766, 767}};
    assert_windows(511 + 256, 512, 511, rest, 2);
    const size_t overlapping[][3] = {{0, 255, 511}, {256, 511, 600}};
    assert_windows(600, 512, 256, overlapping, 2);
    const size_t smallest[][3] = {{0, 0, 1}, {1, 1, 2}};
    assert_windows(2, 2, 1, smallest, 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_definition),
        cmocka_unit_test(test_pictures),
    };
    return cmocka_run_group_tests_name("text_windows", tests, NULL, NULL);
}
