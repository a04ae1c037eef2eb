/* A conversation and the session that holds it, kept consistent: every turn knows where its tokens
 * begin. */
#ifndef CLI_CONVERSATION_H
#define CLI_CONVERSATION_H

#include "chat_template.h"
#include "peridot.h"

struct turn {
    char *user, *answer; /* answer NULL: not given yet */
    uint32_t begin;      /* session length before this turn's tokens */
    uint32_t answer_begin;
};

struct conversation {
    peridot_model *model;
    peridot_session *session;
    char *system; /* NULL: none */
    struct turn *turns;
    size_t count, capacity;
};

/* Adds a user's turn and runs its tokens, so that an answer can be generated. When the context has
 * no room left, the oldest turns go and `*dropped` tells how many. Errors: as
 * peridot_session_prompt_wait. */
peridot_result conversation_ask(struct conversation *conversation, const char *text,
                                size_t *dropped, peridot_error *error);
/* Keeps the answer's text. False without memory. */
bool conversation_answered(struct conversation *conversation, const char *text, size_t length);
/* Forgets the last answer, so that it can be generated again; false: there is none. */
bool conversation_forget_answer(struct conversation *conversation);
/* Forgets the last turn; false: there is none. */
bool conversation_undo(struct conversation *conversation);
void conversation_reset(struct conversation *conversation);
/* Another system text; earlier turns are run again with it. */
peridot_result conversation_set_system(struct conversation *conversation, const char *text,
                                       peridot_error *error);
peridot_result conversation_save(struct conversation *conversation, const char *path,
                                 peridot_error *error);
peridot_result conversation_load(struct conversation *conversation, const char *path,
                                 peridot_error *error);
void conversation_free(struct conversation *conversation);

#endif
