#include "gguf_output.h"

#include <stdlib.h>
#include <string.h>

#define VERSION 3
#define ALIGNMENT 32 /* what readers take where general.alignment is absent */
#define FIXED_BYTES 24

uint64_t gguf_output_padded(uint64_t size) {
    return (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

void gguf_output_free(struct gguf_output *output) {
    free(output->entries.data);
    free(output->tensors.data);
    *output = (struct gguf_output){0};
}

/* ---- Bytes in memory ---- */

static void add(struct gguf_output *output, struct gguf_bytes *bytes, const void *data,
                size_t size) {
    if (size > bytes->capacity - bytes->size) {
        size_t capacity = 2 * bytes->capacity + size + 1024;
        uint8_t *grown = output->failed ? NULL : realloc(bytes->data, capacity);
        if (!grown) {
            output->failed = true;
            return;
        }
        bytes->data = grown;
        bytes->capacity = capacity;
    }
    if (size)
        memcpy(bytes->data + bytes->size, data, size);
    bytes->size += size;
}

static void store(uint8_t *bytes, uint64_t value, size_t size) {
    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)(value >> 8 * i);
}

static void add_number(struct gguf_output *output, struct gguf_bytes *bytes, uint64_t value,
                       size_t size) {
    uint8_t stored[8];
    store(stored, value, size);
    add(output, bytes, stored, size);
}

static void add_text(struct gguf_output *output, struct gguf_bytes *bytes, const char *text,
                     size_t length) {
    add_number(output, bytes, length, 8);
    add(output, bytes, text, length);
}

static uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* ---- Metadata ---- */

static void add_key(struct gguf_output *output, const char *key, enum gguf_kind kind) {
    output->entry_count++;
    add_text(output, &output->entries, key, strlen(key));
    add_number(output, &output->entries, kind, 4);
}

void gguf_output_integer(struct gguf_output *output, const char *key, uint32_t value) {
    add_key(output, key, GGUF_UINT32);
    add_number(output, &output->entries, value, 4);
}

void gguf_output_real(struct gguf_output *output, const char *key, float value) {
    add_key(output, key, GGUF_FLOAT32);
    gguf_output_real_element(output, value);
}

void gguf_output_bool(struct gguf_output *output, const char *key, bool value) {
    add_key(output, key, GGUF_BOOL);
    add_number(output, &output->entries, value, 1);
}

void gguf_output_string(struct gguf_output *output, const char *key, struct gguf_string value) {
    add_key(output, key, GGUF_STRING);
    gguf_output_string_element(output, value);
}

void gguf_output_array(struct gguf_output *output, const char *key, enum gguf_kind element,
                       uint64_t count) {
    add_key(output, key, GGUF_ARRAY);
    add_number(output, &output->entries, element, 4);
    add_number(output, &output->entries, count, 8);
}

void gguf_output_integer_element(struct gguf_output *output, int32_t value) {
    add_number(output, &output->entries, (uint32_t)value, 4);
}

void gguf_output_real_element(struct gguf_output *output, float value) {
    add_number(output, &output->entries, bits_of(value), 4);
}

void gguf_output_string_element(struct gguf_output *output, struct gguf_string value) {
    add_text(output, &output->entries, value.text, value.length);
}

/* ---- Tensors ---- */

void gguf_output_tensor(struct gguf_output *output, const char *name, enum weight_type type,
                        uint32_t columns, uint32_t rows) {
    const struct weight_type_info *info = weight_type_info(type);
    struct gguf_bytes *bytes = &output->tensors;
    output->tensor_count++;
    add_text(output, bytes, name, strlen(name));
    add_number(output, bytes, rows ? 2 : 1, 4);
    add_number(output, bytes, columns, 8);
    if (rows)
        add_number(output, bytes, rows, 8);
    add_number(output, bytes, (uint32_t)info->gguf, 4);
    add_number(output, bytes, output->data_size, 8);
    uint64_t row_bytes = (uint64_t)columns / info->block * info->block_bytes;
    output->data_size += gguf_output_padded(row_bytes * (rows ? rows : 1));
}

static uint64_t header_size(const struct gguf_output *output) {
    return FIXED_BYTES + output->entries.size + output->tensors.size;
}

uint64_t gguf_output_size(const struct gguf_output *output) {
    return gguf_output_padded(header_size(output)) + output->data_size;
}

static bool put(FILE *stream, const void *data, size_t size) {
    return size == 0 || fwrite(data, 1, size, stream) == size;
}

bool gguf_output_padding(uint64_t size, FILE *stream) {
    static const uint8_t zeros[ALIGNMENT];
    return put(stream, zeros, (size_t)(gguf_output_padded(size) - size));
}

bool gguf_output_header(const struct gguf_output *output, FILE *stream) {
    uint8_t fixed[FIXED_BYTES] = "GGUF";
    store(fixed + 4, VERSION, 4);
    store(fixed + 8, output->tensor_count, 8);
    store(fixed + 16, output->entry_count, 8);
    return !output->failed && put(stream, fixed, sizeof fixed) &&
           put(stream, output->entries.data, output->entries.size) &&
           put(stream, output->tensors.data, output->tensors.size) &&
           gguf_output_padding(header_size(output), stream);
}
