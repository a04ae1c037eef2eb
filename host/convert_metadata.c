#include "convert_metadata.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SPACE "\xe2\x96\x81"     /* U+2581 stands for a space in pieces */
#define SPECIAL_SCORE (-1000.0f) /* what converters give pieces that no merge makes */
#define PADDING_SCORE (-10000.0f)
#define QUANTISATION_VERSION 2

static struct gguf_string text(const char *characters) {
    return (struct gguf_string){characters, strlen(characters)};
}

/* ---- The model ---- */

/* llama.cpp's numbers for what a file mostly is; of the mixes of K types, those of one type. */
static uint32_t file_type(enum weight_type most) {
    static const uint8_t numbers[WEIGHT_TYPE_COUNT] = {
        [WEIGHT_F32] = 0,   [WEIGHT_BF16] = 32, [WEIGHT_F16] = 1,   [WEIGHT_Q8_0] = 7,
        [WEIGHT_Q4_0] = 2,  [WEIGHT_Q4_1] = 3,  [WEIGHT_Q5_0] = 8,  [WEIGHT_Q5_1] = 9,
        [WEIGHT_Q2_K] = 10, [WEIGHT_Q3_K] = 11, [WEIGHT_Q4_K] = 14, [WEIGHT_Q5_K] = 16,
        [WEIGHT_Q6_K] = 18,
    };
    return numbers[most];
}

static void write_model(const struct model_config *config, struct gguf_output *output) {
    char key[64];
    for (int i = 0; i < MODEL_CONFIG_SIZES; i++) {
        const struct model_config_size *size = &model_config_sizes[i];
        uint32_t value;
        if (!size->gguf_key)
            continue;
        memcpy(&value, (const char *)config + size->offset, sizeof value);
        snprintf(key, sizeof key, "gemma.%s", size->gguf_key);
        gguf_output_integer(output, key, value);
    }
    gguf_output_integer(output, "gemma.attention.value_length", config->head_dim);
    gguf_output_real(output, "gemma.attention.layer_norm_rms_epsilon", (float)config->rms_eps);
    if (config->rope_theta != 10000)
        gguf_output_real(output, "gemma.rope.freq_base", (float)config->rope_theta);
}

static void write_general(const struct checkpoint *checkpoint, enum weight_type most,
                          bool quantised, struct gguf_output *output) {
    gguf_output_string(output, "general.architecture", text("gemma"));
    gguf_output_string(output, "general.type", text("model"));
    char *name = checkpoint_model_name(checkpoint);
    if (name)
        gguf_output_string(output, "general.name", text(name));
    free(name);
    gguf_output_integer(output, "general.file_type", file_type(most));
    if (quantised)
        gguf_output_integer(output, "general.quantization_version", QUANTISATION_VERSION);
}

/* ---- The tokenizer ---- */

/* Pieces that steer the model are to be control ones, which no text becomes by itself. */
static enum piece_type written_type(const struct piece *piece) {
    return tokenizer_is_reserved(piece) ? PIECE_CONTROL : piece->type;
}

static float written_score(const struct piece *piece) {
    bool special = piece->type == PIECE_USER_DEFINED || written_type(piece) == PIECE_CONTROL;
    return special ? SPECIAL_SCORE : piece->score;
}

/* User-defined pieces are looked for in texts as they come, so their spaces are spaces. */
static bool write_user_defined(const struct piece *piece, struct gguf_output *output) {
    char *spaced = malloc(piece->length + 1);
    if (!spaced)
        return false;
    size_t length = 0;
    for (size_t i = 0; i < piece->length;) {
        bool space = piece->length - i >= 3 && memcmp(piece->text + i, SPACE, 3) == 0;
        spaced[length++] = space ? ' ' : piece->text[i];
        i += space ? 3 : 1;
    }
    gguf_output_string_element(output, (struct gguf_string){spaced, length});
    free(spaced);
    return true;
}

static bool write_tokens(const struct sentencepiece_model *model, uint32_t rows,
                         struct gguf_output *output) {
    gguf_output_array(output, "tokenizer.ggml.tokens", GGUF_STRING, rows);
    for (uint32_t i = 0; i < model->count; i++) {
        const struct piece *piece = &model->pieces[i];
        if (written_type(piece) != PIECE_USER_DEFINED)
            gguf_output_string_element(output, (struct gguf_string){piece->text, piece->length});
        else if (!write_user_defined(piece, output))
            return false;
    }
    for (uint32_t i = model->count; i < rows; i++) {
        char name[32];
        snprintf(name, sizeof name, "[PAD%u]", i);
        gguf_output_string_element(output, text(name));
    }
    return true;
}

/* One for every row of the embedding: readers take their number for the vocabulary's. */
static bool write_lists(const struct sentencepiece_model *model, uint32_t rows,
                        struct gguf_output *output) {
    if (!write_tokens(model, rows, output))
        return false;
    gguf_output_array(output, "tokenizer.ggml.scores", GGUF_FLOAT32, rows);
    for (uint32_t i = 0; i < rows; i++)
        gguf_output_real_element(output, i < model->count ? written_score(&model->pieces[i])
                                                          : PADDING_SCORE);
    gguf_output_array(output, "tokenizer.ggml.token_type", GGUF_INT32, rows);
    for (uint32_t i = 0; i < rows; i++)
        gguf_output_integer_element(
            output, i < model->count ? (int32_t)written_type(&model->pieces[i]) : PIECE_UNUSED);
    return true;
}

static void write_id(struct gguf_output *output, const char *key, int32_t id) {
    if (id >= 0)
        gguf_output_integer(output, key, (uint32_t)id);
}

/* GGUF has keys for three end tokens: the text's, the turn's and the message's. */
static void write_special(const struct model_config *config, int32_t unknown, int32_t end_of_turn,
                          int32_t end_of_text, struct gguf_output *output) {
    int32_t turn = end_of_turn, message = -1;
    for (uint32_t i = 1; i < config->eos_count; i++) {
        int32_t id = config->eos[i];
        if (id == end_of_text || id == turn) /* readers know these by their pieces */
            continue;
        if (turn < 0)
            turn = id;
        else if (message < 0)
            message = id;
    }
    write_id(output, "tokenizer.ggml.bos_token_id", config->bos);
    if (config->eos_count)
        write_id(output, "tokenizer.ggml.eos_token_id", config->eos[0]);
    write_id(output, "tokenizer.ggml.eot_token_id", turn);
    write_id(output, "tokenizer.ggml.eom_token_id", message);
    write_id(output, "tokenizer.ggml.unknown_token_id", unknown);
    write_id(output, "tokenizer.ggml.padding_token_id", config->pad);
}

/* `tokenizer` is of the checkpoint, whose pieces are sound therefore. */
static peridot_result write_tokenizer(const struct checkpoint *checkpoint,
                                      const struct tokenizer *tokenizer, struct gguf_output *output,
                                      peridot_error *error) {
    const struct model_config *config = checkpoint_config(checkpoint);
    struct tokenizer_specials special = tokenizer_specials(tokenizer);
    struct sentencepiece_model model;
    char *texts, *template = NULL;
    peridot_result result = checkpoint_read_pieces(checkpoint, &model, &texts, error);
    if (!result)
        result = checkpoint_chat_template(checkpoint, &template, error);
    if (!result) {
        gguf_output_string(output, "tokenizer.ggml.model", text("llama"));
        gguf_output_string(output, "tokenizer.ggml.pre", text("default"));
        if (!write_lists(&model, config->vocabulary, output))
            output->failed = true;
        write_special(config, special.unk, special.end_of_turn, tokenizer_find(tokenizer, "<eos>"),
                      output);
        gguf_output_bool(output, "tokenizer.ggml.add_bos_token", true);
        gguf_output_bool(output, "tokenizer.ggml.add_eos_token", false);
        gguf_output_bool(output, "tokenizer.ggml.add_space_prefix", false);
        if (template)
            gguf_output_string(output, "tokenizer.chat_template", text(template));
    }
    free(template);
    free(texts);
    sentencepiece_free(&model);
    return result;
}

peridot_result convert_metadata(const struct checkpoint *checkpoint, enum weight_type most,
                                bool quantised, struct gguf_output *output, bool *has_tokenizer,
                                peridot_error *error) {
    const struct model_config *config = checkpoint_config(checkpoint);
    struct tokenizer *tokenizer;
    peridot_result result = checkpoint_create_tokenizer(checkpoint, &tokenizer, error);
    if (result)
        return result;
    *has_tokenizer = tokenizer != NULL;
    write_general(checkpoint, most, quantised, output);
    write_model(config, output);
    if (tokenizer) {
        result = write_tokenizer(checkpoint, tokenizer, output, error);
    } else { /* ids alone: readers then take the number of tokens from the model */
        gguf_output_string(output, "tokenizer.ggml.model", text("none"));
        gguf_output_integer(output, "gemma.vocab_size", config->vocabulary);
        write_special(config, -1, -1, -1, output);
    }
    tokenizer_destroy(tokenizer);
    return result;
}
