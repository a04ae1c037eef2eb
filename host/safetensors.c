#include "safetensors.h"
#include "json.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The format allows 100 MB, which cJSON would turn into 4 GB. Gemma's headers have 20 to 60 KB. */
#define HEADER_SIZE_MAX (16u << 20)
#define EXACT_INTEGER_MAX 9007199254740992.0 /* 2^53: cJSON keeps numbers as doubles */

/* The types that a file may hold; those that are TENSOR_OTHER only need to be stepped over. */
static const struct {
    const char *name;
    enum tensor_type type;
    uint64_t size;
} types[] = {
    {"F32", TENSOR_F32, 4},       {"BF16", TENSOR_BF16, 2},     {"F16", TENSOR_F16, 2},
    {"F64", TENSOR_OTHER, 8},     {"I64", TENSOR_OTHER, 8},     {"U64", TENSOR_OTHER, 8},
    {"C64", TENSOR_OTHER, 8},     {"I32", TENSOR_OTHER, 4},     {"U32", TENSOR_OTHER, 4},
    {"I16", TENSOR_OTHER, 2},     {"U16", TENSOR_OTHER, 2},     {"I8", TENSOR_OTHER, 1},
    {"U8", TENSOR_OTHER, 1},      {"BOOL", TENSOR_OTHER, 1},    {"F8_E4M3", TENSOR_OTHER, 1},
    {"F8_E5M2", TENSOR_OTHER, 1}, {"F8_E8M0", TENSOR_OTHER, 1},
};

/* The file being read, and where its errors go. */
struct reader {
    const char *name;
    const uint8_t *data; /* what follows the header */
    uint64_t size;
    peridot_error *error;
};

size_t tensor_type_size(enum tensor_type type) {
    return type == TENSOR_F32 ? 4 : type == TENSOR_OTHER ? 0 : 2;
}

static peridot_result out_of_memory(const char *name, peridot_error *error) {
    return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory while reading %s", name);
}

/* ---- One tensor ---- */

static bool read_integer(const cJSON *item, uint64_t *value) {
    if (!cJSON_IsNumber(item) || !(item->valuedouble >= 0) ||
        item->valuedouble > EXACT_INTEGER_MAX || item->valuedouble != floor(item->valuedouble))
        return false;
    *value = (uint64_t)item->valuedouble;
    return true;
}

static peridot_result read_type(const struct reader *reader, const cJSON *item,
                                struct safetensor *tensor, uint64_t *element) {
    const cJSON *type = cJSON_GetObjectItemCaseSensitive(item, "dtype");
    if (!cJSON_IsString(type))
        return fail(reader->error, PERIDOT_ERROR_FORMAT, "%s: tensor %.200s has no dtype",
                    reader->name, tensor->name);
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (strcmp(type->valuestring, types[i].name) != 0)
            continue;
        tensor->type = types[i].type;
        tensor->type_name = types[i].name;
        *element = types[i].size;
        return PERIDOT_OK;
    }
    return fail(reader->error, PERIDOT_ERROR_FORMAT, "%s: tensor %.200s has an unknown dtype, %.40s",
                reader->name, tensor->name, type->valuestring);
}

/* Reads the shape; `*bytes` comes as the size of an element and leaves as that of the tensor. */
static peridot_result read_shape(const struct reader *reader, const cJSON *item,
                                 struct safetensor *tensor, uint64_t *bytes) {
    const cJSON *shape = cJSON_GetObjectItemCaseSensitive(item, "shape");
    bool good = cJSON_IsArray(shape);
    for (const cJSON *size = good ? shape->child : NULL; size && good; size = size->next) {
        uint64_t value = 0;
        good = tensor->dimensions < TENSOR_DIMENSIONS_MAX && read_integer(size, &value) &&
               (value == 0 || *bytes <= UINT64_MAX / value);
        if (good) {
            tensor->shape[tensor->dimensions++] = value;
            *bytes *= value;
        }
    }
    if (!good)
        return fail(reader->error, PERIDOT_ERROR_FORMAT,
                    "%s: tensor %.200s has an impossible shape", reader->name, tensor->name);
    return PERIDOT_OK;
}

static peridot_result read_range(const struct reader *reader, const cJSON *item,
                                 struct safetensor *tensor, uint64_t bytes) {
    const cJSON *offsets = cJSON_GetObjectItemCaseSensitive(item, "data_offsets");
    uint64_t begin = 0, end = 0;
    if (!cJSON_IsArray(offsets) || cJSON_GetArraySize(offsets) != 2 ||
        !read_integer(offsets->child, &begin) || !read_integer(offsets->child->next, &end) ||
        begin > end)
        return fail(reader->error, PERIDOT_ERROR_FORMAT,
                    "%s: tensor %.200s has no valid data_offsets", reader->name, tensor->name);
    if (end > reader->size)
        return fail(reader->error, PERIDOT_ERROR_FORMAT,
                    "%s: tensor %.200s ends at byte %" PRIu64 " of %" PRIu64
                    ": the file is truncated, fetch it again",
                    reader->name, tensor->name, end, reader->size);
    if (bytes != end - begin)
        return fail(reader->error, PERIDOT_ERROR_FORMAT,
                    "%s: tensor %.200s has %" PRIu64
                    " bytes where its shape and dtype need %" PRIu64,
                    reader->name, tensor->name, end - begin, bytes);
    tensor->data = reader->data + begin;
    tensor->size = bytes;
    return PERIDOT_OK;
}

static peridot_result read_tensor(const struct reader *reader, const cJSON *item,
                                  struct safetensor *tensor) {
    size_t length = strlen(item->string);
    tensor->name = malloc(length + 1);
    if (!tensor->name)
        return out_of_memory(reader->name, reader->error);
    memcpy(tensor->name, item->string, length + 1);
    uint64_t bytes = 0;
    peridot_result result = read_type(reader, item, tensor, &bytes);
    if (!result)
        result = read_shape(reader, item, tensor, &bytes);
    if (!result)
        result = read_range(reader, item, tensor, bytes);
    return result;
}

/* ---- All of them ---- */

static int by_name(const void *a, const void *b) {
    return strcmp(((const struct safetensor *)a)->name, ((const struct safetensor *)b)->name);
}

/* Empty tensors first where several begin. */
static int by_position(const void *a, const void *b) {
    const struct safetensor *x = *(const struct safetensor *const *)a;
    const struct safetensor *y = *(const struct safetensor *const *)b;
    return x->data != y->data ? (x->data < y->data ? -1 : 1)
                              : (x->size > y->size) - (x->size < y->size);
}

static peridot_result check_names(const struct reader *reader, struct safetensors *file) {
    qsort(file->tensors, file->count, sizeof *file->tensors, by_name);
    for (size_t i = 1; i < file->count; i++)
        if (strcmp(file->tensors[i - 1].name, file->tensors[i].name) == 0)
            return fail(reader->error, PERIDOT_ERROR_FORMAT, "%s: tensor %.200s is there twice",
                        reader->name, file->tensors[i].name);
    return PERIDOT_OK;
}

/* The tensors, in order of position, must follow each other from the first byte to the last. */
static peridot_result check_order(const struct reader *reader,
                                  const struct safetensor *const *order, size_t count) {
    const uint8_t *end = reader->data;
    for (size_t i = 0; i < count; i++) {
        if (i > 0 && order[i]->data < end)
            return fail(reader->error, PERIDOT_ERROR_FORMAT,
                        "%s: tensors %.200s and %.200s overlap", reader->name,
                        order[i - 1]->name, order[i]->name);
        if (order[i]->data > end)
            return fail(reader->error, PERIDOT_ERROR_FORMAT,
                        "%s: the %td bytes before tensor %.200s belong to no tensor: the file is "
                        "damaged, fetch it again",
                        reader->name, order[i]->data - end, order[i]->name);
        end += order[i]->size;
    }
    uint64_t rest = reader->size - (uint64_t)(end - reader->data);
    if (rest)
        return fail(reader->error, PERIDOT_ERROR_FORMAT,
                    "%s: the last %" PRIu64
                    " bytes belong to no tensor: the file is damaged, fetch it again",
                    reader->name, rest);
    return PERIDOT_OK;
}

static peridot_result check_ranges(const struct reader *reader, const struct safetensors *file) {
    const struct safetensor **order = malloc((file->count + 1) * sizeof *order);
    if (!order)
        return out_of_memory(reader->name, reader->error);
    for (size_t i = 0; i < file->count; i++)
        order[i] = &file->tensors[i];
    qsort(order, file->count, sizeof *order, by_position);
    peridot_result result = check_order(reader, order, file->count);
    free(order);
    return result;
}

static peridot_result read_tensors(const struct reader *reader, const cJSON *header,
                                   struct safetensors *file) {
    file->tensors = calloc((size_t)cJSON_GetArraySize(header) + 1, sizeof *file->tensors);
    if (!file->tensors)
        return out_of_memory(reader->name, reader->error);
    for (const cJSON *item = header->child; item; item = item->next) {
        if (strcmp(item->string, "__metadata__") == 0)
            continue;
        peridot_result result = read_tensor(reader, item, &file->tensors[file->count++]);
        if (result)
            return result;
    }
    peridot_result result = check_names(reader, file);
    return result ? result : check_ranges(reader, file);
}

/* ---- The file ---- */

/* The length of the header, known to be inside the file. */
static peridot_result read_length(const uint8_t *data, size_t size, const char *name,
                                  size_t *length, peridot_error *error) {
    static const char pointer[] = "version https://git-lfs";
    if (size >= sizeof pointer && memcmp(data, pointer, sizeof pointer - 1) == 0)
        return fail(error, PERIDOT_ERROR_FORMAT,
                    "%s is only Git LFS's pointer to the file: fetch it with `git lfs pull`", name);
    if (size < 8)
        return fail(error, PERIDOT_ERROR_FORMAT,
                    "%s: %zu bytes are too few for a safetensors file: fetch it again", name, size);
    uint64_t value = 0;
    for (int i = 0; i < 8; i++)
        value |= (uint64_t)data[i] << 8 * i;
    if (value > HEADER_SIZE_MAX)
        return fail(error, PERIDOT_ERROR_FORMAT,
                    "%s: a header of %" PRIu64 " bytes is impossible: not a safetensors file", name,
                    value);
    if (value > size - 8)
        return fail(error, PERIDOT_ERROR_FORMAT,
                    "%s: the header needs %" PRIu64
                    " bytes and the file has %zu: it is truncated, fetch it again",
                    name, value, size - 8);
    *length = (size_t)value;
    return PERIDOT_OK;
}

peridot_result safetensors_parse(const uint8_t *data, size_t size, const char *name,
                                 struct safetensors *result, peridot_error *error) {
    *result = (struct safetensors){0};
    size_t length = 0;
    peridot_result outcome = read_length(data, size, name, &length, error);
    if (outcome)
        return outcome;
    cJSON *header = json_parse_object((const char *)data + 8, length, name, error);
    if (!header)
        return PERIDOT_ERROR_FORMAT;
    const struct reader reader = {name, data + 8 + length, size - 8 - length, error};
    outcome = read_tensors(&reader, header, result);
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

struct safetensor *safetensors_find(const struct safetensors *file, const char *name) {
    struct safetensor key = {.name = (char *)(uintptr_t)name};
    if (file->count == 0)
        return NULL;
    return bsearch(&key, file->tensors, file->count, sizeof key, by_name);
}
