/* The commands of peridot-bench, each in a file of its own. */
#ifndef BENCH_H
#define BENCH_H

/* `peridot-bench NAME …`: the arguments after the name; the exit status. */
int bench_kernels(int argc, char **argv);
int bench_model(int argc, char **argv);
int bench_compile(int argc, char **argv);

/* How the program was called, for one that runs itself again (main.c). */
extern const char *bench_program;

#endif
