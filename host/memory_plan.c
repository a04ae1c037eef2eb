#include "memory_plan.h"
#include "caller_struct.h"
#include "staging.h"

#include <stdio.h>
#include <string.h>

struct session_memory {
    uint64_t working, kv;
};

static double mebibytes(uint64_t bytes) {
    return (double)bytes / (1 << 20);
}

static void advise(char *text, size_t size, uint32_t context) {
    if (context)
        snprintf(text, size, "a context of %u would fit", context);
    else
        snprintf(text, size, "no context fits beside the weights");
}

/* What an arena of such blocks allocates for `count` buffers of `bytes`. */
static peridot_result add_alike(struct device *device, enum memory_kind kind, uint64_t block,
                                uint64_t bytes, uint32_t count, const char *name, uint64_t *sum,
                                peridot_error *error) {
    struct arena *arena = NULL;
    const struct buffer *none;
    peridot_result result = arena_plan(device, kind, block, &arena, error);
    for (uint32_t i = 0; i < count && !result; i++)
        result = arena_buffer(arena, bytes, name, &none, error);
    if (!result)
        *sum += arena_allocated(arena);
    arena_destroy(arena);
    return result;
}

static peridot_result add_scratch(struct device *device, const struct model_config *config,
                                  const struct session_shape *shape, uint64_t *sum,
                                  peridot_error *error) {
    struct arena *arena = NULL;
    peridot_result result = arena_plan(device, MEMORY_DEVICE, SESSION_BLOCK, &arena, error);
    for (int i = 0; i < SESSION_BUFFERS && !result; i++) {
        const char *name;
        const struct buffer *none;
        uint64_t bytes = session_buffer_bytes(config, shape, i, &name);
        if (bytes)
            result = arena_buffer(arena, bytes, name, &none, error);
    }
    if (!result)
        *sum += arena_allocated(arena);
    arena_destroy(arena);
    return result;
}

/* For `context` positions instead of those that `params` asks for. */
static peridot_result plan_session(const struct peridot_model *model,
                                   const peridot_session_params *params, uint32_t context,
                                   struct session_memory *memory, peridot_error *error) {
    struct device *device = model->device->engine;
    const struct model_config *config = &model->config;
    peridot_session_params given = *params;
    struct session_shape shape;
    given.context = context;
    *memory = (struct session_memory){0};
    peridot_result result = session_shape_settle(config, &given, &shape, error);
    if (!result)
        result = add_scratch(device, config, &shape, &memory->working, error);
    if (!result)
        result = add_alike(device, MEMORY_READBACK, RING_BLOCK, RING_BYTES, 1, "token ring",
                           &memory->working, error);
    uint64_t chunk = kv_chunk_size(config, shape.kv);
    if (!result)
        result = add_alike(device, MEMORY_DEVICE, chunk, chunk, 1, "KV cache", &memory->kv, error);
    memory->kv *= (shape.context + KV_CHUNK - 1) / KV_CHUNK;
    return result;
}

/* The largest context whose session takes `room` bytes at most; 0: none. */
static peridot_result largest_context(const struct peridot_model *model,
                                      const peridot_session_params *params, uint64_t room,
                                      uint32_t *context, peridot_error *error) {
    uint32_t fits = 0, most = model->config.context;
    peridot_result result = PERIDOT_OK;
    while (fits < most && !result) {
        uint32_t tried = fits + (most - fits + 1) / 2;
        struct session_memory memory;
        result = plan_session(model, params, tried, &memory, error);
        if (memory.working + memory.kv <= room)
            fits = tried;
        else
            most = tried - 1;
    }
    *context = fits;
    return result;
}

static peridot_result staging_memory(struct device *device, uint64_t *bytes, peridot_error *error) {
    uint64_t most = device->info.limits.max_allocation;
    uint64_t slot = STAGING_SLOT_BYTES < most ? STAGING_SLOT_BYTES : most;
    *bytes = 0;
    return add_alike(device, MEMORY_UPLOAD, slot, slot, STAGING_SLOTS, "staging", bytes, error);
}

/* Weights, and the staging ring where it takes the same memory. */
static peridot_result with_staging(struct device *device, uint64_t weights, uint64_t *sum,
                                   peridot_error *error) {
    uint64_t staging;
    peridot_result result = staging_memory(device, &staging, error);
    *sum = weights + (memory_shared(device, MEMORY_UPLOAD) ? staging : 0);
    return result;
}

peridot_result memory_plan_admits_weights(struct device *device, uint64_t needed, bool *admitted,
                                          peridot_error *error) {
    uint64_t sum;
    peridot_result result = with_staging(device, needed, &sum, error);
    *admitted = !result && sum <= memory_free(device);
    return result;
}

peridot_result memory_plan_refuse_weights(struct device *device, uint64_t needed,
                                          const char *advice, peridot_error *error) {
    uint64_t sum;
    peridot_result result = with_staging(device, needed, &sum, error);
    if (result)
        return result;
    return fail(error, PERIDOT_ERROR_DEVICE_MEMORY,
                "the weights alone need %.1f MiB and %s has %.1f MiB free: %s", mebibytes(sum),
                device->info.name, mebibytes(memory_free(device)), advice);
}

peridot_result memory_plan_fits(const struct peridot_model *model,
                                const peridot_session_params *params, uint32_t context, bool *fits,
                                peridot_error *error) {
    struct device *device = model->device->engine;
    uint64_t weights = arena_allocated(model->arena), room = memory_free(device);
    struct session_memory memory = {0};
    *fits = false;
    peridot_result result = memory_plan_admits_weights(device, weights, fits, error);
    if (!result && *fits)
        result = plan_session(model, params, context, &memory, error);
    *fits = *fits && weights + memory.working + memory.kv <= room;
    return result;
}

peridot_result memory_plan_default_context(const struct peridot_model *model,
                                           const peridot_session_params *params, uint64_t room,
                                           uint32_t *context, peridot_error *error) {
    uint32_t fits, all = model->config.context;
    peridot_result result = largest_context(model, params, room, &fits, error);
    *context = fits < KV_CHUNK || fits == all ? all : fits / KV_CHUNK * KV_CHUNK;
    return result;
}

peridot_result memory_plan_refused_weights(struct device *device, uint64_t needed,
                                           peridot_error *error) {
    return fail(error, PERIDOT_ERROR_DEVICE_MEMORY,
                "the weights alone need %.1f MiB and %s, with %.1f MiB free, refused a part of it: "
                "this model does not fit there",
                mebibytes(needed), device->info.name, mebibytes(memory_free(device)));
}

/* Adds to advice the first smaller type of KV cache with which the asked context fits, if any. */
static peridot_result advise_kv(char *text, size_t size, const struct peridot_model *model,
                                const peridot_session_params *params, uint32_t asked, uint64_t room,
                                peridot_error *error) {
    static const peridot_kv smaller[] = {PERIDOT_KV_F32, PERIDOT_KV_F16, PERIDOT_KV_Q8};
    const uint32_t count = sizeof smaller / sizeof *smaller;
    peridot_session_params given = *params;
    peridot_result result = PERIDOT_OK;
    uint32_t next = 0;
    while (smaller[next++] != params->kv) {
    }
    for (; next < count && !result; next++) {
        struct session_memory memory;
        given.kv = smaller[next];
        result = plan_session(model, &given, asked, &memory, error);
        if (result || memory.working + memory.kv > room)
            continue;
        size_t length = strlen(text);
        snprintf(text + length, size - length, ", or this one with --kv %s", kv_name(given.kv));
        break;
    }
    return result;
}

peridot_result memory_plan_admit_session(const struct peridot_model *model,
                                         const peridot_session_params *params,
                                         peridot_error *error) {
    struct device *device = model->device->engine;
    uint32_t asked = params->context ? params->context : model->config.context, fits;
    uint64_t room = memory_free(device);
    struct session_memory memory;
    peridot_result result = plan_session(model, params, asked, &memory, error);
    if (result || memory.working + memory.kv <= room)
        return result;
    char advice[128];
    result = largest_context(model, params, room, &fits, error);
    advise(advice, sizeof advice, fits);
    if (!result)
        result = advise_kv(advice, sizeof advice, model, params, asked, room, error);
    if (result)
        return result;
    return fail(error, PERIDOT_ERROR_DEVICE_MEMORY,
                "a context of %u tokens needs %.1f MiB beside the weights and %s has %.1f MiB "
                "free: %s",
                asked, mebibytes(memory.working + memory.kv), device->info.name, mebibytes(room),
                advice);
}

peridot_result memory_plan_refused_chunk(const struct peridot_session *session,
                                         peridot_error *error) {
    struct device *device = session->model->device->engine;
    const peridot_session_params params = {
        .kv = session->kv,
        .prefill_rows = session->prefill_rows,
        .activations = session->int8 ? PERIDOT_ACTIVATIONS_INT8 : PERIDOT_ACTIVATIONS_F32,
    };
    uint32_t has = session->chunk_count * KV_CHUNK;
    struct session_memory memory;
    peridot_result result = plan_session(session->model, &params, session->context, &memory, error);
    if (result)
        return result;
    char advice[64];
    advise(advice, sizeof advice, has);
    return fail(error, PERIDOT_ERROR_DEVICE_MEMORY,
                "a context of %u tokens needs %.1f MiB beside the weights and %s, with %.1f MiB "
                "still free, refused a part of it: %s",
                session->context, mebibytes(memory.working + memory.kv), device->info.name,
                mebibytes(memory_free(device)), advice);
}

peridot_result memory_plan_write(const struct peridot_model *model,
                                 const peridot_session_params *params, peridot_memory_plan *out,
                                 peridot_error *error) {
    struct device *device = model->device->engine;
    peridot_session_params given;
    peridot_memory_plan plan = {.weight_bytes = arena_allocated(model->arena),
                                .free_bytes = memory_free(device)};
    struct session_memory memory;
    uint64_t loading;
    peridot_result result =
        caller_struct_read(&given, sizeof given, params, "peridot_session_params", error);
    if (!result)
        result = staging_memory(device, &plan.staging_bytes, error);
    if (!result)
        result = with_staging(device, plan.weight_bytes, &loading, error);
    bool loads = !result && loading <= plan.free_bytes;
    uint64_t room = loads ? plan.free_bytes - plan.weight_bytes : 0;
    plan.context = given.context;
    if (!result && !plan.context)
        result = memory_plan_default_context(model, &given, room, &plan.context, error);
    if (!result)
        result = plan_session(model, &given, plan.context, &memory, error);
    if (!result && loads)
        result = largest_context(model, &given, room, &plan.largest_context, error);
    if (result)
        return result;
    plan.kv_bytes = memory.kv;
    plan.kv_token_bytes = kv_chunk_size(&model->config, given.kv) / KV_CHUNK;
    plan.working_bytes = memory.working;
    plan.total_bytes = plan.weight_bytes + memory.working + memory.kv;
    plan.fits = loads && plan.total_bytes <= plan.free_bytes;
    caller_struct_write(out, &plan, sizeof plan);
    return PERIDOT_OK;
}
