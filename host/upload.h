/* Weights from a checkpoint to the device, through a bounded staging ring. */
#ifndef HOST_UPLOAD_H
#define HOST_UPLOAD_H

#include "model.h"

/* Fills in the weights, norms and RoPE table of one part of a model with buffers of its arena; if
 * that is a plan (engine/memory.h), their shapes alone, and nothing is read or sent. `done`: bytes
 * of the file that are uploaded, for the progress; the parts add to it. Errors: FORMAT (a weight
 * that is NaN or infinite: which tensor, which row), UNSUPPORTED (a weight too large for float16),
 * DEVICE_MEMORY, HOST_MEMORY, CANCELLED, DEVICE_LOST, VULKAN. What was made stays in the model for
 * its owner to destroy. */
peridot_result upload_weights(struct peridot_model *part, const struct checkpoint *checkpoint,
                              const peridot_model_params *params, uint64_t *done,
                              peridot_error *error);

#endif
