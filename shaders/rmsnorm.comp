/* y[t][i] = x[t][i] / sqrt(mean(x[t]^2) + epsilon) * multiplier[i], i < columns (Zhang and Sennrich 2019;
 * Gemma's multiplier is 1 + weight). Grid (rows, 1, 1): one workgroup a row; with SUBGROUP it is one
 * subgroup and needs no barrier. The padding of y is left alone; that of x is zero. */
#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "common.glsl"
#ifdef SUBGROUP
#extension GL_KHR_shader_subgroup_arithmetic : require
#endif

layout(local_size_x_id = SPEC_WORKGROUP) in;
layout(push_constant) uniform Constants {
    rmsnorm_constants c;
};

#include "add_lanes.glsl"

/* Quad i of row `row` of y, as far as it lies before the padding. */
void store(uint row, uint i, vec4 value) {
    if (4 * i + 4 <= c.columns) {
        c.y.at[row * (c.stride / 4) + i] = value;
        return;
    }
    [[unroll]] for (uint j = 0; j < 3; j++)
        if (4 * i + j < c.columns)
            SCALAR(c.y, row * c.stride + 4 * i + j) = value[j];
}

void main() {
    uint row = gl_WorkGroupID.x;
    if (c.session.s.done != 0 || row >= c.session.s.rows)
        return;
    uint quads = (c.columns + 3) / 4, base = row * (c.stride / 4);
    float square = 0;
    for (uint i = gl_LocalInvocationID.x; i < quads; i += gl_WorkGroupSize.x) {
        vec4 x = c.x.at[base + i];
        square += dot(x, x);
    }
    float scale = inversesqrt(add_all(square) / float(c.columns) + c.epsilon);
    for (uint i = gl_LocalInvocationID.x; i < quads; i += gl_WorkGroupSize.x)
        store(row, i, c.x.at[base + i] * scale * c.multiplier.at[i]);
}
