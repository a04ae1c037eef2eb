/* How much work a slice of a given time holds: seconds from bytes and operations, by a rate for
 * each pipeline that is learned from the times of earlier slices. Knows of no device. */
#ifndef HOST_SLICER_H
#define HOST_SLICER_H

#include "schedule.h"

/* What is known of one kind of dispatch. */
struct slice_rate {
    const void *key;   /* its pipeline */
    double correction; /* seconds taken over seconds expected, smoothed */
    double proven;     /* the most expected seconds of it that one measured slice had */
};

struct slicer {
    double bytes_per_second, flops_per_second; /* expected */
    double correction;                         /* of all kinds, for those not yet seen */
    double deviation;                          /* mean of |measured / estimated - 1| */
    bool measures;            /* false: nothing can be learned, the device has no timestamps */
    struct slice_rate *rates; /* stb_ds array */
};

/* One kind's part in a slice. */
struct slice_share {
    const void *key;
    double expected; /* seconds before correction */
};

/* A slice being filled. */
struct slice_fill {
    double target;              /* seconds that it may take, by estimate */
    double estimated;           /* seconds so far */
    struct slice_share *shares; /* stb_ds array */
};

void slicer_start(struct slicer *slicer, const struct schedule *schedule, bool measures);
void slicer_free(struct slicer *slicer);

/* Begins a slice of at most `seconds`, with what estimates have lately been wrong by taken off. */
void slice_fill_begin(const struct slicer *slicer, double seconds, struct slice_fill *fill);
void slice_fill_free(struct slice_fill *fill);

/* Adds as many of the `groups` workgroups left of a dispatch as fit, each of which costs `group`;
 * returns how many. The first of a slice always fits. A kind that was never measured gets a small
 * part of the slice, and from slice to slice at most PROVEN_GROWTH times what was measured. */
uint32_t slice_fill_add(const struct slicer *slicer, struct slice_fill *fill, const void *key,
                        struct cost group, uint32_t groups);

/* Learns from a slice that took `measured` seconds; a time that cannot be is ignored. */
void slicer_learn(struct slicer *slicer, const struct slice_fill *fill, double measured);

#endif
