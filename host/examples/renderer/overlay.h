/* Boxes and text over the picture, in pixels from its upper left corner. */
#ifndef RENDERER_OVERLAY_H
#define RENDERER_OVERLAY_H

#include "frames.h"

#include <stb/stb_truetype.h>

enum { OVERLAY_CORNERS_MAX = 60000 };
enum text_size { TEXT_SMALL, TEXT_NORMAL, TEXT_SIZES };

struct colour {
    uint8_t r, g, b, a;
};

struct overlay {
    struct gpu *gpu;
    float scale; /* of all sizes; 1: as designed for a picture 720 pixels high */
    stbtt_packedchar letters[TEXT_SIZES][224]; /* Latin-1, from the space on */
    struct image atlas;
    VkSampler sampler;
    VkDescriptorSetLayout set_layout;
    VkDescriptorPool pool;
    VkDescriptorSet set;
    VkPipelineLayout layout;
    VkPipeline pipeline;
    struct buffer corners[FRAMES_IN_FLIGHT];
    struct overlay_corner *next; /* of this frame */
    uint32_t count;
};

void overlay_open(struct overlay *overlay, const struct frames *frames, const char *font);
void overlay_close(struct overlay *overlay);

void overlay_begin(struct overlay *overlay, const struct frames *frames);
/* With round corners of that radius; 0: none. */
void overlay_box(struct overlay *overlay, float x, float y, float width, float height, float radius,
                 struct colour colour);
/* UTF-8 on the baseline `y`; where it ends. */
float overlay_text(struct overlay *overlay, float x, float y, enum text_size size,
                   struct colour colour, const char *text, size_t length);
float overlay_text_width(const struct overlay *overlay, enum text_size size, const char *text,
                         size_t length);
float overlay_line_height(const struct overlay *overlay, enum text_size size);
/* One character from `*text` on, which moves behind it; '?' for what is none. */
uint32_t overlay_next_character(const char **text, const char *end);
void overlay_draw(struct overlay *overlay, const struct frames *frames, VkCommandBuffer commands);

#endif
