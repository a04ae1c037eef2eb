#include "npy.h"
#include "platform.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct array {
    struct file_bytes file;
    char type[8]; /* "<i4" */
    size_t shape[2];
    int dimensions;
    const uint8_t *data;
    size_t size;
};

/* The value of a key in the header's Python dictionary: what follows "'key':" and spaces. */
static const char *value_of(const char *header, const char *key) {
    const char *at = strstr(header, key);
    if (!at)
        return NULL;
    at += strlen(key);
    return at + strspn(at, " ");
}

static bool parse_shape(const char *text, struct array *array) {
    if (!text || *text++ != '(')
        return false;
    while (*text != ')') {
        char *end;
        unsigned long long size = strtoull(text, &end, 10);
        if (end == text || array->dimensions == 2 || size > (1ull << 40))
            return false;
        array->shape[array->dimensions++] = (size_t)size;
        text = end + strspn(end, ", ");
    }
    return array->dimensions > 0;
}

static bool parse_header(const char *header, struct array *array) {
    const char *type = value_of(header, "'descr':");
    const char *order = value_of(header, "'fortran_order':");
    if (!type || *type != '\'' || !order || strncmp(order, "False", 5) != 0)
        return false;
    size_t length = strcspn(++type, "'");
    if (length >= sizeof array->type)
        return false;
    memcpy(array->type, type, length);
    return parse_shape(value_of(header, "'shape':"), array);
}

static peridot_result open_array(const char *path, struct array *array, peridot_error *error) {
    *array = (struct array){0};
    peridot_result result = platform_read_file(path, &array->file, error);
    if (result)
        return result;
    const uint8_t *bytes = array->file.data;
    size_t size = array->file.size, start = 10, length = 0;
    bool good = size >= 12 && memcmp(bytes, "\x93NUMPY", 6) == 0;
    if (good) {
        length = bytes[8] | (size_t)bytes[9] << 8;
        if (bytes[6] > 1) {
            length |= (size_t)bytes[10] << 16 | (size_t)bytes[11] << 24;
            start = 12;
        }
    }
    char header[1024];
    good = good && length < sizeof header && length <= size - start;
    if (good) {
        memcpy(header, bytes + start, length);
        header[length] = '\0';
        array->data = bytes + start + length;
        array->size = size - start - length;
        good = parse_header(header, array);
    }
    if (good)
        return PERIDOT_OK;
    platform_free_file(&array->file);
    return fail(error, PERIDOT_ERROR_FORMAT,
                "%s: not a NumPy array that Peridot can read: save one with numpy.save", path);
}

static peridot_result copy_tokens(const char *path, const struct array *array, int32_t **ids,
                                  size_t *count, peridot_error *error) {
    size_t element = strcmp(array->type, "<i4") == 0 ? 4 : strcmp(array->type, "<i8") == 0 ? 8 : 0;
    if (!element || array->dimensions != 1)
        return fail(error, PERIDOT_ERROR_FORMAT,
                    "%s: an array of %s with %d dimensions; tokens are int32 with one", path,
                    array->type, array->dimensions);
    if (array->shape[0] > array->size / element)
        return fail(error, PERIDOT_ERROR_FORMAT,
                    "%s: shorter than its shape says: truncated, write it again", path);
    *ids = malloc(array->shape[0] * 4 + 1);
    if (!*ids)
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory while reading %s", path);
    *count = array->shape[0];
    for (size_t i = 0; i < *count; i++) {
        int64_t wide;
        memcpy(&wide, array->data + i * element, element);
        if (element == 4) {
            memcpy(&(*ids)[i], array->data + i * element, 4);
            continue;
        }
        if (wide < INT32_MIN || wide > INT32_MAX) {
            free(*ids);
            *ids = NULL;
            *count = 0;
            return fail(error, PERIDOT_ERROR_FORMAT, "%s: token %zu is %lld, which is no token id",
                        path, i, (long long)wide);
        }
        (*ids)[i] = (int32_t)wide;
    }
    return PERIDOT_OK;
}

peridot_result npy_read_tokens(const char *path, int32_t **ids, size_t *count,
                               peridot_error *error) {
    struct array array;
    *ids = NULL;
    *count = 0;
    peridot_result result = open_array(path, &array, error);
    if (result)
        return result;
    result = copy_tokens(path, &array, ids, count, error);
    platform_free_file(&array.file);
    return result;
}

peridot_result npy_read_floats(const char *path, float **values, size_t *rows, size_t *columns,
                               peridot_error *error) {
    struct array array;
    *values = NULL;
    peridot_result result = open_array(path, &array, error);
    if (result)
        return result;
    *rows = array.shape[0];
    *columns = array.shape[1];
    bool good = strcmp(array.type, "<f4") == 0 && array.dimensions == 2 &&
                (*columns == 0 || *rows <= array.size / 4 / *columns);
    if (!good)
        result = fail(error, PERIDOT_ERROR_FORMAT,
                      "%s: not a whole float32 array of two dimensions", path);
    else if (!(*values = malloc(*rows * *columns * 4 + 1)))
        result = fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory while reading %s", path);
    else
        memcpy(*values, array.data, *rows * *columns * 4);
    platform_free_file(&array.file);
    return result;
}

struct matrix {
    const float *values;
    size_t rows, columns;
};

static bool write_matrix(FILE *stream, void *user) {
    const struct matrix *matrix = user;
    char header[128];
    int length = snprintf(header, sizeof header,
                          "{'descr': '<f4', 'fortran_order': False, 'shape': (%zu, %zu), }",
                          matrix->rows, matrix->columns);
    memset(header + length, ' ', sizeof header - (size_t)length);
    /* the data begins at a multiple of 64: 10 bytes before the header, 118 of it */
    header[117] = '\n';
    size_t count = matrix->rows * matrix->columns;
    return fwrite("\x93NUMPY\1\0\x76\0", 1, 10, stream) == 10 &&
           fwrite(header, 1, 118, stream) == 118 &&
           fwrite(matrix->values, 4, count, stream) == count;
}

peridot_result npy_write_floats(const char *path, const float *values, size_t rows, size_t columns,
                                peridot_error *error) {
    struct matrix matrix = {values, rows, columns};
    return platform_replace_file(path, write_matrix, &matrix, error);
}
