#include "reference_sampling.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct candidate {
    uint32_t id;
    double score;
};

static int best_first(const void *a, const void *b) {
    const struct candidate *x = a, *y = b;
    if (x->score != y->score)
        return x->score > y->score ? -1 : 1;
    return x->id < y->id ? -1 : 1;
}

static bool contains(const int32_t *list, uint32_t count, uint32_t id) {
    for (uint32_t i = 0; i < count; i++)
        if (list[i] == (int32_t)id)
            return true;
    return false;
}

/* How many of the sorted candidates top-k, top-p and min-p keep. */
static uint32_t cut(const struct candidate *sorted, uint32_t count,
                    const peridot_sampling *sampling) {
    uint32_t kept = sampling->top_k && sampling->top_k < count ? sampling->top_k : count;
    if (sampling->top_p > 0 && sampling->top_p < 1) {
        double mass = 0, sum = 0;
        for (uint32_t i = 0; i < kept; i++)
            mass += exp(sorted[i].score - sorted[0].score);
        uint32_t i = 0;
        while (i < kept && sum < sampling->top_p * mass)
            sum += exp(sorted[i++].score - sorted[0].score);
        kept = i;
    }
    while (kept > 1 && exp(sorted[kept - 1].score - sorted[0].score) < sampling->min_p)
        kept--;
    return kept;
}

void reference_sampling(const float *logits, uint32_t vocabulary, const int32_t *recent,
                        uint32_t recent_count, const int32_t *suppressed, uint32_t suppressed_count,
                        const peridot_sampling *sampling, double *probabilities) {
    struct candidate *sorted = malloc(vocabulary * sizeof *sorted);
    uint32_t count = 0;
    double penalty = sampling->repetition_penalty > 0 ? sampling->repetition_penalty : 1;
    for (uint32_t i = 0; i < vocabulary; i++) {
        double score = logits[i];
        if (contains(recent, recent_count, i))
            score = score > 0 ? score / penalty : score * penalty;
        if (!contains(suppressed, suppressed_count, i))
            sorted[count++] = (struct candidate){i, score};
    }
    qsort(sorted, count, sizeof *sorted, best_first);
    memset(probabilities, 0, vocabulary * sizeof *probabilities);
    uint32_t kept = sampling->temperature > 0 ? cut(sorted, count, sampling) : 1;
    double temperature = sampling->temperature > 0 ? sampling->temperature : 1, sum = 0;
    for (uint32_t i = 0; i < kept; i++)
        sum += exp((sorted[i].score - sorted[0].score) / temperature);
    for (uint32_t i = 0; i < kept; i++)
        probabilities[sorted[i].id] = exp((sorted[i].score - sorted[0].score) / temperature) / sum;
    free(sorted);
}

/* The upper regularised incomplete gamma function Q(a, x), by series or continued fraction (Press
 * et al., Numerical Recipes, 6.2). */
static double upper_gamma(double a, double x) {
    if (x <= 0)
        return 1;
    double scale = exp(-x + a * log(x) - lgamma(a));
    if (x < a + 1) {
        double term = 1 / a, sum = term;
        for (int n = 1; n < 10000 && term > sum * 1e-15; n++)
            sum += term *= x / (a + n);
        return 1 - sum * scale;
    }
    double b = x + 1 - a, c = 1e300, d = 1 / b, h = d;
    for (int n = 1; n < 10000; n++) {
        double an = -n * (n - a);
        b += 2;
        d = 1 / (an * d + b);
        c = b + an / c;
        h *= d * c;
        if (fabs(d * c - 1) < 1e-15)
            break;
    }
    return h * scale;
}

double chi_square_p(const uint32_t *counts, const double *probabilities, uint32_t cells,
                    uint32_t draws) {
    double statistic = 0, pooled_expected = 0, pooled = 0;
    int freedom = -1;
    for (uint32_t i = 0; i < cells; i++) {
        double expected = probabilities[i] * draws;
        if (expected < 5) {
            pooled_expected += expected;
            pooled += counts[i];
            continue;
        }
        statistic += (counts[i] - expected) * (counts[i] - expected) / expected;
        freedom++;
    }
    if (pooled_expected > 0) {
        statistic += (pooled - pooled_expected) * (pooled - pooled_expected) / pooled_expected;
        freedom++;
    }
    return freedom > 0 ? upper_gamma(freedom / 2.0, statistic / 2) : 1;
}
