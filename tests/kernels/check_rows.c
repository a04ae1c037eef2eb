/* The kernels that make rows of the residual stream: embedding and RMSNorm. */
#include "kernel_checks.h"
#include "reference/reference.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define EMBED_ENTRIES 4096 /* of the table, at a model's sizes */

void check_embed(struct bench *bench, const struct kernel_variant *variant, uint32_t type) {
    const struct case_shape *real = bench->shape;
    uint32_t rows = between(bench, 1, 30), recorded = rows + between(bench, 0, 5);
    uint32_t entries = between(bench, 1, 60), position = between(bench, 0, 9);
    if (real) {
        rows = recorded = real->tokens;
        entries = EMBED_ENTRIES; /* only those of the pass are read */
    }
    struct weight_shape shape =
        weight_shape(type, entries, real ? real->d_model : between(bench, 1, 300));
    uint32_t columns = shape.columns;
    struct embed_constants c = {.row_begin = between(bench, 0, 20),
                                .row_count = entries,
                                .stride = shape.stride,
                                .steps = shape.steps,
                                .columns = columns,
                                .x_stride = shape.padded + ROW_ALIGNMENT * between(bench, 0, 1),
                                .scale = (float)sqrt(columns)};
    struct pipeline_key key = case_key(bench, variant, type);
    describe(bench, &key, "%u of %u tokens, shard of %u from %u on, %u columns", rows, recorded,
             entries, c.row_begin, columns);

    case_begin(bench);
    struct plane *session = session_plane(bench, position, rows);
    double *weights = reference_doubles((size_t)entries * columns);
    double *want = reference_doubles(columns);
    struct plane *table = weight_plane(bench, "table", &shape, weights);
    struct plane *tokens = plane_create(bench, "tokens", (position + rows) * 4);
    int32_t *ids = tokens->data;
    for (uint32_t t = 0; t < rows; t++) /* some belong to other shards */
        ids[position + t] =
            (int32_t)between(bench, c.row_begin ? c.row_begin - 1 : 0, c.row_begin + entries);
    struct plane *x = plane_create(bench, "x", (uint64_t)recorded * c.x_stride * 4);
    c.table = table->address;
    c.tokens = tokens->address;
    c.x = x->address;
    c.session = session->address;
    struct plane *planes[] = {table, tokens, x, session};
    bench_run(bench, &key, &c, planes, (uint32_t[3]){recorded, 1, 1}, NULL, 0);
    for (uint32_t t = 0; t < rows && !session_of(session)->done; t++) {
        int32_t entry = ids[position + t] - (int32_t)c.row_begin;
        if (entry < 0 || entry >= (int32_t)entries)
            continue;
        reference_embedding(want, weights, &entry, 1, columns, c.scale);
        expect_floats(bench, x, (uint64_t)t * c.x_stride, want, columns, 0, NMSE_F32);
    }
    case_end(bench);
    free(weights);
    free(want);
}

void check_rmsnorm(struct bench *bench, const struct kernel_variant *variant, uint32_t type) {
    uint32_t rows = between(bench, 1, 20), recorded = rows + between(bench, 0, 5);
    uint32_t columns = between(bench, 1, 900);
    if (bench->shape) {
        rows = recorded = bench->shape->tokens;
        columns = bench->shape->d_model;
    }
    uint32_t stride = round_up(columns, ROW_ALIGNMENT);
    struct rmsnorm_constants c = {.columns = columns, .stride = stride, .epsilon = 0.3f};
    struct pipeline_key key = case_key(bench, variant, type);
    describe(bench, &key, "%u of %u rows, %u columns", rows, recorded, columns);

    case_begin(bench);
    struct plane *session = session_plane(bench, between(bench, 0, 99), rows);
    struct plane *x = plane_create(bench, "x", (uint64_t)recorded * stride * 4);
    struct plane *multiplier = plane_create(bench, "multiplier", stride * 4);
    struct plane *y = plane_create(bench, "y", (uint64_t)recorded * stride * 4);
    double *weight = reference_doubles(columns), *row = reference_doubles(columns);
    memset(multiplier->data, 0, stride * 4);
    fill_normal(bench, multiplier->data, weight, columns);
    for (uint32_t i = 0; i < columns; i++)
        weight[i] -= 1; /* the reference adds it */
    memset(x->data, 0, (uint64_t)rows * stride * 4);
    for (uint32_t t = 0; t < rows; t++) {
        float size = expf(4 * (float)random_normal(&bench->random));
        float *values = (float *)x->data + t * stride;
        fill_normal(bench, values, NULL, columns);
        for (uint32_t i = 0; i < columns; i++)
            values[i] *= size;
    }
    c.x = x->address;
    c.multiplier = multiplier->address;
    c.y = y->address;
    c.session = session->address;
    struct plane *planes[] = {x, multiplier, y, session};
    bench_run(bench, &key, &c, planes, (uint32_t[3]){recorded, 1, 1}, NULL, 0);
    for (uint32_t t = 0; t < rows && !session_of(session)->done; t++) {
        for (uint32_t i = 0; i < columns; i++)
            row[i] = ((const float *)x->data)[t * stride + i];
        reference_rmsnorm(row, row, weight, 1, columns, c.epsilon);
        expect_floats(bench, y, (uint64_t)t * stride, row, columns, 0, NMSE_F32);
    }
    case_end(bench);
    free(weight);
    free(row);
}
