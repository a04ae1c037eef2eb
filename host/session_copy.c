#include "session_copy.h"

#include <string.h>

/* A run of bytes that lie together on the device and in the host's memory. */
struct region {
    struct peridot_session *part;
    const struct buffer *buffer;
    uint64_t offset, bytes;
    uint8_t *host;
};

static uint64_t row_bytes(const struct peridot_session *session) {
    return kv_row_bytes(session->kv, session->model->head_dim_padded);
}

uint64_t session_rows_bytes(const struct peridot_session *session, uint32_t positions) {
    const struct model_config *config = &session->model->config;
    return 2 * row_bytes(session) * config->layers * config->kv_heads * positions;
}

uint64_t session_hidden_bytes(const struct peridot_session *session, uint32_t positions) {
    return session->hidden_layer ? 4ull * session->model->d_padded * positions : 0;
}

static uint64_t hidden_bytes(const struct session_copy *copy) {
    return copy->hidden ? session_hidden_bytes(copy->session, copy->positions) : 0;
}

static uint64_t logits_bytes(const struct session_copy *copy) {
    return copy->logits ? (uint64_t)copy->session->model->config.vocabulary * 4 : 0;
}

static uint64_t all_bytes(const struct session_copy *copy) {
    return session_rows_bytes(copy->session, copy->positions) + logits_bytes(copy) +
           hidden_bytes(copy) + copy->token_count * 4ull;
}

/* From a byte of the rows on: of one head's keys, or values, as far as the chunk has them. */
static struct region rows_at(const struct session_copy *copy, uint64_t at) {
    struct peridot_session *part = copy->session;
    uint64_t row = row_bytes(part), plane = copy->positions * row, chunk_plane = KV_CHUNK * row;
    uint32_t index = (uint32_t)(at / plane), planes = 2 * part->model->config.kv_heads;
    uint64_t within = at % plane, in_chunk = within % chunk_plane, left = plane - within;
    while (index / planes >= part->model->first_layer + part->model->layer_count)
        part = part->next;
    uint64_t plane_here = index - part->model->first_layer * planes;
    return (struct region){
        .part = part,
        .buffer = part->chunks[within / chunk_plane].buffer,
        .offset = plane_here * chunk_plane + in_chunk,
        .bytes = left < chunk_plane - in_chunk ? left : chunk_plane - in_chunk,
        .host = copy->rows + index * copy->stride * row + within,
    };
}

static struct region region_at(const struct session_copy *copy, uint64_t at) {
    struct peridot_session *home = copy->session;
    uint64_t rows = session_rows_bytes(home, copy->positions), logits = logits_bytes(copy);
    uint64_t hidden = hidden_bytes(copy);
    if (at < rows)
        return rows_at(copy, at);
    at -= rows;
    if (at < logits)
        return (struct region){home, home->scratch.logits, at, logits - at,
                               (uint8_t *)copy->logits + at};
    at -= logits;
    if (at < hidden)
        return (struct region){home, home->scratch.hidden_states, at, hidden - at,
                               copy->hidden + at};
    at -= hidden;
    return (struct region){home, home->tokens, at, copy->token_count * 4ull - at,
                           (uint8_t *)(uintptr_t)copy->tokens + at}; /* only read */
}

/* A region cut to end with the piece. */
static struct region region_within(const struct session_copy *copy, uint64_t at, uint64_t end) {
    struct region region = region_at(copy, at);
    region.bytes = region.bytes < end - at ? region.bytes : end - at;
    return region;
}

/* ---- A piece ---- */

/* Host-visible memory on the part's device; where that has little left, a small piece will do. For
 * its moment it may go beyond the limit on the device's memory, so that a session can leave when
 * the limit has fallen below what is taken. */
static peridot_result make_piece(struct session_copy *copy, struct peridot_session *part,
                                 uint64_t bytes, peridot_error *error) {
    enum memory_kind kind = copy->to_host ? MEMORY_READBACK : MEMORY_UPLOAD;
    uint64_t most = part->lane.device->info.limits.max_allocation;
    peridot_result result;
    bytes = bytes < most ? bytes : most;
    if (copy->piece_part == part && (copy->cramped || copy->piece.buffer->size >= bytes))
        return PERIDOT_OK;
    copy->cramped = false;
    do {
        arena_destroy(copy->piece.arena);
        copy->piece = (struct box){0};
        copy->piece_part = NULL;
        result = arena_create(part->lane.device, kind, bytes, &copy->piece.arena, error);
        if (result)
            return result;
        arena_exceed_limit(copy->piece.arena);
        result = arena_buffer(copy->piece.arena, bytes, "piece of a session", &copy->piece.buffer,
                              error);
        if (!result) {
            copy->piece_part = part;
            return PERIDOT_OK;
        }
        copy->cramped = true;
        bytes /= 16;
    } while (result == PERIDOT_ERROR_DEVICE_MEMORY && bytes >= 4096);
    return result;
}

/* What there is to copy within one part, from `done` on, up to `bytes`. */
static uint64_t piece_end(const struct session_copy *copy, uint64_t bytes) {
    const struct peridot_session *part = region_at(copy, copy->done).part;
    uint64_t left = all_bytes(copy) - copy->done, end = copy->done;
    uint64_t limit = copy->done + (bytes < left ? bytes : left);
    while (end < limit) {
        struct region region = region_within(copy, end, limit);
        if (region.part != part)
            break;
        end += region.bytes;
    }
    return end;
}

static void exchange(const struct session_copy *copy, uint64_t begin, uint64_t end) {
    uint8_t *mapped = copy->piece.buffer->mapped;
    for (uint64_t at = begin; at < end;) {
        struct region region = region_within(copy, at, end);
        if (copy->to_host)
            memcpy(region.host, mapped + (at - begin), region.bytes);
        else
            memcpy(mapped + (at - begin), region.host, region.bytes);
        at += region.bytes;
    }
}

static void write_copies(const struct session_copy *copy, uint64_t end, VkCommandBuffer commands) {
    const struct device_functions *vk = &copy->piece_part->lane.device->vk;
    VkBuffer piece = copy->piece.buffer->handle;
    for (uint64_t at = copy->done; at < end;) {
        struct region region = region_within(copy, at, end);
        VkBuffer buffer = region.buffer->handle;
        VkBufferCopy out = {region.offset, at - copy->done, region.bytes};
        VkBufferCopy in = {at - copy->done, region.offset, region.bytes};
        if (copy->to_host)
            vk->CmdCopyBuffer(commands, buffer, piece, 1, &out);
        else
            vk->CmdCopyBuffer(commands, piece, buffer, 1, &in);
        at += region.bytes;
    }
}

static peridot_result send_piece(struct session_copy *copy, uint64_t bytes, peridot_error *error) {
    struct peridot_session *part = region_at(copy, copy->done).part;
    uint64_t wanted = piece_end(copy, bytes) - copy->done;
    peridot_result result = make_piece(copy, part, wanted, error);
    if (result)
        return result;
    const struct buffer *piece = copy->piece.buffer;
    uint64_t end = piece_end(copy, wanted < piece->size ? wanted : piece->size);
    if (!copy->to_host) {
        exchange(copy, copy->done, end);
        result = buffer_flush(part->lane.device, piece, 0, end - copy->done, error);
    }
    VkCommandBuffer commands = VK_NULL_HANDLE;
    if (!result)
        result = session_begin_copies(part, false, &commands, error);
    if (result)
        return result;
    write_copies(copy, end, commands);
    session_make_visible(part, commands);
    result = lane_end(&part->lane, commands, error);
    if (!result)
        result = lane_submit(&part->lane, &(struct batch){&commands, 1}, 1, error);
    if (result) {
        lane_free_commands(&part->lane, commands);
        return result;
    }
    copy->commands = commands;
    copy->end = end;
    return PERIDOT_OK;
}

/* The piece on its way has arrived. */
static peridot_result take_piece(struct session_copy *copy, peridot_error *error) {
    struct peridot_session *part = copy->piece_part;
    peridot_result result = PERIDOT_OK;
    lane_free_commands(&part->lane, copy->commands);
    copy->commands = VK_NULL_HANDLE;
    if (copy->to_host) {
        result = buffer_invalidate(part->lane.device, copy->piece.buffer, 0, copy->end - copy->done,
                                   error);
        if (!result)
            exchange(copy, copy->done, copy->end);
    }
    copy->done = copy->end;
    return result;
}

/* ---- All pieces ---- */

peridot_result session_copy_step(struct session_copy *copy, uint64_t bytes, bool wait,
                                 peridot_error *error) {
    peridot_result result = PERIDOT_OK;
    if (copy->commands) {
        struct lane *lane = &copy->piece_part->lane;
        bool there = true;
        result = wait ? lane_wait(lane, lane->submitted, error)
                      : lane_poll(lane, lane->submitted, &there, error);
        if (!result && !there)
            return PERIDOT_NOT_READY;
        if (!result)
            result = take_piece(copy, error);
    }
    if (result || copy->done == all_bytes(copy))
        return result;
    result = send_piece(copy, bytes ? bytes : COPY_PIECE, error);
    return result ? result : PERIDOT_NOT_READY;
}

peridot_result session_copy_run(struct session_copy *copy, peridot_error *error) {
    peridot_result result;
    do
        result = session_copy_step(copy, 0, true, error);
    while (result == PERIDOT_NOT_READY);
    session_copy_end(copy);
    return result;
}

void session_copy_end(struct session_copy *copy) {
    if (copy->commands) {
        struct lane *lane = &copy->piece_part->lane;
        (void)lane_wait(lane, lane->submitted, NULL);
        lane_free_commands(lane, copy->commands);
    }
    arena_destroy(copy->piece.arena);
    copy->commands = VK_NULL_HANDLE;
    copy->piece = (struct box){0};
    copy->piece_part = NULL;
}
