/* Right: what the faults beside it are variations of. */
#version 460
#include "rmsnorm.glsl"
