/* What the device can do at best, measured by kernels that do nothing else. */
#ifndef BENCH_CEILINGS_H
#define BENCH_CEILINGS_H

#include "device.h"

struct ceilings {
    double read_gbs; /* a kernel that reads memory, 1e9 bytes/s; the median of its runs */
    double copy_gbs; /* vkCmdCopyBuffer, bytes read and written */
    uint64_t bytes;  /* read each time */
    /* Independent chains of float32 multiply-adds, 1e9 operations/s, two for each; the same of dot
     * products of four bytes, eight for each, 0 where the device has no instruction for them. */
    double multiply_add_gflops, packed_dot_gops;
};

/* The larger of both: reading alone cannot be slower than reading while writing. */
double ceilings_bandwidth(const struct ceilings *ceilings);
/* 1e9 operations/s at best: of a kernel with packed dot products, or of one without. */
double ceilings_arithmetic(const struct ceilings *ceilings, bool packed_dot);
/* Over so many bytes that no cache holds them, or few for a quick look; timed by timestamps, or by
 * the clock where the queue has none. Errors: DEVICE_MEMORY, VULKAN, HOST_MEMORY, DEVICE_LOST. */
peridot_result ceilings_measure(struct device *device, bool quick, struct ceilings *ceilings,
                                peridot_error *error);

#endif
