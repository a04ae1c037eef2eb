/* Leaves an output unwritten. */
#version 460
#define SKIP(i) i + 1 == c.columns
#include "rmsnorm.glsl"
