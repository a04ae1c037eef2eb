#include "safetensors.h"
#include "json.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define HEADER_SIZE_MAX 100000000u           /* the reference implementation's bound */
#define EXACT_INTEGER_MAX 9007199254740992.0 /* 2^53: cJSON keeps numbers as doubles */

/* Bytes of an element, of the types that a file may hold beside those Peridot uses too. */
static const struct {
    const char *name;
    enum tensor_type type;
    size_t size;
} types[] = {
    {"F32", TENSOR_F32, 4},    {"BF16", TENSOR_BF16, 2},     {"F16", TENSOR_F16, 2},
    {"F64", TENSOR_OTHER, 8},  {"I64", TENSOR_OTHER, 8},     {"U64", TENSOR_OTHER, 8},
    {"I32", TENSOR_OTHER, 4},  {"U32", TENSOR_OTHER, 4},     {"I16", TENSOR_OTHER, 2},
    {"U16", TENSOR_OTHER, 2},  {"I8", TENSOR_OTHER, 1},      {"U8", TENSOR_OTHER, 1},
    {"BOOL", TENSOR_OTHER, 1}, {"F8_E4M3", TENSOR_OTHER, 1}, {"F8_E5M2", TENSOR_OTHER, 1},
};

static bool read_integer(const cJSON *item, uint64_t *value) {
    if (!cJSON_IsNumber(item) || !(item->valuedouble >= 0) ||
        item->valuedouble > EXACT_INTEGER_MAX || item->valuedouble != floor(item->valuedouble))
        return false;
    *value = (uint64_t)item->valuedouble;
    return true;
}

static peridot_result read_type(const cJSON *item, const char *name, struct safetensor *tensor,
                                size_t *element, peridot_error *error) {
    const cJSON *type = cJSON_GetObjectItemCaseSensitive(item, "dtype");
    for (size_t i = 0; cJSON_IsString(type) && i < sizeof types / sizeof *types; i++) {
        if (strcmp(type->valuestring, types[i].name) != 0)
            continue;
        tensor->type = types[i].type;
        memcpy(tensor->type_name, types[i].name, strlen(types[i].name) + 1);
        *element = types[i].size;
        return PERIDOT_OK;
    }
    return fail(error, PERIDOT_ERROR_FORMAT,
                "%s: tensor %.200s has %s%.20s; Peridot reads F32, BF16 and F16", name,
                tensor->name, cJSON_IsString(type) ? "the unknown dtype " : "no dtype",
                cJSON_IsString(type) ? type->valuestring : "");
}

/* The number of elements that the shape says. */
static peridot_result read_shape(const cJSON *item, const char *name, struct safetensor *tensor,
                                 uint64_t *elements, peridot_error *error) {
    const cJSON *shape = cJSON_GetObjectItemCaseSensitive(item, "shape");
    bool good = cJSON_IsArray(shape);
    *elements = 1;
    for (const cJSON *size = good ? shape->child : NULL; size && good; size = size->next) {
        uint64_t value = 0;
        good = tensor->dimensions < TENSOR_DIMENSIONS_MAX && read_integer(size, &value) &&
               (value == 0 || *elements <= UINT64_MAX / 8 / value);
        if (good) {
            tensor->shape[tensor->dimensions++] = value;
            *elements *= value;
        }
    }
    if (!good)
        return fail(
            error, PERIDOT_ERROR_FORMAT,
            "%s: tensor %.200s has an impossible shape: the file is damaged, fetch it again", name,
            tensor->name);
    return PERIDOT_OK;
}

static peridot_result read_tensor(const cJSON *item, uint64_t header_size, uint64_t data_size,
                                  const char *name, struct safetensor *tensor,
                                  peridot_error *error) {
    tensor->name = malloc(strlen(item->string) + 1);
    if (!tensor->name)
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory while reading %s", name);
    memcpy(tensor->name, item->string, strlen(item->string) + 1);
    size_t element = 0;
    uint64_t elements = 0, begin = 0, end = 0;
    peridot_result result = read_type(item, name, tensor, &element, error);
    if (!result)
        result = read_shape(item, name, tensor, &elements, error);
    if (result)
        return result;
    const cJSON *offsets = cJSON_GetObjectItemCaseSensitive(item, "data_offsets");
    if (!cJSON_IsArray(offsets) || cJSON_GetArraySize(offsets) != 2 ||
        !read_integer(offsets->child, &begin) || !read_integer(offsets->child->next, &end) ||
        begin > end)
        return fail(
            error, PERIDOT_ERROR_FORMAT,
            "%s: tensor %.200s has no valid data_offsets: the file is damaged, fetch it again",
            name, tensor->name);
    if (end > data_size)
        return fail(
            error, PERIDOT_ERROR_FORMAT,
            "%s: tensor %.200s ends at byte %llu of %llu: the file is truncated, fetch it again",
            name, tensor->name, (unsigned long long)end, (unsigned long long)data_size);
    if (elements * element != end - begin)
        return fail(error, PERIDOT_ERROR_FORMAT,
                    "%s: tensor %.200s has %llu bytes where its shape and dtype need %llu: the "
                    "file is damaged, fetch it again",
                    name, tensor->name, (unsigned long long)(end - begin),
                    (unsigned long long)(elements * element));
    tensor->begin = header_size + begin;
    tensor->size = end - begin;
    return PERIDOT_OK;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const struct safetensor *)a)->name, ((const struct safetensor *)b)->name);
}

static int by_position(const void *a, const void *b) {
    const struct safetensor *x = *(const struct safetensor *const *)a;
    const struct safetensor *y = *(const struct safetensor *const *)b;
    return x->begin != y->begin ? (x->begin < y->begin ? -1 : 1)
                                : (x->size > y->size) - (x->size < y->size);
}

/* Sorts by name; refuses one name twice and two tensors in one place. */
static peridot_result check_all(struct safetensors *file, const char *name, peridot_error *error) {
    if (file->count == 0)
        return PERIDOT_OK;
    qsort(file->tensors, file->count, sizeof *file->tensors, by_name);
    for (size_t i = 1; i < file->count; i++)
        if (strcmp(file->tensors[i - 1].name, file->tensors[i].name) == 0)
            return fail(error, PERIDOT_ERROR_FORMAT,
                        "%s: tensor %.200s is there twice: the file is damaged, fetch it again",
                        name, file->tensors[i].name);
    const struct safetensor **order = malloc(file->count * sizeof *order);
    if (!order)
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory while reading %s", name);
    for (size_t i = 0; i < file->count; i++)
        order[i] = &file->tensors[i];
    qsort(order, file->count, sizeof *order, by_position);
    peridot_result result = PERIDOT_OK;
    for (size_t i = 1; i < file->count && !result; i++)
        if (order[i - 1]->begin + order[i - 1]->size > order[i]->begin)
            result =
                fail(error, PERIDOT_ERROR_FORMAT,
                     "%s: tensors %.200s and %.200s overlap: the file is damaged, fetch it again",
                     name, order[i - 1]->name, order[i]->name);
    free(order);
    return result;
}

static peridot_result read_all(const cJSON *header, uint64_t header_size, uint64_t data_size,
                               const char *name, struct safetensors *file, peridot_error *error) {
    size_t count = (size_t)cJSON_GetArraySize(header);
    file->tensors = calloc(count ? count : 1, sizeof *file->tensors);
    if (!file->tensors)
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory while reading %s", name);
    for (const cJSON *item = header->child; item; item = item->next) {
        if (strcmp(item->string, "__metadata__") == 0)
            continue;
        peridot_result result =
            read_tensor(item, header_size, data_size, name, &file->tensors[file->count++], error);
        if (result)
            return result;
    }
    return check_all(file, name, error);
}

static uint64_t header_length(const uint8_t *data) {
    uint64_t length = 0;
    for (int i = 0; i < 8; i++)
        length |= (uint64_t)data[i] << 8 * i;
    return length;
}

uint64_t safetensors_header_bytes(const uint8_t *data, uint64_t size) {
    uint64_t length = size < 8 ? 0 : header_length(data);
    return size < 8 ? size : length > HEADER_SIZE_MAX || length > size - 8 ? 8 : 8 + length;
}

peridot_result safetensors_parse(const uint8_t *data, uint64_t size, const char *name,
                                 struct safetensors *result, peridot_error *error) {
    *result = (struct safetensors){0};
    if (size < 8)
        return fail(error, PERIDOT_ERROR_FORMAT,
                    "%s: %llu bytes are too few for a safetensors file: fetch it again", name,
                    (unsigned long long)size);
    uint64_t length = header_length(data);
    if (length > HEADER_SIZE_MAX)
        return fail(
            error, PERIDOT_ERROR_FORMAT,
            "%s: a header of %llu bytes is impossible: not a safetensors file, fetch it again",
            name, (unsigned long long)length);
    if (length > size - 8)
        return fail(
            error, PERIDOT_ERROR_FORMAT,
            "%s: the header needs %llu bytes and the file has %llu: it is truncated, fetch it "
            "again",
            name, (unsigned long long)length, (unsigned long long)size - 8);
    cJSON *header = json_parse_object((const char *)data + 8, (size_t)length, name, error);
    if (!header)
        return PERIDOT_ERROR_FORMAT;
    peridot_result outcome = read_all(header, 8 + length, size - 8 - length, name, result, error);
    cJSON_Delete(header);
    if (outcome)
        safetensors_free(result);
    return outcome;
}

void safetensors_free(struct safetensors *file) {
    for (size_t i = 0; i < file->count; i++)
        free(file->tensors[i].name);
    free(file->tensors);
    *file = (struct safetensors){0};
}

const struct safetensor *safetensors_find(const struct safetensors *file, const char *name) {
    struct safetensor key = {.name = (char *)(uintptr_t)name};
    if (file->count == 0)
        return NULL;
    return bsearch(&key, file->tensors, file->count, sizeof key, by_name);
}
