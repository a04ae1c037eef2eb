#include "divergence.h"

#include <math.h>
#include <stdlib.h>

bool softmax_of(const float *logits, uint32_t count, struct softmax *softmax) {
    uint32_t top = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (!isfinite(logits[i]))
            return false;
        if (logits[i] > logits[top])
            top = i;
    }
    double sum = 0, largest = logits[top];
    for (uint32_t i = 0; i < count; i++)
        sum += exp(logits[i] - largest);
    *softmax = (struct softmax){largest, log(sum), top};
    return true;
}

double softmax_log(const struct softmax *softmax, float logit) {
    return logit - softmax->largest - softmax->log_sum;
}

double divergence(const float *base, const struct softmax *base_softmax, const float *own,
                  const struct softmax *own_softmax, uint32_t count) {
    double sum = 0;
    for (uint32_t i = 0; i < count; i++) {
        double expected = softmax_log(base_softmax, base[i]);
        sum += exp(expected) * (expected - softmax_log(own_softmax, own[i]));
    }
    return sum > 0 ? sum : 0; /* it is never negative but for rounding */
}

struct estimate estimate_mean(const double *values, size_t count) {
    double sum = 0, squares = 0, n = (double)count;
    for (size_t i = 0; i < count; i++)
        sum += values[i];
    double mean = sum / n;
    for (size_t i = 0; i < count; i++)
        squares += (values[i] - mean) * (values[i] - mean);
    return (struct estimate){mean, count > 1 ? sqrt(squares / (n - 1) / n) : NAN};
}

struct estimate estimate_exp(struct estimate log) {
    double value = exp(log.mean);
    return (struct estimate){value, value * log.error};
}

static int compare(const void *left, const void *right) {
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

void sort_values(double *values, size_t count) {
    qsort(values, count, sizeof *values, compare);
}

double percentile(const double *sorted, size_t count, double share) {
    double place = share * (double)(count - 1);
    size_t below = (size_t)place;
    if (below + 1 >= count)
        return sorted[count - 1];
    double part = place - (double)below;
    return sorted[below] + part * (sorted[below + 1] - sorted[below]);
}
