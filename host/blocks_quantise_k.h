/* Blocks of the K formats, for blocks_quantise. */
#ifndef HOST_BLOCKS_QUANTISE_K_H
#define HOST_BLOCKS_QUANTISE_K_H

#include "weight_types.h"

#include <stddef.h>

void quantise_super_blocks(enum weight_type type, const float *values, size_t count,
                           uint8_t *blocks);

#endif
