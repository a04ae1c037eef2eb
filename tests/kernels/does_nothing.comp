/* A planted fault: nothing is faster, and nothing is written. */
#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"

layout(local_size_x_id = SPEC_WORKGROUP) in;

void main() {}
