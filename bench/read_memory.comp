// Reads a buffer once, 16 bytes a load, neighbouring invocations next to each other, and leaves something that depends
// on every load, so that none is dropped: what a kernel that only reads can reach.
#version 460
#extension GL_EXT_buffer_reference : require

layout(local_size_x_id = 0) in;

layout(buffer_reference, std430, buffer_reference_align = 16) readonly buffer Quads {
    uvec4 at[];
};
layout(buffer_reference, std430, buffer_reference_align = 16) writeonly buffer Sums {
    uvec4 at[];
};

layout(push_constant) uniform Constants {
    Quads source; // [invocations in the grid][loads]
    Sums sums;    // [invocations in the grid]
    uint loads;   // of each invocation, a multiple of 4
} c;

void main() {
    uint step = gl_WorkGroupSize.x;
    uint first = gl_WorkGroupID.x * step * c.loads + gl_LocalInvocationID.x;
    uvec4 sum = uvec4(0);
    for (uint i = 0; i < c.loads; i += 4) {
        uvec4 a = c.source.at[first + i * step];
        uvec4 b = c.source.at[first + (i + 1) * step];
        uvec4 d = c.source.at[first + (i + 2) * step];
        uvec4 e = c.source.at[first + (i + 3) * step];
        sum ^= a ^ b ^ d ^ e;
    }
    c.sums.at[gl_GlobalInvocationID.x] = sum;
}
