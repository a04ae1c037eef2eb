#version 460
layout(set = 0, binding = 0) uniform sampler2D letters;
layout(location = 0) in vec2 at;
layout(location = 1) in vec4 tint;
layout(location = 0) out vec4 colour;

void main() {
    colour = vec4(tint.rgb, tint.a * texture(letters, at).r);
}
