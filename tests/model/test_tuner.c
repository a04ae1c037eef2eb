/* The tuner: a fast candidate that is wrong is never chosen, a fast one that is right is; and what
 * a tuning says is what sessions run, with the same logits. */
#include "conformance.h"
#include "kernels/kernel_checks.h"
#include "open_device.h"
#include "platform.h"
#include "reference/random.h"
#include "session.h"
#include "tuner.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "planted_modules.h"

#define MODEL TEST_DATA "/gqa-bf16"

static char folder[] = "/tmp/peridot-tuner-XXXXXX", path[4096];
static unsigned heard;
static char last_word[TUNING_WORD];

static void hear(const char *text, void *user) {
    (void)user;
    heard++;
    snprintf(last_word, sizeof last_word, "%s", text);
}

static peridot_device *open_with(bool no_tuning, bool minimal) {
    peridot_device *device = NULL;
    peridot_device_params params = {.struct_size = sizeof params,
                                    .minimal = minimal,
                                    .no_tuning = no_tuning,
                                    .cache_directory = folder,
                                    .message = hear};
    MUST(peridot_device_open(&params, &device, &error));
    return device;
}

static struct peridot_model *plan(peridot_device *device) {
    struct peridot_model *model = NULL;
    MUST(model_plan(device, MODEL, NULL, 0, NULL, &model, &error));
    return model;
}

static const struct kernel_variant *variant_of(enum kernel kernel, const char *name) {
    struct kernel_info info = kernel_info(kernel);
    const struct kernel_variant *variants = kernel_variants(NULL) + info.first_variant;
    for (uint32_t i = 0; i < info.variant_count; i++)
        if (strcmp(variants[i].name, name) == 0)
            return &variants[i];
    fail_msg("%s has no variant %s", info.name, name);
    return NULL;
}

/* ---- What the tuner chooses ---- */

/* Of the first kernel, and ends the search after it. */
struct outcome {
    struct tuner_progress first;
    char fault[1600];
    bool done;
};

static void keep_first(const struct tuner_progress *progress, void *user) {
    struct outcome *outcome = user;
    if (!progress->finished || outcome->done)
        return;
    outcome->first = *progress;
    outcome->done = true;
    snprintf(outcome->fault, sizeof outcome->fault, "%s", progress->fault ? progress->fault : "");
}

static bool has_first(void *user) {
    return ((const struct outcome *)user)->done;
}

static struct outcome tune_first(peridot_device *device, const struct pipeline_key *planted,
                                 struct tuning *tuning) {
    struct outcome outcome = {0};
    struct peridot_model *model = plan(device);
    struct tuner_params params = {.model = model,
                                  .seconds = 4,
                                  .seed = 1,
                                  .progress = keep_first,
                                  .stop = has_first,
                                  .user = &outcome,
                                  .planted = planted,
                                  .planted_count = planted ? 1 : 0};
    uint32_t left;
    *tuning = (struct tuning){0};
    MUST(tuner_run(&params, tuning, &left, &error));
    assert_true(outcome.done);
    assert_int_equal(outcome.first.want.place.kernel, KERNEL_matvec_geglu);
    assert_int_equal(tuning_count(tuning), 1);
    assert_int_equal(left + 1, outcome.first.all);
    peridot_model_close(model);
    return outcome;
}

static void test_wrong_is_never_chosen(void **state) {
    (void)state;
    static struct kernel_variant wrong; /* the device keeps a pointer to it */
    peridot_device *device = open_test_device();
    struct tuning tuning;
    wrong = *variant_of(KERNEL_matvec_geglu, "portable");
    wrong.name = "wrong";
    wrong.module[WEIGHT_BF16].words = module_does_nothing;
    wrong.module[WEIGHT_BF16].end = module_does_nothing_end;
    struct pipeline_key planted = pipeline_key(device->engine, &wrong, WEIGHT_BF16);
    struct outcome outcome = tune_first(device, &planted, &tuning);
    assert_string_not_equal(outcome.first.chosen.variant->name, "wrong");
    assert_int_equal(outcome.first.wrong, 1);
    assert_non_null(strstr(outcome.fault, "wrong"));
    assert_int_equal(validation_messages(), 0);
    tuning_free(&tuning);
    peridot_device_close(device);
}

/* On a software device with portable kernels alone, the subgroup variant is far ahead. */
static void test_faster_is_chosen(void **state) {
    (void)state;
    peridot_device *device = open_with(true, true);
    struct tuning tuning;
    const struct kernel_variant *subgroup = variant_of(KERNEL_matvec_geglu, "subgroup");
    if (device->engine->info.type != VK_PHYSICAL_DEVICE_TYPE_CPU ||
        !(device->engine->info.limits.subgroup_size > 1)) {
        print_message("left out: not a software device with subgroups\n");
        peridot_device_close(device);
        return;
    }
    struct pipeline_key planted = pipeline_key(device->engine, subgroup, WEIGHT_BF16);
    planted.spec[SPEC_ROWS] = 8;
    struct outcome outcome = tune_first(device, &planted, &tuning);
    assert_string_equal(outcome.first.want.key.variant->name, "portable");
    print_message("%.2f times as fast\n", outcome.first.chosen.gain);
    assert_true(outcome.first.chosen.gain > 1);
    assert_true(outcome.first.after < outcome.first.before);
    const struct tuned *entry = tuning_find(&tuning, &outcome.first.want.place);
    assert_non_null(entry);
    assert_memory_equal(entry, &outcome.first.chosen, sizeof *entry);
    tuning_free(&tuning);
    peridot_device_close(device);
}

/* ---- What there is to choose from ---- */

/* A random candidate for a random kernel; false: it has none but what is used untuned. */
static bool pick(struct bench *bench, struct pipeline_key *key) {
    static const uint32_t columns[] = {0, 1, 8};
    struct pipeline_key keys[KERNEL_SEARCH_MAX];
    enum kernel kernel = between(bench, 0, KERNEL_COUNT - 1);
    struct kernel_info info = kernel_info(kernel);
    uint32_t type = info.typed ? between(bench, 0, WEIGHT_TYPE_COUNT - 1) : 0;
    const struct kernel_variant *first = kernel_variants(NULL) + info.first_variant;
    if (!first->module[type].words)
        return false;
    struct pipeline_key base = pipeline_key(bench->device, first, type);
    uint32_t of = columns[between(bench, 0, 2)];
    if (of && !first->columns)
        base.spec[SPEC_COLUMNS] = of;
    uint32_t count = kernel_search_list(bench->device, &base, of, keys);
    *key = keys[between(bench, 0, count - 1)];
    return count > 1;
}

static void test_candidates_are_right(void **state) {
    (void)state;
    peridot_device *device = open_test_device();
    struct bench bench;
    struct pipeline_key key;
    const char *more = getenv("PERIDOT_TEST_CANDIDATES");
    uint32_t left = more ? (uint32_t)strtoul(more, NULL, 10) : 24;
    MUST(bench_open(&bench, device->engine, random_seed(), &error));
    while (left > 0) {
        if (!pick(&bench, &key))
            continue;
        bench.spec = key.spec;
        if (!kernel_passes(&bench, kernel_check_of(key.variant->kernel), key.variant, key.type))
            fail_msg("%s", bench.failure);
        left--;
    }
    assert_int_equal(validation_messages(), 0);
    bench_close(&bench);
    peridot_device_close(device);
}

/* ---- What sessions make of it ---- */

static float *run(peridot_device *device, uint32_t prefill_rows, uint32_t *count,
                  struct pipeline_key keys[3]) {
    enum { TOKENS = 40 };
    int32_t tokens[TOKENS];
    peridot_model *model = NULL;
    peridot_session *session = NULL;
    peridot_model_info info = {.struct_size = sizeof info};
    peridot_session_params params = {
        .struct_size = sizeof params, .context = 64, .prefill_rows = prefill_rows};
    MUST(peridot_model_load_wait(device, MODEL, NULL, &model, &error));
    peridot_model_describe(model, &info);
    for (int32_t i = 0; i < TOKENS; i++)
        tokens[i] = (i * 7 + 2) % (int32_t)info.vocabulary;
    *count = TOKENS * info.vocabulary;
    float *logits = malloc(*count * sizeof *logits);
    assert_non_null(logits);
    MUST(peridot_session_create(model, &params, &session, &error));
    MUST(peridot_session_prompt_wait(session, tokens, TOKENS, logits, &error));
    assert_true(session->kernels.tuned == (tuning_count(&device->tuning) > 0));
    keys[0] = session->kernels.project[PASS_ONE_ROW][PROJECT_GEGLU][WEIGHT_BF16]->key;
    keys[1] = session->kernels.project[PASS_MANY_ROWS][PROJECT_RESIDUAL][WEIGHT_BF16]->key;
    keys[2] = session->kernels.attention_prefill->key;
    peridot_session_close_wait(session);
    peridot_model_close(model);
    return logits;
}

/* For each kernel of the model some other candidate than the default. */
struct choosing {
    const struct device *device;
    struct random random;
    struct tuning tuning;
};

static void choose_another(const struct kernel_want *want, void *user) {
    struct choosing *choosing = user;
    struct pipeline_key keys[KERNEL_SEARCH_MAX];
    uint32_t count = kernel_search_list(choosing->device, &want->key, want->place.columns, keys);
    if (count < 2)
        return;
    const struct pipeline_key *key = &keys[1 + random_below(&choosing->random, count - 1)];
    struct tuned entry = {.place = want->place, .variant = key->variant, .gain = 2};
    memcpy(entry.spec, key->spec, sizeof entry.spec);
    tuning_set(&choosing->tuning, &entry);
}

static uint32_t write_another(uint64_t seed) {
    peridot_device *device = open_with(true, false);
    struct peridot_model *model = plan(device);
    struct choosing choosing = {.device = device->engine, .random = random_start(seed)};
    MUST(kernel_set_visit(model, PERIDOT_KV_F16, false, choose_another, &choosing, &error));
    choosing.tuning.made = 1700000000;
    MUST(tuning_write(device->engine, folder, &choosing.tuning, &error));
    uint32_t count = tuning_count(&choosing.tuning);
    assert_true(tuning_path(device->engine, folder, path, sizeof path));
    tuning_free(&choosing.tuning);
    peridot_model_close(model);
    peridot_device_close(device);
    return count;
}

static void test_sessions_run_the_choice(void **state) {
    (void)state;
    uint32_t count;
    struct pipeline_key before[3], after[3];
    for (uint32_t rows = 1; rows <= 64; rows *= 8) {
        uint64_t seed = random_seed();
        uint32_t written = write_another(seed);
        heard = 0;
        peridot_device *untuned = open_with(true, false), *tuned = open_with(false, false);
        peridot_device_info info = {.struct_size = sizeof info};
        peridot_device_describe(tuned, &info);
        assert_int_equal(info.tuned, written);
        assert_int_equal(info.tuned_away, written);
        assert_int_equal(info.tuned_at, 1700000000);
        peridot_device_describe(untuned, &info);
        assert_int_equal(info.tuned, 0);
        float *want = run(untuned, rows, &count, before);
        float *got = run(tuned, rows, &count, after);
        double error = nmse(got, want, count);
        print_message("chunks of %u, seed %llu: NMSE %.2g\n", rows, (unsigned long long)seed,
                      error);
        assert_true(error < 1e-7); /* false for NaN too */
        for (uint32_t i = 0; i < 3; i++)
            assert_false(before[i].variant == after[i].variant &&
                         memcmp(before[i].spec, after[i].spec, sizeof before[i].spec) == 0);
        assert_int_equal(heard, 0);
        free(want);
        free(got);
        peridot_device_close(tuned);
        peridot_device_close(untuned);
    }
    peridot_device *minimal = open_with(false, true);
    assert_int_equal(tuning_count(&minimal->tuning), 0);
    peridot_device_close(minimal);
}

static bool write_nonsense(FILE *stream, void *user) {
    (void)user;
    return fputs("peridot-tuning 1\nchecksum 0\nnonsense", stream) >= 0;
}

static void test_damage_is_told_once(void **state) {
    (void)state;
    write_another(1);
    MUST(platform_replace_file(path, write_nonsense, NULL, &error));
    heard = 0;
    peridot_device *device = open_with(false, false);
    assert_int_equal(heard, 1);
    assert_non_null(strstr(last_word, "damaged"));
    peridot_device_info info = {.struct_size = sizeof info};
    peridot_device_describe(device, &info);
    assert_int_equal(info.tuned, 0);
    assert_string_equal(info.tuning_warning, last_word);
    peridot_device_close(device);
}

static int set_up(void **state) {
    (void)state;
    return mkdtemp(folder) == NULL;
}

static int tear_down(void **state) {
    (void)state;
    char command[256]; /* the cache of pipelines too */
    snprintf(command, sizeof command, "rm -r '%s'", folder);
    return system(command);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wrong_is_never_chosen),
        cmocka_unit_test(test_faster_is_chosen),
        cmocka_unit_test(test_candidates_are_right),
        cmocka_unit_test(test_sessions_run_the_choice),
        cmocka_unit_test(test_damage_is_told_once),
    };
    return cmocka_run_group_tests_name("tuner", tests, set_up, tear_down);
}
