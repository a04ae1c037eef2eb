#version 460
#extension GL_GOOGLE_include_directive : require
#include "light.glsl"

layout(location = 0) in vec2 place;
layout(location = 0) out vec4 colour;

void main() {
    float glow = exp(-2.2 * abs(place.y + 0.42)) * (1.0 - 0.35 * place.x * place.x);
    vec3 light = haze * (0.35 + 1.5 * glow) * (1.0 - 0.25 * dot(place, place) * 0.5);
    // a little noise, or the dark would show its steps
    float grain = fract(sin(dot(gl_FragCoord.xy, vec2(12.9898, 78.233))) * 43758.5453) - 0.5;
    colour = vec4(shown(light) + grain / 255.0, 1);
}
