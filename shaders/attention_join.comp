/* Joins the parts of decode attention: result = sum_s e^(m_s - m) o_s / sum_s e^(m_s - m) w_s, m = max m_s.
 * Grid (heads, rows, 1). */
#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"

layout(local_size_x_id = SPEC_WORKGROUP) in;
layout(constant_id = SPEC_HEAD_DIM) const uint HEAD_DIM = 256;
layout(push_constant) uniform Constants {
    attention_constants c;
};

void main() {
    uint row = gl_WorkGroupID.y, head = gl_WorkGroupID.x;
    if (c.session.s.done != 0 || row >= c.session.s.rows)
        return;
    uint pitch = (HEAD_DIM + 8) / 4, first = (row * c.heads + head) * SPLITS_MAX * pitch;
    uint parts = (c.session.s.position + row) / c.session.s.split_length + 1;
    float top = LOWEST;
    for (uint s = 0; s < parts; s++)
        top = max(top, c.partial.at[first + s * pitch + HEAD_DIM / 4].x);
    for (uint i = gl_LocalInvocationID.x; i < HEAD_DIM / 4; i += gl_WorkGroupSize.x) {
        vec4 sum = vec4(0);
        float weight = 0;
        for (uint s = 0; s < parts; s++) {
            vec2 of = c.partial.at[first + s * pitch + HEAD_DIM / 4].xy;
            float share = exp(of.x - top);
            sum += share * c.partial.at[first + s * pitch + i];
            weight += share * of.y;
        }
        c.result.at[row * (c.stride / 4) + head * (HEAD_DIM / 4) + i] = sum / weight;
    }
}
