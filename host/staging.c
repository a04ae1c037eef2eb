#include "staging.h"

peridot_result staging_create(struct device *device, uint64_t slot_bytes, struct staging *staging,
                              peridot_error *error) {
    uint64_t most = device->info.limits.max_allocation;
    slot_bytes = slot_bytes < most ? slot_bytes : most;
    *staging = (struct staging){.slot_bytes = slot_bytes};
    peridot_result result = lane_create(device, &staging->lane, error);
    if (!result)
        result = arena_create(device, MEMORY_UPLOAD, slot_bytes, &staging->arena, error);
    for (uint32_t i = 0; i < STAGING_SLOTS && !result; i++) {
        result = arena_buffer(staging->arena, slot_bytes, "staging", &staging->slots[i], error);
        if (!result)
            result = lane_commands(&staging->lane, &staging->commands[i], error);
    }
    if (result)
        staging_destroy(staging);
    return result;
}

void staging_destroy(struct staging *staging) {
    if (staging->lane.device)
        lane_destroy(&staging->lane);
    arena_destroy(staging->arena);
    *staging = (struct staging){0};
}

peridot_result staging_next(struct staging *staging, void **memory, peridot_error *error) {
    *memory = staging->slots[staging->slot]->mapped;
    return lane_wait(&staging->lane, staging->pending[staging->slot], error);
}

peridot_result staging_send(struct staging *staging, const struct buffer *buffer, uint64_t offset,
                            uint64_t size, peridot_error *error) {
    struct lane *lane = &staging->lane;
    const struct buffer *slot = staging->slots[staging->slot];
    VkCommandBuffer commands = staging->commands[staging->slot];
    peridot_result result = buffer_flush(lane->device, slot, 0, size, error);
    if (!result)
        result = lane_begin(lane, commands, false, error);
    if (result)
        return result;
    VkBufferCopy region = {.srcOffset = 0, .dstOffset = offset, .size = size};
    lane->device->vk.CmdCopyBuffer(commands, slot->handle, buffer->handle, 1, &region);
    result = lane_end(lane, commands, error);
    if (!result)
        result = lane_submit(lane, &(struct batch){&commands, 1}, 1, error);
    staging->pending[staging->slot] = lane->submitted;
    staging->slot = (staging->slot + 1) % STAGING_SLOTS;
    return result;
}

peridot_result staging_finish(struct staging *staging, peridot_error *error) {
    return lane_wait(&staging->lane, staging->lane.submitted, error);
}
