#include "any_sampling.h"

peridot_sampling any_sampling(struct random *generator) {
    peridot_sampling sampling = {.struct_size = sizeof sampling,
                                 .seed = random_below(generator, 1u << 30)};
    if (random_below(generator, 3))
        sampling.temperature = 0.5f + 0.1f * (float)random_below(generator, 20);
    if (random_below(generator, 2))
        sampling.top_k = 1 + (uint32_t)random_below(generator, 100);
    if (random_below(generator, 2))
        sampling.top_p = 0.5f + 0.01f * (float)random_below(generator, 50);
    if (random_below(generator, 2))
        sampling.repetition_penalty = 1.2f;
    sampling.min_tokens = (uint32_t)random_below(generator, 8);
    return sampling;
}
