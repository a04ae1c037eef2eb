#include "text_windows.h"

struct text_windows text_windows(size_t count, uint32_t size, uint32_t stride) {
    return (struct text_windows){.count = count, .size = size, .stride = stride};
}

bool text_windows_next(struct text_windows *w) {
    size_t room = w->size - 1,
           done = w->end; /* every token before `done` is scored or was passed */
    if (done >= w->count)
        return false;
    w->begin = w->open ? w->begin + w->stride : 0;
    w->open = true;
    w->end = w->count - w->begin < room ? w->count : w->begin + room;
    /* with <bos>, the token at `begin + i` has i + 1 before it */
    size_t half = w->count <= room ? 0 : w->size / 2 - 1;
    w->scored = w->begin + half > done ? w->begin + half : done;
    if (w->scored < w->end)
        return true;
    w->end = w->count; /* a last window that is too short */
    return false;
}

struct text_windows_sum text_windows_sum(size_t count, uint32_t size, uint32_t stride) {
    struct text_windows_sum sum = {0};
    struct text_windows windows = text_windows(count, size, stride);
    while (text_windows_next(&windows)) {
        sum.windows++;
        sum.scored += windows.end - windows.scored;
        sum.run += windows.end - windows.begin;
    }
    return sum;
}
