/* A GGUF file, or the parts of a split one: opening them, and the configuration in the metadata. */
#include "checkpoint_parts.h"
#include "gguf_file.h"
#include "gguf_tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Parts ---- */

/* What a file says of itself; a whole one is part 0 of 1. */
struct part {
    int64_t number, count;
    int64_t tensors; /* of all parts; -1: it does not say */
};

static peridot_result read_part(const struct gguf *file, struct part *part, peridot_error *error) {
    *part = (struct part){0, 0, -1};
    peridot_result result = gguf_integer(file, "split.no", 0, SHARDS_MAX - 1, &part->number, error);
    if (!result)
        result = gguf_integer(file, "split.count", 0, SHARDS_MAX, &part->count, error);
    if (!result)
        result = gguf_integer(file, "split.tensors.count", 0, INT32_MAX, &part->tensors, error);
    if (part->count == 0) /* also what merging leaves behind */
        part->count = 1;
    if (!result && part->number >= part->count)
        result = fail(error, PERIDOT_ERROR_FORMAT,
                      "%s: split.no is %lld and split.count %lld: the file is damaged, fetch it "
                      "again",
                      file->name, (long long)part->number, (long long)part->count);
    return result;
}

/* The file name of part `index` (from 0) of `count` into out, given the name of part `number`;
 * false: that is no name of such a part. */
static bool name_part(const char *given, int64_t number, int64_t count, int64_t index, char *out,
                      size_t size) {
    char end[64];
    int length = snprintf(end, sizeof end, "-%05lld-of-%05lld.gguf", (long long)number + 1,
                          (long long)count);
    size_t stem = strlen(given);
    if (stem < (size_t)length || strcmp(given + stem - (size_t)length, end) != 0)
        return false;
    stem -= (size_t)length;
    int written = snprintf(out, size, "%.*s-%05lld-of-%05lld.gguf", (int)stem, given,
                           (long long)index + 1, (long long)count);
    return written > 0 && (size_t)written < size;
}

static peridot_result parse(struct source *shard, peridot_error *error) {
    if (!shard->file.is_open)
        return gguf_parse(shard->data, (size_t)shard->size, shard->name, &shard->gguf, error);
    peridot_result result =
        gguf_file_read(&shard->file, shard->name, &shard->gguf, &shard->own, error);
    shard->data = shard->own;
    return result;
}

static peridot_result open_part(struct checkpoint *checkpoint, const char *name,
                                peridot_error *error) {
    struct source *shard = &checkpoint->shards[checkpoint->shard_count++];
    peridot_result result = checkpoint_open_weights(checkpoint, name, shard, error);
    return result ? result : parse(shard, error);
}

/* All parts, by the name of one, which is open. */
static peridot_result open_named(struct checkpoint *checkpoint, const char *given,
                                 const struct part *part, peridot_error *error) {
    char name[1024];
    peridot_result result = PERIDOT_OK;
    for (int64_t i = 0; i < part->count && !result; i++) {
        if (!name_part(given, part->number, part->count, i, name, sizeof name))
            return fail(error, PERIDOT_ERROR_FILE,
                        "%s is part %lld of %lld of a split model: name it "
                        "...-%05lld-of-%05lld.gguf again, so that the other parts can be found",
                        given, (long long)part->number + 1, (long long)part->count,
                        (long long)part->number + 1, (long long)part->count);
        if (i == 0) {
            checkpoint_close_source(&checkpoint->shards[0]);
            checkpoint->shard_count = 0;
        }
        if (!checkpoint_has_file(checkpoint, name))
            return fail(error, PERIDOT_ERROR_FILE,
                        "%s, part %lld of %lld of the model, is not there: fetch it too", name,
                        (long long)i + 1, (long long)part->count);
        result = open_part(checkpoint, name, error);
    }
    return result;
}

/* All GGUF files in memory, in the order of their parts. */
static peridot_result open_from_memory(struct checkpoint *checkpoint, peridot_error *error) {
    peridot_result result = PERIDOT_OK;
    for (size_t i = 0; i < checkpoint->memory_count && !result; i++) {
        const struct checkpoint_file *file = &checkpoint->memory[i];
        struct source opened = {
            .name = checkpoint_join(NULL, file->name), .data = file->data, .size = file->size};
        struct part part;
        if (!opened.name)
            return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory while opening %s",
                        file->name);
        if (gguf_is(file->data, file->size)) {
            result = parse(&opened, error);
            if (!result)
                result = read_part(&opened.gguf, &part, error);
            if (!result && checkpoint->shards[part.number].name)
                result = fail(error, PERIDOT_ERROR_FORMAT,
                              "%s and %s are both part %lld of a model: give one of them",
                              checkpoint->shards[part.number].name, opened.name,
                              (long long)part.number + 1);
            if (!result) {
                struct source *shard = &checkpoint->shards[part.number];
                *shard = opened;
                opened = (struct source){0};
                if (part.number >= checkpoint->shard_count)
                    checkpoint->shard_count = (uint32_t)part.number + 1;
            }
        }
        checkpoint_close_source(&opened);
    }
    return result;
}

/* Whether the parts that are open are all there are and belong together. */
static peridot_result check_parts(const struct checkpoint *checkpoint, peridot_error *error) {
    struct part first = {0}, part;
    uint64_t tensors = 0;
    for (uint32_t i = 0; i < checkpoint->shard_count || i < first.count; i++) {
        const struct source *shard = &checkpoint->shards[i];
        if (i == SHARDS_MAX || !shard->name)
            return fail(error, PERIDOT_ERROR_FILE,
                        "part %u of the split model is not among the model's files: add it", i + 1);
        peridot_result result = read_part(&shard->gguf, &part, error);
        if (result)
            return result;
        if (i == 0)
            first = part;
        if (part.number != i || part.count != first.count || part.tensors != first.tensors)
            return fail(error, PERIDOT_ERROR_FORMAT,
                        "%s says that it is part %lld of %lld, where part %u of %lld belongs: the "
                        "files are of different models",
                        shard->name, (long long)part.number + 1, (long long)part.count, i + 1,
                        (long long)first.count);
        tensors += shard->gguf.tensor_count;
    }
    if (first.count > 1 && first.tensors >= 0 && (uint64_t)first.tensors != tensors)
        return fail(error, PERIDOT_ERROR_FORMAT,
                    "%s: the parts hold %llu tensors, and split.tensors.count is %lld: the files "
                    "are of different models",
                    checkpoint->shards[0].name, (unsigned long long)tensors,
                    (long long)first.tensors);
    return PERIDOT_OK;
}

static peridot_result open_parts(struct checkpoint *checkpoint, const char *name,
                                 peridot_error *error) {
    struct part part;
    peridot_result result;
    if (!checkpoint->directory) {
        result = open_from_memory(checkpoint, error);
    } else {
        result = open_part(checkpoint, name, error);
        if (!result)
            result = read_part(&checkpoint->shards[0].gguf, &part, error);
        if (!result && part.count > 1)
            result = open_named(checkpoint, name, &part, error);
    }
    return result ? result : check_parts(checkpoint, error);
}

/* ---- The configuration ---- */

/* Refuses what is no model, and other models. */
static peridot_result check_architecture(const struct gguf *file, peridot_error *error) {
    struct gguf_string type = {0}, architecture = {0}, scaling = {0};
    char shown[64];
    peridot_result result = gguf_string(file, "general.type", &type, error);
    if (!result)
        result = gguf_string(file, "general.architecture", &architecture, error);
    if (!result)
        result = gguf_string(file, "gemma.rope.scaling.type", &scaling, error);
    if (result)
        return result;
    if (!architecture.text)
        return fail(error, PERIDOT_ERROR_FORMAT,
                    "%s: there is no general.architecture in its metadata: it is no model",
                    file->name);
    if (!gguf_string_is(architecture, "gemma"))
        return fail(error, PERIDOT_ERROR_UNSUPPORTED,
                    "%s is a model of the architecture \"%s\"; Peridot runs \"gemma\": gemma-2b, "
                    "gemma-7b, their instruct and 1.1 versions",
                    file->name, gguf_show(architecture, shown, sizeof shown));
    if (type.text && !gguf_string_is(type, "model"))
        return fail(error, PERIDOT_ERROR_UNSUPPORTED,
                    "%s is of the type \"%s\", no model: give the model itself", file->name,
                    gguf_show(type, shown, sizeof shown));
    if (scaling.text && !gguf_string_is(scaling, "none"))
        return fail(error, PERIDOT_ERROR_UNSUPPORTED,
                    "%s: gemma.rope.scaling.type is \"%s\"; Gemma has no RoPE scaling", file->name,
                    gguf_show(scaling, shown, sizeof shown));
    return PERIDOT_OK;
}

/* What the GGUF specification says where a key is absent; -1: it must be there. */
static int64_t fallback(const struct model_config *config, size_t offset) {
    if (offset == offsetof(struct model_config, kv_heads))
        return config->heads;
    if (offset == offsetof(struct model_config, head_dim))
        return config->d_model / config->heads;
    return -1;
}

static peridot_result read_size(const struct gguf *file, const struct model_config_size *size,
                                struct model_config *config, peridot_error *error) {
    char key[64];
    snprintf(key, sizeof key, "gemma.%s", size->gguf_key);
    int64_t value = fallback(config, size->offset);
    peridot_result result = gguf_integer(file, key, size->least, size->most, &value, error);
    if (result)
        return result;
    if (value < size->least || value > size->most)
        return fail(error, PERIDOT_ERROR_FORMAT,
                    "%s: there is no %s in its metadata: the file is damaged, fetch it again",
                    file->name, key);
    uint32_t narrow = (uint32_t)value;
    memcpy((char *)config + size->offset, &narrow, sizeof narrow);
    return PERIDOT_OK;
}

/* As many tokens as the embedding has rows; the list of tokens may be shorter. */
static peridot_result read_vocabulary(struct checkpoint *checkpoint, peridot_error *error) {
    const struct gguf_tensor *table = NULL;
    const char *name = checkpoint->shards[0].name;
    for (uint32_t i = 0; i < checkpoint->shard_count && !table; i++)
        table = gguf_find_tensor(&checkpoint->shards[i].gguf, "token_embd.weight");
    if (!table)
        return fail(error, PERIDOT_ERROR_FORMAT,
                    "%s: tensor token_embd.weight is missing: the file holds no whole model", name);
    if (table->dimensions != 2 || table->shape[1] < 3 || table->shape[1] > 1 << 24)
        return fail(error, PERIDOT_ERROR_FORMAT,
                    "%s: tensor token_embd.weight has an impossible number of rows: the file is "
                    "damaged, fetch it again",
                    name);
    checkpoint->config.vocabulary = (uint32_t)table->shape[1];
    return PERIDOT_OK;
}

static peridot_result read_token(const struct gguf *file, const char *key,
                                 const struct model_config *config, int64_t *id,
                                 peridot_error *error) {
    return gguf_integer(file, key, 0, config->vocabulary - 1, id, error);
}

static peridot_result read_tokens(const struct gguf *file, struct model_config *config,
                                  peridot_error *error) {
    static const char *const end_keys[] = {"tokenizer.ggml.eos_token_id",
                                           "tokenizer.ggml.eot_token_id",
                                           "tokenizer.ggml.eom_token_id"};
    int64_t bos = 2, pad = 0;
    peridot_result result = read_token(file, "tokenizer.ggml.bos_token_id", config, &bos, error);
    if (!result) /* where there is none, some write -1 */
        result = gguf_integer(file, "tokenizer.ggml.padding_token_id", -1, UINT32_MAX, &pad, error);
    for (int i = 0; i < 3 && !result; i++) {
        int64_t end = -1;
        result = read_token(file, end_keys[i], config, &end, error);
        if (end >= 0)
            model_config_add_end(config, (int32_t)end);
    }
    /* chat models for which <end_of_turn> stands as the only end token may yet say <eos> */
    int64_t eos = gguf_tokenizer_find(file, "<eos>");
    if (eos >= 0 && eos < config->vocabulary)
        model_config_add_end(config, (int32_t)eos);
    if (config->eos_count == 0)
        model_config_add_end(config, 1);
    config->bos = (int32_t)bos;
    config->pad = pad >= 0 && pad < config->vocabulary ? (int32_t)pad : 0;
    return result;
}

/* Where these are absent, they are what Gemma has. */
static peridot_result check_heads(const struct gguf *file, const struct model_config *config,
                                  peridot_error *error) {
    static const char *const keys[] = {"gemma.attention.value_length",
                                       "gemma.rope.dimension_count"};
    for (int i = 0; i < 2; i++) {
        int64_t value = config->head_dim;
        peridot_result result = gguf_integer(file, keys[i], 0, UINT32_MAX, &value, error);
        if (result)
            return result;
        if (value != config->head_dim)
            return fail(error, PERIDOT_ERROR_UNSUPPORTED,
                        "%s: %s is %lld and gemma.attention.key_length %u; in Gemma they are equal",
                        file->name, keys[i], (long long)value, config->head_dim);
    }
    return PERIDOT_OK;
}

static peridot_result read_config(struct checkpoint *checkpoint, peridot_error *error) {
    const struct gguf *file = &checkpoint->shards[0].gguf;
    struct model_config *config = &checkpoint->config;
    config->rms_eps = -1;
    config->rope_theta = 10000;
    peridot_result result = check_architecture(file, error);
    for (int i = 0; i < MODEL_CONFIG_SIZES && !result; i++)
        if (model_config_sizes[i].gguf_key)
            result = read_size(file, &model_config_sizes[i], config, error);
    if (!result)
        result = gguf_real(file, "gemma.attention.layer_norm_rms_epsilon", 0, 1, &config->rms_eps,
                           error);
    if (!result && config->rms_eps < 0)
        result = fail(error, PERIDOT_ERROR_FORMAT,
                      "%s: there is no gemma.attention.layer_norm_rms_epsilon in its metadata: the "
                      "file is damaged, fetch it again",
                      file->name);
    if (!result)
        result = gguf_real(file, "gemma.rope.freq_base", 1, 1e9, &config->rope_theta, error);
    if (!result)
        result = check_heads(file, config, error);
    if (!result)
        result = read_vocabulary(checkpoint, error);
    if (!result)
        result = read_tokens(file, config, error);
    return result ? result : model_config_check(config, true, file->name, error);
}

peridot_result checkpoint_open_gguf(struct checkpoint *checkpoint, const char *name,
                                    peridot_error *error) {
    peridot_result result = open_parts(checkpoint, name, error);
    return result ? result : read_config(checkpoint, error);
}
