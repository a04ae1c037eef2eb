/* Work in slices of one session: the public functions. */
#include "caller_struct.h"
#include "constraint.h"
#include "suspension.h"
#include "work.h"

#include <string.h>

peridot_result session_check_idle(const struct peridot_session *session, peridot_error *error) {
    if (session->batch)
        return fail(error, PERIDOT_ERROR_ARGUMENT,
                    "the session is in a batch whose work is not done: call peridot_batch_poll "
                    "until it is, or peridot_batch_cancel first");
    if (work_is_active(session))
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

/* Takes the tokens into the session, but for an error. */
static peridot_result set_goal(struct peridot_session *session, const peridot_work *given,
                               struct work_goal *goal, peridot_error *error) {
    uint32_t before = session->length, length = before + (uint32_t)given->token_count;
    if (given->token_count)
        memcpy(session->held + before, given->tokens, given->token_count * sizeof *given->tokens);
    *goal = (struct work_goal){.members = {work_member_goal(session, length, given->generate)}};
    if (given->grammar)
        goal->members[0].kind |= SAMPLER_MASK;
    peridot_result result = work_list_record(session, goal, error);
    if (!result && given->grammar)
        result = peridot_session_grammar(session, given->grammar, error);
    if (result)
        return result;
    session->length = length;
    if (given->grammar)
        constraint_restart(session);
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
        result = work_make(session, error);
    struct work_goal goal;
    if (!result)
        result = set_goal(session, &copy, &goal, error);
    if (result)
        return result;
    work_begin(session, &goal);
    session->work->on_token = copy.on_token;
    session->work->user = copy.user;
    return PERIDOT_OK;
}

/* ---- Until its end ---- */

static peridot_result need_session(const struct peridot_session *session, const char *function,
                                   peridot_error *error) {
    return session ? PERIDOT_OK
                   : fail(error, PERIDOT_ERROR_ARGUMENT, "%s needs a session", function);
}

peridot_result peridot_session_plan(peridot_session *session, float budget_ms,
                                    peridot_slice_plan *plan, peridot_error *error) {
    peridot_result result = need_session(session, "peridot_session_plan", error);
    if (!result && !plan)
        result = fail(error, PERIDOT_ERROR_ARGUMENT, "peridot_session_plan needs a place for it");
    if (!result)
        result = caller_struct_check(plan, "peridot_slice_plan", error);
    if (!result)
        work_plan(session, budget_ms, plan);
    return result;
}

peridot_result peridot_session_advance(peridot_session *session, const peridot_advance *advance,
                                       peridot_slice_plan *slice, peridot_error *error) {
    peridot_result result = need_session(session, "peridot_session_advance", error);
    return result ? result : work_advance(session, advance, slice, error);
}

peridot_result peridot_session_record(peridot_session *session, const peridot_recording *recording,
                                      peridot_slice_plan *slice, peridot_error *error) {
    peridot_result result = need_session(session, "peridot_session_record", error);
    return result ? result : work_record(session, recording, slice, error);
}

peridot_result peridot_session_discard(peridot_session *session, peridot_error *error) {
    peridot_result result = need_session(session, "peridot_session_discard", error);
    return result ? result : work_discard(session, error);
}

peridot_result peridot_session_poll(peridot_session *session, peridot_work_status *status,
                                    peridot_error *error) {
    peridot_work_status now = {0};
    peridot_result result = need_session(session, "peridot_session_poll", error);
    if (!result)
        result = caller_struct_check(status, "peridot_work_status", error);
    if (result)
        return result;
    result = work_poll(session, error);
    const struct work *work = session->work;
    if (work)
        now = (peridot_work_status){
            .active = work->active,
            .prompt_left = work_prompt_left(session, 0),
            .generated = work->members[0].received,
            .slices_in_flight = work->flight_count,
            .slice_ms = work->measured_ms,
            .slice_estimated_ms = work->estimated_ms,
        };
    if (status)
        caller_struct_write(status, &now, sizeof now);
    return result;
}

void peridot_session_cancel(peridot_session *session) {
    if (session)
        work_cancel(session);
}

peridot_result peridot_session_close(peridot_session *session) {
    if (session && (session->batch || work_holds(session) || session_is_busy(session)))
        return PERIDOT_NOT_READY;
    peridot_session_close_wait(session);
    return PERIDOT_OK;
}
