/* What a session's work still has to do, as one dispatch after another: prompt passes, samplings,
 * and a pass for each token sampled, with new KV chunks cleared before they are needed. A place in
 * that list is plain data, so that it can be walked ahead of what is submitted. */
#ifndef HOST_WORK_LIST_H
#define HOST_WORK_LIST_H

#include "forward.h"

enum stage {
    STAGE_CLEAR,  /* a KV chunk, in parts of CLEAR_BYTES */
    STAGE_PASS,   /* prompt tokens through the layers, the last pass's also through the head */
    STAGE_SAMPLE, /* a token */
    STAGE_STEP,   /* that token through layers and head */
    STAGE_END
};

#define CLEAR_BYTES 65536u

struct work_goal {
    uint32_t prompt_end; /* tokens of the context that are there before any is sampled */
    uint32_t generate;   /* tokens to sample */
    uint32_t kind;       /* of sampler */
};

struct work_place {
    enum stage stage;
    uint32_t base, rows; /* of the pass or step */
    uint32_t computed;   /* tokens that have keys and values, up to here */
    uint32_t sampled;    /* tokens */
    uint32_t chunks;     /* of the KV cache, cleared */
    uint32_t segment, dispatch, group;
};

/* What is at a place: groups [place->group, groups) of a dispatch. */
struct work_unit {
    const struct segment *segment; /* NULL: a chunk is cleared */
    uint64_t key;                  /* of its kind, for the slicer: a pipeline at work on a shape */
    uint32_t groups;
    struct cost group; /* of each */
};

/* The first place, from what the session has computed. */
void work_list_begin(const struct peridot_session *session, const struct work_goal *goal,
                     struct work_place *place);
/* Not at STAGE_END. */
void work_list_unit(const struct peridot_session *session, const struct work_goal *goal,
                    const struct work_place *place, struct work_unit *unit);
/* Moves on by `groups` of the unit; true: a segment, or a clearing, ended with them. */
bool work_list_advance(const struct peridot_session *session, const struct work_goal *goal,
                       const struct work_unit *unit, uint32_t groups, struct work_place *place);
/* Records what the work will need and has not been recorded. Errors: HOST_MEMORY, VULKAN. */
peridot_result work_list_record(struct peridot_session *session, const struct work_goal *goal,
                                peridot_error *error);
/* The grid of attention at a place. */
void work_list_attention_grid(const struct peridot_session *session, const struct work_place *place,
                              uint32_t grid[3]);

#endif
