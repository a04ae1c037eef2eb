/* A GPU whose time is made up: functions around another vkGetInstanceProcAddr's, which run the work
 * where it would have run and answer timestamps, and when work is seen to be done, by a model of
 * cost. A workgroup of each pipeline takes a time of its own, whatever its kernel moves or
 * computes, so the model knows nothing of Peridot's estimates. Waits end the program (abort). One
 * at a time. */
#ifndef TESTS_SIMULATED_GPU_H
#define TESTS_SIMULATED_GPU_H

#include "device.h"

struct simulated_gpu {
    double group_least;    /* seconds of a workgroup: from this */
    double group_most;     /* to this, one for each pipeline */
    double noise;          /* each submission is longer or shorter by up to this part */
    double spike_chance;   /* of a submission, to take */
    double spike_factor;   /* this many times as long */
    double drift;          /* times go up and down by up to this part */
    uint32_t drift_period; /* in frames */
    double slower;         /* all times are multiplied with this */
    uint32_t latency;      /* frames until a submission's end is seen */
    bool zero;             /* all timestamps are 0 */
    uint64_t start;        /* of the clock, in nanoseconds: it may pass its end */
};

/* The functions that stand before `real`'s; they themselves call the loader's, but for submissions.
 */
PFN_vkGetInstanceProcAddr simulated_gpu_open(PFN_vkGetInstanceProcAddr real,
                                             PFN_vkGetInstanceProcAddr loader, VkInstance instance,
                                             VkDevice device, uint64_t seed);
void simulated_gpu_close(void);
/* For what is recorded from now on. */
void simulated_gpu_model(const struct simulated_gpu *gpu);
/* From frame 0 on times are made up, and nobody may wait; until it is stopped. */
void simulated_gpu_start(void);
void simulated_gpu_stop(void);
void simulated_gpu_slow_down(double factor);
void simulated_gpu_next_frame(void);
/* Seconds that the last submission took; 0: it had no timestamps. */
double simulated_gpu_last(void);
uint32_t simulated_gpu_submissions(void);

#endif
