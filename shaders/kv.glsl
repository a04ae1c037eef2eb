/* Reading keys and values from the cache (abi.h says how it is laid out), eight or four elements at a time.
 * Expects `c`, the attention_constants. With COUNT_KV_READS, which only a test defines, the number of
 * elements read is added up in the session block. */

#include "f16.glsl"
#include "kv_row.glsl"

const uint OCTETS = HEAD_DIM / 8;

void count_kv(uint elements) {
#ifdef COUNT_KV_READS
    atomicAdd(c.session.s.reserved, elements);
#endif
}

/* ---- q8 ---- */

vec4 signed_bytes(uint word) {
    return vec4(ivec4(word << 24, word << 16, word << 8, word) >> 24);
}

/* The scale of an octet of the row that begins at quad `row`. */
float kv_scale(Quads chunk, uint row, uint octet) {
    const uint octets = KV_BLOCK / 8;
    uint pair = SCALAR(chunk, 4 * (row + KV_CODE_QUADS(HEAD_DIM)) + octet / (2 * octets));
    return widen_half(pair >> octet / octets % 2 * 16 & 0xffff);
}

/* ---- Any type ---- */

void load_kv(uint which, uint head, uint position, uint octet, out vec4 low, out vec4 high) {
    count_kv(8);
    Quads chunk = kv_chunk(position);
    uint row = kv_row(which, head, position);
    if (KV_TYPE == KV_F16) {
        uvec4 quad = chunk.at[row + octet];
        low = vec4(unpackHalf2x16(quad.x), unpackHalf2x16(quad.y));
        high = vec4(unpackHalf2x16(quad.z), unpackHalf2x16(quad.w));
    } else if (KV_TYPE == KV_F32) {
        low = uintBitsToFloat(chunk.at[row + 2 * octet]);
        high = uintBitsToFloat(chunk.at[row + 2 * octet + 1]);
    } else {
        float scale = kv_scale(chunk, row, octet);
        low = signed_bytes(SCALAR(chunk, 4 * row + 2 * octet)) * scale;
        high = signed_bytes(SCALAR(chunk, 4 * row + 2 * octet + 1)) * scale;
    }
}

/* Half an octet. */
vec4 load_kv_four(uint which, uint head, uint position, uint four) {
    count_kv(4);
    Quads chunk = kv_chunk(position);
    uint row = kv_row(which, head, position);
    if (KV_TYPE == KV_F32)
        return uintBitsToFloat(chunk.at[row + four]);
    if (KV_TYPE == KV_Q8)
        return signed_bytes(SCALAR(chunk, 4 * row + four)) * kv_scale(chunk, row, four / 2);
    uint at = row + four / 2, word = four % 2 * 2;
    return vec4(unpackHalf2x16(chunk.at[at][word]), unpackHalf2x16(chunk.at[at][word + 1]));
}
