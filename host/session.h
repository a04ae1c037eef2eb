/* A session's state: what is on the device and what the host knows of it. */
#ifndef HOST_SESSION_H
#define HOST_SESSION_H

#include "abi.h"
#include "kernel_set.h"
#include "queue.h"
#include "schedule.h"

/* A command buffer of its own, submitted again and again, with the list it was recorded from. */
struct segment {
    struct recording recording;
    VkCommandBuffer commands;
};

/* The forward pass for up to `rows` rows: at home the embedding, then every layer of the part. */
struct pass {
    enum pass_shape shape;
    uint32_t rows;
    struct segment embed;
    struct segment *layers; /* [layer_count], of the part; NULL: not recorded yet */
    uint32_t layer_count;
};

#define PASS_BUCKETS 5   /* 1, 8, 32, 128 and prefill_rows rows */
#define SAMPLER_KINDS 16 /* bits: penalty, top-k, top-p, mask */

/* Buffers of activations, float32 but for `quantised`, zero in their padding. */
struct scratch {
    const struct buffer *x;         /* [rows][d_padded], the residual stream */
    const struct buffer *normed;    /* [rows][d_padded] */
    const struct buffer *query;     /* [rows][query_row_floats] */
    const struct buffer *attended;  /* [rows][heads][head_dim_padded] */
    const struct buffer *partial;   /* [FEW_ROWS][heads][SPLITS_MAX][head_dim_padded + 8] */
    const struct buffer *hidden;    /* [rows][hidden_padded] */
    const struct buffer *quantised; /* [rows] of any of those, one at a time (abi.h); NULL: float32
                                       activations throughout */
    const struct buffer *logits;    /* [vocabulary], of the last row */
    const struct buffer *scores, *marks, *work; /* the sampler's */
    const struct buffer *hidden_states;         /* [context][d_padded]; NULL: not kept */
};

struct kv_chunk {
    struct arena *arena;
    const struct buffer *buffer;
};

/* Rows on their way between two devices (hand_over.h), host-visible. */
struct box {
    struct arena *arena;
    const struct buffer *buffer;
};

/* What of a session is on one device: a chain, as the model's parts are, of which the first is what
 * the application holds. */
struct peridot_session {
    struct peridot_model *model;  /* the part on this device */
    struct peridot_session *next; /* NULL: the last part */
    uint32_t context, prefill_rows, steps_per_submission;
    peridot_kv kv;
    bool int8;             /* activations */
    uint32_t hidden_layer; /* of which hidden states are kept, or PERIDOT_HIDDEN_NORMED; 0: none */
    double submission_seconds;
    uint64_t shuffle_seed;
    struct kernel_set kernels;
    struct lane lane;
    struct arena *arena, *readback_arena;
    struct scratch scratch;
    const struct buffer *block;            /* struct session_block */
    struct kv_chunk chunks[KV_CHUNKS_MAX]; /* of the part's layers */
    uint32_t chunk_count;
    struct pass passes[PASS_BUCKETS];
    struct box inbox, outbox;  /* none where one device has all layers */
    struct segment take, give; /* out of the one and into the other, for one row */
    struct schedule schedule;
    struct session_block head_state;       /* the image of the block that the next header writes */
    peridot_session_statistics statistics; /* of this part; what calls did, at home */

    /* At home alone, as all that follows: the ends of a pass */
    const struct buffer *tokens;   /* uint32 [context + 1] */
    const struct buffer *ring;     /* struct ring_entry [RING_CAPACITY], host-visible */
    struct constraint *constraint; /* what tokens may come next; NULL: any */
    struct segment head;           /* last row to scratch.logits, of a batch all to the members' */
    struct segment samplers[SAMPLER_KINDS];

    /* What the host knows. Tokens [0, computed) have keys and values in the cache. */
    int32_t *held; /* [context + 1] */
    uint32_t length, computed;
    bool logits_valid;   /* scratch.logits are those after token length - 1 */
    uint32_t prompt_end; /* where the last prompt ended: min_tokens counts from here */
    uint32_t sampled;    /* ring entries written by the device */
    peridot_sampling sampling;
    struct work *work;             /* in slices (slices.h); NULL: never had any */
    struct peridot_session *batch; /* the own of one whose work it takes part in; NULL: of none */
    struct suspension *suspension; /* suspension.h; NULL: the session is on its devices */
    uint32_t returns;              /* how often it came back to them */

    /* Of a batch alone (batch.c): each row of its passes is one of these sessions' */
    struct peridot_session *members[BATCH_MAX];
    uint32_t member_count;
};

/* What decides how much memory a session needs. */
struct session_shape {
    uint32_t context, prefill_rows;
    peridot_kv kv;
    bool int8;
    bool hidden; /* states are kept */
};
/* Takes the defaults for what is not given. Errors: ARGUMENT (a value out of its range). */
peridot_result session_shape_settle(const struct model_config *config,
                                    const peridot_session_params *params,
                                    struct session_shape *shape, peridot_error *error);

/* The buffers on the device beside the KV cache, in the order in which they are made in an arena of
 * blocks of SESSION_BLOCK; the ring has an arena of blocks of RING_BLOCK. */
enum session_buffer {
    SESSION_X,
    SESSION_NORMED,
    SESSION_QUERY,
    SESSION_ATTENDED,
    SESSION_PARTIAL,
    SESSION_HIDDEN,
    SESSION_QUANTISED,
    SESSION_LOGITS,
    SESSION_SCORES,
    SESSION_MARKS,
    SESSION_WORK,
    SESSION_BLOCK_STATE,
    SESSION_TOKENS,
    SESSION_HIDDEN_STATES,
    SESSION_BUFFERS
};
#define SESSION_BLOCK (1u << 20)
#define RING_BLOCK (1u << 16)
#define RING_BYTES (RING_CAPACITY * sizeof(struct ring_entry))
/* Whether a part of a model has one. */
bool session_has_buffer(const struct peridot_model *part, enum session_buffer which);
/* The bytes of one, and its name; 0: a session of this shape has none. */
uint64_t session_buffer_bytes(const struct model_config *config, const struct session_shape *shape,
                              enum session_buffer which, const char **name);

const char *kv_name(peridot_kv kv); /* as --kv takes it */
/* Bytes of one head's keys, or values, of one position, for a head_dim that is padded; of a chunk
 * of the KV cache of `layers` layers, and of a session's part. */
uint64_t kv_row_bytes(peridot_kv kv, uint32_t head_dim_padded);
uint64_t kv_chunk_size(const struct model_config *config, uint32_t layers, peridot_kv kv);
uint64_t kv_chunk_bytes(const struct peridot_session *part);
/* Floats that the QKV projection makes of one token: queries and, on their way to a KV cache in q8,
 * keys and values. */
uint32_t query_row_floats(const struct model_config *config, peridot_kv kv);
/* Makes the chunks for positions [0, positions) exist, in all parts. Errors: DEVICE_MEMORY, VULKAN,
 * DEVICE_LOST. */
peridot_result kv_cache_reserve(struct peridot_session *session, uint32_t positions,
                                peridot_error *error);
/* Makes one more chunk of a session that has a single part, which is yet to be cleared. Errors:
 * DEVICE_MEMORY, VULKAN. */
peridot_result kv_cache_add(struct peridot_session *session, peridot_error *error);
/* Lets go of the chunks that no position below `positions` needs; the first stays. */
void kv_cache_release(struct peridot_session *session, uint32_t positions);
/* Lets go of all chunks of one part. */
void kv_cache_drop(struct peridot_session *part);

/* A barrier: what was written `from` stages, in a way, is seen `to` others. */
void session_order(const struct peridot_session *session, VkCommandBuffer commands,
                   VkPipelineStageFlags2 from, VkAccessFlags2 written, VkPipelineStageFlags2 to,
                   VkAccessFlags2 seen);
/* Submits zeros for the scratch of a part, or of a batch, and for the last chunk, the only one that
 * may have positions without a token. Not waited for: what uses them comes behind on the queue. */
peridot_result session_send_zeros(struct peridot_session *part, peridot_error *error);
/* Gives each part of a session its lane, its scratch and chunks for `positions` positions. The
 * scratch and the last chunk get zeros, since padding must hold no NaN and marks and histograms
 * begin empty; that is submitted and not waited for. On an error parts have some of it: release
 * them. Errors: DEVICE_MEMORY, HOST_MEMORY, VULKAN, DEVICE_LOST. */
peridot_result session_acquire(struct peridot_session *session, uint32_t positions,
                               peridot_error *error);
/* Lets go of all that a part has on its device, after a wait for it to end. */
void session_release_part(struct peridot_session *part);
/* What is chosen for a part by its model and device. Errors: as kernel_set_create, VULKAN. */
peridot_result session_prepare_part(struct peridot_session *part, peridot_error *error);
/* The parts beside home on home's model, as a chain. HOST_MEMORY. */
peridot_result session_make_parts(const struct peridot_session *home,
                                  struct peridot_session **parts, peridot_error *error);
/* Whether something that was submitted has not run yet, so that letting go of it would wait. */
bool session_is_busy(struct peridot_session *session);
/* Of parts that have nothing on a device. */
void session_free_parts(struct peridot_session *parts);

/* Runs tokens [computed, length) and leaves the last one's logits; `logits` (may be NULL) gets
 * those of all of them, [count][vocabulary]. */
peridot_result session_compute(struct peridot_session *session, float *logits,
                               peridot_error *error);

/* What all ways of running share. Whether tokens can be appended: ARGUMENT, CONTEXT_FULL. */
peridot_result session_check_prompt(const struct peridot_session *session, const int32_t *tokens,
                                    size_t count, peridot_error *error);
/* ARGUMENT: work in slices is active, or the session is between its devices and the host, so that
 * nothing else may be done. */
peridot_result session_check_idle(const struct peridot_session *session, peridot_error *error);
/* The same and, ARGUMENT, it is suspended: for what needs the device. */
peridot_result session_check_present(const struct peridot_session *session, peridot_error *error);
/* ARGUMENT: it is suspended, or on its way. */
peridot_result suspension_check(const struct peridot_session *session, bool away_will_do,
                                peridot_error *error);
/* The image of the block, from an offset on, to the block; all of it is for a first token, for
 * which the sampler's marks must be none. */
void session_write_block(const struct peridot_session *session, VkCommandBuffer commands,
                         size_t from);
/* What changes between passes, written ahead of the work that reads it. */
void session_write_header(struct peridot_session *session, VkCommandBuffer commands, uint32_t base,
                          uint32_t rows);
/* Bits of SAMPLER_*, for the settings. */
uint32_t session_sampler_kind(const struct peridot_session *session);
/* Sets the block's image to what it is when the first token's logits lie ready. */
void session_begin_sampling(struct peridot_session *session);
/* Takes over the token that was sampled as number `index` since then, and is in the ring. VULKAN:
 * it cannot be right. */
peridot_result session_take_token(struct peridot_session *session, uint32_t index,
                                  peridot_token *token, peridot_error *error);

/* A command buffer of the lane, begun, in which copies come after all that was submitted; `again`:
 * it is submitted more than once. */
peridot_result session_begin_copies(struct peridot_session *session, bool again,
                                    VkCommandBuffer *commands, peridot_error *error);
/* What copies wrote the host may read after them. */
void session_make_visible(const struct peridot_session *session, VkCommandBuffer commands);
/* One-time commands: begins a command buffer of the lane, and submits it and waits. */
peridot_result session_begin_transfer(struct peridot_session *session, VkCommandBuffer *commands,
                                      peridot_error *error);
peridot_result session_end_transfer(struct peridot_session *session, VkCommandBuffer commands,
                                    peridot_error *error);
/* Submits one-time commands that copy or fill, and does not wait; all that comes behind them on the
 * queue sees what they wrote. They are freed with the lane. */
peridot_result session_send(struct peridot_session *session, VkCommandBuffer commands,
                            peridot_error *error);
/* Copies device memory to the host; blocks. */
peridot_result session_read(struct peridot_session *session, const struct buffer *buffer,
                            uint64_t offset, uint64_t size, void *to, peridot_error *error);
/* Copies host memory to the start of a buffer; blocks. */
peridot_result session_write(struct peridot_session *session, const struct buffer *buffer,
                             const void *from, uint64_t size, peridot_error *error);

/* Whether a saved session's bytes are whole and sane; for the fuzzer too. Errors: FORMAT. */
peridot_result saved_session_check(const uint8_t *data, size_t size, const char *path,
                                   peridot_error *error);

#endif
