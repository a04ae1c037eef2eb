#include "checkpoint.h"
#include "blocks.h"
#include "checkpoint_parts.h"
#include "checksum.h"
#include "weight_rows.h"

#include <stdlib.h>
#include <string.h>

#define PIECE_BYTES ((size_t)1 << 20) /* compared at once */

/* ---- Opening ---- */

static peridot_result out_of_memory(const char *path, peridot_error *error) {
    return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory while opening %s", path);
}

/* `gguf` names a file of the checkpoint that makes it a GGUF one, or is NULL. */
static peridot_result finish_open(struct checkpoint *opening, const char *gguf,
                                  struct checkpoint **checkpoint, peridot_error *error) {
    opening->is_gguf = gguf != NULL;
    opening->shards = calloc(SHARDS_MAX, sizeof *opening->shards);
    peridot_result result = opening->shards ? PERIDOT_OK : out_of_memory("the model", error);
    if (!result)
        result = gguf ? checkpoint_open_gguf(opening, gguf, error)
                      : checkpoint_open_safetensors(opening, error);
    if (!result)
        result = checkpoint_find_tensors(opening, error);
    if (result)
        checkpoint_close(opening);
    else
        *checkpoint = opening;
    return result;
}

static bool ends_with(const char *text, const char *end) {
    size_t length = strlen(text);
    return length >= strlen(end) && strcmp(text + length - strlen(end), end) == 0;
}

/* By its first bytes; what bears the name alone is taken too, to be told what is wrong with it. */
static peridot_result check_gguf(const char *path, peridot_error *error) {
    struct open_file file;
    uint8_t first[4];
    peridot_result result = platform_open_file(path, &file, error);
    size_t held = file.size < sizeof first ? (size_t)file.size : sizeof first;
    if (!result)
        result = platform_read_at(&file, path, 0, first, held, error);
    platform_close_file(&file);
    if (!result && !gguf_is(first, held) && !ends_with(path, ".gguf"))
        return fail(error, PERIDOT_ERROR_FILE,
                    "%s is a file, and no GGUF file; give one, or the directory that holds "
                    "config.json and the safetensors",
                    path);
    return result;
}

static peridot_result check_directory(const char *directory, peridot_error *error) {
    if (!platform_is_directory(directory))
        return fail(error, PERIDOT_ERROR_FILE,
                    "there is no directory %s: give the directory of a downloaded Gemma "
                    "checkpoint, or a GGUF file",
                    directory);
    if (!checkpoint_directory_has(directory, "config.json"))
        return fail(error, PERIDOT_ERROR_FILE,
                    "%s has no config.json: give the directory of a Hugging Face Gemma "
                    "checkpoint, or a GGUF file",
                    directory);
    return PERIDOT_OK;
}

peridot_result checkpoint_open(const char *path, struct checkpoint **checkpoint,
                               peridot_error *error) {
    *checkpoint = NULL;
    bool is_file = platform_is_file(path);
    peridot_result result = is_file ? check_gguf(path, error) : check_directory(path, error);
    if (result)
        return result;
    struct checkpoint *opening = calloc(1, sizeof *opening);
    if (!opening || !(opening->directory = checkpoint_join(NULL, path))) {
        free(opening);
        return out_of_memory(path, error);
    }
    const char *name = NULL;
    if (is_file) {
        const char *slash = strrchr(path, '/');
        name = slash ? slash + 1 : path;
        opening->directory[name - path] = '\0';
    }
    return finish_open(opening, name, checkpoint, error);
}

peridot_result checkpoint_open_memory(const struct checkpoint_file *files, size_t count,
                                      struct checkpoint **checkpoint, peridot_error *error) {
    *checkpoint = NULL;
    struct checkpoint *opening = calloc(1, sizeof *opening);
    if (!opening)
        return out_of_memory("the model", error);
    opening->memory = files;
    opening->memory_count = count;
    const char *gguf = NULL;
    for (size_t i = 0; i < count && !gguf; i++)
        if (gguf_is(files[i].data, files[i].size))
            gguf = files[i].name;
    return finish_open(opening, gguf, checkpoint, error);
}

void checkpoint_close(struct checkpoint *checkpoint) {
    if (!checkpoint)
        return;
    for (uint32_t i = 0; i < checkpoint->shard_count; i++)
        checkpoint_close_source(&checkpoint->shards[i]);
    checkpoint_close_source(&checkpoint->tokenizer);
    free(checkpoint->shards);
    free(checkpoint->tensors);
    free(checkpoint->directory);
    free(checkpoint);
}

/* ---- What it holds ---- */

const struct model_config *checkpoint_config(const struct checkpoint *checkpoint) {
    return &checkpoint->config;
}

bool checkpoint_norms_have_one(const struct checkpoint *checkpoint) {
    return checkpoint->is_gguf;
}

const struct checkpoint_tensor *checkpoint_tensor(const struct checkpoint *checkpoint,
                                                  enum tensor_role role, uint32_t layer) {
    const struct checkpoint_tensor *tensor =
        &checkpoint->tensors[checkpoint_tensor_index(role, layer)];
    return tensor->begin ? tensor : NULL;
}

/* Whether they are equal in a piece of both from `at` on. */
static peridot_result compare(const struct checkpoint *checkpoint,
                              const struct checkpoint_tensor *a, const struct checkpoint_tensor *b,
                              uint64_t at, bool *equal, peridot_error *error) {
    uint8_t *room = malloc(2 * PIECE_BYTES);
    if (!room)
        return out_of_memory(a->name, error);
    size_t size = a->size - at < PIECE_BYTES ? (size_t)(a->size - at) : PIECE_BYTES;
    const uint8_t *first = NULL, *second = NULL;
    peridot_result result = checkpoint_read(checkpoint, a, at, size, room, &first, error);
    if (!result)
        result = checkpoint_read(checkpoint, b, at, size, room + PIECE_BYTES, &second, error);
    *equal = !result && memcmp(first, second, size) == 0;
    free(room);
    return result;
}

peridot_result checkpoint_compare_head(const struct checkpoint *checkpoint, uint64_t *done,
                                       const struct checkpoint_tensor **head,
                                       peridot_error *error) {
    const struct checkpoint_tensor *table = checkpoint_tensor(checkpoint, TENSOR_EMBEDDING, 0);
    *head = checkpoint_tensor(checkpoint, TENSOR_HEAD, 0);
    if (!*head || (*head)->type != table->type || (*head)->size != table->size)
        return PERIDOT_OK;
    bool equal = false;
    peridot_result result = compare(checkpoint, *head, table, *done, &equal, error);
    if (result || !equal)
        return result;
    *done += PIECE_BYTES;
    if (*done < table->size)
        return PERIDOT_NOT_READY;
    *head = NULL;
    return PERIDOT_OK;
}

peridot_result checkpoint_own_head(const struct checkpoint *checkpoint,
                                   const struct checkpoint_tensor **head, peridot_error *error) {
    uint64_t done = 0;
    peridot_result result;
    do
        result = checkpoint_compare_head(checkpoint, &done, head, error);
    while (result == PERIDOT_NOT_READY);
    return result;
}

const char *checkpoint_tensor_file(const struct checkpoint *checkpoint,
                                   const struct checkpoint_tensor *tensor) {
    return checkpoint->shards[tensor->file].name;
}

peridot_result checkpoint_read_norm(const struct checkpoint *checkpoint,
                                    const struct checkpoint_tensor *tensor, float *values,
                                    peridot_error *error) {
    uint8_t *room = malloc((size_t)tensor->size + 1);
    const uint8_t *bytes = NULL;
    if (!room)
        return out_of_memory(tensor->name, error);
    peridot_result result =
        checkpoint_read(checkpoint, tensor, 0, (size_t)tensor->size, room, &bytes, error);
    if (!result && !weight_row_finite(tensor->type, bytes, tensor->columns))
        result = fail(error, PERIDOT_ERROR_FORMAT,
                      "%s: tensor %s has a NaN or an infinity: the file is damaged, fetch it again",
                      checkpoint_tensor_file(checkpoint, tensor), tensor->name);
    if (!result)
        blocks_dequantise(tensor->type, bytes, tensor->columns, values);
    for (uint32_t i = 0; i < tensor->columns && !result && !checkpoint->is_gguf; i++)
        values[i] += 1.0f;
    free(room);
    return result;
}

static uint64_t sample_config(const struct model_config *config) {
    uint32_t shape[] = {config->layers,   config->d_model, config->heads,     config->kv_heads,
                        config->head_dim, config->hidden,  config->vocabulary};
    double reals[] = {config->rms_eps, config->rope_theta};
    uint64_t value = checksum_add(CHECKSUM_START, shape, sizeof shape);
    return checksum_add(value, reals, sizeof reals);
}

#define SAMPLES_OF_TENSOR 8

peridot_result checkpoint_sample(const struct checkpoint *checkpoint, uint64_t *next,
                                 uint64_t *value, peridot_error *error) {
    if (*next == 0)
        *value = sample_config(&checkpoint->config);
    size_t count = checkpoint_tensor_index(TENSOR_INPUT_NORM, checkpoint->config.layers);
    const struct checkpoint_tensor *tensor = &checkpoint->tensors[*next / SAMPLES_OF_TENSOR];
    uint64_t part = (*next)++ % SAMPLES_OF_TENSOR;
    uint8_t room[64];
    const uint8_t *bytes = NULL;
    size_t sample = tensor->size < sizeof room ? (size_t)tensor->size : sizeof room;
    uint32_t type = tensor->type;
    if (tensor->begin && part == 0)
        *value = checksum_add(*value, &type, sizeof type);
    if (tensor->begin) {
        peridot_result result = checkpoint_read(
            checkpoint, tensor, (tensor->size - sample) / 7 * part, sample, room, &bytes, error);
        if (result)
            return result;
        *value = checksum_add(*value, bytes, sample);
    }
    return *next < count * SAMPLES_OF_TENSOR ? PERIDOT_NOT_READY : PERIDOT_OK;
}

peridot_result checkpoint_fingerprint(const struct checkpoint *checkpoint, uint64_t *value,
                                      peridot_error *error) {
    uint64_t next = 0;
    peridot_result result;
    do
        result = checkpoint_sample(checkpoint, &next, value, error);
    while (result == PERIDOT_NOT_READY);
    return result;
}
