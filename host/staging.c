#include "staging.h"

#define PLACEMENT 16 /* alignment of rows within a slot */

static peridot_result create_slots(struct device *device, uint64_t slot_bytes,
                                   struct staging *staging, peridot_error *error) {
    uint64_t most = device->info.limits.max_allocation;
    staging->slot_bytes = slot_bytes < most ? slot_bytes : most;
    peridot_result result =
        arena_create(device, MEMORY_UPLOAD, staging->slot_bytes, &staging->arena, error);
    for (uint32_t i = 0; i < STAGING_SLOTS && !result; i++) {
        result =
            arena_buffer(staging->arena, staging->slot_bytes, "staging", &staging->slots[i], error);
        if (!result)
            result = lane_commands(&staging->lane, &staging->commands[i], error);
    }
    if (result)
        staging_destroy(staging);
    return result;
}

peridot_result staging_create(struct device *device, uint64_t slot_bytes, struct staging *staging,
                              peridot_error *error) {
    *staging = (struct staging){0};
    peridot_result result = lane_create(device, &staging->lane, error);
    return result ? result : create_slots(device, slot_bytes, staging, error);
}

peridot_result staging_create_transfer(struct device *device, uint64_t slot_bytes,
                                       struct staging *staging, peridot_error *error) {
    *staging = (struct staging){0};
    peridot_result result = lane_create_transfer(device, &staging->lane, error);
    return result ? result : create_slots(device, slot_bytes, staging, error);
}

void staging_destroy(struct staging *staging) {
    if (staging->lane.device)
        lane_destroy(&staging->lane);
    arena_destroy(staging->arena);
    *staging = (struct staging){0};
}

/* ---- Without waiting ---- */

peridot_result staging_room(struct staging *staging, uint64_t least, void **memory, uint64_t *room,
                            peridot_error *error) {
    bool reached = true;
    peridot_result result = PERIDOT_OK;
    *room = 0;
    if (staging->used + least > staging->slot_bytes)
        result = staging_flush(staging, error);
    if (!result && !staging->used)
        result = lane_poll(&staging->lane, staging->pending[staging->slot], &reached, error);
    if (result || !reached)
        return result ? result : PERIDOT_NOT_READY;
    *memory = (char *)staging->slots[staging->slot]->mapped + staging->used;
    *room = staging->slot_bytes - staging->used;
    return PERIDOT_OK;
}

peridot_result staging_put(struct staging *staging, const struct buffer *buffer, uint64_t offset,
                           uint64_t size, peridot_error *error) {
    struct lane *lane = &staging->lane;
    VkCommandBuffer commands = staging->commands[staging->slot];
    peridot_result result = staging->used ? PERIDOT_OK : lane_begin(lane, commands, false, error);
    if (result)
        return result;
    VkBufferCopy region = {.srcOffset = staging->used, .dstOffset = offset, .size = size};
    lane->device->vk.CmdCopyBuffer(commands, staging->slots[staging->slot]->handle, buffer->handle,
                                   1, &region);
    uint64_t used = staging->used + (size + PLACEMENT - 1) / PLACEMENT * PLACEMENT;
    staging->used = used < staging->slot_bytes ? used : staging->slot_bytes;
    return PERIDOT_OK;
}

peridot_result staging_flush(struct staging *staging, peridot_error *error) {
    struct lane *lane = &staging->lane;
    VkCommandBuffer commands = staging->commands[staging->slot];
    if (!staging->used)
        return PERIDOT_OK;
    peridot_result result =
        buffer_flush(lane->device, staging->slots[staging->slot], 0, staging->used, error);
    if (!result)
        result = lane_end(lane, commands, error);
    if (!result)
        result = lane_submit(lane, &(struct batch){&commands, 1}, 1, error);
    staging->used = 0;
    staging->pending[staging->slot] = lane->submitted;
    staging->slot = (staging->slot + 1) % STAGING_SLOTS;
    return result;
}

/* ---- Waiting ---- */

peridot_result staging_wait(struct staging *staging, peridot_error *error) {
    return lane_wait(&staging->lane, staging->pending[staging->slot], error);
}

peridot_result staging_next(struct staging *staging, void **memory, peridot_error *error) {
    *memory = staging->slots[staging->slot]->mapped;
    return staging_wait(staging, error);
}

peridot_result staging_send(struct staging *staging, const struct buffer *buffer, uint64_t offset,
                            uint64_t size, peridot_error *error) {
    peridot_result result = staging_put(staging, buffer, offset, size, error);
    return result ? result : staging_flush(staging, error);
}

peridot_result staging_finish(struct staging *staging, peridot_error *error) {
    return lane_wait(&staging->lane, staging->lane.submitted, error);
}
