/* RMSNorm again, as one's own variant: 4 subgroups to a row rather than one, which meet in shared memory.
 *
 *     peridot-bench kernels --kernel rmsnorm --variant rmsnorm.comp --workgroup 128
 */
// needs: subgroup_arithmetic
#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_shader_subgroup_arithmetic : require
#include "common.glsl"

layout(local_size_x_id = SPEC_WORKGROUP) in;
layout(push_constant) uniform Constants {
    rmsnorm_constants c;
};

shared float parts[gl_WorkGroupSize.x]; // one of each subgroup; there are no more of them than invocations

float add_all(float value) {
    value = subgroupAdd(value);
    if (subgroupElect())
        parts[gl_SubgroupID] = value;
    barrier();
    float sum = 0;
    for (uint i = 0; i < gl_NumSubgroups; i++)
        sum += parts[i];
    return sum;
}

void main() {
    uint row = gl_WorkGroupID.x, first = row * c.stride;
    if (c.session.s.done != 0 || row >= c.session.s.rows)
        return;
    float square = 0;
    for (uint i = gl_LocalInvocationID.x; i < c.columns; i += gl_WorkGroupSize.x) {
        float x = SCALAR(c.x, first + i);
        square += x * x;
    }
    float scale = inversesqrt(add_all(square) / float(c.columns) + c.epsilon);
    for (uint i = gl_LocalInvocationID.x; i < c.columns; i += gl_WorkGroupSize.x)
        SCALAR(c.y, first + i) = SCALAR(c.x, first + i) * scale * SCALAR(c.multiplier, i);
}
