#include "tokenizer.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    peridot_error error;
    struct tokenizer *tokenizer;
    struct token_list list = {0};
    static const char text[] = "The  cat<b> sat\n\n on 12 mats. \xf0\x9f\x98\x80\xff";
    if (tokenizer_create(data, size, "fuzz", &tokenizer, &error))
        return 0;
    char *back = NULL;
    size_t length;
    if (!tokenizer_encode(tokenizer, text, sizeof text - 1, TOKENIZER_PLAIN, &list, &error))
        (void)tokenizer_decode(tokenizer, list.ids, list.count, &back, &length, &error);
    free(back);
    token_list_free(&list);
    tokenizer_destroy(tokenizer);
    return 0;
}
