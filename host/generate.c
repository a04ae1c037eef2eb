/* Generation: decode steps, several to a submission, read from the ring as they come. Where the
 * layers lie on several devices, the host carries the row from one to the next, a step at a time;
 * a step at a time too where the host says what tokens may come, while the layers run. */
#include "constraint.h"
#include "forward.h"
#include "hand_over.h"
#include "platform.h"

#include <stdlib.h>
#include <string.h>

#define STEPS_MAX 64
#define UPDATES_MAX (KV_CHUNKS_MAX + 1) /* the state, and one for each new KV chunk */

/* One call of peridot_session_generate_wait. */
struct generation {
    struct peridot_session *session;
    uint32_t wanted, submitted, received;
    uint64_t values[RING_CAPACITY]; /* the timeline value of step i, at i % RING_CAPACITY */
    uint32_t kind;                  /* of sampler */
    double step_seconds;            /* smoothed; 0: not measured yet */
    double waited;                  /* for other devices, seconds */
    VkCommandBuffer
        updates[UPDATES_MAX]; /* one-time command buffers, freed at the end of the call */
    uint32_t update_count;
};

uint32_t session_sampler_kind(const struct peridot_session *session) {
    const peridot_sampling *sampling = &session->sampling;
    uint32_t vocabulary = session->model->config.vocabulary;
    uint32_t kind = sampling->repetition_penalty != 1 ? SAMPLER_PENALTY : 0;
    if (constraint_is_on(session))
        kind |= SAMPLER_MASK;
    if (sampling->temperature == 0)
        return kind; /* the most likely token survives every cut */
    if (sampling->top_k > 0 && sampling->top_k < vocabulary)
        kind |= SAMPLER_TOP_K;
    if (sampling->top_p < 1)
        kind |= SAMPLER_TOP_P;
    return kind;
}

void session_begin_sampling(struct peridot_session *session) {
    struct session_block *state = &session->head_state;
    state->position = session->length - 1;
    state->rows = 1;
    state->done = 0;
    state->sampled = 0;
    uint32_t least = session->sampling.min_tokens, room = UINT32_MAX - session->prompt_end;
    state->stop_from = session->prompt_end + (least < room ? least : room);
    forward_attention_grid(state, session->length, 1);
    peridot_model_info info = {.struct_size = sizeof info};
    peridot_model_describe(session->model, &info);
    state->stop_count = info.stop_token_count;
    memcpy(state->stop_tokens, info.stop_tokens, sizeof state->stop_tokens);
}

void session_write_block(const struct peridot_session *session, VkCommandBuffer commands,
                         size_t from) {
    const struct session_block *state = &session->head_state;
    const struct buffer *marks = session->scratch.marks; /* a batch's own has none */
    const struct device_functions *vk = &session->model->device->engine->vk;
    vk->CmdUpdateBuffer(commands, session->block->handle, from, sizeof *state - from,
                        (const char *)state + from);
    if (from == 0 && marks && session->sampling.repetition_penalty != 1)
        vk->CmdFillBuffer(commands, marks->handle, 0, VK_WHOLE_SIZE, 0);
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
    session_write_block(session, *commands, all ? 0 : offsetof(struct session_block, kv_chunks));
    return lane_end(&session->lane, *commands, error);
}

/* One row's command buffers up to the end of the part's layers. */
static uint32_t layer_commands(const struct peridot_session *part, VkCommandBuffer *commands) {
    uint32_t count = 0;
    commands[count++] = part->model->is_home ? part->passes[0].embed.commands : part->take.commands;
    for (uint32_t i = 0; i < part->model->layer_count; i++)
        commands[count++] = part->passes[0].layers[i].commands;
    return count;
}

/* The command buffers of step `step`: forward passes precede all samplings but the first. */
static uint32_t step_commands(const struct generation *generation, uint32_t step,
                              VkCommandBuffer *commands) {
    const struct peridot_session *session = generation->session;
    uint32_t count = 0;
    if (step > 0) {
        count = layer_commands(session, commands);
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

/* Makes room for positions [0, positions) and the update, if one is due, that home is to have. */
static peridot_result make_room(struct generation *generation, uint32_t positions,
                                peridot_error *error) {
    struct peridot_session *session = generation->session;
    uint32_t chunks = session->chunk_count;
    peridot_result result = kv_cache_reserve(session, positions, error);
    if (!result && generation->submitted == 0)
        result = add_update(generation, true, error);
    else if (!result && session->chunk_count > chunks)
        result = add_update(generation, false, error);
    return result;
}

/* Sends `steps` steps in one vkQueueSubmit2, each a batch that signals the timeline. */
static peridot_result submit_steps(struct generation *generation, uint32_t steps,
                                   peridot_error *error) {
    struct peridot_session *session = generation->session;
    uint32_t updates = generation->update_count;
    /* position of the last token that these steps run through the layers */
    uint32_t last = session->length - generation->received + generation->submitted + steps - 1;
    peridot_result result = make_room(generation, last, error);
    if (result)
        return result;
    uint32_t per_step = session->model->layer_count + 3; /* embedding, head, sampler */
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
    if (generation->submitted > 1) /* the logits are a later token's, even if none is received */
        session->logits_valid = false;
    return result;
}

/* ---- Several devices ---- */

static peridot_result wait_for(struct generation *generation, struct peridot_session *part,
                               peridot_error *error) {
    double start = platform_seconds();
    peridot_result result = lane_wait(&part->lane, part->lane.submitted, error);
    generation->waited += platform_seconds() - start;
    return result;
}

/* The row of the last token, which home's layers are at work on, through the other devices and
 * back. */
static peridot_result carry_around(struct generation *generation, VkCommandBuffer *commands,
                                   peridot_error *error) {
    struct peridot_session *home = generation->session, *from = home;
    peridot_result result = wait_for(generation, home, error);
    for (struct peridot_session *part = home->next; part && !result; part = part->next) {
        forward_begin_pass(&part->head_state, home->length - 1, 1);
        result = hand_over_carry(from, part, 1, error);
        uint32_t count = layer_commands(part, commands);
        commands[count++] = part->give.commands;
        if (!result)
            result = lane_submit(&part->lane, &(struct batch){commands, count}, 1, error);
        if (!result)
            result = wait_for(generation, part, error);
        from = part;
    }
    return result ? result : hand_over_carry(from, home, 1, error);
}

/* One step, and behind it the layers of the next one, which then need not wait for the host: on
 * several devices home's, on one alone all of them and the head. */
static peridot_result submit_one_step(struct generation *generation, peridot_error *error) {
    struct peridot_session *home = generation->session;
    uint32_t step = generation->submitted, updates = generation->update_count, most = 0;
    bool more = step + 1 < generation->wanted, several = home->next != NULL;
    for (const struct peridot_session *part = home; part; part = part->next)
        most = part->model->layer_count > most ? part->model->layer_count : most;
    VkCommandBuffer *commands = malloc((most + 6) * sizeof *commands);
    if (!commands)
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory while generating");
    peridot_result result = make_room(generation, home->length + more, error);
    if (!result && step > 0 && several)
        result = carry_around(generation, commands, error);
    struct batch batches[2] = {{commands, 0}, {NULL, 0}};
    uint32_t count = 0;
    if (updates < generation->update_count)
        commands[count++] = generation->updates[updates];
    if (step > 0 && several) {
        commands[count++] = home->take.commands;
        commands[count++] = home->head.commands;
    }
    commands[count++] = home->samplers[generation->kind].commands;
    batches[0].count = count;
    if (more) {
        batches[1] = (struct batch){commands + count, layer_commands(home, commands + count)};
        commands[count + batches[1].count++] = several ? home->give.commands : home->head.commands;
    }
    if (!result)
        result = lane_submit(&home->lane, batches, more ? 2 : 1, error);
    free(commands);
    if (result)
        return result;
    generation->values[generation->submitted++ % RING_CAPACITY] = home->lane.submitted - more;
    home->logits_valid &= !more;
    return PERIDOT_OK;
}

/* Keeps the device busy: up to two submissions ahead of what was received. */
static peridot_result feed_one(struct generation *generation, peridot_error *error) {
    peridot_result result = PERIDOT_OK;
    uint32_t ahead = steps_at_once(generation);
    while (!result && generation->submitted < generation->wanted &&
           generation->submitted - generation->received <= ahead &&
           generation->update_count < UPDATES_MAX)
        result = submit_steps(generation, steps_at_once(generation), error);
    return result;
}

static peridot_result feed(struct generation *generation, peridot_error *error) {
    double start = platform_seconds();
    generation->waited = 0;
    bool masked = generation->kind & SAMPLER_MASK;
    peridot_result result = masked ? constraint_write(generation->session, error) : PERIDOT_OK;
    if (!result)
        result = masked || generation->session->next ? submit_one_step(generation, error)
                                                     : feed_one(generation, error);
    generation->session->statistics.decode_host_seconds +=
        platform_seconds() - start - generation->waited;
    return result;
}

peridot_result session_take_token(struct peridot_session *session, uint32_t index,
                                  peridot_token *token, peridot_error *error) {
    struct device *device = session->lane.device;
    uint64_t place = index % RING_CAPACITY * sizeof(struct ring_entry);
    peridot_result result =
        buffer_invalidate(device, session->ring, place, sizeof(struct ring_entry), error);
    if (result)
        return result;
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
    return PERIDOT_OK;
}

/* Waits for the next token and takes it into the session. */
static peridot_result receive(struct generation *generation, peridot_token *token,
                              peridot_error *error) {
    struct peridot_session *session = generation->session;
    double start = platform_seconds();
    uint64_t value = generation->values[generation->received % RING_CAPACITY];
    bool waited = session->lane.completed < value;
    peridot_result result = lane_wait(&session->lane, value, error);
    if (!result && waited && generation->received > 0) {
        double took = platform_seconds() - start;
        generation->step_seconds =
            generation->step_seconds > 0 ? 0.5 * (generation->step_seconds + took) : took;
    }
    if (!result)
        result = session_take_token(session, generation->received, token, error);
    if (!result)
        generation->received++;
    return result;
}

static peridot_result run(struct generation *generation, peridot_on_token on_token, void *user,
                          peridot_error *error) {
    struct peridot_session *session = generation->session;
    peridot_result result = PERIDOT_OK, fed = PERIDOT_OK;
    bool more = true;
    while (!result && more && generation->received < generation->wanted) {
        peridot_token token;
        if (!fed)
            fed = feed(generation, error);
        if (fed && generation->received == generation->submitted)
            result = fed; /* told when all that was sampled before has been handed over */
        else
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
    peridot_result result = session_check_present(session, error);
    if (!result && !session->logits_valid)
        result = session_compute(session, NULL, error);
    for (struct peridot_session *part = session; part && !result; part = part->next) {
        result = forward_record_pass(part, &part->passes[0], error);
        if (!result && session->next)
            result = hand_over_record(part, error);
    }
    return result ? result : forward_record_head(session, error);
}

peridot_result peridot_session_generate_wait(peridot_session *session, uint32_t count,
                                             peridot_on_token on_token, void *user,
                                             uint32_t *generated, peridot_error *error) {
    if (generated)
        *generated = 0;
    if (!session)
        return fail(error, PERIDOT_ERROR_ARGUMENT, "peridot_session_generate_wait needs a session");
    double start = platform_seconds();
    peridot_result result = prepare(session, count, error);
    if (result)
        return result;
    uint32_t room = session->context - session->length;
    struct generation generation = {
        .session = session,
        .wanted = count < room ? count : room,
        .kind = session_sampler_kind(session),
    };
    result = forward_record_sampler(session, generation.kind, error);
    if (result)
        return result;
    session_begin_sampling(session);
    result = run(&generation, on_token, user, error);
    session->statistics.decoded_tokens += generation.received;
    session->statistics.decode_seconds += platform_seconds() - start;
    if (generated)
        *generated = generation.received;
    return result;
}
