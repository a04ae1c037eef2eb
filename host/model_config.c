#include "model_config.h"
#include "json.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

/* Bounds are far above any Gemma and low enough that no product of two sizes passes 2^44. */
const struct model_config_size model_config_sizes[MODEL_CONFIG_SIZES] = {
    {"num_hidden_layers", "block_count", offsetof(struct model_config, layers), 28, 1, 1024},
    {"hidden_size", "embedding_length", offsetof(struct model_config, d_model), 3072, 1, 1 << 20},
    {"num_attention_heads", "attention.head_count", offsetof(struct model_config, heads), 16, 1,
     1024},
    {"num_key_value_heads", "attention.head_count_kv", offsetof(struct model_config, kv_heads), 16,
     1, 1024},
    {"head_dim", "attention.key_length", offsetof(struct model_config, head_dim), 256, 2, 512},
    {"intermediate_size", "feed_forward_length", offsetof(struct model_config, hidden), 24576, 1,
     1 << 20},
    {"vocab_size", NULL, offsetof(struct model_config, vocabulary), 256000, 3, 1 << 24},
    {"max_position_embeddings", "context_length", offsetof(struct model_config, context), 8192, 1,
     32768},
};

static peridot_result read_size(const cJSON *json, const struct model_config_size *field,
                                const char *name, struct model_config *config,
                                peridot_error *error) {
    uint32_t value = field->fallback;
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(json, field->name);
    if (item && !cJSON_IsNull(item)) {
        double number = item->valuedouble;
        if (!cJSON_IsNumber(item))
            return fail(error, PERIDOT_ERROR_FORMAT, "%s: %s must be a whole number from %u to %u",
                        name, field->name, field->least, field->most);
        if (number != floor(number) || number < field->least || number > field->most)
            return fail(error, PERIDOT_ERROR_FORMAT,
                        "%s: %s is %.10g; it must be a whole number from %u to %u", name,
                        field->name, number, field->least, field->most);
        value = (uint32_t)number;
    }
    memcpy((char *)config + field->offset, &value, sizeof value);
    return PERIDOT_OK;
}

static peridot_result read_real(const cJSON *json, const char *field, double fallback, double least,
                                double most, const char *name, double *value,
                                peridot_error *error) {
    *value = fallback;
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(json, field);
    if (!item || cJSON_IsNull(item))
        return PERIDOT_OK;
    if (!cJSON_IsNumber(item) || !(item->valuedouble >= least && item->valuedouble <= most))
        return fail(error, PERIDOT_ERROR_FORMAT, "%s: %s must be a number from %g to %g", name,
                    field, least, most);
    *value = item->valuedouble;
    return PERIDOT_OK;
}

static bool token_id(const cJSON *item, const struct model_config *config, int32_t *id) {
    if (!cJSON_IsNumber(item) || item->valuedouble != floor(item->valuedouble) ||
        item->valuedouble < 0 || item->valuedouble >= config->vocabulary)
        return false;
    *id = (int32_t)item->valuedouble;
    return true;
}

static peridot_result read_token(const cJSON *json, const char *field, int32_t fallback,
                                 const char *name, const struct model_config *config, int32_t *id,
                                 peridot_error *error) {
    *id = fallback;
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(json, field);
    if (!item || cJSON_IsNull(item) || token_id(item, config, id))
        return PERIDOT_OK;
    return fail(error, PERIDOT_ERROR_FORMAT, "%s: %s must be a token id, less than vocab_size (%u)",
                name, field, config->vocabulary);
}

bool model_config_add_end(struct model_config *config, int32_t id) {
    for (uint32_t i = 0; i < config->eos_count; i++)
        if (config->eos[i] == id)
            return true;
    if (config->eos_count == EOS_TOKENS_MAX)
        return false;
    config->eos[config->eos_count++] = id;
    return true;
}

static peridot_result read_eos(const cJSON *json, const char *name, struct model_config *config,
                               peridot_error *error) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(json, "eos_token_id");
    if (!item || cJSON_IsNull(item))
        return PERIDOT_OK;
    const cJSON *entry = cJSON_IsArray(item) ? item->child : item;
    for (; entry; entry = cJSON_IsArray(item) ? entry->next : NULL) {
        int32_t id;
        if (!token_id(entry, config, &id) || !model_config_add_end(config, id))
            return fail(
                error, PERIDOT_ERROR_FORMAT,
                "%s: eos_token_id must be a token id, less than vocab_size (%u), or a list of at "
                "most %d",
                name, config->vocabulary, EOS_TOKENS_MAX);
    }
    return PERIDOT_OK;
}

static bool is_string(const cJSON *item, const char *const *accepted) {
    for (; *accepted; accepted++)
        if (cJSON_IsString(item) && strcmp(item->valuestring, *accepted) == 0)
            return true;
    return false;
}

/* All of these would change the arithmetic, so a value that Gemma 1 does not have is refused. */
static peridot_result check_architecture(const cJSON *json, const char *name,
                                         peridot_error *error) {
    const cJSON *type = cJSON_GetObjectItemCaseSensitive(json, "model_type");
    if (!cJSON_IsString(type) || strcmp(type->valuestring, "gemma") != 0)
        return fail(error, PERIDOT_ERROR_UNSUPPORTED,
                    "%s: model_type is %.40s; Peridot runs \"gemma\": gemma-2b, gemma-7b, their "
                    "instruct and 1.1 versions",
                    name, cJSON_IsString(type) ? type->valuestring : "missing");
    static const char *const activations[] = {"gelu", "gelu_pytorch_tanh", NULL};
    static const char *const activation_fields[] = {"hidden_act", "hidden_activation"};
    for (int i = 0; i < 2; i++) {
        const cJSON *item = cJSON_GetObjectItemCaseSensitive(json, activation_fields[i]);
        if (item && !cJSON_IsNull(item) && !is_string(item, activations))
            return fail(error, PERIDOT_ERROR_UNSUPPORTED,
                        "%s: %s is not gelu, the only activation of Gemma", name,
                        activation_fields[i]);
    }
    static const char *const absent[] = {"rope_scaling", "quantization_config"};
    for (int i = 0; i < 2; i++) {
        const cJSON *item = cJSON_GetObjectItemCaseSensitive(json, absent[i]);
        if (item && !cJSON_IsNull(item))
            return fail(error, PERIDOT_ERROR_UNSUPPORTED,
                        "%s: %s is set; Peridot loads the original bf16, f16 or f32 weights", name,
                        absent[i]);
    }
    if (cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(json, "attention_bias")))
        return fail(error, PERIDOT_ERROR_UNSUPPORTED, "%s: attention_bias is set; Gemma has none",
                    name);
    if (cJSON_IsFalse(cJSON_GetObjectItemCaseSensitive(json, "tie_word_embeddings")))
        return fail(error, PERIDOT_ERROR_UNSUPPORTED,
                    "%s: tie_word_embeddings is false; Gemma's head is its embedding table", name);
    return PERIDOT_OK;
}

peridot_result model_config_check(const struct model_config *config, bool is_gguf, const char *name,
                                  peridot_error *error) {
    if (config->heads % config->kv_heads != 0)
        return fail(error, PERIDOT_ERROR_FORMAT, "%s: %s (%u) is not a multiple of %s (%u)", name,
                    is_gguf ? "gemma.attention.head_count" : "num_attention_heads", config->heads,
                    is_gguf ? "gemma.attention.head_count_kv" : "num_key_value_heads",
                    config->kv_heads);
    if (config->head_dim % 2 != 0)
        return fail(error, PERIDOT_ERROR_FORMAT, "%s: %s (%u) is odd; RoPE needs pairs", name,
                    is_gguf ? "gemma.attention.key_length" : "head_dim", config->head_dim);
    return PERIDOT_OK;
}

static peridot_result read_fields(const cJSON *json, const char *name, struct model_config *config,
                                  peridot_error *error) {
    peridot_result result = check_architecture(json, name, error);
    for (int i = 0; !result && i < MODEL_CONFIG_SIZES; i++)
        result = read_size(json, &model_config_sizes[i], name, config, error);
    if (!result)
        result = read_real(json, "rms_norm_eps", 1e-6, 0, 1, name, &config->rms_eps, error);
    if (!result)
        result = read_real(json, "rope_theta", 10000, 1, 1e9, name, &config->rope_theta, error);
    if (!result)
        result = read_token(json, "bos_token_id", 2, name, config, &config->bos, error);
    if (!result)
        result = read_token(json, "pad_token_id", 0, name, config, &config->pad, error);
    if (!result)
        result = read_eos(json, name, config, error);
    return result ? result : model_config_check(config, false, name, error);
}

peridot_result model_config_parse(const char *json, size_t length, const char *name,
                                  struct model_config *config, peridot_error *error) {
    *config = (struct model_config){0};
    cJSON *root = json_parse_object(json, length, name, error);
    if (!root)
        return PERIDOT_ERROR_FORMAT;
    peridot_result result = read_fields(root, name, config, error);
    if (!result && config->eos_count == 0)
        model_config_add_end(config, 1);
    cJSON_Delete(root);
    return result;
}

peridot_result model_config_add_eos(const char *json, size_t length, const char *name,
                                    struct model_config *config, peridot_error *error) {
    cJSON *root = json_parse_object(json, length, name, error);
    if (!root)
        return PERIDOT_ERROR_FORMAT;
    peridot_result result = read_eos(root, name, config, error);
    cJSON_Delete(root);
    return result;
}
