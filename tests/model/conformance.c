#include "conformance.h"
#include "must.h"
#include "npy.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

bool is_quick(void) {
    const char *quick = getenv("PERIDOT_TEST_QUICK");
    return quick && *quick == '1';
}

const char *path_of(const char *name) {
    static char path[512];
    snprintf(path, sizeof path, "%s%s%s", *name == '/' ? "" : TEST_DATA, *name == '/' ? "" : "/",
             name);
    return path;
}

struct data read_data(const char *name) {
    struct data data;
    char path[512];
    snprintf(path, sizeof path, "%s/%s/tokens.npy", TEST_DATA, name);
    MUST(npy_read_tokens(path, &data.tokens, &data.count, &error));
    snprintf(path, sizeof path, "%s/%s/logits.npy", TEST_DATA, name);
    MUST(npy_read_floats(path, &data.logits, &data.rows, &data.vocabulary, &error));
    assert_int_equal(data.rows, data.count);
    return data;
}

void free_data(struct data *data) {
    free(data->tokens);
    free(data->logits);
}

double nmse(const float *a, const float *b, size_t count) {
    double difference = 0, power = 0;
    for (size_t i = 0; i < count; i++) {
        difference += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        power += (double)b[i] * b[i];
    }
    return difference / power;
}
