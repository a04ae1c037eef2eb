/* x[t][i] = table[tokens[position + t]][i] * scale, i < columns. Grid (rows, 1, 1): one workgroup a token;
 * tokens of other shards, and the padding of a row, are left alone. */
#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "common.glsl"
#include "weights.glsl"

layout(local_size_x_id = SPEC_WORKGROUP) in;
layout(push_constant) uniform Constants {
    embed_constants c;
};

/* Four elements from `first` on of row `row` of x, as far as they lie before the padding. */
void store(uint row, uint first, vec4 value) {
    if (first + 4 <= c.columns) {
        c.x.at[row * (c.x_stride / 4) + first / 4] = value;
        return;
    }
    [[unroll]] for (uint j = 0; j < 3; j++)
        if (first + j < c.columns)
            SCALAR(c.x, row * c.x_stride + first + j) = value[j];
}

void main() {
    uint row = gl_WorkGroupID.x;
    if (c.session.s.done != 0 || row >= c.session.s.rows)
        return;
    uint token = c.tokens.at[c.session.s.position + row];
    if (token < c.row_begin || token - c.row_begin >= c.row_count)
        return;
    const uint size = 4 * UNIT_GROUPS;
    for (uint unit = gl_LocalInvocationID.x; unit * size < c.columns; unit += gl_WorkGroupSize.x) {
        vec4 w[UNIT_GROUPS];
        load_unit(c.table, (token - c.row_begin) * c.stride, c.steps, unit, w);
        [[unroll]] for (uint g = 0; g < UNIT_GROUPS; g++)
            store(row, unit * size + 4 * g, w[g] * c.scale);
    }
}
