/* The renderer's own Vulkan: an instance, a device and its queues, made by it with what Peridot
 * asks for, and used through volk. */
#ifndef RENDERER_GPU_H
#define RENDERER_GPU_H

#include "options.h"

#include <volk.h> /* before peridot.h, which then takes its types */

#include <peridot.h>
#include <threads.h>

struct GLFWwindow;

struct gpu {
    VkInstance instance;
    VkPhysicalDevice physical;
    VkDevice device;
    char name[VK_MAX_PHYSICAL_DEVICE_NAME_SIZE];
    uint32_t family; /* of the renderer's queue: graphics, and the window's */
    VkQueue queue;
    uint32_t guest_family; /* of Peridot's */
    VkQueue guest_queue; /* the renderer's own where the device has no other, or work is recorded */
    uint32_t transfer_family;
    VkQueue transfer_queue;            /* where weights are uploaded; NULL: on Peridot's */
    mtx_t queue_lock;                  /* held around each submission to a queue that is shared */
    peridot_device_requirements needs; /* features and extensions as they were enabled */
    VkPhysicalDeviceMemoryProperties memory;
    VkDebugUtilsMessengerEXT messenger;
    unsigned messages; /* that the validation layer has sent */
};

/* Ends the program with a sentence where there is no such device. `window`: NULL for none. */
void gpu_open(struct gpu *gpu, const struct options *options, struct GLFWwindow *window);
void gpu_close(struct gpu *gpu);
/* One submission to the renderer's queue. */
void gpu_submit(struct gpu *gpu, const VkSubmitInfo2 *submit);
/* What Peridot is to run on; points into `gpu`. */
peridot_adoption gpu_adoption(struct gpu *gpu);

struct buffer {
    VkBuffer handle;
    VkDeviceMemory memory;
    void *mapped;
};
/* In memory that the host writes. */
struct buffer gpu_create_buffer(struct gpu *gpu, VkDeviceSize size, VkBufferUsageFlags usage);
void gpu_destroy_buffer(struct gpu *gpu, struct buffer *buffer);

struct image {
    VkImage handle;
    VkImageView view;
    VkDeviceMemory memory;
    VkFormat format;
    uint32_t width, height;
};
struct image gpu_create_image(struct gpu *gpu, uint32_t width, uint32_t height, VkFormat format,
                              VkSampleCountFlagBits samples, VkImageUsageFlags usage);
void gpu_destroy_image(struct gpu *gpu, struct image *image);
/* Fills a new image, to be read by shaders; waits. */
void gpu_upload_image(struct gpu *gpu, const struct image *image, const void *pixels, size_t bytes);
/* A barrier on a whole colour or depth image. */
void gpu_image_barrier(VkCommandBuffer commands, VkImage image, VkImageAspectFlags aspect,
                       VkPipelineStageFlags2 from, VkAccessFlags2 written, VkPipelineStageFlags2 to,
                       VkAccessFlags2 used, VkImageLayout old, VkImageLayout now);

VkShaderModule gpu_create_shader(struct gpu *gpu, const uint32_t *words, size_t bytes);

/* Ends the program with one sentence. */
_Noreturn void give_up(const char *format, ...);
void must_vk(VkResult result, const char *what);

#endif
