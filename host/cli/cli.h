/* What the commands of the program share: options, opening device and model, messages. */
#ifndef CLI_H
#define CLI_H

#include "peridot.h"
#include "weights_words.h"

#include <stdio.h>

struct options {
    const char *model; /* NULL: the built-in demo */
    const char *shape; /* of a model that need not be there, for tuning; NULL: -m's */
    const char *prompt, *file, *output, *tokens, *tokenizer, *system, *save_base, *kl_base;
    const char *grammar; /* a file in GBNF that answers follow; NULL: none */
    const char *stops[16];
    uint32_t stop_count;
    uint32_t count; /* -n; 0: as many as fit */
    uint32_t context, stride;
    uint32_t seconds; /* of tuning; 0: the default */
    bool chat, json, csv, jsonl, decode, no_special, special, verbose;
    bool needs_tokenizer; /* the command is of no use without one */
    peridot_sampling sampling;
    bool seed_given;
    peridot_device_params device;
    float shares[PERIDOT_DEVICES_MAX]; /* --split */
    uint32_t share_count;
    peridot_model_params weights;
    peridot_session_params session;
};

/* Open devices; the first is home. */
struct devices {
    peridot_device *list[PERIDOT_DEVICES_MAX];
    uint32_t count;
};
void close_devices(struct devices *devices);

/* One command: `peridot NAME …`. Returns the exit status. */
int command_chat(struct options *options);
int command_generate(struct options *options);
int command_tokenize(struct options *options);
int command_logits(struct options *options);
int command_perplexity(struct options *options);
int command_convert(struct options *options);
int command_inspect(struct options *options);
int command_tune(struct options *options);
int command_devices(struct options *options);

/* Reads argv[2…]. False after a message: a faulty option. */
bool options_parse(int argc, char **argv, struct options *options);

/* Prints an error to stderr, in one line whatever names from files it holds; returns 1, the exit
 * status. */
int complain(const peridot_error *error);

/* For params: prints a message as complain does; a line of progress, for a terminal. */
void show_message(const char *text, void *user);
bool show_progress(const peridot_progress *progress, void *user);

/* Devices and model as the options say, with progress on a terminal and the choice told with
 * --verbose. Where a tokenizer is needed, it is missed before anything is loaded. */
peridot_result open_model(const struct options *options, struct devices *devices,
                          peridot_model **model, peridot_error *error);
peridot_result open_session(const struct options *options, peridot_model *model,
                            peridot_session **session, peridot_error *error);
/* --verbose: how long starting took, and what the session did. */
void report_start(const struct options *options, const peridot_model *model,
                  const peridot_session *session);

/* Refuses a file that could not be replaced in the end, before the work that fills it. Errors:
 * FILE. */
peridot_result check_output(const char *path, peridot_error *error);

/* A whole file, or standard input for "-"; NUL-terminated, the caller's to free; NULL after a
 * message. */
char *read_text(const char *path, size_t *length);

#endif
