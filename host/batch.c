/* Making a batch: a session's buffers and recordings for the rows of several. */
#include "batch.h"
#include "caller_struct.h"
#include "forward.h"
#include "work.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(PERIDOT_BATCH_MAX == BATCH_MAX && BATCH_MAX <= FEW_ROWS, "one row a session");

/* ---- What may be in one ---- */

static peridot_result check_session(peridot_session *const *sessions, uint32_t index,
                                    peridot_error *error) {
    const struct peridot_session *first = sessions[0], *session = sessions[index];
    if (!session)
        return fail(error, PERIDOT_ERROR_ARGUMENT, "session %u of the batch is NULL", index);
    if (session->next || model_next(session->model))
        return fail(error, PERIDOT_ERROR_UNSUPPORTED,
                    "a model on several devices does not decode in batches: use "
                    "peridot_session_generate_wait");
    for (uint32_t i = 0; i < index; i++)
        if (sessions[i] == session)
            return fail(error, PERIDOT_ERROR_ARGUMENT,
                        "sessions %u and %u of the batch are the same", i, index);
    if (session->suspension)
        return fail(error, PERIDOT_ERROR_ARGUMENT,
                    "session %u of the batch is suspended: call peridot_session_resume_wait first",
                    index);
    if (session->model != first->model)
        return fail(error, PERIDOT_ERROR_ARGUMENT,
                    "session %u of the batch is another model's: all must be of one", index);
    if (session->kv != first->kv || session->int8 != first->int8)
        return fail(error, PERIDOT_ERROR_ARGUMENT,
                    "session %u of the batch has another KV cache type or other activations than "
                    "session 0: create them with the same params",
                    index);
    return PERIDOT_OK;
}

static peridot_result check_sessions(peridot_session *const *sessions, uint32_t count,
                                     peridot_error *error) {
    if (!sessions || count == 0 || count > BATCH_MAX)
        return fail(error, PERIDOT_ERROR_ARGUMENT, "a batch has 1 to %d sessions, not %u",
                    BATCH_MAX, count);
    peridot_result result = PERIDOT_OK;
    for (uint32_t i = 0; i < count && !result; i++)
        result = check_session(sessions, i, error);
    return result;
}

/* ---- Making one ---- */

static void take_settings(struct peridot_session *own, peridot_session *const *sessions,
                          uint32_t count) {
    own->model = sessions[0]->model;
    own->kv = sessions[0]->kv;
    own->int8 = sessions[0]->int8;
    own->shuffle_seed = sessions[0]->shuffle_seed;
    own->kernels = sessions[0]->kernels;
    own->prefill_rows = own->member_count = count;
    own->passes[0] = (struct pass){.shape = PASS_FEW_ROWS, .rows = count};
    for (uint32_t i = 0; i < count; i++) {
        const struct peridot_session *session = own->members[i] = sessions[i];
        if (i == 0 || session->steps_per_submission < own->steps_per_submission)
            own->steps_per_submission = session->steps_per_submission;
        if (i == 0 || session->submission_seconds < own->submission_seconds)
            own->submission_seconds = session->submission_seconds;
    }
}

static bool any_normed(const struct peridot_session *own) {
    bool any = false;
    for (uint32_t i = 0; i < own->member_count; i++)
        any |= own->members[i]->hidden_layer == PERIDOT_HIDDEN_NORMED;
    return any;
}

/* Rows of activations. What else a pass needs its members have. */
static peridot_result create_scratch(struct peridot_session *own, peridot_error *error) {
    struct scratch *s = &own->scratch;
    const struct session_shape shape = {
        .context = 1, .prefill_rows = own->member_count, .kv = own->kv, .int8 = own->int8};
    const struct {
        enum session_buffer which;
        const struct buffer **place;
    } rows[] = {{SESSION_X, &s->x},
                {SESSION_NORMED, any_normed(own) ? &s->normed : NULL},
                {SESSION_QUERY, &s->query},
                {SESSION_ATTENDED, &s->attended},
                {SESSION_HIDDEN, &s->hidden},
                {SESSION_QUANTISED, &s->quantised},
                {SESSION_BLOCK_STATE, &own->block}};
    peridot_result result =
        arena_create(own->lane.device, MEMORY_DEVICE, SESSION_BLOCK, &own->arena, error);
    for (size_t i = 0; i < sizeof rows / sizeof *rows && !result; i++) {
        const char *name;
        uint64_t bytes = session_buffer_bytes(&own->model->config, &shape, rows[i].which, &name);
        if (bytes && rows[i].place)
            result = arena_buffer(own->arena, bytes, name, rows[i].place, error);
    }
    return result;
}

/* A command buffer that ends a member's part in the steps behind it. */
static peridot_result record_stop(struct peridot_batch *batch, uint32_t index,
                                  peridot_error *error) {
    struct peridot_session *own = &batch->own;
    struct segment *stop = &batch->stops[index];
    if (stop->commands)
        return PERIDOT_OK;
    peridot_result result = session_begin_copies(own, true, &stop->commands, error);
    if (result)
        return result;
    own->lane.device->vk.CmdFillBuffer(stop->commands, own->members[index]->block->handle,
                                       offsetof(struct session_block, done), 4, 1);
    result = lane_end(&own->lane, stop->commands, error);
    if (result)
        forward_free_segment(own, stop);
    return result;
}

static void forget_recordings(struct peridot_batch *batch) {
    struct peridot_session *own = &batch->own;
    forward_free_pass(own, &own->passes[0]);
    forward_free_segment(own, &own->head);
    for (uint32_t i = 0; i < own->member_count; i++)
        forward_free_segment(own, &batch->stops[i]);
}

/* A session that has been away has other buffers than the recordings name. */
static void forget_if_returned(struct peridot_batch *batch) {
    bool returned = false;
    for (uint32_t i = 0; i < batch->own.member_count; i++) {
        returned |= batch->returns[i] != batch->own.members[i]->returns;
        batch->returns[i] = batch->own.members[i]->returns;
    }
    if (returned)
        forget_recordings(batch);
}

peridot_result batch_record(struct peridot_batch *batch, peridot_error *error) {
    struct peridot_session *own = &batch->own;
    forget_if_returned(batch);
    peridot_result result = forward_record_pass(own, &own->passes[0], error);
    if (!result)
        result = forward_record_head(own, error);
    for (uint32_t i = 0; i < own->member_count && !result; i++)
        result = record_stop(batch, i, error);
    return result;
}

void batch_set_block(struct peridot_session *own) {
    struct session_block *state = &own->head_state;
    *state = (struct session_block){.rows = own->member_count, .context = NO_POSITION};
    for (uint32_t i = 0; i < own->member_count; i++) {
        state->row_session[i] = own->members[i]->block->address;
        state->row_logits[i] = own->members[i]->scratch.logits->address;
        state->row_position[i] = NO_POSITION;
    }
}

static peridot_result open_batch(struct peridot_batch *batch, peridot_error *error) {
    struct peridot_session *own = &batch->own;
    struct device *device = own->model->device->engine;
    peridot_result result = kernel_set_for_batch(&own->kernels, device, own->member_count, error);
    if (!result)
        result = pipelines_compile(device, NULL, NULL, error);
    if (result)
        pipelines_forget(device);
    if (!result)
        result = lane_create(device, &own->lane, error);
    schedule_start(&own->schedule, device, own->submission_seconds);
    if (!result)
        result = create_scratch(own, error);
    if (!result)
        result = batch_record(batch, error);
    return result ? result : session_send_zeros(own, error); /* or an error would have to wait */
}

peridot_result peridot_batch_create(peridot_session *const *sessions, uint32_t count,
                                    peridot_batch **batch, peridot_error *error) {
    if (!batch)
        return fail(error, PERIDOT_ERROR_ARGUMENT, "peridot_batch_create needs a place for it");
    *batch = NULL;
    peridot_result result = check_sessions(sessions, count, error);
    if (result)
        return result;
    struct peridot_batch *opening = calloc(1, sizeof *opening);
    if (!opening)
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory for a batch");
    take_settings(&opening->own, sessions, count);
    result = open_batch(opening, error);
    if (result)
        peridot_batch_close_wait(opening);
    else
        *batch = opening;
    return result;
}

peridot_result peridot_batch_close(peridot_batch *batch) {
    if (batch && (work_holds(&batch->own) || session_is_busy(&batch->own)))
        return PERIDOT_NOT_READY;
    peridot_batch_close_wait(batch);
    return PERIDOT_OK;
}

void peridot_batch_close_wait(peridot_batch *batch) {
    if (!batch)
        return;
    if (batch->own.lane.device) {
        (void)lane_wait(&batch->own.lane, batch->own.lane.submitted, NULL);
        work_end_wait(&batch->own); /* its sessions are free again */
        slices_close(&batch->own);
        forget_recordings(batch);
        lane_destroy(&batch->own.lane);
    }
    arena_destroy(batch->own.arena);
    free(batch);
}

/* ---- What may be asked of it ---- */

peridot_result batch_name_session(const struct peridot_session *own, uint32_t index,
                                  peridot_result result, peridot_error *error) {
    if (!result || !error || !own->member_count)
        return result;
    peridot_error told = *error;
    return fail(error, result, "session %u of the batch: %s", index, told.message);
}

static peridot_result check_member(const struct peridot_session *member,
                                   const struct peridot_model *model, uint32_t count,
                                   peridot_error *error) {
    peridot_result result = session_check_present(member, error);
    if (!result && member->model != model)
        result = fail(error, PERIDOT_ERROR_ARGUMENT,
                      "it was moved to another model: close the batch and make another one");
    if (result || !count)
        return result;
    if (member->length == 0)
        return fail(error, PERIDOT_ERROR_ARGUMENT,
                    "generating needs a prompt: give it one by peridot_session_start or "
                    "peridot_session_prompt_wait");
    if (member->length >= member->context)
        return fail(error, PERIDOT_ERROR_CONTEXT_FULL,
                    "the context of %u tokens is full: truncate the session, or let it sit out",
                    member->context);
    return PERIDOT_OK;
}

peridot_result batch_check_counts(const struct peridot_batch *batch, const uint32_t *counts,
                                  peridot_error *error) {
    const struct peridot_session *own = &batch->own;
    uint32_t any = 0;
    peridot_result result = PERIDOT_OK;
    for (uint32_t i = 0; i < own->member_count && !result; i++) {
        any |= counts[i];
        result = check_member(own->members[i], own->model, counts[i], error);
        result = batch_name_session(own, i, result, error);
    }
    if (!result && !any)
        result = fail(error, PERIDOT_ERROR_ARGUMENT,
                      "no session of the batch is to generate a token: all counts are 0");
    return result;
}

/* ---- What it is ---- */

static void count_recording(const struct recording *recording, peridot_batch_statistics *sum) {
    uint32_t count = recording_count(recording);
    bool *barriers = malloc(count + 1);
    sum->dispatches_per_step += count;
    if (barriers)
        sum->barriers_per_step += recording_barriers(recording, barriers);
    free(barriers);
}

void peridot_batch_describe(const peridot_batch *batch, peridot_batch_statistics *out) {
    const struct peridot_session *own = &batch->own;
    const struct pass *pass = &own->passes[0];
    peridot_batch_statistics now = batch->statistics;
    now.sessions = own->member_count;
    now.submissions = own->lane.submissions;
    now.scratch_bytes = arena_allocated(own->arena);
    now.slices = own->statistics.slices;
    now.slice_seconds = own->statistics.slice_seconds;
    count_recording(&pass->embed.recording, &now);
    for (uint32_t i = 0; pass->layers && i < pass->layer_count; i++)
        count_recording(&pass->layers[i].recording, &now);
    count_recording(&own->head.recording, &now);
    for (uint32_t i = 0; i < own->member_count; i++) {
        const struct peridot_session *member = own->members[i];
        count_recording(&member->samplers[session_sampler_kind(member)].recording, &now);
    }
    caller_struct_write(out, &now, sizeof now);
}
