/* Pieces of an HTML page. Whatever comes from a file goes through html_text. */
#ifndef BENCH_HTML_H
#define BENCH_HTML_H

#include "results.h"

/* Text, in elements and quoted attributes of HTML and SVG: markup is escaped; what is no character
 * of UTF-8, or none that XML allows, becomes U+FFFD. */
void html_text(FILE *stream, const char *text);
/* At most `most` characters of it, the last of which is an ellipsis where there are more. */
void html_text_cut(FILE *stream, const char *text, int most);
/* A text, or a number with six digits that count or whole; nothing for other items, or NULL. */
void html_item(FILE *stream, const cJSON *item);
/* A table of rows by their columns, details too; columns of which no row has anything are left out,
 * and nothing is written of no rows. */
void html_table(FILE *stream, const cJSON *rows, const struct column *columns);

#endif
