/* The header of a safetensors file: which tensors it has, of what type and shape, and where.
 * Format: https://github.com/huggingface/safetensors#format */
#ifndef HOST_SAFETENSORS_H
#define HOST_SAFETENSORS_H

#include "error.h"

#include <stddef.h>
#include <stdint.h>

enum tensor_type { TENSOR_F32 = 0, TENSOR_BF16 = 1, TENSOR_F16 = 2, TENSOR_OTHER = 3 };

#define TENSOR_DIMENSIONS_MAX 8

struct safetensor {
    char *name;
    enum tensor_type type;
    char type_name[8]; /* as in the file */
    uint32_t dimensions;
    uint64_t shape[TENSOR_DIMENSIONS_MAX];
    uint64_t begin; /* in the file, whose header goes before */
    uint64_t size;  /* bytes */
};

struct safetensors {
    struct safetensor *tensors; /* sorted by name */
    size_t count;
};

/* How many of a file's bytes the header takes, if that can be: by the first 8, of which `size` are
 * there. */
uint64_t safetensors_header_bytes(const uint8_t *data, uint64_t size);

/* Parses the header of a file of `size` bytes, of which those are at `data` that it takes; `name`
 * stands in messages. Every range is checked: inside the file, as long as type and shape say, and
 * overlapping no other. Errors: FORMAT (what is wrong with which tensor), HOST_MEMORY. */
peridot_result safetensors_parse(const uint8_t *data, uint64_t size, const char *name,
                                 struct safetensors *result, peridot_error *error);
void safetensors_free(struct safetensors *file);

/* NULL if there is none of that name. */
const struct safetensor *safetensors_find(const struct safetensors *file, const char *name);

#endif
