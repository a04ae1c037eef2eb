// One triangle over the whole picture, behind everything.
#version 460
layout(location = 0) out vec2 place;

void main() {
    place = vec2(gl_VertexIndex == 1 ? 3 : -1, gl_VertexIndex == 2 ? 3 : -1);
    gl_Position = vec4(place, 1, 1);
}
