// Boxes and letters, in pixels.
#version 460
layout(push_constant) uniform Screen { vec2 size; } screen;
layout(location = 0) in vec2 position;
layout(location = 1) in vec2 place;
layout(location = 2) in vec4 tint;
layout(location = 0) out vec2 at;
layout(location = 1) out vec4 colour;

void main() {
    at = place;
    colour = tint;
    gl_Position = vec4(position / screen.size * 2 - 1, 0, 1);
}
