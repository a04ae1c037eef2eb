/* Suspending a session to the host's memory, and resuming it there or on another device. */
#include "suspension.h"
#include "constraint.h"
#include "memory_plan.h"
#include "slices.h"

#include <stdlib.h>
#include <string.h>

peridot_result suspension_check(const struct peridot_session *session, bool away_will_do,
                                peridot_error *error) {
    if (!session->suspension || (away_will_do && session->suspension->stage == SUSPENSION_AWAY))
        return PERIDOT_OK;
    static const char *const texts[] = {
        [SUSPENSION_LEAVING] = "the session is being suspended: call "
                               "peridot_session_suspend_step until that is done",
        [SUSPENSION_AWAY] = "the session is suspended: call peridot_session_resume_wait first",
        [SUSPENSION_RETURNING] = "the session is being resumed: call "
                                 "peridot_session_resume_step until that is done",
    };
    return fail(error, PERIDOT_ERROR_ARGUMENT, "%s", texts[session->suspension->stage]);
}

void suspension_rows(const struct peridot_session *session, uint32_t positions, uint8_t *rows) {
    const struct suspension *suspension = session->suspension;
    const struct model_config *config = &session->model->config;
    uint32_t planes = 2 * config->layers * config->kv_heads;
    uint64_t to = session_rows_bytes(session, positions) / planes;
    uint64_t from = session_rows_bytes(session, suspension->positions) / planes;
    for (uint32_t i = 0; i < planes; i++)
        memcpy(rows + i * to, suspension->rows + i * from, to);
}

static void free_copies(struct suspension *suspension) {
    free(suspension->rows);
    free(suspension->logits);
    free(suspension->hidden);
    free(suspension);
}

void suspension_free(struct peridot_session *session) {
    struct suspension *suspension = session->suspension;
    if (!suspension)
        return;
    session_copy_end(&suspension->copy);
    free_copies(suspension);
    session->suspension = NULL;
}

static void release(struct peridot_session *session) {
    slices_release(session);
    for (struct peridot_session *part = session; part; part = part->next)
        session_release_part(part);
}

/* Whether all that was submitted has run, zeros too, where no piece came after them. */
static peridot_result lanes_end(struct peridot_session *session, bool wait, peridot_error *error) {
    for (struct peridot_session *part = session; part; part = part->next) {
        struct lane *lane = &part->lane;
        bool there = true;
        peridot_result result = wait ? lane_wait(lane, lane->submitted, error)
                                     : lane_poll(lane, lane->submitted, &there, error);
        if (result || !there)
            return result ? result : PERIDOT_NOT_READY;
    }
    return PERIDOT_OK;
}

/* ---- Leaving ---- */

/* With room for what is to be taken along; NULL: the host has none. */
static struct suspension *make_suspension(const struct peridot_session *session) {
    struct suspension *made = calloc(1, sizeof *made);
    uint64_t hidden = session_hidden_bytes(session, session->computed);
    if (!made)
        return NULL;
    made->positions = session->computed;
    made->rows = malloc(session_rows_bytes(session, session->computed) + 1);
    if (session->logits_valid)
        made->logits = malloc((size_t)session->model->config.vocabulary * 4);
    if (hidden)
        made->hidden = malloc(hidden);
    if (made->rows && !made->logits == !session->logits_valid && !made->hidden == !hidden)
        return made;
    free_copies(made);
    return NULL;
}

static peridot_result begin_leaving(struct peridot_session *session, peridot_error *error) {
    struct suspension *suspension = make_suspension(session);
    if (!suspension)
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory while suspending a session");
    suspension->copy = (struct session_copy){
        .session = session,
        .to_host = true,
        .rows = suspension->rows,
        .positions = session->computed,
        .stride = session->computed,
        .logits = suspension->logits,
        .hidden = suspension->hidden,
    };
    session->suspension = suspension;
    return PERIDOT_OK;
}

/* After a failure the session is as it was, once nothing of what was begun runs any more. */
static peridot_result turn_back(struct peridot_session *session, bool wait, peridot_error *error) {
    struct suspension *suspension = session->suspension;
    const peridot_error failure = suspension->failure;
    if (!wait && session_is_busy(session))
        return PERIDOT_NOT_READY;
    if (suspension->stage == SUSPENSION_LEAVING) {
        suspension_free(session);
    } else { /* what did not come back entirely goes again; the host's copy is whole */
        session_copy_end(&suspension->copy);
        release(session);
        suspension->stage = SUSPENSION_AWAY;
        suspension->failure = (peridot_error){0};
    }
    return fail(error, failure.code, "%s", failure.message);
}

/* A step of the copying that has begun, to its end. */
static peridot_result copy_on(struct peridot_session *session, uint64_t bytes, bool wait,
                              peridot_error *error) {
    struct suspension *suspension = session->suspension;
    if (suspension->failure.code)
        return turn_back(session, wait, error);
    peridot_error own; /* of attempts that failed and were made otherwise, too */
    peridot_result result = session_copy_step(&suspension->copy, bytes, wait, &own);
    if (!result)
        result = lanes_end(session, wait, &own);
    if (result >= 0)
        return result;
    suspension->failure = own;
    return turn_back(session, wait, error);
}

static peridot_result leave(struct peridot_session *session, uint64_t bytes, bool wait,
                            peridot_error *error) {
    if (!session)
        return fail(error, PERIDOT_ERROR_ARGUMENT, "suspending needs a session");
    struct suspension *suspension = session->suspension;
    peridot_result result = PERIDOT_OK;
    if (suspension && suspension->stage == SUSPENSION_AWAY)
        return PERIDOT_OK;
    if (!suspension || suspension->stage != SUSPENSION_LEAVING) {
        result = session_check_idle(session, error);
        if (!result)
            result = begin_leaving(session, error);
    }
    if (!result)
        result = copy_on(session, bytes, wait, error);
    if (result)
        return result;
    suspension = session->suspension;
    session_copy_end(&suspension->copy);
    release(session);
    suspension->stage = SUSPENSION_AWAY;
    return PERIDOT_OK;
}

peridot_result peridot_session_suspend_step(peridot_session *session, uint64_t bytes,
                                            peridot_error *error) {
    return leave(session, bytes, false, error);
}

peridot_result peridot_session_suspend_wait(peridot_session *session, peridot_error *error) {
    peridot_result result;
    do
        result = leave(session, 0, true, error);
    while (result == PERIDOT_NOT_READY);
    return result;
}

/* ---- Returning ---- */

static peridot_result begin_returning(struct peridot_session *session, peridot_error *error) {
    struct suspension *suspension = session->suspension;
    peridot_result result = memory_plan_admit_return(session, error);
    if (result)
        return result;
    suspension->stage = SUSPENSION_RETURNING;
    peridot_error own;
    if (session_acquire(session, session->computed ? session->computed : 1, &own))
        suspension->failure = own;
    suspension->copy = (struct session_copy){
        .session = session,
        .rows = suspension->rows,
        .positions = session->computed,
        .stride = suspension->positions,
        .logits = session->logits_valid ? suspension->logits : NULL,
        .hidden = suspension->hidden,
        .tokens = session->held,
        .token_count = session->length,
    };
    return PERIDOT_OK; /* what failed is told by copy_on */
}

static peridot_result come_back(struct peridot_session *session, uint64_t bytes, bool wait,
                                peridot_error *error) {
    if (!session)
        return fail(error, PERIDOT_ERROR_ARGUMENT, "resuming needs a session");
    struct suspension *suspension = session->suspension;
    peridot_result result = PERIDOT_OK;
    if (!suspension)
        return PERIDOT_OK;
    if (suspension->stage == SUSPENSION_LEAVING)
        return suspension_check(session, true, error);
    if (suspension->stage == SUSPENSION_AWAY)
        result = begin_returning(session, error);
    if (!result)
        result = copy_on(session, bytes, wait, error);
    if (result)
        return result;
    suspension_free(session);
    session->returns++;
    return PERIDOT_OK;
}

peridot_result peridot_session_resume_step(peridot_session *session, uint64_t bytes,
                                           peridot_error *error) {
    return come_back(session, bytes, false, error);
}

peridot_result peridot_session_resume_wait(peridot_session *session, peridot_error *error) {
    peridot_result result;
    do
        result = come_back(session, 0, true, error);
    while (result == PERIDOT_NOT_READY);
    return result;
}

/* ---- To another device ---- */

static peridot_result check_move(const struct peridot_session *session,
                                 const struct peridot_model *model, peridot_error *error) {
    if (!session || !model)
        return fail(error, PERIDOT_ERROR_ARGUMENT, "peridot_session_move needs a model");
    if (!session->suspension || session->suspension->stage != SUSPENSION_AWAY)
        return fail(error, PERIDOT_ERROR_ARGUMENT,
                    "only a suspended session can move: call peridot_session_suspend_wait first");
    if (model->fingerprint != session->model->fingerprint)
        return fail(error, PERIDOT_ERROR_UNSUPPORTED,
                    "a session moves to the same model, loaded anew: this is another");
    if (session->hidden_layer && model_next(model))
        return fail(error, PERIDOT_ERROR_UNSUPPORTED,
                    "hidden states are not kept of a model on several devices");
    if (constraint_has_grammar(session))
        return fail(error, PERIDOT_ERROR_ARGUMENT,
                    "the session's grammar is of the model that it leaves: take it away first, by "
                    "peridot_session_grammar with NULL");
    return PERIDOT_OK;
}

peridot_result peridot_session_move(peridot_session *session, peridot_model *model,
                                    peridot_error *error) {
    peridot_result result = check_move(session, model, error);
    if (result || model == session->model)
        return result;
    struct peridot_session moved = *session;
    moved.model = model;
    moved.next = NULL;
    result = session_make_parts(&moved, &moved.next, error);
    for (struct peridot_session *part = &moved; part && !result; part = part->next)
        result = session_prepare_part(part, error);
    if (result) {
        session_free_parts(moved.next);
        return result;
    }
    slices_close(session); /* its rates are the other device's */
    moved.work = NULL;
    session_free_parts(session->next);
    *session = moved;
    return PERIDOT_OK;
}
