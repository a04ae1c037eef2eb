/* What one workgroup of the attention kernels does: QUERIES queries that share a KV head, over a range of
 * positions. Online softmax in float32 (Milakov and Gimelshein 2018; FlashAttention, Dao et al. 2022).
 *
 * With SPLIT (decode): grid (splits, kv_heads, rows), taken from the session block; workgroup (s, h, t) does
 * the s-th part of row t's context and leaves an unnormalised sum, its maximum and its weight.
 * Without (prefill): grid (ceil(rows / COLUMNS), kv_heads, 1); the whole context of COLUMNS rows. */

layout(local_size_x_id = SPEC_WORKGROUP) in;
layout(constant_id = SPEC_GROUP) const uint GROUP = 1;
layout(constant_id = SPEC_COLUMNS) const uint COLUMNS = 1;
layout(push_constant) uniform Constants {
    attention_constants c;
};
#include "kv.glsl"

#ifdef SPLIT
const uint QUERIES = GROUP;
#else
const uint QUERIES = GROUP * COLUMNS; /* query q is head q % GROUP of token q / GROUP */
#endif

uint first_row() {
#ifdef SPLIT
    return gl_WorkGroupID.z;
#else
    return gl_WorkGroupID.x * COLUMNS;
#endif
}

/* Tokens past the pass's rows repeat the last; they are not written. */
uint row_of(uint query) {
    return min(first_row() + query / GROUP, c.session.s.rows - 1);
}

/* Where a query's vector begins in its row, in `query` and in `result`, in vec4. */
uint place_of(uint query) {
    return (gl_WorkGroupID.y * GROUP + query % GROUP) * (HEAD_DIM / 4);
}

uint vector_of(uint query) {
    return row_of(query) * (c.query_stride / 4) + place_of(query);
}

uint result_of(uint query) {
    return row_of(query) * (c.stride / 4) + place_of(query);
}

/* How many positions a query sees. */
uint length_of(uint query) {
    return c.session.s.position + row_of(query) + 1;
}

void range(out uint begin, out uint end) {
#ifdef SPLIT
    uint split = c.session.s.split_length;
    begin = gl_WorkGroupID.x * split;
    end = min(begin + split, length_of(0));
#else
    begin = 0;
    end = length_of(QUERIES - 1);
#endif
}

/* Four elements of a query's result; `weight` is the sum of its exponentials. */
void store(uint query, uint four, vec4 value, float weight) {
#ifdef SPLIT
    uint head = gl_WorkGroupID.y * GROUP + query;
    uint part = (first_row() * c.heads + head) * SPLITS_MAX + gl_WorkGroupID.x;
    c.partial.at[part * ((HEAD_DIM + 8) / 4) + four] = value;
#else
    if (first_row() + query / GROUP < c.session.s.rows)
        c.result.at[result_of(query) + four] = value / weight;
#endif
}

/* A part's maximum and weight, behind its vector. */
void store_weight(uint query, float maximum, float weight) {
#ifdef SPLIT
    uint head = gl_WorkGroupID.y * GROUP + query;
    uint part = (first_row() * c.heads + head) * SPLITS_MAX + gl_WorkGroupID.x;
    c.partial.at[part * ((HEAD_DIM + 8) / 4) + HEAD_DIM / 4] = vec4(maximum, weight, 0, 0);
#endif
}
