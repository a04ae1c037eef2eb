/* A report's page: its style, what was measured on what, faults, tables. */
#include "bench.h"
#include "html.h"
#include "peridot.h"
#include "report.h"
#include "tuning_results.h"

#include <string.h>

/* Colours are told apart by those who are colour-blind, and every bar and line is named besides;
 * each has a contrast of 3 to 1 or more with the page. */
static const char head[] =
    "<!DOCTYPE html>\n"
    "<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src "
    "'unsafe-inline'; script-src 'unsafe-inline'\">\n"
    "<meta name=\"viewport\" content=\"width=device-width\">\n"
    "<title>Peridot: a report of the shader lab</title>\n"
    "<style>\n"
    ":root{color-scheme:light dark;--page:#fff;--ink:#1c1c1c;--soft:#5a5a5a;--grid:#e2e2e2;"
    "--band:#f4f4f4;--good:#006b3c;--bad:#b3261e;\n"
    "--s0:#0072b2;--s1:#c24e00;--s2:#00795a;--s3:#a6467f;--s4:#7a6a00;--s5:#5e4fa2;--s6:#2a8bb8;"
    "--s7:#6b6b6b}\n"
    "@media (prefers-color-scheme:dark){:root{--page:#16181b;--ink:#e8e8e8;--soft:#a9adb3;"
    "--grid:#33373c;--band:#1f2226;--good:#5fd39a;--bad:#ff8a80;\n"
    "--s0:#56b4e9;--s1:#ff9248;--s2:#2cc295;--s3:#e59ac5;--s4:#f0d442;--s5:#b3a5ff;--s6:#9ad4ff;"
    "--s7:#b9b9b9}}\n"
    "@media print{:root{color-scheme:light;--page:#fff;--ink:#000;--soft:#444;--grid:#ccc;"
    "--band:#fff;--good:#006b3c;--bad:#b3261e;\n"
    "--s0:#0072b2;--s1:#c24e00;--s2:#00795a;--s3:#a6467f;--s4:#7a6a00;--s5:#5e4fa2;--s6:#2a8bb8;"
    "--s7:#6b6b6b}figure,tr{break-inside:avoid}h2,h3{break-after:avoid}"
    "*{print-color-adjust:exact;-webkit-print-color-adjust:exact}}\n"
    "body{background:var(--page);color:var(--ink);font:15px/1.5 system-ui,sans-serif;margin:0 "
    "auto;padding:1rem 1.5rem 3rem;max-width:1480px}\n"
    "h1{font-size:1.6rem;margin:.5rem 0}h2{font-size:1.25rem;margin:2.2rem 0 .3rem}"
    "h3{font-size:1rem;margin:1.2rem 0 .3rem}p{max-width:75ch;margin:.3rem 0 .8rem;"
    "color:var(--soft)}\n"
    ".wide{overflow-x:auto}table{border-collapse:collapse;font-size:13px;"
    "font-variant-numeric:tabular-nums}th,td{padding:.2rem .6rem;text-align:left;vertical-align:"
    "top;border-bottom:1px solid var(--grid)}td.n,th.n{text-align:right}thead th{background:"
    "var(--band);white-space:nowrap}th[role=button]{cursor:pointer}"
    "th[aria-sort=ascending]::after{content:' \\25b2'}"
    "th[aria-sort=descending]::after{content:' \\25bc'}"
    "td{max-width:60ch;overflow-wrap:break-word}thead+tbody "
    "td{white-space:nowrap}td.long{white-space:normal;min-width:40ch}td.differs{font-weight:600}"
    ".good{color:var(--good)}.bad{color:var(--bad);fill:var(--bad)}.faint{color:var(--soft)}\n"
    "figure{margin:0 0 "
    "1rem}figcaption{font-weight:600;margin-bottom:.3rem}svg{max-width:100%;height:auto;font:12px "
    "system-ui,sans-serif;"
    "fill:var(--ink)}.panels{display:flex;flex-wrap:wrap;gap:.5rem 1.5rem;align-items:flex-start}\n"
    ".name{font-size:13px;font-weight:600}.group{font-weight:600;fill:var(--soft)}"
    ".tick,.value{fill:var(--soft);font-size:11px}text.bad{fill:var(--bad)}"
    ".grid{stroke:var(--grid)}.axis{stroke:var(--soft)}.roof{stroke:var(--ink);stroke-width:2}"
    ".dashed{stroke-dasharray:7 4}.error{stroke:var(--ink);stroke-width:1.2}"
    ".line{fill:none;stroke-width:2}.mark{stroke-width:1.5;stroke:var(--page);paint-order:stroke}"
    ".mark.hollow{fill:var(--page)}\n";

static void put_style(FILE *stream) {
    fputs(head, stream);
    for (int i = 0; i < 8; i++)
        fprintf(stream, ".s%d{fill:var(--s%d)}.line.s%d,.hollow.s%d{stroke:var(--s%d)}\n", i, i, i,
                i, i);
    fputs("@media print{.wide{overflow:visible}table{font-size:8px}th,td{padding:.1rem .25rem}"
          "thead th,thead+tbody "
          "td{white-space:normal}td.long{min-width:0}svg[width='460']{width:330px}"
          ".panels{gap:.3rem .8rem}}\n"
          "</style></head><body>\n",
          stream);
}

/* Rows by the column whose heading is chosen; empty cells last. The page is whole without it. */
static const char script[] =
    "<script>\n"
    "for (const th of document.querySelectorAll('thead th')) {\n"
    "  const sort = () => {\n"
    "    const i = th.cellIndex, body = th.closest('table').tBodies[0];\n"
    "    const down = th.ariaSort === 'ascending', sign = down ? -1 : 1;\n"
    "    const key = row => row.cells[i] ? row.cells[i].textContent : '';\n"
    "    for (const other of th.parentNode.cells) other.ariaSort = null;\n"
    "    th.ariaSort = down ? 'descending' : 'ascending';\n"
    "    body.append(...[...body.rows].sort((a, b) => {\n"
    "      const x = key(a), y = key(b);\n"
    "      return !x - !y || sign * (isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y);\n"
    "    }));\n"
    "  };\n"
    "  th.tabIndex = 0;\n"
    "  th.role = 'button';\n"
    "  th.title = 'sort';\n"
    "  th.onclick = sort;\n"
    "  th.onkeydown = e => { if (e.key === 'Enter' || e.key === ' ') e.preventDefault(), sort(); "
    "};\n"
    "}\n"
    "</script>\n";

/* ---- What it was measured on ---- */

/* Whether files that have a key differ in it. */
static bool differs(const struct report *report, const char *key) {
    const cJSON *first = NULL;
    for (uint32_t i = 0; i < report->count; i++) {
        const cJSON *item = cJSON_GetObjectItemCaseSensitive(report->files[i].about, key);
        if (item && first && !cJSON_Compare(first, item, true))
            return true;
        first = first ? first : item;
    }
    return false;
}

static void put_setting(FILE *stream, const struct report *report, const char *key) {
    const char *style = differs(report, key) ? " class=\"differs\"" : "";
    fputs("<tr><th scope=\"row\">", stream);
    html_text(stream, key);
    fputs("</th>", stream);
    for (uint32_t i = 0; i < report->count; i++) {
        fprintf(stream, "<td%s>", style);
        html_item(stream, cJSON_GetObjectItemCaseSensitive(report->files[i].about, key));
        fputs("</td>", stream);
    }
    fputs("</tr>\n", stream);
}

static void put_settings(FILE *stream, const struct report *report) {
    cJSON *seen = cJSON_CreateObject();
    const cJSON *item;
    fputs("<section><h2>What was measured</h2>\n<div class=\"wide\"><table><tbody>\n<tr><th "
          "scope=\"row\">file</th>",
          stream);
    for (uint32_t i = 0; i < report->count; i++) {
        char mark[REPORT_MARK_MAX];
        report_mark(report, i, mark);
        fprintf(stream, "<td>%s", mark);
        html_text(stream, report->files[i].path);
        fputs("</td>", stream);
    }
    fputs("</tr>\n<tr><th scope=\"row\">command</th>", stream);
    for (uint32_t i = 0; i < report->count; i++)
        fprintf(stream, "<td>%s</td>", report->files[i].command);
    fputs("</tr>\n", stream);
    for (uint32_t i = 0; i < report->count; i++)
        cJSON_ArrayForEach(item, report->files[i].about) {
            if (cJSON_HasObjectItem(seen, item->string))
                continue;
            cJSON_AddNullToObject(seen, item->string);
            put_setting(stream, report, item->string);
        }
    fputs("</tbody></table></div></section>\n", stream);
    cJSON_Delete(seen);
}

/* ---- Tables ---- */

static const struct section {
    const char *command, *table, *heading;
    const struct column *columns;
} sections[] = {
    {"kernels", "kernels", "Kernels", kernels_columns},
    {"kernels", "left_out", "Left out: what the device cannot run", kernels_left_out_columns},
    {"model", "start", "Bandwidth, and a model's start", model_start_columns},
    {"model", "speed", "A model's speed", model_speed_columns},
    {"model", "kernels", "Decode steps by kernel, with timestamps", model_kernel_columns},
    {"slices", "slices", "Slices and their budgets", slices_columns},
    {"compile", "kernels", "What compilers make of the kernels", compile_columns},
    {"tune", "kernels", "What tuning chose", tuning_columns},
};

static void put_heading(FILE *stream, const struct report *report, uint32_t index) {
    const struct report_file *file = &report->files[index];
    bool compiled = strcmp(file->command, "compile") == 0 && !*row_text(file->about, "device");
    char mark[REPORT_MARK_MAX];
    report_mark(report, index, mark);
    fprintf(stream, "<h3>%s", mark);
    html_text(stream, row_text(file->about, compiled ? "family" : "device"));
    fputs("</h3>\n", stream);
}

static void put_section(FILE *stream, const struct report *report, const struct section *section) {
    bool begun = false;
    for (uint32_t i = 0; i < report->count; i++) {
        const cJSON *rows = report_rows(&report->files[i], section->command, section->table);
        if (cJSON_GetArraySize(rows) == 0)
            continue;
        if (!begun)
            fprintf(stream, "<section><h2>%s</h2>\n", section->heading);
        begun = true;
        put_heading(stream, report, i);
        html_table(stream, rows, section->columns);
    }
    if (begun)
        fputs("</section>\n", stream);
}

static void put_faults(FILE *stream, const struct report *report) {
    static const struct column columns[] = {
        {"kernel", "kernel", COLUMN_TEXT, 0, NULL},
        {"type", "type", COLUMN_TEXT, 0, NULL},
        {"shape", "shape", COLUMN_TEXT, 0, NULL},
        {"variant", "variant", COLUMN_TEXT, 0, NULL},
        {"fault", "what is wrong", COLUMN_TEXT, 0, NULL},
        {NULL, NULL, COLUMN_TEXT, 0, NULL},
    };
    const cJSON *row;
    for (uint32_t i = 0; i < report->count; i++) {
        cJSON *faults = cJSON_CreateArray();
        cJSON_ArrayForEach(row, report_rows(&report->files[i], "kernels", "kernels")) {
            if (*row_text(row, "fault"))
                cJSON_AddItemToArray(faults, cJSON_Duplicate(row, true));
        }
        if (cJSON_GetArraySize(faults)) {
            fputs("<section><h2 class=\"bad\">Kernels that are wrong</h2>\n", stream);
            put_heading(stream, report, i);
            html_table(stream, faults, columns);
            fputs("</section>\n", stream);
        }
        cJSON_Delete(faults);
    }
}

/* ---- The page ---- */

static const struct bar_plot bar_plots[] = {
    {"kernels",
     "kernels",
     "Variants side by side",
     "Medians of runs; the error bars are half the range between their quartiles each way. Shorter "
     "is better; * is the variant that sessions use.",
     {"kernel", "shape"},
     {"type"},
     {"variant"},
     "microseconds",
     "µs a dispatch"},
    {"model",
     "kernels",
     "Where a decode step's time goes",
     "With timestamps around every dispatch, each waiting for the one before it.",
     {"depth"},
     {"kernel", "type"},
     {"variant"},
     "microseconds",
     "µs a step"},
    {"compile",
     "kernels",
     "Cycles by the compiler's estimate",
     "Of one subgroup, from start to end; * is the variant that sessions use.",
     {"kernel", "shape"},
     {"type"},
     {"family", "variant"},
     "cycles",
     "cycles"},
};

void report_write_page(FILE *stream, const struct report *report) {
    put_style(stream);
    fprintf(stream,
            "<h1>Peridot: a report of the shader lab</h1>\n<p>Made by peridot-bench %s "
            "from %u file%s of results.</p>\n",
            peridot_version(), report->count, report->count > 1 ? "s" : "");
    put_faults(stream, report);
    put_settings(stream, report);
    report_plot_rooflines(stream, report);
    report_plot_depths(stream, report);
    for (size_t i = 0; i < sizeof bar_plots / sizeof *bar_plots; i++)
        report_plot_bars(stream, report, &bar_plots[i]);
    for (size_t i = 0; i < sizeof sections / sizeof *sections; i++)
        put_section(stream, report, &sections[i]);
    fputs(script, stream);
    fputs("</body></html>\n", stream);
}
