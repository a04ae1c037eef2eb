/* config.json of a Gemma checkpoint. */
#ifndef HOST_MODEL_CONFIG_H
#define HOST_MODEL_CONFIG_H

#include "error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EOS_TOKENS_MAX 8

struct model_config {
    uint32_t layers;
    uint32_t d_model;
    uint32_t heads;
    uint32_t kv_heads;   /* divides heads */
    uint32_t head_dim;   /* even, at most 512 */
    uint32_t hidden;     /* of the MLP: gate and up each */
    uint32_t vocabulary; /* at least 3: pad, eos and bos */
    uint32_t context;    /* at most 32768 */
    double rms_eps;
    double rope_theta;
    int32_t bos, pad;
    int32_t eos[EOS_TOKENS_MAX];
    uint32_t eos_count;
};

/* The sizes among them: where they stand, and what they may be. */
struct model_config_size {
    const char *name;     /* in config.json */
    const char *gguf_key; /* in GGUF files, after "gemma."; NULL: another place says it */
    size_t offset;        /* in struct model_config, an uint32_t */
    uint32_t fallback, least, most;
};
#define MODEL_CONFIG_SIZES 8
extern const struct model_config_size model_config_sizes[MODEL_CONFIG_SIZES];

/* Whether the sizes go together: FORMAT if not, with their names in config.json or in GGUF files.
 */
peridot_result model_config_check(const struct model_config *config, bool is_gguf, const char *name,
                                  peridot_error *error);
/* Adds an end token, once; false: there are EOS_TOKENS_MAX already. */
bool model_config_add_end(struct model_config *config, int32_t id);

/* Parses config.json; what is absent has the default of Hugging Face's GemmaConfig. `name` stands
 * in messages. Errors: FORMAT (not JSON, a field of the wrong kind or out of range: which),
 * UNSUPPORTED (another architecture, or an option that Gemma 1 does not have), HOST_MEMORY. */
peridot_result model_config_parse(const char *json, size_t length, const char *name,
                                  struct model_config *config, peridot_error *error);

/* Adds the end tokens that generation_config.json names to a configuration that was parsed; one
 * that cannot be read, or is no token of the vocabulary, is an error: FORMAT. */
peridot_result model_config_add_eos(const char *json, size_t length, const char *name,
                                    struct model_config *config, peridot_error *error);

#endif
