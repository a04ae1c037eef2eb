#include "svg.h"
#include "html.h"

#include <math.h>

/* ---- Scales ---- */

/* The round number (1, 2 or 5 times a power of ten) at or above a positive value. */
static double round_up(double value) {
    double power = pow(10, floor(log10(value))), digit = value / power;
    return power * (digit <= 1 ? 1 : digit <= 2 ? 2 : digit <= 5 ? 5 : 10);
}

/* A value that can be reckoned with: files hold any. */
static double bound(double value) {
    return fmin(fmax(value, 1e-290), 1e290); /* NaN too: the first */
}

struct axis axis_linear(double high, double start, double end) {
    high = high > 0 ? high : 1; /* nothing was measured */
    double step = round_up(bound(high) / 5);
    return (struct axis){0, step * ceil(bound(high) / step * (1 - 1e-9)), start, end, false};
}

struct axis axis_logarithmic(double low, double high, double start, double end) {
    low = bound(low);
    high = fmax(bound(high), low);
    return (struct axis){low / 1.5, high * 1.5, start, end, true};
}

double axis_place(const struct axis *axis, double value) {
    double inside = fmin(fmax(value, axis->low), axis->high);
    double share = axis->logarithmic ? log(inside / axis->low) / log(axis->high / axis->low)
                                     : (inside - axis->low) / (axis->high - axis->low);
    return axis->start + share * (axis->end - axis->start);
}

/* Powers of ten; between them 2 and 5 where there are few. */
static uint32_t logarithmic_ticks(const struct axis *axis, double ticks[TICKS_MAX]) {
    int first = (int)floor(log10(axis->low)), last = (int)floor(log10(axis->high));
    int step = (last - first) / (TICKS_MAX - 2) + 1;
    bool few = last - first <= 2;
    uint32_t count = 0;
    for (int power = first; power <= last; power += step)
        for (int digit = 1; digit <= (few ? 5 : 1); digit += digit == 1 ? 1 : 3) {
            double tick = digit * pow(10, power);
            if (tick >= axis->low && tick <= axis->high && count < TICKS_MAX)
                ticks[count++] = tick;
        }
    return count;
}

uint32_t axis_ticks(const struct axis *axis, double ticks[TICKS_MAX]) {
    if (axis->logarithmic)
        return logarithmic_ticks(axis, ticks);
    double step = round_up(axis->high / 5 * (1 - 1e-9));
    uint32_t count = 0;
    for (; count < TICKS_MAX && count * step <= axis->high * (1 + 1e-9); count++)
        ticks[count] = count * step;
    return count;
}

void number_print(double value, char out[NUMBER_MAX]) {
    double size = fabs(value);
    if (size >= 1e7 || (size < 1e-3 && size > 0))
        snprintf(out, NUMBER_MAX, "%.2e", value);
    else
        snprintf(out, NUMBER_MAX, "%.*f",
                 size >= 99.95   ? 0
                 : size >= 9.995 ? 1
                 : size >= 1     ? 2
                                 : 3,
                 value);
}

/* Short, so that ticks do not run into each other: 20k, 5M. */
static void tick_print(double value, char out[NUMBER_MAX]) {
    bool kilo = value >= 1e4 && value < 1e6, mega = value >= 1e6 && value < 1e9;
    bool far = value >= 1e9 || (value < 1e-4 && value > 0);
    snprintf(out, NUMBER_MAX, far ? "%.0e" : "%.10g%s",
             value / (kilo   ? 1e3
                      : mega ? 1e6
                             : 1),
             kilo   ? "k"
             : mega ? "M"
                    : "");
}

/* ---- Drawing ---- */

void svg_begin(FILE *stream, int width, int height, const char *title) {
    fprintf(stream,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" width=\"%d\" height=\"%d\" "
            "viewBox=\"0 0 %d %d\"><title>",
            width, height, width, height);
    html_text(stream, title);
    fputs("</title>\n", stream);
}

void svg_end(FILE *stream) {
    fputs("</svg>\n", stream);
}

void svg_text(FILE *stream, double x, double y, enum anchor anchor, const char *style,
              const char *text, int most) {
    static const char *const anchors[] = {"start", "middle", "end"};
    fprintf(stream, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\" class=\"%s\">", x, y,
            anchors[anchor], style);
    html_text_cut(stream, text, most);
    fputs("</text>\n", stream);
}

void svg_line(FILE *stream, double x1, double y1, double x2, double y2, const char *style) {
    fprintf(stream, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" class=\"%s\"/>\n", x1,
            y1, x2, y2, style);
}

void svg_axis_x(FILE *stream, const struct axis *x, const struct axis *y, const char *title) {
    double ticks[TICKS_MAX];
    char number[NUMBER_MAX];
    uint32_t count = axis_ticks(x, ticks);
    for (uint32_t i = 0; i < count; i++) {
        double at = axis_place(x, ticks[i]);
        tick_print(ticks[i], number);
        svg_line(stream, at, y->start, at, y->end, "grid");
        svg_text(stream, at, y->start + 15, ANCHOR_MIDDLE, "tick", number, NUMBER_MAX);
    }
    svg_line(stream, x->start, y->start, x->end, y->start, "axis");
    svg_text(stream, (x->start + x->end) / 2, y->start + 32, ANCHOR_MIDDLE, "", title, 80);
}

void svg_axis_y(FILE *stream, const struct axis *x, const struct axis *y, const char *title) {
    double ticks[TICKS_MAX];
    char number[NUMBER_MAX];
    uint32_t count = axis_ticks(y, ticks);
    for (uint32_t i = 0; i < count; i++) {
        double at = axis_place(y, ticks[i]);
        tick_print(ticks[i], number);
        svg_line(stream, x->start, at, x->end, at, "grid");
        svg_text(stream, x->start - 6, at + 4, ANCHOR_END, "tick", number, NUMBER_MAX);
    }
    svg_line(stream, x->start, y->start, x->start, y->end, "axis");
    /* above its axis, not beside it: no one reads with a bent neck */
    svg_text(stream, 4, y->end - 10, ANCHOR_START, "", title, 80);
}

static void put_title(FILE *stream, const char *element, const char *title) {
    fputs("><title>", stream);
    html_text(stream, title);
    fprintf(stream, "</title></%s>\n", element);
}

uint32_t svg_colour(uint32_t series) {
    return (series + series / COLOURS * 3) % COLOURS;
}

void svg_mark(FILE *stream, double x, double y, uint32_t series, bool filled, const char *title) {
    static const char *const shapes[COLOURS] = {"M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0z",
                                                "M-4.5-4.5h9v9h-9z",
                                                "M0-6L5.5 4.5h-11z",
                                                "M0-6.5L6.5 0L0 6.5L-6.5 0z",
                                                "M0 6L5.5-4.5h-11z",
                                                "M-2-6h4v4h4v4h-4v4h-4v-4h-4v-4h4z",
                                                "M-6-3h12v6h-12z",
                                                "M-3-6h6v12h-6z"};
    fprintf(stream, "<path d=\"%s\" transform=\"translate(%.1f %.1f)\" class=\"s%u mark%s\"",
            shapes[series % COLOURS], x, y, svg_colour(series), filled ? "" : " hollow");
    put_title(stream, "path", title);
}

void svg_bar(FILE *stream, double x, double y, double width, double height, uint32_t series,
             const char *title) {
    fprintf(stream, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" class=\"s%u bar\"",
            x, y, fmax(width, 1), height, svg_colour(series));
    put_title(stream, "rect", title);
}
