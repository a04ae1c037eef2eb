/* Recordings mirrored into transfers, for tests. Synchronization validation is
 * blind to accesses through addresses; so whatever a dispatch reads is copied
 * away, whatever it writes is filled, over the same ranges and with the same
 * barriers, which validation can then judge: silent as recorded, and heard as
 * soon as one barrier is left out. */
#ifndef ENGINE_MIRROR_H
#define ENGINE_MIRROR_H

#include "recorder.h"

/* Recordings in the order in which they are submitted. */
struct mirror {
    const struct recording *const *recordings;
    uint32_t count;
    /* The barrier to leave out: the one before dispatch `omitted_dispatch` of
     * recording `omitted_recording`; MIRROR_ALL_BARRIERS there: none. */
    uint32_t omitted_recording, omitted_dispatch;
};
#define MIRROR_ALL_BARRIERS UINT32_MAX

/* Bytes of the scratch buffer that mirror_emit copies into; each copy has a
 * place of its own. */
uint64_t mirror_scratch(const struct mirror *mirror);
/* Writes the mirror into a command buffer in the recording state. The commands
 * are for validation to look at: running them would destroy the buffers'
 * contents. Pipelines of indirect dispatches must be compiled, for their
 * argument buffers are read by such a dispatch. Errors: ARGUMENT (a faulty
 * dispatch; too small a scratch buffer), HOST_MEMORY. */
peridot_result mirror_emit(const struct mirror *mirror, const struct buffer *scratch,
                           VkCommandBuffer commands, peridot_error *error);

#endif
