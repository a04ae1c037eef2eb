#include "gguf_file.h"

#include <stdlib.h>

#define FIRST_BYTES ((uint64_t)8 << 20) /* Gemma's vocabulary makes 6 MB of a header */

/* Reads on to the first `held` bytes, of which `before` are there. */
static peridot_result read_on(const struct open_file *file, const char *name, uint64_t before,
                              uint64_t held, uint8_t **bytes, peridot_error *error) {
    uint8_t *grown = held < SIZE_MAX ? realloc(*bytes, (size_t)held + 1) : NULL;
    if (!grown)
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory for the header of %s", name);
    *bytes = grown;
    return platform_read_at(file, name, before, grown + before, (size_t)(held - before), error);
}

peridot_result gguf_file_read(const struct open_file *file, const char *name, struct gguf *result,
                              uint8_t **bytes, peridot_error *error) {
    uint64_t held = 0;
    bool more = true;
    peridot_result outcome = PERIDOT_OK;
    *bytes = NULL;
    *result = (struct gguf){0};
    for (uint64_t next = FIRST_BYTES; more; next *= 4) {
        next = next < file->size ? next : file->size;
        outcome = read_on(file, name, held, next, bytes, error);
        if (outcome)
            break;
        held = next;
        outcome =
            gguf_parse_beginning(*bytes, (size_t)held, file->size, name, result, &more, error);
    }
    return outcome;
}
