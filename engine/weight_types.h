/* The table of weight types (weight_types.def), read as data. */
#ifndef ENGINE_WEIGHT_TYPES_H
#define ENGINE_WEIGHT_TYPES_H

#include <stdint.h>

enum weight_type {
#define WEIGHT(name, NAME, block, block_bytes, gguf, low, high, header, scale) WEIGHT_##NAME,
#include "weight_types.def"
#undef WEIGHT
    WEIGHT_TYPE_COUNT
};

struct weight_type_info {
    const char *name;            /* "q4_0" … */
    uint32_t block, block_bytes; /* elements and bytes of a block in a file */
    int32_t gguf;                /* its number in GGUF files, or -1 */
    uint32_t low_bits, high_bits, header_bytes, scale_bytes; /* planes, host/device_rows.h */
};

const struct weight_type_info *weight_type_info(enum weight_type type);

#endif
