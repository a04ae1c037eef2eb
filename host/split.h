/* Which layers of a model go to which of its devices. */
#ifndef HOST_SPLIT_H
#define HOST_SPLIT_H

#include "model.h"

/* What a caller may get wrong about devices and shares. Errors: ARGUMENT. */
peridot_result split_check(const peridot_device *home, const peridot_model_params *params,
                           uint32_t layers, peridot_error *error);

/* Sets first_layer and layer_count of every part by params->split or, without it, by the devices'
 * memory, so that a session of `context` positions fits where it can. All layers are planned at
 * home. Errors: HOST_MEMORY, ARGUMENT (of the session). */
peridot_result split_layers(struct peridot_model *model, const peridot_model_params *params,
                            const peridot_session_params *session, uint32_t context,
                            peridot_error *error);

#endif
