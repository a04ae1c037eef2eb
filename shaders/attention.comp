/* result[q] = sum_p softmax_p(scale * query[q] . K[p]) V[p], causal; see attention_task.glsl for the grids.
 *
 * Portable: tiles of TILE positions. First, invocation (position, slice of the dimensions) makes partial
 * scores for all queries, so that a key is read once; then the scores become probabilities in shared
 * memory; then each invocation adds up four dimensions (eight would spill Intel's registers) for all queries,
 * so that a value is read once. The groups of invocations that share dimensions take positions in turn and
 * are summed at the end. */
#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "common.glsl"
#include "attention_task.glsl"

const uint TILE = 32;
const uint SLICES = gl_WorkGroupSize.x / TILE;
const uint LANES = gl_WorkGroupSize.x;
/* Fours of the result that each invocation holds, and invocations that share one. */
const uint FOURS = HEAD_DIM / 4;
const uint HELD = (FOURS + LANES - 1) / LANES;
const uint SHARERS = FOURS >= LANES ? 1 : LANES / FOURS;

shared float partial_scores[SLICES * QUERIES * TILE];
shared float probability[QUERIES * TILE];
shared float maximum[QUERIES], weight[QUERIES], rescale[QUERIES];
shared vec4 landing[LANES];

void score_tile(uint base, uint end) {
    uint place = gl_LocalInvocationID.x % TILE, slice = gl_LocalInvocationID.x / TILE;
    float sums[QUERIES];
    [[unroll]] for (uint q = 0; q < QUERIES; q++)
        sums[q] = 0;
    if (base + place < end) {
        for (uint octet = slice; octet < OCTETS; octet += SLICES) {
            vec4 low, high;
            load_kv(KEYS, gl_WorkGroupID.y, base + place, octet, low, high);
            [[unroll]] for (uint q = 0; q < QUERIES; q++) {
                uint at = vector_of(q) + 2 * octet;
                sums[q] += dot(c.query.at[at], low) + dot(c.query.at[at + 1], high);
            }
        }
    }
    [[unroll]] for (uint q = 0; q < QUERIES; q++)
        partial_scores[(slice * QUERIES + q) * TILE + place] = sums[q];
}

void sum_slices(uint base, uint end) {
    for (uint i = gl_LocalInvocationID.x; i < QUERIES * TILE; i += LANES) {
        float score = 0;
        for (uint slice = 0; slice < SLICES; slice++)
            score += partial_scores[slice * QUERIES * TILE + i];
        uint position = base + i % TILE;
        bool seen = position < end && position < length_of(i / TILE);
        probability[i] = seen ? score * c.scale : LOWEST;
    }
}

/* One invocation a query: the running maximum and weight, and what earlier sums are scaled by. */
void exponentiate() {
    for (uint q = gl_LocalInvocationID.x; q < QUERIES; q += LANES) {
        float before = maximum[q], top = before, sum = 0;
        for (uint i = 0; i < TILE; i++)
            top = max(top, probability[q * TILE + i]);
        for (uint i = 0; i < TILE; i++) {
            float score = probability[q * TILE + i];
            float p = score > LOWEST ? exp(score - top) : 0.0;
            probability[q * TILE + i] = p;
            sum += p;
        }
        rescale[q] = exp(before - top);
        weight[q] = weight[q] * rescale[q] + sum;
        maximum[q] = top;
    }
}

void main() {
    if (c.session.s.done != 0 || first_row() >= c.session.s.rows)
        return;
    uint begin, end, lane = gl_LocalInvocationID.x;
    range(begin, end);
    vec4 sums[HELD * QUERIES];
    [[unroll]] for (uint i = 0; i < HELD * QUERIES; i++)
        sums[i] = vec4(0);
    for (uint q = lane; q < QUERIES; q += LANES) {
        maximum[q] = LOWEST;
        weight[q] = 0;
    }
    uint sharer = SHARERS > 1 ? lane / FOURS : 0, first = SHARERS > 1 ? lane % FOURS : lane;
    for (uint base = begin; base < end; base += TILE) {
        score_tile(base, end);
        barrier();
        sum_slices(base, end);
        barrier();
        exponentiate();
        barrier();
        [[unroll]] for (uint i = 0; i < HELD * QUERIES; i++)
            sums[i] *= rescale[i % QUERIES];
        uint count = min(end - base, TILE);
        for (uint place = sharer; place < count && sharer < SHARERS; place += SHARERS) {
            [[unroll]] for (uint h = 0; h < HELD; h++) {
                uint four = first + h * LANES;
                if (four >= FOURS)
                    break;
                vec4 value = load_kv_four(VALUES, gl_WorkGroupID.y, base + place, four);
                [[unroll]] for (uint q = 0; q < QUERIES; q++)
                    sums[h * QUERIES + q] += probability[q * TILE + place] * value;
            }
        }
        barrier();
    }
    barrier();
    [[unroll]] for (uint i = 0; i < HELD * QUERIES; i++) {
        uint q = i % QUERIES, four = first + i / QUERIES * LANES;
        landing[lane] = sums[i];
        barrier();
        if (sharer == 0 && four < FOURS) {
            vec4 sum = sums[i];
            for (uint s = 1; s < SHARERS; s++)
                sum += landing[s * FOURS + first];
            store(q, four, sum, weight[q]);
        }
        barrier();
    }
    for (uint q = lane; q < QUERIES; q += LANES)
        store_weight(q, maximum[q], weight[q]);
}
