/* Blocks of quantised weights as files hold them: ggml's formats, and NF4. What a block's bytes
 * mean is said in blocks_dequantise.c, at each format. */
#ifndef HOST_BLOCKS_H
#define HOST_BLOCKS_H

#include "weight_types.h"

#include <stddef.h>

/* `count` elements, a multiple of the type's block, of any weight type, to float32: bit for bit the
 * values that the `gguf` Python package gives. `blocks` may be unaligned. */
void blocks_dequantise(enum weight_type type, const uint8_t *blocks, size_t count, float *values);

/* `count` finite float32 values, a multiple of the type's block, to blocks whose scales are chosen
 * for the least squared error. A value beyond what the type can hold is clamped (the caller looks).
 */
void blocks_quantise(enum weight_type type, const float *values, size_t count, uint8_t *blocks);

#endif
