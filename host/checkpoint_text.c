/* What a checkpoint holds beside its weights: the tokenizer, the chat template, its name. */
#include "checkpoint_parts.h"
#include "gguf_tokenizer.h"
#include "json.h"

#include <stdlib.h>
#include <string.h>

peridot_result checkpoint_read_pieces(const struct checkpoint *checkpoint,
                                      struct sentencepiece_model *model, char **texts,
                                      peridot_error *error) {
    const struct source *source = &checkpoint->tokenizer;
    *model = (struct sentencepiece_model){0};
    *texts = NULL;
    if (checkpoint->is_gguf)
        return gguf_tokenizer_pieces(&checkpoint->shards[0].gguf, model, texts, error);
    return source->name
               ? sentencepiece_parse(source->data, (size_t)source->size, source->name, model, error)
               : PERIDOT_OK;
}

peridot_result checkpoint_begin_tokenizer(const struct checkpoint *checkpoint,
                                          struct checkpoint_tokenizer *reading,
                                          peridot_error *error) {
    const struct source *source =
        checkpoint->is_gguf ? &checkpoint->shards[0] : &checkpoint->tokenizer;
    *reading = (struct checkpoint_tokenizer){0};
    peridot_result result =
        checkpoint_read_pieces(checkpoint, &reading->model, &reading->texts, error);
    if (!result && reading->model.count)
        result = tokenizer_begin(&reading->model, source->name, &reading->making, error);
    if (result || reading->model.count <= checkpoint->config.vocabulary)
        return result;
    return fail(error, PERIDOT_ERROR_FORMAT,
                "%s has %u pieces and the model's vocabulary %u: the files do not belong together",
                source->name, reading->model.count, checkpoint->config.vocabulary);
}

peridot_result checkpoint_step_tokenizer(struct checkpoint_tokenizer *reading, uint32_t pieces,
                                         struct tokenizer **tokenizer, peridot_error *error) {
    return reading->making ? tokenizer_step(reading->making, pieces, tokenizer, error) : PERIDOT_OK;
}

peridot_result checkpoint_create_tokenizer(const struct checkpoint *checkpoint,
                                           struct tokenizer **tokenizer, peridot_error *error) {
    struct checkpoint_tokenizer reading;
    *tokenizer = NULL;
    peridot_result result = checkpoint_begin_tokenizer(checkpoint, &reading, error);
    if (!result)
        do
            result = checkpoint_step_tokenizer(&reading, UINT32_MAX, tokenizer, error);
        while (result == PERIDOT_NOT_READY);
    checkpoint_end_tokenizer(&reading);
    return result;
}

void checkpoint_end_tokenizer(struct checkpoint_tokenizer *reading) {
    tokenizer_end(reading->making);
    sentencepiece_free(&reading->model);
    free(reading->texts);
    *reading = (struct checkpoint_tokenizer){0};
}

static char *copy(const char *text, size_t length) {
    char *copied = malloc(length + 1);
    if (!copied)
        return NULL;
    memcpy(copied, text, length);
    copied[length] = '\0';
    return copied;
}

/* A list of templates has one for chats among those for other uses. */
static const char *find_template(const cJSON *json) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(json, "chat_template"), *entry;
    if (cJSON_IsString(item))
        return item->valuestring;
    if (!cJSON_IsArray(item))
        return NULL;
    cJSON_ArrayForEach(entry, item) {
        const cJSON *name = cJSON_GetObjectItemCaseSensitive(entry, "name");
        const cJSON *text = cJSON_GetObjectItemCaseSensitive(entry, "template");
        if (cJSON_IsString(name) && cJSON_IsString(text) && !strcmp(name->valuestring, "default"))
            return text->valuestring;
    }
    return NULL;
}

/* From tokenizer_config.json, or a file of its own as newer checkpoints have it. */
static peridot_result read_template(const struct checkpoint *checkpoint, struct gguf_string *found,
                                    struct source *source, cJSON **json, peridot_error *error) {
    static const char own[] = "chat_template.jinja", config[] = "tokenizer_config.json";
    bool has_own = checkpoint_has_file(checkpoint, own);
    if (!has_own && !checkpoint_has_file(checkpoint, config))
        return PERIDOT_OK;
    peridot_result result =
        checkpoint_open_source(checkpoint, has_own ? own : config, source, error);
    if (result)
        return result;
    if (has_own) {
        *found = (struct gguf_string){(const char *)source->data, (size_t)source->size};
        return PERIDOT_OK;
    }
    *json =
        json_parse_object((const char *)source->data, (size_t)source->size, source->name, error);
    if (!*json)
        return PERIDOT_ERROR_FORMAT;
    const char *text = find_template(*json);
    *found = (struct gguf_string){text, text ? strlen(text) : 0};
    return PERIDOT_OK;
}

peridot_result checkpoint_chat_template(const struct checkpoint *checkpoint, char **text,
                                        peridot_error *error) {
    struct gguf_string found = {0};
    struct source source = {0};
    cJSON *json = NULL;
    *text = NULL;
    peridot_result result =
        checkpoint->is_gguf
            ? gguf_string(&checkpoint->shards[0].gguf, "tokenizer.chat_template", &found, error)
            : read_template(checkpoint, &found, &source, &json, error);
    if (!result && found.text && !(*text = copy(found.text, found.length)))
        result = fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory for the chat template");
    cJSON_Delete(json);
    checkpoint_close_source(&source);
    return result;
}

char *checkpoint_model_name(const struct checkpoint *checkpoint) {
    struct gguf_string name = {0};
    if (checkpoint->is_gguf) {
        gguf_string(&checkpoint->shards[0].gguf, "general.name", &name, NULL);
    } else if (checkpoint->directory) {
        const char *path = checkpoint->directory;
        size_t end = strlen(path);
        while (end > 0 && path[end - 1] == '/')
            end--;
        size_t begin = end;
        while (begin > 0 && path[begin - 1] != '/')
            begin--;
        name = (struct gguf_string){path + begin, end - begin};
    }
    bool plain = name.length > 0 && !gguf_string_is(name, ".") && !gguf_string_is(name, "..");
    return plain ? copy(name.text, name.length) : NULL;
}
