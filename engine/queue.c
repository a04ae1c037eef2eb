/* Submission through a lane: a command pool and a timeline. */
#include "queue.h"

#include <stdlib.h>

#define BATCHES_MAX 64
#define WAIT_TRIES 100

static peridot_result create(struct device *device, bool transfers, struct lane *lane,
                             peridot_error *error) {
    *lane = (struct lane){.device = device, .transfers = transfers};
    VkCommandPoolCreateInfo pool = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
        .flags = VK_COMMAND_POOL_CREATE_RESET_COMMAND_BUFFER_BIT,
        .queueFamilyIndex = transfers ? device->transfer_family : device->queue_family,
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
        device_name_object(device, VK_OBJECT_TYPE_COMMAND_POOL, (uint64_t)made, "Peridot commands");
        code = device->vk.CreateSemaphore(device->handle, &semaphore, device->allocator, &timeline);
    }
    if (!code) {
        lane->timeline = timeline;
        device_name_object(device, VK_OBJECT_TYPE_SEMAPHORE, (uint64_t)timeline,
                           "Peridot timeline");
        return PERIDOT_OK;
    }
    lane_destroy(lane);
    return device_fail(device, code, "creating a command pool", error);
}

peridot_result lane_create(struct device *device, struct lane *lane, peridot_error *error) {
    return create(device, false, lane, error);
}

peridot_result lane_create_transfer(struct device *device, struct lane *lane,
                                    peridot_error *error) {
    return create(device, device->transfer_queue != VK_NULL_HANDLE, lane, error);
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
    if (!code) {
        device_name_object(device, VK_OBJECT_TYPE_COMMAND_BUFFER, (uint64_t)(uintptr_t)*commands,
                           "Peridot commands");
        return PERIDOT_OK;
    }
    *commands = VK_NULL_HANDLE;
    return device_fail(device, code, "allocating a command buffer", error);
}

void lane_free_commands(struct lane *lane, VkCommandBuffer commands) {
    lane->device->vk.FreeCommandBuffers(lane->device->handle, lane->pool, 1, &commands);
}

static void set_priority(const struct device *device, VkCommandBuffer commands, float priority) {
    const VkComputeOccupancyPriorityParametersNV parameters = {
        .sType = VK_STRUCTURE_TYPE_COMPUTE_OCCUPANCY_PRIORITY_PARAMETERS_NV,
        .occupancyPriority = priority};
    if (device->dispatch_priority > 0)
        device->vk.CmdSetComputeOccupancyPriorityNV(commands, &parameters);
}

void dispatches_begin(const struct device *device, VkCommandBuffer commands) {
    set_priority(device, commands, device->dispatch_priority);
}

void dispatches_end(const struct device *device, VkCommandBuffer commands) {
    set_priority(device, commands, VK_COMPUTE_OCCUPANCY_PRIORITY_NORMAL_NV);
}

peridot_result lane_begin(struct lane *lane, VkCommandBuffer commands, bool simultaneous,
                          peridot_error *error) {
    VkCommandBufferBeginInfo info = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO,
        .flags = simultaneous ? VK_COMMAND_BUFFER_USAGE_SIMULTANEOUS_USE_BIT
                              : VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT,
    };
    VkResult code = lane->device->vk.BeginCommandBuffer(commands, &info);
    if (code)
        return device_fail(lane->device, code, "recording", error);
    if (!lane->transfers)
        dispatches_begin(lane->device, commands);
    return PERIDOT_OK;
}

peridot_result lane_end(struct lane *lane, VkCommandBuffer commands, peridot_error *error) {
    VkResult code = lane->device->vk.EndCommandBuffer(commands);
    return code ? device_fail(lane->device, code, "recording", error) : PERIDOT_OK;
}

/* Of the timeline, when the `index`th batch to come has run. */
static VkSemaphoreSubmitInfo progress(const struct lane *lane, uint32_t index) {
    return (VkSemaphoreSubmitInfo){
        .sType = VK_STRUCTURE_TYPE_SEMAPHORE_SUBMIT_INFO,
        .semaphore = lane->timeline,
        .value = lane->submitted + index + 1,
        .stageMask = VK_PIPELINE_STAGE_2_ALL_COMMANDS_BIT,
    };
}

/* Returns what follows the batch's command buffers in `commands`. */
static VkCommandBufferSubmitInfo *
fill_submit(const struct batch *batch, const VkSemaphoreSubmitInfo *signals, uint32_t signal_count,
            VkCommandBufferSubmitInfo *commands, VkSubmitInfo2 *submit) {
    *submit = (VkSubmitInfo2){
        .sType = VK_STRUCTURE_TYPE_SUBMIT_INFO_2,
        .commandBufferInfoCount = batch->count,
        .pCommandBufferInfos = commands,
        .signalSemaphoreInfoCount = signal_count,
        .pSignalSemaphoreInfos = signals,
    };
    for (uint32_t i = 0; i < batch->count; i++)
        *commands++ = (VkCommandBufferSubmitInfo){
            .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_SUBMIT_INFO,
            .commandBuffer = batch->commands[i],
        };
    return commands;
}

static VkResult submit_locked(struct lane *lane, uint32_t count, const VkSubmitInfo2 *submits) {
    struct device *device = lane->device;
    const struct device_callbacks *callbacks =
        lane->transfers ? &device->transfer_callbacks : &device->callbacks;
    VkQueue queue = lane->transfers ? device->transfer_queue : device->queue;
    if (callbacks->lock_queue)
        callbacks->lock_queue(callbacks->user);
    VkResult code = device->vk.QueueSubmit2(queue, count, submits, VK_NULL_HANDLE);
    if (callbacks->unlock_queue)
        callbacks->unlock_queue(callbacks->user);
    return code;
}

static peridot_result send(struct lane *lane, uint32_t count, const VkSubmitInfo2 *submits,
                           peridot_error *error) {
    VkResult code = submit_locked(lane, count, submits);
    if (code)
        return device_fail(lane->device, code, "submitting work", error);
    lane->device->submitted = true;
    lane->submitted += count;
    lane->submissions++;
    return PERIDOT_OK;
}

peridot_result lane_submit(struct lane *lane, const struct batch *batches, uint32_t count,
                           peridot_error *error) {
    if (lane->device->lost)
        return device_fail(lane->device, VK_ERROR_DEVICE_LOST, "submitting work", error);
    if (count == 0 || count > BATCHES_MAX)
        return fail(error, PERIDOT_ERROR_ARGUMENT, "a submission has 1 to %d batches", BATCHES_MAX);
    size_t total = 1;
    for (uint32_t i = 0; i < count; i++)
        total += batches[i].count;
    VkCommandBufferSubmitInfo *commands = malloc(total * sizeof *commands), *at = commands;
    if (!commands)
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory while submitting work");
    VkSemaphoreSubmitInfo signals[BATCHES_MAX];
    VkSubmitInfo2 submits[BATCHES_MAX];
    for (uint32_t i = 0; i < count; i++) {
        signals[i] = progress(lane, i);
        at = fill_submit(&batches[i], &signals[i], 1, at, &submits[i]);
    }
    peridot_result result = send(lane, count, submits, error);
    free(commands);
    return result;
}

peridot_result lane_submit_between(struct lane *lane, const struct batch *batch,
                                   const VkSemaphoreSubmitInfo *waits, uint32_t wait_count,
                                   const VkSemaphoreSubmitInfo *signals, uint32_t signal_count,
                                   peridot_error *error) {
    if (lane->device->lost)
        return device_fail(lane->device, VK_ERROR_DEVICE_LOST, "submitting work", error);
    VkCommandBufferSubmitInfo *commands = malloc((batch->count + 1) * sizeof *commands);
    VkSemaphoreSubmitInfo *all = malloc((signal_count + 1) * sizeof *all);
    peridot_result result = PERIDOT_OK;
    if (!commands || !all) {
        result = fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory while submitting work");
    } else {
        VkSubmitInfo2 submit;
        all[0] = progress(lane, 0);
        for (uint32_t i = 0; i < signal_count; i++)
            all[1 + i] = signals[i];
        fill_submit(batch, all, signal_count + 1, commands, &submit);
        submit.pWaitSemaphoreInfos = waits;
        submit.waitSemaphoreInfoCount = wait_count;
        result = send(lane, 1, &submit, error);
    }
    free(commands);
    free(all);
    return result;
}

peridot_result lane_follow(struct lane *lane, const struct lane *before, peridot_error *error) {
    const VkSemaphoreSubmitInfo wait = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_SUBMIT_INFO,
                                        .semaphore = before->timeline,
                                        .value = before->submitted,
                                        .stageMask = VK_PIPELINE_STAGE_2_ALL_COMMANDS_BIT};
    return lane_submit_between(lane, &(struct batch){0}, &wait, 1, NULL, 0, error);
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

bool lane_is_over(struct lane *lane) {
    bool over = true;
    return !lane->device || (lane_poll(lane, lane->submitted, &over, NULL) == PERIDOT_OK && over) ||
           lane->device->lost;
}

VkResult device_wait(struct device *device, const VkSemaphoreWaitInfo *info) {
    VkResult code;
    uint32_t tries = 0;
    do
        code = device->vk.WaitSemaphores(device->handle, info, UINT64_MAX);
    while ((code == VK_ERROR_OUT_OF_HOST_MEMORY || code == VK_ERROR_OUT_OF_DEVICE_MEMORY) &&
           ++tries < WAIT_TRIES);
    return code;
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
    VkResult code = device_wait(device, &info);
    if (code)
        return device_fail(device, code, "waiting for work", error);
    lane->completed = value;
    return PERIDOT_OK;
}
