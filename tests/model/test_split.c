/* A model on several devices: what one device makes of it, several must. VK_DRIVER_FILES names two
 * drivers, one behind the other; where there is no third device, a second handle of the first one
 * plays it. */
#include "conformance.h"
#include "npy.h"
#include "open_device.h"
#include "session.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define DEVICES 3
static peridot_device *devices[DEVICES];

static int open_devices(void **state) {
    (void)state;
    static const char *const choices[DEVICES] = {"0", "1", "0"};
    uint32_t count = 0;
    MUST(peridot_devices_list(NULL, 0, &count, &error));
    if (count < 2)
        fail_msg("there are not two Vulkan devices: VK_DRIVER_FILES=A.json:B.json");
    for (int i = 0; i < DEVICES; i++)
        devices[i] = open_chosen_device(choices[i]);
    devices[2]->engine->info.uuid[0] ^= 0xff; /* or it would be known for the first */
    return 0;
}

static int close_devices(void **state) {
    (void)state;
    for (int i = 0; i < DEVICES; i++)
        peridot_device_close(devices[i]);
    return 0;
}

/* ---- Models and what they say ---- */

/* Which devices, the first being home, and their shares. */
struct spread {
    uint32_t count;
    int devices[DEVICES];
    float shares[DEVICES];
};
static const struct spread alone = {1, {0}, {1}};

/* What loading with a spread takes; `others` has room for the further devices. */
static peridot_model_params spread_params(const struct spread *spread, peridot_device **others) {
    for (uint32_t i = 1; i < spread->count; i++)
        others[i - 1] = devices[spread->devices[i]];
    return (peridot_model_params){.struct_size = sizeof(peridot_model_params),
                                  .more_devices = others,
                                  .more_device_count = spread->count - 1,
                                  .split = spread->shares};
}

static peridot_model *load(const char *name, const struct spread *spread) {
    peridot_device *others[DEVICES];
    peridot_model_params params = spread_params(spread, others);
    peridot_model *model = NULL;
    MUST(peridot_model_load_wait(devices[spread->devices[0]], path_of(name), &params, &model,
                                 &error));
    return model;
}

static peridot_session *create(peridot_model *model, peridot_session_params params) {
    peridot_session *session = NULL;
    params.struct_size = sizeof params;
    MUST(peridot_session_create(model, &params, &session, &error));
    return session;
}

static float *all_logits(peridot_model *model, const struct data *data,
                         peridot_session_params params) {
    peridot_session *session = create(model, params);
    float *logits = malloc(data->rows * data->vocabulary * sizeof *logits);
    assert_non_null(logits);
    for (size_t i = 0; i < data->rows * data->vocabulary; i++)
        logits[i] = NAN;
    MUST(peridot_session_prompt_wait(session, data->tokens, data->count, logits, &error));
    peridot_session_close_wait(session);
    return logits;
}

static void check_logits(const char *name, const struct spread *spread,
                         peridot_session_params params) {
    struct data data = read_data(name);
    size_t count = data.rows * data.vocabulary;
    peridot_model *one = load(name, &alone), *many = load(name, spread);
    float *single = all_logits(one, &data, params), *split = all_logits(many, &data, params);
    static const double limits[] = {
        [PERIDOT_KV_F16] = 1e-6, [PERIDOT_KV_F32] = 1e-10, [PERIDOT_KV_Q8] = 1e-3};
    double limit = limits[params.kv];
    double beside = nmse(split, single, count), error = nmse(split, data.logits, count);
    print_message("%-22s %g,%g,%g on %d,%d,%d, chunks of %u: NMSE %.2g, %.2g beside one device\n",
                  name, (double)spread->shares[0], (double)spread->shares[1],
                  (double)spread->shares[2], spread->devices[0], spread->devices[1],
                  spread->devices[2], params.prefill_rows, error, beside);
    assert_true(error <= limit);
    assert_true(beside <= limit / (params.kv == PERIDOT_KV_Q8 ? 100 : 1)); /* rounded alike */
    free(single);
    free(split);
    peridot_model_close(many);
    peridot_model_close(one);
    free_data(&data);
}

static const struct spread spreads[] = {
    {2, {0, 1}, {1, 1}},       {2, {0, 1}, {2, 1}},       {2, {0, 1}, {1, 2}},
    {2, {0, 1}, {0, 5}},       {2, {1, 0}, {1, 1}},       {2, {0, 1}, {1, 0}},
    {3, {0, 1, 2}, {1, 1, 1}}, {3, {1, 2, 0}, {0, 1, 1}}, {3, {2, 0, 1}, {1, 0, 1}},
};
#define SPREADS (sizeof spreads / sizeof *spreads)

static void test_logits(void **state) {
    (void)state;
    static const uint32_t rows[] = {0, 1, 7, 64};
    for (size_t i = 0; i < SPREADS; i++) {
        peridot_session_params params = {.kv = PERIDOT_KV_F32, .prefill_rows = rows[i % 4]};
        check_logits("mha-wide-bf16-sharded", &spreads[i], params);
        params.kv = i % 2 ? PERIDOT_KV_F16 : PERIDOT_KV_Q8;
        check_logits("mha-wide-bf16-sharded", &spreads[i], params);
    }
    static const char *const others[] = {"mqa-bf16", "gqa-bf16", "small-f32"};
    for (size_t i = 0; i < 3; i++)
        check_logits(others[i], &spreads[0],
                     (peridot_session_params){.kv = PERIDOT_KV_F32, .shuffle_seed = i});
}

/* Over several chunks of the prompt and of the KV cache, in submissions as short as they come. */
static void test_long_prompt(void **state) {
    (void)state;
    static const uint32_t rows[] = {64, 0, 200};
    for (size_t i = 0; i < (is_quick() ? 1 : 3); i++)
        check_logits("long-f16", &spreads[0],
                     (peridot_session_params){.kv = PERIDOT_KV_F32,
                                              .prefill_rows = rows[i],
                                              .submission_ms = i == 1 ? 1 : 0});
}

/* ---- Generation ---- */

struct taken {
    int32_t tokens[512];
    float log_probabilities[512];
    uint32_t count, stop_after;
};

static bool take(const peridot_token *token, void *user) {
    struct taken *taken = user;
    taken->tokens[taken->count] = token->token;
    taken->log_probabilities[taken->count++] = token->log_probability;
    return taken->count != taken->stop_after;
}

static const int32_t prompt[] = {2, 106, 17, 5, 88, 23, 41};
#define PROMPT_COUNT (sizeof prompt / sizeof *prompt)

static void set_sampling(peridot_session *session, peridot_sampling sampling) {
    sampling.struct_size = sizeof sampling;
    MUST(peridot_session_sampling(session, &sampling, &error));
}

static struct taken generate(const char *name, const struct spread *spread,
                             peridot_sampling sampling, uint32_t count) {
    struct taken taken = {0};
    peridot_model *model = load(name, spread);
    peridot_session *session = create(model, (peridot_session_params){.kv = PERIDOT_KV_F32});
    uint32_t generated = 0;
    set_sampling(session, sampling);
    MUST(peridot_session_prompt_wait(session, prompt, PROMPT_COUNT, NULL, &error));
    MUST(peridot_session_generate_wait(session, count, take, &taken, &generated, &error));
    assert_int_equal(generated, taken.count);
    assert_int_equal(peridot_session_length(session), PROMPT_COUNT + taken.count);
    peridot_session_close_wait(session);
    peridot_model_close(model);
    return taken;
}

static void check_alike(const struct taken *a, const struct taken *b, uint32_t count) {
    assert_int_equal(a->count, b->count);
    assert_int_equal(a->count, count);
    assert_memory_equal(a->tokens, b->tokens, count * sizeof *a->tokens);
    for (uint32_t i = 0; i < count; i++)
        assert_true(fabsf(a->log_probabilities[i] - b->log_probabilities[i]) < 1e-3f);
}

static void test_generated_text(void **state) {
    (void)state;
    const peridot_sampling all[] = {
        {.temperature = 0, .min_tokens = 60},
        {.temperature = 1.3f, .min_tokens = 60, .seed = 9},
        {.temperature = 1,
         .top_k = 20,
         .top_p = 0.8f,
         .min_p = 0.01f,
         .repetition_penalty = 1.3f,
         .min_tokens = 60,
         .seed = 77},
    };
    for (size_t i = 0; i < 3; i++) {
        struct taken one = generate("mha-wide-bf16-sharded", &alone, all[i], 40);
        for (size_t j = i; j < SPREADS; j += is_quick() ? 4 : 1) {
            struct taken many = generate("mha-wide-bf16-sharded", &spreads[j], all[i], 40);
            check_alike(&many, &one, 40);
        }
    }
    struct taken one = generate("gqa-bf16", &alone, all[0], 1);
    struct taken many = generate("gqa-bf16", &spreads[0], all[0], 1);
    check_alike(&many, &one, 1);
}

/* So is what comes under a mask, which the host writes for each step. */
static void test_masked_text(void **state) {
    (void)state;
    struct taken taken[2] = {{.count = 0}};
    const struct spread *const where[2] = {&alone, &spreads[0]};
    uint32_t words[1024] = {0};
    for (int i = 0; i < 2; i++) {
        peridot_model *model = load("gqa-bf16", where[i]);
        peridot_session *session = create(model, (peridot_session_params){.kv = PERIDOT_KV_F32});
        peridot_model_info info = {.struct_size = sizeof info};
        peridot_model_describe(model, &info);
        for (uint32_t id = 3; id < info.vocabulary; id += 1 + id % 5)
            words[id / 32] |= 1u << id % 32;
        set_sampling(session, (peridot_sampling){.temperature = 1.3f, .top_p = 0.9f, .seed = 3});
        MUST(peridot_session_mask(session, words, (info.vocabulary + 31) / 32, &error));
        MUST(peridot_session_prompt_wait(session, prompt, PROMPT_COUNT, NULL, &error));
        MUST(peridot_session_generate_wait(session, 40, take, &taken[i], NULL, &error));
        for (uint32_t j = 0; j < taken[i].count; j++)
            assert_true(words[taken[i].tokens[j] / 32] >> taken[i].tokens[j] % 32 & 1);
        peridot_session_close_wait(session);
        peridot_model_close(model);
    }
    check_alike(&taken[1], &taken[0], 40);
}

/* An end token ends the answer on several devices where it does on one. */
static void test_stop_token(void **state) {
    (void)state;
    for (uint64_t seed = 0, stopped = 0; stopped < 3; seed++) {
        peridot_sampling sampling = {.temperature = 5, .seed = seed};
        struct taken one = generate("mha-wide-bf16-sharded", &alone, sampling, 100);
        if (one.count == 100)
            continue;
        struct taken many = generate("mha-wide-bf16-sharded", &spreads[1], sampling, 100);
        check_alike(&many, &one, one.count);
        stopped++;
        assert_true(seed < 40);
    }
}

/* What decoding made of the tokens is what prefilling them makes, across a KV chunk. */
static void test_prefill_equals_decode(void **state) {
    (void)state;
    uint32_t context = 560, generated;
    struct data data = read_data("gqa-bf16");
    peridot_model *many = load("gqa-bf16", &spreads[0]), *one = load("gqa-bf16", &alone);
    peridot_session_params params = {.kv = PERIDOT_KV_F32, .context = context};
    peridot_session *decoded = create(many, params), *filled = create(one, params);
    float *a = calloc(data.vocabulary, sizeof *a), *b = calloc(data.vocabulary, sizeof *b);
    set_sampling(decoded, (peridot_sampling){.temperature = 1.5f, .min_tokens = 600, .seed = 4});
    MUST(peridot_session_prompt_wait(decoded, prompt, PROMPT_COUNT, NULL, &error));
    MUST(peridot_session_generate_wait(decoded, context - PROMPT_COUNT, NULL, NULL, &generated,
                                       &error));
    assert_int_equal(generated, context - PROMPT_COUNT);
    MUST(peridot_session_logits_wait(decoded, a, &error));
    MUST(peridot_session_prompt_wait(filled, peridot_session_tokens(decoded), context, NULL,
                                     &error));
    MUST(peridot_session_logits_wait(filled, b, &error));
    assert_true(nmse(a, b, data.vocabulary) < 1e-10);
    peridot_error error;
    assert_int_equal(peridot_session_generate_wait(decoded, 1, NULL, NULL, NULL, &error),
                     PERIDOT_ERROR_CONTEXT_FULL);
    peridot_session_statistics statistics = {.struct_size = sizeof statistics};
    peridot_session_describe(decoded, &statistics);
    assert_int_equal(statistics.decoded_tokens, generated);
    assert_true(statistics.dispatches_per_step > 0 && statistics.submissions >= generated);
    free(a);
    free(b);
    peridot_session_close_wait(decoded);
    peridot_session_close_wait(filled);
    peridot_model_close(many);
    peridot_model_close(one);
    free_data(&data);
}

/* Going back and generating again is as if the later tokens had never been; several turns. */
static void test_truncate_is_exact(void **state) {
    (void)state;
    peridot_model *model = load("mqa-bf16", &spreads[0]);
    peridot_session *session = create(model, (peridot_session_params){0});
    struct taken first = {0}, second = {0}, third = {.stop_after = 11}, fourth = {0};
    set_sampling(session,
                 (peridot_sampling){
                     .temperature = 1, .repetition_penalty = 1.2f, .min_tokens = 100, .seed = 31});
    MUST(peridot_session_prompt_wait(session, prompt, PROMPT_COUNT, NULL, &error));
    MUST(peridot_session_generate_wait(session, 40, take, &first, NULL, &error));
    MUST(peridot_session_truncate(session, PROMPT_COUNT + 10, &error));
    MUST(peridot_session_generate_wait(session, 30, take, &second, NULL, &error));
    assert_memory_equal(first.tokens + 10, second.tokens, 30 * sizeof *first.tokens);
    MUST(peridot_session_truncate(session, PROMPT_COUNT, &error));
    MUST(peridot_session_generate_wait(session, 40, take, &third, NULL, &error));
    assert_int_equal(third.count, 11); /* the callback said stop */
    assert_memory_equal(first.tokens, third.tokens, 11 * sizeof *first.tokens);
    MUST(peridot_session_generate_wait(session, 29, take, &fourth, NULL, &error));
    assert_memory_equal(first.tokens + 11, fourth.tokens, 29 * sizeof *first.tokens);
    peridot_session_close_wait(session);
    peridot_model_close(model);
}

static void test_no_batch(void **state) {
    (void)state;
    peridot_model *model = load("mqa-bf16", &spreads[0]);
    peridot_session *session = create(model, (peridot_session_params){0});
    peridot_batch *batch;
    peridot_error error = {0};
    assert_int_equal(peridot_batch_create(&session, 1, &batch, &error), PERIDOT_ERROR_UNSUPPORTED);
    assert_non_null(strstr(error.message, "several devices"));
    assert_null(batch);
    peridot_session_close_wait(session);
    peridot_model_close(model);
}

/* ---- Saved sessions, and suspended ones ---- */

static void check_moving(const struct spread *from, const struct spread *to, peridot_kv kv) {
    char path[] = "peridot-test-XXXXXX";
    int descriptor = mkstemp(path);
    assert_true(descriptor >= 0);
    close(descriptor);
    struct data data = read_data("long-f16");
    uint32_t length = data.count < 700 ? (uint32_t)data.count : 700;
    peridot_model *a = load("long-f16", from), *b = load("long-f16", to);
    peridot_session *session = create(a, (peridot_session_params){.kv = kv});
    peridot_session *again = create(b, (peridot_session_params){.kv = kv});
    struct taken first = {0}, second = {0}, third = {0};
    set_sampling(session, (peridot_sampling){.temperature = 1, .min_tokens = 100, .seed = 12});
    MUST(peridot_session_prompt_wait(session, data.tokens, length, NULL, &error));
    MUST(peridot_session_generate_wait(session, 5, NULL, NULL, NULL, &error));
    MUST(peridot_session_save_wait(session, path, "kept", 4, &error));
    MUST(peridot_session_generate_wait(session, 20, take, &first, NULL, &error));
    MUST(peridot_session_load_wait(again, path, NULL, NULL, &error));
    assert_int_equal(peridot_session_length(again), length + 5);
    MUST(peridot_session_generate_wait(again, 20, take, &second, NULL, &error));
    check_alike(&first, &second, 20);
    unlink(path);
    peridot_session_close_wait(again);
    MUST(peridot_session_truncate(session, length + 5, &error));
    MUST(peridot_session_suspend_wait(session, &error));
    MUST(peridot_session_move(session, b, &error));
    peridot_model_close(a);
    MUST(peridot_session_resume_wait(session, &error));
    MUST(peridot_session_generate_wait(session, 20, take, &third, NULL, &error));
    check_alike(&first, &third, 20);
    peridot_session_close_wait(session);
    peridot_model_close(b);
    free_data(&data);
}

static void test_sessions_move(void **state) {
    (void)state;
    check_moving(&alone, &spreads[0], PERIDOT_KV_F32);
    check_moving(&spreads[0], &alone, PERIDOT_KV_Q8);
    check_moving(&spreads[3], &spreads[4], PERIDOT_KV_F32);
}

/* ---- Memory ---- */

static uint64_t used(int index) {
    return devices[index]->engine->memory_used;
}

static peridot_memory_plan plan_for(const char *name, const peridot_model_params *params,
                                    const peridot_session_params *session) {
    peridot_memory_plan plan = {.struct_size = sizeof plan};
    MUST(peridot_model_inspect(devices[0], path_of(name), params, session, NULL, &plan, &error));
    return plan;
}

/* The plan's bytes of each device are those that it then has allocated. */
static void test_plan(void **state) {
    (void)state;
    const peridot_session_params wanted = {.struct_size = sizeof wanted, .context = 700};
    for (size_t i = 0; i < SPREADS; i++) {
        const struct spread *spread = &spreads[i];
        if (spread->devices[0] != 0)
            continue;
        peridot_device *others[DEVICES];
        peridot_model_params params = spread_params(spread, others);
        peridot_memory_plan plan = plan_for("mha-wide-bf16-sharded", &params, &wanted);
        uint64_t before[DEVICES], sum = 0;
        uint32_t layers = 0;
        for (int j = 0; j < DEVICES; j++)
            before[j] = used(j);
        peridot_model *model = load("mha-wide-bf16-sharded", spread);
        peridot_model_info info = {.struct_size = sizeof info};
        peridot_model_describe(model, &info);
        assert_int_equal(plan.device_count, spread->count);
        assert_int_equal(info.device_count, spread->count);
        assert_int_equal(info.weight_bytes, plan.weight_bytes);
        for (uint32_t j = 0; j < spread->count; j++) {
            int k = spread->devices[j];
            assert_int_equal(used(k) - before[k], plan.device_weight_bytes[j]);
            assert_int_equal(info.device_layers[j], plan.device_layers[j]);
            assert_true(j == 0 || plan.device_layers[j] || !plan.device_weight_bytes[j]);
            layers += plan.device_layers[j];
        }
        assert_int_equal(layers, info.layers);
        peridot_session *session = create(model, wanted);
        MUST(kv_cache_reserve(session, plan.context, &error));
        for (uint32_t j = 0; j < spread->count; j++) {
            int k = spread->devices[j];
            uint64_t bytes = plan.device_weight_bytes[j] + plan.device_kv_bytes[j] +
                             plan.device_working_bytes[j];
            assert_int_equal(used(k) - before[k], bytes);
            sum += bytes;
        }
        assert_int_equal(sum, plan.total_bytes);
        peridot_session_statistics statistics = {.struct_size = sizeof statistics};
        peridot_session_describe(session, &statistics);
        assert_int_equal(statistics.scratch_bytes, plan.working_bytes);
        assert_int_equal(statistics.kv_bytes, plan.kv_bytes);
        MUST(peridot_session_prompt_wait(session, prompt, PROMPT_COUNT, NULL, &error));
        MUST(peridot_session_truncate(session, 0, &error)); /* the second chunk goes, everywhere */
        peridot_session_describe(session, &statistics);
        assert_int_equal(statistics.kv_bytes * 2, plan.kv_bytes);
        peridot_session_close_wait(session);
        peridot_model_close(model);
        for (int j = 0; j < DEVICES; j++)
            assert_int_equal(used(j), before[j]);
    }
}

static void limit(uint64_t first, uint64_t second) {
    devices[0]->engine->memory_limit = first ? used(0) + first : 0;
    devices[1]->engine->memory_limit = second ? used(1) + second : 0;
}

static const char small[] = "mha-wide-bf16-sharded"; /* of three layers */
static const peridot_session_params small_session = {.struct_size = sizeof small_session,
                                                     .context = 64};

static peridot_model_params by_memory(peridot_weights weights) {
    return (peridot_model_params){.struct_size = sizeof(peridot_model_params),
                                  .weights = weights,
                                  .session = &small_session,
                                  .more_devices = &devices[1],
                                  .more_device_count = 1};
}

/* What a device takes at the most: while loading, or with a session. */
static uint64_t need(const peridot_memory_plan *plan, int device) {
    uint64_t loading = plan->device_weight_bytes[device] + plan->staging_bytes;
    uint64_t running = plan->device_weight_bytes[device] + plan->device_kv_bytes[device] +
                       plan->device_working_bytes[device];
    return loading > running ? loading : running;
}

/* Layers go where there is memory, and AUTO takes what fits on both together. */
static void test_split_by_memory(void **state) {
    (void)state;
    peridot_model_params params = by_memory(PERIDOT_WEIGHTS_FILE);
    for (uint32_t first = 0; first <= 3; first++) {
        const float shares[] = {(float)first, (float)(3 - first)};
        peridot_model_params said = params;
        said.split = shares;
        limit(0, 0);
        peridot_memory_plan plan = plan_for(small, &said, &small_session);
        assert_int_equal(plan.device_layers[0], first);
        uint64_t slack = 64 << 10; /* less than a layer */
        limit(need(&plan, 0) + slack, first < 3 ? need(&plan, 1) + slack : 1 << 20);
        peridot_memory_plan chosen = plan_for(small, &params, &small_session);
        assert_true(chosen.fits);
        assert_int_equal(chosen.device_layers[0], first);
        peridot_model *model = NULL;
        peridot_session *session = NULL;
        MUST(peridot_model_load_wait(devices[0], path_of(small), &params, &model, &error));
        MUST(peridot_session_create(model, &small_session, &session, &error));
        peridot_session_close_wait(session);
        peridot_model_close(model);
    }
    limit(0, 0);
    peridot_memory_plan equal = plan_for(small, &params, &small_session);
    assert_int_equal(equal.device_layers[0] + equal.device_layers[1], 3);
    assert_true(equal.device_layers[0] > 0 && equal.device_layers[1] > 0);
    /* both are software and have the host's memory, which is not there twice */
    assert_true(equal.free_bytes < equal.device_free_bytes[0] + equal.device_free_bytes[1]);
}

static void check_layers(const peridot_model_params *params, uint32_t first, uint32_t second) {
    peridot_memory_plan plan = plan_for(small, params, &small_session);
    assert_true(plan.fits);
    assert_int_equal(plan.device_layers[0], first);
    assert_int_equal(plan.device_layers[1], second);
}

/* A software device gets what no GPU has room for, here one that is called a GPU. */
static void test_software_gets_the_rest(void **state) {
    (void)state;
    const float shares[] = {2, 1};
    peridot_model_params params = by_memory(PERIDOT_WEIGHTS_FILE), said = params;
    said.split = shares;
    peridot_memory_plan plan = plan_for(small, &said, &small_session);
    VkPhysicalDeviceType *types[] = {&devices[0]->engine->info.type,
                                     &devices[1]->engine->info.type};
    const VkPhysicalDeviceType software = *types[0];
    *types[0] = VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU;
    check_layers(&params, 3, 0);
    limit(need(&plan, 0) + (64 << 10), 0);
    check_layers(&params, 2, 1);
    limit(0, 0);
    *types[0] = software;
    *types[1] = VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU;
    check_layers(&params, 0, 3);
    *types[1] = software;
}

static void test_weights_for_both(void **state) {
    (void)state;
    peridot_model_params file = by_memory(PERIDOT_WEIGHTS_FILE);
    peridot_model_params bytes = by_memory(PERIDOT_WEIGHTS_Q8_0);
    const float shares[] = {1, 2};
    file.split = bytes.split = shares;
    peridot_memory_plan as_is = plan_for(small, &file, &small_session);
    peridot_memory_plan in_bytes = plan_for(small, &bytes, &small_session);
    assert_true(need(&in_bytes, 1) < need(&as_is, 1));
    peridot_model_params any = by_memory(PERIDOT_WEIGHTS_AUTO);
    any.split = shares;
    peridot_model *model = NULL;
    peridot_model_info info = {.struct_size = sizeof info};
    limit(need(&as_is, 0), need(&as_is, 1));
    MUST(peridot_model_load_wait(devices[0], path_of(small), &any, &model, &error));
    peridot_model_describe(model, &info);
    assert_false(info.weights_chosen);
    peridot_model_close(model);
    limit(need(&as_is, 0), need(&as_is, 1) - 1); /* the second device decides */
    MUST(peridot_model_load_wait(devices[0], path_of(small), &any, &model, &error));
    peridot_model_describe(model, &info);
    assert_true(info.weights_chosen);
    assert_int_equal(info.weights, PERIDOT_WEIGHTS_Q8_0);
    peridot_model_close(model);
    limit(0, 0);
}

static void test_memory_refusals(void **state) {
    (void)state;
    const float shares[] = {1, 2};
    peridot_model_params params = by_memory(PERIDOT_WEIGHTS_FILE);
    peridot_model *model = NULL;
    peridot_session *session = NULL;
    peridot_error error = {0};
    params.split = shares;
    peridot_memory_plan plan = plan_for(small, &params, &small_session);
    uint64_t before = used(0);
    limit(0, plan.device_weight_bytes[1] - 1);
    assert_int_equal(peridot_model_load_wait(devices[0], path_of(small), &params, &model, &error),
                     PERIDOT_ERROR_DEVICE_MEMORY);
    assert_non_null(strstr(error.message, devices[1]->engine->info.name));
    assert_non_null(strstr(error.message, "layers 1 to 2 alone need"));
    assert_int_equal(used(0), before); /* nothing was uploaded */
    limit(0, 0);
    MUST(peridot_model_load_wait(devices[0], path_of(small), &params, &model, &error));
    limit(0, plan.device_working_bytes[1] + plan.device_kv_bytes[1] - 1);
    const peridot_session_params long_one = {.struct_size = sizeof long_one, .context = 8192};
    assert_int_equal(peridot_session_create(model, &long_one, &session, &error),
                     PERIDOT_ERROR_DEVICE_MEMORY);
    assert_non_null(strstr(error.message, devices[1]->engine->info.name));
    assert_non_null(strstr(error.message, "beside layers 1 to 2"));
    limit(0, 0);
    peridot_model_close(model);
}

/* ---- What a caller may get wrong ---- */

static void expect_refusal(const peridot_model_params *params, const char *part) {
    peridot_model *model = NULL;
    peridot_error error = {0};
    assert_int_equal(peridot_model_load_wait(devices[0], path_of(small), params, &model, &error),
                     PERIDOT_ERROR_ARGUMENT);
    if (!strstr(error.message, part))
        fail_msg("\"%s\" is not in: %s", part, error.message);
    assert_null(model);
}

static void test_bad_arguments(void **state) {
    (void)state;
    static const struct {
        float shares[2];
        const char *part;
    } bad[] = {
        {{1, -1}, "share 2"},    {{NAN, 1}, "share 1"},      {{0, 0}, "every share"},
        {{-0.5f, 1}, "share 1"}, {{1, INFINITY}, "share 2"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        peridot_model_params params = by_memory(PERIDOT_WEIGHTS_FILE);
        params.split = bad[i].shares;
        expect_refusal(&params, bad[i].part);
    }
    peridot_device *list[] = {devices[1], devices[0], devices[2], NULL};
    peridot_model_params params = by_memory(PERIDOT_WEIGHTS_FILE);
    params.more_devices = list;
    params.more_device_count = 2;
    expect_refusal(&params, "twice"); /* home again */
    list[1] = devices[1];
    expect_refusal(&params, "twice");
    list[1] = NULL;
    expect_refusal(&params, "more_devices[1]");
    params.more_devices = NULL;
    expect_refusal(&params, "more_devices");
    params.more_device_count = PERIDOT_DEVICES_MAX;
    expect_refusal(&params, "16 at most");

    peridot_device *again = open_chosen_device("1"); /* another handle is the same device */
    list[0] = devices[1];
    list[1] = again;
    params.more_devices = list;
    params.more_device_count = 2;
    expect_refusal(&params, "twice");
    list[0] = devices[2];
    list[1] = devices[1];
    peridot_model *model = NULL;
    peridot_error error = {0};
    assert_int_equal(
        peridot_model_load_wait(devices[0], path_of("small-f32"), &params, &model, &error),
        PERIDOT_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "3 devices for 2 layers"));
    peridot_device_close(again);
}

static bool cancel(const peridot_progress *progress, void *user) {
    uint64_t *most = user;
    assert_true(progress->done >= *most && progress->done <= progress->all);
    *most = progress->done;
    return progress->done < progress->all * 3 / 4; /* while the last device is being filled */
}

static void test_cancelled_loading(void **state) {
    (void)state;
    const float shares[] = {1, 2};
    uint64_t most = 0, before[] = {used(0), used(1)};
    peridot_model_params params = by_memory(PERIDOT_WEIGHTS_FILE);
    params.split = shares;
    params.progress = cancel;
    params.progress_user = &most;
    peridot_model *model = NULL;
    peridot_error error = {0};
    assert_int_equal(peridot_model_load_wait(devices[0], path_of(small), &params, &model, &error),
                     PERIDOT_ERROR_CANCELLED);
    assert_int_equal(used(0), before[0]);
    assert_int_equal(used(1), before[1]);
}

/* A lost second device is an error of every later call, and of no closing. */
static void test_lost_device(void **state) {
    (void)state;
    peridot_model *model = load(small, &spreads[0]);
    peridot_session *session = create(model, (peridot_session_params){0});
    struct taken taken = {0};
    peridot_error error = {0};
    MUST(peridot_session_prompt_wait(session, prompt, PROMPT_COUNT, NULL, &error));
    MUST(peridot_session_generate_wait(session, 5, take, &taken, NULL, &error));
    devices[1]->engine->lost = true;
    assert_int_equal(peridot_session_generate_wait(session, 5, take, &taken, NULL, &error),
                     PERIDOT_ERROR_DEVICE_LOST);
    assert_non_null(strstr(error.message, devices[1]->engine->info.name));
    assert_int_equal(peridot_session_prompt_wait(session, prompt, PROMPT_COUNT, NULL, &error),
                     PERIDOT_ERROR_DEVICE_LOST);
    assert_int_equal(peridot_session_length(session), PROMPT_COUNT + taken.count);
    devices[1]->engine->lost = false; /* it was not, and goes on as if nothing had been */
    struct taken more = {0}, whole = generate(small, &alone, (peridot_sampling){0}, 15);
    MUST(peridot_session_generate_wait(session, 10, take, &more, NULL, &error));
    assert_memory_equal(whole.tokens + 5, more.tokens, 10 * sizeof *more.tokens);
    devices[1]->engine->lost = true;
    peridot_session_close_wait(session);
    peridot_model_close(model);
    devices[1]->engine->lost = false;
}

static void test_validation_is_silent(void **state) {
    (void)state;
    assert_int_equal(validation_messages(), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_logits),
        cmocka_unit_test(test_long_prompt),
        cmocka_unit_test(test_generated_text),
        cmocka_unit_test(test_masked_text),
        cmocka_unit_test(test_stop_token),
        cmocka_unit_test(test_prefill_equals_decode),
        cmocka_unit_test(test_truncate_is_exact),
        cmocka_unit_test(test_no_batch),
        cmocka_unit_test(test_sessions_move),
        cmocka_unit_test(test_plan),
        cmocka_unit_test(test_split_by_memory),
        cmocka_unit_test(test_software_gets_the_rest),
        cmocka_unit_test(test_weights_for_both),
        cmocka_unit_test(test_memory_refusals),
        cmocka_unit_test(test_bad_arguments),
        cmocka_unit_test(test_cancelled_loading),
        cmocka_unit_test(test_lost_device),
        cmocka_unit_test(test_validation_is_silent),
    };
    return cmocka_run_group_tests_name("split", tests, open_devices, close_devices);
}
