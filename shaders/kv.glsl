/* Reading keys and values from the cache (abi.h says how it is laid out), eight or four elements at a time.
 * Expects `c`, the attention_constants. With COUNT_KV_READS, which only a test defines, the number of
 * elements read is added up in the session block. */

layout(constant_id = SPEC_HEAD_DIM) const uint HEAD_DIM = 256;
layout(constant_id = SPEC_KV_HALF) const uint KV_HALF = 1;
const uint OCTETS = HEAD_DIM / 8;
const uint KEYS = 0, VALUES = 1;

/* The octet, counted from the layer's first, at which a position's keys or values begin. */
uint kv_row(uint which, uint head, uint position) {
    return ((which * c.kv_heads + head) * KV_CHUNK + position % KV_CHUNK) * OCTETS;
}

void count_kv(uint elements) {
#ifdef COUNT_KV_READS
    atomicAdd(c.session.s.reserved, elements);
#endif
}

void load_kv(uint which, uint head, uint position, uint octet, out vec4 low, out vec4 high) {
    count_kv(8);
    Quads chunk = c.session.s.kv_chunks[position / KV_CHUNK];
    uint at = kv_row(which, head, position) + octet;
    if (KV_HALF != 0) {
        uvec4 quad = chunk.at[c.kv_layer + at];
        low = vec4(unpackHalf2x16(quad.x), unpackHalf2x16(quad.y));
        high = vec4(unpackHalf2x16(quad.z), unpackHalf2x16(quad.w));
    } else {
        low = uintBitsToFloat(chunk.at[c.kv_layer + 2 * at]);
        high = uintBitsToFloat(chunk.at[c.kv_layer + 2 * at + 1]);
    }
}

/* Half an octet. */
vec4 load_kv_four(uint which, uint head, uint position, uint four) {
    count_kv(4);
    Quads chunk = c.session.s.kv_chunks[position / KV_CHUNK];
    uint row = kv_row(which, head, position);
    if (KV_HALF == 0)
        return uintBitsToFloat(chunk.at[c.kv_layer + 2 * row + four]);
    uint at = c.kv_layer + row + four / 2, word = four % 2 * 2;
    return vec4(unpackHalf2x16(chunk.at[at][word]), unpackHalf2x16(chunk.at[at][word + 1]));
}
