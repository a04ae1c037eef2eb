/* Packs the keys and values that the QKV projection left behind the queries into the cache, in q8: a block's
 * scale is its greatest magnitude / 127 in float16, and its codes are to nearest by that scale.
 *
 * Grid (ceil(rows * 2 * kv_heads * PAIRS / workgroup), 1, 1): an invocation packs two blocks, because their
 * scales share a word. */
#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "common.glsl"
#include "f16.glsl"

layout(local_size_x_id = SPEC_WORKGROUP) in;
layout(push_constant) uniform Constants {
    kv_store_constants c;
};
#include "kv_row.glsl"

const uint PAIRS = (HEAD_DIM + 2 * KV_BLOCK - 1) / (2 * KV_BLOCK);
const uint FOURS = KV_BLOCK / 4;

/* Float16 bits. A subnormal has few bits of its own: where rounding it down would leave the greatest element
 * no code, it goes up. */
uint scale_bits(float greatest) {
    uint bits = half_bits(greatest * (1.0 / 127.0));
    return greatest > 127.5 * widen_half(bits) ? min(bits + 1, 0x7bffu) : bits;
}

uint code_word(vec4 value, float inverse) {
    uvec4 code = uvec4(ivec4(roundEven(clamp(value * inverse, -127.0, 127.0)))) & 0xff;
    return code.x | code.y << 8 | code.z << 16 | code.w << 24;
}

/* Block `block` of the row that begins at vec4 `from`, to the one at quad `to`; returns its scale's bits. */
uint pack_block(uint from, Quads chunk, uint to, uint block) {
    vec4 values[FOURS];
    vec4 most = vec4(0);
    [[unroll]] for (uint i = 0; i < FOURS; i++) {
        values[i] = vec4(0);
        if (block * FOURS + i < HEAD_DIM / 4)
            values[i] = c.made.at[from + block * FOURS + i];
        most = max(most, abs(values[i]));
    }
    uint bits = scale_bits(max(max(most.x, most.y), max(most.z, most.w)));
    float inverse = bits != 0 ? 1 / widen_half(bits) : 0;
    [[unroll]] for (uint i = 0; i < FOURS; i += 4) {
        uint quad = (block * FOURS + i) / 4;
        if (quad < KV_CODE_QUADS(HEAD_DIM))
            chunk.at[to + quad] = uvec4(code_word(values[i], inverse), code_word(values[i + 1], inverse),
                                        code_word(values[i + 2], inverse), code_word(values[i + 3], inverse));
    }
    return bits;
}

void main() {
    uint pair = gl_GlobalInvocationID.x % PAIRS, plane = gl_GlobalInvocationID.x / PAIRS;
    uint head = plane % (2 * c.kv_heads), row = plane / (2 * c.kv_heads);
    uint position = c.session.s.position + row;
    if (c.session.s.done != 0 || row >= c.session.s.rows || position >= c.session.s.context)
        return;
    uint from = row * (c.stride / 4) + (c.heads + head) * (HEAD_DIM / 4);
    Quads chunk = kv_chunk(position);
    uint to = kv_row(head / c.kv_heads, head % c.kv_heads, position);
    uint low = pack_block(from, chunk, to, 2 * pair), high = pack_block(from, chunk, to, 2 * pair + 1);
    SCALAR(chunk, 4 * (to + KV_CODE_QUADS(HEAD_DIM)) + pair) = low | high << 16;
}
