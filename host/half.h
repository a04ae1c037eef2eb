/* Between float16, bfloat16 and float32, by integer operations: exact, and the same on every
 * machine, whatever the rounding mode or the treatment of subnormals that an application has set. */
#ifndef HOST_HALF_H
#define HOST_HALF_H

#include "safetensors.h"

float half_to_float(uint16_t bits);
uint16_t half_from_float(float value); /* to nearest, ties to even; overflow gives infinity */
float bfloat_to_float(uint16_t bits);
uint16_t bfloat_from_float(float value); /* to nearest, ties to even */

/* The index of the first of `count` elements that is a NaN or an infinity; `count` if none is.
 * `data` need not be aligned. Of TENSOR_OTHER nothing is known: `count`. */
size_t half_first_nonfinite(enum tensor_type type, const void *data, size_t count);

#endif
