/* Work from start to end, in slices, whoever's it is. */
#include "work.h"
#include "batch.h"
#include "caller_struct.h"
#include "constraint.h"
#include "suspension.h"
#include "timestamps.h"

#include <stdlib.h>

/* ---- Starting ---- */

bool work_is_active(const struct peridot_session *session) {
    return session->work && session->work->active;
}

/* What was learned stays from work to work; a suspended session has given its queries back. */
peridot_result work_make(struct peridot_session *session, peridot_error *error) {
    struct device *device = session->lane.device;
    struct work *work = session->work;
    if (device->lost)
        return device_fail(device, VK_ERROR_DEVICE_LOST, "taking up work", error);
    if (!work) {
        work = calloc(1, sizeof *work);
        if (!work)
            return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory for work in slices");
        slicer_start(&work->slicer, &session->schedule, timestamps_supported(device));
        session->work = work;
    }
    if (work->queries)
        return PERIDOT_OK;
    return timestamps_create(device, 2 * PERIDOT_SLICES_MAX, &work->queries, error);
}

struct member_goal work_member_goal(const struct peridot_session *member, uint32_t length,
                                    uint32_t generate) {
    uint32_t room = member->context - length;
    return (struct member_goal){.prompt_end = length,
                                .generate = generate < room ? generate : room,
                                .kind = session_sampler_kind(member)};
}

/* While a batch works its sessions do nothing else. */
static void take_members(struct peridot_session *session, bool into) {
    for (uint32_t i = 0; i < session->member_count; i++)
        session->members[i]->batch = into ? session : NULL;
}

void work_begin(struct peridot_session *session, const struct work_goal *goal) {
    struct work *work = session->work;
    work->active = true;
    work->ending = false;
    work->goal = *goal;
    work->unsure = 0;
    work->on_token = NULL;
    work->on_batch_token = NULL;
    for (uint32_t i = 0; i < BATCH_MAX; i++)
        work->members[i] = (struct work_member){0};
    take_members(session, true);
    work_list_begin(session, goal, &work->place);
}

/* ---- Slices ---- */

/* Whether the tokens after `from` are sampled, of a batch each member's. */
static bool is_token(const struct work_place *from, const struct work_place *place) {
    bool sampled = false;
    for (uint32_t i = 0; i < BATCH_MAX; i++)
        sampled |= place->members[i].sampled > from->members[i].sampled;
    return place->stage == STAGE_END || (sampled && place->stage != STAGE_SAMPLE);
}

/* A slice may go on from a token with a part of the next one's head, which writes logits. */
static void describe_slice(const struct peridot_session *session, const struct slice_cut *cut,
                           const struct work_place *from, peridot_slice_plan *out) {
    out->completes = cut->dispatches > 0 && is_token(from, &cut->after) &&
                     !work_list_head_runs(session, &cut->after);
    out->slices = cut->dispatches > 0;
    out->dispatches = cut->dispatches;
    out->bytes = cut->cost.bytes;
    out->flops = cut->cost.flops;
    out->estimated_ms = (float)(cut->fill.estimated * 1e3);
    out->largest_ms = out->left_ms = out->estimated_ms;
}

void work_plan(struct peridot_session *session, float budget_ms, peridot_slice_plan *plan) {
    peridot_slice_plan sum = {0};
    struct work_place place = {.stage = STAGE_END}, from;
    if (work_is_active(session) && !session->work->ending)
        place = session->work->place;
    from = place;
    while (!is_token(&from, &place)) {
        struct slice_cut cut;
        peridot_slice_plan one = {0};
        slice_cut_make(session, &place, budget_ms / 1e3, &cut);
        describe_slice(session, &cut, &place, &one);
        place = cut.after;
        slice_cut_free(&cut);
        if (!one.dispatches)
            break;
        if (!sum.slices++) {
            sum = one;
            continue;
        }
        sum.left_ms += one.estimated_ms;
        if (one.estimated_ms > sum.largest_ms)
            sum.largest_ms = one.estimated_ms;
    }
    caller_struct_write(plan, &sum, sizeof sum);
}

/* Cuts the next slice; without dispatches where there can be none now. */
static void next_slice(const struct peridot_session *session, float budget_ms, bool recorded,
                       struct slice_cut *cut) {
    const struct work *work = session->work;
    const struct slice_flight *flight = &work->flights[work->first_flight];
    bool mixed = work->flight_count && flight->recorded != recorded;
    if (work->ending || mixed || work->flight_count == PERIDOT_SLICES_MAX)
        *cut = (struct slice_cut){.after = work->place};
    else
        slice_cut_make(session, &work->place, budget_ms / 1e3, cut);
}

/* Writes the mask of a member's next token, once, where there is one and the tokens before it are
 * known. */
static peridot_result write_mask(struct peridot_session *session, uint32_t index,
                                 peridot_error *error) {
    struct work *work = session->work;
    struct work_member *state = &work->members[index];
    const struct member_goal *goal = &work->goal.members[index];
    struct peridot_session *member = work_list_member(session, index);
    if (!(goal->kind & SAMPLER_MASK) || work->ending || state->masked > state->received ||
        work->place.members[index].sampled > state->received || state->received >= goal->generate ||
        member->length != goal->prompt_end + state->received)
        return PERIDOT_OK;
    peridot_result result =
        batch_name_session(session, index, constraint_write(member, error), error);
    if (!result)
        state->masked = state->received + 1;
    return result;
}

peridot_result work_change_mask(struct peridot_session *member, uint32_t *ahead,
                                peridot_error *error) {
    const struct peridot_session *session = member->batch ? member->batch : member;
    uint32_t index = 0;
    *ahead = 0;
    if (!work_is_active(session) || session->work->ending)
        return PERIDOT_OK;
    while (work_list_member(session, index) != member)
        index++;
    struct work *work = session->work;
    const struct work_place *place = &work->place;
    struct work_member *state = &work->members[index];
    const struct member_goal *goal = &work->goal.members[index];
    if (!goal->generate || state->ended)
        return PERIDOT_OK;
    if (!(goal->kind & SAMPLER_MASK))
        return fail(error, PERIDOT_ERROR_ARGUMENT,
                    "the session's work began with neither mask nor grammar and goes on so: set "
                    "them before work is begun");
    bool sampling =
        place->stage == STAGE_SAMPLE && place->member == index && !work_list_between(place);
    *ahead = place->members[index].sampled + sampling - state->received;
    if (!*ahead)
        state->masked = state->received;
    return PERIDOT_OK;
}

static peridot_result write_masks(struct peridot_session *session, peridot_error *error) {
    peridot_result result = PERIDOT_OK;
    for (uint32_t i = 0; i < work_list_members(session) && !result; i++)
        result = write_mask(session, i, error);
    return result;
}

/* Before a slice is cut that begins with sampling. Where nothing is allowed the work ends. */
static peridot_result prepare_sampling(struct peridot_session *session, peridot_error *error) {
    struct work *work = session->work;
    if (work->place.stage != STAGE_SAMPLE)
        return PERIDOT_OK;
    peridot_result result = write_masks(session, error);
    if (result)
        work->ending = true;
    return result;
}

/* `one`: the slice as it was cut. */
static peridot_result finish_slice(struct slice_cut *cut, const peridot_slice_plan *one,
                                   peridot_slice_plan *slice, peridot_result result) {
    slice_cut_free(cut);
    if (slice && result >= 0)
        caller_struct_write(slice, one, sizeof *one);
    return result ? result : one->dispatches ? PERIDOT_OK : PERIDOT_NOT_READY;
}

/* Without work there is no slice. */
static peridot_result finish_none(peridot_slice_plan *slice, peridot_result result) {
    const peridot_slice_plan none = {0};
    return finish_slice(&(struct slice_cut){0}, &none, slice, result);
}

/* There is no work now: a lost device is told of all the same. */
static peridot_result have_nothing(const struct peridot_session *session, peridot_error *error) {
    struct device *device = session->lane.device; /* none where it is suspended */
    return device && device->lost ? device_fail(device, VK_ERROR_DEVICE_LOST, "at work", error)
                                  : PERIDOT_NOT_READY;
}

/* What waits for the signals is not left waiting. */
static peridot_result submit_nothing(struct peridot_session *session,
                                     const peridot_advance *advance, peridot_error *error) {
    peridot_result result = have_nothing(session, error);
    if (result == PERIDOT_NOT_READY && advance->signal_count)
        result = suspension_check(session, false, error);
    if (!result)
        result = lane_submit_between(&session->lane, &(struct batch){NULL, 0}, advance->waits,
                                     advance->wait_count, advance->signals, advance->signal_count,
                                     error);
    return result ? result : PERIDOT_NOT_READY;
}

peridot_result work_advance(struct peridot_session *session, const peridot_advance *advance,
                            peridot_slice_plan *slice, peridot_error *error) {
    peridot_advance given;
    peridot_result result =
        caller_struct_read(&given, sizeof given, advance, "peridot_advance", error);
    if (!result && ((given.wait_count && !given.waits) || (given.signal_count && !given.signals)))
        result = fail(error, PERIDOT_ERROR_ARGUMENT,
                      "peridot_advance counts semaphores, but waits or signals is NULL");
    if (!result)
        result = caller_struct_check(slice, "peridot_slice_plan", error);
    if (!result && !work_is_active(session))
        return finish_none(slice, submit_nothing(session, &given, error));
    if (!result)
        result = prepare_sampling(session, error);
    if (result)
        return result;
    struct slice_cut cut;
    peridot_slice_plan one = {0};
    next_slice(session, given.budget_ms, false, &cut);
    describe_slice(session, &cut, &session->work->place, &one);
    if (cut.dispatches) {
        result = slices_submit(session, &cut, &given, error);
        if (!result) /* while the device works; what is wrong is told when it matters */
            (void)write_masks(session, NULL);
    } else {
        result = submit_nothing(session, &given, error);
    }
    return finish_slice(&cut, &one, slice, result);
}

peridot_result work_record(struct peridot_session *session, const peridot_recording *recording,
                           peridot_slice_plan *slice, peridot_error *error) {
    peridot_recording given;
    peridot_result result =
        caller_struct_read(&given, sizeof given, recording, "peridot_recording", error);
    if (!result && (!given.commands || !given.timeline))
        result = fail(error, PERIDOT_ERROR_ARGUMENT,
                      "recording a slice needs a command buffer, and a timeline semaphore that "
                      "tells when it has run");
    if (!result)
        result = caller_struct_check(slice, "peridot_slice_plan", error);
    if (!result && !work_is_active(session))
        return finish_none(slice, have_nothing(session, error));
    if (!result)
        result = prepare_sampling(session, error);
    if (result)
        return result;
    struct slice_cut cut;
    peridot_slice_plan one = {0};
    next_slice(session, given.budget_ms, true, &cut);
    describe_slice(session, &cut, &session->work->place, &one);
    if (cut.dispatches)
        result = slices_record(session, &cut, &given, error);
    if (cut.dispatches && !result)
        (void)write_masks(session, NULL);
    return finish_slice(&cut, &one, slice, result);
}

/* ---- What has come ---- */

/* The member whose token comes next, step by step: of those sampled by a slice that has run. */
static bool next_token(const struct peridot_session *session, const struct work_place *after,
                       uint32_t *index) {
    const struct work *work = session->work;
    bool found = false;
    for (uint32_t i = 0; i < work_list_members(session); i++) {
        const struct work_member *member = &work->members[i];
        bool is_there = !member->ended && member->received < after->members[i].sampled;
        if (is_there && (!found || member->received < work->members[*index].received)) {
            *index = i;
            found = true;
        }
    }
    return found;
}

static bool hand_over(const struct work *work, uint32_t index, const peridot_token *token) {
    if (work->on_batch_token)
        return work->on_batch_token(index, token, work->user);
    return !work->on_token || work->on_token(token, work->user);
}

/* A member's part is over before its goal; the work too, if it was the last one's. */
static void end_member(struct peridot_session *session, uint32_t index) {
    struct work *work = session->work;
    bool left = false;
    work->members[index].ended = true;
    work->unsure = work->flight_count;
    for (uint32_t i = 0; i < work_list_members(session); i++)
        left |=
            !work->members[i].ended && work->members[i].received < work->goal.members[i].generate;
    work->ending |= !left;
    if (left)
        work_list_end_member(session, &work->goal, &work->place, index);
}

/* Tokens that the oldest slice brought. */
static peridot_result take_tokens(struct peridot_session *session, const struct work_place *after,
                                  peridot_error *error) {
    struct work *work = session->work;
    for (uint32_t i; !work->ending && next_token(session, after, &i);) {
        peridot_token token;
        peridot_result result = session_take_token(work_list_member(session, i),
                                                   work->members[i].received, &token, error);
        if (result)
            return batch_name_session(session, i, result, error);
        work->members[i].received++;
        work_list_member(session, i)->statistics.slice_tokens++;
        if (!hand_over(work, i, &token) || token.stop)
            end_member(session, i);
    }
    return PERIDOT_OK;
}

/* What of a member has keys and values now, and whether the logits are the last token's. */
static void take_progress(struct peridot_session *session, const struct work_place *after,
                          uint32_t index) {
    const struct work *work = session->work;
    const struct work_member *state = &work->members[index];
    const struct member_place *place = &after->members[index];
    struct peridot_session *member = work_list_member(session, index);
    bool sits_out = session->member_count && !work->goal.members[index].generate;
    bool logits = place->computed == member->length && !work_list_head_runs(session, after);
    if (sits_out)
        return;
    if (state->ended || (work->ending && state->received > 0)) {
        member->logits_valid &= logits; /* take_tokens, or a slice before this one, has set it */
        return;
    }
    member->computed = place->computed < member->length ? place->computed : member->length;
    member->logits_valid = logits;
}

/* What the oldest slice took; what follows a stop token returns at once, and teaches nothing. */
static void learn(struct peridot_session *session) {
    struct work *work = session->work;
    peridot_session_statistics *statistics = &session->statistics;
    const struct slice_flight *flight = &work->flights[work->first_flight];
    double seconds = slices_measure(session);
    statistics->slices++;
    statistics->slice_seconds += seconds;
    if (work->ending || work->unsure)
        return;
    slicer_learn(&work->slicer, &flight->fill, seconds);
    if (!(seconds > 0))
        return;
    work->measured_ms = (float)(seconds * 1e3);
    work->estimated_ms = (float)(flight->fill.estimated * 1e3);
    if (work->measured_ms > statistics->longest_submission_ms)
        statistics->longest_submission_ms = work->measured_ms;
}

/* The oldest slice has run. */
static peridot_result land(struct peridot_session *session, peridot_error *error) {
    struct work *work = session->work;
    struct work_place after = work->flights[work->first_flight].after;
    peridot_result result = take_tokens(session, &after, error);
    learn(session);
    work->unsure -= work->unsure > 0;
    for (uint32_t i = 0; i < work_list_members(session); i++)
        take_progress(session, &after, i);
    slices_drop(session);
    return result;
}

static void end_work(struct peridot_session *session) {
    struct work *work = session->work;
    work->active = false;
    take_members(session, false);
    for (uint32_t i = 0; i < work_list_members(session); i++) {
        struct peridot_session *member = work_list_member(session, i);
        uint32_t chunks = work->place.members[i].chunks;
        if (member->chunk_count > chunks) /* one that was not cleared to its end */
            kv_cache_release(member, chunks * KV_CHUNK);
    }
}

peridot_result work_poll(struct peridot_session *session, peridot_error *error) {
    struct work *work = session->work;
    if (!work)
        return PERIDOT_OK;
    struct device *device = session->lane.device;
    peridot_result result = PERIDOT_OK;
    bool done = true;
    if (work->active && device->lost)
        result = device_fail(device, VK_ERROR_DEVICE_LOST, "at work", error);
    while (work->flight_count && done && !result) {
        result = slices_poll(session, &done, error);
        if (!result && done)
            result = land(session, error);
    }
    if (result == PERIDOT_ERROR_DEVICE_LOST)
        while (work->flight_count)
            slices_drop(session);
    if (result)
        work->ending = true;
    bool left = !work->ending && work->place.stage != STAGE_END;
    if (work->active && !work->flight_count && !left)
        end_work(session);
    return result;
}

peridot_result work_discard(struct peridot_session *session, peridot_error *error) {
    struct work *work = session->work;
    uint32_t count = work ? work->flight_count : 0;
    if (!count || !work->flights[(work->first_flight + count - 1) % PERIDOT_SLICES_MAX].recorded)
        return fail(error, PERIDOT_ERROR_ARGUMENT,
                    "there is no recorded slice that is not known to have run");
    slices_take_back(session);
    if (work->unsure > work->flight_count)
        work->unsure = work->flight_count;
    for (uint32_t i = 0; i < work_list_members(session); i++)
        if (work->members[i].ended) /* meanwhile */
            work_list_end_member(session, &work->goal, &work->place, i);
    return PERIDOT_OK;
}

void work_cancel(struct peridot_session *session) {
    struct work *work = session->work;
    if (!work_is_active(session))
        return;
    work->ending = true;
    if (!work->flight_count)
        end_work(session);
}

void work_end_wait(struct peridot_session *session) {
    work_cancel(session);
    slices_wait(session);
    (void)work_poll(session, NULL);
}

bool work_holds(struct peridot_session *session) {
    work_cancel(session);
    if (work_is_active(session))
        (void)work_poll(session, NULL);
    return session->work && session->work->flight_count;
}

uint32_t work_prompt_left(const struct peridot_session *session, uint32_t member) {
    if (!work_is_active(session))
        return 0;
    uint32_t end = session->work->goal.members[member].prompt_end;
    uint32_t computed = work_list_member(session, member)->computed;
    return end > computed ? end - computed : 0;
}
