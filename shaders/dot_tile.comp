/* The dot_* kernels on tiles of ROWS weight rows by COLUMNS tokens, staged through shared memory STEPS steps of
 * k at a time: y[t][r] = epilogue(sum_k W[r][k] x[t][k]), x being quantised (abi.h).
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
#include "dot.glsl"
#include "epilogue.glsl"

const uint STEPS = 2;             /* in one stage */
const uint PITCH = 2 * STEPS + 1; /* in quads: one more than a row, so that rows start in different banks */
const uint BLOCKS = ROWS / 4;     /* of two pairs: pair i and pair i + BLOCKS, for block i */
const uint TOKEN_STRIDE = gl_WorkGroupSize.x / BLOCKS; /* group i of invocations: tokens i, i + TOKEN_STRIDE, ... */
const uint TOKENS = COLUMNS / TOKEN_STRIDE;

/* Even rows come first, so that neighbouring invocations read neighbouring rows. */
shared uvec4 w_codes[ROWS * PITCH];
shared vec2 w_scales[ROWS * STEPS * SCALES];
shared uvec4 x_codes[COLUMNS * PITCH];
shared uvec2 x_scales[COLUMNS * STEPS];

/* Row `row` of the tile, as it lies in shared memory. */
uint place_of(uint row) {
    return row % 2 * (ROWS / 2) + row / 2;
}

/* Steps from `begin` on. Rows and tokens past the end repeat the last one, steps past the end are zero. */
void stage(uint first_row, uint first_token, uint begin) {
    for (uint i = gl_LocalInvocationID.x; i < ROWS * STEPS; i += gl_WorkGroupSize.x) {
        uint place = place_of(i / STEPS), step = i % STEPS;
        uint row = min(first_row + i / STEPS, c.row_count - 1);
        raw_weights raw = load_raw(c.weights, row * c.stride, c.steps, min(begin + step, c.steps - 1));
        [[unroll]] for (uint q = 0; q < 2; q++)
            w_codes[place * PITCH + 2 * step + q] = uvec4(integers(raw, 4 * q), integers(raw, 4 * q + 1),
                                                          integers(raw, 4 * q + 2), integers(raw, 4 * q + 3));
        [[unroll]] for (uint part = 0; part < SCALES; part++)
            w_scales[(place * STEPS + step) * SCALES + part] = scale_of_integers(raw, part);
    }
    for (uint i = gl_LocalInvocationID.x; i < COLUMNS * STEPS; i += gl_WorkGroupSize.x) {
        uint tile_token = i / STEPS, step = begin + i % STEPS;
        uint token = min(first_token + tile_token, c.session.s.rows - 1);
        bool inside = step < c.steps;
        uint at = token * (c.x_stride / 4) + 2 * step, to = tile_token * PITCH + 2 * (i % STEPS);
        x_codes[to] = inside ? c.x.at[at] : uvec4(0);
        x_codes[to + 1] = inside ? c.x.at[at + 1] : uvec4(0);
        x_scales[i] = inside ? load_scale(token, step) : uvec2(0);
    }
}

/* Piece `piece` of a step of a row in shared memory. */
integer_weights staged_weights(uint place, uint step, uint piece) {
    integer_weights w;
    [[unroll]] for (uint q = 0; q < 2 / PIECES; q++) {
        uvec4 quad = w_codes[place * PITCH + 2 * step + piece + q];
        [[unroll]] for (uint i = 0; i < 4; i++)
            w.codes[4 * q + i] = quad[i];
    }
    [[unroll]] for (uint part = 0; part < PARTS; part++)
        w.scale[part] = w_scales[(place * STEPS + step) * SCALES + (PARTS == SCALES ? part : piece)];
    return w;
}

integer_activations staged_activations(uint token, uint step, uint piece) {
    uvec4 quads[2 / PIECES];
    [[unroll]] for (uint q = 0; q < 2 / PIECES; q++)
        quads[q] = x_codes[token * PITCH + 2 * step + piece + q];
    return unpack_activations(quads, x_scales[token * STEPS + step], piece);
}

/* Of this invocation's four rows, two pairs, and the tokens of its group. */
void add_stage(uint block, uint group, inout vec4 sums[TOKENS]) {
    for (uint i = 0; i < STEPS * PIECES; i++) {
        uint step = i / PIECES, piece = i % PIECES;
        integer_weights w[4];
        [[unroll]] for (uint r = 0; r < 4; r++)
            w[r] = staged_weights(r % 2 * (ROWS / 2) + block + r / 2 * BLOCKS, step, piece);
        [[unroll]] for (uint t = 0; t < TOKENS; t++) {
            integer_activations x = staged_activations(group + t * TOKEN_STRIDE, step, piece);
            sums[t] += vec4(product(w[0], x), product(w[1], x), product(w[2], x), product(w[3], x));
        }
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
    for (uint begin = 0; begin < c.steps; begin += STEPS) {
        stage(first_row, first_token, begin);
        barrier();
        add_stage(block, group, sums);
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
