/* Whether draws come from a distribution: Pearson's goodness of fit. */
#ifndef REFERENCE_CHI_SQUARE_H
#define REFERENCE_CHI_SQUARE_H

#include <stddef.h>
#include <stdint.h>

struct reference_chi_square {
    double statistic;
    size_t degrees_of_freedom;
    double p_value; /* the chance of a statistic at least as large, were the probabilities right */
};

/* Counts [cells] against probabilities [cells], which sum to 1. Cells that expect fewer than five
 * are pooled and, if together they still do, joined to the smallest of the others. A count where
 * the probability is 0 gives an infinite statistic and p = 0; with one cell left there is nothing
 * to test: p = 1. */
struct reference_chi_square reference_chi_square(const uint32_t *counts,
                                                 const double *probabilities, size_t cells);

/* Q(a, x) = Γ(a, x) / Γ(a), a > 0: the upper regularised incomplete gamma function. */
double reference_upper_gamma(double a, double x);

#endif
