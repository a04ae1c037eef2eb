#ifndef F16_GLSL
#define F16_GLSL

/* float32 to float16 by integers alone: to nearest, ties to even, subnormals kept, whatever the device's
 * float modes. Beyond the range of float16 the largest finite value results, because an infinity in the
 * KV cache would make NaN of every later token. */
uint half_bits(float value) {
    uint bits = floatBitsToUint(value);
    uint magnitude = min(bits & 0x7fffffff, 0x477fe000u); /* 65504 */
    /* The significand is cut by `shift` bits: 13, and below 2^-14 one more for each power of two. */
    uint exponent = magnitude >> 23;
    bool subnormal = exponent < 113;
    uint shift = subnormal ? min(126 - exponent, 25u) : 13;
    uint whole = subnormal ? (magnitude & 0x7fffff) | 0x800000 : magnitude - (112u << 23);
    uint rounded = whole + (1u << (shift - 1)) - 1 + (whole >> shift & 1);
    return (bits >> 16 & 0x8000) | rounded >> shift;
}

uint pack_halves(float low, float high) {
    return half_bits(low) | half_bits(high) << 16;
}

/* float16 to float32, exactly and by integers, because unpackHalf2x16 may flush subnormals. Those have their
 * value's bits right after the leading one of a float32 in [2^-14, 2^-13). For finite values. */
vec4 widen_halves(uvec4 bits) {
    uvec4 shifted = (bits & 0x7fff) << 13;
    vec4 normal = uintBitsToFloat(shifted + (112u << 23));
    vec4 subnormal = uintBitsToFloat(shifted + (113u << 23)) - 6.103515625e-5; /* 2^-14 */
    uvec4 value = floatBitsToUint(mix(subnormal, normal, greaterThanEqual(shifted, uvec4(1u << 23))));
    return uintBitsToFloat(value | (bits & 0x8000) << 16);
}

float widen_half(uint bits) {
    return widen_halves(uvec4(bits)).x;
}

#endif
