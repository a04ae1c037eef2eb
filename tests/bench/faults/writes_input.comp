/* Writes to what it was only to read. */
#version 460
#define AFTER SCALAR(c.multiplier, 0) = 1
#include "rmsnorm.glsl"
