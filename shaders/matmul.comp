/* y[t][r] = epilogue(sum_k W[r][k] x[t][k]) on tiles of ROWS weight rows by COLUMNS tokens, staged through
 * shared memory 32 elements of k at a time; the input is already normed.
 *
 * Grid (ceil(row_count / ROWS), ceil(rows / COLUMNS), 1). Each invocation makes one pair of rows for
 * EACH tokens: ROWS / 2 pairs times (workgroup / (ROWS / 2)) groups of tokens. */
#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "common.glsl"
#include "weights.glsl"

layout(local_size_x_id = SPEC_WORKGROUP) in;
layout(constant_id = SPEC_ROWS) const uint ROWS = 32;
layout(constant_id = SPEC_COLUMNS) const uint COLUMNS = 32;
layout(push_constant) uniform Constants {
    project_constants c;
};
#include "epilogue.glsl"

const uint STEPS = 4;             /* of eight elements, in one stage */
const uint PITCH = 2 * STEPS + 1; /* in vec4: one more than a row, so that rows start in different banks */
const uint PAIRS = ROWS / 2;
const uint EACH = PAIRS * COLUMNS / gl_WorkGroupSize.x;

shared vec4 w_tile[ROWS * PITCH];
shared vec4 x_tile[COLUMNS * PITCH];

/* Rows past the end repeat the last, steps past the end are zero. */
void stage(uint first_row, uint first_token, uint begin, uint steps) {
    for (uint i = gl_LocalInvocationID.x; i < ROWS * STEPS; i += gl_WorkGroupSize.x) {
        uint row = min(first_row + i / STEPS, c.row_count - 1), step = begin + i % STEPS;
        vec4 low = vec4(0), high = vec4(0);
        if (step < steps)
            load_weights(c.weights, row * steps + step, low, high);
        w_tile[i / STEPS * PITCH + i % STEPS * 2] = low;
        w_tile[i / STEPS * PITCH + i % STEPS * 2 + 1] = high;
    }
    for (uint i = gl_LocalInvocationID.x; i < COLUMNS * STEPS * 2; i += gl_WorkGroupSize.x) {
        uint token = min(first_token + i / (2 * STEPS), c.session.s.rows - 1);
        uint quad = 2 * begin + i % (2 * STEPS);
        x_tile[i / (2 * STEPS) * PITCH + i % (2 * STEPS)] =
            quad < 2 * steps ? c.x.at[token * (c.x_stride / 4) + quad] : vec4(0);
    }
}

void main() {
    uint rows = c.session.s.rows;
    uint first_row = gl_WorkGroupID.x * ROWS, first_token = gl_WorkGroupID.y * COLUMNS;
    if (c.session.s.done != 0 || first_token >= rows)
        return;
    uint pair = gl_LocalInvocationID.x % PAIRS, group = gl_LocalInvocationID.x / PAIRS * EACH;
    float a[EACH], b[EACH];
    [[unroll]] for (uint t = 0; t < EACH; t++)
        a[t] = b[t] = 0;
    uint steps = c.stride / QUADS_PER_STEP;
    for (uint begin = 0; begin < steps; begin += STEPS) {
        stage(first_row, first_token, begin, steps);
        barrier();
        for (uint k = 0; k < 2 * STEPS; k++) {
            vec4 w_a = w_tile[2 * pair * PITCH + k], w_b = w_tile[(2 * pair + 1) * PITCH + k];
            [[unroll]] for (uint t = 0; t < EACH; t++) {
                vec4 x = x_tile[(group + t) * PITCH + k];
                a[t] += dot(w_a, x);
                b[t] += dot(w_b, x);
            }
        }
        barrier();
    }
    uint row = first_row + 2 * pair;
    [[unroll]] for (uint t = 0; t < EACH; t++)
        if (row < c.row_count && first_token + group + t < rows)
            finish(c.row_begin + row, first_token + group + t, a[t], b[t], row + 1 < c.row_count);
}
