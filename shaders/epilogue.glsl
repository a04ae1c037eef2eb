/* What becomes of a finished pair of rows, (row, row + 1) of the whole tensor, for row `token` of the pass.
 * Expects `c`, the project_constants. Define one of EPILOGUE_QKV, _RESIDUAL, _GEGLU, _HEAD. */

#ifdef EPILOGUE_QKV
#include "f16.glsl"

layout(constant_id = SPEC_HEAD_DIM) const uint HEAD_DIM = 256;
layout(constant_id = SPEC_KV_HALF) const uint KV_HALF = 1;

/* Element i, i + 1 of a head's key (which = 0) or value (1) at a position. */
void store_kv(uint which, uint head, uint position, uint i, float a, float b) {
    Quads chunk = c.session.s.kv_chunks[position / KV_CHUNK];
    uint row = (which * c.kv_heads + head) * KV_CHUNK + position % KV_CHUNK;
    uint element = row * HEAD_DIM + i;
    if (KV_HALF != 0) {
        SCALAR(chunk, c.kv_layer * 4 + element / 2) = pack_halves(a, b);
    } else {
        SCALAR(chunk, c.kv_layer * 4 + element) = floatBitsToUint(a);
        SCALAR(chunk, c.kv_layer * 4 + element + 1) = floatBitsToUint(b);
    }
}

/* Rows are [heads | kv_heads | kv_heads][head_dim]; queries and keys are rotated. */
void finish(uint row, uint token, float a, float b, bool both) {
    uint position = c.session.s.position + token;
    uint head = row / c.head_dim, i = row % c.head_dim;
    if (position >= c.session.s.context)
        return;
    if (head < c.heads + c.kv_heads) {
        uint entry = (position * (c.head_dim / 2) + i / 2) * 2;
        float cosine = SCALAR(c.rope, entry), sine = SCALAR(c.rope, entry + 1);
        vec2 turned = vec2(a * cosine - b * sine, a * sine + b * cosine);
        a = turned.x;
        b = turned.y;
    }
    if (head < c.heads) {
        uint at = token * c.y_stride + head * HEAD_DIM + i;
        SCALAR(c.y, at) = a;
        SCALAR(c.y, at + 1) = b;
    } else {
        uint kv = head - c.heads;
        store_kv(kv / c.kv_heads, kv % c.kv_heads, position, i, a, b);
    }
}
#endif

#ifdef EPILOGUE_RESIDUAL
/* y += W x: the residual stream, in place. */
void finish(uint row, uint token, float a, float b, bool both) {
    uint at = token * c.y_stride + row;
    SCALAR(c.y, at) += a;
    if (both)
        SCALAR(c.y, at + 1) += b;
}
#endif

#ifdef EPILOGUE_GEGLU
/* GELU in its tanh form; tanh(z) = 1 - 2 / (exp(2z) + 1), clamped, because a builtin tanh may be NaN. */
float gelu(float g) {
    float z = clamp(0.7978845608028654 * (g + 0.044715 * g * g * g), -15.0, 15.0);
    return 0.5 * g * (2.0 - 2.0 / (exp(2.0 * z) + 1.0));
}

/* Gate row and up row of one hidden unit. */
void finish(uint row, uint token, float a, float b, bool both) {
    SCALAR(c.y, token * c.y_stride + row / 2) = gelu(a) * b;
}
#endif

#ifdef EPILOGUE_HEAD
/* Logits; with last_row only the pass's last row, as row 0. */
void finish(uint row, uint token, float a, float b, bool both) {
    uint at = (c.last_row != 0 ? 0 : token) * c.y_stride + row;
    SCALAR(c.y, at) = a;
    if (both)
        SCALAR(c.y, at + 1) = b;
}
#endif
