#include "kernel_interface.h"
#include "abi.h"
#include "kernels/kernel_checks.h"
#include "shader_text.h"
#include "user_variants.h"

#include <stdio.h>
#include <string.h>

#define KERNEL(name, constants, operands, typed) #constants,
#define VARIANT(kernel, variant, file, defines, needs, workgroup, rows, columns)
static const char *const constants_names[KERNEL_COUNT] = {
#include "kernels.def"
};
#undef KERNEL
#undef VARIANT

/* The comment that a shader's text begins with. */
static void print_head(const char *file) {
    size_t length = 0;
    const char *text = shader_text(file, &length);
    const char *end = text;
    while (end && end + 1 < text + length && !(end[0] == '*' && end[1] == '/'))
        end++;
    while (end && end > text && end[-1] == ' ')
        end--;
    printf("\nWhat it does (the beginning of shaders/%s)\n", file);
    for (const char *line = text + 3; text && line < end;) {
        const char *stop = memchr(line, '\n', (size_t)(end - line));
        size_t size = (size_t)((stop ? stop : end) - line);
        const char *from = line;
        if (size >= 2 && from[0] == ' ' && from[1] == '*')
            from += size > 2 ? 3 : 2;
        printf("  %.*s\n", (int)(size - (size_t)(from - line)), from);
        line += size + 1;
    }
}

/* The next word of a declaration, a name or one character; its length. */
static size_t read_word(const char *at, const char *end, const char **word) {
    while (at < end && strchr(" \t\n", *at))
        at++;
    *word = at;
    while (at < end && !strchr(" \t\n();", *at))
        at++;
    return (size_t)(at - *word);
}

/* One member, "U32 stride;" or "ADDRESS(Quads) weights;", at its offset; its size. */
static unsigned print_member(const char *line, const char *end, unsigned offset) {
    const char *type, *name, *stop = memchr(line, ';', (size_t)(end - line));
    size_t type_length = read_word(line, end, &type);
    bool address = type_length == 7 && memcmp(type, "ADDRESS", 7) == 0;
    if (!stop || !type_length || type[0] == '/' || type[0] == '*')
        return 0;
    if (address) { /* the type of buffer is in its brackets */
        type += 8;
        type_length = strcspn(type, ")");
    }
    size_t name_length = read_word(type + type_length + address, stop, &name);
    const char *note = stop + 1 + strspn(stop + 1, " ");
    const char *glsl = memcmp(type, "U32", 3) == 0   ? "uint"
                       : memcmp(type, "F32", 3) == 0 ? "float"
                                                     : NULL;
    printf("  %4u  %-11.*s ", offset, glsl ? (int)strlen(glsl) : (int)type_length,
           glsl ? glsl : type);
    if (*note == '\n')
        printf("%.*s\n", (int)name_length, name);
    else
        printf("%-13.*s %.*s\n", (int)name_length, name, (int)strcspn(note, "\n"), note);
    return address ? 8 : 4;
}

/* The push constants, out of abi.h; their size, as far as could be read. */
static unsigned print_constants(const char *name) {
    char head[80];
    size_t length = 0;
    const char *text = shader_text("abi.h", &length), *end = text + length, *line = text;
    int size = snprintf(head, sizeof head, "struct %s {", name);
    while (line && line + size < end && memcmp(line, head, (size_t)size) != 0) {
        line = memchr(line, '\n', (size_t)(end - line));
        line += line != NULL;
    }
    unsigned offset = 0;
    bool comment = false;
    while (line && line < end && *line != '}') {
        const char *stop = memchr(line, '\n', (size_t)(end - line));
        const char *from = line + strspn(line, " ");
        if (!stop)
            break;
        if (*from != '/' && !comment && *line == ' ')
            offset += print_member(from, stop, offset);
        else if (*line == ' ')
            printf("%*s%.*s\n",
                   *from == '*'   ? 35
                   : *from == '/' ? 8
                                  : 37,
                   "", (int)(stop - from), from);
        for (const char *c = line; c + 1 < stop; c++)
            comment = c[0] == '/' && c[1] == '*'   ? true
                      : c[0] == '*' && c[1] == '/' ? false
                                                   : comment;
        line = stop + 1;
    }
    return offset;
}

static void print_operands(const struct kernel_info *info) {
    static const char *const words[] = {
        [ACCESS_READ] = "read", [ACCESS_WRITE] = "written", [ACCESS_BOTH] = "read and written"};
    printf("\nOperands (nothing else may be touched, nor what is read be written)\n");
    for (uint32_t i = 0; i < info->operand_count; i++)
        printf("  %-12.*s %s\n", (int)strcspn(info->operand_names[i], ":"), info->operand_names[i],
               words[info->operand_access[i]]);
}

static const char *check_file(enum kernel kernel) {
    kernel_check *check = kernel_check_of(kernel);
    return check == check_projection ? "check_projections.c"
           : check == check_kv_store ? "check_kv_store.c"
           : check == check_sampler  ? "check_sampler.c"
           : check == check_attention_decode || check == check_attention_join ||
                   check == check_attention_prefill
               ? "check_attention.c"
               : "check_rows.c";
}

static void print_specs(const struct kernel_variant *ours) {
    static const char *const what[] = {
        [SPEC_WORKGROUP] = "SPEC_WORKGROUP  invocations, --workgroup",
        [SPEC_ROWS] = "SPEC_ROWS       weight rows that a workgroup makes, --rows",
        [SPEC_COLUMNS] = "SPEC_COLUMNS    tokens that a workgroup handles, --columns",
        [SPEC_HEAD_DIM] = "SPEC_HEAD_DIM   head_dim padded, the model's",
        [SPEC_GROUP] = "SPEC_GROUP      query heads to a KV head, the model's",
        [SPEC_KV_TYPE] = "SPEC_KV_TYPE    KV_F16, KV_F32 or KV_Q8, --kv",
        [SPEC_BATCH] = "SPEC_BATCH      1: a row is another session's (the caller's)"};
    const uint32_t own[] = {ours->workgroup, ours->rows, ours->columns};
    printf("\nSpecialisation constants, by id\n");
    for (int i = 0; i < SPEC_COUNT; i++) {
        printf("  %2d  %s", i, what[i]);
        if (i <= SPEC_COLUMNS && own[i])
            printf(" (%u unless said)", own[i]);
        else if (i <= SPEC_COLUMNS)
            printf(" (the caller's)");
        putchar('\n');
    }
    printf("  16 and on: a variant's own, --spec\n");
}

static void print_variants(const struct kernel_info *info) {
    const struct kernel_variant *variants = kernel_variants(NULL) + info->first_variant;
    printf("\nVariants in the table\n");
    for (uint32_t i = 0; i < info->variant_count; i++) {
        const char *defines = user_variants_defines(&variants[i]);
        printf("  %-12s shaders/%s%s%s\n", variants[i].name, variants[i].file, *defines ? " " : "",
               defines);
    }
}

int kernel_interface_print(const char *name) {
    enum kernel kernel;
    if (!user_variants_kernel(name, &kernel)) {
        fprintf(stderr, "peridot-bench: --interface takes one of");
        for (int i = 0; i < KERNEL_COUNT; i++)
            fprintf(stderr, " %s", kernel_info((enum kernel)i).name);
        fprintf(stderr, ", not \"%s\"\n", name);
        return 1;
    }
    struct kernel_info info = kernel_info(kernel);
    const struct kernel_variant *ours = kernel_variants(NULL) + info.first_variant;
    printf("%s: %s\n", info.name,
           info.typed ? "compiled once for each type of weights" : "compiled once");
    print_head(ours->file);
    print_operands(&info);
    if (info.typed)
        printf(
            "  a row of weights is laid out as host/device_rows.h says; weights.glsl reads it\n");
    printf("\nPush constants: struct %s, %u bytes (shaders/abi.h)\n", constants_names[kernel],
           info.constants_size);
    print_constants(constants_names[kernel]);
    print_specs(ours);
    print_variants(&info);
    if (info.typed || *user_variants_defines(ours))
        printf("\nDefined for every variant: %s%s\n", user_variants_defines(ours),
               info.typed ? " -DWEIGHT_<TYPE> -DLOW_BITS=.. -DHIGH_BITS=.. -DHEADER_BYTES=.. "
                            "-DSCALE_BYTES=.. of the weights' type"
                          : "");
    printf("\nChecked by tests/kernels/%s against tests/reference, in double precision\n",
           check_file(kernel));
    return 0;
}
