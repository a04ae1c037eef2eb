#include "tuner.h"
#include "kernels/kernel_checks.h"
#include "platform.h"
#include "statistics.h"
#include "timed_kernel.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <stb/stb_ds.h>

#define TRIAL_RUNS 7        /* of each candidate, at most */
#define TRIAL_SECONDS 0.1   /* that they take about, three runs at least */
#define DUEL_RUNS 15        /* of the best and of what is used untuned, in turn */
#define DUEL_ROUND 3        /* runs of one before the other's turn */
#define DUELS 3             /* candidates that may have a duel */
#define WORTH_A_DUEL 0.99   /* of the untuned time at most */
#define DUEL_SHARE 0.25     /* of a kernel's time, left for duels */
#define AWKWARD_CASES 4     /* that the winner passes besides */
#define ROTATE (256u << 20) /* bytes: more than caches hold */
#define MATRIX_MOST (64u << 20)
/* a software device is tuned on less, since it takes its time */
#define SOFTWARE_ROTATE (8u << 20)
#define SOFTWARE_MATRIX_MOST (4u << 20)

#define KNOWN_RANK 100

struct job {
    struct kernel_want want;
    struct case_shape shape;
    uint32_t rank; /* by what it takes of a model's time; 0 first, what is tuned already last */
};

struct candidate {
    struct pipeline_key key;
    double seconds; /* NAN: not measured, or wrong */
};

struct tuner {
    const struct tuner_params *params;
    struct device *device;
    struct bench bench;
    const struct tuning *known;
    struct job *jobs; /* stb_ds */
    struct candidate candidates[KERNEL_SEARCH_MAX];
    struct timed_kernel *timed; /* of the case that ran last */
    peridot_result capture_result;
    peridot_error capture_error;
    struct tuner_progress progress;
    bool quick; /* a software device */
};

/* ---- What there is to tune ---- */

static bool is_projection(enum kernel kernel) {
    return kernel >= KERNEL_matvec_qkv && kernel <= KERNEL_dot_head;
}

/* Generating takes its time in products of one row, reading a prompt in those of many. */
static uint32_t rank_of(const struct tuning_place *place) {
    static const uint32_t roles[] = {3, 1, 0, 2}; /* qkv, residual, geglu, head */
    if (place->kernel == KERNEL_attention_decode)
        return 4;
    if (place->kernel == KERNEL_attention_prefill)
        return 9;
    if (!is_projection(place->kernel))
        return 20;
    uint32_t role = roles[(place->kernel - KERNEL_matvec_qkv) % 4];
    return role + (place->columns == 1 ? 0 : place->columns == 0 ? 5 : 10);
}

/* The sizes at which a kernel is timed: the model's, of a matrix no more than tells. */
static struct case_shape shape_of(const struct tuner *tuner, const struct tuning_place *place) {
    const struct model_config *config = &tuner->params->model->config;
    uint32_t prompt = tuner->quick ? 32 : 256, depth = tuner->quick ? 96 : 2048;
    struct case_shape shape = case_shape_of(config);
    shape.kv = (uint32_t)tuner->params->kv;
    shape.plane_most = tuner->quick ? SOFTWARE_MATRIX_MOST : MATRIX_MOST;
    if (is_projection(place->kernel)) {
        shape.tokens = place->columns ? place->columns : prompt;
        /* the longer one of the two that this kernel makes, but for what its check would take */
        shape.down = place->columns != 0;
        if (place->kernel == KERNEL_matmul_head || place->kernel == KERNEL_dot_head)
            shape.tokens = shape.tokens > 32 ? 32 : shape.tokens;
    } else if (place->kernel == KERNEL_attention_decode) {
        shape.position = depth;
    } else {
        shape.tokens = prompt;
        shape.position = place->kernel == KERNEL_attention_prefill ? prompt : 0;
    }
    if (shape.position + shape.tokens > config->context && config->context > shape.tokens)
        shape.position = config->context - shape.tokens;
    return shape;
}

/* What is used untuned comes first. */
static uint32_t list_keys(const struct tuner *tuner, const struct kernel_want *want,
                          struct pipeline_key keys[KERNEL_SEARCH_MAX]) {
    uint32_t count = kernel_search_list(tuner->device, &want->key, want->place.columns, keys);
    for (uint32_t i = 0; i < tuner->params->planted_count && count < KERNEL_SEARCH_MAX; i++) {
        const struct pipeline_key *planted = &tuner->params->planted[i];
        if (planted->variant->kernel != want->place.kernel || planted->type != want->place.type)
            continue;
        if (count > 1)
            keys[count] = keys[1]; /* the second, so that there is time for it */
        keys[1] = *planted;
        count++;
    }
    return count;
}

static void add_job(const struct kernel_want *want, void *user) {
    struct tuner *tuner = user;
    struct pipeline_key keys[KERNEL_SEARCH_MAX];
    for (ptrdiff_t i = 0; i < arrlen(tuner->jobs); i++)
        if (memcmp(&tuner->jobs[i].want.place, &want->place, sizeof want->place) == 0)
            return;
    if (!kernel_check_of(want->place.kernel) || list_keys(tuner, want, keys) < 2)
        return;
    struct job job = {*want, shape_of(tuner, &want->place), rank_of(&want->place)};
    if (tuning_find(tuner->known, &want->place))
        job.rank += KNOWN_RANK;
    arrput(tuner->jobs, job);
}

static int by_rank(const void *a, const void *b) {
    uint32_t one = ((const struct job *)a)->rank, other = ((const struct job *)b)->rank;
    return (one > other) - (one < other);
}

/* ---- One candidate ---- */

static void capture(const struct bench *bench, const struct bench_dispatch *dispatch, void *user) {
    struct tuner *tuner = user;
    timed_kernel_destroy(tuner->timed);
    tuner->timed = NULL;
    tuner->capture_result =
        timed_kernel_create(bench, dispatch, tuner->quick ? SOFTWARE_ROTATE : ROTATE, &tuner->timed,
                            &tuner->capture_error);
}

static void let_go(struct tuner *tuner) {
    timed_kernel_destroy(tuner->timed);
    tuner->timed = NULL;
}

/* Checks a candidate at the sizes at hand; what is right can be timed then, `*right` says. Errors:
 * those of timed_kernel_create. */
static peridot_result check(struct tuner *tuner, const struct job *job,
                            const struct pipeline_key *key, bool *right, peridot_error *error) {
    struct bench *bench = &tuner->bench;
    let_go(tuner);
    bench->shape = &job->shape;
    bench->watched = key->variant;
    bench->spec = key->spec;
    tuner->capture_result = PERIDOT_OK;
    *right = kernel_passes(bench, kernel_check_of(job->want.place.kernel), key->variant, key->type);
    bench->shape = NULL;
    bench->watched = NULL;
    if (tuner->capture_result && error)
        *error = tuner->capture_error;
    return tuner->capture_result;
}

/* The same at sizes that are multiples of nothing. */
static bool passes_awkward(struct tuner *tuner, const struct pipeline_key *key) {
    kernel_check *awkward = kernel_check_of(key->variant->kernel);
    tuner->bench.spec = key->spec;
    for (uint32_t i = 0; i < AWKWARD_CASES; i++)
        if (!kernel_passes(&tuner->bench, awkward, key->variant, key->type))
            return false;
    return true;
}

static void note_wrong(struct tuner *tuner) {
    tuner->progress.wrong++;
    tuner->progress.fault = tuner->bench.failure;
}

static peridot_result measure(struct tuner *tuner, const struct job *job,
                              struct candidate *candidate, peridot_error *error) {
    double seconds[TRIAL_RUNS], first;
    bool right;
    candidate->seconds = NAN;
    peridot_result result = check(tuner, job, &candidate->key, &right, error);
    if (result || !right) {
        if (!result)
            note_wrong(tuner);
        return result;
    }
    result = timed_kernel_run(tuner->timed, 1, &first, error);
    double fit = TRIAL_SECONDS / (first > 1e-9 ? first : 1e-9);
    uint32_t runs = fit > TRIAL_RUNS ? TRIAL_RUNS : fit < 3 ? 3 : (uint32_t)fit;
    if (!result)
        result = timed_kernel_run(tuner->timed, runs, seconds, error);
    if (!result)
        candidate->seconds = samples_spread(seconds, runs).median;
    return result;
}

/* ---- One kernel ---- */

static bool stopped(const struct tuner *tuner) {
    return tuner->params->stop && tuner->params->stop(tuner->params->user);
}

static void tell(const struct tuner *tuner) {
    if (tuner->params->progress)
        tuner->params->progress(&tuner->progress, tuner->params->user);
}

/* What is used untuned, then each variant as it comes, then the rest in no order: what there is no
 * time for is a random part of it. */
static uint32_t list_candidates(struct tuner *tuner, const struct job *job) {
    struct pipeline_key keys[KERNEL_SEARCH_MAX];
    uint32_t count = list_keys(tuner, &job->want, keys);
    uint32_t fixed = kernel_info(job->want.place.kernel).variant_count;
    for (uint32_t i = count; i-- > fixed + 1;) {
        uint32_t other = fixed + (uint32_t)random_below(&tuner->bench.random, i + 1 - fixed);
        struct pipeline_key key = keys[i];
        keys[i] = keys[other];
        keys[other] = key;
    }
    for (uint32_t i = 0; i < count; i++)
        tuner->candidates[i] = (struct candidate){keys[i], NAN};
    return count;
}

/* The candidate with the least time that is worth a duel with the first; NULL: none. */
static struct candidate *best_of(struct tuner *tuner, uint32_t count) {
    struct candidate *best = NULL;
    double limit = WORTH_A_DUEL * tuner->candidates[0].seconds;
    for (uint32_t i = 1; i < count; i++) {
        struct candidate *candidate = &tuner->candidates[i];
        if (candidate->seconds < (best ? best->seconds : limit)) /* false for NAN */
            best = candidate;
    }
    return best;
}

/* Both are run in turn, so that what else the device does meets both alike. */
static peridot_result duel(struct tuner *tuner, const struct job *job,
                           const struct candidate *challenger, struct difference *difference,
                           peridot_error *error) {
    double before[DUEL_RUNS], after[DUEL_RUNS], warm;
    struct timed_kernel *base = NULL;
    bool right = false, both = false;
    peridot_result result = check(tuner, job, &tuner->candidates[0].key, &right, error);
    if (!result && right) {
        base = tuner->timed;
        tuner->timed = NULL;
        result = check(tuner, job, &challenger->key, &both, error);
    }
    both = both && right && !result;
    if (both)
        result = timed_kernel_run(base, 1, &warm, error);
    if (both && !result)
        result = timed_kernel_run(tuner->timed, 1, &warm, error);
    for (uint32_t i = 0; both && i < DUEL_RUNS && !result; i += DUEL_ROUND) {
        result = timed_kernel_run(base, DUEL_ROUND, before + i, error);
        if (!result)
            result = timed_kernel_run(tuner->timed, DUEL_ROUND, after + i, error);
    }
    timed_kernel_destroy(base);
    *difference = (struct difference){0};
    if (both && !result)
        *difference = samples_difference(before, DUEL_RUNS, after, DUEL_RUNS);
    if (!result && !both)
        note_wrong(tuner);
    return result;
}

static void enter(const struct job *job, const struct pipeline_key *key, double gain,
                  struct tuned *entry) {
    *entry = (struct tuned){.place = job->want.place, .variant = key->variant, .gain = gain};
    memcpy(entry->spec, key->spec, sizeof entry->spec);
}

/* The best of those measured that passes all checks and wins; else what is used untuned. */
static peridot_result choose(struct tuner *tuner, const struct job *job, uint32_t count,
                             struct tuned *chosen, peridot_error *error) {
    struct tuner_progress *progress = &tuner->progress;
    peridot_result result = PERIDOT_OK;
    enter(job, &tuner->candidates[0].key, 1, chosen);
    progress->before = progress->after = tuner->candidates[0].seconds;
    for (uint32_t i = 0; i < DUELS && !result; i++) {
        struct candidate *best = best_of(tuner, count);
        struct difference difference = {0};
        if (!best)
            break;
        best->seconds = NAN; /* it has its chance now */
        if (!passes_awkward(tuner, &best->key)) {
            note_wrong(tuner);
            continue;
        }
        result = duel(tuner, job, best, &difference, error);
        if (result || !difference.real || difference.after >= difference.before)
            continue;
        enter(job, &best->key, difference.before / difference.after, chosen);
        progress->before = difference.before;
        progress->after = difference.after;
        break;
    }
    let_go(tuner);
    return result;
}

/* `*settled`: there is nothing left to do. */
static peridot_result tune_job(struct tuner *tuner, const struct job *job, double deadline,
                               struct tuning *tuning, bool *settled, peridot_error *error) {
    uint32_t count = list_candidates(tuner, job);
    double end = deadline - DUEL_SHARE * (deadline - platform_seconds());
    peridot_result result = PERIDOT_OK;
    tuner->progress = (struct tuner_progress){.done = tuner->progress.done,
                                              .all = tuner->progress.all,
                                              .want = job->want,
                                              .candidates = count};
    *settled = false;
    for (uint32_t i = 0; i < count && !result && !stopped(tuner); i++) {
        if (i > 1 && platform_seconds() > end)
            break;
        tell(tuner);
        result = measure(tuner, job, &tuner->candidates[i], error);
        tuner->progress.tried++;
        /* a kernel that is wrong as it is used is nothing to be tuned, but to be mended */
        if (isnan(tuner->candidates[0].seconds))
            break;
    }
    let_go(tuner);
    if (result || stopped(tuner))
        return result;
    if (isnan(tuner->candidates[0].seconds)) {
        tuner->progress.broken = *settled = true;
        tuner->progress.done++;
        tell(tuner);
        return PERIDOT_OK;
    }
    result = choose(tuner, job, count, &tuner->progress.chosen, error);
    if (result)
        return result;
    tuning_set(tuning, &tuner->progress.chosen);
    *settled = true;
    tuner->progress.finished = true;
    tuner->progress.done++;
    tell(tuner);
    return PERIDOT_OK;
}

/* ---- All of them ---- */

static peridot_result tune_jobs(struct tuner *tuner, struct tuning *tuning, uint32_t *left,
                                peridot_error *error) {
    uint32_t count = (uint32_t)arrlen(tuner->jobs);
    double end = platform_seconds() + tuner->params->seconds;
    peridot_result result = PERIDOT_OK;
    *left = tuner->progress.all = count;
    for (uint32_t i = 0; i < count && !result && !stopped(tuner); i++) {
        double now = platform_seconds();
        bool settled;
        if (i > 0 && now >= end)
            break;
        /* twice its share: those that come first matter most, and few need all of it */
        double share = 2 * (end - now) / (count - i);
        double deadline = now + share > end ? end : now + share;
        result = tune_job(tuner, &tuner->jobs[i], deadline, tuning, &settled, error);
        *left -= settled;
    }
    return result;
}

peridot_result tuner_run(const struct tuner_params *params, struct tuning *tuning, uint32_t *left,
                         peridot_error *error) {
    uint32_t ignored;
    struct tuner *tuner = calloc(1, sizeof *tuner);
    if (!tuner)
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory while tuning");
    tuner->params = params;
    tuner->known = tuning;
    tuner->device = params->model->device->engine;
    tuner->quick = device_is_software(tuner->device);
    peridot_result result =
        kernel_set_visit(params->model, params->kv, params->int8, add_job, tuner, error);
    if (arrlen(tuner->jobs) > 0)
        qsort(tuner->jobs, (size_t)arrlen(tuner->jobs), sizeof *tuner->jobs, by_rank);
    if (!result)
        result = bench_open(&tuner->bench, tuner->device, params->seed, error);
    tuner->bench.watch = capture;
    tuner->bench.watcher = tuner;
    if (!result)
        result = tune_jobs(tuner, tuning, left ? left : &ignored, error);
    timed_kernel_destroy(tuner->timed);
    if (tuner->bench.lane.device)
        bench_close(&tuner->bench);
    arrfree(tuner->jobs);
    free(tuner);
    return result;
}
