#include "reference_checkpoint.h"

#include <stdlib.h>

/* Of the float types. */
static double element(const struct checkpoint_tensor *tensor, size_t i) {
    const uint8_t *bytes = tensor->data + i * weight_type_info(tensor->type)->block_bytes;
    uint32_t low = bytes[0] | (uint32_t)bytes[1] << 8;
    if (tensor->type == WEIGHT_BF16)
        return reference_bf16_to_double((uint16_t)low);
    if (tensor->type == WEIGHT_F16)
        return reference_f16_to_double((uint16_t)low);
    return reference_f32_to_double(low | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24);
}

static bool is_norm(enum tensor_role role) {
    return role == TENSOR_INPUT_NORM || role == TENSOR_POST_ATTENTION_NORM ||
           role == TENSOR_FINAL_NORM;
}

static const double *widened(const struct checkpoint *checkpoint, enum tensor_role role,
                             uint32_t layer) {
    const struct checkpoint_tensor *tensor = checkpoint_tensor(checkpoint, role, layer);
    size_t count = (size_t)tensor->rows * tensor->columns;
    double *wide = reference_doubles(count);
    double one = is_norm(role) && checkpoint_norms_have_one(checkpoint) ? 1.0 : 0.0;
    for (size_t i = 0; i < count; i++)
        wide[i] = element(tensor, i) - one;
    return wide;
}

static struct reference_layer widened_layer(const struct checkpoint *checkpoint, uint32_t i) {
    return (struct reference_layer){
        .input_norm = widened(checkpoint, TENSOR_INPUT_NORM, i),
        .query = widened(checkpoint, TENSOR_QUERY, i),
        .key = widened(checkpoint, TENSOR_KEY, i),
        .value = widened(checkpoint, TENSOR_VALUE, i),
        .output = widened(checkpoint, TENSOR_OUTPUT, i),
        .post_attention_norm = widened(checkpoint, TENSOR_POST_ATTENTION_NORM, i),
        .gate = widened(checkpoint, TENSOR_GATE, i),
        .up = widened(checkpoint, TENSOR_UP, i),
        .down = widened(checkpoint, TENSOR_DOWN, i),
    };
}

struct reference_model *reference_checkpoint_load(const struct checkpoint *checkpoint) {
    const struct model_config *config = checkpoint_config(checkpoint);
    struct reference_model *model = reference_allocate(1, sizeof *model);
    struct reference_layer *layers = reference_allocate(config->layers, sizeof *layers);
    for (uint32_t i = 0; i < config->layers; i++)
        layers[i] = widened_layer(checkpoint, i);
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
        .embedding = widened(checkpoint, TENSOR_EMBEDDING, 0),
        .final_norm = widened(checkpoint, TENSOR_FINAL_NORM, 0),
        .layers = layers,
    };
    return model;
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
