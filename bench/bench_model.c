/* peridot-bench model: a model's speed, end to end and by kernel. */
#include "bench.h"
#include "ceilings.h"
#include "compare.h"
#include "environment.h"
#include "messages.h"
#include "model_breakdown.h"
#include "model_runs.h"
#include "options.h"
#include "session.h"
#include "weights_words.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
    "peridot-bench model -m DIR|FILE.gguf: prompt processing (ppN) and generation (tgN), as\n"
    "llama-bench does it: medians of several runs, after one that is left out, at several depths\n"
    "of the context; then single decode steps with timestamps around every dispatch, by kernel.\n"
    "\n"
    "  -m, --model PATH       a Hugging Face directory or a GGUF file\n"
    "  --device CHOICE        an index, a part of the name, or a UUID\n"
    "  --weights TYPE         auto, file, int8, q4 or a type: bf16, q4_k ... (auto)\n"
    "  --kv f16|f32|q8        the KV cache's type (f16)\n"
    "  --pp N                 tokens of the prompt, 0: none (512)\n"
    "  --tg N                 tokens generated, 0: none (128)\n"
    "  --depth N,N...         tokens in the context before each test (0)\n"
    "  --runs N               of each test, which take turns (5)\n"
    "  --steps N              single steps in each run, for the breakdown by kernel, 0: none (4)\n"
    "  --quick                pp16, tg8, depths 0 and 16, 3 runs, 3 steps: does it work?\n"
    "  --minimal              portable kernels only\n"
    "  --no-tuning            kernels as chosen without peridot tune\n"
    "  --json, --csv          instead of tables\n"
    "  -o, --output FILE      JSON into FILE (CSV with --csv), beside the tables\n"
    "  --compare A B          two files made with -o: what changed, and is it more than noise?\n"
    "\n"
    "  peridot-bench model -m gemma-2b-it --weights q4 --depth 0,512,4096 -o before.json\n"
    "  peridot-bench model --compare before.json after.json\n"
    "\n"
    "limit %: of the bandwidth that a kernel or a copy on this device reaches which does nothing\n"
    "else. cpu ms: of all threads of the process, for a token; a software device runs there too.\n"
    "J: energy for a token, where Linux tells.\n";

struct model_options {
    const char *model, *device;
    const char *compared[2];
    peridot_weights weights;
    peridot_kv kv;
    uint32_t pp, tg, runs, steps;
    struct numbers depths;
    bool quick, minimal, no_tuning;
    struct output output;
};

/* ---- Tables ---- */

static enum tone limit_tone(const cJSON *row, const char *key) {
    double limit = row_value(row, key);
    if (row_value(row, "share_percent") < 5)
        return TONE_FAINT; /* of no account */
    return limit >= 70 ? TONE_GOOD : limit < 40 ? TONE_BAD : TONE_PLAIN;
}

const struct column model_start_columns[] = {
    {"read_gb_per_second", "read GB/s", COLUMN_NUMBER, 2, NULL},
    {"copy_gb_per_second", "copy GB/s", COLUMN_NUMBER, 2, NULL},
    {"seconds_loading", "loading s", COLUMN_NUMBER, 2, NULL},
    {"seconds_compiling", "compiling s", COLUMN_NUMBER, 2, NULL},
    {NULL, NULL, COLUMN_TEXT, 0, NULL},
};

const struct column model_speed_columns[] = {
    {"test", "test", COLUMN_TEXT, 0, NULL},
    {"depth", "depth", COLUMN_NUMBER, 0, NULL},
    {"tokens_per_second", "tokens/s", COLUMN_NUMBER, 2, NULL},
    {"spread_percent", "± %", COLUMN_NUMBER, 1, NULL},
    {"first_token_ms", "first token ms", COLUMN_NUMBER, 2, NULL},
    {"gb_per_second", "GB/s", COLUMN_NUMBER, 2, NULL},
    {"limit_percent", "limit %", COLUMN_NUMBER, 1, limit_tone},
    {"cpu_ms_per_token", "cpu ms", COLUMN_NUMBER, 3, NULL},
    {"joules_per_token", "J", COLUMN_NUMBER, 3, NULL},
    {"clock_mhz", "MHz", COLUMN_NUMBER, 0, NULL},
    {"runs", "runs", COLUMN_NUMBER, 0, NULL},
    {"tokens_per_second_samples", "", COLUMN_SAMPLES, 0, NULL},
    {"first_token_ms_samples", "", COLUMN_SAMPLES, 0, NULL},
    {NULL, NULL, COLUMN_TEXT, 0, NULL},
};

static enum tone share_tone(const cJSON *row, const char *key) {
    (void)key;
    return row_value(row, "share_percent") < 1 || !*row_text(row, "variant") ? TONE_FAINT
                                                                             : TONE_PLAIN;
}

const struct column model_kernel_columns[] = {
    {"depth", "depth", COLUMN_NUMBER, 0, NULL},
    {"kernel", "kernel", COLUMN_TEXT, 0, share_tone},
    {"variant", "variant", COLUMN_TEXT, 0, NULL},
    {"type", "type", COLUMN_TEXT, 0, NULL},
    {"dispatches", "dispatches", COLUMN_NUMBER, 0, NULL},
    {"microseconds", "µs a step", COLUMN_NUMBER, 1, NULL},
    {"spread_percent", "± %", COLUMN_NUMBER, 1, NULL},
    {"share_percent", "share %", COLUMN_NUMBER, 1, share_tone},
    {"gb_per_second", "GB/s", COLUMN_NUMBER, 2, NULL},
    {"limit_percent", "limit %", COLUMN_NUMBER, 1, limit_tone},
    {"microseconds_samples", "", COLUMN_SAMPLES, 0, NULL},
    {NULL, NULL, COLUMN_TEXT, 0, NULL},
};

/* ---- Comparing ---- */

static int compare_files(const struct model_options *options) {
    static const char *const speed_keys[] = {"test", "depth", NULL};
    static const char *const kernel_keys[] = {"kernel", "variant", "type", "depth", NULL};
    static const struct compared_figure figures[] = {
        {"speed", speed_keys, "tokens_per_second_samples", "tokens/s", true},
        {"speed", speed_keys, "first_token_ms_samples", "first token ms", false},
        {"kernels", kernel_keys, "microseconds_samples", "µs", false},
    };
    cJSON *files[2] = {NULL, NULL};
    peridot_error error;
    peridot_result result = results_read(options->compared[0], "model", &files[0], &error);
    if (!result)
        result = results_read(options->compared[1], "model", &files[1], &error);
    if (!result) {
        struct results results;
        results_begin(&results, "model --compare");
        compare_results(files[0], files[1], figures, sizeof figures / sizeof *figures, &results);
        result = results_output(&results, NULL, &options->output, &error);
        results_free(&results);
    }
    cJSON_Delete(files[0]);
    cJSON_Delete(files[1]);
    return result ? complain(&error) : 0;
}

/* ---- Measuring ---- */

struct bench {
    const struct model_options *options;
    peridot_device *device;
    peridot_model *model;
    peridot_session *session;
    struct sensors sensors;
    struct ceilings ceilings;
    struct results results;
    struct table *speed, *kernels;
};

static void add_spread(cJSON *row, const char *key, const double *samples, uint32_t count) {
    row_number(row, key, samples_spread(samples, count).median);
}

static void add_speed(struct bench *bench, const char *kind, uint32_t tokens, uint32_t depth,
                      const struct runs *runs) {
    char test[32];
    cJSON *row = table_row(bench->speed);
    uint32_t count = bench->options->runs;
    struct spread rate = samples_spread(runs->tokens_per_second, count);
    snprintf(test, sizeof test, "%s%u", kind, tokens);
    cJSON_AddStringToObject(row, "test", test);
    row_number(row, "depth", depth);
    row_number(row, "tokens_per_second", rate.median);
    row_number(row, "spread_percent", 50 * rate.range / rate.median);
    add_spread(row, "first_token_ms", runs->first_token_ms, count);
    if (runs->gb_per_token > 0) {
        double gbs = rate.median * runs->gb_per_token;
        row_number(row, "gb_per_second", gbs);
        row_number(row, "limit_percent", 100 * gbs / ceilings_bandwidth(&bench->ceilings));
    }
    add_spread(row, "cpu_ms_per_token", runs->cpu_ms_per_token, count);
    add_spread(row, "joules_per_token", runs->joules_per_token, count);
    add_spread(row, "clock_mhz", runs->clock_mhz, count);
    row_number(row, "runs", count);
    row_samples(row, "tokens_per_second_samples", runs->tokens_per_second, count);
    if (isfinite(runs->first_token_ms[0]))
        row_samples(row, "first_token_ms_samples", runs->first_token_ms, count);
}

/* A row of the breakdown, of `seconds` a step in each run. */
static cJSON *add_time(struct bench *bench, uint32_t depth, const char *name,
                       const double *seconds) {
    double microseconds[SAMPLES_MAX];
    uint32_t count = bench->options->runs;
    cJSON *row = table_row(bench->kernels);
    for (uint32_t i = 0; i < count; i++)
        microseconds[i] = seconds[i] * 1e6;
    struct spread spread = samples_spread(microseconds, count);
    row_number(row, "depth", depth);
    cJSON_AddStringToObject(row, "kernel", name);
    row_number(row, "microseconds", spread.median);
    row_number(row, "spread_percent", 50 * spread.range / spread.median);
    row_samples(row, "microseconds_samples", microseconds, count);
    return row;
}

static void add_share(struct bench *bench, uint32_t depth, const struct kernel_share *share,
                      const struct breakdown *breakdown) {
    const struct pipeline_key *key = &share->pipeline->key;
    struct kernel_info kernel = kernel_info(key->variant->kernel);
    uint32_t count = bench->options->runs;
    double seconds = samples_spread(share->seconds, count).median;
    double all = samples_spread(breakdown->kernels, count).median;
    cJSON *row = add_time(bench, depth, kernel.name, share->seconds);
    cJSON_AddStringToObject(row, "variant", key->variant->name);
    if (kernel.typed)
        cJSON_AddStringToObject(row, "type", weight_type_info(key->type)->name);
    row_number(row, "dispatches", share->dispatches);
    row_number(row, "share_percent", 100 * seconds / all);
    if (share->bytes > 0) {
        double gbs = share->bytes / seconds * 1e-9;
        row_number(row, "gb_per_second", gbs);
        row_number(row, "limit_percent", 100 * gbs / ceilings_bandwidth(&bench->ceilings));
    }
}

/* What is measured at one depth. The tests take turns, so that each one's runs are spread over the
 * same time and show how much that time's noise is. */
struct depth_runs {
    struct runs prompt, generation;
    struct breakdown breakdown;
    bool timed; /* the breakdown is there */
};

static peridot_result run_round(struct bench *bench, uint32_t depth, uint32_t index,
                                struct depth_runs *at, peridot_error *error) {
    const struct model_options *options = bench->options;
    peridot_session *session = bench->session;
    peridot_result result = PERIDOT_OK;
    if (options->pp)
        result =
            runs_prompt(session, &bench->sensors, depth, options->pp, &at->prompt, index, error);
    if (options->tg && !result)
        result = runs_generate(session, &bench->sensors, depth, options->tg, &at->generation, index,
                               error);
    if (at->timed && !result)
        result = breakdown_run(session, depth, options->steps, &at->breakdown, index, error);
    if (!at->timed || result != PERIDOT_ERROR_UNSUPPORTED)
        return result;
    at->timed = false;
    cJSON_DeleteItemFromObject(bench->results.about, "no breakdown");
    cJSON_AddStringToObject(bench->results.about, "no breakdown", error->message);
    return PERIDOT_OK;
}

static void add_rows(struct bench *bench, uint32_t depth, const struct depth_runs *at) {
    const struct model_options *options = bench->options;
    if (options->pp)
        add_speed(bench, "pp", options->pp, depth, &at->prompt);
    if (options->tg)
        add_speed(bench, "tg", options->tg, depth, &at->generation);
    if (!at->timed)
        return;
    for (uint32_t i = 0; i < at->breakdown.share_count; i++)
        add_share(bench, depth, &at->breakdown.shares[i], &at->breakdown);
    add_time(bench, depth, "(all kernels)", at->breakdown.kernels);
    add_time(bench, depth, "(step with timestamps)", at->breakdown.timed);
    add_time(bench, depth, "(step without)", at->breakdown.plain);
}

static peridot_result measure_depth(struct bench *bench, uint32_t depth, peridot_error *error) {
    uint32_t count = bench->options->runs;
    struct depth_runs *at = calloc(1, sizeof *at);
    if (!at)
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory for the runs");
    at->timed = bench->options->steps > 0;
    progress("depth %u: warming up", depth);
    peridot_result result = run_round(bench, depth, 0, at, error);
    for (uint32_t i = 0; i < count && !result; i++) {
        progress("depth %u: run %u of %u", depth, i + 1, count);
        result = run_round(bench, depth, i, at, error);
    }
    if (!result)
        add_rows(bench, depth, at);
    free(at);
    return result;
}

/* ---- Opening ---- */

static bool show_progress(const peridot_progress *at, void *user) {
    (void)user;
    progress("%s %3.0f %%", at->stage, at->all ? 100.0 * (double)at->done / (double)at->all : 0.0);
    return true;
}

static void show_message(const char *text, void *user) {
    (void)user;
    warn(text);
}

static peridot_result open_device(struct bench *bench, peridot_error *error) {
    peridot_device_params params = {.struct_size = sizeof params,
                                    .choice = bench->options->device,
                                    .minimal = bench->options->minimal,
                                    .no_tuning = bench->options->no_tuning,
                                    .message = show_message};
    char address[PCI_ADDRESS_SIZE];
    peridot_result result = peridot_device_open(&params, &bench->device, error);
    if (result)
        return result;
    sensors_pci_address(bench->device->engine, address);
    sensors_find(&bench->sensors, "/sys", address);
    progress("measuring the memory's bandwidth");
    return ceilings_measure(bench->device->engine, bench->options->quick, &bench->ceilings, error);
}

/* Positions that the deepest test needs: at least <bos>, and the sampled tokens that end it. */
static uint32_t needed_context(const struct model_options *options) {
    uint32_t deepest = 1, most = options->pp > options->tg ? options->pp : options->tg;
    for (uint32_t i = 0; i < options->depths.count; i++)
        deepest = options->depths.at[i] > deepest ? options->depths.at[i] : deepest;
    return deepest + (options->steps > most ? options->steps : most) + 3;
}

static peridot_result open_session(struct bench *bench, peridot_error *error) {
    const struct model_options *options = bench->options;
    peridot_model_info info = {.struct_size = sizeof info};
    peridot_session_params session = {
        .struct_size = sizeof session, .context = needed_context(options), .kv = options->kv};
    peridot_model_params params = {.struct_size = sizeof params,
                                   .weights = options->weights,
                                   .session = &session,
                                   .progress = show_progress};
    peridot_result result =
        peridot_model_load(bench->device, options->model, &params, &bench->model, error);
    if (result)
        return result;
    peridot_model_describe(bench->model, &info);
    if (session.context > info.context)
        return fail(error, PERIDOT_ERROR_ARGUMENT,
                    "the tests need a context of %u tokens and the model's is %u: give a smaller "
                    "--depth, --pp, --tg or --steps",
                    session.context, info.context);
    result = peridot_session_create(bench->model, &session, &bench->session, error);
    peridot_sampling sampling = {.struct_size = sizeof sampling, .min_tokens = session.context};
    if (!result)
        result = peridot_session_sampling(bench->session, &sampling, error);
    return result;
}

static void describe(struct bench *bench) {
    const struct model_options *options = bench->options;
    const struct device *device = bench->device->engine;
    cJSON *about = bench->results.about;
    char text[64];
    peridot_model_info info = {.struct_size = sizeof info};
    peridot_model_describe(bench->model, &info);
    environment_describe(device, about);
    cJSON_AddStringToObject(about, "model", options->model);
    snprintf(text, sizeof text, "%016" PRIx64, info.fingerprint);
    cJSON_AddStringToObject(about, "fingerprint", text);
    row_number(about, "parameters", (double)info.parameters);
    cJSON_AddStringToObject(about, "weights", weights_name(info.weights));
    row_number(about, "weight_bytes", (double)info.weight_bytes);
    cJSON_AddStringToObject(about, "kv", kv_words[options->kv]);
    bool tuned = bench->session->kernels.tuned;
    cJSON_AddStringToObject(about, "variants",
                            options->minimal ? "portable"
                            : tuned          ? "tuned"
                                             : "all");
    row_number(about, "context", peridot_session_context(bench->session));
    if (device_is_software(device))
        cJSON_AddStringToObject(about, "note", "cpu ms is the device's work too: it is software");
}

static void add_start(struct bench *bench) {
    peridot_model_info info = {.struct_size = sizeof info};
    peridot_session_statistics statistics = {.struct_size = sizeof statistics};
    peridot_model_describe(bench->model, &info);
    peridot_session_describe(bench->session, &statistics);
    cJSON *row = table_row(results_table(
        &bench->results, "start", "The memory's bandwidth, and the start", model_start_columns));
    row_number(row, "read_gb_per_second", bench->ceilings.read_gbs);
    row_number(row, "copy_gb_per_second", bench->ceilings.copy_gbs);
    row_number(row, "seconds_loading", info.seconds_loading);
    row_number(row, "seconds_compiling", statistics.seconds_compiling);
}

static peridot_result measure(struct bench *bench, peridot_error *error) {
    peridot_result result = open_device(bench, error);
    if (!result)
        result = open_session(bench, error);
    if (result)
        return result;
    describe(bench);
    add_start(bench);
    bench->speed = results_table(&bench->results, "speed", "Speed", model_speed_columns);
    bench->kernels = results_table(&bench->results, "kernels",
                                   "Decode steps by kernel, with timestamps", model_kernel_columns);
    for (uint32_t i = 0; i < bench->options->depths.count && !result; i++)
        result = measure_depth(bench, bench->options->depths.at[i], error);
    return result;
}

static void take_defaults(struct model_options *options, bool quick) {
    *options = (struct model_options){.pp = 512, .tg = 128, .runs = 5, .steps = 4};
    options->depths = (struct numbers){{0}, 1};
    if (!quick)
        return;
    *options = (struct model_options){.pp = 16, .tg = 8, .runs = 3, .steps = 3, .quick = true};
    options->depths = (struct numbers){{0, 16}, 2};
}

static bool parse(int argc, char **argv, struct model_options *options) {
    bool quick = false;
    for (int i = 0; i < argc; i++)
        quick |= strcmp(argv[i], "--quick") == 0;
    take_defaults(options, quick);
    const struct option table[] = {
        {"--model", "-m", OPTION_TEXT, &options->model, 0, 0},
        {"--device", "", OPTION_TEXT, &options->device, 0, 0},
        {"--weights", "", OPTION_WEIGHTS, &options->weights, 0, 0},
        {"--kv", "", OPTION_KV, &options->kv, 0, 0},
        {"--pp", "", OPTION_NUMBER, &options->pp, 0, 32768},
        {"--tg", "", OPTION_NUMBER, &options->tg, 0, 32768},
        {"--depth", "", OPTION_NUMBERS, &options->depths, 0, 32768},
        {"--runs", "", OPTION_NUMBER, &options->runs, 1, SAMPLES_MAX},
        {"--steps", "", OPTION_NUMBER, &options->steps, 0, SAMPLES_MAX},
        {"--quick", "", OPTION_FLAG, &options->quick, 0, 0},
        {"--minimal", "", OPTION_FLAG, &options->minimal, 0, 0},
        {"--no-tuning", "", OPTION_FLAG, &options->no_tuning, 0, 0},
        {"--compare", "", OPTION_PAIR, options->compared, 0, 0},
        OUTPUT_OPTIONS(&options->output),
    };
    if (!options_parse("model", argc, argv, table, sizeof table / sizeof *table))
        return false;
    if (options->model || options->compared[0])
        return true;
    fprintf(stderr, "peridot-bench: model needs -m DIR or FILE.gguf: see peridot-bench model "
                    "--help\n");
    return false;
}

int bench_model(int argc, char **argv) {
    struct model_options options;
    if (options_help(argc, argv)) {
        fputs(usage, stdout);
        return 0;
    }
    if (!parse(argc, argv, &options))
        return 1;
    if (options.compared[0])
        return compare_files(&options);
    struct bench bench = {.options = &options};
    peridot_error error;
    results_begin(&bench.results, "model");
    peridot_result result = measure(&bench, &error);
    progress_end();
    if (!result)
        result = results_output(&bench.results, NULL, &options.output, &error);
    results_free(&bench.results);
    peridot_session_close(bench.session);
    peridot_model_close(bench.model);
    peridot_device_close(bench.device);
    return result ? complain(&error) : 0;
}
