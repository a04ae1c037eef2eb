/* Work in slices of a batch: the public functions. */
#include "batch.h"
#include "caller_struct.h"
#include "work.h"

/* ---- Starting ---- */

static void set_goal(const struct peridot_session *own, const uint32_t *counts,
                     struct work_goal *goal) {
    *goal = (struct work_goal){0};
    for (uint32_t i = 0; i < own->member_count; i++) {
        const struct peridot_session *member = own->members[i];
        if (counts[i])
            goal->members[i] = work_member_goal(member, member->length, counts[i]);
        else /* nothing of it is run */
            goal->members[i].prompt_end = member->computed;
    }
}

peridot_result peridot_batch_start(peridot_batch *batch, const peridot_batch_work *given,
                                   peridot_error *error) {
    peridot_batch_work work;
    struct work_goal goal;
    if (!batch || !given)
        return fail(error, PERIDOT_ERROR_ARGUMENT, "peridot_batch_start needs a batch and work");
    struct peridot_session *own = &batch->own;
    peridot_result result =
        caller_struct_read(&work, sizeof work, given, "peridot_batch_work", error);
    if (!result && !work.counts)
        result = fail(error, PERIDOT_ERROR_ARGUMENT,
                      "peridot_batch_start needs a count for each session");
    if (!result && work_is_active(own))
        result = fail(error, PERIDOT_ERROR_ARGUMENT,
                      "the batch's work is not done: call peridot_batch_poll until it is, or "
                      "peridot_batch_cancel first");
    if (!result)
        result = batch_check_counts(batch, work.counts, error);
    if (!result)
        result = work_make(own, error);
    if (!result)
        result = batch_record(batch, error);
    if (result)
        return result;
    set_goal(own, work.counts, &goal);
    result = work_list_record(own, &goal, error);
    if (result)
        return result;
    work_begin(own, &goal);
    own->work->on_batch_token = work.on_token;
    own->work->user = work.user;
    return PERIDOT_OK;
}

/* ---- Until its end ---- */

static peridot_result need_batch(const peridot_batch *batch, const char *function,
                                 peridot_error *error) {
    return batch ? PERIDOT_OK : fail(error, PERIDOT_ERROR_ARGUMENT, "%s needs a batch", function);
}

peridot_result peridot_batch_plan(peridot_batch *batch, float budget_ms, peridot_slice_plan *plan,
                                  peridot_error *error) {
    peridot_result result = need_batch(batch, "peridot_batch_plan", error);
    if (!result && !plan)
        result = fail(error, PERIDOT_ERROR_ARGUMENT, "peridot_batch_plan needs a place for it");
    if (!result)
        result = caller_struct_check(plan, "peridot_slice_plan", error);
    if (!result)
        work_plan(&batch->own, budget_ms, plan);
    return result;
}

peridot_result peridot_batch_advance(peridot_batch *batch, const peridot_advance *advance,
                                     peridot_slice_plan *slice, peridot_error *error) {
    peridot_result result = need_batch(batch, "peridot_batch_advance", error);
    return result ? result : work_advance(&batch->own, advance, slice, error);
}

peridot_result peridot_batch_record(peridot_batch *batch, const peridot_recording *recording,
                                    peridot_slice_plan *slice, peridot_error *error) {
    peridot_result result = need_batch(batch, "peridot_batch_record", error);
    return result ? result : work_record(&batch->own, recording, slice, error);
}

peridot_result peridot_batch_discard(peridot_batch *batch, peridot_error *error) {
    peridot_result result = need_batch(batch, "peridot_batch_discard", error);
    return result ? result : work_discard(&batch->own, error);
}

peridot_result peridot_batch_poll(peridot_batch *batch, peridot_batch_status *status,
                                  peridot_error *error) {
    peridot_batch_status now = {0};
    peridot_result result = need_batch(batch, "peridot_batch_poll", error);
    if (!result)
        result = caller_struct_check(status, "peridot_batch_status", error);
    if (result)
        return result;
    const struct peridot_session *own = &batch->own;
    result = work_poll(&batch->own, error);
    const struct work *work = own->work;
    if (work)
        now = (peridot_batch_status){
            .active = work->active,
            .slices_in_flight = work->flight_count,
            .slice_ms = work->measured_ms,
            .slice_estimated_ms = work->estimated_ms,
        };
    for (uint32_t i = 0; work && i < own->member_count; i++) {
        now.generated[i] = work->members[i].received;
        now.prompt_left += work_prompt_left(own, i);
    }
    if (status)
        caller_struct_write(status, &now, sizeof now);
    return result;
}

void peridot_batch_cancel(peridot_batch *batch) {
    if (batch)
        work_cancel(&batch->own);
}
