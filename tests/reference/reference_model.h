/* A whole Gemma 1 forward pass in double precision, over weights that the caller gives and keeps.
 * For small models: everything is held as doubles. Matrices are [outputs][inputs], as in
 * checkpoints; norm weights are without the 1 that Gemma adds. */
#ifndef REFERENCE_MODEL_H
#define REFERENCE_MODEL_H

#include "reference.h"

#include <stddef.h>
#include <stdint.h>

struct reference_layer {
    const double *input_norm;          /* [d_model] */
    const double *query;               /* [heads * head_dim][d_model] */
    const double *key;                 /* [kv_heads * head_dim][d_model] */
    const double *value;               /* [kv_heads * head_dim][d_model] */
    const double *output;              /* [d_model][heads * head_dim] */
    const double *post_attention_norm; /* [d_model] */
    const double *gate;                /* [hidden][d_model] */
    const double *up;                  /* [hidden][d_model] */
    const double *down;                /* [d_model][hidden] */
};

struct reference_model {
    size_t layer_count, d_model, heads, kv_heads, head_dim, hidden, vocabulary;
    double rms_eps, rope_theta;
    enum reference_angles angles;
    const double *embedding;              /* [vocabulary][d_model]; the head too */
    const double *final_norm;             /* [d_model] */
    const struct reference_layer *layers; /* [layer_count] */
};

enum reference_kv {
    REFERENCE_KV_DOUBLE,
    /* rounded when they are stored, keys after RoPE */
    REFERENCE_KV_F16,
    REFERENCE_KV_Q8 /* in blocks of a head's row; a key's elements i and i + head_dim/2 side by side
                     */
};

/* What a context has left behind. Read freely; only the functions below write. */
struct reference_cache {
    size_t length; /* tokens so far: the next one's position */
    size_t capacity;
    size_t layer_count;
    enum reference_kv kv;
    double **keys;   /* [layer_count], each [capacity][kv_heads][head_dim] */
    double **values; /* the same */
};

/* An empty cache for this model; grows as tokens are appended. Ends the program without memory. */
struct reference_cache *reference_cache_create(const struct reference_model *model,
                                               enum reference_kv kv);
void reference_cache_free(struct reference_cache *cache); /* accepts NULL */
/* Forgets all but the first `length` tokens, of which there must be as many. */
void reference_cache_truncate(struct reference_cache *cache, size_t length);

/* Appends tokens [T], each in [0, vocabulary), as one chunk. `logits`, if not NULL, is
 * [T][vocabulary]: row t after token t. Without it the head is not computed. */
void reference_model_append(const struct reference_model *model, struct reference_cache *cache,
                            const int32_t *tokens, size_t T, double *logits);

#endif
