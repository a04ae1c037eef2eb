/* peridot-bench report: results as a page with plots. */
#include "bench.h"
#include "messages.h"
#include "platform.h"
#include "report.h"

#include <stdlib.h>
#include <string.h>

static const char usage[] =
    "peridot-bench report FILE.json ... -o FILE.html: one page of what kernels, model and "
    "compile,\n"
    "or peridot tune, wrote with -o, of one or several devices or commits: each device's roofline "
    "and its kernels,\n"
    "variants side by side, tokens/s against the depth of the context, and the tables. It needs "
    "no\n"
    "network, is light or dark as the browser is, and prints.\n"
    "\n"
    "  -o, --output FILE      the page\n"
    "\n"
    "  peridot-bench kernels --model 2b -o kernels.json\n"
    "  peridot-bench model -m gemma-2b-it --depth 0,512,4096 -o model.json\n"
    "  peridot-bench report kernels.json model.json -o report.html\n";

#define ROWS_MOST 20000 /* more is no page that anyone reads */

static bool is_table(const cJSON *rows) {
    const cJSON *row;
    cJSON_ArrayForEach(row, rows) {
        if (!cJSON_IsObject(row))
            return false;
    }
    return cJSON_IsArray(rows);
}

/* Whether all but what every file has are tables, and of a command whose tables are known. */
static peridot_result check_file(const struct report_file *file, peridot_error *error) {
    static const char *const commands[] = {"kernels", "model", "compile", "tune"};
    const cJSON *item;
    bool known = false;
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        known |= strcmp(file->command, commands[i]) == 0;
    if (!known)
        return fail(error, PERIDOT_ERROR_FORMAT,
                    "cannot use %s: its results are of \"%.40s\", and a report shows those of "
                    "kernels, model, compile and tune",
                    file->path, file->command);
    cJSON_ArrayForEach(item, file->json) {
        if (item != file->about && !cJSON_IsNumber(item) && !cJSON_IsString(item) &&
            !is_table(item))
            return fail(error, PERIDOT_ERROR_FORMAT,
                        "cannot use %s: its \"%.40s\" is not a list of rows: the file is damaged",
                        file->path, item->string);
        if (cJSON_IsArray(item) && cJSON_GetArraySize(item) > ROWS_MOST)
            return fail(error, PERIDOT_ERROR_FORMAT,
                        "cannot use %s: its \"%.40s\" has more than %d rows, which is no page to "
                        "read: measure less at a time",
                        file->path, item->string, ROWS_MOST);
    }
    return PERIDOT_OK;
}

static peridot_result read_file(struct report *report, const char *path, peridot_error *error) {
    struct report_file *file = &report->files[report->count];
    for (uint32_t i = 0; i < report->count; i++)
        if (platform_same_file(report->files[i].path, path))
            return fail(error, PERIDOT_ERROR_ARGUMENT, "%s is given twice", path);
    *file = (struct report_file){.path = path};
    peridot_result result = results_read(path, NULL, &file->json, error);
    if (result)
        return result;
    report->count++;
    file->command = row_text(file->json, "command");
    file->about = cJSON_GetObjectItemCaseSensitive(file->json, "about");
    return check_file(file, error);
}

static bool write_page(FILE *stream, void *user) {
    report_write_page(stream, user);
    return !ferror(stream);
}

static peridot_result make_report(const struct words *paths, const char *output,
                                  struct report *report, peridot_error *error) {
    for (uint32_t i = 0; i < paths->count; i++) {
        if (platform_same_file(paths->at[i], output))
            return fail(error, PERIDOT_ERROR_ARGUMENT,
                        "the page would replace %s, which it is made of: give -o another file",
                        output);
        peridot_result result = read_file(report, paths->at[i], error);
        if (result)
            return result;
    }
    return platform_replace_file(output, write_page, report, error);
}

int bench_report(int argc, char **argv) {
    struct words paths = {.count = 0};
    const char *output = NULL;
    const struct option table[] = {
        {"the files of results", "", OPTION_WORDS, &paths, 0, 0},
        {"--output", "-o", OPTION_TEXT, &output, 0, 0},
    };
    struct report report = {.count = 0};
    peridot_error error;
    if (options_help(argc, argv)) {
        fputs(usage, stdout);
        return 0;
    }
    if (!options_parse("report", argc, argv, table, sizeof table / sizeof *table))
        return 1;
    if (!paths.count || !output) {
        fputs("peridot-bench: report needs files of results and -o FILE.html: see peridot-bench "
              "report --help\n",
              stderr);
        return 1;
    }
    peridot_result result = make_report(&paths, output, &report, &error);
    for (uint32_t i = 0; i < report.count; i++)
        cJSON_Delete(report.files[i].json);
    return result ? complain(&error) : 0;
}
