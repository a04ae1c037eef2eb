/* Loading a model in steps: each does a bounded piece of work and none waits for the device. */
#include "caller_struct.h"
#include "memory_plan.h"
#include "platform.h"
#include "split.h"
#include "upload.h"
#include "weight_choice.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define FILES_MAX 64 /* of a model in memory */

#define PIECES 4096 /* of the tokenizer, in one step */

/* In the order in which they come. */
enum stage {
    STAGE_OPEN,
    STAGE_FINGERPRINT,
    STAGE_COMPARE_HEAD,
    STAGE_READ_PIECES,
    STAGE_TOKENIZER,
    STAGE_PLAN,
    STAGE_ADMIT,
    STAGE_PLACE, /* this one and the next three for each part */
    STAGE_UPLOAD,
    STAGE_ARRIVE,
    STAGE_HAND_OVER,
    STAGE_CLOSE_FILES,
    STAGE_CHOOSE_KERNELS,
    STAGE_COMPILE,
    STAGE_READY,
};

struct peridot_loading {
    peridot_device *device;
    char *path; /* NULL: from files */
    struct checkpoint_file files[FILES_MAX];
    uint32_t file_count;
    peridot_model_params params; /* its pointers lead to the copies below */
    peridot_session_params session;
    peridot_device *more_devices[PERIDOT_DEVICES_MAX];
    float split[PERIDOT_DEVICES_MAX];

    enum stage stage;
    bool waits;  /* the last step could do nothing before the device has got on */
    bool worked; /* there was a step in this call */
    bool enough; /* what is left of its time is too short for the next one */
    double started;
    struct checkpoint *checkpoint;
    uint64_t place; /* in what a stage goes through */
    struct checkpoint_tokenizer pieces;
    struct peridot_model *model, *part;
    uint64_t needed; /* of the part's device */
    uint64_t done, all;
    struct upload upload;
    struct lane hand_over;
    uint32_t pipelines, pipelines_left;
    double longest_compilation;
    peridot_error failure;
};

/* ---- Beginning and end ---- */

static peridot_result out_of_memory(peridot_error *error) {
    return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory while loading the model");
}

/* Or the next session of another model would compile what this one lacks. */
static void forget_pipelines(const struct peridot_model *model) {
    for (const struct peridot_model *part = model; part; part = model_next(part))
        pipelines_forget(part->device->engine);
}

static void free_loading(struct peridot_loading *loading) {
    if (!loading)
        return;
    lane_destroy(&loading->hand_over); /* it waits for the uploads' timeline */
    upload_end(&loading->upload);
    if (loading->stage == STAGE_CHOOSE_KERNELS || loading->stage == STAGE_COMPILE)
        forget_pipelines(loading->model);
    checkpoint_end_tokenizer(&loading->pieces);
    checkpoint_close(loading->checkpoint);
    peridot_model_close(loading->model);
    free(loading->path);
    free(loading);
}

/* Everything that `params` points to, but for devices and what callbacks get. */
static peridot_result copy_params(struct peridot_loading *loading,
                                  const peridot_model_params *params, peridot_error *error) {
    peridot_model_params *own = &loading->params;
    peridot_result result =
        caller_struct_read(own, sizeof *own, params, "peridot_model_params", error);
    if (!result && (own->weights < PERIDOT_WEIGHTS_FILE || own->weights > PERIDOT_WEIGHTS_NF4))
        result = fail(error, PERIDOT_ERROR_ARGUMENT, "there is no type of weights %d",
                      (int)own->weights);
    if (!result && own->session)
        result = caller_struct_read(&loading->session, sizeof loading->session, own->session,
                                    "peridot_session_params", error);
    if (result)
        return result;
    own->struct_size = sizeof *own;
    loading->session.struct_size = sizeof loading->session;
    own->session = &loading->session;
    uint32_t count = own->more_device_count; /* refused later, if there are too many */
    if (own->more_devices && count && count < PERIDOT_DEVICES_MAX) {
        memcpy(loading->more_devices, own->more_devices, count * sizeof *own->more_devices);
        own->more_devices = loading->more_devices;
    }
    if (own->split && count < PERIDOT_DEVICES_MAX) {
        memcpy(loading->split, own->split, (1 + count) * sizeof *own->split);
        own->split = loading->split;
    }
    return PERIDOT_OK;
}

static peridot_result copy_sources(struct peridot_loading *loading, const char *path,
                                   const peridot_file *files, uint32_t count,
                                   peridot_error *error) {
    if (path) {
        size_t size = strlen(path) + 1;
        loading->path = malloc(size);
        if (!loading->path)
            return out_of_memory(error);
        memcpy(loading->path, path, size);
        return PERIDOT_OK;
    }
    if (!files || count > FILES_MAX)
        return fail(error, PERIDOT_ERROR_ARGUMENT, "a model in memory has 1 to %d files",
                    FILES_MAX);
    for (uint32_t i = 0; i < count; i++)
        if (!files[i].name || (!files[i].data && files[i].size))
            return fail(error, PERIDOT_ERROR_ARGUMENT,
                        "file %u of a model in memory has no name or no data", i);
    for (uint32_t i = 0; i < count; i++)
        loading->files[i] = (struct checkpoint_file){files[i].name, files[i].data, files[i].size};
    loading->file_count = count;
    return PERIDOT_OK;
}

static peridot_result begin(peridot_device *device, const char *path, const peridot_file *files,
                            uint32_t count, const peridot_model_params *params,
                            struct peridot_loading **out, peridot_error *error) {
    struct peridot_loading *loading = calloc(1, sizeof *loading);
    *out = NULL;
    if (!loading)
        return out_of_memory(error);
    loading->device = device;
    loading->started = platform_seconds();
    peridot_result result = copy_sources(loading, path, files, count, error);
    if (!result)
        result = copy_params(loading, params, error);
    if (result)
        free_loading(loading);
    else
        *out = loading;
    return result;
}

/* ---- Reading ---- */

static peridot_result open_checkpoint(struct peridot_loading *loading, double seconds,
                                      peridot_error *error) {
    (void)seconds;
    peridot_result result = loading->path
                                ? checkpoint_open(loading->path, &loading->checkpoint, error)
                                : checkpoint_open_memory(loading->files, loading->file_count,
                                                         &loading->checkpoint, error);
    if (!result)
        result = model_create_parts(loading->device, checkpoint_config(loading->checkpoint),
                                    &loading->params, &loading->model, error);
    loading->stage++;
    return result;
}

/* What a step of a stage came to that says itself whether it was the last one. */
static peridot_result conclude(struct peridot_loading *loading, peridot_result result) {
    if (result)
        return result == PERIDOT_NOT_READY ? PERIDOT_OK : result;
    loading->place = 0;
    loading->stage++;
    return PERIDOT_OK;
}

static peridot_result sample_fingerprint(struct peridot_loading *loading, double seconds,
                                         peridot_error *error) {
    (void)seconds;
    return conclude(loading, checkpoint_sample(loading->checkpoint, &loading->place,
                                               &loading->model->fingerprint, error));
}

static peridot_result compare_head(struct peridot_loading *loading, double seconds,
                                   peridot_error *error) {
    (void)seconds;
    return conclude(loading, checkpoint_compare_head(loading->checkpoint, &loading->place,
                                                     &loading->model->own_head, error));
}

static peridot_result read_pieces(struct peridot_loading *loading, double seconds,
                                  peridot_error *error) {
    (void)seconds;
    loading->stage++;
    return checkpoint_begin_tokenizer(loading->checkpoint, &loading->pieces, error);
}

static peridot_result make_tokenizer(struct peridot_loading *loading, double seconds,
                                     peridot_error *error) {
    (void)seconds;
    peridot_result result =
        checkpoint_step_tokenizer(&loading->pieces, PIECES, &loading->model->tokenizer, error);
    if (result)
        return result == PERIDOT_NOT_READY ? PERIDOT_OK : result;
    checkpoint_end_tokenizer(&loading->pieces);
    loading->stage++;
    return PERIDOT_OK;
}

/* ---- Weights ---- */

static peridot_result plan(struct peridot_loading *loading, double seconds, peridot_error *error) {
    (void)seconds;
    struct session_shape shape;
    peridot_result result = PERIDOT_OK;
    loading->stage++;
    if (loading->params.compile_pipelines) /* to hear now what is wrong with it */
        result = session_shape_settle(&loading->model->config, &loading->session, &shape, error);
    if (result)
        return result;
    return weight_choice_settle(loading->model, loading->checkpoint, &loading->params, error);
}

static peridot_result admit(struct peridot_loading *loading, double seconds, peridot_error *error) {
    (void)seconds;
    struct shortage shortage;
    peridot_result result = memory_plan_admits_weights(loading->model, &shortage, error);
    if (!result && shortage.device)
        result = weight_choice_refuse(loading->model, loading->checkpoint, &loading->params,
                                      &shortage, error);
    loading->part = loading->model;
    loading->all = upload_file_bytes(loading->checkpoint, loading->model->own_head != NULL);
    loading->stage++;
    return result;
}

/* In place of what one buffer was refused with: what the whole part needs. */
static peridot_result refuse_part(struct peridot_loading *loading, peridot_error *error) {
    bool arrived = false;
    if (upload_poll(&loading->upload, &arrived, NULL) == PERIDOT_OK && arrived)
        upload_end(&loading->upload);
    return memory_plan_refused_weights(loading->part, loading->needed, error);
}

/* Instead of the part's plan memory. */
static peridot_result place(struct peridot_loading *loading, double seconds, peridot_error *error) {
    (void)seconds;
    struct peridot_model *part = loading->part;
    loading->needed = arena_allocated(part->arena);
    loading->stage++;
    peridot_result result = model_make_arena(part, error);
    if (!result)
        result = upload_begin(part, loading->checkpoint, &loading->params, &loading->upload, error);
    return result == PERIDOT_ERROR_DEVICE_MEMORY ? refuse_part(loading, error) : result;
}

static peridot_result report(const struct peridot_loading *loading, const char *stage,
                             uint64_t done, uint64_t all, peridot_error *error) {
    const peridot_model_params *params = &loading->params;
    peridot_progress progress = {stage, done, all};
    if (params->progress && !params->progress(&progress, params->progress_user))
        return fail(error, PERIDOT_ERROR_CANCELLED, "loading was cancelled");
    return PERIDOT_OK;
}

static peridot_result upload(struct peridot_loading *loading, double seconds,
                             peridot_error *error) {
    struct upload *upload = &loading->upload;
    uint64_t before = upload->bytes;
    loading->enough = loading->worked && seconds < upload->row_seconds;
    if (loading->enough)
        return PERIDOT_OK;
    peridot_result result = upload_step(upload, seconds, error);
    if (result == PERIDOT_ERROR_DEVICE_MEMORY)
        return refuse_part(loading, error);
    loading->waits = upload->waits;
    loading->done += upload->bytes - before;
    loading->stage += upload->sent;
    if (result || upload->bytes == before)
        return result;
    return report(loading, "uploading", loading->done, loading->all, error);
}

static peridot_result arrive(struct peridot_loading *loading, double seconds,
                             peridot_error *error) {
    (void)seconds;
    bool arrived;
    peridot_result result = upload_poll(&loading->upload, &arrived, error);
    loading->waits = !arrived;
    if (result || !arrived)
        return result;
    const struct lane *uploads = &loading->upload.staging.lane;
    if (uploads->transfers)
        result = lane_create(uploads->device, &loading->hand_over, error);
    if (!result && uploads->transfers)
        result = lane_follow(&loading->hand_over, uploads, error);
    loading->stage++;
    return result;
}

/* The queue for compute must have waited for the transfer queue's semaphore, though the wait is
 * over before it begins: being told by the host makes nothing visible to it. */
static peridot_result hand_over(struct peridot_loading *loading, double seconds,
                                peridot_error *error) {
    (void)seconds;
    struct lane *lane = &loading->hand_over;
    bool over = true;
    peridot_result result =
        lane->device ? lane_poll(lane, lane->submitted, &over, error) : PERIDOT_OK;
    loading->waits = !over;
    if (result || !over)
        return result;
    lane_destroy(lane);
    upload_end(&loading->upload);
    loading->part = model_next(loading->part);
    loading->stage = loading->part ? STAGE_PLACE : STAGE_CLOSE_FILES;
    return PERIDOT_OK;
}

static peridot_result close_files(struct peridot_loading *loading, double seconds,
                                  peridot_error *error) {
    (void)seconds;
    (void)error;
    checkpoint_close(loading->checkpoint);
    loading->checkpoint = NULL;
    loading->model->own_head = NULL; /* went with the checkpoint */
    loading->model->seconds_loading = platform_seconds() - loading->started;
    loading->part = loading->model;
    loading->stage = loading->params.compile_pipelines ? STAGE_CHOOSE_KERNELS : STAGE_READY;
    return PERIDOT_OK;
}

/* ---- Pipelines ---- */

static uint32_t count_missing(const struct peridot_model *model) {
    uint32_t missing = 0;
    for (const struct peridot_model *part = model; part; part = model_next(part))
        missing += pipelines_missing(part->device->engine);
    return missing;
}

/* Another session of the device may have compiled some, a cancelled loading have forgotten some. */
static peridot_result want_kernels(const struct peridot_loading *loading, peridot_error *error) {
    struct session_shape shape;
    struct kernel_set kernels;
    peridot_result result =
        session_shape_settle(&loading->model->config, &loading->session, &shape, error);
    for (struct peridot_model *part = loading->model; part && !result; part = model_next(part))
        result = kernel_set_create(part, shape.kv, shape.int8, &kernels, error);
    return result;
}

static peridot_result choose_kernels(struct peridot_loading *loading, double seconds,
                                     peridot_error *error) {
    (void)seconds;
    peridot_result result = want_kernels(loading, error);
    loading->pipelines = loading->pipelines_left = count_missing(loading->model);
    loading->stage += !result;
    return result;
}

static bool report_compiling(uint32_t done, uint32_t all, void *user) {
    const struct peridot_loading *loading = user;
    uint64_t before = loading->pipelines - loading->pipelines_left;
    (void)all;
    return report(loading, "compiling", before + done, loading->pipelines, NULL) == PERIDOT_OK;
}

/* The part's pipelines are all there. */
static peridot_result next_part(struct peridot_loading *loading) {
    loading->part = model_next(loading->part);
    loading->stage += !loading->part;
    return PERIDOT_OK;
}

/* All of a device at once, on as many threads as it may have. */
static peridot_result compile_all(struct peridot_loading *loading, peridot_error *error) {
    peridot_result result =
        pipelines_compile(loading->part->device->engine, report_compiling, loading, error);
    loading->pipelines_left = count_missing(loading->model);
    return result ? result : next_part(loading);
}

/* One, or with none to compile the cache on disk. */
static peridot_result compile(struct peridot_loading *loading, double seconds,
                              peridot_error *error) {
    struct device *device = loading->part->device->engine;
    peridot_result result = want_kernels(loading, error);
    if (result)
        return result;
    if (isinf(seconds))
        return compile_all(loading, error);
    uint32_t left = pipelines_missing(device);
    bool none = left == 0;
    loading->enough = loading->worked && !none && seconds < loading->longest_compilation;
    if (loading->enough)
        return PERIDOT_OK;
    double start = platform_seconds();
    result = pipelines_compile_one(device, &left, error);
    if (result)
        return result;
    if (none)
        return next_part(loading);
    double took = platform_seconds() - start;
    if (took > loading->longest_compilation)
        loading->longest_compilation = took;
    loading->pipelines_left = count_missing(loading->model);
    return report(loading, "compiling", loading->pipelines - loading->pipelines_left,
                  loading->pipelines, error);
}

/* ---- Steps ---- */

/* A bounded piece of work, of about `seconds` where it can be cut. */
static peridot_result step(struct peridot_loading *loading, double seconds, peridot_error *error) {
    static peridot_result (*const stages[])(struct peridot_loading *, double, peridot_error *) = {
        [STAGE_OPEN] = open_checkpoint,
        [STAGE_FINGERPRINT] = sample_fingerprint,
        [STAGE_COMPARE_HEAD] = compare_head,
        [STAGE_READ_PIECES] = read_pieces,
        [STAGE_TOKENIZER] = make_tokenizer,
        [STAGE_PLAN] = plan,
        [STAGE_ADMIT] = admit,
        [STAGE_PLACE] = place,
        [STAGE_UPLOAD] = upload,
        [STAGE_ARRIVE] = arrive,
        [STAGE_HAND_OVER] = hand_over,
        [STAGE_CLOSE_FILES] = close_files,
        [STAGE_CHOOSE_KERNELS] = choose_kernels,
        [STAGE_COMPILE] = compile,
    };
    return stages[loading->stage](loading, seconds, error);
}

/* Steps until `budget` seconds are over, one at least, or the device must get on first. */
static peridot_result advance(struct peridot_loading *loading, double budget, enum stage until,
                              peridot_error *error) {
    double end = platform_seconds() + budget, left = budget;
    peridot_error own = {0};
    peridot_result result = PERIDOT_OK;
    if (loading->failure.code)
        return fail(error, loading->failure.code, "%s", loading->failure.message);
    loading->waits = loading->worked = loading->enough = false;
    do {
        if (loading->stage < until)
            result = step(loading, left, &own);
        loading->worked = true;
        left = isinf(budget) ? budget : end - platform_seconds();
    } while (!result && !loading->waits && !loading->enough && loading->stage < until && left > 0);
    if (!result && loading->stage == STAGE_UPLOAD)
        result = staging_flush(&loading->upload.staging, &own);
    if (result)
        return fail(error, fail(&loading->failure, result, "%s", own.message), "%s", own.message);
    return loading->stage < until ? PERIDOT_NOT_READY : PERIDOT_OK;
}

/* Until the device has got on. */
static peridot_result wait(struct peridot_loading *loading, peridot_error *error) {
    struct lane *lane = &loading->hand_over;
    return lane->device ? lane_wait(lane, lane->submitted, error)
                        : upload_wait(&loading->upload, error);
}

/* All of it up to a stage. On an error there is no model. */
static peridot_result run(struct peridot_loading *loading, enum stage until,
                          struct peridot_model **model, peridot_error *error) {
    peridot_result result;
    while ((result = advance(loading, INFINITY, until, error)) == PERIDOT_NOT_READY) {
        result = wait(loading, error);
        if (result)
            break;
    }
    if (!result) {
        *model = loading->model;
        loading->model = NULL;
    }
    free_loading(loading);
    return result;
}

peridot_result model_plan(peridot_device *device, const char *path, const peridot_file *files,
                          uint32_t count, const peridot_model_params *params,
                          struct peridot_model **model, peridot_error *error) {
    struct peridot_loading *loading;
    *model = NULL;
    peridot_result result = begin(device, path, files, count, params, &loading, error);
    if (!result)
        result = run(loading, STAGE_ADMIT, model, error);
    if (!result)
        (*model)->own_head = NULL; /* went with the checkpoint */
    return result;
}

/* ---- In steps, for the application ---- */

peridot_result peridot_model_load_begin(peridot_device *device, const char *path,
                                        const peridot_model_params *params,
                                        peridot_loading **loading, peridot_error *error) {
    if (loading)
        *loading = NULL;
    if (!device || !path || !loading)
        return fail(error, PERIDOT_ERROR_ARGUMENT,
                    "peridot_model_load_begin needs a device, a path and a place for the loading");
    return begin(device, path, NULL, 0, params, loading, error);
}

peridot_result peridot_model_load_files_begin(peridot_device *device, const peridot_file *files,
                                              uint32_t count, const peridot_model_params *params,
                                              peridot_loading **loading, peridot_error *error) {
    if (loading)
        *loading = NULL;
    if (!device || !loading)
        return fail(error, PERIDOT_ERROR_ARGUMENT,
                    "peridot_model_load_files_begin needs a device and a place for the loading");
    return begin(device, NULL, files, count, params, loading, error);
}

static void write_status(const struct peridot_loading *loading, peridot_loading_status *out) {
    peridot_loading_status status = {.stage = "reading"};
    status.finished = loading->stage == STAGE_READY;
    status.waiting = loading->waits;
    if (loading->stage >= STAGE_CHOOSE_KERNELS) {
        status.stage = status.finished ? "finished" : "compiling";
        status.done = loading->pipelines - loading->pipelines_left;
        status.all = loading->pipelines;
    } else if (loading->stage >= STAGE_PLACE) {
        status.stage = "uploading";
        status.done = loading->done;
        status.all = loading->all;
    }
    caller_struct_write(out, &status, sizeof status);
}

peridot_result peridot_loading_advance(peridot_loading *loading, float budget_ms,
                                       peridot_loading_status *status, peridot_error *error) {
    if (!loading)
        return fail(error, PERIDOT_ERROR_ARGUMENT, "peridot_loading_advance needs a loading");
    double budget = budget_ms > 0 ? budget_ms / 1e3 : 0;
    peridot_result result = caller_struct_check(status, "peridot_loading_status", error);
    if (result)
        return result;
    result = advance(loading, budget, STAGE_READY, error);
    if (status)
        write_status(loading, status);
    return result;
}

peridot_result peridot_loading_finish(peridot_loading *loading, peridot_model **model,
                                      peridot_error *error) {
    if (model)
        *model = NULL;
    if (!loading || !model)
        return fail(error, PERIDOT_ERROR_ARGUMENT,
                    "peridot_loading_finish needs a loading and a place for the model");
    if (loading->failure.code)
        return fail(error, loading->failure.code, "%s", loading->failure.message);
    if (loading->stage < STAGE_READY)
        return PERIDOT_NOT_READY;
    *model = loading->model;
    loading->model = NULL;
    free_loading(loading);
    return PERIDOT_OK;
}

peridot_result peridot_loading_cancel(peridot_loading *loading) {
    if (!loading)
        return PERIDOT_OK;
    if (!loading->failure.code)
        (void)fail(&loading->failure, PERIDOT_ERROR_CANCELLED, "loading was cancelled");
    if (!lane_is_over(&loading->hand_over) || !lane_is_over(&loading->upload.staging.lane))
        return PERIDOT_NOT_READY;
    free_loading(loading);
    return PERIDOT_OK;
}

/* ---- At once ---- */

peridot_result peridot_model_load_wait(peridot_device *device, const char *path,
                                       const peridot_model_params *params, peridot_model **model,
                                       peridot_error *error) {
    struct peridot_loading *loading;
    if (model)
        *model = NULL;
    if (!device || !path || !model)
        return fail(error, PERIDOT_ERROR_ARGUMENT,
                    "peridot_model_load_wait needs a device, a path and a place for the model");
    peridot_result result = begin(device, path, NULL, 0, params, &loading, error);
    return result ? result : run(loading, STAGE_READY, model, error);
}

peridot_result peridot_model_load_files_wait(peridot_device *device, const peridot_file *files,
                                             uint32_t count, const peridot_model_params *params,
                                             peridot_model **model, peridot_error *error) {
    struct peridot_loading *loading;
    if (model)
        *model = NULL;
    if (!device || !model)
        return fail(error, PERIDOT_ERROR_ARGUMENT,
                    "peridot_model_load_files_wait needs a device and a place for the model");
    peridot_result result = begin(device, NULL, files, count, params, &loading, error);
    return result ? result : run(loading, STAGE_READY, model, error);
}
