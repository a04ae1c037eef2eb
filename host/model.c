/* Planning a model's weights and telling what it is. */
#include "model.h"
#include "abi.h"
#include "caller_struct.h"
#include "memory_plan.h"
#include "split.h"
#include "token_trie.h"
#include "upload.h"

#include <stdlib.h>
#include <string.h>

/* More query heads than this on one KV head do not fit the attention kernels' shared memory. */
#define GROUP_MAX 16

/* Byte offsets within a buffer stay below 2^31: not every driver computes them in 64 bits. */
#define PIECE_BYTES_MAX ((uint64_t)1 << 31)
#define ROWS_OF_WORKGROUP 4 /* that a projection's workgroup makes at least */

/* Smaller models get one block of memory of just their size. */
#define BLOCK_SHARED ((uint64_t)64 << 20)

#define WEIGHT(name, NAME, block, block_bytes, gguf, low, high, header, scale)                     \
    _Static_assert(PERIDOT_WEIGHTS_##NAME == WEIGHT_##NAME + 1, "in the order of the table");
#include "weight_types.def"
#undef WEIGHT

static peridot_result check_sizes(const struct model_config *config, peridot_error *error) {
    if (config->heads / config->kv_heads > GROUP_MAX)
        return fail(error, PERIDOT_ERROR_UNSUPPORTED,
                    "%u query heads share a KV head; Peridot's attention kernels take up to %d",
                    config->heads / config->kv_heads, GROUP_MAX);
    return PERIDOT_OK;
}

uint32_t weight_piece_rows(const struct peridot_model *model, const peridot_model_params *params,
                           uint64_t row_bytes) {
    const struct device_limits *limits = &model->device->engine->info.limits;
    uint64_t bytes =
        limits->max_allocation < PIECE_BYTES_MAX ? limits->max_allocation : PIECE_BYTES_MAX;
    if (params->max_piece && params->max_piece < bytes)
        bytes = params->max_piece;
    uint64_t rows = bytes / row_bytes, grid = (uint64_t)limits->max_grid[0] * ROWS_OF_WORKGROUP;
    return (uint32_t)((rows < grid ? rows : grid) / 2 * 2);
}

static void free_weight(struct weight *weight) {
    free(weight->shards);
    *weight = (struct weight){0};
}

static void free_part_weights(struct peridot_model *model) {
    for (uint32_t i = 0; model->layers && i < model->layer_count; i++) {
        struct layer *layer = &model->layers[i];
        free_weight(&layer->qkv);
        free_weight(&layer->output);
        free_weight(&layer->gate_up);
        free_weight(&layer->down);
    }
    free_weight(&model->embedding);
    free_weight(&model->head);
    free(model->layers);
    model->layers = NULL;
    arena_destroy(model->arena);
    model->arena = NULL;
}

static void free_weights(struct peridot_model *model) {
    for (struct peridot_model *part = model; part; part = part->next)
        free_part_weights(part);
}

static peridot_result plan_in_blocks(struct peridot_model *part,
                                     const struct checkpoint *checkpoint,
                                     const peridot_model_params *params, uint64_t block,
                                     peridot_error *error) {
    free_part_weights(part);
    peridot_result result =
        arena_plan(part->device->engine, MEMORY_DEVICE, block, &part->arena, error);
    if (result)
        return result;
    arena_share(part->arena);
    return upload_plan(part, checkpoint, params, error);
}

static peridot_result plan_part(struct peridot_model *part, const struct checkpoint *checkpoint,
                                const peridot_model_params *params, peridot_error *error) {
    peridot_result result = plan_in_blocks(part, checkpoint, params, 0, error);
    if (result || arena_bytes(part->arena) >= BLOCK_SHARED)
        return result;
    return plan_in_blocks(part, checkpoint, params, arena_bytes(part->arena), error);
}

peridot_result model_plan_weights(struct peridot_model *model, const struct checkpoint *checkpoint,
                                  const peridot_model_params *params,
                                  const peridot_session_params *session, uint32_t context,
                                  peridot_error *error) {
    free_weights(model);
    model->layer_count = model->config.layers;
    peridot_result result = plan_part(model, checkpoint, params, error);
    if (result || !model->next)
        return result;
    struct peridot_model whole = *model; /* what was planned, whatever the counts become */
    result = split_layers(model, params, session, context, error);
    free_part_weights(&whole);
    model->layers = NULL;
    model->arena = NULL;
    model->embedding = model->head = (struct weight){0};
    for (struct peridot_model *part = model; part && !result; part = model_next(part))
        result = plan_part(part, checkpoint, params, error);
    return result;
}

peridot_result model_make_arena(struct peridot_model *part, peridot_error *error) {
    uint64_t block = arena_bytes(part->arena) < BLOCK_SHARED ? arena_bytes(part->arena) : 0;
    free_part_weights(part);
    peridot_result result =
        arena_create(part->device->engine, MEMORY_DEVICE, block, &part->arena, error);
    if (!result)
        arena_share(part->arena);
    return result;
}

static struct peridot_model *create_part(peridot_device *device, const struct model_config *config,
                                         bool is_home) {
    struct peridot_model *part = calloc(1, sizeof *part);
    if (!part)
        return NULL;
    part->device = device;
    part->is_home = is_home;
    part->config = *config;
    part->d_padded = round_up(config->d_model, ACTIVATION_ALIGNMENT);
    part->hidden_padded = round_up(config->hidden, ACTIVATION_ALIGNMENT);
    part->head_dim_padded = round_up(config->head_dim, ROW_ALIGNMENT);
    part->query_padded = round_up(config->heads * part->head_dim_padded, ACTIVATION_ALIGNMENT);
    return part;
}

peridot_result model_create_parts(peridot_device *device, const struct model_config *config,
                                  const peridot_model_params *params, struct peridot_model **out,
                                  peridot_error *error) {
    struct peridot_model **place = out;
    peridot_result result = split_check(device, params, config->layers, error);
    for (uint32_t i = 0; i <= params->more_device_count && !result; i++) {
        *place = create_part(i ? params->more_devices[i - 1] : device, config, i == 0);
        if (!*place)
            return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory while loading the model");
        place = &(*place)->next;
    }
    return result ? result : check_sizes(config, error);
}

static peridot_result inspect(peridot_device *device, const char *path, const peridot_file *files,
                              uint32_t count, const peridot_model_params *params,
                              const peridot_session_params *session, peridot_model_info *info,
                              peridot_memory_plan *plan, peridot_error *error) {
    struct peridot_model *model;
    peridot_result result = model_plan(device, path, files, count, params, &model, error);
    if (!result && plan)
        result = memory_plan_write(model, session, plan, error);
    if (!result && info)
        peridot_model_describe(model, info);
    peridot_model_close(model);
    return result;
}

peridot_result peridot_model_inspect(peridot_device *device, const char *path,
                                     const peridot_model_params *params,
                                     const peridot_session_params *session,
                                     peridot_model_info *info, peridot_memory_plan *plan,
                                     peridot_error *error) {
    if (!device || !path)
        return fail(error, PERIDOT_ERROR_ARGUMENT,
                    "peridot_model_inspect needs a device and a path");
    return inspect(device, path, NULL, 0, params, session, info, plan, error);
}

peridot_result peridot_model_inspect_files(peridot_device *device, const peridot_file *files,
                                           uint32_t count, const peridot_model_params *params,
                                           const peridot_session_params *session,
                                           peridot_model_info *info, peridot_memory_plan *plan,
                                           peridot_error *error) {
    if (!device)
        return fail(error, PERIDOT_ERROR_ARGUMENT, "peridot_model_inspect_files needs a device");
    return inspect(device, NULL, files, count, params, session, info, plan, error);
}

/* ---- Describing ---- */

struct sums {
    uint64_t elements, ideal, padded;
};

/* Wherever it is. */
static const struct layer *find_layer(const struct peridot_model *model, uint32_t index) {
    while (index >= model->first_layer + model->layer_count)
        model = model->next;
    return &model->layers[index - model->first_layer];
}

static void add_weight(struct sums *sums, const struct weight *weight) {
    sums->elements += (uint64_t)weight->rows * weight->columns;
    sums->ideal += weight->ideal_bytes;
    sums->padded += weight_bytes(weight);
}

static struct sums sum_weights(const struct peridot_model *model) {
    const struct model_config *config = &model->config;
    struct sums sums = {0};
    add_weight(&sums, model_head(model)); /* the table itself gives a token one row */
    for (uint32_t i = 0; i < config->layers; i++) {
        const struct layer *layer = find_layer(model, i);
        add_weight(&sums, &layer->qkv);
        add_weight(&sums, &layer->output);
        add_weight(&sums, &layer->gate_up);
        add_weight(&sums, &layer->down);
        sums.elements += 2 * config->d_model;
    }
    sums.elements += config->d_model;
    return sums;
}

/* The type of all projections; AUTO: they have several. */
static peridot_weights projection_type(const struct peridot_model *model) {
    enum weight_type type = find_layer(model, 0)->qkv.shards[0].type;
    for (uint32_t i = 0; i < model->config.layers; i++) {
        const struct layer *layer = find_layer(model, i);
        const struct weight *weights[] = {&layer->qkv, &layer->output, &layer->gate_up,
                                          &layer->down};
        for (int j = 0; j < 4; j++)
            for (uint32_t k = 0; k < weights[j]->shard_count; k++)
                if (weights[j]->shards[k].type != type)
                    return PERIDOT_WEIGHTS_AUTO;
    }
    return (peridot_weights)(type + 1);
}

static void list_devices(const struct peridot_model *model, peridot_model_info *info) {
    for (const struct peridot_model *part = model; part; part = part->next) {
        info->device_layers[info->device_count++] = part->layer_count;
        info->weight_bytes += part->arena ? arena_allocated(part->arena) : 0;
    }
}

static void list_stop_tokens(const struct peridot_model *model, peridot_model_info *info) {
    for (uint32_t i = 0; i < model->config.eos_count; i++)
        info->stop_tokens[info->stop_token_count++] = (uint32_t)model->config.eos[i];
    if (!model->tokenizer)
        return;
    int32_t end = tokenizer_specials(model->tokenizer).end_of_turn;
    for (uint32_t i = 0; i < info->stop_token_count; i++)
        if ((int32_t)info->stop_tokens[i] == end)
            return;
    if (end >= 0 && info->stop_token_count < STOP_TOKENS_MAX)
        info->stop_tokens[info->stop_token_count++] = (uint32_t)end;
}

void peridot_model_describe(const peridot_model *model, peridot_model_info *out) {
    const struct model_config *config = &model->config;
    struct sums sums = sum_weights(model);
    peridot_model_info info = {
        .layers = config->layers,
        .d_model = config->d_model,
        .heads = config->heads,
        .kv_heads = config->kv_heads,
        .head_dim = config->head_dim,
        .hidden = config->hidden,
        .vocabulary = config->vocabulary,
        .context = config->context,
        .parameters = sums.elements,
        .ideal_bytes = sums.ideal,
        .padded_bytes = sums.padded,
        .fingerprint = model->fingerprint,
        .weights = projection_type(model),
        .weights_chosen = model->weights_chosen,
        .has_tokenizer = model->tokenizer != NULL,
        .bos = (uint32_t)config->bos,
        .seconds_loading = model->seconds_loading,
    };
    if (model->tokenizer) {
        struct tokenizer_specials specials = tokenizer_specials(model->tokenizer);
        info.has_chat = specials.start_of_turn >= 0 && specials.end_of_turn >= 0;
    }
    list_stop_tokens(model, &info);
    list_devices(model, &info);
    caller_struct_write(out, &info, sizeof info);
}

void peridot_model_close(peridot_model *model) {
    while (model) {
        struct peridot_model *next = model->next;
        free_part_weights(model);
        tokenizer_destroy(model->tokenizer);
        token_trie_destroy(model->trie);
        free(model);
        model = next;
    }
}
