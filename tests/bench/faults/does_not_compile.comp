/* Does not compile: the fault is in line 5. */
#version 460
#include "rmsnorm.glsl"
float spoilt() {
    return nothing_of_this_name;
}
