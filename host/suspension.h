/* A session that has left its devices, and what it takes along. */
#ifndef HOST_SUSPENSION_H
#define HOST_SUSPENSION_H

#include "session_copy.h"

enum suspension_stage {
    SUSPENSION_LEAVING,
    SUSPENSION_AWAY,
    SUSPENSION_RETURNING,
};

struct suspension {
    enum suspension_stage stage;
    uint8_t *rows;      /* as struct session_copy has them */
    uint32_t positions; /* that were computed then */
    float *logits;      /* [vocabulary], of the last token; NULL: there were none */
    uint8_t *hidden;    /* [positions][d_padded] float32; NULL: none are kept */
    struct session_copy copy;
    peridot_error failure; /* for which it turns back, told when nothing runs any more; code 0 */
};

/* The rows of the first `positions` positions, at most those computed. */
void suspension_rows(const struct peridot_session *session, uint32_t positions, uint8_t *rows);
/* Forgets it, of a session that closes. */
void suspension_free(struct peridot_session *session);

#endif
