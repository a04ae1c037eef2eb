/* Writes behind its output. */
#version 460
#define AFTER SCALAR(c.y, c.session.s.rows * c.stride + 64) = 1
#include "rmsnorm.glsl"
