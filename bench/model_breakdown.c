#include "model_breakdown.h"
#include "forward.h"
#include "model_runs.h"
#include "platform.h"
#include "timed_steps.h"

#include <stdlib.h>
#include <string.h>

/* One step by itself, in wall time; the token's forward pass, then its sampling. */
static peridot_result step(struct peridot_session *session, double *seconds, peridot_error *error) {
    double start = platform_seconds();
    peridot_result result = peridot_session_generate_wait(session, 1, NULL, NULL, NULL, error);
    *seconds = platform_seconds() - start;
    return result;
}

static struct kernel_share *share_of(struct breakdown *breakdown, const struct pipeline *pipeline) {
    for (uint32_t i = 0; i < breakdown->share_count; i++)
        if (breakdown->shares[i].pipeline == pipeline)
            return &breakdown->shares[i];
    if (breakdown->share_count == SHARES_MAX)
        return NULL;
    struct kernel_share *share = &breakdown->shares[breakdown->share_count++];
    *share = (struct kernel_share){.pipeline = pipeline};
    return share;
}

/* What does not change from step to step. */
static peridot_result list_shares(const struct timed_steps *timed, uint32_t length,
                                  struct breakdown *breakdown, peridot_error *error) {
    struct cost attention = forward_attention_cost(timed->session, 1, length);
    for (uint32_t i = 0; i < timed->dispatch_count; i++) {
        const struct dispatch *dispatch = timed_steps_dispatch(timed, i);
        struct kernel_share *share = share_of(breakdown, dispatch->pipeline);
        if (!share)
            return fail(error, PERIDOT_ERROR_UNSUPPORTED,
                        "a step of this model has more than %d kernels", SHARES_MAX);
        bool attends = dispatch->pipeline->key.variant->kernel == KERNEL_attention_decode;
        share->dispatches++;
        share->bytes += attends ? attention.bytes : dispatch->cost.bytes;
    }
    return PERIDOT_OK;
}

/* Adds the last step to run `index`, of which it is one of `steps`. */
static peridot_result add_step(const struct timed_steps *timed, struct breakdown *breakdown,
                               uint32_t index, uint32_t steps, peridot_error *error) {
    double *seconds = calloc(timed->dispatch_count, sizeof *seconds);
    if (!seconds)
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory while timing a step");
    peridot_result result = timed_steps_read(timed, seconds, error);
    for (uint32_t i = 0; i < timed->dispatch_count && !result; i++) {
        const struct pipeline *pipeline = timed_steps_dispatch(timed, i)->pipeline;
        share_of(breakdown, pipeline)->seconds[index] += seconds[i] / steps;
        breakdown->kernels[index] += seconds[i] / steps;
    }
    free(seconds);
    return result;
}

/* A step that is left out, then the run's; with timestamps where `timed` is not NULL. */
static peridot_result run_steps(struct peridot_session *session, const struct timed_steps *timed,
                                uint32_t steps, struct breakdown *breakdown, uint32_t index,
                                peridot_error *error) {
    double *sum = timed ? &breakdown->timed[index] : &breakdown->plain[index], seconds;
    peridot_result result = step(session, &seconds, error);
    *sum = 0;
    for (uint32_t i = 0; i < steps && !result; i++) {
        result = step(session, &seconds, error);
        *sum += seconds / steps;
        if (!result && timed)
            result = add_step(timed, breakdown, index, steps, error);
    }
    return result;
}

static void clear_run(struct breakdown *breakdown, uint32_t index) {
    breakdown->kernels[index] = 0;
    for (uint32_t i = 0; i < breakdown->share_count; i++)
        breakdown->shares[i].seconds[index] = 0;
}

/* The state from which both kinds start: the first call after it samples from logits that are
 * there, which is no step. */
static peridot_result start(struct peridot_session *session, uint32_t depth, uint32_t steps,
                            peridot_error *error) {
    double unused;
    peridot_result result = runs_set_depth(session, depth, steps + 2, error);
    return result ? result : step(session, &unused, error);
}

peridot_result breakdown_run(struct peridot_session *session, uint32_t depth, uint32_t steps,
                             struct breakdown *breakdown, uint32_t index, peridot_error *error) {
    struct timed_steps timed = {0};
    depth = depth ? depth : 1;
    clear_run(breakdown, index);
    peridot_result result = start(session, depth, steps, error);
    if (!result)
        result = run_steps(session, NULL, steps, breakdown, index, error);
    if (!result)
        result = start(session, depth, steps, error);
    if (!result)
        result = timed_steps_begin(session, &timed, error);
    if (!result && !breakdown->share_count)
        result = list_shares(&timed, depth + steps / 2, breakdown, error);
    if (!result)
        result = run_steps(session, &timed, steps, breakdown, index, error);
    timed_steps_end(&timed);
    return result;
}
