/* Sessions: making them, their state, and moving data between host and device. */
#include "session.h"
#include "forward.h"
#include "staging.h"

#include <stdlib.h>
#include <string.h>

/* ---- Transfers ---- */

peridot_result session_begin_transfer(struct peridot_session *session, VkCommandBuffer *commands,
                                      peridot_error *error) {
    peridot_result result = lane_commands(&session->lane, commands, error);
    if (result)
        return result;
    result = lane_begin(&session->lane, *commands, false, error);
    if (result) {
        lane_free_commands(&session->lane, *commands);
        return result;
    }
    VkMemoryBarrier2 barrier = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER_2,
        .srcStageMask = VK_PIPELINE_STAGE_2_ALL_COMMANDS_BIT,
        .srcAccessMask = VK_ACCESS_2_MEMORY_WRITE_BIT,
        .dstStageMask = VK_PIPELINE_STAGE_2_ALL_TRANSFER_BIT,
        .dstAccessMask = VK_ACCESS_2_TRANSFER_READ_BIT | VK_ACCESS_2_TRANSFER_WRITE_BIT,
    };
    session->lane.device->vk.CmdPipelineBarrier2(
        *commands, &(VkDependencyInfo){.sType = VK_STRUCTURE_TYPE_DEPENDENCY_INFO,
                                       .memoryBarrierCount = 1,
                                       .pMemoryBarriers = &barrier});
    return PERIDOT_OK;
}

static void make_visible_to_host(struct peridot_session *session, VkCommandBuffer commands) {
    VkMemoryBarrier2 barrier = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER_2,
        .srcStageMask = VK_PIPELINE_STAGE_2_ALL_TRANSFER_BIT,
        .srcAccessMask = VK_ACCESS_2_TRANSFER_WRITE_BIT,
        .dstStageMask = VK_PIPELINE_STAGE_2_HOST_BIT,
        .dstAccessMask = VK_ACCESS_2_HOST_READ_BIT,
    };
    session->lane.device->vk.CmdPipelineBarrier2(
        commands, &(VkDependencyInfo){.sType = VK_STRUCTURE_TYPE_DEPENDENCY_INFO,
                                      .memoryBarrierCount = 1,
                                      .pMemoryBarriers = &barrier});
}

peridot_result session_end_transfer(struct peridot_session *session, VkCommandBuffer commands,
                                    peridot_error *error) {
    struct lane *lane = &session->lane;
    make_visible_to_host(session, commands);
    peridot_result result = lane_end(lane, commands, error);
    if (!result)
        result = lane_submit(lane, &(struct batch){&commands, 1}, 1, error);
    if (!result)
        result = lane_wait(lane, lane->submitted, error);
    lane_free_commands(lane, commands);
    return result;
}

peridot_result session_read(struct peridot_session *session, const struct buffer *buffer,
                            uint64_t offset, uint64_t size, void *to, peridot_error *error) {
    struct device *device = session->model->device->engine;
    uint64_t piece = size < (16u << 20) ? size : 16u << 20;
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

static peridot_result create_scratch(struct peridot_session *session, peridot_error *error) {
    const struct peridot_model *model = session->model;
    uint64_t rows = session->prefill_rows, vocabulary = model->config.vocabulary;
    uint64_t query = (uint64_t)model->config.heads * model->head_dim_padded;
    uint64_t few = rows < FEW_ROWS ? rows : FEW_ROWS;
    struct scratch *s = &session->scratch;
    const struct {
        const struct buffer **buffer;
        uint64_t words;
        const char *name;
    } wanted[] = {
        {&s->x, rows * model->d_padded, "residual stream"},
        {&s->normed, rows * model->d_padded, "normed rows"},
        {&s->query, rows * query, "queries"},
        {&s->attended, rows * query, "attention result"},
        {&s->partial, few * model->config.heads * SPLITS_MAX * (model->head_dim_padded + 8),
         "attention partials"},
        {&s->hidden, rows * model->hidden_padded, "MLP hidden"},
        {&s->logits, vocabulary, "logits"},
        {&s->scores, vocabulary, "scores"},
        {&s->marks, (vocabulary + 31) / 32, "marks"},
        {&s->work, WORK_WORDS, "sampler work"},
        {&session->block, sizeof(struct session_block) / 4, "session block"},
        {&session->tokens, (uint64_t)session->context + 1, "tokens"},
    };
    peridot_result result = PERIDOT_OK;
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted && !result; i++)
        result = arena_buffer(session->arena, wanted[i].words * 4, wanted[i].name, wanted[i].buffer,
                              error);
    if (!result)
        result = arena_buffer(session->readback_arena, RING_CAPACITY * sizeof(struct ring_entry),
                              "token ring", &session->ring, error);
    return result;
}

/* All scratch starts as zeros: padding must hold no NaN, and marks and histograms begin empty. */
static peridot_result clear_scratch(struct peridot_session *session, peridot_error *error) {
    const struct scratch *s = &session->scratch;
    const struct buffer *buffers[] = {s->x,       s->normed, s->query,       s->attended,
                                      s->partial, s->hidden, s->logits,      s->scores,
                                      s->marks,   s->work,   session->block, session->tokens};
    VkCommandBuffer commands;
    peridot_result result = session_begin_transfer(session, &commands, error);
    if (result)
        return result;
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++)
        session->lane.device->vk.CmdFillBuffer(commands, buffers[i]->handle, 0, VK_WHOLE_SIZE, 0);
    return session_end_transfer(session, commands, error);
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

static void set_defaults(struct peridot_session *session, const peridot_session_params *params) {
    session->context = params->context ? params->context : session->model->config.context;
    session->kv_half = params->kv == PERIDOT_KV_F16;
    session->prefill_rows = params->prefill_rows ? params->prefill_rows : 512;
    if (session->prefill_rows > session->context)
        session->prefill_rows = session->context;
    session->steps_per_submission = params->steps_per_submission ? params->steps_per_submission : 4;
    session->submission_seconds = params->submission_ms > 0 ? params->submission_ms / 1e3 : 0.5;
    session->shuffle_seed = params->shuffle_seed;
    session->head_state.context = session->context;
    session->head_state.kv_heads = session->model->config.kv_heads;
    /* a GPU wants many workgroups in flight; how many pay is for the tuner to find */
    session->head_state.split_target =
        session->model->device->engine->info.type == VK_PHYSICAL_DEVICE_TYPE_CPU ? 4 : 128;
}

static peridot_result check_params(const struct peridot_model *model,
                                   const peridot_session_params *params, peridot_error *error) {
    if (params->context > model->config.context)
        return fail(error, PERIDOT_ERROR_ARGUMENT,
                    "a context of %u tokens is more than the model's %u", params->context,
                    model->config.context);
    if (params->kv != PERIDOT_KV_F16 && params->kv != PERIDOT_KV_F32)
        return fail(error, PERIDOT_ERROR_ARGUMENT, "the KV cache is float16 or float32");
    if (params->steps_per_submission > 64)
        return fail(error, PERIDOT_ERROR_ARGUMENT, "at most 64 steps fit in a submission");
    if (params->prefill_rows > 4096)
        return fail(error, PERIDOT_ERROR_ARGUMENT, "at most 4096 prompt tokens fit in a pass");
    return PERIDOT_OK;
}

static peridot_result open_session(struct peridot_session *session, peridot_error *error) {
    struct device *device = session->model->device->engine;
    schedule_start(&session->schedule, device, session->submission_seconds);
    plan_passes(session);
    session->held = calloc((size_t)session->context + 1, sizeof *session->held);
    if (!session->held)
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory for a session");
    peridot_result result =
        kernel_set_create(session->model, session->kv_half, &session->kernels, error);
    if (!result)
        result = pipelines_compile(device, NULL, NULL, error);
    if (!result)
        result = lane_create(device, &session->lane, error);
    if (!result)
        result = arena_create(device, MEMORY_DEVICE, 1 << 20, &session->arena, error);
    if (!result)
        result = arena_create(device, MEMORY_READBACK, 1 << 16, &session->readback_arena, error);
    if (!result)
        result = create_scratch(session, error);
    if (!result)
        result = clear_scratch(session, error);
    if (!result)
        result = kv_cache_reserve(session, 1, error);
    if (!result)
        session->statistics.scratch_bytes = arena_bytes(session->arena);
    return result;
}

peridot_result peridot_session_create(peridot_model *model, const peridot_session_params *params,
                                      peridot_session **session, peridot_error *error) {
    if (!model || !session)
        return fail(error, PERIDOT_ERROR_ARGUMENT, "peridot_session_create needs a model");
    *session = NULL;
    peridot_session_params given = {0};
    if (params)
        memcpy(&given, params,
               params->struct_size < sizeof given ? params->struct_size : sizeof given);
    peridot_result result = check_params(model, &given, error);
    if (result)
        return result;
    struct peridot_session *opening = calloc(1, sizeof *opening);
    if (!opening)
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory for a session");
    opening->model = model;
    model->sessions++;
    set_defaults(opening, &given);
    result = open_session(opening, error);
    if (!result)
        result = peridot_session_sampling(
            opening, &(peridot_sampling){.struct_size = sizeof(peridot_sampling)}, error);
    if (result)
        peridot_session_close(opening);
    else
        *session = opening;
    return result;
}

void peridot_session_close(peridot_session *session) {
    if (!session)
        return;
    if (session->lane.device)
        (void)lane_wait(&session->lane, session->lane.submitted, NULL);
    for (uint32_t i = 0; i < PASS_BUCKETS; i++) {
        struct pass *pass = &session->passes[i];
        for (uint32_t j = 0; pass->layers && j < session->model->config.layers; j++)
            forward_free_segment(session, &pass->layers[j]);
        forward_free_segment(session, &pass->embed);
        free(pass->layers);
    }
    for (uint32_t i = 0; i < SAMPLER_KINDS; i++)
        forward_free_segment(session, &session->samplers[i]);
    forward_free_segment(session, &session->head);
    for (uint32_t i = 0; i < session->chunk_count; i++)
        arena_destroy(session->chunks[i].arena);
    if (session->lane.device)
        lane_destroy(&session->lane);
    arena_destroy(session->arena);
    arena_destroy(session->readback_arena);
    session->model->sessions--;
    free(session->held);
    free(session);
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
    if (length > session->length)
        return fail(error, PERIDOT_ERROR_ARGUMENT, "cannot truncate %u tokens to %u",
                    session->length, length);
    if (length == session->length)
        return PERIDOT_OK;
    session->length = length;
    session->logits_valid = false;
    if (session->computed > length)
        session->computed = length;
    if (session->prompt_end > length)
        session->prompt_end = length;
    kv_cache_release(session, length);
    return PERIDOT_OK;
}

peridot_result peridot_session_sampling(peridot_session *session, const peridot_sampling *sampling,
                                        peridot_error *error) {
    peridot_sampling given = {0};
    if (!session || !sampling)
        return fail(error, PERIDOT_ERROR_ARGUMENT, "peridot_session_sampling needs settings");
    memcpy(&given, sampling,
           sampling->struct_size < sizeof given ? sampling->struct_size : sizeof given);
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

peridot_result peridot_session_logits(peridot_session *session, float *logits,
                                      peridot_error *error) {
    if (session->length == 0)
        return fail(error, PERIDOT_ERROR_ARGUMENT, "there are no logits before the first token");
    peridot_result result = PERIDOT_OK;
    if (!session->logits_valid)
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
    peridot_model_info info;
    peridot_model_describe(model, &info);
    return info.padded_bytes;
}

/* Dispatches and barriers of one decode step, from the recordings that it replays. */
static void count_step(const struct peridot_session *session, peridot_session_statistics *out) {
    const struct pass *pass = &session->passes[0];
    bool barriers[1024];
    const struct recording *recordings[1024 + 3];
    uint32_t count = 0;
    if (pass->layers) {
        recordings[count++] = &pass->embed.recording;
        for (uint32_t i = 0; i < session->model->config.layers; i++)
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

void peridot_session_describe(const peridot_session *session, peridot_session_statistics *out) {
    struct pipelines_statistics pipelines;
    pipelines_statistics(session->model->device->engine, &pipelines);
    *out = session->statistics;
    out->dispatches_per_step = out->barriers_per_step = 0;
    count_step(session, out);
    uint64_t element = session->kv_half ? 2 : 4;
    out->step_bytes = step_weights(session->model) +
                      2 * element * session->length * session->model->config.layers *
                          session->model->config.kv_heads * session->model->head_dim_padded;
    out->pipelines_compiled = pipelines.compiled;
    out->seconds_compiling = pipelines.seconds;
    out->pipeline_cache_bytes = pipelines.cache_read;
    memcpy(out->warning, pipelines.warning, sizeof out->warning);
}
