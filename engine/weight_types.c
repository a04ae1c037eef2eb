#include "weight_types.h"

static const struct weight_type_info types[] = {
#define WEIGHT(name, NAME, block, block_bytes, gguf, low, high, header, scale)                     \
    {#name, block, block_bytes, gguf, low, high, header, scale},
#include "weight_types.def"
#undef WEIGHT
};

const struct weight_type_info *weight_type_info(enum weight_type type) {
    return &types[type];
}
