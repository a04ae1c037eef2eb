#include "checkpoint.h"
#include "checksum.h"
#include "json.h"
#include "platform.h"

#include <stdlib.h>
#include <string.h>

#define INDEX_NAME "model.safetensors.index.json"
#define SHARDS_MAX 1024

/* One file: mapped from the directory, or the caller's memory. */
struct source {
    char *name; /* for messages: the path, or the name in memory */
    struct mapped_file file;
    bool mapped;
    struct safetensors tensors; /* of a weight file */
};

struct checkpoint {
    char *directory; /* NULL: from memory */
    const struct checkpoint_file *memory;
    size_t memory_count;
    struct model_config config;
    struct source tokenizer;
    struct source *shards;
    uint32_t shard_count;
    struct checkpoint_tensor *tensors; /* the model's, then each layer's */
};

/* The tensors of Gemma: the part of the name after "model." or "model.layers.N.", and its shape. */
static const struct {
    const char *name;
    enum { ONE, VOCABULARY, QUERIES, KEYS, HIDDEN, MODEL } rows, columns;
} roles[TENSOR_ROLE_COUNT] = {
    [TENSOR_EMBEDDING] = {"embed_tokens", VOCABULARY, MODEL},
    [TENSOR_FINAL_NORM] = {"norm", ONE, MODEL},
    [TENSOR_INPUT_NORM] = {"input_layernorm", ONE, MODEL},
    [TENSOR_POST_ATTENTION_NORM] = {"post_attention_layernorm", ONE, MODEL},
    [TENSOR_QUERY] = {"self_attn.q_proj", QUERIES, MODEL},
    [TENSOR_KEY] = {"self_attn.k_proj", KEYS, MODEL},
    [TENSOR_VALUE] = {"self_attn.v_proj", KEYS, MODEL},
    [TENSOR_OUTPUT] = {"self_attn.o_proj", MODEL, QUERIES},
    [TENSOR_GATE] = {"mlp.gate_proj", HIDDEN, MODEL},
    [TENSOR_UP] = {"mlp.up_proj", HIDDEN, MODEL},
    [TENSOR_DOWN] = {"mlp.down_proj", MODEL, HIDDEN},
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

static size_t tensor_index(enum tensor_role role, uint32_t layer) {
    if (role < TENSOR_INPUT_NORM)
        return role;
    return TENSOR_INPUT_NORM + (size_t)layer * (TENSOR_ROLE_COUNT - TENSOR_INPUT_NORM) +
           (role - TENSOR_INPUT_NORM);
}

/* "a" and "/" and "b" in new memory, or NULL. */
static char *join(const char *directory, const char *name) {
    size_t a = directory ? strlen(directory) : 0, b = strlen(name);
    bool separator = a > 0 && directory[a - 1] != '/';
    char *path = malloc(a + separator + b + 1);
    if (!path)
        return NULL;
    if (a)
        memcpy(path, directory, a);
    if (separator)
        path[a] = '/';
    memcpy(path + a + separator, name, b + 1);
    return path;
}

static const struct checkpoint_file *find_memory(const struct checkpoint *checkpoint,
                                                 const char *name) {
    for (size_t i = 0; i < checkpoint->memory_count; i++)
        if (strcmp(checkpoint->memory[i].name, name) == 0)
            return &checkpoint->memory[i];
    return NULL;
}

static bool has_file(const struct checkpoint *checkpoint, const char *name) {
    if (!checkpoint->directory)
        return find_memory(checkpoint, name) != NULL;
    char *path = join(checkpoint->directory, name);
    bool there = path && platform_is_file(path);
    free(path);
    return there;
}

static peridot_result open_source(const struct checkpoint *checkpoint, const char *name,
                                  struct source *source, peridot_error *error) {
    source->name = join(checkpoint->directory, name);
    if (!source->name)
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory while opening %s", name);
    if (checkpoint->directory) {
        source->mapped = true;
        return platform_map_file(source->name, &source->file, error);
    }
    const struct checkpoint_file *file = find_memory(checkpoint, name);
    if (!file)
        return fail(error, PERIDOT_ERROR_FILE, "%s is not among the model's files", name);
    source->file = (struct mapped_file){file->data, file->size};
    return PERIDOT_OK;
}

static void close_source(struct source *source) {
    safetensors_free(&source->tensors);
    if (source->mapped)
        platform_unmap_file(&source->file);
    free(source->name);
    *source = (struct source){0};
}

static peridot_result read_config(struct checkpoint *checkpoint, peridot_error *error) {
    struct source source = {0};
    peridot_result result = open_source(checkpoint, "config.json", &source, error);
    if (!result)
        result = model_config_parse((const char *)source.file.data, source.file.size, source.name,
                                    &checkpoint->config, error);
    close_source(&source);
    if (!result && has_file(checkpoint, "generation_config.json")) {
        result = open_source(checkpoint, "generation_config.json", &source, error);
        if (!result)
            result = model_config_add_eos((const char *)source.file.data, source.file.size,
                                          source.name, &checkpoint->config, error);
        close_source(&source);
    }
    return result;
}

static peridot_result open_shard(struct checkpoint *checkpoint, const char *name,
                                 peridot_error *error) {
    struct source *shard = &checkpoint->shards[checkpoint->shard_count++];
    peridot_result result = open_source(checkpoint, name, shard, error);
    if (!result)
        result = safetensors_parse(shard->file.data, shard->file.size, shard->name, &shard->tensors,
                                   error);
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
        if (!has_file(checkpoint, item->valuestring))
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
    peridot_result result = open_source(checkpoint, INDEX_NAME, &source, error);
    if (!result) {
        index =
            json_parse_object((const char *)source.file.data, source.file.size, source.name, error);
        result = index ? open_listed(checkpoint, index, source.name, error) : PERIDOT_ERROR_FORMAT;
    }
    cJSON_Delete(index);
    close_source(&source);
    return result;
}

static peridot_result open_weights(struct checkpoint *checkpoint, peridot_error *error) {
    checkpoint->shards = calloc(SHARDS_MAX, sizeof *checkpoint->shards);
    if (!checkpoint->shards)
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory while opening the model");
    if (has_file(checkpoint, "model.safetensors"))
        return open_shard(checkpoint, "model.safetensors", error);
    if (has_file(checkpoint, INDEX_NAME))
        return open_indexed(checkpoint, error);
    return fail(error, PERIDOT_ERROR_FILE,
                "%s has a config.json but neither model.safetensors nor " INDEX_NAME
                ": Peridot reads safetensors; fetch those files too",
                checkpoint->directory ? checkpoint->directory : "the model");
}

static peridot_result check_shape(const struct checkpoint *checkpoint,
                                  const struct safetensor *found, const char *name,
                                  const char *file, int row_kind, uint32_t rows, uint32_t columns,
                                  peridot_error *error) {
    (void)checkpoint;
    if (found->type == TENSOR_OTHER)
        return fail(error, PERIDOT_ERROR_UNSUPPORTED,
                    "%s: tensor %s is %s; Peridot reads F32, BF16 and F16", file, name,
                    found->type_name);
    bool vector = row_kind == ONE;
    if (found->dimensions == (vector ? 1u : 2u) && found->shape[0] == (vector ? columns : rows) &&
        (vector || found->shape[1] == columns))
        return PERIDOT_OK;
    char wanted[32], has[64] = "of another rank";
    if (vector)
        snprintf(wanted, sizeof wanted, "[%u]", columns);
    else
        snprintf(wanted, sizeof wanted, "[%u, %u]", rows, columns);
    if (found->dimensions == 1)
        snprintf(has, sizeof has, "[%llu]", (unsigned long long)found->shape[0]);
    else if (found->dimensions == 2)
        snprintf(has, sizeof has, "[%llu, %llu]", (unsigned long long)found->shape[0],
                 (unsigned long long)found->shape[1]);
    return fail(
        error, PERIDOT_ERROR_FORMAT,
        "%s: tensor %s is %s where config.json makes it %s: the files do not belong together", file,
        name, has, wanted);
}

static peridot_result find_tensor(struct checkpoint *checkpoint, enum tensor_role role,
                                  uint32_t layer, peridot_error *error) {
    char name[128];
    if (role < TENSOR_INPUT_NORM)
        snprintf(name, sizeof name, "model.%s.weight", roles[role].name);
    else
        snprintf(name, sizeof name, "model.layers.%u.%s.weight", layer, roles[role].name);
    const struct safetensor *found = NULL;
    uint32_t file = 0;
    for (; file < checkpoint->shard_count && !found; file++)
        found = safetensors_find(&checkpoint->shards[file].tensors, name);
    if (!found)
        return fail(error, PERIDOT_ERROR_FORMAT,
                    "%s: tensor %s is missing, and config.json calls for it: the files are "
                    "incomplete or do not belong together",
                    checkpoint->shard_count == 1 ? checkpoint->shards[0].name
                    : checkpoint->directory      ? checkpoint->directory
                                                 : "the model",
                    name);
    file--;
    uint32_t rows = extent(&checkpoint->config, roles[role].rows);
    uint32_t columns = extent(&checkpoint->config, roles[role].columns);
    peridot_result result = check_shape(checkpoint, found, name, checkpoint->shards[file].name,
                                        roles[role].rows, rows, columns, error);
    if (result)
        return result;
    checkpoint->tensors[tensor_index(role, layer)] = (struct checkpoint_tensor){
        .type = found->type,
        .rows = rows,
        .columns = columns,
        .data = found->data,
        .size = (size_t)found->size,
        .name = found->name,
        .file = file,
    };
    return PERIDOT_OK;
}

static peridot_result find_tensors(struct checkpoint *checkpoint, peridot_error *error) {
    uint32_t layers = checkpoint->config.layers;
    checkpoint->tensors =
        calloc(tensor_index(TENSOR_INPUT_NORM, layers), sizeof *checkpoint->tensors);
    if (!checkpoint->tensors)
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory while opening the model");
    peridot_result result = PERIDOT_OK;
    for (int role = 0; role < TENSOR_ROLE_COUNT && !result; role++) {
        uint32_t count = role < TENSOR_INPUT_NORM ? 1 : layers;
        for (uint32_t layer = 0; layer < count && !result; layer++)
            result = find_tensor(checkpoint, role, layer, error);
    }
    return result;
}

/* Tensors that no role takes would change the arithmetic if they were layers or biases. */
static peridot_result check_surplus(const struct checkpoint *checkpoint, const struct source *shard,
                                    peridot_error *error) {
    static const char prefix[] = "model.layers.", bias[] = ".bias";
    uint32_t layers = checkpoint->config.layers;
    for (size_t i = 0; i < shard->tensors.count; i++) {
        const char *name = shard->tensors.tensors[i].name;
        size_t length = strlen(name);
        if (strncmp(name, prefix, sizeof prefix - 1) != 0)
            continue;
        if (strtoul(name + sizeof prefix - 1, NULL, 10) >= layers)
            return fail(error, PERIDOT_ERROR_FORMAT,
                        "%s holds tensor %.200s, but num_hidden_layers in config.json is %u: the "
                        "files do not belong together",
                        shard->name, name, layers);
        if (length >= sizeof bias - 1 && strcmp(name + length - (sizeof bias - 1), bias) == 0)
            return fail(error, PERIDOT_ERROR_UNSUPPORTED,
                        "%s holds tensor %.200s: Gemma has no biases, so this is another model",
                        shard->name, name);
    }
    return PERIDOT_OK;
}

static peridot_result open_all(struct checkpoint *checkpoint, peridot_error *error) {
    peridot_result result = read_config(checkpoint, error);
    if (!result)
        result = open_weights(checkpoint, error);
    if (!result)
        result = find_tensors(checkpoint, error);
    for (uint32_t i = 0; i < checkpoint->shard_count && !result; i++)
        result = check_surplus(checkpoint, &checkpoint->shards[i], error);
    if (!result && has_file(checkpoint, "tokenizer.model"))
        result = open_source(checkpoint, "tokenizer.model", &checkpoint->tokenizer, error);
    return result;
}

static peridot_result finish_open(struct checkpoint *opening, struct checkpoint **checkpoint,
                                  peridot_error *error) {
    peridot_result result = open_all(opening, error);
    if (result)
        checkpoint_close(opening);
    else
        *checkpoint = opening;
    return result;
}

static peridot_result check_directory(const char *directory, peridot_error *error) {
    if (platform_is_file(directory))
        return fail(error, PERIDOT_ERROR_FILE,
                    "%s is a file; give the directory that holds config.json and the safetensors",
                    directory);
    if (!platform_is_directory(directory))
        return fail(error, PERIDOT_ERROR_FILE,
                    "there is no directory %s: give the directory of a downloaded Gemma checkpoint",
                    directory);
    char *config = join(directory, "config.json");
    bool there = config && platform_is_file(config);
    free(config);
    if (!there)
        return fail(error, PERIDOT_ERROR_FILE,
                    "%s has no config.json: give the directory of a Hugging Face Gemma checkpoint",
                    directory);
    return PERIDOT_OK;
}

peridot_result checkpoint_open(const char *directory, struct checkpoint **checkpoint,
                               peridot_error *error) {
    *checkpoint = NULL;
    peridot_result result = check_directory(directory, error);
    if (result)
        return result;
    struct checkpoint *opening = calloc(1, sizeof *opening);
    if (!opening || !(opening->directory = join(NULL, directory))) {
        free(opening);
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory while opening %s", directory);
    }
    return finish_open(opening, checkpoint, error);
}

peridot_result checkpoint_open_memory(const struct checkpoint_file *files, size_t count,
                                      struct checkpoint **checkpoint, peridot_error *error) {
    *checkpoint = NULL;
    struct checkpoint *opening = calloc(1, sizeof *opening);
    if (!opening)
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory while opening the model");
    opening->memory = files;
    opening->memory_count = count;
    return finish_open(opening, checkpoint, error);
}

void checkpoint_close(struct checkpoint *checkpoint) {
    if (!checkpoint)
        return;
    for (uint32_t i = 0; i < checkpoint->shard_count; i++)
        close_source(&checkpoint->shards[i]);
    close_source(&checkpoint->tokenizer);
    free(checkpoint->shards);
    free(checkpoint->tensors);
    free(checkpoint->directory);
    free(checkpoint);
}

const struct model_config *checkpoint_config(const struct checkpoint *checkpoint) {
    return &checkpoint->config;
}

bool checkpoint_tokenizer(const struct checkpoint *checkpoint, const void **data, size_t *size,
                          const char **name) {
    *data = checkpoint->tokenizer.file.data;
    *size = checkpoint->tokenizer.file.size;
    *name = checkpoint->tokenizer.name;
    return checkpoint->tokenizer.name != NULL;
}

const struct checkpoint_tensor *checkpoint_tensor(const struct checkpoint *checkpoint,
                                                  enum tensor_role role, uint32_t layer) {
    return &checkpoint->tensors[tensor_index(role, layer)];
}

const char *checkpoint_tensor_file(const struct checkpoint *checkpoint,
                                   const struct checkpoint_tensor *tensor) {
    return checkpoint->shards[tensor->file].name;
}

void checkpoint_release_pages(const struct checkpoint *checkpoint,
                              const struct checkpoint_tensor *tensor, size_t offset, size_t size) {
    const struct source *source = &checkpoint->shards[tensor->file];
    if (source->mapped)
        platform_drop_pages(&source->file, (size_t)(tensor->data - source->file.data) + offset,
                            size);
}

uint64_t checkpoint_fingerprint(const struct checkpoint *checkpoint) {
    const struct model_config *config = &checkpoint->config;
    uint32_t shape[] = {config->layers,   config->d_model, config->heads,     config->kv_heads,
                        config->head_dim, config->hidden,  config->vocabulary};
    double reals[] = {config->rms_eps, config->rope_theta};
    uint64_t value = checksum_add(CHECKSUM_START, shape, sizeof shape);
    value = checksum_add(value, reals, sizeof reals);
    size_t count = tensor_index(TENSOR_INPUT_NORM, config->layers);
    for (size_t i = 0; i < count; i++) {
        const struct checkpoint_tensor *tensor = &checkpoint->tensors[i];
        uint32_t type = tensor->type;
        value = checksum_add(value, &type, sizeof type);
        size_t sample = tensor->size < 64 ? tensor->size : 64;
        for (size_t part = 0; part < 8; part++)
            value = checksum_add(value, tensor->data + (tensor->size - sample) / 7 * part, sample);
    }
    return value;
}
