/* Weights from a checkpoint to the device, through a bounded staging ring, in bounded steps. */
#ifndef HOST_UPLOAD_H
#define HOST_UPLOAD_H

#include "model.h"
#include "staging.h"

/* Fills in the shapes of the weights, norms and RoPE table of one part of a model, whose arena only
 * plans. Errors: as upload_step. */
peridot_result upload_plan(struct peridot_model *part, const struct checkpoint *checkpoint,
                           const peridot_model_params *params, peridot_error *error);

/* What becomes of one part of a model on its device: item after item (the RoPE table, a norm, a
 * matrix), buffer after buffer, row after row. All-zero is none. */
struct upload {
    struct peridot_model *model; /* one part */
    const struct checkpoint *checkpoint;
    const peridot_model_params *params;
    struct staging staging;
    float *frequencies; /* of the RoPE table */
    uint32_t item;      /* the one in work */
    bool placed;        /* it has its buffers */
    uint32_t shard, row;
    double row_seconds; /* that a row took, lately; 0: not known */
    uint64_t bytes;     /* of the file, that are converted */
    bool waits;         /* the last step found that the device still reads all memory to write to */
    bool sent;          /* everything */
};

/* Begins with a part whose arena is empty. What is made stays in the model for its owner to
 * destroy. `checkpoint` and `params` live until upload_end. Errors: HOST_MEMORY, DEVICE_MEMORY,
 * DEVICE_LOST, VULKAN. */
peridot_result upload_begin(struct peridot_model *part, const struct checkpoint *checkpoint,
                            const peridot_model_params *params, struct upload *upload,
                            peridot_error *error);
/* Makes an item's buffers, or some rows: as many as it expects to make in half of `seconds`, or 0.1
 * ms if that is more, but one at least and, unless `seconds` are infinite, UPLOAD_PIECE bytes at
 * most. Never waits for the device. Errors: FORMAT (a weight that is NaN or infinite: which tensor,
 * which row), UNSUPPORTED (a weight too large for float16), DEVICE_MEMORY, HOST_MEMORY,
 * DEVICE_LOST, VULKAN. */
#define UPLOAD_PIECE (1u << 20)
peridot_result upload_step(struct upload *upload, double seconds, peridot_error *error);
/* Whether everything sent has arrived. Errors: DEVICE_LOST, VULKAN. */
peridot_result upload_poll(struct upload *upload, bool *arrived, peridot_error *error);
/* Waits until a step or a poll finds something else. Errors: DEVICE_LOST, VULKAN. */
peridot_result upload_wait(struct upload *upload, peridot_error *error);
void upload_end(struct upload *upload); /* waits for what was sent; accepts an all-zero one */

/* Bytes of the file's tensors that are uploaded; `with_head`: it is no copy of the embedding. */
uint64_t upload_file_bytes(const struct checkpoint *checkpoint, bool with_head);

#endif
