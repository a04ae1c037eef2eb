/* The sampler, a pass to each define, over the logits of one row, [vocabulary].
 *
 * MARK (1 workgroup): one bit for each token of the penalty window.
 * SCORE (SAMPLE_GROUPS): scores = logits after repetition penalty and suppression; maxima and sums of both.
 *     MASKED: tokens whose bit is not set get a score below that of any other.
 * HISTOGRAM (SAMPLE_GROUPS; criterion, level): a step of the search for the last token kept by top-k or
 *     top-p: of the scores that agree with the cut in their higher bytes, how many, and how much
 *     probability, have each value of the next byte. Probability is summed in fixed point, which is exact
 *     and independent of order.
 * CUT (1 workgroup; criterion): the score and, among equals, the token id up to which tokens are kept.
 * DRAW (SAMPLE_GROUPS): each group's best token: of greedy choice, or of an exponential race,
 *     argmax (score / temperature - log e_i), e_i exponential, which draws from the softmax.
 * FINISH (1 workgroup): the best of all; writes token and ring entry and advances the session.
 *
 * Order: mask, penalty, top-k, top-p and min-p on the distribution at temperature 1, then temperature. Ties go to
 * the lower id throughout. */
#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"

layout(local_size_x_id = SPEC_WORKGROUP) in;
layout(push_constant) uniform Constants {
    sample_constants c;
};

const uint LANES = gl_WorkGroupSize.x;

float work_float(uint index) {
    return uintBitsToFloat(c.work.at[index]);
}

/* Position of the token that is being sampled. */
uint next_position() {
    return c.session.s.position + c.session.s.rows;
}

bool top_k_on() {
    return c.session.s.top_k > 0 && c.session.s.top_k < c.vocabulary;
}

/* Unsigned keys in the order of the floats. */
uint key_of(float score) {
    uint bits = floatBitsToUint(score);
    return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}

/* Largest value and sum of exponentials over the groups' partial results. */
vec2 total(uint maxima, uint sums) {
    float top = LOWEST, sum = 0;
    for (uint i = 0; i < SAMPLE_GROUPS; i++)
        top = max(top, work_float(maxima + i));
    for (uint i = 0; i < SAMPLE_GROUPS; i++)
        sum += work_float(sums + i) * exp(work_float(maxima + i) - top);
    return vec2(top, sum);
}

/* ---- The search for a cut ---- */

/* A cut in WORK_CUT: of tokens with this key, those up to this id are kept. */
bool kept_by(uint criterion, uint key, uint id) {
    uint cut = c.work.at[WORK_CUT + criterion * 8];
    return key > cut || (key == cut && id <= c.work.at[WORK_CUT + criterion * 8 + 1]);
}

/* The state of a search before each level: the key's bytes so far, and what is still to be taken from
 * tokens that have them: a count, or an amount of probability. */
struct search {
    uint prefix, count;
    float mass;
};

uint search_at(uint criterion, uint level) {
    return WORK_SEARCH + (criterion * 5 + level) * 4;
}

search load_search(uint criterion, uint level) {
    uint at = search_at(criterion, level);
    return search(c.work.at[at], c.work.at[at + 1], work_float(at + 2));
}

uint bin_at(uint criterion, uint level, uint bin) {
    return WORK_HISTOGRAM + ((criterion * 4 + level) * HISTOGRAM_BINS + bin) * 4;
}

uint bin_count(uint criterion, uint level, uint bin) {
    return c.work.at[bin_at(criterion, level, bin)];
}

/* Fixed point with 14 bits to a word. */
float bin_mass(uint criterion, uint level, uint bin) {
    uint at = bin_at(criterion, level, bin) + 1;
    return (float(c.work.at[at]) + (float(c.work.at[at + 1]) + float(c.work.at[at + 2]) / 16384.0) / 16384.0) /
           16384.0;
}

/* Chooses the byte of `level` from its finished histogram: the state before the next level. */
search descend(uint criterion, uint level) {
    search s;
    if (level == 0) {
        s = search(0, c.session.s.top_k, 0.0);
        if (criterion == 1) {
            for (uint bin = 0; bin < HISTOGRAM_BINS; bin++)
                s.mass += bin_mass(criterion, 0, bin);
            s.mass *= c.session.s.top_p;
        }
    } else {
        s = load_search(criterion, level);
    }
    uint chosen = 0;
    bool found = false;
    for (uint bin = HISTOGRAM_BINS; bin-- > 0 && !found;) {
        uint count = bin_count(criterion, level, bin);
        if (count == 0)
            continue;
        float mass = bin_mass(criterion, level, bin);
        chosen = bin; /* the last one that holds anything, if rounding leaves some mass over */
        found = criterion == 0 ? count >= s.count : mass >= s.mass;
        if (!found) {
            s.count -= min(count, s.count);
            s.mass -= mass;
        }
    }
    if (!found) {
        s.count = bin_count(criterion, level, chosen);
        s.mass = bin_mass(criterion, level, chosen);
    }
    s.prefix = s.prefix << 8 | chosen;
    return s;
}

/* ---- MARK ---- */

#ifdef PASS_MARK
void run() {
    uint end = next_position(), window = min(c.session.s.penalty_window, end);
    for (uint i = gl_LocalInvocationID.x; i < window; i += LANES) {
        uint token = c.tokens.at[end - 1 - i];
        atomicOr(c.marks.at[token / 32], 1u << token % 32);
    }
}
#endif

/* ---- SCORE ---- */

#ifdef PASS_SCORE
#define MASKED_SCORE (-3.3e38) /* finite, and below LOWEST: no chance beside any other token */

shared vec4 parts[gl_WorkGroupSize.x];

bool suppressed(uint token) {
    if (next_position() >= c.session.s.stop_from)
        return false;
    for (uint i = 0; i < c.session.s.stop_count; i++)
        if (c.session.s.stop_tokens[i] == token)
            return true;
    return false;
}

float score_of(uint token, float logit) {
    float penalty = c.session.s.repetition_penalty;
    if (penalty != 1 && (c.marks.at[token / 32] >> token % 32 & 1) != 0)
        logit = logit > 0 ? logit / penalty : logit * penalty;
    logit = suppressed(token) ? LOWEST : logit;
#ifdef MASKED
    bool allowed = (c.mask.at[token / 32] >> token % 32 & 1) != 0;
    logit = allowed ? max(logit, LOWEST) : MASKED_SCORE; /* a penalty can leave less than LOWEST */
#endif
    return logit;
}

/* (max, sum of exponentials) of two disjoint sets. */
vec2 merge(vec2 a, vec2 b) {
    float top = max(a.x, b.x);
    return vec2(top, a.y * exp(a.x - top) + b.y * exp(b.x - top));
}

void clear_histograms() {
    uint all = 2 * 4 * HISTOGRAM_BINS * 4;
    for (uint i = gl_GlobalInvocationID.x; i < all; i += LANES * SAMPLE_GROUPS)
        c.work.at[WORK_HISTOGRAM + i] = 0;
}

void run() {
    vec2 raw = vec2(LOWEST, 0), scored = vec2(LOWEST, 0);
    clear_histograms();
    for (uint i = gl_GlobalInvocationID.x; i < c.vocabulary; i += LANES * SAMPLE_GROUPS) {
        float logit = SCALAR(c.logits, i);
        bool number = (floatBitsToUint(logit) & 0x7fffffff) <= 0x7f800000;
        logit = number ? clamp(logit, LOWEST, -LOWEST) : LOWEST;
        float score = score_of(i, logit);
        SCALAR(c.scores, i) = score;
        raw = merge(raw, vec2(logit, 1));
        scored = merge(scored, vec2(score, 1));
    }
    uint lane = gl_LocalInvocationID.x;
    parts[lane] = vec4(raw, scored);
    barrier();
    for (uint half_way = LANES / 2; half_way > 0; half_way /= 2) {
        if (lane < half_way)
            parts[lane] = vec4(merge(parts[lane].xy, parts[lane + half_way].xy),
                               merge(parts[lane].zw, parts[lane + half_way].zw));
        barrier();
    }
    if (lane != 0)
        return;
    uint group = gl_WorkGroupID.x;
    c.work.at[WORK_PARTIAL_MAX + group] = floatBitsToUint(parts[0].x);
    c.work.at[WORK_PARTIAL_SUM + group] = floatBitsToUint(parts[0].y);
    c.work.at[WORK_SCORE_MAX + group] = floatBitsToUint(parts[0].z);
    c.work.at[WORK_SCORE_SUM + group] = floatBitsToUint(parts[0].w);
}
#endif

/* ---- HISTOGRAM ---- */

#ifdef PASS_HISTOGRAM
shared uint bins[HISTOGRAM_BINS * 4];
shared uint prefix;
shared vec2 softmax;

/* Once a workgroup: the cut's bytes so far, and the normalisation of probabilities. */
void prepare() {
    prefix = 0;
    if (c.level > 0) {
        search s = descend(c.criterion, c.level - 1);
        prefix = s.prefix;
        if (gl_WorkGroupID.x == 0) {
            uint at = search_at(c.criterion, c.level);
            c.work.at[at] = s.prefix;
            c.work.at[at + 1] = s.count;
            c.work.at[at + 2] = floatBitsToUint(s.mass);
        }
    }
    softmax = total(WORK_SCORE_MAX, WORK_SCORE_SUM);
}

void count_score(uint id, float score) {
    uint key = key_of(score);
    if (c.level > 0 && key >> (32 - 8 * c.level) != prefix)
        return;
    if (c.criterion == 1 && top_k_on() && !kept_by(0, key, id))
        return;
    uint bin = (key >> (24 - 8 * c.level) & 255) * 4;
    atomicAdd(bins[bin], 1);
    float p = exp(score - softmax.x) / softmax.y * 16384.0;
    for (uint word = 1; word < 4; word++) {
        uint whole = uint(p);
        atomicAdd(bins[bin + word], whole);
        p = (p - float(whole)) * 16384.0;
    }
}

void run() {
    uint lane = gl_LocalInvocationID.x;
    for (uint i = lane; i < HISTOGRAM_BINS * 4; i += LANES)
        bins[i] = 0;
    if (lane == 0)
        prepare();
    barrier();
    for (uint i = gl_GlobalInvocationID.x; i < c.vocabulary; i += LANES * SAMPLE_GROUPS)
        count_score(i, SCALAR(c.scores, i));
    barrier();
    for (uint bin = lane; bin < HISTOGRAM_BINS; bin += LANES) {
        uint at = bin_at(c.criterion, c.level, bin);
        if (bins[bin * 4] == 0)
            continue;
        /* carries first, so that the sums of all groups still fit in a word */
        uint middle = bins[bin * 4 + 2] + bins[bin * 4 + 3] / 16384;
        atomicAdd(c.work.at[at], bins[bin * 4]);
        atomicAdd(c.work.at[at + 1], bins[bin * 4 + 1] + middle / 16384);
        atomicAdd(c.work.at[at + 2], middle % 16384);
        atomicAdd(c.work.at[at + 3], bins[bin * 4 + 3] % 16384);
    }
}
#endif

/* ---- CUT ---- */

#ifdef PASS_CUT
shared uint counts[gl_WorkGroupSize.x];
shared uint key, keep, last_id;

/* How many of the tokens with exactly the cut's key are kept. */
void prepare() {
    search s = descend(c.criterion, 3);
    uint ties = bin_count(c.criterion, 3, s.prefix & 255);
    key = s.prefix;
    keep = s.count;
    if (c.criterion == 1)
        keep = uint(ceil(s.mass / (bin_mass(c.criterion, 3, s.prefix & 255) / float(ties))));
    keep = clamp(keep, 1, ties);
    last_id = keep == ties ? c.vocabulary : 0;
}

bool tied(uint id) {
    uint own = key_of(SCALAR(c.scores, id));
    return own == key && (c.criterion == 0 || !top_k_on() || kept_by(0, own, id));
}

void run() {
    uint lane = gl_LocalInvocationID.x;
    if (lane == 0)
        prepare();
    barrier();
    if (last_id == 0) { /* some of the equal ones go: each invocation counts a stretch of ids */
        uint each = (c.vocabulary + LANES - 1) / LANES;
        uint begin = lane * each, end = min(begin + each, c.vocabulary), count = 0;
        for (uint i = begin; i < end; i++)
            count += tied(i) ? 1 : 0;
        counts[lane] = count;
        barrier();
        uint before = 0;
        for (uint i = 0; i < lane; i++)
            before += counts[i];
        for (uint i = begin; i < end && before < keep; i++)
            if (tied(i) && ++before == keep)
                last_id = i;
    }
    barrier();
    if (lane == 0) {
        c.work.at[WORK_CUT + c.criterion * 8] = key;
        c.work.at[WORK_CUT + c.criterion * 8 + 1] = last_id;
    }
}
#endif

/* ---- DRAW and FINISH: the best of many ---- */

#if defined(PASS_DRAW) || defined(PASS_FINISH)
shared float best_value[gl_WorkGroupSize.x];
shared uint best_id[gl_WorkGroupSize.x];

bool beats(float value, uint id, float other, uint other_id) {
    return value > other || (value == other && id < other_id);
}

/* Leaves the workgroup's best in entry 0. */
void reduce_best(float value, uint id) {
    uint lane = gl_LocalInvocationID.x;
    best_value[lane] = value;
    best_id[lane] = id;
    barrier();
    for (uint half_way = LANES / 2; half_way > 0; half_way /= 2) {
        if (lane < half_way &&
            beats(best_value[lane + half_way], best_id[lane + half_way], best_value[lane], best_id[lane])) {
            best_value[lane] = best_value[lane + half_way];
            best_id[lane] = best_id[lane + half_way];
        }
        barrier();
    }
}
#endif

#ifdef PASS_DRAW
#include "random.glsl"

/* The value by which tokens compete; false: cut away. */
bool value_of(uint id, uint word, float top, out float value) {
    float score = SCALAR(c.scores, id);
    value = score;
    if (c.session.s.temperature == 0)
        return true;
    uint key = key_of(score);
    value = (score - top) / c.session.s.temperature - log(exponential(word));
    bool likely = c.session.s.min_p == 0 || score >= top + log(c.session.s.min_p);
    return (!top_k_on() || kept_by(0, key, id)) && (c.session.s.top_p >= 1 || kept_by(1, key, id)) && likely;
}

void run() {
    float top = LOWEST;
    for (uint i = 0; i < SAMPLE_GROUPS; i++)
        top = max(top, work_float(WORK_SCORE_MAX + i));
    float best = LOWEST;
    uint best_token = c.vocabulary;
    bool greedy = c.session.s.temperature == 0;
    uvec2 seed = uvec2(c.session.s.seed[0], c.session.s.seed[1]);
    for (uint i = gl_GlobalInvocationID.x; i * 4 < c.vocabulary; i += LANES * SAMPLE_GROUPS) {
        uvec4 words = greedy ? uvec4(0) : philox(uvec4(i, next_position(), 0, 0), seed);
        for (uint j = 0; j < 4 && i * 4 + j < c.vocabulary; j++) {
            float value;
            if (value_of(i * 4 + j, words[j], top, value) && beats(value, i * 4 + j, best, best_token)) {
                best = value;
                best_token = i * 4 + j;
            }
        }
    }
    reduce_best(best, best_token);
    if (gl_LocalInvocationID.x == 0) {
        c.work.at[WORK_BEST_VALUE + gl_WorkGroupID.x] = floatBitsToUint(best_value[0]);
        c.work.at[WORK_BEST_ID + gl_WorkGroupID.x] = best_id[0];
    }
}
#endif

#ifdef PASS_FINISH
/* How the next step's attention cuts its context; forward_attention_grid on the host is the same. */
void plan_attention(uint length) {
    uint splits = clamp(c.session.s.split_target / c.session.s.kv_heads, 1, SPLITS_MAX);
    uint split = ((length + splits - 1) / splits + 31) / 32 * 32;
    c.session.s.split_length = split;
    c.session.s.attention_grid[0] = (length + split - 1) / split;
    c.session.s.attention_grid[1] = c.session.s.kv_heads;
    c.session.s.attention_grid[2] = 1;
}

void advance(uint token) {
    uint position = next_position();
    vec2 raw = total(WORK_PARTIAL_MAX, WORK_PARTIAL_SUM);
    float logit = clamp(SCALAR(c.logits, token), LOWEST, -LOWEST);
    bool stop = position >= c.session.s.context;
    for (uint i = 0; i < c.session.s.stop_count; i++)
        stop = stop || c.session.s.stop_tokens[i] == token;
    c.tokens.at[position] = token;
    c.ring.at[c.session.s.sampled % RING_CAPACITY] =
        ring_entry(position, token, logit - raw.x - log(raw.y), stop ? 1 : 0);
    c.session.s.sampled += 1;
    c.session.s.position = position;
    c.session.s.rows = 1;
    c.session.s.done = stop ? 1 : 0;
    plan_attention(position + 1);
}

void run() {
    uint lane = gl_LocalInvocationID.x, end = next_position();
    float value = LOWEST;
    uint id = c.vocabulary;
    for (uint i = lane; i < SAMPLE_GROUPS; i += LANES) {
        float other = work_float(WORK_BEST_VALUE + i);
        uint other_id = c.work.at[WORK_BEST_ID + i];
        if (beats(other, other_id, value, id)) {
            value = other;
            id = other_id;
        }
    }
    reduce_best(value, id);
    if (c.session.s.repetition_penalty != 1)
        for (uint i = lane; i < min(c.session.s.penalty_window, end); i += LANES)
            c.marks.at[c.tokens.at[end - 1 - i] / 32] = 0;
    barrier();
    if (lane == 0)
        advance(min(best_id[0], c.vocabulary - 1));
}
#endif

void main() {
    if (c.session.s.done == 0)
        run();
}
