/* The distribution that the sampler must draw from, by sorting, in double precision. */
#ifndef REFERENCE_DISTRIBUTION_H
#define REFERENCE_DISTRIBUTION_H

#include <stddef.h>
#include <stdint.h>

/* Applied in this order: mask, penalty, suppression, top-k, top-p, min-p, temperature. */
struct reference_sampler {
    const uint32_t *allowed;   /* a bit an id: those that count at all; NULL: all */
    double repetition_penalty; /* > 0; 1: off */
    size_t penalty_window;     /* how many of the last recent tokens count; SIZE_MAX: all */
    const int32_t *suppressed; /* [suppressed_count] ids that are never drawn */
    size_t suppressed_count;
    size_t top_k;       /* 0: off */
    double top_p;       /* 1 or more: off; at least one token is kept */
    double min_p;       /* 0: off; at least one token is kept */
    double temperature; /* 0: greedy */
};

/* Everything off, temperature 1. */
struct reference_sampler reference_sampler_plain(void);

/* probabilities [vocabulary] of the next token after logits [vocabulary] (finite, or -infinity but
 * not all) and the recent tokens [recent_count], oldest first, of which ids outside the vocabulary
 * do not count.
 *  - Each distinct recent token once: its logit divided by the penalty if positive, otherwise
 *    multiplied by it.
 *  - Ids that are not allowed and suppressed ones out; the others sorted by logit, highest first,
 * equal ones by id, lowest first.
 *  - top-k keeps the first k.
 *  - top-p, on the softmax at temperature 1 over what top-k kept: the shortest prefix whose mass is
 *    at least p.
 *  - min-p, on the same: those of at least min_p times the most likely one's probability.
 *  - Temperature: the survivors in proportion to exp(logit / temperature); greedy: all to the
 *    first.
 * Whatever is cut has exactly 0; all are 0 if every id is suppressed. Returns how many survive. */
size_t reference_distribution(double *probabilities, const float *logits, size_t vocabulary,
                              const int32_t *recent, size_t recent_count,
                              const struct reference_sampler *sampler);

/* Natural log of the token's probability in the softmax of the raw logits [vocabulary]. */
double reference_log_probability(const float *logits, size_t vocabulary, int32_t token);

#endif
