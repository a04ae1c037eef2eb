#include "reference_distribution.h"
#include "reference.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

struct candidate {
    size_t id;
    double logit;
};

struct reference_sampler reference_sampler_plain(void) {
    return (struct reference_sampler){
        .repetition_penalty = 1, .penalty_window = SIZE_MAX, .top_p = 1, .temperature = 1};
}

/* [vocabulary], true for the ids in the list; the caller's to free. */
static bool *marks(const int32_t *ids, size_t count, size_t vocabulary) {
    bool *marked = reference_allocate(vocabulary, sizeof *marked);
    for (size_t i = 0; i < count; i++)
        if (ids[i] >= 0 && (size_t)ids[i] < vocabulary)
            marked[ids[i]] = true;
    return marked;
}

static int highest_first(const void *a, const void *b) {
    const struct candidate *x = a, *y = b;
    if (x->logit != y->logit)
        return x->logit > y->logit ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

/* Mask, penalty, suppression and sorting: how many candidates there are. */
static size_t sort_candidates(struct candidate *sorted, const float *logits, size_t vocabulary,
                              const int32_t *recent, size_t recent_count,
                              const struct reference_sampler *sampler) {
    size_t window = recent_count < sampler->penalty_window ? recent_count : sampler->penalty_window;
    const int32_t *counted = window ? recent + (recent_count - window) : NULL;
    bool *penalised = marks(counted, window, vocabulary);
    bool *suppressed = marks(sampler->suppressed, sampler->suppressed_count, vocabulary);
    double penalty = sampler->repetition_penalty;
    size_t count = 0;
    for (size_t id = 0; id < vocabulary; id++) {
        double logit = logits[id];
        if (penalised[id])
            logit = logit > 0 ? logit / penalty : logit * penalty;
        bool allowed = !sampler->allowed || sampler->allowed[id / 32] >> id % 32 & 1;
        if (allowed && !suppressed[id])
            sorted[count++] = (struct candidate){id, logit};
    }
    free(penalised);
    free(suppressed);
    qsort(sorted, count, sizeof *sorted, highest_first);
    return count;
}

/* At temperature 1, relative to the most likely candidate's. */
static double relative(const struct candidate *sorted, size_t i) {
    return exp(sorted[i].logit - sorted[0].logit);
}

static size_t keep_top_k(size_t count, size_t top_k) {
    return top_k && top_k < count ? top_k : count;
}

static size_t keep_top_p(const struct candidate *sorted, size_t count, double top_p) {
    if (top_p >= 1)
        return count;
    double total = 0, mass = 0;
    for (size_t i = 0; i < count; i++)
        total += relative(sorted, i);
    for (size_t i = 0; i < count; i++) {
        mass += relative(sorted, i);
        if (mass >= top_p * total)
            return i + 1;
    }
    return count;
}

static size_t keep_min_p(const struct candidate *sorted, size_t count, double min_p) {
    size_t kept = 1;
    while (kept < count && relative(sorted, kept) >= min_p)
        kept++;
    return kept;
}

size_t reference_distribution(double *probabilities, const float *logits, size_t vocabulary,
                              const int32_t *recent, size_t recent_count,
                              const struct reference_sampler *sampler) {
    struct candidate *sorted = reference_allocate(vocabulary, sizeof *sorted);
    size_t kept = sort_candidates(sorted, logits, vocabulary, recent, recent_count, sampler);
    for (size_t id = 0; id < vocabulary; id++)
        probabilities[id] = 0;
    if (kept) {
        kept = keep_top_k(kept, sampler->top_k);
        kept = keep_top_p(sorted, kept, sampler->top_p);
        kept = keep_min_p(sorted, kept, sampler->min_p);
        if (sampler->temperature <= 0)
            kept = 1;
        double temperature = sampler->temperature > 0 ? sampler->temperature : 1, sum = 0;
        for (size_t i = 0; i < kept; i++)
            sum += exp((sorted[i].logit - sorted[0].logit) / temperature);
        for (size_t i = 0; i < kept; i++)
            probabilities[sorted[i].id] =
                exp((sorted[i].logit - sorted[0].logit) / temperature) / sum;
    }
    free(sorted);
    return kept;
}

double reference_log_probability(const float *logits, size_t vocabulary, int32_t token) {
    double largest = -INFINITY, sum = 0;
    for (size_t id = 0; id < vocabulary; id++)
        largest = logits[id] > largest ? logits[id] : largest;
    for (size_t id = 0; id < vocabulary; id++)
        sum += exp(logits[id] - largest);
    return logits[token] - largest - log(sum);
}
