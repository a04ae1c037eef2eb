#include "constraint.h"
#include "token_trie.h"
#include "work.h"

#include <stdlib.h>
#include <string.h>

#define CACHED_MASKS 128 /* 4 MB for 256000 tokens */

/* A token since the grammar began, and the match's state after it. */
struct step {
    int32_t token;
    uint32_t state;
};

/* What a state allows. */
struct cached_mask {
    uint32_t state; /* 0: none */
    uint32_t used;  /* when it was last */
    uint32_t *words;
};

struct constraint {
    uint32_t *allowed; /* the application's; NULL: all */
    struct arena *arena;
    const struct buffer *buffer;
    uint32_t *words; /* the mask being made */
    uint32_t word_count;
    /* A grammar; NULL: none */
    const struct peridot_grammar *grammar;
    struct grammar_match *match;
    uint32_t from; /* how many tokens the session held when it began */
    struct step *steps;
    uint32_t step_count, step_capacity;
    struct cached_mask cache[CACHED_MASKS];
    uint32_t clock;
};

/* ---- Making one ---- */

static uint32_t mask_words(const struct peridot_session *session) {
    return (session->model->config.vocabulary + 31) / 32;
}

/* The session's constraint, made on first use, with nothing constrained. */
static peridot_result need(struct peridot_session *session, struct constraint **constraint,
                           peridot_error *error) {
    *constraint = session->constraint;
    if (*constraint)
        return PERIDOT_OK;
    struct constraint *made = calloc(1, sizeof *made);
    if (made) {
        made->word_count = mask_words(session);
        made->words = calloc(made->word_count, sizeof *made->words);
    }
    if (!made || !made->words) {
        free(made);
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory for a mask of tokens");
    }
    *constraint = session->constraint = made;
    return PERIDOT_OK;
}

peridot_result constraint_reserve(struct peridot_session *session, peridot_error *error) {
    struct constraint *constraint;
    peridot_result result = need(session, &constraint, error);
    if (result || constraint->buffer)
        return result;
    uint64_t bytes = (uint64_t)constraint->word_count * 4;
    if (!constraint->arena)
        result =
            arena_create(session->lane.device, MEMORY_UPLOAD, bytes, &constraint->arena, error);
    if (!result)
        result = arena_buffer(constraint->arena, bytes, "token mask", &constraint->buffer, error);
    if (!result) {
        session->statistics.scratch_bytes += arena_allocated(constraint->arena);
        memset(constraint->buffer->mapped, 0, bytes);
    }
    return result;
}

const struct buffer *constraint_mask(const struct peridot_session *session) {
    return session->constraint->buffer;
}

static void forget_masks(struct constraint *constraint) {
    for (uint32_t i = 0; i < CACHED_MASKS; i++)
        constraint->cache[i].state = 0;
}

static void drop_grammar(struct constraint *constraint) {
    grammar_match_destroy(constraint->match);
    constraint->match = NULL;
    constraint->grammar = NULL;
    constraint->step_count = 0;
    forget_masks(constraint);
}

void constraint_release(struct peridot_session *session) {
    struct constraint *constraint = session->constraint;
    if (!constraint)
        return;
    arena_destroy(constraint->arena);
    constraint->arena = NULL;
    constraint->buffer = NULL;
}

bool constraint_has_grammar(const struct peridot_session *session) {
    return session->constraint && session->constraint->grammar;
}

void constraint_destroy(struct peridot_session *session) {
    struct constraint *constraint = session->constraint;
    if (!constraint)
        return;
    drop_grammar(constraint);
    for (uint32_t i = 0; i < CACHED_MASKS; i++)
        free(constraint->cache[i].words);
    arena_destroy(constraint->arena);
    free(constraint->allowed);
    free(constraint->words);
    free(constraint->steps);
    free(constraint);
    session->constraint = NULL;
}

bool constraint_is_on(const struct peridot_session *session) {
    const struct constraint *constraint = session->constraint;
    return constraint && (constraint->allowed || constraint->grammar);
}

void constraint_truncate(struct peridot_session *session, uint32_t length) {
    struct constraint *constraint = session->constraint;
    if (constraint && constraint->from > length)
        constraint->from = length;
}

void constraint_restart(struct peridot_session *session) {
    struct constraint *constraint = session->constraint;
    if (!constraint)
        return;
    constraint->from = session->length;
    constraint->step_count = 0;
}

/* ---- Where the grammar is ---- */

static bool is_stop(const peridot_model_info *info, int32_t token) {
    for (uint32_t i = 0; i < info->stop_token_count; i++)
        if ((int32_t)info->stop_tokens[i] == token)
            return true;
    return false;
}

/* The state after a token; MATCH_DEAD: it does not fit, or it ends the text. */
static peridot_result advance(const struct peridot_session *session, const peridot_model_info *info,
                              int32_t token, uint32_t *state, peridot_error *error) {
    struct grammar_match *match = session->constraint->match;
    const char *bytes = NULL;
    size_t length = 0;
    if (is_stop(info, token) || !tokenizer_writes(session->model->tokenizer, token) ||
        !tokenizer_piece(session->model->tokenizer, token, &bytes, &length) || !length) {
        *state = MATCH_DEAD;
        return PERIDOT_OK;
    }
    for (size_t i = 0; i<length && * state> MATCH_DEAD; i++)
        *state = grammar_match_step(match, *state, (uint8_t)bytes[i]);
    return *state == MATCH_FAILED ? grammar_match_error(match, error) : PERIDOT_OK;
}

static peridot_result add_step(struct constraint *constraint, struct step step,
                               peridot_error *error) {
    if (!grammar_grow((void **)&constraint->steps, constraint->step_count,
                      &constraint->step_capacity, UINT32_MAX / 2, sizeof *constraint->steps))
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory while matching the grammar");
    constraint->steps[constraint->step_count++] = step;
    return PERIDOT_OK;
}

/* Forgets states when they have become too many; what was matched is matched again. */
static peridot_result make_room(struct constraint *constraint, peridot_error *error) {
    if (!grammar_match_is_crowded(constraint->match))
        return PERIDOT_OK;
    constraint->step_count = 0;
    forget_masks(constraint);
    return grammar_match_reset(constraint->match, error);
}

/* The state after all tokens that the session holds. Tokens may have gone and others come since the
 * last time: those that are the same are not matched again. */
static peridot_result catch_up(const struct peridot_session *session,
                               const peridot_model_info *info, uint32_t *state,
                               peridot_error *error) {
    struct constraint *c = session->constraint;
    const int32_t *tokens = session->held + c->from;
    uint32_t count = session->length - c->from, same = 0; /* constraint_write: no less than 0 */
    peridot_result result = make_room(c, error);
    if (result)
        return result;
    while (same < c->step_count && same < count && c->steps[same].token == tokens[same])
        same++;
    c->step_count = same;
    *state = same ? c->steps[same - 1].state : grammar_match_start(c->match);
    for (uint32_t i = same; i < count && !result; i++) {
        bool ended = i > 0 && is_stop(info, tokens[i - 1]);
        result = advance(session, info, tokens[i], state, error);
        if (!result && *state == MATCH_DEAD && !is_stop(info, tokens[i]))
            result = fail(error, PERIDOT_ERROR_ARGUMENT,
                          ended ? "the grammar's text ended before token %u: set the grammar again "
                                  "where the next one begins"
                                : "token %u does not fit the grammar: truncate the session there, "
                                  "or set the grammar behind it",
                          c->from + i);
        if (!result)
            result = add_step(c, (struct step){tokens[i], *state}, error);
    }
    return result;
}

/* ---- Masks ---- */

static struct cached_mask *oldest(struct constraint *constraint) {
    struct cached_mask *found = &constraint->cache[0];
    for (uint32_t i = 0; i < CACHED_MASKS; i++) {
        struct cached_mask *mask = &constraint->cache[i];
        if (!mask->state)
            return mask;
        if (mask->used < found->used)
            found = mask;
    }
    return found;
}

static struct cached_mask *find_mask(struct constraint *constraint, uint32_t state) {
    for (uint32_t i = 0; i < CACHED_MASKS; i++)
        if (constraint->cache[i].state == state)
            return &constraint->cache[i];
    return NULL;
}

/* What may come in a state: tokens of text, and where the text may end, stop tokens. */
static peridot_result make_mask(const struct peridot_session *session,
                                const peridot_model_info *info, uint32_t state,
                                struct cached_mask **out, peridot_error *error) {
    struct constraint *c = session->constraint;
    struct cached_mask *mask = find_mask(c, state);
    *out = mask;
    if (mask)
        return PERIDOT_OK;
    mask = oldest(c);
    mask->state = 0;
    if (!mask->words)
        mask->words = malloc(c->word_count * sizeof *mask->words);
    if (!mask->words)
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory for a mask of tokens");
    memset(mask->words, 0, c->word_count * sizeof *mask->words);
    peridot_result result =
        token_trie_allow(session->model->trie, c->match, state, mask->words, error);
    for (uint32_t i = 0; i < info->stop_token_count; i++) {
        uint32_t stop = info->stop_tokens[i];
        if (grammar_match_accepts(c->match, state) && stop / 32 < c->word_count)
            mask->words[stop / 32] |= 1u << stop % 32;
    }
    if (!result) {
        mask->state = state;
        *out = mask;
    }
    return result;
}

/* Leaves of the mask being made what the grammar allows. */
static peridot_result apply_grammar(const struct peridot_session *session, peridot_error *error) {
    struct constraint *c = session->constraint;
    peridot_model_info info = {.struct_size = sizeof info};
    struct cached_mask *mask;
    uint32_t state;
    peridot_model_describe(session->model, &info);
    peridot_result result = catch_up(session, &info, &state, error);
    if (!result && c->from < session->length && is_stop(&info, session->held[session->length - 1]))
        return fail(error, PERIDOT_ERROR_ARGUMENT,
                    "the grammar's text has ended: set the grammar again for another one");
    if (!result)
        result = make_mask(session, &info, state, &mask, error);
    if (result)
        return result;
    mask->used = ++c->clock;
    for (uint32_t i = 0; i < c->word_count; i++)
        c->words[i] &= mask->words[i];
    return PERIDOT_OK;
}

static bool is_empty(const struct constraint *constraint) {
    for (uint32_t i = 0; i < constraint->word_count; i++)
        if (constraint->words[i])
            return false;
    return true;
}

peridot_result constraint_write(struct peridot_session *session, peridot_error *error) {
    struct constraint *c = session->constraint;
    size_t bytes = c->word_count * sizeof *c->words;
    peridot_result result = PERIDOT_OK;
    if (c->from > session->length) /* tokens that it was to begin behind were dropped */
        c->from = session->length;
    if (c->allowed)
        memcpy(c->words, c->allowed, bytes);
    else
        memset(c->words, 0xff, bytes);
    if (c->grammar)
        result = apply_grammar(session, error);
    if (!result && is_empty(c))
        result = fail(error, PERIDOT_ERROR_ARGUMENT,
                      c->allowed ? "the mask allows none of the tokens that can follow by the "
                                   "grammar at position %u"
                                 : "the model has no token that can follow by the grammar at "
                                   "position %u",
                      session->length);
    if (result)
        return result;
    memcpy(c->buffer->mapped, c->words, bytes);
    return buffer_flush(session->lane.device, c->buffer, 0, bytes, error);
}

/* ---- Public ---- */

peridot_result peridot_session_mask(peridot_session *session, const uint32_t *words,
                                    size_t word_count, peridot_error *error) {
    struct constraint *c;
    if (!session)
        return fail(error, PERIDOT_ERROR_ARGUMENT, "peridot_session_mask needs a session");
    uint32_t vocabulary = session->model->config.vocabulary, any = 0;
    if (words && word_count != mask_words(session))
        return fail(error, PERIDOT_ERROR_ARGUMENT,
                    "a mask has a bit for each of the model's %u tokens: %u words, not %zu",
                    vocabulary, mask_words(session), word_count);
    for (uint32_t i = 0; words && i < vocabulary; i++)
        any |= words[i / 32] >> i % 32 & 1;
    if (words && !any)
        return fail(error, PERIDOT_ERROR_ARGUMENT, "the mask allows no token at all");
    uint32_t ahead;
    peridot_result result = need(session, &c, error);
    if (!result && (words || c->allowed))
        result = work_change_mask(session, &ahead, error);
    if (result)
        return result;
    if (words && !c->allowed)
        c->allowed = malloc(c->word_count * sizeof *c->allowed);
    if (words && !c->allowed)
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory for a mask of tokens");
    if (words) {
        memcpy(c->allowed, words, c->word_count * sizeof *c->allowed);
        if (vocabulary % 32)
            c->allowed[c->word_count - 1] &= (1u << vocabulary % 32) - 1;
    } else {
        free(c->allowed);
        c->allowed = NULL;
    }
    return PERIDOT_OK;
}

/* The tree of the model's tokens, for all grammars of the model. */
static peridot_result make_trie(struct peridot_model *model, peridot_error *error) {
    peridot_model_info info = {.struct_size = sizeof info};
    uint32_t count = tokenizer_vocabulary(model->tokenizer), used = 0;
    count = count < model->config.vocabulary ? count : model->config.vocabulary;
    if (model->trie)
        return PERIDOT_OK;
    struct token_text *texts = malloc(count * sizeof *texts);
    if (!texts)
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory for the tokens' texts");
    peridot_model_describe(model, &info);
    for (uint32_t id = 0; id < count; id++) {
        const char *bytes;
        size_t length;
        if (!is_stop(&info, (int32_t)id) && tokenizer_writes(model->tokenizer, (int32_t)id) &&
            tokenizer_piece(model->tokenizer, (int32_t)id, &bytes, &length) && length)
            texts[used++] = (struct token_text){bytes, (uint32_t)length, id};
    }
    peridot_result result = token_trie_create(texts, used, &model->trie, error);
    free(texts);
    return result;
}

peridot_result peridot_grammar_parse(peridot_model *model, const char *text, size_t length,
                                     peridot_grammar **grammar, peridot_error *error) {
    if (grammar)
        *grammar = NULL;
    if (!model || !text || !grammar)
        return fail(error, PERIDOT_ERROR_ARGUMENT,
                    "peridot_grammar_parse needs a model, a text and a place for the grammar");
    if (!model->tokenizer)
        return fail(error, PERIDOT_ERROR_UNSUPPORTED,
                    "a grammar is about text, and the model has no tokenizer: put its "
                    "tokenizer.model beside config.json");
    struct peridot_grammar *made;
    peridot_result result = grammar_parse(text, length, &made, error);
    if (!result)
        result = make_trie(model, error);
    if (result) {
        grammar_free(made);
        return result;
    }
    made->model = model;
    *grammar = made;
    return PERIDOT_OK;
}

void peridot_grammar_free(peridot_grammar *grammar) {
    grammar_free(grammar);
}

peridot_result peridot_session_grammar(peridot_session *session, const peridot_grammar *grammar,
                                       peridot_error *error) {
    struct constraint *c;
    if (!session)
        return fail(error, PERIDOT_ERROR_ARGUMENT, "peridot_session_grammar needs a session");
    if (grammar && grammar->model != session->model)
        return fail(error, PERIDOT_ERROR_ARGUMENT,
                    "the grammar was made for another model: parse it for the session's own");
    uint32_t ahead = 0;
    peridot_result result = need(session, &c, error);
    if (!result && (grammar || c->grammar))
        result = work_change_mask(session, &ahead, error);
    if (result)
        return result;
    if (grammar != c->grammar || !grammar) {
        struct grammar_match *match = NULL;
        if (grammar)
            result = grammar_match_create(grammar, &match, error);
        if (result)
            return result;
        drop_grammar(c);
        c->grammar = grammar;
        c->match = match;
    }
    constraint_restart(session);
    c->from += ahead;
    return PERIDOT_OK;
}
