/* Frames and the window they are shown in. */
#include "frames.h"

#define GLFW_INCLUDE_NONE
#include <GLFW/glfw3.h>
#include <stb/stb_image_write.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- Images to draw to ---- */

static void create_images(struct frames *f) {
    VkImageUsageFlags drawn = VK_IMAGE_USAGE_COLOR_ATTACHMENT_BIT;
    if (f->samples > 1)
        f->colour = gpu_create_image(f->gpu, f->width, f->height, COLOUR_FORMAT, f->samples, drawn);
    f->depth = gpu_create_image(f->gpu, f->width, f->height, DEPTH_FORMAT, f->samples,
                                VK_IMAGE_USAGE_DEPTH_STENCIL_ATTACHMENT_BIT);
    f->resolved = gpu_create_image(f->gpu, f->width, f->height, COLOUR_FORMAT, 1,
                                   drawn | VK_IMAGE_USAGE_TRANSFER_SRC_BIT);
}

static void destroy_images(struct frames *f) {
    if (f->samples > 1)
        gpu_destroy_image(f->gpu, &f->colour);
    gpu_destroy_image(f->gpu, &f->depth);
    gpu_destroy_image(f->gpu, &f->resolved);
}

static VkSampleCountFlagBits supported_samples(struct gpu *gpu, uint32_t wanted) {
    VkPhysicalDeviceProperties properties;
    vkGetPhysicalDeviceProperties(gpu->physical, &properties);
    while (!(wanted & properties.limits.framebufferColorSampleCounts &
             properties.limits.framebufferDepthSampleCounts))
        wanted /= 2;
    return (VkSampleCountFlagBits)wanted;
}

/* ---- The window's images ---- */

static VkSemaphore create_semaphore(struct gpu *gpu, VkSemaphoreType type) {
    VkSemaphoreTypeCreateInfo kind = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_TYPE_CREATE_INFO,
                                      .semaphoreType = type};
    VkSemaphoreCreateInfo info = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO, .pNext = &kind};
    VkSemaphore semaphore;
    must_vk(vkCreateSemaphore(gpu->device, &info, NULL, &semaphore), "creating a semaphore");
    return semaphore;
}

static VkFormat window_format(struct frames *f) {
    VkSurfaceFormatKHR formats[64];
    uint32_t count = 64;
    must_vk(vkGetPhysicalDeviceSurfaceFormatsKHR(f->gpu->physical, f->surface, &count, formats),
            "asking for the window's formats");
    for (uint32_t i = 0; i < count; i++)
        if (formats[i].format == VK_FORMAT_B8G8R8A8_UNORM ||
            formats[i].format == VK_FORMAT_R8G8B8A8_UNORM)
            return formats[i].format;
    give_up("the window has no format of eight bits a colour");
}

/* Frames that come faster than the screen shows them leave no time over: where there is a choice,
 * they wait for the screen. */
static void create_swapchain(struct frames *f, VkSurfaceCapabilitiesKHR about) {
    uint32_t wanted = about.minImageCount + 1;
    if (about.maxImageCount && wanted > about.maxImageCount)
        wanted = about.maxImageCount;
    VkSwapchainCreateInfoKHR info = {
        .sType = VK_STRUCTURE_TYPE_SWAPCHAIN_CREATE_INFO_KHR,
        .surface = f->surface,
        .minImageCount = wanted,
        .imageFormat = window_format(f),
        .imageColorSpace = VK_COLOR_SPACE_SRGB_NONLINEAR_KHR,
        .imageExtent = {f->width, f->height},
        .imageArrayLayers = 1,
        .imageUsage = VK_IMAGE_USAGE_TRANSFER_DST_BIT,
        .preTransform = about.currentTransform,
        .compositeAlpha = VK_COMPOSITE_ALPHA_OPAQUE_BIT_KHR,
        .presentMode = VK_PRESENT_MODE_FIFO_KHR,
        .clipped = VK_TRUE,
        .oldSwapchain = f->swapchain,
    };
    if (!(about.supportedUsageFlags & VK_IMAGE_USAGE_TRANSFER_DST_BIT))
        give_up("the window's images cannot be copied to");
    VkSwapchainKHR old = f->swapchain;
    must_vk(vkCreateSwapchainKHR(f->gpu->device, &info, NULL, &f->swapchain),
            "creating the window's images");
    vkDestroySwapchainKHR(f->gpu->device, old, NULL);
    f->window_image_count = WINDOW_IMAGES_MAX;
    must_vk(vkGetSwapchainImagesKHR(f->gpu->device, f->swapchain, &f->window_image_count,
                                    f->window_images),
            "asking for the window's images");
}

/* Everything of the window's size, anew. False: it has none now. */
static bool resize(struct frames *f) {
    VkSurfaceCapabilitiesKHR about;
    int width, height;
    glfwGetFramebufferSize(f->window, &width, &height);
    must_vk(vkGetPhysicalDeviceSurfaceCapabilitiesKHR(f->gpu->physical, f->surface, &about),
            "asking for the window's size");
    if (about.currentExtent.width != UINT32_MAX) {
        width = (int)about.currentExtent.width;
        height = (int)about.currentExtent.height;
    }
    if (width <= 0 || height <= 0)
        return false;
    must_vk(vkQueueWaitIdle(f->gpu->queue), "waiting for frames");
    destroy_images(f);
    f->width = (uint32_t)width;
    f->height = (uint32_t)height;
    create_images(f);
    create_swapchain(f, about);
    return true;
}

/* ---- Opening and closing ---- */

void frames_open(struct frames *f, struct gpu *gpu, const struct options *options,
                 struct GLFWwindow *window) {
    *f = (struct frames){.gpu = gpu,
                         .window = window,
                         .width = options->width,
                         .height = options->height,
                         .samples = supported_samples(gpu, options->samples)};
    f->timeline = create_semaphore(gpu, VK_SEMAPHORE_TYPE_TIMELINE);
    for (int i = 0; i < FRAMES_IN_FLIGHT; i++) {
        VkCommandPoolCreateInfo pool = {.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
                                        .flags = VK_COMMAND_POOL_CREATE_TRANSIENT_BIT,
                                        .queueFamilyIndex = gpu->family};
        must_vk(vkCreateCommandPool(gpu->device, &pool, NULL, &f->slots[i].pool),
                "creating a command pool");
        VkCommandBufferAllocateInfo info = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
                                            .commandPool = f->slots[i].pool,
                                            .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
                                            .commandBufferCount = 1};
        must_vk(vkAllocateCommandBuffers(gpu->device, &info, &f->slots[i].commands),
                "creating a command buffer");
        f->slots[i].acquired = create_semaphore(gpu, VK_SEMAPHORE_TYPE_BINARY);
    }
    create_images(f);
    if (!window)
        return;
    must_vk(glfwCreateWindowSurface(gpu->instance, window, NULL, &f->surface),
            "making the window's surface");
    for (int i = 0; i < WINDOW_IMAGES_MAX; i++)
        f->presentable[i] = create_semaphore(gpu, VK_SEMAPHORE_TYPE_BINARY);
    if (!resize(f))
        give_up("the window has no size");
}

void frames_close(struct frames *f) {
    VkDevice device = f->gpu->device;
    must_vk(vkQueueWaitIdle(f->gpu->queue), "waiting for the last frame");
    for (int i = 0; i < FRAMES_IN_FLIGHT; i++) {
        vkDestroyCommandPool(device, f->slots[i].pool, NULL);
        vkDestroySemaphore(device, f->slots[i].acquired, NULL);
    }
    for (int i = 0; i < WINDOW_IMAGES_MAX; i++)
        vkDestroySemaphore(device, f->presentable[i], NULL);
    vkDestroySemaphore(device, f->timeline, NULL);
    destroy_images(f);
    if (!f->window)
        return;
    vkDestroySwapchainKHR(device, f->swapchain, NULL);
    vkDestroySurfaceKHR(f->gpu->instance, f->surface, NULL);
}

/* ---- A frame ---- */

static void wait_for(struct frames *f, uint64_t number) {
    VkSemaphoreWaitInfo info = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_WAIT_INFO,
                                .semaphoreCount = 1,
                                .pSemaphores = &f->timeline,
                                .pValues = &number};
    must_vk(vkWaitSemaphores(f->gpu->device, &info, UINT64_MAX), "waiting for a frame");
}

static bool acquire(struct frames *f, VkSemaphore acquired) {
    for (int tries = 0; tries < 3; tries++) {
        VkResult result = vkAcquireNextImageKHR(f->gpu->device, f->swapchain, UINT64_MAX, acquired,
                                                VK_NULL_HANDLE, &f->window_image);
        if (result != VK_ERROR_OUT_OF_DATE_KHR) {
            must_vk(result, "getting an image of the window");
            return true;
        }
        if (!resize(f))
            return false;
    }
    return false;
}

static void begin_rendering(struct frames *f, VkCommandBuffer commands) {
    bool many = f->samples > 1;
    VkRenderingAttachmentInfo colour = {
        .sType = VK_STRUCTURE_TYPE_RENDERING_ATTACHMENT_INFO,
        .imageView = many ? f->colour.view : f->resolved.view,
        .imageLayout = VK_IMAGE_LAYOUT_COLOR_ATTACHMENT_OPTIMAL,
        .resolveMode = many ? VK_RESOLVE_MODE_AVERAGE_BIT : VK_RESOLVE_MODE_NONE,
        .resolveImageView = many ? f->resolved.view : VK_NULL_HANDLE,
        .resolveImageLayout = VK_IMAGE_LAYOUT_COLOR_ATTACHMENT_OPTIMAL,
        .loadOp = VK_ATTACHMENT_LOAD_OP_DONT_CARE,
        .storeOp = many ? VK_ATTACHMENT_STORE_OP_DONT_CARE : VK_ATTACHMENT_STORE_OP_STORE,
    };
    VkRenderingAttachmentInfo depth = {
        .sType = VK_STRUCTURE_TYPE_RENDERING_ATTACHMENT_INFO,
        .imageView = f->depth.view,
        .imageLayout = VK_IMAGE_LAYOUT_DEPTH_ATTACHMENT_OPTIMAL,
        .loadOp = VK_ATTACHMENT_LOAD_OP_CLEAR,
        .storeOp = VK_ATTACHMENT_STORE_OP_DONT_CARE,
        .clearValue.depthStencil.depth = 1,
    };
    VkRenderingInfo info = {.sType = VK_STRUCTURE_TYPE_RENDERING_INFO,
                            .renderArea.extent = {f->width, f->height},
                            .layerCount = 1,
                            .colorAttachmentCount = 1,
                            .pColorAttachments = &colour,
                            .pDepthAttachment = &depth};
    VkViewport viewport = {0, 0, (float)f->width, (float)f->height, 0, 1};
    vkCmdBeginRendering(commands, &info);
    vkCmdSetViewport(commands, 0, 1, &viewport);
    vkCmdSetScissor(commands, 0, 1, &info.renderArea);
}

/* The images' last frame is overwritten: it must have been drawn and copied. */
static void discard_last(struct frames *f, VkCommandBuffer commands) {
    VkPipelineStageFlags2 drawing = VK_PIPELINE_STAGE_2_COLOR_ATTACHMENT_OUTPUT_BIT,
                          depth = VK_PIPELINE_STAGE_2_EARLY_FRAGMENT_TESTS_BIT |
                                  VK_PIPELINE_STAGE_2_LATE_FRAGMENT_TESTS_BIT;
    VkAccessFlags2 written = VK_ACCESS_2_COLOR_ATTACHMENT_WRITE_BIT,
                   depth_written = VK_ACCESS_2_DEPTH_STENCIL_ATTACHMENT_WRITE_BIT;
    if (f->samples > 1)
        gpu_image_barrier(commands, f->colour.handle, VK_IMAGE_ASPECT_COLOR_BIT, drawing, written,
                          drawing, written, VK_IMAGE_LAYOUT_UNDEFINED,
                          VK_IMAGE_LAYOUT_COLOR_ATTACHMENT_OPTIMAL);
    gpu_image_barrier(commands, f->resolved.handle, VK_IMAGE_ASPECT_COLOR_BIT,
                      drawing | VK_PIPELINE_STAGE_2_ALL_TRANSFER_BIT, written, drawing, written,
                      VK_IMAGE_LAYOUT_UNDEFINED, VK_IMAGE_LAYOUT_COLOR_ATTACHMENT_OPTIMAL);
    gpu_image_barrier(commands, f->depth.handle, VK_IMAGE_ASPECT_DEPTH_BIT, depth, depth_written,
                      depth, depth_written | VK_ACCESS_2_DEPTH_STENCIL_ATTACHMENT_READ_BIT,
                      VK_IMAGE_LAYOUT_UNDEFINED, VK_IMAGE_LAYOUT_DEPTH_ATTACHMENT_OPTIMAL);
}

VkCommandBuffer frames_begin(struct frames *f) {
    uint32_t slot = (f->number + 1) % FRAMES_IN_FLIGHT;
    if (f->number >= FRAMES_IN_FLIGHT)
        wait_for(f, f->number + 1 - FRAMES_IN_FLIGHT);
    if (f->window && !acquire(f, f->slots[slot].acquired))
        return VK_NULL_HANDLE;
    f->number++;
    VkCommandBuffer commands = f->slots[slot].commands;
    VkCommandBufferBeginInfo info = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO,
                                     .flags = VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT};
    must_vk(vkResetCommandPool(f->gpu->device, f->slots[slot].pool, 0), "resetting commands");
    must_vk(vkBeginCommandBuffer(commands, &info), "recording a frame");
    discard_last(f, commands);
    begin_rendering(f, commands);
    return commands;
}

static void copy_to_window(struct frames *f, VkCommandBuffer commands) {
    VkImage image = f->window_images[f->window_image];
    VkImageSubresourceLayers all = {VK_IMAGE_ASPECT_COLOR_BIT, 0, 0, 1};
    VkOffset3D end = {(int32_t)f->width, (int32_t)f->height, 1};
    VkImageBlit region = {all, {{0, 0, 0}, end}, all, {{0, 0, 0}, end}};
    gpu_image_barrier(commands, image, VK_IMAGE_ASPECT_COLOR_BIT,
                      VK_PIPELINE_STAGE_2_ALL_TRANSFER_BIT, 0, VK_PIPELINE_STAGE_2_ALL_TRANSFER_BIT,
                      VK_ACCESS_2_TRANSFER_WRITE_BIT, VK_IMAGE_LAYOUT_UNDEFINED,
                      VK_IMAGE_LAYOUT_TRANSFER_DST_OPTIMAL);
    vkCmdBlitImage(commands, f->resolved.handle, VK_IMAGE_LAYOUT_TRANSFER_SRC_OPTIMAL, image,
                   VK_IMAGE_LAYOUT_TRANSFER_DST_OPTIMAL, 1, &region, VK_FILTER_NEAREST);
    gpu_image_barrier(commands, image, VK_IMAGE_ASPECT_COLOR_BIT,
                      VK_PIPELINE_STAGE_2_ALL_TRANSFER_BIT, VK_ACCESS_2_TRANSFER_WRITE_BIT,
                      VK_PIPELINE_STAGE_2_NONE, 0, VK_IMAGE_LAYOUT_TRANSFER_DST_OPTIMAL,
                      VK_IMAGE_LAYOUT_PRESENT_SRC_KHR);
}

void frames_drawn(struct frames *f) {
    VkCommandBuffer commands = f->slots[f->number % FRAMES_IN_FLIGHT].commands;
    vkCmdEndRendering(commands);
    gpu_image_barrier(commands, f->resolved.handle, VK_IMAGE_ASPECT_COLOR_BIT,
                      VK_PIPELINE_STAGE_2_COLOR_ATTACHMENT_OUTPUT_BIT,
                      VK_ACCESS_2_COLOR_ATTACHMENT_WRITE_BIT, VK_PIPELINE_STAGE_2_ALL_TRANSFER_BIT,
                      VK_ACCESS_2_TRANSFER_READ_BIT, VK_IMAGE_LAYOUT_COLOR_ATTACHMENT_OPTIMAL,
                      VK_IMAGE_LAYOUT_TRANSFER_SRC_OPTIMAL);
    if (f->window)
        copy_to_window(f, commands);
}

static void present(struct frames *f) {
    VkPresentInfoKHR info = {.sType = VK_STRUCTURE_TYPE_PRESENT_INFO_KHR,
                             .waitSemaphoreCount = 1,
                             .pWaitSemaphores = &f->presentable[f->window_image],
                             .swapchainCount = 1,
                             .pSwapchains = &f->swapchain,
                             .pImageIndices = &f->window_image};
    (void)mtx_lock(&f->gpu->queue_lock);
    VkResult result = vkQueuePresentKHR(f->gpu->queue, &info);
    (void)mtx_unlock(&f->gpu->queue_lock);
    if (result == VK_ERROR_OUT_OF_DATE_KHR || result == VK_SUBOPTIMAL_KHR)
        (void)resize(f);
    else
        must_vk(result, "showing a frame");
}

void frames_end(struct frames *f) {
    uint32_t slot = f->number % FRAMES_IN_FLIGHT;
    must_vk(vkEndCommandBuffer(f->slots[slot].commands), "recording a frame");
    VkCommandBufferSubmitInfo commands = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_SUBMIT_INFO,
                                          .commandBuffer = f->slots[slot].commands};
    VkSemaphoreSubmitInfo acquired = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_SUBMIT_INFO,
                                      .semaphore = f->slots[slot].acquired,
                                      .stageMask = VK_PIPELINE_STAGE_2_ALL_TRANSFER_BIT};
    VkSemaphoreSubmitInfo signals[] = {
        {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_SUBMIT_INFO,
         .semaphore = f->timeline,
         .value = f->number,
         .stageMask = VK_PIPELINE_STAGE_2_ALL_COMMANDS_BIT},
        {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_SUBMIT_INFO,
         .semaphore = f->window ? f->presentable[f->window_image] : VK_NULL_HANDLE,
         .stageMask = VK_PIPELINE_STAGE_2_ALL_COMMANDS_BIT},
    };
    VkSubmitInfo2 info = {.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO_2,
                          .waitSemaphoreInfoCount = f->window ? 1 : 0,
                          .pWaitSemaphoreInfos = &acquired,
                          .commandBufferInfoCount = 1,
                          .pCommandBufferInfos = &commands,
                          .signalSemaphoreInfoCount = f->window ? 2 : 1,
                          .pSignalSemaphoreInfos = signals};
    gpu_submit(f->gpu, &info);
    if (f->window)
        present(f);
}

/* ---- Screenshots ---- */

void frames_screenshot(struct frames *f, const char *path) {
    struct gpu *gpu = f->gpu;
    VkDeviceSize size = (VkDeviceSize)f->width * f->height * 4;
    struct buffer pixels = gpu_create_buffer(gpu, size, VK_BUFFER_USAGE_TRANSFER_DST_BIT);
    wait_for(f, f->number);
    uint32_t slot = (f->number + 1) % FRAMES_IN_FLIGHT;
    VkCommandBuffer commands = f->slots[slot].commands;
    VkCommandBufferBeginInfo begin = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO,
                                      .flags = VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT};
    VkBufferImageCopy region = {.imageSubresource = {VK_IMAGE_ASPECT_COLOR_BIT, 0, 0, 1},
                                .imageExtent = {f->width, f->height, 1}};
    VkMemoryBarrier2 to_host = {.sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER_2,
                                .srcStageMask = VK_PIPELINE_STAGE_2_ALL_TRANSFER_BIT,
                                .srcAccessMask = VK_ACCESS_2_TRANSFER_WRITE_BIT,
                                .dstStageMask = VK_PIPELINE_STAGE_2_HOST_BIT,
                                .dstAccessMask = VK_ACCESS_2_HOST_READ_BIT};
    VkDependencyInfo barrier = {.sType = VK_STRUCTURE_TYPE_DEPENDENCY_INFO,
                                .memoryBarrierCount = 1,
                                .pMemoryBarriers = &to_host};
    VkCommandBufferSubmitInfo submitted = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_SUBMIT_INFO,
                                           .commandBuffer = commands};
    VkSemaphoreSubmitInfo done = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_SUBMIT_INFO,
                                  .semaphore = f->timeline,
                                  .value = ++f->number,
                                  .stageMask = VK_PIPELINE_STAGE_2_ALL_COMMANDS_BIT};
    VkSubmitInfo2 submit = {.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO_2,
                            .commandBufferInfoCount = 1,
                            .pCommandBufferInfos = &submitted,
                            .signalSemaphoreInfoCount = 1,
                            .pSignalSemaphoreInfos = &done};
    must_vk(vkResetCommandPool(gpu->device, f->slots[slot].pool, 0), "resetting commands");
    must_vk(vkBeginCommandBuffer(commands, &begin), "recording a copy");
    vkCmdCopyImageToBuffer(commands, f->resolved.handle, VK_IMAGE_LAYOUT_TRANSFER_SRC_OPTIMAL,
                           pixels.handle, 1, &region);
    vkCmdPipelineBarrier2(commands, &barrier);
    must_vk(vkEndCommandBuffer(commands), "recording a copy");
    gpu_submit(gpu, &submit);
    wait_for(f, f->number);
    if (!stbi_write_png(path, (int)f->width, (int)f->height, 4, pixels.mapped, (int)f->width * 4))
        give_up("%s cannot be written", path);
    gpu_destroy_buffer(gpu, &pixels);
}
