#include "json.h"

cJSON *json_parse_object(const char *text, size_t length, const char *name, peridot_error *error) {
    const char *end = NULL;
    cJSON *json = length ? cJSON_ParseWithLengthOpts(text, length, &end, 0) : NULL;
    if (!json) {
        size_t at = end && end >= text && end <= text + length ? (size_t)(end - text) : 0;
        fail(error, PERIDOT_ERROR_FORMAT, "%s: not valid JSON (at byte %zu): the file is damaged",
             name, at);
        return NULL;
    }
    for (; end < text + length; end++)
        if (*end != ' ' && *end != '\n' && *end != '\r' && *end != '\t' && *end != '\0')
            break;
    if (end < text + length || !cJSON_IsObject(json)) {
        fail(error, PERIDOT_ERROR_FORMAT, "%s: not a single JSON object: the file is damaged",
             name);
        cJSON_Delete(json);
        return NULL;
    }
    return json;
}
