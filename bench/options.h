/* Options of a command line, read by a table. */
#ifndef BENCH_OPTIONS_H
#define BENCH_OPTIONS_H

#include "peridot.h"
#include "results.h"

enum option_kind {
    OPTION_TEXT,    /* const char * */
    OPTION_PAIR,    /* const char *[2]: takes two words */
    OPTION_NUMBER,  /* uint32_t, from `least` to `most` */
    OPTION_NUMBERS, /* struct numbers: "0,512,4096", each from `least` to `most` */
    OPTION_FLAG,    /* bool */
    OPTION_WEIGHTS, /* peridot_weights */
    OPTION_KV,      /* peridot_kv */
    OPTION_WORDS, /* struct words: takes each word that is no option's; its name is for messages */
};

#define NUMBERS_MAX 16
struct numbers {
    uint32_t at[NUMBERS_MAX], count;
};

#define WORDS_MAX 64
struct words {
    const char *at[WORDS_MAX];
    uint32_t count;
};

struct option {
    const char *name, *brief; /* brief: "-m", or "" */
    enum option_kind kind;
    void *place;
    double least, most;
};

/* The options of every command that has results, for its table. */
#define OUTPUT_OPTIONS(output)                                                                     \
    {"--json", "", OPTION_FLAG, &(output)->json, 0, 0},                                            \
        {"--csv", "", OPTION_FLAG, &(output)->csv, 0, 0}, {                                        \
        "--output", "-o", OPTION_TEXT, &(output)->path, 0, 0                                       \
    }

/* Reads the arguments after the command's name by a table of `count` options; what is not given
 * stays as it was. False after a message: a faulty option. */
bool options_parse(const char *command, int argc, char **argv, const struct option *table,
                   size_t count);
/* Whether one of them asks for help. */
bool options_help(int argc, char **argv);

/* Splits a list with commas: an array of strings, the caller's to free with cJSON_Delete. */
cJSON *split_list(const char *list);

/* Whether `text` matches one of the patterns in a list with commas; NULL matches all. A pattern is
 * all of the text, * standing for any characters; with `parts`, one without * may be a part. */
bool pattern_matches(const char *patterns, const char *text, bool parts);

#endif
