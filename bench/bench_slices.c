/* peridot-bench slices: how well work in slices keeps to a budget of GPU time on this device. */
#include "bench.h"
#include "environment.h"
#include "messages.h"
#include "options.h"
#include "platform.h"
#include "session.h"
#include "statistics.h"
#include "weights_words.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define FRAMES_MAX 1000000
#define LEARNING 20        /* frames, not counted */
#define PROMPT_MOST 64     /* tokens, before generating goes on for ever */
#define NO_END 1000000000u /* tokens: none of them ends the answer */

static const char usage[] =
    "peridot-bench slices -m DIR|FILE.gguf: generates in slices of a budget, as an application "
    "that\n"
    "draws frames does, one slice after the other, and tells how long they took by the device's\n"
    "timestamps. The first 20 frames, in which estimates are learned, are not counted.\n"
    "\n"
    "  -m, --model PATH       a Hugging Face directory or a GGUF file\n"
    "  --device CHOICE        an index, a part of the name, or a UUID\n"
    "  --weights TYPE         auto, file, int8, q4 or a type: bf16, q4_k ... (auto)\n"
    "  --kv f16|f32|q8        the KV cache's type (f16)\n"
    "  --budget N,N...        microseconds (1000,2000,4000)\n"
    "  --frames N             for each budget (2000)\n"
    "  --quick                60 frames: does it work?\n"
    "  --minimal              portable kernels only\n"
    "  --json, --csv          instead of tables\n"
    "  -o, --output FILE      JSON into FILE (CSV with --csv), beside the tables\n"
    "\n"
    "over %: slices that took more than 1.25 budgets. used %: of the budget, in the mean. submit "
    "us:\n"
    "the calling thread's time in peridot_session_advance, median.\n";

struct slices_options {
    const char *model, *device;
    peridot_weights weights;
    peridot_kv kv;
    struct numbers budgets;
    uint32_t frames;
    bool quick, minimal;
    struct output output;
};

const struct column slices_columns[] = {
    {"budget_us", "budget us", COLUMN_NUMBER, 0, NULL},
    {"slices", "slices", COLUMN_NUMBER, 0, NULL},
    {"over_percent", "over %", COLUMN_NUMBER, 2, NULL},
    {"median_share_percent", "median %", COLUMN_NUMBER, 1, NULL},
    {"p99_share_percent", "99th %", COLUMN_NUMBER, 1, NULL},
    {"worst_share_percent", "worst %", COLUMN_NUMBER, 1, NULL},
    {"used_percent", "used %", COLUMN_NUMBER, 1, NULL},
    {"submit_us", "submit us", COLUMN_NUMBER, 1, NULL},
    {"tokens", "tokens", COLUMN_NUMBER, 0, NULL},
    {"tokens_per_gpu_second", "tokens/GPU s", COLUMN_NUMBER, 2, NULL},
    {NULL, NULL, COLUMN_TEXT, 0, NULL},
};

struct bench {
    const struct slices_options *options;
    peridot_device *device;
    peridot_model *model;
    struct results results;
    struct table *table;
};

/* One budget's frames. */
struct frames {
    double *shares, *submits; /* [frames] */
    uint32_t count, tokens;
    double gpu_seconds;
};

static bool count_token(const peridot_token *token, void *user) {
    (void)token;
    ++*(uint32_t *)user;
    return true;
}

static peridot_result start(peridot_session *session, struct frames *frames, peridot_error *error) {
    int32_t tokens[PROMPT_MOST];
    const struct model_config *config = &session->model->config;
    uint32_t count = session->context / 4 < PROMPT_MOST ? session->context / 4 : PROMPT_MOST;
    for (uint32_t i = 0; i < count; i++)
        tokens[i] = i ? (int32_t)(3 + i * 7919 % (config->vocabulary - 3)) : 2;
    peridot_sampling sampling = {.struct_size = sizeof sampling, .min_tokens = NO_END};
    peridot_work work = {.struct_size = sizeof work,
                         .tokens = tokens,
                         .token_count = count,
                         .generate = NO_END,
                         .on_token = count_token,
                         .user = &frames->tokens};
    peridot_result result = peridot_session_truncate(session, 0, error);
    if (!result)
        result = peridot_session_sampling(session, &sampling, error);
    return result ? result : peridot_session_start(session, &work, error);
}

/* A slice, until it has run; a new text when the context is full. */
static peridot_result run_frame(peridot_session *session, uint32_t budget_us, bool counted,
                                struct frames *frames, peridot_error *error) {
    peridot_advance advance = {.struct_size = sizeof advance, .budget_ms = budget_us / 1e3f};
    peridot_work_status status = {.struct_size = sizeof status};
    double begin = platform_seconds();
    peridot_result result = peridot_session_advance(session, &advance, NULL, error);
    double submit = platform_seconds() - begin;
    if (result < 0)
        return result;
    do
        result = peridot_session_poll(session, &status, error);
    while (!result && status.slices_in_flight);
    if (!result && counted) {
        frames->shares[frames->count] = status.slice_ms * 1e3 / budget_us;
        frames->submits[frames->count++] = submit * 1e6;
    }
    frames->gpu_seconds += status.slice_ms * 1e-3;
    return !result && !status.active ? start(session, frames, error) : result;
}

static void add_row(struct bench *bench, uint32_t budget_us, struct frames *frames) {
    cJSON *row = table_row(bench->table);
    double used = 0, over = 0;
    for (uint32_t i = 0; i < frames->count; i++) {
        used += frames->shares[i];
        over += frames->shares[i] > 1.25;
    }
    row_number(row, "budget_us", budget_us);
    row_number(row, "slices", frames->count);
    row_number(row, "over_percent", 100 * over / frames->count);
    row_number(row, "median_share_percent",
               100 * samples_quantile(frames->shares, frames->count, 0.5));
    row_number(row, "p99_share_percent",
               100 * samples_quantile(frames->shares, frames->count, 0.99));
    row_number(row, "worst_share_percent",
               100 * samples_quantile(frames->shares, frames->count, 1));
    row_number(row, "used_percent", 100 * used / frames->count);
    row_number(row, "submit_us", samples_quantile(frames->submits, frames->count, 0.5));
    row_number(row, "tokens", frames->tokens);
    row_number(row, "tokens_per_gpu_second", frames->tokens / frames->gpu_seconds);
}

static peridot_result run_budget(struct bench *bench, uint32_t budget_us, peridot_error *error) {
    uint32_t all = bench->options->frames;
    struct frames frames = {.shares = calloc(all, sizeof(double)),
                            .submits = calloc(all, sizeof(double))};
    peridot_session_params params = {.struct_size = sizeof params, .kv = bench->options->kv};
    peridot_session *session = NULL;
    peridot_result result = PERIDOT_OK;
    if (!frames.shares || !frames.submits)
        result = fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory for the frames");
    if (!result)
        result = peridot_session_create(bench->model, &params, &session, error);
    if (!result)
        result = start(session, &frames, error);
    for (uint32_t i = 0; i < all && !result; i++) {
        if (i % 16 == 0)
            progress("budget %u us: frame %u of %u", budget_us, i, all);
        result = run_frame(session, budget_us, i >= LEARNING, &frames, error);
    }
    if (!result && !(frames.gpu_seconds > 0))
        result = fail(error, PERIDOT_ERROR_UNSUPPORTED, "the device's queue has no timestamps");
    if (!result)
        add_row(bench, budget_us, &frames);
    peridot_session_close_wait(session);
    free(frames.shares);
    free(frames.submits);
    return result;
}

static void show_message(const char *text, void *user) {
    (void)user;
    warn(text);
}

static peridot_result run(struct bench *bench, peridot_error *error) {
    const struct slices_options *options = bench->options;
    peridot_device_params device = {.struct_size = sizeof device,
                                    .choice = options->device,
                                    .minimal = options->minimal,
                                    .message = show_message};
    peridot_model_params model = {.struct_size = sizeof model, .weights = options->weights};
    peridot_result result = peridot_device_open(&device, &bench->device, error);
    if (!result)
        result =
            peridot_model_load_wait(bench->device, options->model, &model, &bench->model, error);
    if (!result) {
        environment_describe(bench->device->engine, bench->results.about);
        cJSON_AddStringToObject(bench->results.about, "model", options->model);
        row_number(bench->results.about, "frames", options->frames);
    }
    for (uint32_t i = 0; i < options->budgets.count && !result; i++)
        result = run_budget(bench, options->budgets.at[i], error);
    progress_end();
    return result;
}

int bench_slices(int argc, char **argv) {
    struct slices_options options = {.budgets = {{1000, 2000, 4000}, 3}, .frames = 2000};
    const struct option table[] = {
        {"--model", "-m", OPTION_TEXT, &options.model, 0, 0},
        {"--device", "", OPTION_TEXT, &options.device, 0, 0},
        {"--weights", "", OPTION_WEIGHTS, &options.weights, 0, 0},
        {"--kv", "", OPTION_KV, &options.kv, 0, 0},
        {"--budget", "", OPTION_NUMBERS, &options.budgets, 1, 1e9},
        {"--frames", "", OPTION_NUMBER, &options.frames, LEARNING + 1, FRAMES_MAX},
        {"--quick", "", OPTION_FLAG, &options.quick, 0, 0},
        {"--minimal", "", OPTION_FLAG, &options.minimal, 0, 0},
        OUTPUT_OPTIONS(&options.output),
    };
    if (options_help(argc, argv)) {
        fputs(usage, stdout);
        return 0;
    }
    if (!options_parse("slices", argc, argv, table, sizeof table / sizeof *table))
        return 1;
    peridot_error error = {0};
    if (!options.model) {
        fail(&error, PERIDOT_ERROR_ARGUMENT, "slices of which model? Name it with -m");
        return complain(&error);
    }
    options.frames = options.quick ? 60 : options.frames;
    struct bench bench = {.options = &options};
    results_begin(&bench.results, "slices");
    bench.table = results_table(&bench.results, "slices", "Slices", slices_columns);
    peridot_result result = run(&bench, &error);
    if (!result)
        result = results_output(&bench.results, NULL, &options.output, &error);
    results_free(&bench.results);
    peridot_model_close(bench.model);
    peridot_device_close(bench.device);
    return result ? complain(&error) : 0;
}
