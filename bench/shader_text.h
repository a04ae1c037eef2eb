/* The texts of shaders/, as they were when the lab was built. */
#ifndef BENCH_SHADER_TEXT_H
#define BENCH_SHADER_TEXT_H

#include <stddef.h>

/* A file's text by its name ("common.glsl"), not NUL-terminated; NULL: there is none. */
const char *shader_text(const char *name, size_t *length);

#endif
