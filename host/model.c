/* Loading a model and telling what it is. */
#include "model.h"
#include "abi.h"
#include "platform.h"
#include "upload.h"

#include <stdlib.h>
#include <string.h>

/* More query heads than this on one KV head do not fit the attention kernels' shared memory. */
#define GROUP_MAX 16

static peridot_result check_sizes(const struct model_config *config, peridot_error *error) {
    if (config->heads / config->kv_heads > GROUP_MAX)
        return fail(error, PERIDOT_ERROR_UNSUPPORTED,
                    "%u query heads share a KV head; Peridot's attention kernels take up to %d",
                    config->heads / config->kv_heads, GROUP_MAX);
    return PERIDOT_OK;
}

static peridot_result check_tokenizer(const struct peridot_model *model, const char *name,
                                      peridot_error *error) {
    uint32_t pieces = tokenizer_vocabulary(model->tokenizer);
    if (pieces > model->config.vocabulary)
        return fail(
            error, PERIDOT_ERROR_FORMAT,
            "%s has %u pieces and the model's vocabulary %u: the files do not belong together",
            name, pieces, model->config.vocabulary);
    return PERIDOT_OK;
}

static peridot_result read_tokenizer(struct peridot_model *model,
                                     const struct checkpoint *checkpoint, peridot_error *error) {
    const void *data;
    size_t size;
    const char *name;
    if (!checkpoint_tokenizer(checkpoint, &data, &size, &name))
        return PERIDOT_OK;
    peridot_result result = tokenizer_create(data, size, name, &model->tokenizer, error);
    return result ? result : check_tokenizer(model, name, error);
}

static peridot_result load(peridot_device *device, struct checkpoint *checkpoint,
                           const peridot_model_params *params, peridot_model **out,
                           peridot_error *error) {
    double start = platform_seconds();
    struct peridot_model *model = calloc(1, sizeof *model);
    if (!model)
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory while loading the model");
    model->device = device;
    model->config = *checkpoint_config(checkpoint);
    model->d_padded = round_up(model->config.d_model, ROW_ALIGNMENT);
    model->hidden_padded = round_up(model->config.hidden, ROW_ALIGNMENT);
    model->head_dim_padded = round_up(model->config.head_dim, ROW_ALIGNMENT);
    model->fingerprint = checkpoint_fingerprint(checkpoint);
    peridot_result result = check_sizes(&model->config, error);
    if (!result)
        result = read_tokenizer(model, checkpoint, error);
    if (!result)
        result = upload_weights(model, checkpoint, params, error);
    model->seconds_loading = platform_seconds() - start;
    if (result)
        peridot_model_close(model);
    else
        *out = model;
    return result;
}

static peridot_result load_checkpoint(peridot_device *device, struct checkpoint *checkpoint,
                                      const peridot_model_params *params, peridot_model **model,
                                      peridot_error *error) {
    peridot_model_params given = {0};
    if (params)
        memcpy(&given, params,
               params->struct_size < sizeof given ? params->struct_size : sizeof given);
    peridot_result result = load(device, checkpoint, &given, model, error);
    checkpoint_close(checkpoint);
    return result;
}

peridot_result peridot_model_load(peridot_device *device, const char *directory,
                                  const peridot_model_params *params, peridot_model **model,
                                  peridot_error *error) {
    if (!device || !directory || !model)
        return fail(error, PERIDOT_ERROR_ARGUMENT,
                    "peridot_model_load needs a device and a directory");
    *model = NULL;
    struct checkpoint *checkpoint;
    peridot_result result = checkpoint_open(directory, &checkpoint, error);
    return result ? result : load_checkpoint(device, checkpoint, params, model, error);
}

peridot_result peridot_model_load_files(peridot_device *device, const peridot_file *files,
                                        uint32_t count, const peridot_model_params *params,
                                        peridot_model **model, peridot_error *error) {
    if (!device || !files || !model || count > 64)
        return fail(error, PERIDOT_ERROR_ARGUMENT, "peridot_model_load_files needs 1 to 64 files");
    *model = NULL;
    struct checkpoint_file list[64];
    for (uint32_t i = 0; i < count; i++)
        list[i] = (struct checkpoint_file){files[i].name, files[i].data, files[i].size};
    struct checkpoint *checkpoint;
    peridot_result result = checkpoint_open_memory(list, count, &checkpoint, error);
    return result ? result : load_checkpoint(device, checkpoint, params, model, error);
}

/* ---- Describing ---- */

struct sums {
    uint64_t elements, ideal, padded;
};

static void add_weight(struct sums *sums, const struct weight *weight, uint32_t columns) {
    sums->elements += (uint64_t)weight->rows * columns;
    sums->ideal += weight->ideal_bytes;
    sums->padded += weight_bytes(weight);
}

static struct sums sum_weights(const struct peridot_model *model) {
    const struct model_config *config = &model->config;
    struct sums sums = {0};
    add_weight(&sums, &model->embedding, config->d_model); /* as the head, once a token */
    for (uint32_t i = 0; i < config->layers; i++) {
        const struct layer *layer = &model->layers[i];
        add_weight(&sums, &layer->qkv, config->d_model);
        add_weight(&sums, &layer->output, config->heads * config->head_dim);
        add_weight(&sums, &layer->gate_up, config->d_model);
        add_weight(&sums, &layer->down, config->hidden);
        sums.elements += 2 * config->d_model;
    }
    sums.elements += config->d_model;
    return sums;
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
    static const peridot_weights types[] = {
        [WEIGHT_F32] = PERIDOT_WEIGHTS_F32,
        [WEIGHT_BF16] = PERIDOT_WEIGHTS_BF16,
        [WEIGHT_F16] = PERIDOT_WEIGHTS_F16,
    };
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
        .weight_bytes = arena_bytes(model->arena),
        .ideal_bytes = sums.ideal,
        .padded_bytes = sums.padded,
        .fingerprint = model->fingerprint,
        .weights = types[model->layers[0].qkv.type],
        .has_tokenizer = model->tokenizer != NULL,
        .bos = (uint32_t)config->bos,
        .seconds_loading = model->seconds_loading,
    };
    if (model->tokenizer) {
        struct tokenizer_specials specials = tokenizer_specials(model->tokenizer);
        info.has_chat = specials.start_of_turn >= 0 && specials.end_of_turn >= 0;
    }
    list_stop_tokens(model, &info);
    *out = info;
}

static void free_weight(struct weight *weight) {
    free(weight->shards);
}

void peridot_model_close(peridot_model *model) {
    if (!model)
        return;
    for (uint32_t i = 0; model->layers && i < model->config.layers; i++) {
        struct layer *layer = &model->layers[i];
        free_weight(&layer->qkv);
        free_weight(&layer->output);
        free_weight(&layer->gate_up);
        free_weight(&layer->down);
    }
    free_weight(&model->embedding);
    free(model->layers);
    arena_destroy(model->arena);
    tokenizer_destroy(model->tokenizer);
    free(model);
}
