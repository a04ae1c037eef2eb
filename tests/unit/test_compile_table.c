/* The lab's table of compilers' figures: written, read, and what the check says of planted faults;
 * the names that drivers have for figures; and a card's sensors from files as Linux has them. */
#include "compile_table.h"
#include "pipeline_figures.h"
#include "platform.h"
#include "sensors.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- The table ---- */

static void add(cJSON *rows, const char *family, const char *driver, const char *kernel,
                double registers, double spills, double instructions) {
    cJSON *row = cJSON_CreateObject();
    cJSON_AddStringToObject(row, "family", family);
    cJSON_AddStringToObject(row, "driver", driver);
    cJSON_AddStringToObject(row, "kernel", kernel);
    cJSON_AddStringToObject(row, "variant", "portable");
    cJSON_AddStringToObject(row, "type", "q4_k");
    cJSON_AddStringToObject(row, "shape", "1 column");
    row_number(row, "registers", registers);
    row_number(row, "spills", spills);
    row_number(row, "instructions", instructions);
    cJSON_AddItemToArray(rows, row);
}

static cJSON *two_kernels(double registers, double spills, double instructions) {
    cJSON *rows = cJSON_CreateArray();
    add(rows, "navi21", "radv 1", "first", 64, 0, 500);
    add(rows, "navi21", "radv 1", "second", registers, spills, instructions);
    return rows;
}

static char said[4096];

/* The check's faults; `said` is what it printed. Frees both. */
static struct compile_check check(cJSON *before, cJSON *now) {
    struct compile_check result;
    FILE *file = tmpfile();
    assert_non_null(file);
    compile_table_check(before, now, "the table", file, &result);
    rewind(file);
    said[fread(said, 1, sizeof said - 1, file)] = '\0';
    fclose(file);
    cJSON_Delete(before);
    cJSON_Delete(now);
    return result;
}

static void test_nothing_changed(void **state) {
    (void)state;
    struct compile_check result = check(two_kernels(32, 0, 1000), two_kernels(32, 0, 1000));
    assert_int_equal(result.faults, 0);
    assert_int_equal(result.compared, 2);
    assert_string_equal(said, "");
    /* up to a tenth more, and less, is none; nor is what spilled before */
    assert_int_equal(check(two_kernels(32, 0, 1000), two_kernels(35, 0, 1100)).faults, 0);
    assert_int_equal(check(two_kernels(32, 0, 1000), two_kernels(16, 0, 10)).faults, 0);
    assert_int_equal(check(two_kernels(32, 5, 1000), two_kernels(32, 9, 1000)).faults, 0);
}

static void test_planted_growth(void **state) {
    (void)state;
    assert_int_equal(check(two_kernels(32, 0, 1000), two_kernels(32, 0, 1101)).faults, 1);
    assert_non_null(strstr(said, "navi21: second/portable q4_k, 1 column grows from 1000 to 1101"));
    assert_null(strstr(said, "first"));
    assert_int_equal(check(two_kernels(32, 0, 1000), two_kernels(36, 0, 1000)).faults, 1);
    assert_non_null(strstr(said, "from 32 to 36 registers"));
}

static void test_planted_spill(void **state) {
    (void)state;
    assert_int_equal(check(two_kernels(32, 0, 1000), two_kernels(32, 1, 1000)).faults, 1);
    assert_non_null(strstr(said, "begins to spill"));
}

static void test_other_rows(void **state) {
    (void)state;
    cJSON *more = two_kernels(32, 0, 1000);
    add(more, "navi21", "radv 1", "third", 1, 0, 1);
    assert_int_equal(check(two_kernels(32, 0, 1000), more).faults, 1);
    assert_non_null(strstr(said, "third/portable q4_k, 1 column is not in the table"));
    more = two_kernels(32, 0, 1000);
    add(more, "navi21", "radv 1", "third", 1, 0, 1);
    assert_int_equal(check(more, two_kernels(32, 0, 1000)).faults, 1);
    assert_non_null(strstr(said, "no longer built"));
}

static void test_other_compiler(void **state) {
    (void)state;
    cJSON *now = cJSON_CreateArray();
    add(now, "navi21", "radv 2", "second", 999, 9, 9999);
    struct compile_check result = check(two_kernels(32, 0, 1000), now);
    assert_int_equal(result.faults, 0);
    assert_int_equal(result.compared, 0);
    assert_int_equal(result.left_out, 1);
    assert_memory_equal(said, "left out: navi21", 16);
    assert_non_null(strstr(said, "radv 1 and this is radv 2"));
}

static const char *const path = "compile-table-test.csv";

static void test_file(void **state) {
    (void)state;
    cJSON *rows = two_kernels(32, 0, 1000), *again;
    cJSON_DeleteItemFromObject(rows->child, "spills"); /* what a driver does not tell */
    peridot_error error;
    assert_int_equal(compile_table_write(path, rows, &error), PERIDOT_OK);
    assert_int_equal(compile_table_read(path, &again, &error), PERIDOT_OK);
    assert_true(cJSON_Compare(rows, again, true));
    cJSON_Delete(rows);
    cJSON_Delete(again);
}

static void refuse(const char *text) {
    cJSON *rows;
    peridot_error error;
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
    assert_int_equal(compile_table_read(path, &rows, &error), PERIDOT_ERROR_FORMAT);
    assert_null(rows);
}

#define HEADER                                                                                     \
    "family,driver,kernel,variant,type,shape,registers,spills,occupancy,instructions,cycles\r\n"

static void test_damaged_file(void **state) {
    (void)state;
    refuse("");
    refuse("nothing\n");
    refuse(HEADER);
    refuse(HEADER "a,b,c,d,e,f,1,2,3,4\r\n");
    refuse(HEADER "a,b,c,d,e,f,1,2,3,4,5,6\r\n");
    refuse(HEADER "a,b,c,d,e,f,1,2,x,4,5\r\n");
    refuse(HEADER "a,\"b\",c,d,e,f,1,2,3,4,5\r\n");
    remove(path);
}

/* ---- Drivers' names ---- */

static VkPipelineExecutableStatisticKHR statistic(const char *name, uint64_t value) {
    VkPipelineExecutableStatisticKHR figure = {
        .format = VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_UINT64_KHR, .value.u64 = value};
    snprintf(figure.name, sizeof figure.name, "%s", name);
    return figure;
}

static void test_figures(void **state) {
    (void)state;
    struct figures figures = {0};
    const VkPipelineExecutableStatisticKHR all[] = {
        statistic("Spilled SGPRs", 2), statistic("Spilled VGPRs", 3), statistic("VGPRs", 64),
        statistic("Instruction Count", 7), statistic("Hash", 99)};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        figures_add(&figures, &all[i]);
    assert_true(figures.has[FIGURE_SPILLS] && figures.at[FIGURE_SPILLS] == 5);
    assert_true(figures.has[FIGURE_REGISTERS] && figures.at[FIGURE_REGISTERS] == 64);
    assert_true(figures.has[FIGURE_INSTRUCTIONS] && figures.at[FIGURE_INSTRUCTIONS] == 7);
    assert_false(figures.has[FIGURE_CYCLES]);
}

/* ---- Sensors ---- */

static char root[] = "sensors-XXXXXX";

/* Writes a number to a file of the card 0000:03:00.0, making its folders. */
static void put(const char *name, const char *value) {
    char file[256];
    snprintf(file, sizeof file, "%s/bus/pci/devices/0000:03:00.0/%s", root, name);
    for (char *at = strchr(file, '/'); at; at = strchr(at + 1, '/')) {
        *at = '\0';
        mkdir(file, 0777);
        *at = '/';
    }
    FILE *stream = fopen(file, "w");
    assert_non_null(stream);
    fputs(value, stream);
    fclose(stream);
}

static int remove_root(void **state) {
    (void)state;
    char command[64];
    snprintf(command, sizeof command, "rm -rf %s", root);
    return system(command);
}

static void test_sensors(void **state) {
    (void)state;
    struct sensors sensors;
    assert_non_null(mkdtemp(root));
    sensors_find(&sensors, root, "0000:03:00.0");
    assert_null(energy_begin(&sensors));
    assert_true(isnan(energy_end(NULL)));
    assert_true(isnan(sensors_clock_mhz(&sensors)));

    put("hwmon/hwmon3/power1_average", "50000000\n"); /* 50 W */
    put("hwmon/hwmon3/freq1_input", "1800000000\n");
    sensors_find(&sensors, root, "0000:03:00.0");
    assert_true(fabs(sensors_clock_mhz(&sensors) - 1800) <= 1e-6);
    double start = platform_seconds();
    struct energy_meter *meter = energy_begin(&sensors);
    nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
    double joules = energy_end(meter);
    assert_true(joules > 0 && joules <= 50.001 * (platform_seconds() - start));

    put("hwmon/hwmon3/energy1_input", "1000000\n"); /* a counter goes before power */
    sensors_find(&sensors, root, "0000:03:00.0");
    meter = energy_begin(&sensors);
    put("hwmon/hwmon3/energy1_input", "3500000\n");
    assert_true(fabs(energy_end(meter) - 2.5) <= 1e-9);
    sensors_find(&sensors, root, "");
    assert_null(energy_begin(&sensors));
}

static void test_intel_clock(void **state) {
    (void)state;
    struct sensors sensors;
    put("hwmon/hwmon3/freq1_input", "nothing");
    put("drm/card1/gt_act_freq_mhz", "1200\n");
    sensors_find(&sensors, root, "0000:03:00.0");
    assert_true(fabs(sensors_clock_mhz(&sensors) - 1200) <= 1e-6);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_changed), cmocka_unit_test(test_planted_growth),
        cmocka_unit_test(test_planted_spill),   cmocka_unit_test(test_other_rows),
        cmocka_unit_test(test_other_compiler),  cmocka_unit_test(test_file),
        cmocka_unit_test(test_damaged_file),    cmocka_unit_test(test_figures),
        cmocka_unit_test(test_sensors),         cmocka_unit_test(test_intel_clock),
    };
    return cmocka_run_group_tests_name("compile table", tests, NULL, remove_root);
}
