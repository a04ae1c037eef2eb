/* The committed table of what compilers made of the kernels, and the check against it. */
#ifndef BENCH_COMPILE_TABLE_H
#define BENCH_COMPILE_TABLE_H

#include "results.h"

/* The table's columns, of which rows of compile_variants may have more. */
extern const struct column compile_table_columns[];

/* Reads a table written by compile_table_write as an array of rows, the caller's to free with
 * cJSON_Delete. Errors: FILE, FORMAT (which line). */
peridot_result compile_table_read(const char *path, cJSON **rows, peridot_error *error);
/* Replaces the file. Errors: FILE. */
peridot_result compile_table_write(const char *path, cJSON *rows, peridot_error *error);

#define COMPILE_GROWTH 1.10

struct compile_check {
    uint32_t compared, faults, left_out; /* rows; left_out: families */
};
/* Whether `now` has begun to spill or grown in instructions or registers by more than
 * COMPILE_GROWTH since `before`, and whether both have the same rows: those of the families that
 * `now` has, whose driver must be the same; other families are left out. Prints a line to `stream`
 * for each fault, and one that begins with "left out:" for each family that cannot be compared. */
void compile_table_check(const cJSON *before, const cJSON *now, const char *name, FILE *stream,
                         struct compile_check *check);

#endif
