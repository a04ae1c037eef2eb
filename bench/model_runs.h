/* Prompt processing and generation of a session, repeated and measured. */
#ifndef BENCH_MODEL_RUNS_H
#define BENCH_MODEL_RUNS_H

#include "sensors.h"
#include "session.h"
#include "statistics.h"

/* What repeats of one test gave; entry i of each is run i. NaN: not measured. */
struct runs {
    double tokens_per_second[SAMPLES_MAX];
    double first_token_ms[SAMPLES_MAX];   /* of prompts: until the first token is on the host */
    double cpu_ms_per_token[SAMPLES_MAX]; /* of all the process's threads */
    double joules_per_token[SAMPLES_MAX];
    double clock_mhz[SAMPLES_MAX]; /* at the run's end */
    double gb_per_token;           /* weights and KV cache read, on average; 0: prompts */
};

/* Puts the session into the state of `depth` tokens, with logits and memory for `more`. Tokens are
 * <bos> and random ones, the same each time. */
peridot_result runs_set_depth(struct peridot_session *session, uint32_t depth, uint32_t more,
                              peridot_error *error);
/* One run, which becomes entry `index` of `runs`, from `depth` tokens on: a prompt of `tokens`, or
 * as many decode steps (from <bos> on at depth 0), greedy, without an end. */
peridot_result runs_prompt(struct peridot_session *session, const struct sensors *sensors,
                           uint32_t depth, uint32_t tokens, struct runs *runs, uint32_t index,
                           peridot_error *error);
peridot_result runs_generate(struct peridot_session *session, const struct sensors *sensors,
                             uint32_t depth, uint32_t tokens, struct runs *runs, uint32_t index,
                             peridot_error *error);
/* The same of `count` sessions that generate together, as many tokens each: tokens_per_second and
 * what is said of a token are of all of them. */
peridot_result runs_batch(peridot_batch *batch, peridot_session *const *sessions, uint32_t count,
                          const struct sensors *sensors, uint32_t depth, uint32_t tokens,
                          struct runs *runs, uint32_t index, peridot_error *error);

#endif
