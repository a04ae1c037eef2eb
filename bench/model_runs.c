#include "model_runs.h"
#include "platform.h"

#include <math.h>
#include <stdlib.h>

/* Token `position` of every prompt: <bos>, then ids all over the vocabulary (splitmix64). */
static int32_t token_at(const struct peridot_session *session, uint32_t position) {
    if (position == 0)
        return 2;
    uint64_t z = (position + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z ^= z >> 27;
    return (int32_t)(z % session->model->config.vocabulary);
}

/* Appends tokens up to `length`. */
static peridot_result extend(struct peridot_session *session, uint32_t length,
                             peridot_error *error) {
    uint32_t from = peridot_session_length(session);
    if (from >= length)
        return PERIDOT_OK;
    int32_t *tokens = malloc((length - from) * sizeof *tokens);
    if (!tokens)
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory for a prompt");
    for (uint32_t i = from; i < length; i++)
        tokens[i - from] = token_at(session, i);
    peridot_result result =
        peridot_session_prompt_wait(session, tokens, length - from, NULL, error);
    free(tokens);
    return result;
}

/* Whether the first `depth` tokens are those of token_at: a generation may have left others. */
static bool holds_prompt(const struct peridot_session *session, uint32_t depth) {
    const int32_t *held = peridot_session_tokens(session);
    if (peridot_session_length(session) < depth)
        return false;
    for (uint32_t i = 0; i < depth; i++)
        if (held[i] != token_at(session, i))
            return false;
    return true;
}

peridot_result runs_set_depth(struct peridot_session *session, uint32_t depth, uint32_t more,
                              peridot_error *error) {
    peridot_result result =
        peridot_session_truncate(session, holds_prompt(session, depth) ? depth : 0, error);
    if (!result)
        result = extend(session, depth, error);
    /* the cache grows before the clock runs, and the logits are there */
    if (!result)
        result = kv_cache_reserve(session, depth + more, error);
    if (!result && depth > 0 && !session->logits_valid)
        result = session_compute(session, NULL, error);
    return result;
}

/* ---- Runs ---- */

struct clock {
    double wall, cpu;
};

static struct clock now(void) {
    return (struct clock){platform_seconds(), platform_cpu_seconds()};
}

static bool ignore_token(const peridot_token *token, void *user) {
    (void)token;
    (void)user;
    return true;
}

peridot_result runs_prompt(struct peridot_session *session, const struct sensors *sensors,
                           uint32_t depth, uint32_t tokens, struct runs *runs, uint32_t index,
                           peridot_error *error) {
    peridot_result result = runs_set_depth(session, depth, tokens + 1, error);
    if (result)
        return result;
    struct energy_meter *meter = energy_begin(sensors);
    struct clock start = now();
    result = extend(session, depth + tokens, error);
    struct clock end = now();
    double joules = energy_end(meter);
    double measuring = platform_seconds() - end.wall;
    if (!result)
        result = peridot_session_generate_wait(session, 1, ignore_token, NULL, NULL, error);
    double first = platform_seconds() - start.wall - measuring;
    runs->tokens_per_second[index] = tokens / (end.wall - start.wall);
    runs->first_token_ms[index] = first * 1e3;
    runs->cpu_ms_per_token[index] = (end.cpu - start.cpu) * 1e3 / tokens;
    runs->joules_per_token[index] = joules / tokens;
    runs->clock_mhz[index] = sensors_clock_mhz(sensors);
    return result;
}

/* The clock at the first tokens, which need no step, and at the last. */
struct generation_clock {
    const struct sensors *sensors;
    struct clock first, last;
    struct energy_meter *meter;
    uint32_t tokens, sessions;
};

static bool watch_token(const peridot_token *token, void *user) {
    struct generation_clock *clock = user;
    (void)token;
    if (++clock->tokens == clock->sessions) {
        clock->meter = energy_begin(clock->sensors);
        clock->first = now();
    }
    clock->last = now();
    return true;
}

static bool watch_batch(uint32_t session, const peridot_token *token, void *user) {
    (void)session;
    return watch_token(token, user);
}

/* What the clock saw of `tokens` steps. */
static peridot_result take_times(struct generation_clock *clock, uint32_t tokens, struct runs *runs,
                                 uint32_t index, peridot_error *error) {
    uint32_t expected = clock->sessions * (tokens + 1), timed = clock->sessions * tokens;
    double joules = energy_end(clock->meter);
    runs->tokens_per_second[index] = timed / (clock->last.wall - clock->first.wall);
    runs->first_token_ms[index] = NAN;
    runs->cpu_ms_per_token[index] = (clock->last.cpu - clock->first.cpu) * 1e3 / timed;
    runs->joules_per_token[index] = joules / timed;
    runs->clock_mhz[index] = sensors_clock_mhz(clock->sensors);
    if (clock->tokens != expected)
        return fail(error, PERIDOT_ERROR_VULKAN, "%u tokens came where %u were asked for",
                    clock->tokens, expected);
    return PERIDOT_OK;
}

static double step_gb(const struct peridot_session *session) {
    peridot_session_statistics statistics = {.struct_size = sizeof statistics};
    peridot_session_describe(session, &statistics);
    return (double)statistics.step_bytes / 1e9;
}

peridot_result runs_generate(struct peridot_session *session, const struct sensors *sensors,
                             uint32_t depth, uint32_t tokens, struct runs *runs, uint32_t index,
                             peridot_error *error) {
    struct generation_clock clock = {.sensors = sensors, .sessions = 1};
    depth = depth ? depth : 1;
    peridot_result result = runs_set_depth(session, depth, tokens + 1, error);
    if (result)
        return result;
    double before = step_gb(session);
    result = peridot_session_generate_wait(session, tokens + 1, watch_token, &clock, NULL, error);
    peridot_result taken = take_times(&clock, tokens, runs, index, result ? NULL : error);
    runs->gb_per_token = (before + step_gb(session)) / 2;
    return result ? result : taken;
}

/* Of a step's bytes each session has its cache for itself, and all of them share the weights. */
static double batch_gb(peridot_session *const *sessions, uint32_t count) {
    peridot_model_info info = {.struct_size = sizeof info};
    peridot_model_describe(sessions[0]->model, &info);
    double weights = (double)info.padded_bytes / 1e9;
    return weights / count + step_gb(sessions[0]) - weights;
}

peridot_result runs_batch(peridot_batch *batch, peridot_session *const *sessions, uint32_t count,
                          const struct sensors *sensors, uint32_t depth, uint32_t tokens,
                          struct runs *runs, uint32_t index, peridot_error *error) {
    struct generation_clock clock = {.sensors = sensors, .sessions = count};
    uint32_t counts[PERIDOT_BATCH_MAX];
    peridot_result result = PERIDOT_OK;
    depth = depth ? depth : 1;
    for (uint32_t i = 0; i < count && !result; i++) {
        counts[i] = tokens + 1;
        result = runs_set_depth(sessions[i], depth, tokens + 1, error);
    }
    if (result)
        return result;
    double before = batch_gb(sessions, count);
    result = peridot_batch_generate_wait(batch, counts, watch_batch, &clock, NULL, error);
    peridot_result taken = take_times(&clock, tokens, runs, index, result ? NULL : error);
    runs->gb_per_token = (before + batch_gb(sessions, count)) / 2;
    return result ? result : taken;
}
