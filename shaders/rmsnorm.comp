/* y[t][i] = x[t][i] / sqrt(mean(x[t]^2) + epsilon) * multiplier[i] (Zhang and Sennrich 2019; Gemma's
 * multiplier is 1 + weight). One workgroup a row; with SUBGROUP it is one subgroup and needs no barrier. */
#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#ifdef SUBGROUP
#extension GL_KHR_shader_subgroup_arithmetic : require
#endif

layout(local_size_x_id = SPEC_WORKGROUP) in;
layout(push_constant) uniform Constants {
    rmsnorm_constants c;
};

#ifdef SUBGROUP
float add_all(float value) {
    return subgroupAdd(value);
}
#else
shared float parts[gl_WorkGroupSize.x];

float add_all(float value) {
    parts[gl_LocalInvocationID.x] = value;
    barrier();
    float sum = 0;
    for (uint i = 0; i < gl_WorkGroupSize.x; i++)
        sum += parts[i];
    return sum;
}
#endif

void main() {
    uint row = gl_WorkGroupID.x;
    if (c.session.s.done != 0 || row >= c.session.s.rows)
        return;
    uint quads = c.stride / 4, base = row * quads;
    float square = 0;
    for (uint i = gl_LocalInvocationID.x; i < quads; i += gl_WorkGroupSize.x) {
        vec4 x = c.x.at[base + i];
        square += dot(x, x);
    }
    float scale = inversesqrt(add_all(square) / float(c.columns) + c.epsilon);
    for (uint i = gl_LocalInvocationID.x; i < quads; i += gl_WorkGroupSize.x)
        c.y.at[base + i] = c.x.at[base + i] * scale * c.multiplier.at[i];
}
