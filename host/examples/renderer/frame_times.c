/* How long frames took. */
#include "frame_times.h"

#include <stdlib.h>
#include <time.h>

void frame_times_add(struct frame_times *times, float ms) {
    times->ms[times->count++ % FRAME_TIMES_KEPT] = ms;
}

static int ascending(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

struct frame_summary frame_times_summary(const struct frame_times *times, size_t last) {
    static float sorted[FRAME_TIMES_KEPT];
    size_t count = times->count < FRAME_TIMES_KEPT ? times->count : FRAME_TIMES_KEPT;
    count = last && last < count ? last : count;
    if (count == 0)
        return (struct frame_summary){0};
    for (size_t i = 0; i < count; i++)
        sorted[i] = times->ms[(times->count - 1 - i) % FRAME_TIMES_KEPT];
    qsort(sorted, count, sizeof *sorted, ascending);
    return (struct frame_summary){
        .frames = count,
        .median = sorted[count / 2],
        .percentile_99 = sorted[(count * 99 + 99) / 100 - 1],
        .worst = sorted[count - 1],
    };
}

void frame_history_add(struct frame_history *history, float ms, enum frame_kind kind) {
    frame_times_add(&history->of[kind], ms);
    history->ms[history->count % FRAME_HISTORY] = ms;
    history->kinds[history->count++ % FRAME_HISTORY] = kind;
}

double seconds_now(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}
