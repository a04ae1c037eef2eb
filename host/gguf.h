/* The header of a GGUF file, versions 2 and 3: its metadata, and which tensors it has, of what type
 * and shape, and where. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md */
#ifndef HOST_GGUF_H
#define HOST_GGUF_H

#include "error.h"
#include "weight_types.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum gguf_kind {
    GGUF_UINT8,
    GGUF_INT8,
    GGUF_UINT16,
    GGUF_INT16,
    GGUF_UINT32,
    GGUF_INT32,
    GGUF_FLOAT32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_UINT64,
    GGUF_INT64,
    GGUF_FLOAT64,
    GGUF_KIND_COUNT
};

/* Within the file's bytes, not NUL-terminated. */
struct gguf_string {
    const char *text;
    size_t length;
};

struct gguf_value {
    enum gguf_kind kind, element; /* element: of an array */
    uint64_t count;               /* elements of an array, bytes of a string */
    const uint8_t *data;          /* may be unaligned */
};

struct gguf_entry {
    struct gguf_string key;
    struct gguf_value value;
};

#define GGUF_DIMENSIONS_MAX 4

struct gguf_tensor {
    char *name;
    enum weight_type type; /* WEIGHT_TYPE_COUNT: one that Peridot does not use */
    char type_name[16];
    uint32_t dimensions;
    uint64_t shape[GGUF_DIMENSIONS_MAX]; /* ggml's order: what changes fastest comes first */
    uint64_t offset;                     /* in the file's data */
    uint64_t begin;                      /* in the file; 0 with a type that is not used */
    uint64_t size;                       /* bytes */
};

struct gguf {
    const char *name; /* for messages; the caller's */
    uint32_t version;
    struct gguf_entry *entries; /* sorted by key */
    size_t entry_count;
    struct gguf_tensor *tensors; /* sorted by name */
    size_t tensor_count;
};

/* Whether bytes begin as a GGUF file does. */
bool gguf_is(const uint8_t *data, size_t size);

/* Parses the header of a file of `size` bytes, of which the first `held` are at `data`. These must
 * outlive the result, and so must `name`, which stands in messages; where they end within the
 * header, `*more` becomes true and the error is nobody's fault. Every count, length and range is
 * checked against the file; tensors do not overlap, and their rows are whole blocks. Errors: FORMAT
 * (what is wrong, where; a truncated file: how many bytes it should have), UNSUPPORTED (a version,
 * big-endian), HOST_MEMORY. */
peridot_result gguf_parse_beginning(const uint8_t *data, size_t held, uint64_t size,
                                    const char *name, struct gguf *result, bool *more,
                                    peridot_error *error);
/* The same with a whole file in memory. */
peridot_result gguf_parse(const uint8_t *data, size_t size, const char *name, struct gguf *result,
                          peridot_error *error);
void gguf_free(struct gguf *file);

/* NULL if there is none of that name. */
const struct gguf_tensor *gguf_find_tensor(const struct gguf *file, const char *name);

/* ---- Metadata ---- */

/* Each leaves `*value` as it is where the key is absent. Errors: FORMAT (a value of another kind or
 * out of range: which). */
peridot_result gguf_integer(const struct gguf *file, const char *key, int64_t least, int64_t most,
                            int64_t *value, peridot_error *error);
peridot_result gguf_real(const struct gguf *file, const char *key, double least, double most,
                         double *value, peridot_error *error);
peridot_result gguf_bool(const struct gguf *file, const char *key, bool *value,
                         peridot_error *error);
peridot_result gguf_string(const struct gguf *file, const char *key, struct gguf_string *value,
                           peridot_error *error);
/* `element` is STRING, INT32 (UINT32 will do) or FLOAT32. */
peridot_result gguf_array(const struct gguf *file, const char *key, enum gguf_kind element,
                          const struct gguf_value **value, peridot_error *error);

bool gguf_string_is(struct gguf_string string, const char *text);
/* The beginning of a text, for messages, with ? for what is no plain character; gives `out`. */
const char *gguf_show(struct gguf_string string, char *out, size_t size);
/* Elements of arrays that gguf_array gave; index < count. */
int32_t gguf_integer_at(const struct gguf_value *array, uint64_t index);
float gguf_real_at(const struct gguf_value *array, uint64_t index);
/* The string at `*at`, which begins as the array's data, and moves on; at most `count` times. */
struct gguf_string gguf_next_string(const uint8_t **at);

#endif
