/* What becomes of a finished pair of rows, (row, row + 1) of the whole tensor, for row `token` of the
 * pass; `row` is even, and `both` says whether row + 1 exists. Expects `c`, the project_constants, and one
 * of EPILOGUE_QKV, _RESIDUAL, _GEGLU, _HEAD defined. */

layout(constant_id = SPEC_BATCH) const uint BATCHED = 0;
const bool OF_BATCH = BATCHED != 0;

#ifdef EPILOGUE_QKV
#include "f16.glsl"
#include "kv_row.glsl"

/* Elements i, i + 1 of a head's key or value at a position, which is that of row `token`. */
void store_kv(uint which, uint head, uint position, uint token, uint i, vec2 pair) {
    /* the index is chosen, not the reference: SwiftShader cannot */
    Quads chunk = c.session.s.kv_chunks[OF_BATCH ? token : position / KV_CHUNK];
    uint row = 4 * kv_row(which, head, position);
    if (KV_TYPE == KV_F16) {
        SCALAR(chunk, row + i / 2) = pack_halves(pair.x, pair.y);
    } else {
        SCALAR(chunk, row + i) = floatBitsToUint(pair.x);
        SCALAR(chunk, row + i + 1) = floatBitsToUint(pair.y);
    }
}

/* Rows are [heads | kv_heads | kv_heads][head_dim]; queries and keys are rotated. In q8 other workgroups
 * make the rest of a block, so keys and values stay in y for kv_store.comp. */
void finish(uint row, uint token, vec2 pair, bool both) {
    uint position = OF_BATCH ? c.session.s.row_position[token] : c.session.s.position + token;
    if (position >= c.session.s.context)
        return;
    uint head = row / c.head_dim, i = row % c.head_dim;
    if (head < c.heads + c.kv_heads) {
        uint entry = (position * (c.head_dim / 2) + i / 2) * 2;
        float cosine = SCALAR(c.rope, entry), sine = SCALAR(c.rope, entry + 1);
        pair = vec2(pair.x * cosine - pair.y * sine, pair.x * sine + pair.y * cosine);
    }
    if (head < c.heads || KV_TYPE == KV_Q8) {
        uint at = token * c.y_stride + head * HEAD_DIM + i;
        SCALAR(c.y, at) = pair.x;
        SCALAR(c.y, at + 1) = pair.y;
    } else {
        uint kv = head - c.heads;
        bool value = kv >= c.kv_heads;
        store_kv(uint(value), value ? kv - c.kv_heads : kv, position, token, i, pair);
    }
}
#endif

#ifdef EPILOGUE_RESIDUAL
/* y += W x: the residual stream, in place. */
void finish(uint row, uint token, vec2 pair, bool both) {
    uint at = token * c.y_stride + row;
    SCALAR(c.y, at) += pair.x;
    SCALAR(c.y, at + 1) += pair.y;
}
#endif

#ifdef EPILOGUE_GEGLU
#include "gelu.glsl"

/* Gate row and up row of one hidden unit. */
void finish(uint row, uint token, vec2 pair, bool both) {
    SCALAR(c.y, token * c.y_stride + row / 2) = gelu(pair.x) * pair.y;
}
#endif

#ifdef EPILOGUE_HEAD
void store_logits(Floats y, uint at, vec2 pair, bool both) {
    SCALAR(y, at) = pair.x;
    if (both)
        SCALAR(y, at + 1) = pair.y;
}

/* Logits; with last_row only the pass's last row, as row 0. In a batch each session has its own, which one that
 * is done keeps as they were. */
void finish(uint row, uint token, vec2 pair, bool both) {
    if (!OF_BATCH)
        store_logits(c.y, (c.last_row != 0 ? 0 : token) * c.y_stride + row, pair, both);
    else if (c.session.s.row_position[token] != NO_POSITION)
        store_logits(c.session.s.row_logits[token], row, pair, both);
}
#endif
