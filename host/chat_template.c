#include "chat_template.h"

#include <stdlib.h>
#include <string.h>

static void strip(const char **text, size_t *length) {
    static const char white[] = " \t\n\r\v\f";
    while (*length && memchr(white, (*text)[0], sizeof white - 1)) {
        (*text)++;
        (*length)--;
    }
    while (*length && memchr(white, (*text)[*length - 1], sizeof white - 1))
        (*length)--;
}

/* A text being put together. */
struct text {
    char *bytes;
    size_t length, capacity;
    bool failed;
};

static void append(struct text *text, const char *bytes, size_t length) {
    if (text->length + length > text->capacity && !text->failed) {
        size_t capacity = 2 * (text->length + length);
        char *grown = realloc(text->bytes, capacity);
        text->failed = !grown;
        if (grown) {
            text->bytes = grown;
            text->capacity = capacity;
        }
    }
    if (text->failed || length == 0)
        return;
    memcpy(text->bytes + text->length, bytes, length);
    text->length += length;
}

static peridot_result out_of_memory(peridot_error *error) {
    return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory while writing the conversation");
}

static peridot_result put(struct token_list *list, int32_t id, peridot_error *error) {
    return token_list_add(list, id) ? PERIDOT_OK : out_of_memory(error);
}

/* Text between two markers is tokenised as one piece, as the reference does with the whole string.
 */
static peridot_result put_turn(const struct tokenizer *tokenizer, const struct text *inside,
                               bool closed, struct token_list *list, peridot_error *error) {
    struct tokenizer_specials specials = tokenizer_specials(tokenizer);
    if (inside->failed)
        return out_of_memory(error);
    peridot_result result = put(list, specials.start_of_turn, error);
    if (!result)
        result = tokenizer_encode(tokenizer, inside->bytes, inside->length, TOKENIZER_PLAIN, list,
                                  error);
    if (!result && closed)
        result = put(list, specials.end_of_turn, error);
    if (!result && closed)
        result = tokenizer_encode(tokenizer, "\n", 1, TOKENIZER_PLAIN, list, error);
    return result;
}

static peridot_result put_header(const struct tokenizer *tokenizer, struct token_list *list,
                                 peridot_error *error) {
    struct text header = {.bytes = "model\n", .length = 6};
    return put_turn(tokenizer, &header, false, list, error);
}

static peridot_result check_tokenizer(const struct tokenizer *tokenizer, peridot_error *error) {
    struct tokenizer_specials specials = tokenizer_specials(tokenizer);
    if (specials.bos < 0 || specials.start_of_turn < 0 || specials.end_of_turn < 0)
        return fail(error, PERIDOT_ERROR_UNSUPPORTED,
                    "the model's tokenizer has no turn markers: it is no chat model; use generate "
                    "without --chat");
    return PERIDOT_OK;
}

static bool is_role(const struct chat_message *message, const char *role) {
    return strcmp(message->role, role) == 0 ||
           (strcmp(role, "model") == 0 && strcmp(message->role, "assistant") == 0);
}

static void append_stripped(struct text *text, const struct chat_message *message) {
    const char *content = message->content;
    size_t length = message->length;
    strip(&content, &length);
    append(text, content, length);
}

/* One turn; `system` many messages before it go into the first. */
static peridot_result render_turn(const struct tokenizer *tokenizer,
                                  const struct chat_message *messages, size_t index, size_t system,
                                  struct token_list *list, peridot_error *error) {
    bool user = (index - system) % 2 == 0;
    const struct chat_message *message = &messages[index];
    if (!is_role(message, user ? "user" : "model"))
        return fail(
            error, PERIDOT_ERROR_ARGUMENT,
            "message %zu has the role \"%.20s\": after system messages, user and model must "
            "alternate, user first",
            index, message->role);
    struct text inside = {0};
    append(&inside, user ? "user\n" : "model\n", user ? 5 : 6);
    for (size_t i = 0; i < system && index == system; i++) {
        append_stripped(&inside, &messages[i]);
        append(&inside, "\n\n", 2);
    }
    append_stripped(&inside, message);
    peridot_result result = put_turn(tokenizer, &inside, true, list, error);
    free(inside.bytes);
    return result;
}

peridot_result chat_template_render(const struct tokenizer *tokenizer,
                                    const struct chat_message *messages, size_t count,
                                    struct token_list *list, peridot_error *error) {
    peridot_result result = check_tokenizer(tokenizer, error);
    size_t system = 0;
    while (system < count && is_role(&messages[system], "system"))
        system++;
    if (!result && (system == count || (count - system) % 2 == 0))
        result = fail(error, PERIDOT_ERROR_ARGUMENT,
                      "a conversation must end with a user's message for the model to answer");
    if (!result)
        result = put(list, tokenizer_specials(tokenizer).bos, error);
    for (size_t i = system; i < count && !result; i++)
        result = render_turn(tokenizer, messages, i, system, list, error);
    return result ? result : put_header(tokenizer, list, error);
}

peridot_result chat_template_next_turn(const struct tokenizer *tokenizer, const char *content,
                                       size_t length, struct token_list *list,
                                       peridot_error *error) {
    peridot_result result = check_tokenizer(tokenizer, error);
    if (!result)
        result = tokenizer_encode(tokenizer, "\n", 1, TOKENIZER_PLAIN, list, error);
    struct chat_message message = {"user", content, length};
    if (!result)
        result = render_turn(tokenizer, &message, 0, 0, list, error);
    return result ? result : put_header(tokenizer, list, error);
}
