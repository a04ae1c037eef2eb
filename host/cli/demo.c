#include "demo.h"

/* From demo_data.S. */
extern const char demo_config[], demo_config_end[], demo_weights[], demo_weights_end[],
    demo_tokenizer[], demo_tokenizer_end[];

void demo_list(peridot_file files[DEMO_FILES]) {
    files[0] = (peridot_file){"config.json", demo_config, (size_t)(demo_config_end - demo_config)};
    files[1] = (peridot_file){"model.safetensors", demo_weights,
                              (size_t)(demo_weights_end - demo_weights)};
    files[2] = (peridot_file){"tokenizer.model", demo_tokenizer,
                              (size_t)(demo_tokenizer_end - demo_tokenizer)};
}
