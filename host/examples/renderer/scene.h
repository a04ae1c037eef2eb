/* The scene: some hundred gems on a wave, and a camera that goes round them. */
#ifndef RENDERER_SCENE_H
#define RENDERER_SCENE_H

#include "frames.h"

struct scene {
    struct gpu *gpu;
    VkPipelineLayout layout;
    VkPipeline gems, sky;
    struct buffer corners;
    uint32_t corner_count;
};

void scene_open(struct scene *scene, const struct frames *frames);
void scene_close(struct scene *scene);
void scene_draw(const struct scene *scene, const struct frames *frames, VkCommandBuffer commands,
                double seconds);

#endif
