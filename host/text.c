/* The public face of text: tokens, their bytes, the chat template. */
#include "chat_template.h"
#include "session.h"

#include <stdlib.h>
#include <string.h>

static peridot_result need_tokenizer(const peridot_model *model, peridot_error *error) {
    if (model->tokenizer)
        return PERIDOT_OK;
    return fail(error, PERIDOT_ERROR_UNSUPPORTED,
                "the model has no tokenizer: put its tokenizer.model beside config.json");
}

/* Gives the list's ids to the caller and frees it. */
static void hand_out(struct token_list *list, int32_t *tokens, size_t capacity, size_t *count) {
    *count = list->count;
    size_t copied = list->count < capacity ? list->count : capacity;
    if (copied)
        memcpy(tokens, list->ids, copied * sizeof *tokens);
    token_list_free(list);
}

peridot_result peridot_tokenize(const peridot_model *model, const char *text, size_t length,
                                bool special, int32_t *tokens, size_t capacity, size_t *count,
                                peridot_error *error) {
    struct token_list list = {0};
    if (!model || (!text && length) || (!tokens && capacity) || !count)
        return fail(error, PERIDOT_ERROR_ARGUMENT,
                    "peridot_tokenize needs a model, a text and places for tokens and their count");
    *count = 0;
    peridot_result result = need_tokenizer(model, error);
    if (!result)
        result = tokenizer_encode(model->tokenizer, text, length,
                                  special ? TOKENIZER_SPECIAL : TOKENIZER_PLAIN, &list, error);
    hand_out(&list, tokens, capacity, count);
    return result;
}

peridot_result peridot_token_bytes(const peridot_model *model, int32_t token, const char **bytes,
                                   size_t *length, peridot_error *error) {
    if (!model || !bytes || !length)
        return fail(error, PERIDOT_ERROR_ARGUMENT,
                    "peridot_token_bytes needs a model and places for bytes and length");
    *bytes = "";
    *length = 0;
    peridot_result result = need_tokenizer(model, error);
    if (!result && (token < 0 || (uint32_t)token >= model->config.vocabulary))
        result = fail(error, PERIDOT_ERROR_ARGUMENT, "token %d is out of range", token);
    /* a vocabulary may be padded beyond the tokenizer's pieces: such tokens have no text */
    if (!result && !tokenizer_piece(model->tokenizer, token, bytes, length))
        *length = 0;
    return result;
}

static peridot_result check_messages(const peridot_message *messages, size_t count,
                                     peridot_error *error) {
    for (size_t i = 0; i < count; i++)
        if (!messages[i].role || (!messages[i].content && messages[i].length))
            return fail(error, PERIDOT_ERROR_ARGUMENT, "message %zu has no role or no content", i);
    return PERIDOT_OK;
}

/* A conversation in the template, to the end of a list. */
static peridot_result render(const peridot_model *model, const peridot_message *messages,
                             size_t message_count, struct token_list *list, peridot_error *error) {
    peridot_result result = need_tokenizer(model, error);
    if (!result)
        result = check_messages(messages, message_count, error);
    if (result)
        return result;
    struct chat_message *own = calloc(message_count ? message_count : 1, sizeof *own);
    if (!own)
        return fail(error, PERIDOT_ERROR_HOST_MEMORY,
                    "out of memory while writing the conversation");
    for (size_t i = 0; i < message_count; i++)
        own[i] = (struct chat_message){messages[i].role, messages[i].content, messages[i].length};
    result = chat_template_render(model->tokenizer, own, message_count, list, error);
    free(own);
    return result;
}

peridot_result peridot_chat_tokens(const peridot_model *model, const peridot_message *messages,
                                   size_t message_count, int32_t *tokens, size_t capacity,
                                   size_t *count, peridot_error *error) {
    struct token_list list = {0};
    if (!model || (!messages && message_count) || (!tokens && capacity) || !count)
        return fail(error, PERIDOT_ERROR_ARGUMENT,
                    "peridot_chat_tokens needs a model, messages and places for tokens and their "
                    "count");
    *count = 0;
    peridot_result result = render(model, messages, message_count, &list, error);
    hand_out(&list, tokens, capacity, count);
    return result;
}

/* Tokens of a conversation that the session holds, but for the last one, whose logits it needs. */
static uint32_t in_common(const struct peridot_session *session, const struct token_list *list) {
    uint32_t same = 0;
    while (same < session->length && same + 1 < list->count &&
           session->held[same] == list->ids[same])
        same++;
    return same;
}

peridot_result peridot_session_chat(peridot_session *session, const peridot_message *messages,
                                    size_t message_count, int32_t *tokens, size_t capacity,
                                    size_t *count, peridot_error *error) {
    struct token_list list = {0};
    if (!session || (!messages && message_count) || (!tokens && capacity) || !count)
        return fail(error, PERIDOT_ERROR_ARGUMENT,
                    "peridot_session_chat needs a session, messages and places for tokens and "
                    "their count");
    *count = 0;
    peridot_result result = session_check_idle(session, error);
    if (!result)
        result = render(session->model, messages, message_count, &list, error);
    if (!result && list.count > session->context)
        result = fail(error, PERIDOT_ERROR_CONTEXT_FULL,
                      "the conversation has %zu tokens and the context %u: leave out its oldest "
                      "turns",
                      list.count, session->context);
    uint32_t same = result ? 0 : in_common(session, &list);
    if (!result && list.count - same <= capacity) {
        result = peridot_session_truncate(session, same, error);
        memcpy(tokens, list.ids + same, (list.count - same) * sizeof *tokens);
    }
    if (!result)
        *count = list.count - same;
    token_list_free(&list);
    return result;
}
