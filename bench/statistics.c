#include "statistics.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int compare_doubles(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double samples_quantile(double *samples, uint32_t count, double q) {
    if (count == 0)
        return NAN;
    qsort(samples, count, sizeof *samples, compare_doubles);
    double place = q * (count - 1);
    uint32_t below = (uint32_t)place;
    if (below + 1 >= count)
        return samples[count - 1];
    return samples[below] + (place - below) * (samples[below + 1] - samples[below]);
}

struct spread samples_spread(const double *samples, uint32_t count) {
    double sorted[SAMPLES_MAX];
    count = count > SAMPLES_MAX ? SAMPLES_MAX : count;
    memcpy(sorted, samples, count * sizeof *sorted);
    struct spread spread = {.median = samples_quantile(sorted, count, 0.5)};
    spread.range = samples_quantile(sorted, count, 0.75) - samples_quantile(sorted, count, 0.25);
    return spread;
}

/* ---- Mann and Whitney ---- */

#define EXACT_MAX 40
/* of doubled ranks: equal values share the mean of their ranks, which may be a half */
#define RANK_SUM_MAX (EXACT_MAX * (EXACT_MAX + 1))

struct sample {
    double value;
    bool first;    /* of the first set */
    uint32_t rank; /* doubled */
};

static int compare_samples(const void *a, const void *b) {
    return compare_doubles(&((const struct sample *)a)->value, &((const struct sample *)b)->value);
}

static void rank_samples(struct sample *all, uint32_t count) {
    qsort(all, count, sizeof *all, compare_samples);
    for (uint32_t begin = 0, end; begin < count; begin = end) {
        for (end = begin + 1; end < count && all[end].value == all[begin].value;)
            end++;
        for (uint32_t i = begin; i < end; i++)
            all[i].rank = begin + 1 + end;
    }
}

/* Of all ways to draw `drawn` of the ranks, the share whose sum is as far from the mean. */
static double exact_p(const struct sample *all, uint32_t count, uint32_t drawn, uint32_t sum) {
    static double ways[EXACT_MAX + 1][RANK_SUM_MAX + 1];
    memset(ways, 0, sizeof ways);
    ways[0][0] = 1;
    for (uint32_t i = 0; i < count; i++)
        for (uint32_t k = i + 1 < drawn ? i + 1 : drawn; k > 0; k--)
            for (uint32_t s = RANK_SUM_MAX; s >= all[i].rank; s--)
                ways[k][s] += ways[k - 1][s - all[i].rank];
    double total = 0, far = 0, mean = (double)drawn * (count + 1);
    for (uint32_t s = 0; s <= RANK_SUM_MAX; s++) {
        total += ways[drawn][s];
        if (fabs(s - mean) >= fabs(sum - mean))
            far += ways[drawn][s];
    }
    return far / total;
}

static double normal_p(const struct sample *all, uint32_t count, uint32_t drawn, uint32_t sum) {
    double n = count, ties = 0;
    for (uint32_t begin = 0, end; begin < count; begin = end) {
        for (end = begin + 1; end < count && all[end].rank == all[begin].rank;)
            end++;
        double t = end - begin;
        ties += t * t * t - t;
    }
    double variance = (double)drawn * (n - drawn) / 12 * ((n + 1) - ties / (n * (n - 1)));
    double distance = fabs((double)sum - drawn * (n + 1)) / 2 - 0.5;
    if (variance <= 0 || distance <= 0)
        return 1;
    return erfc(distance / sqrt(2 * variance));
}

double samples_mann_whitney(const double *a, uint32_t a_count, const double *b, uint32_t b_count) {
    struct sample all[2 * SAMPLES_MAX];
    uint32_t count = 0, sum = 0;
    for (uint32_t i = 0; i < a_count && i < SAMPLES_MAX; i++)
        all[count++] = (struct sample){.value = a[i], .first = true};
    uint32_t drawn = count;
    for (uint32_t i = 0; i < b_count && i < SAMPLES_MAX; i++)
        all[count++] = (struct sample){.value = b[i]};
    if (drawn == 0 || drawn == count)
        return 1;
    rank_samples(all, count);
    for (uint32_t i = 0; i < count; i++)
        sum += all[i].first ? all[i].rank : 0;
    return count <= EXACT_MAX ? exact_p(all, count, drawn, sum) : normal_p(all, count, drawn, sum);
}

/* The least p that sets of these sizes can have: no overlap at all, one way or the other. */
static double least_p(uint32_t a_count, uint32_t b_count) {
    double ways = 1;
    for (uint32_t i = 1; i <= a_count; i++)
        ways *= (double)(b_count + i) / i;
    return 2 / ways;
}

struct difference samples_difference(const double *before, uint32_t before_count,
                                     const double *after, uint32_t after_count) {
    struct difference d = {
        .before = samples_spread(before, before_count).median,
        .after = samples_spread(after, after_count).median,
        .p = samples_mann_whitney(before, before_count, after, after_count),
        .too_few = least_p(before_count, after_count) > DIFFERENCE_P,
    };
    d.change = d.after / d.before - 1;
    d.real = d.p <= DIFFERENCE_P && fabs(d.change) >= DIFFERENCE_LEAST;
    return d;
}
