/* y[t][r] = epilogue(sum_k W[r][k] x[t][k]) on tiles of ROWS weight rows by COLUMNS tokens, staged through
 * shared memory STEPS * 8 elements of k at a time; the input is already normed.
 *
 * Grid (ceil(row_count / ROWS), ceil(rows / COLUMNS), 1), y = 1 where last_row is set. Each invocation
 * makes two pairs of rows for TOKENS tokens, so ROWS is a multiple of 4, and ROWS * COLUMNS one of four
 * times the workgroup. */
#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "common.glsl"
#include "weights.glsl"

layout(local_size_x_id = SPEC_WORKGROUP) in;
layout(constant_id = SPEC_ROWS) const uint ROWS = 64;
layout(constant_id = SPEC_COLUMNS) const uint COLUMNS = 32;
layout(push_constant) uniform Constants {
    project_constants c;
};
#include "epilogue.glsl"

const uint STEPS = ROWS + COLUMNS <= 112 ? 4u : 2u; /* in one stage, of eight elements: within 16 KiB */
const uint PITCH = 2 * STEPS + 1; /* in vec4: one more than a row, so that rows start in different banks */
const uint BLOCKS = ROWS / 4;     /* of two pairs: pair i and pair i + BLOCKS, for block i */
const uint TOKEN_STRIDE = gl_WorkGroupSize.x / BLOCKS; /* group i of invocations: tokens i, i + TOKEN_STRIDE, ... */
const uint TOKENS = COLUMNS / TOKEN_STRIDE;

/* Even rows come first, so that neighbouring invocations read neighbouring rows. */
shared vec4 w_tile[ROWS * PITCH];
shared vec4 x_tile[COLUMNS * PITCH];

/* Elements of k from `begin` on. Rows and tokens past the end repeat the last one, elements past the end
 * are zero. */
void stage(uint first_row, uint first_token, uint begin) {
    const uint units = 2 * STEPS / UNIT_GROUPS; /* in one stage */
    uint columns = c.steps * STEP;
    for (uint i = gl_LocalInvocationID.x; i < ROWS * units; i += gl_WorkGroupSize.x) {
        uint row = i / units, unit = begin / (4 * UNIT_GROUPS) + i % units;
        vec4 w[UNIT_GROUPS];
        [[unroll]] for (uint g = 0; g < UNIT_GROUPS; g++)
            w[g] = vec4(0);
        if (unit * 4 * UNIT_GROUPS < columns)
            load_unit(c.weights, min(first_row + row, c.row_count - 1) * c.stride, c.steps, unit, w);
        uint at = (row % 2 * (ROWS / 2) + row / 2) * PITCH + i % units * UNIT_GROUPS;
        [[unroll]] for (uint g = 0; g < UNIT_GROUPS; g++)
            w_tile[at + g] = w[g];
    }
    for (uint i = gl_LocalInvocationID.x; i < COLUMNS * STEPS * 2; i += gl_WorkGroupSize.x) {
        uint token = i / (STEPS * 2), quad = i % (STEPS * 2);
        vec4 x = vec4(0);
        if (begin + 4 * quad < columns)
            x = c.x.at[min(first_token + token, c.session.s.rows - 1) * (c.x_stride / 4) + begin / 4 + quad];
        x_tile[token * PITCH + quad] = x;
    }
}

void main() {
    uint rows = c.session.s.rows;
    uint first_row = gl_WorkGroupID.x * ROWS;
    uint first_token = gl_WorkGroupID.y * COLUMNS + (c.last_row != 0 ? rows - 1 : 0);
    if (c.session.s.done != 0 || first_token >= rows)
        return;
    uint block = gl_LocalInvocationID.x % BLOCKS, group = gl_LocalInvocationID.x / BLOCKS;
    vec4 sums[TOKENS]; /* rows 2 * block, 2 * block + 1, and the same of the pair BLOCKS further on */
    [[unroll]] for (uint t = 0; t < TOKENS; t++)
        sums[t] = vec4(0);
    for (uint begin = 0; begin < c.steps * STEP; begin += 8 * STEPS) {
        stage(first_row, first_token, begin);
        barrier();
        for (uint k = 0; k < 2 * STEPS; k++) {
            vec4 w[4];
            [[unroll]] for (uint r = 0; r < 4; r++)
                w[r] = w_tile[(r % 2 * (ROWS / 2) + r / 2 * BLOCKS + block) * PITCH + k];
            [[unroll]] for (uint t = 0; t < TOKENS; t++) {
                vec4 x = x_tile[(group + t * TOKEN_STRIDE) * PITCH + k];
                sums[t] += vec4(dot(w[0], x), dot(w[1], x), dot(w[2], x), dot(w[3], x));
            }
        }
        barrier();
    }
    [[unroll]] for (uint t = 0; t < TOKENS; t++) {
        uint token = first_token + group + t * TOKEN_STRIDE;
        [[unroll]] for (uint p = 0; p < 2; p++) {
            uint row = first_row + 2 * (block + p * BLOCKS);
            if (token < rows && row < c.row_count)
                finish(c.row_begin + row, token, p == 0 ? sums[t].xy : sums[t].zw, row + 1 < c.row_count);
        }
    }
}
