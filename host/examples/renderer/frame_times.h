/* How long frames took, and what of that is said. */
#ifndef RENDERER_FRAME_TIMES_H
#define RENDERER_FRAME_TIMES_H

#include <stdbool.h>
#include <stddef.h>

enum { FRAME_TIMES_KEPT = 1 << 14 };

/* The latest ones, in a ring. */
struct frame_times {
    float ms[FRAME_TIMES_KEPT];
    size_t count; /* ever added */
};
struct frame_summary {
    size_t frames;
    float median, percentile_99, worst; /* milliseconds */
};

void frame_times_add(struct frame_times *times, float ms);
/* Of the latest `last` at most; `last` 0: of all that are kept. */
struct frame_summary frame_times_summary(const struct frame_times *times, size_t last);

enum { FRAME_HISTORY = 160 };

/* Those of frames in which a model had work, and of the others; and the latest of both. */
struct frame_history {
    struct frame_times with, without;
    float ms[FRAME_HISTORY]; /* a ring */
    bool with_model[FRAME_HISTORY];
    size_t count;
};
void frame_history_add(struct frame_history *history, float ms, bool with_model);

double seconds_now(void); /* of a clock that only goes on */

#endif
