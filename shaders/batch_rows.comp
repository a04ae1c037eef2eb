/* The rows of a batch's next pass: where each session's token is, and whether there is any left to run. Grid (1, 1, 1). */
#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"

layout(local_size_x_id = SPEC_WORKGROUP) in;
layout(push_constant) uniform Constants {
    batch_constants c;
};

shared uint left;

/* Row r's position and chunk; false: its session is done. */
bool place_row(uint row) {
    Session own = c.session.s.row_session[row];
    uint position = own.s.position;
    bool runs = own.s.done == 0 && position < own.s.context;
    c.session.s.row_position[row] = runs ? position : NO_POSITION;
    if (runs)
        c.session.s.kv_chunks[row] = own.s.kv_chunks[position / KV_CHUNK];
    return runs;
}

void main() {
    uint row = gl_LocalInvocationID.x;
    if (row == 0)
        left = 0;
    barrier();
    if (row < c.session.s.rows && place_row(row))
        atomicOr(left, 1);
    barrier();
    if (row == 0)
        c.session.s.done = left != 0 ? 0 : 1;
}
