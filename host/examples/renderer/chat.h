/* A conversation with a model that is loaded, and whose work is done, a piece a frame. */
#ifndef RENDERER_CHAT_H
#define RENDERER_CHAT_H

#include "frame_times.h"
#include "frames.h"

/* Both are stb_ds arrays of bytes, in UTF-8. */
struct turn {
    char *question, *answer;
};

struct chat {
    peridot_device *device;
    peridot_loading *loading;        /* NULL: it is over */
    peridot_loading_status progress; /* of that */
    peridot_model *model;
    peridot_session *session; /* NULL: there is none yet; questions wait for it */
    peridot_session_params params;
    enum mode mode;
    float loading_ms, budget_ms;      /* of a frame's time, and of a slice */
    bool on;                          /* off: what there is to do waits */
    bool answering;                   /* the last turn's answer is not complete */
    bool failed;                      /* `error` says how: there will be no more answers */
    struct turn *turns;               /* stb_ds array */
    uint32_t answers, tokens, slices; /* complete; sampled; given to the device */
    uint32_t prompt_slices;           /* of `slices`, those before the last turn's */
    float prompt_done;                /* how much of the last turn's question is read, 0 to 1 */
    peridot_work_status status;
    peridot_error error;
};

/* Begins to load the model. */
void chat_open(struct chat *chat, struct gpu *gpu, const struct options *options);
void chat_close(struct chat *chat); /* whatever it has come to */
/* Begins to answer, at once or when the model is there, if nothing is being answered. */
void chat_ask(struct chat *chat, const char *question);
/* A question and its answer to standard output, where those that are forgotten go too, to make room
 * in the context. */
void chat_print(const struct turn *turn);
/* What is done in a frame now. */
enum frame_kind chat_work(const struct chat *chat);
/* How far loading is, in one line. */
void chat_describe_loading(const struct chat *chat, char *out, size_t size);

/* The four calls of a frame: */
void chat_poll(struct chat *chat); /* what has come since the last one */
/* The next slice into the frame's own commands, behind what is drawn (recorded), or */
void chat_record(struct chat *chat, const struct frames *frames, VkCommandBuffer commands);
/* to the device behind the frame that was submitted (own, budgeted). */
void chat_submit(struct chat *chat, const struct frames *frames);
/* While the GPU draws, the next piece of loading, until there is a session. */
void chat_load(struct chat *chat);

#endif
