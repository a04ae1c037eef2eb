/* A checkpoint as Peridot's own reader finds it, in doubles for the reference model: the one file
 * here that knows the library. */
#ifndef REFERENCE_CHECKPOINT_H
#define REFERENCE_CHECKPOINT_H

#include "checkpoint.h"
#include "reference_model.h"

/* With float32 angles, as in training. Owns its weights, [rows][columns] as in the checkpoint,
 * which may be closed. */
struct reference_model *reference_checkpoint_load(const struct checkpoint *checkpoint);
/* The same with matrices that went through a block type, row by row: the embedding through eight
 * bits at least, and through blocks of 32 those whose rows are no multiple of 256. */
struct reference_model *reference_checkpoint_load_as(const struct checkpoint *checkpoint,
                                                     enum weight_type type);
/* Only of models that were loaded so; accepts NULL. */
void reference_checkpoint_free(struct reference_model *model);

#endif
