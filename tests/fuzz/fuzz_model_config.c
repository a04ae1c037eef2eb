#include "model_config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    peridot_error error;
    struct model_config config;
    if (model_config_parse((const char *)data, size, "fuzz", &config, &error) == PERIDOT_OK)
        (void)model_config_add_eos((const char *)data, size, "fuzz", &config, &error);
    return 0;
}
