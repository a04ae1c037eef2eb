/* Every variant of the kernel table through a device's compiler, as sessions of Gemma build it. */
#ifndef BENCH_COMPILE_VARIANTS_H
#define BENCH_COMPILE_VARIANTS_H

#include "results.h"

#include "device.h"

/* Which of them: patterns (options.h) against "kernel/variant" and types; NULL: all. */
struct compile_choice {
    const char *kernels, *types;
    bool code; /* prints their machine code to stdout instead of making rows */
};

/* Adds a row for each: family (the device's name if NULL), driver, kernel, variant, type, shape,
 * in_use, and the figures that the driver tells, under figure_keys. Opens the device that `device`
 * means (as device_params.choice). Errors: those of opening a device and of compiling, ARGUMENT
 * (nothing matches), UNSUPPORTED (code is asked of a driver that shows none). */
peridot_result compile_variants(const char *device, const char *family,
                                const struct compile_choice *choice, struct table *table,
                                peridot_error *error);
extern const char *const compile_figure_keys[]; /* by enum figure */

#endif
