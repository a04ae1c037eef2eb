/* A model on its devices: weights in Peridot's own layout, shared by its sessions. */
#ifndef HOST_MODEL_H
#define HOST_MODEL_H

#include "checkpoint.h"
#include "memory.h"
#include "peridot.h"
#include "tokenizer.h"
#include "tuning.h"
#include "weight_types.h"

struct peridot_device {
    struct device *engine;
    struct tuning tuning; /* as read when it was opened */
    char tuning_warning[TUNING_WORD];
};

/* A part of a weight matrix, rows row_begin to row_begin + row_count - 1, in one buffer:
 * [rows][stride quads] as host/device_rows.h says. */
struct shard {
    const struct buffer *buffer;
    uint32_t row_begin, row_count;
    enum weight_type type;
    uint32_t columns; /* padded, device_row_columns */
    uint32_t stride;  /* of a row, in quads */
    uint32_t steps;   /* of a row, as the kernels count them (abi.h) */
};

/* Split by rows where one allocation cannot hold it, and where the type changes. */
struct weight {
    uint32_t rows, columns; /* without padding */
    uint64_t ideal_bytes;   /* without padding, as a file holds these types */
    struct shard *shards;
    uint32_t shard_count;
};

struct layer {
    struct weight qkv, output, gate_up, down;
    const struct buffer *input_norm,
        *post_attention_norm; /* float32 [d_model padded], 1 + weight */
};

/* What of a model is on one device. The parts of a model are a chain in the order of their layers;
 * the first one, home, is what the application holds, and has the tables, the head and the sampler
 * too. */
struct peridot_model {
    struct peridot_device *device;
    struct peridot_model *next; /* NULL: the last part */
    bool is_home;
    uint32_t first_layer, layer_count; /* those that are here */
    struct model_config config;        /* of the whole model */
    uint32_t d_padded;                 /* d_model in activation rows, floats */
    uint32_t hidden_padded;
    uint32_t head_dim_padded;
    uint32_t query_padded;       /* all heads of a token's queries, or of attention's result */
    struct tokenizer *tokenizer; /* NULL: none */
    struct arena *arena;         /* of all that follows; a plan in a model that is only inspected */
    const struct buffer *rope;   /* float32 [context][head_dim / 2][cos, sin] */
    struct layer *layers;        /* [layer_count] */
    /* At home alone, as all that follows */
    struct weight embedding, head; /* the head has no shards of its own where it is the embedding */
    const struct buffer *final_norm;
    struct token_trie *trie; /* of the tokens' texts; NULL: no grammar was made yet */
    uint64_t fingerprint;
    /* While loading or inspecting: the file's head, if it is no copy of the embedding */
    const struct checkpoint_tensor *own_head;
    bool weights_chosen; /* by AUTO, smaller than the file's */
    double seconds_loading;
};

/* The next part that has layers: a device may get none, and is not used then. */
static inline struct peridot_model *model_next(const struct peridot_model *part) {
    struct peridot_model *next = part->next;
    while (next && !next->layer_count)
        next = next->next;
    return next;
}

static inline uint32_t round_up(uint32_t value, uint32_t multiple) {
    return (value + multiple - 1) / multiple * multiple;
}

/* Plans the weights' shapes and arenas that know what they take on the devices, instead of what was
 * planned before; of several devices each gets its layers so that a session of `context` positions
 * fits where it can. params->weights is not AUTO. Errors: as upload_weights. */
struct checkpoint;
peridot_result model_plan_weights(struct peridot_model *model, const struct checkpoint *checkpoint,
                                  const peridot_model_params *params,
                                  const peridot_session_params *session, uint32_t context,
                                  peridot_error *error);
/* A model's parts, one for each device, without tokenizer and weights, for peridot_model_close also
 * after an error. Errors: ARGUMENT, UNSUPPORTED, HOST_MEMORY. */
peridot_result model_create_parts(peridot_device *device, const struct model_config *config,
                                  const peridot_model_params *params, struct peridot_model **model,
                                  peridot_error *error);
/* Instead of a part's plan an arena that makes what was planned. Errors: HOST_MEMORY. */
peridot_result model_make_arena(struct peridot_model *part, peridot_error *error);
/* A model of which only sizes and types are known, for peridot_model_close: from a path, or with
 * NULL from files. Errors: as peridot_model_inspect. (loading.c) */
peridot_result model_plan(peridot_device *device, const char *path, const peridot_file *files,
                          uint32_t count, const peridot_model_params *params,
                          struct peridot_model **model, peridot_error *error);
/* Bytes of a weight on the device. */
uint64_t weight_bytes(const struct weight *weight);
/* What makes the logits. */
static inline const struct weight *model_head(const struct peridot_model *model) {
    return model->head.shard_count ? &model->head : &model->embedding;
}
/* How many rows of a matrix go into one buffer at most, an even number; 0: not even two fit. */
uint32_t weight_piece_rows(const struct peridot_model *model, const peridot_model_params *params,
                           uint64_t row_bytes);

#endif
