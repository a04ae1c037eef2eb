// A field of gems, like the seeds of a sunflower: where each is follows from its number and the time.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "scene.glsl"

layout(location = 0) in vec3 position;
layout(location = 1) in vec3 normal;
layout(location = 0) out vec3 place; // in the gem's own coordinates
layout(location = 1) flat out vec3 facing;
layout(location = 2) flat out vec3 eye;
layout(location = 3) flat out vec3 tint;
layout(location = 4) flat out mat3 turn; // from them to the world's
layout(location = 7) out float far;

mat3 turned(float about_y, float tilt) {
    float c = cos(about_y), s = sin(about_y), a = cos(tilt), b = sin(tilt);
    return mat3(1, 0, 0, 0, a, b, 0, -b, a) * mat3(c, 0, -s, 0, 1, 0, s, 0, c);
}

float random(float n) {
    return fract(sin(n * 12.9898) * 43758.5453);
}

void main() {
    float n = float(gl_InstanceIndex), out_from = 0.92 * sqrt(n), chance = random(n + 1.0);
    float angle = n * 2.39996323 + 0.04 * scene.time;
    float size = n == 0.0 ? 2.1 : 0.44 + 0.18 * chance;
    vec3 centre = vec3(out_from * cos(angle), 0.8 * sin(0.55 * out_from - 0.9 * scene.time), out_from * sin(angle));
    centre.y = n == 0.0 ? 2.0 + 0.2 * sin(0.7 * scene.time) : centre.y + 0.3 * chance;
    turn = turned((0.25 + 0.5 * chance) * scene.time + 6.28 * chance, n == 0.0 ? 0.22 : 0.15 + 0.4 * sin(0.6 * scene.time + 9.0 * chance));
    place = position;
    facing = normal;
    eye = transpose(turn) * (scene.eye - centre) / size;
    vec3 peridot = vec3(0.45, 0.86, 0.08), teal = vec3(0.03, 0.60, 0.50), gold = vec3(1.0, 0.60, 0.10);
    tint = mix(peridot, teal, smoothstep(7.0, 19.0, out_from));
    if (chance > 0.88 && n > 0.0)
        tint = gold;
    vec3 world = centre + turn * (size * position);
    far = distance(world, scene.eye);
    gl_Position = scene.projection * vec4(world, 1);
}
