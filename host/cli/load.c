/* Opening device, model and session as the options say, and telling how it goes. */
#include "cli.h"
#include "demo.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int complain(const peridot_error *error) {
    fprintf(stderr, "peridot: %s\n", error->message);
    return 1;
}

static bool show_progress(const peridot_progress *progress, void *user) {
    (void)user;
    fprintf(stderr, "\r%s %3.0f %% ", progress->stage,
            progress->all ? 100.0 * (double)progress->done / (double)progress->all : 0.0);
    if (progress->done >= progress->all)
        fprintf(stderr, "\r%30s\r", "");
    return true;
}

static void show_message(const char *text, void *user) {
    (void)user;
    fprintf(stderr, "peridot: %s\n", text);
}

static void tell_device(const struct options *options, const peridot_device *device) {
    peridot_device_info info;
    peridot_device_describe(device, &info);
    bool software = strcmp(info.kind, "software") == 0;
    if (options->verbose || software)
        fprintf(stderr, "peridot: running on %s (%s)%s\n", info.name, info.kind,
                software ? ": there is no GPU driver here, so this is slow" : "");
}

static peridot_result load_demo(peridot_device *device, const peridot_model_params *params,
                                peridot_model **model, peridot_error *error) {
    peridot_file files[DEMO_FILES];
    demo_list(files);
    return peridot_model_load_files(device, files, DEMO_FILES, params, model, error);
}

peridot_result open_model(const struct options *options, peridot_device **device,
                          peridot_model **model, peridot_error *error) {
    peridot_device_params with = options->device;
    with.struct_size = sizeof with;
    with.message = show_message;
    *model = NULL;
    peridot_result result = peridot_device_open(&with, device, error);
    if (result)
        return result;
    tell_device(options, *device);
    peridot_model_params params = options->weights;
    params.struct_size = sizeof params;
    if (isatty(STDERR_FILENO))
        params.progress = show_progress;
    if (options->model)
        result = peridot_model_load(*device, options->model, &params, model, error);
    else
        result = load_demo(*device, &params, model, error);
    if (result)
        peridot_device_close(*device);
    return result;
}

peridot_result open_session(const struct options *options, peridot_model *model,
                            peridot_session **session, peridot_error *error) {
    peridot_session_params params = options->session;
    params.struct_size = sizeof params;
    peridot_result result = peridot_session_create(model, &params, session, error);
    peridot_sampling sampling = options->sampling;
    sampling.struct_size = sizeof sampling;
    if (!result) {
        result = peridot_session_sampling(*session, &sampling, error);
        if (result)
            peridot_session_close(*session);
    }
    return result;
}

void report_start(const struct options *options, const peridot_model *model,
                  const peridot_session *session) {
    peridot_session_statistics statistics;
    peridot_session_describe(session, &statistics);
    if (statistics.warning[0])
        fprintf(stderr, "peridot: %s\n", statistics.warning);
    if (!options->verbose)
        return;
    peridot_model_info info;
    peridot_model_describe(model, &info);
    fprintf(stderr,
            "peridot: %.1f M parameters, %.1f MiB on the device, loaded in %.2f s; %u pipelines in "
            "%.2f s "
            "(%s); %u dispatches and %u barriers a step\n",
            (double)info.parameters / 1e6, (double)info.weight_bytes / (1 << 20),
            info.seconds_loading, statistics.pipelines_compiled, statistics.seconds_compiling,
            statistics.pipeline_cache_bytes ? "with a pipeline cache" : "first start",
            statistics.dispatches_per_step, statistics.barriers_per_step);
}

char *read_text(const char *path, size_t *length) {
    FILE *file = strcmp(path, "-") == 0 ? stdin : fopen(path, "rb");
    if (!file) {
        fprintf(stderr, "peridot: cannot open %s\n", path);
        return NULL;
    }
    size_t capacity = 4096;
    char *text = malloc(capacity);
    *length = 0;
    while (text) {
        *length += fread(text + *length, 1, capacity - *length - 1, file);
        if (*length < capacity - 1)
            break;
        char *grown = realloc(text, capacity *= 2);
        if (!grown)
            free(text);
        text = grown;
    }
    bool failed = ferror(file);
    if (file != stdin)
        fclose(file);
    if (!text || failed) {
        fprintf(stderr, "peridot: cannot read %s\n", path);
        free(text);
        return NULL;
    }
    text[*length] = '\0';
    return text;
}
