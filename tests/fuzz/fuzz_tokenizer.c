/* tokenizer.model from outside, and texts and ids through whatever vocabulary comes of it. The last
 * bytes of the input also serve as the text. */
#include "chat_template.h"
#include "tokenizer.h"

#include <stdlib.h>

static void check_text(const struct tokenizer *tokenizer, const char *text, size_t length,
                       enum tokenizer_mode mode) {
    struct token_list list = {0};
    char *decoded;
    const char *bytes;
    size_t size;
    if (tokenizer_encode(tokenizer, text, length, mode, &list, NULL))
        return;
    for (size_t i = 0; i < list.count; i++)
        if (!tokenizer_piece(tokenizer, list.ids[i], &bytes, &size))
            abort(); /* an id that is none */
    if (tokenizer_decode(tokenizer, list.ids, list.count, &decoded, &size, NULL))
        abort();
    free(decoded);
    token_list_free(&list);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char text[] = "<start_of_turn>user\n  caf\xc3\xa9 \xff\xe2\x96\x81 aaaa<b>";
    struct tokenizer *tokenizer;
    peridot_error error;
    if (tokenizer_create(data, size, "fuzz", &tokenizer, &error))
        return 0;
    size_t length = size < 256 ? size : 256;
    for (int mode = TOKENIZER_SPECIAL; mode <= TOKENIZER_PLAIN; mode++) {
        check_text(tokenizer, text, sizeof text - 1, (enum tokenizer_mode)mode);
        check_text(tokenizer, (const char *)data + size - length, length,
                   (enum tokenizer_mode)mode);
    }
    const struct chat_message message = {"user", (const char *)data + size - length, length};
    struct token_list list = {0};
    (void)chat_template_render(tokenizer, &message, 1, &list, &error);
    token_list_free(&list);
    tokenizer_destroy(tokenizer);
    return 0;
}
