/* A conversation with a model that is loaded, and whose work is done, a piece a frame. */
#include "chat.h"

#include <math.h>
#include <stb/stb_ds.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ANSWER_MAX = 256 }; /* tokens */

static void note(struct chat *chat, peridot_result result) {
    if (result < 0) {
        chat->failed = true;
        chat->answering = false;
    }
}

void chat_open(struct chat *chat, struct gpu *gpu, const struct options *options) {
    *chat = (struct chat){.mode = options->mode,
                          .loading_ms = options->budget_ms,
                          .budget_ms = options->mode == MODE_OWN ? 0 : options->budget_ms,
                          .on = true,
                          .progress = {.struct_size = sizeof chat->progress, .stage = "reading"},
                          .status = {.struct_size = sizeof chat->status}};
    /* what is submitted at once where Peridot decides, since frames may have to wait for it */
    chat->params =
        (peridot_session_params){.struct_size = sizeof chat->params, .submission_ms = 50};
    peridot_model_params params = {.struct_size = sizeof params,
                                   .session = &chat->params,
                                   .compile_pipelines = true}; /* not in one frame, at the end */
    peridot_device_params guest = {.struct_size = sizeof guest,
                                   .priority = PERIDOT_PRIORITY_LOW}; /* the scene comes first */
    peridot_adoption adoption = gpu_adoption(gpu);
    peridot_result result = peridot_device_adopt(&adoption, &guest, &chat->device, &chat->error);
    if (result == PERIDOT_OK)
        result = peridot_model_load_begin(chat->device, options->model, &params, &chat->loading,
                                          &chat->error);
    note(chat, result);
}

static void forget_oldest(struct chat *chat) {
    arrfree(chat->turns[0].question);
    arrfree(chat->turns[0].answer);
    arrdel(chat->turns, 0);
}

void chat_print(const struct turn *turn) {
    printf("> ");
    fwrite(turn->question, 1, arrlenu(turn->question), stdout);
    putchar('\n');
    fwrite(turn->answer, 1, arrlenu(turn->answer), stdout);
    putchar('\n');
}

/* Half of what there is, so that the rest is not read anew with each question. */
static void forget_half(struct chat *chat) {
    for (ptrdiff_t count = arrlen(chat->turns) / 2; count; count--) {
        chat_print(&chat->turns[0]);
        forget_oldest(chat);
    }
}

void chat_close(struct chat *chat) {
    const struct timespec moment = {.tv_nsec = 1000000};
    while (peridot_loading_cancel(chat->loading) == PERIDOT_NOT_READY)
        thrd_sleep(&moment, NULL);
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

/* What the session does not hold yet of all turns. */
static peridot_result read_turns(struct chat *chat, int32_t *tokens, size_t capacity,
                                 size_t *count) {
    peridot_message *messages = NULL; /* stb_ds array */
    for (int i = 0; i < arrlen(chat->turns); i++) {
        const struct turn *turn = &chat->turns[i];
        peridot_message question = {"user", turn->question, arrlenu(turn->question)};
        peridot_message answer = {"model", turn->answer, arrlenu(turn->answer)};
        arrput(messages, question);
        if (i + 1 < arrlen(chat->turns))
            arrput(messages, answer);
    }
    peridot_result result = peridot_session_chat(chat->session, messages, arrlenu(messages), tokens,
                                                 capacity, count, &chat->error);
    arrfree(messages);
    return result;
}

/* The last turn's question; of the turns before it the older make room for its answer. */
static void answer(struct chat *chat) {
    size_t context = peridot_session_context(chat->session);
    int32_t *tokens = calloc(context, sizeof *tokens);
    peridot_work work = {.struct_size = sizeof work,
                         .tokens = tokens,
                         .generate = ANSWER_MAX,
                         .on_token = add_token,
                         .user = chat};
    if (!tokens)
        give_up("out of memory for a question");
    peridot_result result = read_turns(chat, tokens, context, &work.token_count);
    while (arrlen(chat->turns) > 1 &&
           (result == PERIDOT_ERROR_CONTEXT_FULL ||
            (result == PERIDOT_OK &&
             peridot_session_length(chat->session) + work.token_count + ANSWER_MAX > context))) {
        forget_half(chat);
        result = read_turns(chat, tokens, context, &work.token_count);
    }
    if (result == PERIDOT_OK)
        result = peridot_session_start(chat->session, &work, &chat->error);
    chat->prompt_slices = chat->slices;
    chat->prompt_done = 0;
    note(chat, result);
    free(tokens);
}

void chat_ask(struct chat *chat, const char *question) {
    if (chat->answering || chat->failed || !*question)
        return;
    struct turn turn = {NULL, NULL};
    arrsetcap(turn.answer, 1); /* empty is not NULL */
    memcpy(arraddnptr(turn.question, strlen(question)), question, strlen(question));
    arrput(chat->turns, turn);
    chat->answering = true;
    if (chat->session)
        answer(chat);
}

/* ---- Loading ---- */

/* The model is there; what was asked meanwhile is answered. */
static void finish_loading(struct chat *chat) {
    note(chat, peridot_loading_finish(chat->loading, &chat->model, &chat->error));
    if (chat->failed)
        return;
    chat->loading = NULL;
    note(chat, peridot_session_create(chat->model, &chat->params, &chat->session, &chat->error));
    if (chat->answering)
        answer(chat);
}

void chat_load(struct chat *chat) {
    if (!chat->loading || !chat->on)
        return;
    if (chat->failed) {
        if (peridot_loading_cancel(chat->loading) == PERIDOT_OK)
            chat->loading = NULL;
        return;
    }
    peridot_result result =
        peridot_loading_advance(chat->loading, chat->loading_ms, &chat->progress, &chat->error);
    if (result == PERIDOT_OK)
        finish_loading(chat);
    else
        note(chat, result);
}

void chat_describe_loading(const struct chat *chat, char *out, size_t size) {
    const peridot_loading_status *progress = &chat->progress;
    if (progress->all)
        snprintf(out, size, "Loading the model: %s, %.0f %%", progress->stage,
                 floor(100 * (double)progress->done / (double)progress->all));
    else
        snprintf(out, size, "Loading the model: %s", progress->stage);
}

/* ---- A frame ---- */

/* There is work to give to the device. */
static bool can_work(const struct chat *chat) {
    return chat->on && chat->session && chat->answering;
}

enum frame_kind chat_work(const struct chat *chat) {
    if (chat->failed)
        return FRAME_ALONE;
    if (can_work(chat) || chat->status.slices_in_flight) /* which the switch does not stop */
        return FRAME_WITH_MODEL;
    return chat->on && chat->loading ? FRAME_LOADING : FRAME_ALONE;
}

/* Before the first token: slices that were given out, of those and what is left until it. */
static void look_ahead(struct chat *chat) {
    peridot_slice_plan plan = {.struct_size = sizeof plan};
    note(chat, peridot_session_plan(chat->session, chat->budget_ms, &plan, &chat->error));
    uint32_t given = chat->slices - chat->prompt_slices, all = given + plan.slices;
    if (all)
        chat->prompt_done = fmaxf(chat->prompt_done, (float)given / (float)all);
}

void chat_poll(struct chat *chat) {
    if (!chat->session || !chat->answering)
        return;
    note(chat, peridot_session_poll(chat->session, &chat->status, &chat->error));
    if (chat->status.active && !chat->status.generated)
        look_ahead(chat);
    if (chat->answering && !chat->status.active) {
        chat->answering = false;
        chat->answers++;
    }
}

/* How giving out a slice went; until the next poll it is one more in flight. */
static void count_slice(struct chat *chat, peridot_result result) {
    chat->slices += result == PERIDOT_OK;
    chat->status.slices_in_flight += result == PERIDOT_OK;
    note(chat, result);
}

void chat_record(struct chat *chat, const struct frames *frames, VkCommandBuffer commands) {
    if (!can_work(chat) || chat->mode != MODE_RECORDED)
        return;
    peridot_recording recording = {.struct_size = sizeof recording,
                                   .commands = commands,
                                   .budget_ms = chat->budget_ms,
                                   .timeline = frames->timeline,
                                   .value = frames->number};
    count_slice(chat, peridot_session_record(chat->session, &recording, NULL, &chat->error));
}

void chat_submit(struct chat *chat, const struct frames *frames) {
    if (!can_work(chat) || chat->mode == MODE_RECORDED)
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
        count_slice(chat, result);
    } while (result == PERIDOT_OK && chat->mode == MODE_OWN);
}
