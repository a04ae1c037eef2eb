/* One dispatch, timed again and again: a case's planes are copied into the device's own memory, so
 * many times over that no cache holds what comes next, and each run takes the next copy. What a
 * kernel changes is restored before it runs again. */
#ifndef BENCH_TIMED_KERNEL_H
#define BENCH_TIMED_KERNEL_H

#include "kernels/kernel_bench.h"

struct timed_kernel;

/* Copies what a dispatch works on; neither the case nor its bench is needed afterwards. `rotate`:
 * bytes that the copies take together at least, as far as a third of the free memory holds them.
 * Errors: DEVICE_MEMORY, VULKAN, HOST_MEMORY, DEVICE_LOST. */
peridot_result timed_kernel_create(const struct bench *bench, const struct bench_dispatch *dispatch,
                                   uint64_t rotate, struct timed_kernel **timed,
                                   peridot_error *error);
void timed_kernel_destroy(struct timed_kernel *timed); /* accepts NULL */

/* Times `count` runs, one after another in few submissions; `seconds` [count] are the GPU's, or
 * the clock's around a submission of one run where the queue has no timestamps. Errors: as above.
 */
peridot_result timed_kernel_run(struct timed_kernel *timed, uint32_t count, double *seconds,
                                peridot_error *error);

#endif
