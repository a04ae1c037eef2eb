/* The base of a comparison: what is read is what was written within the stated bounds, and every
 * kind of damage is noticed. */
#include "logit_file.h"
#include "must.h"
#include "reference/random.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define VOCABULARY_MAX 1001
#define ROWS 6

static char path[] = "/tmp/peridot-logit-file-XXXXXX";

static int make_place(void **state) {
    (void)state;
    int descriptor = mkstemp(path);
    return descriptor < 0 || close(descriptor) != 0;
}

static int remove_place(void **state) {
    (void)state;
    return unlink(path);
}

static struct logit_file_key key_of(uint32_t vocabulary) {
    static const int32_t text[] = {5, 6, 7};
    return (struct logit_file_key){logit_file_text(text, 3), vocabulary, 512, 511, ROWS};
}

/* Row r spans r * 20 nats: the first is uniform. */
static void fill(float logits[ROWS][VOCABULARY_MAX], uint32_t vocabulary, struct random *random) {
    for (uint32_t row = 0; row < ROWS; row++)
        for (uint32_t i = 0; i < vocabulary; i++)
            logits[row][i] = (float)(random_uniform(random) * row * 20 - 30);
}

static void save(const void *bytes, size_t size) {
    FILE *stream = fopen(path, "wb");
    assert_non_null(stream);
    assert_int_equal(fwrite(bytes, 1, size, stream), size);
    assert_int_equal(fclose(stream), 0);
}

/* Writes a whole file; row r's token that came is r. */
static void write_file(const struct logit_file_key *key, float logits[ROWS][VOCABULARY_MAX]) {
    FILE *stream = fopen(path, "wb");
    size_t size = logit_row_bytes(key->vocabulary);
    uint8_t *bytes = malloc(size);
    assert_non_null(stream);
    assert_non_null(bytes);
    assert_true(logit_file_begin(stream, key));
    for (uint32_t i = 0; i < ROWS; i++) {
        struct softmax softmax;
        assert_true(softmax_of(logits[i], key->vocabulary, &softmax));
        struct logit_row row = {softmax_log(&softmax, logits[i][i]), softmax.top};
        logit_row_write(key, i, &row, &softmax, logits[i], bytes);
        assert_int_equal(fwrite(bytes, 1, size, stream), size);
    }
    free(bytes);
    assert_int_equal(fclose(stream), 0);
}

/* ---- What is kept ---- */

/* What a row of the file and the model's own differ in, against the bounds of logit_file.h. */
static void check_row(const float *read, const float *own, const float *other,
                      uint32_t vocabulary) {
    struct softmax read_softmax, own_softmax, other_softmax;
    assert_true(softmax_of(read, vocabulary, &read_softmax));
    assert_true(softmax_of(own, vocabulary, &own_softmax));
    assert_true(softmax_of(other, vocabulary, &other_softmax));
    double least = own_softmax.largest, distance = 0;
    for (uint32_t i = 0; i < vocabulary; i++)
        least = own[i] < least ? own[i] : least;
    double bound = (own_softmax.largest - least) / 130000;
    for (uint32_t i = 0; i < vocabulary; i++) {
        double error = (double)read[i] - (own[i] - own_softmax.largest);
        double log = softmax_log(&own_softmax, own[i]);
        assert_true(fabs(error) <= bound);
        distance += exp(log) * fabs(log - softmax_log(&other_softmax, other[i]));
    }
    double self = divergence(read, &read_softmax, own, &own_softmax, vocabulary);
    assert_true(self <= bound * bound / 2 + 1e-15);
    double away = divergence(read, &read_softmax, other, &other_softmax, vocabulary);
    double truth = divergence(own, &own_softmax, other, &other_softmax, vocabulary);
    assert_true(fabs(away - truth) <=
                bound * bound / 2 + (exp(2 * bound) - 1) * distance + 1e-12 * truth);
}

static void test_round_trip(void **state) {
    (void)state;
    static float logits[ROWS][VOCABULARY_MAX], others[ROWS][VOCABULARY_MAX];
    float read[VOCABULARY_MAX];
    struct random random = random_announced();
    for (uint32_t vocabulary = ROWS; vocabulary <= VOCABULARY_MAX; vocabulary += 199) {
        struct logit_file_key key = key_of(vocabulary);
        struct logit_file file;
        fill(logits, vocabulary, &random);
        fill(others, vocabulary, &random);
        write_file(&key, logits);
        MUST(logit_file_open(path, &key, &file, &error));
        for (uint32_t i = ROWS; i-- > 0;) {
            struct logit_row row;
            struct softmax softmax;
            MUST(logit_file_row(&file, i, &row, read, &error));
            assert_true(softmax_of(logits[i], vocabulary, &softmax));
            assert_true(row.log_probability == softmax_log(&softmax, logits[i][i]));
            assert_int_equal(row.top, softmax.top);
            check_row(read, logits[i], others[i], vocabulary);
        }
        logit_file_close(&file);
    }
}

/* Logits may be anything finite; what is read back is too. */
static void test_absurd_logits(void **state) {
    (void)state;
    struct random random = random_start(1);
    static float logits[ROWS][VOCABULARY_MAX];
    float read[VOCABULARY_MAX];
    struct logit_file_key key = key_of(7);
    struct logit_file file;
    fill(logits, 7, &random);
    logits[2][0] = FLT_MAX;
    logits[2][1] = -FLT_MAX;
    logits[3][4] = logits[3][5] + FLT_MIN;
    write_file(&key, logits);
    MUST(logit_file_open(path, &key, &file, &error));
    for (uint32_t i = 0; i < ROWS; i++) {
        struct logit_row row;
        struct softmax softmax;
        MUST(logit_file_row(&file, i, &row, read, &error));
        assert_true(softmax_of(read, 7, &softmax));
    }
    logit_file_close(&file);
}

/* ---- What is refused ---- */

/* The first error of opening the file and reading all of it. */
static peridot_result read_all(const struct logit_file_key *key, peridot_error *error) {
    struct logit_file file;
    struct logit_row row;
    float read[VOCABULARY_MAX];
    peridot_result result = logit_file_open(path, key, &file, error);
    if (result)
        return result;
    for (uint32_t i = 0; i < key->scored && !result; i++)
        result = logit_file_row(&file, i, &row, read, error);
    logit_file_close(&file);
    return result;
}

static uint8_t *read_back(size_t *size) {
    struct file_bytes file;
    MUST(platform_read_file(path, &file, &error));
    uint8_t *bytes = malloc(file.size + 1);
    assert_non_null(bytes);
    memcpy(bytes, file.data, file.size);
    bytes[file.size] = 0;
    *size = file.size;
    platform_free_file(&file);
    return bytes;
}

static void test_damage(void **state) {
    (void)state;
    struct random random = random_start(1);
    static float logits[ROWS][VOCABULARY_MAX];
    struct logit_file_key key = key_of(9);
    peridot_error error;
    size_t size, row = logit_row_bytes(9);
    fill(logits, 9, &random);
    write_file(&key, logits);
    assert_int_equal(read_all(&key, &error), PERIDOT_OK);
    uint8_t *bytes = read_back(&size);
    for (size_t i = 0; i < size; i++) {
        save(bytes, i);
        assert_int_equal(read_all(&key, &error), PERIDOT_ERROR_FORMAT);
        bytes[i] ^= (uint8_t)(1 << i % 8);
        save(bytes, size);
        assert_int_equal(read_all(&key, &error), PERIDOT_ERROR_FORMAT);
        bytes[i] ^= (uint8_t)(1 << i % 8);
    }
    save(bytes, size + 1);
    assert_int_equal(read_all(&key, &error), PERIDOT_ERROR_FORMAT);
    for (size_t i = 0; i < row; i++) { /* the last two rows change places */
        uint8_t *last = bytes + size - row, kept = last[i];
        last[i] = (last - row)[i];
        (last - row)[i] = kept;
    }
    save(bytes, size);
    assert_int_equal(read_all(&key, &error), PERIDOT_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "damaged"));
    free(bytes);
}

static void refused(const struct logit_file_key *wanted, const char *word) {
    peridot_error error;
    assert_int_equal(read_all(wanted, &error), PERIDOT_ERROR_UNSUPPORTED);
    assert_non_null(strstr(error.message, word));
    assert_non_null(strstr(error.message, path));
}

static void test_others(void **state) {
    (void)state;
    struct random random = random_start(1);
    static float logits[ROWS][VOCABULARY_MAX];
    struct logit_file_key key = key_of(9), other;
    peridot_error error;
    fill(logits, 9, &random);
    write_file(&key, logits);
    other = key, other.vocabulary = 10;
    refused(&other, "vocabulary of 9");
    other = key, other.text = logit_file_text((const int32_t[]){5, 7, 6}, 3);
    refused(&other, "another text");
    other = key, other.window = 256;
    refused(&other, "--context 512");
    other = key, other.stride = 256;
    refused(&other, "--stride 511");
    save("logits", 6);
    assert_int_equal(read_all(&key, &error), PERIDOT_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "--save-base"));
    assert_int_equal(logit_file_open("/nonexistent/base", &key, &(struct logit_file){0}, &error),
                     PERIDOT_ERROR_FILE);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_absurd_logits),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_others),
    };
    return cmocka_run_group_tests_name("logit_file", tests, make_place, remove_place);
}
