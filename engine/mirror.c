/* Dispatches as fills and copies, under the same barriers. */
#include "mirror.h"

#include <stdlib.h>

#include <stb/stb_ds.h>

#define SOURCE_BYTES                                                                               \
    4 /* at the scratch's beginning: only read, to write ends that fills cannot                    \
       */

/* A part of a buffer. */
struct piece {
    const struct buffer *buffer;
    uint64_t begin, end;
};

struct transcription {
    const struct mirror *mirror;
    const struct device *device;
    VkCommandBuffer commands; /* NULL: only count the scratch */
    const struct buffer *scratch;
    uint64_t used; /* of the scratch */
    struct piece writes[DISPATCH_OPERANDS_MAX];
    uint32_t write_count; /* of the dispatch at hand; no two overlap */
};

static bool overlap(const struct piece *a, const struct piece *b) {
    return a->buffer == b->buffer && a->begin < b->end && b->begin < a->end;
}

/* ---- One dispatch ---- */

/* What a dispatch writes becomes pieces without overlaps, since its own
 * transfers are not ordered among themselves. */
static void collect_writes(struct transcription *at, const struct dispatch *dispatch) {
    at->write_count = 0;
    for (uint32_t i = 0; i < dispatch->operand_count; i++) {
        const struct operand *operand = &dispatch->operands[i];
        if (!operand->buffer || !(dispatch->access[i] & ACCESS_WRITE))
            continue;
        struct piece piece = {operand->buffer, operand->offset, operand->offset + operand->size};
        for (uint32_t j = 0; j < at->write_count;) {
            struct piece *other = &at->writes[j];
            if (!overlap(&piece, other)) {
                j++;
                continue;
            }
            piece.begin = other->begin < piece.begin ? other->begin : piece.begin;
            piece.end = other->end > piece.end ? other->end : piece.end;
            *other = at->writes[--at->write_count];
            j = 0; /* grown, it may touch one that was passed over */
        }
        at->writes[at->write_count++] = piece;
    }
}

static void copy(const struct transcription *at, VkBuffer from, uint64_t from_offset, VkBuffer to,
                 uint64_t to_offset, uint64_t size) {
    VkBufferCopy region = {from_offset, to_offset, size};
    if (at->commands && size)
        at->device->vk.CmdCopyBuffer(at->commands, from, to, 1, &region);
}

static void put_write(const struct transcription *at, const struct piece *piece) {
    if (!at->commands)
        return;
    VkBuffer to = piece->buffer->handle, source = at->scratch->handle;
    uint64_t begin = (piece->begin + 3) / 4 * 4, end = piece->end / 4 * 4;
    if (begin >= end) {
        for (uint64_t i = piece->begin; i < piece->end; i++)
            copy(at, source, 0, to, i, 1);
        return;
    }
    copy(at, source, 0, to, piece->begin, begin - piece->begin);
    at->device->vk.CmdFillBuffer(at->commands, to, begin, end - begin, 0);
    copy(at, source, 0, to, end, piece->end - end);
}

/* Copies the piece away but for what the dispatch also writes: the fill stands
 * for that, as every conflict of a read is one of a write too. Writes before
 * `from` have been cut out already. */
static void put_read(struct transcription *at, struct piece piece, uint32_t from) {
    if (piece.begin >= piece.end)
        return;
    for (uint32_t i = from; i < at->write_count; i++) {
        const struct piece *write = &at->writes[i];
        if (!overlap(&piece, write))
            continue;
        put_read(at, (struct piece){piece.buffer, piece.begin, write->begin}, i + 1);
        put_read(at, (struct piece){piece.buffer, write->end, piece.end}, i + 1);
        return;
    }
    uint64_t size = piece.end - piece.begin;
    if (at->commands)
        copy(at, piece.buffer->handle, piece.begin, at->scratch->handle, at->used, size);
    at->used += size;
}

/* Buffers that nothing writes, weights above all, cannot conflict and need no
 * scratch. */
static bool is_written(const struct mirror *mirror, const struct buffer *buffer) {
    for (uint32_t i = 0; i < mirror->count; i++)
        for (ptrdiff_t j = 0; j < arrlen(mirror->recordings[i]->dispatches); j++) {
            const struct dispatch *dispatch = &mirror->recordings[i]->dispatches[j];
            for (uint32_t k = 0; k < dispatch->operand_count; k++)
                if (dispatch->operands[k].buffer == buffer && (dispatch->access[k] & ACCESS_WRITE))
                    return true;
        }
    return false;
}

static void put_arguments(const struct transcription *at, const struct dispatch *dispatch) {
    if (!at->commands || !dispatch->indirect)
        return;
    const struct device_functions *vk = &at->device->vk;
    vk->CmdBindPipeline(at->commands, VK_PIPELINE_BIND_POINT_COMPUTE, dispatch->pipeline->handle);
    vk->CmdPushConstants(at->commands, pipelines_layout(at->device), VK_SHADER_STAGE_COMPUTE_BIT, 0,
                         dispatch->constants_size, dispatch->constants);
    vk->CmdDispatchIndirect(at->commands, dispatch->indirect->handle, dispatch->indirect_offset);
}

static void put_dispatch(struct transcription *at, const struct dispatch *dispatch) {
    collect_writes(at, dispatch);
    put_arguments(at, dispatch);
    for (uint32_t i = 0; i < dispatch->operand_count; i++) {
        const struct operand *operand = &dispatch->operands[i];
        if (operand->buffer && (dispatch->access[i] & ACCESS_READ) &&
            is_written(at->mirror, operand->buffer))
            put_read(
                at,
                (struct piece){operand->buffer, operand->offset, operand->offset + operand->size},
                0);
    }
    for (uint32_t i = 0; i < at->write_count; i++)
        put_write(at, &at->writes[i]);
}

/* ---- Barriers ---- */

static VkPipelineStageFlags2 map_stages(VkPipelineStageFlags2 stages) {
    if (stages & VK_PIPELINE_STAGE_2_COMPUTE_SHADER_BIT)
        stages |= VK_PIPELINE_STAGE_2_ALL_TRANSFER_BIT;
    return stages;
}

static VkAccessFlags2 map_accesses(VkAccessFlags2 accesses) {
    if (accesses & VK_ACCESS_2_SHADER_READ_BIT)
        accesses |= VK_ACCESS_2_TRANSFER_READ_BIT;
    if (accesses & VK_ACCESS_2_SHADER_WRITE_BIT)
        accesses |= VK_ACCESS_2_TRANSFER_WRITE_BIT;
    return accesses;
}

static void put_barrier(const struct transcription *at, bool first) {
    VkMemoryBarrier2 barrier = recording_barrier(first, false);
    barrier.srcStageMask = map_stages(barrier.srcStageMask);
    barrier.srcAccessMask = map_accesses(barrier.srcAccessMask);
    barrier.dstStageMask = map_stages(barrier.dstStageMask);
    barrier.dstAccessMask = map_accesses(barrier.dstAccessMask);
    VkDependencyInfo info = {.sType = VK_STRUCTURE_TYPE_DEPENDENCY_INFO,
                             .memoryBarrierCount = 1,
                             .pMemoryBarriers = &barrier};
    if (at->commands)
        at->device->vk.CmdPipelineBarrier2(at->commands, &info);
}

static peridot_result transcribe(struct transcription *at, peridot_error *error) {
    const struct mirror *mirror = at->mirror;
    at->used = SOURCE_BYTES;
    for (uint32_t i = 0; i < mirror->count; i++) {
        const struct recording *recording = mirror->recordings[i];
        ptrdiff_t count = arrlen(recording->dispatches);
        bool *barrier = malloc((size_t)count + 1);
        if (!barrier)
            return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory while mirroring");
        recording_barriers(recording, barrier);
        for (ptrdiff_t j = 0; j < count; j++) {
            bool omitted = i == mirror->omitted_recording && j == mirror->omitted_dispatch;
            if (barrier[j] && !omitted)
                put_barrier(at, j == 0);
            put_dispatch(at, &recording->dispatches[j]);
        }
        free(barrier);
    }
    return PERIDOT_OK;
}

uint64_t mirror_scratch(const struct mirror *mirror) {
    struct transcription at = {.mirror = mirror};
    return transcribe(&at, NULL) ? 0 : at.used;
}

peridot_result mirror_emit(const struct mirror *mirror, const struct buffer *scratch,
                           VkCommandBuffer commands, peridot_error *error) {
    if (mirror->count == 0)
        return PERIDOT_OK;
    for (uint32_t i = 0; i < mirror->count; i++) {
        peridot_result result = recording_check(mirror->recordings[i], error);
        if (result)
            return result;
    }
    uint64_t needed = mirror_scratch(mirror);
    if (!scratch || needed == 0 || scratch->size < needed)
        return fail(error, PERIDOT_ERROR_ARGUMENT, "the mirror needs %llu bytes of scratch",
                    (unsigned long long)needed);
    struct transcription at = {.mirror = mirror,
                               .device = mirror->recordings[0]->device,
                               .commands = commands,
                               .scratch = scratch};
    return transcribe(&at, error);
}
