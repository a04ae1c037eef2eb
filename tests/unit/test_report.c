/* The lab's report: escaping, scales and their ticks, and pages of hostile files. */
#include "html.h"
#include "report.h"
#include "svg.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* What `write` writes, the caller's to free. */
static char *written(void (*write)(FILE *stream, const void *what), const void *what) {
    FILE *file = tmpfile();
    assert_non_null(file);
    write(file, what);
    long length = ftell(file);
    char *text = calloc(1, (size_t)length + 1);
    assert_non_null(text);
    rewind(file);
    assert_int_equal(fread(text, 1, (size_t)length, file), length);
    fclose(file);
    return text;
}

/* ---- Text ---- */

static void write_text(FILE *stream, const void *what) {
    html_text(stream, what);
}

static void write_cut(FILE *stream, const void *what) {
    html_text_cut(stream, what, 4);
}

static void expect_text(void (*write)(FILE *, const void *), const char *text, const char *html) {
    char *got = written(write, text);
    assert_string_equal(got, html);
    free(got);
}

static void test_text(void **state) {
    (void)state;
    expect_text(write_text, "", "");
    expect_text(write_text, "<script>alert('\"&')</script>",
                "&lt;script&gt;alert(&#39;&quot;&amp;&#39;)&lt;/script&gt;");
    expect_text(write_text, "µ ± 𝄞\t\n", "µ ± 𝄞\t\n");
    /* controls, bytes of no character, a surrogate, U+FFFE: none is allowed in XML */
    expect_text(write_text, "a\033\x01\x7f", "a\ufffd\ufffd\ufffd");
    expect_text(write_text, "\xff\xc3(\xe2\x82", "\ufffd\ufffd(\ufffd\ufffd");
    expect_text(write_text, "\xed\xa0\x80", "\ufffd\ufffd\ufffd");
    expect_text(write_text, "\xef\xbf\xbe\xef\xbf\xbd", "\ufffd\ufffd");
}

static void test_cut(void **state) {
    (void)state;
    expect_text(write_cut, "abcd", "abcd");
    expect_text(write_cut, "abcde", "abc…");
    expect_text(write_cut, "µµµµ", "µµµµ");
    expect_text(write_cut, "µ<µµµ", "µ&lt;µ…");
}

/* ---- Tables ---- */

static const struct column columns[] = {
    {"name", "name", COLUMN_TEXT, 0, NULL},     {"value", "", COLUMN_NUMBER, 1, NULL},
    {"never", "never", COLUMN_NUMBER, 1, NULL}, {"some_detail", "", COLUMN_DETAIL, 0, NULL},
    {"list", "", COLUMN_SAMPLES, 0, NULL},      {NULL, NULL, COLUMN_TEXT, 0, NULL},
};

static void write_table(FILE *stream, const void *rows) {
    html_table(stream, rows, columns);
}

static void test_table(void **state) {
    (void)state;
    cJSON *rows = cJSON_Parse("[{\"name\": \"<b>\", \"value\": 1.25, \"list\": [1]},"
                              " {\"value\": \"text\", \"some_detail\": 7, \"never\": null}]");
    char *table = written(write_table, rows);
    assert_non_null(strstr(table, "<th scope=\"col\">name</th><th scope=\"col\" class=\"n\">value"
                                  "</th><th scope=\"col\">some detail</th></tr>"));
    assert_non_null(strstr(table, "<td class=\"\">&lt;b&gt;</td><td class=\"n \">1.2</td>"
                                  "<td class=\"\"></td>"));
    assert_non_null(strstr(table, "<td class=\"\">text</td><td class=\"n \">7</td>"));
    assert_null(strstr(table, "never"));
    free(table);
    cJSON_Delete(rows);
    rows = cJSON_Parse("[{\"other\": 1}]");
    table = written(write_table, rows);
    assert_string_equal(table, "");
    free(table);
    cJSON_Delete(rows);
}

/* ---- Scales ---- */

static void expect_ticks(const struct axis *axis, const double *expected, uint32_t count) {
    double ticks[TICKS_MAX];
    assert_int_equal(axis_ticks(axis, ticks), count);
    for (uint32_t i = 0; i < count; i++)
        assert_true(fabs(ticks[i] - expected[i]) <= 1e-9 * expected[i]);
}

static void test_linear(void **state) {
    (void)state;
    struct axis axis = axis_linear(97, 10, 110);
    assert_float_equal(axis.high, 100, 0);
    expect_ticks(&axis, (double[]){0, 20, 40, 60, 80, 100}, 6);
    assert_float_equal(axis_place(&axis, 0), 10, 1e-9);
    assert_float_equal(axis_place(&axis, 25), 35, 1e-9);
    assert_float_equal(axis_place(&axis, 1e9), 110, 1e-9);
    assert_float_equal(axis_place(&axis, -5), 10, 1e-9);
    axis = axis_linear(0.3, 100, 0); /* upwards */
    expect_ticks(&axis, (double[]){0, 0.1, 0.2, 0.3}, 4);
    assert_float_equal(axis_place(&axis, 0.3), 0, 1e-9);
    axis = axis_linear(0, 0, 1); /* nothing measured */
    assert_float_equal(axis.high, 1, 1e-9);
}

static void test_logarithmic(void **state) {
    (void)state;
    struct axis axis = axis_logarithmic(1.5, 15, 0, 100);
    expect_ticks(&axis, (double[]){1, 2, 5, 10, 20}, 5);
    assert_float_equal(axis_place(&axis, 1), 0, 1e-9);
    assert_float_equal(axis_place(&axis, sqrt(22.5)), 50, 1e-9);
    axis = axis_logarithmic(2, 9e5, 0, 1);
    expect_ticks(&axis, (double[]){10, 100, 1e3, 1e4, 1e5, 1e6}, 6);
}

/* No value of a file makes ticks too many, none, or off the scale. */
static void test_any_scale(void **state) {
    (void)state;
    static const double values[] = {-1,  0,    DBL_TRUE_MIN, 1e-300, 1e-9,     0.7,
                                    1.0, 4.99, 1e9,          1e300,  INFINITY, NAN};
    enum { COUNT = sizeof values / sizeof *values };
    double ticks[TICKS_MAX];
    char number[NUMBER_MAX];
    for (int i = 0; i < COUNT * COUNT; i++) {
        double low = values[i / COUNT], high = values[i % COUNT];
        struct axis axes[] = {axis_linear(high, 0, 100), axis_logarithmic(low, high, 0, 100)};
        for (int j = 0; j < 2; j++) {
            assert_true(isfinite(axes[j].low) && isfinite(axes[j].high));
            assert_true(axes[j].high > axes[j].low);
            uint32_t count = axis_ticks(&axes[j], ticks);
            assert_in_range(count, 1, TICKS_MAX);
            for (uint32_t k = 0; k < count; k++)
                assert_true(ticks[k] >= axes[j].low * (1 - 1e-9) &&
                            ticks[k] <= axes[j].high * (1 + 1e-9));
            double place = axis_place(&axes[j], low);
            assert_true(place >= 0 && place <= 100);
        }
        number_print(high, number);
        assert_true(strlen(number) < 12);
    }
}

static void test_numbers(void **state) {
    (void)state;
    static const struct {
        double value;
        const char *text;
    } cases[] = {{0, "0.000"},       {0.0421, "0.042"}, {1.234, "1.23"},
                 {12.34, "12.3"},    {99.96, "100"},    {123.4, "123"},
                 {123456, "123456"}, {1e9, "1.00e+09"}, {1e-5, "1.00e-05"}};
    char text[NUMBER_MAX];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        number_print(cases[i].value, text);
        assert_string_equal(text, cases[i].text);
    }
}

/* ---- Pages ---- */

static void write_page(FILE *stream, const void *report) {
    report_write_page(stream, report);
}

static char *page_of(const char *const *jsons, uint32_t count) {
    struct report report = {.count = count};
    for (uint32_t i = 0; i < count; i++) {
        cJSON *json = cJSON_Parse(jsons[i]);
        assert_non_null(json);
        report.files[i] = (struct report_file){"<path>", row_text(json, "command"),
                                               cJSON_GetObjectItem(json, "about"), json};
    }
    char *page = written(write_page, &report);
    for (uint32_t i = 0; i < count; i++)
        cJSON_Delete(report.files[i].json);
    return page;
}

static uint32_t occurrences(const char *text, const char *part) {
    uint32_t count = 0;
    for (; (text = strstr(text, part)); text += strlen(part))
        count++;
    return count;
}

#define EVIL "<script>alert(1)</script>\\\"'&"

/* Every text of a file, and keys of what it was measured on, are markup. */
static void test_hostile_texts(void **state) {
    (void)state;
    static const char *const jsons[] = {
        "{\"command\": \"kernels\", \"about\": {\"device\": \"" EVIL "\", \"" EVIL "\": \"" EVIL
        "\", \"read_gb_per_second\": 10, \"multiply_add_gflop_per_second\": 50},"
        "\"kernels\": [{\"kernel\": \"" EVIL "\", \"type\": \"" EVIL "\", \"shape\": \"" EVIL
        "\", \"variant\": \"" EVIL "\", \"in_use\": \"" EVIL "\", \"microseconds\": 5,"
        "\"gb_per_second\": 1, \"gflop_per_second\": 2, \"noise\": \"" EVIL "\"},"
        "{\"kernel\": \"k\", \"fault\": \"" EVIL "\"}],"
        "\"left_out\": [{\"kernel\": \"k\", \"reason\": \"" EVIL "\"}]}",
        "{\"command\": \"model\", \"about\": {\"device\": \"" EVIL "\", \"weights\": \"" EVIL "\"},"
        "\"speed\": [{\"test\": \"" EVIL "\", \"depth\": 0, \"tokens_per_second\": 3}],"
        "\"kernels\": [{\"kernel\": \"" EVIL "\", \"depth\": 1, \"microseconds\": 2}]}",
        "{\"command\": \"compile\", \"about\": {\"family\": \"" EVIL "\"}, \"kernels\": "
        "[{\"family\": \"" EVIL "\", \"cycles\": 5}]}"};
    char *page = page_of(jsons, 3);
    assert_int_equal(occurrences(page, "<script>"), 1); /* the page's own */
    assert_int_equal(occurrences(page, "alert(1)"),
                     occurrences(page, "&lt;script&gt;alert(1)")); /* or cut off behind */
    assert_true(occurrences(page, "alert(1)") > 20);
    assert_int_equal(occurrences(page, "<svg"), occurrences(page, "</svg>"));
    assert_int_equal(occurrences(page, "Kernels that are wrong"), 1);
    assert_int_equal(occurrences(page, "http"), occurrences(page, "http://www.w3.org/2000/svg") +
                                                    occurrences(page, "http-equiv"));
    free(page);
}

/* Numbers that JSON can hold and no plot can, and rows of other kinds than they should be. */
static void test_hostile_numbers(void **state) {
    (void)state;
    static const char *const values[] = {"1e999",  "-1e999", "-3",    "0",   "1e308",
                                         "1e-320", "null",   "\"7\"", "[1]", "{\"a\": 1}"};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        char kernels[1024], model[1024], compile[256];
        const char *v = values[i];
        snprintf(kernels, sizeof kernels,
                 "{\"command\": \"kernels\", \"about\": {\"read_gb_per_second\": %s,"
                 "\"multiply_add_gflop_per_second\": %s, \"x\": %s}, \"kernels\": [{\"kernel\": %s,"
                 "\"microseconds\": %s, \"spread_percent\": %s, \"gb_per_second\": 3,"
                 "\"gflop_per_second\": %s, \"limit_percent\": %s, \"type\": %s}, {}]}",
                 i % 2 ? "2" : v, v, v, v, v, v, v, v, v);
        snprintf(model, sizeof model,
                 "{\"command\": \"model\", \"about\": {}, \"speed\": [{\"test\": \"pp1\", "
                 "\"depth\": %s, \"tokens_per_second\": %s, \"spread_percent\": %s}, {\"test\": "
                 "\"pp1\", \"depth\": 3, \"tokens_per_second\": 4}]}",
                 v, v, v);
        snprintf(compile, sizeof compile,
                 "{\"command\": \"compile\", \"about\": {}, \"kernels\": [{\"cycles\": %s, "
                 "\"spills\": %s}]}",
                 v, v);
        char *page = page_of((const char *[]){kernels, model, compile}, 3);
        bool plottable = i == 4 || i == 5; /* a bar of kernels and one of compile */
        assert_int_equal(occurrences(page, "<rect"), plottable ? 2 : 0);
        assert_null(strstr(page, "=\"nan"));
        assert_null(strstr(page, "=\"-nan"));
        assert_null(strstr(page, "=\"inf"));
        assert_null(strstr(page, "=\"-inf"));
        assert_non_null(strstr(page, "</html>"));
        free(page);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_cut),
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_linear),
        cmocka_unit_test(test_logarithmic),
        cmocka_unit_test(test_any_scale),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_hostile_texts),
        cmocka_unit_test(test_hostile_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
