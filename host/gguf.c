#include "gguf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VERSION_LEAST 2
#define VERSION_MOST 3
#define ENTRIES_MAX 65536 /* of either kind; real files have hundreds */
#define NESTING_MAX 4     /* arrays within arrays */
#define NAME_MAX_BYTES 512
#define ALIGNMENT_DEFAULT 32
#define ALIGNMENT_MAX 65536
#define ELEMENTS_MAX ((uint64_t)1 << 56) /* so that no size or end of a tensor overflows */
#define OFFSET_MAX ((uint64_t)1 << 60)
#define ENTRY_BYTES_LEAST 13  /* an empty key, its kind, a byte */
#define TENSOR_BYTES_LEAST 33 /* a name of one letter, one dimension */

/* Bytes of a value; 0: it says so itself. */
static const uint8_t kind_size[GGUF_KIND_COUNT] = {
    [GGUF_UINT8] = 1,  [GGUF_INT8] = 1,  [GGUF_UINT16] = 2,  [GGUF_INT16] = 2,
    [GGUF_UINT32] = 4, [GGUF_INT32] = 4, [GGUF_FLOAT32] = 4, [GGUF_BOOL] = 1,
    [GGUF_UINT64] = 8, [GGUF_INT64] = 8, [GGUF_FLOAT64] = 8,
};

/* The types of tensors that Peridot does not use, by their numbers in files. */
static const char *const other_types[] = {
    [4] = "Q4_2",        [5] = "Q4_3",     [9] = "Q8_1",   [15] = "Q8_K",       [16] = "IQ2_XXS",
    [17] = "IQ2_XS",     [18] = "IQ3_XXS", [19] = "IQ1_S", [20] = "IQ4_NL",     [21] = "IQ3_S",
    [22] = "IQ2_S",      [23] = "IQ4_XS",  [24] = "I8",    [25] = "I16",        [26] = "I32",
    [27] = "I64",        [28] = "F64",     [29] = "IQ1_M", [31] = "Q4_0_4_4",   [32] = "Q4_0_4_8",
    [33] = "Q4_0_8_8",   [34] = "TQ1_0",   [35] = "TQ2_0", [36] = "IQ4_NL_4_4", [37] = "IQ4_NL_4_8",
    [38] = "IQ4_NL_8_8", [39] = "MXFP4",   [40] = "NVFP4", [41] = "Q1_0",
};

/* ---- Bytes ---- */

struct reader {
    const uint8_t *data;
    uint64_t size; /* of the file */
    size_t held, at;
    bool ended; /* something was to be read beyond the end */
    bool more;  /* no, only beyond what is held */
};

static uint64_t little_endian(const uint8_t *data, unsigned bytes) {
    uint64_t value = 0;
    for (unsigned i = 0; i < bytes; i++)
        value |= (uint64_t)data[i] << 8 * i;
    return value;
}

/* NULL: so many bytes are not there. */
static const uint8_t *take(struct reader *reader, uint64_t bytes) {
    if (bytes > reader->held - reader->at) {
        reader->ended = true;
        reader->more = bytes <= reader->size - reader->at;
        return NULL;
    }
    const uint8_t *data = reader->data + reader->at;
    reader->at += (size_t)bytes;
    return data;
}

static bool read_unsigned(struct reader *reader, unsigned bytes, uint64_t *value) {
    const uint8_t *data = take(reader, bytes);
    *value = data ? little_endian(data, bytes) : 0;
    return data != NULL;
}

static bool read_string(struct reader *reader, struct gguf_string *string) {
    uint64_t length;
    const uint8_t *data = NULL;
    if (read_unsigned(reader, 8, &length))
        data = take(reader, length);
    *string = (struct gguf_string){(const char *)data, data ? (size_t)length : 0};
    return data != NULL;
}

/* Names stand in messages, so nothing that would disturb a terminal. */
static bool is_plain(struct gguf_string name) {
    if (name.length == 0 || name.length > NAME_MAX_BYTES)
        return false;
    for (size_t i = 0; i < name.length; i++)
        if (name.text[i] <= ' ' || name.text[i] > '~')
            return false;
    return true;
}

/* ---- Metadata entries ---- */

static const char beyond_end[] = "ends beyond the file";

/* Each of these gives what is wrong, or NULL. */
static const char *read_value(struct reader *reader, uint64_t kind, int depth,
                              struct gguf_value *value);

static const char *read_array(struct reader *reader, int depth, struct gguf_value *value) {
    uint64_t element;
    if (!read_unsigned(reader, 4, &element) || !read_unsigned(reader, 8, &value->count))
        return beyond_end;
    if (element >= GGUF_KIND_COUNT)
        return "is an array of values of an unknown kind";
    if (depth == NESTING_MAX)
        return "has arrays within arrays, too deep to follow";
    value->element = (enum gguf_kind)element;
    value->data = reader->data + reader->at;
    if (kind_size[element]) {
        bool fits = value->count <= reader->size / kind_size[element];
        return take(reader, fits ? value->count * kind_size[element] : UINT64_MAX) ? NULL
                                                                                   : beyond_end;
    }
    const char *fault = NULL;
    for (uint64_t i = 0; i < value->count && !fault; i++) {
        struct gguf_value inner;
        fault = read_value(reader, element, depth + 1, &inner);
    }
    return fault;
}

static const char *read_value(struct reader *reader, uint64_t kind, int depth,
                              struct gguf_value *value) {
    *value = (struct gguf_value){.kind = (enum gguf_kind)kind};
    if (kind >= GGUF_KIND_COUNT)
        return "has a value of an unknown kind";
    if (kind == GGUF_ARRAY)
        return read_array(reader, depth, value);
    if (kind == GGUF_STRING) {
        struct gguf_string string;
        if (!read_string(reader, &string))
            return beyond_end;
        value->data = (const uint8_t *)string.text;
        value->count = string.length;
        return NULL;
    }
    value->data = take(reader, kind_size[kind]);
    if (!value->data)
        return beyond_end;
    return kind == GGUF_BOOL && *value->data > 1 ? "is neither true nor false" : NULL;
}

static const char *read_entry(struct reader *reader, struct gguf_entry *entry) {
    uint64_t kind;
    if (!read_string(reader, &entry->key))
        return beyond_end;
    if (!is_plain(entry->key))
        return "has a key that is no name";
    if (!read_unsigned(reader, 4, &kind))
        return beyond_end;
    return read_value(reader, kind, 0, &entry->value);
}

/* ---- Tensor entries ---- */

static void name_type(struct gguf_tensor *tensor, uint64_t number) {
    tensor->type = WEIGHT_TYPE_COUNT;
    for (int type = 0; type < WEIGHT_TYPE_COUNT; type++) {
        const struct weight_type_info *info = weight_type_info((enum weight_type)type);
        if (info->gguf < 0 || (uint64_t)info->gguf != number)
            continue;
        tensor->type = (enum weight_type)type;
        snprintf(tensor->type_name, sizeof tensor->type_name, "%s", info->name);
        return;
    }
    bool named = number < sizeof other_types / sizeof *other_types && other_types[number];
    if (named)
        snprintf(tensor->type_name, sizeof tensor->type_name, "%s", other_types[number]);
    else
        snprintf(tensor->type_name, sizeof tensor->type_name, "type %u", (uint32_t)number);
}

static const char *read_shape(struct reader *reader, struct gguf_tensor *tensor,
                              uint64_t *elements) {
    uint64_t dimensions;
    *elements = 1;
    if (!read_unsigned(reader, 4, &dimensions))
        return beyond_end;
    if (dimensions == 0 || dimensions > GGUF_DIMENSIONS_MAX)
        return "has an impossible number of dimensions";
    tensor->dimensions = (uint32_t)dimensions;
    for (uint32_t i = 0; i < dimensions; i++) {
        if (!read_unsigned(reader, 8, &tensor->shape[i]))
            return beyond_end;
        if (tensor->shape[i] == 0 || tensor->shape[i] > ELEMENTS_MAX / *elements)
            return "has an impossible shape";
        *elements *= tensor->shape[i];
    }
    return NULL;
}

static const char *read_tensor(struct reader *reader, struct gguf_tensor *tensor) {
    struct gguf_string name;
    uint64_t elements, type;
    if (!read_string(reader, &name))
        return beyond_end;
    if (!is_plain(name))
        return "has a name that is none";
    tensor->name = malloc(name.length + 1);
    if (!tensor->name)
        return NULL; /* the caller looks */
    memcpy(tensor->name, name.text, name.length);
    tensor->name[name.length] = '\0';
    const char *fault = read_shape(reader, tensor, &elements);
    if (fault)
        return fault;
    if (!read_unsigned(reader, 4, &type) || !read_unsigned(reader, 8, &tensor->offset))
        return beyond_end;
    if (tensor->offset > OFFSET_MAX)
        return "has an impossible offset";
    name_type(tensor, type);
    if (tensor->type == WEIGHT_TYPE_COUNT)
        return NULL;
    const struct weight_type_info *info = weight_type_info(tensor->type);
    if (tensor->shape[0] % info->block != 0)
        return "has rows that are no whole number of its type's blocks";
    tensor->size = elements / info->block * info->block_bytes;
    return NULL;
}

/* ---- The header ---- */

static peridot_result out_of_memory(const char *name, peridot_error *error) {
    return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory while reading %s", name);
}

/* Entry `index` of `count`, a tensor or metadata; what it is called, if that is known. */
static peridot_result refuse_entry(const struct reader *reader, const char *fault, const char *what,
                                   uint64_t index, uint64_t count, struct gguf_string called,
                                   const char *name, peridot_error *error) {
    int length = is_plain(called) ? (int)(called.length < 200 ? called.length : 200) : 0;
    const char *text = length ? called.text : "";
    if (reader->ended)
        return fail(error, PERIDOT_ERROR_FORMAT,
                    "%s has %llu bytes and ends within its header, at %s %llu of %llu%s%.*s: the "
                    "download is incomplete, fetch it again",
                    name, (unsigned long long)reader->size, what, (unsigned long long)index + 1,
                    (unsigned long long)count, length ? ", " : "", length, text);
    return fail(error, PERIDOT_ERROR_FORMAT,
                "%s: %s %llu of %llu%s%.*s %s: the file is damaged, fetch it again", name, what,
                (unsigned long long)index + 1, (unsigned long long)count, length ? ", " : "",
                length, text, fault);
}

static peridot_result check_count(const struct reader *reader, uint64_t count, size_t bytes_least,
                                  const char *what, const char *name, peridot_error *error) {
    if (count <= ENTRIES_MAX && count <= (reader->size - reader->at) / bytes_least)
        return PERIDOT_OK;
    return fail(error, PERIDOT_ERROR_FORMAT,
                "%s: its header announces %llu %s, more than its %llu bytes can hold: the file is "
                "damaged or its download incomplete, fetch it again",
                name, (unsigned long long)count, what, (unsigned long long)reader->size);
}

static peridot_result read_entries(struct reader *reader, uint64_t count, struct gguf *file,
                                   peridot_error *error) {
    peridot_result result =
        check_count(reader, count, ENTRY_BYTES_LEAST, "metadata entries", file->name, error);
    if (result)
        return result;
    file->entries = calloc(count ? (size_t)count : 1, sizeof *file->entries);
    if (!file->entries)
        return out_of_memory(file->name, error);
    for (uint64_t i = 0; i < count; i++) {
        struct gguf_entry *entry = &file->entries[file->entry_count++];
        const char *fault = read_entry(reader, entry);
        if (fault)
            return refuse_entry(reader, fault, "metadata entry", i, count, entry->key, file->name,
                                error);
    }
    return PERIDOT_OK;
}

static peridot_result read_tensors(struct reader *reader, uint64_t count, struct gguf *file,
                                   peridot_error *error) {
    peridot_result result =
        check_count(reader, count, TENSOR_BYTES_LEAST, "tensors", file->name, error);
    if (result)
        return result;
    file->tensors = calloc(count ? (size_t)count : 1, sizeof *file->tensors);
    if (!file->tensors)
        return out_of_memory(file->name, error);
    for (uint64_t i = 0; i < count; i++) {
        struct gguf_tensor *tensor = &file->tensors[file->tensor_count++];
        const char *fault = read_tensor(reader, tensor);
        struct gguf_string called = {tensor->name, tensor->name ? strlen(tensor->name) : 0};
        if (fault)
            return refuse_entry(reader, fault, "tensor", i, count, called, file->name, error);
        if (!tensor->name)
            return out_of_memory(file->name, error);
    }
    return PERIDOT_OK;
}

static int compare(struct gguf_string a, struct gguf_string b) {
    int order = memcmp(a.text, b.text, a.length < b.length ? a.length : b.length);
    return order ? order : (a.length > b.length) - (a.length < b.length);
}

static int by_key(const void *a, const void *b) {
    return compare(((const struct gguf_entry *)a)->key, ((const struct gguf_entry *)b)->key);
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const struct gguf_tensor *)a)->name, ((const struct gguf_tensor *)b)->name);
}

static int by_position(const void *a, const void *b) {
    const struct gguf_tensor *x = *(const struct gguf_tensor *const *)a;
    const struct gguf_tensor *y = *(const struct gguf_tensor *const *)b;
    return (x->offset > y->offset) - (x->offset < y->offset);
}

/* Sorts both lists; refuses one key or name twice. */
static peridot_result sort(struct gguf *file, peridot_error *error) {
    qsort(file->entries, file->entry_count, sizeof *file->entries, by_key);
    qsort(file->tensors, file->tensor_count, sizeof *file->tensors, by_name);
    for (size_t i = 1; i < file->entry_count; i++)
        if (by_key(&file->entries[i - 1], &file->entries[i]) == 0)
            return fail(error, PERIDOT_ERROR_FORMAT,
                        "%s: the metadata key %.*s is there twice: the file is damaged, fetch it "
                        "again",
                        file->name, (int)file->entries[i].key.length, file->entries[i].key.text);
    for (size_t i = 1; i < file->tensor_count; i++)
        if (by_name(&file->tensors[i - 1], &file->tensors[i]) == 0)
            return fail(error, PERIDOT_ERROR_FORMAT,
                        "%s: tensor %.200s is there twice: the file is damaged, fetch it again",
                        file->name, file->tensors[i].name);
    return PERIDOT_OK;
}

/* ---- The data ---- */

static peridot_result check_overlaps(const struct gguf *file, peridot_error *error) {
    const struct gguf_tensor **order = malloc((file->tensor_count + 1) * sizeof(*order));
    if (!order)
        return out_of_memory(file->name, error);
    size_t count = 0;
    for (size_t i = 0; i < file->tensor_count; i++)
        if (file->tensors[i].begin)
            order[count++] = &file->tensors[i];
    qsort(order, count, sizeof *order, by_position);
    peridot_result result = PERIDOT_OK;
    for (size_t i = 1; i < count && !result; i++)
        if (order[i - 1]->offset + order[i - 1]->size > order[i]->offset)
            result =
                fail(error, PERIDOT_ERROR_FORMAT,
                     "%s: tensors %.200s and %.200s overlap: the file is damaged, fetch it again",
                     file->name, order[i - 1]->name, order[i]->name);
    free(order);
    return result;
}

/* Finds each tensor's bytes, in a file whose header ends at the reader. */
static peridot_result place_tensors(const struct reader *reader, struct gguf *file,
                                    peridot_error *error) {
    int64_t alignment = ALIGNMENT_DEFAULT;
    peridot_result result =
        gguf_integer(file, "general.alignment", 1, ALIGNMENT_MAX, &alignment, error);
    if (result)
        return result;
    if (alignment & (alignment - 1))
        return fail(error, PERIDOT_ERROR_FORMAT,
                    "%s: general.alignment is %lld, no power of two: the file is damaged, fetch it "
                    "again",
                    file->name, (long long)alignment);
    uint64_t mask = (uint64_t)alignment - 1, begin = (reader->at + mask) & ~mask, end = 0;
    for (size_t i = 0; i < file->tensor_count; i++) {
        const struct gguf_tensor *tensor = &file->tensors[i];
        if (tensor->offset & mask)
            return fail(error, PERIDOT_ERROR_FORMAT,
                        "%s: tensor %.200s is not aligned to %lld bytes: the file is damaged, "
                        "fetch it again",
                        file->name, tensor->name, (long long)alignment);
        if (tensor->size && begin + tensor->offset + tensor->size > end)
            end = begin + tensor->offset + tensor->size;
    }
    if (end > reader->size)
        return fail(error, PERIDOT_ERROR_FORMAT,
                    "%s has %llu bytes of %llu: the download is incomplete, fetch it again",
                    file->name, (unsigned long long)reader->size, (unsigned long long)end);
    for (size_t i = 0; i < file->tensor_count; i++)
        if (file->tensors[i].size)
            file->tensors[i].begin = begin + file->tensors[i].offset;
    return check_overlaps(file, error);
}

bool gguf_is(const uint8_t *data, size_t size) {
    return size >= 4 && memcmp(data, "GGUF", 4) == 0;
}

static peridot_result read_version(struct reader *reader, struct gguf *file, peridot_error *error) {
    uint64_t version = 0;
    if (!gguf_is(reader->data, reader->held))
        return fail(
            error, PERIDOT_ERROR_FORMAT,
            "%s (%llu bytes) does not begin as a GGUF file does: it is another file, or its "
            "download failed; fetch it again",
            file->name, (unsigned long long)reader->size);
    take(reader, 4);
    if (!read_unsigned(reader, 4, &version))
        return fail(error, PERIDOT_ERROR_FORMAT,
                    "%s has %llu bytes and ends within its header: the download is incomplete, "
                    "fetch it again",
                    file->name, (unsigned long long)reader->size);
    if (version != 0 && (version & 0xffff) == 0)
        return fail(error, PERIDOT_ERROR_UNSUPPORTED,
                    "%s is a big-endian GGUF file; Peridot reads little-endian ones: fetch one",
                    file->name);
    if (version < VERSION_LEAST || version > VERSION_MOST)
        return fail(error, PERIDOT_ERROR_UNSUPPORTED,
                    "%s is GGUF version %llu; Peridot reads versions %d and %d: fetch a file made "
                    "with %s tools",
                    file->name, (unsigned long long)version, VERSION_LEAST, VERSION_MOST,
                    version < VERSION_LEAST ? "newer" : "older");
    file->version = (uint32_t)version;
    return PERIDOT_OK;
}

peridot_result gguf_parse_beginning(const uint8_t *data, size_t held, uint64_t size,
                                    const char *name, struct gguf *result, bool *more,
                                    peridot_error *error) {
    struct reader reader = {.data = data, .size = size, .held = held};
    uint64_t tensors = 0, entries = 0;
    *result = (struct gguf){.name = name};
    peridot_result outcome = read_version(&reader, result, error);
    if (!outcome && (!read_unsigned(&reader, 8, &tensors) || !read_unsigned(&reader, 8, &entries)))
        outcome = fail(error, PERIDOT_ERROR_FORMAT,
                       "%s has %llu bytes and ends within its header: the download is incomplete, "
                       "fetch it again",
                       name, (unsigned long long)size);
    if (!outcome)
        outcome = read_entries(&reader, entries, result, error);
    if (!outcome)
        outcome = read_tensors(&reader, tensors, result, error);
    if (!outcome)
        outcome = sort(result, error);
    if (!outcome)
        outcome = place_tensors(&reader, result, error);
    *more = outcome && reader.more;
    if (outcome)
        gguf_free(result);
    return outcome;
}

peridot_result gguf_parse(const uint8_t *data, size_t size, const char *name, struct gguf *result,
                          peridot_error *error) {
    bool more;
    return gguf_parse_beginning(data, size, size, name, result, &more, error);
}

void gguf_free(struct gguf *file) {
    for (size_t i = 0; i < file->tensor_count; i++)
        free(file->tensors[i].name);
    free(file->tensors);
    free(file->entries);
    *file = (struct gguf){0};
}

const struct gguf_tensor *gguf_find_tensor(const struct gguf *file, const char *name) {
    struct gguf_tensor key = {.name = (char *)(uintptr_t)name};
    if (file->tensor_count == 0)
        return NULL;
    return bsearch(&key, file->tensors, file->tensor_count, sizeof key, by_name);
}

/* ---- Metadata ---- */

static const struct gguf_value *find(const struct gguf *file, const char *key) {
    struct gguf_entry wanted = {.key = {key, strlen(key)}};
    if (file->entry_count == 0)
        return NULL;
    const struct gguf_entry *entry =
        bsearch(&wanted, file->entries, file->entry_count, sizeof wanted, by_key);
    return entry ? &entry->value : NULL;
}

static bool integer_of(const struct gguf_value *value, int64_t *integer) {
    unsigned bytes = kind_size[value->kind];
    switch (value->kind) {
    case GGUF_INT8:
    case GGUF_INT16:
    case GGUF_INT32:
    case GGUF_INT64: {
        uint64_t bits = little_endian(value->data, bytes), sign = (uint64_t)1 << (8 * bytes - 1);
        *integer = (int64_t)((bits ^ sign) - sign);
        return true;
    }
    case GGUF_UINT8:
    case GGUF_UINT16:
    case GGUF_UINT32:
    case GGUF_UINT64: {
        uint64_t bits = little_endian(value->data, bytes);
        *integer = bits > INT64_MAX ? INT64_MAX : (int64_t)bits;
        return true;
    }
    default:
        return false;
    }
}

peridot_result gguf_integer(const struct gguf *file, const char *key, int64_t least, int64_t most,
                            int64_t *value, peridot_error *error) {
    const struct gguf_value *found = find(file, key);
    int64_t integer;
    if (!found)
        return PERIDOT_OK;
    if (!integer_of(found, &integer))
        return fail(error, PERIDOT_ERROR_FORMAT, "%s: %s must be a whole number from %lld to %lld",
                    file->name, key, (long long)least, (long long)most);
    if (integer < least || integer > most)
        return fail(error, PERIDOT_ERROR_FORMAT,
                    "%s: %s is %lld; it must be a whole number from %lld to %lld", file->name, key,
                    (long long)integer, (long long)least, (long long)most);
    *value = integer;
    return PERIDOT_OK;
}

peridot_result gguf_real(const struct gguf *file, const char *key, double least, double most,
                         double *value, peridot_error *error) {
    const struct gguf_value *found = find(file, key);
    double real = 0;
    if (!found)
        return PERIDOT_OK;
    if (found->kind == GGUF_FLOAT32) {
        uint32_t bits = (uint32_t)little_endian(found->data, 4);
        float narrow;
        memcpy(&narrow, &bits, 4);
        real = narrow;
    } else if (found->kind == GGUF_FLOAT64) {
        uint64_t bits = little_endian(found->data, 8);
        memcpy(&real, &bits, 8);
    }
    if ((found->kind != GGUF_FLOAT32 && found->kind != GGUF_FLOAT64) ||
        !(real >= least && real <= most))
        return fail(error, PERIDOT_ERROR_FORMAT, "%s: %s must be a number from %g to %g",
                    file->name, key, least, most);
    *value = real;
    return PERIDOT_OK;
}

peridot_result gguf_bool(const struct gguf *file, const char *key, bool *value,
                         peridot_error *error) {
    const struct gguf_value *found = find(file, key);
    if (!found)
        return PERIDOT_OK;
    if (found->kind != GGUF_BOOL)
        return fail(error, PERIDOT_ERROR_FORMAT, "%s: %s must be true or false", file->name, key);
    *value = *found->data;
    return PERIDOT_OK;
}

peridot_result gguf_string(const struct gguf *file, const char *key, struct gguf_string *value,
                           peridot_error *error) {
    const struct gguf_value *found = find(file, key);
    if (!found)
        return PERIDOT_OK;
    if (found->kind != GGUF_STRING)
        return fail(error, PERIDOT_ERROR_FORMAT, "%s: %s must be a text", file->name, key);
    *value = (struct gguf_string){(const char *)found->data, (size_t)found->count};
    return PERIDOT_OK;
}

peridot_result gguf_array(const struct gguf *file, const char *key, enum gguf_kind element,
                          const struct gguf_value **value, peridot_error *error) {
    const struct gguf_value *found = find(file, key);
    if (!found)
        return PERIDOT_OK;
    bool fits =
        found->kind == GGUF_ARRAY &&
        (found->element == element || (element == GGUF_INT32 && found->element == GGUF_UINT32));
    if (!fits)
        return fail(error, PERIDOT_ERROR_FORMAT, "%s: %s must be an array of %s", file->name, key,
                    element == GGUF_STRING    ? "texts"
                    : element == GGUF_FLOAT32 ? "float32 numbers"
                                              : "int32 numbers");
    *value = found;
    return PERIDOT_OK;
}

bool gguf_string_is(struct gguf_string string, const char *text) {
    return string.text && string.length == strlen(text) &&
           memcmp(string.text, text, string.length) == 0;
}

const char *gguf_show(struct gguf_string string, char *out, size_t size) {
    size_t length = string.length < size - 1 ? string.length : size - 1;
    for (size_t i = 0; i < length; i++)
        out[i] = string.text[i] >= ' ' && string.text[i] <= '~' ? string.text[i] : '?';
    out[length] = '\0';
    return out;
}

int32_t gguf_integer_at(const struct gguf_value *array, uint64_t index) {
    return (int32_t)(uint32_t)little_endian(array->data + 4 * index, 4);
}

float gguf_real_at(const struct gguf_value *array, uint64_t index) {
    uint32_t bits = (uint32_t)little_endian(array->data + 4 * index, 4);
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

struct gguf_string gguf_next_string(const uint8_t **at) {
    struct gguf_string string = {(const char *)*at + 8, (size_t)little_endian(*at, 8)};
    *at += 8 + string.length;
    return string;
}
