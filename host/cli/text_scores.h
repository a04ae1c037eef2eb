/* What a model makes of a text, token by token, alone and beside a base: runs the windows through a
 * session and its logits through softmax and divergence. */
#ifndef CLI_TEXT_SCORES_H
#define CLI_TEXT_SCORES_H

#include "logit_file.h"
#include "peridot.h"
#include "text_windows.h"

/* One value for each scored token, in the text's order; all but the first only beside a base. */
struct text_scores {
    uint32_t count;
    double *loss;       /* -log p of the token that came */
    double *base_loss;  /* the same of the base */
    double *divergence; /* KL(base || model) */
    double *change;     /* p of the token that came, less the base's */
    double *same_top;   /* 1: both find the same token most likely; 0 */
};

struct text_scoring {
    peridot_session *session; /* with a context of key.window at least */
    int32_t bos;
    const int32_t *tokens;
    size_t token_count;
    struct logit_file_key key;     /* of the tokens, the vocabulary and the windows */
    const struct logit_file *base; /* NULL: none */
    FILE *save;                    /* rows of a logit file go here; NULL: nowhere */
    /* after each chunk: tokens scored and the sum of their losses; false stops */
    bool (*progress)(uint32_t done, double loss, void *user);
    void *user;
};

struct logit_file_key text_scoring_key(const int32_t *tokens, size_t count, uint32_t vocabulary,
                                       uint32_t window, uint32_t stride);
/* False without memory. */
bool text_scores_create(struct text_scores *scores, uint32_t count, bool with_base);
void text_scores_free(struct text_scores *scores); /* accepts an all-zero record */

/* Fills in the scores, key.scored of them. Holds 64 MiB of logits or one row at a time. Errors: as
 * peridot_session_prompt_wait; FORMAT (logits that are no numbers, a damaged base); FILE (`save`
 * cannot be written); CANCELLED; HOST_MEMORY. */
peridot_result text_scores_fill(const struct text_scoring *scoring, struct text_scores *scores,
                                peridot_error *error);

#endif
