#include "reference_model.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* ---- Cache ---- */

struct reference_cache *reference_cache_create(const struct reference_model *model,
                                               enum reference_kv kv) {
    struct reference_cache *cache = reference_allocate(1, sizeof *cache);
    cache->layer_count = model->layer_count;
    cache->kv = kv;
    cache->keys = reference_allocate(model->layer_count, sizeof(double *));
    cache->values = reference_allocate(model->layer_count, sizeof(double *));
    return cache;
}

void reference_cache_free(struct reference_cache *cache) {
    if (!cache)
        return;
    for (size_t layer = 0; layer < cache->layer_count; layer++) {
        free(cache->keys[layer]);
        free(cache->values[layer]);
    }
    free(cache->keys);
    free(cache->values);
    free(cache);
}

void reference_cache_truncate(struct reference_cache *cache, size_t length) {
    cache->length = length;
}

static double *enlarged(double *old, size_t old_count, size_t new_count) {
    double *new = reference_doubles(new_count);
    if (old_count)
        memcpy(new, old, old_count * sizeof *new);
    free(old);
    return new;
}

static void reserve(struct reference_cache *cache, size_t positions, size_t kv_width) {
    if (positions <= cache->capacity)
        return;
    size_t capacity = positions > 2 * cache->capacity ? positions : 2 * cache->capacity;
    size_t used = cache->length * kv_width;
    for (size_t layer = 0; layer < cache->layer_count; layer++) {
        cache->keys[layer] = enlarged(cache->keys[layer], used, capacity * kv_width);
        cache->values[layer] = enlarged(cache->values[layer], used, capacity * kv_width);
    }
    cache->capacity = capacity;
}

/* One head's key or value in q8; a key is in pair order for that. */
static void round_q8(double *row, size_t dim, bool is_key) {
    double *ordered = reference_doubles(dim);
    for (size_t i = 0; i < dim; i++)
        ordered[i] = row[is_key ? i / 2 + i % 2 * (dim / 2) : i];
    reference_q8(ordered, dim, NULL, NULL);
    for (size_t i = 0; i < dim; i++)
        row[is_key ? i / 2 + i % 2 * (dim / 2) : i] = ordered[i];
    free(ordered);
}

/* Rows [count] of head_dim each. */
static void store(const struct reference_cache *cache, double *kept, const double *new,
                  size_t count, size_t dim, bool are_keys) {
    memcpy(kept, new, count * dim * sizeof *kept);
    for (size_t i = 0; i < count * dim && cache->kv == REFERENCE_KV_F16; i++)
        kept[i] = reference_f16_to_double(reference_double_to_f16(kept[i]));
    for (size_t i = 0; i < count && cache->kv == REFERENCE_KV_Q8; i++)
        round_q8(kept + i * dim, dim, are_keys);
}

/* ---- Forward ---- */

/* What one chunk needs beside the cache. */
struct chunk {
    size_t T;
    double *x;           /* [T][d_model], the residual stream */
    double *normed;      /* [T][d_model] */
    double *added;       /* [T][d_model], what a block adds to x */
    double *q, *mixed;   /* [T][heads * head_dim] */
    double *k, *v;       /* [T][kv_heads * head_dim] */
    double *gate, *wide; /* [T][hidden] */
};

static struct chunk chunk_create(const struct reference_model *model, size_t T) {
    size_t q_width = model->heads * model->head_dim, kv_width = model->kv_heads * model->head_dim;
    return (struct chunk){.T = T,
                          .x = reference_doubles(T * model->d_model),
                          .normed = reference_doubles(T * model->d_model),
                          .added = reference_doubles(T * model->d_model),
                          .q = reference_doubles(T * q_width),
                          .mixed = reference_doubles(T * q_width),
                          .k = reference_doubles(T * kv_width),
                          .v = reference_doubles(T * kv_width),
                          .gate = reference_doubles(T * model->hidden),
                          .wide = reference_doubles(T * model->hidden)};
}

static void chunk_free(struct chunk *chunk) {
    double *all[] = {chunk->x, chunk->normed, chunk->added, chunk->q,   chunk->mixed,
                     chunk->k, chunk->v,      chunk->gate,  chunk->wide};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
}

/* y [T][outputs] = x [T][inputs] times w [outputs][inputs] transposed. */
static void project(double *y, const double *x, const double *w, size_t T, size_t outputs,
                    size_t inputs) {
    reference_matmul(y, outputs, x, inputs, w, inputs, T, outputs, inputs);
}

static void add_to_residual(const struct reference_model *model, struct chunk *chunk) {
    for (size_t i = 0; i < chunk->T * model->d_model; i++)
        chunk->x[i] += chunk->added[i];
}

static void attention_block(const struct reference_model *model, size_t layer,
                            const struct reference_cache *cache, struct chunk *chunk) {
    const struct reference_layer *weights = &model->layers[layer];
    size_t T = chunk->T, d = model->d_model, base = cache->length;
    size_t q_width = model->heads * model->head_dim, kv_width = model->kv_heads * model->head_dim;
    double *keys = cache->keys[layer], *values = cache->values[layer];

    reference_rmsnorm(chunk->normed, chunk->x, weights->input_norm, T, d, model->rms_eps);
    project(chunk->q, chunk->normed, weights->query, T, q_width, d);
    project(chunk->k, chunk->normed, weights->key, T, kv_width, d);
    project(chunk->v, chunk->normed, weights->value, T, kv_width, d);
    for (size_t t = 0; t < T; t++) {
        double position = (double)(base + t);
        reference_rope(chunk->q + t * q_width, model->heads, model->head_dim, position,
                       model->rope_theta, model->angles);
        reference_rope(chunk->k + t * kv_width, model->kv_heads, model->head_dim, position,
                       model->rope_theta, model->angles);
    }
    size_t rows = T * model->kv_heads;
    store(cache, keys + base * kv_width, chunk->k, rows, model->head_dim, true);
    store(cache, values + base * kv_width, chunk->v, rows, model->head_dim, false);
    reference_attention(chunk->mixed, chunk->q, keys, values, T, model->heads, model->kv_heads,
                        model->head_dim, base, 1 / sqrt((double)model->head_dim));
    project(chunk->added, chunk->mixed, weights->output, T, d, q_width);
    add_to_residual(model, chunk);
}

static void mlp_block(const struct reference_model *model, size_t layer, struct chunk *chunk) {
    const struct reference_layer *weights = &model->layers[layer];
    size_t T = chunk->T, d = model->d_model, hidden = model->hidden;
    reference_rmsnorm(chunk->normed, chunk->x, weights->post_attention_norm, T, d, model->rms_eps);
    project(chunk->gate, chunk->normed, weights->gate, T, hidden, d);
    project(chunk->wide, chunk->normed, weights->up, T, hidden, d);
    reference_geglu(chunk->wide, chunk->gate, chunk->wide, T * hidden);
    project(chunk->added, chunk->wide, weights->down, T, d, hidden);
    add_to_residual(model, chunk);
}

void reference_model_append(const struct reference_model *model, struct reference_cache *cache,
                            const int32_t *tokens, size_t T, double *logits) {
    struct chunk chunk = chunk_create(model, T);
    size_t d = model->d_model;
    reserve(cache, cache->length + T, model->kv_heads * model->head_dim);
    reference_embedding(chunk.x, model->embedding, tokens, T, d, sqrt((double)d));
    for (size_t layer = 0; layer < model->layer_count; layer++) {
        attention_block(model, layer, cache, &chunk);
        mlp_block(model, layer, &chunk);
    }
    if (logits) {
        reference_rmsnorm(chunk.normed, chunk.x, model->final_norm, T, d, model->rms_eps);
        project(logits, chunk.normed, model->embedding, T, model->vocabulary, d);
    }
    cache->length += T;
    chunk_free(&chunk);
}
