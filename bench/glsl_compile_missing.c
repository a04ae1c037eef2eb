/* In place of glsl_compile.c, where the build found no glslang. */
#include "glsl_compile.h"

bool glsl_available(void) {
    return false;
}

peridot_result glsl_compile(const struct glsl_text *text, const char *defines, uint32_t **words,
                            size_t *count, peridot_error *error) {
    (void)defines, (void)words, (void)count;
    return fail(
        error, PERIDOT_ERROR_UNSUPPORTED,
        "this peridot-bench was built without glslang and takes SPIR-V alone: compile %s "
        "with glslangValidator -V --target-env vulkan1.3 -Ishaders, or build where glslang-dev "
        "and g++ are installed",
        text->files[0]);
}

bool glsl_validate(const uint32_t *words, size_t count, char *why, size_t size) {
    (void)words, (void)count, (void)why, (void)size;
    return true;
}
