/* The KV cache: chunks of KV_CHUNK positions, made when they are needed. */
#include "memory_plan.h"
#include "session.h"

_Static_assert(KV_F16 == PERIDOT_KV_F16 && KV_F32 == PERIDOT_KV_F32 && KV_Q8 == PERIDOT_KV_Q8,
               "shaders and callers count the types alike");

const char *kv_name(peridot_kv kv) {
    static const char *const names[] = {
        [PERIDOT_KV_F16] = "f16", [PERIDOT_KV_F32] = "f32", [PERIDOT_KV_Q8] = "q8"};
    return names[kv];
}

uint64_t kv_row_bytes(peridot_kv kv, uint32_t head_dim_padded) {
    return 16ull * KV_ROW_QUADS((uint32_t)kv, head_dim_padded);
}

uint64_t kv_chunk_size(const struct model_config *config, uint32_t layers, peridot_kv kv) {
    uint64_t row = kv_row_bytes(kv, round_up(config->head_dim, ROW_ALIGNMENT));
    return 2 * row * KV_CHUNK * config->kv_heads * layers;
}

uint64_t kv_chunk_bytes(const struct peridot_session *part) {
    return kv_chunk_size(&part->model->config, part->model->layer_count, part->kv);
}

uint32_t query_row_floats(const struct model_config *config, peridot_kv kv) {
    uint32_t heads = config->heads + (kv == PERIDOT_KV_Q8 ? 2 * config->kv_heads : 0);
    return round_up(heads * round_up(config->head_dim, ROW_ALIGNMENT), ACTIVATION_ALIGNMENT);
}

/* Zeros, so that the padding of rows never holds a NaN. */
static peridot_result clear_chunk(struct peridot_session *session, const struct kv_chunk *chunk,
                                  peridot_error *error) {
    VkCommandBuffer commands;
    peridot_result result = session_begin_transfer(session, &commands, error);
    if (result)
        return result;
    session->lane.device->vk.CmdFillBuffer(commands, chunk->buffer->handle, 0, VK_WHOLE_SIZE, 0);
    return session_end_transfer(session, commands, error);
}

peridot_result kv_cache_add(struct peridot_session *session, peridot_error *error) {
    struct device *device = session->model->device->engine;
    struct kv_chunk *chunk = &session->chunks[session->chunk_count];
    uint64_t bytes = kv_chunk_bytes(session);
    peridot_result result = arena_create(device, MEMORY_DEVICE, bytes, &chunk->arena, error);
    if (!result)
        result = arena_buffer(chunk->arena, bytes, "KV cache", &chunk->buffer, error);
    if (result) {
        arena_destroy(chunk->arena);
        *chunk = (struct kv_chunk){0};
        if (result == PERIDOT_ERROR_DEVICE_MEMORY)
            result = memory_plan_refused_chunk(session, error);
        return result;
    }
    session->head_state.kv_chunks[session->chunk_count++] = chunk->buffer->address;
    session->statistics.kv_bytes += arena_allocated(chunk->arena);
    return PERIDOT_OK;
}

static void drop_chunk(struct peridot_session *session) {
    struct kv_chunk *chunk = &session->chunks[--session->chunk_count];
    session->statistics.kv_bytes -= arena_allocated(chunk->arena);
    arena_destroy(chunk->arena);
    *chunk = (struct kv_chunk){0};
    session->head_state.kv_chunks[session->chunk_count] = 0;
}

static peridot_result add_cleared(struct peridot_session *session, peridot_error *error) {
    peridot_result result = kv_cache_add(session, error);
    if (result)
        return result;
    result = clear_chunk(session, &session->chunks[session->chunk_count - 1], error);
    if (result)
        drop_chunk(session);
    return result;
}

peridot_result kv_cache_reserve(struct peridot_session *session, uint32_t positions,
                                peridot_error *error) {
    peridot_result result = PERIDOT_OK;
    for (struct peridot_session *part = session; part; part = part->next)
        while (part->model->layer_count && part->chunk_count * KV_CHUNK < positions && !result)
            result = add_cleared(part, error);
    return result;
}

void kv_cache_release(struct peridot_session *session, uint32_t positions) {
    uint32_t needed = (positions + KV_CHUNK - 1) / KV_CHUNK;
    if (needed < 1)
        needed = 1; /* the recordings name the first chunk */
    for (struct peridot_session *part = session; part; part = part->next)
        while (part->chunk_count > needed)
            drop_chunk(part);
}

void kv_cache_drop(struct peridot_session *part) {
    while (part->chunk_count)
        drop_chunk(part);
}
