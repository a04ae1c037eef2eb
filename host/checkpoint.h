/* A Gemma checkpoint: a Hugging Face directory (config.json, one or several safetensors, perhaps a
 * tokenizer.model) or a GGUF file, perhaps split in several; on disk, or in memory. On opening,
 * every tensor that Gemma needs is known to be there, of a usable type and of the shape that the
 * configuration says, and none that would make it another model: a further layer, or a bias. Other
 * surplus tensors are left alone. */
#ifndef HOST_CHECKPOINT_H
#define HOST_CHECKPOINT_H

#include "model_config.h"
#include "tokenizer.h"
#include "weight_types.h"

#include <stdbool.h>

enum tensor_role {
    TENSOR_EMBEDDING,
    TENSOR_FINAL_NORM,
    TENSOR_HEAD,       /* optional: where it is absent, the head is the embedding */
    TENSOR_INPUT_NORM, /* the first role with one tensor a layer */
    TENSOR_POST_ATTENTION_NORM,
    TENSOR_QUERY,
    TENSOR_KEY,
    TENSOR_VALUE,
    TENSOR_OUTPUT,
    TENSOR_GATE,
    TENSOR_UP,
    TENSOR_DOWN,
    TENSOR_ROLE_COUNT
};

struct checkpoint_tensor {
    enum weight_type type;
    uint32_t rows, columns; /* row-major, in whole blocks; norms have one row */
    uint64_t begin;         /* in its file */
    uint64_t size;          /* bytes */
    const char *name;       /* for messages */
    uint32_t file;          /* which of the checkpoint's files */
};

struct checkpoint_file {
    const char *name; /* as in a directory */
    const void *data;
    size_t size;
};

struct checkpoint;
/* A directory, or a GGUF file, or any part of a split one. Errors: FILE, FORMAT, UNSUPPORTED,
 * HOST_MEMORY; each names the file, and the tensor if it is one. */
peridot_result checkpoint_open(const char *path, struct checkpoint **checkpoint,
                               peridot_error *error);
/* The files of a directory, or a GGUF file's parts under any names. The data is not copied and must
 * outlive the checkpoint. */
peridot_result checkpoint_open_memory(const struct checkpoint_file *files, size_t count,
                                      struct checkpoint **checkpoint, peridot_error *error);
void checkpoint_close(struct checkpoint *checkpoint); /* accepts NULL */

const struct model_config *checkpoint_config(const struct checkpoint *checkpoint);
/* Whether the norms are stored as 1 + weight. */
bool checkpoint_norms_have_one(const struct checkpoint *checkpoint);
/* Whether a path leads to one of the files that the checkpoint was read from, or would be. */
bool checkpoint_reads(const struct checkpoint *checkpoint, const char *path);
/* The checkpoint's tokenizer, the caller's to destroy; NULL: it has none. Errors: as
 * tokenizer_create_pieces; FORMAT (more pieces than the model has tokens). */
peridot_result checkpoint_create_tokenizer(const struct checkpoint *checkpoint,
                                           struct tokenizer **tokenizer, peridot_error *error);
/* The same in steps: begins with reading the pieces, makes the tokenizer of so many a step,
 * NOT_READY until it is there (or NULL), and ends, also after an error. */
struct checkpoint_tokenizer {
    struct sentencepiece_model model;
    char *texts;
    struct tokenizer_making *making; /* NULL: the checkpoint has none */
};
peridot_result checkpoint_begin_tokenizer(const struct checkpoint *checkpoint,
                                          struct checkpoint_tokenizer *reading,
                                          peridot_error *error);
peridot_result checkpoint_step_tokenizer(struct checkpoint_tokenizer *reading, uint32_t pieces,
                                         struct tokenizer **tokenizer, peridot_error *error);
void checkpoint_end_tokenizer(struct checkpoint_tokenizer *reading);
/* The pieces that the tokenizer is made of; none: there is no tokenizer. They lie in the
 * checkpoint, which must outlive them, and in `*texts`, to be freed; so is the model with
 * sentencepiece_free, also after an error. What they hold, checkpoint_create_tokenizer judges. */
peridot_result checkpoint_read_pieces(const struct checkpoint *checkpoint,
                                      struct sentencepiece_model *model, char **texts,
                                      peridot_error *error);
/* The template by which other programs make a chat a text, in new memory, the caller's to free;
 * NULL: the checkpoint has none. Errors: FORMAT, HOST_MEMORY. */
peridot_result checkpoint_chat_template(const struct checkpoint *checkpoint, char **text,
                                        peridot_error *error);
/* What the model is called, in new memory: by its metadata, or its directory. NULL: not known. */
char *checkpoint_model_name(const struct checkpoint *checkpoint);
/* `layer` is 0 for the roles that have no layer. Owned by the checkpoint; NULL: an optional one
 * that is absent. */
const struct checkpoint_tensor *checkpoint_tensor(const struct checkpoint *checkpoint,
                                                  enum tensor_role role, uint32_t layer);
/* A head in the file that is no copy of the embedding: copies are common, and cost memory. NULL:
 * the head is the embedding. Errors: as checkpoint_read; HOST_MEMORY. */
peridot_result checkpoint_own_head(const struct checkpoint *checkpoint,
                                   const struct checkpoint_tensor **head, peridot_error *error);
/* The same in steps, each of a piece from `*done` on, 0 at first: NOT_READY until it is known. */
peridot_result checkpoint_compare_head(const struct checkpoint *checkpoint, uint64_t *done,
                                       const struct checkpoint_tensor **head, peridot_error *error);
/* The name that a tensor has in GGUF files, with ".weight". */
void checkpoint_gguf_name(enum tensor_role role, uint32_t layer, char *out, size_t size);
/* The path of the file that holds the tensor, for messages; owned by the checkpoint. */
const char *checkpoint_tensor_file(const struct checkpoint *checkpoint,
                                   const struct checkpoint_tensor *tensor);
/* Bytes [offset, offset + size) of the tensor: read to `room`, or where they lie in the caller's
 * memory; they may be unaligned. Any number of threads at once; waits for the disk. Errors: FILE
 * (the disk fails, or the file has become shorter since it was opened). */
peridot_result checkpoint_read(const struct checkpoint *checkpoint,
                               const struct checkpoint_tensor *tensor, uint64_t offset, size_t size,
                               void *room, const uint8_t **bytes, peridot_error *error);
/* A norm's 1 + weight, `columns` of them. Errors: as checkpoint_read; FORMAT (not finite),
 * HOST_MEMORY. */
peridot_result checkpoint_read_norm(const struct checkpoint *checkpoint,
                                    const struct checkpoint_tensor *tensor, float *values,
                                    peridot_error *error);
/* Tells this model from others: of the configuration, the tensors' types and shapes, and bytes
 * sampled from each. Errors: as checkpoint_read. */
peridot_result checkpoint_fingerprint(const struct checkpoint *checkpoint, uint64_t *value,
                                      peridot_error *error);
/* The same in steps, of which each adds sample `*next`, 0 at first, to `*value`: NOT_READY until
 * that was the last. */
peridot_result checkpoint_sample(const struct checkpoint *checkpoint, uint64_t *next,
                                 uint64_t *value, peridot_error *error);

#endif
