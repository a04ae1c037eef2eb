#include "shader_text.h"
#include "shader_texts.h" /* generated: SHADER_TEXTS */

#include <string.h>

static const struct {
    const char *name;
    const uint32_t *begin, *end;
} texts[] = {SHADER_TEXTS};

const char *shader_text(const char *name, size_t *length) {
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (strcmp(texts[i].name, name) == 0) {
            *length = (size_t)((const char *)texts[i].end - (const char *)texts[i].begin);
            return (const char *)texts[i].begin;
        }
    return NULL;
}
