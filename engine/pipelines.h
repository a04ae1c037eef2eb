/* Compute pipelines, made on worker threads, and the pipeline cache on disk. */
#ifndef ENGINE_PIPELINES_H
#define ENGINE_PIPELINES_H

#include "abi.h"
#include "kernels.h"

/* What makes a pipeline: a variant, the weight type, and every specialisation constant. */
struct pipeline_key {
    const struct kernel_variant *variant;
    uint32_t type; /* WEIGHT_*; 0 for untyped kernels */
    uint32_t spec[SPEC_COUNT];
};

struct pipeline {
    struct pipeline_key key;
    VkPipeline handle; /* VK_NULL_HANDLE until compiled */
};

struct pipelines; /* a device's; made by device_open */
peridot_result pipelines_create(struct device *device, peridot_error *error);
void pipelines_destroy(struct device *device); /* accepts one half made */

/* The layout that all pipelines share: 128 bytes of push constants, no sets. */
VkPipelineLayout pipelines_layout(const struct device *device);

/* Fills in the spec constants that follow from the variant and the device: SPEC_WORKGROUP from the
 * variant (0: the subgroup size), SPEC_ROWS and SPEC_COLUMNS from the variant where not 0 there;
 * the rest is the caller's. */
struct pipeline_key pipeline_key(const struct device *device, const struct kernel_variant *variant,
                                 uint32_t type);

/* The pipeline for a key, registered but perhaps not yet compiled; the pointer stays valid until
 * the device closes. NULL without memory. */
struct pipeline *pipelines_want(struct device *device, const struct pipeline_key *key);

/* Compiles all that are wanted and not yet compiled, on device->threads threads, and writes the
 * disk cache if it grew. `progress` (may be NULL) is called on the calling thread after each that
 * this thread compiled; false cancels, and what was compiled is kept.
 * Errors: VULKAN (names kernel and variant), CANCELLED, DEVICE_MEMORY, HOST_MEMORY. */
peridot_result pipelines_compile(struct device *device,
                                 bool (*progress)(uint32_t done, uint32_t all, void *user),
                                 void *user, peridot_error *error);

/* Compiles one that is wanted and not yet compiled, on the calling thread; `*left`: how many there
 * are then. With none to compile it writes the disk cache if that grew. Errors: as above, but
 * CANCELLED. */
peridot_result pipelines_compile_one(struct device *device, uint32_t *left, peridot_error *error);
/* How many are wanted and not yet compiled. */
uint32_t pipelines_missing(const struct device *device);
/* Forgets those; nobody may hold one. */
void pipelines_forget(struct device *device);

struct pipelines_statistics {
    uint32_t compiled;   /* pipelines made since the device was opened */
    uint64_t cache_read; /* bytes of pipeline cache found on disk */
    double seconds;      /* spent in compiling them */
    char warning[512];   /* a cache folder that cannot be read or written; empty: none */
};
void pipelines_statistics(const struct device *device, struct pipelines_statistics *statistics);

#endif
