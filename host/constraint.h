/* What tokens may come next in a session: the application's mask, and a grammar. Both together
 * become the mask that the sampler reads, written by the host for each token. */
#ifndef HOST_CONSTRAINT_H
#define HOST_CONSTRAINT_H

#include "session.h"

/* Whether tokens are constrained now: then the sampler is one with SAMPLER_MASK. */
bool constraint_is_on(const struct peridot_session *session);
/* Makes the mask's buffer exist. Errors: DEVICE_MEMORY, HOST_MEMORY, VULKAN. */
peridot_result constraint_reserve(struct peridot_session *session, peridot_error *error);
/* uint32 [ceil(vocabulary / 32)], host-visible; reserved before. */
const struct buffer *constraint_mask(const struct peridot_session *session);
/* Writes the mask of the token after those that the session holds. No sampler may be running; the
 * submission that samples the token comes after it. Errors: ARGUMENT (nothing is allowed: why),
 * HOST_MEMORY, UNSUPPORTED (over the matcher's bounds), VULKAN. */
peridot_result constraint_write(struct peridot_session *session, peridot_error *error);
/* The session holds no more than `length` tokens now: a grammar that began later begins there. */
void constraint_truncate(struct peridot_session *session, uint32_t length);
/* A grammar begins anew behind all tokens that the session holds, which are others than before. */
void constraint_restart(struct peridot_session *session);
/* Lets go of the mask's buffer alone: it is made again with the next sampler. */
void constraint_release(struct peridot_session *session);
/* Whether a grammar is set, which is the model's. */
bool constraint_has_grammar(const struct peridot_session *session);
void constraint_destroy(struct peridot_session *session);

#endif
