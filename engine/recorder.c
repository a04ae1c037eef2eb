/* Lists of dispatches, the barriers between them, and their command buffers. */
#include "recorder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <stb/stb_ds.h>

#define INDIRECT_BYTES 12 /* of VkDispatchIndirectCommand */

void recording_begin(struct recording *recording, struct device *device) {
    *recording = (struct recording){.device = device};
}

void recording_free(struct recording *recording) {
    arrfree(recording->dispatches);
    recording->dispatches = NULL;
}

uint32_t recording_count(const struct recording *recording) {
    return (uint32_t)arrlen(recording->dispatches);
}

static struct dispatch *refuse(struct recording *recording, const char *kernel, const char *why) {
    if (!recording->failed) {
        recording->failed = PERIDOT_ERROR_ARGUMENT;
        snprintf(recording->failure, sizeof recording->failure, "dispatch %d (%s) %s",
                 (int)arrlen(recording->dispatches), kernel, why);
    }
    return NULL;
}

static bool lies_within(const struct operand *operand) {
    return operand->size > 0 && operand->offset <= operand->buffer->size &&
           operand->size <= operand->buffer->size - operand->offset;
}

struct dispatch *recording_dispatch(struct recording *recording, struct pipeline *pipeline,
                                    const void *constants, const struct operand *operands,
                                    const uint32_t grid[3]) {
    if (!pipeline)
        return refuse(recording, "?", "has no pipeline");
    struct kernel_info info = kernel_info(pipeline->key.variant->kernel);
    struct dispatch dispatch = {.pipeline = pipeline,
                                .constants_size = info.constants_size,
                                .operand_count = info.operand_count,
                                .label = info.name};
    memcpy(dispatch.grid, grid, sizeof dispatch.grid);
    memcpy(dispatch.constants, constants, info.constants_size);
    for (int i = 0; i < 3; i++)
        if (grid[i] == 0 || grid[i] > recording->device->info.limits.max_grid[i])
            return refuse(recording, info.name, "has a grid that the device cannot run");
    for (uint32_t i = 0; i < info.operand_count; i++) {
        dispatch.operands[i] = operands[i];
        dispatch.access[i] = info.operand_access[i];
        if (operands[i].buffer && !lies_within(&operands[i]))
            return refuse(recording, info.name, "has an operand outside its buffer");
    }
    arrput(recording->dispatches, dispatch);
    return &arrlast(recording->dispatches);
}

void recording_also(struct recording *recording, struct dispatch *dispatch, uint32_t like,
                    struct operand operand) {
    if (!dispatch)
        return;
    if (dispatch->operand_count == DISPATCH_OPERANDS_MAX)
        refuse(recording, dispatch->label, "has too many operands");
    else if (!lies_within(&operand))
        refuse(recording, dispatch->label, "has an operand outside its buffer");
    else {
        dispatch->access[dispatch->operand_count] = dispatch->access[like];
        dispatch->operands[dispatch->operand_count++] = operand;
    }
}

/* ---- Parts ---- */

uint32_t grid_longest_side(const uint32_t grid[3]) {
    uint32_t side = grid[1] > grid[0] ? 1 : 0;
    return grid[2] > grid[side] ? 2 : side;
}

static void take_grid(const struct recording_range *range, struct dispatch *dispatch) {
    for (uint32_t i = 0; i < range->grid_count; i++)
        if (range->grids[i].buffer == dispatch->indirect)
            memcpy(dispatch->grid, range->grids[i].grid, sizeof dispatch->grid);
    dispatch->indirect = NULL;
}

void recording_part(const struct recording *whole, const struct recording_range *range,
                    struct recording *part) {
    recording_begin(part, whole->device);
    part->failed = whole->failed;
    memcpy(part->failure, whole->failure, sizeof part->failure);
    for (uint32_t i = range->first; i <= range->last; i++) {
        struct dispatch dispatch = whole->dispatches[i];
        if (dispatch.indirect)
            take_grid(range, &dispatch);
        uint32_t side = grid_longest_side(dispatch.grid);
        uint32_t begin = i == range->first ? range->first_group : 0;
        uint32_t end = i == range->last ? range->end_group : dispatch.grid[side];
        dispatch.base[side] = begin;
        dispatch.grid[side] = end - begin;
        arrput(part->dispatches, dispatch);
    }
}

/* ---- Barriers ---- */

static bool overlap(const struct operand *a, const struct operand *b) {
    return a->buffer && a->buffer == b->buffer && a->offset < b->offset + b->size &&
           b->offset < a->offset + a->size;
}

/* Indirect arguments are one more read. */
static bool indirect_conflict(const struct dispatch *reader, const struct dispatch *writer) {
    if (!reader->indirect)
        return false;
    struct operand arguments = {reader->indirect, reader->indirect_offset, INDIRECT_BYTES};
    for (uint32_t i = 0; i < writer->operand_count; i++)
        if ((writer->access[i] & ACCESS_WRITE) && overlap(&arguments, &writer->operands[i]))
            return true;
    return false;
}

bool dispatches_conflict(const struct dispatch *a, const struct dispatch *b) {
    for (uint32_t i = 0; i < a->operand_count; i++)
        for (uint32_t j = 0; j < b->operand_count; j++)
            if (((a->access[i] | b->access[j]) & ACCESS_WRITE) &&
                overlap(&a->operands[i], &b->operands[j]))
                return true;
    return indirect_conflict(a, b) || indirect_conflict(b, a);
}

/* Greedy: a barrier only when the next dispatch conflicts with one since the last barrier. As a
 * barrier orders everything before it, putting each as late as possible is also putting the fewest.
 */
uint32_t recording_barriers(const struct recording *recording, bool *barrier) {
    ptrdiff_t since = 0;
    uint32_t count = 0;
    for (ptrdiff_t i = 0; i < arrlen(recording->dispatches); i++) {
        barrier[i] = i == 0;
        for (ptrdiff_t j = since; j < i && !barrier[i]; j++)
            barrier[i] = dispatches_conflict(&recording->dispatches[j], &recording->dispatches[i]);
        if (barrier[i])
            since = i;
        count += barrier[i];
    }
    return count;
}

/* ---- Emission ---- */

VkMemoryBarrier2 recording_barrier(bool first, bool host_read) {
    const VkPipelineStageFlags2 work =
        VK_PIPELINE_STAGE_2_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_2_DRAW_INDIRECT_BIT;
    VkMemoryBarrier2 barrier = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER_2,
        .srcStageMask = work,
        .srcAccessMask = VK_ACCESS_2_SHADER_WRITE_BIT,
        .dstStageMask = work,
        .dstAccessMask = VK_ACCESS_2_SHADER_READ_BIT | VK_ACCESS_2_SHADER_WRITE_BIT |
                         VK_ACCESS_2_INDIRECT_COMMAND_READ_BIT,
    };
    if (first) {
        barrier.srcStageMask |= VK_PIPELINE_STAGE_2_ALL_TRANSFER_BIT;
        barrier.srcAccessMask |= VK_ACCESS_2_TRANSFER_WRITE_BIT;
    }
    if (host_read) {
        barrier.dstStageMask = VK_PIPELINE_STAGE_2_HOST_BIT;
        barrier.dstAccessMask = VK_ACCESS_2_HOST_READ_BIT;
    }
    return barrier;
}

static void put_barrier(const struct device *device, VkCommandBuffer commands,
                        VkMemoryBarrier2 barrier) {
    VkDependencyInfo info = {.sType = VK_STRUCTURE_TYPE_DEPENDENCY_INFO,
                             .memoryBarrierCount = 1,
                             .pMemoryBarriers = &barrier};
    device->vk.CmdPipelineBarrier2(commands, &info);
}

static void put_dispatch(const struct device *device, VkCommandBuffer commands,
                         const struct dispatch *dispatch) {
    const struct device_functions *vk = &device->vk;
    if (device->debug_names) {
        VkDebugUtilsLabelEXT label = {.sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_LABEL_EXT,
                                      .pLabelName = dispatch->label};
        vk->CmdBeginDebugUtilsLabelEXT(commands, &label);
    }
    vk->CmdBindPipeline(commands, VK_PIPELINE_BIND_POINT_COMPUTE, dispatch->pipeline->handle);
    vk->CmdPushConstants(commands, pipelines_layout(device), VK_SHADER_STAGE_COMPUTE_BIT, 0,
                         dispatch->constants_size, dispatch->constants);
    const uint32_t *grid = dispatch->grid, *base = dispatch->base;
    if (dispatch->indirect)
        vk->CmdDispatchIndirect(commands, dispatch->indirect->handle, dispatch->indirect_offset);
    else if (base[0] || base[1] || base[2])
        vk->CmdDispatchBase(commands, base[0], base[1], base[2], grid[0], grid[1], grid[2]);
    else
        vk->CmdDispatch(commands, grid[0], grid[1], grid[2]);
    if (device->debug_names)
        vk->CmdEndDebugUtilsLabelEXT(commands);
}

/* splitmix64 */
static uint64_t next_random(uint64_t *state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static void shuffle(uint32_t *order, uint32_t count, uint64_t *seed) {
    for (uint32_t i = count; i > 1; i--) {
        uint32_t j = (uint32_t)(next_random(seed) % i);
        uint32_t kept = order[i - 1];
        order[i - 1] = order[j];
        order[j] = kept;
    }
}

/* Timestamp `index` of a timed recording. */
static void put_timestamp(const struct device *device, VkCommandBuffer commands,
                          const struct emit_options *options, uint32_t index) {
    if (options->queries)
        device->vk.CmdWriteTimestamp2(commands, VK_PIPELINE_STAGE_2_ALL_COMMANDS_BIT,
                                      options->queries, options->first_query + index);
}

static void emit_in_order(const struct recording *recording, VkCommandBuffer commands,
                          const bool *barrier, const uint32_t *order,
                          const struct emit_options *options) {
    const struct device *device = recording->device;
    uint32_t count = recording_count(recording);
    if (options->queries)
        device->vk.CmdResetQueryPool(commands, options->queries, options->first_query, count + 1);
    put_timestamp(device, commands, options, 0);
    for (uint32_t i = 0; i < count; i++) {
        if (barrier[i] || options->queries)
            put_barrier(device, commands, recording_barrier(i == 0, false));
        put_dispatch(device, commands, &recording->dispatches[order[i]]);
        put_timestamp(device, commands, options, i + 1);
    }
    if (options->host_read)
        put_barrier(device, commands, recording_barrier(false, true));
}

peridot_result recording_check(const struct recording *recording, peridot_error *error) {
    if (recording->failed)
        return fail(error, recording->failed, "recording: %s", recording->failure);
    for (ptrdiff_t i = 0; i < arrlen(recording->dispatches); i++) {
        const struct dispatch *dispatch = &recording->dispatches[i];
        struct operand arguments = {dispatch->indirect, dispatch->indirect_offset, INDIRECT_BYTES};
        const char *why = NULL;
        if (!dispatch->pipeline->handle)
            why = "has a pipeline that is not compiled";
        else if (dispatch->indirect &&
                 (!lies_within(&arguments) || dispatch->indirect_offset % 4 != 0))
            why = "has its indirect grid outside its buffer";
        if (why)
            return fail(error, PERIDOT_ERROR_ARGUMENT, "recording: dispatch %d (%s) %s", (int)i,
                        dispatch->label, why);
    }
    return PERIDOT_OK;
}

peridot_result recording_emit(const struct recording *recording, VkCommandBuffer commands,
                              const struct emit_options *options, peridot_error *error) {
    peridot_result result = recording_check(recording, error);
    if (result)
        return result;
    uint32_t count = (uint32_t)arrlen(recording->dispatches);
    bool *barrier = malloc(count + 1);
    uint32_t *order = malloc((count + 1) * sizeof *order);
    if (!barrier || !order) {
        result = fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory while recording");
    } else {
        uint64_t seed = options->shuffle_seed;
        recording_barriers(recording, barrier);
        for (uint32_t i = 0; i < count; i++)
            order[i] = i;
        for (uint32_t begin = 0, end; seed && begin < count; begin = end) {
            for (end = begin + 1; end < count && !barrier[end];)
                end++;
            shuffle(order + begin, end - begin, &seed);
        }
        emit_in_order(recording, commands, barrier, order, options);
    }
    free(barrier);
    free(order);
    return result;
}
