#include "model_config.h"
#include "json.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

/* Real ones have under 1 KB; what cJSON makes of a file is up to 40 times as long. */
#define FILE_SIZE_MAX (1u << 20)

/* Bounds are far above any Gemma and low enough that no product of two sizes passes 2^44. */
static const struct size_field {
    const char *name;
    size_t offset;
    uint32_t fallback, least, most;
} size_fields[] = {
    {"num_hidden_layers", offsetof(struct model_config, layers), 28, 1, 1024},
    {"hidden_size", offsetof(struct model_config, d_model), 3072, 1, 1 << 20},
    {"num_attention_heads", offsetof(struct model_config, heads), 16, 1, 1024},
    {"num_key_value_heads", offsetof(struct model_config, kv_heads), 16, 1, 1024},
    {"head_dim", offsetof(struct model_config, head_dim), 256, 2, 512},
    {"intermediate_size", offsetof(struct model_config, hidden), 24576, 1, 1 << 20},
    {"vocab_size", offsetof(struct model_config, vocabulary), 256000, 2, 1 << 24},
    {"max_position_embeddings", offsetof(struct model_config, context), 8192, 1, 32768},
};

/* The file being read, and where its errors go. */
struct reader {
    const char *name;
    const cJSON *root;
    peridot_error *error;
};

/* A field of an object; NULL if it is absent or null, which mean the same. */
static const cJSON *field_of(const cJSON *object, const char *name) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);
    return cJSON_IsNull(item) ? NULL : item;
}

static bool is_text(const cJSON *item, const char *text) {
    return cJSON_IsString(item) && strcmp(item->valuestring, text) == 0;
}

static peridot_result parse_file(const char *json, size_t length, const char *name, cJSON **root,
                                 peridot_error *error) {
    *root = NULL;
    if (length > FILE_SIZE_MAX)
        return fail(error, PERIDOT_ERROR_FORMAT,
                    "%s: %zu bytes are too many for a configuration: not the right file", name,
                    length);
    *root = json_parse_object(json, length, name, error);
    return *root ? PERIDOT_OK : PERIDOT_ERROR_FORMAT;
}

/* ---- Sizes and numbers ---- */

/* How a field's value is shown in a message. */
static void describe(const cJSON *item, char text[32]) {
    if (cJSON_IsNumber(item))
        snprintf(text, 32, "%.10g", item->valuedouble);
    else
        snprintf(text, 32, "%s",
                 cJSON_IsString(item)  ? "a string"
                 : cJSON_IsArray(item) ? "a list"
                 : cJSON_IsBool(item)  ? "true or false"
                                       : "an object");
}

static peridot_result read_size(const struct reader *reader, const struct size_field *field,
                                struct model_config *config) {
    uint32_t value = field->fallback;
    const cJSON *item = field_of(reader->root, field->name);
    if (item) {
        double number = item->valuedouble;
        if (!cJSON_IsNumber(item) || number != floor(number) || number < field->least ||
            number > field->most) {
            char is[32];
            describe(item, is);
            return fail(reader->error, PERIDOT_ERROR_FORMAT,
                        "%s: %s is %s; it must be a whole number from %u to %u", reader->name,
                        field->name, is, field->least, field->most);
        }
        value = (uint32_t)number;
    }
    memcpy((char *)config + field->offset, &value, sizeof value);
    return PERIDOT_OK;
}

/* Leaves `*value` as it is if the field is absent. */
static peridot_result read_real(const struct reader *reader, const cJSON *object, const char *field,
                                double least, double most, double *value) {
    const cJSON *item = field_of(object, field);
    if (!item)
        return PERIDOT_OK;
    if (!cJSON_IsNumber(item) || !(item->valuedouble >= least && item->valuedouble <= most)) {
        char is[32];
        describe(item, is);
        return fail(reader->error, PERIDOT_ERROR_FORMAT,
                    "%s: %s is %s; it must be a number from %g to %g", reader->name, field, is,
                    least, most);
    }
    *value = item->valuedouble;
    return PERIDOT_OK;
}

/* Recent versions of transformers write rope_theta into "rope_parameters". */
static peridot_result read_rope(const struct reader *reader, struct model_config *config) {
    const cJSON *parameters = field_of(reader->root, "rope_parameters");
    const cJSON *type = field_of(parameters, "rope_type");
    if (parameters && (!cJSON_IsObject(parameters) || (type && !is_text(type, "default"))))
        return fail(reader->error, PERIDOT_ERROR_UNSUPPORTED,
                    "%s: rope_parameters asks for another RoPE than Gemma's default one",
                    reader->name);
    config->rope_theta = 10000;
    peridot_result result =
        read_real(reader, reader->root, "rope_theta", 1, 1e9, &config->rope_theta);
    if (!result)
        result = read_real(reader, parameters, "rope_theta", 1, 1e9, &config->rope_theta);
    return result;
}

/* ---- Tokens ---- */

static bool read_id(const cJSON *item, const struct model_config *config, int32_t *id) {
    if (!cJSON_IsNumber(item) || item->valuedouble != floor(item->valuedouble) ||
        item->valuedouble < 0 || item->valuedouble >= config->vocabulary)
        return false;
    *id = (int32_t)item->valuedouble;
    return true;
}

static peridot_result read_token(const struct reader *reader, const char *field, int32_t fallback,
                                 const struct model_config *config, int32_t *id) {
    *id = fallback;
    const cJSON *item = field_of(reader->root, field);
    if (item ? read_id(item, config, id) : (uint32_t)fallback < config->vocabulary)
        return PERIDOT_OK;
    return fail(reader->error, PERIDOT_ERROR_FORMAT,
                "%s: %s must be a token id below vocab_size (%u)", reader->name, field,
                config->vocabulary);
}

static bool add_eos(struct model_config *config, int32_t id) {
    for (uint32_t i = 0; i < config->eos_count; i++)
        if (config->eos[i] == id)
            return true;
    if (config->eos_count == EOS_TOKENS_MAX)
        return false;
    config->eos[config->eos_count++] = id;
    return true;
}

/* A number or a list. */
static peridot_result read_eos(const struct reader *reader, struct model_config *config) {
    const cJSON *item = field_of(reader->root, "eos_token_id");
    if (!item)
        return PERIDOT_OK;
    const cJSON *entry = cJSON_IsArray(item) ? item->child : item;
    for (; entry; entry = cJSON_IsArray(item) ? entry->next : NULL) {
        int32_t id;
        if (!read_id(entry, config, &id) || !add_eos(config, id))
            return fail(reader->error, PERIDOT_ERROR_FORMAT,
                        "%s: eos_token_id must be a token id below vocab_size (%u), or a list of "
                        "at most %d",
                        reader->name, config->vocabulary, EOS_TOKENS_MAX);
    }
    return PERIDOT_OK;
}

static peridot_result read_tokens(const struct reader *reader, struct model_config *config) {
    peridot_result result = read_token(reader, "bos_token_id", 2, config, &config->bos);
    if (!result)
        result = read_token(reader, "pad_token_id", 0, config, &config->pad);
    if (!result)
        result = read_eos(reader, config);
    if (!result && config->eos_count == 0)
        add_eos(config, 1);
    return result;
}

/* ---- What Gemma 1 is, and is not ---- */

static peridot_result check_model_type(const struct reader *reader) {
    const cJSON *type = field_of(reader->root, "model_type");
    if (is_text(type, "gemma"))
        return PERIDOT_OK;
    return fail(reader->error, PERIDOT_ERROR_UNSUPPORTED,
                "%s: model_type is %.40s; Peridot runs \"gemma\": gemma-2b, gemma-7b, their "
                "instruct and 1.1 versions",
                reader->name, cJSON_IsString(type) ? type->valuestring : "missing");
}

/* "gelu" has always meant the tanh form for this model, whatever the name says elsewhere. */
static peridot_result check_activation(const struct reader *reader) {
    static const char *const fields[] = {"hidden_act", "hidden_activation"};
    for (int i = 0; i < 2; i++) {
        const cJSON *item = field_of(reader->root, fields[i]);
        if (item && !is_text(item, "gelu") && !is_text(item, "gelu_pytorch_tanh"))
            return fail(reader->error, PERIDOT_ERROR_UNSUPPORTED,
                        "%s: %s is not gelu, the only activation of Gemma", reader->name,
                        fields[i]);
    }
    return PERIDOT_OK;
}

/* Each of these would change the arithmetic, so any other value than Gemma 1's is refused. */
static peridot_result check_options(const struct reader *reader) {
    static const struct {
        const char *field;
        enum { ABSENT, FALSE, TRUE } wanted;
        const char *says;
    } options[] = {
        {"quantization_config", ABSENT, "is set; Peridot loads original bf16, f16 or f32 weights"},
        {"rope_scaling", ABSENT, "is set; Gemma's RoPE is not scaled"},
        {"attention_bias", FALSE, "is not false; Gemma has no biases"},
        {"use_bidirectional_attention", FALSE, "is not false; Gemma's attention is causal"},
        {"tie_word_embeddings", TRUE, "is not true; Gemma's head is its embedding table"},
    };
    for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
        const cJSON *item = field_of(reader->root, options[i].field);
        bool good = !item || (options[i].wanted == FALSE && cJSON_IsFalse(item)) ||
                    (options[i].wanted == TRUE && cJSON_IsTrue(item));
        if (!good)
            return fail(reader->error, PERIDOT_ERROR_UNSUPPORTED, "%s: %s %s", reader->name,
                        options[i].field, options[i].says);
    }
    return PERIDOT_OK;
}

static peridot_result check_heads(const struct reader *reader, const struct model_config *config) {
    if (config->heads % config->kv_heads != 0)
        return fail(reader->error, PERIDOT_ERROR_FORMAT,
                    "%s: num_attention_heads (%u) is not a multiple of num_key_value_heads (%u)",
                    reader->name, config->heads, config->kv_heads);
    if (config->head_dim % 2 != 0)
        return fail(reader->error, PERIDOT_ERROR_FORMAT,
                    "%s: head_dim (%u) is odd; RoPE needs pairs", reader->name, config->head_dim);
    return PERIDOT_OK;
}

static peridot_result check_architecture(const struct reader *reader) {
    peridot_result result = check_model_type(reader);
    if (!result)
        result = check_activation(reader);
    return result ? result : check_options(reader);
}

/* ---- The file ---- */

static peridot_result read_fields(const struct reader *reader, struct model_config *config) {
    peridot_result result = check_architecture(reader);
    for (size_t i = 0; !result && i < sizeof size_fields / sizeof *size_fields; i++)
        result = read_size(reader, &size_fields[i], config);
    if (!result)
        result = check_heads(reader, config);
    config->rms_eps = 1e-6;
    if (!result)
        result = read_real(reader, reader->root, "rms_norm_eps", 1e-12, 1, &config->rms_eps);
    if (!result)
        result = read_rope(reader, config);
    return result ? result : read_tokens(reader, config);
}

peridot_result model_config_parse(const char *json, size_t length, const char *name,
                                  struct model_config *config, peridot_error *error) {
    *config = (struct model_config){0};
    cJSON *root;
    peridot_result result = parse_file(json, length, name, &root, error);
    if (result)
        return result;
    result = read_fields(&(struct reader){name, root, error}, config);
    cJSON_Delete(root);
    return result;
}

peridot_result model_config_add_eos(const char *json, size_t length, const char *name,
                                    struct model_config *config, peridot_error *error) {
    cJSON *root;
    peridot_result result = parse_file(json, length, name, &root, error);
    if (result)
        return result;
    result = read_eos(&(struct reader){name, root, error}, config);
    cJSON_Delete(root);
    return result;
}
