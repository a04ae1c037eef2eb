/* peridot_convert as applications call it. What the files hold, tests/model/check_convert.py looks
 * at. */
#include "must.h"
#include "peridot.h"
#include "platform.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define POISON 0xa5

static char folder[] = "/tmp/peridot-convert-XXXXXX";
static char target[64], other[64];

static int make_folder(void **state) {
    (void)state;
    if (!mkdtemp(folder))
        return -1;
    snprintf(target, sizeof target, "%s/a.gguf", folder);
    snprintf(other, sizeof other, "%s/b.gguf", folder);
    return 0;
}

/* Fails where anything but the two files was left. */
static int remove_folder(void **state) {
    (void)state;
    unlink(target);
    unlink(other);
    return rmdir(folder);
}

static void expect_same_files(void) {
    struct file_bytes a, b;
    MUST(platform_read_file(target, &a, &error));
    MUST(platform_read_file(other, &b, &error));
    assert_int_equal(a.size, b.size);
    assert_memory_equal(a.data, b.data, a.size);
    platform_free_file(&a);
    platform_free_file(&b);
}

static void test_threads(void **state) {
    (void)state;
    peridot_convert_params one = {.struct_size = sizeof one, .threads = 1};
    peridot_convert_params many = {.struct_size = sizeof many, .threads = 100};
    one.weights = many.weights = PERIDOT_WEIGHTS_F32;
    MUST(peridot_convert(DEMO_MODEL, target, &one, &error));
    MUST(peridot_convert(DEMO_MODEL, other, &many, &error));
    expect_same_files();
}

/* Without params, or with those of an older header, each tensor is as it was. */
static void test_defaults(void **state) {
    (void)state;
    peridot_convert_params file = {.struct_size = sizeof file, .weights = PERIDOT_WEIGHTS_FILE};
    peridot_convert_params older;
    memset(&older, POISON, sizeof older);
    older.struct_size = offsetof(peridot_convert_params, threads);
    older.weights = PERIDOT_WEIGHTS_AUTO;
    MUST(peridot_convert(DEMO_MODEL, target, &file, &error));
    MUST(peridot_convert(DEMO_MODEL, other, NULL, &error));
    expect_same_files();
    MUST(peridot_convert(DEMO_MODEL, other, &older, &error));
    expect_same_files();
}

struct seen {
    uint64_t done, all;
    uint32_t calls, cancel_at; /* 0: never */
    bool orderly;
    char messages[512];
};

static bool on_progress(const peridot_progress *progress, void *user) {
    struct seen *seen = user;
    seen->orderly = seen->orderly && strcmp(progress->stage, "converting") == 0 &&
                    progress->done > seen->done && progress->done <= progress->all;
    seen->done = progress->done;
    seen->all = progress->all;
    return ++seen->calls != seen->cancel_at;
}

static void on_message(const char *text, void *user) {
    struct seen *seen = user;
    size_t length = strlen(seen->messages);
    snprintf(seen->messages + length, sizeof seen->messages - length, "%s\n", text);
}

static peridot_convert_params watched(struct seen *seen) {
    *seen = (struct seen){.orderly = true};
    return (peridot_convert_params){.struct_size = sizeof(peridot_convert_params),
                                    .weights = PERIDOT_WEIGHTS_Q6_K,
                                    .progress = on_progress,
                                    .progress_user = seen,
                                    .message = on_message,
                                    .message_user = seen};
}

static void test_progress(void **state) {
    (void)state;
    struct seen seen;
    peridot_convert_params params = watched(&seen);
    MUST(peridot_convert(TEST_DATA "/deep-f32", target, &params, &error));
    assert_true(seen.orderly && seen.done == seen.all && seen.all > 0);
    assert_int_equal(seen.calls, 2 + 9); /* one for each of the model's tensors, which are small */
    assert_string_equal(seen.messages,
                        "6 matrices are written as bf16, for the rows are no multiple of 32 "
                        "elements, the blocks of GGUF's types\n"
                        "2 matrices are written as q8_0, for the rows are no multiple of 256 "
                        "elements, the blocks of GGUF's types\n"
                        "there is no tokenizer beside the model: the file is without one\n");
}

/* Wherever it is cancelled, what was there stays, and nothing is told. */
static void test_cancelling(void **state) {
    (void)state;
    struct seen seen;
    MUST(peridot_convert(DEMO_MODEL, target, NULL, &error));
    MUST(peridot_convert(DEMO_MODEL, other, NULL, &error));
    for (uint32_t call = 1; call <= 11; call++) {
        peridot_error error = {0};
        peridot_convert_params params = watched(&seen);
        seen.cancel_at = call;
        assert_int_equal(peridot_convert(TEST_DATA "/deep-f32", target, &params, &error),
                         PERIDOT_ERROR_CANCELLED);
        assert_int_equal(error.code, PERIDOT_ERROR_CANCELLED);
        assert_non_null(strstr(error.message, target));
        assert_int_equal(seen.calls, call);
        assert_string_equal(seen.messages, "");
        expect_same_files();
    }
}

static bool shrink_other(const peridot_progress *progress, void *user) {
    (void)progress;
    return truncate(other, *(const off_t *)user) == 0;
}

/* What shrinks while it is read is told of, and nothing is written. */
static void test_shrinking(void **state) {
    (void)state;
    peridot_error error = {0};
    struct file_bytes model;
    MUST(platform_read_file(TEST_DATA "/gguf/late-q4_0.gguf", &model, &error));
    off_t size = (off_t)model.size / 2;
    unlink(target);
    FILE *stream = fopen(other, "wb");
    assert_non_null(stream);
    assert_int_equal(fwrite(model.data, 1, model.size, stream), model.size);
    assert_int_equal(fclose(stream), 0);
    platform_free_file(&model);
    peridot_convert_params params = {
        .struct_size = sizeof params, .progress = shrink_other, .progress_user = &size};
    assert_int_equal(peridot_convert(other, target, &params, &error), PERIDOT_ERROR_FILE);
    assert_non_null(strstr(error.message, other));
    assert_non_null(strstr(error.message, "ends at byte"));
    assert_false(platform_is_file(target));
}

static void expect_refused(const peridot_convert_params *params, const char *to,
                           peridot_result code, const char *words) {
    peridot_error error = {0};
    assert_int_equal(peridot_convert(DEMO_MODEL, to, params, &error), code);
    assert_int_equal(error.code, code);
    if (!strstr(error.message, words))
        fail_msg("\"%s\" lacks \"%s\"", error.message, words);
    assert_int_equal(peridot_convert(DEMO_MODEL, to, params, NULL), code);
}

static void test_refusals(void **state) {
    (void)state;
    peridot_convert_params unset = {0}, params = {.struct_size = sizeof params};
    expect_refused(&unset, target, PERIDOT_ERROR_ARGUMENT, "peridot_convert_params");
    params.weights = PERIDOT_WEIGHTS_NF4;
    expect_refused(&params, target, PERIDOT_ERROR_UNSUPPORTED, "nf4");
    params.weights = (peridot_weights)(PERIDOT_WEIGHTS_NF4 + 1);
    expect_refused(&params, target, PERIDOT_ERROR_ARGUMENT, "weight type");
    params.weights = (peridot_weights)(PERIDOT_WEIGHTS_FILE - 1);
    expect_refused(&params, target, PERIDOT_ERROR_ARGUMENT, "weight type");
    expect_refused(NULL, DEMO_MODEL "/config.json", PERIDOT_ERROR_ARGUMENT, "own files");
    expect_refused(NULL, folder, PERIDOT_ERROR_FILE, "not a regular file");
    expect_refused(NULL, "/nonexistent/a.gguf", PERIDOT_ERROR_FILE, "No such file");
    expect_refused(NULL, "", PERIDOT_ERROR_FILE, "cannot write");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_threads),   cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_progress),  cmocka_unit_test(test_cancelling),
        cmocka_unit_test(test_shrinking), cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests_name("convert", tests, make_folder, remove_folder);
}
