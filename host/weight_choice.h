/* Which precision PERIDOT_WEIGHTS_AUTO takes. */
#ifndef HOST_WEIGHT_CHOICE_H
#define HOST_WEIGHT_CHOICE_H

#include "checkpoint.h"
#include "memory_plan.h"

/* Plans the model's weights as params->weights says. AUTO becomes the file's own types or, where
 * those do not fit beside params->session, the best precision that does; four bits and a shorter
 * context are preferred to fewer bits. Where nothing fits, the file's own are left planned. Errors:
 * those of upload_weights, ARGUMENT. */
peridot_result weight_choice_settle(struct peridot_model *model,
                                    const struct checkpoint *checkpoint,
                                    peridot_model_params *params, peridot_error *error);
/* DEVICE_MEMORY, for weights that do not fit: the message names a precision that does, and a
 * context where the one asked for has no room. The model's plan is not kept. */
peridot_result weight_choice_refuse(struct peridot_model *model,
                                    const struct checkpoint *checkpoint,
                                    const peridot_model_params *params,
                                    const struct shortage *shortage, peridot_error *error);

#endif
