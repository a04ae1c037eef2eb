/* Weights of one type as float32. The build defines the type, WEIGHT_F32 and so on, and its planes, as
 * engine/weight_types.def has them: LOW_BITS, HIGH_BITS, HEADER_BYTES, SCALE_BYTES.
 *
 * A row is a number of steps; a step is GROUPS groups of four neighbouring elements. values(raw, g) are
 * those of group g, of which the weights are scale * value + offset with the scale_of() the SCALES-th
 * part of the step that holds g; of the float types, which are not SCALED, the values themselves. */
#include "f16.glsl"

#if defined(WEIGHT_F32) || defined(WEIGHT_BF16) || defined(WEIGHT_F16)
#include "float_weights.glsl"
#else
#include "block_weights.glsl"
#endif

const uint STEP = 4 * GROUPS;
