/* The checkpoints in tests/data and what other implementations answered: what the tests of whole
 * models share. */
#ifndef TESTS_CONFORMANCE_H
#define TESTS_CONFORMANCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* PERIDOT_TEST_QUICK=1 */
bool is_quick(void);

/* A checkpoint's folder by its name; an absolute path is one already. Valid until the next call. */
const char *path_of(const char *name);

/* A text and the logits after each of its tokens, [rows][vocabulary]. */
struct data {
    int32_t *tokens;
    size_t count;
    float *logits;
    size_t rows, vocabulary; /* rows == count */
};
struct data read_data(const char *name);
void free_data(struct data *data);

/* sum (a - b)^2 / sum b^2 */
double nmse(const float *a, const float *b, size_t count);

#endif
