#include "slices.h"
#include "batch.h"
#include "timestamps.h"

#include <stdlib.h>

#include <stb/stb_ds.h>

#define TOKENS_AHEAD (RING_CAPACITY / 2) /* sampled and not taken over, at most */

/* ---- Cutting ---- */

/* Starts a run where the last one does not simply go on. */
static struct slice_run *run_at(struct slice_cut *cut, const struct work_place *place,
                                const struct work_unit *unit) {
    const struct slice_run *last = arrlen(cut->runs) ? &arrlast(cut->runs) : NULL;
    if (!last || last->ends_segment) {
        struct slice_run run = {.at = *place,
                                .segment = unit->segment,
                                .range = {.first = place->dispatch, .first_group = place->group},
                                .begins_stage = work_list_between(place)};
        arrput(cut->runs, run);
    }
    return &arrlast(cut->runs);
}

/* Whether the token to sample next has no mask yet: it gets one when the tokens before it are
 * known: before a slice that begins with sampling, else behind what there is to submit, so that the
 * device works meanwhile. */
static bool waits_for_mask(const struct work *work, const struct slice_cut *cut) {
    uint32_t index = cut->after.member, sampled = cut->after.members[index].sampled;
    const struct work_member *member = &work->members[index];
    if (!(work->goal.members[index].kind & SAMPLER_MASK) || sampled < member->masked)
        return false;
    return sampled > member->received ||
           (cut->dispatches > 0 && cut->runs[0].at.stage != STAGE_SAMPLE);
}

/* Whether the cut samples a token that the next one's mask hangs on: as long as that is a slice of
 * its own, the mask can be made while the layers run. */
static bool decides_mask(const struct work *work, const struct slice_cut *cut,
                         const struct work_place *from) {
    bool decides = false;
    for (uint32_t i = 0; i < BATCH_MAX; i++)
        decides |= (work->goal.members[i].kind & SAMPLER_MASK) &&
                   cut->after.members[i].sampled > from->members[i].sampled;
    return decides;
}

/* Whether the slice ends before this place, however much of it is left. */
static bool stops_at(const struct peridot_session *session, const struct slice_cut *cut,
                     const struct work_place *from, bool limited) {
    const struct work_place *place = &cut->after;
    if (place->stage == STAGE_END)
        return true;
    if (!work_list_between(place))
        return false;
    if (place->stage != STAGE_SAMPLE) /* where a slice is a frame's, there is only that one */
        return !limited && decides_mask(session->work, cut, from);
    if (waits_for_mask(session->work, cut))
        return true;
    uint32_t sampled = place->members[place->member].sampled;
    if (sampled - session->work->members[place->member].received >= TOKENS_AHEAD)
        return true;
    return !limited &&
           sampled - from->members[place->member].sampled >= session->steps_per_submission;
}

void slice_cut_make(const struct peridot_session *session, const struct work_place *place,
                    double seconds, struct slice_cut *cut) {
    const struct work *work = session->work;
    const struct work_goal *goal = &work->goal;
    *cut = (struct slice_cut){.after = *place};
    slice_fill_begin(seconds > 0 ? seconds : session->submission_seconds, &cut->fill);
    while (!stops_at(session, cut, place, seconds > 0)) {
        struct work_unit unit;
        work_list_unit(session, goal, &cut->after, &unit);
        uint32_t left = unit.groups - cut->after.group;
        uint32_t groups = slice_fill_add(&work->slicer, &cut->fill, unit.key, unit.group, left);
        if (!groups)
            break;
        struct slice_run *run = run_at(cut, &cut->after, &unit);
        run->range.last = cut->after.dispatch;
        run->range.end_group = cut->after.group + groups;
        cut->dispatches++;
        cut->cost.bytes += unit.group.bytes * groups;
        cut->cost.flops += unit.group.flops * groups;
        run->ends_segment = work_list_advance(session, goal, &unit, groups, &cut->after);
        if (groups < left)
            break;
    }
}

void slice_cut_free(struct slice_cut *cut) {
    arrfree(cut->runs);
    cut->runs = NULL;
    slice_fill_free(&cut->fill);
}

/* ---- Writing ---- */

/* Command buffers being put together: fresh ones, between them segments recorded before; or the
 * application's alone. */
struct writer {
    struct peridot_session *session;
    VkCommandBuffer open;   /* VK_NULL_HANDLE: none is */
    VkCommandBuffer *list;  /* stb_ds array, to be submitted */
    VkCommandBuffer *fresh; /* stb_ds array */
    bool recorded;
    bool clears;
};

static peridot_result open_commands(struct writer *writer, peridot_error *error) {
    if (writer->open)
        return PERIDOT_OK;
    struct lane *lane = &writer->session->lane;
    VkCommandBuffer commands;
    peridot_result result = lane_commands(lane, &commands, error);
    if (result)
        return result;
    arrput(writer->fresh, commands);
    result = lane_begin(lane, commands, false, error);
    if (!result)
        writer->open = commands;
    return result;
}

static peridot_result close_commands(struct writer *writer, peridot_error *error) {
    if (!writer->open || writer->recorded)
        return PERIDOT_OK;
    peridot_result result = lane_end(&writer->session->lane, writer->open, error);
    if (!result)
        arrput(writer->list, writer->open);
    writer->open = VK_NULL_HANDLE;
    return result;
}

/* Copies come after all that Peridot had run; graphics work is not waited for. */
static void order_copies(const struct writer *writer) {
    const VkPipelineStageFlags2 work = VK_PIPELINE_STAGE_2_COMPUTE_SHADER_BIT |
                                       VK_PIPELINE_STAGE_2_DRAW_INDIRECT_BIT |
                                       VK_PIPELINE_STAGE_2_ALL_TRANSFER_BIT;
    session_order(writer->session, writer->open, work,
                  VK_ACCESS_2_SHADER_WRITE_BIT | VK_ACCESS_2_TRANSFER_WRITE_BIT,
                  VK_PIPELINE_STAGE_2_ALL_TRANSFER_BIT,
                  VK_ACCESS_2_TRANSFER_READ_BIT | VK_ACCESS_2_TRANSFER_WRITE_BIT);
}

/* A part of a new chunk; with the last part kernels learn of it. */
static void write_clearing(struct writer *writer, const struct slice_run *run) {
    const struct peridot_session *member = work_list_member(writer->session, run->at.member);
    uint32_t index = run->at.members[run->at.member].chunks;
    const struct buffer *chunk = member->chunks[index].buffer;
    uint64_t begin = (uint64_t)run->range.first_group * CLEAR_BYTES;
    uint64_t end = (uint64_t)run->range.end_group * CLEAR_BYTES;
    end = end < chunk->size ? end : chunk->size;
    order_copies(writer);
    member->lane.device->vk.CmdFillBuffer(writer->open, chunk->handle, begin, end - begin, 0);
    writer->clears = true;
    if (run->ends_segment)
        session_write_block(member, writer->open, offsetof(struct session_block, kv_chunks));
}

/* Before a batch's first step where its rows are; before each who is done. */
static void write_step_header(const struct writer *writer, const struct work_place *at) {
    struct peridot_session *batch = writer->session;
    if (at->steps == 0) {
        batch_set_block(batch);
        session_write_block(batch, writer->open, 0);
    }
    for (uint32_t i = 0; i < batch->member_count; i++)
        if (at->stops >> i & 1)
            batch->lane.device->vk.CmdFillBuffer(writer->open, batch->members[i]->block->handle,
                                                 offsetof(struct session_block, done), 4, 1);
}

/* What a stage's kernels find in the members' blocks and the batch's. */
static void write_stage_header(struct writer *writer, const struct work_place *at) {
    struct peridot_session *member = work_list_member(writer->session, at->member);
    order_copies(writer);
    if (at->stage == STAGE_PASS) {
        session_write_header(member, writer->open, at->base, at->rows);
    } else if (at->stage == STAGE_SAMPLE) {
        session_begin_sampling(member);
        session_write_block(member, writer->open, 0);
    } else {
        write_step_header(writer, at);
    }
}

static bool has_header(const struct peridot_session *session, const struct slice_run *run) {
    const struct work_place *at = &run->at;
    if (!run->begins_stage)
        return false;
    if (at->stage == STAGE_STEP)
        return session->member_count && (at->steps == 0 || at->stops);
    return at->stage == STAGE_PASS ||
           (at->stage == STAGE_SAMPLE && at->members[at->member].sampled == 0);
}

static peridot_result write_run(struct writer *writer, const struct slice_run *run,
                                peridot_error *error) {
    const struct peridot_session *session = writer->session;
    bool whole = run->segment && run->ends_segment && run->at.dispatch == 0 && run->at.group == 0 &&
                 !writer->recorded;
    peridot_result result = PERIDOT_OK;
    if (!whole || has_header(session, run))
        result = open_commands(writer, error);
    if (result)
        return result;
    if (!run->segment) {
        write_clearing(writer, run);
        return PERIDOT_OK;
    }
    if (has_header(session, run))
        write_stage_header(writer, &run->at);
    if (whole) {
        result = close_commands(writer, error);
        arrput(writer->list, run->segment->commands);
        return result;
    }
    struct indirect_grid grids[BATCH_MAX];
    struct recording_range range = run->range;
    range.grids = grids;
    range.grid_count = work_list_grids(session, &run->at, grids);
    struct recording part;
    recording_part(&run->segment->recording, &range, &part);
    struct emit_options options = {.shuffle_seed = session->shuffle_seed,
                                   .host_read = run->at.stage == STAGE_SAMPLE && run->ends_segment};
    result = recording_emit(&part, writer->open, &options, error);
    recording_free(&part);
    return result;
}

/* Peridot's stages alone are timed, so that graphics work beside them does not count. */
static peridot_result write_time(struct writer *writer, uint32_t query, peridot_error *error) {
    const struct peridot_session *session = writer->session;
    const struct work *work = session->work;
    if (!work->queries)
        return PERIDOT_OK;
    peridot_result result = open_commands(writer, error);
    if (result)
        return result;
    const struct device_functions *vk = &session->lane.device->vk;
    if (query % 2 == 0)
        vk->CmdResetQueryPool(writer->open, work->queries, query, 2);
    vk->CmdWriteTimestamp2(writer->open,
                           writer->clears ? VK_PIPELINE_STAGE_2_ALL_COMMANDS_BIT
                                          : VK_PIPELINE_STAGE_2_COMPUTE_SHADER_BIT,
                           work->queries, query);
    return PERIDOT_OK;
}

/* Makes the chunks that the slice begins to clear, before anything is written. */
static peridot_result add_chunks(struct peridot_session *session, const struct slice_cut *cut,
                                 peridot_error *error) {
    peridot_result result = PERIDOT_OK;
    for (ptrdiff_t i = 0; i < arrlen(cut->runs) && !result; i++) {
        const struct work_place *at = &cut->runs[i].at;
        struct peridot_session *member = work_list_member(session, at->member);
        if (!cut->runs[i].segment && member->chunk_count == at->members[at->member].chunks)
            result = kv_cache_add(member, error);
    }
    return result;
}

static peridot_result write_slice(struct writer *writer, const struct slice_cut *cut,
                                  uint32_t first_query, peridot_error *error) {
    peridot_result result = write_time(writer, first_query, error);
    for (ptrdiff_t i = 0; i < arrlen(cut->runs) && !result; i++)
        result = write_run(writer, &cut->runs[i], error);
    if (!result)
        result = write_time(writer, first_query + 1, error);
    return result ? result : close_commands(writer, error);
}

static void free_fresh(struct peridot_session *session, VkCommandBuffer *fresh) {
    for (ptrdiff_t i = 0; i < arrlen(fresh); i++)
        lane_free_commands(&session->lane, fresh[i]);
    arrfree(fresh);
}

/* ---- In flight ---- */

static void take_off(struct work *work, struct slice_flight flight, struct slice_cut *cut) {
    uint32_t index = (work->first_flight + work->flight_count++) % PERIDOT_SLICES_MAX;
    flight.fill = cut->fill;
    flight.before = work->place;
    flight.after = cut->after;
    cut->fill = (struct slice_fill){0};
    work->flights[index] = flight;
    work->place = cut->after;
    work->next_query = (work->next_query + 2) % (2 * PERIDOT_SLICES_MAX);
}

peridot_result slices_submit(struct peridot_session *session, struct slice_cut *cut,
                             const peridot_advance *advance, peridot_error *error) {
    struct work *work = session->work;
    struct writer writer = {.session = session};
    peridot_result result = add_chunks(session, cut, error);
    if (!result)
        result = write_slice(&writer, cut, work->next_query, error);
    if (!result)
        result = lane_submit_between(
            &session->lane, &(struct batch){writer.list, (uint32_t)arrlen(writer.list)},
            advance->waits, advance->wait_count, advance->signals, advance->signal_count, error);
    arrfree(writer.list);
    if (result) {
        free_fresh(session, writer.fresh);
        return result;
    }
    take_off(work,
             (struct slice_flight){.timeline = session->lane.timeline,
                                   .value = session->lane.submitted,
                                   .fresh = writer.fresh,
                                   .first_query = work->next_query},
             cut);
    return PERIDOT_OK;
}

static peridot_result timeline_value(const struct peridot_session *session, VkSemaphore timeline,
                                     uint64_t *value, peridot_error *error) {
    struct device *device = session->lane.device;
    VkResult code = device->lost
                        ? VK_ERROR_DEVICE_LOST
                        : device->vk.GetSemaphoreCounterValue(device->handle, timeline, value);
    return code ? device_fail(device, code, "asking for progress", error) : PERIDOT_OK;
}

/* A value that is there already would tell of a slice that has not run. */
static peridot_result check_timeline(const struct peridot_session *session,
                                     const peridot_recording *recording, peridot_error *error) {
    uint64_t now = 0;
    peridot_result result = timeline_value(session, recording->timeline, &now, error);
    if (!result && now >= recording->value)
        return fail(error, PERIDOT_ERROR_ARGUMENT,
                    "the timeline of the recording has the value %llu already: give the one that "
                    "the submission of its commands will signal, not %llu",
                    (unsigned long long)now, (unsigned long long)recording->value);
    return result;
}

peridot_result slices_record(struct peridot_session *session, struct slice_cut *cut,
                             const peridot_recording *recording, peridot_error *error) {
    struct work *work = session->work;
    struct writer writer = {.session = session, .open = recording->commands, .recorded = true};
    peridot_result result = check_timeline(session, recording, error);
    if (!result)
        result = add_chunks(session, cut, error);
    if (result)
        return result;
    dispatches_begin(session->lane.device, recording->commands);
    result = write_slice(&writer, cut, work->next_query, error);
    dispatches_end(session->lane.device, recording->commands);
    if (result) {
        work->ending = true; /* what was written would be there twice */
        return result;
    }
    take_off(work,
             (struct slice_flight){.recorded = true,
                                   .timeline = recording->timeline,
                                   .value = recording->value,
                                   .first_query = work->next_query},
             cut);
    return PERIDOT_OK;
}

peridot_result slices_poll(struct peridot_session *session, bool *done, peridot_error *error) {
    const struct work *work = session->work;
    const struct slice_flight *flight = &work->flights[work->first_flight];
    if (!flight->recorded)
        return lane_poll(&session->lane, flight->value, done, error);
    uint64_t now = 0;
    peridot_result result = timeline_value(session, flight->timeline, &now, error);
    *done = !result && now >= flight->value;
    return result;
}

double slices_measure(struct peridot_session *session) {
    const struct work *work = session->work;
    struct device *device = session->lane.device;
    uint64_t ticks[2];
    if (!work->queries ||
        timestamps_poll(device, work->queries, work->flights[work->first_flight].first_query, 2,
                        ticks, NULL))
        return 0;
    return timestamps_seconds(device, ticks[0], ticks[1]);
}

void slices_drop(struct peridot_session *session) {
    struct work *work = session->work;
    struct slice_flight *flight = &work->flights[work->first_flight];
    free_fresh(session, flight->fresh);
    slice_fill_free(&flight->fill);
    *flight = (struct slice_flight){0};
    work->first_flight = (work->first_flight + 1) % PERIDOT_SLICES_MAX;
    work->flight_count--;
}

static void wait_for_recorded(const struct peridot_session *session,
                              const struct slice_flight *flight) {
    struct device *device = session->lane.device;
    VkSemaphoreWaitInfo info = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_WAIT_INFO,
                                .semaphoreCount = 1,
                                .pSemaphores = &flight->timeline,
                                .pValues = &flight->value};
    if (flight->recorded && !device->lost)
        (void)device_wait(device, &info);
}

void slices_release(struct peridot_session *session) {
    struct work *work = session->work;
    if (!work)
        return;
    timestamps_destroy(session->lane.device, work->queries);
    work->queries = VK_NULL_HANDLE;
}

void slices_take_back(struct peridot_session *session) {
    struct work *work = session->work;
    uint32_t last = (work->first_flight + --work->flight_count) % PERIDOT_SLICES_MAX;
    struct slice_flight *flight = &work->flights[last];
    work->place = flight->before;
    work->next_query = flight->first_query;
    free_fresh(session, flight->fresh);
    slice_fill_free(&flight->fill);
    *flight = (struct slice_flight){0};
}

void slices_wait(struct peridot_session *session) {
    const struct work *work = session->work;
    for (uint32_t i = 0; work && i < work->flight_count; i++)
        wait_for_recorded(session, &work->flights[(work->first_flight + i) % PERIDOT_SLICES_MAX]);
}

void slices_close(struct peridot_session *session) {
    struct work *work = session->work;
    if (!work)
        return;
    slices_wait(session);
    while (work->flight_count)
        slices_drop(session);
    slices_release(session);
    slicer_free(&work->slicer);
    free(work);
    session->work = NULL;
}
