/* GGUF files that Peridot writes: their bytes, as the format says, and what its reader finds. */
#include "gguf_output.h"
#include "must.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct gguf_string text(const char *characters) {
    return (struct gguf_string){characters, strlen(characters)};
}

struct file {
    uint8_t bytes[4096];
    size_t size;
};

/* The header, and for each tensor so many bytes of its number, padded. */
static struct file write(const struct gguf_output *output, const uint64_t *sizes, int count) {
    struct file file = {0};
    FILE *stream = tmpfile();
    assert_non_null(stream);
    assert_true(gguf_output_header(output, stream));
    for (int i = 0; i < count; i++) {
        for (uint64_t j = 0; j < sizes[i]; j++)
            assert_int_not_equal(putc(i + 1, stream), EOF);
        assert_true(gguf_output_padding(sizes[i], stream));
    }
    rewind(stream);
    file.size = fread(file.bytes, 1, sizeof file.bytes, stream);
    fclose(stream);
    return file;
}

/* One entry and two tensors, byte by byte. */
static void test_bytes(void **state) {
    (void)state;
    static const uint8_t header[] = {
        'G', 'G', 'U', 'F', 3, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0,
        /* "k": an array of two int32 */
        1, 0, 0, 0, 0, 0, 0, 0, 'k', 9, 0, 0, 0, 5, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, //
        7, 0, 0, 0, 0xff, 0xff, 0xff, 0xff,
        /* "v": one dimension of 3, F32, at 0 */
        1, 0, 0, 0, 0, 0, 0, 0, 'v', 1, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, //
        0, 0, 0, 0, 0, 0, 0, 0,
        /* "m": 64 columns, then 3 rows, Q4_0, at 32 */
        1, 0, 0, 0, 0, 0, 0, 0, 'm', 2, 0, 0, 0, 64, 0, 0, 0, 0, 0, 0, 0, //
        3, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 32, 0, 0, 0, 0, 0, 0, 0};
    struct gguf_output output = {0};
    gguf_output_array(&output, "k", GGUF_INT32, 2);
    gguf_output_integer_element(&output, 7);
    gguf_output_integer_element(&output, -1);
    gguf_output_tensor(&output, "v", WEIGHT_F32, 3, 0);
    gguf_output_tensor(&output, "m", WEIGHT_Q4_0, 64, 3);
    struct file file = write(&output, (const uint64_t[]){12, 108}, 2);
    assert_memory_equal(file.bytes, header, sizeof header);
    size_t begin = (sizeof header + 31) / 32 * 32;
    for (size_t i = sizeof header; i < begin; i++)
        assert_int_equal(file.bytes[i], 0);
    for (size_t i = begin; i < file.size; i++) {
        size_t at = i - begin;
        assert_int_equal(file.bytes[i], at < 12 ? 1 : at >= 32 && at < 32 + 108 ? 2 : 0);
    }
    assert_int_equal(file.size, begin + 32 + 128);
    assert_true(gguf_output_size(&output) == file.size);
    gguf_output_free(&output);
}

static void fill(struct gguf_output *output) {
    gguf_output_string(output, "a.text", text("Pears"));
    gguf_output_string(output, "a.nothing", text(""));
    gguf_output_string(output, "a.bytes", (struct gguf_string){"\0\xff", 2});
    gguf_output_integer(output, "a.integer", 4000000000);
    gguf_output_real(output, "a.real", 0.5f);
    gguf_output_bool(output, "a.true", true);
    gguf_output_bool(output, "a.false", false);
    gguf_output_array(output, "a.texts", GGUF_STRING, 2);
    gguf_output_string_element(output, text("one"));
    gguf_output_string_element(output, text(""));
    gguf_output_array(output, "a.reals", GGUF_FLOAT32, 2);
    gguf_output_real_element(output, -2.25f);
    gguf_output_real_element(output, 1e-30f);
}

static void check_entries(const struct gguf *file) {
    struct gguf_string string = {0}, nothing = {0}, bytes = {0};
    const struct gguf_value *texts = NULL, *reals = NULL;
    int64_t integer = 0;
    double real = 0;
    bool yes = false, no = true;
    MUST(gguf_string(file, "a.text", &string, &error));
    MUST(gguf_string(file, "a.nothing", &nothing, &error));
    MUST(gguf_string(file, "a.bytes", &bytes, &error));
    MUST(gguf_integer(file, "a.integer", 0, INT64_MAX, &integer, &error));
    MUST(gguf_real(file, "a.real", 0, 1, &real, &error));
    MUST(gguf_bool(file, "a.true", &yes, &error));
    MUST(gguf_bool(file, "a.false", &no, &error));
    MUST(gguf_array(file, "a.texts", GGUF_STRING, &texts, &error));
    MUST(gguf_array(file, "a.reals", GGUF_FLOAT32, &reals, &error));
    assert_int_equal(file->entry_count, 9);
    assert_true(gguf_string_is(string, "Pears") && nothing.text && nothing.length == 0);
    assert_int_equal(bytes.length, 2);
    assert_memory_equal(bytes.text, "\0\xff", 2);
    assert_true(integer == 4000000000 && real == 0.5 && yes && !no);
    const uint8_t *at = texts->data;
    assert_int_equal(texts->count, 2);
    assert_true(gguf_string_is(gguf_next_string(&at), "one"));
    assert_true(gguf_string_is(gguf_next_string(&at), ""));
    assert_int_equal(reals->count, 2);
    assert_true(gguf_real_at(reals, 0) == -2.25f && gguf_real_at(reals, 1) == 1e-30f);
}

/* Every type that files have, read back by Peridot's own reader. */
static void test_read_back(void **state) {
    (void)state;
    struct gguf_output output = {0};
    uint64_t sizes[WEIGHT_TYPE_COUNT];
    int count = 0;
    fill(&output);
    for (int type = 0; type < WEIGHT_TYPE_COUNT; type++) {
        const struct weight_type_info *info = weight_type_info(type);
        if (info->gguf < 0)
            continue;
        gguf_output_tensor(&output, info->name, type, info->block, 1);
        sizes[count++] = info->block_bytes;
    }
    struct file file = write(&output, sizes, count);
    struct gguf gguf;
    MUST(gguf_parse(file.bytes, file.size, "written", &gguf, &error));
    check_entries(&gguf);
    assert_int_equal(gguf.version, 3);
    assert_int_equal(gguf.tensor_count, count);
    for (int type = 0, place = 0; type < WEIGHT_TYPE_COUNT; type++) {
        const struct weight_type_info *info = weight_type_info(type);
        if (info->gguf < 0)
            continue;
        const struct gguf_tensor *tensor = gguf_find_tensor(&gguf, info->name);
        assert_non_null(tensor);
        assert_int_equal(tensor->type, type);
        assert_int_equal(tensor->dimensions, 2);
        assert_true(tensor->shape[0] == info->block && tensor->shape[1] == 1);
        assert_int_equal(tensor->size, sizes[place]);
        const uint8_t *data = file.bytes + tensor->begin;
        assert_int_equal(data[0], place + 1);
        assert_int_equal(data[tensor->size - 1], place + 1);
        place++;
    }
    gguf_free(&gguf);
    gguf_output_free(&output);
}

static void test_nothing(void **state) {
    (void)state;
    struct gguf_output output = {0};
    struct file file = write(&output, NULL, 0);
    struct gguf gguf;
    assert_int_equal(file.size, 32);
    MUST(gguf_parse(file.bytes, file.size, "empty", &gguf, &error));
    assert_true(gguf.entry_count == 0 && gguf.tensor_count == 0);
    gguf_free(&gguf);
}

static void test_no_memory(void **state) {
    (void)state;
    struct gguf_output output = {.failed = true};
    gguf_output_integer(&output, "a.integer", 1);
    FILE *stream = tmpfile();
    assert_non_null(stream);
    assert_false(gguf_output_header(&output, stream));
    assert_int_equal(ftell(stream), 0);
    fclose(stream);
    gguf_output_free(&output);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_read_back),
        cmocka_unit_test(test_nothing),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests_name("gguf_output", tests, NULL, NULL);
}
