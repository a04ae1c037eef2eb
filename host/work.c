/* A session's work from start to end, in slices. */
#include "caller_struct.h"
#include "constraint.h"
#include "slices.h"
#include "suspension.h"
#include "timestamps.h"

#include <stdlib.h>
#include <string.h>

peridot_result session_check_idle(const struct peridot_session *session, peridot_error *error) {
    if (session->work && session->work->active)
        return fail(error, PERIDOT_ERROR_ARGUMENT,
                    "the session's work is not done: call peridot_session_poll until it is, or "
                    "peridot_session_cancel first");
    return suspension_check(session, true, error);
}

peridot_result session_check_present(const struct peridot_session *session, peridot_error *error) {
    peridot_result result = session_check_idle(session, error);
    return result ? result : suspension_check(session, false, error);
}

/* ---- Starting ---- */

/* What was learned stays from work to work; a suspended session has given its queries back. */
static peridot_result make_work(struct peridot_session *session, peridot_error *error) {
    struct device *device = session->lane.device;
    struct work *work = session->work;
    if (!work) {
        work = calloc(1, sizeof *work);
        if (!work)
            return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory for a session's work");
        slicer_start(&work->slicer, &session->schedule, timestamps_supported(device));
        session->work = work;
    }
    if (work->queries)
        return PERIDOT_OK;
    return timestamps_create(device, 2 * PERIDOT_SLICES_MAX, &work->queries, error);
}

static peridot_result check_work(const struct peridot_session *session, const peridot_work *given,
                                 peridot_error *error) {
    if (session->next)
        return fail(error, PERIDOT_ERROR_UNSUPPORTED,
                    "a model on several devices does not run in slices: use "
                    "peridot_session_prompt_wait and peridot_session_generate_wait");
    peridot_result result = session_check_present(session, error);
    if (!result && given->token_count)
        result = session_check_prompt(session, given->tokens, given->token_count, error);
    if (result)
        return result;
    uint32_t length = session->length + (uint32_t)given->token_count;
    if (length == 0 || (!given->generate && session->computed == length))
        return fail(error, PERIDOT_ERROR_ARGUMENT,
                    "there is no work: neither tokens to append nor any to generate after some");
    if (given->generate && length >= session->context)
        return fail(error, PERIDOT_ERROR_CONTEXT_FULL,
                    "the context of %u tokens is full: no token can be generated after the prompt",
                    session->context);
    return PERIDOT_OK;
}

/* Takes the tokens into the session, and back out if recording fails. */
static peridot_result set_goal(struct peridot_session *session, const peridot_work *given,
                               struct work_goal *goal, peridot_error *error) {
    uint32_t before = session->length, computed = session->computed;
    if (given->token_count)
        memcpy(session->held + before, given->tokens, given->token_count * sizeof *given->tokens);
    uint32_t length = before + (uint32_t)given->token_count, room = session->context - length;
    *goal = (struct work_goal){.prompt_end = length,
                               .generate = given->generate < room ? given->generate : room,
                               .kind = session_sampler_kind(session)};
    if (session->computed == length && !session->logits_valid && goal->generate)
        session->computed--; /* its keys and values are written again, alike */
    peridot_result result = work_list_record(session, goal, error);
    if (result) {
        session->computed = computed;
        return result;
    }
    session->length = length;
    if (given->token_count) {
        session->logits_valid = false;
        session->prompt_end = length;
    }
    return PERIDOT_OK;
}

peridot_result peridot_session_start(peridot_session *session, const peridot_work *given,
                                     peridot_error *error) {
    peridot_work copy;
    if (!session || !given)
        return fail(error, PERIDOT_ERROR_ARGUMENT, "peridot_session_start needs work");
    peridot_result result = caller_struct_read(&copy, sizeof copy, given, "peridot_work", error);
    if (!result)
        result = check_work(session, &copy, error);
    if (!result)
        result = make_work(session, error);
    struct work_goal goal;
    if (!result)
        result = set_goal(session, &copy, &goal, error);
    if (result)
        return result;
    struct work *work = session->work;
    work->active = true;
    work->ending = false;
    work->goal = goal;
    work->received = work->masked = 0;
    work->on_token = copy.on_token;
    work->user = copy.user;
    work_list_begin(session, &goal, &work->place);
    return PERIDOT_OK;
}

/* ---- Slices ---- */

static peridot_result check_active(const struct peridot_session *session, peridot_error *error) {
    if (!session || !session->work || !session->work->active)
        return fail(error, PERIDOT_ERROR_ARGUMENT,
                    "the session has no work: give it some by peridot_session_start");
    return PERIDOT_OK;
}

static void describe_slice(const struct slice_cut *cut, peridot_slice_plan *out) {
    out->slices = cut->dispatches > 0;
    out->dispatches = cut->dispatches;
    out->bytes = cut->cost.bytes;
    out->flops = cut->cost.flops;
    out->estimated_ms = (float)(cut->fill.estimated * 1e3);
    out->largest_ms = out->left_ms = out->estimated_ms;
}

static bool is_token(const struct work_place *from, const struct work_place *place) {
    return place->stage == STAGE_END || place->sampled > from->sampled;
}

peridot_result peridot_session_plan(peridot_session *session, float budget_ms,
                                    peridot_slice_plan *plan, peridot_error *error) {
    peridot_result result = check_active(session, error);
    if (!result && !plan)
        result = fail(error, PERIDOT_ERROR_ARGUMENT, "peridot_session_plan needs a place for it");
    if (result)
        return result;
    struct work_place place = session->work->place, from = place;
    peridot_slice_plan sum = {0};
    while (!session->work->ending && !is_token(&from, &place)) {
        struct slice_cut cut;
        peridot_slice_plan one = {0};
        slice_cut_make(session, &place, budget_ms / 1e3, &cut);
        describe_slice(&cut, &one);
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
    return PERIDOT_OK;
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

/* Writes the mask of the next token to sample, once, where there is one and the tokens before it
 * are known. */
static peridot_result write_mask(struct peridot_session *session, peridot_error *error) {
    struct work *work = session->work;
    if (!(work->goal.kind & SAMPLER_MASK) || work->ending || work->masked > work->received ||
        work->place.sampled > work->received || work->received >= work->goal.generate ||
        session->length != work->goal.prompt_end + work->received)
        return PERIDOT_OK;
    peridot_result result = constraint_write(session, error);
    if (!result)
        work->masked = work->received + 1;
    return result;
}

/* Before a slice is cut that begins with sampling. Where nothing is allowed the work ends. */
static peridot_result prepare_sampling(struct peridot_session *session, peridot_error *error) {
    struct work *work = session->work;
    if (work->place.stage != STAGE_SAMPLE)
        return PERIDOT_OK;
    peridot_result result = write_mask(session, error);
    if (result)
        work->ending = true;
    return result;
}

/* `one`: the slice as it was cut. */
static peridot_result finish_slice(struct slice_cut *cut, const peridot_slice_plan *one,
                                   peridot_slice_plan *slice, peridot_result result) {
    slice_cut_free(cut);
    if (slice && !result)
        caller_struct_write(slice, one, sizeof *one);
    return result ? result : one->dispatches ? PERIDOT_OK : PERIDOT_NOT_READY;
}

static peridot_result submit_nothing(struct peridot_session *session,
                                     const peridot_advance *advance, peridot_error *error) {
    return lane_submit_between(&session->lane, &(struct batch){NULL, 0}, advance->waits,
                               advance->wait_count, advance->signals, advance->signal_count, error);
}

peridot_result peridot_session_advance(peridot_session *session, const peridot_advance *advance,
                                       peridot_slice_plan *slice, peridot_error *error) {
    peridot_advance given;
    peridot_result result = check_active(session, error);
    if (!result)
        result = caller_struct_read(&given, sizeof given, advance, "peridot_advance", error);
    if (!result)
        result = prepare_sampling(session, error);
    if (result)
        return result;
    struct slice_cut cut;
    peridot_slice_plan one = {0};
    next_slice(session, given.budget_ms, false, &cut);
    describe_slice(&cut, &one);
    if (cut.dispatches) {
        result = slices_submit(session, &cut, &given, error);
        if (!result) /* while the device works; what is wrong is told when it matters */
            (void)write_mask(session, NULL);
    } else if (given.signal_count) {
        result = submit_nothing(session, &given, error);
    }
    return finish_slice(&cut, &one, slice, result);
}

peridot_result peridot_session_record(peridot_session *session, const peridot_recording *recording,
                                      peridot_slice_plan *slice, peridot_error *error) {
    peridot_recording given;
    peridot_result result = check_active(session, error);
    if (!result)
        result = caller_struct_read(&given, sizeof given, recording, "peridot_recording", error);
    if (!result && (!given.commands || !given.timeline))
        result = fail(error, PERIDOT_ERROR_ARGUMENT,
                      "recording a slice needs a command buffer, and a timeline semaphore that "
                      "tells when it has run");
    if (!result)
        result = prepare_sampling(session, error);
    if (result)
        return result;
    struct slice_cut cut;
    peridot_slice_plan one = {0};
    next_slice(session, given.budget_ms, true, &cut);
    describe_slice(&cut, &one);
    if (cut.dispatches)
        result = slices_record(session, &cut, &given, error);
    if (cut.dispatches && !result)
        (void)write_mask(session, NULL);
    return finish_slice(&cut, &one, slice, result);
}

/* ---- What has come ---- */

/* Tokens that the oldest slice brought; false: the work ends with one of them. */
static peridot_result take_tokens(struct peridot_session *session, uint32_t sampled,
                                  peridot_error *error) {
    struct work *work = session->work;
    while (work->received < sampled && !work->ending) {
        peridot_token token;
        peridot_result result = session_take_token(session, work->received, &token, error);
        if (result)
            return result;
        work->received++;
        bool more = !work->on_token || work->on_token(&token, work->user);
        if (!more || token.stop)
            work->ending = true;
    }
    return PERIDOT_OK;
}

/* What has keys and values now, and whether the logits are the last token's. */
static void take_progress(struct peridot_session *session, const struct work_place *after) {
    const struct work *work = session->work;
    bool between = !after->segment && !after->dispatch && !after->group;
    if (work->ending && work->received > 0)
        return; /* take_tokens has set it */
    session->computed = after->computed < session->length ? after->computed : session->length;
    session->logits_valid = between && session->computed == session->length &&
                            after->sampled == work->received && !work->ending;
}

static void learn(struct peridot_session *session) {
    struct work *work = session->work;
    const struct slice_flight *flight = &work->flights[work->first_flight];
    double seconds = slices_measure(session);
    slicer_learn(&work->slicer, &flight->fill, seconds);
    if (!(seconds > 0))
        return;
    work->measured_ms = (float)(seconds * 1e3);
    work->estimated_ms = (float)(flight->fill.estimated * 1e3);
    if (work->measured_ms > session->statistics.longest_submission_ms)
        session->statistics.longest_submission_ms = work->measured_ms;
}

/* The oldest slice has run. */
static peridot_result land(struct peridot_session *session, peridot_error *error) {
    struct work *work = session->work;
    struct work_place after = work->flights[work->first_flight].after;
    peridot_result result = take_tokens(session, after.sampled, error);
    if (!work->ending)
        learn(session); /* what follows a stop token returns at once, and teaches nothing */
    take_progress(session, &after);
    slices_drop(session);
    return result;
}

static void end_work(struct peridot_session *session) {
    struct work *work = session->work;
    work->active = false;
    if (session->chunk_count > work->place.chunks) /* one that was not cleared to its end */
        kv_cache_release(session, work->place.chunks * KV_CHUNK);
}

static void write_status(const struct peridot_session *session, peridot_work_status *status) {
    const struct work *work = session->work;
    peridot_work_status now = {
        .active = work->active,
        .prompt_left = work->goal.prompt_end > session->computed
                           ? work->goal.prompt_end - session->computed
                           : 0,
        .generated = work->received,
        .slices_in_flight = work->flight_count,
        .slice_ms = work->measured_ms,
        .slice_estimated_ms = work->estimated_ms,
    };
    if (status)
        caller_struct_write(status, &now, sizeof now);
}

peridot_result peridot_session_poll(peridot_session *session, peridot_work_status *status,
                                    peridot_error *error) {
    if (!session || !session->work)
        return fail(error, PERIDOT_ERROR_ARGUMENT,
                    "the session has no work: give it some by peridot_session_start");
    struct work *work = session->work;
    peridot_result result = PERIDOT_OK;
    bool done = true;
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
    write_status(session, status);
    return result;
}

void peridot_session_cancel(peridot_session *session) {
    struct work *work = session ? session->work : NULL;
    if (!work || !work->active)
        return;
    work->ending = true;
    if (!work->flight_count)
        end_work(session);
}

peridot_result peridot_session_close(peridot_session *session) {
    peridot_session_cancel(session);
    if (session && session->work && session->work->active) {
        (void)peridot_session_poll(session, NULL, NULL);
        if (session->work->flight_count)
            return PERIDOT_NOT_READY;
    }
    if (session && session_is_busy(session))
        return PERIDOT_NOT_READY;
    peridot_session_close_wait(session);
    return PERIDOT_OK;
}
