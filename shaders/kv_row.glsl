/* Where a position's keys and values lie in the cache (abi.h says how). Expects `c`, constants with `session`,
 * `kv_heads` and `kv_layer`. */

layout(constant_id = SPEC_HEAD_DIM) const uint HEAD_DIM = 256;
layout(constant_id = SPEC_KV_TYPE) const uint KV_TYPE = KV_F16;
const uint KEYS = 0, VALUES = 1;

Quads kv_chunk(uint position) {
    return c.session.s.kv_chunks[position / KV_CHUNK];
}

/* The quad of its chunk at which a head's row begins. */
uint kv_row(uint which, uint head, uint position) {
    uint row = (which * c.kv_heads + head) * KV_CHUNK + position % KV_CHUNK;
    return c.kv_layer + row * KV_ROW_QUADS(KV_TYPE, HEAD_DIM);
}
