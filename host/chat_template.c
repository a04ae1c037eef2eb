#include "chat_template.h"

#include <stdlib.h>
#include <string.h>

/* Length of the white space character that begins a text, 0: none does. These are the characters
 * that Python's str.strip removes. */
static size_t white_space(const char *text, size_t length) {
    static const char *const wide[] = {"\xc2\x85",     "\xc2\xa0",     "\xe1\x9a\x80",
                                       "\xe2\x80\xa8", "\xe2\x80\xa9", "\xe2\x80\xaf",
                                       "\xe2\x81\x9f", "\xe3\x80\x80"};
    unsigned char first = length ? (unsigned char)text[0] : 0;
    if ((first >= 0x09 && first <= 0x0d) || (first >= 0x1c && first <= 0x20))
        return 1;
    if (length >= 3 && memcmp(text, "\xe2\x80", 2) == 0 && (unsigned char)text[2] >= 0x80 &&
        (unsigned char)text[2] <= 0x8a) /* U+2000 to U+200A */
        return 3;
    for (size_t i = 0; i < sizeof wide / sizeof *wide; i++)
        if (length >= strlen(wide[i]) && memcmp(text, wide[i], strlen(wide[i])) == 0)
            return strlen(wide[i]);
    return 0;
}

static size_t white_space_at_end(const char *text, size_t length) {
    for (size_t size = 1; size <= 3 && size <= length; size++)
        if (white_space(text + length - size, size) == size)
            return size;
    return 0;
}

static void strip(const char **text, size_t *length) {
    for (size_t size; (size = white_space(*text, *length)) > 0; *length -= size)
        *text += size;
    for (size_t size; (size = white_space_at_end(*text, *length)) > 0;)
        *length -= size;
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

/* System messages at the beginning, then user and model in turn, a user's message last. */
static peridot_result check_roles(const struct chat_message *messages, size_t count, size_t system,
                                  peridot_error *error) {
    for (size_t i = 0; i < count; i++)
        if (!is_role(&messages[i], "user") && !is_role(&messages[i], "model") &&
            !is_role(&messages[i], "system"))
            return fail(error, PERIDOT_ERROR_ARGUMENT,
                        "message %zu has the role \"%.20s\"; there are user, model (or assistant) "
                        "and system",
                        i, messages[i].role);
    if (system == count || !is_role(&messages[system], "user") ||
        !is_role(&messages[count - 1], "user"))
        return fail(error, PERIDOT_ERROR_ARGUMENT,
                    "after system messages, a conversation must begin and end with a user's "
                    "message, for the model to answer");
    for (size_t i = system; i < count; i++)
        if (!is_role(&messages[i], (i - system) % 2 ? "model" : "user"))
            return fail(error, PERIDOT_ERROR_ARGUMENT,
                        "message %zu has the role \"%.20s\": after system messages, user and model "
                        "must alternate",
                        i, messages[i].role);
    return PERIDOT_OK;
}

/* A content without the white space around it, a blank line before it unless it is the first. */
static void append_content(struct text *text, const struct chat_message *message, bool *first) {
    const char *content = message->content;
    size_t length = message->length;
    strip(&content, &length);
    if (length && !*first)
        append(text, "\n\n", 2);
    *first = *first && length == 0;
    append(text, content, length);
}

/* One turn that holds the contents of `count` messages. */
static peridot_result put_messages(const struct tokenizer *tokenizer, const char *header,
                                   const struct chat_message *messages, size_t count,
                                   struct token_list *list, peridot_error *error) {
    struct text inside = {0};
    bool first = true;
    append(&inside, header, strlen(header));
    for (size_t i = 0; i < count; i++)
        append_content(&inside, &messages[i], &first);
    peridot_result result = put_turn(tokenizer, &inside, true, list, error);
    free(inside.bytes);
    return result;
}

peridot_result chat_template_render(const struct tokenizer *tokenizer,
                                    const struct chat_message *messages, size_t count,
                                    struct token_list *list, peridot_error *error) {
    size_t system = 0, kept = list->count;
    while (system < count && is_role(&messages[system], "system"))
        system++;
    peridot_result result = check_tokenizer(tokenizer, error);
    if (!result)
        result = check_roles(messages, count, system, error);
    if (!result)
        result = put(list, tokenizer_specials(tokenizer).bos, error);
    if (!result)
        result = put_messages(tokenizer, "user\n", messages, system + 1, list, error);
    for (size_t i = system + 1; i < count && !result; i++)
        result = put_messages(tokenizer, (i - system) % 2 ? "model\n" : "user\n", &messages[i], 1,
                              list, error);
    if (!result)
        result = put_header(tokenizer, list, error);
    if (result)
        list->count = kept;
    return result;
}

peridot_result chat_template_next_turn(const struct tokenizer *tokenizer, const char *content,
                                       size_t length, struct token_list *list,
                                       peridot_error *error) {
    size_t kept = list->count;
    struct chat_message message = {"user", content, length};
    peridot_result result = check_tokenizer(tokenizer, error);
    if (!result)
        result = tokenizer_encode(tokenizer, "\n", 1, TOKENIZER_PLAIN, list, error);
    if (!result)
        result = put_messages(tokenizer, "user\n", &message, 1, list, error);
    if (!result)
        result = put_header(tokenizer, list, error);
    if (result)
        list->count = kept;
    return result;
}
