/* Writes GGUF files in memory for tests, good ones and bad ones. Needs no library but C's. */
#ifndef TESTS_GGUF_WRITER_H
#define TESTS_GGUF_WRITER_H

#include "gguf.h"

#include <stddef.h>
#include <stdint.h>

struct gguf_writer {
    uint8_t *bytes;
    size_t size, capacity;
    uint64_t data_size; /* of the tensors so far */
};

/* The header of version 3; the counts are those of what follows: metadata, then tensors. */
void gguf_write_begin(struct gguf_writer *writer);
void gguf_write_free(struct gguf_writer *writer);

/* Raw parts, which no count knows of. */
void gguf_write_bytes(struct gguf_writer *writer, const void *bytes, size_t size);
void gguf_write_number(struct gguf_writer *writer, uint64_t value, size_t bytes);
void gguf_write_text(struct gguf_writer *writer, const char *text); /* its length first */
/* Over what is there: the version is at 4, the tensors' count at 8, the entries' at 16. */
void gguf_write_over(struct gguf_writer *writer, size_t at, uint64_t value, size_t bytes);

/* Metadata. A key and a kind; the value is to follow. */
void gguf_write_key(struct gguf_writer *writer, const char *key, enum gguf_kind kind);
void gguf_write_u32(struct gguf_writer *writer, const char *key, uint32_t value);
void gguf_write_f32(struct gguf_writer *writer, const char *key, float value);
void gguf_write_bool(struct gguf_writer *writer, const char *key, int value);
void gguf_write_string(struct gguf_writer *writer, const char *key, const char *text);
/* An array's key, kind, element kind and count; the elements are to follow. */
void gguf_write_array(struct gguf_writer *writer, const char *key, enum gguf_kind element,
                      uint64_t count);

/* A tensor whose data follow those of the last one; `type` is GGUF's number; `rows` 0: a vector. */
void gguf_write_tensor(struct gguf_writer *writer, const char *name, uint32_t type,
                       uint64_t columns, uint64_t rows);
/* One whose offset the caller says, and whose data are the caller's affair. */
void gguf_write_tensor_at(struct gguf_writer *writer, const char *name, uint32_t type,
                          const uint64_t *shape, uint32_t dimensions, uint64_t offset);
/* Pads to 32 bytes and appends the tensors' data, no byte more than they have. */
void gguf_write_data(struct gguf_writer *writer);

/* ---- A small model ---- */

#define GGUF_MODEL_LAYERS 2

/* Its metadata, but for the key `without` ("": all); the length of values goes with that of keys.
 */
void gguf_write_config(struct gguf_writer *writer, const char *without);
/* Its tensors, but for `without`; matrices other than the embedding have a type of GGUF's. */
void gguf_write_model_tensors(struct gguf_writer *writer, const char *without,
                              uint32_t matrix_type);

#endif
