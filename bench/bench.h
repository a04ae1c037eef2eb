/* The commands of peridot-bench, each in a file of its own. */
#ifndef BENCH_H
#define BENCH_H

#include "results.h"

/* `peridot-bench NAME …`: the arguments after the name; the exit status. */
int bench_kernels(int argc, char **argv);
int bench_model(int argc, char **argv);
int bench_slices(int argc, char **argv);
int bench_compile(int argc, char **argv);
int bench_report(int argc, char **argv);

/* The columns of their tables, by which a report shows them again. */
extern const struct column kernels_columns[], kernels_left_out_columns[], model_start_columns[],
    model_speed_columns[], model_kernel_columns[], slices_columns[], compile_columns[];

/* How the program was called, for one that runs itself again; main sets it. */
extern const char *bench_program;

#endif
