/* The float types, widened exactly: see weights.glsl. A row is its elements. */

const bool SCALED = false;
const uint GROUPS = 2, SCALES = 1;
const uint QUADS_PER_STEP = LOW_BITS / 16;
const uint UNIT_GROUPS = 2;

struct raw_weights {
    uvec4 quads[QUADS_PER_STEP];
};

/* Step `step` of the row that begins at quad `base`. */
raw_weights load_raw(Quads weights, uint base, uint steps, uint step) {
    raw_weights raw;
    [[unroll]] for (uint i = 0; i < QUADS_PER_STEP; i++)
        raw.quads[i] = weights.at[base + QUADS_PER_STEP * step + i];
    return raw;
}

vec4 values(raw_weights raw, uint group) {
#ifdef WEIGHT_F32
    return uintBitsToFloat(raw.quads[group]);
#else
    uvec2 pairs = group == 0 ? raw.quads[0].xy : raw.quads[0].zw;
#ifdef WEIGHT_BF16
    return uintBitsToFloat(uvec4(pairs.x << 16, pairs.x & 0xffff0000, pairs.y << 16, pairs.y & 0xffff0000));
#else
    return widen_halves(uvec4(pairs.x & 0xffff, pairs.x >> 16, pairs.y & 0xffff, pairs.y >> 16));
#endif
#endif
}

vec2 scale_of(raw_weights raw, uint part) {
    return vec2(1, 0);
}

/* Weights of unit `unit` of a row: UNIT_GROUPS groups, here a step. */
void load_unit(Quads weights, uint base, uint steps, uint unit, out vec4 w[UNIT_GROUPS]) {
    raw_weights raw = load_raw(weights, base, steps, unit);
    w[0] = values(raw, 0);
    w[1] = values(raw, 1);
}
