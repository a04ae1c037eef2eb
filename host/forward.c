#include "forward.h"
#include "constraint.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define WHOLE(named) ((struct operand){(named), 0, (named)->size})

/* ---- Small parts ---- */

static uint32_t divide_up(uint32_t value, uint32_t by) {
    return (value + by - 1) / by;
}

static struct operand rows_from(const struct buffer *buffer, uint32_t first, uint32_t rows,
                                uint32_t stride) {
    return (struct operand){buffer, (uint64_t)first * stride * 4, (uint64_t)rows * stride * 4};
}

static struct operand rows_of(const struct buffer *buffer, uint32_t rows, uint32_t stride) {
    return rows_from(buffer, 0, rows, stride);
}

static uint64_t address_of(const struct operand *operand) {
    return operand->buffer->address + operand->offset;
}

/* This layer's keys and values within a chunk. All chunks are alike, so the first stands for them.
 */
static struct operand kv_operand(const struct peridot_session *session, uint32_t layer) {
    uint64_t bytes = kv_chunk_bytes(session) / session->model->layer_count;
    return (struct operand){session->chunks[0].buffer, layer * bytes, bytes};
}

static uint32_t kv_layer_quads(const struct peridot_session *session, uint32_t layer) {
    return (uint32_t)(kv_operand(session, layer).offset / 16);
}

static struct dispatch *add(struct recording *recording, struct pipeline *pipeline,
                            const void *constants, const struct operand *operands, uint32_t x,
                            uint32_t y, uint32_t z, struct cost cost) {
    struct dispatch *dispatch =
        recording_dispatch(recording, pipeline, constants, operands, (uint32_t[3]){x, y, z});
    if (dispatch) {
        dispatch->cost = cost;
        recording->cost.bytes += cost.bytes;
        recording->cost.flops += cost.flops;
    }
    return dispatch;
}

/* ---- Whose rows ---- */

/* Rows of a pass that go by one session's state: all of them, or in a batch one. */
struct share {
    const struct peridot_session *session;
    uint32_t first, rows;
};

static uint32_t share_count(const struct peridot_session *session) {
    return session->member_count ? session->member_count : 1;
}

static struct share share_of(const struct peridot_session *session, uint32_t rows, uint32_t index) {
    if (session->member_count)
        return (struct share){session->members[index], index, 1};
    return (struct share){session, 0, rows};
}

/* ---- Kernels ---- */

static void add_embed(struct peridot_session *session, struct recording *recording,
                      const struct share *share) {
    const struct peridot_model *model = session->model;
    const struct weight *table = &model->embedding;
    struct operand x = rows_from(session->scratch.x, share->first, share->rows, model->d_padded);
    for (uint32_t i = 0; i < table->shard_count; i++) {
        const struct shard *shard = &table->shards[i];
        struct embed_constants constants = {
            .table = shard->buffer->address,
            .tokens = share->session->tokens->address,
            .x = address_of(&x),
            .session = share->session->block->address,
            .row_begin = shard->row_begin,
            .row_count = shard->row_count,
            .stride = shard->stride,
            .steps = shard->steps,
            .columns = model->config.d_model,
            .x_stride = model->d_padded,
            .scale = (float)sqrt(model->config.d_model),
        };
        struct operand operands[] = {WHOLE(shard->buffer), WHOLE(share->session->tokens), x,
                                     WHOLE(share->session->block)};
        struct cost cost = {.bytes = (double)share->rows * model->d_padded * 6};
        add(recording, session->kernels.embed[shard->type], &constants, operands, share->rows, 1, 1,
            cost);
    }
}

/* What a batch's kernels find in its block of its sessions. */
static void add_batch_rows(struct peridot_session *batch, struct recording *recording) {
    struct batch_constants constants = {.session = batch->block->address};
    struct operand operands[] = {WHOLE(batch->members[0]->block), WHOLE(batch->block)};
    struct cost cost = {.bytes = 4096};
    struct dispatch *dispatch =
        add(recording, batch->kernels.batch_rows, &constants, operands, 1, 1, 1, cost);
    for (uint32_t i = 1; i < batch->member_count; i++)
        recording_also(recording, dispatch, 0, WHOLE(batch->members[i]->block));
}

static void add_norm(struct peridot_session *session, struct recording *recording,
                     const struct buffer *multiplier, uint32_t rows) {
    const struct peridot_model *model = session->model;
    struct rmsnorm_constants constants = {
        .x = session->scratch.x->address,
        .multiplier = multiplier->address,
        .y = session->scratch.normed->address,
        .session = session->block->address,
        .columns = model->config.d_model,
        .stride = model->d_padded,
        .epsilon = (float)model->config.rms_eps,
    };
    struct operand operands[] = {
        rows_of(session->scratch.x, rows, model->d_padded), WHOLE(multiplier),
        rows_of(session->scratch.normed, rows, model->d_padded), WHOLE(session->block)};
    struct cost cost = {.bytes = (double)rows * model->d_padded * 8};
    add(recording, session->kernels.rmsnorm, &constants, operands, rows, 1, 1, cost);
}

/* One matrix product with its epilogue. */
struct projection_job {
    enum projection role;
    enum pass_shape shape;
    uint32_t rows; /* activation rows */
    const struct weight *weight;
    const struct buffer *x, *y, *multiplier; /* multiplier: of the norm before it, or NULL */
    uint32_t x_stride, y_stride;
    uint32_t layer;
    bool last_row;
};

/* What a projection reads: float32 rows, or quantised ones. */
struct input {
    const struct buffer *buffer;
    uint32_t stride; /* in words */
    bool norms;      /* the kernel norms them */
};

static uint32_t quantised_stride(uint32_t columns) {
    return 4 * QUANTISED_QUADS(columns / QUANTISED_BLOCK);
}

/* Of a shard of that type. */
static struct input input_of(const struct peridot_session *session,
                             const struct projection_job *job, enum weight_type type) {
    if (kernel_set_quantises(&session->kernels, type))
        return (struct input){session->scratch.quantised, quantised_stride(job->x_stride), false};
    bool norms = job->multiplier != NULL, many = job->shape == PASS_MANY_ROWS;
    return (struct input){norms && many ? session->scratch.normed : job->x, job->x_stride,
                          norms && !many};
}

/* Rows of the job's x, normed if it has norm weights, to scratch.quantised. */
static void add_quantise(struct peridot_session *session, struct recording *recording,
                         const struct projection_job *job) {
    const struct buffer *y = session->scratch.quantised;
    uint32_t blocks = job->x_stride / QUANTISED_BLOCK, stride = quantised_stride(job->x_stride);
    struct quantise_constants constants = {
        .x = job->x->address,
        .multiplier = job->multiplier ? job->multiplier->address : 0,
        .y = y->address,
        .session = session->block->address,
        .columns = session->model->config.d_model,
        .blocks = blocks,
        .x_stride = job->x_stride,
        .y_stride = stride,
        .epsilon = (float)session->model->config.rms_eps,
        .last_row = job->last_row,
    };
    struct operand operands[KERNEL_OPERANDS_MAX];
    uint32_t count = 0;
    operands[count++] = rows_of(job->x, job->rows, job->x_stride);
    if (job->multiplier)
        operands[count++] = WHOLE(job->multiplier);
    operands[count++] = rows_of(y, job->rows, stride);
    operands[count++] = WHOLE(session->block);
    struct pipeline *pipeline =
        job->multiplier ? session->kernels.quantise_norm : session->kernels.quantise;
    uint32_t groups = job->multiplier ? 1 : divide_up(blocks, pipeline->key.spec[SPEC_WORKGROUP]);
    uint32_t rows = job->last_row ? 1 : job->rows;
    struct cost cost = {.bytes = 4.0 * rows * (job->x_stride + stride)};
    add(recording, pipeline, &constants, operands, groups, rows, 1, cost);
}

/* What the job's kernels read, of the rows in its x: normed, quantised, or both where the types of
 * the weight's shards differ. */
static void prepare_input(struct peridot_session *session, struct recording *recording,
                          const struct projection_job *job) {
    const struct weight *weight = job->weight;
    bool quantised = false, floats = false;
    for (uint32_t i = 0; i < weight->shard_count; i++) {
        bool is_quantised = kernel_set_quantises(&session->kernels, weight->shards[i].type);
        quantised |= is_quantised;
        floats |= !is_quantised;
    }
    if (quantised)
        add_quantise(session, recording, job);
    if (floats && job->multiplier && job->shape == PASS_MANY_ROWS)
        add_norm(session, recording, job->multiplier, job->rows);
}

/* Operands in the order of the kernel table: matvec's norm weights and QKV's extras are there or
 * not. */
static uint32_t project_operands(const struct peridot_session *session,
                                 const struct projection_job *job, const struct shard *shard,
                                 const struct input *input, struct operand *operands) {
    uint32_t count = 0;
    bool own_logits = job->role == PROJECT_HEAD && session->member_count;
    uint32_t y_rows = job->last_row || own_logits ? 1 : job->rows;
    operands[count++] = WHOLE(shard->buffer);
    operands[count++] = rows_of(input->buffer, job->rows, input->stride);
    if (input->norms)
        operands[count++] = WHOLE(job->multiplier);
    if (job->role == PROJECT_QKV)
        operands[count++] = WHOLE(session->model->rope);
    operands[count++] = rows_of(job->y, y_rows, job->y_stride);
    if (job->role == PROJECT_QKV)
        operands[count++] = session->kv == PERIDOT_KV_Q8
                                ? (struct operand){0}
                                : kv_operand(share_of(session, 0, 0).session, job->layer);
    operands[count++] = WHOLE(session->block);
    return count;
}

/* A batch's projections write to the KV caches and to the logits of all its sessions: the operand
 * before the last, of which project_operands has the first session's. */
static void add_members(const struct peridot_session *session, const struct projection_job *job,
                        struct recording *recording, struct dispatch *dispatch, uint32_t operands) {
    bool caches = job->role == PROJECT_QKV && session->kv != PERIDOT_KV_Q8;
    bool logits = job->role == PROJECT_HEAD;
    for (uint32_t i = 1; i < session->member_count && (caches || logits); i++) {
        const struct peridot_session *member = session->members[i];
        recording_also(recording, dispatch, operands - 2,
                       caches ? kv_operand(member, job->layer) : WHOLE(member->scratch.logits));
    }
}

static void add_projection(struct peridot_session *session, struct recording *recording,
                           const struct projection_job *job) {
    const struct peridot_model *model = session->model;
    const struct weight *weight = job->weight;
    prepare_input(session, recording, job);
    for (uint32_t i = 0; i < weight->shard_count; i++) {
        const struct shard *shard = &weight->shards[i];
        struct input input = input_of(session, job, shard->type);
        struct pipeline *pipeline = session->kernels.project[job->shape][job->role][shard->type];
        const uint32_t *spec = pipeline->key.spec;
        struct project_constants constants = {
            .weights = shard->buffer->address,
            .x = input.buffer->address,
            .multiplier = input.norms ? job->multiplier->address : 0,
            .rope = model->rope->address,
            .y = job->y->address,
            .session = session->block->address,
            .stride = shard->stride,
            .steps = shard->steps,
            .columns = model->config.d_model,
            .row_begin = shard->row_begin,
            .row_count = shard->row_count,
            .x_stride = input.stride,
            .y_stride = job->y_stride,
            .epsilon = (float)model->config.rms_eps,
            .heads = model->config.heads,
            .kv_heads = model->config.kv_heads,
            .head_dim = model->config.head_dim,
            .kv_layer = job->role == PROJECT_QKV ? kv_layer_quads(session, job->layer) : 0,
            .last_row = job->last_row,
        };
        struct operand operands[KERNEL_OPERANDS_MAX];
        uint32_t count = project_operands(session, job, shard, &input, operands);
        struct cost cost = {
            .bytes = (double)shard->row_count * shard->stride * 16 + job->rows * input.stride * 4.0,
            .flops = 2.0 * shard->row_count * shard->columns * job->rows,
        };
        struct dispatch *dispatch = add(
            recording, pipeline, &constants, operands, divide_up(shard->row_count, spec[SPEC_ROWS]),
            job->last_row ? 1 : divide_up(job->rows, spec[SPEC_COLUMNS]), 1, cost);
        add_members(session, job, recording, dispatch, count);
    }
}

/* In q8 the projection leaves keys and values beside the queries, for this kernel to pack. */
static void add_kv_store(struct peridot_session *session, struct recording *recording,
                         const struct share *share, uint32_t layer) {
    const struct model_config *config = &session->model->config;
    struct pipeline *pipeline = session->kernels.kv_store;
    uint32_t stride = query_row_floats(config, session->kv), dim = session->model->head_dim_padded;
    struct operand made = rows_from(session->scratch.query, share->first, share->rows, stride);
    struct kv_store_constants constants = {
        .made = address_of(&made),
        .session = share->session->block->address,
        .heads = config->heads,
        .kv_heads = config->kv_heads,
        .kv_layer = kv_layer_quads(session, layer),
        .stride = stride,
    };
    struct operand operands[] = {made, kv_operand(share->session, layer),
                                 WHOLE(share->session->block)};
    uint32_t rows = share->rows * 2 * config->kv_heads; /* of the cache */
    struct cost cost = {.bytes =
                            (double)rows * (dim * 4.0 + (double)kv_row_bytes(session->kv, dim))};
    add(recording, pipeline, &constants, operands,
        divide_up(rows * divide_up(dim, 2 * KV_BLOCK), pipeline->key.spec[SPEC_WORKGROUP]), 1, 1,
        cost);
}

/* What attention of a share's rows reads and writes. A session's partial results are its own. */
struct attention_job {
    struct attention_constants constants;
    struct operand query, kv, partial, result, block;
};

static struct attention_job attention_job(const struct peridot_session *session,
                                          const struct share *share, uint32_t layer) {
    const struct peridot_model *model = session->model;
    const struct model_config *config = &model->config;
    const struct peridot_session *own = share->session;
    uint32_t query_stride = query_row_floats(config, session->kv), stride = model->query_padded;
    uint32_t few = share->rows < FEW_ROWS ? share->rows : FEW_ROWS;
    struct attention_job job = {
        .query = rows_from(session->scratch.query, share->first, share->rows, query_stride),
        .kv = kv_operand(own, layer),
        .partial = rows_of(own->scratch.partial, few * config->heads,
                           SPLITS_MAX * (model->head_dim_padded + 8)),
        .result = rows_from(session->scratch.attended, share->first, share->rows, stride),
        .block = WHOLE(own->block),
    };
    job.constants = (struct attention_constants){
        .query = address_of(&job.query),
        .partial = address_of(&job.partial),
        .result = address_of(&job.result),
        .session = own->block->address,
        .heads = config->heads,
        .kv_heads = config->kv_heads,
        .kv_layer = kv_layer_quads(own, layer),
        .query_stride = query_stride,
        .stride = stride,
        .scale = (float)(1 / sqrt(config->head_dim)),
    };
    return job;
}

/* All of attention grows with the context. */
static void set_growth(const struct peridot_session *session, const struct share *share,
                       struct dispatch *dispatch) {
    if (dispatch)
        dispatch->growth = forward_attention_cost(session, share->rows, 1);
}

static void add_attention_prefill(struct peridot_session *session, struct recording *recording,
                                  const struct share *share, uint32_t layer) {
    struct attention_job job = attention_job(session, share, layer);
    struct pipeline *pipeline = session->kernels.attention_prefill;
    struct operand operands[] = {job.query, job.kv, job.result, job.block};
    set_growth(session, share,
               add(recording, pipeline, &job.constants, operands,
                   divide_up(share->rows, pipeline->key.spec[SPEC_COLUMNS]),
                   session->model->config.kv_heads, 1, (struct cost){0, 0}));
}

/* The grid is in the session's block. */
static void add_attention_decode(struct peridot_session *session, struct recording *recording,
                                 const struct share *share, uint32_t layer) {
    struct attention_job job = attention_job(session, share, layer);
    struct operand operands[] = {job.query, job.kv, job.partial, job.block};
    struct dispatch *dispatch = add(recording, session->kernels.attention_decode, &job.constants,
                                    operands, 1, 1, 1, (struct cost){0, 0});
    set_growth(session, share, dispatch);
    if (dispatch) {
        dispatch->indirect = share->session->block;
        dispatch->indirect_offset = offsetof(struct session_block, attention_grid);
    }
}

static void add_attention_join(struct peridot_session *session, struct recording *recording,
                               const struct share *share, uint32_t layer) {
    struct attention_job job = attention_job(session, share, layer);
    struct operand operands[] = {job.partial, job.result, job.block};
    add(recording, session->kernels.attention_join, &job.constants, operands,
        session->model->config.heads, share->rows, 1, (struct cost){0, 0});
}

/* Adds a kernel for each session that has rows in the pass: of a batch's one after another, so that
 * no barrier comes between them. */
static void add_shares(struct peridot_session *session, struct recording *recording, uint32_t rows,
                       uint32_t layer,
                       void (*add_one)(struct peridot_session *session, struct recording *recording,
                                       const struct share *share, uint32_t layer)) {
    for (uint32_t i = 0; i < share_count(session); i++) {
        struct share share = share_of(session, rows, i);
        add_one(session, recording, &share, layer);
    }
}

/* ---- Hidden states ---- */

static void add_capture(struct peridot_session *session, struct recording *recording,
                        const struct buffer *from, const struct share *share) {
    const struct peridot_session *own = share->session;
    const struct buffer *y = own->scratch.hidden_states;
    uint32_t stride = session->model->d_padded;
    struct pipeline *pipeline = session->kernels.capture;
    struct operand x = rows_from(from, share->first, share->rows, stride);
    struct capture_constants constants = {
        .x = address_of(&x), .y = y->address, .session = own->block->address, .stride = stride};
    struct operand operands[] = {x, WHOLE(y), WHOLE(own->block)};
    struct cost cost = {.bytes = 8.0 * share->rows * stride};
    add(recording, pipeline, &constants, operands,
        divide_up(stride / 4, pipeline->key.spec[SPEC_WORKGROUP]), share->rows, 1, cost);
}

/* After a layer, counted from 1: what the application wants of it in each session. */
static void add_hidden_states(struct peridot_session *session, struct recording *recording,
                              uint32_t rows, uint32_t layer) {
    const struct peridot_model *model = session->model;
    bool is_last = layer == model->config.layers, normed = false;
    for (uint32_t i = 0; i < share_count(session); i++) {
        struct share share = share_of(session, rows, i);
        uint32_t wanted = share.session->hidden_layer;
        if (wanted == layer)
            add_capture(session, recording, session->scratch.x, &share);
        if (wanted != PERIDOT_HIDDEN_NORMED || !is_last)
            continue;
        if (!normed)
            add_norm(session, recording, model->final_norm, rows);
        normed = true;
        add_capture(session, recording, session->scratch.normed, &share);
    }
}

/* ---- A layer ---- */

static void record_layer(struct peridot_session *session, struct recording *recording,
                         const struct pass *pass, uint32_t index) {
    const struct peridot_model *model = session->model;
    const struct layer *layer = &model->layers[index];
    const struct scratch *s = &session->scratch;
    struct projection_job job = {.shape = pass->shape, .rows = pass->rows, .layer = index};

    job.role = PROJECT_QKV;
    job.weight = &layer->qkv;
    job.multiplier = layer->input_norm;
    job.x = s->x, job.x_stride = model->d_padded;
    job.y = s->query, job.y_stride = query_row_floats(&model->config, session->kv);
    add_projection(session, recording, &job);

    if (session->kv == PERIDOT_KV_Q8)
        add_shares(session, recording, pass->rows, index, add_kv_store);
    if (pass->shape == PASS_MANY_ROWS) {
        add_shares(session, recording, pass->rows, index, add_attention_prefill);
    } else {
        add_shares(session, recording, pass->rows, index, add_attention_decode);
        add_shares(session, recording, pass->rows, index, add_attention_join);
    }

    job.role = PROJECT_RESIDUAL;
    job.weight = &layer->output;
    job.multiplier = NULL;
    job.x = s->attended, job.x_stride = model->query_padded;
    job.y = s->x, job.y_stride = model->d_padded;
    add_projection(session, recording, &job);

    job.role = PROJECT_GEGLU;
    job.weight = &layer->gate_up;
    job.multiplier = layer->post_attention_norm;
    job.x = s->x, job.x_stride = model->d_padded;
    job.y = s->hidden, job.y_stride = model->hidden_padded;
    add_projection(session, recording, &job);

    job.role = PROJECT_RESIDUAL;
    job.weight = &layer->down;
    job.multiplier = NULL;
    job.x = s->hidden, job.x_stride = model->hidden_padded;
    job.y = s->x, job.y_stride = model->d_padded;
    add_projection(session, recording, &job);
    add_hidden_states(session, recording, pass->rows, index + 1);
}

/* What comes before the layers. */
static void record_embedding(struct peridot_session *session, struct recording *recording,
                             uint32_t rows) {
    for (uint32_t i = 0; i < share_count(session); i++) {
        struct share share = share_of(session, rows, i);
        add_embed(session, recording, &share);
    }
    if (session->member_count)
        add_batch_rows(session, recording);
}

/* ---- Segments ---- */

/* Writes a segment's list into a command buffer of its own. */
static peridot_result finish_segment(struct peridot_session *session, struct segment *segment,
                                     bool host_read, peridot_error *error) {
    struct emit_options options = {.shuffle_seed = session->shuffle_seed, .host_read = host_read};
    peridot_result result = lane_commands(&session->lane, &segment->commands, error);
    if (!result)
        result = lane_begin(&session->lane, segment->commands, true, error);
    if (!result)
        result = recording_emit(&segment->recording, segment->commands, &options, error);
    if (!result)
        result = lane_end(&session->lane, segment->commands, error);
    if (result)
        forward_free_segment(session, segment);
    return result;
}

void forward_free_segment(struct peridot_session *session, struct segment *segment) {
    if (segment->commands)
        lane_free_commands(&session->lane, segment->commands);
    recording_free(&segment->recording);
    *segment = (struct segment){0};
}

void forward_free_pass(struct peridot_session *session, struct pass *pass) {
    for (uint32_t i = 0; pass->layers && i < pass->layer_count; i++)
        forward_free_segment(session, &pass->layers[i]);
    forward_free_segment(session, &pass->embed);
    free(pass->layers);
    pass->layers = NULL;
}

peridot_result forward_record_pass(struct peridot_session *session, struct pass *pass,
                                   peridot_error *error) {
    if (pass->layers)
        return PERIDOT_OK;
    uint32_t layers = session->model->layer_count;
    pass->layers = calloc(layers ? layers : 1, sizeof *pass->layers);
    if (!pass->layers)
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory while recording");
    pass->layer_count = layers;
    struct device *device = session->model->device->engine;
    peridot_result result = PERIDOT_OK;
    if (session->model->is_home) {
        recording_begin(&pass->embed.recording, device);
        record_embedding(session, &pass->embed.recording, pass->rows);
        result = finish_segment(session, &pass->embed, false, error);
    }
    for (uint32_t i = 0; i < layers && !result; i++) {
        recording_begin(&pass->layers[i].recording, device);
        record_layer(session, &pass->layers[i].recording, pass, i);
        result = finish_segment(session, &pass->layers[i], false, error);
    }
    if (result) /* so that it is tried again as a whole */
        forward_free_pass(session, pass);
    return result;
}

static struct projection_job head_job(const struct peridot_session *session, uint32_t rows) {
    const struct peridot_model *model = session->model;
    return (struct projection_job){
        .role = PROJECT_HEAD,
        .shape = PASS_ONE_ROW,
        .rows = rows,
        .weight = model_head(model),
        .multiplier = model->final_norm,
        .x = session->scratch.x,
        .x_stride = model->d_padded,
        .y = session->scratch.logits,
        .y_stride = model->config.vocabulary,
    };
}

peridot_result forward_record_head(struct peridot_session *session, peridot_error *error) {
    if (session->head.commands)
        return PERIDOT_OK;
    recording_begin(&session->head.recording, session->model->device->engine);
    struct projection_job job = head_job(session, session->prefill_rows);
    if (session->member_count) {
        job.shape = PASS_FEW_ROWS;
        job.y = session->members[0]->scratch.logits;
    } else {
        job.last_row = true;
    }
    add_projection(session, &session->head.recording, &job);
    return finish_segment(session, &session->head, false, error);
}

peridot_result forward_record_logits(struct peridot_session *session, const struct pass *pass,
                                     const struct buffer *logits, VkCommandBuffer commands,
                                     peridot_error *error) {
    struct recording recording;
    recording_begin(&recording, session->model->device->engine);
    struct projection_job job = head_job(session, pass->rows);
    job.shape = pass->shape;
    job.y = logits;
    add_projection(session, &recording, &job);
    struct emit_options options = {.shuffle_seed = session->shuffle_seed};
    peridot_result result = recording_emit(&recording, commands, &options, error);
    recording_free(&recording);
    return result;
}

/* ---- The sampler ---- */

static void add_sampler(struct peridot_session *session, struct recording *recording,
                        uint32_t kind) {
    const struct scratch *s = &session->scratch;
    const struct kernel_set *set = &session->kernels;
    struct sample_constants constants = {
        .logits = s->logits->address,
        .scores = s->scores->address,
        .marks = s->marks->address,
        .work = s->work->address,
        .tokens = session->tokens->address,
        .ring = session->ring->address,
        .session = session->block->address,
        .vocabulary = session->model->config.vocabulary,
    };
    struct operand logits = WHOLE(s->logits), scores = WHOLE(s->scores), marks = WHOLE(s->marks);
    struct operand work = WHOLE(s->work), tokens = WHOLE(session->tokens),
                   ring = WHOLE(session->ring);
    struct operand block = WHOLE(session->block);
    struct cost pass = {.bytes = session->model->config.vocabulary * 4.0};
    struct cost small = {.bytes = 4096};

    if (kind & SAMPLER_PENALTY)
        add(recording, set->sample_mark, &constants, (struct operand[]){marks, tokens, work, block},
            1, 1, 1, small);
    if (kind & SAMPLER_MASK) {
        struct operand mask = WHOLE(constraint_mask(session));
        constants.mask = mask.buffer->address;
        add(recording, set->sample_score_masked, &constants,
            (struct operand[]){logits, scores, marks, mask, work, block}, SAMPLE_GROUPS, 1, 1,
            pass);
    } else {
        add(recording, set->sample_score, &constants,
            (struct operand[]){logits, scores, marks, work, block}, SAMPLE_GROUPS, 1, 1, pass);
    }
    for (constants.criterion = 0; constants.criterion < 2; constants.criterion++) {
        if (!(kind & (constants.criterion == 0 ? SAMPLER_TOP_K : SAMPLER_TOP_P)))
            continue;
        for (constants.level = 0; constants.level < 4; constants.level++)
            add(recording, set->sample_histogram, &constants,
                (struct operand[]){scores, work, block}, SAMPLE_GROUPS, 1, 1, pass);
        add(recording, set->sample_cut, &constants, (struct operand[]){scores, work, block}, 1, 1,
            1, pass);
    }
    constants.level = constants.criterion = 0;
    add(recording, set->sample_draw, &constants, (struct operand[]){scores, work, block},
        SAMPLE_GROUPS, 1, 1, pass);
    add(recording, set->sample_finish, &constants,
        (struct operand[]){logits, marks, work, tokens, ring, block}, 1, 1, 1, small);
}

peridot_result forward_record_sampler(struct peridot_session *session, uint32_t kind,
                                      peridot_error *error) {
    struct segment *segment = &session->samplers[kind];
    if (segment->commands)
        return PERIDOT_OK;
    peridot_result result = kind & SAMPLER_MASK ? constraint_reserve(session, error) : PERIDOT_OK;
    if (result)
        return result;
    recording_begin(&segment->recording, session->model->device->engine);
    add_sampler(session, &segment->recording, kind);
    return finish_segment(session, segment, true, error);
}

/* ---- What depends on the context ---- */

struct cost forward_attention_cost(const struct peridot_session *session, uint32_t rows,
                                   uint32_t length) {
    const struct model_config *config = &session->model->config;
    return (struct cost){
        .bytes = (double)kv_chunk_size(config, 1, session->kv) / KV_CHUNK * length,
        .flops = 4.0 * length * config->head_dim * config->heads * rows,
    };
}

void forward_begin_pass(struct session_block *block, uint32_t base, uint32_t rows) {
    block->position = base;
    block->rows = rows;
    block->done = 0;
    block->sampled = 0;
    forward_attention_grid(block, base + rows, rows);
}

void forward_attention_grid(struct session_block *block, uint32_t length, uint32_t rows) {
    uint32_t splits = block->split_target / block->kv_heads;
    splits = splits < 1 ? 1 : splits > SPLITS_MAX ? SPLITS_MAX : splits;
    block->split_length = round_up(divide_up(length, splits), 32);
    block->attention_grid[0] = divide_up(length, block->split_length);
    block->attention_grid[1] = block->kv_heads;
    block->attention_grid[2] = rows;
}
