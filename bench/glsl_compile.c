#include "glsl_compile.h"

#include <glslang/Include/glslang_c_interface.h>
#include <glslang/Public/resource_limits_c.h>
#include <spirv-tools/libspirv.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool glsl_available(void) {
    return true;
}

static glslang_input_t input_of(const struct glsl_text *text) {
    return (glslang_input_t){
        .language = GLSLANG_SOURCE_GLSL,
        .stage = GLSLANG_STAGE_COMPUTE,
        .client = GLSLANG_CLIENT_VULKAN,
        .client_version = GLSLANG_TARGET_VULKAN_1_3,
        .target_language = GLSLANG_TARGET_SPV,
        .target_language_version = GLSLANG_TARGET_SPV_1_6,
        .code = text->text,
        .default_version = 460,
        .default_profile = GLSLANG_NO_PROFILE,
        .messages = (glslang_messages_t)(GLSLANG_MSG_SPV_RULES_BIT | GLSLANG_MSG_VULKAN_RULES_BIT),
        .resource = glslang_default_resource(),
    };
}

static peridot_result refuse(const struct glsl_text *text, const char *log, peridot_error *error) {
    char words[900];
    glsl_text_explain(text, log ? log : "", words, sizeof words);
    return fail(error, PERIDOT_ERROR_FORMAT, "%s", words);
}

static peridot_result take_words(glslang_program_t *program, uint32_t **words, size_t *count,
                                 peridot_error *error) {
    glslang_program_SPIRV_generate(program, GLSLANG_STAGE_COMPUTE);
    *count = glslang_program_SPIRV_get_size(program);
    *words = malloc((*count + 1) * sizeof **words);
    if (!*words)
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory for a variant's SPIR-V");
    memcpy(*words, glslang_program_SPIRV_get_ptr(program), *count * sizeof **words);
    return PERIDOT_OK;
}

peridot_result glsl_compile(const struct glsl_text *text, const char *defines, uint32_t **words,
                            size_t *count, peridot_error *error) {
    *words = NULL;
    glslang_input_t input = input_of(text);
    int messages = (int)input.messages;
    glslang_initialize_process();
    glslang_shader_t *shader = glslang_shader_create(&input);
    glslang_program_t *program = glslang_program_create();
    peridot_result result;
    if (!shader || !program) {
        result = fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory for the compiler");
    } else {
        glslang_shader_set_preamble(shader, defines);
        if (!glslang_shader_preprocess(shader, &input) || !glslang_shader_parse(shader, &input)) {
            result = refuse(text, glslang_shader_get_info_log(shader), error);
        } else {
            glslang_program_add_shader(program, shader);
            result = glslang_program_link(program, messages)
                         ? take_words(program, words, count, error)
                         : refuse(text, glslang_program_get_info_log(program), error);
        }
    }
    if (program)
        glslang_program_delete(program);
    if (shader)
        glslang_shader_delete(shader);
    glslang_finalize_process();
    return result;
}

bool glsl_validate(const uint32_t *words, size_t count, char *why, size_t size) {
    spv_context context = spvContextCreate(SPV_ENV_VULKAN_1_3);
    spv_const_binary_t binary = {words, count};
    spv_diagnostic diagnostic = NULL;
    bool valid = context && spvValidate(context, &binary, &diagnostic) == SPV_SUCCESS;
    if (!valid)
        snprintf(why, size, "%s", diagnostic ? diagnostic->error : "out of memory for the check");
    spvDiagnosticDestroy(diagnostic);
    spvContextDestroy(context);
    return valid;
}
