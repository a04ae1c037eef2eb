/* peridot chat: a conversation on a terminal or through a pipe. */
#include "cli.h"
#include "conversation.h"
#include "error.h"
#include "line_input.h"
#include "utf8.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct chat {
    struct options *options;
    struct conversation conversation;
    peridot_grammar *grammar; /* of each answer; NULL: none */
    struct utf8_stream stream;
    char *answer; /* of the turn at hand */
    size_t length, capacity;
    bool colour, terminal, statistics, out_of_memory;
    bool failed; /* something was complained of */
};

static volatile sig_atomic_t interrupted;

static void on_interrupt(int signal) {
    (void)signal;
    interrupted = 1;
}

static void catch_interrupts(void) {
    struct sigaction action = {.sa_handler = on_interrupt};
    sigaction(SIGINT, &action, NULL); /* without SA_RESTART, so that the prompt sees it too */
}

static void notice(const struct chat *chat, const char *text) {
    printf(chat->colour ? "\033[2m%s\033[0m\n" : "%s\n", text);
}

/* ---- An answer ---- */

static bool append(struct chat *chat, const char *bytes, size_t length) {
    if (chat->length + 3 * (length + 4) + 1 > chat->capacity) {
        size_t capacity = 2 * (chat->length + 3 * length) + 256;
        char *grown = realloc(chat->answer, capacity);
        if (!grown)
            return false;
        chat->answer = grown;
        chat->capacity = capacity;
    }
    size_t before = chat->length;
    chat->length += bytes ? utf8_stream_push(&chat->stream, bytes, length, chat->answer + before)
                          : utf8_stream_flush(&chat->stream, chat->answer + before);
    fwrite(chat->answer + before, 1, chat->length - before, stdout);
    fflush(stdout);
    return true;
}

static bool on_token(const peridot_token *token, void *user) {
    struct chat *chat = user;
    const char *bytes;
    size_t length;
    if (token->stop)
        return true;
    if (!peridot_token_bytes(chat->conversation.model, token->token, &bytes, &length, NULL) &&
        !append(chat, bytes, length))
        chat->out_of_memory = true;
    return !interrupted && !chat->out_of_memory && !ferror(stdout);
}

static void show_statistics(const struct chat *chat, const peridot_session_statistics *before) {
    peridot_session_statistics now = {.struct_size = sizeof now};
    char line[256];
    peridot_session_describe(chat->conversation.session, &now);
    double prompt = now.prompt_seconds - before->prompt_seconds;
    double decode = now.decode_seconds - before->decode_seconds;
    unsigned long long in = now.prompt_tokens - before->prompt_tokens;
    unsigned long long out = now.decoded_tokens - before->decoded_tokens;
    snprintf(
        line, sizeof line,
        "[prompt %llu tokens, %.1f tokens/s; answer %llu tokens, %.1f tokens/s; context %u of %u]",
        in, prompt > 0 ? (double)in / prompt : 0.0, out, decode > 0 ? (double)out / decode : 0.0,
        peridot_session_length(chat->conversation.session),
        peridot_session_context(chat->conversation.session));
    notice(chat, line);
}

/* Generates and shows the answer to the last turn. */
static peridot_result answer(struct chat *chat, const peridot_session_statistics *before,
                             peridot_error *error) {
    chat->length = 0;
    chat->stream = (struct utf8_stream){0};
    chat->out_of_memory = false;
    uint32_t count = chat->options->count ? chat->options->count : UINT32_MAX;
    peridot_session *session = chat->conversation.session;
    peridot_result result = PERIDOT_OK;
    if (chat->grammar)
        result = peridot_session_grammar(session, chat->grammar, error);
    if (!result)
        result = peridot_session_generate_wait(session, count, on_token, chat, NULL, error);
    if (!append(chat, NULL, 0))
        chat->out_of_memory = true;
    putchar('\n');
    if (interrupted)
        notice(chat, "[stopped]");
    else if (!result && peridot_session_length(session) == peridot_session_context(session))
        notice(chat, "[the context is full: the answer is cut off here]");
    interrupted = 0;
    if (!conversation_answered(&chat->conversation, chat->answer ? chat->answer : "", chat->length))
        chat->out_of_memory = true;
    if (!result && chat->out_of_memory)
        result = fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory for the answer");
    if (chat->statistics)
        show_statistics(chat, before);
    return result;
}

static peridot_result ask(struct chat *chat, const char *text, peridot_error *error) {
    size_t dropped = 0;
    char line[128];
    peridot_session_statistics before = {.struct_size = sizeof before};
    peridot_session_describe(chat->conversation.session, &before);
    peridot_result result = conversation_ask(&chat->conversation, text, &dropped, error);
    if (result)
        return result;
    if (dropped) {
        snprintf(line, sizeof line, "[the context was full: the oldest %zu turn%s forgotten]",
                 dropped, dropped == 1 ? " is" : "s are");
        notice(chat, line);
    }
    return answer(chat, &before, error);
}

/* ---- Commands ---- */

static void tell(struct chat *chat, const peridot_error *error) {
    chat->failed = true;
    fflush(stdout);
    complain(error);
}

static void command_help(struct chat *chat, const char *rest) {
    (void)chat;
    (void)rest;
    printf("/help              this\n"
           "/reset             forget the conversation\n"
           "/regen             another answer to the last question\n"
           "/undo              forget the last question and its answer\n"
           "/system TEXT       instructions for the model; without TEXT none\n"
           "/set NAME VALUE    temperature, top-k, top-p, min-p, repetition-penalty, seed, count\n"
           "/stats             show or hide tokens per second after each answer\n"
           "/save FILE         keep conversation and KV cache in a file\n"
           "/load FILE         go on where a file left off\n"
           "/quit              leave\n"
           "A line that ends in \\ goes on in the next; \"\"\" on a line of its own begins and "
           "ends a\n"
           "longer text. Ctrl-C stops an answer.\n");
}

static void command_reset(struct chat *chat, const char *rest) {
    (void)rest;
    conversation_reset(&chat->conversation);
    notice(chat, "[forgotten]");
}

static void command_regen(struct chat *chat, const char *rest) {
    (void)rest;
    peridot_error error;
    peridot_session_statistics before = {.struct_size = sizeof before};
    if (!conversation_forget_answer(&chat->conversation)) {
        notice(chat, "[there is no answer to make again]");
        return;
    }
    chat->options->sampling.seed++; /* the same seed would give the same answer */
    chat->options->sampling.struct_size = sizeof chat->options->sampling;
    peridot_session_describe(chat->conversation.session, &before);
    if (peridot_session_sampling(chat->conversation.session, &chat->options->sampling, &error) ||
        answer(chat, &before, &error))
        tell(chat, &error);
}

static void command_undo(struct chat *chat, const char *rest) {
    (void)rest;
    notice(chat, conversation_undo(&chat->conversation) ? "[the last turn is forgotten]"
                                                        : "[there is nothing to undo]");
}

static void command_system(struct chat *chat, const char *rest) {
    peridot_error error;
    if (conversation_set_system(&chat->conversation, rest, &error))
        tell(chat, &error);
    else
        notice(chat, *rest ? "[the model will be told]" : "[no instructions]");
}

static void command_set(struct chat *chat, const char *rest) {
    char name[64] = "--", value[64] = "";
    peridot_error error;
    if (sscanf(rest, "%40s %60s", name + 2, value) != 2) {
        notice(chat, "[/set NAME VALUE: see /help]");
        return;
    }
    struct options changed = *chat->options;
    char *arguments[] = {"peridot", "chat", name, value};
    if (!options_parse(4, arguments, &changed)) {
        chat->failed = true;
        return;
    }
    changed.sampling.struct_size = sizeof changed.sampling;
    if (peridot_session_sampling(chat->conversation.session, &changed.sampling, &error))
        tell(chat, &error);
    else
        *chat->options = changed;
}

static void command_stats(struct chat *chat, const char *rest) {
    (void)rest;
    chat->statistics = !chat->statistics;
    notice(chat, chat->statistics ? "[statistics on]" : "[statistics off]");
}

static void command_save(struct chat *chat, const char *rest) {
    peridot_error error;
    if (!*rest)
        notice(chat, "[/save FILE]");
    else if (check_output(rest, &error) || conversation_save(&chat->conversation, rest, &error))
        tell(chat, &error);
    else
        notice(chat, "[saved]");
}

static void command_load(struct chat *chat, const char *rest) {
    peridot_error error;
    if (!*rest)
        notice(chat, "[/load FILE]");
    else if (conversation_load(&chat->conversation, rest, &error))
        tell(chat, &error);
    else
        notice(chat, "[loaded]");
}

/* False: leave. */
static bool run_command(struct chat *chat, const char *line) {
    static const struct {
        const char *name;
        void (*run)(struct chat *chat, const char *rest);
    } table[] = {
        {"/help", command_help},   {"/reset", command_reset},   {"/regen", command_regen},
        {"/undo", command_undo},   {"/system", command_system}, {"/set", command_set},
        {"/stats", command_stats}, {"/save", command_save},     {"/load", command_load},
    };
    size_t length = strcspn(line, " ");
    const char *rest = line + length + strspn(line + length, " ");
    if (length == 5 && strncmp(line, "/quit", 5) == 0)
        return false;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (strlen(table[i].name) == length && strncmp(line, table[i].name, length) == 0) {
            table[i].run(chat, rest);
            return true;
        }
    notice(chat, "[there is no such command: see /help]");
    return true;
}

/* ---- The loop ---- */

static int talk(struct chat *chat) {
    struct line_input *input = line_input_open(chat->colour);
    peridot_error error;
    bool more = input != NULL;
    if (chat->terminal)
        notice(chat,
               chat->options->model
                   ? "Type a message, or /help."
                   : "This is Peridot's built-in demo model: tiny, and only good for small talk. "
                     "Type a message, or /help.");
    while (more) {
        char *line = line_input_read(input);
        if (!line)
            break;
        interrupted = 0;
        if (*line == '/') {
            more = run_command(chat, line);
        } else if (*line) {
            peridot_result result = ask(chat, line, &error);
            if (result)
                tell(chat, &error);
            more = result != PERIDOT_ERROR_DEVICE_LOST;
        }
        more = more && !ferror(stdout);
        free(line);
    }
    if (chat->terminal && more)
        putchar('\n');
    line_input_close(input);
    return chat->failed && !chat->terminal;
}

/* The grammar from the text of its file, which is NULL if there is none. */
static peridot_result make_grammar(struct chat *chat, const char *rules, size_t length,
                                   peridot_error *error) {
    return rules ? peridot_grammar_parse(chat->conversation.model, rules, length, &chat->grammar,
                                         error)
                 : PERIDOT_OK;
}

int command_chat(struct options *options) {
    peridot_error error;
    struct devices devices;
    peridot_model_info info = {.struct_size = sizeof info};
    struct chat chat = {.options = options};
    size_t length = 0;
    char *rules = options->grammar ? read_text(options->grammar, &length) : NULL;
    struct conversation *conversation = &chat.conversation;
    chat.terminal = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
    chat.colour = chat.terminal && !(getenv("NO_COLOR") && *getenv("NO_COLOR"));
    if (!options->seed_given)
        options->sampling.seed = (uint64_t)time(NULL);
    options->needs_tokenizer = true;
    if (options->grammar && !rules)
        return 1;
    if (open_model(options, &devices, &conversation->model, &error)) {
        free(rules);
        return complain(&error);
    }
    int status = 1;
    peridot_model_describe(conversation->model, &info);
    if (!info.has_chat)
        fprintf(stderr,
                "peridot: this model has no tokenizer with turn markers, so it cannot chat: use "
                "an instruct (-it) model, or peridot generate\n");
    else if (make_grammar(&chat, rules, length, &error))
        complain(&error);
    else if (open_session(options, conversation->model, &conversation->session, &error))
        complain(&error);
    else if (options->system && conversation_set_system(conversation, options->system, &error))
        complain(&error);
    else {
        report_start(options, conversation->model, conversation->session);
        catch_interrupts();
        status = talk(&chat);
    }
    conversation_free(conversation);
    free(chat.answer);
    free(rules);
    peridot_session_close_wait(conversation->session);
    peridot_grammar_free(chat.grammar);
    peridot_model_close(conversation->model);
    close_devices(&devices);
    return status;
}
