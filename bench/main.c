/* peridot-bench, the shader lab: kernels, model, slices, compile, report. */
#include "bench.h"
#include "commit.h"
#include "peridot.h"

#include <errno.h>
#include <locale.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *help;
} commands[] = {
    {"kernels", bench_kernels,
     "whether each variant of each kernel is right, and how fast it is at a model's\n"
     "             sizes; yours beside ours:\n"
     "             peridot-bench kernels --kernel matvec --type q4_k --model 2b"},
    {"model", bench_model,
     "how fast a model reads prompts and generates, at several depths, and which\n"
     "             kernels take the time:\n"
     "             peridot-bench model -m gemma-2b-it --depth 0,4096 -o before.json"},
    {"slices", bench_slices,
     "how well work in slices keeps to a budget of GPU time, as in an application that\n"
     "             draws frames:\n"
     "             peridot-bench slices -m gemma-2b-it --budget 1000,4000"},
    {"compile", bench_compile,
     "what every driver's compiler makes of every kernel: registers, spills,\n"
     "             occupancy, instructions, cycles; of AMD's cards without the cards too:\n"
     "             peridot-bench compile --kernel matvec --type q4_k --families navi21,vega10"},
    {"report", bench_report,
     "a page with plots of results that the others wrote with -o:\n"
     "             peridot-bench report kernels.json model.json -o report.html"},
};

static int help(void) {
    printf("peridot-bench %s (%s): the shader lab\n\n", peridot_version(), PERIDOT_COMMIT);
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        printf("  %-9s  %s\n", commands[i].name, commands[i].help);
    printf("\nThe first four print tables, or --json or --csv, and write a file of results with "
           "-o FILE.\n"
           "peridot-bench COMMAND --help tells all options.\n");
    return 0;
}

static int run(int argc, char **argv) {
    const char *name = argc > 1 ? argv[1] : "help";
    if (strcmp(name, "help") == 0 || strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0)
        return help();
    if (strcmp(name, "--version") == 0) {
        printf("peridot-bench %s (%s)\n", peridot_version(), PERIDOT_COMMIT);
        return 0;
    }
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        if (strcmp(name, commands[i].name) == 0)
            return commands[i].run(argc - 2, argv + 2);
    fprintf(stderr, "peridot-bench: there is no command \"%s\": see peridot-bench help\n", name);
    return 1;
}

int main(int argc, char **argv) {
    setlocale(LC_CTYPE, "");
    if (argc > 0 && argv[0][0])
        bench_program = argv[0];
    int status = run(argc, argv);
    bool failed = ferror(stdout);
    if (fflush(stdout) != 0 || failed) {
        fprintf(stderr, "peridot-bench: cannot write to standard output%s%s\n", failed ? "" : ": ",
                failed ? "" : strerror(errno));
        return 1;
    }
    return status;
}
