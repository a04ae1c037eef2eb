/* peridot generate: a prompt in, its continuation out as it comes. */
#include "cli.h"
#include "utf8.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Text on its way out: whole characters, up to a stop string. */
struct output {
    const struct options *options;
    const peridot_model *model;
    struct utf8_stream stream;
    struct stop_matcher matcher;
    char *text; /* all of it, for --json and stop strings */
    size_t length, capacity;
    size_t shown; /* bytes of it printed */
    bool stopped; /* by a stop string */
    bool ended;   /* by an end token */
    bool failed;
    peridot_error *error;
    double log_probability;
};

static bool make_room(struct output *out, size_t more) {
    if (out->length + more <= out->capacity)
        return true;
    size_t capacity = 2 * (out->length + more) + 256;
    char *text = realloc(out->text, capacity);
    if (!text)
        return false;
    out->text = text;
    out->capacity = capacity;
    return true;
}

static void show(struct output *out, bool last) {
    bool found = false;
    size_t safe = out->length - out->shown;
    if (out->matcher.count)
        safe = stop_matcher_scan(&out->matcher, out->text + out->shown, safe, &found);
    if (last && !found)
        safe = out->length - out->shown;
    if (!out->options->json) {
        fwrite(out->text + out->shown, 1, safe, stdout);
        fflush(stdout);
    }
    out->shown += safe;
    out->stopped = found;
}

static bool on_token(const peridot_token *token, void *user) {
    struct output *out = user;
    const char *bytes;
    size_t length;
    out->log_probability += token->log_probability;
    out->ended = token->stop;
    if (peridot_token_bytes(out->model, token->token, &bytes, &length, out->error)) {
        out->failed = true;
        return false;
    }
    if (token->stop)
        return true;
    if (!make_room(out, 3 * (length + 4))) {
        out->failed = true;
        return false;
    }
    out->length += utf8_stream_push(&out->stream, bytes, length, out->text + out->length);
    show(out, false);
    return !out->stopped && !ferror(stdout);
}

/* The prompt's tokens: <bos> and text, or one turn of the chat template. */
static peridot_result prompt_tokens(const struct options *options, const peridot_model *model,
                                    const char *text, size_t length, int32_t **tokens,
                                    size_t *count, peridot_error *error) {
    peridot_model_info info = {.struct_size = sizeof info};
    peridot_model_describe(model, &info);
    peridot_message messages[2] = {{"system", options->system, 0}, {"user", text, length}};
    bool system = options->system != NULL;
    if (system)
        messages[0].length = strlen(options->system);
    *tokens = NULL;
    size_t capacity = 0;
    for (int round = 0; round < 2; round++) { /* first how many, then which */
        peridot_result result;
        if (options->chat)
            result = peridot_chat_tokens(model, messages + !system, 1u + system, *tokens, capacity,
                                         count, error);
        else
            result = peridot_tokenize(model, text, length, !options->no_special,
                                      *tokens ? *tokens + 1 : NULL, capacity, count, error);
        if (result || round == 1)
            break;
        capacity = *count;
        *tokens = calloc(capacity + 1, sizeof **tokens);
        if (!*tokens)
            return PERIDOT_ERROR_HOST_MEMORY;
    }
    if (!*tokens)
        return error->code;
    if (!options->chat) {
        (*tokens)[0] = (int32_t)info.bos;
        ++*count;
    }
    return PERIDOT_OK;
}

static void print_json(const struct output *out, const peridot_session *session, uint32_t generated,
                       uint64_t seed) {
    peridot_session_statistics statistics = {.struct_size = sizeof statistics};
    peridot_session_describe(session, &statistics);
    cJSON *json = cJSON_CreateObject();
    char *text = malloc(out->shown + 1);
    if (text) {
        memcpy(text, out->text ? out->text : "", out->shown);
        text[out->shown] = '\0';
    }
    cJSON_AddStringToObject(json, "text", text ? text : "");
    cJSON *tokens = cJSON_AddArrayToObject(json, "tokens");
    uint32_t length = peridot_session_length(session);
    for (uint32_t i = length - generated; i < length; i++)
        cJSON_AddItemToArray(tokens, cJSON_CreateNumber(peridot_session_tokens(session)[i]));
    cJSON_AddStringToObject(json, "finish",
                            out->ended     ? "end"
                            : out->stopped ? "stop string"
                                           : "length");
    cJSON_AddNumberToObject(json, "log_probability", out->log_probability);
    char seed_text[32];
    snprintf(seed_text, sizeof seed_text, "%llu", (unsigned long long)seed);
    cJSON_AddStringToObject(json, "seed", seed_text);
    cJSON_AddNumberToObject(json, "prompt_tokens", (double)statistics.prompt_tokens);
    cJSON_AddNumberToObject(json, "prompt_seconds", statistics.prompt_seconds);
    cJSON_AddNumberToObject(json, "decode_seconds", statistics.decode_seconds);
    char *printed = cJSON_PrintUnformatted(json);
    if (printed)
        puts(printed);
    cJSON_free(printed);
    cJSON_Delete(json);
    free(text);
}

static void report_speed(const peridot_session *session) {
    peridot_session_statistics s = {.struct_size = sizeof s};
    peridot_session_describe(session, &s);
    fprintf(stderr,
            "peridot: prompt %llu tokens, %.1f tokens/s; decode %llu tokens, %.1f tokens/s, %.0f "
            "us of CPU a "
            "token, %.2f GB/s; longest submission %.0f ms\n",
            (unsigned long long)s.prompt_tokens, (double)s.prompt_tokens / s.prompt_seconds,
            (unsigned long long)s.decoded_tokens, (double)s.decoded_tokens / s.decode_seconds,
            s.decode_host_seconds / (double)s.decoded_tokens * 1e6,
            (double)s.step_bytes * (double)s.decoded_tokens / s.decode_seconds / 1e9,
            s.longest_submission_ms);
}

static peridot_result generate(struct options *options, peridot_model *model,
                               const peridot_grammar *grammar, const int32_t *tokens, size_t count,
                               peridot_error *error) {
    peridot_session *session;
    peridot_result result = open_session(options, model, &session, error);
    if (result)
        return result;
    struct output out = {.options = options,
                         .model = model,
                         .matcher = {options->stops, options->stop_count},
                         .error = error};
    uint32_t generated = 0;
    result = peridot_session_prompt_wait(session, tokens, count, NULL, error);
    if (!result && grammar)
        result = peridot_session_grammar(session, grammar, error);
    if (!result)
        result =
            peridot_session_generate_wait(session, options->count ? options->count : UINT32_MAX,
                                          on_token, &out, &generated, error);
    if (!result && make_room(&out, 16)) {
        out.length += utf8_stream_flush(&out.stream, out.text + out.length);
        if (!out.stopped)
            show(&out, true);
    }
    report_start(options, model, session);
    if (!result && options->json)
        print_json(&out, session, generated, options->sampling.seed);
    else if (!result)
        putchar('\n');
    if (!result && options->verbose)
        report_speed(session);
    if (!result && out.failed)
        result = error->code;
    free(out.text);
    peridot_session_close_wait(session);
    return result;
}

int command_generate(struct options *options) {
    peridot_error error = {PERIDOT_ERROR_HOST_MEMORY, "out of memory"};
    size_t length = options->prompt ? strlen(options->prompt) : 0, count = 0, rules_length = 0;
    char *text = NULL, *rules = NULL;
    if (!options->prompt && !(text = read_text(options->file ? options->file : "-", &length)))
        return 1;
    if (options->grammar && !(rules = read_text(options->grammar, &rules_length))) {
        free(text);
        return 1;
    }
    if (!options->seed_given)
        options->sampling.seed = (uint64_t)time(NULL);
    struct devices devices;
    peridot_model *model;
    int32_t *tokens = NULL;
    peridot_grammar *grammar = NULL;
    options->needs_tokenizer = true;
    peridot_result result = open_model(options, &devices, &model, &error);
    if (!result) {
        result = prompt_tokens(options, model, text ? text : options->prompt, length, &tokens,
                               &count, &error);
        if (!result && rules)
            result = peridot_grammar_parse(model, rules, rules_length, &grammar, &error);
        if (!result)
            result = generate(options, model, grammar, tokens, count, &error);
        peridot_grammar_free(grammar);
        peridot_model_close(model);
        close_devices(&devices);
    }
    free(tokens);
    free(text);
    free(rules);
    return result ? complain(&error) : 0;
}
