/* A conversation with a model whose work is done a slice a frame. */
#ifndef RENDERER_CHAT_H
#define RENDERER_CHAT_H

#include "frames.h"

/* Both are stb_ds arrays of bytes, in UTF-8. */
struct turn {
    char *question, *answer;
};

struct chat {
    peridot_device *device;
    peridot_model *model;
    peridot_session *session;
    enum mode mode;
    float budget_ms;
    bool on;                          /* off: what there is to do waits */
    bool answering;                   /* the last turn's answer is not complete */
    bool failed;                      /* `error` says how: there will be no more answers */
    struct turn *turns;               /* stb_ds array */
    uint32_t answers, tokens, slices; /* complete; sampled; given to the device */
    peridot_work_status status;
    peridot_error error;
};

/* Blocks while the model is loaded. */
void chat_open(struct chat *chat, struct gpu *gpu, const struct options *options);
void chat_close(struct chat *chat);
/* Begins to answer, if nothing is being answered. */
void chat_ask(struct chat *chat, const char *question);

/* The three calls of a frame: */
void chat_poll(struct chat *chat); /* what has come since the last one */
/* The next slice into the frame's own commands, behind what is drawn (recorded), or */
void chat_record(struct chat *chat, const struct frames *frames, VkCommandBuffer commands);
/* to the device behind the frame that was submitted (own, budgeted). */
void chat_submit(struct chat *chat, const struct frames *frames);

#endif
