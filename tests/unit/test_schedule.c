/* Predictions: they learn, and keep work within the limit. */
#include "schedule.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static void test_learns_a_slow_device(void **state) {
    (void)state;
    struct device device = {.info.type = VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU};
    struct schedule schedule;
    schedule_start(&schedule, &device, 0.5);
    struct cost work = {.bytes = 1e9, .flops = 1e11};
    double truth = 7 * schedule_seconds(&schedule, work);
    for (int i = 0; i < 5; i++)
        schedule_learn(&schedule, schedule_seconds(&schedule, work), truth);
    double predicted = schedule_seconds(&schedule, work);
    assert_true(predicted > 0.95 * truth && predicted < 1.05 * truth);
}

static void test_rows_stay_within_the_limit(void **state) {
    (void)state;
    struct device device = {.info.type = VK_PHYSICAL_DEVICE_TYPE_CPU};
    struct schedule schedule;
    schedule_start(&schedule, &device, 0.5);
    /* a layer of the 2B: 110 M weights in bf16 */
    struct cost fixed = {.bytes = 220e6}, per_row = {.flops = 220e6};
    uint32_t rows = schedule_rows(&schedule, fixed, per_row, 512);
    struct cost chosen = {fixed.bytes, rows * per_row.flops},
                twice = {fixed.bytes, 2 * rows * per_row.flops};
    assert_true(rows == 1 || schedule_seconds(&schedule, chosen) <= 0.5);
    assert_true(schedule_seconds(&schedule, twice) > 0.5);
    struct cost huge = {.bytes = 1e15};
    assert_int_equal(schedule_rows(&schedule, huge, per_row, 512), 1);
    struct cost nothing = {0};
    assert_int_equal(schedule_rows(&schedule, nothing, nothing, 512), 512);
}

static void test_ignores_nonsense(void **state) {
    (void)state;
    struct device device = {.info.type = VK_PHYSICAL_DEVICE_TYPE_CPU};
    struct schedule schedule;
    schedule_start(&schedule, &device, 0.5);
    double before = schedule.correction;
    schedule_learn(&schedule, 0, 1);
    schedule_learn(&schedule, 1, 0);
    assert_true(schedule.correction == before);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_learns_a_slow_device),
        cmocka_unit_test(test_rows_stay_within_the_limit),
        cmocka_unit_test(test_ignores_nonsense),
    };
    return cmocka_run_group_tests_name("schedule", tests, NULL, NULL);
}
