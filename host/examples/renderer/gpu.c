/* The renderer's own Vulkan. */
#define VOLK_IMPLEMENTATION
#include "gpu.h"

#define GLFW_INCLUDE_NONE
#include <GLFW/glfw3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Noreturn void give_up(const char *format, ...) {
    va_list values;
    va_start(values, format);
    fputs("renderer: ", stderr);
    vfprintf(stderr, format, values);
    fputc('\n', stderr);
    va_end(values);
    exit(2);
}

void must_vk(VkResult result, const char *what) {
    if (result < 0)
        give_up("%s failed (Vulkan error %d)", what, (int)result);
}

/* ---- Instance ---- */

static VKAPI_ATTR VkBool32 VKAPI_CALL hear(VkDebugUtilsMessageSeverityFlagBitsEXT severity,
                                           VkDebugUtilsMessageTypeFlagsEXT types,
                                           const VkDebugUtilsMessengerCallbackDataEXT *data,
                                           void *user) {
    (void)severity;
    (void)types;
    struct gpu *gpu = user;
    gpu->messages++;
    fprintf(stderr, "validation: %s\n", data->pMessage);
    return VK_FALSE;
}

static void create_instance(struct gpu *gpu, bool validation, bool windowed) {
    static const char *const layer = "VK_LAYER_KHRONOS_validation";
    const VkValidationFeatureEnableEXT sync =
        VK_VALIDATION_FEATURE_ENABLE_SYNCHRONIZATION_VALIDATION_EXT;
    VkValidationFeaturesEXT checks = {.sType = VK_STRUCTURE_TYPE_VALIDATION_FEATURES_EXT,
                                      .enabledValidationFeatureCount = 1,
                                      .pEnabledValidationFeatures = &sync};
    VkApplicationInfo about = {.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO,
                               .pApplicationName = "renderer",
                               .apiVersion = VK_API_VERSION_1_3};
    const char *extensions[8];
    VkInstanceCreateInfo info = {.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO,
                                 .pApplicationInfo = &about,
                                 .ppEnabledExtensionNames = extensions};
    if (windowed) {
        const char **wanted = glfwGetRequiredInstanceExtensions(&info.enabledExtensionCount);
        if (!wanted || info.enabledExtensionCount > 6)
            give_up("there is no Vulkan that can draw in a window here");
        memcpy(extensions, wanted, info.enabledExtensionCount * sizeof *wanted);
    }
    if (validation) {
        info.pNext = &checks;
        info.enabledLayerCount = 1;
        info.ppEnabledLayerNames = &layer;
        extensions[info.enabledExtensionCount++] = VK_EXT_DEBUG_UTILS_EXTENSION_NAME;
        extensions[info.enabledExtensionCount++] = VK_EXT_VALIDATION_FEATURES_EXTENSION_NAME;
    }
    must_vk(vkCreateInstance(&info, NULL, &gpu->instance), "creating the instance");
    volkLoadInstance(gpu->instance);
    VkDebugUtilsMessengerCreateInfoEXT messages = {
        .sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_MESSENGER_CREATE_INFO_EXT,
        .messageSeverity = VK_DEBUG_UTILS_MESSAGE_SEVERITY_WARNING_BIT_EXT |
                           VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT,
        .messageType = VK_DEBUG_UTILS_MESSAGE_TYPE_VALIDATION_BIT_EXT,
        .pfnUserCallback = hear,
        .pUserData = gpu,
    };
    if (validation)
        must_vk(vkCreateDebugUtilsMessengerEXT(gpu->instance, &messages, NULL, &gpu->messenger),
                "listening to the validation layer");
}

/* ---- Device ---- */

enum { QUEUE_FAMILIES = 3 }; /* that it has queues of: the renderer's, Peridot's, for uploads */

static int rank(VkPhysicalDeviceType type) {
    return type == VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU     ? 3
           : type == VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU ? 2
           : type == VK_PHYSICAL_DEVICE_TYPE_CPU            ? 0
                                                            : 1;
}

/* A family for graphics, that can show its images in the window; UINT32_MAX: none. */
static uint32_t graphics_family(struct gpu *gpu, VkPhysicalDevice physical,
                                struct GLFWwindow *window, uint32_t *queues) {
    VkQueueFamilyProperties families[32];
    uint32_t count = 32;
    vkGetPhysicalDeviceQueueFamilyProperties(physical, &count, families);
    for (uint32_t i = 0; i < count; i++) {
        *queues = families[i].queueCount;
        VkQueueFlags needed = VK_QUEUE_GRAPHICS_BIT | VK_QUEUE_COMPUTE_BIT;
        if ((families[i].queueFlags & needed) == needed &&
            (!window || glfwGetPhysicalDevicePresentationSupport(gpu->instance, physical, i)))
            return i;
    }
    return UINT32_MAX;
}

/* Of the devices that can draw here and run Peridot, the one of the fastest kind. */
static void choose_device(struct gpu *gpu, const char *wanted, struct GLFWwindow *window,
                          uint32_t *queues) {
    VkPhysicalDevice found[16];
    uint32_t count = 16;
    int best = -1;
    char reason[640] = "there is no Vulkan device that can draw here";
    must_vk(vkEnumeratePhysicalDevices(gpu->instance, &count, found), "listing devices");
    for (uint32_t i = 0; i < count; i++) {
        VkPhysicalDeviceProperties properties;
        vkGetPhysicalDeviceProperties(found[i], &properties);
        uint32_t here, family = graphics_family(gpu, found[i], window, &here);
        if (family == UINT32_MAX || (wanted && !strstr(properties.deviceName, wanted)) ||
            rank(properties.deviceType) <= best)
            continue;
        peridot_device_requirements needs = {.struct_size = sizeof needs};
        peridot_error error;
        if (peridot_requirements_for(gpu->instance, found[i], vkGetInstanceProcAddr, &needs,
                                     &error))
            give_up("%s", error.message);
        if (!needs.usable) {
            snprintf(reason, sizeof reason, "%s", needs.reason);
            continue;
        }
        best = rank(properties.deviceType);
        gpu->physical = found[i];
        gpu->family = family;
        *queues = here;
        memcpy(gpu->name, properties.deviceName, sizeof gpu->name);
    }
    if (best < 0)
        give_up("%s", reason);
}

static void add_queues(VkDeviceQueueCreateInfo *info, uint32_t family, uint32_t count,
                       const float *priorities) {
    *info = (VkDeviceQueueCreateInfo){.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
                                      .queueFamilyIndex = family,
                                      .queueCount = count,
                                      .pQueuePriorities = priorities};
}

/* A queue for Peridot: of another family, which works beside the renderer's and can come after
 * other programs' too, since it is the only one there; or another one of the same, or the same.
 * Where work is recorded it runs where the frame does. And one for uploads, where the device has a
 * family for copies alone. */
static uint32_t choose_queues(struct gpu *gpu, enum mode mode, uint32_t queues,
                              VkDeviceQueueCreateInfo info[QUEUE_FAMILIES]) {
    static const float priorities[] = {1, 0}; /* a guest's is the lowest */
    bool beside = mode != MODE_RECORDED && gpu->needs.queue_family != gpu->family;
    bool second = mode != MODE_RECORDED && !beside && queues > 1;
    gpu->guest_family = beside ? gpu->needs.queue_family : gpu->family;
    gpu->transfer_family = gpu->needs.transfer_family;
    uint32_t count = 0;
    add_queues(info + count++, gpu->family, second ? 2 : 1, priorities);
    if (beside) {
        add_queues(info + count, gpu->guest_family, 1, priorities + 1);
        info[count++].pNext = gpu->needs.queue_next;
    }
    if (gpu->transfer_family != UINT32_MAX)
        add_queues(info + count++, gpu->transfer_family, 1, priorities + 1);
    return count;
}

/* Without a priority among all programs where that is refused, whatever the family lists. */
static VkResult try_device(struct gpu *gpu, const VkDeviceCreateInfo *info,
                           VkDeviceQueueCreateInfo *queues) {
    VkResult result = vkCreateDevice(gpu->physical, info, NULL, &gpu->device);
    if (result != VK_ERROR_NOT_PERMITTED_KHR)
        return result;
    for (uint32_t i = 0; i < info->queueCreateInfoCount; i++)
        queues[i].pNext = NULL;
    return vkCreateDevice(gpu->physical, info, NULL, &gpu->device);
}

static void create_device(struct gpu *gpu, enum mode mode, struct GLFWwindow *window,
                          uint32_t queues) {
    peridot_error error;
    gpu->needs = (peridot_device_requirements){.struct_size = sizeof gpu->needs};
    if (peridot_requirements_for(gpu->instance, gpu->physical, vkGetInstanceProcAddr, &gpu->needs,
                                 &error))
        give_up("%s", error.message);
    gpu->needs.vulkan13.dynamicRendering = VK_TRUE; /* the renderer's own need */
    const char *extensions[PERIDOT_EXTENSIONS_MAX + 1];
    VkDeviceQueueCreateInfo queue[QUEUE_FAMILIES];
    VkDeviceCreateInfo info = {.sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
                               .pNext = &gpu->needs.features,
                               .queueCreateInfoCount = choose_queues(gpu, mode, queues, queue),
                               .pQueueCreateInfos = queue,
                               .enabledExtensionCount = gpu->needs.extension_count,
                               .ppEnabledExtensionNames = extensions};
    memcpy(extensions, gpu->needs.extensions, sizeof gpu->needs.extensions);
    if (window)
        extensions[info.enabledExtensionCount++] = VK_KHR_SWAPCHAIN_EXTENSION_NAME;
    must_vk(try_device(gpu, &info, queue), "creating the device");
    volkLoadDevice(gpu->device);
    vkGetDeviceQueue(gpu->device, gpu->family, 0, &gpu->queue);
    vkGetDeviceQueue(gpu->device, gpu->guest_family, queue[0].queueCount - 1, &gpu->guest_queue);
    if (gpu->transfer_family != UINT32_MAX)
        vkGetDeviceQueue(gpu->device, gpu->transfer_family, 0, &gpu->transfer_queue);
    vkGetPhysicalDeviceMemoryProperties(gpu->physical, &gpu->memory);
}

void gpu_open(struct gpu *gpu, const struct options *options, struct GLFWwindow *window) {
    *gpu = (struct gpu){0};
    if (volkInitialize() != VK_SUCCESS)
        give_up("there is no Vulkan loader (libvulkan.so.1)");
    if (mtx_init(&gpu->queue_lock, mtx_plain) != thrd_success)
        give_up("there is no lock to be had");
    uint32_t queues = 1;
    create_instance(gpu, options->validation, window);
    choose_device(gpu, options->device, window, &queues);
    create_device(gpu, options->mode, window, queues);
}

void gpu_close(struct gpu *gpu) {
    vkDestroyDevice(gpu->device, NULL);
    if (gpu->messenger)
        vkDestroyDebugUtilsMessengerEXT(gpu->instance, gpu->messenger, NULL);
    vkDestroyInstance(gpu->instance, NULL);
    mtx_destroy(&gpu->queue_lock);
}

/* ---- The queue that is shared ---- */

static void lock_queue(void *user) {
    (void)mtx_lock(&((struct gpu *)user)->queue_lock);
}

static void unlock_queue(void *user) {
    (void)mtx_unlock(&((struct gpu *)user)->queue_lock);
}

void gpu_submit(struct gpu *gpu, const VkSubmitInfo2 *submit) {
    lock_queue(gpu);
    must_vk(vkQueueSubmit2(gpu->queue, 1, submit, VK_NULL_HANDLE), "submitting a frame");
    unlock_queue(gpu);
}

peridot_adoption gpu_adoption(struct gpu *gpu) {
    bool shared = gpu->queue == gpu->guest_queue;
    return (peridot_adoption){
        .struct_size = sizeof(peridot_adoption),
        .instance = gpu->instance,
        .physical_device = gpu->physical,
        .device = gpu->device,
        .get_instance_proc_addr = vkGetInstanceProcAddr,
        .queue = gpu->guest_queue,
        .queue_family = gpu->guest_family,
        .created_with = &gpu->needs,
        .lock_queue = shared ? lock_queue : NULL,
        .unlock_queue = shared ? unlock_queue : NULL,
        .user = gpu,
        .transfer_queue = gpu->transfer_queue,
        .transfer_family = gpu->transfer_family,
    };
}

/* ---- Buffers, images, shaders ---- */

static VkDeviceMemory allocate(struct gpu *gpu, VkMemoryRequirements needs,
                               VkMemoryPropertyFlags flags) {
    VkMemoryAllocateInfo info = {.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
                                 .allocationSize = needs.size};
    VkDeviceMemory memory;
    for (; info.memoryTypeIndex < gpu->memory.memoryTypeCount; info.memoryTypeIndex++)
        if (needs.memoryTypeBits & 1u << info.memoryTypeIndex &&
            (gpu->memory.memoryTypes[info.memoryTypeIndex].propertyFlags & flags) == flags)
            break;
    if (info.memoryTypeIndex == gpu->memory.memoryTypeCount)
        give_up("%s has no memory of a kind that is needed", gpu->name);
    must_vk(vkAllocateMemory(gpu->device, &info, NULL, &memory), "allocating memory");
    return memory;
}

struct buffer gpu_create_buffer(struct gpu *gpu, VkDeviceSize size, VkBufferUsageFlags usage) {
    struct buffer buffer;
    VkBufferCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO, .size = size, .usage = usage};
    VkMemoryRequirements needs;
    must_vk(vkCreateBuffer(gpu->device, &info, NULL, &buffer.handle), "creating a buffer");
    vkGetBufferMemoryRequirements(gpu->device, buffer.handle, &needs);
    buffer.memory = allocate(
        gpu, needs, VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT);
    must_vk(vkBindBufferMemory(gpu->device, buffer.handle, buffer.memory, 0), "binding a buffer");
    must_vk(vkMapMemory(gpu->device, buffer.memory, 0, size, 0, &buffer.mapped),
            "mapping a buffer");
    return buffer;
}

void gpu_destroy_buffer(struct gpu *gpu, struct buffer *buffer) {
    vkDestroyBuffer(gpu->device, buffer->handle, NULL);
    vkFreeMemory(gpu->device, buffer->memory, NULL);
}

struct image gpu_create_image(struct gpu *gpu, uint32_t width, uint32_t height, VkFormat format,
                              VkSampleCountFlagBits samples, VkImageUsageFlags usage) {
    struct image image = {.format = format, .width = width, .height = height};
    bool depth = usage & VK_IMAGE_USAGE_DEPTH_STENCIL_ATTACHMENT_BIT;
    VkImageCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_IMAGE_CREATE_INFO,
        .imageType = VK_IMAGE_TYPE_2D,
        .format = format,
        .extent = {width, height, 1},
        .mipLevels = 1,
        .arrayLayers = 1,
        .samples = samples,
        .usage = usage,
    };
    VkMemoryRequirements needs;
    must_vk(vkCreateImage(gpu->device, &info, NULL, &image.handle), "creating an image");
    vkGetImageMemoryRequirements(gpu->device, image.handle, &needs);
    image.memory = allocate(gpu, needs, VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT);
    must_vk(vkBindImageMemory(gpu->device, image.handle, image.memory, 0), "binding an image");
    VkImageViewCreateInfo view = {
        .sType = VK_STRUCTURE_TYPE_IMAGE_VIEW_CREATE_INFO,
        .image = image.handle,
        .viewType = VK_IMAGE_VIEW_TYPE_2D,
        .format = format,
        .subresourceRange = {depth ? VK_IMAGE_ASPECT_DEPTH_BIT : VK_IMAGE_ASPECT_COLOR_BIT, 0, 1, 0,
                             1},
    };
    must_vk(vkCreateImageView(gpu->device, &view, NULL, &image.view), "creating an image's view");
    return image;
}

void gpu_destroy_image(struct gpu *gpu, struct image *image) {
    vkDestroyImageView(gpu->device, image->view, NULL);
    vkDestroyImage(gpu->device, image->handle, NULL);
    vkFreeMemory(gpu->device, image->memory, NULL);
}

void gpu_image_barrier(VkCommandBuffer commands, VkImage image, VkImageAspectFlags aspect,
                       VkPipelineStageFlags2 from, VkAccessFlags2 written, VkPipelineStageFlags2 to,
                       VkAccessFlags2 used, VkImageLayout old, VkImageLayout now) {
    VkImageMemoryBarrier2 barrier = {
        .sType = VK_STRUCTURE_TYPE_IMAGE_MEMORY_BARRIER_2,
        .srcStageMask = from,
        .srcAccessMask = written,
        .dstStageMask = to,
        .dstAccessMask = used,
        .oldLayout = old,
        .newLayout = now,
        .srcQueueFamilyIndex = VK_QUEUE_FAMILY_IGNORED,
        .dstQueueFamilyIndex = VK_QUEUE_FAMILY_IGNORED,
        .image = image,
        .subresourceRange = {aspect, 0, 1, 0, 1},
    };
    VkDependencyInfo info = {.sType = VK_STRUCTURE_TYPE_DEPENDENCY_INFO,
                             .imageMemoryBarrierCount = 1,
                             .pImageMemoryBarriers = &barrier};
    vkCmdPipelineBarrier2(commands, &info);
}

void gpu_upload_image(struct gpu *gpu, const struct image *image, const void *pixels,
                      size_t bytes) {
    struct buffer staging = gpu_create_buffer(gpu, bytes, VK_BUFFER_USAGE_TRANSFER_SRC_BIT);
    memcpy(staging.mapped, pixels, bytes);
    VkCommandPoolCreateInfo pool_info = {.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
                                         .queueFamilyIndex = gpu->family};
    VkCommandPool pool;
    must_vk(vkCreateCommandPool(gpu->device, &pool_info, NULL, &pool), "creating a command pool");
    VkCommandBufferAllocateInfo info = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
                                        .commandPool = pool,
                                        .commandBufferCount = 1};
    VkCommandBuffer commands;
    must_vk(vkAllocateCommandBuffers(gpu->device, &info, &commands), "creating a command buffer");
    VkCommandBufferBeginInfo begin = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO};
    must_vk(vkBeginCommandBuffer(commands, &begin), "recording an upload");
    VkBufferImageCopy region = {.imageSubresource = {VK_IMAGE_ASPECT_COLOR_BIT, 0, 0, 1},
                                .imageExtent = {image->width, image->height, 1}};
    gpu_image_barrier(commands, image->handle, VK_IMAGE_ASPECT_COLOR_BIT, VK_PIPELINE_STAGE_2_NONE,
                      0, VK_PIPELINE_STAGE_2_ALL_TRANSFER_BIT, VK_ACCESS_2_TRANSFER_WRITE_BIT,
                      VK_IMAGE_LAYOUT_UNDEFINED, VK_IMAGE_LAYOUT_TRANSFER_DST_OPTIMAL);
    vkCmdCopyBufferToImage(commands, staging.handle, image->handle,
                           VK_IMAGE_LAYOUT_TRANSFER_DST_OPTIMAL, 1, &region);
    gpu_image_barrier(commands, image->handle, VK_IMAGE_ASPECT_COLOR_BIT,
                      VK_PIPELINE_STAGE_2_ALL_TRANSFER_BIT, VK_ACCESS_2_TRANSFER_WRITE_BIT,
                      VK_PIPELINE_STAGE_2_FRAGMENT_SHADER_BIT, VK_ACCESS_2_SHADER_READ_BIT,
                      VK_IMAGE_LAYOUT_TRANSFER_DST_OPTIMAL,
                      VK_IMAGE_LAYOUT_SHADER_READ_ONLY_OPTIMAL);
    must_vk(vkEndCommandBuffer(commands), "recording an upload");
    VkCommandBufferSubmitInfo submitted = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_SUBMIT_INFO,
                                           .commandBuffer = commands};
    VkSubmitInfo2 submit = {.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO_2,
                            .commandBufferInfoCount = 1,
                            .pCommandBufferInfos = &submitted};
    gpu_submit(gpu, &submit);
    must_vk(vkQueueWaitIdle(gpu->queue), "waiting for an upload");
    vkDestroyCommandPool(gpu->device, pool, NULL);
    gpu_destroy_buffer(gpu, &staging);
}

VkShaderModule gpu_create_shader(struct gpu *gpu, const uint32_t *words, size_t bytes) {
    VkShaderModuleCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO, .codeSize = bytes, .pCode = words};
    VkShaderModule module;
    must_vk(vkCreateShaderModule(gpu->device, &info, NULL, &module), "creating a shader");
    return module;
}
