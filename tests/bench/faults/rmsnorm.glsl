/* RMSNorm in the plainest way, one invocation to a row, with a place for each fault:
 * FIRST, LAST: the columns that are read; SKIP: one that is not written; AFTER: what is done at the end. */
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"

#ifndef READ
#define READ c.columns
#endif
#ifndef SKIP
#define SKIP(i) false
#endif
#ifndef AFTER
#define AFTER
#endif

layout(local_size_x_id = SPEC_WORKGROUP) in;
layout(push_constant) uniform Constants {
    rmsnorm_constants c;
};

void main() {
    uint row = gl_WorkGroupID.x, first = row * c.stride;
    if (c.session.s.done != 0 || row >= c.session.s.rows || gl_LocalInvocationID.x != 0)
        return;
    float square = 0;
    for (uint i = 0; i < READ; i++)
        square += SCALAR(c.x, first + i) * SCALAR(c.x, first + i);
    float scale = inversesqrt(square / float(c.columns) + c.epsilon);
    for (uint i = 0; i < c.columns; i++)
        if (!(SKIP(i)))
            SCALAR(c.y, first + i) = SCALAR(c.x, first + i) * scale * SCALAR(c.multiplier, i);
    AFTER;
}
