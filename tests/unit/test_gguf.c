/* GGUF files: what is read from good ones, and each kind of damage with its sentence. */
#include "gguf.h"
#include "must.h"
#include "unit/gguf_writer.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* Parses a copy that ends where the file does, so that a sanitizer sees what reads beyond. */
static peridot_result parse_copy(const struct gguf_writer *writer, size_t size, struct gguf *file,
                                 peridot_error *error) {
    uint8_t *copy = malloc(size ? size : 1);
    assert_non_null(copy);
    memcpy(copy, writer->bytes, size);
    peridot_result result = gguf_parse(copy, size, "bad.gguf", file, error);
    if (!result)
        gguf_free(file);
    free(copy);
    return result;
}

/* ---- Good files ---- */

/* Every kind of value, and three tensors. */
static void write_good(struct gguf_writer *w) {
    gguf_write_begin(w);
    gguf_write_string(w, "general.architecture", "gemma");
    gguf_write_key(w, "a.u8", GGUF_UINT8);
    gguf_write_number(w, 200, 1);
    gguf_write_key(w, "a.i8", GGUF_INT8);
    gguf_write_number(w, 200, 1);
    gguf_write_key(w, "a.u16", GGUF_UINT16);
    gguf_write_number(w, 65535, 2);
    gguf_write_key(w, "a.i16", GGUF_INT16);
    gguf_write_number(w, 65535, 2);
    gguf_write_u32(w, "a.u32", 4000000000u);
    gguf_write_key(w, "a.i32", GGUF_INT32);
    gguf_write_number(w, 4000000000u, 4);
    gguf_write_key(w, "a.u64", GGUF_UINT64);
    gguf_write_number(w, UINT64_MAX, 8);
    gguf_write_key(w, "a.i64", GGUF_INT64);
    gguf_write_number(w, (uint64_t)INT64_MIN, 8);
    gguf_write_f32(w, "a.f32", 0.5f);
    gguf_write_key(w, "a.f64", GGUF_FLOAT64);
    gguf_write_number(w, 0x3fd5555555555555, 8);
    gguf_write_bool(w, "a.bool", 1);
    gguf_write_array(w, "a.texts", GGUF_STRING, 3);
    gguf_write_text(w, "one");
    gguf_write_text(w, "");
    gguf_write_text(w, "three");
    gguf_write_array(w, "a.numbers", GGUF_INT32, 2);
    gguf_write_number(w, 7, 4);
    gguf_write_number(w, UINT32_MAX, 4);
    gguf_write_array(w, "a.reals", GGUF_FLOAT32, 1);
    gguf_write_number(w, 0x3f000000, 4);
    gguf_write_array(w, "a.nested", GGUF_ARRAY, 2); /* [[1, 2], ["x"]] */
    gguf_write_number(w, GGUF_UINT8, 4);
    gguf_write_number(w, 2, 8);
    gguf_write_number(w, 0x0201, 2);
    gguf_write_number(w, GGUF_STRING, 4);
    gguf_write_number(w, 1, 8);
    gguf_write_text(w, "x");
    gguf_write_tensor(w, "z.weight", 2 /* Q4_0 */, 64, 3);
    gguf_write_tensor(w, "norm.weight", 0 /* F32 */, 5, 0);
    gguf_write_tensor(w, "k.weight", 14 /* Q6_K */, 512, 2);
    gguf_write_data(w);
}

static void check_numbers(const struct gguf *file) {
    static const struct {
        const char *key;
        int64_t value;
    } integers[] = {{"a.u8", 200},        {"a.i8", -56},         {"a.u16", 65535},
                    {"a.i16", -1},        {"a.u32", 4000000000}, {"a.i32", -294967296},
                    {"a.u64", INT64_MAX}, {"a.i64", INT64_MIN}};
    for (size_t i = 0; i < COUNT(integers); i++) {
        int64_t value = 0;
        MUST(gguf_integer(file, integers[i].key, INT64_MIN, INT64_MAX, &value, &error));
        assert_true(value == integers[i].value);
    }
    double narrow = 0, wide = 0, absent = 3;
    bool flag = false;
    MUST(gguf_real(file, "a.f32", 0, 1, &narrow, &error));
    MUST(gguf_real(file, "a.f64", 0, 1, &wide, &error));
    MUST(gguf_real(file, "a.none", 0, 1, &absent, &error));
    MUST(gguf_bool(file, "a.bool", &flag, &error));
    assert_true(narrow == 0.5 && wide == 1.0 / 3.0 && absent == 3 && flag);
}

static void check_arrays(const struct gguf *file) {
    const struct gguf_value *texts = NULL, *numbers = NULL, *reals = NULL, *absent = NULL;
    MUST(gguf_array(file, "a.texts", GGUF_STRING, &texts, &error));
    MUST(gguf_array(file, "a.numbers", GGUF_INT32, &numbers, &error));
    MUST(gguf_array(file, "a.reals", GGUF_FLOAT32, &reals, &error));
    MUST(gguf_array(file, "a.none", GGUF_STRING, &absent, &error));
    const uint8_t *at = texts->data;
    assert_int_equal(texts->count, 3);
    assert_true(gguf_string_is(gguf_next_string(&at), "one"));
    assert_true(gguf_string_is(gguf_next_string(&at), ""));
    assert_true(gguf_string_is(gguf_next_string(&at), "three"));
    assert_int_equal(numbers->count, 2);
    assert_int_equal(gguf_integer_at(numbers, 0), 7);
    assert_int_equal(gguf_integer_at(numbers, 1), -1);
    assert_true(gguf_real_at(reals, 0) == 0.5f);
    assert_null(absent);
}

static void check_tensors(const struct gguf *file, const struct gguf_writer *w) {
    assert_int_equal(file->tensor_count, 3);
    const struct gguf_tensor *first = gguf_find_tensor(file, "z.weight");
    const struct gguf_tensor *norm = gguf_find_tensor(file, "norm.weight");
    const struct gguf_tensor *last = gguf_find_tensor(file, "k.weight");
    assert_non_null(first);
    assert_non_null(norm);
    assert_non_null(last);
    assert_null(gguf_find_tensor(file, "k.weigh"));
    assert_int_equal(first->type, WEIGHT_Q4_0);
    assert_int_equal(first->dimensions, 2);
    assert_int_equal(first->shape[0], 64);
    assert_int_equal(first->shape[1], 3);
    assert_int_equal(first->size, 3 * 2 * 18);
    assert_int_equal(norm->dimensions, 1);
    assert_int_equal(norm->size, 20);
    assert_int_equal(last->type, WEIGHT_Q6_K);
    assert_int_equal(last->size, 2 * 2 * 210);
    const uint8_t *data = w->bytes + w->size - w->data_size;
    assert_int_equal(first->begin, data - w->bytes);
    assert_int_equal(norm->begin, data + 128 - w->bytes);
    assert_int_equal(last->begin, data + 160 - w->bytes);
}

static void test_good(void **state) {
    (void)state;
    struct gguf_writer w;
    struct gguf file;
    write_good(&w);
    for (uint32_t version = 2; version <= 3; version++) {
        gguf_write_over(&w, 4, version, 4);
        MUST(gguf_parse(w.bytes, w.size, "good.gguf", &file, &error));
        assert_int_equal(file.version, version);
        check_numbers(&file);
        check_arrays(&file);
        check_tensors(&file, &w);
        gguf_free(&file);
    }
    gguf_write_free(&w);
}

static void test_alignment(void **state) {
    (void)state;
    for (uint32_t alignment = 1; alignment <= 4096; alignment *= 2) {
        struct gguf_writer w;
        struct gguf file;
        gguf_write_begin(&w);
        gguf_write_u32(&w, "general.alignment", alignment);
        gguf_write_tensor_at(&w, "a", 0, (uint64_t[]){1}, 1, 0);
        gguf_write_tensor_at(&w, "b", 0, (uint64_t[]){1}, 1, alignment < 4 ? 4 : alignment);
        while (w.size % alignment)
            gguf_write_number(&w, 0, 1);
        size_t begin = w.size;
        for (uint32_t i = 0; i < alignment + 8; i++)
            gguf_write_number(&w, i, 1);
        MUST(gguf_parse(w.bytes, w.size, "good.gguf", &file, &error));
        assert_int_equal(file.tensors[0].begin, begin);
        assert_int_equal(file.tensors[1].begin, begin + (alignment < 4 ? 4 : alignment));
        gguf_free(&file);
        gguf_write_free(&w);
    }
}

/* ---- Truncation ---- */

static void test_truncated(void **state) {
    (void)state;
    struct gguf_writer w;
    struct gguf file;
    char whole[64], here[64];
    write_good(&w);
    size_t header = w.size - w.data_size;
    snprintf(whole, sizeof whole, " bytes of %zu: the download is incomplete", w.size);
    for (size_t size = 0; size < w.size; size++) {
        peridot_error error = {0};
        assert_int_equal(parse_copy(&w, size, &file, &error), PERIDOT_ERROR_FORMAT);
        snprintf(here, sizeof here, "%zu bytes", size);
        assert_non_null(strstr(error.message, here));
        assert_non_null(strstr(error.message, "bad.gguf"));
        assert_non_null(strstr(error.message, "fetch it again"));
        if (size >= header)
            assert_non_null(strstr(error.message, whole));
        else if (size >= 4)
            assert_non_null(strstr(error.message, "incomplete"));
    }
    MUST(parse_copy(&w, w.size, &file, &error));
    gguf_write_free(&w);
}

/* ---- Damage in the header ---- */

static void bad_magic(struct gguf_writer *w) {
    w->bytes[0] = 'g';
}
static void version_1(struct gguf_writer *w) {
    gguf_write_over(w, 4, 1, 4);
}
static void version_4(struct gguf_writer *w) {
    gguf_write_over(w, 4, 4, 4);
}
static void big_endian(struct gguf_writer *w) {
    gguf_write_over(w, 4, 3u << 24, 4);
}
static void many_tensors(struct gguf_writer *w) {
    gguf_write_over(w, 8, (uint64_t)1 << 62, 8);
}
static void many_entries(struct gguf_writer *w) {
    gguf_write_over(w, 16, UINT64_MAX, 8);
}
static void few_bytes(struct gguf_writer *w) {
    gguf_write_over(w, 16, 60000, 8); /* possible in itself */
}
static void long_key(struct gguf_writer *w) {
    gguf_write_key(w, "k", GGUF_UINT8);
    gguf_write_over(w, 24, UINT64_MAX - 7, 8);
}
static void empty_key(struct gguf_writer *w) {
    gguf_write_string(w, "", "some text that is long enough");
}
static void odd_key(struct gguf_writer *w) {
    gguf_write_string(w, "a\x1b[2Jb", "some text that is long enough");
}
static void unknown_kind(struct gguf_writer *w) {
    gguf_write_key(w, "a.key", GGUF_KIND_COUNT);
    gguf_write_number(w, 0, 8);
}
static void unknown_element(struct gguf_writer *w) {
    gguf_write_array(w, "a.key", (enum gguf_kind)77, 1);
    gguf_write_number(w, 0, 8);
}
static void long_text(struct gguf_writer *w) {
    gguf_write_key(w, "a.key", GGUF_STRING);
    gguf_write_number(w, (uint64_t)1 << 63, 8);
    gguf_write_number(w, 0, 8);
}
static void long_array(struct gguf_writer *w) {
    gguf_write_array(w, "a.key", GGUF_UINT64, ((uint64_t)1 << 61) + 1); /* 8 bytes, modulo 2^64 */
    gguf_write_number(w, 0, 8);
}
static void many_texts(struct gguf_writer *w) {
    gguf_write_array(w, "a.key", GGUF_STRING, UINT64_MAX);
    gguf_write_text(w, "");
}
static void deep_arrays(struct gguf_writer *w) {
    gguf_write_array(w, "a.key", GGUF_ARRAY, 1);
    for (int i = 0; i < 100000; i++) {
        gguf_write_number(w, GGUF_ARRAY, 4);
        gguf_write_number(w, 1, 8);
    }
}
static void six_arrays(struct gguf_writer *w) {
    gguf_write_array(w, "a.key", GGUF_ARRAY, 1);
    for (int i = 0; i < 4; i++) {
        gguf_write_number(w, GGUF_ARRAY, 4);
        gguf_write_number(w, 1, 8);
    }
    gguf_write_number(w, GGUF_UINT8, 4);
    gguf_write_number(w, 0, 8);
}
static void odd_bool(struct gguf_writer *w) {
    gguf_write_bool(w, "a.flag", 2);
    gguf_write_number(w, 0, 8);
}
static void key_twice(struct gguf_writer *w) {
    gguf_write_u32(w, "a.key", 1);
    gguf_write_u32(w, "b.key", 1);
    gguf_write_u32(w, "a.key", 1);
}
static void no_alignment(struct gguf_writer *w) {
    gguf_write_u32(w, "general.alignment", 0);
}
static void odd_alignment(struct gguf_writer *w) {
    gguf_write_u32(w, "general.alignment", 48);
}
static void large_alignment(struct gguf_writer *w) {
    gguf_write_u32(w, "general.alignment", 1u << 31);
}
static void text_alignment(struct gguf_writer *w) {
    gguf_write_string(w, "general.alignment", "32");
}

static void test_bad_headers(void **state) {
    (void)state;
    static const struct {
        void (*damage)(struct gguf_writer *w);
        peridot_result code;
        const char *says;
    } cases[] = {
        {bad_magic, PERIDOT_ERROR_FORMAT, "does not begin as a GGUF file does"},
        {version_1, PERIDOT_ERROR_UNSUPPORTED, "GGUF version 1"},
        {version_4, PERIDOT_ERROR_UNSUPPORTED, "GGUF version 4"},
        {big_endian, PERIDOT_ERROR_UNSUPPORTED, "big-endian"},
        {many_tensors, PERIDOT_ERROR_FORMAT, "announces 4611686018427387904 tensors"},
        {many_entries, PERIDOT_ERROR_FORMAT, "announces 18446744073709551615 metadata entries"},
        {few_bytes, PERIDOT_ERROR_FORMAT, "announces 60000 metadata entries"},
        {long_key, PERIDOT_ERROR_FORMAT, "ends within its header, at metadata entry 1 of 1:"},
        {empty_key, PERIDOT_ERROR_FORMAT, "metadata entry 1 of 1 has a key that is no name"},
        {odd_key, PERIDOT_ERROR_FORMAT, "metadata entry 1 of 1 has a key that is no name"},
        {unknown_kind, PERIDOT_ERROR_FORMAT, "1 of 1, a.key has a value of an unknown kind"},
        {unknown_element, PERIDOT_ERROR_FORMAT, "array of values of an unknown kind"},
        {long_text, PERIDOT_ERROR_FORMAT,
         "ends within its header, at metadata entry 1 of 1, a.key"},
        {long_array, PERIDOT_ERROR_FORMAT, "at metadata entry 1 of 1, a.key"},
        {many_texts, PERIDOT_ERROR_FORMAT, "at metadata entry 1 of 1, a.key"},
        {deep_arrays, PERIDOT_ERROR_FORMAT, "a.key has arrays within arrays"},
        {six_arrays, PERIDOT_ERROR_FORMAT, "a.key has arrays within arrays"},
        {odd_bool, PERIDOT_ERROR_FORMAT, "a.flag is neither true nor false"},
        {key_twice, PERIDOT_ERROR_FORMAT, "key a.key is there twice"},
        {no_alignment, PERIDOT_ERROR_FORMAT, "general.alignment is 0"},
        {odd_alignment, PERIDOT_ERROR_FORMAT, "general.alignment is 48, no power of two"},
        {large_alignment, PERIDOT_ERROR_FORMAT, "general.alignment is 2147483648"},
        {text_alignment, PERIDOT_ERROR_FORMAT, "general.alignment must be a whole number"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct gguf_writer w;
        struct gguf file;
        peridot_error error = {0};
        gguf_write_begin(&w);
        cases[i].damage(&w);
        assert_int_equal(parse_copy(&w, w.size, &file, &error), cases[i].code);
        assert_non_null(strstr(error.message, "bad.gguf"));
        if (!strstr(error.message, cases[i].says))
            fail_msg("\"%s\" does not say \"%s\"", error.message, cases[i].says);
        gguf_write_free(&w);
    }
}

/* ---- Damaged tensors ---- */

static void test_bad_tensors(void **state) {
    (void)state;
    static const struct {
        struct {
            const char *name;
            uint32_t type, dimensions;
            uint64_t shape[5], offset;
        } tensors[2];
        const char *says;
    } cases[] = {
        {{{"a", 0, 0, {0}, 0}}, "tensor 1 of 1, a has an impossible number of dimensions"},
        {{{"a", 0, 5, {1, 1, 1, 1, 1}, 0}}, "tensor 1 of 1, a has an impossible number"},
        {{{"a", 0, 2, {4, 0}, 0}}, "a has an impossible shape"},
        {{{"a", 0, 2, {UINT32_MAX, UINT32_MAX}, 0}}, "a has an impossible shape"},
        {{{"a", 0, 4, {1 << 16, 1 << 16, 1 << 16, 1 << 16}, 0}}, "a has an impossible shape"},
        {{{"a", 0, 1, {UINT64_MAX}, 0}}, "a has an impossible shape"},
        {{{"a", 0, 1, {4}, UINT64_MAX - 31}}, "a has an impossible offset"},
        {{{"a", 0, 1, {4}, 16}}, "tensor a is not aligned to 32 bytes"},
        {{{"a", 0, 1, {4}, 1 << 20}}, ""}, /* numbers: see below */
        {{{"a", 2, 2, {48, 2}, 0}}, "a has rows that are no whole number of its type's blocks"},
        {{{"a", 12, 2, {128, 2}, 0}}, "a has rows that are no whole number of its type's blocks"},
        {{{"a\nb", 0, 1, {4}, 0}}, "tensor 1 of 1 has a name that is none"},
        {{{"", 0, 1, {4}, 0}}, "tensor 1 of 1 has a name that is none"},
        {{{"a", 0, 1, {4}, 0}, {"a", 0, 1, {4}, 32}}, "tensor a is there twice"},
        {{{"a", 0, 1, {4}, 0}, {"b", 0, 1, {4}, 0}}, "overlap"},
        {{{"a", 0, 1, {9}, 0}, {"b", 0, 1, {4}, 32}}, "tensors a and b overlap"},
        {{{"b", 0, 1, {4}, 32}, {"a", 0, 1, {17}, 0}}, "tensors a and b overlap"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct gguf_writer w;
        struct gguf file;
        peridot_error error = {0};
        char says[128];
        gguf_write_begin(&w);
        for (int j = 0; j < 2 && cases[i].tensors[j].name; j++)
            gguf_write_tensor_at(&w, cases[i].tensors[j].name, cases[i].tensors[j].type,
                                 cases[i].tensors[j].shape, cases[i].tensors[j].dimensions,
                                 cases[i].tensors[j].offset);
        w.data_size = 256;
        gguf_write_data(&w);
        snprintf(says, sizeof says, "%s", cases[i].says);
        if (cases[i].tensors[0].offset == 1 << 20)
            snprintf(says, sizeof says, "%zu bytes of %zu: the download is incomplete", w.size,
                     w.size - 256 + (1 << 20) + 16);
        assert_int_equal(parse_copy(&w, w.size, &file, &error), PERIDOT_ERROR_FORMAT);
        assert_non_null(strstr(error.message, "bad.gguf"));
        if (!strstr(error.message, says))
            fail_msg("\"%s\" does not say \"%s\"", error.message, says);
        gguf_write_free(&w);
    }
}

/* A tensor of a type that is not used is known by name, and its data are nobody's. */
static void test_other_types(void **state) {
    (void)state;
    static const struct {
        uint32_t number;
        const char *name;
    } types[] = {{16, "IQ2_XXS"}, {20, "IQ4_NL"}, {23, "IQ4_XS"}, {24, "I8"},      {29, "IQ1_M"},
                 {34, "TQ1_0"},   {35, "TQ2_0"},  {39, "MXFP4"},  {99, "type 99"}, {9, "Q8_1"}};
    for (size_t i = 0; i < COUNT(types); i++) {
        struct gguf_writer w;
        struct gguf file;
        gguf_write_begin(&w);
        gguf_write_tensor_at(&w, "a", types[i].number, (uint64_t[]){7}, 1, (uint64_t)1 << 40);
        MUST(gguf_parse(w.bytes, w.size, "good.gguf", &file, &error));
        assert_int_equal(file.tensors[0].type, WEIGHT_TYPE_COUNT);
        assert_string_equal(file.tensors[0].type_name, types[i].name);
        assert_int_equal(file.tensors[0].begin, 0);
        gguf_free(&file);
        gguf_write_free(&w);
    }
}

/* ---- Metadata of another kind ---- */

static void assert_says(peridot_result result, const peridot_error *error, const char *says) {
    assert_int_equal(result, PERIDOT_ERROR_FORMAT);
    if (!strstr(error->message, says))
        fail_msg("\"%s\" does not say \"%s\"", error->message, says);
}

static void test_bad_values(void **state) {
    (void)state;
    struct gguf_writer w;
    struct gguf file;
    peridot_error e;
    int64_t integer = 5;
    double real = 5;
    bool flag = true;
    struct gguf_string text = {0};
    const struct gguf_value *array = NULL;
    write_good(&w);
    gguf_write_over(&w, 4, 3, 4);
    MUST(gguf_parse(w.bytes, w.size, "x.gguf", &file, &error));
    assert_says(gguf_integer(&file, "a.u8", 1, 100, &integer, &e), &e,
                "x.gguf: a.u8 is 200; it must be a whole number from 1 to 100");
    assert_says(gguf_integer(&file, "a.i8", 0, 100, &integer, &e), &e, "a.i8 is -56");
    assert_says(gguf_integer(&file, "a.f32", 0, 1, &integer, &e), &e,
                "a.f32 must be a whole number");
    assert_says(gguf_integer(&file, "a.texts", 0, 1, &integer, &e), &e, "a.texts must be a whole");
    assert_says(gguf_real(&file, "a.f32", 1, 2, &real, &e), &e,
                "a.f32 must be a number from 1 to 2");
    assert_says(gguf_real(&file, "a.u8", 1, 2, &real, &e), &e, "a.u8 must be a number");
    assert_says(gguf_bool(&file, "a.u8", &flag, &e), &e, "a.u8 must be true or false");
    assert_says(gguf_string(&file, "a.u8", &text, &e), &e, "a.u8 must be a text");
    assert_says(gguf_array(&file, "a.u8", GGUF_STRING, &array, &e), &e, "an array of texts");
    assert_says(gguf_array(&file, "a.texts", GGUF_INT32, &array, &e), &e,
                "a.texts must be an array of int32 numbers");
    assert_says(gguf_array(&file, "a.nested", GGUF_FLOAT32, &array, &e), &e,
                "a.nested must be an array of float32 numbers");
    assert_true(integer == 5 && real == 5 && flag && !text.text && !array);
    gguf_free(&file);
    gguf_write_free(&w);
    gguf_write_begin(&w);
    gguf_write_f32(&w, "a.nan", NAN);
    MUST(gguf_parse(w.bytes, w.size, "x.gguf", &file, &error));
    assert_says(gguf_real(&file, "a.nan", -INFINITY, INFINITY, &real, &e), &e, "a.nan must be");
    gguf_free(&file);
    gguf_write_free(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),        cmocka_unit_test(test_alignment),
        cmocka_unit_test(test_truncated),   cmocka_unit_test(test_bad_headers),
        cmocka_unit_test(test_bad_tensors), cmocka_unit_test(test_other_types),
        cmocka_unit_test(test_bad_values),
    };
    return cmocka_run_group_tests_name("gguf", tests, NULL, NULL);
}
