/* Work in slices: a session's tokens, or a batch's, computed by parts of bounded time, in
 * submissions of Peridot's own or in the application's command buffers, without a wait. `session`
 * is a session or a batch's own (batch.h). */
#ifndef HOST_SLICES_H
#define HOST_SLICES_H

#include "slicer.h"
#include "work_list.h"

/* A slice that was submitted or recorded and is not known to have run. */
struct slice_flight {
    bool recorded;                   /* in the application's command buffer */
    VkSemaphore timeline;            /* that tells, the application's if recorded */
    uint64_t value;                  /* and what it then has */
    VkCommandBuffer *fresh;          /* stb_ds array: of Peridot's, for this slice alone */
    struct slice_fill fill;          /* what it was estimated from */
    struct work_place before, after; /* where the work was, and is when it has run */
    uint32_t first_query;            /* of two */
};

struct work {
    bool active; /* there is something to do, or in flight */
    bool ending; /* nothing more is submitted, and no token taken */
    struct work_goal goal;
    struct work_place place; /* behind what was submitted */
    struct work_member {
        uint32_t received; /* tokens taken over */
        uint32_t masked;   /* tokens whose masks are written, where there are any */
        bool ended;        /* before its goal: no more tokens are taken */
    } members[BATCH_MAX];
    peridot_on_token on_token; /* a session's; */
    peridot_on_batch_token on_batch_token;
    void *user;
    struct slicer slicer;
    VkQueryPool queries;
    struct slice_flight flights[PERIDOT_SLICES_MAX]; /* a ring */
    uint32_t first_flight, flight_count, next_query;
    uint32_t unsure; /* of the next flights to land, how many may have returned at once in part */
    float measured_ms, estimated_ms; /* of the last slice measured */
};

/* Part of a segment, or of a chunk to be cleared, in a slice. */
struct slice_run {
    struct work_place at;          /* where it begins */
    const struct segment *segment; /* NULL: a clearing */
    struct recording_range range;  /* of the segment's dispatches; of a clearing the groups */
    bool begins_stage, ends_segment;
};

/* A slice as it is cut, and where the work goes on after it. */
struct slice_cut {
    struct slice_run *runs; /* stb_ds array; empty: there is nothing to do now */
    struct slice_fill fill;
    struct work_place after;
    uint32_t dispatches;
    struct cost cost;
};

/* Cuts the slice that begins at `place`; freed by slice_cut_free. `seconds` 0: as the session's
 * own submissions are limited. */
void slice_cut_make(const struct peridot_session *session, const struct work_place *place,
                    double seconds, struct slice_cut *cut);
void slice_cut_free(struct slice_cut *cut);

/* Submits a slice, or writes it into the application's command buffer, and takes it into flight. On
 * an error the work is where it was or, if a part is in the application's command buffer, it ends.
 */
peridot_result slices_submit(struct peridot_session *session, struct slice_cut *cut,
                             const peridot_advance *advance, peridot_error *error);
peridot_result slices_record(struct peridot_session *session, struct slice_cut *cut,
                             const peridot_recording *recording, peridot_error *error);
/* Whether the oldest slice in flight has run. Errors: DEVICE_LOST. */
peridot_result slices_poll(struct peridot_session *session, bool *done, peridot_error *error);
/* Lets go of what the oldest one held. */
void slices_drop(struct peridot_session *session);
/* Takes back the last one, which will not run; the work is where it was before. */
void slices_take_back(struct peridot_session *session);
/* GPU time of the oldest one, which has run; 0: not known. */
double slices_measure(struct peridot_session *session);
/* Gives back what idle work has on the device. */
void slices_release(struct peridot_session *session);
/* Blocks until all that were recorded have run; the lane is waited for by the caller. */
void slices_wait(struct peridot_session *session);
/* The same, and frees all. */
void slices_close(struct peridot_session *session);

#endif
