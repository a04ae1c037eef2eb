/* What a session has computed, between its devices and the host's memory: keys and values, the last
 * token's logits, hidden states, the tokens. In pieces, so that each may be waited for or polled.
 */
#ifndef HOST_SESSION_COPY_H
#define HOST_SESSION_COPY_H

#include "session.h"

#define COPY_PIECE (16u << 20) /* bytes in flight at most, where the caller names no number */

struct session_copy {
    struct peridot_session *session;
    bool to_host;
    uint8_t *rows;         /* [layer][K or V][head][stride] as abi.h has them, of all parts */
    uint32_t positions;    /* of which so many are copied */
    uint32_t stride;       /* positions that there is room for */
    float *logits;         /* [vocabulary]; NULL: not copied */
    uint8_t *hidden;       /* [positions][d_padded] float32, from the first on; NULL: not copied */
    const int32_t *tokens; /* [token_count], to the device alone */
    uint32_t token_count;  /* 0: none */
    uint64_t done, end;    /* bytes behind which all is copied, and is copied or on its way */
    struct box piece;      /* host-visible, on piece_part's device */
    struct peridot_session *piece_part;
    bool cramped;             /* no larger piece was to be had */
    VkCommandBuffer commands; /* on their way */
};

/* Bytes of hidden states of `positions` positions; 0: none are kept. */
uint64_t session_hidden_bytes(const struct peridot_session *session, uint32_t positions);
/* Bytes of keys and values of `positions` positions. */
uint64_t session_rows_bytes(const struct peridot_session *session, uint32_t positions);
/* Takes over the piece that is on its way and sends the next, of at most `bytes` bytes (0:
 * COPY_PIECE). Chunks for all positions are there. NOT_READY: there is more to come; with `wait` it
 * blocks for the piece on its way. Errors: DEVICE_MEMORY, HOST_MEMORY, VULKAN, DEVICE_LOST. */
peridot_result session_copy_step(struct session_copy *copy, uint64_t bytes, bool wait,
                                 peridot_error *error);
/* All of it; blocks. */
peridot_result session_copy_run(struct session_copy *copy, peridot_error *error);
/* Frees what copying took beside the caller's memory; waits for what is on its way. */
void session_copy_end(struct session_copy *copy);

#endif
