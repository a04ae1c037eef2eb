/* The barriers that the recorder derives, on random lists of dispatches: every conflicting pair is
 * separated, and no fewer barriers would do. Needs no device. */
#include "recorder.h"
#include "reference/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <stb/stb_ds.h>

static struct random generator;

static uint32_t below(uint32_t bound) {
    return (uint32_t)random_below(&generator, bound);
}

static struct dispatch random_dispatch(const struct buffer *buffers, uint32_t count) {
    struct dispatch dispatch = {.operand_count = 1 + below(3)};
    for (uint32_t i = 0; i < dispatch.operand_count; i++) {
        dispatch.operands[i] =
            (struct operand){&buffers[below(count)], below(8) * 16, 16 + below(3) * 16};
        dispatch.access[i] = (enum access)(1 + below(3));
    }
    if (below(6) == 0)
        dispatch.indirect = &buffers[below(count)];
    return dispatch;
}

/* Whether barriers before the marked dispatches separate all conflicting pairs. */
static bool separates(const struct dispatch *list, uint32_t count, const bool *barrier) {
    for (uint32_t b = 1; b < count; b++)
        for (uint32_t a = 0; a < b; a++) {
            bool between = false;
            for (uint32_t i = a + 1; i <= b; i++)
                between |= barrier[i];
            if (!between && dispatches_conflict(&list[a], &list[b]))
                return false;
        }
    return true;
}

static void test_barriers_are_enough_and_fewest(void **state) {
    (void)state;
    struct buffer buffers[4] = {{.size = 256}, {.size = 256}, {.size = 256}, {.size = 256}};
    for (int round = 0; round < 300; round++) {
        struct recording recording = {0};
        uint32_t count = 1 + below(9);
        for (uint32_t i = 0; i < count; i++)
            arrput(recording.dispatches, random_dispatch(buffers, 4));
        bool barrier[16];
        uint32_t used = recording_barriers(&recording, barrier);
        assert_true(barrier[0]);
        assert_true(separates(recording.dispatches, count, barrier));
        for (uint32_t set = 0; set < 1u << (count - 1); set++) {
            bool other[16] = {true};
            uint32_t size = 1;
            for (uint32_t i = 1; i < count; i++)
                size += other[i] = set >> (i - 1) & 1;
            if (size < used)
                assert_false(separates(recording.dispatches, count, other));
        }
        for (uint32_t i = 1; i < count; i++) { /* and each one is needed */
            if (!barrier[i])
                continue;
            barrier[i] = false;
            assert_false(separates(recording.dispatches, count, barrier));
            barrier[i] = true;
        }
        recording_free(&recording);
    }
}

static void test_conflicts(void **state) {
    (void)state;
    struct buffer one = {.size = 64}, two = {.size = 64};
    struct dispatch writer = {
        .operand_count = 1, .operands = {{&one, 16, 16}}, .access = {ACCESS_WRITE}};
    struct dispatch reader = {
        .operand_count = 1, .operands = {{&one, 16, 16}}, .access = {ACCESS_READ}};
    struct dispatch beside = {
        .operand_count = 1, .operands = {{&one, 32, 16}}, .access = {ACCESS_BOTH}};
    struct dispatch elsewhere = {
        .operand_count = 1, .operands = {{&two, 16, 16}}, .access = {ACCESS_BOTH}};
    assert_true(dispatches_conflict(&writer, &reader));
    assert_true(dispatches_conflict(&reader, &writer));
    assert_true(dispatches_conflict(&writer, &writer));
    assert_false(dispatches_conflict(&reader, &reader));
    assert_false(dispatches_conflict(&writer, &beside));
    assert_false(dispatches_conflict(&writer, &elsewhere));
    reader.operands[0].buffer = &two;
    reader.indirect = &one;
    reader.indirect_offset = 20;
    assert_true(dispatches_conflict(&reader, &writer));
}

int main(void) {
    generator = random_announced();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_barriers_are_enough_and_fewest),
        cmocka_unit_test(test_conflicts),
    };
    return cmocka_run_group_tests_name("recorder", tests, NULL, NULL);
}
