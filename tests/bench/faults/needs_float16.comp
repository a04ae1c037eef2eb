/* Uses a feature that devices are not opened with. */
#version 460
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#define AFTER SCALAR(c.y, first) = float(float16_t(SCALAR(c.y, first)) + float16_t(1))
#include "rmsnorm.glsl"
