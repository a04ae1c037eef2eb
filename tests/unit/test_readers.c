/* Readers of files from outside: each kind of damage gets its sentence. */
#include "half.h"
#include "model_config.h"
#include "npy.h"
#include "safetensors.h"
#include "session.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- config.json ---- */

static peridot_result parse_config(const char *json, struct model_config *config,
                                   peridot_error *error) {
    return model_config_parse(json, strlen(json), "config.json", config, error);
}

static void test_config(void **state) {
    (void)state;
    struct model_config config;
    assert_int_equal(
        parse_config("{\"model_type\":\"gemma\",\"hidden_size\":2048,\"head_dim\":256,"
                     "\"num_attention_heads\":8,\"num_key_value_heads\":1,"
                     "\"eos_token_id\":[1,107],\"hidden_act\":\"gelu\",\"pad_token_id\":null}",
                     &config, NULL),
        PERIDOT_OK);
    assert_int_equal(config.d_model, 2048);
    assert_int_equal(config.vocabulary, 256000); /* the default */
    assert_int_equal(config.eos_count, 2);
    assert_int_equal(config.eos[1], 107);
}

static void test_bad_configs(void **state) {
    (void)state;
    static const struct {
        const char *json;
        peridot_result code;
        const char *says;
    } cases[] = {
        {"", PERIDOT_ERROR_FORMAT, "not valid JSON"},
        {"[1]", PERIDOT_ERROR_FORMAT, "not a single JSON object"},
        {"{\"model_type\":\"gemma\"} x", PERIDOT_ERROR_FORMAT, "not a single JSON object"},
        {"{}", PERIDOT_ERROR_UNSUPPORTED, "model_type is missing"},
        {"{\"model_type\":\"gemma2\"}", PERIDOT_ERROR_UNSUPPORTED, "gemma2"},
        {"{\"model_type\":\"gemma\",\"hidden_size\":-1}", PERIDOT_ERROR_FORMAT, "hidden_size"},
        {"{\"model_type\":\"gemma\",\"hidden_size\":1e30}", PERIDOT_ERROR_FORMAT, "hidden_size"},
        {"{\"model_type\":\"gemma\",\"vocab_size\":2.5}", PERIDOT_ERROR_FORMAT, "vocab_size"},
        {"{\"model_type\":\"gemma\",\"num_hidden_layers\":\"many\"}", PERIDOT_ERROR_FORMAT,
         "num_hidden_layers"},
        {"{\"model_type\":\"gemma\",\"head_dim\":7}", PERIDOT_ERROR_FORMAT, "odd"},
        {"{\"model_type\":\"gemma\",\"num_attention_heads\":8,\"num_key_value_heads\":3}",
         PERIDOT_ERROR_FORMAT, "multiple"},
        {"{\"model_type\":\"gemma\",\"hidden_act\":\"relu\"}", PERIDOT_ERROR_UNSUPPORTED,
         "hidden_act"},
        {"{\"model_type\":\"gemma\",\"quantization_config\":{}}", PERIDOT_ERROR_UNSUPPORTED,
         "quantization_config"},
        {"{\"model_type\":\"gemma\",\"tie_word_embeddings\":false}", PERIDOT_ERROR_UNSUPPORTED,
         "tie_word"},
        {"{\"model_type\":\"gemma\",\"eos_token_id\":[1,-4]}", PERIDOT_ERROR_FORMAT,
         "eos_token_id"},
        {"{\"model_type\":\"gemma\",\"rms_norm_eps\":\"small\"}", PERIDOT_ERROR_FORMAT,
         "rms_norm_eps"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct model_config config;
        peridot_error error = {0};
        assert_int_equal(parse_config(cases[i].json, &config, &error), cases[i].code);
        assert_non_null(strstr(error.message, cases[i].says));
        assert_non_null(strstr(error.message, "config.json"));
    }
}

/* ---- safetensors ---- */

static size_t build(uint8_t *file, const char *header, size_t data) {
    uint64_t length = strlen(header);
    for (int i = 0; i < 8; i++)
        file[i] = (uint8_t)(length >> 8 * i);
    memcpy(file + 8, header, length);
    memset(file + 8 + length, 0, data);
    return 8 + length + data;
}

static void test_safetensors(void **state) {
    (void)state;
    uint8_t file[1024];
    struct safetensors parsed;
    size_t size = build(file,
                        "{\"b\":{\"dtype\":\"BF16\",\"shape\":[2,3],\"data_offsets\":[8,20]},"
                        "\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
                        "\"__metadata__\":{\"format\":\"pt\"}}",
                        20);
    assert_int_equal(safetensors_parse(file, size, "x", &parsed, NULL), PERIDOT_OK);
    assert_int_equal(parsed.count, 2);
    assert_int_equal(safetensors_find(&parsed, "b")->shape[1], 3);
    assert_int_equal(safetensors_find(&parsed, "b")->size, 12);
    assert_null(safetensors_find(&parsed, "c"));
    safetensors_free(&parsed);
}

static void test_bad_safetensors(void **state) {
    (void)state;
    static const struct {
        const char *header;
        const char *says;
    } cases[] = {
        {"{", "not valid JSON"},
        {"{\"a\":{\"dtype\":\"F99\",\"shape\":[1],\"data_offsets\":[0,4]}}", "unknown dtype"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", "impossible shape"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,4]}}",
         "impossible shape"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", "data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", "data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[100],\"data_offsets\":[0,400]}}", "truncated"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", "need 8"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
         "\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}",
         "overlap"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
         "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
         "twice"},
    };
    uint8_t file[1024];
    struct safetensors parsed;
    peridot_error error;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t size = build(file, cases[i].header, 16);
        assert_int_equal(safetensors_parse(file, size, "bad.safetensors", &parsed, &error),
                         PERIDOT_ERROR_FORMAT);
        assert_non_null(strstr(error.message, cases[i].says));
        assert_non_null(strstr(error.message, "bad.safetensors"));
    }
    memset(file, 0xff, 8);
    assert_int_equal(safetensors_parse(file, 100, "x", &parsed, &error), PERIDOT_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "impossible"));
    size_t size = build(file, cases[1].header, 16);
    assert_int_equal(safetensors_parse(file, size - 60, "x", &parsed, &error),
                     PERIDOT_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "truncated"));
    assert_int_equal(safetensors_parse(file, 3, "x", &parsed, &error), PERIDOT_ERROR_FORMAT);
}

/* A header nested deeper than any parser should follow. */
static void test_deep_nesting(void **state) {
    (void)state;
    size_t depth = 200000;
    uint8_t *file = malloc(depth + 8);
    struct safetensors parsed;
    memset(file, 0, 8);
    memcpy(file, &(uint32_t){(uint32_t)depth}, 4);
    memset(file + 8, '[', depth);
    assert_int_equal(safetensors_parse(file, depth + 8, "x", &parsed, NULL), PERIDOT_ERROR_FORMAT);
    free(file);
}

/* ---- Checkpoints ---- */

static const char config_text[] =
    "{\"model_type\":\"gemma\",\"hidden_size\":4,\"head_dim\":2,\"num_attention_heads\":1,"
    "\"num_key_value_heads\":1,\"num_hidden_layers\":1,\"intermediate_size\":2,\"vocab_size\":3}";

static peridot_result open_files(const char *config, const uint8_t *weights, size_t size,
                                 peridot_error *error) {
    struct checkpoint_file files[] = {{"config.json", config, strlen(config)},
                                      {"model.safetensors", weights, size}};
    struct checkpoint *checkpoint;
    peridot_result result = checkpoint_open_memory(files, weights ? 2 : 1, &checkpoint, error);
    checkpoint_close(checkpoint);
    return result;
}

static void test_bad_checkpoints(void **state) {
    (void)state;
    uint8_t file[1024];
    peridot_error error;
    struct checkpoint *none;
    assert_int_equal(open_files(config_text, NULL, 0, &error), PERIDOT_ERROR_FILE);
    size_t size = build(file, "{}", 0);
    assert_int_equal(open_files(config_text, file, size, &error), PERIDOT_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "model.embed_tokens.weight is missing"));
    size = build(file,
                 "{\"model.embed_tokens.weight\":{\"dtype\":\"F32\",\"shape\":[2,4],"
                 "\"data_offsets\":[0,32]}}",
                 32);
    assert_int_equal(open_files(config_text, file, size, &error), PERIDOT_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "[2, 4] where config.json makes it [3, 4]"));
    size = build(file,
                 "{\"model.embed_tokens.weight\":{\"dtype\":\"I32\",\"shape\":[3,4],"
                 "\"data_offsets\":[0,48]}}",
                 48);
    assert_int_equal(open_files(config_text, file, size, &error), PERIDOT_ERROR_UNSUPPORTED);
    assert_non_null(strstr(error.message, "I32"));
    assert_int_equal(checkpoint_open("no/such/place", &none, &error), PERIDOT_ERROR_FILE);
    assert_int_equal(checkpoint_open(TEST_DATA "/tokenizer.model", &none, &error),
                     PERIDOT_ERROR_FILE);
    assert_non_null(strstr(error.message, "is a file"));
    assert_int_equal(checkpoint_open(TEST_DATA, &none, &error), PERIDOT_ERROR_FILE);
    assert_non_null(strstr(error.message, "no config.json"));
}

static void test_bad_index(void **state) {
    (void)state;
    static const struct {
        const char *index, *says;
    } cases[] = {
        {"{}", "no weight_map"},
        {"{\"weight_map\":{\"a\":\"../secret\"}}", "no plain file name"},
        {"{\"weight_map\":{\"a\":\"/etc/passwd\"}}", "no plain file name"},
        {"{\"weight_map\":{\"a\":7}}", "no plain file name"},
        {"{\"weight_map\":{\"a\":\"model-00001.safetensors\"}}", "model-00001.safetensors"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct checkpoint_file files[] = {
            {"config.json", config_text, strlen(config_text)},
            {"model.safetensors.index.json", cases[i].index, strlen(cases[i].index)}};
        struct checkpoint *none;
        peridot_error error = {0};
        assert_int_not_equal(checkpoint_open_memory(files, 2, &none, &error), PERIDOT_OK);
        assert_non_null(strstr(error.message, cases[i].says));
    }
}

/* ---- Numbers and arrays ---- */

static void test_halves(void **state) {
    (void)state;
    for (uint32_t bits = 0; bits < 0x10000; bits++) {
        float half = half_to_float((uint16_t)bits), brain = bfloat_to_float((uint16_t)bits);
        if (!isnan(half))
            assert_int_equal(half_from_float(half), bits);
        if (!isnan(brain))
            assert_int_equal(bfloat_from_float(brain), bits);
    }
    assert_int_equal(half_from_float(65519.0f), 0x7bff);
    assert_int_equal(half_from_float(65520.0f), 0x7c00);
    assert_int_equal(half_from_float(1.0f + 0x1p-11f), 0x3c00); /* a tie, to even */
    assert_int_equal(half_from_float(1.0f + 3 * 0x1p-11f), 0x3c02);
    assert_true(half_to_float(1) == 0x1p-24f);
}

static void test_arrays(void **state) {
    (void)state;
    char path[] = "peridot-test-XXXXXX";
    close(mkstemp(path));
    const float values[] = {1, 2, 3, 4, 5, 6};
    float *back;
    size_t rows, columns, count;
    int32_t *ids;
    peridot_error error;
    assert_int_equal(npy_write_floats(path, values, 2, 3, &error), PERIDOT_OK);
    assert_int_equal(npy_read_floats(path, &back, &rows, &columns, &error), PERIDOT_OK);
    assert_int_equal(rows, 2);
    assert_int_equal(columns, 3);
    assert_memory_equal(back, values, sizeof values);
    free(back);
    assert_int_equal(npy_read_tokens(path, &ids, &count, &error), PERIDOT_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "<f4"));
    assert_int_equal(truncate(path, 140), 0);
    assert_int_equal(npy_read_floats(path, &back, &rows, &columns, &error), PERIDOT_ERROR_FORMAT);
    assert_int_equal(truncate(path, 5), 0);
    assert_int_equal(npy_read_tokens(path, &ids, &count, &error), PERIDOT_ERROR_FORMAT);
    unlink(path);
    assert_int_equal(npy_read_tokens(path, &ids, &count, &error), PERIDOT_ERROR_FILE);
    assert_int_equal(npy_write_floats("no/such/folder/x.npy", values, 2, 3, &error),
                     PERIDOT_ERROR_FILE);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_config),       cmocka_unit_test(test_bad_configs),
        cmocka_unit_test(test_safetensors),  cmocka_unit_test(test_bad_safetensors),
        cmocka_unit_test(test_deep_nesting), cmocka_unit_test(test_bad_checkpoints),
        cmocka_unit_test(test_bad_index),    cmocka_unit_test(test_halves),
        cmocka_unit_test(test_arrays),
    };
    return cmocka_run_group_tests_name("readers", tests, NULL, NULL);
}
