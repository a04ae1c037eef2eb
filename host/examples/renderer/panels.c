/* What is drawn over the scene: frame times, and the chat. */
#include "panels.h"

#include <math.h>
#include <stb/stb_ds.h>
#include <stdio.h>
#include <string.h>

static const struct colour ground = {9, 17, 19, 205}, field = {24, 40, 43, 230},
                           bright = {232, 240, 234, 255}, dim = {150, 170, 166, 255},
                           green = {150, 214, 62, 255}, amber = {240, 168, 58, 255},
                           rule = {255, 255, 255, 40}, mine = {58, 88, 30, 235},
                           theirs = {30, 48, 52, 235}, red = {240, 96, 80, 255},
                           blue = {92, 168, 232, 255};

/* Of frames, by their kind: */
static const struct {
    const char *name;
    const struct colour *colour;
} kinds[FRAME_KINDS] = {[FRAME_ALONE] = {"scene alone", &green},
                        [FRAME_WITH_MODEL] = {"with the model", &amber},
                        [FRAME_LOADING] = {"while it loads", &blue}};

static float line(struct overlay *o, float x, float y, enum text_size size, struct colour colour,
                  const char *text) {
    return overlay_text(o, x, y, size, colour, text, strlen(text));
}

/* The same, ending at `x`. */
static void line_to(struct overlay *o, float x, float y, enum text_size size, struct colour colour,
                    const char *text) {
    line(o, x - overlay_text_width(o, size, text, strlen(text)), y, size, colour, text);
}

/* ---- Frame times ---- */

enum { SUMMARISED = 600 }; /* frames of each kind */

/* What the graph reaches up to: single long frames may leave it. */
static float graph_top(const struct frame_history *history, size_t count) {
    float sum = 0, most = 0;
    for (size_t i = 0; i < count; i++) {
        sum += history->ms[i];
        most = fmaxf(most, history->ms[i]);
    }
    float usual = count ? 3 * sum / (float)count : 0;
    return fmaxf(34, fminf(most, usual));
}

/* Left of the bars. */
static void draw_marks(struct overlay *o, float most, float x, float y, float width, float height) {
    static const float marks[] = {1000.f / 60, 1000.f / 30, 100, 200, 500, 1000};
    float last = y + height;
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++) {
        char text[16];
        float at = y + height * (1 - marks[i] / most);
        if (marks[i] > most || last - at < 16 * o->scale)
            continue;
        last = at;
        overlay_box(o, x, at, width, 1, 0, rule);
        snprintf(text, sizeof text, "%.0f", marks[i]);
        line_to(o, x - 6 * o->scale, at + 5 * o->scale, TEXT_SMALL, dim, text);
    }
    overlay_box(o, x, y + height, width, 1, 0, rule);
}

/* The oldest frame on the left. */
static void draw_bars(struct overlay *o, const struct frame_history *history, float x, float y,
                      float width, float height) {
    size_t count = history->count < FRAME_HISTORY ? history->count : FRAME_HISTORY;
    float most = graph_top(history, count), step = width / FRAME_HISTORY;
    for (size_t i = 0; i < count; i++) {
        size_t at = (history->count - count + i) % FRAME_HISTORY;
        float high = fmaxf(1, fminf(history->ms[at] / most, 1) * height);
        overlay_box(o, x + step * (float)(FRAME_HISTORY - count + i), y + height - high,
                    step * 0.8f, high, 0, *kinds[history->kinds[at]].colour);
    }
    draw_marks(o, most, x, y, width, height);
    char oldest[32];
    snprintf(oldest, sizeof oldest, "%d frames ago", FRAME_HISTORY);
    line(o, x, y + height + 16 * o->scale, TEXT_SMALL, dim, oldest);
    line_to(o, x + width, y + height + 16 * o->scale, TEXT_SMALL, dim, "now");
}

static void draw_summary(struct overlay *o, const struct frame_history *history,
                         enum frame_kind kind, float x, float y) {
    struct frame_summary sum = frame_times_summary(&history->of[kind], SUMMARISED);
    const float figures[] = {sum.median, sum.percentile_99, sum.worst};
    overlay_box(o, x, y - 9 * o->scale, 9 * o->scale, 9 * o->scale, 2 * o->scale,
                *kinds[kind].colour);
    line(o, x + 16 * o->scale, y, TEXT_SMALL, bright, kinds[kind].name);
    for (int i = 0; i < 3; i++) {
        char text[16] = "-";
        if (sum.frames)
            snprintf(text, sizeof text, "%.1f", figures[i]);
        line_to(o, x + (192 + 72 * (float)i) * o->scale, y, TEXT_SMALL, bright, text);
    }
}

static void draw_heads(struct overlay *o, float x, float y) {
    static const char *const heads[] = {"median", "99 %", "worst"};
    char frames[32];
    snprintf(frames, sizeof frames, "last %d of each", SUMMARISED);
    line(o, x, y, TEXT_SMALL, dim, frames);
    for (int i = 0; i < 3; i++)
        line_to(o, x + (192 + 72 * (float)i) * o->scale, y, TEXT_SMALL, dim, heads[i]);
}

static void draw_times(const struct panels *p, struct overlay *o) {
    float s = o->scale, x = 20 * s, y = 20 * s, width = 368 * s;
    int rows = p->history->of[FRAME_LOADING].count ? 3 : 2;
    overlay_box(o, x, y, width, (206 + 22 * (float)rows) * s, 10 * s, ground);
    line(o, x + 16 * s, y + 28 * s, TEXT_NORMAL, bright, "Frame time in ms");
    const char *name = p->gpu->name;
    size_t length = strcspn(name, "(");
    overlay_text(o, x + width - 16 * s - overlay_text_width(o, TEXT_SMALL, name, length),
                 y + 28 * s, TEXT_SMALL, dim, name, length);
    draw_bars(o, p->history, x + 52 * s, y + 44 * s, width - 68 * s, 96 * s);
    draw_heads(o, x + 16 * s, y + 190 * s);
    for (int i = 0; i < rows; i++)
        draw_summary(o, p->history, (enum frame_kind)i, x + 16 * s, y + (212 + 22 * (float)i) * s);
}

/* ---- Chat ---- */

enum { LINES_MAX = 96 };
struct wrapped {
    const char *start[LINES_MAX];
    size_t length[LINES_MAX];
    int count;
    float width;
};

/* Where a line of at most that width ends: after a space if there is one, and where the next
 * begins. */
static const char *break_line(const struct overlay *o, const char *text, const char *end,
                              float width, const char **next) {
    const char *at = text, *space = NULL;
    float used = 0;
    while (at < end && *at != '\n') {
        const char *here = at;
        (void)overlay_next_character(&at, end);
        used += overlay_text_width(o, TEXT_NORMAL, here, (size_t)(at - here));
        if (used > width && here > text) {
            *next = space ? space + 1 : here;
            return space ? space : here;
        }
        if (*here == ' ')
            space = here;
    }
    *next = at < end ? at + 1 : at;
    return at;
}

static void wrap(const struct overlay *o, const char *text, size_t length, float width,
                 struct wrapped *out) {
    const char *end = text + length;
    out->count = 0;
    out->width = 0;
    while (text < end && out->count < LINES_MAX) {
        const char *next, *stop = break_line(o, text, end, width, &next);
        out->start[out->count] = text;
        out->length[out->count] = (size_t)(stop - text);
        out->width =
            fmaxf(out->width, overlay_text_width(o, TEXT_NORMAL, text, (size_t)(stop - text)));
        out->count++;
        text = next;
    }
}

/* A message that ends at `bottom`; where it begins. Of one that does not fit below `top` the end
 * shows. */
static float draw_message(struct overlay *o, const char *text, size_t length, bool user, float x,
                          float width, float top, float bottom) {
    static struct wrapped lines;
    float s = o->scale, high = overlay_line_height(o, TEXT_NORMAL), margin = 10 * s;
    wrap(o, text, length, width * 0.86f - 2 * margin, &lines);
    int room = (int)((bottom - top - 1.3f * margin) / high), from = lines.count - room;
    from = from < 0 ? 0 : from;
    if (room <= 0 || lines.count == 0)
        return lines.count ? top - 1 : bottom;
    float tall = high * (float)(lines.count - from) + 1.3f * margin, begin = bottom - tall;
    float left = user ? x + width - lines.width - 2 * margin : x;
    overlay_box(o, left, begin, lines.width + 2 * margin, tall, 8 * s, user ? mine : theirs);
    for (int i = from; i < lines.count; i++)
        overlay_text(o, left + margin, begin + margin * 0.45f + high * ((float)(i - from) + 0.8f),
                     TEXT_NORMAL, bright, lines.start[i], lines.length[i]);
    return begin - 8 * s;
}

static void describe(const struct chat *chat, char *out, size_t size) {
    if (!chat->on)
        snprintf(out, size, "the model is off%s",
                 chat->loading     ? ", loading waits"
                 : chat->answering ? ", the answer waits"
                                   : "");
    else if (chat->loading)
        chat_describe_loading(chat, out, size);
    else if (!chat->answering)
        snprintf(out, size, "%s: %u tokens in %u answer%s", mode_names[chat->mode], chat->tokens,
                 chat->answers, chat->answers == 1 ? "" : "s");
    else if (!chat->status.generated)
        snprintf(out, size, "%s: reading the question, %.0f %%", mode_names[chat->mode],
                 floorf(100 * chat->prompt_done));
    else if (chat->mode == MODE_OWN)
        snprintf(out, size, "own: a slice took %.2f ms, %u in flight", chat->status.slice_ms,
                 chat->status.slices_in_flight);
    else
        snprintf(out, size, "%s, %.1f ms a frame: a slice took %.2f ms, %u in flight",
                 mode_names[chat->mode], chat->budget_ms, chat->status.slice_ms,
                 chat->status.slices_in_flight);
}

static void draw_input(const struct panels *p, struct overlay *o, float x, float y, float width) {
    float s = o->scale, room = width - 28 * s;
    const char *text = p->input;
    bool empty = !*text;
    if (empty)
        text = p->chat->failed      ? "There will be no more answers"
               : p->chat->answering ? ""
               : p->chat->loading   ? "Ask something: it waits for the model"
                                    : "Ask something";
    while (!empty && overlay_text_width(o, TEXT_NORMAL, text, strlen(text)) > room)
        (void)overlay_next_character(&text, text + strlen(text)); /* its end is what is typed at */
    overlay_box(o, x, y, width, 36 * s, 8 * s, field);
    float begin = x + 14 * s;
    float at =
        line(o, empty ? begin + 8 * s : begin, y + 24 * s, TEXT_NORMAL, empty ? dim : bright, text);
    if (fmod(p->seconds, 1) < 0.6)
        overlay_box(o, empty ? begin : at + 2 * s, y + 8 * s, 2 * s, 20 * s, 0, green);
}

/* How far loading is, or reading a question, as a bar. */
static void draw_progress(struct overlay *o, const struct chat *chat, float x, float y,
                          float width) {
    const peridot_loading_status *loading = &chat->progress;
    float done = chat->prompt_done, s = o->scale;
    if (chat->loading)
        done = loading->all ? (float)loading->done / (float)loading->all : 0;
    else if (!chat->answering || chat->status.generated)
        return;
    overlay_box(o, x, y, width, 4 * s, 2 * s, field);
    overlay_box(o, x, y, fmaxf(4 * s, width * done), 4 * s, 2 * s, chat->loading ? blue : amber);
}

/* Below its last line. */
static float draw_error(struct overlay *o, const char *text, float x, float y, float width) {
    static struct wrapped lines;
    wrap(o, text, strlen(text), width, &lines);
    for (int i = 0; i < lines.count; i++, y += overlay_line_height(o, TEXT_NORMAL))
        overlay_text(o, x, y, TEXT_NORMAL, red, lines.start[i], lines.length[i]);
    return y;
}

/* What the model does, or why not; below that. */
static float draw_state(struct overlay *o, const struct chat *chat, float x, float y, float width) {
    char text[256];
    float s = o->scale;
    if (chat->failed)
        return draw_error(o, chat->error.message, x, y + 52 * s, width);
    describe(chat, text, sizeof text);
    line(o, x, y + 48 * s, TEXT_SMALL, dim, text);
    draw_progress(o, chat, x, y + 56 * s, width);
    return y + 66 * s;
}

static void draw_turn(struct overlay *o, const struct turn *turn, bool awaited, float x,
                      float width, float top, float *bottom) {
    const char *answer = turn->answer;
    size_t length = arrlenu(turn->answer);
    if (awaited && length == 0) {
        answer = "...";
        length = 3;
    }
    *bottom = draw_message(o, answer, length, false, x, width, top, *bottom);
    if (*bottom > top)
        *bottom =
            draw_message(o, turn->question, arrlenu(turn->question), true, x, width, top, *bottom);
}

static void draw_chat(const struct panels *p, struct overlay *o, const struct frames *frames) {
    const struct chat *chat = p->chat;
    float s = o->scale, width = 400 * s, x = (float)frames->width - width - 20 * s, y = 20 * s;
    float height = (float)frames->height - 40 * s, inner = width - 32 * s;
    overlay_box(o, x, y, width, height, 10 * s, ground);
    line(o, x + 16 * s, y + 28 * s, TEXT_NORMAL, bright, "Peridot");
    float top = draw_state(o, chat, x + 16 * s, y, inner), bottom = y + height - 88 * s;
    draw_input(p, o, x + 16 * s, y + height - 76 * s, inner);
    line(o, x + 16 * s, y + height - 16 * s, TEXT_SMALL, dim,
         chat->on ? "Enter sends \xc2\xb7 F2 turns the model off \xc2\xb7 Esc quits"
                  : "Enter sends \xc2\xb7 F2 turns the model on \xc2\xb7 Esc quits");
    ptrdiff_t last = arrlen(chat->turns) - 1;
    for (ptrdiff_t i = last; i >= 0 && bottom > top; i--)
        draw_turn(o, &chat->turns[i], i == last && chat->answering, x + 16 * s, inner, top,
                  &bottom);
}

void panels_draw(const struct panels *panels, struct overlay *overlay,
                 const struct frames *frames) {
    draw_times(panels, overlay);
    if (panels->chat)
        draw_chat(panels, overlay, frames);
}
