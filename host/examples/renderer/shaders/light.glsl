// The light that all things are in: a dim room with lamps, and what a direction sees of it.

const vec3 haze = vec3(0.020, 0.036, 0.042);

float lamp(vec3 direction, vec3 at, float width) {
    return smoothstep(1.0 - 2.0 * width, 1.0 - width, dot(direction, normalize(at)));
}

vec3 room(vec3 direction) {
    vec3 d = normalize(direction);
    vec3 light = mix(vec3(0.004, 0.010, 0.014), vec3(0.11, 0.19, 0.21), smoothstep(-0.5, 1.0, d.y));
    light += vec3(7.5, 7.0, 6.2) * lamp(d, vec3(0.5, 0.8, 0.3), 0.045);
    light += vec3(4.5, 5.0, 5.2) * lamp(d, vec3(-0.3, 0.9, -0.5), 0.02);
    light += vec3(0.9, 1.9, 2.2) * lamp(d, vec3(-0.8, 0.35, -0.5), 0.08);
    light += vec3(1.6, 0.9, 0.4) * lamp(d, vec3(0.1, 0.15, 0.9), 0.05);
    light += vec3(0.4, 0.8, 0.5) * lamp(d, vec3(0.9, -0.2, -0.6), 0.10);
    return light;
}

// Brightness that a screen can show, as it wants it
vec3 shown(vec3 light) {
    vec3 mapped = light * (1.0 + light / 16.0) / (1.0 + light);
    return pow(mapped, vec3(1.0 / 2.2));
}
