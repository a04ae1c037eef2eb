/* cJSON with a bound on what it is given. */
#ifndef HOST_JSON_H
#define HOST_JSON_H

#include "error.h"

#include <cjson/cJSON.h>
#include <stddef.h>

/* Parses exactly `length` bytes as one JSON object; NULL with a FORMAT error naming `name`
 * otherwise. The caller frees it with cJSON_Delete. Nesting is bounded by cJSON itself
 * (CJSON_NESTING_LIMIT). */
cJSON *json_parse_object(const char *text, size_t length, const char *name, peridot_error *error);

#endif
