/* float32 to float16 by integers: to nearest, ties to even, whatever the device's rounding mode. Beyond
 * the range of float16 the largest finite value results: an infinity in the KV cache would make NaN. */
uint half_bits(float value) {
    uint bits = floatBitsToUint(value);
    uint sign = bits >> 16 & 0x8000;
    uint magnitude = min(bits & 0x7fffffff, 0x477fe000); /* 65504 */
    uint rounded = (magnitude + 0xfff + (magnitude >> 13 & 1)) - (112u << 23);
    /* below 2^-14 the float16 is a multiple of 2^-24 */
    uint small = uint(roundEven(uintBitsToFloat(magnitude) * 16777216.0));
    return sign | (magnitude < 0x38800000 ? small : rounded >> 13);
}

uint pack_halves(float low, float high) {
    return half_bits(low) | half_bits(high) << 16;
}
