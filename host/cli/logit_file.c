#include "logit_file.h"
#include "checksum.h"

#include <float.h>
#include <stdlib.h>
#include <string.h>

#define MAGIC "PDOTLOG1"
#define STEPS 65535

struct header {
    char magic[8];
    struct logit_file_key key;
    uint64_t checksum; /* of all before it */
};

/* What precedes the 16-bit numbers of a row; its checksum follows them. */
struct row_header {
    double log_probability;
    float step;
    uint32_t top;
};

uint64_t logit_file_text(const int32_t *tokens, size_t count) {
    return checksum_add(CHECKSUM_START, tokens, count * sizeof *tokens);
}

size_t logit_row_bytes(uint32_t vocabulary) {
    return sizeof(struct row_header) + 2 * (size_t)vocabulary + sizeof(uint64_t);
}

static uint64_t row_checksum(const struct logit_file_key *key, uint32_t place,
                             const uint8_t *bytes) {
    uint64_t sum = checksum_add(CHECKSUM_START, key, sizeof *key);
    sum = checksum_add(sum, &place, sizeof place);
    return checksum_add(sum, bytes, logit_row_bytes(key->vocabulary) - sizeof sum);
}

static uint64_t header_checksum(const struct header *header) {
    return checksum_add(CHECKSUM_START, header, offsetof(struct header, checksum));
}

/* ---- Writing ---- */

static float step_of(const struct softmax *softmax, const float *logits, uint32_t count) {
    float least = logits[0];
    for (uint32_t i = 1; i < count; i++)
        least = logits[i] < least ? logits[i] : least;
    double range = softmax->largest - least, most = FLT_MAX / 2; /* what is read stays finite */
    return (float)((range < most ? range : most) / STEPS);
}

void logit_row_write(const struct logit_file_key *key, uint32_t place, const struct logit_row *row,
                     const struct softmax *softmax, const float *logits, uint8_t *bytes) {
    float step = step_of(softmax, logits, key->vocabulary);
    struct row_header header = {row->log_probability, step, row->top};
    memcpy(bytes, &header, sizeof header);
    uint8_t *at = bytes + sizeof header;
    for (uint32_t i = 0; i < key->vocabulary; i++, at += 2) {
        double below = step > 0 ? (softmax->largest - logits[i]) / step + 0.5 : 0;
        uint16_t steps = below < STEPS ? (uint16_t)below : STEPS;
        memcpy(at, &steps, 2);
    }
    uint64_t sum = row_checksum(key, place, bytes);
    memcpy(at, &sum, sizeof sum);
}

bool logit_file_begin(FILE *stream, const struct logit_file_key *key) {
    struct header header = {.magic = MAGIC, .key = *key};
    header.checksum = header_checksum(&header);
    return fwrite(&header, sizeof header, 1, stream) == 1;
}

/* ---- Reading ---- */

static peridot_result damaged(const char *path, peridot_error *error) {
    return fail(error, PERIDOT_ERROR_FORMAT,
                "%s is damaged or incomplete: write it again with --save-base", path);
}

static peridot_result read_header(const struct open_file *file, struct header *header,
                                  const char *path, peridot_error *error) {
    size_t size = file->size < sizeof *header ? (size_t)file->size : sizeof *header;
    *header = (struct header){0};
    peridot_result result = platform_read_at(file, path, 0, header, size, error);
    if (result)
        return result;
    if (size < sizeof *header || memcmp(header->magic, MAGIC, 8) != 0)
        return fail(error, PERIDOT_ERROR_FORMAT,
                    "%s is not the base of a comparison: write one with --save-base", path);
    const struct logit_file_key *key = &header->key;
    if (header->checksum != header_checksum(header) ||
        (file->size - sizeof *header) / logit_row_bytes(key->vocabulary) != key->scored ||
        (file->size - sizeof *header) % logit_row_bytes(key->vocabulary) != 0)
        return damaged(path, error);
    return PERIDOT_OK;
}

static peridot_result check_key(const struct logit_file_key *has,
                                const struct logit_file_key *wanted, const char *path,
                                peridot_error *error) {
    if (has->vocabulary != wanted->vocabulary)
        return fail(error, PERIDOT_ERROR_UNSUPPORTED,
                    "%s is of a model with a vocabulary of %u tokens and this one has %u: "
                    "models are compared over one vocabulary",
                    path, has->vocabulary, wanted->vocabulary);
    if (has->text != wanted->text)
        return fail(error, PERIDOT_ERROR_UNSUPPORTED,
                    "%s is of another text, or was split into other tokens: give the text "
                    "that it was made with",
                    path);
    if (has->window != wanted->window || has->stride != wanted->stride ||
        has->scored != wanted->scored)
        return fail(error, PERIDOT_ERROR_UNSUPPORTED,
                    "%s was made with --context %u --stride %u: use these here too", path,
                    has->window, has->stride);
    return PERIDOT_OK;
}

peridot_result logit_file_open(const char *path, const struct logit_file_key *wanted,
                               struct logit_file *file, peridot_error *error) {
    struct header header;
    *file = (struct logit_file){.path = path};
    peridot_result result = platform_open_file(path, &file->file, error);
    if (result)
        return result;
    result = read_header(&file->file, &header, path, error);
    if (!result)
        result = check_key(&header.key, wanted, path, error);
    if (result) {
        logit_file_close(file);
        return result;
    }
    file->key = header.key;
    return PERIDOT_OK;
}

static peridot_result take_row(const struct logit_file *file, uint32_t place, const uint8_t *bytes,
                               struct logit_row *row, float *logits, peridot_error *error) {
    const struct logit_file_key *key = &file->key;
    struct row_header header;
    uint64_t sum;
    memcpy(&header, bytes, sizeof header);
    memcpy(&sum, bytes + logit_row_bytes(key->vocabulary) - sizeof sum, sizeof sum);
    if (sum != row_checksum(key, place, bytes) || header.top >= key->vocabulary ||
        !(header.log_probability <= 0) || !(header.step >= 0 && header.step <= FLT_MAX / STEPS))
        return damaged(file->path, error);
    for (uint32_t i = 0; i < key->vocabulary; i++) {
        uint16_t steps;
        memcpy(&steps, bytes + sizeof header + 2 * (size_t)i, 2);
        logits[i] = (float)(-(double)header.step * steps);
    }
    *row = (struct logit_row){header.log_probability, header.top};
    return PERIDOT_OK;
}

peridot_result logit_file_row(const struct logit_file *file, uint32_t place, struct logit_row *row,
                              float *logits, peridot_error *error) {
    size_t size = logit_row_bytes(file->key.vocabulary);
    uint8_t *bytes = malloc(size);
    if (!bytes)
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory while reading %s", file->path);
    peridot_result result =
        platform_read_at(&file->file, file->path, sizeof(struct header) + (uint64_t)place * size,
                         bytes, size, error);
    if (!result)
        result = take_row(file, place, bytes, row, logits, error);
    free(bytes);
    return result;
}

void logit_file_close(struct logit_file *file) {
    platform_close_file(&file->file);
    *file = (struct logit_file){0};
}
