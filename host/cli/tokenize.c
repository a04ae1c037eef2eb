/* peridot tokenize: text to ids and back; needs no device. */
#include "cli.h"
#include "demo.h"
#include "json_string.h"
#include "platform.h"
#include "tokenizer.h"

#include <stdlib.h>
#include <string.h>

static int encode_text(const struct options *options, const struct tokenizer *tokenizer,
                       const char *text, size_t length, bool json) {
    struct token_list list = {0};
    peridot_error error;
    enum tokenizer_mode mode = options->no_special ? TOKENIZER_PLAIN : TOKENIZER_SPECIAL;
    if (tokenizer_encode(tokenizer, text, length, mode, &list, &error))
        return complain(&error);
    if (json)
        putchar('[');
    for (size_t i = 0; i < list.count; i++)
        printf("%s%d", i ? (json ? "," : " ") : "", list.ids[i]);
    puts(json ? "]" : "");
    token_list_free(&list);
    return 0;
}

static int print_decoded(const struct tokenizer *tokenizer, const struct token_list *list,
                         bool json) {
    char *text;
    size_t length;
    peridot_error error;
    if (tokenizer_decode(tokenizer, list->ids, list->count, &text, &length, &error))
        return complain(&error);
    if (json) {
        json_string_write(stdout, text, length);
    } else {
        fwrite(text, 1, length, stdout);
        putchar('\n');
    }
    free(text);
    return 0;
}

/* Numbers, with whatever stands between them. */
static int decode_text(const struct tokenizer *tokenizer, const char *text, bool json) {
    struct token_list list = {0};
    bool good = true;
    for (const char *at = text; *at && good;) {
        char *end;
        long id = strtol(at, &end, 10);
        good = end == at || token_list_add(&list, id < 0 || id > INT32_MAX ? -1 : (int32_t)id);
        at = end == at ? at + 1 : end;
    }
    int status = good ? print_decoded(tokenizer, &list, json) : 1;
    token_list_free(&list);
    return status;
}

static int json_line(const struct options *options, const struct tokenizer *tokenizer, char *line,
                     size_t number) {
    if (options->decode)
        return decode_text(tokenizer, line, true);
    size_t length;
    if (!json_string_read(line, &length)) {
        fprintf(stderr, "peridot: line %zu is not a JSON string\n", number);
        return 1;
    }
    return encode_text(options, tokenizer, line, length, true);
}

static int run(const struct options *options, const struct tokenizer *tokenizer, char *text,
               size_t length) {
    if (!options->jsonl)
        return options->decode ? decode_text(tokenizer, text, false)
                               : encode_text(options, tokenizer, text, length, options->json);
    int status = 0;
    size_t number = 1;
    for (char *line = strtok(text, "\n"); line && !status; line = strtok(NULL, "\n"), number++)
        status = json_line(options, tokenizer, line, number);
    return status;
}

/* The tokenizer's file: named, in the model's directory, or the demo's. */
static peridot_result open_tokenizer(const struct options *options, struct tokenizer **tokenizer,
                                     peridot_error *error) {
    peridot_file files[DEMO_FILES];
    demo_list(files);
    if (!options->tokenizer && !options->model)
        return tokenizer_create(files[2].data, files[2].size, "the demo's tokenizer", tokenizer,
                                error);
    char path[4096];
    snprintf(path, sizeof path, "%s%s", options->tokenizer ? options->tokenizer : options->model,
             options->tokenizer ? "" : "/tokenizer.model");
    struct mapped_file file;
    peridot_result result = platform_map_file(path, &file, error);
    if (result)
        return result;
    result = tokenizer_create(file.data, file.size, path, tokenizer, error);
    platform_unmap_file(&file);
    return result;
}

int command_tokenize(struct options *options) {
    peridot_error error;
    struct tokenizer *tokenizer;
    if (open_tokenizer(options, &tokenizer, &error))
        return complain(&error);
    size_t length = options->prompt ? strlen(options->prompt) : 0;
    char *text = options->prompt ? malloc(length + 1)
                                 : read_text(options->file ? options->file : "-", &length);
    if (text && options->prompt)
        memcpy(text, options->prompt, length + 1);
    int status = text ? run(options, tokenizer, text, length) : 1;
    free(text);
    tokenizer_destroy(tokenizer);
    return status;
}
