#include "reference_chi_square.h"
#include "reference.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

/* P(a, x) = x^a exp(-x) / Γ(a) Σ_n x^n / (a (a+1) … (a+n)), good for x < a + 1. */
static double lower_by_series(double a, double x, double front) {
    double term = 1 / a, sum = term;
    for (unsigned n = 1; term > sum * 1e-17; n++)
        sum += term *= x / (a + n);
    return front * sum;
}

/* Q(a, x) = x^a exp(-x) / Γ(a) · 1/(x+1-a - 1(1-a)/(x+3-a - 2(2-a)/(x+5-a - …))), good for
 * x ≥ a + 1: from the front by Lentz's method, whose denominators are all positive there. */
static double upper_by_fraction(double a, double x, double front) {
    double b = x + 1 - a, c = INFINITY, d = 1 / b, fraction = d, change;
    unsigned n = 0;
    do {
        n++;
        double numerator = -(n * (n - a));
        b += 2;
        c = b + numerator / c;
        d = 1 / (b + numerator * d);
        change = c * d;
        fraction *= change;
    } while (fabs(change - 1) > 1e-15 && n < 10000000);
    return front * fraction;
}

double reference_upper_gamma(double a, double x) {
    if (x <= 0)
        return 1;
    if (isinf(x))
        return 0;
    double front = exp(a * log(x) - x - lgamma(a));
    return x < a + 1 ? 1 - lower_by_series(a, x, front) : upper_by_fraction(a, x, front);
}

struct cell {
    double expected, counted;
};

/* Cells that expect at least five into large [cells], the others' sum into the pool; how many are
 * large. */
static size_t sort_cells(struct cell *large, struct cell *pool, const uint32_t *counts,
                         const double *probabilities, size_t cells) {
    double draws = 0;
    size_t count = 0;
    for (size_t i = 0; i < cells; i++)
        draws += counts[i];
    for (size_t i = 0; i < cells; i++) {
        struct cell cell = {probabilities[i] * draws, counts[i]};
        if (cell.expected >= 5) {
            large[count++] = cell;
        } else {
            pool->expected += cell.expected;
            pool->counted += cell.counted;
        }
    }
    return count;
}

static bool has_impossible(const uint32_t *counts, const double *probabilities, size_t cells) {
    for (size_t i = 0; i < cells; i++)
        if (counts[i] && probabilities[i] <= 0)
            return true;
    return false;
}

struct reference_chi_square reference_chi_square(const uint32_t *counts,
                                                 const double *probabilities, size_t cells) {
    struct cell *used = reference_allocate(cells + 1, sizeof *used), pool = {0};
    size_t count = sort_cells(used, &pool, counts, probabilities, cells);
    if (pool.expected >= 5 || count == 0) {
        used[count++] = pool;
    } else {
        size_t smallest = 0;
        for (size_t i = 1; i < count; i++)
            smallest = used[i].expected < used[smallest].expected ? i : smallest;
        used[smallest].expected += pool.expected;
        used[smallest].counted += pool.counted;
    }
    struct reference_chi_square result = {.degrees_of_freedom = count - 1, .p_value = 1};
    if (has_impossible(counts, probabilities, cells)) {
        result.statistic = INFINITY;
        result.p_value = 0;
    } else if (result.degrees_of_freedom) {
        for (size_t i = 0; i < count; i++) {
            double off = used[i].counted - used[i].expected;
            result.statistic += off * off / used[i].expected;
        }
        result.p_value =
            reference_upper_gamma((double)result.degrees_of_freedom / 2, result.statistic / 2);
    }
    free(used);
    return result;
}
