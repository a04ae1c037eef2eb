/* What a model and a session need of the device's memory, known before anything is allocated: the
 * sizes come from the code that allocates, run on arenas that only count. */
#ifndef HOST_MEMORY_PLAN_H
#define HOST_MEMORY_PLAN_H

#include "session.h"

/* Whether weights of `needed` bytes fit beside what there is. */
peridot_result memory_plan_admits_weights(struct device *device, uint64_t needed, bool *admitted,
                                          peridot_error *error);
/* DEVICE_MEMORY: they do not, and what to do about it. */
peridot_result memory_plan_refuse_weights(struct device *device, uint64_t needed,
                                          const char *advice, peridot_error *error);
/* Whether weights that are planned fit, and a session of `context` positions beside them. */
peridot_result memory_plan_fits(const struct peridot_model *model,
                                const peridot_session_params *params, uint32_t context, bool *fits,
                                peridot_error *error);
/* The context of a session on a loaded model for which the caller names none: the model's or, in
 * whole chunks, what fits; the model's again where next to nothing does. */
peridot_result memory_plan_default_context(const struct peridot_model *model,
                                           const peridot_session_params *params, uint64_t room,
                                           uint32_t *context, peridot_error *error);
/* Whether a session on a loaded model fits, with its whole KV cache. DEVICE_MEMORY: it does not;
 * the message names a context that does, and a smaller type of KV cache if one does. */
peridot_result memory_plan_admit_session(const struct peridot_model *model,
                                         const peridot_session_params *params,
                                         peridot_error *error);

/* Where the device refused what it seemed to have: DEVICE_MEMORY, with what was needed, what is
 * free and what could be had. */
peridot_result memory_plan_refused_weights(struct device *device, uint64_t needed,
                                           peridot_error *error);
peridot_result memory_plan_refused_chunk(const struct peridot_session *session,
                                         peridot_error *error);

/* The whole plan for a model whose arena is a plan; `params` may be NULL. Errors: ARGUMENT,
 * HOST_MEMORY. */
peridot_result memory_plan_write(const struct peridot_model *model,
                                 const peridot_session_params *params, peridot_memory_plan *plan,
                                 peridot_error *error);

#endif
