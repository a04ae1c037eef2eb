/* What work in slices still has to do, as one dispatch after another: prompt passes, samplings, and
 * a pass for each token sampled, with new KV chunks cleared before they are needed. The work is one
 * session's, or a batch's, whose sessions sample in turn and share the passes between. A place in
 * that list is plain data, so that it can be walked ahead of what is submitted. */
#ifndef HOST_WORK_LIST_H
#define HOST_WORK_LIST_H

#include "forward.h"

enum stage {
    STAGE_CLEAR,  /* a KV chunk of a member's, in parts of CLEAR_BYTES */
    STAGE_PASS,   /* a member's prompt tokens through its layers, the last pass's also the head */
    STAGE_SAMPLE, /* a token of a member's */
    STAGE_STEP,   /* the tokens sampled, one of each member, through layers and head */
    STAGE_END
};

#define CLEAR_BYTES 65536u

/* Members are a batch's sessions, or the session alone. */
struct work_goal {
    struct member_goal {
        uint32_t prompt_end; /* tokens of the context that are there before any is sampled */
        uint32_t generate;   /* tokens to sample */
        uint32_t kind;       /* of sampler */
    } members[BATCH_MAX];
};

struct work_place {
    enum stage stage;
    uint32_t member;     /* whose pass, sampling or chunk it is */
    uint32_t base, rows; /* of the pass */
    uint32_t steps;      /* that have been */
    uint32_t stops;      /* bits: members that are to be told before this step that they are done */
    uint32_t stopped;    /* and those that were told before */
    uint32_t segment, dispatch, group;
    struct member_place {
        uint32_t computed; /* tokens that have keys and values, up to here */
        uint32_t sampled;  /* tokens */
        uint32_t chunks;   /* of the KV cache, cleared */
    } members[BATCH_MAX];
};

/* What is at a place: groups [place->group, groups) of a dispatch. */
struct work_unit {
    const struct segment *segment; /* NULL: a chunk is cleared */
    uint64_t key;                  /* of its kind, for the slicer: a pipeline at work on a shape */
    uint32_t groups;
    struct cost group; /* of each */
};

/* `session` is, here and below, a session or a batch's own. */
uint32_t work_list_members(const struct peridot_session *session);
struct peridot_session *work_list_member(const struct peridot_session *session, uint32_t index);

/* The first place, from what the members have computed. */
void work_list_begin(const struct peridot_session *session, const struct work_goal *goal,
                     struct work_place *place);
/* Not at STAGE_END. */
void work_list_unit(const struct peridot_session *session, const struct work_goal *goal,
                    const struct work_place *place, struct work_unit *unit);
/* Moves on by `groups` of the unit; true: a segment, or a clearing, ended with them. */
bool work_list_advance(const struct peridot_session *session, const struct work_goal *goal,
                       const struct work_unit *unit, uint32_t groups, struct work_place *place);
/* Whether nothing of a place's stage lies before it. */
bool work_list_between(const struct work_place *place);
/* Whether a step's head has begun, and so there are no logits but what it will have made. */
bool work_list_head_runs(const struct peridot_session *session, const struct work_place *place);
/* A member samples no more tokens than it has, or is about to: goal and place after that. */
void work_list_end_member(const struct peridot_session *session, struct work_goal *goal,
                          struct work_place *place, uint32_t member);
/* Records what the work will need and has not been recorded. Errors: HOST_MEMORY, VULKAN. */
peridot_result work_list_record(struct peridot_session *session, const struct work_goal *goal,
                                peridot_error *error);
/* The grids of attention at a place, of each member that it runs; returns how many. */
uint32_t work_list_grids(const struct peridot_session *session, const struct work_place *place,
                         struct indirect_grid grids[BATCH_MAX]);

#endif
