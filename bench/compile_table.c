#include "compile_table.h"
#include "platform.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const struct column compile_table_columns[] = {
    {"family", "family", COLUMN_TEXT, 0, NULL},
    {"driver", "driver", COLUMN_TEXT, 0, NULL},
    {"kernel", "kernel", COLUMN_TEXT, 0, NULL},
    {"variant", "variant", COLUMN_TEXT, 0, NULL},
    {"type", "type", COLUMN_TEXT, 0, NULL},
    {"shape", "shape", COLUMN_TEXT, 0, NULL},
    {"registers", "registers", COLUMN_NUMBER, 0, NULL},
    {"spills", "spills", COLUMN_NUMBER, 0, NULL},
    {"occupancy", "occupancy", COLUMN_NUMBER, 0, NULL},
    {"instructions", "instructions", COLUMN_NUMBER, 0, NULL},
    {"cycles", "cycles", COLUMN_NUMBER, 0, NULL},
    {NULL, NULL, COLUMN_TEXT, 0, NULL},
};

/* ---- The file ---- */

#define COLUMNS_COUNT (sizeof compile_table_columns / sizeof *compile_table_columns - 1)
#define LINE_MAX 512

/* Reads a line without its end; false at the end of the file. */
static bool next_line(const char **at, const char *end, char *line, bool *too_long) {
    if (*at >= end)
        return false;
    const char *stop = memchr(*at, '\n', (size_t)(end - *at));
    size_t length = (size_t)((stop ? stop : end) - *at);
    *too_long = length >= LINE_MAX;
    length = *too_long ? 0 : length;
    memcpy(line, *at, length);
    if (length && line[length - 1] == '\r')
        length--;
    line[length] = '\0';
    *at = stop ? stop + 1 : end;
    return true;
}

/* Adds a line's cells to a row; false: it has not as many as there are columns, or a number is
 * none. Cells of this table have no commas or quotes in them. */
static bool read_cells(char *line, cJSON *row) {
    char *cell = line;
    for (const struct column *column = compile_table_columns; column->key; column++) {
        char *stop = cell ? strchr(cell, ',') : NULL, *end;
        if (!cell || strchr(line, '"'))
            return false;
        if (stop)
            *stop = '\0';
        double value = strtod(cell, &end);
        if (column->kind == COLUMN_TEXT)
            cJSON_AddStringToObject(row, column->key, cell);
        else if (*cell && (*end || !isfinite(value)))
            return false;
        else if (*cell)
            row_number(row, column->key, value);
        cell = stop ? stop + 1 : NULL;
    }
    return cell == NULL;
}

static bool is_header(const char *line) {
    for (const struct column *column = compile_table_columns; column->key; column++) {
        size_t length = strlen(column->key);
        if (strncmp(line, column->key, length) != 0 || (line[length] && line[length] != ','))
            return false;
        line += length + (line[length] == ',');
    }
    return !*line;
}

peridot_result compile_table_read(const char *path, cJSON **rows, peridot_error *error) {
    struct file_bytes file;
    *rows = NULL;
    peridot_result result = platform_read_file(path, &file, error);
    if (result)
        return result;
    const char *at = file.size ? (const char *)file.data : "", *end = at + file.size;
    char line[LINE_MAX];
    bool good = true, too_long = false;
    uint32_t number = 0;
    *rows = cJSON_CreateArray();
    for (; good && next_line(&at, end, line, &too_long); number++) {
        cJSON *row = cJSON_CreateObject();
        good = !too_long && (number == 0 ? is_header(line) : read_cells(line, row));
        if (number > 0)
            cJSON_AddItemToArray(*rows, row);
        else
            cJSON_Delete(row);
    }
    platform_free_file(&file);
    if (good && number > 1)
        return PERIDOT_OK;
    cJSON_Delete(*rows);
    *rows = NULL;
    return fail(error, PERIDOT_ERROR_FORMAT,
                number > 1 ? "%s: line %u is not one of a table that peridot-bench compile --renew "
                             "writes"
                           : "%s is no table that peridot-bench compile --renew writes (line %u)",
                path, number);
}

static bool write_rows(FILE *stream, void *user) {
    results_write_csv(user, stream);
    return !ferror(stream);
}

peridot_result compile_table_write(const char *path, cJSON *rows, peridot_error *error) {
    struct results results = {.command = "compile", .table_count = 1};
    results.tables[0] = (struct table){"kernels", "", compile_table_columns, rows};
    return platform_replace_file(path, write_rows, &results, error);
}

/* ---- The check ---- */

static void name_row(const cJSON *row, char *name, size_t size) {
    const char *type = row_text(row, "type"), *shape = row_text(row, "shape");
    snprintf(name, size, "%s: %s/%s%s%s%s%s", row_text(row, "family"), row_text(row, "kernel"),
             row_text(row, "variant"), *type ? " " : "", type, *shape ? ", " : "", shape);
}

static const cJSON *find_row(const cJSON *rows, const char *name) {
    const cJSON *row;
    char other[256];
    cJSON_ArrayForEach(row, rows) {
        name_row(row, other, sizeof other);
        if (strcmp(name, other) == 0)
            return row;
    }
    return NULL;
}

static void check_row(const cJSON *before, const cJSON *now, const char *name, FILE *stream,
                      struct compile_check *check) {
    static const char *const keys[] = {"instructions", "registers"};
    check->compared++;
    if (row_value(now, "spills") > 0 && !(row_value(before, "spills") > 0)) {
        check->faults++;
        fprintf(stream, "%s begins to spill: %g\n", name, row_value(now, "spills"));
    }
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        double was = row_value(before, keys[i]), is = row_value(now, keys[i]);
        if (!(is > was * COMPILE_GROWTH))
            continue;
        check->faults++;
        fprintf(stream, "%s grows from %g to %g %s (+%.0f %%)\n", name, was, is, keys[i],
                100 * (is / was - 1));
    }
}

/* The first row of a family; NULL: none. */
static const cJSON *family_row(const cJSON *rows, const char *family) {
    const cJSON *row;
    cJSON_ArrayForEach(row, rows) {
        if (strcmp(row_text(row, "family"), family) == 0)
            return row;
    }
    return NULL;
}

/* Whether a family's figures are of the same compiler. */
static bool comparable(const cJSON *before, const cJSON *now, const char *family) {
    const cJSON *a = family_row(before, family), *b = family_row(now, family);
    return a && b && strcmp(row_text(a, "driver"), row_text(b, "driver")) == 0;
}

static void check_families(const cJSON *before, const cJSON *now, const char *name, FILE *stream,
                           struct compile_check *check) {
    cJSON *families = rows_texts(now, "family");
    const cJSON *item;
    cJSON_ArrayForEach(item, families) {
        const char *family = item->valuestring;
        const cJSON *a = family_row(before, family);
        if (comparable(before, now, family))
            continue;
        check->left_out++;
        if (a)
            fprintf(stream,
                    "left out: %s: %s was made by %s and this is %s; what different compilers make "
                    "says nothing of the kernels\n",
                    family, name, row_text(a, "driver"),
                    row_text(family_row(now, family), "driver"));
        else
            fprintf(stream, "left out: %s: %s does not have it\n", family, name);
    }
    cJSON_Delete(families);
}

void compile_table_check(const cJSON *before, const cJSON *now, const char *name, FILE *stream,
                         struct compile_check *check) {
    const cJSON *row;
    char row_name[256];
    *check = (struct compile_check){0};
    check_families(before, now, name, stream, check);
    cJSON_ArrayForEach(row, now) {
        if (!comparable(before, now, row_text(row, "family")))
            continue;
        name_row(row, row_name, sizeof row_name);
        const cJSON *was = find_row(before, row_name);
        if (was) {
            check_row(was, row, row_name, stream, check);
        } else {
            check->faults++;
            fprintf(stream, "%s is not in %s\n", row_name, name);
        }
    }
    cJSON_ArrayForEach(row, before) {
        name_row(row, row_name, sizeof row_name);
        if (!comparable(before, now, row_text(row, "family")) || find_row(now, row_name))
            continue;
        check->faults++;
        fprintf(stream, "%s is in %s and no longer built\n", row_name, name);
    }
}
