/* A GGUF file from outside: the header, the checkpoint, every tensor's bytes, the tokenizer and a
 * text through it. Bytes that begin with PARTS are a split model: each part's length in four bytes,
 * then the part; the last one is what is left. */
#include "checkpoint.h"
#include "gguf.h"

#include <stdlib.h>
#include <string.h>

#define PARTS "PARTS"
#define PARTS_MAX 4

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
            const uint8_t *bytes;
            if (checkpoint_read(checkpoint, tensor, 0, (size_t)tensor->size, NULL, &bytes, NULL))
                abort();
            for (size_t i = 0; i < tensor->size; i++)
                sink = bytes[i];
        }
    }
    uint64_t fingerprint;
    if (checkpoint_fingerprint(checkpoint, &fingerprint, NULL))
        abort();
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

static void open_files(const struct checkpoint_file *files, uint32_t count) {
    struct checkpoint *checkpoint;
    peridot_error error;
    if (checkpoint_open_memory(files, count, &checkpoint, &error))
        return;
    read_tensors(checkpoint);
    use_tokenizer(checkpoint);
    checkpoint_close(checkpoint);
}

static void open_parts(const uint8_t *data, size_t size) {
    static const char *const names[PARTS_MAX] = {"a.gguf", "b.gguf", "c.gguf", "d.gguf"};
    struct checkpoint_file files[PARTS_MAX];
    uint32_t count = 0;
    while (size >= 4 && count < PARTS_MAX) {
        uint32_t length;
        memcpy(&length, data, 4);
        data += 4, size -= 4;
        if (length > size || count == PARTS_MAX - 1)
            length = (uint32_t)size;
        files[count] = (struct checkpoint_file){names[count], data, length};
        data += length, size -= length, count++;
    }
    open_files(files, count);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct gguf header;
    peridot_error error;
    if (size >= strlen(PARTS) && memcmp(data, PARTS, strlen(PARTS)) == 0) {
        open_parts(data + strlen(PARTS), size - strlen(PARTS));
        return 0;
    }
    if (gguf_parse(data, size, "fuzz", &header, &error) == PERIDOT_OK)
        gguf_free(&header);
    open_files(&(struct checkpoint_file){"fuzz.gguf", data, size}, 1);
    return 0;
}
