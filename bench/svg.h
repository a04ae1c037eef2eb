/* Plots in SVG, for an HTML page whose style gives the colours: axes and their ticks, lines, marks,
 * bars. Places are in pixels from the left and the top. */
#ifndef BENCH_SVG_H
#define BENCH_SVG_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* A scale: values from `low` to `high` lie on pixels from `start` to `end`. */
struct axis {
    double low, high, start, end;
    bool logarithmic;
};
/* From 0 to the first round number at or above `high`. */
struct axis axis_linear(double high, double start, double end);
/* Room for positive values from `low` to `high`, and a little around them. */
struct axis axis_logarithmic(double low, double high, double start, double end);
/* The pixel of a value; of one outside, the nearest end's. */
double axis_place(const struct axis *axis, double value);
/* Round values from low to high; how many. */
#define TICKS_MAX 12
uint32_t axis_ticks(const struct axis *axis, double ticks[TICKS_MAX]);

/* A number with three digits that count, for a reader. */
#define NUMBER_MAX 32
void number_print(double value, char out[NUMBER_MAX]);

/* A plot begins and ends; the title is for those who cannot see it. */
void svg_begin(FILE *stream, int width, int height, const char *title);
void svg_end(FILE *stream);
/* Axes with lines at the ticks across the plot; titles say what, and its unit. */
void svg_axis_x(FILE *stream, const struct axis *x, const struct axis *y, const char *title);
void svg_axis_y(FILE *stream, const struct axis *x, const struct axis *y, const char *title);

enum anchor { ANCHOR_START, ANCHOR_MIDDLE, ANCHOR_END };
/* `style` is a class of the page, or "". Of more than `most` characters the rest is cut off. */
void svg_text(FILE *stream, double x, double y, enum anchor anchor, const char *style,
              const char *text, int most);
void svg_line(FILE *stream, double x1, double y1, double x2, double y2, const char *style);

/* Series have a colour each, a class s0 to s7 of the page, and their marks a shape; the pairs of
 * both repeat after 64. */
#define COLOURS 8
uint32_t svg_colour(uint32_t series);
/* `title` is shown where a pointer hovers. */
void svg_mark(FILE *stream, double x, double y, uint32_t series, bool filled, const char *title);
void svg_bar(FILE *stream, double x, double y, double width, double height, uint32_t series,
             const char *title);

#endif
