/* Gems on a wave. */
#include "scene.h"
#include "pipeline.h"

#include "gem.frag.h"
#include "gem.vert.h"
#include "sky.frag.h"
#include "sky.vert.h"

#include <math.h>
#include <string.h>

enum { GEMS = 480, SIDES = 8, TRIANGLES = SIDES * 6 };

struct vector {
    float x, y, z;
};
struct corner {
    struct vector position, normal;
};

/* As scene.glsl has it. */
struct push {
    float projection[16];
    float eye[3], time;
};

/* ---- A gem ---- */

static struct vector minus(struct vector a, struct vector b) {
    return (struct vector){a.x - b.x, a.y - b.y, a.z - b.z};
}

static struct vector cross(struct vector a, struct vector b) {
    return (struct vector){a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x};
}

static float dot(struct vector a, struct vector b) {
    return a.x * b.x + a.y * b.y + a.z * b.z;
}

static struct vector unit(struct vector a) {
    float length = sqrtf(dot(a, a));
    return (struct vector){a.x / length, a.y / length, a.z / length};
}

/* Seen from outside, which is where its middle is not, it turns to the left. */
static struct corner *add_facet(struct corner *out, struct vector a, struct vector b,
                                struct vector c) {
    struct vector normal = unit(cross(minus(b, a), minus(c, a)));
    if (dot(normal, a) < 0) {
        struct vector kept = b;
        b = c;
        c = kept;
        normal = (struct vector){-normal.x, -normal.y, -normal.z};
    }
    *out++ = (struct corner){a, normal};
    *out++ = (struct corner){b, normal};
    *out++ = (struct corner){c, normal};
    return out;
}

/* Corner `i` of a ring of eight, half of one further for odd rings. */
static struct vector ring(int i, float half, float radius, float height) {
    float angle = ((float)i + half) * (2 * 3.14159265f / SIDES);
    return (struct vector){radius * cosf(angle), height, radius * sinf(angle)};
}

/* A brilliant: a table, a crown down to the girdle, a pavilion in two steps. */
static void cut_gem(struct corner *out) {
    const struct vector top = {0, 0.42f, 0}, tip = {0, -0.95f, 0};
    for (int i = 0; i < SIDES; i++) {
        struct vector table = ring(i, 0, 0.55f, 0.42f), next = ring(i + 1, 0, 0.55f, 0.42f);
        struct vector girdle = ring(i, 0.5f, 1, 0.05f), after = ring(i + 1, 0.5f, 1, 0.05f);
        struct vector low = ring(i + 1, 0, 0.5f, -0.45f), lower = ring(i + 2, 0, 0.5f, -0.45f);
        out = add_facet(out, top, table, next);
        out = add_facet(out, table, next, girdle);
        out = add_facet(out, next, girdle, after);
        out = add_facet(out, girdle, after, low);
        out = add_facet(out, after, low, lower);
        out = add_facet(out, low, lower, tip);
    }
}

/* ---- The camera ---- */

/* Column by column, as GLSL has it: what is seen from `eye` when looking at `target`. */
static void look(float out[16], struct vector eye, struct vector target, float aspect) {
    struct vector back = unit(minus(eye, target));
    struct vector right = unit(cross((struct vector){0, 1, 0}, back)), up = cross(back, right);
    const float rows[3][4] = {{right.x, right.y, right.z, -dot(right, eye)},
                              {up.x, up.y, up.z, -dot(up, eye)},
                              {back.x, back.y, back.z, -dot(back, eye)}};
    float near = 0.5f, far = 120, high = 1 / tanf(0.42f), wide = high / aspect;
    for (int i = 0; i < 4; i++) {
        out[4 * i] = wide * rows[0][i];
        out[4 * i + 1] = -high * rows[1][i];
        out[4 * i + 2] = far / (near - far) * rows[2][i] + (i == 3 ? near * far / (near - far) : 0);
        out[4 * i + 3] = -rows[2][i];
    }
}

static struct push push_at(const struct frames *frames, double seconds) {
    float time = (float)seconds, angle = 0.11f * time;
    struct vector eye = {15 * cosf(angle), 6.2f + 1.2f * sinf(0.23f * time), 15 * sinf(angle)};
    struct push push = {.eye = {eye.x, eye.y, eye.z}, .time = time};
    look(push.projection, eye, (struct vector){0, -0.4f, 0},
         (float)frames->width / (float)frames->height);
    return push;
}

/* ---- Drawing ---- */

void scene_open(struct scene *scene, const struct frames *frames) {
    struct gpu *gpu = frames->gpu;
    *scene = (struct scene){.gpu = gpu, .corner_count = 3 * TRIANGLES};
    scene->corners = gpu_create_buffer(gpu, scene->corner_count * sizeof(struct corner),
                                       VK_BUFFER_USAGE_VERTEX_BUFFER_BIT);
    cut_gem(scene->corners.mapped);
    VkPushConstantRange push = {VK_SHADER_STAGE_VERTEX_BIT | VK_SHADER_STAGE_FRAGMENT_BIT, 0,
                                sizeof(struct push)};
    VkPipelineLayoutCreateInfo layout = {.sType = VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO,
                                         .pushConstantRangeCount = 1,
                                         .pPushConstantRanges = &push};
    must_vk(vkCreatePipelineLayout(gpu->device, &layout, NULL, &scene->layout),
            "creating a pipeline's layout");
    struct pipeline_setup gems = {
        .vertex = gem_vert,
        .vertex_bytes = sizeof gem_vert,
        .fragment = gem_frag,
        .fragment_bytes = sizeof gem_frag,
        .layout = scene->layout,
        .stride = sizeof(struct corner),
        .attributes = {{0, 0, VK_FORMAT_R32G32B32_SFLOAT, offsetof(struct corner, position)},
                       {1, 0, VK_FORMAT_R32G32B32_SFLOAT, offsetof(struct corner, normal)}},
        .attribute_count = 2,
        .depth = true,
    };
    struct pipeline_setup sky = {.vertex = sky_vert,
                                 .vertex_bytes = sizeof sky_vert,
                                 .fragment = sky_frag,
                                 .fragment_bytes = sizeof sky_frag,
                                 .layout = scene->layout};
    scene->gems = pipeline_create(frames, &gems);
    scene->sky = pipeline_create(frames, &sky);
}

void scene_close(struct scene *scene) {
    vkDestroyPipeline(scene->gpu->device, scene->gems, NULL);
    vkDestroyPipeline(scene->gpu->device, scene->sky, NULL);
    vkDestroyPipelineLayout(scene->gpu->device, scene->layout, NULL);
    gpu_destroy_buffer(scene->gpu, &scene->corners);
}

void scene_draw(const struct scene *scene, const struct frames *frames, VkCommandBuffer commands,
                double seconds) {
    struct push push = push_at(frames, seconds);
    VkDeviceSize start = 0;
    vkCmdPushConstants(commands, scene->layout,
                       VK_SHADER_STAGE_VERTEX_BIT | VK_SHADER_STAGE_FRAGMENT_BIT, 0, sizeof push,
                       &push);
    vkCmdBindPipeline(commands, VK_PIPELINE_BIND_POINT_GRAPHICS, scene->sky);
    vkCmdDraw(commands, 3, 1, 0, 0);
    vkCmdBindPipeline(commands, VK_PIPELINE_BIND_POINT_GRAPHICS, scene->gems);
    vkCmdBindVertexBuffers(commands, 0, 1, &scene->corners.handle, &start);
    vkCmdDraw(commands, scene->corner_count, GEMS, 0, 0);
}
