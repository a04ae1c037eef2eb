/* Decode steps with timestamps around every dispatch: a session's own recordings, emitted once more
 * with emit_options.queries, stand in for its command buffers while the timing lasts. */
#ifndef BENCH_TIMED_STEPS_H
#define BENCH_TIMED_STEPS_H

#include "session.h"

struct timed_segment {
    struct segment *segment;
    VkCommandBuffer plain; /* the session's own, kept for timed_steps_end */
    uint32_t first;        /* timestamp; the segment has one more than it has dispatches */
};

struct timed_steps {
    struct peridot_session *session;
    VkQueryPool queries;
    struct timed_segment *segments; /* embedding, layers, head, sampler */
    uint32_t segment_count, dispatch_count;
};

/* From now on each decode step of the session takes timestamps. One step a call
 * (peridot_session_generate_wait with a count of 1): timestamps of several would overwrite each
 * other. For the greedy sampler without a penalty. Errors: UNSUPPORTED (a device without
 * timestamps), VULKAN, HOST_MEMORY, DEVICE_MEMORY. */
peridot_result timed_steps_begin(struct peridot_session *session, struct timed_steps *timed,
                                 peridot_error *error);
void timed_steps_end(struct timed_steps *timed); /* accepts one that never began */

const struct dispatch *timed_steps_dispatch(const struct timed_steps *timed, uint32_t index);
/* The last step's seconds of each dispatch, [dispatch_count]. Errors: VULKAN, DEVICE_LOST. */
peridot_result timed_steps_read(const struct timed_steps *timed, double *seconds,
                                peridot_error *error);

#endif
