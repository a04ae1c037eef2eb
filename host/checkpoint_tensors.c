/* The tensors of Gemma: their names in each kind of file and their shapes; finding them. */
#include "checkpoint_parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char safetensors_layers[] = "model.layers.", gguf_layers[] = "blk.";

/* What stands before ".weight", in a layer after its number; NULL: that kind of file has none. A
 * Hugging Face directory may hold an lm_head, but its configuration says that it is the embedding.
 */
static const struct {
    const char *safetensors, *gguf;
    enum { ONE, VOCABULARY, QUERIES, KEYS, HIDDEN, MODEL } rows, columns;
} roles[TENSOR_ROLE_COUNT] = {
    [TENSOR_EMBEDDING] = {"model.embed_tokens", "token_embd", VOCABULARY, MODEL},
    [TENSOR_FINAL_NORM] = {"model.norm", "output_norm", ONE, MODEL},
    [TENSOR_HEAD] = {NULL, "output", VOCABULARY, MODEL},
    [TENSOR_INPUT_NORM] = {"input_layernorm", "attn_norm", ONE, MODEL},
    [TENSOR_POST_ATTENTION_NORM] = {"post_attention_layernorm", "ffn_norm", ONE, MODEL},
    [TENSOR_QUERY] = {"self_attn.q_proj", "attn_q", QUERIES, MODEL},
    [TENSOR_KEY] = {"self_attn.k_proj", "attn_k", KEYS, MODEL},
    [TENSOR_VALUE] = {"self_attn.v_proj", "attn_v", KEYS, MODEL},
    [TENSOR_OUTPUT] = {"self_attn.o_proj", "attn_output", MODEL, QUERIES},
    [TENSOR_GATE] = {"mlp.gate_proj", "ffn_gate", HIDDEN, MODEL},
    [TENSOR_UP] = {"mlp.up_proj", "ffn_up", HIDDEN, MODEL},
    [TENSOR_DOWN] = {"mlp.down_proj", "ffn_down", MODEL, HIDDEN},
};

/* A tensor as one kind of file or the other describes it. */
struct found {
    struct checkpoint_tensor tensor; /* without rows and columns */
    const char *type_name;
    uint32_t rank;
    uint64_t shape[2]; /* rows first; of ranks 1 and 2 */
};

static uint32_t extent(const struct model_config *config, int kind) {
    switch (kind) {
    case VOCABULARY:
        return config->vocabulary;
    case QUERIES:
        return config->heads * config->head_dim;
    case KEYS:
        return config->kv_heads * config->head_dim;
    case HIDDEN:
        return config->hidden;
    case MODEL:
        return config->d_model;
    default:
        return 1;
    }
}

size_t checkpoint_tensor_index(enum tensor_role role, uint32_t layer) {
    if (role < TENSOR_INPUT_NORM)
        return role;
    return TENSOR_INPUT_NORM + (size_t)layer * (TENSOR_ROLE_COUNT - TENSOR_INPUT_NORM) +
           (role - TENSOR_INPUT_NORM);
}

static void name_tensor(const char *layers, const char *base, enum tensor_role role, uint32_t layer,
                        char *out, size_t size) {
    if (role < TENSOR_INPUT_NORM)
        snprintf(out, size, "%s.weight", base);
    else
        snprintf(out, size, "%s%u.%s.weight", layers, layer, base);
}

void checkpoint_gguf_name(enum tensor_role role, uint32_t layer, char *out, size_t size) {
    name_tensor(gguf_layers, roles[role].gguf, role, layer, out, size);
}

static bool find_in_safetensors(const struct safetensors *file, const char *name,
                                struct found *found) {
    static const enum weight_type types[] = {
        [TENSOR_F32] = WEIGHT_F32,
        [TENSOR_BF16] = WEIGHT_BF16,
        [TENSOR_F16] = WEIGHT_F16,
        [TENSOR_OTHER] = WEIGHT_TYPE_COUNT,
    };
    const struct safetensor *tensor = safetensors_find(file, name);
    if (!tensor)
        return false;
    found->tensor = (struct checkpoint_tensor){.type = types[tensor->type],
                                               .begin = tensor->begin,
                                               .size = tensor->size,
                                               .name = tensor->name};
    found->type_name = tensor->type_name;
    found->rank = tensor->dimensions;
    memcpy(found->shape, tensor->shape, sizeof found->shape);
    return true;
}

static bool find_in_gguf(const struct gguf *file, const char *name, struct found *found) {
    const struct gguf_tensor *tensor = gguf_find_tensor(file, name);
    if (!tensor)
        return false;
    found->tensor = (struct checkpoint_tensor){
        .type = tensor->type, .begin = tensor->begin, .size = tensor->size, .name = tensor->name};
    found->type_name = tensor->type_name;
    found->rank = tensor->dimensions;
    found->shape[0] = tensor->shape[tensor->dimensions == 2];
    found->shape[1] = tensor->shape[0];
    return true;
}

static bool find(const struct checkpoint *checkpoint, const char *name, struct found *found) {
    for (uint32_t i = 0; i < checkpoint->shard_count; i++) {
        const struct source *shard = &checkpoint->shards[i];
        if (checkpoint->is_gguf ? find_in_gguf(&shard->gguf, name, found)
                                : find_in_safetensors(&shard->tensors, name, found)) {
            found->tensor.file = i;
            return true;
        }
    }
    return false;
}

/* Where the shapes come from, for messages. */
static const char *configuration(const struct checkpoint *checkpoint) {
    return checkpoint->is_gguf ? "the metadata" : "config.json";
}

static peridot_result check_type(const struct checkpoint *checkpoint, const struct found *found,
                                 peridot_error *error) {
    if (found->tensor.type != WEIGHT_TYPE_COUNT)
        return PERIDOT_OK;
    return fail(error, PERIDOT_ERROR_UNSUPPORTED, "%s: tensor %s is %s; Peridot reads %s",
                checkpoint_tensor_file(checkpoint, &found->tensor), found->tensor.name,
                found->type_name,
                checkpoint->is_gguf
                    ? "F32, BF16, F16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1 and Q2_K to Q6_K: use a file "
                      "that keeps to these"
                    : "F32, BF16 and F16");
}

static peridot_result check_shape(const struct checkpoint *checkpoint, const struct found *found,
                                  bool vector, uint32_t rows, uint32_t columns,
                                  peridot_error *error) {
    if (found->rank == (vector ? 1u : 2u) && found->shape[0] == (vector ? columns : rows) &&
        (vector || found->shape[1] == columns))
        return PERIDOT_OK;
    char wanted[32], has[64] = "of another rank";
    if (vector)
        snprintf(wanted, sizeof wanted, "[%u]", columns);
    else
        snprintf(wanted, sizeof wanted, "[%u, %u]", rows, columns);
    if (found->rank == 1)
        snprintf(has, sizeof has, "[%llu]", (unsigned long long)found->shape[0]);
    else if (found->rank == 2)
        snprintf(has, sizeof has, "[%llu, %llu]", (unsigned long long)found->shape[0],
                 (unsigned long long)found->shape[1]);
    return fail(error, PERIDOT_ERROR_FORMAT, "%s: tensor %s is %s where %s makes it %s: %s",
                checkpoint_tensor_file(checkpoint, &found->tensor), found->tensor.name, has,
                configuration(checkpoint), wanted,
                checkpoint->is_gguf ? "the file is damaged, fetch it again"
                                    : "the files do not belong together");
}

static peridot_result refuse_missing(const struct checkpoint *checkpoint, const char *name,
                                     peridot_error *error) {
    return fail(error, PERIDOT_ERROR_FORMAT,
                "%s: tensor %s is missing, and %s calls for it: the files are "
                "incomplete or do not belong together",
                checkpoint->is_gguf || checkpoint->shard_count == 1 ? checkpoint->shards[0].name
                : checkpoint->directory                             ? checkpoint->directory
                                                                    : "the model",
                name, configuration(checkpoint));
}

static peridot_result find_tensor(struct checkpoint *checkpoint, enum tensor_role role,
                                  uint32_t layer, peridot_error *error) {
    const char *base = checkpoint->is_gguf ? roles[role].gguf : roles[role].safetensors;
    const char *layers = checkpoint->is_gguf ? gguf_layers : safetensors_layers;
    char name[128];
    struct found found;
    if (!base)
        return PERIDOT_OK;
    name_tensor(layers, base, role, layer, name, sizeof name);
    if (!find(checkpoint, name, &found))
        return role == TENSOR_HEAD ? PERIDOT_OK : refuse_missing(checkpoint, name, error);
    found.tensor.rows = extent(&checkpoint->config, roles[role].rows);
    found.tensor.columns = extent(&checkpoint->config, roles[role].columns);
    peridot_result result = check_type(checkpoint, &found, error);
    if (!result)
        result = check_shape(checkpoint, &found, roles[role].rows == ONE, found.tensor.rows,
                             found.tensor.columns, error);
    if (!result)
        checkpoint->tensors[checkpoint_tensor_index(role, layer)] = found.tensor;
    return result;
}

static peridot_result check_name(const struct checkpoint *checkpoint, const struct source *shard,
                                 const char *name, peridot_error *error) {
    static const char bias[] = ".bias";
    const char *prefix = checkpoint->is_gguf ? gguf_layers : safetensors_layers;
    size_t length = strlen(name);
    if (strncmp(name, prefix, strlen(prefix)) != 0)
        return PERIDOT_OK;
    if (strtoul(name + strlen(prefix), NULL, 10) >= checkpoint->config.layers)
        return fail(error, PERIDOT_ERROR_FORMAT, "%s holds tensor %.200s, but %s is %u: %s",
                    shard->name, name,
                    checkpoint->is_gguf ? "gemma.block_count in its metadata"
                                        : "num_hidden_layers in config.json",
                    checkpoint->config.layers,
                    checkpoint->is_gguf ? "the file is damaged, fetch it again"
                                        : "the files do not belong together");
    if (length >= sizeof bias - 1 && strcmp(name + length - (sizeof bias - 1), bias) == 0)
        return fail(error, PERIDOT_ERROR_UNSUPPORTED,
                    "%s holds tensor %.200s: Gemma has no biases, so this is another model",
                    shard->name, name);
    return PERIDOT_OK;
}

/* Tensors that no role takes would change the arithmetic if they were layers or biases. */
static peridot_result check_surplus(const struct checkpoint *checkpoint, const struct source *shard,
                                    peridot_error *error) {
    peridot_result result = PERIDOT_OK;
    for (size_t i = 0; i < shard->tensors.count && !result; i++)
        result = check_name(checkpoint, shard, shard->tensors.tensors[i].name, error);
    for (size_t i = 0; i < shard->gguf.tensor_count && !result; i++)
        result = check_name(checkpoint, shard, shard->gguf.tensors[i].name, error);
    return result;
}

peridot_result checkpoint_find_tensors(struct checkpoint *checkpoint, peridot_error *error) {
    uint32_t layers = checkpoint->config.layers;
    checkpoint->tensors =
        calloc(checkpoint_tensor_index(TENSOR_INPUT_NORM, layers), sizeof *checkpoint->tensors);
    if (!checkpoint->tensors)
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory while opening the model");
    peridot_result result = PERIDOT_OK;
    for (int role = 0; role < TENSOR_ROLE_COUNT && !result; role++) {
        uint32_t count = role < TENSOR_INPUT_NORM ? 1 : layers;
        for (uint32_t layer = 0; layer < count && !result; layer++)
            result = find_tensor(checkpoint, (enum tensor_role)role, layer, error);
    }
    for (uint32_t i = 0; i < checkpoint->shard_count && !result; i++)
        result = check_surplus(checkpoint, &checkpoint->shards[i], error);
    return result;
}
