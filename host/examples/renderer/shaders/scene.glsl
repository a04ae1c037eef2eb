// renderer/scene.c pushes it.
layout(push_constant) uniform Scene {
    mat4 projection;
    vec3 eye;
    float time;
} scene;
