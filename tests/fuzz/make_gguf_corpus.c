/* Writes tests/fuzz/corpus/gguf: make_gguf_corpus FOLDER. */
#include "unit/gguf_writer.h"

#include <stdio.h>
#include <string.h>

static int save(const char *folder, const char *name, struct gguf_writer *writer) {
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "wb");
    int good = file && fwrite(writer->bytes, 1, writer->size, file) == writer->size;
    if (file)
        good = fclose(file) == 0 && good;
    gguf_write_free(writer);
    return good ? 0 : 1;
}

/* Two parts of a model, as fuzz_gguf takes them. */
static int save_parts(const char *folder) {
    struct gguf_writer whole = {0}, part;
    gguf_write_bytes(&whole, "PARTS", 5);
    for (uint32_t i = 0; i < 2; i++) {
        gguf_write_begin(&part);
        gguf_write_u32(&part, "split.no", i);
        gguf_write_u32(&part, "split.count", 2);
        if (i == 0) {
            gguf_write_config(&part, "");
            gguf_write_model_tensors(&part, "output_norm.weight", 2);
        } else {
            gguf_write_tensor(&part, "output_norm.weight", 0, 32, 0);
        }
        gguf_write_data(&part);
        gguf_write_number(&whole, part.size, 4);
        gguf_write_bytes(&whole, part.bytes, part.size);
        gguf_write_free(&part);
    }
    return save(folder, "parts", &whole);
}

/* A vocabulary of every kind of piece. */
static void write_tokenizer(struct gguf_writer *w) {
    static const struct {
        const char *text;
        int type;
    } tokens[] = {{"<pad>", 3},           {"<eos>", 3},         {"<bos>", 3}, {"<unk>", 2},
                  {"<start_of_turn>", 4}, {"<end_of_turn>", 1}, {"  ", 4},    {"a", 1}};
    gguf_write_string(w, "tokenizer.ggml.model", "llama");
    gguf_write_array(w, "tokenizer.ggml.tokens", GGUF_STRING, 8);
    for (int i = 0; i < 8; i++)
        gguf_write_text(w, tokens[i].text);
    gguf_write_array(w, "tokenizer.ggml.scores", GGUF_FLOAT32, 8);
    for (int i = 0; i < 8; i++)
        gguf_write_number(w, 0xc1000000u + (uint32_t)i, 4);
    gguf_write_array(w, "tokenizer.ggml.token_type", GGUF_INT32, 8);
    for (int i = 0; i < 8; i++)
        gguf_write_number(w, (uint64_t)tokens[i].type, 4);
    gguf_write_u32(w, "tokenizer.ggml.unknown_token_id", 3);
    gguf_write_bool(w, "tokenizer.ggml.add_space_prefix", 0);
}

static void write_nested(struct gguf_writer *w) {
    gguf_write_array(w, "a.nested", GGUF_ARRAY, 2);
    gguf_write_number(w, GGUF_UINT8, 4);
    gguf_write_number(w, 2, 8);
    gguf_write_number(w, 0x0201, 2);
    gguf_write_number(w, GGUF_STRING, 4);
    gguf_write_number(w, 1, 8);
    gguf_write_text(w, "x");
    gguf_write_key(w, "a.real", GGUF_FLOAT64);
    gguf_write_number(w, 0x3fd5555555555555, 8);
}

int main(int count, char **arguments) {
    static const struct {
        const char *name;
        uint32_t type;
    } models[] = {{"plain", 2}, {"tokenizer", 2}, {"head", 8}};
    struct gguf_writer w;
    int failed = count != 2;
    for (int i = 0; i < 3 && !failed; i++) {
        gguf_write_begin(&w);
        gguf_write_config(&w, "");
        if (i > 0)
            write_tokenizer(&w);
        if (i == 2)
            gguf_write_u32(&w, "general.alignment", 32);
        gguf_write_model_tensors(&w, "", models[i].type);
        if (i == 2)
            gguf_write_tensor(&w, "output.weight", models[i].type, 32, 8);
        gguf_write_data(&w);
        failed = save(arguments[1], models[i].name, &w);
    }
    if (failed || save_parts(arguments[1]))
        return 1;
    gguf_write_begin(&w);
    write_nested(&w);
    gguf_write_tensor(&w, "k", 14, 256, 1);
    gguf_write_data(&w);
    return save(arguments[1], "kinds", &w);
}
