/* What a model and a session need of the devices' memory, known before anything is allocated: the
 * sizes come from the code that allocates, run on arenas that only count. */
#ifndef HOST_MEMORY_PLAN_H
#define HOST_MEMORY_PLAN_H

#include "session.h"

struct session_memory {
    uint64_t working, kv;
};
/* What a part of a session takes, for `context` positions instead of those that `params` asks for.
 */
peridot_result memory_plan_session(const struct peridot_model *part,
                                   const peridot_session_params *params, uint32_t context,
                                   struct session_memory *memory, peridot_error *error);

/* What loading takes of the memory that weights are in: them, and the staging ring where it takes
 * the same. */
peridot_result memory_plan_loading(struct device *device, uint64_t weights, uint64_t *sum,
                                   peridot_error *error);

/* The first device that has too little, in figures; of none the device is NULL. */
struct shortage {
    struct device *device;
    uint64_t needed, there;
    char what[64]; /* is needed: "the weights alone" */
};

/* Whether the weights that are planned fit beside what there is, on every device. */
peridot_result memory_plan_admits_weights(const struct peridot_model *model,
                                          struct shortage *shortage, peridot_error *error);
/* DEVICE_MEMORY: they do not, and what to do about it. */
peridot_result memory_plan_refuse_weights(const struct shortage *shortage, const char *advice,
                                          peridot_error *error);
/* Whether weights that are planned fit, and a session of `context` positions beside them. */
peridot_result memory_plan_fits(const struct peridot_model *model,
                                const peridot_session_params *params, uint32_t context, bool *fits,
                                peridot_error *error);
/* The context of a session, beside weights that are loaded or planned, for which the caller names
 * none: the model's or, in whole chunks, what fits; the model's again where next to nothing does.
 */
peridot_result memory_plan_default_context(const struct peridot_model *model,
                                           const peridot_session_params *params, uint32_t *context,
                                           peridot_error *error);
/* Whether a session on a loaded model fits, with its whole KV cache. DEVICE_MEMORY: it does not;
 * the message names a context that does, and a smaller type of KV cache if one does. */
peridot_result memory_plan_admit_session(const struct peridot_model *model,
                                         const peridot_session_params *params,
                                         peridot_error *error);

/* Whether a suspended session finds room again, for what it has computed. DEVICE_MEMORY: not. */
peridot_result memory_plan_admit_return(const struct peridot_session *session,
                                        peridot_error *error);

/* Where a device refused what it seemed to have: DEVICE_MEMORY, with what was needed, what is free
 * and what could be had. */
peridot_result memory_plan_refused_weights(const struct peridot_model *part, uint64_t needed,
                                           peridot_error *error);
peridot_result memory_plan_refused_chunk(const struct peridot_session *part, peridot_error *error);

/* The whole plan for a model whose arenas are plans; `params` may be NULL. Errors: ARGUMENT,
 * HOST_MEMORY. */
peridot_result memory_plan_write(const struct peridot_model *model,
                                 const peridot_session_params *params, peridot_memory_plan *plan,
                                 peridot_error *error);

#endif
