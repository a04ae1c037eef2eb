/* GLSL to SPIR-V while the lab runs, by glslang, where the build found it. */
#ifndef BENCH_GLSL_COMPILE_H
#define BENCH_GLSL_COMPILE_H

#include "glsl_text.h"

#include <stdbool.h>
#include <stdint.h>

/* Compiles a compute shader for Vulkan 1.3 as CMake compiles ours; `defines` is text that comes
 * before it: "#define ROWS 4\n". *words [*count] is the caller's to free.
 * Errors: FORMAT (what the compiler says, with file and line), UNSUPPORTED (a build without
 * glslang), HOST_MEMORY. */
peridot_result glsl_compile(const struct glsl_text *text, const char *defines, uint32_t **words,
                            size_t *count, peridot_error *error);
/* What SPIRV-Tools has against a module for Vulkan 1.3, in words of its own; true where it has
 * nothing, and in a build without it. */
bool glsl_validate(const uint32_t *words, size_t count, char *why, size_t size);
bool glsl_available(void);

#endif
