/* Right, on devices with subgroup arithmetic. */
// needs: subgroup_arithmetic
#version 460
#include "rmsnorm.glsl"
