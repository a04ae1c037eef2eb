#include "user_variants.h"
#include "abi.h"
#include "glsl_compile.h"
#include "options.h"
#include "platform.h"
#include "spirv_module.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <stb/stb_ds.h>

#define MODULE_BYTES_MAX (16u << 20)

/* The defines of our variants, by their place in the kernel table. */
#define KERNEL(name, constants, operands, typed)
#define VARIANT(kernel, variant, file, defines, needs, workgroup, rows, columns) defines,
static const char *const variant_defines[] = {
#include "kernels.def"
};
#undef KERNEL
#undef VARIANT

/* What a typed shader is told of its type, as shaders/CMakeLists.txt has it. */
#define WEIGHT(name, NAME, block, block_bytes, gguf, low, high, header, scale)                     \
    "#define WEIGHT_" #NAME "\n#define LOW_BITS " #low "\n#define HIGH_BITS " #high                \
    "\n#define HEADER_BYTES " #header "\n#define SCALE_BYTES " #scale "\n",
static const char *const type_defines[WEIGHT_TYPE_COUNT] = {
#include "weight_types.def"
};
#undef WEIGHT

/* ---- The command line ---- */

static bool complain_of(const char *option, const char *value, const char *wants) {
    fprintf(stderr, "peridot-bench: %s takes %s, not \"%s\"\n", option, wants, value);
    return false;
}

static bool read_whole(const char *text, char stop, uint32_t most, uint32_t *value,
                       const char **end) {
    char *after;
    errno = 0;
    unsigned long long number = strtoull(text, &after, 0);
    if (errno || after == text || *text < '0' || *text > '9' || number > most || *after != stop)
        return false;
    *value = (uint32_t)number;
    *end = after + (stop != 0);
    return true;
}

/* `count` of `most` things are there already. */
static bool full(const char *option, uint32_t count, uint32_t most) {
    if (count >= most)
        fprintf(stderr, "peridot-bench: %s can be given %u times at most\n", option, most);
    return count >= most;
}

static bool take_variant(struct user_variants *variants, const char *path) {
    if (full("--variant", variants->count, USER_VARIANTS_MAX))
        return false;
    variants->at[variants->count++] =
        (struct user_variant){.path = path, .workgroup = -1, .rows = -1, .columns = -1};
    return true;
}

static bool take_define(struct user_variant *own, const char *text) {
    static const char letters[] = "_abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    size_t length = strspn(text, letters);
    if (!length || (*text >= '0' && *text <= '9') || (text[length] && text[length] != '=') ||
        strpbrk(text, "\n\r\\"))
        return complain_of("-D", text, "NAME or NAME=VALUE");
    if (full("-D", own->define_count, USER_DEFINES_MAX))
        return false;
    own->defines[own->define_count++] = text;
    return true;
}

static bool take_spec(struct user_variant *own, const char *text) {
    uint32_t id, value;
    const char *at;
    if (!read_whole(text, '=', UINT32_MAX, &id, &at) ||
        !read_whole(at, '\0', UINT32_MAX, &value, &at))
        return complain_of("--spec", text, "ID=VALUE in whole numbers, such as 16=64");
    if (id == SPEC_WORKGROUP)
        own->workgroup = value;
    else if (id == SPEC_ROWS)
        own->rows = value;
    else if (id == SPEC_COLUMNS)
        own->columns = value;
    else if (id < SPEC_COUNT)
        return complain_of("--spec", text,
                           "0 (workgroup), 1 (rows), 2 (columns) or a constant of the variant's "
                           "own; 3 to 5 follow from the model");
    else if (full("--spec", own->spec_count, USER_SPECS_MAX))
        return false;
    else {
        own->specs[own->spec_count].id = id;
        own->specs[own->spec_count++].value = value;
    }
    return true;
}

static bool read_needs(const char *list, uint32_t *needs) {
    static const struct {
        const char *name;
        uint32_t needs;
    } words[] = {{"subgroup_arithmetic", NEEDS_SUBGROUP_ARITHMETIC},
                 {"subgroup_shuffle", NEEDS_SUBGROUP_ARITHMETIC | NEEDS_SUBGROUP_SHUFFLE},
                 {"packed_dot", NEEDS_PACKED_DOT}};
    while (*list && *list != '\n' && *list != '\r') {
        size_t length = strcspn(list, ", \t\r\n"), i = 0;
        while (i < 3 &&
               !(strlen(words[i].name) == length && memcmp(words[i].name, list, length) == 0))
            i++;
        if (length && i == 3)
            return false;
        if (length)
            *needs |= words[i].needs;
        list += length + strspn(list + length, ", \t");
    }
    return true;
}

static const char needs_words[] =
    "subgroup_arithmetic, subgroup_shuffle or packed_dot, with commas";

static bool take_number(const char *option, const char *text, int64_t *place) {
    uint32_t value;
    const char *end;
    if (!read_whole(text, '\0', 65536, &value, &end))
        return complain_of(option, text, "a whole number from 0 to 65536");
    *place = value;
    return true;
}

static bool take(struct user_variants *variants, const char *option, const char *value) {
    if (strcmp(option, "--variant") == 0)
        return take_variant(variants, value);
    if (strcmp(option, "--include") == 0) {
        variants->folder = value;
        return platform_is_directory(value) || complain_of(option, value, "a folder");
    }
    if (!variants->count) {
        fprintf(stderr, "peridot-bench: %s is for the --variant before it, and there is none\n",
                option);
        return false;
    }
    struct user_variant *own = &variants->at[variants->count - 1];
    if (strcmp(option, "-D") == 0)
        return take_define(own, value);
    if (strcmp(option, "--spec") == 0)
        return take_spec(own, value);
    if (strcmp(option, "--needs") == 0)
        return read_needs(value, &own->needs) || complain_of(option, value, needs_words);
    return take_number(option, value,
                       strcmp(option, "--workgroup") == 0 ? &own->workgroup
                       : strcmp(option, "--rows") == 0    ? &own->rows
                                                          : &own->columns);
}

bool user_variants_parse(struct user_variants *variants, int *argc, char **argv) {
    static const char *const options[] = {"--variant", "--include",   "-D",     "--spec",
                                          "--needs",   "--workgroup", "--rows", "--columns"};
    int kept = 0;
    for (int i = 0; i < *argc; i++) {
        size_t which = 0;
        bool joined = strncmp(argv[i], "-D", 2) == 0 && argv[i][2];
        while (which < 8 && strcmp(argv[i], options[which]) != 0)
            which++;
        if (which == 8 && !joined) {
            argv[kept++] = argv[i];
            continue;
        }
        if (!joined && i + 1 == *argc) {
            fprintf(stderr, "peridot-bench: %s needs a value: see peridot-bench kernels --help\n",
                    argv[i]);
            return false;
        }
        const char *value = joined ? argv[i] + 2 : argv[i + 1];
        if (!take(variants, joined ? "-D" : argv[i], value))
            return false;
        i += !joined;
    }
    *argc = kept;
    return true;
}

bool user_variants_kernel(const char *name, enum kernel *kernel) {
    size_t length = name ? strcspn(name, "/") : 0;
    for (int i = 0; i < KERNEL_COUNT && name; i++) {
        const char *own = kernel_info((enum kernel)i).name;
        if (strlen(own) == length && memcmp(own, name, length) == 0) {
            *kernel = (enum kernel)i;
            return true;
        }
    }
    return false;
}

/* ---- Files ---- */

static PRINTF_LIKE(2, 3) void add_to_name(struct user_variant *own, const char *format, ...) {
    size_t length = strlen(own->name);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(own->name + length, sizeof own->name - length, format, arguments);
    va_end(arguments);
}

/* The file's name, with what tells it from others of that name; nothing that steers a terminal. */
static void name_variant(struct user_variant *own) {
    static const char *const words[] = {"workgroup", "rows", "columns"};
    const int64_t constants[] = {own->workgroup, own->rows, own->columns};
    const char *slash = strrchr(own->path, '/');
    add_to_name(own, "%.40s", slash ? slash + 1 : own->path);
    for (uint32_t i = 0; i < own->define_count; i++)
        add_to_name(own, " %s", own->defines[i]);
    for (uint32_t i = 0; i < 3; i++)
        if (constants[i] >= 0)
            add_to_name(own, " %s=%u", words[i], (uint32_t)constants[i]);
    for (uint32_t i = 0; i < own->spec_count; i++)
        add_to_name(own, " %u=%u", own->specs[i].id, own->specs[i].value);
    for (char *c = own->name; *c; c++)
        if ((unsigned char)*c < 32 || *c == 127)
            *c = '?';
}

static void append(char **text, const char *words) {
    memcpy(arraddnptr(*text, strlen(words)), words, strlen(words));
}

static void append_define(char **text, const char *word, size_t length) {
    const char *value = memchr(word, '=', length);
    size_t name = value ? (size_t)(value - word) : length;
    append(text, "#define ");
    memcpy(arraddnptr(*text, name), word, name);
    append(text, " ");
    if (value)
        memcpy(arraddnptr(*text, length - name - 1), value + 1, length - name - 1);
    append(text, "\n");
}

const char *user_variants_defines(const struct kernel_variant *variant) {
    return variant_defines[variant - kernel_variants(NULL)];
}

/* What our first variant of the kernel is told, the type, and what the user says; stb_ds. */
static char *defines_of(const struct user_variant *own, enum kernel kernel, uint32_t type) {
    struct kernel_info info = kernel_info(kernel);
    const char *at = user_variants_defines(kernel_variants(NULL) + info.first_variant);
    char *text = NULL;
    while (*at) {
        size_t length = strcspn(at, " ");
        append_define(&text, at + 2, length - 2); /* -DNAME */
        at += length + strspn(at + length, " ");
    }
    if (info.typed)
        append(&text, type_defines[type]);
    for (uint32_t i = 0; i < own->define_count; i++)
        append_define(&text, own->defines[i], strlen(own->defines[i]));
    arrput(text, '\0');
    return text;
}

static void keep_module(struct user_variant *own, uint32_t type, const uint32_t *words,
                        size_t count) {
    own->variant.module[type].words = words;
    own->variant.module[type].end = words + count;
}

static peridot_result finish_module(struct user_variant *own, uint32_t type, uint32_t *words,
                                    size_t count, peridot_error *error) {
    char why[512];
    keep_module(own, type, words, count);
    if (!spirv_check(words, count, why, sizeof why) ||
        !glsl_validate(words, count, why, sizeof why))
        return fail(error, PERIDOT_ERROR_FORMAT, "%s is no SPIR-V that a device may be given: %s",
                    own->path, why);
    for (uint32_t i = 0; i < own->spec_count; i++)
        if (!spirv_specialise(words, count, own->specs[i].id, own->specs[i].value))
            return fail(error, PERIDOT_ERROR_ARGUMENT,
                        "%s has no specialisation constant %u to take --spec %u=%u", own->path,
                        own->specs[i].id, own->specs[i].id, own->specs[i].value);
    return PERIDOT_OK;
}

static peridot_result compile(struct user_variant *own, const struct glsl_text *text, uint32_t type,
                              peridot_error *error) {
    uint32_t *words;
    size_t count;
    char *defines = defines_of(own, own->variant.kernel, type);
    peridot_result result = glsl_compile(text, defines, &words, &count, error);
    arrfree(defines);
    return result ? result : finish_module(own, type, words, count, error);
}

static peridot_result load(struct user_variant *own, const struct file_bytes *file, uint32_t type,
                           peridot_error *error) {
    if (!file->size || file->size % 4 || file->size > MODULE_BYTES_MAX)
        return fail(error, PERIDOT_ERROR_FORMAT,
                    "%s is no SPIR-V: it has %zu bytes, which are no whole words, or too many",
                    own->path, file->size);
    uint32_t *words = malloc(file->size);
    if (!words)
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory for %s", own->path);
    memcpy(words, file->data, file->size);
    return finish_module(own, type, words, file->size / 4, error);
}

/* ---- Making ---- */

/* The types that a kernel's variants are wanted in, [WEIGHT_TYPE_COUNT]; how many. */
static uint32_t find_types(enum kernel kernel, const char *types, uint32_t *found) {
    struct kernel_info info = kernel_info(kernel);
    const struct kernel_variant *ours = kernel_variants(NULL) + info.first_variant;
    uint32_t count = 0;
    for (uint32_t type = 0; type < (info.typed ? WEIGHT_TYPE_COUNT : 1u); type++)
        if (ours->module[type].words &&
            (!info.typed || pattern_matches(types, weight_type_info(type)->name, false)))
            found[count++] = type;
    return count;
}

/* `// needs: subgroup_arithmetic` anywhere in the source */
static bool read_comments(struct user_variant *own, const struct glsl_text *text) {
    const char *at = text->text;
    while ((at = strstr(at, "// needs:")) != NULL) {
        at += strlen("// needs:");
        if (!read_needs(at + strspn(at, " \t"), &own->needs))
            return false;
    }
    return true;
}

static peridot_result make_glsl(struct user_variant *own, const char *folder, const uint32_t *types,
                                uint32_t count, peridot_error *error) {
    struct glsl_text text;
    peridot_result result = glsl_text_read(own->path, folder, &text, error);
    if (!result && !read_comments(own, &text))
        result =
            fail(error, PERIDOT_ERROR_FORMAT, "%s: \"// needs:\" takes %s", own->path, needs_words);
    for (uint32_t i = 0; i < count && !result; i++)
        result = compile(own, &text, types[i], error);
    glsl_text_free(&text);
    return result;
}

static peridot_result make_spirv(struct user_variant *own, const struct file_bytes *file,
                                 const uint32_t *types, uint32_t count, peridot_error *error) {
    if (own->define_count)
        return fail(error, PERIDOT_ERROR_ARGUMENT,
                    "%s is compiled already: -D is for GLSL, --spec for both", own->path);
    if (count > 1)
        return fail(error, PERIDOT_ERROR_ARGUMENT,
                    "%s is compiled for one type of weights: say which with --type", own->path);
    return load(own, file, types[0], error);
}

static bool ends_in(const char *text, const char *end) {
    size_t length = strlen(text);
    return length >= strlen(end) && strcmp(text + length - strlen(end), end) == 0;
}

static bool is_spirv(const struct user_variant *own, const struct file_bytes *file) {
    static const uint8_t magic[] = {3, 2, 0x23, 7};
    return ends_in(own->path, ".spv") ||
           (file->size >= 4 && memcmp(file->data, magic, sizeof magic) == 0);
}

static void take_constants(struct user_variant *own, enum kernel kernel) {
    const struct kernel_variant *ours = kernel_variants(NULL) + kernel_info(kernel).first_variant;
    name_variant(own);
    own->variant = (struct kernel_variant){
        .kernel = kernel,
        .name = own->name,
        .file = own->path,
        .workgroup = own->workgroup < 0 ? ours->workgroup : (uint32_t)own->workgroup,
        .rows = own->rows < 0 ? ours->rows : (uint32_t)own->rows,
        .columns = own->columns < 0 ? ours->columns : (uint32_t)own->columns};
}

peridot_result user_variants_make(struct user_variants *variants, enum kernel kernel,
                                  const char *types, peridot_error *error) {
    uint32_t wanted[WEIGHT_TYPE_COUNT];
    uint32_t count = find_types(kernel, types, wanted);
    peridot_result result = PERIDOT_OK;
    if (!count)
        return fail(error, PERIDOT_ERROR_ARGUMENT, "--type %s: kernel %s has no such type", types,
                    kernel_info(kernel).name);
    for (uint32_t i = 0; i < variants->count && !result; i++) {
        struct user_variant *own = &variants->at[i];
        struct file_bytes file;
        take_constants(own, kernel);
        result = platform_read_file(own->path, &file, error);
        if (result)
            break;
        result = is_spirv(own, &file) ? make_spirv(own, &file, wanted, count, error)
                                      : make_glsl(own, variants->folder, wanted, count, error);
        platform_free_file(&file);
    }
    return result;
}

void user_variants_ask(struct user_variants *variants, const struct device *device) {
    for (uint32_t i = 0; i < variants->count; i++) {
        struct user_variant *own = &variants->at[i];
        bool meets = true;
        for (uint32_t type = 0; type < WEIGHT_TYPE_COUNT && meets; type++) {
            const uint32_t *words = own->variant.module[type].words;
            if (words)
                meets = spirv_needs(device, words, (size_t)(own->variant.module[type].end - words),
                                    &own->needs, own->left_out, sizeof own->left_out);
        }
        own->variant.needs = own->needs;
    }
}

void user_variants_free(struct user_variants *variants) {
    for (uint32_t i = 0; i < variants->count; i++)
        for (uint32_t type = 0; type < WEIGHT_TYPE_COUNT; type++)
            free((void *)(uintptr_t)variants->at[i].variant.module[type].words);
}
