#include "tuning_results.h"

#include <stdio.h>

static enum tone gain_tone(const cJSON *row, const char *key) {
    return row_value(row, key) > 1 ? TONE_GOOD : TONE_PLAIN;
}

static enum tone fault_tone(const cJSON *row, const char *key) {
    (void)row, (void)key;
    return TONE_BAD;
}

const struct column tuning_columns[] = {
    {"kernel", "kernel", COLUMN_TEXT, 0, NULL},
    {"type", "type", COLUMN_TEXT, 0, NULL},
    {"rows", "rows", COLUMN_TEXT, 0, NULL},
    {"variant", "variant", COLUMN_TEXT, 0, NULL},
    {"constants", "constants", COLUMN_TEXT, 0, NULL},
    {"microseconds", "µs", COLUMN_NUMBER, 1, NULL},
    {"gain", "times as fast", COLUMN_NUMBER, 2, gain_tone},
    {"untuned_variant", "untuned", COLUMN_TEXT, 0, NULL},
    {"untuned_constants", "constants", COLUMN_TEXT, 0, NULL},
    {"untuned_microseconds", "µs", COLUMN_NUMBER, 1, NULL},
    {"tried", "tried", COLUMN_NUMBER, 0, NULL},
    {"candidates", "of", COLUMN_NUMBER, 0, NULL},
    {"wrong", "wrong", COLUMN_NUMBER, 0, NULL},
    {"fault", "fault", COLUMN_TEXT, 0, fault_tone},
    {NULL, NULL, COLUMN_TEXT, 0, NULL},
};

static void add_choice(cJSON *row, const char *variant_key, const char *variant,
                       const char *constants_key, const uint32_t *spec) {
    char constants[48];
    snprintf(constants, sizeof constants, "%u %u %u", spec[SPEC_WORKGROUP], spec[SPEC_ROWS],
             spec[SPEC_COLUMNS]);
    cJSON_AddStringToObject(row, variant_key, variant);
    cJSON_AddStringToObject(row, constants_key, constants);
}

void tuning_results_add(struct table *table, const struct tuner_progress *progress) {
    const struct tuning_place *place = &progress->want.place;
    const struct pipeline_key *untuned = &progress->want.key;
    struct kernel_info info = kernel_info(place->kernel);
    cJSON *row = table_row(table);
    char rows[16];
    snprintf(rows, sizeof rows, "%u", place->columns);
    cJSON_AddStringToObject(row, "kernel", info.name);
    cJSON_AddStringToObject(
        row, "type", info.typed ? weight_type_info((enum weight_type)place->type)->name : "");
    cJSON_AddStringToObject(row, "rows", !info.typed ? "" : place->columns ? rows : "many");
    if (progress->finished) {
        add_choice(row, "variant", progress->chosen.variant->name, "constants",
                   progress->chosen.spec);
        row_number(row, "microseconds", 1e6 * progress->after);
        row_number(row, "gain", progress->chosen.gain);
        row_number(row, "untuned_microseconds", 1e6 * progress->before);
    }
    add_choice(row, "untuned_variant", untuned->variant->name, "untuned_constants", untuned->spec);
    row_number(row, "tried", progress->tried);
    row_number(row, "candidates", progress->candidates);
    row_number(row, "wrong", progress->wrong);
    if (progress->fault)
        cJSON_AddStringToObject(row, "fault", progress->fault);
}
