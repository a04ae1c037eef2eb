/* Boxes and text over the picture. */
#include "overlay.h"
#include "pipeline.h"

#include "overlay.frag.h"
#include "overlay.vert.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ATLAS = 1024 };
static const float heights[TEXT_SIZES] = {14, 18};

struct overlay_corner {
    float x, y, u, v;
    struct colour colour;
};
/* Where the atlas is all letter: boxes are drawn with it. */
static const float filled = (ATLAS - 1.5f) / ATLAS;

/* ---- Letters ---- */

static unsigned char *read_font(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file)
        give_up("the font %s cannot be read", path);
    size_t capacity = 8u << 20;
    unsigned char *bytes = malloc(capacity);
    if (!bytes || fread(bytes, 1, capacity, file) == 0)
        give_up("the font %s cannot be read", path);
    fclose(file);
    return bytes;
}

static void draw_letters(struct overlay *overlay, const char *font, unsigned char *atlas) {
    unsigned char *bytes = read_font(font);
    stbtt_pack_context pack;
    if (!stbtt_PackBegin(&pack, atlas, ATLAS, ATLAS, 0, 1, NULL))
        give_up("the font %s cannot be drawn", font);
    stbtt_PackSetOversampling(&pack, 2, 1);
    for (int i = 0; i < TEXT_SIZES; i++)
        if (!stbtt_PackFontRange(&pack, bytes, 0, heights[i] * overlay->scale, ' ', 224,
                                 overlay->letters[i]))
            give_up("the font %s cannot be drawn", font);
    stbtt_PackEnd(&pack);
    free(bytes);
    for (int i = ATLAS - 3; i < ATLAS; i++)
        memset(atlas + i * ATLAS + ATLAS - 3, 255, 3);
}

static void create_atlas(struct overlay *overlay, const char *font) {
    struct gpu *gpu = overlay->gpu;
    unsigned char *atlas = calloc(ATLAS, ATLAS);
    if (!atlas)
        give_up("out of memory for letters");
    draw_letters(overlay, font, atlas);
    overlay->atlas = gpu_create_image(gpu, ATLAS, ATLAS, VK_FORMAT_R8_UNORM, 1,
                                      VK_IMAGE_USAGE_SAMPLED_BIT | VK_IMAGE_USAGE_TRANSFER_DST_BIT);
    gpu_upload_image(gpu, &overlay->atlas, atlas, ATLAS * ATLAS);
    free(atlas);
}

uint32_t overlay_next_character(const char **text, const char *end) {
    const unsigned char *t = (const unsigned char *)*text;
    if (t[0] < 0x80) {
        ++*text;
        return t[0];
    }
    size_t more = t[0] >= 0xf0 ? 3 : t[0] >= 0xe0 ? 2 : t[0] >= 0xc0 ? 1 : 0;
    uint32_t code = t[0] & (0x3fu >> more);
    if (!more || (size_t)(end - *text) <= more) {
        ++*text;
        return '?';
    }
    for (size_t i = 1; i <= more; i++)
        code = code << 6 | (t[i] & 0x3f);
    *text += more + 1;
    return code;
}

/* Those that are not in the atlas look like one of them. */
static int letter_of(uint32_t code) {
    if (code == 0x2018 || code == 0x2019)
        code = '\'';
    if (code == 0x201c || code == 0x201d)
        code = '"';
    if (code == 0x2013 || code == 0x2014)
        code = '-';
    return code >= ' ' && code < ' ' + 224 ? (int)code - ' ' : '?' - ' ';
}

/* ---- Setting up ---- */

static void create_set(struct overlay *overlay) {
    VkDevice device = overlay->gpu->device;
    VkSamplerCreateInfo sampler = {.sType = VK_STRUCTURE_TYPE_SAMPLER_CREATE_INFO,
                                   .magFilter = VK_FILTER_LINEAR,
                                   .minFilter = VK_FILTER_LINEAR,
                                   .addressModeU = VK_SAMPLER_ADDRESS_MODE_CLAMP_TO_EDGE,
                                   .addressModeV = VK_SAMPLER_ADDRESS_MODE_CLAMP_TO_EDGE};
    must_vk(vkCreateSampler(device, &sampler, NULL, &overlay->sampler), "creating a sampler");
    VkDescriptorSetLayoutBinding binding = {0, VK_DESCRIPTOR_TYPE_COMBINED_IMAGE_SAMPLER, 1,
                                            VK_SHADER_STAGE_FRAGMENT_BIT, NULL};
    VkDescriptorSetLayoutCreateInfo layout = {
        .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_CREATE_INFO,
        .bindingCount = 1,
        .pBindings = &binding};
    must_vk(vkCreateDescriptorSetLayout(device, &layout, NULL, &overlay->set_layout),
            "creating a set's layout");
    VkDescriptorPoolSize size = {VK_DESCRIPTOR_TYPE_COMBINED_IMAGE_SAMPLER, 1};
    VkDescriptorPoolCreateInfo pool = {.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_POOL_CREATE_INFO,
                                       .maxSets = 1,
                                       .poolSizeCount = 1,
                                       .pPoolSizes = &size};
    must_vk(vkCreateDescriptorPool(device, &pool, NULL, &overlay->pool), "creating a set");
    VkDescriptorSetAllocateInfo info = {.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_ALLOCATE_INFO,
                                        .descriptorPool = overlay->pool,
                                        .descriptorSetCount = 1,
                                        .pSetLayouts = &overlay->set_layout};
    must_vk(vkAllocateDescriptorSets(device, &info, &overlay->set), "creating a set");
    VkDescriptorImageInfo image = {overlay->sampler, overlay->atlas.view,
                                   VK_IMAGE_LAYOUT_SHADER_READ_ONLY_OPTIMAL};
    VkWriteDescriptorSet write = {.sType = VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET,
                                  .dstSet = overlay->set,
                                  .descriptorCount = 1,
                                  .descriptorType = VK_DESCRIPTOR_TYPE_COMBINED_IMAGE_SAMPLER,
                                  .pImageInfo = &image};
    vkUpdateDescriptorSets(device, 1, &write, 0, NULL);
}

static void create_pipeline(struct overlay *overlay, const struct frames *frames) {
    VkPushConstantRange push = {VK_SHADER_STAGE_VERTEX_BIT, 0, 2 * sizeof(float)};
    VkPipelineLayoutCreateInfo layout = {.sType = VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO,
                                         .setLayoutCount = 1,
                                         .pSetLayouts = &overlay->set_layout,
                                         .pushConstantRangeCount = 1,
                                         .pPushConstantRanges = &push};
    must_vk(vkCreatePipelineLayout(overlay->gpu->device, &layout, NULL, &overlay->layout),
            "creating a pipeline's layout");
    struct pipeline_setup setup = {
        .vertex = overlay_vert,
        .vertex_bytes = sizeof overlay_vert,
        .fragment = overlay_frag,
        .fragment_bytes = sizeof overlay_frag,
        .layout = overlay->layout,
        .stride = sizeof(struct overlay_corner),
        .attributes = {{0, 0, VK_FORMAT_R32G32_SFLOAT, offsetof(struct overlay_corner, x)},
                       {1, 0, VK_FORMAT_R32G32_SFLOAT, offsetof(struct overlay_corner, u)},
                       {2, 0, VK_FORMAT_R8G8B8A8_UNORM, offsetof(struct overlay_corner, colour)}},
        .attribute_count = 3,
        .blend = true,
    };
    overlay->pipeline = pipeline_create(frames, &setup);
}

void overlay_open(struct overlay *overlay, const struct frames *frames, const char *font) {
    float scale = (float)frames->height / 720;
    *overlay = (struct overlay){.gpu = frames->gpu,
                                .scale = scale < 0.75f ? 0.75f : (scale > 3 ? 3 : scale)};
    create_atlas(overlay, font);
    create_set(overlay);
    create_pipeline(overlay, frames);
    for (int i = 0; i < FRAMES_IN_FLIGHT; i++)
        overlay->corners[i] =
            gpu_create_buffer(overlay->gpu, OVERLAY_CORNERS_MAX * sizeof(struct overlay_corner),
                              VK_BUFFER_USAGE_VERTEX_BUFFER_BIT);
}

void overlay_close(struct overlay *overlay) {
    VkDevice device = overlay->gpu->device;
    for (int i = 0; i < FRAMES_IN_FLIGHT; i++)
        gpu_destroy_buffer(overlay->gpu, &overlay->corners[i]);
    vkDestroyPipeline(device, overlay->pipeline, NULL);
    vkDestroyPipelineLayout(device, overlay->layout, NULL);
    vkDestroyDescriptorPool(device, overlay->pool, NULL);
    vkDestroyDescriptorSetLayout(device, overlay->set_layout, NULL);
    vkDestroySampler(device, overlay->sampler, NULL);
    gpu_destroy_image(overlay->gpu, &overlay->atlas);
}

/* ---- Drawing ---- */

void overlay_begin(struct overlay *overlay, const struct frames *frames) {
    overlay->next = overlay->corners[frames->number % FRAMES_IN_FLIGHT].mapped;
    overlay->count = 0;
}

static void add_triangle(struct overlay *overlay, const struct overlay_corner corners[3]) {
    if (overlay->count + 3 > OVERLAY_CORNERS_MAX)
        return;
    memcpy(overlay->next, corners, 3 * sizeof *corners);
    overlay->next += 3;
    overlay->count += 3;
}

static void add_rectangle(struct overlay *overlay, const stbtt_aligned_quad *q,
                          struct colour colour) {
    const struct overlay_corner a = {q->x0, q->y0, q->s0, q->t0, colour},
                                b = {q->x1, q->y0, q->s1, q->t0, colour},
                                c = {q->x1, q->y1, q->s1, q->t1, colour},
                                d = {q->x0, q->y1, q->s0, q->t1, colour};
    add_triangle(overlay, (const struct overlay_corner[]){a, b, c});
    add_triangle(overlay, (const struct overlay_corner[]){a, c, d});
}

/* Corner `i` of a box's outline, eight to each of its round corners. */
static struct overlay_corner outline(int i, float x, float y, float width, float height,
                                     float radius, struct colour colour) {
    int quarter = i / 8 % 4;
    float angle = ((float)quarter + (float)(i % 8) / 7) * 1.57079633f;
    float middle_x = quarter == 0 || quarter == 3 ? x + width - radius : x + radius;
    float middle_y = quarter < 2 ? y + height - radius : y + radius;
    return (struct overlay_corner){middle_x + radius * cosf(angle), middle_y + radius * sinf(angle),
                                   filled, filled, colour};
}

void overlay_box(struct overlay *overlay, float x, float y, float width, float height, float radius,
                 struct colour colour) {
    if (radius <= 0) {
        stbtt_aligned_quad quad = {x, y, filled, filled, x + width, y + height, filled, filled};
        add_rectangle(overlay, &quad, colour);
        return;
    }
    struct overlay_corner middle = {x + width / 2, y + height / 2, filled, filled, colour};
    for (int i = 0; i < 32; i++)
        add_triangle(overlay, (const struct overlay_corner[]){
                                  middle, outline(i, x, y, width, height, radius, colour),
                                  outline(i + 1, x, y, width, height, radius, colour)});
}

float overlay_text(struct overlay *overlay, float x, float y, enum text_size size,
                   struct colour colour, const char *text, size_t length) {
    for (const char *end = text + length; text < end;) {
        stbtt_aligned_quad quad;
        stbtt_GetPackedQuad(overlay->letters[size], ATLAS, ATLAS,
                            letter_of(overlay_next_character(&text, end)), &x, &y, &quad, 0);
        add_rectangle(overlay, &quad, colour);
    }
    return x;
}

float overlay_text_width(const struct overlay *overlay, enum text_size size, const char *text,
                         size_t length) {
    float width = 0;
    for (const char *end = text + length; text < end;)
        width += overlay->letters[size][letter_of(overlay_next_character(&text, end))].xadvance;
    return width;
}

float overlay_line_height(const struct overlay *overlay, enum text_size size) {
    return heights[size] * overlay->scale * 1.28f;
}

void overlay_draw(struct overlay *overlay, const struct frames *frames, VkCommandBuffer commands) {
    float size[2] = {(float)frames->width, (float)frames->height};
    VkDeviceSize start = 0;
    vkCmdBindPipeline(commands, VK_PIPELINE_BIND_POINT_GRAPHICS, overlay->pipeline);
    vkCmdBindDescriptorSets(commands, VK_PIPELINE_BIND_POINT_GRAPHICS, overlay->layout, 0, 1,
                            &overlay->set, 0, NULL);
    vkCmdPushConstants(commands, overlay->layout, VK_SHADER_STAGE_VERTEX_BIT, 0, sizeof size, size);
    vkCmdBindVertexBuffers(commands, 0, 1,
                           &overlay->corners[frames->number % FRAMES_IN_FLIGHT].handle, &start);
    vkCmdDraw(commands, overlay->count, 1, 0, 0);
}
