#include "html.h"
#include "utf8.h"

#include <limits.h>
#include <math.h>
#include <string.h>

/* ---- Text ---- */

static const char *entity_of(char c) {
    switch (c) {
    case '&':
        return "&amp;";
    case '<':
        return "&lt;";
    case '>':
        return "&gt;";
    case '"':
        return "&quot;";
    case '\'':
        return "&#39;";
    default:
        return NULL;
    }
}

/* U+FFFE and U+FFFF are characters of UTF-8 that XML forbids, as are most control characters. */
static bool is_forbidden(const char *text, size_t length) {
    unsigned char first = (unsigned char)*text;
    if (length == 1)
        return (first < 32 && first != '\t' && first != '\n' && first != '\r') || first == 127;
    return length == 3 && memcmp(text, "\xef\xbf", 2) == 0 && (unsigned char)text[2] >= 0xbe;
}

/* Writes one character and returns its length. */
static size_t put_character(FILE *stream, const char *text, size_t left) {
    size_t length = utf8_sequence(text, left);
    const char *entity = entity_of(*text);
    if (length == 0 || is_forbidden(text, length))
        fputs("\xef\xbf\xbd", stream);
    else if (entity)
        fputs(entity, stream);
    else
        fwrite(text, 1, length, stream);
    return length ? length : 1;
}

static int count_characters(const char *text) {
    size_t left = strlen(text);
    int count = 0;
    for (size_t length; left; text += length, left -= length) {
        length = utf8_sequence(text, left);
        length = length ? length : 1;
        count++;
    }
    return count;
}

void html_text_cut(FILE *stream, const char *text, int most) {
    size_t left = strlen(text);
    bool cut = count_characters(text) > most;
    for (int i = 0; left && i < most - cut; i++) {
        size_t length = put_character(stream, text, left);
        text += length;
        left -= length;
    }
    if (cut)
        fputs("…", stream);
}

void html_text(FILE *stream, const char *text) {
    html_text_cut(stream, text, INT_MAX);
}

void html_item(FILE *stream, const cJSON *item) {
    if (cJSON_IsNumber(item))
        fprintf(stream, fmod(item->valuedouble, 1) != 0 ? "%.6g" : "%.15g", item->valuedouble);
    else if (cJSON_IsString(item))
        html_text(stream, item->valuestring);
}

/* ---- Tables ---- */

#define COLUMNS_MAX 64
#define WRAPPED_FROM 48 /* bytes of text */

static bool is_shown(const struct column *column, const cJSON *rows) {
    const cJSON *row;
    if (column->kind == COLUMN_SAMPLES)
        return false;
    cJSON_ArrayForEach(row, rows) {
        if (isfinite(row_value(row, column->key)) || *row_text(row, column->key))
            return true;
    }
    return false;
}

/* Columns that a terminal shows without a title are named after their key here. */
static void put_heading(FILE *stream, const struct column *column) {
    bool titled = *column->title;
    fprintf(stream, "<th scope=\"col\"%s>", column->kind == COLUMN_NUMBER ? " class=\"n\"" : "");
    for (const char *at = titled ? column->title : column->key; *at; at++)
        fputc(!titled && *at == '_' ? ' ' : *at, stream);
    fputs("</th>", stream);
}

static void put_cell(FILE *stream, const struct column *column, const cJSON *row) {
    static const char *const tones[] = {"", "good", "bad", "faint"};
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(row, column->key);
    const char *tone = tones[column->tone ? column->tone(row, column->key) : TONE_PLAIN];
    bool number = cJSON_IsNumber(item);
    bool wraps = strlen(row_text(row, column->key)) > WRAPPED_FROM;
    fprintf(stream, "<td class=\"%s%s%s\">", number ? "n " : "", wraps ? "long " : "", tone);
    if (number && column->kind == COLUMN_NUMBER)
        fprintf(stream, "%.*f", column->decimals, item->valuedouble);
    else
        html_item(stream, item);
    fputs("</td>", stream);
}

void html_table(FILE *stream, const cJSON *rows, const struct column *columns) {
    const struct column *shown[COLUMNS_MAX];
    uint32_t count = 0;
    const cJSON *row;
    for (const struct column *column = columns; column->key && count < COLUMNS_MAX; column++)
        if (is_shown(column, rows))
            shown[count++] = column;
    if (count == 0)
        return;
    fputs("<div class=\"wide\"><table><thead><tr>", stream);
    for (uint32_t i = 0; i < count; i++)
        put_heading(stream, shown[i]);
    fputs("</tr></thead><tbody>\n", stream);
    cJSON_ArrayForEach(row, rows) {
        fputs("<tr>", stream);
        for (uint32_t i = 0; i < count; i++)
            put_cell(stream, shown[i], row);
        fputs("</tr>\n", stream);
    }
    fputs("</tbody></table></div>\n", stream);
}
