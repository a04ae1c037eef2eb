#include "checkpoint_parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATH_BYTES 4096

char *checkpoint_join(const char *directory, const char *name) {
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

/* Without memory that could be refused: a file not found for that would be one that is not there.
 * False where the path is longer than any that can be opened. */
static bool join_into(char path[PATH_BYTES], const char *directory, const char *name) {
    size_t length = strlen(directory);
    const char *separator = length > 0 && directory[length - 1] != '/' ? "/" : "";
    int written = snprintf(path, PATH_BYTES, "%s%s%s", directory, separator, name);
    return written > 0 && written < PATH_BYTES;
}

bool checkpoint_directory_has(const char *directory, const char *name) {
    char path[PATH_BYTES];
    return join_into(path, directory, name) && platform_is_file(path);
}

static const struct checkpoint_file *find_memory(const struct checkpoint *checkpoint,
                                                 const char *name) {
    for (size_t i = 0; i < checkpoint->memory_count; i++)
        if (strcmp(checkpoint->memory[i].name, name) == 0)
            return &checkpoint->memory[i];
    return NULL;
}

bool checkpoint_has_file(const struct checkpoint *checkpoint, const char *name) {
    if (!checkpoint->directory)
        return find_memory(checkpoint, name) != NULL;
    return checkpoint_directory_has(checkpoint->directory, name);
}

bool checkpoint_reads(const struct checkpoint *checkpoint, const char *path) {
    static const char *const others[] = {"config.json", "generation_config.json",
                                         "model.safetensors.index.json", "tokenizer.model",
                                         "tokenizer_config.json"};
    if (!checkpoint->directory)
        return false;
    for (uint32_t i = 0; i < checkpoint->shard_count; i++)
        if (platform_same_file(checkpoint->shards[i].name, path))
            return true;
    for (size_t i = 0; i < sizeof others / sizeof *others && !checkpoint->is_gguf; i++) {
        char other[PATH_BYTES];
        if (join_into(other, checkpoint->directory, others[i]) && platform_same_file(other, path))
            return true;
    }
    return false;
}

/* The name, and the bytes too where they are in memory. */
static peridot_result begin_source(const struct checkpoint *checkpoint, const char *name,
                                   struct source *source, peridot_error *error) {
    source->name = checkpoint_join(checkpoint->directory, name);
    if (!source->name)
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory while opening %s", name);
    if (checkpoint->directory)
        return PERIDOT_OK;
    const struct checkpoint_file *file = find_memory(checkpoint, name);
    if (!file)
        return fail(error, PERIDOT_ERROR_FILE, "%s is not among the model's files", name);
    source->data = file->data;
    source->size = file->size;
    return PERIDOT_OK;
}

peridot_result checkpoint_open_source(const struct checkpoint *checkpoint, const char *name,
                                      struct source *source, peridot_error *error) {
    peridot_result result = begin_source(checkpoint, name, source, error);
    if (result || !checkpoint->directory)
        return result;
    struct file_bytes bytes;
    result = platform_read_file(source->name, &bytes, error);
    source->data = source->own = bytes.data;
    source->size = bytes.size;
    return result;
}

peridot_result checkpoint_open_weights(const struct checkpoint *checkpoint, const char *name,
                                       struct source *source, peridot_error *error) {
    peridot_result result = begin_source(checkpoint, name, source, error);
    if (result || !checkpoint->directory)
        return result;
    result = platform_open_file(source->name, &source->file, error);
    source->size = source->file.size;
    return result;
}

void checkpoint_close_source(struct source *source) {
    safetensors_free(&source->tensors);
    gguf_free(&source->gguf);
    platform_close_file(&source->file);
    free(source->own);
    free(source->name);
    *source = (struct source){0};
}

peridot_result checkpoint_read(const struct checkpoint *checkpoint,
                               const struct checkpoint_tensor *tensor, uint64_t offset, size_t size,
                               void *room, const uint8_t **bytes, peridot_error *error) {
    const struct source *source = &checkpoint->shards[tensor->file];
    uint64_t at = tensor->begin + offset;
    *bytes = source->file.is_open ? room : source->data + at;
    return source->file.is_open
               ? platform_read_at(&source->file, source->name, at, room, size, error)
               : PERIDOT_OK;
}
