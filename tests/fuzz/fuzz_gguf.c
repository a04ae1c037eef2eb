/* A GGUF file from outside: the header, the checkpoint, every tensor's bytes, the tokenizer and a
 * text through it. */
#include "checkpoint.h"
#include "gguf.h"

#include <stdlib.h>

static volatile uint8_t sink;

static void read_tensors(const struct checkpoint *checkpoint) {
    for (int role = 0; role < TENSOR_ROLE_COUNT; role++) {
        uint32_t layers = role < TENSOR_INPUT_NORM ? 1 : checkpoint_config(checkpoint)->layers;
        for (uint32_t layer = 0; layer < layers; layer++) {
            const struct checkpoint_tensor *tensor =
                checkpoint_tensor(checkpoint, (enum tensor_role)role, layer);
            const struct weight_type_info *info = tensor ? weight_type_info(tensor->type) : NULL;
            if (!tensor)
                continue;
            if (tensor->size !=
                (uint64_t)tensor->rows * tensor->columns / info->block * info->block_bytes)
                abort();
            for (size_t i = 0; i < tensor->size; i++)
                sink = tensor->data[i];
        }
    }
    (void)checkpoint_fingerprint(checkpoint);
}

static void use_tokenizer(const struct checkpoint *checkpoint) {
    static const char text[] = "<start_of_turn>user\n  caf\xc3\xa9 \xff\xe2\x96\x81\t\taaaa<b>";
    struct tokenizer *tokenizer;
    struct token_list list = {0};
    const char *bytes;
    size_t size;
    peridot_error error;
    if (checkpoint_create_tokenizer(checkpoint, &tokenizer, &error) || !tokenizer)
        return;
    if (tokenizer_encode(tokenizer, text, sizeof text - 1, TOKENIZER_SPECIAL, &list, &error) ==
        PERIDOT_OK)
        for (size_t i = 0; i < list.count; i++)
            if (!tokenizer_piece(tokenizer, list.ids[i], &bytes, &size))
                abort(); /* an id that is none */
    token_list_free(&list);
    tokenizer_destroy(tokenizer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const struct checkpoint_file file = {"fuzz.gguf", data, size};
    struct checkpoint *checkpoint;
    struct gguf header;
    peridot_error error;
    if (gguf_parse(data, size, "fuzz", &header, &error) == PERIDOT_OK)
        gguf_free(&header);
    if (checkpoint_open_memory(&file, 1, &checkpoint, &error))
        return 0;
    read_tensors(checkpoint);
    use_tokenizer(checkpoint);
    checkpoint_close(checkpoint);
    return 0;
}
