/* Opening device, model and session as the options say, and telling how it goes. */
#include "cli.h"
#include "demo.h"
#include "device_choice.h"
#include "error.h"
#include "platform.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool progress_shown;

static void clear_progress(void) {
    if (progress_shown)
        fprintf(stderr, "\r%30s\r", "");
    progress_shown = false;
}

int complain(const peridot_error *error) {
    char line[sizeof error->message];
    size_t length = 0;
    for (const char *at = error->message; *at && length < sizeof line - 1; at++) {
        unsigned char c = (unsigned char)*at, next = (unsigned char)at[1];
        /* a name out of a hostile file must not steer the terminal: C0, DEL, and C1 in UTF-8 */
        bool c1 = c == 0xc2 && next >= 0x80 && next < 0xa0;
        line[length++] = c < 32 || c == 127 || c1 ? '?' : *at;
        at += c1;
    }
    line[length] = '\0';
    clear_progress();
    fprintf(stderr, "peridot: %s\n", line);
    return 1;
}

bool show_progress(const peridot_progress *progress, void *user) {
    (void)user;
    fprintf(stderr, "\r%s %3.0f %% ", progress->stage,
            progress->all ? 100.0 * (double)progress->done / (double)progress->all : 0.0);
    progress_shown = true;
    if (progress->done >= progress->all)
        clear_progress();
    return true;
}

void show_message(const char *text, void *user) {
    (void)user;
    fprintf(stderr, "peridot: %s\n", text);
}

static void tell_device(const struct options *options, const peridot_device *device) {
    peridot_device_info info = {.struct_size = sizeof info};
    peridot_device_describe(device, &info);
    bool software = strcmp(info.kind, "software") == 0;
    if (options->verbose || software)
        fprintf(stderr, "peridot: running on %s (%s)%s\n", info.name, info.kind,
                software ? ": there is no GPU driver here, so this is slow" : "");
}

/* Which layers are where. */
static void tell_split(const struct devices *devices, const peridot_model_info *info) {
    uint32_t first = 0;
    for (uint32_t i = 0; i < devices->count; i++) {
        peridot_device_info on = {.struct_size = sizeof on};
        peridot_device_describe(devices->list[i], &on);
        uint32_t count = info->device_layers[i];
        fprintf(stderr, "peridot: running on %s (%s): ", on.name, on.kind);
        if (count == 1)
            fprintf(stderr, "layer %u of %u%s\n", first, info->layers,
                    i ? "" : ", embedding and head");
        else if (count)
            fprintf(stderr, "layers %u to %u of %u%s\n", first, first + count - 1, info->layers,
                    i ? "" : ", embedding and head");
        else
            fprintf(stderr, "%s\n", i ? "no layers, it is not used" : "embedding and head alone");
        first += count;
    }
}

/* What was chosen for want of memory. */
static void tell_choice(const struct devices *devices, const peridot_model_info *info) {
    peridot_device_info on = {.struct_size = sizeof on};
    peridot_device_describe(devices->list[0], &on);
    if (info->weights_chosen)
        fprintf(stderr, "peridot: weights as %s, the most that fits in %s%s free memory\n",
                weights_name(info->weights), devices->count > 1 ? "the devices'" : on.name,
                devices->count > 1 ? "" : "'s");
}

static peridot_result load_demo(peridot_device *device, const peridot_model_params *params,
                                peridot_model **model, peridot_error *error) {
    peridot_file files[DEMO_FILES];
    demo_list(files);
    return peridot_model_load_files_wait(device, files, DEMO_FILES, params, model, error);
}

static peridot_result check_tokenizer(const struct options *options, peridot_error *error) {
    char path[4096];
    if (!options->needs_tokenizer || !options->model || !platform_is_directory(options->model))
        return PERIDOT_OK;
    int length = snprintf(path, sizeof path, "%s/tokenizer.model", options->model);
    if (length >= (int)sizeof path || platform_is_file(path))
        return PERIDOT_OK; /* what is wrong with the path, loading tells */
    return fail(error, PERIDOT_ERROR_FILE,
                "%s has no tokenizer: put its tokenizer.model beside config.json", options->model);
}

peridot_result open_model(const struct options *options, struct devices *devices,
                          peridot_model **model, peridot_error *error) {
    *model = NULL;
    peridot_result result = check_tokenizer(options, error);
    if (!result)
        result = open_devices(options, devices, error);
    if (result)
        return result;
    bool one = devices->count == 1;
    if (options->verbose && one)
        tell_device(options, devices->list[0]);
    peridot_session_params session = options->session;
    session.struct_size = sizeof session;
    peridot_model_params params = model_params(options, devices, &session);
    if (isatty(STDERR_FILENO))
        params.progress = show_progress;
    if (options->model)
        result = peridot_model_load_wait(devices->list[0], options->model, &params, model, error);
    else
        result = load_demo(devices->list[0], &params, model, error);
    if (result) {
        if (result == PERIDOT_ERROR_DEVICE_MEMORY)
            suggest_second_device(options, devices, error);
        close_devices(devices);
        return result;
    }
    peridot_model_info info = {.struct_size = sizeof info};
    peridot_model_describe(*model, &info);
    if (!one)
        tell_split(devices, &info);
    else if (!options->verbose)
        tell_device(options, devices->list[0]);
    tell_choice(devices, &info);
    return PERIDOT_OK;
}

static void tell_context(const struct options *options, const peridot_model *model,
                         const peridot_session *session) {
    peridot_model_info info = {.struct_size = sizeof info};
    peridot_model_describe(model, &info);
    uint32_t context = peridot_session_context(session);
    if (!options->session.context && context < info.context)
        fprintf(stderr, "peridot: a context of %u tokens: the model's %u do not fit in memory\n",
                context, info.context);
}

peridot_result open_session(const struct options *options, peridot_model *model,
                            peridot_session **session, peridot_error *error) {
    peridot_session_params params = options->session;
    params.struct_size = sizeof params;
    peridot_result result = peridot_session_create(model, &params, session, error);
    if (!result)
        tell_context(options, model, *session);
    peridot_sampling sampling = options->sampling;
    sampling.struct_size = sizeof sampling;
    if (!result) {
        result = peridot_session_sampling(*session, &sampling, error);
        if (result)
            peridot_session_close_wait(*session);
    }
    return result;
}

void report_start(const struct options *options, const peridot_model *model,
                  const peridot_session *session) {
    peridot_session_statistics statistics = {.struct_size = sizeof statistics};
    peridot_session_describe(session, &statistics);
    if (statistics.warning[0])
        fprintf(stderr, "peridot: %s\n", statistics.warning);
    if (!options->verbose)
        return;
    peridot_model_info info = {.struct_size = sizeof info};
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

peridot_result check_output(const char *path, peridot_error *error) {
    struct stat status;
    if (stat(path, &status) == 0 && !S_ISREG(status.st_mode))
        return fail(error, PERIDOT_ERROR_FILE, "cannot write %s: it is %s, not a regular file",
                    path, S_ISDIR(status.st_mode) ? "a directory" : "a device or a pipe");
    const char *slash = strrchr(path, '/');
    size_t length = slash ? (size_t)(slash - path) : 0;
    char *folder = malloc(length + 2);
    if (!folder)
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory while writing %s", path);
    memcpy(folder, slash == path ? "/" : slash ? path : ".", length ? length : 1);
    folder[length ? length : 1] = '\0';
    bool good = *path && access(folder, W_OK) == 0;
    int cause = *path ? errno : ENOENT;
    free(folder);
    if (good)
        return PERIDOT_OK;
    return fail(error, PERIDOT_ERROR_FILE, "cannot write %s: %s", path, strerror(cause));
}

char *read_text(const char *path, size_t *length) {
    FILE *file = strcmp(path, "-") == 0 ? stdin : fopen(path, "rb");
    if (!file) {
        fprintf(stderr, "peridot: cannot open %s: %s\n", path, strerror(errno));
        return NULL;
    }
    size_t capacity = 4096;
    errno = 0;
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
    int cause = errno;
    if (file != stdin)
        fclose(file);
    if (!text || failed) {
        fprintf(stderr, "peridot: cannot read %s: %s\n", path, strerror(cause));
        free(text);
        return NULL;
    }
    text[*length] = '\0';
    return text;
}
