/* What the files that implement checkpoint.h share. */
#ifndef HOST_CHECKPOINT_PARTS_H
#define HOST_CHECKPOINT_PARTS_H

#include "checkpoint.h"
#include "gguf.h"
#include "platform.h"
#include "safetensors.h"

#define SHARDS_MAX 1024 /* files of weights */

/* One file: of the directory, or in the caller's memory. */
struct source {
    char *name;                 /* for messages: the path, or the name in memory */
    const uint8_t *data;        /* all of it; of weights in a directory, what their header takes */
    uint64_t size;              /* of the file */
    uint8_t *own;               /* what was read to hold that; NULL: the caller's memory */
    struct open_file file;      /* of weights in a directory: they are read when they are needed */
    struct safetensors tensors; /* of a weight file */
    struct gguf gguf;           /* of a GGUF file */
};

struct checkpoint {
    bool is_gguf;
    char *directory; /* NULL: from memory */
    const struct checkpoint_file *memory;
    size_t memory_count;
    struct model_config config;
    struct source tokenizer; /* tokenizer.model, if there is one */
    struct source *shards;   /* room for SHARDS_MAX */
    uint32_t shard_count;
    struct checkpoint_tensor *tensors; /* the model's, then each layer's */
};

/* ---- checkpoint_files.c ---- */

/* `directory` (NULL: none), "/" where it is needed, and `name` in new memory, or NULL. */
char *checkpoint_join(const char *directory, const char *name);
/* Whether the directory has that file; needs no memory. */
bool checkpoint_directory_has(const char *directory, const char *name);
bool checkpoint_has_file(const struct checkpoint *checkpoint, const char *name);
/* A file that is read whole. Errors: FILE, HOST_MEMORY. Also after one, `*source` is to be closed.
 */
peridot_result checkpoint_open_source(const struct checkpoint *checkpoint, const char *name,
                                      struct source *source, peridot_error *error);
/* A file of weights: of a directory's, nothing is read yet, and data is NULL. As above. */
peridot_result checkpoint_open_weights(const struct checkpoint *checkpoint, const char *name,
                                       struct source *source, peridot_error *error);
void checkpoint_close_source(struct source *source); /* accepts an all-zero record */

/* ---- checkpoint_safetensors.c, checkpoint_gguf.c ---- */

/* These open the weights, read the configuration and know where a tokenizer is. */
peridot_result checkpoint_open_safetensors(struct checkpoint *checkpoint, peridot_error *error);
/* `name` in the directory is one of the files; it means nothing with files from memory. */
peridot_result checkpoint_open_gguf(struct checkpoint *checkpoint, const char *name,
                                    peridot_error *error);

/* ---- checkpoint_tensors.c ---- */

/* The place of a tensor in checkpoint->tensors; of the first role that has a layer and the number
 * of layers, how many there are. */
size_t checkpoint_tensor_index(enum tensor_role role, uint32_t layer);
/* Finds every tensor in the shards that are open. */
peridot_result checkpoint_find_tensors(struct checkpoint *checkpoint, peridot_error *error);

#endif
