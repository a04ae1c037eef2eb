#include "gemma_sizes.h"
#include "abi.h"

const struct gemma_sizes gemma_sizes[GEMMA_COUNT] = {
    [GEMMA_2B] = {"2b",
                  {.d_model = 2048,
                   .heads = 8,
                   .kv_heads = 1,
                   .head_dim = 256,
                   .hidden = 16384,
                   .vocabulary = 256000,
                   .context = 8192}},
    [GEMMA_7B] = {"7b",
                  {.d_model = 3072,
                   .heads = 16,
                   .kv_heads = 16,
                   .head_dim = 256,
                   .hidden = 24576,
                   .vocabulary = 256000,
                   .context = 8192}},
    [GEMMA_SMALL] = {"small",
                     {.d_model = 512,
                      .heads = 4,
                      .kv_heads = 1,
                      .head_dim = 64,
                      .hidden = 768,
                      .vocabulary = 512,
                      .context = 8192}},
};

void gemma_set(struct gemma *gemma, struct device *device, const struct gemma_sizes *sizes) {
    *gemma = (struct gemma){.device.engine = device, .model.config = sizes->config};
    gemma->model.device = &gemma->device;
    gemma->model.head_dim_padded = round_up(sizes->config.head_dim, ROW_ALIGNMENT);
}
