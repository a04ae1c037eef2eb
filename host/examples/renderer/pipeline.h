/* A pipeline that draws triangles into a frame. */
#ifndef RENDERER_PIPELINE_H
#define RENDERER_PIPELINE_H

#include "frames.h"

struct pipeline_setup {
    const uint32_t *vertex, *fragment; /* SPIR-V, and its bytes */
    size_t vertex_bytes, fragment_bytes;
    VkPipelineLayout layout;
    uint32_t stride; /* of a corner; 0: there are none */
    VkVertexInputAttributeDescription attributes[3];
    uint32_t attribute_count;
    bool depth; /* tested and written */
    bool blend; /* by the colour's alpha */
};
VkPipeline pipeline_create(const struct frames *frames, const struct pipeline_setup *setup);

#endif
