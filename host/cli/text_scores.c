#include "text_scores.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define LOGITS_BYTES_MAX (64u << 20)
#define ROWS_MAX 512
#define THREADS_MAX 16

/* Rows of logits on their way from the session to the scores, and what is needed on that way. */
struct chunk {
    const struct text_scoring *scoring;
    struct text_scores *scores;
    uint32_t capacity, rows, first; /* rows: of them filled; first: the score of the first one */
    const int32_t *came;            /* the tokens that these rows predict */
    int32_t *window;                /* <bos> and the window's tokens */
    float *logits;                  /* [capacity][vocabulary] */
    uint8_t *encoded;               /* [capacity] rows of a logit file, to be saved */
    float *base;                    /* [thread][vocabulary] */
    uint32_t threads;
    double loss; /* of all that is scored */
};

struct logit_file_key text_scoring_key(const int32_t *tokens, size_t count, uint32_t vocabulary,
                                       uint32_t window, uint32_t stride) {
    struct text_windows_sum sum = text_windows_sum(count, window, stride);
    return (struct logit_file_key){logit_file_text(tokens, count), vocabulary, window, stride,
                                   (uint32_t)sum.scored};
}

bool text_scores_create(struct text_scores *scores, uint32_t count, bool with_base) {
    double *values = calloc((size_t)count * (with_base ? 5 : 1) + 1, sizeof *values);
    *scores = (struct text_scores){.count = count, .loss = values};
    if (values && with_base) {
        scores->base_loss = values + count;
        scores->divergence = scores->base_loss + count;
        scores->change = scores->divergence + count;
        scores->same_top = scores->change + count;
    }
    return values != NULL;
}

void text_scores_free(struct text_scores *scores) {
    free(scores->loss);
    *scores = (struct text_scores){0};
}

/* ---- One row ---- */

static peridot_result compare_row(const struct chunk *chunk, const float *logits,
                                  const struct softmax *softmax, uint32_t place, float *base,
                                  peridot_error *error) {
    const struct text_scoring *scoring = chunk->scoring;
    struct text_scores *scores = chunk->scores;
    uint32_t vocabulary = scoring->key.vocabulary;
    struct logit_row row;
    struct softmax base_softmax;
    peridot_result result = logit_file_row(scoring->base, place, &row, base, error);
    if (result)
        return result;
    (void)softmax_of(base, vocabulary, &base_softmax); /* the file holds finite ones only */
    scores->base_loss[place] = -row.log_probability;
    scores->divergence[place] = divergence(base, &base_softmax, logits, softmax, vocabulary);
    scores->change[place] = exp(-scores->loss[place]) - exp(row.log_probability);
    scores->same_top[place] = row.top == softmax->top;
    return PERIDOT_OK;
}

static peridot_result score_row(const struct chunk *chunk, uint32_t index, float *base,
                                peridot_error *error) {
    const struct text_scoring *scoring = chunk->scoring;
    const struct logit_file_key *key = &scoring->key;
    const float *logits = chunk->logits + (size_t)index * key->vocabulary;
    uint32_t place = chunk->first + index;
    struct softmax softmax;
    if (!softmax_of(logits, key->vocabulary, &softmax))
        return fail(error, PERIDOT_ERROR_FORMAT,
                    "the logits before token %zu of the text are not finite: the weights are "
                    "damaged, or too large for this device's arithmetic",
                    (size_t)(chunk->came - scoring->tokens) + index);
    double log_probability = softmax_log(&softmax, logits[chunk->came[index]]);
    chunk->scores->loss[place] = -log_probability;
    if (scoring->save) {
        struct logit_row row = {log_probability, softmax.top};
        logit_row_write(key, place, &row, &softmax, logits,
                        chunk->encoded + index * logit_row_bytes(key->vocabulary));
    }
    return scoring->base ? compare_row(chunk, logits, &softmax, place, base, error) : PERIDOT_OK;
}

/* ---- A chunk of rows, by several threads ---- */

struct job {
    const struct chunk *chunk;
    uint32_t number; /* and so every chunk->threads-th row from this one on */
    peridot_result result;
    peridot_error error;
};

static void run_job(void *user) {
    struct job *job = user;
    const struct chunk *chunk = job->chunk;
    float *base = chunk->base;
    if (base)
        base += (size_t)job->number * chunk->scoring->key.vocabulary;
    for (uint32_t i = job->number; i < chunk->rows && !job->result; i += chunk->threads)
        job->result = score_row(chunk, i, base, &job->error);
}

static peridot_result score_rows(const struct chunk *chunk, peridot_error *error) {
    struct job jobs[THREADS_MAX] = {0};
    struct platform_thread *threads[THREADS_MAX] = {0};
    peridot_result result = PERIDOT_OK;
    for (uint32_t i = 0; i < chunk->threads; i++) {
        jobs[i] = (struct job){.chunk = chunk, .number = i};
        if (i)
            threads[i] = platform_thread_start(run_job, &jobs[i]);
    }
    for (uint32_t i = 0; i < chunk->threads; i++) {
        if (threads[i])
            platform_thread_join(threads[i]);
        else
            run_job(&jobs[i]);
        if (jobs[i].result && !result) {
            result = jobs[i].result;
            if (error)
                *error = jobs[i].error;
        }
    }
    return result;
}

static peridot_result finish_chunk(struct chunk *chunk, peridot_error *error) {
    const struct text_scoring *scoring = chunk->scoring;
    peridot_result result = score_rows(chunk, error);
    if (result)
        return result;
    size_t size = logit_row_bytes(scoring->key.vocabulary);
    if (scoring->save && fwrite(chunk->encoded, size, chunk->rows, scoring->save) != chunk->rows)
        return fail(error, PERIDOT_ERROR_FILE, "cannot write the logits");
    for (uint32_t i = 0; i < chunk->rows; i++)
        chunk->loss += chunk->scores->loss[chunk->first + i];
    chunk->first += chunk->rows;
    if (scoring->progress && !scoring->progress(chunk->first, chunk->loss, scoring->user))
        return fail(error, PERIDOT_ERROR_CANCELLED, "stopped before all of the text was scored");
    return PERIDOT_OK;
}

/* ---- The text ---- */

static peridot_result score_window(struct chunk *chunk, const struct text_windows *window,
                                   peridot_error *error) {
    const struct text_scoring *scoring = chunk->scoring;
    size_t rows = window->end - window->begin, quiet = window->scored - window->begin;
    chunk->window[0] = scoring->bos; /* row i predicts the text's token begin + i */
    memcpy(chunk->window + 1, scoring->tokens + window->begin, (rows - 1) * sizeof(int32_t));
    peridot_result result = peridot_session_truncate(scoring->session, 0, error);
    if (!result && quiet)
        result = peridot_session_prompt_wait(scoring->session, chunk->window, quiet, NULL, error);
    for (size_t done = quiet; done < rows && !result; done += chunk->rows) {
        size_t left = rows - done;
        chunk->rows = left < chunk->capacity ? (uint32_t)left : chunk->capacity;
        chunk->came = scoring->tokens + window->begin + done;
        result = peridot_session_prompt_wait(scoring->session, chunk->window + done, chunk->rows,
                                             chunk->logits, error);
        if (!result)
            result = finish_chunk(chunk, error);
    }
    return result;
}

/* A power of two: sessions run those best. */
static uint32_t chunk_rows(uint32_t vocabulary) {
    uint32_t rows = ROWS_MAX;
    while (rows > 1 && (uint64_t)rows * vocabulary * sizeof(float) > LOGITS_BYTES_MAX)
        rows /= 2;
    return rows;
}

static bool create_buffers(struct chunk *chunk) {
    const struct text_scoring *scoring = chunk->scoring;
    size_t vocabulary = scoring->key.vocabulary;
    chunk->window = calloc(scoring->key.window, sizeof *chunk->window);
    chunk->logits = malloc(chunk->capacity * vocabulary * sizeof *chunk->logits);
    if (scoring->save)
        chunk->encoded = malloc(chunk->capacity * logit_row_bytes((uint32_t)vocabulary));
    if (scoring->base)
        chunk->base = malloc(chunk->threads * vocabulary * sizeof *chunk->base);
    return chunk->window && chunk->logits && (chunk->encoded || !scoring->save) &&
           (chunk->base || !scoring->base);
}

peridot_result text_scores_fill(const struct text_scoring *scoring, struct text_scores *scores,
                                peridot_error *error) {
    unsigned processors = platform_processor_count();
    struct chunk chunk = {.scoring = scoring,
                          .scores = scores,
                          .capacity = chunk_rows(scoring->key.vocabulary),
                          .threads = processors < THREADS_MAX ? processors : THREADS_MAX};
    struct text_windows windows =
        text_windows(scoring->token_count, scoring->key.window, scoring->key.stride);
    peridot_result result = PERIDOT_OK;
    if (!create_buffers(&chunk))
        result = fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory for the logits of %u tokens",
                      chunk.capacity);
    while (!result && text_windows_next(&windows))
        result = score_window(&chunk, &windows, error);
    free(chunk.base);
    free(chunk.encoded);
    free(chunk.logits);
    free(chunk.window);
    return result;
}
