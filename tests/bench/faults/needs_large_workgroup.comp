/* Its workgroup is larger than any device's. */
#version 460
layout(local_size_x = 1024, local_size_y = 1024) in;
void main() {
}
