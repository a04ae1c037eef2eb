/* Checkpoints from GGUF files, whole and split: what is read, what is refused and with what words.
 */
#include "checkpoint.h"
#include "must.h"
#include "unit/gguf_writer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define F32 0
#define F16 1
#define Q4_0 2
#define Q6_K 14
#define IQ4_XS 23

static void assert_says(const peridot_error *error, const char *says) {
    if (!strstr(error->message, says))
        fail_msg("\"%s\" does not say \"%s\"", error->message, says);
}

/* ---- Good files ---- */

static peridot_result open_writer(const struct gguf_writer *w, struct checkpoint **checkpoint,
                                  peridot_error *error) {
    const struct checkpoint_file file = {"some.gguf", w->bytes, w->size};
    return checkpoint_open_memory(&file, 1, checkpoint, error);
}

static void test_good(void **state) {
    (void)state;
    struct gguf_writer w;
    struct checkpoint *checkpoint;
    struct tokenizer *tokenizer;
    gguf_write_begin(&w);
    gguf_write_config(&w, "");
    gguf_write_string(&w, "general.type", "model");
    gguf_write_f32(&w, "gemma.rope.freq_base", 20000);
    gguf_write_u32(&w, "tokenizer.ggml.eot_token_id", 5);
    gguf_write_model_tensors(&w, "", Q4_0);
    gguf_write_tensor(&w, "rope_freqs.weight", F32, 8, 0); /* a surplus one that changes nothing */
    gguf_write_data(&w);
    MUST(open_writer(&w, &checkpoint, &error));
    const struct model_config *config = checkpoint_config(checkpoint);
    assert_int_equal(config->layers, 2);
    assert_int_equal(config->d_model, 32);
    assert_int_equal(config->heads, 4);
    assert_int_equal(config->kv_heads, 2);
    assert_int_equal(config->head_dim, 16);
    assert_int_equal(config->hidden, 64);
    assert_int_equal(config->vocabulary, 8);
    assert_int_equal(config->context, 512);
    assert_true((float)config->rms_eps == 1e-6f && config->rope_theta == 20000);
    assert_int_equal(config->eos_count, 2);
    assert_int_equal(config->eos[0], 1);
    assert_int_equal(config->eos[1], 5);
    assert_true(checkpoint_norms_have_one(checkpoint));
    const struct checkpoint_tensor *down = checkpoint_tensor(checkpoint, TENSOR_DOWN, 1);
    assert_int_equal(down->type, WEIGHT_Q4_0);
    assert_int_equal(down->rows, 32);
    assert_int_equal(down->columns, 64);
    assert_int_equal(down->size, 32 * 2 * 18);
    assert_string_equal(down->name, "blk.1.ffn_down.weight");
    assert_int_equal(checkpoint_tensor(checkpoint, TENSOR_EMBEDDING, 0)->type, WEIGHT_F16);
    assert_int_equal(checkpoint_tensor(checkpoint, TENSOR_FINAL_NORM, 0)->rows, 1);
    assert_null(checkpoint_tensor(checkpoint, TENSOR_HEAD, 0));
    MUST(checkpoint_create_tokenizer(checkpoint, &tokenizer, &error));
    assert_null(tokenizer); /* there is none in this file */
    checkpoint_close(checkpoint);
    gguf_write_free(&w);
}

static void test_defaults(void **state) {
    (void)state;
    struct gguf_writer w;
    struct checkpoint *checkpoint;
    gguf_write_begin(&w);
    gguf_write_config(&w, "tokenizer.ggml.padding_token_id");
    gguf_write_u32(&w, "tokenizer.ggml.padding_token_id", UINT32_MAX); /* some write no token so */
    gguf_write_model_tensors(&w, "", Q4_0);
    gguf_write_tensor(&w, "output.weight", Q4_0, 32, 8);
    gguf_write_data(&w);
    MUST(open_writer(&w, &checkpoint, &error));
    assert_int_equal(checkpoint_config(checkpoint)->pad, 0);
    assert_true(checkpoint_config(checkpoint)->rope_theta == 10000);
    const struct checkpoint_tensor *head = checkpoint_tensor(checkpoint, TENSOR_HEAD, 0);
    assert_non_null(head);
    assert_int_equal(head->type, WEIGHT_Q4_0);
    uint64_t with_head, without;
    MUST(checkpoint_fingerprint(checkpoint, &with_head, &error));
    checkpoint_close(checkpoint);
    gguf_write_free(&w);
    gguf_write_begin(&w);
    gguf_write_config(&w, "tokenizer.ggml.eos_token_id");
    gguf_write_model_tensors(&w, "", Q4_0);
    gguf_write_data(&w);
    MUST(open_writer(&w, &checkpoint, &error));
    assert_int_equal(checkpoint_config(checkpoint)->eos_count, 1);
    assert_int_equal(checkpoint_config(checkpoint)->eos[0], 1);
    MUST(checkpoint_fingerprint(checkpoint, &without, &error));
    assert_true(without != with_head);
    checkpoint_close(checkpoint);
    gguf_write_free(&w);
}

/* `count` tokens: the special ones, then letters. */
static void write_tokens(struct gguf_writer *w, uint32_t count) {
    static const char *const special[] = {"<pad>", "<eos>", "<bos>", "<unk>"};
    gguf_write_string(w, "tokenizer.ggml.model", "llama");
    gguf_write_array(w, "tokenizer.ggml.tokens", GGUF_STRING, count);
    for (uint32_t i = 0; i < count; i++)
        gguf_write_text(w, i < 4 ? special[i] : (char[]){(char)('a' + i), '\0'});
    gguf_write_array(w, "tokenizer.ggml.scores", GGUF_FLOAT32, count);
    for (uint32_t i = 0; i < count; i++)
        gguf_write_number(w, 0, 4);
    gguf_write_array(w, "tokenizer.ggml.token_type", GGUF_INT32, count);
    for (uint32_t i = 0; i < count; i++)
        gguf_write_number(w, i < 3 ? PIECE_CONTROL : i == 3 ? PIECE_UNKNOWN : PIECE_NORMAL, 4);
}

/* The model's vocabulary is of eight tokens. */
static void test_tokenizer(void **state) {
    (void)state;
    for (uint32_t count = 7; count <= 9; count++) {
        struct gguf_writer w;
        struct checkpoint *checkpoint;
        struct tokenizer *tokenizer;
        peridot_error error = {0};
        gguf_write_begin(&w);
        gguf_write_config(&w, "tokenizer.ggml.eos_token_id");
        gguf_write_u32(&w, "tokenizer.ggml.eos_token_id", 6);
        write_tokens(&w, count);
        gguf_write_model_tensors(&w, "", Q4_0);
        gguf_write_data(&w);
        MUST(open_writer(&w, &checkpoint, &error));
        assert_int_equal(checkpoint_config(checkpoint)->eos_count, 2);
        assert_int_equal(checkpoint_config(checkpoint)->eos[0], 6);
        assert_int_equal(checkpoint_config(checkpoint)->eos[1], 1); /* named <eos> */
        peridot_result result = checkpoint_create_tokenizer(checkpoint, &tokenizer, &error);
        assert_int_equal(result, count > 8 ? PERIDOT_ERROR_FORMAT : PERIDOT_OK);
        if (count > 8)
            assert_says(&error, "some.gguf has 9 pieces and the model's vocabulary 8");
        else
            assert_int_equal(tokenizer_vocabulary(tokenizer), count);
        assert_true(!tokenizer == (count > 8));
        tokenizer_destroy(tokenizer);
        checkpoint_close(checkpoint);
        gguf_write_free(&w);
    }
}

/* ---- What is refused ---- */

static void gemma_2(struct gguf_writer *w) {
    gguf_write_string(w, "general.architecture", "gemma2");
}
static void odd_name(struct gguf_writer *w) {
    gguf_write_string(w, "general.architecture", "ge\x1b[2Jmma");
}
static void adapter(struct gguf_writer *w) {
    gguf_write_string(w, "general.type", "adapter");
}
static void scaling(struct gguf_writer *w) {
    gguf_write_string(w, "gemma.rope.scaling.type", "yarn");
}
static void no_layers(struct gguf_writer *w) {
    gguf_write_u32(w, "gemma.block_count", 0);
}
static void text_layers(struct gguf_writer *w) {
    gguf_write_string(w, "gemma.block_count", "2");
}
static void long_context(struct gguf_writer *w) {
    gguf_write_u32(w, "gemma.context_length", 131072);
}
static void three_kv_heads(struct gguf_writer *w) {
    gguf_write_u32(w, "gemma.attention.head_count_kv", 3);
}
static void odd_heads(struct gguf_writer *w) {
    gguf_write_u32(w, "gemma.attention.key_length", 7);
}
static void other_values(struct gguf_writer *w) {
    gguf_write_u32(w, "gemma.attention.value_length", 8);
}
static void half_rope(struct gguf_writer *w) {
    gguf_write_u32(w, "gemma.rope.dimension_count", 8);
}
static void large_eps(struct gguf_writer *w) {
    gguf_write_f32(w, "gemma.attention.layer_norm_rms_epsilon", 2);
}
static void end_beyond(struct gguf_writer *w) {
    gguf_write_u32(w, "tokenizer.ggml.eot_token_id", 8);
}

static void test_bad_metadata(void **state) {
    (void)state;
    static const struct {
        const char *without;
        void (*add)(struct gguf_writer *w);
        peridot_result code;
        const char *says;
    } cases[] = {
        {"general.architecture", NULL, PERIDOT_ERROR_FORMAT, "no general.architecture"},
        {"general.architecture", gemma_2, PERIDOT_ERROR_UNSUPPORTED, "architecture \"gemma2\""},
        {"general.architecture", odd_name, PERIDOT_ERROR_UNSUPPORTED, "\"ge?[2Jmma\""},
        {"", adapter, PERIDOT_ERROR_UNSUPPORTED, "type \"adapter\""},
        {"", scaling, PERIDOT_ERROR_UNSUPPORTED, "gemma.rope.scaling.type is \"yarn\""},
        {"gemma.block_count", NULL, PERIDOT_ERROR_FORMAT, "there is no gemma.block_count"},
        {"gemma.block_count", no_layers, PERIDOT_ERROR_FORMAT, "gemma.block_count is 0"},
        {"gemma.block_count", text_layers, PERIDOT_ERROR_FORMAT, "gemma.block_count must be"},
        {"gemma.context_length", NULL, PERIDOT_ERROR_FORMAT, "there is no gemma.context_length"},
        {"gemma.context_length", long_context, PERIDOT_ERROR_FORMAT, "from 1 to 32768"},
        {"gemma.embedding_length", NULL, PERIDOT_ERROR_FORMAT, "no gemma.embedding_length"},
        {"gemma.feed_forward_length", NULL, PERIDOT_ERROR_FORMAT, "no gemma.feed_forward_length"},
        {"gemma.attention.head_count", NULL, PERIDOT_ERROR_FORMAT, "no gemma.attention.head_count"},
        {"gemma.attention.head_count_kv", NULL, PERIDOT_ERROR_FORMAT, /* as many as heads */
         "blk.0.attn_k.weight is [32, 32] where the metadata makes it [64, 32]"},
        {"gemma.attention.head_count_kv", three_kv_heads, PERIDOT_ERROR_FORMAT,
         "head_count (4) is not a multiple of"},
        {"gemma.attention.key_length", NULL, PERIDOT_ERROR_FORMAT, /* a quarter of 32 */
         "blk.0.attn_q.weight is [64, 32] where the metadata makes it [32, 32]"},
        {"gemma.attention.key_length", odd_heads, PERIDOT_ERROR_FORMAT, "key_length (7) is odd"},
        {"gemma.attention.value_length", other_values, PERIDOT_ERROR_UNSUPPORTED,
         "value_length is 8"},
        {"", half_rope, PERIDOT_ERROR_UNSUPPORTED, "gemma.rope.dimension_count is 8"},
        {"gemma.attention.layer_norm_rms_epsilon", NULL, PERIDOT_ERROR_FORMAT,
         "there is no gemma.attention.layer_norm_rms_epsilon"},
        {"gemma.attention.layer_norm_rms_epsilon", large_eps, PERIDOT_ERROR_FORMAT,
         "must be a number from 0 to 1"},
        {"", end_beyond, PERIDOT_ERROR_FORMAT, "tokenizer.ggml.eot_token_id is 8"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct gguf_writer w;
        struct checkpoint *none = NULL;
        peridot_error error = {0};
        gguf_write_begin(&w);
        gguf_write_config(&w, cases[i].without);
        if (cases[i].add)
            cases[i].add(&w);
        gguf_write_model_tensors(&w, "", Q4_0);
        gguf_write_data(&w);
        assert_int_equal(open_writer(&w, &none, &error), cases[i].code);
        assert_null(none);
        assert_says(&error, "some.gguf");
        assert_says(&error, cases[i].says);
        gguf_write_free(&w);
    }
}

static void test_bad_tensors(void **state) {
    (void)state;
    static const struct {
        const char *without;
        struct {
            const char *name;
            uint32_t type, columns, rows;
        } added;
        peridot_result code;
        const char *says;
    } cases[] = {
        {"token_embd.weight", {0}, PERIDOT_ERROR_FORMAT, "token_embd.weight is missing"},
        {"token_embd.weight",
         {"token_embd.weight", F32, 32, 0},
         PERIDOT_ERROR_FORMAT,
         "token_embd.weight has an impossible number of rows"},
        {"token_embd.weight",
         {"token_embd.weight", F32, 32, 2},
         PERIDOT_ERROR_FORMAT,
         "token_embd.weight has an impossible number of rows"},
        {"blk.1.attn_k.weight",
         {0},
         PERIDOT_ERROR_FORMAT,
         "tensor blk.1.attn_k.weight is missing, and the metadata calls for it"},
        {"blk.1.attn_q.weight",
         {"blk.1.attn_q.weight", F16, 64, 32},
         PERIDOT_ERROR_FORMAT,
         "blk.1.attn_q.weight is [32, 64] where the metadata makes it [64, 32]"},
        {"blk.0.attn_norm.weight",
         {"blk.0.attn_norm.weight", F32, 31, 0},
         PERIDOT_ERROR_FORMAT,
         "blk.0.attn_norm.weight is [31] where the metadata makes it [32]"},
        {"blk.0.attn_norm.weight",
         {"blk.0.attn_norm.weight", F32, 32, 2},
         PERIDOT_ERROR_FORMAT,
         "blk.0.attn_norm.weight is [2, 32] where"},
        {"blk.0.ffn_up.weight",
         {"blk.0.ffn_up.weight", IQ4_XS, 32, 64},
         PERIDOT_ERROR_UNSUPPORTED,
         "blk.0.ffn_up.weight is IQ4_XS; Peridot reads F32"},
        {"blk.0.ffn_up.weight",
         {"blk.0.ffn_up.weight", Q6_K, 32, 64},
         PERIDOT_ERROR_FORMAT,
         "blk.0.ffn_up.weight has rows that are no whole number of its type's blocks"},
        {"",
         {"output.weight", F16, 32, 7},
         PERIDOT_ERROR_FORMAT,
         "output.weight is [7, 32] where the metadata makes it [8, 32]"},
        {"",
         {"blk.2.attn_norm.weight", F32, 32, 0},
         PERIDOT_ERROR_FORMAT,
         "blk.2.attn_norm.weight, but gemma.block_count in its metadata is 2"},
        {"",
         {"blk.0.attn_q.bias", F32, 64, 0},
         PERIDOT_ERROR_UNSUPPORTED,
         "blk.0.attn_q.bias: Gemma has no biases"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct gguf_writer w;
        struct checkpoint *none = NULL;
        peridot_error error = {0};
        gguf_write_begin(&w);
        gguf_write_config(&w, "");
        gguf_write_model_tensors(&w, cases[i].without, Q4_0);
        if (cases[i].added.name)
            gguf_write_tensor(&w, cases[i].added.name, cases[i].added.type, cases[i].added.columns,
                              cases[i].added.rows);
        gguf_write_data(&w);
        assert_int_equal(open_writer(&w, &none, &error), cases[i].code);
        assert_says(&error, "some.gguf");
        assert_says(&error, cases[i].says);
        gguf_write_free(&w);
    }
}

/* ---- Split files ---- */

#define PARTS 3
#define TENSORS (2 + 9 * GGUF_MODEL_LAYERS)

/* Part 0 has the metadata and no tensor, part 1 one tensor, part 2 the others. */
static void write_part(struct gguf_writer *w, uint32_t part, uint32_t count, uint32_t tensors) {
    gguf_write_begin(w);
    if (part == 0)
        gguf_write_config(w, "");
    gguf_write_key(w, "split.no", GGUF_UINT16);
    gguf_write_number(w, part, 2);
    gguf_write_key(w, "split.count", GGUF_UINT16);
    gguf_write_number(w, count, 2);
    gguf_write_key(w, "split.tensors.count", GGUF_INT32);
    gguf_write_number(w, tensors, 4);
    if (part == 1) {
        gguf_write_tensor(w, "blk.0.attn_q.weight", F16, 32, 64);
    } else if (part == 2) {
        gguf_write_model_tensors(w, "blk.0.attn_q.weight", Q4_0);
    }
    gguf_write_data(w);
}

static void write_parts(struct gguf_writer parts[PARTS]) {
    for (uint32_t i = 0; i < PARTS; i++)
        write_part(&parts[i], i, PARTS, TENSORS);
}

static void free_parts(struct gguf_writer parts[PARTS]) {
    for (int i = 0; i < PARTS; i++)
        gguf_write_free(&parts[i]);
}

static void test_split_in_memory(void **state) {
    (void)state;
    struct gguf_writer parts[PARTS];
    struct checkpoint *checkpoint;
    write_parts(parts);
    const struct checkpoint_file files[] = {{"notes.txt", "GGU", 3},
                                            {"c", parts[2].bytes, parts[2].size},
                                            {"a", parts[0].bytes, parts[0].size},
                                            {"b", parts[1].bytes, parts[1].size}};
    MUST(checkpoint_open_memory(files, 4, &checkpoint, &error));
    const struct checkpoint_tensor *query = checkpoint_tensor(checkpoint, TENSOR_QUERY, 0);
    const struct checkpoint_tensor *key = checkpoint_tensor(checkpoint, TENSOR_KEY, 0);
    assert_string_equal(checkpoint_tensor_file(checkpoint, query), "b");
    assert_string_equal(checkpoint_tensor_file(checkpoint, key), "c");
    assert_int_equal(query->type, WEIGHT_F16);
    const uint8_t *data;
    MUST(checkpoint_read(checkpoint, query, 0, query->size, NULL, &data, &error));
    assert_true(data > parts[1].bytes && data + query->size <= parts[1].bytes + parts[1].size);
    checkpoint_close(checkpoint);
    free_parts(parts);
}

static void test_bad_splits(void **state) {
    (void)state;
    struct gguf_writer parts[PARTS], other;
    struct checkpoint *none = NULL;
    peridot_error error;
    write_parts(parts);
    struct checkpoint_file files[] = {{"a", parts[0].bytes, parts[0].size},
                                      {"b", parts[1].bytes, parts[1].size},
                                      {"c", parts[2].bytes, parts[2].size}};
    assert_int_equal(checkpoint_open_memory(files, 2, &none, &error), PERIDOT_ERROR_FILE);
    assert_says(&error, "part 3 of the split model is not among");
    assert_int_equal(checkpoint_open_memory(files + 1, 2, &none, &error), PERIDOT_ERROR_FILE);
    assert_says(&error, "part 1 of the split model is not among");
    files[2] = files[1];
    files[2].name = "d";
    assert_int_equal(checkpoint_open_memory(files, 3, &none, &error), PERIDOT_ERROR_FORMAT);
    assert_says(&error, "b and d are both part 2");
    write_part(&other, 2, 4, TENSORS); /* of a model in four parts */
    files[2] = (struct checkpoint_file){"d", other.bytes, other.size};
    assert_int_equal(checkpoint_open_memory(files, 3, &none, &error), PERIDOT_ERROR_FORMAT);
    assert_says(&error, "d says that it is part 3 of 4, where part 3 of 3 belongs");
    gguf_write_free(&other);
    write_part(&other, 3, 3, TENSORS);
    assert_int_equal(checkpoint_open_memory(&(struct checkpoint_file){"d", other.bytes, other.size},
                                            1, &none, &error),
                     PERIDOT_ERROR_FORMAT);
    assert_says(&error, "d: split.no is 3 and split.count 3");
    gguf_write_free(&other);
    free_parts(parts);
    for (uint32_t i = 0; i < PARTS; i++) {
        write_part(&parts[i], i, PARTS, 99);
        files[i] = (struct checkpoint_file){"e", parts[i].bytes, parts[i].size};
    }
    assert_int_equal(checkpoint_open_memory(files, 3, &none, &error), PERIDOT_ERROR_FORMAT);
    assert_says(&error, "the parts hold 20 tensors, and split.tensors.count is 99");
    free_parts(parts);
}

/* ---- Files ---- */

static void save(const char *path, const void *bytes, size_t size) {
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    fclose(file);
}

static void test_split_files(void **state) {
    (void)state;
    char folder[] = "gguf-test-XXXXXX", paths[PARTS][64], renamed[64];
    struct gguf_writer parts[PARTS];
    struct checkpoint *checkpoint;
    peridot_error error = {0};
    assert_non_null(mkdtemp(folder));
    write_parts(parts);
    for (int i = 0; i < PARTS; i++) {
        snprintf(paths[i], sizeof paths[i], "%s/m-%05d-of-%05d.gguf", folder, i + 1, PARTS);
        save(paths[i], parts[i].bytes, parts[i].size);
    }
    for (int i = 0; i < PARTS; i++) { /* any of them will do */
        MUST(checkpoint_open(paths[i], &checkpoint, &error));
        assert_string_equal(
            checkpoint_tensor_file(checkpoint, checkpoint_tensor(checkpoint, TENSOR_QUERY, 0)),
            paths[1]);
        checkpoint_close(checkpoint);
    }
    snprintf(renamed, sizeof renamed, "%s/other.gguf", folder);
    assert_int_equal(rename(paths[1], renamed), 0);
    assert_int_equal(checkpoint_open(paths[2], &checkpoint, &error), PERIDOT_ERROR_FILE);
    assert_says(&error, "m-00002-of-00003.gguf, part 2 of 3 of the model, is not there");
    assert_int_equal(checkpoint_open(renamed, &checkpoint, &error), PERIDOT_ERROR_FILE);
    assert_says(&error, "name it ...-00002-of-00003.gguf again");
    unlink(renamed);
    save(paths[1], parts[2].bytes, parts[2].size);
    assert_int_equal(checkpoint_open(paths[0], &checkpoint, &error), PERIDOT_ERROR_FORMAT);
    assert_says(&error, "says that it is part 3 of 3, where part 2 of 3 belongs");
    for (int i = 0; i < PARTS; i++)
        unlink(paths[i]);
    rmdir(folder);
    free_parts(parts);
}

static void test_files(void **state) {
    (void)state;
    static const char path[] = "gguf-test-model", named[] = "gguf-test-model.gguf";
    struct gguf_writer w;
    struct checkpoint *checkpoint;
    peridot_error error = {0};
    gguf_write_begin(&w);
    gguf_write_config(&w, "");
    gguf_write_key(&w, "split.count", GGUF_UINT16); /* what merging leaves behind */
    gguf_write_number(&w, 0, 2);
    gguf_write_model_tensors(&w, "", F16);
    gguf_write_data(&w);
    save(path, w.bytes, w.size); /* its bytes tell, not its name */
    MUST(checkpoint_open(path, &checkpoint, &error));
    checkpoint_close(checkpoint);
    save(path, "GGUX", 4);
    assert_int_equal(checkpoint_open(path, &checkpoint, &error), PERIDOT_ERROR_FILE);
    assert_says(&error, "gguf-test-model is a file, and no GGUF file");
    save(named, "<html>", 6);
    assert_int_equal(checkpoint_open(named, &checkpoint, &error), PERIDOT_ERROR_FORMAT);
    assert_says(&error, "gguf-test-model.gguf (6 bytes) does not begin as a GGUF file does");
    save(named, "", 0);
    assert_int_equal(checkpoint_open(named, &checkpoint, &error), PERIDOT_ERROR_FORMAT);
    assert_says(&error, "gguf-test-model.gguf (0 bytes) does not begin as a GGUF file does");
    save(named, w.bytes, w.size - 1);
    assert_int_equal(checkpoint_open(named, &checkpoint, &error), PERIDOT_ERROR_FORMAT);
    assert_says(&error, "the download is incomplete");
    unlink(path);
    unlink(named);
    gguf_write_free(&w);
}

/* A header that is read in several pieces, and a file that ends between two of them. */
static void test_long_header(void **state) {
    (void)state;
    char path[] = "gguf-test-XXXXXX", says[96];
    size_t length = (size_t)40 << 20;
    struct gguf_writer w;
    struct checkpoint *checkpoint;
    peridot_error error = {0};
    char *text = malloc(length + 1);
    assert_non_null(text);
    memset(text, 'x', length);
    text[length] = '\0';
    gguf_write_begin(&w);
    gguf_write_string(&w, "general.description", text);
    gguf_write_config(&w, "");
    gguf_write_model_tensors(&w, "", Q4_0);
    gguf_write_data(&w);
    int descriptor = mkstemp(path);
    assert_true(descriptor >= 0);
    close(descriptor);
    save(path, w.bytes, w.size);
    MUST(checkpoint_open(path, &checkpoint, &error));
    const struct checkpoint_tensor *down = checkpoint_tensor(checkpoint, TENSOR_DOWN, 1);
    uint8_t *room = malloc(down->size);
    const uint8_t *bytes;
    assert_non_null(room);
    MUST(checkpoint_read(checkpoint, down, 0, down->size, room, &bytes, &error));
    assert_memory_equal(bytes, w.bytes + down->begin, down->size);
    checkpoint_close(checkpoint);
    free(room);
    for (size_t size = length / 8; size < length; size *= 2) {
        assert_int_equal(truncate(path, (off_t)size), 0);
        assert_int_equal(checkpoint_open(path, &checkpoint, &error), PERIDOT_ERROR_FORMAT);
        snprintf(says, sizeof says, "%s has %zu bytes and ends within its header", path, size);
        assert_says(&error, says);
        save(path, w.bytes, w.size);
    }
    unlink(path);
    free(text);
    gguf_write_free(&w);
}

static void test_shrinking(void **state) {
    (void)state;
    char path[] = "gguf-test-XXXXXX";
    struct gguf_writer w;
    struct checkpoint *checkpoint;
    peridot_error error = {0};
    uint8_t room[64];
    const uint8_t *bytes;
    uint64_t fingerprint;
    int descriptor = mkstemp(path);
    assert_true(descriptor >= 0);
    close(descriptor);
    gguf_write_begin(&w);
    gguf_write_config(&w, "");
    gguf_write_model_tensors(&w, "", Q4_0);
    gguf_write_data(&w);
    save(path, w.bytes, w.size);
    MUST(checkpoint_open(path, &checkpoint, &error));
    const struct checkpoint_tensor *down = checkpoint_tensor(checkpoint, TENSOR_DOWN, 1);
    assert_int_equal(truncate(path, (off_t)down->begin + 10), 0);
    MUST(checkpoint_read(checkpoint, down, 0, 10, room, &bytes, &error));
    assert_int_equal(checkpoint_read(checkpoint, down, 0, 11, room, &bytes, &error),
                     PERIDOT_ERROR_FILE);
    assert_says(&error, path);
    assert_says(&error, "when it was opened");
    assert_int_equal(checkpoint_fingerprint(checkpoint, &fingerprint, &error), PERIDOT_ERROR_FILE);
    checkpoint_close(checkpoint);
    unlink(path);
    gguf_write_free(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_tokenizer),   cmocka_unit_test(test_bad_metadata),
        cmocka_unit_test(test_bad_tensors), cmocka_unit_test(test_split_in_memory),
        cmocka_unit_test(test_bad_splits),  cmocka_unit_test(test_split_files),
        cmocka_unit_test(test_files),       cmocka_unit_test(test_long_header),
        cmocka_unit_test(test_shrinking),
    };
    return cmocka_run_group_tests_name("gguf_checkpoint", tests, NULL, NULL);
}
