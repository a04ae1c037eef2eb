/* How well a model predicts, and how far two models' predictions are apart: softmax, KL divergence
 * and the statistics over tokens. Everything in double precision, from float32 logits. */
#ifndef CLI_DIVERGENCE_H
#define CLI_DIVERGENCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A row of logits as a distribution: log p of token i is logits[i] - largest - log_sum. */
struct softmax {
    double largest, log_sum; /* the largest logit; log of the sum of exp(logit - largest) */
    uint32_t top;            /* the most likely token, lowest id on a tie */
};

/* False: a logit is NaN or infinite. `count` is 1 at least. */
bool softmax_of(const float *logits, uint32_t count, struct softmax *softmax);
double softmax_log(const struct softmax *softmax, float logit);

/* KL(base || own) in nats: how much is lost by predicting `own` where `base` holds. */
double divergence(const float *base, const struct softmax *base_softmax, const float *own,
                  const struct softmax *own_softmax, uint32_t count);

/* The mean of values, and its standard error as if they were independent: tokens of one text are
 * not quite. The error of a single value is NaN. */
struct estimate {
    double mean, error;
};
struct estimate estimate_mean(const double *values, size_t count);
/* exp of an estimated mean, with the error carried over to first order. */
struct estimate estimate_exp(struct estimate log);

void sort_values(double *values, size_t count);
/* The value below which `share` (0 to 1) of the sorted values lie, interpolated between the two
 * nearest. */
double percentile(const double *sorted, size_t count, double share);

#endif
