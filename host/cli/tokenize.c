/* peridot tokenize: text to ids and back; needs no device. */
#include "cli.h"
#include "demo.h"
#include "error.h"
#include "gguf_file.h"
#include "gguf_tokenizer.h"
#include "json_string.h"
#include "platform.h"
#include "tokenizer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int encode_text(const struct options *options, const struct tokenizer *tokenizer,
                       const char *text, size_t length, bool json) {
    struct token_list list = {0};
    peridot_error error;
    enum tokenizer_mode mode = options->no_special ? TOKENIZER_PLAIN : TOKENIZER_SPECIAL;
    if (tokenizer_encode(tokenizer, text, length, mode, &list, &error)) {
        token_list_free(&list);
        return complain(&error);
    }
    if (json)
        putchar('[');
    for (size_t i = 0; i < list.count; i++)
        printf("%s%d", i ? (json ? "," : " ") : "", list.ids[i]);
    puts(json ? "]" : "");
    token_list_free(&list);
    return 0;
}

/* "line 3: " for --jsonl, whose lines are numbered from 1; nothing for 0. */
static const char *place_of(size_t number, char place[32]) {
    place[0] = '\0';
    if (number)
        snprintf(place, 32, "line %zu: ", number);
    return place;
}

static int print_decoded(const struct tokenizer *tokenizer, const struct token_list *list,
                         size_t number) {
    char *text, place[32];
    size_t length;
    peridot_error error;
    if (tokenizer_decode(tokenizer, list->ids, list->count, &text, &length, &error)) {
        peridot_error placed = error;
        snprintf(placed.message, sizeof placed.message, "%s%.900s", place_of(number, place),
                 error.message);
        return complain(&placed);
    }
    if (number) {
        json_string_write(stdout, text, length);
    } else {
        fwrite(text, 1, length, stdout);
        putchar('\n');
    }
    free(text);
    return 0;
}

/* The next number of a list, past spaces, commas and brackets. False: there is none; `*faulty` is
 * then what stands there instead, or empty at the end. */
static bool next_id(const char **at, int32_t *id, const char **faulty) {
    char *end;
    *at += strspn(*at, " \t\r\n,[]");
    *faulty = *at;
    errno = 0;
    long long value = strtoll(*at, &end, 10);
    if (end == *at || errno || value < INT32_MIN || value > INT32_MAX ||
        (*end && !strchr(" \t\r\n,[]", *end)))
        return false;
    *id = (int32_t)value;
    *at = end;
    return true;
}

static int decode_text(const struct tokenizer *tokenizer, const char *text, size_t length,
                       size_t number) {
    struct token_list list = {0};
    const char *at = text, *faulty;
    char place[32];
    int32_t id;
    int status = 0;
    while (!status && next_id(&at, &id, &faulty))
        if (!token_list_add(&list, id)) {
            fprintf(stderr, "peridot: out of memory for the token ids\n");
            status = 1;
        }
    if (!status && (*faulty || at != text + length)) {
        peridot_error error = {.code = PERIDOT_ERROR_FORMAT};
        size_t faulty_length = strcspn(faulty, " \t\r\n,[]");
        snprintf(error.message, sizeof error.message,
                 "%s\"%.*s\" is no token id: --decode takes numbers", place_of(number, place),
                 faulty_length < 100 ? (int)faulty_length : 100, faulty);
        status = complain(&error);
    }
    if (!status)
        status = print_decoded(tokenizer, &list, number);
    token_list_free(&list);
    return status;
}

static int json_line(const struct options *options, const struct tokenizer *tokenizer, char *line,
                     size_t size, size_t number) {
    if (options->decode)
        return decode_text(tokenizer, line, size, number);
    size_t length;
    if (memchr(line, '\0', size) || !json_string_read(line, &length)) {
        fprintf(stderr, "peridot: line %zu is not a JSON string\n", number);
        return 1;
    }
    return encode_text(options, tokenizer, line, length, true);
}

static int run(const struct options *options, const struct tokenizer *tokenizer, char *text,
               size_t length) {
    if (!options->jsonl)
        return options->decode ? decode_text(tokenizer, text, length, 0)
                               : encode_text(options, tokenizer, text, length, options->json);
    int status = 0;
    size_t number = 1;
    for (char *line = text, *end = text + length; line < end && !status; number++) {
        char *stop = memchr(line, '\n', (size_t)(end - line));
        size_t size = (size_t)((stop ? stop : end) - line);
        line[size] = '\0';
        if (size)
            status = json_line(options, tokenizer, line, size, number);
        line += size + 1;
    }
    return status;
}

/* The tokenizer in a tokenizer.model, or in a GGUF file's metadata. */
static peridot_result read_tokenizer(const struct open_file *file, const char *path,
                                     struct tokenizer **tokenizer, peridot_error *error) {
    uint8_t first[4];
    size_t held = file->size < sizeof first ? (size_t)file->size : sizeof first;
    peridot_result result = platform_read_at(file, path, 0, first, held, error);
    if (result)
        return result;
    if (!gguf_is(first, held)) {
        struct file_bytes bytes;
        result = platform_read_file(path, &bytes, error);
        if (!result)
            result = tokenizer_create(bytes.data, bytes.size, path, tokenizer, error);
        platform_free_file(&bytes);
        return result;
    }
    struct gguf gguf;
    uint8_t *header;
    result = gguf_file_read(file, path, &gguf, &header, error);
    if (!result)
        result = gguf_tokenizer_create(&gguf, tokenizer, error);
    if (!result && !*tokenizer)
        result = fail(error, PERIDOT_ERROR_FORMAT,
                      "%s has no tokenizer: of a split model, give the first part", path);
    gguf_free(&gguf);
    free(header);
    return result;
}

/* The tokenizer's file: named, the model itself or in its directory, or the demo's. */
static peridot_result open_tokenizer(const struct options *options, struct tokenizer **tokenizer,
                                     peridot_error *error) {
    peridot_file files[DEMO_FILES];
    demo_list(files);
    if (!options->tokenizer && !options->model)
        return tokenizer_create(files[2].data, files[2].size, "the demo's tokenizer", tokenizer,
                                error);
    char path[4096];
    const char *named = options->tokenizer ? options->tokenizer : options->model;
    bool itself = options->tokenizer || platform_is_file(named);
    int written = snprintf(path, sizeof path, "%s%s", named, itself ? "" : "/tokenizer.model");
    if (written < 0 || (size_t)written >= sizeof path)
        return fail(error, PERIDOT_ERROR_FILE, "the path %.100s… is too long", named);
    if (!options->tokenizer && platform_is_directory(named) && !platform_is_file(path))
        return fail(error, PERIDOT_ERROR_FILE,
                    "%s has no tokenizer.model: fetch it too, or give --tokenizer FILE", named);
    struct open_file file;
    peridot_result result = platform_open_file(path, &file, error);
    if (!result)
        result = read_tokenizer(&file, path, tokenizer, error);
    platform_close_file(&file);
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
