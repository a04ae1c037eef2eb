/* Makes GGUF files, version 3: metadata and what the tensors are go to memory, then the header to a
 * stream, and after it, from elsewhere, the tensors' data in the same order. */
#ifndef HOST_GGUF_OUTPUT_H
#define HOST_GGUF_OUTPUT_H

#include "gguf.h"

#include <stdio.h>

struct gguf_bytes {
    uint8_t *data;
    size_t size, capacity;
};

/* All-zero is an empty file. */
struct gguf_output {
    struct gguf_bytes entries, tensors;
    uint64_t entry_count, tensor_count;
    uint64_t data_size; /* of the tensors, with what pads them */
    bool failed;        /* there was no memory for all of it: it cannot be written */
};

void gguf_output_free(struct gguf_output *output);

/* ---- Metadata ---- */

void gguf_output_integer(struct gguf_output *output, const char *key, uint32_t value);
void gguf_output_real(struct gguf_output *output, const char *key, float value);
void gguf_output_bool(struct gguf_output *output, const char *key, bool value);
void gguf_output_string(struct gguf_output *output, const char *key, struct gguf_string value);
/* An array; its `count` elements are to follow. */
void gguf_output_array(struct gguf_output *output, const char *key, enum gguf_kind element,
                       uint64_t count);
void gguf_output_integer_element(struct gguf_output *output, int32_t value);
void gguf_output_real_element(struct gguf_output *output, float value);
void gguf_output_string_element(struct gguf_output *output, struct gguf_string value);

/* ---- Tensors ---- */

/* A matrix, or with `rows` 0 a vector. The type has a number in GGUF files, and columns are whole
 * blocks of it. */
void gguf_output_tensor(struct gguf_output *output, const char *name, enum weight_type type,
                        uint32_t columns, uint32_t rows);
/* Bytes of the whole file. */
uint64_t gguf_output_size(const struct gguf_output *output);
/* All that precedes the first tensor's data. False after a failed write. */
bool gguf_output_header(const struct gguf_output *output, FILE *stream);
/* Bytes of a tensor's data with what pads them. */
uint64_t gguf_output_padded(uint64_t size);
/* What follows a tensor's data of `size` bytes. False after a failed write. */
bool gguf_output_padding(uint64_t size, FILE *stream);

#endif
