/* The sampler, pass by pass. Each pass is checked against what the passes before it really left, so
 * that choices are exact and only sums need a tolerance. */
#include "forward.h"
#include "kernel_checks.h"
#include "reference/reference.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define LOWEST (-3.0e38f)
#define MASKED_SCORE (-3.3e38f)
#define MASS_TOLERANCE 1e-4

struct sampler {
    struct bench *bench;
    const struct kernel_variant *variant; /* of its own kernel; the others run their first */
    struct sample_constants constants;
    uint32_t vocabulary, end; /* tokens so far, so the new one's position */
    bool masked;
    struct plane *session, *logits, *scores, *marks, *mask, *work, *tokens, *ring;
    uint32_t *order; /* [vocabulary]: ids, best first */
};

static struct session_block *block_of(const struct sampler *s) {
    return session_of(s->session);
}

static const float *scores_of(const struct sampler *s) {
    return s->scores->data;
}

static float work_float(const struct sampler *s, uint32_t index) {
    return ((const float *)s->work->data)[index];
}

static uint32_t work_word(const struct sampler *s, uint32_t index) {
    return ((const uint32_t *)s->work->data)[index];
}

static void run(struct sampler *s, enum kernel kernel, struct plane *const *planes,
                uint32_t groups) {
    struct kernel_info info = kernel_info(kernel);
    const struct kernel_variant *variant = kernel_variants(NULL) + info.first_variant;
    struct pipeline_key key = s->variant->kernel == kernel
                                  ? case_key(s->bench, s->variant, 0)
                                  : pipeline_key(s->bench->device, variant, 0);
    struct session_block *block = block_of(s);
    describe(s->bench, &key,
             "vocabulary %u%s, temperature %g, top-k %u, top-p %g, min-p %g, penalty %g over %u",
             s->vocabulary, s->masked ? ", masked" : "", (double)block->temperature, block->top_k,
             (double)block->top_p, (double)block->min_p, (double)block->repetition_penalty,
             block->penalty_window);
    bench_run(s->bench, &key, &s->constants, planes, (uint32_t[3]){groups, 1, 1}, NULL, 0);
}

static void expect_equal(struct sampler *s, const char *what, uint32_t got, uint32_t want) {
    if (got != want)
        case_fail(s->bench, "%s is %u instead of %u", what, got, want);
}

static void expect_words(struct sampler *s, struct plane *plane, uint64_t first, uint64_t count) {
    expect_change(s->bench, plane, first * 4, count * 4);
}

/* ---- Contents ---- */

static void choose_settings(struct sampler *s) {
    struct bench *bench = s->bench;
    struct session_block *block = block_of(s);
    block->temperature = between(bench, 0, 3) ? 0.3f + (float)random_uniform(&bench->random) : 0;
    block->top_k = between(bench, 0, 2) ? between(bench, 1, s->vocabulary) : 0;
    block->top_p = between(bench, 0, 2) ? (float)random_uniform(&bench->random) : 1;
    block->min_p = between(bench, 0, 2) ? 0 : (float)random_uniform(&bench->random);
    block->repetition_penalty = between(bench, 0, 2) ? 1.5f : 1;
    block->penalty_window = between(bench, 0, 2) ? between(bench, 0, s->end + 3) : UINT32_MAX;
    block->stop_from = between(bench, 0, 1) ? s->end + 1 : 0;
    block->stop_count = between(bench, 0, 3);
    for (uint32_t i = 0; i < block->stop_count; i++)
        block->stop_tokens[i] = between(bench, 0, s->vocabulary - 1);
    if (s->bench->shape) { /* every kernel has work */
        block->temperature = 1;
        block->top_k = 64;
        block->top_p = 0.95f;
        block->repetition_penalty = 1.5f;
    }
    block->seed[0] = (uint32_t)random_bits(&bench->random);
    block->seed[1] = (uint32_t)random_bits(&bench->random);
    block->sampled = between(bench, 0, 3 * RING_CAPACITY);
    block->split_target = between(bench, 1, 200);
    block->kv_heads = between(bench, 1, 16);
}

static void fill_logits(struct sampler *s) {
    float *logits = s->logits->data;
    bool ties = between(s->bench, 0, 1);
    for (uint32_t i = 0; i < s->vocabulary; i++) {
        double value = 3 * random_normal(&s->bench->random);
        logits[i] = (float)(ties ? floor(value) : value);
    }
    static const float odd[] = {NAN, -INFINITY, 1e30f, -3.4e38f, 0.0f, -0.0f};
    if (s->vocabulary > 20 && between(s->bench, 0, 2) == 0)
        for (uint32_t i = 0; i < 6; i++)
            logits[between(s->bench, 0, s->vocabulary - 1)] = odd[i];
}

static bool is_allowed(const struct sampler *s, uint32_t id) {
    return !s->masked || ((const uint32_t *)s->mask->data)[id / 32] >> id % 32 & 1;
}

/* Any share of the vocabulary, down to one token; the bits beyond it are poison. */
static void fill_mask(struct sampler *s) {
    uint32_t *words = s->mask->data, share = between(s->bench, 0, 3);
    uint32_t always = between(s->bench, 0, s->vocabulary - 1);
    for (uint32_t id = 0; id < s->vocabulary; id++) {
        bool allowed = id == always || (share && between(s->bench, 0, share * share) == 0);
        words[id / 32] = (words[id / 32] & ~(1u << id % 32)) | (uint32_t)allowed << id % 32;
    }
    const struct session_block *block = block_of(s);
    for (uint32_t i = 0; i < block->stop_count && between(s->bench, 0, 1); i++)
        words[block->stop_tokens[i] / 32] |= 1u << block->stop_tokens[i] % 32;
}

static void create_planes(struct sampler *s) {
    struct bench *bench = s->bench;
    uint32_t rows = between(bench, 1, 9), position = between(bench, 0, 60);
    s->end = position + rows;
    s->session = session_plane(bench, position, rows);
    choose_settings(s);
    s->logits = plane_create(bench, "logits", s->vocabulary * 4);
    s->scores = plane_create(bench, "scores", s->vocabulary * 4);
    s->marks = plane_create(bench, "marks", divide_up(s->vocabulary, 32) * 4);
    s->mask = plane_create(bench, "mask", divide_up(s->vocabulary, 32) * 4);
    s->work = plane_create(bench, "work", WORK_WORDS * 4);
    s->tokens = plane_create(bench, "tokens", (block_of(s)->context + 1) * 4);
    s->ring = plane_create(bench, "ring", RING_CAPACITY * sizeof(struct ring_entry));
    memset(s->marks->data, 0, s->marks->size);
    for (uint32_t i = 0; i < s->end; i++)
        ((uint32_t *)s->tokens->data)[i] = between(bench, 0, s->vocabulary - 1);
    fill_logits(s);
    fill_mask(s);
    s->constants = (struct sample_constants){.logits = s->logits->address,
                                             .scores = s->scores->address,
                                             .marks = s->marks->address,
                                             .mask = s->mask->address,
                                             .work = s->work->address,
                                             .tokens = s->tokens->address,
                                             .ring = s->ring->address,
                                             .session = s->session->address,
                                             .vocabulary = s->vocabulary};
}

/* ---- MARK and SCORE ---- */

static bool is_recent(const struct sampler *s, uint32_t id) {
    uint32_t window = block_of(s)->penalty_window;
    for (uint32_t i = 0; i < s->end && i < window; i++)
        if (((const uint32_t *)s->tokens->data)[s->end - 1 - i] == id)
            return true;
    return false;
}

static bool is_suppressed(const struct sampler *s, uint32_t id) {
    const struct session_block *block = block_of(s);
    for (uint32_t i = 0; i < block->stop_count && s->end < block->stop_from; i++)
        if (block->stop_tokens[i] == id)
            return true;
    return false;
}

static void check_mark(struct sampler *s) {
    run(s, KERNEL_sample_mark, (struct plane *[]){s->marks, s->tokens, s->work, s->session}, 1);
    if (block_of(s)->done)
        return;
    expect_words(s, s->marks, 0, s->marks->size / 4);
    for (uint32_t i = 0; i < s->marks->size * 8; i++) {
        bool marked = ((const uint32_t *)s->marks->data)[i / 32] >> i % 32 & 1;
        if (marked != (i < s->vocabulary && is_recent(s, i)))
            case_fail(s->bench, "token %u is marked %d", i, marked);
    }
}

static double raw_logit(const struct sampler *s, uint32_t id) {
    float logit = ((const float *)s->logits->data)[id];
    return isnan(logit) || logit < LOWEST ? LOWEST : logit > -LOWEST ? -LOWEST : logit;
}

/* The largest of the groups' maxima and the sum of exponentials against it. */
static void check_total(struct sampler *s, const char *what, uint32_t maxima, uint32_t sums,
                        double top, double sum) {
    double got_top = LOWEST, got = 0;
    for (uint32_t i = 0; i < SAMPLE_GROUPS; i++)
        got_top = fmax(got_top, work_float(s, maxima + i));
    for (uint32_t i = 0; i < SAMPLE_GROUPS; i++)
        got += work_float(s, sums + i) * exp(work_float(s, maxima + i) - got_top);
    if (fabs(got_top - top) > 1e-6 * fabs(top) || !(fabs(got / sum - 1) < MASS_TOLERANCE))
        case_fail(s->bench, "%s: maximum %g, sum %g instead of %g, %g", what, got_top, got, top,
                  sum);
}

static void run_score(struct sampler *s) {
    if (s->masked)
        run(s, KERNEL_sample_score_masked,
            (struct plane *[]){s->logits, s->scores, s->marks, s->mask, s->work, s->session},
            SAMPLE_GROUPS);
    else
        run(s, KERNEL_sample_score,
            (struct plane *[]){s->logits, s->scores, s->marks, s->work, s->session}, SAMPLE_GROUPS);
}

static void check_score(struct sampler *s) {
    run_score(s);
    if (block_of(s)->done)
        return;
    double penalty = block_of(s)->repetition_penalty, raw_top = LOWEST, top = LOWEST;
    for (uint32_t i = 0; i < s->vocabulary; i++) {
        double raw = raw_logit(s, i), want = raw;
        if (penalty != 1 && is_recent(s, i))
            want = want > 0 ? want / penalty : want * penalty;
        if (is_suppressed(s, i))
            want = LOWEST;
        if (s->masked)
            want = is_allowed(s, i) ? fmax(want, LOWEST) : MASKED_SCORE;
        double got = scores_of(s)[i];
        if (!(fabs(got - want) <= 1e-6 * fabs(want)) && !(want < LOWEST && isinf(got)))
            case_fail(s->bench, "the score of token %u is %g instead of %g", i, got, want);
        raw_top = fmax(raw_top, raw);
        top = fmax(top, got);
    }
    double raw_sum = 0, sum = 0;
    for (uint32_t i = 0; i < s->vocabulary; i++) {
        raw_sum += exp(raw_logit(s, i) - raw_top);
        sum += exp(scores_of(s)[i] - top);
    }
    check_total(s, "logits", WORK_PARTIAL_MAX, WORK_PARTIAL_SUM, raw_top, raw_sum);
    check_total(s, "scores", WORK_SCORE_MAX, WORK_SCORE_SUM, top, sum);
    expect_words(s, s->scores, 0, s->vocabulary);
    expect_words(s, s->work, WORK_PARTIAL_MAX, 4 * SAMPLE_GROUPS);
    expect_words(s, s->work, WORK_HISTOGRAM, WORK_WORDS - WORK_HISTOGRAM);
    for (uint32_t i = WORK_HISTOGRAM; i < WORK_WORDS; i++)
        expect_equal(s, "a word of the histograms", work_word(s, i), 0);
}

/* ---- HISTOGRAM and CUT ---- */

static const struct sampler *sorting;

static int best_first(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    float one = scores_of(sorting)[x], other = scores_of(sorting)[y];
    if (one == other && signbit(one) != signbit(other)) /* keys put -0 below 0 */
        return signbit(one) ? 1 : -1;
    return one != other ? (one > other ? -1 : 1) : x < y ? -1 : 1;
}

static void sort_tokens(struct sampler *s) {
    for (uint32_t i = 0; i < s->vocabulary; i++)
        s->order[i] = i;
    sorting = s;
    qsort(s->order, s->vocabulary, sizeof *s->order, best_first);
}

static uint32_t key_of(float score) {
    uint32_t bits;
    memcpy(&bits, &score, sizeof bits);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

/* How many tokens, best first, the cut in the work buffer leaves of the first `count`; fails if
 * those are not the best ones. */
static uint32_t count_kept(struct sampler *s, uint32_t criterion, uint32_t count) {
    uint32_t cut = work_word(s, WORK_CUT + criterion * 8);
    uint32_t last = work_word(s, WORK_CUT + criterion * 8 + 1), kept = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t id = s->order[i], key = key_of(scores_of(s)[id]);
        bool keep = key > cut || (key == cut && id <= last);
        if (keep && kept < i)
            case_fail(s->bench, "keeps token %u and not a better one", id);
        kept += keep;
    }
    return kept;
}

/* Top-p: the fewest of the best `count` whose share of those is at least p. */
static void check_mass(struct sampler *s, uint32_t count, uint32_t kept) {
    double all = 0, before = 0, p = block_of(s)->top_p;
    float top = scores_of(s)[s->order[0]];
    for (uint32_t i = 0; i < count; i++)
        all += exp((double)scores_of(s)[s->order[i]] - top);
    for (uint32_t i = 0; i + 1 < kept; i++)
        before += exp((double)scores_of(s)[s->order[i]] - top) / all;
    double mass = kept ? before + exp((double)scores_of(s)[s->order[kept - 1]] - top) / all : 0;
    if (kept < 1 || mass < p - MASS_TOLERANCE || (kept > 1 && before > p + MASS_TOLERANCE))
        case_fail(s->bench, "top-p keeps %u tokens with %g", kept, mass);
}

/* Returns how many tokens are left of the best `count`. */
static uint32_t check_cut(struct sampler *s, uint32_t criterion, uint32_t count) {
    struct plane *planes[] = {s->scores, s->work, s->session};
    s->constants.criterion = criterion;
    for (uint32_t level = 0; level < 4; level++) {
        s->constants.level = level;
        run(s, KERNEL_sample_histogram, planes, SAMPLE_GROUPS);
        if (block_of(s)->done)
            continue;
        if (level)
            expect_words(s, s->work, WORK_SEARCH + (criterion * 5 + level) * 4, 3);
        expect_words(s, s->work,
                     WORK_HISTOGRAM + (criterion * 4 + level) * (uint64_t)HISTOGRAM_BINS * 4,
                     (uint64_t)HISTOGRAM_BINS * 4);
    }
    run(s, KERNEL_sample_cut, planes, 1);
    if (block_of(s)->done)
        return count;
    expect_words(s, s->work, WORK_CUT + criterion * 8, 2);
    uint32_t kept = count_kept(s, criterion, count);
    if (criterion == 0)
        expect_equal(s, "the number of tokens that top-k keeps", kept, block_of(s)->top_k);
    else
        check_mass(s, count, kept);
    return kept;
}

/* ---- DRAW and FINISH ---- */

/* Philox4x32-10, as in shaders/random.glsl. */
static uint32_t random_word(const struct sampler *s, uint32_t id) {
    uint32_t c[4] = {id / 4, s->end, 0, 0};
    uint32_t k[2] = {block_of(s)->seed[0], block_of(s)->seed[1]};
    for (int round = 0; round < 10; round++) {
        uint64_t one = (uint64_t)0xD2511F53u * c[0], other = (uint64_t)0xCD9E8D57u * c[2];
        uint32_t next[4] = {(uint32_t)(other >> 32) ^ c[1] ^ k[0], (uint32_t)other,
                            (uint32_t)(one >> 32) ^ c[3] ^ k[1], (uint32_t)one};
        memcpy(c, next, sizeof c);
        k[0] += 0x9E3779B9u;
        k[1] += 0xBB67AE85u;
    }
    return c[id % 4];
}

/* The exponential race's value of a token. */
static double race(const struct sampler *s, uint32_t id) {
    double u = (random_word(s, id) + 0.5) / 4294967296.0;
    double score =
        ((double)scores_of(s)[id] - scores_of(s)[s->order[0]]) / block_of(s)->temperature;
    return score - log(-log1p(-u));
}

static uint32_t best_drawn(const struct sampler *s) {
    float best = -INFINITY;
    uint32_t id = s->vocabulary;
    for (uint32_t i = 0; i < SAMPLE_GROUPS; i++) {
        float value = work_float(s, WORK_BEST_VALUE + i);
        uint32_t other = work_word(s, WORK_BEST_ID + i);
        if (other < s->vocabulary && (value > best || (value == best && other < id))) {
            best = value;
            id = other;
        }
    }
    return id;
}

/* `kept`: how many of the best tokens top-k and top-p left. */
static void check_draw(struct sampler *s, uint32_t kept) {
    run(s, KERNEL_sample_draw, (struct plane *[]){s->scores, s->work, s->session}, SAMPLE_GROUPS);
    if (block_of(s)->done)
        return;
    expect_words(s, s->work, WORK_BEST_VALUE, 2 * SAMPLE_GROUPS);
    uint32_t drawn = best_drawn(s), place = 0;
    while (place < s->vocabulary && s->order[place] != drawn)
        place++;
    if (place == s->vocabulary)
        case_fail(s->bench, "draws no token");
    if (!is_allowed(s, drawn))
        case_fail(s->bench, "draws token %u, which the mask does not allow", drawn);
    if (block_of(s)->temperature == 0) { /* of equal ones the first, whatever the zeros' signs */
        uint32_t first = 0;
        while (first < drawn && scores_of(s)[first] < scores_of(s)[s->order[0]])
            first++;
        if (scores_of(s)[drawn] < scores_of(s)[s->order[0]] || first < drawn)
            case_fail(s->bench, "draws token %u, which is not the first of the best", drawn);
        return;
    }
    float top = scores_of(s)[s->order[0]], least = top + logf(block_of(s)->min_p);
    if (place >= kept || (block_of(s)->min_p > 0 && scores_of(s)[drawn] < least - 1e-4f))
        case_fail(s->bench, "draws token %u, which was cut", drawn);
    double value = race(s, drawn);
    for (uint32_t i = 0; i < kept; i++) {
        double other = race(s, s->order[i]);
        bool likely = block_of(s)->min_p == 0 || scores_of(s)[s->order[i]] > least + 1e-4f;
        if (likely && other > value + 1e-4 * (1 + fabs(value)))
            case_fail(s->bench, "draws token %u, whose value %g is below token %u's %g", drawn,
                      value, s->order[i], other);
    }
}

static void check_finish(struct sampler *s) {
    struct session_block before = *block_of(s);
    run(s, KERNEL_sample_finish,
        (struct plane *[]){s->logits, s->marks, s->work, s->tokens, s->ring, s->session}, 1);
    if (before.done)
        return;
    const struct session_block *after = block_of(s);
    uint32_t token = best_drawn(s), slot = before.sampled % RING_CAPACITY;
    bool stop = s->end >= before.context;
    for (uint32_t i = 0; i < before.stop_count; i++)
        stop = stop || before.stop_tokens[i] == token;
    double top = LOWEST, sum = 0;
    for (uint32_t i = 0; i < s->vocabulary; i++)
        top = fmax(top, raw_logit(s, i));
    for (uint32_t i = 0; i < s->vocabulary; i++)
        sum += exp(raw_logit(s, i) - top);
    double log_probability = raw_logit(s, token) - top - log(sum);
    struct ring_entry entry = ((const struct ring_entry *)s->ring->data)[slot];
    expect_words(s, s->ring, slot * 4, 4);
    expect_equal(s, "the position in the ring", entry.position, s->end);
    expect_equal(s, "the token in the ring", entry.token, token);
    expect_equal(s, "the end in the ring", entry.done, stop);
    if (!(fabs(entry.log_probability - log_probability) < 1e-4 * (1 + fabs(log_probability))))
        case_fail(s->bench, "log probability %g instead of %g", (double)entry.log_probability,
                  log_probability);
    expect_words(s, s->tokens, s->end, 1);
    expect_equal(s, "the token", ((const uint32_t *)s->tokens->data)[s->end], token);
    if (before.repetition_penalty != 1) {
        expect_words(s, s->marks, 0, s->marks->size / 4);
        for (uint32_t i = 0; i < s->marks->size / 4; i++)
            expect_equal(s, "a word of the marks", ((const uint32_t *)s->marks->data)[i], 0);
    }
    struct session_block want = before;
    want.position = s->end;
    want.rows = 1;
    want.done = stop;
    want.sampled = before.sampled + 1;
    forward_attention_grid(&want, s->end + 1, 1);
    if (memcmp(after, &want, sizeof want) != 0)
        case_fail(s->bench, "the session block is not that of the next step");
    expect_change(s->bench, s->session, 0, sizeof want);
}

void check_sampler(struct bench *bench, const struct kernel_variant *variant, uint32_t type) {
    (void)type;
    struct sampler s = {.bench = bench, .variant = variant};
    s.vocabulary = between(bench, 0, 1) ? between(bench, 33, 3000) : between(bench, 1, 32);
    if (bench->shape)
        s.vocabulary = bench->shape->vocabulary;
    s.masked = variant->kernel == KERNEL_sample_score_masked ||
               (variant->kernel != KERNEL_sample_score && between(bench, 0, 1));
    case_begin(bench);
    create_planes(&s);
    s.order = reference_allocate(s.vocabulary, sizeof *s.order);
    const struct session_block *block = block_of(&s);
    if (block->repetition_penalty != 1)
        check_mark(&s);
    check_score(&s);
    sort_tokens(&s);
    uint32_t kept = s.vocabulary;
    if (block->temperature > 0 && block->top_k > 0 && block->top_k < s.vocabulary)
        kept = check_cut(&s, 0, kept);
    if (block->temperature > 0 && block->top_p < 1)
        kept = check_cut(&s, 1, kept);
    check_draw(&s, kept);
    check_finish(&s);
    case_end(bench);
    free(s.order);
}
