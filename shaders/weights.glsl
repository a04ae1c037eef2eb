/* Weights widened exactly to float32, a step of eight at a time. WEIGHT_TYPE is defined by the build. */

const uint STEP = 8;             /* elements in a step: rows are padded to whole steps */
#if WEIGHT_TYPE == WEIGHT_F32
const uint QUADS_PER_STEP = 2;
#else
const uint QUADS_PER_STEP = 1;
#endif

#if WEIGHT_TYPE == WEIGHT_F16
/* By integers, because unpackHalf2x16 may flush subnormals. Those have their value's bits right after
 * the leading one of a float32 in [2^-14, 2^-13). Weights are finite. */
vec4 widen_halves(uvec4 bits) {
    uvec4 shifted = (bits & 0x7fff) << 13;
    vec4 normal = uintBitsToFloat(shifted + (112u << 23));
    vec4 subnormal = uintBitsToFloat(shifted + (113u << 23)) - 6.103515625e-5; /* 2^-14 */
    uvec4 value = floatBitsToUint(mix(subnormal, normal, greaterThanEqual(shifted, uvec4(1u << 23))));
    return uintBitsToFloat(value | (bits & 0x8000) << 16);
}
#endif

/* Elements 8 * step to 8 * step + 7, counted from the start of the matrix, as they lie in memory. */
struct raw_weights {
    uvec4 quads[QUADS_PER_STEP];
};

raw_weights load_raw(Quads weights, uint step) {
    raw_weights raw;
    raw.quads[0] = weights.at[QUADS_PER_STEP * step];
#if WEIGHT_TYPE == WEIGHT_F32
    raw.quads[1] = weights.at[QUADS_PER_STEP * step + 1];
#endif
    return raw;
}

void widen(raw_weights raw, out vec4 low, out vec4 high) {
    uvec4 quad = raw.quads[0];
#if WEIGHT_TYPE == WEIGHT_F32
    low = uintBitsToFloat(quad);
    high = uintBitsToFloat(raw.quads[1]);
#elif WEIGHT_TYPE == WEIGHT_BF16
    low = uintBitsToFloat(uvec4(quad.x << 16, quad.x & 0xffff0000, quad.y << 16, quad.y & 0xffff0000));
    high = uintBitsToFloat(uvec4(quad.z << 16, quad.z & 0xffff0000, quad.w << 16, quad.w & 0xffff0000));
#else
    low = widen_halves(uvec4(quad.x & 0xffff, quad.x >> 16, quad.y & 0xffff, quad.y >> 16));
    high = widen_halves(uvec4(quad.z & 0xffff, quad.z >> 16, quad.w & 0xffff, quad.w >> 16));
#endif
}

void load_weights(Quads weights, uint step, out vec4 low, out vec4 high) {
    widen(load_raw(weights, step), low, high);
}
