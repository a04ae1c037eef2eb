#include "checksum.h"
#include "tuning.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define HEAD_BYTES 43
#define HASH_BYTES 16

/* The input as a body behind a right head, and with right hashes of one kernel where it says #:
 * neither would the fuzzer find. The caller's to free. */
static char *complete(const uint8_t *data, size_t size, size_t *length) {
    char *text = malloc(HEAD_BYTES + 1 + HASH_BYTES * size + 1), *at = text + HEAD_BYTES;
    if (!text)
        abort();
    for (size_t i = 0; i < size; i++)
        if (data[i] == '#')
            at += sprintf(at, "%016" PRIx64, tuning_hash(KERNEL_matvec_geglu, WEIGHT_Q4_K));
        else
            *at++ = (char)data[i];
    *length = (size_t)(at - text);
    char head[HEAD_BYTES + 1];
    snprintf(head, sizeof head, "peridot-tuning 1\nchecksum %016" PRIx64 "\n",
             checksum_add(CHECKSUM_START, text + HEAD_BYTES, *length - HEAD_BYTES));
    memcpy(text, head, HEAD_BYTES);
    return text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct device device = {.info = {.limits = {.subgroup_size = 32,
                                                .subgroup_settable = true,
                                                .subgroup_smallest = 8,
                                                .max_workgroup = 1024,
                                                .max_shared = 49152}},
                            .needs_met = ~0u};
    struct tuning tuning;
    char word[TUNING_WORD];
    size_t length;
    tuning_parse(&device, "fuzz", (const char *)data, size, &tuning, word);
    tuning_free(&tuning);
    char *text = complete(data, size, &length);
    tuning_parse(&device, "fuzz", text, length, &tuning, word);
    tuning_free(&tuning);
    free(text);
    return 0;
}
