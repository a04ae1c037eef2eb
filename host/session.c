/* Sessions: making them, their state, and moving data between host and device. */
#include "session.h"
#include "caller_struct.h"
#include "constraint.h"
#include "forward.h"
#include "hand_over.h"
#include "memory_plan.h"
#include "slices.h"
#include "staging.h"
#include "suspension.h"

#include <stdlib.h>
#include <string.h>

/* ---- Transfers ---- */

void session_order(const struct peridot_session *session, VkCommandBuffer commands,
                   VkPipelineStageFlags2 from, VkAccessFlags2 written, VkPipelineStageFlags2 to,
                   VkAccessFlags2 seen) {
    const VkMemoryBarrier2 barrier = {.sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER_2,
                                      .srcStageMask = from,
                                      .srcAccessMask = written,
                                      .dstStageMask = to,
                                      .dstAccessMask = seen};
    session->lane.device->vk.CmdPipelineBarrier2(
        commands, &(VkDependencyInfo){.sType = VK_STRUCTURE_TYPE_DEPENDENCY_INFO,
                                      .memoryBarrierCount = 1,
                                      .pMemoryBarriers = &barrier});
}

peridot_result session_begin_copies(struct peridot_session *session, bool again,
                                    VkCommandBuffer *commands, peridot_error *error) {
    peridot_result result = lane_commands(&session->lane, commands, error);
    if (result)
        return result;
    result = lane_begin(&session->lane, *commands, again, error);
    if (result) {
        lane_free_commands(&session->lane, *commands);
        *commands = VK_NULL_HANDLE;
        return result;
    }
    session_order(session, *commands, VK_PIPELINE_STAGE_2_ALL_COMMANDS_BIT,
                  VK_ACCESS_2_MEMORY_WRITE_BIT, VK_PIPELINE_STAGE_2_ALL_TRANSFER_BIT,
                  VK_ACCESS_2_TRANSFER_READ_BIT | VK_ACCESS_2_TRANSFER_WRITE_BIT);
    return PERIDOT_OK;
}

peridot_result session_begin_transfer(struct peridot_session *session, VkCommandBuffer *commands,
                                      peridot_error *error) {
    return session_begin_copies(session, false, commands, error);
}

void session_make_visible(const struct peridot_session *session, VkCommandBuffer commands) {
    session_order(session, commands, VK_PIPELINE_STAGE_2_ALL_TRANSFER_BIT,
                  VK_ACCESS_2_TRANSFER_WRITE_BIT, VK_PIPELINE_STAGE_2_HOST_BIT,
                  VK_ACCESS_2_HOST_READ_BIT);
}

peridot_result session_end_transfer(struct peridot_session *session, VkCommandBuffer commands,
                                    peridot_error *error) {
    struct lane *lane = &session->lane;
    session_make_visible(session, commands);
    peridot_result result = lane_end(lane, commands, error);
    if (!result)
        result = lane_submit(lane, &(struct batch){&commands, 1}, 1, error);
    if (!result)
        result = lane_wait(lane, lane->submitted, error);
    lane_free_commands(lane, commands);
    return result;
}

peridot_result session_send(struct peridot_session *session, VkCommandBuffer commands,
                            peridot_error *error) {
    struct lane *lane = &session->lane;
    session_order(session, commands, VK_PIPELINE_STAGE_2_ALL_TRANSFER_BIT,
                  VK_ACCESS_2_TRANSFER_WRITE_BIT, VK_PIPELINE_STAGE_2_ALL_COMMANDS_BIT,
                  VK_ACCESS_2_MEMORY_READ_BIT | VK_ACCESS_2_MEMORY_WRITE_BIT);
    peridot_result result = lane_end(lane, commands, error);
    return result ? result : lane_submit(lane, &(struct batch){&commands, 1}, 1, error);
}

peridot_result session_read(struct peridot_session *session, const struct buffer *buffer,
                            uint64_t offset, uint64_t size, void *to, peridot_error *error) {
    struct device *device = session->model->device->engine;
    uint64_t most = device->info.limits.max_allocation, piece = size;
    most = most < (16u << 20) ? most : 16u << 20;
    piece = piece < most ? piece : most;
    struct arena *arena = NULL;
    const struct buffer *landing = NULL;
    peridot_result result = arena_create(device, MEMORY_READBACK, piece, &arena, error);
    if (!result)
        result = arena_buffer(arena, piece, "readback", &landing, error);
    for (uint64_t done = 0; done < size && !result; done += piece) {
        uint64_t part = size - done < piece ? size - done : piece;
        VkCommandBuffer commands;
        result = session_begin_transfer(session, &commands, error);
        if (result)
            break;
        VkBufferCopy region = {offset + done, 0, part};
        device->vk.CmdCopyBuffer(commands, buffer->handle, landing->handle, 1, &region);
        result = session_end_transfer(session, commands, error);
        if (!result)
            result = buffer_invalidate(device, landing, 0, part, error);
        if (!result)
            memcpy((char *)to + done, landing->mapped, part);
    }
    arena_destroy(arena);
    return result;
}

peridot_result session_write(struct peridot_session *session, const struct buffer *buffer,
                             const void *from, uint64_t size, peridot_error *error) {
    struct staging staging;
    uint64_t piece = size < STAGING_SLOT_BYTES ? size : STAGING_SLOT_BYTES, part;
    peridot_result result =
        lane_wait(&session->lane, session->lane.submitted, error); /* nothing reads it any more */
    if (!result)
        result = staging_create(session->lane.device, piece, &staging, error);
    if (result)
        return result;
    for (uint64_t done = 0; done < size && !result; done += part) {
        void *memory;
        part = size - done < staging.slot_bytes ? size - done : staging.slot_bytes;
        result = staging_next(&staging, &memory, error);
        if (!result) {
            memcpy(memory, (const char *)from + done, part);
            result = staging_send(&staging, buffer, done, part, error);
        }
    }
    if (!result)
        result = staging_finish(&staging, error);
    staging_destroy(&staging);
    return result;
}

/* ---- Making one ---- */

bool session_has_buffer(const struct peridot_model *part, enum session_buffer which) {
    return part->is_home || which < SESSION_LOGITS || which == SESSION_BLOCK_STATE;
}

uint64_t session_buffer_bytes(const struct model_config *config, const struct session_shape *shape,
                              enum session_buffer which, const char **name) {
    uint64_t rows = shape->prefill_rows, few = rows < FEW_ROWS ? rows : FEW_ROWS;
    uint64_t dim = round_up(config->head_dim, ROW_ALIGNMENT);
    uint64_t query = query_row_floats(config, shape->kv);
    uint64_t attended = round_up(config->heads * (uint32_t)dim, ACTIVATION_ALIGNMENT);
    uint64_t model = round_up(config->d_model, ACTIVATION_ALIGNMENT);
    uint64_t hidden = round_up(config->hidden, ACTIVATION_ALIGNMENT);
    uint64_t widest = hidden > model ? hidden : model;
    widest = widest > query ? widest : query;
    uint64_t quantised = shape->int8 ? 4 * QUANTISED_QUADS(widest / QUANTISED_BLOCK) : 0;
    const struct {
        uint64_t words;
        const char *name;
    } buffers[SESSION_BUFFERS] = {
        [SESSION_X] = {rows * model, "residual stream"},
        [SESSION_NORMED] = {rows * model, "normed rows"},
        [SESSION_QUERY] = {rows * query, "queries"},
        [SESSION_ATTENDED] = {rows * attended, "attention result"},
        [SESSION_PARTIAL] = {few * config->heads * SPLITS_MAX * (dim + 8), "attention partials"},
        [SESSION_HIDDEN] = {rows * hidden, "MLP hidden"},
        [SESSION_QUANTISED] = {rows * quantised, "quantised activations"},
        [SESSION_LOGITS] = {config->vocabulary, "logits"},
        [SESSION_SCORES] = {config->vocabulary, "scores"},
        [SESSION_MARKS] = {(config->vocabulary + 31) / 32, "marks"},
        [SESSION_WORK] = {WORK_WORDS, "sampler work"},
        [SESSION_BLOCK_STATE] = {sizeof(struct session_block) / 4, "session block"},
        [SESSION_TOKENS] = {(uint64_t)shape->context + 1, "tokens"},
        [SESSION_HIDDEN_STATES] = {shape->hidden ? shape->context * model : 0, "hidden states"},
    };
    *name = buffers[which].name;
    return buffers[which].words * 4;
}

static peridot_result create_ring(struct peridot_session *session, peridot_error *error) {
    peridot_result result = arena_create(session->model->device->engine, MEMORY_READBACK,
                                         RING_BLOCK, &session->readback_arena, error);
    if (!result)
        result =
            arena_buffer(session->readback_arena, RING_BYTES, "token ring", &session->ring, error);
    if (!result)
        session->statistics.scratch_bytes += arena_allocated(session->readback_arena);
    return result;
}

static peridot_result create_scratch(struct peridot_session *session, peridot_error *error) {
    struct scratch *s = &session->scratch;
    const struct session_shape shape = {.context = session->context,
                                        .prefill_rows = session->prefill_rows,
                                        .kv = session->kv,
                                        .int8 = session->int8,
                                        .hidden = session->hidden_layer != 0};
    const struct buffer **places[SESSION_BUFFERS] = {
        [SESSION_X] = &s->x,
        [SESSION_NORMED] = &s->normed,
        [SESSION_QUERY] = &s->query,
        [SESSION_ATTENDED] = &s->attended,
        [SESSION_PARTIAL] = &s->partial,
        [SESSION_HIDDEN] = &s->hidden,
        [SESSION_QUANTISED] = &s->quantised,
        [SESSION_LOGITS] = &s->logits,
        [SESSION_SCORES] = &s->scores,
        [SESSION_MARKS] = &s->marks,
        [SESSION_WORK] = &s->work,
        [SESSION_BLOCK_STATE] = &session->block,
        [SESSION_TOKENS] = &session->tokens,
        [SESSION_HIDDEN_STATES] = &s->hidden_states,
    };
    struct device *device = session->model->device->engine;
    peridot_result result =
        arena_create(device, MEMORY_DEVICE, SESSION_BLOCK, &session->arena, error);
    for (int i = 0; i < SESSION_BUFFERS && !result; i++) {
        const char *name;
        uint64_t bytes = session_buffer_bytes(&session->model->config, &shape, i, &name);
        if (bytes && session_has_buffer(session->model, i))
            result = arena_buffer(session->arena, bytes, name, places[i], error);
    }
    if (!result)
        session->statistics.scratch_bytes += arena_allocated(session->arena);
    if (!result && session->model->is_home)
        result = create_ring(session, error);
    if (!result && (session->next || !session->model->is_home))
        result = hand_over_create(session, error);
    return result == PERIDOT_ERROR_DEVICE_MEMORY ? memory_plan_refused_chunk(session, error)
                                                 : result;
}

static void clear_scratch(const struct peridot_session *session, VkCommandBuffer commands) {
    const struct scratch *s = &session->scratch;
    const struct buffer *buffers[] = {
        s->x,           s->normed,       s->query,     s->attended,     s->partial,
        s->hidden,      s->logits,       s->scores,    s->marks,        s->work,
        session->block, session->tokens, s->quantised, s->hidden_states};
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++)
        if (buffers[i])
            session->lane.device->vk.CmdFillBuffer(commands, buffers[i]->handle, 0, VK_WHOLE_SIZE,
                                                   0);
}

peridot_result session_send_zeros(struct peridot_session *part, peridot_error *error) {
    VkCommandBuffer commands; /* the lane's, and freed with it */
    peridot_result result = session_begin_transfer(part, &commands, error);
    if (result)
        return result;
    clear_scratch(part, commands);
    if (part->chunk_count) {
        const struct buffer *last = part->chunks[part->chunk_count - 1].buffer;
        part->lane.device->vk.CmdFillBuffer(commands, last->handle, 0, VK_WHOLE_SIZE, 0);
    }
    return session_send(part, commands, error);
}

static peridot_result acquire_part(struct peridot_session *part, uint32_t positions,
                                   peridot_error *error) {
    peridot_result result = lane_create(part->model->device->engine, &part->lane, error);
    if (!result)
        result = create_scratch(part, error);
    while (part->model->layer_count && part->chunk_count * KV_CHUNK < positions && !result)
        result = kv_cache_add(part, error);
    return result;
}

/* Nothing is submitted before all is there: an error then leaves nothing to wait for. */
peridot_result session_acquire(struct peridot_session *session, uint32_t positions,
                               peridot_error *error) {
    peridot_result result = PERIDOT_OK;
    for (struct peridot_session *part = session; part && !result; part = part->next)
        result = acquire_part(part, positions, error);
    for (struct peridot_session *part = session; part && !result; part = part->next)
        result = session_send_zeros(part, error);
    return result;
}

static void plan_passes(struct peridot_session *session) {
    static const uint32_t sizes[PASS_BUCKETS - 1] = {1, FEW_ROWS, 32, 128};
    uint32_t most = session->prefill_rows;
    for (uint32_t i = 0; i < PASS_BUCKETS; i++) {
        uint32_t rows = i < PASS_BUCKETS - 1 && sizes[i] < most ? sizes[i] : most;
        session->passes[i].rows = rows;
        session->passes[i].shape = rows == 1          ? PASS_ONE_ROW
                                   : rows <= FEW_ROWS ? PASS_FEW_ROWS
                                                      : PASS_MANY_ROWS;
    }
}

static peridot_result check_params(const struct model_config *config,
                                   const peridot_session_params *params, peridot_error *error) {
    if (params->context > config->context)
        return fail(error, PERIDOT_ERROR_ARGUMENT,
                    "a context of %u tokens is more than the model's %u", params->context,
                    config->context);
    if (params->kv != PERIDOT_KV_F16 && params->kv != PERIDOT_KV_F32 && params->kv != PERIDOT_KV_Q8)
        return fail(error, PERIDOT_ERROR_ARGUMENT, "the KV cache is float16, float32 or q8");
    if (params->activations != PERIDOT_ACTIVATIONS_F32 &&
        params->activations != PERIDOT_ACTIVATIONS_INT8)
        return fail(error, PERIDOT_ERROR_ARGUMENT, "activations are float32 or int8");
    if (params->hidden_layer > config->layers && params->hidden_layer != PERIDOT_HIDDEN_NORMED)
        return fail(error, PERIDOT_ERROR_ARGUMENT,
                    "there are no hidden states after layer %u: the model has %u layers",
                    params->hidden_layer, config->layers);
    if (params->steps_per_submission > 64)
        return fail(error, PERIDOT_ERROR_ARGUMENT, "at most 64 steps fit in a submission");
    if (params->prefill_rows > 4096)
        return fail(error, PERIDOT_ERROR_ARGUMENT, "at most 4096 prompt tokens fit in a pass");
    return PERIDOT_OK;
}

peridot_result session_shape_settle(const struct model_config *config,
                                    const peridot_session_params *params,
                                    struct session_shape *shape, peridot_error *error) {
    uint32_t context = params->context ? params->context : config->context;
    uint32_t rows = params->prefill_rows ? params->prefill_rows : 512;
    *shape = (struct session_shape){
        .context = context,
        .prefill_rows = rows < context ? rows : context,
        .kv = params->kv,
        .int8 = params->activations == PERIDOT_ACTIVATIONS_INT8,
        .hidden = params->hidden_layer != 0,
    };
    return check_params(config, params, error);
}

static peridot_result settle(struct peridot_session *session, peridot_session_params *params,
                             peridot_error *error) {
    const struct peridot_model *model = session->model;
    struct session_shape shape;
    peridot_result result = PERIDOT_OK;
    if (!params->context)
        result = memory_plan_default_context(model, params, &params->context, error);
    if (!result)
        result = session_shape_settle(&model->config, params, &shape, error);
    if (result)
        return result;
    session->context = shape.context;
    session->prefill_rows = shape.prefill_rows;
    session->kv = shape.kv;
    session->int8 = shape.int8;
    session->hidden_layer = params->hidden_layer;
    session->steps_per_submission = params->steps_per_submission ? params->steps_per_submission : 4;
    session->submission_seconds = params->submission_ms > 0 ? params->submission_ms / 1e3 : 0.5;
    session->shuffle_seed = params->shuffle_seed;
    return memory_plan_admit_session(model, params, error);
}

void session_free_parts(struct peridot_session *part) {
    while (part) {
        struct peridot_session *next = part->next;
        free(part);
        part = next;
    }
}

/* Home has settled what is the same for all. */
peridot_result session_make_parts(const struct peridot_session *home,
                                  struct peridot_session **parts, peridot_error *error) {
    struct peridot_session **last = parts;
    *parts = NULL;
    for (struct peridot_model *model = model_next(home->model); model; model = model_next(model)) {
        struct peridot_session *part = calloc(1, sizeof *part);
        if (!part) {
            session_free_parts(*parts);
            *parts = NULL;
            return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory for a session");
        }
        part->model = model;
        part->context = home->context;
        part->prefill_rows = home->prefill_rows;
        part->kv = home->kv;
        part->int8 = home->int8;
        part->submission_seconds = home->submission_seconds;
        part->shuffle_seed = home->shuffle_seed;
        *last = part;
        last = &part->next;
    }
    return PERIDOT_OK;
}

peridot_result session_prepare_part(struct peridot_session *session, peridot_error *error) {
    struct device *device = session->model->device->engine;
    session->head_state.context = session->context;
    session->head_state.kv_heads = session->model->config.kv_heads;
    /* a GPU wants many workgroups in flight; how many pay is for the tuner to find */
    session->head_state.split_target = device_is_software(device) ? 4 : 128;
    schedule_start(&session->schedule, device, session->submission_seconds);
    plan_passes(session);
    peridot_result result =
        kernel_set_create(session->model, session->kv, session->int8, &session->kernels, error);
    if (!result)
        result = pipelines_compile(device, NULL, NULL, error);
    if (result) /* or what cannot be compiled here fails sessions that do without it */
        pipelines_forget(device);
    return result;
}

static peridot_result open_session(struct peridot_session *session, peridot_error *error) {
    session->held = calloc((size_t)session->context + 1, sizeof *session->held);
    if (!session->held)
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory for a session");
    peridot_result result = session_make_parts(session, &session->next, error);
    for (struct peridot_session *part = session; part && !result; part = part->next)
        result = session_prepare_part(part, error);
    return result ? result : session_acquire(session, 1, error);
}

peridot_result peridot_session_create(peridot_model *model, const peridot_session_params *params,
                                      peridot_session **session, peridot_error *error) {
    if (session)
        *session = NULL;
    if (!model || !session)
        return fail(error, PERIDOT_ERROR_ARGUMENT,
                    "peridot_session_create needs a model and a place for the session");
    peridot_session_params given;
    peridot_result result =
        caller_struct_read(&given, sizeof given, params, "peridot_session_params", error);
    if (result)
        return result;
    struct peridot_session *opening = calloc(1, sizeof *opening);
    if (!opening)
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory for a session");
    opening->model = model;
    result = settle(opening, &given, error);
    if (!result && given.hidden_layer && model_next(model))
        result = fail(error, PERIDOT_ERROR_UNSUPPORTED,
                      "hidden states are not kept of a model on several devices");
    if (!result)
        result = open_session(opening, error);
    if (!result)
        result = peridot_session_sampling(
            opening, &(peridot_sampling){.struct_size = sizeof(peridot_sampling)}, error);
    if (result)
        peridot_session_close_wait(opening);
    else
        *session = opening;
    return result;
}

static void free_segments(struct peridot_session *session) {
    for (uint32_t i = 0; i < PASS_BUCKETS; i++) {
        forward_free_pass(session, &session->passes[i]);
    }
    for (uint32_t i = 0; i < SAMPLER_KINDS; i++)
        forward_free_segment(session, &session->samplers[i]);
    forward_free_segment(session, &session->head);
}

void session_release_part(struct peridot_session *session) {
    if (session->lane.device)
        (void)lane_wait(&session->lane, session->lane.submitted, NULL);
    free_segments(session);
    hand_over_destroy(session);
    constraint_release(session);
    kv_cache_drop(session);
    session->statistics.submissions += session->lane.submissions; /* before it went away */
    if (session->lane.device)
        lane_destroy(&session->lane);
    arena_destroy(session->arena);
    arena_destroy(session->readback_arena);
    session->arena = session->readback_arena = NULL;
    session->scratch = (struct scratch){0};
    session->block = session->tokens = session->ring = NULL;
    session->statistics.scratch_bytes = 0;
}

bool session_is_busy(struct peridot_session *session) {
    for (struct peridot_session *part = session; part; part = part->next)
        if (!lane_is_over(&part->lane))
            return true;
    return false;
}

static void close_part(struct peridot_session *session) {
    if (session->lane.device)
        (void)lane_wait(&session->lane, session->lane.submitted, NULL);
    slices_close(session);
    suspension_free(session);
    session_release_part(session);
    constraint_destroy(session);
    free(session->held);
    free(session);
}

void peridot_session_close_wait(peridot_session *session) {
    while (session) {
        struct peridot_session *next = session->next;
        close_part(session);
        session = next;
    }
}

/* ---- What it holds ---- */

uint32_t peridot_session_length(const peridot_session *session) {
    return session->length;
}

uint32_t peridot_session_context(const peridot_session *session) {
    return session->context;
}

const int32_t *peridot_session_tokens(const peridot_session *session) {
    return session->held;
}

peridot_result peridot_session_truncate(peridot_session *session, uint32_t length,
                                        peridot_error *error) {
    if (!session)
        return fail(error, PERIDOT_ERROR_ARGUMENT, "peridot_session_truncate needs a session");
    if (length > session->length)
        return fail(error, PERIDOT_ERROR_ARGUMENT, "cannot truncate %u tokens to %u",
                    session->length, length);
    peridot_result result = session_check_idle(session, error);
    if (result || length == session->length)
        return result;
    session->length = length;
    session->logits_valid = false;
    if (session->computed > length)
        session->computed = length;
    if (session->prompt_end > length)
        session->prompt_end = length;
    constraint_truncate(session, length);
    kv_cache_release(session, length);
    return PERIDOT_OK;
}

peridot_result peridot_session_sampling(peridot_session *session, const peridot_sampling *sampling,
                                        peridot_error *error) {
    peridot_sampling given;
    if (!session || !sampling)
        return fail(error, PERIDOT_ERROR_ARGUMENT, "peridot_session_sampling needs settings");
    peridot_result result = session_check_idle(session, error);
    if (!result)
        result = caller_struct_read(&given, sizeof given, sampling, "peridot_sampling", error);
    if (result)
        return result;
    if (!(given.temperature >= 0 && given.temperature <= 100))
        return fail(error, PERIDOT_ERROR_ARGUMENT, "temperature must be from 0 to 100");
    if (!(given.top_p >= 0 && given.top_p <= 1))
        return fail(error, PERIDOT_ERROR_ARGUMENT, "top-p must be from 0 to 1");
    if (!(given.min_p >= 0 && given.min_p <= 1))
        return fail(error, PERIDOT_ERROR_ARGUMENT, "min-p must be from 0 to 1");
    if (!(given.repetition_penalty >= 0 && given.repetition_penalty <= 100))
        return fail(error, PERIDOT_ERROR_ARGUMENT, "repetition penalty must be from 0 to 100");
    if (given.top_p == 0)
        given.top_p = 1;
    if (given.repetition_penalty == 0)
        given.repetition_penalty = 1;
    if (given.penalty_window == 0)
        given.penalty_window = 64;
    session->sampling = given;
    struct session_block *state = &session->head_state;
    state->temperature = given.temperature;
    state->top_p = given.top_p;
    state->min_p = given.min_p;
    state->repetition_penalty = given.repetition_penalty;
    state->top_k = given.top_k;
    state->penalty_window = given.penalty_window;
    state->seed[0] = (uint32_t)given.seed;
    state->seed[1] = (uint32_t)(given.seed >> 32);
    return PERIDOT_OK;
}

peridot_result peridot_session_logits_wait(peridot_session *session, float *logits,
                                           peridot_error *error) {
    if (!session || !logits)
        return fail(error, PERIDOT_ERROR_ARGUMENT,
                    "peridot_session_logits_wait needs a session and a place for the logits");
    if (session->length == 0)
        return fail(error, PERIDOT_ERROR_ARGUMENT, "there are no logits before the first token");
    peridot_result result = session_check_present(session, error);
    if (!result && !session->logits_valid)
        result = session_compute(session, NULL, error);
    if (!result)
        result = session_read(session, session->scratch.logits, 0,
                              (uint64_t)session->model->config.vocabulary * 4, logits, error);
    return result;
}

void peridot_free(void *memory) {
    free(memory);
}

static uint64_t step_weights(const struct peridot_model *model) {
    peridot_model_info info = {.struct_size = sizeof info};
    peridot_model_describe(model, &info);
    return info.padded_bytes;
}

/* Dispatches and barriers of one decode step, from the recordings that a part replays. */
static void count_step(const struct peridot_session *session, peridot_session_statistics *out) {
    const struct pass *pass = &session->passes[0];
    bool barriers[1024];
    const struct recording *recordings[1024 + 3];
    uint32_t count = 0;
    if (pass->layers) {
        recordings[count++] = &pass->embed.recording;
        for (uint32_t i = 0; i < session->model->layer_count; i++)
            recordings[count++] = &pass->layers[i].recording;
    }
    recordings[count++] = &session->head.recording;
    for (uint32_t i = 0; i < SAMPLER_KINDS; i++)
        if (session->samplers[i].commands) {
            recordings[count++] = &session->samplers[i].recording;
            break;
        }
    for (uint32_t i = 0; i < count; i++) {
        uint32_t dispatches = recording_count(recordings[i]);
        out->dispatches_per_step += dispatches;
        if (dispatches <= 1024)
            out->barriers_per_step += recording_barriers(recordings[i], barriers);
    }
}

/* What one part adds to the statistics, which begin as home's own. */
static void add_part(const struct peridot_session *part, bool is_home,
                     peridot_session_statistics *sum) {
    struct pipelines_statistics pipelines;
    pipelines_statistics(part->model->device->engine, &pipelines);
    sum->pipelines_compiled += pipelines.compiled;
    sum->seconds_compiling += pipelines.seconds;
    sum->pipeline_cache_bytes += pipelines.cache_read;
    if (!sum->warning[0])
        memcpy(sum->warning, pipelines.warning, sizeof sum->warning);
    count_step(part, sum);
    sum->submissions += part->lane.submissions;
    if (is_home)
        return;
    sum->submissions += part->statistics.submissions;
    sum->kv_bytes += part->statistics.kv_bytes;
    sum->scratch_bytes += part->statistics.scratch_bytes;
    if (part->statistics.longest_submission_ms > sum->longest_submission_ms)
        sum->longest_submission_ms = part->statistics.longest_submission_ms;
}

void peridot_session_describe(const peridot_session *session, peridot_session_statistics *out) {
    peridot_session_statistics now = session->statistics;
    for (const struct peridot_session *part = session; part; part = part->next)
        add_part(part, part == session, &now);
    const struct model_config *config = &session->model->config;
    now.suspended = session->suspension && session->suspension->stage == SUSPENSION_AWAY;
    now.step_bytes =
        step_weights(session->model) +
        kv_chunk_size(config, config->layers, session->kv) / KV_CHUNK * session->length;
    caller_struct_write(out, &now, sizeof now);
}
