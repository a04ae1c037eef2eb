#include "gemma_sizes.h"
#include "abi.h"

const struct gemma_sizes gemma_sizes[GEMMA_COUNT] = {
    [GEMMA_2B] = {"2b", 2048, 8, 1, 256, 16384, 256000},
    [GEMMA_7B] = {"7b", 3072, 16, 16, 256, 24576, 256000},
    [GEMMA_SMALL] = {"small", 512, 4, 1, 64, 1024, 1024},
};

void gemma_set(struct gemma *gemma, struct device *device, const struct gemma_sizes *sizes) {
    *gemma = (struct gemma){.device.engine = device};
    gemma->model.device = &gemma->device;
    gemma->model.config.d_model = sizes->d_model;
    gemma->model.config.heads = sizes->heads;
    gemma->model.config.kv_heads = sizes->kv_heads;
    gemma->model.config.head_dim = sizes->head_dim;
    gemma->model.config.hidden = sizes->hidden;
    gemma->model.config.vocabulary = sizes->vocabulary;
    gemma->model.head_dim_padded = round_up(sizes->head_dim, ROW_ALIGNMENT);
}
