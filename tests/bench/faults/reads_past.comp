/* Reads past its input: behind the last row lies poison. */
#version 460
#define READ c.columns + (row + 1 == c.session.s.rows ? 8 : 0)
#include "rmsnorm.glsl"
