/* x[t][i] = table[tokens[position + t]][i] * scale. One workgroup a token; tokens of other shards are left
 * alone. The padding of a row comes out zero, as the table's is. */
#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "weights.glsl"

layout(local_size_x_id = SPEC_WORKGROUP) in;
layout(push_constant) uniform Constants {
    embed_constants c;
};

void main() {
    uint row = gl_WorkGroupID.x;
    if (c.session.s.done != 0 || row >= c.session.s.rows)
        return;
    uint token = c.tokens.at[c.session.s.position + row];
    if (token < c.row_begin || token - c.row_begin >= c.row_count)
        return;
    uint steps = c.stride / QUADS_PER_STEP;
    for (uint step = gl_LocalInvocationID.x; step < steps; step += gl_WorkGroupSize.x) {
        vec4 low, high;
        load_weights(c.table, (token - c.row_begin) * steps + step, low, high);
        uint at = row * (c.x_stride / 4) + 2 * step;
        c.x.at[at] = low * c.scale;
        c.x.at[at + 1] = high * c.scale;
    }
}
