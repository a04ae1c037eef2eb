/* The plots of a report. */
#include "html.h"
#include "report.h"
#include "svg.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <stb/stb_ds.h>

#define TEXT_MAX 192

/* ---- What rows hold ---- */

const cJSON *report_rows(const struct report_file *file, const char *command, const char *table) {
    static const cJSON none = {.type = cJSON_Array};
    const cJSON *rows = cJSON_GetObjectItemCaseSensitive(file->json, table);
    return strcmp(file->command, command) == 0 && cJSON_IsArray(rows) ? rows : &none;
}

void report_mark(const struct report *report, uint32_t index, char out[REPORT_MARK_MAX]) {
    out[0] = '\0';
    if (report->count > 1)
        snprintf(out, REPORT_MARK_MAX, "[%u] ", index + 1);
}

/* A number that can be plotted; else 0. */
static double positive(const cJSON *row, const char *key) {
    double value = row_value(row, key);
    return isfinite(value) && value > 0 ? value : 0;
}

/* What a row has at some keys, with commas between; numbers after their key. */
static void join(const cJSON *row, const char *const *keys, char *out) {
    size_t length = 0;
    out[0] = '\0';
    for (int i = 0; i < 3 && keys[i]; i++) {
        char part[TEXT_MAX];
        double number = row_value(row, keys[i]);
        snprintf(part, sizeof part, "%s", row_text(row, keys[i]));
        if (isfinite(number))
            snprintf(part, sizeof part, "%s %.10g", keys[i], number);
        if (part[0] && length < TEXT_MAX)
            length +=
                (size_t)snprintf(out + length, TEXT_MAX - length, "%s%s", length ? ", " : "", part);
    }
}

/* The place of a text in a list, to which it is added where it is new. */
static uint32_t place_of(cJSON *texts, const char *text) {
    const cJSON *known;
    uint32_t place = 0;
    cJSON_ArrayForEach(known, texts) {
        if (strcmp(known->valuestring, text) == 0)
            return place;
        place++;
    }
    cJSON_AddItemToArray(texts, cJSON_CreateString(text));
    return place;
}

/* ---- Bars ---- */

struct bar {
    const cJSON *row;
    uint32_t file, panel, group, series, order; /* order: in the files */
};

struct bars {
    const struct report *report;
    const struct bar_plot *plot;
    struct bar *list; /* stb_ds */
    cJSON *panels, *groups, *series;
};

#define BAR_WIDTH 460
#define BAR_STEP 17
#define GROUP_STEP 20
#define LABEL_MOST 26
#define VALUE_ROOM 88

/* Measured, or wrong, but no sum: that would dwarf its parts. */
static bool is_bar(const cJSON *row, const struct bar_plot *plot) {
    return (positive(row, plot->value) > 0 || *row_text(row, "fault")) &&
           row_text(row, "kernel")[0] != '(';
}

static int by_place(const void *a, const void *b) {
    const struct bar *one = a, *other = b;
    if (one->panel != other->panel)
        return one->panel < other->panel ? -1 : 1;
    if (one->group != other->group)
        return one->group < other->group ? -1 : 1;
    return one->order < other->order ? -1 : 1;
}

/* By panels, and by groups in them. */
static void collect_bars(struct bars *bars) {
    const struct bar_plot *plot = bars->plot;
    const cJSON *row;
    char text[TEXT_MAX];
    for (uint32_t i = 0; i < bars->report->count; i++)
        cJSON_ArrayForEach(row, report_rows(&bars->report->files[i], plot->command, plot->table)) {
            struct bar bar = {.row = row, .file = i};
            if (!is_bar(row, plot))
                continue;
            join(row, plot->panel, text);
            bar.panel = place_of(bars->panels, text);
            join(row, plot->group, text);
            bar.group = place_of(bars->groups, text);
            join(row, plot->label, text);
            bar.series = place_of(bars->series, text);
            bar.order = (uint32_t)arrlen(bars->list);
            arrput(bars->list, bar);
        }
    if (bars->list)
        qsort(bars->list, (size_t)arrlen(bars->list), sizeof *bars->list, by_place);
}

static void label_bar(const struct bars *bars, const struct bar *bar, char *out) {
    char mark[REPORT_MARK_MAX], name[TEXT_MAX];
    report_mark(bars->report, bar->file, mark);
    join(bar->row, bars->plot->label, name);
    snprintf(out, TEXT_MAX, "%s%.*s%s", mark, TEXT_MAX - REPORT_MARK_MAX - 3, name,
             *row_text(bar->row, "in_use") ? " *" : "");
}

static void draw_bar(FILE *stream, const struct bars *bars, const struct bar *bar,
                     const struct axis *x, double y) {
    char label[TEXT_MAX], number[NUMBER_MAX], title[3 * TEXT_MAX];
    double value = positive(bar->row, bars->plot->value);
    double spread = fmin(positive(bar->row, "spread_percent"), 1e4) / 100;
    double end = axis_place(x, value), middle = y + 6.5;
    label_bar(bars, bar, label);
    svg_text(stream, x->start - 6, y + 10.5, ANCHOR_END, "", label, LABEL_MOST);
    if (*row_text(bar->row, "fault")) {
        svg_text(stream, x->start + 4, y + 10.5, ANCHOR_START, "bad", "wrong: not timed", 80);
        return;
    }
    number_print(value, number);
    snprintf(title, sizeof title, "%.*s: %s %s", TEXT_MAX, label, number, bars->plot->unit);
    if (spread > 0)
        snprintf(title + strlen(title), sizeof title - strlen(title), " ± %.1f %%", 100 * spread);
    svg_bar(stream, x->start, y, end - x->start, 13, bar->series, title);
    if (spread > 0) {
        double from = axis_place(x, value * (1 - spread)), to = axis_place(x, value * (1 + spread));
        svg_line(stream, from, middle, to, middle, "error");
        svg_line(stream, from, y + 3.5, from, y + 9.5, "error");
        svg_line(stream, to, y + 3.5, to, y + 9.5, "error");
        end = fmax(end, to);
    }
    if (row_value(bar->row, "spills") > 0)
        snprintf(number + strlen(number), sizeof number - strlen(number), " spills");
    svg_text(stream, end + 5, y + 10.5, ANCHOR_START, "value", number, NUMBER_MAX);
}

/* Sizes of a panel: its bars and named groups, its longest label, its largest value with its
 * error. */
struct panel_size {
    uint32_t bars, groups, label;
    double largest;
};

static const char *text_at(const cJSON *texts, uint32_t place) {
    return cJSON_GetArrayItem(texts, (int)place)->valuestring;
}

/* Whether a bar begins a group that has a name, in the list of a panel. */
static bool begins_group(const struct bars *bars, const struct bar *list, uint32_t i) {
    return (i == 0 || list[i].group != list[i - 1].group) && *text_at(bars->groups, list[i].group);
}

/* Of the panel whose bars begin at `list`. */
static struct panel_size measure_panel(const struct bars *bars, const struct bar *list) {
    struct panel_size size = {0};
    const struct bar *end = bars->list + arrlen(bars->list);
    for (; list + size.bars < end && list[size.bars].panel == list->panel; size.bars++) {
        const struct bar *bar = &list[size.bars];
        char label[TEXT_MAX];
        double value = positive(bar->row, bars->plot->value);
        double spread = fmin(positive(bar->row, "spread_percent"), 100) / 100;
        label_bar(bars, bar, label);
        size.label = (uint32_t)fmax(size.label, fmin((double)strlen(label), LABEL_MOST));
        size.largest = fmax(size.largest, value * (1 + spread));
        size.groups += begins_group(bars, list, size.bars);
    }
    return size;
}

/* Draws the panel whose bars begin at `list`; returns how many there are. */
static uint32_t draw_panel(FILE *stream, const struct bars *bars, const struct bar *list) {
    struct panel_size size = measure_panel(bars, list);
    const char *name = text_at(bars->panels, list->panel);
    double at = 26, height = 28 + size.groups * GROUP_STEP + size.bars * BAR_STEP;
    struct axis x =
        axis_linear(size.largest, 14 + 6.6 * fmax(size.label, 6), BAR_WIDTH - VALUE_ROOM);
    struct axis y = {0, 1, height, 24, false};
    char title[2 * TEXT_MAX];
    snprintf(title, sizeof title, "%s: %s", name, bars->plot->unit);
    fputs("<figure>", stream);
    svg_begin(stream, BAR_WIDTH, (int)height + 40, title);
    svg_text(stream, 4, 15, ANCHOR_START, "name", name, 60);
    svg_axis_x(stream, &x, &y, bars->plot->unit);
    for (uint32_t i = 0; i < size.bars; i++) {
        if (begins_group(bars, list, i)) {
            svg_text(stream, 4, at + 14, ANCHOR_START, "group",
                     text_at(bars->groups, list[i].group), 50);
            at += GROUP_STEP;
        }
        draw_bar(stream, bars, &list[i], &x, at);
        at += BAR_STEP;
    }
    svg_end(stream);
    fputs("</figure>\n", stream);
    return size.bars;
}

void report_plot_bars(FILE *stream, const struct report *report, const struct bar_plot *plot) {
    struct bars bars = {.report = report,
                        .plot = plot,
                        .panels = cJSON_CreateArray(),
                        .groups = cJSON_CreateArray(),
                        .series = cJSON_CreateArray()};
    collect_bars(&bars);
    uint32_t count = (uint32_t)arrlen(bars.list);
    if (count)
        fprintf(stream, "<section><h2>%s</h2>\n<p>%s</p>\n<div class=\"panels\">\n", plot->heading,
                plot->note);
    for (uint32_t i = 0; i < count;)
        i += draw_panel(stream, &bars, &bars.list[i]);
    if (count)
        fputs("</div></section>\n", stream);
    arrfree(bars.list);
    cJSON_Delete(bars.panels);
    cJSON_Delete(bars.groups);
    cJSON_Delete(bars.series);
}

/* ---- Rooflines ---- */

#define PLOT_WIDTH 700
#define PLOT_LEFT 62
#define PLOT_RIGHT 480 /* beyond it the legend */
#define PLOT_TOP 34
#define PLOT_BOTTOM 350
#define LEGEND_STEP 18

struct roof {
    double bandwidth, arithmetic, packed_dot; /* 0: not measured */
    double least, most;                       /* operations a byte, of kernels */
    double slowest, fastest;                  /* 1e9 operations/s, of kernels */
};

/* Operations a byte of a row; 0: it does not say both. */
static double intensity_of(const cJSON *row) {
    double bytes = positive(row, "gb_per_second"), flops = positive(row, "gflop_per_second");
    double intensity = bytes > 0 && flops > 0 ? flops / bytes : 0;
    return isfinite(intensity) ? intensity : 0;
}

static bool find_roof(const struct report_file *file, const cJSON *rows, struct roof *roof) {
    const cJSON *row;
    *roof = (struct roof){.bandwidth = fmax(positive(file->about, "read_gb_per_second"),
                                            positive(file->about, "copy_gb_per_second")),
                          .arithmetic = positive(file->about, "multiply_add_gflop_per_second"),
                          .packed_dot = positive(file->about, "packed_dot_gop_per_second"),
                          .least = INFINITY,
                          .slowest = INFINITY};
    cJSON_ArrayForEach(row, rows) {
        double intensity = intensity_of(row), flops = positive(row, "gflop_per_second");
        if (!intensity)
            continue;
        roof->least = fmin(roof->least, intensity);
        roof->most = fmax(roof->most, intensity);
        roof->slowest = fmin(roof->slowest, flops);
        roof->fastest = fmax(roof->fastest, flops);
    }
    return roof->most > 0 && roof->bandwidth > 0;
}

/* The slope of the bandwidth up to `ceiling`, and flat from there. */
static void draw_roof(FILE *stream, const struct axis *x, const struct axis *y, double bandwidth,
                      double ceiling, const char *style) {
    double from = fmax(x->low, y->low / bandwidth);
    double top = ceiling > 0 ? fmin(ceiling, y->high) : y->high, ridge = top / bandwidth;
    if (ridge > from)
        svg_line(stream, axis_place(x, from), axis_place(y, from * bandwidth),
                 axis_place(x, fmin(ridge, x->high)), axis_place(y, fmin(top, x->high * bandwidth)),
                 style);
    if (ceiling > 0 && ridge < x->high)
        svg_line(stream, axis_place(x, fmax(ridge, from)), axis_place(y, top), x->end,
                 axis_place(y, top), style);
}

static void roof_legend(FILE *stream, double y, const char *style, const char *name, double value,
                        const char *unit) {
    char text[TEXT_MAX], number[NUMBER_MAX];
    number_print(value, number);
    snprintf(text, sizeof text, "%s %s %s", name, number, unit);
    svg_line(stream, PLOT_RIGHT + 18, y - 4, PLOT_RIGHT + 38, y - 4, style);
    svg_text(stream, PLOT_RIGHT + 44, y, ANCHOR_START, "", text, 40);
}

static double draw_legend(FILE *stream, const struct roof *roof, const cJSON *kernels) {
    double y = PLOT_TOP + 10;
    uint32_t series = 0;
    const cJSON *kernel;
    roof_legend(stream, y, "roof", "bandwidth", roof->bandwidth, "GB/s");
    if (roof->arithmetic > 0)
        roof_legend(stream, y += LEGEND_STEP, "roof", "multiply-add", roof->arithmetic, "GFLOP/s");
    if (roof->packed_dot > 0)
        roof_legend(stream, y += LEGEND_STEP, "roof dashed", "packed dot", roof->packed_dot,
                    "GOP/s");
    y += LEGEND_STEP / 2.0;
    cJSON_ArrayForEach(kernel, kernels) {
        y += LEGEND_STEP;
        svg_mark(stream, PLOT_RIGHT + 28, y - 4, series++, true, kernel->valuestring);
        svg_text(stream, PLOT_RIGHT + 44, y, ANCHOR_START, "", kernel->valuestring, 28);
    }
    return y + LEGEND_STEP;
}

static void draw_kernel(FILE *stream, const struct axis *x, const struct axis *y, const cJSON *row,
                        uint32_t series) {
    static const char *const keys[] = {"variant", "type", "shape"};
    char name[TEXT_MAX], title[3 * TEXT_MAX], rate[NUMBER_MAX], intensity[NUMBER_MAX];
    double flops = positive(row, "gflop_per_second");
    join(row, keys, name);
    number_print(flops, rate);
    number_print(intensity_of(row), intensity);
    snprintf(title, sizeof title, "%.*s, %s: %s GFLOP/s at %s FLOP/byte", TEXT_MAX,
             row_text(row, "kernel"), name, rate, intensity);
    if (positive(row, "limit_percent"))
        snprintf(title + strlen(title), sizeof title - strlen(title), ", %.1f %% of the roof",
                 positive(row, "limit_percent"));
    svg_mark(stream, axis_place(x, intensity_of(row)), axis_place(y, flops), series,
             *row_text(row, "in_use"), title);
}

static cJSON *kernels_below(const cJSON *rows) {
    cJSON *kernels = cJSON_CreateArray();
    const cJSON *row;
    cJSON_ArrayForEach(row, rows) {
        if (intensity_of(row))
            place_of(kernels, row_text(row, "kernel"));
    }
    return kernels;
}

static void begin_figure(FILE *stream, const char *caption, int height) {
    fputs("<figure><figcaption>", stream);
    html_text(stream, caption);
    fputs("</figcaption>\n", stream);
    svg_begin(stream, PLOT_WIDTH, height, caption);
}

static void draw_roofline(FILE *stream, const struct roof *roof, const char *name,
                          const cJSON *rows) {
    double ceiling = fmax(roof->arithmetic, roof->packed_dot);
    double ridge = ceiling / roof->bandwidth; /* 0 where no arithmetic was measured */
    double top = fmax(roof->fastest, ceiling > 0 ? ceiling : roof->most * roof->bandwidth);
    struct axis x = axis_logarithmic(fmin(roof->least, ridge > 0 ? ridge : INFINITY),
                                     fmax(roof->most, ridge), PLOT_LEFT, PLOT_RIGHT);
    struct axis y = axis_logarithmic(roof->slowest, top, PLOT_BOTTOM, PLOT_TOP);
    cJSON *kernels = kernels_below(rows);
    const cJSON *row;
    double legend = PLOT_TOP + LEGEND_STEP * (5.0 + cJSON_GetArraySize(kernels));
    begin_figure(stream, name, (int)fmax(PLOT_BOTTOM + 44, legend));
    svg_axis_x(stream, &x, &y, "operations a byte (FLOP/byte)");
    svg_axis_y(stream, &x, &y, "operations a second (GFLOP/s)");
    draw_roof(stream, &x, &y, roof->bandwidth, roof->arithmetic, "roof");
    if (roof->packed_dot > 0)
        draw_roof(stream, &x, &y, roof->bandwidth, roof->packed_dot, "roof dashed");
    cJSON_ArrayForEach(row, rows) {
        if (intensity_of(row))
            draw_kernel(stream, &x, &y, row, place_of(kernels, row_text(row, "kernel")));
    }
    draw_legend(stream, roof, kernels);
    svg_end(stream);
    fputs("</figure>\n", stream);
    cJSON_Delete(kernels);
}

void report_plot_rooflines(FILE *stream, const struct report *report) {
    bool begun = false;
    for (uint32_t i = 0; i < report->count; i++) {
        const struct report_file *file = &report->files[i];
        const cJSON *rows = report_rows(file, "kernels", "kernels");
        char mark[REPORT_MARK_MAX], name[2 * TEXT_MAX];
        struct roof roof;
        if (!find_roof(file, rows, &roof))
            continue;
        if (!begun)
            fputs("<section><h2>Rooflines</h2>\n<p>No kernel can be above the roof that the "
                  "device's bandwidth and arithmetic are, as kernels reached them that do nothing "
                  "else; caches may lift one over the slope. Full marks are of variants in use, "
                  "hollow ones of the others. Kernels that hardly compute are not here.</p>\n<div "
                  "class=\"panels\">\n",
                  stream);
        begun = true;
        report_mark(report, i, mark);
        snprintf(name, sizeof name, "%s%.*s", mark, TEXT_MAX, row_text(file->about, "device"));
        draw_roofline(stream, &roof, name, rows);
    }
    if (begun)
        fputs("</div></section>\n", stream);
}

/* ---- Depths ---- */

static void draw_point(FILE *stream, const struct axis *x, const struct axis *y, const cJSON *row,
                       uint32_t series, const char *name) {
    char title[3 * TEXT_MAX], number[NUMBER_MAX];
    double value = positive(row, "tokens_per_second");
    double spread = fmin(positive(row, "spread_percent"), 1e4) / 100;
    double left = axis_place(x, row_value(row, "depth"));
    double low = axis_place(y, value * (1 - spread)), high = axis_place(y, value * (1 + spread));
    svg_line(stream, left, low, left, high, "error");
    svg_line(stream, left - 4, low, left + 4, low, "error");
    svg_line(stream, left - 4, high, left + 4, high, "error");
    number_print(value, number);
    snprintf(title, sizeof title, "%s: %s tokens/s ± %.1f %% at depth %.0f", name, number,
             100 * spread, fmin(row_value(row, "depth"), 1e15));
    svg_mark(stream, left, axis_place(y, value), series, true, title);
}

static bool is_point(const cJSON *row, const char *test) {
    double depth = row_value(row, "depth");
    return strcmp(row_text(row, "test"), test) == 0 && isfinite(depth) && depth >= 0 &&
           positive(row, "tokens_per_second") > 0;
}

static void draw_series(FILE *stream, const struct axis *x, const struct axis *y, const cJSON *rows,
                        const char *test, uint32_t series, const char *name) {
    const cJSON *row, *before = NULL;
    char style[16];
    snprintf(style, sizeof style, "line s%u", svg_colour(series));
    cJSON_ArrayForEach(row, rows) {
        if (!is_point(row, test))
            continue;
        if (before)
            svg_line(stream, axis_place(x, row_value(before, "depth")),
                     axis_place(y, row_value(before, "tokens_per_second")),
                     axis_place(x, row_value(row, "depth")),
                     axis_place(y, row_value(row, "tokens_per_second")), style);
        before = row;
    }
    cJSON_ArrayForEach(row, rows) {
        if (is_point(row, test))
            draw_point(stream, x, y, row, series, name);
    }
}

static void name_series(const struct report *report, uint32_t index, char *name) {
    const cJSON *about = report->files[index].about;
    char mark[REPORT_MARK_MAX];
    report_mark(report, index, mark);
    snprintf(name, TEXT_MAX, "%s%s %s", mark, row_text(about, "weights"),
             row_text(about, "device"));
}

/* Two lines, the device's name being long; returns where the next one goes. */
static double draw_series_legend(FILE *stream, const struct report *report, uint32_t index,
                                 double y) {
    static const char *const keys[] = {"weights", "commit", NULL};
    const cJSON *about = report->files[index].about;
    char mark[REPORT_MARK_MAX], text[TEXT_MAX], line[TEXT_MAX + REPORT_MARK_MAX];
    report_mark(report, index, mark);
    join(about, keys, text);
    snprintf(line, sizeof line, "%s%s", mark, text);
    svg_text(stream, PLOT_RIGHT + 44, y, ANCHOR_START, "", line, 26);
    svg_text(stream, PLOT_RIGHT + 44, y + 15, ANCHOR_START, "tick", row_text(about, "device"), 29);
    return y + 2.2 * LEGEND_STEP;
}

static void draw_depths(FILE *stream, const struct report *report, const char *test) {
    double deepest = 5, fastest = 0, legend = PLOT_TOP + 10;
    char name[TEXT_MAX];
    const cJSON *row;
    for (uint32_t i = 0; i < report->count; i++)
        cJSON_ArrayForEach(row, report_rows(&report->files[i], "model", "speed")) {
            double spread = fmin(positive(row, "spread_percent"), 100) / 100;
            if (!is_point(row, test))
                continue;
            deepest = fmax(deepest, row_value(row, "depth"));
            fastest = fmax(fastest, positive(row, "tokens_per_second") * (1 + spread));
        }
    struct axis x = axis_linear(deepest, PLOT_LEFT, PLOT_RIGHT);
    struct axis y = axis_linear(fastest, PLOT_BOTTOM, PLOT_TOP);
    begin_figure(stream, test,
                 (int)fmax(PLOT_BOTTOM + 44, PLOT_TOP + 2.2 * LEGEND_STEP * report->count));
    svg_axis_x(stream, &x, &y, "tokens in the context before (depth)");
    svg_axis_y(stream, &x, &y, "tokens/s");
    for (uint32_t i = 0, series = 0; i < report->count; i++) {
        const cJSON *rows = report_rows(&report->files[i], "model", "speed");
        if (cJSON_GetArraySize(rows) == 0)
            continue;
        name_series(report, i, name);
        draw_series(stream, &x, &y, rows, test, series, name);
        svg_mark(stream, PLOT_RIGHT + 28, legend - 4, series++, true, name);
        legend = draw_series_legend(stream, report, i, legend);
    }
    svg_end(stream);
    fputs("</figure>\n", stream);
}

void report_plot_depths(FILE *stream, const struct report *report) {
    cJSON *tests = cJSON_CreateArray();
    const cJSON *row, *test;
    for (uint32_t i = 0; i < report->count; i++)
        cJSON_ArrayForEach(row, report_rows(&report->files[i], "model", "speed")) {
            if (is_point(row, row_text(row, "test")))
                place_of(tests, row_text(row, "test"));
        }
    if (cJSON_GetArraySize(tests))
        fputs("<section><h2>Speed against depth</h2>\n<p>ppN processes a prompt of N tokens, tgN "
              "generates N. Medians of runs; the error bars are half the range between their "
              "quartiles each way.</p>\n<div class=\"panels\">\n",
              stream);
    cJSON_ArrayForEach(test, tests) {
        draw_depths(stream, report, test->valuestring);
    }
    if (cJSON_GetArraySize(tests))
        fputs("</div></section>\n", stream);
    cJSON_Delete(tests);
}
