/* How much work a slice of a given time holds. The time of a slice is estimated as the sum, over
 * kinds of dispatches, of what they move and compute at nominal rates times a factor for each kind.
 * The factors are learned from slices that were measured: a Kalman filter, whose state they are and
 * whose covariance says how sure an estimate is, so that a slice is filled only so far as it stays
 * near its time even if the estimate is off by several deviations. A kind that is not known yet
 * gets a small part. Knows of no device. */
#ifndef HOST_SLICER_H
#define HOST_SLICER_H

#include "schedule.h"

struct slicer {
    double bytes_per_second, flops_per_second; /* nominal */
    bool measures;      /* false: nothing can be learned, there are no timestamps */
    uint64_t *kinds;    /* stb_ds arrays: keys, */
    double *factors;    /* seconds taken over nominal ones, */
    double *covariance; /* [kinds][kinds] */
    double slowest;     /* factor, for kinds that are new */
    double noise;       /* relative variance of a measured time */
    uint32_t outliers;  /* on end */
};

/* One kind's part in a slice. */
struct slice_share {
    uint64_t key;
    double nominal; /* seconds */
};

/* A slice being filled. */
struct slice_fill {
    double seconds;             /* that it may take */
    double estimated;           /* so far */
    double variance;            /* of that, beside the noise, in seconds squared */
    struct slice_share *shares; /* stb_ds array */
};

void slicer_start(struct slicer *slicer, const struct schedule *schedule, bool measures);
void slicer_free(struct slicer *slicer);

void slice_fill_begin(double seconds, struct slice_fill *fill);
void slice_fill_free(struct slice_fill *fill);
/* Adds as many of the `groups` workgroups left of a dispatch as fit, each of which costs `group`;
 * returns how many. The first of a slice always fits. `key`: its kind. */
uint32_t slice_fill_add(const struct slicer *slicer, struct slice_fill *fill, uint64_t key,
                        struct cost group, uint32_t groups);

/* Learns from a slice that took `measured` seconds; 0 teaches nothing. */
void slicer_learn(struct slicer *slicer, const struct slice_fill *fill, double measured);

#endif
