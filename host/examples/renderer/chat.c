/* A conversation with a model whose work is done a slice a frame. */
#include "chat.h"

#include <stb/stb_ds.h>
#include <stdlib.h>
#include <string.h>

enum { ANSWER_MAX = 256 }; /* tokens */

static void note(struct chat *chat, peridot_result result) {
    if (result < 0) {
        chat->failed = true;
        chat->answering = false;
    }
}

static void must(peridot_result result, const peridot_error *error) {
    if (result)
        give_up("%s", error->message);
}

void chat_open(struct chat *chat, struct gpu *gpu, const struct options *options) {
    *chat = (struct chat){.mode = options->mode,
                          .budget_ms = options->mode == MODE_OWN ? 0 : options->budget_ms,
                          .on = true,
                          .status = {.struct_size = sizeof chat->status}};
    peridot_adoption adoption = gpu_adoption(gpu);
    /* what is submitted at once where Peridot decides, since frames may have to wait for it */
    peridot_session_params params = {.struct_size = sizeof params, .submission_ms = 50};
    must(peridot_device_adopt(&adoption, NULL, &chat->device, &chat->error), &chat->error);
    must(peridot_model_load_wait(chat->device, options->model, NULL, &chat->model, &chat->error),
         &chat->error);
    must(peridot_session_create(chat->model, &params, &chat->session, &chat->error), &chat->error);
}

static void forget_oldest(struct chat *chat) {
    arrfree(chat->turns[0].question);
    arrfree(chat->turns[0].answer);
    arrdel(chat->turns, 0);
}

void chat_close(struct chat *chat) {
    peridot_session_close_wait(chat->session);
    peridot_model_close(chat->model);
    peridot_device_close(chat->device);
    while (arrlen(chat->turns))
        forget_oldest(chat);
    arrfree(chat->turns);
}

/* ---- Asking ---- */

static bool add_token(const peridot_token *token, void *user) {
    struct chat *chat = user;
    struct turn *turn = &arrlast(chat->turns);
    const char *bytes;
    size_t length;
    chat->tokens++;
    if (!token->stop &&
        !peridot_token_bytes(chat->model, token->token, &bytes, &length, &chat->error))
        memcpy(arraddnptr(turn->answer, length), bytes, length);
    return true;
}

/* All turns in the model's template; the count, and the tokens where `tokens` is not NULL. */
static size_t render(struct chat *chat, int32_t *tokens, size_t capacity) {
    peridot_message *messages = NULL; /* stb_ds array */
    for (int i = 0; i < arrlen(chat->turns); i++) {
        const struct turn *turn = &chat->turns[i];
        peridot_message question = {"user", turn->question, arrlenu(turn->question)};
        peridot_message answer = {"model", turn->answer, arrlenu(turn->answer)};
        arrput(messages, question);
        if (i + 1 < arrlen(chat->turns))
            arrput(messages, answer);
    }
    size_t count = 0;
    note(chat, peridot_chat_tokens(chat->model, messages, arrlenu(messages), tokens, capacity,
                                   &count, &chat->error));
    arrfree(messages);
    return count;
}

/* What the session does not hold yet is its work. */
static void start(struct chat *chat, const int32_t *tokens, size_t count) {
    const int32_t *held = peridot_session_tokens(chat->session);
    uint32_t length = peridot_session_length(chat->session), same = 0;
    while (same < length && same + 1 < count && held[same] == tokens[same])
        same++;
    peridot_work work = {.struct_size = sizeof work,
                         .tokens = tokens + same,
                         .token_count = count - same,
                         .generate = ANSWER_MAX,
                         .on_token = add_token,
                         .user = chat};
    note(chat, peridot_session_truncate(chat->session, same, &chat->error));
    if (!chat->failed)
        note(chat, peridot_session_start(chat->session, &work, &chat->error));
}

void chat_ask(struct chat *chat, const char *question) {
    if (!chat->session || chat->answering || chat->failed || !*question)
        return;
    struct turn turn = {NULL, NULL};
    arrsetcap(turn.answer, 1); /* empty is not NULL */
    memcpy(arraddnptr(turn.question, strlen(question)), question, strlen(question));
    arrput(chat->turns, turn);
    chat->answering = true;
    uint32_t room = peridot_session_context(chat->session) - ANSWER_MAX;
    size_t count = render(chat, NULL, 0);
    while (count > room && arrlen(chat->turns) > 1 && !chat->failed) {
        forget_oldest(chat);
        count = render(chat, NULL, 0);
    }
    int32_t *tokens = calloc(count + 1, sizeof *tokens);
    if (!tokens)
        give_up("out of memory for a question");
    if (!chat->failed && render(chat, tokens, count) == count)
        start(chat, tokens, count);
    free(tokens);
}

/* ---- A frame ---- */

void chat_poll(struct chat *chat) {
    if (!chat->answering)
        return;
    note(chat, peridot_session_poll(chat->session, &chat->status, &chat->error));
    if (chat->answering && !chat->status.active) {
        chat->answering = false;
        chat->answers++;
    }
}

void chat_record(struct chat *chat, const struct frames *frames, VkCommandBuffer commands) {
    if (!chat->answering || !chat->on || chat->mode != MODE_RECORDED)
        return;
    peridot_recording recording = {.struct_size = sizeof recording,
                                   .commands = commands,
                                   .budget_ms = chat->budget_ms,
                                   .timeline = frames->timeline,
                                   .value = frames->number};
    peridot_result result = peridot_session_record(chat->session, &recording, NULL, &chat->error);
    chat->slices += result == PERIDOT_OK;
    note(chat, result);
}

void chat_submit(struct chat *chat, const struct frames *frames) {
    if (!chat->answering || !chat->on || chat->mode == MODE_RECORDED)
        return;
    /* the time between this frame and the next one is the model's */
    VkSemaphoreSubmitInfo drawn = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_SUBMIT_INFO,
                                   .semaphore = frames->timeline,
                                   .value = frames->number,
                                   .stageMask = VK_PIPELINE_STAGE_2_ALL_COMMANDS_BIT};
    peridot_advance advance = {.struct_size = sizeof advance,
                               .budget_ms = chat->budget_ms,
                               .waits = &drawn,
                               .wait_count = chat->mode == MODE_BUDGETED ? 1 : 0};
    peridot_result result;
    do {
        result = peridot_session_advance(chat->session, &advance, NULL, &chat->error);
        chat->slices += result == PERIDOT_OK;
    } while (result == PERIDOT_OK && chat->mode == MODE_OWN);
    note(chat, result);
}
