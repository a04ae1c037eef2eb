/* What tuning found, as the lab's results are. */
#ifndef BENCH_TUNING_RESULTS_H
#define BENCH_TUNING_RESULTS_H

#include "results.h"
#include "tuner.h"

extern const struct column tuning_columns[];
/* A row of a kernel that is finished or broken. */
void tuning_results_add(struct table *table, const struct tuner_progress *progress);

#endif
