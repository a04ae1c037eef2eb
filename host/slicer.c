#include "slicer.h"

#include <math.h>

#include <stb/stb_ds.h>

#define DISPATCH_SECONDS 3e-6 /* of a dispatch with nothing to do, and the barrier before it */
#define FIRST_PART (1.0 / 16) /* of a slice, for a kind that was never measured */
#define PROVEN_GROWTH 4
#define SLOWER_MOST 4 /* that one slice of kinds that are known can make them */
#define MARGIN 0.92   /* of the time, at most, is planned for */

void slicer_start(struct slicer *slicer, const struct schedule *schedule, bool measures) {
    *slicer = (struct slicer){
        .bytes_per_second = schedule->bytes_per_second,
        .flops_per_second = schedule->flops_per_second,
        .correction = 1,
        .deviation = 0.1,
        .measures = measures,
    };
}

void slicer_free(struct slicer *slicer) {
    arrfree(slicer->rates);
    slicer->rates = NULL;
}

static struct slice_rate *find_rate(const struct slicer *slicer, const void *key) {
    for (ptrdiff_t i = 0; i < arrlen(slicer->rates); i++)
        if (slicer->rates[i].key == key)
            return &slicer->rates[i];
    return NULL;
}

/* ---- Filling ---- */

void slice_fill_begin(const struct slicer *slicer, double seconds, struct slice_fill *fill) {
    double safe = 1.25 / (1 + 4 * slicer->deviation);
    *fill = (struct slice_fill){.target = seconds * (safe < MARGIN ? safe : MARGIN)};
}

void slice_fill_free(struct slice_fill *fill) {
    arrfree(fill->shares);
    fill->shares = NULL;
}

static struct slice_share *find_share(const struct slice_fill *fill, const void *key) {
    for (ptrdiff_t i = 0; i < arrlen(fill->shares); i++)
        if (fill->shares[i].key == key)
            return &fill->shares[i];
    return NULL;
}

/* Expected seconds that a kind may have in this slice. */
static double allowed(const struct slicer *slicer, const struct slice_fill *fill,
                      const struct slice_rate *rate, double correction) {
    double room = fill->target / correction;
    if (!slicer->measures)
        return room;
    double proven = rate ? PROVEN_GROWTH * rate->proven : 0;
    double first = room * FIRST_PART;
    return proven > first ? proven : first;
}

uint32_t slice_fill_add(const struct slicer *slicer, struct slice_fill *fill, const void *key,
                        struct cost group, uint32_t groups) {
    const struct slice_rate *rate = find_rate(slicer, key);
    double correction = rate ? rate->correction : slicer->correction;
    double moving = group.bytes / slicer->bytes_per_second;
    double computing = group.flops / slicer->flops_per_second;
    double each = moving > computing ? moving : computing;
    struct slice_share *share = find_share(fill, key);
    double room = (fill->target - fill->estimated) / correction;
    double may = allowed(slicer, fill, rate, correction) - (share ? share->expected : 0);
    room = (may < room ? may : room) - DISPATCH_SECONDS;
    double fit = each > 0 ? floor(room / each) : room >= 0 ? groups : 0;
    uint32_t count = fit >= groups ? groups : fit >= 1 ? (uint32_t)fit : 0;
    if (count == 0 && !arrlen(fill->shares))
        count = 1;
    if (count == 0)
        return 0;
    double expected = DISPATCH_SECONDS + count * each;
    fill->estimated += correction * expected;
    if (share)
        share->expected += expected;
    else
        arrput(fill->shares, ((struct slice_share){key, expected}));
    return count;
}

/* ---- Learning ---- */

static struct slice_rate *rate_of(struct slicer *slicer, const void *key) {
    struct slice_rate *rate = find_rate(slicer, key);
    if (rate)
        return rate;
    arrput(slicer->rates, ((struct slice_rate){key, slicer->correction, 0}));
    return &arrlast(slicer->rates);
}

/* Slower than thought counts nearly whole, faster by and by: the time is an upper limit. */
static double learned(double correction, double ratio, double share) {
    double weight = ratio > 1 ? 0.8 : 0.3;
    return correction * (1 + weight * share * (ratio - 1));
}

void slicer_learn(struct slicer *slicer, const struct slice_fill *fill, double measured) {
    double now = 0; /* as it would be estimated today */
    for (ptrdiff_t i = 0; i < arrlen(fill->shares); i++)
        now += fill->shares[i].expected * rate_of(slicer, fill->shares[i].key)->correction;
    if (!slicer->measures || !(measured > 0) || !(now > 0))
        return;
    double ratio = measured / now;
    bool unknown = false;
    for (ptrdiff_t i = 0; i < arrlen(fill->shares); i++)
        unknown |= rate_of(slicer, fill->shares[i].key)->proven == 0;
    if (!unknown && ratio > SLOWER_MOST)
        ratio = SLOWER_MOST;
    for (ptrdiff_t i = 0; i < arrlen(fill->shares); i++) {
        const struct slice_share *share = &fill->shares[i];
        struct slice_rate *rate = rate_of(slicer, share->key);
        double part = share->expected * rate->correction / now;
        rate->correction = learned(rate->correction, ratio, part);
        if (share->expected > rate->proven)
            rate->proven = share->expected;
    }
    slicer->correction = learned(slicer->correction, ratio, 0.25);
    if (!unknown)
        slicer->deviation += 0.05 * (fabs(ratio - 1) - slicer->deviation);
}
