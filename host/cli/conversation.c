#include "conversation.h"
#include "error.h"
#include "model.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

static char *copy(const char *text, size_t length) {
    char *own = malloc(length + 1);
    if (own) {
        memcpy(own, text, length);
        own[length] = '\0';
    }
    return own;
}

static void free_turn(struct turn *turn) {
    free(turn->user);
    free(turn->answer);
    *turn = (struct turn){0};
}

static void drop_last(struct conversation *c) {
    free_turn(&c->turns[--c->count]);
}

void conversation_reset(struct conversation *c) {
    while (c->count)
        drop_last(c);
    (void)peridot_session_truncate(c->session, 0, NULL);
}

void conversation_free(struct conversation *c) {
    while (c->count)
        drop_last(c);
    free(c->turns);
    free(c->system);
}

static peridot_result add_turn(struct conversation *c, const char *text, peridot_error *error) {
    if (c->count == c->capacity) {
        size_t capacity = c->capacity ? 2 * c->capacity : 16;
        struct turn *turns = realloc(c->turns, capacity * sizeof *turns);
        if (!turns)
            return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory for another turn");
        c->turns = turns;
        c->capacity = capacity;
    }
    char *own = copy(text, strlen(text));
    if (!own)
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory for another turn");
    c->turns[c->count++] = (struct turn){.user = own};
    return PERIDOT_OK;
}

/* Ids of turns first to last, the first with <bos> and the system text. */
static peridot_result render(struct conversation *c, size_t first, struct token_list *list,
                             peridot_error *error) {
    struct chat_message *messages = calloc(2 * c->count + 1, sizeof *messages);
    if (!messages)
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory for the conversation");
    size_t count = 0;
    if (c->system)
        messages[count++] = (struct chat_message){"system", c->system, strlen(c->system)};
    for (size_t i = first; i < c->count; i++) {
        const struct turn *turn = &c->turns[i];
        messages[count++] = (struct chat_message){"user", turn->user, strlen(turn->user)};
        if (turn->answer)
            messages[count++] = (struct chat_message){"model", turn->answer, strlen(turn->answer)};
    }
    peridot_result result = chat_template_render(c->model->tokenizer, messages, count, list, error);
    free(messages);
    return result;
}

/* An answer in the cache ends as the template has it: with <end_of_turn>, and nothing else. */
static peridot_result close_answer(struct conversation *c, struct token_list *list,
                                   peridot_error *error) {
    uint32_t length = peridot_session_length(c->session);
    const int32_t *held = peridot_session_tokens(c->session);
    struct tokenizer_specials specials = tokenizer_specials(c->model->tokenizer);
    peridot_result result = PERIDOT_OK;
    if (held[length - 1] == specials.end_of_turn)
        return result;
    if (held[length - 1] == specials.eos)
        result = peridot_session_truncate(c->session, length - 1, error);
    if (!result && !token_list_add(list, specials.end_of_turn))
        result = fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory for another turn");
    return result;
}

/* All turns from `first` on, into an empty session. */
static peridot_result run_again(struct conversation *c, size_t first, peridot_error *error) {
    struct token_list list = {0};
    peridot_result result = render(c, first, &list, error);
    if (!result)
        result = peridot_session_truncate(c->session, 0, error);
    if (!result)
        result = peridot_session_prompt_wait(c->session, list.ids, list.count, NULL, error);
    token_list_free(&list);
    if (result)
        return result;
    for (size_t i = 0; i < first; i++)
        free_turn(&c->turns[i]);
    memmove(c->turns, c->turns + first, (c->count - first) * sizeof *c->turns);
    c->count -= first;
    /* earlier turns can no longer be told apart in the cache: undoing one runs the rest again */
    for (size_t i = 0; i < c->count; i++)
        c->turns[i].begin = c->turns[i].answer_begin = UINT32_MAX;
    c->turns[c->count - 1].answer_begin = peridot_session_length(c->session);
    return PERIDOT_OK;
}

/* The fewest turns to drop so that a quarter of the context is free for what comes. */
static peridot_result drop_oldest(struct conversation *c, size_t *dropped, peridot_error *error) {
    peridot_result result = PERIDOT_OK;
    for (size_t first = 1; first <= c->count; first++) {
        struct token_list list = {0};
        size_t from = first < c->count ? first : c->count - 1;
        result = render(c, from, &list, error);
        bool fits = list.count <= peridot_session_context(c->session) / 4 * 3;
        token_list_free(&list);
        if (result || fits || from == c->count - 1) {
            *dropped = from;
            return result ? result : run_again(c, from, error);
        }
    }
    return result;
}

peridot_result conversation_ask(struct conversation *c, const char *text, size_t *dropped,
                                peridot_error *error) {
    *dropped = 0;
    struct token_list list = {0};
    uint32_t begin = peridot_session_length(c->session);
    peridot_result result = add_turn(c, text, error);
    if (result)
        return result;
    bool first = begin == 0;
    if (first)
        result = render(c, 0, &list, error);
    else
        result = close_answer(c, &list, error);
    if (!result && !first)
        result = chat_template_next_turn(c->model->tokenizer, text, strlen(text), &list, error);
    uint32_t length = peridot_session_length(c->session);
    uint32_t spare = peridot_session_context(c->session) / 16; /* for an answer */
    if (!result && length + list.count + spare > peridot_session_context(c->session) &&
        c->count > 1)
        result = drop_oldest(c, dropped, error);
    else if (!result)
        result = peridot_session_prompt_wait(c->session, list.ids, list.count, NULL, error);
    token_list_free(&list);
    if (result) {
        drop_last(c);
        return result;
    }
    if (!*dropped) {
        c->turns[c->count - 1].begin = begin;
        c->turns[c->count - 1].answer_begin = peridot_session_length(c->session);
    }
    return PERIDOT_OK;
}

bool conversation_answered(struct conversation *c, const char *text, size_t length) {
    struct turn *turn = &c->turns[c->count - 1];
    free(turn->answer);
    turn->answer = copy(text, length);
    return turn->answer != NULL;
}

bool conversation_forget_answer(struct conversation *c) {
    if (c->count == 0 || !c->turns[c->count - 1].answer)
        return false;
    struct turn *turn = &c->turns[c->count - 1];
    free(turn->answer);
    turn->answer = NULL;
    return turn->answer_begin <= peridot_session_length(c->session) &&
           peridot_session_truncate(c->session, turn->answer_begin, NULL) == PERIDOT_OK;
}

bool conversation_undo(struct conversation *c) {
    if (c->count == 0)
        return false;
    uint32_t begin = c->turns[c->count - 1].begin;
    drop_last(c);
    if (begin <= peridot_session_length(c->session))
        return peridot_session_truncate(c->session, begin, NULL) == PERIDOT_OK;
    (void)peridot_session_truncate(c->session, 0,
                                   NULL); /* the next question runs all turns again */
    return true;
}

peridot_result conversation_set_system(struct conversation *c, const char *text,
                                       peridot_error *error) {
    free(c->system);
    c->system = *text ? copy(text, strlen(text)) : NULL;
    return peridot_session_truncate(c->session, 0, error);
}

/* ---- Saving ---- */

peridot_result conversation_save(struct conversation *c, const char *path, peridot_error *error) {
    cJSON *json = cJSON_CreateObject();
    if (c->system)
        cJSON_AddStringToObject(json, "system", c->system);
    cJSON *turns = cJSON_AddArrayToObject(json, "turns");
    for (size_t i = 0; i < c->count; i++) {
        cJSON *turn = cJSON_CreateObject();
        cJSON_AddStringToObject(turn, "user", c->turns[i].user);
        cJSON_AddStringToObject(turn, "answer", c->turns[i].answer ? c->turns[i].answer : "");
        cJSON_AddNumberToObject(turn, "begin", c->turns[i].begin);
        cJSON_AddNumberToObject(turn, "answer_begin", c->turns[i].answer_begin);
        cJSON_AddItemToArray(turns, turn);
    }
    char *text = cJSON_PrintUnformatted(json);
    cJSON_Delete(json);
    if (!text)
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory while saving %s", path);
    peridot_result result = peridot_session_save_wait(c->session, path, text, strlen(text), error);
    cJSON_free(text);
    return result;
}

static const char *string_of(const cJSON *object, const char *name) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);
    return cJSON_IsString(item) ? item->valuestring : "";
}

static uint32_t number_of(const cJSON *object, const char *name) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);
    bool good = cJSON_IsNumber(item) && item->valuedouble >= 0 && item->valuedouble <= 32768;
    return good ? (uint32_t)item->valuedouble : UINT32_MAX;
}

static peridot_result take_turns(struct conversation *c, const cJSON *json, peridot_error *error) {
    const cJSON *turns = cJSON_GetObjectItemCaseSensitive(json, "turns");
    for (const cJSON *item = turns ? turns->child : NULL; item; item = item->next) {
        const char *answer = string_of(item, "answer");
        peridot_result result = add_turn(c, string_of(item, "user"), error);
        if (!result && !conversation_answered(c, answer, strlen(answer)))
            result = fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory while loading");
        if (result)
            return result;
        c->turns[c->count - 1].begin = number_of(item, "begin");
        c->turns[c->count - 1].answer_begin = number_of(item, "answer_begin");
    }
    return PERIDOT_OK;
}

peridot_result conversation_load(struct conversation *c, const char *path, peridot_error *error) {
    void *extra = NULL;
    size_t size = 0;
    peridot_result result = peridot_session_load_wait(c->session, path, &extra, &size, error);
    if (result)
        return result;
    cJSON *json = cJSON_ParseWithLength(extra, size);
    while (c->count)
        drop_last(c);
    free(c->system);
    const char *system = string_of(json, "system");
    c->system = *system ? copy(system, strlen(system)) : NULL;
    result = take_turns(c, json, error);
    cJSON_Delete(json);
    peridot_free(extra);
    return result;
}
