/* y[t][r] = epilogue(sum_k W[r][k] x[t][k]) for COLUMNS rows of activations at once, W being read once for
 * all of them. The QKV, GEGLU and HEAD products norm their input on the way,
 *     y = sum_k W[r][k] x[k] m[k] / sqrt(mean(x^2) + epsilon),
 * whose sum of squares costs no further pass over x; NORMED leaves that out, for input already normed. With DOT,
 * x is quantised (abi.h), and normed before that.
 *
 * Grid (ceil(row_count / ROWS), ceil(rows / COLUMNS), 1), y = 1 where last_row is set. A workgroup makes
 * ROWS neighbouring rows; its invocations share k, a step of the weights' type at a time. With SUBGROUP the workgroup
 * is one subgroup: no shared memory, no barrier. */
#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "common.glsl"
#ifdef SUBGROUP
#extension GL_KHR_shader_subgroup_arithmetic : require
#endif
#include "weights.glsl"

#if defined(EPILOGUE_RESIDUAL) || defined(NORMED) || defined(DOT)
const uint NORMS = 0;
#else
const uint NORMS = 1; /* sums of squares to a token */
#define NORM
#endif

layout(local_size_x_id = SPEC_WORKGROUP) in;
layout(constant_id = SPEC_ROWS) const uint ROWS = 4;
layout(constant_id = SPEC_COLUMNS) const uint COLUMNS = 8;
layout(push_constant) uniform Constants {
    project_constants c;
};
#include "epilogue.glsl"

#ifndef DOT
/* Steps whose weights an invocation requests at once. More in flight hides a GPU's latency where the
 * registers allow it; a CPU gains nothing. */
const uint WIDE_UNROLL = ROWS + COLUMNS <= 8 && !SCALED ? 2u : 1u;
const uint UNROLL = gl_WorkGroupSize.x >= 32 ? WIDE_UNROLL : 1u;
const uint LATE_COLUMNS = OF_BATCH ? 1u : COLUMNS; /* a batch's sums are those of one row, to the bit */
const bool LATE = SCALED && LATE_COLUMNS <= 2;
#endif
const uint PAIRS = ROWS / 2 * COLUMNS;

/* The sums of [token][row], then the sums of squares of [token]. */
const uint SQUARES = ROWS * COLUMNS;
const uint TOTALS = SQUARES + NORMS * COLUMNS;
float sums[TOTALS];

#ifdef DOT
#include "dot.glsl"

/* Adds a piece of a step of all rows to the sums of all tokens. */
void add_piece(uint first_token, uint step, uint piece, raw_weights raw[ROWS]) {
    integer_weights w[ROWS];
    [[unroll]] for (uint r = 0; r < ROWS; r++)
        w[r] = take_piece(raw[r], piece);
    [[unroll]] for (uint t = 0; t < COLUMNS; t++) {
        uint token = min(first_token + t, c.session.s.rows - 1);
        uint at = token * (c.x_stride / 4) + 2 * step + piece;
        uvec4 quads[2 / PIECES];
        [[unroll]] for (uint q = 0; q < 2 / PIECES; q++)
            quads[q] = c.x.at[at + q];
        integer_activations x = unpack_activations(quads, load_scale(token, step), piece);
        [[unroll]] for (uint r = 0; r < ROWS; r++)
            sums[t * ROWS + r] += product(w[r], x);
    }
}

/* This invocation's share of all sums. Rows and tokens past the end repeat the last one. */
void accumulate(uint first_row, uint first_token) {
    for (uint step = gl_LocalInvocationID.x; step < c.steps; step += gl_WorkGroupSize.x) {
        raw_weights raw[ROWS];
        [[unroll]] for (uint r = 0; r < ROWS; r++)
            raw[r] = load_raw(c.weights, min(first_row + r, c.row_count - 1) * c.stride, c.steps, step);
        [[unroll]] for (uint piece = 0; piece < PIECES; piece++)
            add_piece(first_token, step, piece, raw);
    }
}
#else
/* Group `group` of a step of token `token`, normed but for the scale; its squares are added to theirs. Tokens
 * past the end repeat the last one; a step that is not inside counts nothing. */
vec4 activations(uint first_token, uint token, uint group, bool inside) {
    uint row = min(first_token + token, c.session.s.rows - 1);
    vec4 x = c.x.at[row * (c.x_stride / 4) + group];
    x = inside ? x : vec4(0);
#ifdef NORM
    sums[SQUARES + token] += dot(x, x);
    x *= c.multiplier.at[group];
#endif
    return x;
}

/* Adds part `part` of SCALES of a step of all rows to the sums of all tokens. With LATE, the products of the
 * part's values are added up as they are and then scaled; more tokens want registers for their sums and share
 * scaled weights. A row is widened only where it is used, so that its values need not all be held at once. */
void add_part(uint first_token, uint step, bool inside, uint part, raw_weights raw[ROWS]) {
    float parts[SQUARES], totals[COLUMNS];
    vec2 scale[ROWS];
    [[unroll]] for (uint i = 0; i < SQUARES; i++)
        parts[i] = LATE ? 0 : sums[i];
    [[unroll]] for (uint t = 0; t < COLUMNS; t++)
        totals[t] = 0;
    [[unroll]] for (uint r = 0; r < ROWS; r++)
        scale[r] = scale_of(raw[r], part);
    [[unroll]] for (uint i = 0; i < GROUPS / SCALES; i++) {
        uint group = part * (GROUPS / SCALES) + i;
        [[unroll]] for (uint t = 0; t < COLUMNS; t++) {
            vec4 x = activations(first_token, t, GROUPS * step + group, inside);
            if (LATE)
                totals[t] += x.x + x.y + x.z + x.w;
            [[unroll]] for (uint r = 0; r < ROWS; r++) {
                vec4 w = values(raw[r], group);
                if (SCALED && !LATE)
                    w = w * scale[r].x + scale[r].y;
                parts[t * ROWS + r] += dot(w, x);
            }
        }
    }
    [[unroll]] for (uint i = 0; i < SQUARES; i++)
        sums[i] = LATE ? sums[i] + scale[i % ROWS].x * parts[i] + scale[i % ROWS].y * totals[i / ROWS] : parts[i];
}

/* This invocation's share of all sums. Rows and steps past the end repeat the last one. */
void accumulate(uint first_row, uint first_token) {
    for (uint begin = gl_LocalInvocationID.x; begin < c.steps; begin += UNROLL * gl_WorkGroupSize.x) {
        raw_weights raw[UNROLL * ROWS];
        [[unroll]] for (uint i = 0; i < UNROLL * ROWS; i++) {
            uint row = min(first_row + i % ROWS, c.row_count - 1);
            uint step = min(begin + i / ROWS * gl_WorkGroupSize.x, c.steps - 1);
            raw[i] = load_raw(c.weights, row * c.stride, c.steps, step);
        }
        [[unroll]] for (uint u = 0; u < UNROLL; u++) {
            raw_weights rows[ROWS];
            [[unroll]] for (uint r = 0; r < ROWS; r++)
                rows[r] = raw[u * ROWS + r];
            uint step = begin + u * gl_WorkGroupSize.x;
            [[unroll]] for (uint part = 0; part < SCALES; part++)
                add_part(first_token, min(step, c.steps - 1), u == 0 || step < c.steps, part, rows);
        }
    }
}
#endif

/* add_all() adds up the whole workgroup's sums; then total_pair(i) is what rows 2r and 2r + 1 of the
 * workgroup made of token t, i = t * ROWS / 2 + r, and total_square(t) the token's sum of squares. */
#ifdef SUBGROUP
void add_all() {
    [[unroll]] for (uint i = 0; i < TOTALS; i++)
        sums[i] = subgroupAdd(sums[i]);
}

vec2 total_pair(uint index) {
    vec2 pair = vec2(0);
    [[unroll]] for (uint i = 0; i < PAIRS; i++)
        if (i == index)
            pair = vec2(sums[2 * i], sums[2 * i + 1]);
    return pair;
}

float total_square(uint token) {
    float square = 0;
#ifdef NORM
    [[unroll]] for (uint t = 0; t < COLUMNS; t++)
        if (t == token)
            square = sums[SQUARES + t];
#endif
    return square;
}
#else
/* BATCH sums at a time: SEGMENTS invocations add up one each in part, and the reader adds the parts. */
const uint BATCH = 16;
const uint SEGMENTS = gl_WorkGroupSize.x / BATCH;
const uint PITCH = BATCH + 1;
shared float own[gl_WorkGroupSize.x * PITCH];
shared float parts[TOTALS * SEGMENTS];

void add_all() {
    uint lane = gl_LocalInvocationID.x, segment = lane / BATCH;
    [[unroll]] for (uint begin = 0; begin < TOTALS; begin += BATCH) {
        [[unroll]] for (uint i = 0; i < BATCH; i++)
            if (begin + i < TOTALS)
                own[lane * PITCH + i] = sums[begin + i];
        barrier();
        uint index = begin + lane % BATCH;
        if (index < TOTALS) {
            float part = 0;
            [[unroll]] for (uint j = 0; j < BATCH; j++)
                part += own[(segment * BATCH + j) * PITCH + lane % BATCH];
            parts[index * SEGMENTS + segment] = part;
        }
        barrier();
    }
}

float total(uint index) {
    float sum = 0;
    [[unroll]] for (uint i = 0; i < SEGMENTS; i++)
        sum += parts[index * SEGMENTS + i];
    return sum;
}

vec2 total_pair(uint index) {
    return vec2(total(2 * index), total(2 * index + 1));
}

float total_square(uint token) {
    return total(SQUARES + token);
}
#endif

void main() {
    uint rows = c.session.s.rows;
    uint first_row = gl_WorkGroupID.x * ROWS;
    uint first_token = gl_WorkGroupID.y * COLUMNS + (c.last_row != 0 ? rows - 1 : 0);
    if (c.session.s.done != 0 || first_token >= rows)
        return;
    [[unroll]] for (uint i = 0; i < TOTALS; i++)
        sums[i] = 0;
    accumulate(first_row, first_token);
    add_all();
    for (uint i = gl_LocalInvocationID.x; i < PAIRS; i += gl_WorkGroupSize.x) {
        uint token = i / (ROWS / 2), row = first_row + i % (ROWS / 2) * 2;
        if (first_token + token >= rows || row >= c.row_count)
            continue;
        vec2 pair = total_pair(i);
#ifdef NORM
        pair *= inversesqrt(total_square(token) / float(c.columns) + c.epsilon);
#endif
        finish(c.row_begin + row, first_token + token, pair, row + 1 < c.row_count);
    }
}
