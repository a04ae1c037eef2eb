/* Any bytes as a SPIR-V module from a stranger: the lab refuses or reads them. */
#include "spirv_module.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct device device = {.minimal = true, .info.limits.max_workgroup = 1024};
    size_t count = size / 4;
    uint32_t *words = malloc(count * 4 + 4), needs = 0;
    char why[160];
    if (!words)
        return 0;
    memcpy(words, data, count * 4);
    if (spirv_check(words, count, why, sizeof why)) {
        spirv_needs(&device, words, count, &needs, why, sizeof why);
        for (uint32_t id = 0; id < 3; id++)
            spirv_specialise(words, count, id, id);
        if (!spirv_check(words, count, why, sizeof why))
            abort(); /* another value leaves a module whole */
    }
    free(words);
    return 0;
}
