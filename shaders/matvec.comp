/* y[t][r] = epilogue(sum_k W[r][k] x[t][k]) for up to COLUMNS rows of activations at once: W is read once
 * for all of them. The QKV, GEGLU and HEAD products norm their input on the way,
 *     y = sum_k W[r][k] x[k] m[k] / sqrt(mean(x^2) + epsilon),
 * whose sum of squares costs no further pass over x; NORMED leaves that out, for input already normed.
 *
 * Grid (ceil(row_count / ROWS), ceil(rows / COLUMNS), 1). A workgroup makes ROWS neighbouring rows; its
 * invocations share k, eight elements at a time. With SUBGROUP the workgroup is one subgroup: no shared
 * memory, no barrier. */
#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "common.glsl"
#ifdef SUBGROUP
#extension GL_KHR_shader_subgroup_arithmetic : require
#endif
#include "weights.glsl"

#if !defined(EPILOGUE_RESIDUAL) && !defined(NORMED)
#define NORM
#endif

layout(local_size_x_id = SPEC_WORKGROUP) in;
layout(constant_id = SPEC_ROWS) const uint ROWS = 4;
layout(constant_id = SPEC_COLUMNS) const uint COLUMNS = 8;
layout(push_constant) uniform Constants {
    project_constants c;
};
#include "epilogue.glsl"

const uint PAIRS = ROWS / 2 * COLUMNS;
float sums[ROWS * COLUMNS];
float squares[COLUMNS];

/* This invocation's share of all sums. */
void accumulate(uint first_row, uint first_token, uint tokens) {
    uint steps = c.stride / QUADS_PER_STEP;
    for (uint step = gl_LocalInvocationID.x; step < steps; step += gl_WorkGroupSize.x) {
        vec4 low[ROWS], high[ROWS];
        [[unroll]] for (uint r = 0; r < ROWS; r++)
            load_weights(c.weights, min(first_row + r, c.row_count - 1) * steps + step, low[r], high[r]);
#ifdef NORM
        vec4 low_multiplier = c.multiplier.at[2 * step], high_multiplier = c.multiplier.at[2 * step + 1];
#endif
        [[unroll]] for (uint t = 0; t < COLUMNS; t++) {
            if (t >= tokens)
                break;
            uint at = (first_token + t) * (c.x_stride / 4) + 2 * step;
            vec4 x_low = c.x.at[at], x_high = c.x.at[at + 1];
#ifdef NORM
            squares[t] += dot(x_low, x_low) + dot(x_high, x_high);
            x_low *= low_multiplier;
            x_high *= high_multiplier;
#endif
            [[unroll]] for (uint r = 0; r < ROWS; r++)
                sums[t * ROWS + r] += dot(low[r], x_low) + dot(high[r], x_high);
        }
    }
}

/* The whole workgroup's sums in every invocation that needs them. */
#ifdef SUBGROUP
void add_all() {
    [[unroll]] for (uint i = 0; i < ROWS * COLUMNS; i++)
        sums[i] = subgroupAdd(sums[i]);
#ifdef NORM
    [[unroll]] for (uint t = 0; t < COLUMNS; t++)
        squares[t] = subgroupAdd(squares[t]);
#endif
}
#else
const uint TOTALS = (ROWS + 1) * COLUMNS;
shared float parts[TOTALS * gl_WorkGroupSize.x];
shared float totals[TOTALS];

void add_all() {
    uint lane = gl_LocalInvocationID.x;
    [[unroll]] for (uint i = 0; i < ROWS * COLUMNS; i++)
        parts[i * gl_WorkGroupSize.x + lane] = sums[i];
    [[unroll]] for (uint t = 0; t < COLUMNS; t++)
        parts[(ROWS * COLUMNS + t) * gl_WorkGroupSize.x + lane] = squares[t];
    barrier();
    for (uint i = lane; i < TOTALS; i += gl_WorkGroupSize.x) {
        float total = 0;
        for (uint j = 0; j < gl_WorkGroupSize.x; j++)
            total += parts[i * gl_WorkGroupSize.x + j];
        totals[i] = total;
    }
    barrier();
    [[unroll]] for (uint i = 0; i < ROWS * COLUMNS; i++)
        sums[i] = totals[i];
    [[unroll]] for (uint t = 0; t < COLUMNS; t++)
        squares[t] = totals[ROWS * COLUMNS + t];
}
#endif

void main() {
    uint rows = c.session.s.rows;
    uint first_row = gl_WorkGroupID.x * ROWS;
    uint first_token = c.last_row != 0 ? rows - 1 : gl_WorkGroupID.y * COLUMNS;
    if (c.session.s.done != 0 || first_token >= rows)
        return;
    uint tokens = min(rows - first_token, COLUMNS);
    [[unroll]] for (uint i = 0; i < ROWS * COLUMNS; i++)
        sums[i] = 0;
    [[unroll]] for (uint t = 0; t < COLUMNS; t++)
        squares[t] = 0;
    accumulate(first_row, first_token, tokens);
    add_all();
#ifdef NORM
    [[unroll]] for (uint i = 0; i < ROWS * COLUMNS; i++)
        sums[i] *= inversesqrt(squares[i / ROWS] / float(c.columns) + c.epsilon);
#endif
    /* an invocation a pair: each picks its own by comparing, as registers cannot be indexed */
    for (uint base = 0; base < PAIRS; base += gl_WorkGroupSize.x) {
        uint mine = base + gl_LocalInvocationID.x;
        float a = 0, b = 0;
        [[unroll]] for (uint i = 0; i < PAIRS; i++) {
            a = i == mine ? sums[2 * i] : a;
            b = i == mine ? sums[2 * i + 1] : b;
        }
        uint row = first_row + 2 * (mine % (ROWS / 2)), token = mine / (ROWS / 2);
        if (token < tokens && row < c.row_count)
            finish(c.row_begin + row, first_token + token, a, b, row + 1 < c.row_count);
    }
}
