/* Generation: decode steps, several to a submission, read from the ring as they come. */
#include "forward.h"
#include "platform.h"

#include <stdlib.h>
#include <string.h>

#define STEPS_MAX 64
#define UPDATES_MAX (KV_CHUNKS_MAX + 1) /* the state, and one for each new KV chunk */

/* One call of peridot_session_generate. */
struct generation {
    struct peridot_session *session;
    uint32_t wanted, submitted, received;
    uint64_t values[RING_CAPACITY]; /* the timeline value of step i, at i % RING_CAPACITY */
    uint32_t kind;                  /* of sampler */
    double step_seconds;            /* smoothed; 0: not measured yet */
    VkCommandBuffer
        updates[UPDATES_MAX]; /* one-time command buffers, freed at the end of the call */
    uint32_t update_count;
};

static uint32_t sampler_kind(const peridot_sampling *sampling, uint32_t vocabulary) {
    uint32_t kind = sampling->repetition_penalty != 1 ? SAMPLER_PENALTY : 0;
    if (sampling->temperature == 0)
        return kind; /* the most likely token survives every cut */
    if (sampling->top_k > 0 && sampling->top_k < vocabulary)
        kind |= SAMPLER_TOP_K;
    if (sampling->top_p < 1)
        kind |= SAMPLER_TOP_P;
    return kind;
}

/* The block as it is when the next token's logits lie ready. */
static void set_state(struct generation *generation) {
    struct peridot_session *session = generation->session;
    struct session_block *state = &session->head_state;
    state->position = session->length - 1;
    state->rows = 1;
    state->done = 0;
    state->sampled = 0;
    state->stop_from = session->prompt_end + session->sampling.min_tokens;
    forward_attention_grid(state, session->length, 1);
    peridot_model_info info = {.struct_size = sizeof info};
    peridot_model_describe(session->model, &info);
    state->stop_count = info.stop_token_count;
    memcpy(state->stop_tokens, info.stop_tokens, sizeof state->stop_tokens);
}

/* A one-time command buffer that updates the block: all of it, or the addresses of new KV chunks.
 */
static peridot_result add_update(struct generation *generation, bool all, peridot_error *error) {
    struct peridot_session *session = generation->session;
    VkCommandBuffer *commands = &generation->updates[generation->update_count];
    peridot_result result = session_begin_transfer(session, commands, error);
    if (result)
        return result;
    generation->update_count++;
    const struct session_block *state = &session->head_state;
    size_t from = all ? 0 : offsetof(struct session_block, kv_chunks);
    session->lane.device->vk.CmdUpdateBuffer(*commands, session->block->handle, from,
                                             sizeof *state - from, (const char *)state + from);
    return lane_end(&session->lane, *commands, error);
}

/* The command buffers of step `step`: forward passes precede all samplings but the first. */
static uint32_t step_commands(const struct generation *generation, uint32_t step,
                              VkCommandBuffer *commands) {
    const struct peridot_session *session = generation->session;
    uint32_t count = 0;
    if (step > 0) {
        commands[count++] = session->passes[0].embed.commands;
        for (uint32_t i = 0; i < session->model->config.layers; i++)
            commands[count++] = session->passes[0].layers[i].commands;
        commands[count++] = session->head.commands;
    }
    commands[count++] = session->samplers[generation->kind].commands;
    return count;
}

static uint32_t steps_at_once(const struct generation *generation) {
    const struct peridot_session *session = generation->session;
    uint32_t steps = session->steps_per_submission;
    if (generation->step_seconds > 0 &&
        steps * generation->step_seconds > session->submission_seconds) {
        steps = (uint32_t)(session->submission_seconds / generation->step_seconds);
        steps = steps < 1 ? 1 : steps;
    }
    uint32_t left = generation->wanted - generation->submitted;
    return steps < left ? steps : left;
}

/* Sends `steps` steps in one vkQueueSubmit2, each a batch that signals the timeline. */
static peridot_result submit_steps(struct generation *generation, uint32_t steps,
                                   peridot_error *error) {
    struct peridot_session *session = generation->session;
    uint32_t chunks = session->chunk_count, updates = generation->update_count;
    /* position of the last token that these steps run through the layers */
    uint32_t last = session->length - generation->received + generation->submitted + steps - 1;
    peridot_result result = kv_cache_reserve(session, last, error);
    if (!result && generation->submitted == 0)
        result = add_update(generation, true, error);
    else if (!result && session->chunk_count > chunks)
        result = add_update(generation, false, error);
    if (result)
        return result;
    uint32_t per_step = session->model->config.layers + 3; /* embedding, head, sampler */
    VkCommandBuffer *commands = malloc((steps * per_step + 1) * sizeof *commands);
    if (!commands)
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory while generating");
    struct batch batches[STEPS_MAX];
    VkCommandBuffer *at = commands;
    for (uint32_t i = 0; i < steps; i++) {
        batches[i] = (struct batch){at, 0};
        if (i == 0 && updates < generation->update_count)
            at[batches[i].count++] = generation->updates[updates];
        batches[i].count +=
            step_commands(generation, generation->submitted + i, at + batches[i].count);
        at += batches[i].count;
    }
    result = lane_submit(&session->lane, batches, steps, error);
    free(commands);
    for (uint32_t i = 0; i < steps && !result; i++)
        generation->values[generation->submitted++ % RING_CAPACITY] =
            session->lane.submitted - steps + i + 1;
    return result;
}

/* Keeps the device busy: up to two submissions ahead of what was received. */
static peridot_result feed(struct generation *generation, peridot_error *error) {
    double start = platform_seconds();
    peridot_result result = PERIDOT_OK;
    uint32_t ahead = steps_at_once(generation);
    while (!result && generation->submitted < generation->wanted &&
           generation->submitted - generation->received <= ahead &&
           generation->update_count < UPDATES_MAX)
        result = submit_steps(generation, steps_at_once(generation), error);
    generation->session->statistics.decode_host_seconds += platform_seconds() - start;
    return result;
}

/* Waits for the next token and takes it into the session. */
static peridot_result receive(struct generation *generation, peridot_token *token,
                              peridot_error *error) {
    struct peridot_session *session = generation->session;
    struct device *device = session->lane.device;
    double start = platform_seconds();
    uint64_t value = generation->values[generation->received % RING_CAPACITY];
    bool waited = session->lane.completed < value;
    peridot_result result = lane_wait(&session->lane, value, error);
    uint64_t place = generation->received % RING_CAPACITY * sizeof(struct ring_entry);
    if (!result)
        result = buffer_invalidate(device, session->ring, place, sizeof(struct ring_entry), error);
    if (result)
        return result;
    if (waited && generation->received > 0) {
        double took = platform_seconds() - start;
        generation->step_seconds =
            generation->step_seconds > 0 ? 0.5 * (generation->step_seconds + took) : took;
    }
    struct ring_entry entry;
    memcpy(&entry, (const char *)session->ring->mapped + place, sizeof entry);
    *token = (peridot_token){.position = entry.position,
                             .token = (int32_t)entry.token,
                             .log_probability = entry.log_probability,
                             .stop = entry.done != 0};
    if (entry.position != session->length || entry.token >= session->model->config.vocabulary)
        return fail(
            error, PERIDOT_ERROR_VULKAN,
            "%s gave a token that cannot be (position %u for %u): its results are not right",
            device->info.name, entry.position, session->length);
    session->held[session->length++] = token->token;
    session->computed = session->length - 1;
    session->logits_valid = false;
    generation->received++;
    return PERIDOT_OK;
}

static peridot_result run(struct generation *generation, peridot_on_token on_token, void *user,
                          peridot_error *error) {
    struct peridot_session *session = generation->session;
    peridot_result result = PERIDOT_OK;
    bool more = true;
    while (!result && more && generation->received < generation->wanted) {
        peridot_token token;
        result = feed(generation, error);
        if (!result)
            result = receive(generation, &token, error);
        if (!result)
            more = (!on_token || on_token(&token, user)) && !token.stop;
    }
    /* steps beyond the last token wanted may still run; what they write is written over later */
    peridot_result end = lane_wait(&session->lane, session->lane.submitted, error);
    for (uint32_t i = 0; i < generation->update_count; i++)
        lane_free_commands(&session->lane, generation->updates[i]);
    return result ? result : end;
}

static peridot_result prepare(struct peridot_session *session, uint32_t count,
                              peridot_error *error) {
    if (session->length == 0 || count == 0)
        return fail(error, PERIDOT_ERROR_ARGUMENT,
                    "generating needs a prompt and at least one token to make");
    if (session->length >= session->context)
        return fail(
            error, PERIDOT_ERROR_CONTEXT_FULL,
            "the context of %u tokens is full: truncate the session or give a larger --context",
            session->context);
    peridot_result result = PERIDOT_OK;
    if (!session->logits_valid)
        result = session_compute(session, NULL, error);
    if (!result)
        result = forward_record_pass(session, &session->passes[0], error);
    if (!result)
        result = forward_record_head(session, error);
    return result;
}

peridot_result peridot_session_generate(peridot_session *session, uint32_t count,
                                        peridot_on_token on_token, void *user, uint32_t *generated,
                                        peridot_error *error) {
    if (generated)
        *generated = 0;
    double start = platform_seconds();
    uint64_t submissions = session->lane.submissions;
    peridot_result result = prepare(session, count, error);
    if (result)
        return result;
    uint32_t room = session->context - session->length;
    struct generation generation = {
        .session = session,
        .wanted = count < room ? count : room,
        .kind = sampler_kind(&session->sampling, session->model->config.vocabulary),
    };
    result = forward_record_sampler(session, generation.kind, error);
    if (result)
        return result;
    set_state(&generation);
    result = run(&generation, on_token, user, error);
    session->statistics.decoded_tokens += generation.received;
    session->statistics.decode_seconds += platform_seconds() - start;
    session->statistics.submissions += session->lane.submissions - submissions;
    if (generated)
        *generated = generation.received;
    return result;
}
