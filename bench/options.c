#include "options.h"
#include "weights_words.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- Values ---- */

static bool read_number(const struct option *option, const char *text, const char **end,
                        uint32_t *number) {
    char *stop;
    errno = 0;
    double value = strtod(text, &stop);
    *end = stop;
    if (errno || stop == text || !(value >= option->least && value <= option->most) ||
        value != floor(value))
        return false;
    *number = (uint32_t)value;
    return true;
}

static bool read_numbers(const struct option *option, const char *text) {
    struct numbers *numbers = option->place;
    uint32_t most = option->kind == OPTION_NUMBERS ? NUMBERS_MAX : 1, count = 0, read[NUMBERS_MAX];
    const char *at = text;
    while (count < most && read_number(option, at, &at, &read[count])) {
        count++;
        if (*at != ',' || most == 1)
            break;
        at++;
    }
    if (count == 0 || *at) {
        fprintf(stderr, "peridot-bench: %s takes %s from %.10g to %.10g, not \"%s\"\n",
                option->name,
                most > 1 ? "up to 16 whole numbers, with commas between them," : "a whole number",
                option->least, option->most, text);
        return false;
    }
    if (most == 1) {
        *(uint32_t *)option->place = read[0];
    } else {
        memcpy(numbers->at, read, count * sizeof *read);
        numbers->count = count;
    }
    return true;
}

static bool read_kv(const char *text, peridot_kv *kv) {
    for (int i = 0; kv_words[i]; i++)
        if (strcmp(text, kv_words[i]) == 0) {
            *kv = (peridot_kv)i;
            return true;
        }
    fprintf(stderr, "peridot-bench: --kv takes f16, f32 or q8, not \"%s\"\n", text);
    return false;
}

static bool apply(const struct option *option, char **values) {
    switch (option->kind) {
    case OPTION_TEXT:
        *(const char **)option->place = values[0];
        return true;
    case OPTION_PAIR:
        ((const char **)option->place)[0] = values[0];
        ((const char **)option->place)[1] = values[1];
        return true;
    case OPTION_FLAG:
        *(bool *)option->place = true;
        return true;
    case OPTION_WEIGHTS:
        if (weights_read(values[0], option->place))
            return true;
        fprintf(stderr,
                "peridot-bench: --weights takes auto, file, int8, q4 or a type such as bf16 or "
                "q4_k, not \"%s\"\n",
                values[0]);
        return false;
    case OPTION_KV:
        return read_kv(values[0], option->place);
    default:
        return read_numbers(option, values[0]);
    }
}

/* ---- The command line ---- */

bool options_help(int argc, char **argv) {
    for (int i = 0; i < argc; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            return true;
    return false;
}

static const struct option *find_option(const struct option *table, size_t count,
                                        const char *word) {
    for (size_t i = 0; i < count; i++)
        if (table[i].kind == OPTION_WORDS
                ? *word != '-'
                : strcmp(word, table[i].name) == 0 ||
                      (table[i].brief[0] && strcmp(word, table[i].brief) == 0))
            return &table[i];
    return NULL;
}

/* Words that an option takes after its name. */
static int count_values(const struct option *option) {
    return option->kind == OPTION_FLAG || option->kind == OPTION_WORDS ? 0
           : option->kind == OPTION_PAIR                               ? 2
                                                                       : 1;
}

static bool add_word(const struct option *option, const char *word) {
    struct words *words = option->place;
    if (words->count == WORDS_MAX) {
        fprintf(stderr, "peridot-bench: more than %u of %s at once\n", WORDS_MAX, option->name);
        return false;
    }
    words->at[words->count++] = word;
    return true;
}

bool options_parse(const char *command, int argc, char **argv, const struct option *table,
                   size_t count) {
    for (int i = 0, values; i < argc; i += 1 + values) {
        const struct option *option = find_option(table, count, argv[i]);
        if (!option) {
            fprintf(stderr, "peridot-bench: %s has no option \"%s\": see peridot-bench %s --help\n",
                    command, argv[i], command);
            return false;
        }
        values = count_values(option);
        if (argc - 1 - i < values) {
            fprintf(stderr, "peridot-bench: %s needs %s: see peridot-bench %s --help\n", argv[i],
                    values == 2 ? "two values" : "a value", command);
            return false;
        }
        if (option->kind == OPTION_WORDS ? !add_word(option, argv[i])
                                         : !apply(option, argv + i + 1))
            return false;
    }
    return true;
}

/* ---- Lists and patterns ---- */

cJSON *split_list(const char *list) {
    cJSON *names = cJSON_CreateArray();
    char name[128];
    while (*list) {
        size_t length = strcspn(list, ",");
        if (length && length < sizeof name) {
            memcpy(name, list, length);
            name[length] = '\0';
            cJSON_AddItemToArray(names, cJSON_CreateString(name));
        }
        list += length + (list[length] == ',');
    }
    return names;
}

/* `pattern` [0, length) against all of `text`. */
static bool matches_all(const char *pattern, size_t length, const char *text) {
    if (length == 0)
        return !*text;
    if (*pattern == '*')
        return matches_all(pattern + 1, length - 1, text) ||
               (*text && matches_all(pattern, length, text + 1));
    return *text == *pattern && matches_all(pattern + 1, length - 1, text + 1);
}

static bool contains(const char *text, const char *part, size_t length) {
    for (; strlen(text) >= length; text++)
        if (strncmp(text, part, length) == 0)
            return true;
    return false;
}

bool pattern_matches(const char *patterns, const char *text, bool parts) {
    if (!patterns)
        return true;
    for (const char *at = patterns;; at++) {
        size_t length = strcspn(at, ",");
        if (length && (parts && !memchr(at, '*', length) ? contains(text, at, length)
                                                         : matches_all(at, length, text)))
            return true;
        at += length;
        if (!*at)
            return false;
    }
}
