#include "results.h"
#include "json.h"
#include "platform.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FORMAT_KEY "peridot_bench"
#define FORMAT_VERSION 1

/* ---- Making ---- */

void results_begin(struct results *results, const char *command) {
    *results = (struct results){.command = command, .about = cJSON_CreateObject()};
}

void results_free(struct results *results) {
    cJSON_Delete(results->about);
    for (uint32_t i = 0; i < results->table_count; i++)
        cJSON_Delete(results->tables[i].rows);
    *results = (struct results){0};
}

struct table *results_table(struct results *results, const char *key, const char *title,
                            const struct column *columns) {
    struct table *table = &results->tables[results->table_count++];
    *table = (struct table){key, title, columns, cJSON_CreateArray()};
    return table;
}

cJSON *table_row(struct table *table) {
    cJSON *row = cJSON_CreateObject();
    cJSON_AddItemToArray(table->rows, row);
    return row;
}

void row_number(cJSON *row, const char *key, double value) {
    if (isfinite(value))
        cJSON_AddNumberToObject(row, key, value);
}

void row_samples(cJSON *row, const char *key, const double *values, uint32_t count) {
    cJSON_AddItemToObject(row, key, cJSON_CreateDoubleArray(values, (int)count));
}

double row_value(const cJSON *row, const char *key) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(row, key);
    return cJSON_IsNumber(item) ? item->valuedouble : NAN;
}

const char *row_text(const cJSON *row, const char *key) {
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(row, key));
    return text ? text : "";
}

cJSON *rows_texts(const cJSON *rows, const char *key) {
    cJSON *texts = cJSON_CreateArray();
    const cJSON *row, *text;
    cJSON_ArrayForEach(row, rows) {
        const char *value = row_text(row, key);
        bool known = !*value;
        cJSON_ArrayForEach(text, texts) {
            known |= strcmp(text->valuestring, value) == 0;
        }
        if (!known)
            cJSON_AddItemToArray(texts, cJSON_CreateString(value));
    }
    return texts;
}

/* ---- For people ---- */

#define CELL_MAX 256

/* Text as it may go to a terminal: names come from drivers and files. */
static void clean(const char *text, char *out, size_t size) {
    size_t length = 0;
    for (; *text && length < size - 1; text++) {
        unsigned char c = (unsigned char)*text;
        out[length++] = c < 32 || c == 127 ? '?' : *text;
    }
    out[length] = '\0';
}

static void format_cell(const struct column *column, const cJSON *row, char *out) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(row, column->key);
    if (cJSON_IsNumber(item))
        snprintf(out, CELL_MAX, "%.*f", column->decimals, item->valuedouble);
    else
        clean(row_text(row, column->key), out, CELL_MAX);
}

static bool is_shown(const struct column *column, const cJSON *rows) {
    const cJSON *row;
    if (column->kind == COLUMN_SAMPLES || column->kind == COLUMN_DETAIL)
        return false;
    cJSON_ArrayForEach(row, rows) {
        if (cJSON_HasObjectItem(row, column->key))
            return true;
    }
    return false;
}

/* Characters, of UTF-8. */
static int width_of(const char *text) {
    int width = 0;
    for (; *text; text++)
        width += (*text & 0xc0) != 0x80;
    return width;
}

static void put_cell(FILE *stream, const char *text, int width, bool right, const char *colour) {
    int space = width > width_of(text) ? width - width_of(text) : 0;
    if (right)
        fprintf(stream, "%*s", space, "");
    fprintf(stream, "%s%s%s", colour, text, *colour ? "\033[0m" : "");
    if (!right)
        fprintf(stream, "%*s", space, "");
}

static const char *colour_of(const struct column *column, const cJSON *row) {
    static const char *const codes[] = {"", "\033[32m", "\033[31m", "\033[2m"};
    return codes[column->tone ? column->tone(row, column->key) : TONE_PLAIN];
}

static void print_table(const struct table *table, FILE *stream, bool colour) {
    const struct column *columns[64];
    int widths[64], count = 0;
    char cell[CELL_MAX];
    const cJSON *row;
    for (const struct column *column = table->columns; column->key && count < 64; column++) {
        if (!is_shown(column, table->rows))
            continue;
        widths[count] = width_of(column->title);
        cJSON_ArrayForEach(row, table->rows) {
            format_cell(column, row, cell);
            widths[count] = width_of(cell) > widths[count] ? width_of(cell) : widths[count];
        }
        columns[count++] = column;
    }
    for (int i = 0; i < count; i++) {
        bool right = columns[i]->kind == COLUMN_NUMBER;
        fputs(i ? "  " : "", stream);
        put_cell(stream, columns[i]->title, i < count - 1 || right ? widths[i] : 0, right,
                 colour ? "\033[1m" : "");
    }
    fputc('\n', stream);
    cJSON_ArrayForEach(row, table->rows) {
        for (int i = 0; i < count; i++) {
            bool right = columns[i]->kind == COLUMN_NUMBER;
            format_cell(columns[i], row, cell);
            fputs(i ? "  " : "", stream);
            put_cell(stream, cell, i < count - 1 || right ? widths[i] : 0, right,
                     colour ? colour_of(columns[i], row) : "");
        }
        fputc('\n', stream);
    }
}

static void print_about(const struct results *results, FILE *stream) {
    const cJSON *item;
    char cell[CELL_MAX];
    int widest = 0;
    cJSON_ArrayForEach(item, results->about) {
        widest = width_of(item->string) > widest ? width_of(item->string) : widest;
    }
    cJSON_ArrayForEach(item, results->about) {
        if (cJSON_IsNumber(item))
            snprintf(cell, sizeof cell, fmod(item->valuedouble, 1) != 0 ? "%.4g" : "%.0f",
                     item->valuedouble);
        else
            clean(item->valuestring, cell, sizeof cell);
        fprintf(stream, "%-*s  %s\n", widest, item->string, cell);
    }
}

void results_print(const struct results *results, FILE *stream, bool colour) {
    print_about(results, stream);
    for (uint32_t i = 0; i < results->table_count; i++) {
        const struct table *table = &results->tables[i];
        if (cJSON_GetArraySize(table->rows) == 0)
            continue;
        fprintf(stream, "\n%s\n", table->title);
        print_table(table, stream, colour);
    }
}

/* ---- For programs ---- */

static void put_csv_text(FILE *stream, const char *text) {
    if (!strpbrk(text, ",\"\r\n")) {
        fputs(text, stream);
        return;
    }
    fputc('"', stream);
    for (; *text; text++) {
        if (*text == '"')
            fputc('"', stream);
        fputc(*text, stream);
    }
    fputc('"', stream);
}

static void put_csv_item(FILE *stream, const cJSON *item) {
    if (cJSON_IsNumber(item))
        fprintf(stream, "%.10g", item->valuedouble);
    else if (cJSON_IsString(item))
        put_csv_text(stream, item->valuestring);
}

/* The columns of all tables, each key once. */
static cJSON *all_keys(const struct results *results) {
    cJSON *keys = cJSON_CreateObject();
    for (uint32_t i = 0; i < results->table_count; i++)
        for (const struct column *column = results->tables[i].columns; column->key; column++)
            if (column->kind != COLUMN_SAMPLES && !cJSON_HasObjectItem(keys, column->key))
                cJSON_AddNullToObject(keys, column->key);
    return keys;
}

static void put_csv_row(FILE *stream, const struct results *results, const char *table,
                        const cJSON *keys, const cJSON *row) {
    const cJSON *key;
    const char *between = "";
    if (results->table_count > 1) {
        put_csv_text(stream, table);
        between = ",";
    }
    cJSON_ArrayForEach(key, keys) {
        fputs(between, stream);
        if (row)
            put_csv_item(stream, cJSON_GetObjectItemCaseSensitive(row, key->string));
        else
            put_csv_text(stream, key->string);
        between = ",";
    }
    cJSON_ArrayForEach(key, results->about) {
        if (cJSON_HasObjectItem(keys, key->string))
            continue;
        fputs(between, stream);
        if (row)
            put_csv_item(stream, key);
        else
            put_csv_text(stream, key->string);
        between = ",";
    }
    fputc('\n', stream);
}

void results_write_csv(const struct results *results, FILE *stream) {
    cJSON *keys = all_keys(results);
    const cJSON *row;
    put_csv_row(stream, results, "table", keys, NULL);
    for (uint32_t i = 0; i < results->table_count; i++)
        cJSON_ArrayForEach(row, results->tables[i].rows) {
            put_csv_row(stream, results, results->tables[i].key, keys, row);
        }
    cJSON_Delete(keys);
}

bool results_write_json(const struct results *results, FILE *stream) {
    cJSON *file = cJSON_CreateObject();
    cJSON_AddNumberToObject(file, FORMAT_KEY, FORMAT_VERSION);
    cJSON_AddStringToObject(file, "command", results->command);
    cJSON_AddItemReferenceToObject(file, "about", results->about);
    for (uint32_t i = 0; i < results->table_count; i++)
        cJSON_AddItemReferenceToObject(file, results->tables[i].key, results->tables[i].rows);
    char *text = cJSON_Print(file);
    cJSON_Delete(file);
    if (text)
        fprintf(stream, "%s\n", text);
    free(text);
    return text != NULL;
}

struct writing {
    const struct results *results;
    bool csv;
};

static bool write_file(FILE *stream, void *user) {
    const struct writing *writing = user;
    if (writing->csv)
        results_write_csv(writing->results, stream);
    else if (!results_write_json(writing->results, stream))
        return false;
    return !ferror(stream);
}

peridot_result results_write(const struct results *results, const struct output *output,
                             peridot_error *error) {
    struct writing writing = {results, output->csv};
    if (output->path)
        return platform_replace_file(output->path, write_file, &writing, error);
    if ((output->json || output->csv) && !write_file(stdout, &writing) && !ferror(stdout))
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory while writing results");
    return PERIDOT_OK;
}

peridot_result results_output(const struct results *results, const struct results *shown,
                              const struct output *output, peridot_error *error) {
    if (output->path || !(output->json || output->csv))
        results_print(shown ? shown : results, stdout, isatty(STDOUT_FILENO));
    /* last, so that a full disk takes nothing that was measured */
    return results_write(results, output, error);
}

/* ---- Reading ---- */

peridot_result results_parse(const char *text, size_t length, const char *name, const char *command,
                             cJSON **file, peridot_error *error) {
    *file = json_parse_object(text, length, name, error);
    if (!*file)
        return PERIDOT_ERROR_FORMAT;
    const char *why = NULL;
    if (row_value(*file, FORMAT_KEY) != FORMAT_VERSION)
        why = "it holds no results of this version of peridot-bench";
    else if (command && strcmp(row_text(*file, "command"), command) != 0)
        why = "its results are of another command";
    else if (!cJSON_IsObject(cJSON_GetObjectItemCaseSensitive(*file, "about")))
        why = "it does not say what it was measured on";
    if (!why)
        return PERIDOT_OK;
    cJSON_Delete(*file);
    *file = NULL;
    return fail(error, PERIDOT_ERROR_FORMAT,
                "cannot use %s: %s (make one with peridot-bench %s -o FILE)", name, why,
                command ? command : "kernels, model or compile, or peridot tune,");
}

peridot_result results_read(const char *path, const char *command, cJSON **file,
                            peridot_error *error) {
    struct file_bytes bytes;
    *file = NULL;
    peridot_result result = platform_read_file(path, &bytes, error);
    if (result)
        return result;
    result = results_parse((const char *)bytes.data, bytes.size, path, command, file, error);
    platform_free_file(&bytes);
    return result;
}
