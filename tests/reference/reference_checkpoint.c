#include "reference_checkpoint.h"
#include "blocks.h"

#include <stdlib.h>
#include <string.h>

static bool is_norm(enum tensor_role role) {
    return role == TENSOR_INPUT_NORM || role == TENSOR_POST_ATTENTION_NORM ||
           role == TENSOR_FINAL_NORM;
}

/* Rows through blocks and back. */
static void round_rows(float *values, uint32_t rows, uint32_t columns, enum weight_type type) {
    uint32_t block = weight_type_info(type)->block, padded = (columns + block - 1) / block * block;
    float *row = reference_allocate(padded, sizeof *row);
    uint8_t *blocks = reference_allocate(padded / block, weight_type_info(type)->block_bytes);
    for (uint32_t i = 0; i < rows; i++) {
        memset(row, 0, padded * sizeof *row);
        memcpy(row, values + (size_t)i * columns, columns * sizeof *row);
        blocks_quantise(type, row, padded, blocks);
        blocks_dequantise(type, blocks, padded, row);
        memcpy(values + (size_t)i * columns, row, columns * sizeof *row);
    }
    free(row);
    free(blocks);
}

static enum weight_type type_of(enum weight_type type, enum tensor_role role, uint32_t columns) {
    static const enum weight_type instead[WEIGHT_TYPE_COUNT] = {[WEIGHT_Q2_K] = WEIGHT_Q4_0,
                                                                [WEIGHT_Q3_K] = WEIGHT_Q4_0,
                                                                [WEIGHT_Q4_K] = WEIGHT_Q5_0,
                                                                [WEIGHT_Q5_K] = WEIGHT_Q5_1,
                                                                [WEIGHT_Q6_K] = WEIGHT_Q8_0};
    if (role == TENSOR_EMBEDDING)
        return WEIGHT_Q8_0;
    return columns % weight_type_info(type)->block && instead[type] ? instead[type] : type;
}

/* `type` below WEIGHT_Q8_0: as it is. */
static const double *widened(const struct checkpoint *checkpoint, enum tensor_role role,
                             uint32_t layer, enum weight_type type) {
    const struct checkpoint_tensor *tensor = checkpoint_tensor(checkpoint, role, layer);
    size_t count = (size_t)tensor->rows * tensor->columns;
    double *wide = reference_doubles(count);
    double one = is_norm(role) && checkpoint_norms_have_one(checkpoint) ? 1.0 : 0.0;
    float *values = reference_allocate(count, sizeof *values);
    uint8_t *room = reference_allocate((size_t)tensor->size, 1);
    const uint8_t *bytes;
    if (checkpoint_read(checkpoint, tensor, 0, (size_t)tensor->size, room, &bytes, NULL))
        abort(); /* a test's own file */
    blocks_dequantise(tensor->type, bytes, count, values);
    free(room);
    if (type >= WEIGHT_Q8_0 && !is_norm(role))
        round_rows(values, tensor->rows, tensor->columns, type_of(type, role, tensor->columns));
    for (size_t i = 0; i < count; i++)
        wide[i] = values[i] - one;
    free(values);
    return wide;
}

static struct reference_layer widened_layer(const struct checkpoint *checkpoint, uint32_t i,
                                            enum weight_type type) {
    return (struct reference_layer){
        .input_norm = widened(checkpoint, TENSOR_INPUT_NORM, i, type),
        .query = widened(checkpoint, TENSOR_QUERY, i, type),
        .key = widened(checkpoint, TENSOR_KEY, i, type),
        .value = widened(checkpoint, TENSOR_VALUE, i, type),
        .output = widened(checkpoint, TENSOR_OUTPUT, i, type),
        .post_attention_norm = widened(checkpoint, TENSOR_POST_ATTENTION_NORM, i, type),
        .gate = widened(checkpoint, TENSOR_GATE, i, type),
        .up = widened(checkpoint, TENSOR_UP, i, type),
        .down = widened(checkpoint, TENSOR_DOWN, i, type),
    };
}

struct reference_model *reference_checkpoint_load_as(const struct checkpoint *checkpoint,
                                                     enum weight_type type) {
    const struct model_config *config = checkpoint_config(checkpoint);
    struct reference_model *model = reference_allocate(1, sizeof *model);
    struct reference_layer *layers = reference_allocate(config->layers, sizeof *layers);
    for (uint32_t i = 0; i < config->layers; i++)
        layers[i] = widened_layer(checkpoint, i, type);
    *model = (struct reference_model){
        .layer_count = config->layers,
        .d_model = config->d_model,
        .heads = config->heads,
        .kv_heads = config->kv_heads,
        .head_dim = config->head_dim,
        .hidden = config->hidden,
        .vocabulary = config->vocabulary,
        .rms_eps = config->rms_eps,
        .rope_theta = config->rope_theta,
        .angles = REFERENCE_ANGLES_FLOAT32,
        .embedding = widened(checkpoint, TENSOR_EMBEDDING, 0, type),
        .final_norm = widened(checkpoint, TENSOR_FINAL_NORM, 0, type),
        .layers = layers,
    };
    return model;
}

struct reference_model *reference_checkpoint_load(const struct checkpoint *checkpoint) {
    return reference_checkpoint_load_as(checkpoint, WEIGHT_F32);
}

void reference_checkpoint_free(struct reference_model *model) {
    if (!model)
        return;
    for (size_t i = 0; i < model->layer_count; i++) {
        const struct reference_layer *layer = &model->layers[i];
        const double *all[] = {layer->input_norm, layer->query,  layer->key,
                               layer->value,      layer->output, layer->post_attention_norm,
                               layer->gate,       layer->up,     layer->down};
        for (size_t j = 0; j < sizeof all / sizeof *all; j++)
            free((void *)all[j]);
    }
    free((void *)model->layers);
    free((void *)model->embedding);
    free((void *)model->final_norm);
    free(model);
}
