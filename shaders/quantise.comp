/* Rows of activations in eight bits, for the dot_* kernels (abi.h): of a block of 32, the scale is the largest
 * magnitude / 127, and a code is to nearest. With NORM the row is first normed, as rmsnorm.comp does.
 *
 * Grid (groups, rows, 1), y = 1 where last_row is set: an invocation makes whole blocks; the groups of a row
 * share them, and with NORM there is one. With SUBGROUP the workgroup is one subgroup and needs no barrier. */
#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "common.glsl"
#ifdef SUBGROUP
#extension GL_KHR_shader_subgroup_arithmetic : require
#endif

layout(local_size_x_id = SPEC_WORKGROUP) in;
layout(push_constant) uniform Constants {
    quantise_constants c;
};

const uint QUADS = QUANTISED_BLOCK / 4;
/* Below this, a block is as good as zero, and 127 / magnitude might overflow. */
const float SMALLEST = 1e-30;

#ifdef NORM
#include "add_lanes.glsl"

float scale_of_row(uint base) {
    float square = 0;
    for (uint i = gl_LocalInvocationID.x; i < QUADS * c.blocks; i += gl_WorkGroupSize.x) {
        vec4 x = c.x.at[base + i];
        square += dot(x, x);
    }
    return inversesqrt(add_all(square) / float(c.columns) + c.epsilon);
}
#else
float scale_of_row(uint base) {
    return 1;
}
#endif

void quantise(uint row, uint block, float row_scale) {
    vec4 x[QUADS];
    float most = 0;
    [[unroll]] for (uint i = 0; i < QUADS; i++) {
        x[i] = c.x.at[row * (c.x_stride / 4) + QUADS * block + i] * row_scale;
#ifdef NORM
        x[i] *= c.multiplier.at[QUADS * block + i];
#endif
        vec4 size = abs(x[i]);
        most = max(most, max(max(size.x, size.y), max(size.z, size.w)));
    }
    float inverse = most > SMALLEST ? 127 / most : 0;
    uvec4 words[2];
    int sums[2];
    [[unroll]] for (uint h = 0; h < 2; h++) {
        ivec4 sum = ivec4(0);
        [[unroll]] for (uint i = 0; i < 4; i++) {
            ivec4 code = ivec4(roundEven(x[4 * h + i] * inverse));
            uvec4 low = uvec4(code) & 0xff;
            words[h][i] = low.x | low.y << 8 | low.z << 16 | low.w << 24;
            sum += code;
        }
        sums[h] = sum.x + sum.y + sum.z + sum.w;
    }
    uint base = row * (c.y_stride / 4), at = 4 * (base + 2 * c.blocks) + 2 * block;
    c.y.at[base + 2 * block] = words[0];
    c.y.at[base + 2 * block + 1] = words[1];
    SCALAR(c.y, at) = floatBitsToUint(most > SMALLEST ? most / 127 : 0);
    SCALAR(c.y, at + 1) = (uint(sums[0]) & 0xffff) | uint(sums[1]) << 16;
}

void main() {
    uint rows = c.session.s.rows;
    uint row = gl_WorkGroupID.y + (c.last_row != 0 ? rows - 1 : 0);
    if (c.session.s.done != 0 || row >= rows)
        return;
    float scale = scale_of_row(row * (c.x_stride / 4));
#ifdef NORM
    for (uint block = gl_LocalInvocationID.x; block < c.blocks; block += gl_WorkGroupSize.x)
        quantise(row, block, scale);
#else
    if (gl_GlobalInvocationID.x < c.blocks)
        quantise(row, gl_GlobalInvocationID.x, scale);
#endif
}
