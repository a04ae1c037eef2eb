// Multiplies and adds in independent chains, as many as hide an instruction's latency and still fit into a processor's
// 16 vector registers: what a kernel that only computes can reach. PACKED: dot products of four bytes instead.
#version 460
#extension GL_EXT_buffer_reference : require
#ifdef PACKED
#extension GL_EXT_spirv_intrinsics : require
spirv_instruction(extensions = ["SPV_KHR_integer_dot_product"], capabilities = [6019, 6018], id = 4450)
int dot_of_bytes(uint a, uint b, spirv_literal int format);
const int PACKED_VECTOR_4X8_BIT = 0;
#endif

layout(local_size_x_id = 0) in;

layout(buffer_reference, std430, buffer_reference_align = 4) writeonly buffer Sums {
    float at[];
};

layout(push_constant) uniform Constants {
    Sums sums;            // [invocations in the grid]
    float factor, addend; // such that neither grows nor vanishes: below 1, above 0
    uint rounds;
} c;

#ifdef PACKED
#define VALUES ivec4
// a chain feeds on itself: nothing in it can be taken out of the loop
ivec4 advance(ivec4 a) {
    int factor = floatBitsToInt(c.factor);
    return ivec4(dot_of_bytes(a.x, factor, PACKED_VECTOR_4X8_BIT), dot_of_bytes(a.y, factor, PACKED_VECTOR_4X8_BIT),
                 dot_of_bytes(a.z, factor, PACKED_VECTOR_4X8_BIT), dot_of_bytes(a.w, factor, PACKED_VECTOR_4X8_BIT)) +
           a;
}
#else
#define VALUES vec4
vec4 advance(vec4 a) {
    return a * c.factor + c.addend;
}
#endif

// 16 steps of three chains of four values: ceilings.c counts them. By hand, since not all compilers unroll loops.
#define STEP a = advance(a), b = advance(b), d = advance(d);
#define FOUR_STEPS STEP STEP STEP STEP

void main() {
    VALUES a = VALUES(gl_GlobalInvocationID.x) + VALUES(0, 1, 2, 3);
    VALUES b = a + VALUES(4), d = a + VALUES(8);
    for (uint round = 0; round < c.rounds; round++) {
        FOUR_STEPS
        FOUR_STEPS
        FOUR_STEPS
        FOUR_STEPS
    }
    VALUES sum = a + b + d;
    c.sums.at[gl_GlobalInvocationID.x] = float(sum.x + sum.y + sum.z + sum.w);
}
