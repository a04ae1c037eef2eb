/* What is drawn over the scene: frame times, and the chat. */
#ifndef RENDERER_PANELS_H
#define RENDERER_PANELS_H

#include "chat.h"
#include "frame_times.h"
#include "overlay.h"

struct panels {
    const struct gpu *gpu;
    const struct chat *chat; /* NULL: no model */
    const struct frame_history *history;
    const char *input; /* what is being typed */
    double seconds;
};
void panels_draw(const struct panels *panels, struct overlay *overlay, const struct frames *frames);

#endif
