#include "gguf_writer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ALIGNMENT 32
#define TENSOR_COUNT_AT 8
#define ENTRY_COUNT_AT 16
#define F32 0
#define F16 1
#define VALUE_LENGTH 7 /* its place among the sizes, after that of the keys */

void gguf_write_bytes(struct gguf_writer *writer, const void *bytes, size_t size) {
    if (writer->size + size > writer->capacity) {
        writer->capacity = 2 * (writer->size + size);
        writer->bytes = realloc(writer->bytes, writer->capacity);
        if (!writer->bytes)
            abort();
    }
    if (size)
        memcpy(writer->bytes + writer->size, bytes, size);
    writer->size += size;
}

void gguf_write_number(struct gguf_writer *writer, uint64_t value, size_t bytes) {
    for (size_t i = 0; i < bytes; i++)
        gguf_write_bytes(writer, &(uint8_t){(uint8_t)(value >> 8 * i)}, 1);
}

void gguf_write_over(struct gguf_writer *writer, size_t at, uint64_t value, size_t bytes) {
    for (size_t i = 0; i < bytes; i++)
        writer->bytes[at + i] = (uint8_t)(value >> 8 * i);
}

void gguf_write_text(struct gguf_writer *writer, const char *text) {
    gguf_write_number(writer, strlen(text), 8);
    gguf_write_bytes(writer, text, strlen(text));
}

void gguf_write_begin(struct gguf_writer *writer) {
    *writer = (struct gguf_writer){0};
    gguf_write_bytes(writer, "GGUF", 4);
    gguf_write_number(writer, 3, 4);
    gguf_write_number(writer, 0, 8);
    gguf_write_number(writer, 0, 8);
}

void gguf_write_free(struct gguf_writer *writer) {
    free(writer->bytes);
    *writer = (struct gguf_writer){0};
}

/* One more, below 256. */
static void count(struct gguf_writer *writer, size_t at) {
    if (++writer->bytes[at] == 0)
        abort();
}

void gguf_write_key(struct gguf_writer *writer, const char *key, enum gguf_kind kind) {
    count(writer, ENTRY_COUNT_AT);
    gguf_write_text(writer, key);
    gguf_write_number(writer, kind, 4);
}

void gguf_write_u32(struct gguf_writer *writer, const char *key, uint32_t value) {
    gguf_write_key(writer, key, GGUF_UINT32);
    gguf_write_number(writer, value, 4);
}

void gguf_write_f32(struct gguf_writer *writer, const char *key, float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    gguf_write_key(writer, key, GGUF_FLOAT32);
    gguf_write_number(writer, bits, 4);
}

void gguf_write_bool(struct gguf_writer *writer, const char *key, int value) {
    gguf_write_key(writer, key, GGUF_BOOL);
    gguf_write_number(writer, (uint64_t)value, 1);
}

void gguf_write_string(struct gguf_writer *writer, const char *key, const char *text) {
    gguf_write_key(writer, key, GGUF_STRING);
    gguf_write_text(writer, text);
}

void gguf_write_array(struct gguf_writer *writer, const char *key, enum gguf_kind element,
                      uint64_t elements) {
    gguf_write_key(writer, key, GGUF_ARRAY);
    gguf_write_number(writer, element, 4);
    gguf_write_number(writer, elements, 8);
}

void gguf_write_tensor_at(struct gguf_writer *writer, const char *name, uint32_t type,
                          const uint64_t *shape, uint32_t dimensions, uint64_t offset) {
    count(writer, TENSOR_COUNT_AT);
    gguf_write_text(writer, name);
    gguf_write_number(writer, dimensions, 4);
    for (uint32_t i = 0; i < dimensions; i++)
        gguf_write_number(writer, shape[i], 8);
    gguf_write_number(writer, type, 4);
    gguf_write_number(writer, offset, 8);
}

void gguf_write_tensor(struct gguf_writer *writer, const char *name, uint32_t type,
                       uint64_t columns, uint64_t rows) {
    uint64_t shape[] = {columns, rows}, offset = (writer->data_size + ALIGNMENT - 1) & ~31ull;
    gguf_write_tensor_at(writer, name, type, shape, rows ? 2 : 1, offset);
    for (int i = 0; i < WEIGHT_TYPE_COUNT; i++) {
        const struct weight_type_info *info = weight_type_info((enum weight_type)i);
        if (info->gguf == (int32_t)type)
            writer->data_size =
                offset + columns * (rows ? rows : 1) / info->block * info->block_bytes;
    }
}

void gguf_write_data(struct gguf_writer *writer) {
    while (writer->size % ALIGNMENT)
        gguf_write_number(writer, 0, 1);
    for (uint64_t i = 0; i < writer->data_size; i++)
        gguf_write_number(writer, i % 61, 1);
}

/* ---- A small model ---- */

void gguf_write_config(struct gguf_writer *w, const char *without) {
    static const struct {
        const char *key;
        uint32_t value;
    } sizes[] = {
        {"gemma.context_length", 512},
        {"gemma.embedding_length", 32},
        {"gemma.block_count", GGUF_MODEL_LAYERS},
        {"gemma.feed_forward_length", 64},
        {"gemma.attention.head_count", 4},
        {"gemma.attention.head_count_kv", 2},
        {"gemma.attention.key_length", 16},
        {"gemma.attention.value_length", 16},
        {"tokenizer.ggml.bos_token_id", 2},
        {"tokenizer.ggml.eos_token_id", 1},
        {"tokenizer.ggml.padding_token_id", 0},
    };
    if (strcmp(without, "general.architecture") != 0)
        gguf_write_string(w, "general.architecture", "gemma");
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (strcmp(without, sizes[i].key) != 0 &&
            (i != VALUE_LENGTH || strcmp(without, sizes[i - 1].key) != 0))
            gguf_write_u32(w, sizes[i].key, sizes[i].value);
    if (strcmp(without, "gemma.attention.layer_norm_rms_epsilon") != 0)
        gguf_write_f32(w, "gemma.attention.layer_norm_rms_epsilon", 1e-6f);
}

void gguf_write_model_tensors(struct gguf_writer *w, const char *without, uint32_t matrix_type) {
    static const struct {
        const char *name;
        uint32_t columns, rows;
    } layer[] = {
        {"attn_norm", 32, 0}, {"ffn_norm", 32, 0}, {"attn_q", 32, 64},
        {"attn_k", 32, 32},   {"attn_v", 32, 32},  {"attn_output", 64, 32},
        {"ffn_gate", 32, 64}, {"ffn_up", 32, 64},  {"ffn_down", 64, 32},
    };
    if (strcmp(without, "token_embd.weight") != 0)
        gguf_write_tensor(w, "token_embd.weight", F16, 32, 8);
    gguf_write_tensor(w, "output_norm.weight", F32, 32, 0);
    for (int i = 0; i < GGUF_MODEL_LAYERS; i++)
        for (size_t j = 0; j < sizeof layer / sizeof *layer; j++) {
            char name[64];
            snprintf(name, sizeof name, "blk.%d.%s.weight", i, layer[j].name);
            if (strcmp(without, name) != 0)
                gguf_write_tensor(w, name, layer[j].rows ? matrix_type : F32, layer[j].columns,
                                  layer[j].rows);
        }
}
