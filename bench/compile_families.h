/* GPU families without the cards: the drivers' compilers told by an environment variable to take a
 * card for there, in a process for each family, for the variable counts for a whole process. */
#ifndef BENCH_COMPILE_FAMILIES_H
#define BENCH_COMPILE_FAMILIES_H

#include "compile_variants.h"

/* As compile_variants, for a family that Mesa names: AMD's by RADV_FORCE_FAMILY, Intel's by
 * INTEL_STUB_GPU_PLATFORM, which wants PERIDOT_INTEL_SHIM to be the folder of
 * libintel_noop_drm_shim.so. Errors: NO_DEVICE (no such driver or shim here), UNSUPPORTED (its
 * process failed: this Mesa does not know the family, or its compiler crashed), HOST_MEMORY. */
peridot_result compile_family(const char *family, const struct compile_choice *choice,
                              struct table *table, peridot_error *error);

#endif
