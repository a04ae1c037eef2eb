/* GLSL with its #include lines replaced by what they name, and #line lines that keep count, as any
 * version of glslang takes it. */
#ifndef BENCH_GLSL_TEXT_H
#define BENCH_GLSL_TEXT_H

#include "error.h"

#include <stddef.h>

struct glsl_text {
    char *text;   /* stb_ds, NUL-terminated */
    char **files; /* stb_ds: their paths, the source first: the numbers that #line lines give */
};

/* Reads a file. An include is looked for beside the file that has it, then in `folder` (NULL:
 * none), then among the texts of shaders/ that the lab has inside. Errors: FILE, FORMAT (no text;
 * includes without end). */
peridot_result glsl_text_read(const char *path, const char *folder, struct glsl_text *text,
                              peridot_error *error);
void glsl_text_free(struct glsl_text *text);
/* A compiler's message "ERROR: FILE:LINE: what" in the form "path:line: what", its lines joined by
 * "; ", as many as fit. */
void glsl_text_explain(const struct glsl_text *text, const char *log, char *out, size_t size);

#endif
