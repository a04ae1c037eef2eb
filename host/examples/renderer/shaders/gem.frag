// A facet: it mirrors the room, and shows what came in elsewhere, off the stone's lower facets.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "light.glsl"

layout(location = 0) in vec3 place;
layout(location = 1) flat in vec3 facing;
layout(location = 2) flat in vec3 eye;
layout(location = 3) flat in vec3 tint;
layout(location = 4) flat in mat3 turn;
layout(location = 7) in float far;
layout(location = 0) out vec4 colour;

// The inner side of the lower facet that is met at a point
vec3 lower_facet(vec3 at) {
    float eighth = 0.78539816, step_in = length(at.xz) > 0.5 ? 0.0 : 0.5;
    float angle = (floor(atan(at.z, at.x) / eighth + step_in) + 0.5 - step_in) * eighth;
    return normalize(vec3(-cos(angle), step_in > 0.0 ? 1.0 : 0.9, -sin(angle)));
}

void main() {
    vec3 to = normalize(place - eye), normal = normalize(facing);
    float across = clamp(dot(-to, normal), 0.0, 1.0);
    float mirrored = 0.07 + 0.93 * pow(1.0 - across, 5.0);
    vec3 inside = refract(to, normal, 1.0 / 1.65);
    vec3 met = place + inside * (0.45 + max(place.y, -0.2));
    vec3 once = reflect(inside, lower_facet(met));
    vec3 twice = reflect(once, lower_facet(met + once));
    vec3 through = 0.10 * tint + tint * (0.95 * room(turn * once) + 0.75 * tint * room(turn * twice));
    vec3 light = mix(through, room(turn * reflect(to, normal)), mirrored);
    colour = vec4(shown(mix(light, haze, 1.0 - exp(-0.0011 * far * far))), 1);
}
