/* Weights in blocks: see weights.glsl, and host/device_rows.h for how a row lies in memory. A step is 32
 * elements; K formats have eight of them in a block, the others one. Elements 4g to 4g + 3 have the bytes
 * of one word for their codes, so that one shift and one mask unpack four. */

const bool SCALED = true;
const uint GROUPS = 8;
const uint STEPS_PER_BLOCK = HEADER_BYTES != 0 ? 8 : 1;
const uint UNIT_GROUPS = 4;
#if defined(WEIGHT_Q2_K) || defined(WEIGHT_Q3_K) || defined(WEIGHT_Q6_K)
const uint SCALES = 2; /* to a step */
#else
const uint SCALES = 1;
#endif

struct raw_weights {
    uint low[LOW_BITS]; /* words: a bit of 32 elements is one */
#if HIGH_BITS != 0
    uint high[HIGH_BITS];
#endif
#if HEADER_BYTES != 0
    uvec4 header;
    uint sub; /* which step of its block */
#endif
#if SCALE_BYTES != 0
    uint scale;
#endif
};

raw_weights load_raw(Quads weights, uint base, uint steps, uint step) {
    raw_weights raw;
#if LOW_BITS >= 4
    [[unroll]] for (uint i = 0; i < LOW_BITS / 4; i++) {
        uvec4 quad = weights.at[base + LOW_BITS / 4 * step + i];
        [[unroll]] for (uint j = 0; j < 4; j++)
            raw.low[4 * i + j] = quad[j];
    }
#else
    [[unroll]] for (uint i = 0; i < LOW_BITS; i++)
        raw.low[i] = SCALAR(weights, 4 * base + LOW_BITS * step + i);
#endif
    base += (steps * LOW_BITS + 3) / 4;
#if HIGH_BITS != 0
    [[unroll]] for (uint i = 0; i < HIGH_BITS; i++)
        raw.high[i] = SCALAR(weights, 4 * base + HIGH_BITS * step + i);
    base += (steps * HIGH_BITS + 3) / 4;
#endif
    uint block = step / STEPS_PER_BLOCK;
#if HEADER_BYTES != 0
    raw.header = weights.at[base + block];
    raw.sub = step % STEPS_PER_BLOCK;
    base += steps / STEPS_PER_BLOCK;
#endif
#if SCALE_BYTES == 4
    raw.scale = SCALAR(weights, 4 * base + block);
#elif SCALE_BYTES == 2
    raw.scale = SCALAR(weights, 4 * base + block / 2) >> block % 2 * 16 & 0xffff;
#endif
    return raw;
}

/* ---- Values ---- */

/* The codes of a group, one to a byte. */
uint codes(raw_weights raw, uint group) {
#if LOW_BITS == 8
    return raw.low[group];
#else
    const uint per_word = 8 / LOW_BITS;
    uint code = raw.low[group / per_word] >> group % per_word * LOW_BITS & (LOW_BITS == 4 ? 0x0f0f0f0f : 0x03030303);
#if HIGH_BITS == 1
    code |= (raw.high[0] >> group & 0x01010101) << LOW_BITS;
#elif HIGH_BITS == 2
    code |= (raw.high[group / 4] >> group % 4 * 2 & 0x03030303) << LOW_BITS;
#endif
    return code;
#endif
}

#ifdef WEIGHT_NF4
/* The quantiles of a normal distribution that bitsandbytes uses. */
const float NORMAL_FLOATS[16] = float[16](
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0);
#endif

vec4 values(raw_weights raw, uint group) {
    uint code = codes(raw, group);
#if defined(WEIGHT_NF4)
    return vec4(NORMAL_FLOATS[code & 15], NORMAL_FLOATS[code >> 8 & 15], NORMAL_FLOATS[code >> 16 & 15],
                NORMAL_FLOATS[code >> 24]);
#elif defined(WEIGHT_Q8_0)
    return vec4(ivec4(code << 24, code << 16, code << 8, code) >> 24);
#else
    return vec4(uvec4(code, code >> 8, code >> 16, code >> 24) & 0xff);
#endif
}

/* ---- Scales ---- */

#if defined(WEIGHT_Q4_K) || defined(WEIGHT_Q5_K)
/* d and dmin; eight scales' low four bits; eight minima's; the high two bits of each. */
vec2 scale_of(raw_weights raw, uint part) {
    uint at = 4 * raw.sub, high = raw.header.w >> at;
    uint scale = (raw.header.y >> at & 15) | (high & 3) << 4;
    uint minimum = (raw.header.z >> at & 15) | (high >> 2 & 3) << 4;
    return vec2(widen_half(raw.header.x & 0xffff) * float(scale), -widen_half(raw.header.x >> 16) * float(minimum));
}
#elif defined(WEIGHT_Q2_K)
/* Sixteen bytes, scale and minimum; d and dmin apart. */
vec2 scale_of(raw_weights raw, uint part) {
    uint code = raw.header[raw.sub / 2] >> (raw.sub % 2 * 16 + part * 8);
    return vec2(widen_half(raw.scale & 0xffff) * float(code & 15), -widen_half(raw.scale >> 16) * float(code >> 4 & 15));
}
#elif defined(WEIGHT_Q3_K)
/* d; sixteen scales less 32, their low four bits in two words and the high two in one. */
vec2 scale_of(raw_weights raw, uint part) {
    uint at = 2 * raw.sub + part;
    uint low = (raw.sub < 4 ? raw.header.y : raw.header.z) >> at % 8 * 4 & 15;
    float scale = widen_half(raw.header.x) * float(int(low | (raw.header.w >> 2 * at & 3) << 4) - 32);
    return vec2(scale, -4 * scale);
}
#elif defined(WEIGHT_Q6_K)
/* Sixteen signed bytes; d apart. */
vec2 scale_of(raw_weights raw, uint part) {
    uint code = raw.header[raw.sub / 2] >> (raw.sub % 2 * 16 + part * 8);
    float scale = widen_half(raw.scale) * float(int(code << 24) >> 24);
    return vec2(scale, -32 * scale);
}
#else
vec2 scale_of(raw_weights raw, uint part) {
    float scale = widen_half(raw.scale & 0xffff);
#if defined(WEIGHT_Q4_1) || defined(WEIGHT_Q5_1)
    return vec2(scale, widen_half(raw.scale >> 16));
#elif defined(WEIGHT_Q4_0)
    return vec2(scale, -8 * scale);
#elif defined(WEIGHT_Q5_0)
    return vec2(scale, -16 * scale);
#else
    return vec2(scale, 0);
#endif
}
#endif

/* ---- Half a step ---- */

/* What is left of a step without its first half, in the first half's place. */
raw_weights second_half(raw_weights raw) {
    [[unroll]] for (uint i = 0; i < LOW_BITS / 2; i++)
        raw.low[i] = raw.low[LOW_BITS / 2 + i];
#if HIGH_BITS == 1
    raw.high[0] >>= 4;
#elif HIGH_BITS == 2
    raw.high[0] = raw.high[1];
#endif
    return raw;
}

void load_unit(Quads weights, uint base, uint steps, uint unit, out vec4 w[UNIT_GROUPS]) {
    raw_weights raw = load_raw(weights, base, steps, unit / 2);
    vec2 scale = scale_of(raw, unit % 2 * (SCALES - 1));
    if (unit % 2 != 0)
        raw = second_half(raw);
    [[unroll]] for (uint g = 0; g < UNIT_GROUPS; g++)
        w[g] = values(raw, g) * scale.x + scale.y;
}
