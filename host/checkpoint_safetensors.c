/* A Hugging Face directory: its configuration, and the files of its weights. */
#include "checkpoint_parts.h"
#include "json.h"

#include <stdlib.h>
#include <string.h>

#define INDEX_NAME "model.safetensors.index.json"

static peridot_result read_config(struct checkpoint *checkpoint, peridot_error *error) {
    struct source source = {0};
    peridot_result result = checkpoint_open_source(checkpoint, "config.json", &source, error);
    if (!result)
        result = model_config_parse((const char *)source.data, (size_t)source.size, source.name,
                                    &checkpoint->config, error);
    checkpoint_close_source(&source);
    if (!result && checkpoint_has_file(checkpoint, "generation_config.json")) {
        result = checkpoint_open_source(checkpoint, "generation_config.json", &source, error);
        if (!result)
            result = model_config_add_eos((const char *)source.data, (size_t)source.size,
                                          source.name, &checkpoint->config, error);
        checkpoint_close_source(&source);
    }
    return result;
}

static peridot_result read_header(struct source *shard, peridot_error *error) {
    uint8_t first[8];
    size_t held = shard->size < sizeof first ? (size_t)shard->size : sizeof first;
    peridot_result result = platform_read_at(&shard->file, shard->name, 0, first, held, error);
    if (result)
        return result;
    size_t bytes = (size_t)safetensors_header_bytes(first, shard->size);
    shard->data = shard->own = malloc(bytes + 1);
    if (!shard->own)
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory for the header of %s",
                    shard->name);
    return platform_read_at(&shard->file, shard->name, 0, shard->own, bytes, error);
}

static peridot_result open_shard(struct checkpoint *checkpoint, const char *name,
                                 peridot_error *error) {
    struct source *shard = &checkpoint->shards[checkpoint->shard_count++];
    peridot_result result = checkpoint_open_weights(checkpoint, name, shard, error);
    if (!result && shard->file.is_open)
        result = read_header(shard, error);
    if (!result)
        result = safetensors_parse(shard->data, shard->size, shard->name, &shard->tensors, error);
    return result;
}

static bool plain_name(const cJSON *item) {
    return cJSON_IsString(item) && item->valuestring[0] && item->valuestring[0] != '.' &&
           !strpbrk(item->valuestring, "/\\:");
}

/* Opens each file that weight_map names, once. */
static peridot_result open_listed(struct checkpoint *checkpoint, const cJSON *index,
                                  const char *name, peridot_error *error) {
    const cJSON *map = cJSON_GetObjectItemCaseSensitive(index, "weight_map");
    if (!cJSON_IsObject(map))
        return fail(error, PERIDOT_ERROR_FORMAT, "%s: there is no weight_map", name);
    const char *opened[SHARDS_MAX];
    for (const cJSON *item = map->child; item; item = item->next) {
        if (!plain_name(item))
            return fail(error, PERIDOT_ERROR_FORMAT,
                        "%s: weight_map gives %.200s no plain file name beside the index", name,
                        item->string);
        uint32_t i = 0;
        while (i < checkpoint->shard_count && strcmp(opened[i], item->valuestring) != 0)
            i++;
        if (i < checkpoint->shard_count)
            continue;
        if (i == SHARDS_MAX)
            return fail(error, PERIDOT_ERROR_FORMAT, "%s: more than %d files", name, SHARDS_MAX);
        if (!checkpoint_has_file(checkpoint, item->valuestring))
            return fail(error, PERIDOT_ERROR_FILE,
                        "%s names %.200s, which is not there: fetch it too", name,
                        item->valuestring);
        opened[i] = item->valuestring;
        peridot_result result = open_shard(checkpoint, item->valuestring, error);
        if (result)
            return result;
    }
    return PERIDOT_OK;
}

static peridot_result open_indexed(struct checkpoint *checkpoint, peridot_error *error) {
    struct source source = {0};
    cJSON *index = NULL;
    peridot_result result = checkpoint_open_source(checkpoint, INDEX_NAME, &source, error);
    if (!result) {
        index =
            json_parse_object((const char *)source.data, (size_t)source.size, source.name, error);
        result = index ? open_listed(checkpoint, index, source.name, error) : PERIDOT_ERROR_FORMAT;
    }
    cJSON_Delete(index);
    checkpoint_close_source(&source);
    return result;
}

static peridot_result open_weights(struct checkpoint *checkpoint, peridot_error *error) {
    if (checkpoint_has_file(checkpoint, "model.safetensors"))
        return open_shard(checkpoint, "model.safetensors", error);
    if (checkpoint_has_file(checkpoint, INDEX_NAME))
        return open_indexed(checkpoint, error);
    return fail(
        error, PERIDOT_ERROR_FILE,
        "%s has a config.json but neither model.safetensors nor " INDEX_NAME
        ": Peridot reads safetensors, and GGUF files by their own names; fetch those files too",
        checkpoint->directory ? checkpoint->directory : "the model");
}

peridot_result checkpoint_open_safetensors(struct checkpoint *checkpoint, peridot_error *error) {
    peridot_result result = read_config(checkpoint, error);
    if (!result)
        result = open_weights(checkpoint, error);
    if (!result && checkpoint_has_file(checkpoint, "tokenizer.model"))
        result =
            checkpoint_open_source(checkpoint, "tokenizer.model", &checkpoint->tokenizer, error);
    return result;
}
