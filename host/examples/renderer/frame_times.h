/* How long frames took, and what of that is said. */
#ifndef RENDERER_FRAME_TIMES_H
#define RENDERER_FRAME_TIMES_H

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

/* What a model did in a frame: nothing, answering, or being loaded. */
enum frame_kind { FRAME_ALONE, FRAME_WITH_MODEL, FRAME_LOADING, FRAME_KINDS };

/* Those of each kind; and the latest of all. */
struct frame_history {
    struct frame_times of[FRAME_KINDS];
    float ms[FRAME_HISTORY]; /* a ring, as is: */
    enum frame_kind kinds[FRAME_HISTORY];
    size_t count;
};
void frame_history_add(struct frame_history *history, float ms, enum frame_kind kind);

double seconds_now(void); /* of a clock that only goes on */

#endif
