/* A checkpoint and GGUF files that tests/model/make_gguf.py, with ggml's own library, made of it:
 * they come out equal. With arguments, DIRECTORY FILE.gguf [tokenizer.model], any such pair. */
#include "checkpoint.h"
#include "half.h"
#include "must.h"
#include "platform.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>
#include <cmocka.h>

static const char *directory = TEST_DATA "/gguf", *tokenizer_path = TEST_DATA "/tokenizer.model";
static const char *file; /* NULL: those of the test data */

static void compare_configs(const struct model_config *a, const struct model_config *b) {
    assert_int_equal(a->layers, b->layers);
    assert_int_equal(a->d_model, b->d_model);
    assert_int_equal(a->heads, b->heads);
    assert_int_equal(a->kv_heads, b->kv_heads);
    assert_int_equal(a->head_dim, b->head_dim);
    assert_int_equal(a->hidden, b->hidden);
    assert_int_equal(a->vocabulary, b->vocabulary);
    assert_int_equal(a->context, b->context);
    assert_true((float)a->rms_eps == (float)b->rms_eps && a->rope_theta == b->rope_theta);
    assert_int_equal(a->bos, b->bos);
    assert_int_equal(a->pad, b->pad);
    assert_int_equal(a->eos[0], b->eos[0]);
}

static float element(const struct checkpoint *checkpoint, const struct checkpoint_tensor *tensor,
                     size_t index) {
    uint16_t bits;
    float value;
    uint8_t room[4];
    const uint8_t *data;
    size_t size = tensor->type == WEIGHT_F32 ? 4 : 2;
    MUST(checkpoint_read(checkpoint, tensor, size * index, size, room, &data, &error));
    if (tensor->type == WEIGHT_F32) {
        memcpy(&value, data, 4);
        return value;
    }
    memcpy(&bits, data, 2);
    return tensor->type == WEIGHT_BF16 ? bfloat_to_float(bits) : half_to_float(bits);
}

/* What an element of the checkpoint has become in a file of a float type. */
static float stored(const struct checkpoint *checkpoint, const struct checkpoint_tensor *original,
                    enum weight_type type, size_t index, bool norm) {
    float value = element(checkpoint, original, index);
    if (norm) /* the 1 is added in the checkpoint's precision, but for bfloat16 */
        value = original->type == WEIGHT_F16 ? half_to_float(half_from_float(1.0f + value))
                                             : 1.0f + value;
    return type == WEIGHT_F16    ? half_to_float(half_from_float(value))
           : type == WEIGHT_BF16 ? bfloat_to_float(bfloat_from_float(value))
                                 : value;
}

static void compare_tensors(const struct checkpoint *original, const struct checkpoint *converted,
                            enum tensor_role role, uint32_t layer) {
    const struct checkpoint_tensor *a = checkpoint_tensor(original, role, layer);
    const struct checkpoint_tensor *b = checkpoint_tensor(converted, role, layer);
    assert_true(!a == !b);
    if (!a)
        return;
    const struct weight_type_info *info = weight_type_info(b->type);
    bool norm = role == TENSOR_FINAL_NORM || role == TENSOR_INPUT_NORM ||
                role == TENSOR_POST_ATTENTION_NORM;
    size_t count = (size_t)a->rows * a->columns;
    assert_int_equal(a->rows, b->rows);
    assert_int_equal(a->columns, b->columns);
    assert_int_equal(b->size, count / info->block * info->block_bytes);
    assert_true(!norm || b->type == WEIGHT_F32);
    for (size_t i = 0; i < count && info->block == 1; i++)
        if (element(converted, b, i) != stored(original, a, b->type, i, norm))
            fail_msg("%s: element %zu is %g, not %g", b->name, i, (double)element(converted, b, i),
                     (double)stored(original, a, b->type, i, norm));
}

static void compare_texts(const struct tokenizer *a, const struct tokenizer *b) {
    FILE *vectors = fopen(TEST_DATA "/tokenizer.vectors.jsonl", "rb");
    assert_non_null(vectors);
    char *line = NULL;
    size_t capacity = 0, lines = 0;
    while (getline(&line, &capacity, vectors) > 0) {
        cJSON *vector = cJSON_Parse(line);
        const char *text = cJSON_GetObjectItem(vector, "text")->valuestring;
        struct token_list ours = {0}, theirs = {0};
        MUST(tokenizer_encode(a, text, strlen(text), TOKENIZER_SPECIAL, &ours, &error));
        MUST(tokenizer_encode(b, text, strlen(text), TOKENIZER_SPECIAL, &theirs, &error));
        assert_int_equal(ours.count, theirs.count);
        if (ours.count)
            assert_memory_equal(ours.ids, theirs.ids, ours.count * sizeof *ours.ids);
        token_list_free(&ours);
        token_list_free(&theirs);
        cJSON_Delete(vector);
        lines++;
    }
    free(line);
    fclose(vectors);
    assert_int_equal(lines, 340);
}

static void compare_tokenizers(const struct checkpoint *converted) {
    struct file_bytes model;
    struct tokenizer *a, *b;
    MUST(platform_read_file(tokenizer_path, &model, &error));
    MUST(tokenizer_create(model.data, model.size, tokenizer_path, &a, &error));
    MUST(checkpoint_create_tokenizer(converted, &b, &error));
    assert_true(b || file); /* a pair from the command line may have none */
    if (b) {
        assert_int_equal(tokenizer_vocabulary(a), tokenizer_vocabulary(b));
        for (int32_t i = 0; i < (int32_t)tokenizer_vocabulary(a); i++)
            assert_int_equal(tokenizer_type(a, i), tokenizer_type(b, i));
        compare_texts(a, b);
    }
    tokenizer_destroy(a);
    tokenizer_destroy(b);
    platform_free_file(&model);
}

static void compare(const char *path) {
    struct checkpoint *original, *converted;
    MUST(checkpoint_open(directory, &original, &error));
    MUST(checkpoint_open(path, &converted, &error));
    assert_true(!checkpoint_norms_have_one(original) && checkpoint_norms_have_one(converted));
    compare_configs(checkpoint_config(original), checkpoint_config(converted));
    for (int role = 0; role < TENSOR_ROLE_COUNT; role++) {
        uint32_t layers = role < TENSOR_INPUT_NORM ? 1 : checkpoint_config(original)->layers;
        for (uint32_t layer = 0; layer < layers; layer++)
            compare_tensors(original, converted, (enum tensor_role)role, layer);
    }
    compare_tokenizers(converted);
    checkpoint_close(original);
    checkpoint_close(converted);
}

static void test_converted(void **state) {
    (void)state;
    if (file) {
        compare(file);
        return;
    }
    compare(TEST_DATA "/gguf/early-bf16-00002-of-00003.gguf");
    compare(TEST_DATA "/gguf/late-q4_0.gguf");
}

int main(int count, char **arguments) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_converted)};
    if (count > 2) {
        directory = arguments[1];
        file = arguments[2];
    }
    if (count > 3)
        tokenizer_path = arguments[3];
    return cmocka_run_group_tests_name("gguf_converted", tests, NULL, NULL);
}
