#include "timed_kernel.h"
#include "platform.h"
#include "staging.h"
#include "timestamps.h"

#include <stdlib.h>
#include <string.h>

#define COPIES_MAX 64
#define RUNS_AT_ONCE_MAX 64 /* runs in one submission */
#define BATCH_SECONDS 0.05  /* that it takes about: far from any watchdog */
#define RESTORED_MOST                                                                              \
    (1u << 20) /* bytes; larger planes a kernel writes anew or adds to, for all it cares */
#define BLOCK_MOST (64u << 20) /* bytes of memory at once; more is the arena's own measure */
#define PLACE 256              /* between buffers, about */

struct copied_plane {
    const struct buffer *buffer;
    const struct buffer *pristine; /* what it is restored from; NULL: it stays as it is */
};

struct timed_kernel {
    struct device *device;
    struct lane lane;
    struct arena *arena;
    VkQueryPool queries;
    uint32_t copy_count, plane_count, next;
    struct copied_plane planes[COPIES_MAX][OPERANDS_MOST];
    struct recording recordings[COPIES_MAX];
    double expected; /* seconds of a run */
};

/* ---- Copies ---- */

static uint64_t planes_bytes(const struct bench *bench) {
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < bench->plane_count; i++)
        bytes += bench->planes[i].size;
    return bytes;
}

static uint32_t choose_copies(const struct bench *bench, uint64_t rotate) {
    uint64_t bytes = planes_bytes(bench), third = memory_free(bench->device) / 3;
    uint64_t wanted = rotate / bytes + 1, fit = third / bytes;
    uint64_t count = third && fit < wanted ? fit : wanted;
    return count < 1 ? 1 : count > COPIES_MAX ? COPIES_MAX : (uint32_t)count;
}

/* Wherever 8 aligned bytes are the address of a plane, they become that of its copy. */
static void relocate(const struct bench *bench, const struct copied_plane *copy, void *bytes,
                     uint64_t size) {
    for (uint64_t at = 0; at + 8 <= size; at += 8) {
        uint64_t address;
        memcpy(&address, (char *)bytes + at, 8);
        for (uint32_t i = 0; i < bench->plane_count; i++)
            if (address == bench->planes[i].address)
                memcpy((char *)bytes + at, &copy[i].buffer->address, 8);
    }
}

static peridot_result send_plane(struct staging *staging, const struct bench *bench,
                                 const struct copied_plane *copy, uint32_t index,
                                 peridot_error *error) {
    const struct plane *plane = &bench->planes[index];
    peridot_result result = PERIDOT_OK;
    for (uint64_t done = 0, part; done < plane->size && !result; done += part) {
        void *memory;
        part = plane->size - done;
        part = part < staging->slot_bytes ? part : staging->slot_bytes;
        result = staging_next(staging, &memory, error);
        if (result)
            break;
        memcpy(memory, (const char *)plane->data + done, part);
        if (plane->size <= RESTORED_MOST) /* a session block, say */
            relocate(bench, copy, memory, part);
        result = staging_send(staging, copy[index].buffer, done, part, error);
        if (!result && copy[index].pristine) /* the slot still holds it */
            result = staging_next(staging, &memory, error);
        if (!result && copy[index].pristine) {
            memcpy(memory, (const char *)plane->data + done, part);
            relocate(bench, copy, memory, part);
            result = staging_send(staging, copy[index].pristine, done, part, error);
        }
    }
    return result;
}

/* Whether a dispatch writes a plane. */
static bool is_written(const struct bench_dispatch *dispatch, const struct plane *plane) {
    struct kernel_info info = kernel_info(dispatch->pipeline->key.variant->kernel);
    for (uint32_t i = 0; i < info.operand_count; i++)
        if (dispatch->planes[i] == plane && info.operand_access[i] != ACCESS_READ)
            return true;
    return false;
}

/* What is restored before each run. */
static bool is_restored(const struct bench_dispatch *dispatch, const struct plane *plane) {
    return plane->size <= RESTORED_MOST && is_written(dispatch, plane);
}

/* Memory is taken as needed: a driver may clear what it allocates, and for small planes that would
 * take longer than all else. */
static peridot_result create_memory(struct timed_kernel *timed, const struct bench *bench,
                                    const struct bench_dispatch *dispatch, struct staging *staging,
                                    peridot_error *error) {
    uint64_t largest = 0, copy = 0;
    for (uint32_t i = 0; i < bench->plane_count; i++) {
        const struct plane *plane = &bench->planes[i];
        uint64_t size = (plane->size + PLACE - 1) / PLACE * PLACE;
        largest = size > largest ? size : largest;
        copy += is_restored(dispatch, plane) ? 2 * size : size;
    }
    uint64_t block = timed->copy_count * copy;
    peridot_result result = arena_create(bench->device, MEMORY_DEVICE,
                                         block < BLOCK_MOST ? block : 0, &timed->arena, error);
    if (result)
        return result;
    uint64_t slot = largest < STAGING_SLOT_BYTES ? largest : STAGING_SLOT_BYTES;
    return staging_create(bench->device, slot, staging, error);
}

static peridot_result create_copy(struct timed_kernel *timed, const struct bench *bench,
                                  const struct bench_dispatch *dispatch, struct staging *staging,
                                  uint32_t index, peridot_error *error) {
    struct copied_plane *copy = timed->planes[index];
    peridot_result result = PERIDOT_OK;
    for (uint32_t i = 0; i < bench->plane_count && !result; i++) {
        const struct plane *plane = &bench->planes[i];
        uint64_t size = (plane->size + 3) / 4 * 4;
        result = arena_buffer(timed->arena, size, plane->name, &copy[i].buffer, error);
        if (!result && is_restored(dispatch, plane))
            result = arena_buffer(timed->arena, size, plane->name, &copy[i].pristine, error);
    }
    for (uint32_t i = 0; i < bench->plane_count && !result; i++)
        result = send_plane(staging, bench, copy, i, error);
    return result;
}

/* ---- The dispatch on a copy ---- */

static void record(struct timed_kernel *timed, const struct bench *bench,
                   const struct bench_dispatch *given, uint32_t index) {
    struct kernel_info info = kernel_info(given->pipeline->key.variant->kernel);
    struct copied_plane *copy = timed->planes[index];
    struct operand operands[KERNEL_OPERANDS_MAX] = {{0}};
    char constants[128];
    memcpy(constants, given->constants, info.constants_size);
    relocate(bench, copy, constants, info.constants_size);
    for (uint32_t i = 0; i < info.operand_count; i++)
        if (given->planes[i])
            operands[i] = (struct operand){copy[given->planes[i] - bench->planes].buffer, 0,
                                           given->planes[i]->size};
    recording_begin(&timed->recordings[index], timed->device);
    struct dispatch *dispatch = recording_dispatch(&timed->recordings[index], given->pipeline,
                                                   constants, operands, given->grid);
    if (dispatch && given->indirect) {
        dispatch->indirect = copy[given->indirect - bench->planes].buffer;
        dispatch->indirect_offset = given->indirect_offset;
    }
}

peridot_result timed_kernel_create(const struct bench *bench, const struct bench_dispatch *dispatch,
                                   uint64_t rotate, struct timed_kernel **out,
                                   peridot_error *error) {
    struct staging staging;
    struct timed_kernel *timed = *out = calloc(1, sizeof *timed);
    if (!timed)
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory while timing a kernel");
    timed->device = bench->device;
    timed->plane_count = bench->plane_count;
    timed->copy_count = choose_copies(bench, rotate);
    peridot_result result = lane_create(bench->device, &timed->lane, error);
    if (!result)
        result = timestamps_create(bench->device, 2 * RUNS_AT_ONCE_MAX, &timed->queries, error);
    if (!result)
        result = create_memory(timed, bench, dispatch, &staging, error);
    if (result) {
        timed_kernel_destroy(timed);
        *out = NULL;
        return result;
    }
    for (uint32_t i = 0; i < timed->copy_count && !result; i++) {
        result = create_copy(timed, bench, dispatch, &staging, i, error);
        if (!result)
            record(timed, bench, dispatch, i);
    }
    if (!result)
        result = staging_finish(&staging, error);
    staging_destroy(&staging);
    if (result) {
        timed_kernel_destroy(timed);
        *out = NULL;
    }
    return result;
}

void timed_kernel_destroy(struct timed_kernel *timed) {
    if (!timed)
        return;
    for (uint32_t i = 0; i < timed->copy_count; i++)
        recording_free(&timed->recordings[i]);
    if (timed->lane.device)
        lane_destroy(&timed->lane);
    timestamps_destroy(timed->device, timed->queries);
    arena_destroy(timed->arena);
    free(timed);
}

/* ---- Running ---- */

static void restore(struct timed_kernel *timed, VkCommandBuffer commands, uint32_t copy) {
    const struct device_functions *vk = &timed->device->vk;
    VkMemoryBarrier2 barrier = recording_barrier(true, false);
    barrier.dstStageMask |= VK_PIPELINE_STAGE_2_ALL_TRANSFER_BIT;
    barrier.dstAccessMask |= VK_ACCESS_2_TRANSFER_WRITE_BIT;
    vk->CmdPipelineBarrier2(commands,
                            &(VkDependencyInfo){.sType = VK_STRUCTURE_TYPE_DEPENDENCY_INFO,
                                                .memoryBarrierCount = 1,
                                                .pMemoryBarriers = &barrier});
    for (uint32_t i = 0; i < timed->plane_count; i++) {
        const struct copied_plane *plane = &timed->planes[copy][i];
        VkBufferCopy region = {0, 0, plane->buffer->size};
        if (plane->pristine)
            vk->CmdCopyBuffer(commands, plane->pristine->handle, plane->buffer->handle, 1, &region);
    }
}

static peridot_result emit_runs(struct timed_kernel *timed, VkCommandBuffer commands,
                                uint32_t count, peridot_error *error) {
    peridot_result result = PERIDOT_OK;
    for (uint32_t i = 0; i < count && !result; i++) {
        uint32_t copy = timed->next++ % timed->copy_count;
        struct emit_options options = {.queries = timed->queries, .first_query = 2 * i};
        restore(timed, commands, copy);
        result = recording_emit(&timed->recordings[copy], commands, &options, error);
    }
    return result;
}

static peridot_result submit_runs(struct timed_kernel *timed, VkCommandBuffer commands,
                                  uint32_t count, double *seconds, peridot_error *error) {
    struct lane *lane = &timed->lane;
    peridot_result result = lane_begin(lane, commands, false, error);
    if (!result)
        result = emit_runs(timed, commands, count, error);
    if (!result)
        result = lane_end(lane, commands, error);
    double start = platform_seconds();
    if (!result)
        result = lane_submit(lane, &(struct batch){&commands, 1}, 1, error);
    if (!result)
        result = lane_wait(lane, lane->submitted, error);
    if (result)
        return result;
    seconds[0] = platform_seconds() - start;
    if (!timed->queries)
        return PERIDOT_OK;
    uint64_t ticks[2 * RUNS_AT_ONCE_MAX];
    result = timestamps_read(timed->device, timed->queries, 0, 2 * count, ticks, error);
    for (uint32_t i = 0; i < count && !result; i++)
        seconds[i] = timestamps_seconds(timed->device, ticks[2 * i], ticks[2 * i + 1]);
    return result;
}

/* How many of the runs that are left go into one submission. */
static uint32_t batch_size(const struct timed_kernel *timed, uint32_t left) {
    if (!timed->queries || timed->expected <= 0)
        return 1;
    double fit = BATCH_SECONDS / timed->expected;
    uint32_t most = left < RUNS_AT_ONCE_MAX ? left : RUNS_AT_ONCE_MAX;
    return fit < 1 ? 1 : fit < most ? (uint32_t)fit : most;
}

peridot_result timed_kernel_run(struct timed_kernel *timed, uint32_t count, double *seconds,
                                peridot_error *error) {
    peridot_result result = PERIDOT_OK;
    for (uint32_t done = 0, batch; done < count && !result; done += batch) {
        VkCommandBuffer commands;
        batch = batch_size(timed, count - done);
        result = lane_commands(&timed->lane, &commands, error);
        if (result)
            break;
        result = submit_runs(timed, commands, batch, seconds + done, error);
        lane_free_commands(&timed->lane, commands);
        if (!result)
            timed->expected = seconds[done + batch - 1];
    }
    return result;
}
