/* Between float16, bfloat16 and float32, by integer operations: exact, and the same on every
 * machine. */
#ifndef HOST_HALF_H
#define HOST_HALF_H

#include <stdint.h>

float half_to_float(uint16_t bits);
uint16_t half_from_float(float value); /* to nearest, ties to even; overflow gives infinity */
float bfloat_to_float(uint16_t bits);
uint16_t bfloat_from_float(float value); /* to nearest, ties to even */

#endif
