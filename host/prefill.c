/* Prompts: tokens in batches through the layers, cut into submissions that no watchdog minds. */
#include "forward.h"
#include "hand_over.h"
#include "platform.h"
#include "timestamps.h"

#include <string.h>

#define LOGITS_BYTES_MAX (64u << 20) /* for the logits of all rows of one chunk */

/* A submission being put together for one device: command buffers with an opening and a closing of
 * their own. */
struct bundle {
    struct peridot_session *session; /* the part there */
    VkCommandBuffer *commands;       /* room for all segments of a chunk */
    uint32_t count;
    VkCommandBuffer opening;
    uint32_t give_rows; /* that the closing hands over */
    struct cost cost;
    VkQueryPool queries;
};

/* A chunk of the prompt: tokens [base, base + rows) through all layers. */
struct chunk {
    uint32_t base, rows;
    bool head, all_logits; /* what comes after the layers: the last row's logits, or all rows' */
};

void session_write_header(struct peridot_session *session, VkCommandBuffer commands, uint32_t base,
                          uint32_t rows) {
    struct session_block *state = &session->head_state;
    forward_begin_pass(state, base, rows);
    const struct device_functions *vk = &session->lane.device->vk;
    vk->CmdUpdateBuffer(commands, session->block->handle, 0, sizeof *state, state);
    vk->CmdUpdateBuffer(commands, session->tokens->handle, (VkDeviceSize)base * 4,
                        (VkDeviceSize)rows * 4, session->held + base);
}

static peridot_result open_bundle(struct bundle *bundle, peridot_error *error) {
    struct peridot_session *session = bundle->session;
    peridot_result result = session_begin_transfer(session, &bundle->opening, error);
    if (result)
        return result;
    if (bundle->queries) {
        const struct device_functions *vk = &session->lane.device->vk;
        vk->CmdResetQueryPool(bundle->opening, bundle->queries, 0, 2);
        vk->CmdWriteTimestamp2(bundle->opening, VK_PIPELINE_STAGE_2_ALL_COMMANDS_BIT,
                               bundle->queries, 0);
    }
    bundle->commands[0] = bundle->opening;
    bundle->count = 1;
    bundle->give_rows = 0;
    bundle->cost = (struct cost){0, 0};
    return PERIDOT_OK;
}

static peridot_result measure(struct bundle *bundle, double wall, peridot_error *error) {
    struct peridot_session *session = bundle->session;
    struct device *device = session->lane.device;
    double measured = wall;
    if (bundle->queries) {
        uint64_t ticks[2];
        peridot_result result = timestamps_read(device, bundle->queries, 0, 2, ticks, error);
        if (result)
            return result;
        measured = timestamps_seconds(device, ticks[0], ticks[1]);
        if (measured * 1e3 > session->statistics.longest_submission_ms)
            session->statistics.longest_submission_ms = measured * 1e3;
    }
    schedule_learn(&session->schedule, schedule_seconds(&session->schedule, bundle->cost),
                   measured);
    return PERIDOT_OK;
}

/* Submits what was put together, waits for it and learns from the time it took. */
static peridot_result close_bundle(struct bundle *bundle, peridot_error *error) {
    struct peridot_session *session = bundle->session;
    struct lane *lane = &session->lane;
    VkCommandBuffer closing = VK_NULL_HANDLE;
    peridot_result result = lane_end(lane, bundle->opening, error);
    if (!result)
        result = session_begin_transfer(session, &closing, error);
    if (!result && bundle->give_rows)
        hand_over_give(session, closing, bundle->give_rows);
    if (!result && bundle->queries)
        lane->device->vk.CmdWriteTimestamp2(closing, VK_PIPELINE_STAGE_2_ALL_COMMANDS_BIT,
                                            bundle->queries, 1);
    if (!result)
        result = lane_end(lane, closing, error);
    double start = platform_seconds();
    bundle->commands[bundle->count++] = closing;
    if (!result)
        result = lane_submit(lane, &(struct batch){bundle->commands, bundle->count}, 1, error);
    if (!result)
        result = lane_wait(lane, lane->submitted, error);
    if (!result)
        result = measure(bundle, platform_seconds() - start, error);
    lane_free_commands(lane, bundle->opening);
    if (closing)
        lane_free_commands(lane, closing);
    bundle->opening = VK_NULL_HANDLE;
    return result;
}

/* Adds a segment, in a submission of its own if this one would become too long. */
static peridot_result bundle_add(struct bundle *bundle, const struct segment *segment,
                                 struct cost extra, peridot_error *error) {
    struct cost cost = {segment->recording.cost.bytes + extra.bytes,
                        segment->recording.cost.flops + extra.flops};
    struct cost sum = {bundle->cost.bytes + cost.bytes, bundle->cost.flops + cost.flops};
    const struct schedule *schedule = &bundle->session->schedule;
    if (bundle->count > 1 && schedule_seconds(schedule, sum) > schedule->limit) {
        peridot_result result = close_bundle(bundle, error);
        if (!result)
            result = open_bundle(bundle, error);
        if (result)
            return result;
        sum = cost;
    }
    bundle->commands[bundle->count++] = segment->commands;
    bundle->cost = sum;
    return PERIDOT_OK;
}

static struct pass *pass_for(struct peridot_session *session, uint32_t rows) {
    struct pass *pass = session->passes;
    while (pass->rows < rows)
        pass++;
    return pass;
}

/* How many rows up to `rows` a layer of this part takes within the limit. */
static uint32_t layer_rows(const struct peridot_session *session, uint32_t base, uint32_t rows) {
    const struct peridot_model *model = session->model;
    if (!model->layer_count)
        return rows;
    const struct layer *layer = &model->layers[0];
    const struct weight *weights[] = {&layer->qkv, &layer->output, &layer->gate_up, &layer->down};
    struct cost fixed = {0, 0}, per_row = {0, 0};
    for (int i = 0; i < 4; i++) {
        fixed.bytes += (double)weight_bytes(weights[i]);
        per_row.flops += 2.0 * weights[i]->rows * weights[i]->columns;
    }
    struct cost attention = forward_attention_cost(session, 1, base + rows);
    fixed.bytes += attention.bytes;
    per_row.flops += attention.flops;
    return schedule_rows(&session->schedule, fixed, per_row, rows);
}

/* How many of `left` tokens to run in one pass, so that no single segment breaks the limit. */
static uint32_t chunk_rows(const struct peridot_session *session, uint32_t base, uint32_t left,
                           bool all_logits) {
    uint32_t rows = left < session->prefill_rows ? left : session->prefill_rows;
    for (const struct peridot_session *part = session; part; part = part->next)
        rows = layer_rows(part, base, rows);
    if (!all_logits)
        return rows;
    uint64_t fit = LOGITS_BYTES_MAX / ((uint64_t)session->model->config.vocabulary * 4);
    uint32_t most = 1;
    for (uint32_t i = 0; i < PASS_BUCKETS; i++)
        if (session->passes[i].rows <= fit && session->passes[i].rows > most)
            most = session->passes[i].rows;
    return rows < most ? rows : most;
}

/* Submits what was put together without an error. */
static peridot_result finish_bundle(struct bundle *bundle, peridot_result result,
                                    peridot_error *error) {
    if (!result)
        return close_bundle(bundle, error);
    if (bundle->opening)
        lane_free_commands(&bundle->session->lane, bundle->opening);
    bundle->opening = VK_NULL_HANDLE;
    return result;
}

/* The chunk's layers in one part, after the embedding or the rows of the part before; on one device
 * alone the head too. */
static peridot_result run_part(struct bundle *bundle, const struct chunk *chunk, bool alone,
                               peridot_error *error) {
    struct peridot_session *part = bundle->session;
    struct pass *pass = pass_for(part, chunk->rows);
    struct cost none = {0, 0};
    struct cost attention = forward_attention_cost(part, chunk->rows, chunk->base + chunk->rows);
    peridot_result result = forward_record_pass(part, pass, error);
    if (!result)
        result = open_bundle(bundle, error);
    if (result)
        return result;
    if (part->model->is_home) {
        session_write_header(part, bundle->opening, chunk->base, chunk->rows);
        result = bundle_add(bundle, &pass->embed, none, error);
    } else {
        hand_over_take(part, bundle->opening, chunk->rows);
    }
    for (uint32_t i = 0; i < part->model->layer_count && !result; i++)
        result = bundle_add(bundle, &pass->layers[i], attention, error);
    if (!result && alone && chunk->head)
        result = bundle_add(bundle, &part->head, none, error);
    bundle->give_rows = alone ? 0 : chunk->rows;
    return finish_bundle(bundle, result, error);
}

/* What the last part made comes home, for the head. */
static peridot_result come_home(struct bundle *bundle, const struct chunk *chunk,
                                peridot_error *error) {
    peridot_result result = open_bundle(bundle, error);
    if (result)
        return result;
    hand_over_take(bundle->session, bundle->opening, chunk->rows);
    if (chunk->head)
        result = bundle_add(bundle, &bundle->session->head, (struct cost){0, 0}, error);
    return finish_bundle(bundle, result, error);
}

/* The chunk from device to device. `bundles`: one for each part. */
static peridot_result run_chunk(struct bundle *bundles, const struct chunk *chunk,
                                peridot_error *error) {
    struct peridot_session *home = bundles[0].session, *part = home;
    peridot_result result = run_part(&bundles[0], chunk, !home->next, error);
    for (uint32_t i = 1; part->next && !result; i++) {
        forward_begin_pass(&part->next->head_state, chunk->base, chunk->rows);
        result = hand_over_carry(part, part->next, chunk->rows, error);
        part = part->next;
        if (!result)
            result = run_part(&bundles[i], chunk, false, error);
    }
    if (result || !home->next || !(chunk->head || chunk->all_logits))
        return result;
    result = hand_over_carry(part, home, chunk->rows, error);
    return result ? result : come_home(&bundles[0], chunk, error);
}

static peridot_result read_logits(struct peridot_session *session, const struct pass *pass,
                                  uint32_t rows, float *logits, peridot_error *error) {
    uint64_t vocabulary = session->model->config.vocabulary;
    struct arena *arena = NULL;
    const struct buffer *buffer = NULL;
    VkCommandBuffer commands;
    uint64_t bytes = pass->rows * vocabulary * 4;
    peridot_result result =
        arena_create(session->model->device->engine, MEMORY_DEVICE, bytes, &arena, error);
    if (!result)
        result = arena_buffer(arena, bytes, "all logits", &buffer, error);
    if (!result)
        result = session_begin_transfer(session, &commands, error);
    if (!result) {
        result = forward_record_logits(session, pass, buffer, commands, error);
        peridot_result end = session_end_transfer(session, commands, error);
        result = result ? result : end;
    }
    if (!result)
        result = session_read(session, buffer, 0, rows * vocabulary * 4, logits, error);
    arena_destroy(arena);
    return result;
}

static peridot_result run_chunks(struct bundle *bundles, float *logits, peridot_error *error) {
    struct peridot_session *session = bundles[0].session;
    uint32_t first = session->computed;
    while (session->computed < session->length) {
        uint32_t base = session->computed;
        uint32_t rows = chunk_rows(session, base, session->length - base, logits != NULL);
        struct chunk chunk = {base, rows, base + rows == session->length, logits != NULL};
        peridot_result result = run_chunk(bundles, &chunk, error);
        if (!result && logits)
            result = read_logits(
                session, pass_for(session, rows), rows,
                logits + (size_t)(base - first) * session->model->config.vocabulary, error);
        if (result)
            return result;
        session->computed += rows;
    }
    session->logits_valid = true;
    return PERIDOT_OK;
}

peridot_result session_compute(struct peridot_session *session, float *logits,
                               peridot_error *error) {
    if (session->computed == session->length && !session->logits_valid)
        session->computed--;            /* its keys and values are written again, alike */
    VkCommandBuffer commands[1024 + 4]; /* opening, embedding, layers, head, closing */
    struct bundle bundles[PERIDOT_DEVICES_MAX];
    uint32_t parts = 0;
    peridot_result result = kv_cache_reserve(session, session->length, error);
    if (!result)
        result = forward_record_head(session, error);
    for (struct peridot_session *part = session; part && !result; part = part->next) {
        bundles[parts] = (struct bundle){.session = part, .commands = commands};
        result = timestamps_create(part->lane.device, 2, &bundles[parts++].queries, error);
    }
    if (!result)
        result = run_chunks(bundles, logits, error);
    while (parts-- > 0)
        timestamps_destroy(bundles[parts].session->lane.device, bundles[parts].queries);
    return result;
}

peridot_result session_check_prompt(const struct peridot_session *session, const int32_t *tokens,
                                    size_t count, peridot_error *error) {
    if (!tokens || count == 0)
        return fail(error, PERIDOT_ERROR_ARGUMENT, "the prompt has no tokens");
    if (count > session->context - session->length)
        return fail(
            error, PERIDOT_ERROR_CONTEXT_FULL,
            "the prompt has %zu tokens and %u fit in the context of %u: shorten it or give a "
            "larger --context",
            count, session->context - session->length, session->context);
    for (size_t i = 0; i < count; i++)
        if (tokens[i] < 0 || (uint32_t)tokens[i] >= session->model->config.vocabulary)
            return fail(error, PERIDOT_ERROR_ARGUMENT,
                        "token %zu of the prompt is %d; the model's tokens are 0 to %u", i,
                        tokens[i], session->model->config.vocabulary - 1);
    return PERIDOT_OK;
}

peridot_result peridot_session_prompt_wait(peridot_session *session, const int32_t *tokens,
                                           size_t count, float *logits, peridot_error *error) {
    if (!session)
        return fail(error, PERIDOT_ERROR_ARGUMENT, "peridot_session_prompt_wait needs a session");
    peridot_result result = session_check_present(session, error);
    if (!result)
        result = session_check_prompt(session, tokens, count, error);
    if (result)
        return result;
    double start = platform_seconds();
    uint32_t before = session->length;
    /* logits are wanted for the new tokens alone, so a sampled one still pending goes first */
    if (logits && session->computed < before)
        result = session_compute(session, NULL, error);
    if (result)
        return result;
    memcpy(session->held + before, tokens, count * sizeof *tokens);
    session->length = before + (uint32_t)count;
    session->logits_valid = false;
    result = session_compute(session, logits, error);
    if (result) {
        session->length = before;
        if (session->computed > before)
            session->computed = before;
        return result;
    }
    session->prompt_end = session->length;
    session->statistics.prompt_tokens += count;
    session->statistics.prompt_seconds += platform_seconds() - start;
    return PERIDOT_OK;
}
