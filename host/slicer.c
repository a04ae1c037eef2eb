#include "slicer.h"

#include <math.h>

#include <stb/stb_ds.h>

#define DISPATCH_SECONDS 3e-6 /* of a dispatch with nothing to do, and the barrier before it */
#define GROUP_BYTES 1024      /* whatever it moves, a workgroup counts as moving so much */
#define PLANNED 0.93          /* of a slice's time, as estimated, at most */
#define OVER 1.25             /* of it, when the estimate is SIGMAS deviations short */
#define SIGMAS 3.5
#define UNKNOWN 16.0     /* relative variance of a kind that was never measured */
#define NOISE 0.01       /* and of a measured time, to begin with, */
#define NOISE_LEAST 1e-3 /* at least, */
#define NOISE_MOST 0.05  /* and at most: what is further off are spikes */
#define DRIFT 4e-4       /* relative variance that a slice adds: to all kinds together, */
#define DRIFT_KIND 1e-4  /* and to each */
#define OUTLIER 4  /* deviations: the first such time counts as so many, a second one on end */
#define SPIKE 0.02 /* as a change of all; what each adds to the variance */
#define CHANGED 1.0
#define CHANGED_KIND 0.1

void slicer_start(struct slicer *slicer, const struct schedule *schedule, bool measures) {
    *slicer = (struct slicer){
        .bytes_per_second = schedule->bytes_per_second,
        .flops_per_second = schedule->flops_per_second,
        .measures = measures,
        .slowest = 1,
        .noise = measures ? NOISE : 0,
    };
}

void slicer_free(struct slicer *slicer) {
    arrfree(slicer->kinds);
    arrfree(slicer->factors);
    arrfree(slicer->covariance);
    slicer->kinds = NULL;
    slicer->factors = slicer->covariance = NULL;
}

static size_t kind_count(const struct slicer *slicer) {
    return (size_t)arrlen(slicer->kinds);
}

/* kind_count: it is not known. */
static size_t find_kind(const struct slicer *slicer, uint64_t key) {
    size_t i = 0;
    while (i < kind_count(slicer) && slicer->kinds[i] != key)
        i++;
    return i;
}

static double square(double x) {
    return x * x;
}

/* ---- Filling ---- */

void slice_fill_begin(double seconds, struct slice_fill *fill) {
    *fill = (struct slice_fill){.seconds = seconds};
}

void slice_fill_free(struct slice_fill *fill) {
    arrfree(fill->shares);
    fill->shares = NULL;
}

static struct slice_share *find_share(const struct slice_fill *fill, uint64_t key) {
    for (ptrdiff_t i = 0; i < arrlen(fill->shares); i++)
        if (fill->shares[i].key == key)
            return &fill->shares[i];
    return NULL;
}

/* What a kind adds to a slice for each nominal second of it. */
struct growth {
    double factor;
    double variance;  /* its own */
    double with_rest; /* covariance with what the slice has already */
};

static struct growth growth_of(const struct slicer *slicer, const struct slice_fill *fill,
                               uint64_t key) {
    size_t count = kind_count(slicer), kind = find_kind(slicer, key);
    struct growth growth = {slicer->slowest,
                            slicer->measures ? UNKNOWN * square(slicer->slowest) : 0, 0};
    if (kind < count) {
        growth.factor = slicer->factors[kind];
        growth.variance = slicer->covariance[kind * count + kind];
        for (ptrdiff_t i = 0; i < arrlen(fill->shares); i++) {
            size_t other = find_kind(slicer, fill->shares[i].key);
            if (other < count)
                growth.with_rest +=
                    slicer->covariance[kind * count + other] * fill->shares[i].nominal;
        }
    } else {
        const struct slice_share *share = find_share(fill, key);
        growth.with_rest = share ? growth.variance * share->nominal : 0;
    }
    return growth;
}

static double grown_variance(const struct slice_fill *fill, const struct growth *growth,
                             double nominal) {
    return fill->variance + 2 * nominal * growth->with_rest + square(nominal) * growth->variance;
}

/* Whether the slice keeps to its time with so much more in it, as estimated and, as far as can be
 * known, in truth. */
static bool fits(const struct slicer *slicer, const struct slice_fill *fill,
                 const struct growth *growth, double nominal) {
    double estimated = fill->estimated + growth->factor * nominal;
    double variance = grown_variance(fill, growth, nominal) + slicer->noise * square(estimated);
    return estimated <= PLANNED * fill->seconds &&
           estimated + SIGMAS * sqrt(variance > 0 ? variance : 0) <= OVER * fill->seconds;
}

uint32_t slice_fill_add(const struct slicer *slicer, struct slice_fill *fill, uint64_t key,
                        struct cost group, uint32_t groups) {
    struct growth growth = growth_of(slicer, fill, key);
    double moving = group.bytes / slicer->bytes_per_second;
    double computing = group.flops / slicer->flops_per_second;
    double each = moving > computing ? moving : computing;
    double least = GROUP_BYTES / slicer->bytes_per_second;
    each = each > least ? each : least;
    uint32_t fit = 0, step = 1;
    while (step < groups)
        step *= 2;
    for (; step; step /= 2) /* the most that fit, bit by bit */
        if (groups - fit >= step &&
            fits(slicer, fill, &growth, DISPATCH_SECONDS + (fit + step) * each))
            fit += step;
    if (!fit && arrlen(fill->shares))
        return 0;
    fit = fit ? fit : 1;
    double nominal = DISPATCH_SECONDS + fit * each;
    fill->variance = grown_variance(fill, &growth, nominal);
    fill->estimated += growth.factor * nominal;
    struct slice_share *share = find_share(fill, key);
    if (share)
        share->nominal += nominal;
    else
        arrput(fill->shares, ((struct slice_share){key, nominal}));
    return fit;
}

/* ---- Learning ---- */

static void add_kind(struct slicer *slicer, uint64_t key) {
    size_t count = kind_count(slicer), grown = count + 1;
    double *covariance = NULL;
    arrsetlen(covariance, grown * grown);
    for (size_t i = 0; i < grown; i++)
        for (size_t j = 0; j < grown; j++)
            covariance[i * grown + j] =
                i < count && j < count ? slicer->covariance[i * count + j] : 0;
    covariance[grown * grown - 1] = UNKNOWN * square(slicer->slowest);
    arrfree(slicer->covariance);
    slicer->covariance = covariance;
    arrput(slicer->kinds, key);
    arrput(slicer->factors, slicer->slowest);
}

/* Makes all less certain: relative variances, common to all kinds and of each one's own. */
static void doubt(struct slicer *slicer, double common, double own) {
    size_t count = kind_count(slicer);
    const double *factor = slicer->factors;
    for (size_t i = 0; i < count; i++) {
        for (size_t j = 0; j < count; j++)
            slicer->covariance[i * count + j] += common * factor[i] * factor[j];
        slicer->covariance[i * count + i] += own * square(factor[i]);
    }
}

/* The state's covariance with the slice's time, [kinds]; returns that time's variance. */
static double covary(const struct slicer *slicer, const double *nominal, double *with_time) {
    size_t count = kind_count(slicer);
    double variance = 0;
    for (size_t i = 0; i < count; i++) {
        with_time[i] = 0;
        for (size_t j = 0; j < count; j++)
            with_time[i] += slicer->covariance[i * count + j] * nominal[j];
        variance += with_time[i] * nominal[i];
    }
    return variance;
}

static void update(struct slicer *slicer, const double *with_time, double variance, double off) {
    size_t count = kind_count(slicer);
    for (size_t i = 0; i < count; i++) {
        double now = slicer->factors[i] + with_time[i] / variance * off;
        double least = slicer->factors[i] * 0.1;
        slicer->factors[i] = now > least ? now : least;
        for (size_t j = 0; j < count; j++)
            slicer->covariance[i * count + j] -= with_time[i] * with_time[j] / variance;
    }
}

/* `nominal`: the slice's seconds by kind; `with_time`: room for as many. */
static void learn(struct slicer *slicer, const double *nominal, double *with_time,
                  double measured) {
    double estimated = 0; /* as it would be now */
    for (size_t i = 0; i < kind_count(slicer); i++)
        estimated += slicer->factors[i] * nominal[i];
    double off = measured - estimated, own = slicer->noise * square(estimated);
    double variance = covary(slicer, nominal, with_time);
    double most = OUTLIER * sqrt(variance + own);
    bool outlier = fabs(off) > most;
    slicer->outliers = outlier ? slicer->outliers + 1 : 0;
    /* nothing is faster than it can be by accident: only a long time may be a spike */
    if (slicer->outliers > 1 || (outlier && off < 0)) {
        doubt(slicer, CHANGED, CHANGED_KIND);
        variance = covary(slicer, nominal, with_time);
    } else if (outlier) {
        doubt(slicer, SPIKE, SPIKE);
        off = copysign(most, off);
    } else if (variance < own) {
        slicer->noise += 0.02 * (square(off / estimated) - slicer->noise);
        slicer->noise = slicer->noise > NOISE_LEAST ? slicer->noise : NOISE_LEAST;
        slicer->noise = slicer->noise < NOISE_MOST ? slicer->noise : NOISE_MOST;
    }
    update(slicer, with_time, variance + own, off);
    doubt(slicer, DRIFT, DRIFT_KIND);
    slicer->slowest = 0;
    for (size_t i = 0; i < kind_count(slicer); i++)
        slicer->slowest =
            slicer->factors[i] > slicer->slowest ? slicer->factors[i] : slicer->slowest;
}

void slicer_learn(struct slicer *slicer, const struct slice_fill *fill, double measured) {
    if (!slicer->measures || !(measured > 0) || !arrlen(fill->shares))
        return;
    for (ptrdiff_t i = 0; i < arrlen(fill->shares); i++)
        if (find_kind(slicer, fill->shares[i].key) == kind_count(slicer))
            add_kind(slicer, fill->shares[i].key);
    double *nominal = NULL, *with_time = NULL;
    arrsetlen(nominal, kind_count(slicer));
    arrsetlen(with_time, kind_count(slicer));
    for (size_t i = 0; i < kind_count(slicer); i++) {
        const struct slice_share *share = find_share(fill, slicer->kinds[i]);
        nominal[i] = share ? share->nominal : 0;
    }
    learn(slicer, nominal, with_time, measured);
    arrfree(nominal);
    arrfree(with_time);
}
