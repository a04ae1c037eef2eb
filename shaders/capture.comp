/* y[position + t][i] = x[t][i]: the pass's rows to where the application reads hidden states. Grid
 * (groups, rows, 1): an invocation copies a quad. */
#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"

layout(local_size_x_id = SPEC_WORKGROUP) in;
layout(push_constant) uniform Constants {
    capture_constants c;
};

void main() {
    uint row = gl_WorkGroupID.y, i = gl_GlobalInvocationID.x, quads = c.stride / 4;
    if (c.session.s.done != 0 || row >= c.session.s.rows || i >= quads)
        return;
    c.y.at[(c.session.s.position + row) * quads + i] = c.x.at[row * quads + i];
}
