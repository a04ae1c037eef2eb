#include "memory_plan.h"
#include "caller_struct.h"
#include "hand_over.h"
#include "platform.h"
#include "staging.h"

#include <stdio.h>
#include <string.h>

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

static peridot_result add_scratch(const struct peridot_model *part,
                                  const struct session_shape *shape, uint64_t *sum,
                                  peridot_error *error) {
    struct arena *arena = NULL;
    peridot_result result =
        arena_plan(part->device->engine, MEMORY_DEVICE, SESSION_BLOCK, &arena, error);
    for (int i = 0; i < SESSION_BUFFERS && !result; i++) {
        const char *name;
        const struct buffer *none;
        uint64_t bytes = session_buffer_bytes(&part->config, shape, i, &name);
        if (bytes && session_has_buffer(part, i))
            result = arena_buffer(arena, bytes, name, &none, error);
    }
    if (!result)
        *sum += arena_allocated(arena);
    arena_destroy(arena);
    return result;
}

static bool has_neighbour(const struct peridot_model *part) {
    return !part->is_home || model_next(part);
}

peridot_result memory_plan_session(const struct peridot_model *part,
                                   const peridot_session_params *params, uint32_t context,
                                   struct session_memory *memory, peridot_error *error) {
    struct device *device = part->device->engine;
    peridot_session_params given = *params;
    struct session_shape shape;
    given.context = context;
    *memory = (struct session_memory){0};
    peridot_result result = session_shape_settle(&part->config, &given, &shape, error);
    if (result)
        return result;
    uint64_t *working = &memory->working, rows = hand_over_bytes(part, shape.prefill_rows);
    uint64_t chunk = kv_chunk_size(&part->config, part->layer_count, shape.kv);
    result = add_scratch(part, &shape, working, error);
    if (!result && part->is_home)
        result = add_alike(device, MEMORY_READBACK, RING_BLOCK, RING_BYTES, 1, "token ring",
                           working, error);
    if (!result && has_neighbour(part))
        result = add_alike(device, MEMORY_READBACK, rows, rows, 1, "outbox", working, error);
    if (!result && has_neighbour(part))
        result = add_alike(device, MEMORY_UPLOAD, rows, rows, 1, "inbox", working, error);
    if (!result && chunk)
        result = add_alike(device, MEMORY_DEVICE, chunk, chunk, 1, "KV cache", &memory->kv, error);
    memory->kv *= (shape.context + KV_CHUNK - 1) / KV_CHUNK;
    return result;
}

/* ---- What is left on each device ---- */

static bool in_host_memory(const struct peridot_model *part) {
    VkPhysicalDeviceType type = part->device->engine->info.type;
    return type == VK_PHYSICAL_DEVICE_TYPE_CPU || type == VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU;
}

/* Bytes for a part on its device, where `taken` of the host's memory are promised to other parts:
 * devices without memory of their own would each count the same as free. */
static uint64_t room_for(const struct peridot_model *part, uint64_t taken) {
    uint64_t room = memory_free(part->device->engine), all = 0, there = 0;
    if (taken && in_host_memory(part)) {
        platform_host_memory(&there, &all);
        uint64_t left = there > taken ? there - taken : 0;
        if (all && left < room)
            room = left;
    }
    return room;
}

/* Bytes of the part's weights that are still to come. */
static uint64_t planned_bytes(const struct peridot_model *part) {
    return arena_is_plan(part->arena) ? arena_allocated(part->arena) : 0;
}

static void name_part(const struct peridot_model *part, const char *rest, struct shortage *out) {
    const char *home = part->is_home ? "the embedding and " : "";
    uint32_t first = part->first_layer, last = first + part->layer_count - 1;
    if (!has_neighbour(part))
        snprintf(out->what, sizeof out->what, "the weights%s", rest);
    else if (part->layer_count == 0)
        snprintf(out->what, sizeof out->what, "the embedding%s", rest);
    else if (part->layer_count == 1)
        snprintf(out->what, sizeof out->what, "%slayer %u%s", home, first, rest);
    else
        snprintf(out->what, sizeof out->what, "%slayers %u to %u%s", home, first, last, rest);
}

/* The first part that has no room for a session of `context` positions beside the weights; of none
 * the shortage's device is NULL. */
static peridot_result find_shortage(const struct peridot_model *model,
                                    const peridot_session_params *params, uint32_t context,
                                    struct shortage *shortage, peridot_error *error) {
    uint64_t taken = 0;
    peridot_result result = PERIDOT_OK;
    *shortage = (struct shortage){0};
    for (const struct peridot_model *part = model; part && !result && !shortage->device;
         part = model_next(part)) {
        struct session_memory memory;
        uint64_t room = room_for(part, taken), weights = planned_bytes(part);
        result = memory_plan_session(part, params, context, &memory, error);
        uint64_t needed = memory.working + memory.kv;
        taken += in_host_memory(part) ? weights + needed : 0;
        if (result || weights + needed <= room)
            continue;
        *shortage = (struct shortage){part->device->engine, needed,
                                      room > weights ? room - weights : 0, ""};
        name_part(part, "", shortage);
    }
    return result;
}

/* The largest context that a session can have beside the weights; 0: none. */
static peridot_result largest_context(const struct peridot_model *model,
                                      const peridot_session_params *params, uint32_t *context,
                                      peridot_error *error) {
    uint32_t fits = 0, most = model->config.context;
    peridot_result result = PERIDOT_OK;
    while (fits < most && !result) {
        uint32_t tried = fits + (most - fits + 1) / 2;
        struct shortage shortage;
        result = find_shortage(model, params, tried, &shortage, error);
        if (!shortage.device)
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

peridot_result memory_plan_loading(struct device *device, uint64_t weights, uint64_t *sum,
                                   peridot_error *error) {
    uint64_t staging;
    peridot_result result = staging_memory(device, &staging, error);
    *sum = weights + (memory_shared(device, MEMORY_UPLOAD) ? staging : 0);
    return result;
}

peridot_result memory_plan_admits_weights(const struct peridot_model *model,
                                          struct shortage *shortage, peridot_error *error) {
    uint64_t taken = 0;
    peridot_result result = PERIDOT_OK;
    *shortage = (struct shortage){0};
    for (const struct peridot_model *part = model; part && !result && !shortage->device;
         part = model_next(part)) {
        uint64_t weights = planned_bytes(part), room = room_for(part, taken), needed;
        result = memory_plan_loading(part->device->engine, weights, &needed, error);
        taken += in_host_memory(part) ? weights : 0;
        if (result || needed <= room)
            continue;
        *shortage = (struct shortage){part->device->engine, needed, room, ""};
        name_part(part, " alone", shortage);
    }
    return result;
}

peridot_result memory_plan_refuse_weights(const struct shortage *shortage, const char *advice,
                                          peridot_error *error) {
    return fail(error, PERIDOT_ERROR_DEVICE_MEMORY,
                "%s need %.1f MiB while they are loaded and %s has %.1f MiB free: %s",
                shortage->what, mebibytes(shortage->needed), shortage->device->info.name,
                mebibytes(shortage->there), advice);
}

peridot_result memory_plan_fits(const struct peridot_model *model,
                                const peridot_session_params *params, uint32_t context, bool *fits,
                                peridot_error *error) {
    struct shortage shortage;
    peridot_result result = memory_plan_admits_weights(model, &shortage, error);
    if (!result && !shortage.device)
        result = find_shortage(model, params, context, &shortage, error);
    *fits = !result && !shortage.device;
    return result;
}

peridot_result memory_plan_default_context(const struct peridot_model *model,
                                           const peridot_session_params *params, uint32_t *context,
                                           peridot_error *error) {
    uint32_t fits, all = model->config.context;
    peridot_result result = largest_context(model, params, &fits, error);
    *context = fits < KV_CHUNK || fits == all ? all : fits / KV_CHUNK * KV_CHUNK;
    return result;
}

peridot_result memory_plan_refused_weights(const struct peridot_model *part, uint64_t needed,
                                           peridot_error *error) {
    struct device *device = part->device->engine;
    struct shortage shortage;
    name_part(part, " alone", &shortage);
    return fail(error, PERIDOT_ERROR_DEVICE_MEMORY,
                "%s need %.1f MiB and %s, with %.1f MiB free, refused a part of it: this model "
                "does not fit there",
                shortage.what, mebibytes(needed), device->info.name,
                mebibytes(memory_free(device)));
}

/* Adds to advice the first smaller type of KV cache with which the asked context fits, if any. */
static peridot_result advise_kv(char *text, size_t size, const struct peridot_model *model,
                                const peridot_session_params *params, uint32_t asked,
                                peridot_error *error) {
    static const peridot_kv smaller[] = {PERIDOT_KV_F32, PERIDOT_KV_F16, PERIDOT_KV_Q8};
    const uint32_t count = sizeof smaller / sizeof *smaller;
    peridot_session_params given = *params;
    peridot_result result = PERIDOT_OK;
    uint32_t next = 0;
    while (smaller[next++] != params->kv) {
    }
    for (; next < count && !result; next++) {
        struct shortage shortage;
        given.kv = smaller[next];
        result = find_shortage(model, &given, asked, &shortage, error);
        if (result || shortage.device)
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
    uint32_t asked = params->context ? params->context : model->config.context, fits;
    struct shortage shortage;
    peridot_result result = find_shortage(model, params, asked, &shortage, error);
    if (result || !shortage.device)
        return result;
    char advice[128];
    result = largest_context(model, params, &fits, error);
    advise(advice, sizeof advice, fits);
    if (!result)
        result = advise_kv(advice, sizeof advice, model, params, asked, error);
    if (result)
        return result;
    return fail(error, PERIDOT_ERROR_DEVICE_MEMORY,
                "a context of %u tokens needs %.1f MiB beside %s and %s has %.1f MiB free: %s",
                asked, mebibytes(shortage.needed), shortage.what, shortage.device->info.name,
                mebibytes(shortage.there), advice);
}

static peridot_session_params params_of(const struct peridot_session *session) {
    return (peridot_session_params){
        .kv = session->kv,
        .prefill_rows = session->prefill_rows,
        .hidden_layer = session->hidden_layer,
        .activations = session->int8 ? PERIDOT_ACTIVATIONS_INT8 : PERIDOT_ACTIVATIONS_F32,
    };
}

static uint64_t chunks_for(uint32_t positions) {
    return positions ? (positions + KV_CHUNK - 1) / KV_CHUNK : 1;
}

peridot_result memory_plan_admit_return(const struct peridot_session *session,
                                        peridot_error *error) {
    const peridot_session_params params = params_of(session);
    uint64_t taken = 0;
    for (const struct peridot_session *part = session; part; part = part->next) {
        struct device *device = part->model->device->engine;
        struct session_memory memory;
        uint64_t room = room_for(part->model, taken);
        peridot_result result =
            memory_plan_session(part->model, &params, session->context, &memory, error);
        if (result)
            return result;
        uint64_t chunk = memory.kv / chunks_for(session->context);
        uint64_t needed = memory.working + chunk * chunks_for(session->computed);
        if (needed > room)
            return fail(error, PERIDOT_ERROR_DEVICE_MEMORY,
                        "the session's %u tokens need %.1f MiB and %s has %.1f MiB free: suspend "
                        "or close other sessions, or allow more memory; it stays suspended",
                        session->length, mebibytes(needed), device->info.name, mebibytes(room));
        taken += in_host_memory(part->model) ? needed : 0;
    }
    return PERIDOT_OK;
}

peridot_result memory_plan_refused_chunk(const struct peridot_session *session,
                                         peridot_error *error) {
    struct device *device = session->model->device->engine;
    const peridot_session_params params = params_of(session);
    uint32_t has = session->chunk_count * KV_CHUNK;
    if (has) /* it has grown to here */
        return fail(error, PERIDOT_ERROR_DEVICE_MEMORY,
                    "the KV cache of a session needs %.1f MiB more behind %u tokens and %s, with "
                    "%.1f MiB free, refused it: suspend or truncate sessions, or let Peridot have "
                    "more memory",
                    mebibytes(kv_chunk_bytes(session)), has, device->info.name,
                    mebibytes(memory_free(device)));
    struct session_memory memory;
    struct shortage shortage;
    peridot_result result =
        memory_plan_session(session->model, &params, session->context, &memory, error);
    if (result)
        return result;
    char advice[64];
    advise(advice, sizeof advice, has);
    name_part(session->model, "", &shortage);
    return fail(error, PERIDOT_ERROR_DEVICE_MEMORY,
                "a context of %u tokens needs %.1f MiB beside %s and %s, with %.1f MiB still free, "
                "refused a part of it: %s",
                session->context, mebibytes(memory.working + memory.kv), shortage.what,
                device->info.name, mebibytes(memory_free(device)), advice);
}

/* ---- The whole plan ---- */

/* What the devices' parts come to, at plan->context. */
static peridot_result add_parts(const struct peridot_model *model,
                                const peridot_session_params *params, peridot_memory_plan *plan,
                                peridot_error *error) {
    uint64_t of_host = 0, there = 0, all = 0;
    peridot_result result = PERIDOT_OK;
    for (const struct peridot_model *part = model; part && !result; part = part->next) {
        struct session_memory memory = {0};
        uint64_t staging = 0;
        uint32_t i = plan->device_count++;
        plan->device_layers[i] = part->layer_count;
        plan->device_free_bytes[i] = memory_free(part->device->engine);
        *(in_host_memory(part) ? &of_host : &plan->free_bytes) += plan->device_free_bytes[i];
        if (!part->is_home && !part->layer_count)
            continue;
        result = staging_memory(part->device->engine, &staging, error);
        if (!result)
            result = memory_plan_session(part, params, plan->context, &memory, error);
        plan->staging_bytes = staging > plan->staging_bytes ? staging : plan->staging_bytes;
        plan->weight_bytes += plan->device_weight_bytes[i] = planned_bytes(part);
        plan->kv_bytes += plan->device_kv_bytes[i] = memory.kv;
        plan->working_bytes += plan->device_working_bytes[i] = memory.working;
    }
    platform_host_memory(&there, &all);
    bool shared = plan->device_count > 1 && all && there < of_host; /* not to be had twice */
    plan->free_bytes += shared ? there : of_host;
    return result;
}

peridot_result memory_plan_write(const struct peridot_model *model,
                                 const peridot_session_params *params, peridot_memory_plan *out,
                                 peridot_error *error) {
    peridot_session_params given;
    peridot_memory_plan plan = {0};
    struct shortage shortage = {0};
    peridot_result result =
        caller_struct_read(&given, sizeof given, params, "peridot_session_params", error);
    plan.context = given.context;
    if (!result)
        result = memory_plan_admits_weights(model, &shortage, error);
    bool loads = !result && !shortage.device;
    if (loads)
        result = largest_context(model, &given, &plan.largest_context, error);
    if (!result && !plan.context && loads)
        result = memory_plan_default_context(model, &given, &plan.context, error);
    if (!plan.context)
        plan.context = model->config.context;
    if (!result)
        result = add_parts(model, &given, &plan, error);
    if (result)
        return result;
    plan.kv_token_bytes = kv_chunk_size(&model->config, model->config.layers, given.kv) / KV_CHUNK;
    plan.total_bytes = plan.weight_bytes + plan.working_bytes + plan.kv_bytes;
    plan.fits = loads && plan.context <= plan.largest_context;
    caller_struct_write(out, &plan, sizeof plan);
    return PERIDOT_OK;
}
