/* Statistics of repeated measurements. */
#ifndef BENCH_STATISTICS_H
#define BENCH_STATISTICS_H

#include <stdbool.h>
#include <stdint.h>

/* The value below which a fraction `q` of the samples lies, interpolated; sorts them. NaN: none. */
double samples_quantile(double *samples, uint32_t count, double q);
/* Median and interquartile range, without reordering the samples. Count at most SAMPLES_MAX. */
#define SAMPLES_MAX 1000
struct spread {
    double median, range;
};
struct spread samples_spread(const double *samples, uint32_t count);

/* The probability of ranks at least as far apart as these if both sets came from one distribution:
 * Mann and Whitney's test, two-sided, exact with ties up to 40 samples in all, else by the normal
 * approximation. 1 where either set is empty. */
double samples_mann_whitney(const double *a, uint32_t a_count, const double *b, uint32_t b_count);

/* Whether two sets of runs differ by more than noise: Mann and Whitney's p is at most
 * DIFFERENCE_P, and the medians differ by DIFFERENCE_LEAST of the first at least, since runs of one
 * process are more alike than processes are. Five runs a side suffice, four never do. */
#define DIFFERENCE_P 0.01
#define DIFFERENCE_LEAST 0.01
struct difference {
    double before, after; /* medians */
    double change;        /* after / before - 1 */
    double p;
    bool real, too_few; /* too_few: no outcome could have been real */
};
struct difference samples_difference(const double *before, uint32_t before_count,
                                     const double *after, uint32_t after_count);

#endif
