#include "hand_over.h"
#include "forward.h"

#include <string.h>

#define ROWS_FROM 1024 /* where the rows begin, behind the block */
_Static_assert(sizeof(struct session_block) <= ROWS_FROM, "room for the block");

static uint64_t rows_bytes(const struct peridot_model *part, uint32_t rows) {
    return (uint64_t)rows * part->d_padded * 4;
}

uint64_t hand_over_bytes(const struct peridot_model *part, uint32_t rows) {
    return ROWS_FROM + rows_bytes(part, rows);
}

static peridot_result create_box(struct peridot_session *part, enum memory_kind kind,
                                 const char *name, struct box *box, peridot_error *error) {
    uint64_t bytes = hand_over_bytes(part->model, part->prefill_rows);
    peridot_result result =
        arena_create(part->model->device->engine, kind, bytes, &box->arena, error);
    if (!result)
        result = arena_buffer(box->arena, bytes, name, &box->buffer, error);
    if (!result)
        part->statistics.scratch_bytes += arena_allocated(box->arena);
    return result;
}

peridot_result hand_over_create(struct peridot_session *part, peridot_error *error) {
    peridot_result result = create_box(part, MEMORY_READBACK, "outbox", &part->outbox, error);
    return result ? result : create_box(part, MEMORY_UPLOAD, "inbox", &part->inbox, error);
}

void hand_over_destroy(struct peridot_session *part) {
    forward_free_segment(part, &part->take);
    forward_free_segment(part, &part->give);
    arena_destroy(part->inbox.arena);
    arena_destroy(part->outbox.arena);
    part->inbox = part->outbox = (struct box){0};
}

void hand_over_take(const struct peridot_session *part, VkCommandBuffer commands, uint32_t rows) {
    const struct device_functions *vk = &part->lane.device->vk;
    VkBufferCopy row_region = {ROWS_FROM, 0, rows_bytes(part->model, rows)};
    VkBufferCopy block_region = {0, 0, sizeof(struct session_block)};
    VkBuffer inbox = part->inbox.buffer->handle;
    vk->CmdCopyBuffer(commands, inbox, part->scratch.x->handle, 1, &row_region);
    if (!part->model->is_home)
        vk->CmdCopyBuffer(commands, inbox, part->block->handle, 1, &block_region);
}

void hand_over_give(const struct peridot_session *part, VkCommandBuffer commands, uint32_t rows) {
    VkBufferCopy region = {0, ROWS_FROM, rows_bytes(part->model, rows)};
    part->lane.device->vk.CmdCopyBuffer(commands, part->scratch.x->handle,
                                        part->outbox.buffer->handle, 1, &region);
    session_make_visible(part, commands);
}

static peridot_result record(struct peridot_session *part, bool take, struct segment *segment,
                             peridot_error *error) {
    peridot_result result = session_begin_copies(part, true, &segment->commands, error);
    if (result)
        return result;
    if (take)
        hand_over_take(part, segment->commands, 1);
    else
        hand_over_give(part, segment->commands, 1);
    result = lane_end(&part->lane, segment->commands, error);
    if (result)
        forward_free_segment(part, segment);
    return result;
}

peridot_result hand_over_record(struct peridot_session *part, peridot_error *error) {
    peridot_result result = PERIDOT_OK;
    if (!part->take.commands)
        result = record(part, true, &part->take, error);
    if (!result && !part->give.commands)
        result = record(part, false, &part->give, error);
    return result;
}

peridot_result hand_over_carry(const struct peridot_session *from, const struct peridot_session *to,
                               uint32_t rows, peridot_error *error) {
    const struct buffer *source = from->outbox.buffer, *target = to->inbox.buffer;
    uint64_t bytes = rows_bytes(from->model, rows);
    peridot_result result = buffer_invalidate(from->lane.device, source, ROWS_FROM, bytes, error);
    if (result)
        return result;
    char *memory = target->mapped;
    memcpy(memory, &to->head_state, sizeof to->head_state);
    memcpy(memory + ROWS_FROM, (const char *)source->mapped + ROWS_FROM, bytes);
    return buffer_flush(to->lane.device, target, 0, ROWS_FROM + bytes, error);
}
