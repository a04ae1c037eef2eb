/* Variants that are not in the kernel table: GLSL or SPIR-V files given on the command line, to be
 * checked and timed beside ours. */
#ifndef BENCH_USER_VARIANTS_H
#define BENCH_USER_VARIANTS_H

#include "kernels.h"

#define USER_VARIANTS_MAX 16
#define USER_DEFINES_MAX 32
#define USER_SPECS_MAX 16

/* One --variant with the options that follow it. */
struct user_variant {
    const char *path;
    const char *defines[USER_DEFINES_MAX]; /* NAME or NAME=VALUE */
    struct {
        uint32_t id, value;
    } specs[USER_SPECS_MAX]; /* ids from SPEC_COUNT on */
    uint32_t define_count, spec_count;
    int64_t workgroup, rows, columns; /* -1: those of the kernel's first variant */
    uint32_t needs;                   /* device_needs */
    char name[64];
    char left_out[160]; /* why the device cannot run it; "": it can, as far as the module tells */
    struct kernel_variant variant; /* with modules for the types that were wanted */
};

struct user_variants {
    struct user_variant at[USER_VARIANTS_MAX];
    uint32_t count;
    const char *folder; /* --include */
};

/* Takes --variant, --include, and what follows a --variant out of the arguments: -D NAME=VALUE,
 * --spec ID=VALUE, --needs LIST, --workgroup, --rows, --columns. False after a message. */
bool user_variants_parse(struct user_variants *variants, int *argc, char **argv);
/* The one kernel that a --kernel of the form KERNEL or KERNEL/VARIANT names; false after none. */
bool user_variants_kernel(const char *name, enum kernel *kernel);
/* Reads, compiles and checks them for a kernel in the types that `types` (patterns) matches.
 * Errors: FILE, FORMAT, UNSUPPORTED, ARGUMENT, HOST_MEMORY. */
peridot_result user_variants_make(struct user_variants *variants, enum kernel kernel,
                                  const char *types, peridot_error *error);
/* The defines that a variant of the kernel table is compiled with, as compilers take them. */
const char *user_variants_defines(const struct kernel_variant *variant);
/* What the device is to have for them: fills in needs and left_out. */
void user_variants_ask(struct user_variants *variants, const struct device *device);
/* After the device, whose pipelines refer to them, has been closed. */
void user_variants_free(struct user_variants *variants);

#endif
