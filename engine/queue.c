/* Submission through a lane: a command pool and a timeline. */
#include "queue.h"

#include <stdlib.h>

#define BATCHES_MAX 64

peridot_result lane_create(struct device *device, struct lane *lane, peridot_error *error) {
    *lane = (struct lane){.device = device};
    VkCommandPoolCreateInfo pool = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
        .flags = VK_COMMAND_POOL_CREATE_RESET_COMMAND_BUFFER_BIT,
        .queueFamilyIndex = device->queue_family,
    };
    VkSemaphoreTypeCreateInfo type = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_TYPE_CREATE_INFO,
                                      .semaphoreType = VK_SEMAPHORE_TYPE_TIMELINE};
    VkSemaphoreCreateInfo semaphore = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO,
                                       .pNext = &type};
    VkCommandPool made = VK_NULL_HANDLE; /* what a failed call leaves is undefined */
    VkSemaphore timeline = VK_NULL_HANDLE;
    VkResult code = device->vk.CreateCommandPool(device->handle, &pool, device->allocator, &made);
    if (!code) {
        lane->pool = made;
        code = device->vk.CreateSemaphore(device->handle, &semaphore, device->allocator, &timeline);
    }
    if (!code) {
        lane->timeline = timeline;
        return PERIDOT_OK;
    }
    lane_destroy(lane);
    return device_fail(device, code, "creating a command pool", error);
}

void lane_destroy(struct lane *lane) {
    struct device *device = lane->device;
    if (!device)
        return;
    if (!device->lost && lane->timeline)
        (void)lane_wait(lane, lane->submitted, NULL);
    device->vk.DestroySemaphore(device->handle, lane->timeline, device->allocator);
    device->vk.DestroyCommandPool(device->handle, lane->pool, device->allocator);
    *lane = (struct lane){0};
}

peridot_result lane_commands(struct lane *lane, VkCommandBuffer *commands, peridot_error *error) {
    struct device *device = lane->device;
    VkCommandBufferAllocateInfo info = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
                                        .commandPool = lane->pool,
                                        .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
                                        .commandBufferCount = 1};
    *commands = VK_NULL_HANDLE;
    VkResult code = device->vk.AllocateCommandBuffers(device->handle, &info, commands);
    if (!code)
        return PERIDOT_OK;
    *commands = VK_NULL_HANDLE;
    return device_fail(device, code, "allocating a command buffer", error);
}

void lane_free_commands(struct lane *lane, VkCommandBuffer commands) {
    lane->device->vk.FreeCommandBuffers(lane->device->handle, lane->pool, 1, &commands);
}

peridot_result lane_begin(struct lane *lane, VkCommandBuffer commands, bool simultaneous,
                          peridot_error *error) {
    VkCommandBufferBeginInfo info = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO,
        .flags = simultaneous ? VK_COMMAND_BUFFER_USAGE_SIMULTANEOUS_USE_BIT
                              : VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT,
    };
    VkResult code = lane->device->vk.BeginCommandBuffer(commands, &info);
    return code ? device_fail(lane->device, code, "recording", error) : PERIDOT_OK;
}

peridot_result lane_end(struct lane *lane, VkCommandBuffer commands, peridot_error *error) {
    VkResult code = lane->device->vk.EndCommandBuffer(commands);
    return code ? device_fail(lane->device, code, "recording", error) : PERIDOT_OK;
}

static void fill_batches(const struct lane *lane, const struct batch *batches, uint32_t count,
                         VkCommandBufferSubmitInfo *commands, VkSemaphoreSubmitInfo *signals,
                         VkSubmitInfo2 *submits) {
    for (uint32_t i = 0; i < count; i++) {
        signals[i] = (VkSemaphoreSubmitInfo){
            .sType = VK_STRUCTURE_TYPE_SEMAPHORE_SUBMIT_INFO,
            .semaphore = lane->timeline,
            .value = lane->submitted + i + 1,
            .stageMask = VK_PIPELINE_STAGE_2_ALL_COMMANDS_BIT,
        };
        submits[i] = (VkSubmitInfo2){
            .sType = VK_STRUCTURE_TYPE_SUBMIT_INFO_2,
            .commandBufferInfoCount = batches[i].count,
            .pCommandBufferInfos = commands,
            .signalSemaphoreInfoCount = 1,
            .pSignalSemaphoreInfos = &signals[i],
        };
        for (uint32_t j = 0; j < batches[i].count; j++)
            *commands++ = (VkCommandBufferSubmitInfo){
                .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_SUBMIT_INFO,
                .commandBuffer = batches[i].commands[j],
            };
    }
}

static VkResult submit_locked(struct lane *lane, uint32_t count, const VkSubmitInfo2 *submits) {
    struct device *device = lane->device;
    if (device->callbacks.lock_queue)
        device->callbacks.lock_queue(device->callbacks.user);
    VkResult code = device->vk.QueueSubmit2(device->queue, count, submits, VK_NULL_HANDLE);
    if (device->callbacks.unlock_queue)
        device->callbacks.unlock_queue(device->callbacks.user);
    return code;
}

peridot_result lane_submit(struct lane *lane, const struct batch *batches, uint32_t count,
                           peridot_error *error) {
    if (lane->device->lost)
        return device_fail(lane->device, VK_ERROR_DEVICE_LOST, "submitting work", error);
    if (count == 0 || count > BATCHES_MAX)
        return fail(error, PERIDOT_ERROR_ARGUMENT, "a submission has 1 to %d batches", BATCHES_MAX);
    size_t total = 0;
    for (uint32_t i = 0; i < count; i++)
        total += batches[i].count;
    VkCommandBufferSubmitInfo *commands = malloc((total ? total : 1) * sizeof *commands);
    if (!commands)
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory while submitting work");
    VkSemaphoreSubmitInfo signals[BATCHES_MAX];
    VkSubmitInfo2 submits[BATCHES_MAX];
    fill_batches(lane, batches, count, commands, signals, submits);
    VkResult code = submit_locked(lane, count, submits);
    free(commands);
    if (code)
        return device_fail(lane->device, code, "submitting work", error);
    lane->device->submitted = true;
    lane->submitted += count;
    lane->submissions++;
    return PERIDOT_OK;
}

peridot_result lane_poll(struct lane *lane, uint64_t value, bool *reached, peridot_error *error) {
    struct device *device = lane->device;
    VkResult code = VK_SUCCESS;
    uint64_t now = lane->completed;
    if (now < value)
        code = device->lost
                   ? VK_ERROR_DEVICE_LOST
                   : device->vk.GetSemaphoreCounterValue(device->handle, lane->timeline, &now);
    *reached = !code && now >= value;
    if (code)
        return device_fail(device, code, "asking for progress", error);
    lane->completed = now;
    return PERIDOT_OK;
}

peridot_result lane_wait(struct lane *lane, uint64_t value, peridot_error *error) {
    struct device *device = lane->device;
    if (lane->completed >= value)
        return PERIDOT_OK;
    if (device->lost)
        return device_fail(device, VK_ERROR_DEVICE_LOST, "waiting for work", error);
    VkSemaphoreWaitInfo info = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_WAIT_INFO,
                                .semaphoreCount = 1,
                                .pSemaphores = &lane->timeline,
                                .pValues = &value};
    VkResult code = device->vk.WaitSemaphores(device->handle, &info, UINT64_MAX);
    if (code)
        return device_fail(device, code, "waiting for work", error);
    lane->completed = value;
    return PERIDOT_OK;
}
