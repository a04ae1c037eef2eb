/* Weights widened exactly to float32, eight at a time. Define WEIGHT_TYPE before. */

#if WEIGHT_TYPE == WEIGHT_F32
const uint QUADS_PER_STEP = 2; /* a step is eight elements of a row */
#else
const uint QUADS_PER_STEP = 1;
#endif

#if WEIGHT_TYPE == WEIGHT_F16
/* By integers, because unpackHalf2x16 may flush subnormals. Weights are finite. */
vec4 widen_halves(uvec4 bits) {
    uvec4 magnitude = bits & 0x7fff;
    vec4 normal = uintBitsToFloat((magnitude << 13) + (112u << 23));
    vec4 subnormal = vec4(magnitude) * 5.9604644775390625e-8; /* 2^-24 */
    vec4 value = mix(subnormal, normal, greaterThanEqual(magnitude, uvec4(0x400)));
    return uintBitsToFloat(floatBitsToUint(value) | (bits & 0x8000) << 16);
}
#endif

/* Elements 8 * step to 8 * step + 7, counted from the start of the matrix. */
void load_weights(Quads weights, uint step, out vec4 low, out vec4 high) {
#if WEIGHT_TYPE == WEIGHT_F32
    low = uintBitsToFloat(weights.at[2 * step]);
    high = uintBitsToFloat(weights.at[2 * step + 1]);
#else
    uvec4 quad = weights.at[step];
#if WEIGHT_TYPE == WEIGHT_BF16
    low = uintBitsToFloat(uvec4(quad.x << 16, quad.x & 0xffff0000, quad.y << 16, quad.y & 0xffff0000));
    high = uintBitsToFloat(uvec4(quad.z << 16, quad.z & 0xffff0000, quad.w << 16, quad.w & 0xffff0000));
#else
    low = widen_halves(uvec4(quad.x & 0xffff, quad.x >> 16, quad.y & 0xffff, quad.y >> 16));
    high = widen_halves(uvec4(quad.z & 0xffff, quad.z >> 16, quad.w & 0xffff, quad.w >> 16));
#endif
#endif
}
