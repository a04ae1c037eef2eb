#include "glsl_text.h"
#include "platform.h"
#include "shader_text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <stb/stb_ds.h>

#define TEXT_BYTES_MAX (8u << 20)
#define INCLUDE_DEPTH 16

struct reading {
    struct glsl_text *text;
    const char *folder;
    peridot_error *error;
};

static void append(struct glsl_text *text, const char *bytes, size_t length) {
    memcpy(arraddnptr(text->text, length), bytes, length);
}

static void append_line(struct glsl_text *text, unsigned line, ptrdiff_t file) {
    char words[48];
    append(text, words, (size_t)snprintf(words, sizeof words, "#line %u %td\n", line, file));
}

static peridot_result expand(struct reading *reading, ptrdiff_t file, const char *bytes,
                             size_t length, unsigned depth);

/* The name in `#include "name"`; false: the line is another. */
static bool read_include(const char *line, size_t length, char *name, size_t size) {
    const char *end = line + length, *close;
    static const char word[] = "include";
    while (line < end && (*line == ' ' || *line == '\t'))
        line++;
    if (line == end || *line++ != '#')
        return false;
    while (line < end && (*line == ' ' || *line == '\t'))
        line++;
    if ((size_t)(end - line) < sizeof word || memcmp(line, word, sizeof word - 1) != 0)
        return false;
    line += sizeof word - 1;
    while (line < end && (*line == ' ' || *line == '\t'))
        line++;
    if (line == end || *line++ != '"')
        return false;
    close = memchr(line, '"', (size_t)(end - line));
    if (!close || close == line || (size_t)(close - line) >= size)
        return false;
    memcpy(name, line, (size_t)(close - line));
    name[close - line] = '\0';
    return true;
}

static char *copy_of(const char *text) {
    size_t size = strlen(text) + 1;
    char *copy = malloc(size);
    return copy ? memcpy(copy, text, size) : NULL;
}

static ptrdiff_t number_of(struct glsl_text *text, const char *path) {
    for (ptrdiff_t i = 0; i < arrlen(text->files); i++)
        if (strcmp(text->files[i], path) == 0)
            return i;
    char *copy = copy_of(path);
    if (!copy)
        return 0;
    arrput(text->files, copy);
    return arrlen(text->files) - 1;
}

static peridot_result expand_file(struct reading *reading, const char *path, unsigned depth) {
    struct file_bytes file;
    peridot_result result = platform_read_file(path, &file, reading->error);
    if (result)
        return result;
    if (file.size > TEXT_BYTES_MAX || (file.size && memchr(file.data, 0, file.size)))
        result = fail(reading->error, PERIDOT_ERROR_FORMAT,
                      "%s is neither GLSL nor SPIR-V: it has zero bytes, or more than 8 MiB", path);
    else
        result = expand(reading, number_of(reading->text, path), (const char *)file.data, file.size,
                        depth);
    platform_free_file(&file);
    return result;
}

/* Where a file is looked for: beside `beside`, or in a folder. */
static bool find(const char *folder, size_t folder_length, const char *name, char *path,
                 size_t size) {
    int length = snprintf(path, size, "%.*s%s%s", (int)folder_length, folder,
                          folder_length ? "/" : "", name);
    return length > 0 && (size_t)length < size && platform_is_file(path);
}

static peridot_result include(struct reading *reading, ptrdiff_t file, const char *name,
                              unsigned depth) {
    char path[4096];
    const char *from = reading->text->files[file], *slash = strrchr(from, '/');
    const char *folder = reading->folder;
    if (depth == INCLUDE_DEPTH)
        return fail(reading->error, PERIDOT_ERROR_FORMAT,
                    "%s includes itself, or files more than %u deep", from, INCLUDE_DEPTH);
    if (find(from, slash ? (size_t)(slash - from) : 0, name, path, sizeof path) ||
        (folder && find(folder, strlen(folder), name, path, sizeof path)))
        return expand_file(reading, path, depth + 1);
    size_t length;
    const char *inside = shader_text(name, &length);
    if (inside)
        return expand(reading, number_of(reading->text, name), inside, length, depth + 1);
    /* in a part that #if leaves out it does no harm */
    length =
        (size_t)snprintf(path, sizeof path, "#error there is no file \"%s\" to include\n", name);
    append(reading->text, path, length);
    return PERIDOT_OK;
}

static peridot_result expand(struct reading *reading, ptrdiff_t file, const char *bytes,
                             size_t length, unsigned depth) {
    char name[256];
    peridot_result result = PERIDOT_OK;
    if (depth)
        append_line(reading->text, 1, file);
    for (unsigned line = 1; length && !result; line++) {
        const char *newline = memchr(bytes, '\n', length);
        size_t size = newline ? (size_t)(newline - bytes) : length;
        if (arrlenu(reading->text->text) > TEXT_BYTES_MAX) {
            result = fail(reading->error, PERIDOT_ERROR_FORMAT,
                          "%s with what it includes has more than 8 MiB", reading->text->files[0]);
        } else if (read_include(bytes, size, name, sizeof name)) {
            result = include(reading, file, name, depth);
            append_line(reading->text, line + 1, file);
        } else {
            append(reading->text, bytes, size);
            append(reading->text, "\n", 1);
        }
        bytes += size + (newline != NULL);
        length -= size + (newline != NULL);
    }
    return result;
}

peridot_result glsl_text_read(const char *path, const char *folder, struct glsl_text *text,
                              peridot_error *error) {
    *text = (struct glsl_text){0};
    struct reading reading = {text, folder, error};
    peridot_result result = expand_file(&reading, path, 0);
    arrput(text->text, '\0');
    return result;
}

void glsl_text_free(struct glsl_text *text) {
    for (ptrdiff_t i = 0; i < arrlen(text->files); i++)
        free(text->files[i]);
    arrfree(text->files);
    arrfree(text->text);
}

/* ---- Messages ---- */

/* One line of a log; returns the characters written, 0 if it says nothing. */
static size_t explain_line(const struct glsl_text *text, const char *line, size_t length, char *out,
                           size_t size) {
    static const char mark[] = "ERROR: ";
    unsigned file, number;
    int read = 0, written;
    char words[512];
    while (length && line[length - 1] == ' ')
        length--;
    snprintf(words, sizeof words, "%.*s", (int)length, line);
    if (strncmp(words, mark, sizeof mark - 1) != 0 || strstr(words, "compilation errors") ||
        strstr(words, "compilation terminated"))
        return 0;
    const char *what = words + sizeof mark - 1;
    if (sscanf(what, "%u:%u: %n", &file, &number, &read) == 2 && read &&
        (ptrdiff_t)file < arrlen(text->files))
        written = snprintf(out, size, "%s:%u: %s", text->files[file], number, what + read);
    else
        written = snprintf(out, size, "%s: %s", text->files[0], what);
    return written > 0 && (size_t)written < size ? (size_t)written : 0;
}

void glsl_text_explain(const struct glsl_text *text, const char *log, char *out, size_t size) {
    size_t used = 0;
    *out = '\0';
    while (*log && used + 3 < size) {
        size_t length = strcspn(log, "\n"), start = used ? used + 2 : 0;
        size_t added = explain_line(text, log, length, out + start, size - start);
        if (added && used)
            memcpy(out + used, "; ", 2);
        if (added)
            used = start + added;
        else
            out[used] = '\0';
        log += length + (log[length] == '\n');
    }
    if (!*out)
        snprintf(out, size, "%s: the compiler does not say why it fails", text->files[0]);
}
