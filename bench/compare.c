#include "compare.h"
#include "statistics.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static enum tone verdict_tone(const cJSON *row, const char *key) {
    (void)key;
    const char *verdict = row_text(row, "verdict");
    return strcmp(verdict, "better") == 0  ? TONE_GOOD
           : strcmp(verdict, "worse") == 0 ? TONE_BAD
                                           : TONE_FAINT;
}

static const struct column changes[] = {
    {"what", "what", COLUMN_TEXT, 0, NULL},
    {"figure", "figure", COLUMN_TEXT, 0, NULL},
    {"before", "before", COLUMN_NUMBER, 2, NULL},
    {"after", "after", COLUMN_NUMBER, 2, NULL},
    {"change_percent", "change %", COLUMN_NUMBER, 1, verdict_tone},
    {"p", "p", COLUMN_NUMBER, 4, NULL},
    {"verdict", "verdict", COLUMN_TEXT, 0, verdict_tone},
    {NULL, NULL, COLUMN_TEXT, 0, NULL},
};

static const struct column settings[] = {
    {"setting", "setting", COLUMN_TEXT, 0, NULL},
    {"before", "before", COLUMN_TEXT, 0, NULL},
    {"after", "after", COLUMN_TEXT, 0, NULL},
    {NULL, NULL, COLUMN_TEXT, 0, NULL},
};

static void print_item(const cJSON *item, char *out, size_t size) {
    if (cJSON_IsNumber(item))
        snprintf(out, size, "%.10g", item->valuedouble);
    else
        snprintf(out, size, "%s", cJSON_IsString(item) ? item->valuestring : "");
}

/* A row's name: its values at the keys. */
static void name_row(const cJSON *row, const char *const *keys, char *out, size_t size) {
    size_t length = 0;
    char value[128];
    out[0] = '\0';
    for (; *keys && length < size; keys++) {
        const cJSON *item = cJSON_GetObjectItemCaseSensitive(row, *keys);
        print_item(item, value, sizeof value);
        if (*value)
            length += (size_t)snprintf(out + length, size - length, "%s%s%s", length ? " " : "",
                                       cJSON_IsNumber(item) ? "@" : "", value);
    }
}

static const cJSON *find_row(const cJSON *rows, const char *const *keys, const char *name) {
    const cJSON *row;
    char other[256];
    cJSON_ArrayForEach(row, rows) {
        name_row(row, keys, other, sizeof other);
        if (strcmp(name, other) == 0)
            return row;
    }
    return NULL;
}

static uint32_t read_samples(const cJSON *row, const char *key, double *samples) {
    const cJSON *item;
    uint32_t count = 0;
    cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(row, key)) {
        if (cJSON_IsNumber(item) && count < SAMPLES_MAX)
            samples[count++] = item->valuedouble;
    }
    return count;
}

static void compare_rows(const cJSON *before, const cJSON *after, const char *name,
                         const struct compared_figure *figure, struct table *table) {
    double a[SAMPLES_MAX], b[SAMPLES_MAX];
    uint32_t a_count = read_samples(before, figure->samples, a);
    uint32_t b_count = read_samples(after, figure->samples, b);
    if (!a_count || !b_count)
        return;
    struct difference d = samples_difference(a, a_count, b, b_count);
    bool better = (d.change > 0) == figure->more_is_better;
    cJSON *row = table_row(table);
    cJSON_AddStringToObject(row, "what", name);
    cJSON_AddStringToObject(row, "figure", figure->name);
    row_number(row, "before", d.before);
    row_number(row, "after", d.after);
    row_number(row, "change_percent", 100 * d.change);
    row_number(row, "p", d.p);
    cJSON_AddStringToObject(row, "verdict",
                            d.too_few ? "too few runs to tell"
                            : !d.real ? "within noise"
                            : better  ? "better"
                                      : "worse");
}

static void compare_about(const cJSON *before, const cJSON *after, struct table *table) {
    const cJSON *item;
    char a[512], b[512];
    cJSON_ArrayForEach(item, before) {
        print_item(item, a, sizeof a);
        print_item(cJSON_GetObjectItemCaseSensitive(after, item->string), b, sizeof b);
        if (strcmp(a, b) == 0)
            continue;
        cJSON *row = table_row(table);
        cJSON_AddStringToObject(row, "setting", item->string);
        cJSON_AddStringToObject(row, "before", a);
        cJSON_AddStringToObject(row, "after", b);
    }
}

void compare_results(const cJSON *before, const cJSON *after, const struct compared_figure *figures,
                     uint32_t figure_count, struct results *results) {
    char rule[200];
    snprintf(
        rule, sizeof rule,
        "real if Mann and Whitney's p <= %g (two-sided, on the runs) and the medians differ by "
        "%g %% or more",
        DIFFERENCE_P, 100 * DIFFERENCE_LEAST);
    cJSON_AddStringToObject(results->about, "rule", rule);
    struct table *about =
        results_table(results, "settings", "What differs in the setting", settings);
    compare_about(cJSON_GetObjectItemCaseSensitive(before, "about"),
                  cJSON_GetObjectItemCaseSensitive(after, "about"), about);
    struct table *table = results_table(results, "changes", "What changed", changes);
    for (uint32_t i = 0; i < figure_count; i++) {
        const struct compared_figure *figure = &figures[i];
        const cJSON *row, *rows = cJSON_GetObjectItemCaseSensitive(before, figure->table);
        cJSON_ArrayForEach(row, rows) {
            char name[256];
            name_row(row, figure->keys, name, sizeof name);
            const cJSON *other = find_row(cJSON_GetObjectItemCaseSensitive(after, figure->table),
                                          figure->keys, name);
            if (other)
                compare_rows(row, other, name, figure, table);
        }
    }
}
