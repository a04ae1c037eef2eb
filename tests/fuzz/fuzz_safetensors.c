#include "safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    peridot_error error;
    struct safetensors file;
    if (safetensors_parse(data, size, "fuzz", &file, &error) == PERIDOT_OK)
        safetensors_free(&file);
    return 0;
}
