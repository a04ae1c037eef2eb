/* One JSON string, which may hold NUL characters: cJSON's strings end there. */
#ifndef CLI_JSON_STRING_H
#define CLI_JSON_STRING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* Reads a JSON string that is all of `text` but white space, in place: the result begins at text
 * and is
 * `*length` bytes long. A lone surrogate becomes U+FFFD. False: not one JSON string. */
bool json_string_read(char *text, size_t *length);
void json_string_write(FILE *file, const char *text, size_t length);

#endif
