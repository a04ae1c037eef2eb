/* The sizes of the models that the lab's kernels are built and run for. */
#ifndef BENCH_GEMMA_SIZES_H
#define BENCH_GEMMA_SIZES_H

#include "model.h"

struct gemma_sizes {
    const char *name;
    struct model_config config; /* the sizes alone, but for the number of layers */
};
/* gemma-2b and gemma-7b, then one that software devices are quick with. */
enum { GEMMA_2B, GEMMA_7B, GEMMA_SMALL, GEMMA_COUNT };
extern const struct gemma_sizes gemma_sizes[GEMMA_COUNT];

/* A model on a device of which only the sizes are there: what decides how kernels are built. */
struct gemma {
    struct peridot_device device;
    struct peridot_model model;
};
void gemma_set(struct gemma *gemma, struct device *device, const struct gemma_sizes *sizes);

#endif
