/* result[q] = sum_p softmax_p(scale * query[q] . K[p]) V[p], causal; see attention_task.glsl for the grids.
 *
 * One subgroup a workgroup, no shared memory, no barrier. For scores a lane is a position and makes the
 * whole dot product for every query; for the result a lane is a set of dimensions, and the probabilities
 * are passed around by shuffles. Keys and values are read once for all queries. */
#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_KHR_shader_subgroup_arithmetic : require
#extension GL_KHR_shader_subgroup_shuffle : require
#include "common.glsl"
#include "attention_task.glsl"

const uint LANES = gl_WorkGroupSize.x;
const uint HELD = (OCTETS + LANES - 1) / LANES; /* octets of the result in each lane */

vec4 low[HELD * QUERIES], high[HELD * QUERIES];
float maximum[QUERIES], weight[QUERIES], scores[QUERIES];

/* Lane i's scores are those of position base + i. */
void score_tile(uint base, uint end) {
    uint position = base + gl_LocalInvocationID.x;
    [[unroll]] for (uint q = 0; q < QUERIES; q++)
        scores[q] = 0;
    if (position < end) {
        for (uint octet = 0; octet < OCTETS; octet++) {
            vec4 k_low, k_high;
            load_kv(KEYS, gl_WorkGroupID.y, position, octet, k_low, k_high);
            [[unroll]] for (uint q = 0; q < QUERIES; q++) {
                uint at = vector_of(q) + 2 * octet;
                scores[q] += dot(c.query.at[at], k_low) + dot(c.query.at[at + 1], k_high);
            }
        }
    }
    [[unroll]] for (uint q = 0; q < QUERIES; q++)
        scores[q] = position < end && position < length_of(q) ? scores[q] * c.scale : LOWEST;
}

/* Scores become probabilities; what was added up before is scaled to the new maximum. */
void exponentiate() {
    [[unroll]] for (uint q = 0; q < QUERIES; q++) {
        float top = max(maximum[q], subgroupMax(scores[q]));
        float rescale = exp(maximum[q] - top);
        scores[q] = scores[q] > LOWEST ? exp(scores[q] - top) : 0.0;
        weight[q] = weight[q] * rescale + subgroupAdd(scores[q]);
        maximum[q] = top;
        [[unroll]] for (uint h = 0; h < HELD; h++) {
            low[h * QUERIES + q] *= rescale;
            high[h * QUERIES + q] *= rescale;
        }
    }
}

void add_values(uint base, uint count) {
    for (uint place = 0; place < count; place++) {
        float p[QUERIES];
        [[unroll]] for (uint q = 0; q < QUERIES; q++)
            p[q] = subgroupShuffle(scores[q], place);
        [[unroll]] for (uint h = 0; h < HELD; h++) {
            uint octet = gl_LocalInvocationID.x + h * LANES;
            if (octet < OCTETS) {
                vec4 v_low, v_high;
                load_kv(VALUES, gl_WorkGroupID.y, base + place, octet, v_low, v_high);
                [[unroll]] for (uint q = 0; q < QUERIES; q++) {
                    low[h * QUERIES + q] += p[q] * v_low;
                    high[h * QUERIES + q] += p[q] * v_high;
                }
            }
        }
    }
}

void main() {
    if (c.session.s.done != 0 || first_row() >= c.session.s.rows)
        return;
    uint begin, end;
    range(begin, end);
    [[unroll]] for (uint i = 0; i < HELD * QUERIES; i++)
        low[i] = high[i] = vec4(0);
    [[unroll]] for (uint q = 0; q < QUERIES; q++) {
        maximum[q] = LOWEST;
        weight[q] = 0;
    }
    for (uint base = begin; base < end; base += LANES) {
        score_tile(base, end);
        exponentiate();
        add_values(base, min(end - base, LANES));
    }
    [[unroll]] for (uint i = 0; i < HELD * QUERIES; i++) {
        uint octet = gl_LocalInvocationID.x + i / QUERIES * LANES;
        if (octet < OCTETS) {
            store(i % QUERIES, 2 * octet, low[i], weight[i % QUERIES]);
            store(i % QUERIES, 2 * octet + 1, high[i], weight[i % QUERIES]);
        }
    }
    if (gl_LocalInvocationID.x == 0) {
        [[unroll]] for (uint q = 0; q < QUERIES; q++)
            store_weight(q, maximum[q], weight[q]);
    }
}
