/* The lab's results: CSV quoting, JSON read back, tables; and whether a change is noise. */
#include "compare.h"
#include "options.h"
#include "reference/random.h"
#include "results.h"
#include "statistics.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const struct column columns[] = {
    {"name", "name", COLUMN_TEXT, 0, NULL},       {"value", "value", COLUMN_NUMBER, 1, NULL},
    {"never", "never", COLUMN_NUMBER, 1, NULL},   {"value_samples", "", COLUMN_SAMPLES, 0, NULL},
    {"hidden", "hidden", COLUMN_DETAIL, 0, NULL}, {NULL, NULL, COLUMN_TEXT, 0, NULL},
};

static void fill(struct results *results) {
    results_begin(results, "test");
    cJSON_AddStringToObject(results->about, "device", "a \"b\", c");
    struct table *table = results_table(results, "rows", "Rows", columns);
    cJSON *row = table_row(table);
    cJSON_AddStringToObject(row, "name", "plain");
    row_number(row, "value", 1.25);
    row_number(row, "never", NAN);
    row_samples(row, "value_samples", (double[]){1, 1.5}, 2);
    row = table_row(table);
    cJSON_AddStringToObject(row, "name", "two\nlines µ");
    row_number(row, "value", -1e-9);
    cJSON_AddStringToObject(row, "hidden", "\033[31m");
}

/* What a writer writes, NUL-terminated. */
static char *written(const struct results *results, char kind) {
    static char text[4096];
    FILE *file = tmpfile();
    assert_non_null(file);
    if (kind == 'c')
        results_write_csv(results, file);
    else if (kind == 'j')
        assert_true(results_write_json(results, file));
    else
        results_print(results, file, kind == 'C');
    rewind(file);
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    fclose(file);
    return text;
}

static void test_csv(void **state) {
    (void)state;
    struct results results;
    fill(&results);
    assert_string_equal(written(&results, 'c'),
                        "name,value,never,hidden,device\n"
                        "plain,1.25,,,\"a \"\"b\"\", c\"\n"
                        "\"two\nlines µ\",-1e-09,,\033[31m,\"a \"\"b\"\", c\"\n");
    struct table *second = results_table(&results, "more", "More", columns);
    row_number(table_row(second), "value", 3);
    assert_string_equal(written(&results, 'c'),
                        "table,name,value,never,hidden,device\n"
                        "rows,plain,1.25,,,\"a \"\"b\"\", c\"\n"
                        "rows,\"two\nlines µ\",-1e-09,,\033[31m,\"a \"\"b\"\", c\"\n"
                        "more,,3,,,\"a \"\"b\"\", c\"\n");
    results_free(&results);
}

static void test_table(void **state) {
    (void)state;
    struct results results;
    fill(&results);
    const char *text = written(&results, 't');
    assert_string_equal(text, "device  a \"b\", c\n\nRows\n"
                              "name         value\n"
                              "plain          1.2\n"
                              "two?lines µ   -0.0\n");
    assert_null(strchr(text, '\033'));
    assert_non_null(strstr(written(&results, 'C'), "\033[1m"));
    results_free(&results);
}

static void test_json(void **state) {
    (void)state;
    struct results results;
    peridot_error error;
    cJSON *file;
    fill(&results);
    char *text = strdup(written(&results, 'j'));
    assert_int_equal(results_parse(text, strlen(text), "a file", "test", &file, &error),
                     PERIDOT_OK);
    const cJSON *rows = cJSON_GetObjectItemCaseSensitive(file, "rows");
    assert_int_equal(cJSON_GetArraySize(rows), 2);
    assert_string_equal(row_text(cJSON_GetArrayItem(rows, 1), "name"), "two\nlines µ");
    assert_true(row_value(cJSON_GetArrayItem(rows, 0), "value") == 1.25);
    assert_false(cJSON_HasObjectItem(cJSON_GetArrayItem(rows, 0), "never"));
    assert_true(
        cJSON_Compare(results.about, cJSON_GetObjectItemCaseSensitive(file, "about"), true));
    cJSON_Delete(file);
    assert_int_equal(results_parse(text, strlen(text), "a file", "other", &file, &error),
                     PERIDOT_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "another command"));
    assert_int_equal(results_parse("{}", 2, "a file", "test", &file, &error), PERIDOT_ERROR_FORMAT);
    assert_int_equal(results_parse(text, strlen(text) / 2, "a file", "test", &file, &error),
                     PERIDOT_ERROR_FORMAT);
    free(text);
    results_free(&results);
}

/* ---- Statistics ---- */

static void test_quantiles(void **state) {
    (void)state;
    double samples[] = {5, 1, 4, 2, 3};
    assert_true(samples_quantile(samples, 5, 0.5) == 3);
    assert_true(samples_quantile(samples, 5, 1) == 5);
    assert_true(samples_quantile(samples, 4, 0.5) == 2.5);
    assert_true(isnan(samples_quantile(samples, 0, 0.5)));
    struct spread spread = samples_spread((double[]){4, 1, 3, 2, 5}, 5);
    assert_true(spread.median == 3 && spread.range == 2);
}

/* Against p counted in integers over all ways to draw the ranks. */
static void test_mann_whitney(void **state) {
    (void)state;
    const double low[] = {1, 2, 3, 4, 5}, high[] = {6, 7, 8, 9, 10}, mixed[] = {2, 2, 6, 3, 9};
    assert_true(fabs(samples_mann_whitney(low, 5, high, 5) - 2.0 / 252) <= 1e-12);
    assert_true(fabs(samples_mann_whitney(high, 5, low, 5) - 2.0 / 252) <= 1e-12);
    assert_true(fabs(samples_mann_whitney(low, 3, high, 3) - 0.1) <= 1e-12);
    assert_true(fabs(samples_mann_whitney(low, 5, low, 5) - 1) <= 1e-12);
    assert_true(fabs(samples_mann_whitney(low, 1, high, 0) - 1) <= 0);
    assert_true(samples_mann_whitney(low, 5, mixed, 5) > 0.3);
    assert_true(fabs(samples_mann_whitney(mixed, 5, low, 5) - 0.5793650793650794) <= 1e-12);
    /* the last two by the normal approximation */
    double a[21], b[21];
    for (int i = 0; i < 21; i++) {
        a[i] = i + (i % 3) * 0.3;
        b[i] = i * 1.1 + 3;
    }
    assert_true(fabs(samples_mann_whitney(a, 20, b, 20) - 0.08707638888516192) <= 1e-12);
    assert_true(fabs(samples_mann_whitney(a, 21, b, 20) - 0.14000904060791505) <= 2e-3);
    assert_true(fabs(samples_mann_whitney(a, 21, b, 21) - 0.0908352752346963) <= 2e-3);
}

static struct random generator;

static void noisy(double *samples, uint32_t count, double mean) {
    for (uint32_t i = 0; i < count; i++)
        samples[i] = mean * (1 + 0.01 * random_normal(&generator));
}

/* One in a hundred may be called a change where there is none, and far fewer also differ by 1 %. */
static void test_difference(void **state) {
    (void)state;
    double before[8], after[8];
    uint32_t wrong = 0, missed = 0, small = 0;
    for (int round = 0; round < 1000; round++) {
        noisy(before, 8, 100);
        noisy(after, 8, 100);
        wrong += samples_difference(before, 8, after, 8).real;
        noisy(after, 8, 110);
        struct difference d = samples_difference(before, 8, after, 8);
        missed += !d.real || d.change < 0.05;
        for (int i = 0; i < 8; i++) {
            before[i] = 100 + 0.001 * i;
            after[i] = 100.5 + 0.001 * i; /* certain, and of no account */
        }
        small += samples_difference(before, 8, after, 8).real;
    }
    assert_true(wrong <= 25);
    assert_int_equal(missed, 0);
    assert_int_equal(small, 0);
    struct difference few =
        samples_difference((double[]){1, 1, 1, 1}, 4, (double[]){9, 9, 9, 9}, 4);
    assert_true(few.too_few && !few.real);
    noisy(before, 5, 100);
    noisy(after, 5, 110);
    few = samples_difference(before, 5, after, 5);
    assert_true(!few.too_few && few.real);
}

/* ---- Comparing files ---- */

static cJSON *file_with(const char *device, double mean, uint32_t runs, double other) {
    double samples[16];
    struct results results;
    results_begin(&results, "test");
    cJSON_AddStringToObject(results.about, "device", device);
    struct table *table = results_table(&results, "rows", "Rows", columns);
    cJSON *row = table_row(table);
    cJSON_AddStringToObject(row, "name", "one");
    noisy(samples, runs, mean);
    row_samples(row, "value_samples", samples, runs);
    row = table_row(table);
    cJSON_AddStringToObject(row, "name", "two");
    noisy(samples, runs, other);
    row_samples(row, "value_samples", samples, runs);
    char *text = strdup(written(&results, 'j'));
    results_free(&results);
    cJSON *file = cJSON_Parse(text);
    free(text);
    return file;
}

static const char *verdict(const struct results *results, int index) {
    return row_text(cJSON_GetArrayItem(results->tables[1].rows, index), "verdict");
}

static void compare(cJSON *before, cJSON *after, bool more_is_better, struct results *results) {
    static const char *const keys[] = {"name", NULL};
    const struct compared_figure figure = {"rows", keys, "value_samples", "value", more_is_better};
    results_begin(results, "test");
    compare_results(before, after, &figure, 1, results);
    cJSON_Delete(before);
    cJSON_Delete(after);
}

static void test_compare(void **state) {
    (void)state;
    struct results results;
    generator = random_start(7); /* one in a hundred seeds calls no change a change */
    compare(file_with("A", 100, 8, 50), file_with("B", 110, 8, 50.01), true, &results);
    assert_int_equal(cJSON_GetArraySize(results.tables[0].rows), 1);
    assert_string_equal(row_text(results.tables[0].rows->child, "after"), "B");
    assert_int_equal(cJSON_GetArraySize(results.tables[1].rows), 2);
    assert_string_equal(verdict(&results, 0), "better");
    assert_string_equal(verdict(&results, 1), "within noise");
    results_free(&results);
    compare(file_with("A", 100, 8, 50), file_with("A", 110, 8, 40), false, &results);
    assert_int_equal(cJSON_GetArraySize(results.tables[0].rows), 0);
    assert_string_equal(verdict(&results, 0), "worse");
    assert_string_equal(verdict(&results, 1), "better");
    results_free(&results);
    compare(file_with("A", 100, 3, 50), file_with("A", 200, 3, 50), true, &results);
    assert_string_equal(verdict(&results, 0), "too few runs to tell");
    results_free(&results);
}

static void test_patterns(void **state) {
    (void)state;
    assert_true(pattern_matches(NULL, "a", false));
    assert_true(pattern_matches("x,mat", "matvec/portable", true));
    assert_false(pattern_matches("x,mat", "matvec/portable", false));
    assert_true(pattern_matches("*/port*", "matvec/portable", true));
    assert_false(pattern_matches("*/sub*,vec*", "matvec/portable", true));
    assert_false(pattern_matches("f16", "bf16", false));
    assert_true(pattern_matches("q4*,f16", "q4_k", false));
    assert_false(pattern_matches("", "a", true));
}

int main(void) {
    generator = random_announced();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_csv),          cmocka_unit_test(test_table),
        cmocka_unit_test(test_json),         cmocka_unit_test(test_quantiles),
        cmocka_unit_test(test_mann_whitney), cmocka_unit_test(test_difference),
        cmocka_unit_test(test_compare),      cmocka_unit_test(test_patterns),
    };
    return cmocka_run_group_tests_name("results", tests, NULL, NULL);
}
