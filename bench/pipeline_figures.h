/* What a driver's compiler tells of a pipeline (VK_KHR_pipeline_executable_properties), in words
 * that all drivers share. */
#ifndef BENCH_PIPELINE_FIGURES_H
#define BENCH_PIPELINE_FIGURES_H

#include "pipelines.h"

#include <stdio.h>

enum figure {
    FIGURE_REGISTERS,    /* of vectors, for each lane or thread, as allocated */
    FIGURE_SPILLS,       /* registers spilled or filled, or bytes of scratch memory */
    FIGURE_OCCUPANCY,    /* subgroups that one execution unit holds at once */
    FIGURE_INSTRUCTIONS, /* in the program */
    FIGURE_CYCLES,       /* of one subgroup from start to end, estimated */
    FIGURE_THROUGHPUT,   /* cycles that one subgroup keeps its unit busy, estimated */
    FIGURE_CODE_BYTES,
    FIGURE_COUNT
};

struct figures {
    bool has[FIGURE_COUNT]; /* the driver tells it */
    double at[FIGURE_COUNT];
};

/* Takes one of a driver's figures into account, if it is one of ours. */
void figures_add(struct figures *figures, const VkPipelineExecutableStatisticKHR *statistic);
/* Of a compiled pipeline on a device with executable_properties; where the driver keeps programs
 * for several subgroup sizes, of the widest. Errors: VULKAN, HOST_MEMORY. */
peridot_result figures_read(struct device *device, const struct pipeline *pipeline,
                            struct figures *figures, peridot_error *error);
/* Prints the machine code of one on a device with machine_code, or whatever other text the driver
 * has of it; false: none. Errors: VULKAN, HOST_MEMORY. */
peridot_result figures_print_code(struct device *device, const struct pipeline *pipeline,
                                  FILE *stream, bool *printed, peridot_error *error);

#endif
