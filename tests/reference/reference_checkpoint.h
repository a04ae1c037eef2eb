/* A checkpoint as Peridot's own reader finds it, in doubles for the reference model: the one file
 * here that knows the library. */
#ifndef REFERENCE_CHECKPOINT_H
#define REFERENCE_CHECKPOINT_H

#include "checkpoint.h"
#include "reference_model.h"

/* With float32 angles, as in training. Owns its weights, [rows][columns] as in the checkpoint,
 * which may be closed. */
struct reference_model *reference_checkpoint_load(const struct checkpoint *checkpoint);
/* Only of models that were loaded so; accepts NULL. */
void reference_checkpoint_free(struct reference_model *model);

#endif
