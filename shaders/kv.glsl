/* Reading keys and values from the cache (abi.h says how it is laid out), eight elements at a time.
 * Expects `c`, the attention_constants. With COUNT_KV_READS, which only a test defines, the number of
 * elements read is added up in the session block. */

layout(constant_id = SPEC_HEAD_DIM) const uint HEAD_DIM = 256;
layout(constant_id = SPEC_KV_HALF) const uint KV_HALF = 1;
const uint OCTETS = HEAD_DIM / 8;
const uint KEYS = 0, VALUES = 1;

void load_kv(uint which, uint head, uint position, uint octet, out vec4 low, out vec4 high) {
#ifdef COUNT_KV_READS
    atomicAdd(c.session.s.reserved, 8);
#endif
    Quads chunk = c.session.s.kv_chunks[position / KV_CHUNK];
    uint row = (which * c.kv_heads + head) * KV_CHUNK + position % KV_CHUNK;
    uint at = row * OCTETS + octet;
    if (KV_HALF != 0) {
        uvec4 quad = chunk.at[c.kv_layer + at];
        low = vec4(unpackHalf2x16(quad.x), unpackHalf2x16(quad.y));
        high = vec4(unpackHalf2x16(quad.z), unpackHalf2x16(quad.w));
    } else {
        low = uintBitsToFloat(chunk.at[c.kv_layer + 2 * at]);
        high = uintBitsToFloat(chunk.at[c.kv_layer + 2 * at + 1]);
    }
}
