#include "cli.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum kind { TEXT, NUMBER, REAL, FLAG, SEED, STOP, WEIGHTS, MEMORY, KV, ACTIVATIONS, SPLIT };

struct option {
    const char *name, *brief;
    enum kind kind;
    void *place;
    double least, most;
};

static bool read_number(const struct option *option, const char *text) {
    char *end;
    errno = 0;
    double value = strtod(text, &end);
    if (*end || end == text || !(value >= option->least && value <= option->most) ||
        (option->kind != REAL && value != floor(value))) {
        fprintf(stderr, "peridot: %s takes a %snumber from %.10g to %.10g, not \"%s\"\n",
                option->name, option->kind != REAL ? "whole " : "", option->least, option->most,
                text);
        return false;
    }
    if (option->kind == MEMORY)
        *(uint64_t *)option->place = (uint64_t)value << 20;
    else if (option->kind == NUMBER)
        *(uint32_t *)option->place = (uint32_t)value;
    else
        *(float *)option->place = (float)value;
    return true;
}

/* A word out of a list to its index. */
static bool read_word(const struct option *option, const char *text, const char *const *words,
                      int *place) {
    for (int i = 0; words[i]; i++)
        if (strcmp(text, words[i]) == 0) {
            *place = i;
            return true;
        }
    fprintf(stderr, "peridot: %s does not know \"%s\"; it takes", option->name, text);
    for (int i = 0; words[i]; i++)
        fprintf(stderr, "%s %s", i ? "," : "", words[i]);
    fprintf(stderr, "\n");
    return false;
}

static bool read_seed(struct options *options, const char *text) {
    char *end;
    errno = 0;
    options->sampling.seed = strtoull(text, &end, 10);
    options->seed_given = true;
    if (*text >= '0' && *text <= '9' && !*end && !errno)
        return true;
    fprintf(stderr, "peridot: --seed takes a whole number from 0 to %llu, not \"%s\"\n", ULLONG_MAX,
            text);
    return false;
}

static bool read_weights(const struct option *option, const char *text, peridot_weights *weights) {
    int word;
    /* the second says what it takes */
    return weights_read(text, weights) || read_word(option, text, weights_words(), &word);
}

/* Numbers with commas between them. */
static bool read_shares(struct options *options, const char *text) {
    const char *at = text;
    options->share_count = 0;
    while (options->share_count < PERIDOT_DEVICES_MAX) {
        char *end;
        float share = strtof(at, &end);
        if (end == at || !(share >= 0 && share <= 1e9f) || (*end && *end != ','))
            break;
        options->shares[options->share_count++] = share;
        if (!*end)
            return true;
        at = end + 1;
    }
    fprintf(stderr,
            "peridot: --split takes a share for each of up to %d devices, numbers from 0 to 1e9 "
            "such as 3,1, not \"%s\"\n",
            PERIDOT_DEVICES_MAX, text);
    return false;
}

static bool apply(struct options *options, const struct option *option, const char *text) {
    static const char *const activations[] = {"f32", "int8", NULL};
    int word = 0;
    switch (option->kind) {
    case TEXT:
        *(const char **)option->place = text;
        return true;
    case NUMBER:
    case REAL:
    case MEMORY:
        return read_number(option, text);
    case SEED:
        return read_seed(options, text);
    case STOP:
        if (options->stop_count == 16 || !*text) {
            fprintf(stderr, "peridot: --stop takes up to 16 strings that are not empty\n");
            return false;
        }
        options->stops[options->stop_count++] = text;
        return true;
    case SPLIT:
        return read_shares(options, text);
    case WEIGHTS:
        return read_weights(option, text, &options->weights.weights);
    case ACTIVATIONS:
        if (!read_word(option, text, activations, &word))
            return false;
        options->session.activations = (peridot_activations)word;
        return true;
    default:
        if (!read_word(option, text, kv_words, &word))
            return false;
        options->session.kv = (peridot_kv)word;
        return true;
    }
}

bool options_parse(int argc, char **argv, struct options *options) {
    peridot_sampling *sampling = &options->sampling;
    const struct option table[] = {
        {"--model", "-m", TEXT, &options->model, 0, 0},
        {"--shape", "", TEXT, &options->shape, 0, 0},
        {"--prompt", "-p", TEXT, &options->prompt, 0, 0},
        {"--file", "-f", TEXT, &options->file, 0, 0},
        {"--output", "-o", TEXT, &options->output, 0, 0},
        {"--tokens", "", TEXT, &options->tokens, 0, 0},
        {"--tokenizer", "", TEXT, &options->tokenizer, 0, 0},
        {"--system", "", TEXT, &options->system, 0, 0},
        {"--grammar", "", TEXT, &options->grammar, 0, 0},
        {"--save-base", "", TEXT, &options->save_base, 0, 0},
        {"--kl-base", "", TEXT, &options->kl_base, 0, 0},
        {"--device", "", TEXT, &options->device.choice, 0, 0},
        {"--count", "-n", NUMBER, &options->count, 1, 1e6},
        {"--context", "", NUMBER, &options->context, 1, 32768},
        {"--memory", "", MEMORY, &options->device.memory_limit, 1, 1 << 24},
        {"--seconds", "", NUMBER, &options->seconds, 1, 3600},
        {"--stride", "", NUMBER, &options->stride, 1, 32767},
        {"--prefill-rows", "", NUMBER, &options->session.prefill_rows, 1, 4096},
        {"--steps", "", NUMBER, &options->session.steps_per_submission, 1, 64},
        {"--submission-ms", "", REAL, &options->session.submission_ms, 1, 10000},
        {"--temperature", "", REAL, &sampling->temperature, 0, 100},
        {"--top-k", "", NUMBER, &sampling->top_k, 0, 1 << 24},
        {"--top-p", "", REAL, &sampling->top_p, 0, 1},
        {"--min-p", "", REAL, &sampling->min_p, 0, 1},
        {"--repetition-penalty", "", REAL, &sampling->repetition_penalty, 0.01, 100},
        {"--min-tokens", "", NUMBER, &sampling->min_tokens, 0, 1e6},
        {"--seed", "", SEED, NULL, 0, 0},
        {"--stop", "", STOP, NULL, 0, 0},
        {"--weights", "", WEIGHTS, NULL, 0, 0},
        {"--kv", "", KV, NULL, 0, 0},
        {"--activations", "", ACTIVATIONS, NULL, 0, 0},
        {"--split", "", SPLIT, NULL, 0, 0},
        {"--chat", "", FLAG, &options->chat, 0, 0},
        {"--json", "", FLAG, &options->json, 0, 0},
        {"--csv", "", FLAG, &options->csv, 0, 0},
        {"--jsonl", "", FLAG, &options->jsonl, 0, 0},
        {"--decode", "", FLAG, &options->decode, 0, 0},
        {"--special", "", FLAG, &options->special, 0, 0},
        {"--no-special", "", FLAG, &options->no_special, 0, 0},
        {"--verbose", "", FLAG, &options->verbose, 0, 0},
        {"--no-tuning", "", FLAG, &options->device.no_tuning, 0, 0},
        {"--minimal", "", FLAG, &options->device.minimal, 0, 0},
        {"--validation", "", FLAG, &options->device.validation, 0, 0},
    };
    for (int i = 2; i < argc; i++) {
        const struct option *option = NULL;
        for (size_t j = 0; j < sizeof table / sizeof *table; j++)
            if (strcmp(argv[i], table[j].name) == 0 ||
                (table[j].brief[0] && strcmp(argv[i], table[j].brief) == 0))
                option = &table[j];
        if (!option) {
            fprintf(stderr, "peridot: there is no option %s: see peridot help\n", argv[i]);
            return false;
        }
        if (option->kind == FLAG) {
            *(bool *)option->place = true;
        } else if (++i == argc) {
            fprintf(stderr, "peridot: %s needs a value: see peridot help\n", argv[i - 1]);
            return false;
        } else if (!apply(options, option, argv[i])) {
            return false;
        }
    }
    options->session.context = options->context;
    return true;
}
