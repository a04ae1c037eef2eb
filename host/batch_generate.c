/* Generation of a batch: steps in which each session samples a token, several to a submission, or
 * one where the host says what tokens may come in a session; all sessions' tokens are taken from
 * their rings as the steps end. */
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
    bool stopped[BATCH_MAX];        /* its kernels are told that it is done */
    bool masked;                    /* the host says what tokens may come in some */
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
            session_write_block(own->members[i], commands,
                                first ? 0 : offsetof(struct session_block, kv_chunks));
    if (first)
        session_write_block(own, commands, 0);
    return lane_end(&own->lane, commands, error);
}

/* ---- Submitting ---- */

/* The command buffers of the pass that precedes the samplings of a step, but for the first one's.
 */
static uint32_t pass_commands(struct call *call, uint32_t step, VkCommandBuffer *commands) {
    const struct peridot_session *own = &call->batch->own;
    uint32_t count = 0;
    if (step == 0)
        return 0;
    for (uint32_t i = 0; i < own->member_count; i++) {
        if (call->ends[i] <= step && !call->stopped[i])
            commands[count++] = call->batch->stops[i].commands;
        call->stopped[i] |= call->ends[i] <= step;
    }
    commands[count++] = own->passes[0].embed.commands;
    for (uint32_t i = 0; i < own->model->layer_count; i++)
        commands[count++] = own->passes[0].layers[i].commands;
    commands[count++] = own->head.commands;
    return count;
}

static uint32_t sampler_commands(const struct call *call, uint32_t step,
                                 VkCommandBuffer *commands) {
    const struct peridot_session *own = &call->batch->own;
    uint32_t count = 0;
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

/* Room for the command buffers of so many steps: an update; stops and samplers, embedding and head
 * beside the layers. */
static peridot_result make_list(const struct peridot_session *own, uint32_t steps,
                                VkCommandBuffer **commands, peridot_error *error) {
    uint32_t per_step = own->model->layer_count + 2 * BATCH_MAX + 2;
    *commands = malloc((steps * per_step + 1) * sizeof **commands);
    return *commands ? PERIDOT_OK
                     : fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory while generating");
}

/* Passes have been submitted, so that logits are those of later tokens, even if none is received.
 */
static void forget_logits(const struct call *call) {
    for (uint32_t i = 0; i < call->batch->own.member_count; i++)
        if (call->live[i])
            call->batch->own.members[i]->logits_valid = false;
}

/* Sends `steps` steps in one vkQueueSubmit2, each of which signals the timeline. */
static peridot_result submit_steps(struct call *call, uint32_t steps, peridot_error *error) {
    struct peridot_session *own = &call->batch->own;
    ptrdiff_t updates = arrlen(call->updates);
    peridot_result result = make_room(call, steps, error);
    if (result)
        return result;
    VkCommandBuffer *commands, *at;
    result = make_list(own, steps, &commands, error);
    if (result)
        return result;
    at = commands;
    struct batch batches[STEPS_MAX];
    for (uint32_t i = 0; i < steps; i++) {
        batches[i] = (struct batch){at, 0};
        if (i == 0 && updates < arrlen(call->updates))
            at[batches[i].count++] = arrlast(call->updates);
        batches[i].count += pass_commands(call, call->submitted + i, at + batches[i].count);
        batches[i].count += sampler_commands(call, call->submitted + i, at + batches[i].count);
        at += batches[i].count;
    }
    result = lane_submit(&own->lane, batches, steps, error);
    free(commands);
    for (uint32_t i = 0; i < steps && !result; i++)
        call->values[call->submitted++ % RING_CAPACITY] = own->lane.submitted - steps + i + 1;
    if (call->submitted > 1)
        forget_logits(call);
    return result;
}

/* What may come next, where the host says so; the samplers of the tokens before have run. */
static peridot_result write_masks(const struct call *call, peridot_error *error) {
    const struct peridot_session *own = &call->batch->own;
    peridot_result result = PERIDOT_OK;
    for (uint32_t i = 0; i < own->member_count && !result; i++)
        if (call->live[i] && (call->kinds[i] & SAMPLER_MASK))
            result = batch_name_session(own, i, constraint_write(own->members[i], error), error);
    return result;
}

/* The samplings of one step, and behind them the pass of the next one, which then need not wait for
 * the masks. */
static peridot_result submit_one_step(struct call *call, peridot_error *error) {
    struct peridot_session *own = &call->batch->own;
    uint32_t step = call->submitted, count = 0;
    bool more = step + 1 < wanted_steps(call);
    ptrdiff_t updates = arrlen(call->updates);
    VkCommandBuffer *commands;
    peridot_result result = write_masks(call, error);
    if (!result)
        result = make_room(call, 1 + more, error);
    if (!result)
        result = make_list(own, 2, &commands, error);
    if (result)
        return result;
    if (updates < arrlen(call->updates))
        commands[count++] = arrlast(call->updates);
    count += sampler_commands(call, step, commands + count);
    struct batch batches[2] = {{commands, count}, {commands + count, 0}};
    if (more)
        batches[1].count = pass_commands(call, step + 1, commands + count);
    result = lane_submit(&own->lane, batches, more ? 2 : 1, error);
    free(commands);
    if (result)
        return result;
    call->values[call->submitted++ % RING_CAPACITY] = own->lane.submitted - more;
    if (more)
        forget_logits(call);
    return PERIDOT_OK;
}

/* Keeps the device busy: up to two submissions ahead of what was received. */
static peridot_result feed(struct call *call, peridot_error *error) {
    double start = platform_seconds();
    peridot_result result = PERIDOT_OK;
    uint32_t ahead = steps_at_once(call);
    if (call->masked)
        result = submit_one_step(call, error);
    while (!result && !call->masked && call->submitted < wanted_steps(call) &&
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
    peridot_result result = PERIDOT_OK, fed = PERIDOT_OK;
    while (!result && wanted_steps(call)) {
        if (!fed)
            fed = feed(call, error);
        /* told when all that was sampled before has been handed over */
        result = fed && call->received == call->submitted ? fed : receive(call, error);
    }
    peridot_result end = lane_wait(&own->lane, own->lane.submitted, error);
    for (ptrdiff_t i = 0; i < arrlen(call->updates); i++)
        lane_free_commands(&own->lane, call->updates[i]);
    arrfree(call->updates);
    return result ? result : end;
}

/* ---- Before it ---- */

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
    call->masked |= (call->kinds[index] & SAMPLER_MASK) != 0;
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

static peridot_result prepare(struct call *call, const uint32_t *counts, peridot_error *error) {
    struct peridot_session *own = &call->batch->own;
    peridot_result result = batch_check_counts(call->batch, counts, error);
    for (uint32_t i = 0; i < own->member_count && !result; i++)
        result = batch_name_session(own, i, prepare_member(call, i, counts[i], error), error);
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
