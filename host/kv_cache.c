/* The KV cache: chunks of KV_CHUNK positions, made when they are needed. */
#include "session.h"

uint64_t kv_plane_elements(const struct peridot_session *session) {
    const struct peridot_model *model = session->model;
    return (uint64_t)model->config.kv_heads * KV_CHUNK * model->head_dim_padded;
}

uint64_t kv_chunk_bytes(const struct peridot_session *session) {
    uint64_t element = session->kv_half ? 2 : 4;
    return 2 * kv_plane_elements(session) * session->model->config.layers * element;
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

static peridot_result add_chunk(struct peridot_session *session, peridot_error *error) {
    struct device *device = session->model->device->engine;
    struct kv_chunk *chunk = &session->chunks[session->chunk_count];
    uint64_t bytes = kv_chunk_bytes(session);
    peridot_result result = arena_create(device, MEMORY_DEVICE, bytes, &chunk->arena, error);
    if (!result)
        result = arena_buffer(chunk->arena, bytes, "KV cache", &chunk->buffer, error);
    if (!result)
        result = clear_chunk(session, chunk, error);
    if (result) {
        arena_destroy(chunk->arena);
        *chunk = (struct kv_chunk){0};
        return result;
    }
    session->head_state.kv_chunks[session->chunk_count++] = chunk->buffer->address;
    session->statistics.kv_bytes += bytes;
    return PERIDOT_OK;
}

peridot_result kv_cache_reserve(struct peridot_session *session, uint32_t positions,
                                peridot_error *error) {
    peridot_result result = PERIDOT_OK;
    while (session->chunk_count * KV_CHUNK < positions && !result)
        result = add_chunk(session, error);
    return result;
}

void kv_cache_release(struct peridot_session *session, uint32_t positions) {
    uint32_t needed = (positions + KV_CHUNK - 1) / KV_CHUNK;
    if (needed < 1)
        needed = 1; /* the recordings name the first chunk */
    while (session->chunk_count > needed) {
        struct kv_chunk *chunk = &session->chunks[--session->chunk_count];
        arena_destroy(chunk->arena);
        *chunk = (struct kv_chunk){0};
        session->head_state.kv_chunks[session->chunk_count] = 0;
        session->statistics.kv_bytes -= kv_chunk_bytes(session);
    }
}
