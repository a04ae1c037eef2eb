#include "weights_words.h"
#include "weight_types.h"

#include <string.h>

const char *const kv_words[] = {
    [PERIDOT_KV_F16] = "f16", [PERIDOT_KV_F32] = "f32", [PERIDOT_KV_Q8] = "q8", NULL};

static const struct {
    const char *word;
    peridot_weights weights;
} others[] = {
    {"int8", PERIDOT_WEIGHTS_Q8_0}, {"q4", PERIDOT_WEIGHTS_Q4_K}, {"file", PERIDOT_WEIGHTS_FILE}};

#define OTHERS (sizeof others / sizeof *others)

const char *weights_name(peridot_weights weights) {
    return weights == PERIDOT_WEIGHTS_AUTO ? "mixed" : weight_type_info(weights - 1)->name;
}

const char *const *weights_words(void) {
    static const char *words[1 + WEIGHT_TYPE_COUNT + OTHERS + 1] = {"auto"};
    for (uint32_t i = 0; i < WEIGHT_TYPE_COUNT; i++)
        words[1 + i] = weight_type_info(i)->name;
    for (size_t i = 0; i < OTHERS; i++)
        words[1 + WEIGHT_TYPE_COUNT + i] = others[i].word;
    return words;
}

bool weights_read(const char *text, peridot_weights *weights) {
    const char *const *words = weights_words();
    for (uint32_t i = 0; words[i]; i++)
        if (strcmp(text, words[i]) == 0) {
            *weights = i <= WEIGHT_TYPE_COUNT ? (peridot_weights)i
                                              : others[i - WEIGHT_TYPE_COUNT - 1].weights;
            return true;
        }
    return false;
}
