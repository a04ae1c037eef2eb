/* peridot perplexity: how well a model predicts a text, and how far it is from another one. */
#include "cli.h"
#include "error.h"
#include "interrupt.h"
#include "perplexity_report.h"
#include "platform.h"
#include "text_scores.h"

#include <math.h>
#include <stdlib.h>
#include <unistd.h>

#define WINDOW_DEFAULT 512

struct progress {
    double start;
    uint32_t all;
    bool shown; /* on a terminal */
};

static bool on_progress(uint32_t done, double loss, void *user) {
    const struct progress *progress = user;
    double left = (platform_seconds() - progress->start) / done * (progress->all - done);
    if (progress->shown && done < progress->all)
        fprintf(stderr, "\rscoring %3.0f %%, perplexity %.4g, %.0f s left ",
                100.0 * done / progress->all, exp(loss / done), left);
    else if (progress->shown)
        fprintf(stderr, "\r%60s\r", "");
    return !was_interrupted();
}

/* ---- Saving ---- */

struct saving {
    struct text_scoring *scoring;
    struct text_scores *scores;
    peridot_result result;
    peridot_error error;
};

static bool write_base(FILE *stream, void *user) {
    struct saving *saving = user;
    saving->scoring->save = stream;
    if (!logit_file_begin(stream, &saving->scoring->key))
        return false;
    saving->result = text_scores_fill(saving->scoring, saving->scores, &saving->error);
    return !saving->result;
}

/* The rows go to disk as they come, so the scoring happens while the file is written. */
static peridot_result save_base(const char *path, struct text_scoring *scoring,
                                struct text_scores *scores, peridot_error *error) {
    struct saving saving = {.scoring = scoring, .scores = scores};
    catch_interrupts();
    peridot_result result = platform_replace_file(path, write_base, &saving, error);
    if (!saving.result || saving.result == PERIDOT_ERROR_FILE)
        return result;
    *error = saving.error;
    return saving.result;
}

/* ---- The command ---- */

/* The text's tokens, as a person types them: without --special, <bos> is five letters. */
static peridot_result text_tokens(const struct options *options, const peridot_model *model,
                                  const char *text, size_t length, int32_t **tokens, size_t *count,
                                  peridot_error *error) {
    *tokens = NULL;
    peridot_result result =
        peridot_tokenize(model, text, length, options->special, NULL, 0, count, error);
    if (result)
        return result;
    if (*count == 0)
        return fail(error, PERIDOT_ERROR_ARGUMENT, "%s is empty: give a text to score",
                    options->file);
    *tokens = calloc(*count, sizeof **tokens);
    if (!*tokens)
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory for %zu tokens", *count);
    return peridot_tokenize(model, text, length, options->special, *tokens, *count, count, error);
}

/* Window and stride as the options say or by default. */
static peridot_result settle_windows(struct options *options, const peridot_model_info *info,
                                     peridot_error *error) {
    if (!options->context)
        options->context = info->context < WINDOW_DEFAULT ? info->context : WINDOW_DEFAULT;
    options->session.context = options->context;
    if (options->context < 2)
        return fail(error, PERIDOT_ERROR_ARGUMENT,
                    "with --context 1 there is only <bos>: give 2 or more");
    if (!options->stride)
        options->stride = options->context - 1;
    if (options->stride < options->context)
        return PERIDOT_OK;
    return fail(error, PERIDOT_ERROR_ARGUMENT,
                "--stride %u leaves out tokens between windows of %u: give %u at most",
                options->stride, options->context, options->context - 1);
}

static peridot_result score(const struct options *options, struct text_scoring *scoring,
                            struct perplexity_report *report, peridot_error *error) {
    struct text_scores scores = {0};
    struct logit_file base = {0};
    peridot_result result = PERIDOT_OK;
    if (options->kl_base)
        result = logit_file_open(options->kl_base, &scoring->key, &base, error);
    if (!result && !text_scores_create(&scores, scoring->key.scored, options->kl_base != NULL))
        result = fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory for the scores");
    struct progress progress = {platform_seconds(), scoring->key.scored, isatty(STDERR_FILENO)};
    scoring->base = options->kl_base ? &base : NULL;
    scoring->progress = on_progress;
    scoring->user = &progress;
    if (!result)
        result = options->save_base ? save_base(options->save_base, scoring, &scores, error)
                                    : text_scores_fill(scoring, &scores, error);
    report->seconds = platform_seconds() - progress.start;
    if (!result)
        perplexity_report_sum(report, &scores);
    else if (progress.shown)
        fprintf(stderr, "\r%60s\r", "");
    text_scores_free(&scores);
    logit_file_close(&base);
    return result;
}

static peridot_result run(struct options *options, peridot_model *model, const int32_t *tokens,
                          size_t count, peridot_error *error) {
    peridot_model_info info = {.struct_size = sizeof info};
    peridot_model_describe(model, &info);
    peridot_result result = settle_windows(options, &info, error);
    if (result)
        return result;
    uint32_t window = options->context, stride = options->stride;
    struct text_scoring scoring = {
        .bos = (int32_t)info.bos,
        .tokens = tokens,
        .token_count = count,
        .key = text_scoring_key(tokens, count, info.vocabulary, window, stride),
    };
    struct text_windows_sum sum = text_windows_sum(count, window, stride);
    struct perplexity_report report = {
        .weights = weights_name(info.weights),
        .tokens = count,
        .window = window,
        .stride = stride,
        .windows = sum.windows,
        .run = sum.run,
    };
    result = open_session(options, model, &scoring.session, error);
    if (result)
        return result;
    report_start(options, model, scoring.session);
    result = score(options, &scoring, &report, error);
    peridot_session_close_wait(scoring.session);
    if (!result && !options->json)
        perplexity_report_print(&report);
    else if (!result && !perplexity_report_print_json(&report))
        result = fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory for the report");
    return result;
}

static peridot_result check_options(const struct options *options, peridot_error *error) {
    if (!options->file)
        return fail(error, PERIDOT_ERROR_ARGUMENT,
                    "perplexity needs -f FILE, the text to score, or -f - for standard input");
    if (options->save_base && options->kl_base)
        return fail(error, PERIDOT_ERROR_ARGUMENT,
                    "perplexity saves a base or compares with one: give --save-base or --kl-base");
    return options->save_base ? check_output(options->save_base, error) : PERIDOT_OK;
}

int command_perplexity(struct options *options) {
    peridot_error error;
    if (check_options(options, &error))
        return complain(&error);
    size_t length, count;
    char *text = read_text(options->file, &length);
    if (!text)
        return 1;
    struct devices devices;
    peridot_model *model;
    int32_t *tokens = NULL;
    options->needs_tokenizer = true;
    peridot_result result = open_model(options, &devices, &model, &error);
    if (!result) {
        result = text_tokens(options, model, text, length, &tokens, &count, &error);
        if (!result)
            result = run(options, model, tokens, count, &error);
        peridot_model_close(model);
        close_devices(&devices);
    }
    free(tokens);
    free(text);
    return result ? complain(&error) : 0;
}
