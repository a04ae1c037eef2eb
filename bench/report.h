/* A report: files of results as one page of plots and tables. */
#ifndef BENCH_REPORT_H
#define BENCH_REPORT_H

#include "options.h"

struct report_file {
    const char *path, *command;
    const cJSON *about;
    cJSON *json; /* the whole */
};

struct report {
    struct report_file files[WORDS_MAX];
    uint32_t count;
};

/* The rows of a file's table: an empty list where the file is another command's or lacks it. */
const cJSON *report_rows(const struct report_file *file, const char *command, const char *table);
/* How a file is told from others in plots: "" where it is the only one, else "[2] ". */
#define REPORT_MARK_MAX 8
void report_mark(const struct report *report, uint32_t index, char out[REPORT_MARK_MAX]);

/* A whole page, that asks for nothing from elsewhere. */
void report_write_page(FILE *stream, const struct report *report);

/* ---- report_plots.c: nothing is written where the files have nothing for a plot ---- */

/* A device's roof and its kernels below, for each file of kernels. */
void report_plot_rooflines(FILE *stream, const struct report *report);
/* Tokens/s against the depth of the context, for each test. */
void report_plot_depths(FILE *stream, const struct report *report);
/* Panels of bars, from a table of a command. Keys of texts or numbers, as many as there are. */
struct bar_plot {
    const char *command, *table, *heading, *note;
    const char *panel[3], *group[3], *label[3]; /* what a panel, a group and a bar are named by */
    const char *value, *unit;
};
void report_plot_bars(FILE *stream, const struct report *report, const struct bar_plot *plot);

#endif
