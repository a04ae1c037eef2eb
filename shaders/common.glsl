/* What every kernel includes first: buffer types, the shared structs, exact widening. */
#extension GL_EXT_buffer_reference : require
#define PERIDOT_GLSL

layout(buffer_reference, std430, buffer_reference_align = 16) buffer Quads {
    uvec4 at[];
};
layout(buffer_reference, std430, buffer_reference_align = 16) buffer Floats {
    vec4 at[];
};
layout(buffer_reference, std430, buffer_reference_align = 4) buffer Words {
    uint at[];
};
layout(buffer_reference) buffer Session;
#ifdef DOT
#define Activations Quads
#else
#define Activations Floats
#endif
layout(buffer_reference) buffer Ring;

#include "abi.h"

layout(buffer_reference, std430, buffer_reference_align = 16) buffer Session {
    session_block s;
};
layout(buffer_reference, std430, buffer_reference_align = 16) buffer Ring {
    ring_entry at[];
};

/* Large and finite: a mask of -inf makes NaN where a whole row is masked. */
const float LOWEST = -3.0e38;

/* One element of a buffer of vectors. References are not cast to other types for it: not every driver can. */
#define SCALAR(buffer, index) buffer.at[(index) / 4][(index) % 4]
