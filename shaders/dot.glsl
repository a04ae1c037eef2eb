/* Weights in blocks times activations of eight bits (abi.h): a step's products are added up as integers, and
 * so exactly, and scaled once for each of its SCALES parts. PACKED: by the device's instruction for four
 * products of bytes, which Debian 12's glslang has no name for. Expects `c`, and weights.glsl. */

#ifdef PACKED
#extension GL_EXT_spirv_intrinsics : require
spirv_instruction(extensions = ["SPV_KHR_integer_dot_product"], capabilities = [6019, 6018], id = 4450)
int dot_of_bytes(uint a, uint b, spirv_literal int format);
const int PACKED_VECTOR_4X8_BIT = 0;
#endif

/* ---- Weights ---- */

#ifdef WEIGHT_NF4
/* NORMAL_FLOATS in units of 1 / NORMAL_UNIT, to nearest. Of all units the one with the least error: they are off
 * by 1.1e-5 in the sense of NMSE, the activations' eight bits by 2.9e-5. */
const float NORMAL_UNIT = 112.0302178;
const uint NORMAL_CODES[16] =
    uint[16](0x90, 0xb2, 0xc5, 0xd4, 0xe0, 0xeb, 0xf6, 0, 9, 18, 28, 38, 49, 63, 81, 112);

uint integers(raw_weights raw, uint group) {
    uint code = codes(raw, group);
    return NORMAL_CODES[code & 15] | NORMAL_CODES[code >> 8 & 15] << 8 | NORMAL_CODES[code >> 16 & 15] << 16 |
           NORMAL_CODES[code >> 24] << 24;
}

vec2 scale_of_integers(raw_weights raw, uint part) {
    return scale_of(raw, part) / NORMAL_UNIT;
}
#else
/* Group `group` of a step as four signed bytes; the weights are scale * value + offset with
 * scale_of_integers() of the part that holds the group. */
uint integers(raw_weights raw, uint group) {
    return codes(raw, group);
}

vec2 scale_of_integers(raw_weights raw, uint part) {
    return scale_of(raw, part);
}
#endif

/* A step is taken in PIECES, of SPAN groups and PARTS scales: its codes fill more registers where they are
 * unpacked to pairs. */
#ifdef PACKED
const uint PIECES = 1;
#else
const uint PIECES = 2;
#endif
const uint SPAN = GROUPS / PIECES;
const uint PARTS = PIECES == 1 ? SCALES : 1;

struct integer_weights {
    uint codes[SPAN];
    vec2 scale[PARTS];
};

integer_weights take_piece(raw_weights raw, uint piece) {
    integer_weights w;
    [[unroll]] for (uint i = 0; i < SPAN; i++)
        w.codes[i] = integers(raw, piece * SPAN + i);
    [[unroll]] for (uint part = 0; part < PARTS; part++)
        w.scale[part] = scale_of_integers(raw, PARTS == SCALES ? part : piece);
    return w;
}

/* ---- Activations ---- */

/* A piece of a block: `factors` are its codes, as part_of_dot takes them. */
struct integer_activations {
#ifdef PACKED
    uint factors[SPAN];
#else
    int factors[2 * SPAN];
#endif
    float scale;
    float sums[PARTS]; /* of the codes that a scale is for */
};

/* Bytes 0 and 2 of a word, signed, as one number: the first + 2^16 times the other. */
int signed_pair(uint word) {
    return int((word & 0x00ff00ff) ^ 0x00800080) - 0x00800080;
}

integer_activations unpack_activations(uvec4 codes[2 / PIECES], uvec2 scale, uint piece) {
    integer_activations x;
    [[unroll]] for (uint i = 0; i < SPAN; i++) {
        uint word = codes[i / 4][i % 4];
#ifdef PACKED
        x.factors[i] = word;
#else
        uint turned = word >> 16 | word << 16;
        x.factors[2 * i] = signed_pair(turned);
        x.factors[2 * i + 1] = signed_pair(turned >> 8);
#endif
    }
    x.scale = uintBitsToFloat(scale.x);
    ivec2 halves = ivec2(scale.y << 16, scale.y) >> 16;
    [[unroll]] for (uint part = 0; part < PARTS; part++)
        x.sums[part] = float(PIECES == 2 ? halves[piece] : PARTS == 2 ? halves[part] : halves.x + halves.y);
    return x;
}

/* The scale and the sums of a block. */
uvec2 load_scale(uint row, uint step) {
    uvec4 two = c.x.at[row * (c.x_stride / 4) + 2 * c.steps + step / 2];
    return step % 2 == 0 ? two.xy : two.zw;
}

/* ---- Products ---- */

#if !defined(PACKED)
/* One multiplication makes two products: (a + 2^16 b) (c + 2^16 d) has a d + b c in its upper half, and rounding
 * undoes what a c borrows there. ADDABLE such numbers can be added up before either half has more than 16 bits. */
#if defined(WEIGHT_NF4) || LOW_BITS == 8
const uint ADDABLE = 1;

int pair_of(uint word) {
    return signed_pair(word);
}
#else
const uint ADDABLE = 128 >> (LOW_BITS + HIGH_BITS);

int pair_of(uint word) {
    return int(word & 0x00ff00ff);
}
#endif
#endif

int part_of_dot(integer_weights w, integer_activations x, uint part) {
    int sum = 0;
#ifdef PACKED
    [[unroll]] for (uint i = 0; i < SPAN / PARTS; i++) {
        uint group = part * (SPAN / PARTS) + i;
        sum += dot_of_bytes(w.codes[group], x.factors[group], PACKED_VECTOR_4X8_BIT);
    }
#else
    int pairs = 0;
    [[unroll]] for (uint i = 0; i < 2 * SPAN; i++) {
        pairs += pair_of(w.codes[i / 2] >> i % 2 * 8) * x.factors[i];
        if ((i + 1) % ADDABLE == 0 || i + 1 == 2 * SPAN) {
            sum += (pairs + 0x8000) >> 16;
            pairs = 0;
        }
    }
#endif
    return sum;
}

/* Of a piece of a weight row and the same of an activation row. */
float product(integer_weights w, integer_activations x) {
    float sum = 0;
    [[unroll]] for (uint part = 0; part < PARTS; part++)
        sum += w.scale[part].x * float(part_of_dot(w, x, part)) + w.scale[part].y * x.sums[part];
    return sum * x.scale;
}
