/* peridot tune: measures which kernels are fastest for a model on a device, and keeps it. */
#include "cli.h"
#include "demo.h"
#include "environment.h"
#include "gemma_sizes.h"
#include "interrupt.h"
#include "platform.h"
#include "tuner.h"
#include "tuning_results.h"
#include "weight_rows.h"

#include <string.h>
#include <time.h>
#include <unistd.h>

#define SECONDS 60

/* ---- What is shown ---- */

struct show {
    bool terminal;
    bool lines; /* on standard output, where no JSON or CSV goes */
    uint32_t faster;
    struct results results;
    struct table *table;
};

static void name_kernel(const struct tuning_place *place, char *name, size_t size) {
    struct kernel_info info = kernel_info(place->kernel);
    char rows[32];
    snprintf(rows, sizeof rows, ", %u row%s", place->columns, place->columns == 1 ? "" : "s");
    snprintf(name, size, "%s%s%s%s", info.name, info.typed ? " " : "",
             info.typed ? weight_type_info((enum weight_type)place->type)->name : "",
             !info.typed           ? ""
             : place->columns == 0 ? ", many rows"
                                   : rows);
}

static void name_choice(const struct kernel_variant *variant, const uint32_t *spec, char *name,
                        size_t size) {
    snprintf(name, size, "%s %u,%u,%u", variant->name, spec[SPEC_WORKGROUP], spec[SPEC_ROWS],
             spec[SPEC_COLUMNS]);
}

static void print_finished(const struct tuner_progress *progress) {
    char kernel[96], before[96], after[96];
    const struct pipeline_key *untuned = &progress->want.key;
    name_kernel(&progress->want.place, kernel, sizeof kernel);
    name_choice(untuned->variant, untuned->spec, before, sizeof before);
    name_choice(progress->chosen.variant, progress->chosen.spec, after, sizeof after);
    if (progress->chosen.gain == 1)
        printf("%-34s %9.1f us  %s stays", kernel, 1e6 * progress->before, before);
    else
        printf("%-34s %9.1f us  %s, %.2f times as fast as %s", kernel, 1e6 * progress->after, after,
               progress->chosen.gain, before);
    printf("; %u of %u tried\n", progress->tried, progress->candidates);
    fflush(stdout);
}

static void show_tuning(const struct tuner_progress *progress, void *user) {
    struct show *show = user;
    char kernel[96];
    if (show->terminal)
        fprintf(stderr, "\r%78s\r", "");
    if (progress->broken || progress->finished)
        tuning_results_add(show->table, progress);
    name_kernel(&progress->want.place, kernel, sizeof kernel);
    if (progress->broken) {
        fprintf(stderr, "peridot: %s is wrong on this device, please report it: %s\n", kernel,
                progress->fault);
    } else if (progress->finished) {
        if (progress->wrong)
            fprintf(stderr,
                    "peridot: %u candidates were wrong and are left out, the last one: %s\n",
                    progress->wrong, progress->fault);
        if (show->lines)
            print_finished(progress);
        show->faster += progress->chosen.gain != 1;
    } else if (show->terminal) {
        fprintf(stderr, "%3.0f %%  %s: %u of %u",
                100.0 * ((double)progress->done + (double)progress->tried / progress->candidates) /
                    progress->all,
                kernel, progress->tried, progress->candidates);
    }
}

static bool is_stopped(void *user) {
    (void)user;
    return was_interrupted();
}

/* ---- The model ---- */

/* What tells a kernel set which types there are: a model of one layer, of a shard a matrix. */
struct shape_model {
    struct peridot_model model;
    struct layer layer;
    struct shard shards[5];
};

static void set_weight(struct shape_model *shape, struct weight *weight, uint32_t index,
                       const struct options *options, uint32_t columns) {
    enum weight_type wanted = options->weights.weights > PERIDOT_WEIGHTS_AUTO
                                  ? (enum weight_type)(options->weights.weights - 1)
                                  : WEIGHT_BF16; /* as Gemma comes */
    shape->shards[index].type = weight_row_type(wanted, index == 0, columns);
    *weight = (struct weight){.shards = &shape->shards[index], .shard_count = 1};
}

static peridot_result set_shape(struct shape_model *shape, const struct options *options,
                                peridot_device *device, peridot_error *error) {
    const struct model_config *config = NULL;
    for (int i = 0; i < GEMMA_SMALL; i++)
        if (strcmp(options->shape, gemma_sizes[i].name) == 0)
            config = &gemma_sizes[i].config;
    if (!config)
        return fail(error, PERIDOT_ERROR_ARGUMENT, "--shape takes 2b or 7b, not \"%.60s\"",
                    options->shape);
    *shape = (struct shape_model){
        .model = {.device = device, .config = *config, .is_home = true, .layer_count = 1}};
    struct peridot_model *model = &shape->model;
    model->config.layers = 1;
    model->head_dim_padded = round_up(config->head_dim, ROW_ALIGNMENT);
    model->layers = &shape->layer;
    set_weight(shape, &model->embedding, 0, options, config->d_model);
    set_weight(shape, &shape->layer.qkv, 1, options, config->d_model);
    set_weight(shape, &shape->layer.output, 2, options, config->heads * config->head_dim);
    set_weight(shape, &shape->layer.gate_up, 3, options, config->d_model);
    set_weight(shape, &shape->layer.down, 4, options, config->hidden);
    return PERIDOT_OK;
}

static peridot_result plan(const struct options *options, peridot_device *device,
                           struct peridot_model **model, peridot_error *error) {
    peridot_file files[DEMO_FILES];
    peridot_model_params params = options->weights;
    peridot_session_params session = options->session;
    params.struct_size = sizeof params;
    session.struct_size = sizeof session;
    params.session = &session;
    demo_list(files);
    return model_plan(device, options->model, files, DEMO_FILES, &params, model, error);
}

/* ---- The command ---- */

static void describe(const struct options *options, const struct peridot_model *model,
                     const struct show *show, uint32_t left) {
    cJSON *about = show->results.about;
    environment_describe(model->device->engine, about);
    cJSON_AddStringToObject(about, "model",
                            options->shape   ? options->shape
                            : options->model ? options->model
                                             : "demo");
    cJSON_AddStringToObject(about, "kv", kv_words[options->session.kv]);
    cJSON_AddStringToObject(about, "activations",
                            options->session.activations == PERIDOT_ACTIVATIONS_INT8 ? "int8"
                                                                                     : "f32");
    row_number(about, "kernels_faster", show->faster);
    row_number(about, "kernels_left", left); /* for want of time */
}

static peridot_result report(const struct options *options, const struct peridot_model *model,
                             struct show *show, uint32_t left, peridot_error *error) {
    struct output output = {options->json, options->csv, options->output};
    describe(options, model, show, left);
    if (show->lines)
        printf("%s now runs %u kernels faster; %u were left for want of time%s\n",
               model->device->engine->info.name, show->faster, left,
               was_interrupted() ? ": it was interrupted, and what was found is kept" : "");
    return results_write(&show->results, &output, error);
}

/* Tunes, and keeps what was found beside what was there, also after an error. */
static peridot_result tune(const struct options *options, const struct peridot_model *model,
                           const char *directory, struct tuning *tuning, struct show *show,
                           peridot_error *error) {
    struct tuner_params params = {
        .model = model,
        .kv = options->session.kv,
        .int8 = options->session.activations == PERIDOT_ACTIVATIONS_INT8,
        .seconds = options->seconds ? options->seconds : SECONDS,
        .seed = (uint64_t)time(NULL),
        .progress = show_tuning,
        .stop = is_stopped,
        .user = show,
    };
    const struct device *device = model->device->engine;
    uint32_t left = 0;
    peridot_error failed;
    catch_interrupts();
    peridot_result result = tuner_run(&params, tuning, &left, error);
    if (show->terminal)
        fprintf(stderr, "\r%78s\r", "");
    tuning->made = (int64_t)time(NULL);
    if (tuning_count(tuning) > 0) {
        peridot_result written = tuning_write(device, directory, tuning, &failed);
        if (written && !result) {
            *error = failed;
            return written;
        }
    }
    return result ? result : report(options, model, show, left, error);
}

static peridot_result run(const struct options *options, peridot_device **device,
                          struct peridot_model **model, struct tuning *tuning,
                          peridot_error *error) {
    char directory[4096], word[TUNING_WORD];
    struct shape_model shape;
    struct show show = {.terminal = isatty(STDERR_FILENO),
                        .lines = options->output || !(options->json || options->csv)};
    peridot_device_params with = options->device;
    with.struct_size = sizeof with;
    with.message = show_message;
    with.cache_directory = ""; /* candidates would fill the cache of pipelines */
    if (with.minimal)
        return fail(error, PERIDOT_ERROR_ARGUMENT,
                    "there is nothing to tune with --minimal, which takes the portable kernels as "
                    "they are");
    if (options->model && options->shape)
        return fail(error, PERIDOT_ERROR_ARGUMENT, "tune takes -m or --shape, not both");
    if (!platform_cache_directory(directory, sizeof directory))
        return fail(error, PERIDOT_ERROR_FILE,
                    "there is no folder to keep the tuning in: set PERIDOT_CACHE_DIR");
    peridot_result result = options->output ? check_output(options->output, error) : PERIDOT_OK;
    if (!result)
        result = peridot_device_open(&with, device, error);
    if (!result && options->shape)
        result = set_shape(&shape, options, *device, error);
    else if (!result)
        result = plan(options, *device, model, error);
    if (result)
        return result;
    tuning_read((*device)->engine, directory, tuning, word);
    if (*word)
        show_message(word, NULL);
    /* what was read, again: a folder that cannot be written is refused before the work */
    result = tuning_write((*device)->engine, directory, tuning, error);
    const struct peridot_model *measured = options->shape ? &shape.model : *model;
    if (result)
        return result;
    results_begin(&show.results, "tune");
    show.table = results_table(&show.results, "kernels", "Tuned kernels", tuning_columns);
    result = tune(options, measured, directory, tuning, &show, error);
    results_free(&show.results);
    return result;
}

int command_tune(struct options *options) {
    peridot_device *device = NULL;
    struct peridot_model *model = NULL;
    struct tuning tuning = {0};
    peridot_error error;
    peridot_result result = run(options, &device, &model, &tuning, &error);
    tuning_free(&tuning);
    peridot_model_close(model);
    peridot_device_close(device);
    return result ? complain(&error) : 0;
}
