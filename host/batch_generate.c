/* Generation of a batch: steps in which each session samples a token, several to a submission; all
 * sessions' tokens are taken from their rings as the steps end. */
#include "batch.h"
#include "constraint.h"
#include "forward.h"
#include "platform.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <stb/stb_ds.h>

#define STEPS_MAX 64

/* One call of peridot_batch_generate_wait. */
struct call {
    struct peridot_batch *batch;
    peridot_on_batch_token on_token;
    void *user;
    /* Of each session: its length before, the step in which it samples no more, tokens taken */
    uint32_t lengths[BATCH_MAX], ends[BATCH_MAX], taken[BATCH_MAX];
    uint32_t kinds[BATCH_MAX];      /* of sampler */
    bool live[BATCH_MAX];           /* more tokens are to be taken */
    uint32_t submitted, received;   /* steps */
    uint64_t values[RING_CAPACITY]; /* the timeline value of step i, at i % RING_CAPACITY */
    double step_seconds;            /* smoothed; 0: not measured yet */
    VkCommandBuffer *updates;       /* stb_ds array: one-time command buffers */
};

/* How many steps there are to be, as far as is known. */
static uint32_t wanted_steps(const struct call *call) {
    uint32_t most = 0;
    for (uint32_t i = 0; i < call->batch->own.member_count; i++)
        if (call->live[i] && call->ends[i] > most)
            most = call->ends[i];
    return most;
}

/* ---- What the device is told ---- */

static void write_block(const struct peridot_session *of, VkCommandBuffer commands, size_t from) {
    const struct session_block *state = &of->head_state;
    of->model->device->engine->vk.CmdUpdateBuffer(commands, of->block->handle, from,
                                                  sizeof *state - from, (const char *)state + from);
}

/* Makes room for what `steps` more steps run through the layers, and writes what kernels must know
 * of it: all blocks before the first step, then the addresses of new KV chunks. Adds the update, if
 * there is one, to `updates`. */
static peridot_result make_room(struct call *call, uint32_t steps, peridot_error *error) {
    struct peridot_session *own = &call->batch->own;
    bool first = call->submitted == 0, grown[BATCH_MAX] = {false}, any = first;
    for (uint32_t i = 0; i < own->member_count; i++) {
        struct peridot_session *member = own->members[i];
        uint32_t chunks = member->chunk_count, end = call->submitted + steps;
        end = end < call->ends[i] ? end : call->ends[i];
        peridot_result result = call->live[i]
                                    ? kv_cache_reserve(member, call->lengths[i] + end - 1, error)
                                    : PERIDOT_OK;
        if (result)
            return result;
        grown[i] = member->chunk_count > chunks;
        any |= grown[i];
    }
    VkCommandBuffer commands;
    peridot_result result = any ? session_begin_transfer(own, &commands, error) : PERIDOT_OK;
    if (result || !any)
        return result;
    arrput(call->updates, commands);
    for (uint32_t i = 0; i < own->member_count; i++)
        if (first || grown[i])
            write_block(own->members[i], commands,
                        first ? 0 : offsetof(struct session_block, kv_chunks));
    if (first)
        write_block(own, commands, 0);
    return lane_end(&own->lane, commands, error);
}

/* ---- Submitting ---- */

/* The command buffers of step `step`: a pass precedes all samplings but the first. */
static uint32_t step_commands(const struct call *call, uint32_t step, VkCommandBuffer *commands) {
    const struct peridot_session *own = &call->batch->own;
    uint32_t count = 0;
    for (uint32_t i = 0; i < own->member_count; i++)
        if (call->ends[i] == step && step > 0)
            commands[count++] = call->batch->stops[i].commands;
    if (step > 0) {
        commands[count++] = own->passes[0].embed.commands;
        for (uint32_t i = 0; i < own->model->layer_count; i++)
            commands[count++] = own->passes[0].layers[i].commands;
        commands[count++] = own->head.commands;
    }
    for (uint32_t i = 0; i < own->member_count; i++)
        if (step < call->ends[i])
            commands[count++] = own->members[i]->samplers[call->kinds[i]].commands;
    return count;
}

static uint32_t steps_at_once(const struct call *call) {
    const struct peridot_session *own = &call->batch->own;
    uint32_t steps = own->steps_per_submission, wanted = wanted_steps(call);
    uint32_t left = wanted > call->submitted ? wanted - call->submitted : 0;
    if (call->step_seconds > 0 && steps * call->step_seconds > own->submission_seconds) {
        steps = (uint32_t)(own->submission_seconds / call->step_seconds);
        steps = steps < 1 ? 1 : steps;
    }
    return steps < left ? steps : left;
}

/* Sends `steps` steps in one vkQueueSubmit2, each of which signals the timeline. */
static peridot_result submit_steps(struct call *call, uint32_t steps, peridot_error *error) {
    struct peridot_session *own = &call->batch->own;
    ptrdiff_t updates = arrlen(call->updates);
    peridot_result result = make_room(call, steps, error);
    if (result)
        return result;
    /* an update; stops and samplers, embedding and head beside the layers */
    uint32_t per_step = own->model->layer_count + 2 * BATCH_MAX + 2;
    VkCommandBuffer *commands = malloc((steps * per_step + 1) * sizeof *commands), *at = commands;
    if (!commands)
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory while generating");
    struct batch batches[STEPS_MAX];
    for (uint32_t i = 0; i < steps; i++) {
        batches[i] = (struct batch){at, 0};
        if (i == 0 && updates < arrlen(call->updates))
            at[batches[i].count++] = arrlast(call->updates);
        batches[i].count += step_commands(call, call->submitted + i, at + batches[i].count);
        at += batches[i].count;
    }
    result = lane_submit(&own->lane, batches, steps, error);
    free(commands);
    for (uint32_t i = 0; i < steps && !result; i++)
        call->values[call->submitted++ % RING_CAPACITY] = own->lane.submitted - steps + i + 1;
    return result;
}

/* Keeps the device busy: up to two submissions ahead of what was received. */
static peridot_result feed(struct call *call, peridot_error *error) {
    double start = platform_seconds();
    peridot_result result = PERIDOT_OK;
    uint32_t ahead = steps_at_once(call);
    while (!result && call->submitted < wanted_steps(call) &&
           call->submitted - call->received <= ahead)
        result = submit_steps(call, steps_at_once(call), error);
    call->batch->statistics.decode_host_seconds += platform_seconds() - start;
    return result;
}

/* ---- Receiving ---- */

static peridot_result wait_for_step(struct call *call, peridot_error *error) {
    struct lane *lane = &call->batch->own.lane;
    uint64_t value = call->values[call->received % RING_CAPACITY];
    bool waited = lane->completed < value;
    double start = platform_seconds();
    peridot_result result = lane_wait(lane, value, error);
    double took = platform_seconds() - start;
    if (!result && waited && call->received > 0)
        call->step_seconds = call->step_seconds > 0 ? 0.5 * (call->step_seconds + took) : took;
    return result;
}

/* Nothing more is taken from a session; steps that are submitted may still run, and what they write
 * is written over later. */
static void end_session(struct call *call, uint32_t index) {
    call->live[index] = false;
    if (call->ends[index] > call->submitted)
        call->ends[index] = call->submitted;
}

/* The next step's token of one session. */
static peridot_result take_token(struct call *call, uint32_t index, peridot_error *error) {
    peridot_token token;
    peridot_result result =
        session_take_token(call->batch->own.members[index], call->received, &token, error);
    if (result)
        return result;
    call->taken[index]++;
    bool more = !call->on_token || call->on_token(index, &token, call->user);
    if (!more || token.stop || call->taken[index] == call->ends[index])
        end_session(call, index);
    return PERIDOT_OK;
}

static peridot_result receive(struct call *call, peridot_error *error) {
    peridot_result result = wait_for_step(call, error);
    for (uint32_t i = 0; i < call->batch->own.member_count && !result; i++)
        if (call->live[i])
            result = take_token(call, i, error);
    call->received++;
    return result;
}

static peridot_result run(struct call *call, peridot_error *error) {
    struct peridot_session *own = &call->batch->own;
    peridot_result result = PERIDOT_OK;
    while (!result && wanted_steps(call)) {
        result = feed(call, error);
        if (!result)
            result = receive(call, error);
    }
    peridot_result end = lane_wait(&own->lane, own->lane.submitted, error);
    for (ptrdiff_t i = 0; i < arrlen(call->updates); i++)
        lane_free_commands(&own->lane, call->updates[i]);
    arrfree(call->updates);
    return result ? result : end;
}

/* ---- Before it ---- */

static peridot_result check_member(const struct peridot_session *member,
                                   const struct peridot_model *model, uint32_t count,
                                   peridot_error *error) {
    peridot_result result = session_check_present(member, error);
    if (!result && member->model != model)
        result = fail(error, PERIDOT_ERROR_ARGUMENT,
                      "it was moved to another model: close the batch and make another one");
    if (result || !count)
        return result;
    if (constraint_is_on(member))
        return fail(error, PERIDOT_ERROR_UNSUPPORTED,
                    "with a mask or a grammar the host is needed between its tokens: use "
                    "peridot_session_generate_wait, and let it sit out here");
    if (member->length == 0)
        return fail(error, PERIDOT_ERROR_ARGUMENT,
                    "generating needs a prompt: give it one by peridot_session_prompt_wait");
    if (member->length >= member->context)
        return fail(error, PERIDOT_ERROR_CONTEXT_FULL,
                    "the context of %u tokens is full: truncate the session, or let it sit out",
                    member->context);
    return PERIDOT_OK;
}

/* A member's logits, and its block as its own generation would begin with; of one that sits out,
 * done. */
static peridot_result prepare_member(struct call *call, uint32_t index, uint32_t count,
                                     peridot_error *error) {
    struct peridot_session *member = call->batch->own.members[index];
    peridot_result result = PERIDOT_OK;
    call->lengths[index] = member->length;
    if (!count) {
        member->head_state.done = 1;
        return PERIDOT_OK;
    }
    call->kinds[index] = session_sampler_kind(member);
    if (!member->logits_valid)
        result = session_compute(member, NULL, error);
    if (!result)
        result = forward_record_sampler(member, call->kinds[index], error);
    if (result)
        return result;
    session_begin_sampling(member);
    uint32_t room = member->context - member->length;
    call->ends[index] = count < room ? count : room;
    call->live[index] = true;
    return PERIDOT_OK;
}

/* Says in the message which session it is about. */
static peridot_result name_session(uint32_t index, peridot_result result, peridot_error *error) {
    if (!result || !error)
        return result;
    peridot_error told = *error;
    return fail(error, result, "session %u of the batch: %s", index, told.message);
}

static peridot_result prepare(struct call *call, const uint32_t *counts, peridot_error *error) {
    struct peridot_session *own = &call->batch->own;
    uint32_t any = 0;
    peridot_result result = PERIDOT_OK;
    for (uint32_t i = 0; i < own->member_count && !result; i++) {
        any |= counts[i];
        result =
            name_session(i, check_member(own->members[i], own->model, counts[i], error), error);
    }
    if (!result && !any)
        result = fail(error, PERIDOT_ERROR_ARGUMENT,
                      "no session of the batch is to generate a token: all counts are 0");
    for (uint32_t i = 0; i < own->member_count && !result; i++)
        result = name_session(i, prepare_member(call, i, counts[i], error), error);
    if (!result)
        result = batch_record(call->batch, error);
    if (!result)
        batch_set_block(own);
    return result;
}

static void count_up(const struct call *call, double seconds) {
    struct peridot_batch *batch = call->batch;
    for (uint32_t i = 0; i < batch->own.member_count; i++) {
        peridot_session_statistics *statistics = &batch->own.members[i]->statistics;
        batch->statistics.decoded_tokens += call->taken[i];
        statistics->decoded_tokens += call->taken[i];
        statistics->decode_seconds += call->taken[i] ? seconds : 0;
    }
    batch->statistics.decode_seconds += seconds;
    batch->statistics.submissions = batch->own.lane.submissions;
}

peridot_result peridot_batch_generate_wait(peridot_batch *batch, const uint32_t *counts,
                                           peridot_on_batch_token on_token, void *user,
                                           uint32_t *generated, peridot_error *error) {
    if (!batch || !counts)
        return fail(error, PERIDOT_ERROR_ARGUMENT,
                    "peridot_batch_generate_wait needs a batch, and a count for each session");
    struct call call = {.batch = batch, .on_token = on_token, .user = user};
    double start = platform_seconds();
    peridot_result result = prepare(&call, counts, error);
    if (!result) {
        result = run(&call, error);
        count_up(&call, platform_seconds() - start);
    }
    if (generated)
        memcpy(generated, call.taken, batch->own.member_count * sizeof *generated);
    return result;
}
