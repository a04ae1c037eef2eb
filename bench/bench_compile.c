/* peridot-bench compile: what compilers make of the kernels. */
#include "bench.h"
#include "compile_families.h"
#include "compile_table.h"
#include "compile_variants.h"
#include "device.h"
#include "environment.h"
#include "messages.h"
#include "options.h"
#include "platform.h"

#include <stdlib.h>
#include <string.h>

static const char usage[] =
    "peridot-bench compile: builds every variant in the table of kernels, in every weight type, "
    "as\n"
    "Gemma's sessions build it, and tabulates what the drivers' compilers tell of the result\n"
    "(VK_KHR_pipeline_executable_properties). Nothing runs, so no card is needed where a driver "
    "can\n"
    "be told to take one for there: Mesa's, for AMD's families and with a shim for Intel's.\n"
    "\n"
    "  --device CHOICE        an index, a part of the name, or a UUID (every device there is)\n"
    "  --families NAME,...    instead: families by Mesa's names, each in a process of its own:\n"
    "                         polaris10 vega10 navi10 navi21 gfx1100 (navi31 from Mesa 23 on) "
    "...,\n"
    "                         and with PERIDOT_INTEL_SHIM=DIR tgl dg2 lnl bmg ...\n"
    "  --kernel PATTERN,...   parts of kernel/variant, or all of it with *: matvec, */portable\n"
    "  --type PATTERN,...     weight types: q4_k, q8_0, q4* ...; kernels without weights too\n"
    "  --quick                without --type: two of them, bf16 and q4_k\n"
    "  --asm                  prints the machine code of what was chosen instead of a table\n"
    "  --json, --csv          instead of a table\n"
    "  -o, --output FILE      JSON into FILE (CSV with --csv), beside the table\n"
    "  --renew TABLE          writes a table for --check, of what was chosen (without --families\n"
    "                         and --type: of what it held before)\n"
    "  --check TABLE          builds what the table holds; fails if a kernel begins to spill, or\n"
    "                         grows by more than 10 % in instructions or registers, or is "
    "missing.\n"
    "                         A family whose compiler is of another version is left out\n"
    "\n"
    "  peridot-bench compile --kernel matvec --type q4_k --families navi21,gfx1100,vega10\n"
    "  peridot-bench compile --kernel attention_decode/subgroup --families navi21 --asm\n"
    "  peridot-bench compile --check bench/compile-table.csv\n"
    "\n"
    "registers: of vectors, as allocated; spills: registers or bytes that do not fit; occupancy:\n"
    "subgroups on a unit at once; cycles: of one subgroup, the compiler's estimate.\n";

struct compile_options {
    const char *device, *families, *check, *renew, *as_family;
    struct compile_choice choice;
    bool quick;
    struct output output;
};

/* ---- Tables ---- */

static enum tone spill_tone(const cJSON *row, const char *key) {
    return row_value(row, key) > 0 ? TONE_BAD : TONE_PLAIN;
}

const struct column compile_columns[] = {
    {"family", "family", COLUMN_DETAIL, 0, NULL},
    {"driver", "driver", COLUMN_DETAIL, 0, NULL},
    {"kernel", "kernel", COLUMN_TEXT, 0, NULL},
    {"variant", "variant", COLUMN_TEXT, 0, NULL},
    {"type", "type", COLUMN_TEXT, 0, NULL},
    {"shape", "shape", COLUMN_TEXT, 0, NULL},
    {"in_use", "in use", COLUMN_TEXT, 0, NULL},
    {"registers", "registers", COLUMN_NUMBER, 0, NULL},
    {"spills", "spills", COLUMN_NUMBER, 0, spill_tone},
    {"occupancy", "occupancy", COLUMN_NUMBER, 0, NULL},
    {"instructions", "instructions", COLUMN_NUMBER, 0, NULL},
    {"cycles", "cycles", COLUMN_NUMBER, 0, NULL},
    {"busy_cycles", "busy cycles", COLUMN_NUMBER, 0, NULL},
    {"code_bytes", "code bytes", COLUMN_NUMBER, 0, NULL},
    {NULL, NULL, COLUMN_TEXT, 0, NULL},
};

/* One column a family, for people. */
#define FAMILIES_MAX 32
#define NAME_COLUMNS 4

struct pivot {
    struct results results;
    struct column columns[NAME_COLUMNS + FAMILIES_MAX + 1];
};

static enum tone pivot_tone(const cJSON *row, const char *key) {
    return strchr(row_text(row, key), '!') ? TONE_BAD : TONE_PLAIN;
}

static bool same_kernel(const cJSON *a, const cJSON *b) {
    for (const struct column *column = compile_columns + 2;
         column < compile_columns + 2 + NAME_COLUMNS; column++)
        if (strcmp(row_text(a, column->key), row_text(b, column->key)) != 0)
            return false;
    return true;
}

/* The pivot's row for what `row` tells of one family. */
static cJSON *pivot_row(struct table *table, const cJSON *row) {
    cJSON *other;
    cJSON_ArrayForEach(other, table->rows) {
        if (same_kernel(other, row))
            return other;
    }
    other = table_row(table);
    for (const struct column *column = compile_columns + 2;
         column < compile_columns + 2 + NAME_COLUMNS; column++)
        cJSON_AddStringToObject(other, column->key, row_text(row, column->key));
    return other;
}

static void print_figures(const cJSON *row, char *cell, size_t size) {
    static const char *const keys[] = {"registers", "instructions", "cycles", "occupancy"};
    size_t length = 0;
    cell[0] = '\0';
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (cJSON_HasObjectItem(row, keys[i]))
            length += (size_t)snprintf(cell + length, size - length, "%s%.0f", length ? " / " : "",
                                       row_value(row, keys[i]));
    if (row_value(row, "spills") > 0)
        length +=
            (size_t)snprintf(cell + length, size - length, " !%.0f", row_value(row, "spills"));
    if (length == 0)
        snprintf(cell, size, "compiles");
}

static void make_pivot(const struct results *results, const cJSON *families, struct pivot *pivot) {
    const struct table *from = &results->tables[0];
    const cJSON *row, *family;
    uint32_t count = NAME_COLUMNS;
    pivot->results = (struct results){.command = results->command,
                                      .about = cJSON_Duplicate(results->about, true)};
    memcpy(pivot->columns, compile_columns + 2, NAME_COLUMNS * sizeof *compile_columns);
    cJSON_ArrayForEach(family, families) {
        const char *name = family->valuestring;
        if (count < NAME_COLUMNS + FAMILIES_MAX)
            pivot->columns[count++] = (struct column){name, name, COLUMN_TEXT, 0, pivot_tone};
    }
    struct table *table = results_table(
        &pivot->results, "kernels",
        "Registers / instructions / cycles / occupancy, as far as the compiler tells; !: spills",
        pivot->columns);
    cJSON_ArrayForEach(row, from->rows) {
        char cell[128];
        print_figures(row, cell, sizeof cell);
        cJSON_AddStringToObject(pivot_row(table, row), row_text(row, "family"), cell);
    }
}

static peridot_result show(const struct results *results, const struct output *output,
                           peridot_error *error) {
    struct pivot pivot = {.columns = {{0}}};
    cJSON *families = rows_texts(results->tables[0].rows, "family");
    bool several = cJSON_GetArraySize(families) > 1;
    if (several)
        make_pivot(results, families, &pivot);
    peridot_result result = results_output(results, several ? &pivot.results : NULL, output, error);
    results_free(&pivot.results);
    cJSON_Delete(families);
    return result;
}

/* ---- Building ---- */

static peridot_result compile_families(const cJSON *families, const struct compile_choice *choice,
                                       struct table *table, peridot_error *error) {
    const cJSON *family;
    cJSON_ArrayForEach(family, families) {
        peridot_result result = compile_family(family->valuestring, choice, table, error);
        if (result)
            return result;
    }
    return PERIDOT_OK;
}

static peridot_result compile_devices(const struct compile_choice *choice, struct table *table,
                                      peridot_error *error) {
    struct device_params params = {0};
    struct device_list list;
    char index[16];
    peridot_result result = device_list_open(&params, &list, error);
    if (result)
        return result;
    uint32_t usable = 0;
    for (uint32_t i = 0; i < list.count && !result; i++) {
        if (list.devices[i].unsuitable[0])
            continue;
        usable++;
        snprintf(index, sizeof index, "%u", list.devices[i].index);
        result = compile_variants(index, NULL, choice, table, error);
    }
    device_list_close(&list);
    if (!result && !usable)
        result = fail(error, PERIDOT_ERROR_NO_DEVICE,
                      "no Vulkan device here can run Peridot: peridot devices says why; --families "
                      "compiles without one");
    return result;
}

static peridot_result compile_chosen(const struct compile_options *options, struct table *table,
                                     peridot_error *error) {
    if (options->families) {
        cJSON *families = split_list(options->families);
        peridot_result result = compile_families(families, &options->choice, table, error);
        cJSON_Delete(families);
        return result;
    }
    if (options->device || options->as_family)
        return compile_variants(options->device, options->as_family, &options->choice, table,
                                error);
    return compile_devices(&options->choice, table, error);
}

/* Families and drivers, as texts: the tables for people do not repeat them in each row. */
static void describe(const struct table *table, cJSON *about) {
    static const char *const keys[] = {"family", "driver"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        cJSON *texts = rows_texts(table->rows, keys[i]);
        const cJSON *text;
        char all[512];
        size_t length = 0;
        cJSON_ArrayForEach(text, texts) {
            if (length < sizeof all)
                length += (size_t)snprintf(all + length, sizeof all - length, "%s%s",
                                           length ? "; " : "", text->valuestring);
        }
        cJSON_AddStringToObject(about, keys[i], length ? all : "");
        cJSON_Delete(texts);
    }
    if (!cJSON_HasObjectItem(table->rows->child, "instructions"))
        cJSON_AddStringToObject(about, "note",
                                "this driver tells no figures: that a kernel is "
                                "listed says that it compiles");
}

static int list_and_show(const struct compile_options *options) {
    struct results results;
    peridot_error error;
    results_begin(&results, "compile");
    environment_program(results.about);
    struct table *table = results_table(&results, "kernels",
                                        "What the compiler makes of each kernel", compile_columns);
    peridot_result result = compile_chosen(options, table, &error);
    if (!result && !options->choice.code) {
        describe(table, results.about);
        result = show(&results, &options->output, &error);
    }
    results_free(&results);
    return result ? complain(&error) : 0;
}

/* ---- The committed table ---- */

/* The rows that --kernel and --type choose. */
static void keep_chosen(cJSON *rows, const struct compile_choice *choice) {
    for (int i = cJSON_GetArraySize(rows); i-- > 0;) {
        const cJSON *row = cJSON_GetArrayItem(rows, i);
        char name[256];
        snprintf(name, sizeof name, "%s/%s", row_text(row, "kernel"), row_text(row, "variant"));
        if (!pattern_matches(choice->kernels, name, true) ||
            (*row_text(row, "type") &&
             !pattern_matches(choice->types, row_text(row, "type"), false)))
            cJSON_DeleteItemFromArray(rows, i);
    }
}

/* What a table and the options together ask for. */
struct scope {
    cJSON *families;
    char types[512];
    struct compile_choice choice;
};

static void find_scope(const struct compile_options *options, const cJSON *rows,
                       struct scope *scope) {
    size_t length = 0;
    const cJSON *type;
    cJSON *types = rows_texts(rows, "type");
    scope->families =
        options->families ? split_list(options->families) : rows_texts(rows, "family");
    cJSON_ArrayForEach(type, types) {
        if (length < sizeof scope->types)
            length += (size_t)snprintf(scope->types + length, sizeof scope->types - length, "%s%s",
                                       length ? "," : "", type->valuestring);
    }
    cJSON_Delete(types);
    scope->choice = options->choice;
    if (!scope->choice.types && length)
        scope->choice.types = scope->types;
}

/* Builds every family of a scope that can be; `failed` gets the first one's error that cannot. */
static void compile_scope(const struct scope *scope, struct table *table, peridot_error *failed) {
    const cJSON *family;
    *failed = (peridot_error){.code = PERIDOT_OK};
    cJSON_ArrayForEach(family, scope->families) {
        peridot_error error;
        if (compile_family(family->valuestring, &scope->choice, table, &error) && !failed->code)
            *failed = error;
    }
}

/* A family that no compiler here can build is left out, as where it is another compiler's. */
static bool may_leave_out(const peridot_error *failed, const struct compile_check *check) {
    return failed->code == PERIDOT_ERROR_NO_DEVICE ||
           (failed->code == PERIDOT_ERROR_UNSUPPORTED && check->left_out > 0);
}

static int check_table(const struct compile_options *options) {
    struct table table = {"kernels", "", compile_columns, cJSON_CreateArray()};
    struct scope scope = {0};
    struct compile_check check = {0};
    cJSON *before = NULL;
    peridot_error error;
    double start = platform_seconds();
    peridot_result result = compile_table_read(options->check, &before, &error);
    if (!result) {
        find_scope(options, before, &scope);
        keep_chosen(before, &options->choice);
        compile_scope(&scope, &table, &error);
        compile_table_check(before, table.rows, options->check, stdout, &check);
        result = may_leave_out(&error, &check) ? PERIDOT_OK : error.code;
        if (!result && error.code)
            printf("left out: %s\n", error.message);
    }
    if (!result)
        printf("%u kernels compared with %s in %.1f s: %u faults%s\n", check.compared,
               options->check, platform_seconds() - start, check.faults,
               check.faults ? " (if they are meant: peridot-bench compile --renew it)" : "");
    cJSON_Delete(before);
    cJSON_Delete(scope.families);
    cJSON_Delete(table.rows);
    return result ? complain(&error) : check.faults > 0;
}

static int renew_table(const struct compile_options *options) {
    struct table table = {"kernels", "", compile_columns, cJSON_CreateArray()};
    struct scope scope = {0};
    cJSON *before = NULL;
    peridot_error error;
    peridot_result result = PERIDOT_OK;
    if (platform_is_file(options->renew))
        result = compile_table_read(options->renew, &before, &error);
    if (!result) {
        find_scope(options, before, &scope);
        if (cJSON_GetArraySize(scope.families) == 0)
            result = fail(&error, PERIDOT_ERROR_ARGUMENT,
                          "a new table needs --families: of which GPUs is it to be?");
    }
    if (!result)
        result = compile_families(scope.families, &scope.choice, &table, &error);
    if (!result)
        result = compile_table_write(options->renew, table.rows, &error);
    if (!result)
        printf("%s: %d kernels\n", options->renew, cJSON_GetArraySize(table.rows));
    cJSON_Delete(before);
    cJSON_Delete(scope.families);
    cJSON_Delete(table.rows);
    return result ? complain(&error) : 0;
}

/* ---- The command ---- */

static bool parse(int argc, char **argv, struct compile_options *options) {
    const struct option table[] = {
        {"--device", "", OPTION_TEXT, &options->device, 0, 0},
        {"--families", "", OPTION_TEXT, &options->families, 0, 0},
        {"--kernel", "", OPTION_TEXT, &options->choice.kernels, 0, 0},
        {"--type", "", OPTION_TEXT, &options->choice.types, 0, 0},
        {"--quick", "", OPTION_FLAG, &options->quick, 0, 0},
        {"--asm", "", OPTION_FLAG, &options->choice.code, 0, 0},
        {"--check", "", OPTION_TEXT, &options->check, 0, 0},
        {"--renew", "", OPTION_TEXT, &options->renew, 0, 0},
        /* what compile_family gives its child */
        {"--as-family", "", OPTION_TEXT, &options->as_family, 0, 0},
        OUTPUT_OPTIONS(&options->output),
    };
    if (!options_parse("compile", argc, argv, table, sizeof table / sizeof *table))
        return false;
    if (options->quick && !options->choice.types)
        options->choice.types = "bf16,q4_k";
    const char *why = NULL;
    if (options->device && options->families)
        why = "--device and --families exclude each other";
    else if (options->check && options->renew)
        why = "--check and --renew exclude each other";
    else if ((options->check || options->renew) && (options->device || options->choice.code))
        why = "--check and --renew are of families, without --device and --asm";
    if (why)
        fprintf(stderr, "peridot-bench: %s: see peridot-bench compile --help\n", why);
    return !why;
}

int bench_compile(int argc, char **argv) {
    struct compile_options options = {0};
    if (options_help(argc, argv)) {
        fputs(usage, stdout);
        return 0;
    }
    if (!parse(argc, argv, &options))
        return 1;
    return options.check   ? check_table(&options)
           : options.renew ? renew_table(&options)
                           : list_and_show(&options);
}
