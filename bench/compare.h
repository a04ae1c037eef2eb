/* What changed between two files of results, and whether it is more than noise. */
#ifndef BENCH_COMPARE_H
#define BENCH_COMPARE_H

#include "results.h"

/* A measured figure of a table: rows are alike that have the same values at `keys`. */
struct compared_figure {
    const char *table;
    const char *const *keys; /* NULL-terminated */
    const char *samples;     /* the key of its list of runs */
    const char *name;        /* for people, unit included: "tokens/s" */
    bool more_is_better;
};

/* Fills `results` with a table "changes" of the figures that both files have, and one "about" of
 * what differs in what they were measured on. The decision is samples_difference's. */
void compare_results(const cJSON *before, const cJSON *after, const struct compared_figure *figures,
                     uint32_t figure_count, struct results *results);

#endif
