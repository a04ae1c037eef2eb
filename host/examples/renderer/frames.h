/* Frames: the images that are drawn to, the window's images, and commands of which two frames are
 * in flight. A frame is drawn into an image of its own, which is then copied to the window's, if
 * there is one. */
#ifndef RENDERER_FRAMES_H
#define RENDERER_FRAMES_H

#include "gpu.h"

enum { FRAMES_IN_FLIGHT = 2, WINDOW_IMAGES_MAX = 8 };
#define COLOUR_FORMAT VK_FORMAT_R8G8B8A8_UNORM
#define DEPTH_FORMAT VK_FORMAT_D16_UNORM

struct frames {
    struct gpu *gpu;
    struct GLFWwindow *window; /* NULL: none */
    VkSurfaceKHR surface;
    VkSwapchainKHR swapchain;
    VkImage window_images[WINDOW_IMAGES_MAX];
    VkSemaphore presentable[WINDOW_IMAGES_MAX]; /* signalled by the frame that drew the image */
    uint32_t window_image_count, window_image;
    uint32_t width, height;
    VkSampleCountFlagBits samples;
    struct image colour, depth,
        resolved; /* `colour` has samples; none where there is one a pixel */
    struct {
        VkCommandPool pool;
        VkCommandBuffer commands;
        VkSemaphore acquired;
    } slots[FRAMES_IN_FLIGHT];
    VkSemaphore timeline; /* its value: frames that the GPU has drawn */
    uint64_t number;      /* of the frame being made, from 1 */
};

void frames_open(struct frames *frames, struct gpu *gpu, const struct options *options,
                 struct GLFWwindow *window);
void frames_close(struct frames *frames); /* waits for the last frame */

/* Waits until an older frame's commands may be written again, and for an image of the window's;
 * then begins to draw. NULL: the window has no size now, try again later. */
VkCommandBuffer frames_begin(struct frames *frames);
/* Ends drawing: commands for other work may follow. */
void frames_drawn(struct frames *frames);
/* Submits and presents. `frames->timeline` reaches `frames->number` when the frame is drawn. */
void frames_end(struct frames *frames);
/* Writes the last frame that was submitted to a PNG file; waits for it. */
void frames_screenshot(struct frames *frames, const char *path);

#endif
