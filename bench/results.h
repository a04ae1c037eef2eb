/* What a command found: tables of rows, and what they were measured on. A row is a JSON object, so
 * that a file of results holds just what there is; a table's columns say how its keys are shown to
 * people and in CSV. */
#ifndef BENCH_RESULTS_H
#define BENCH_RESULTS_H

#include "error.h"

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum column_kind {
    COLUMN_TEXT,
    COLUMN_NUMBER,
    COLUMN_SAMPLES, /* a list of numbers, in JSON alone */
    COLUMN_DETAIL,  /* text or number in JSON and CSV, not for people */
};

enum tone { TONE_PLAIN, TONE_GOOD, TONE_BAD, TONE_FAINT };

struct column {
    const char *key;   /* in JSON and CSV, with its unit: "microseconds" */
    const char *title; /* for people */
    enum column_kind kind;
    int decimals;                                         /* for people */
    enum tone (*tone)(const cJSON *row, const char *key); /* of a cell on a terminal; NULL: plain */
};

struct table {
    const char *key, *title;
    const struct column *columns; /* the last has key NULL; lives as long as the table */
    cJSON *rows;                  /* array of objects */
};

#define TABLES_MAX 8

struct results {
    const char *command;
    cJSON *about; /* object of texts and numbers: device, driver, commit, settings */
    struct table tables[TABLES_MAX];
    uint32_t table_count;
};

void results_begin(struct results *results, const char *command);
void results_free(struct results *results);
/* A new table; its strings live as long as the results. */
struct table *results_table(struct results *results, const char *key, const char *title,
                            const struct column *columns);
/* A new row, to which keys are added by cJSON or by what follows. */
cJSON *table_row(struct table *table);
/* Adds a number unless it is NaN or infinite: what was not measured is left out, and a column in
 * which no row has anything too. */
void row_number(cJSON *row, const char *key, double value);
void row_samples(cJSON *row, const char *key, const double *values, uint32_t count);
/* The number or text at a key; NaN or "" where there is none. */
double row_value(const cJSON *row, const char *key);
const char *row_text(const cJSON *row, const char *key);
/* The texts at a key of an array of rows, each once and none empty: an array of strings, the
 * caller's to free with cJSON_Delete. */
cJSON *rows_texts(const cJSON *rows, const char *key);

/* For people; `colour` for terminals. */
void results_print(const struct results *results, FILE *stream, bool colour);
/* Cells quoted as in RFC 4180, lines ended by a newline; one header for all tables: `table` first
 * where there are several, then their columns, then what `about` holds under other names. */
void results_write_csv(const struct results *results, FILE *stream);
/* {"peridot_bench": 1, "command", "about", and an array for each table}. False: out of memory. */
bool results_write_json(const struct results *results, FILE *stream);

/* Where the results of a command go. */
struct output {
    bool json, csv;   /* instead of tables, to standard output or to `path` */
    const char *path; /* a file of JSON, or CSV with `csv`, beside the tables; NULL: none */
};
/* To the file, or to standard output where there is none and JSON or CSV is wanted. Errors: FILE,
 * HOST_MEMORY. */
peridot_result results_write(const struct results *results, const struct output *output,
                             peridot_error *error);
/* The same, and tables. `shown` is what people see of them, NULL: the same. */
peridot_result results_output(const struct results *results, const struct results *shown,
                              const struct output *output, peridot_error *error);

/* Reads a file of results of a command, or with NULL of any that makes them; the caller's to free
 * with cJSON_Delete. Errors: FILE, FORMAT (which says what else it is). */
peridot_result results_read(const char *path, const char *command, cJSON **file,
                            peridot_error *error);
/* The same from memory; `name` is for messages. */
peridot_result results_parse(const char *text, size_t length, const char *name, const char *command,
                             cJSON **file, peridot_error *error);

#endif
