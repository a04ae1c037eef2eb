/* The kernels that make rows of activations: embedding, RMSNorm and quantising; and where a batch's
 * rows are. */
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

void check_capture(struct bench *bench, const struct kernel_variant *variant, uint32_t type) {
    uint32_t rows = between(bench, 1, 20), recorded = rows + between(bench, 0, 5);
    uint32_t columns = between(bench, 1, 900), position = between(bench, 0, 99);
    if (bench->shape) {
        rows = recorded = bench->shape->tokens;
        columns = bench->shape->d_model;
    }
    struct capture_constants c = {.stride = round_up(columns, ACTIVATION_ALIGNMENT)};
    struct pipeline_key key = case_key(bench, variant, type);
    describe(bench, &key, "%u of %u rows of %u at %u", rows, recorded, columns, position);

    case_begin(bench);
    struct plane *session = session_plane(bench, position, rows);
    struct plane *x = plane_create(bench, "x", (uint64_t)recorded * c.stride * 4);
    struct plane *y = plane_create(bench, "y", (uint64_t)(position + rows) * c.stride * 4);
    double *row = reference_doubles(c.stride);
    fill_normal(bench, x->data, NULL, rows * c.stride);
    c.x = x->address;
    c.y = y->address;
    c.session = session->address;
    struct plane *planes[] = {x, y, session};
    uint32_t groups = divide_up(c.stride / 4, key.spec[SPEC_WORKGROUP]);
    bench_run(bench, &key, &c, planes, (uint32_t[3]){groups, recorded, 1}, NULL, 0);
    for (uint32_t t = 0; t < rows && !session_of(session)->done; t++) {
        for (uint32_t i = 0; i < c.stride; i++)
            row[i] = ((const float *)x->data)[t * c.stride + i];
        expect_floats(bench, y, (uint64_t)(position + t) * c.stride, row, c.stride, 0, 0);
    }
    case_end(bench);
    free(row);
}

/* A quantised row that a kernel made of `want` [32 * blocks]: each scale is the largest magnitude /
 * 127, each code to nearest but for what rounding in float32 tips over, each sum that of the codes.
 */
static void expect_quantised(struct bench *bench, const uint32_t *row, const double *want,
                             uint32_t blocks) {
    const int8_t *codes = (const int8_t *)row;
    for (uint32_t b = 0; b < blocks; b++, codes += QUANTISED_BLOCK, want += QUANTISED_BLOCK) {
        const uint32_t *place = row + QUANTISED_BLOCK / 4 * blocks + 2 * b;
        double most = 0;
        int32_t sums[2] = {0, 0};
        float scale;
        memcpy(&scale, place, 4);
        for (uint32_t i = 0; i < QUANTISED_BLOCK; i++) {
            most = fmax(most, fabs(want[i]));
            sums[i / (QUANTISED_BLOCK / 2)] += codes[i];
        }
        if (fabs(scale - most / 127) > 1e-5 * most / 127 + 1e-31)
            case_fail(bench, "the scale of block %u is %g instead of %g", b, scale, most / 127);
        for (uint32_t i = 0; i < QUANTISED_BLOCK; i++)
            if (fabs(codes[i] * (double)scale - want[i]) > (0.5 + 2e-3) * scale + 1e-30)
                case_fail(bench, "code %u of block %u is %d of %g instead of %g", i, b, codes[i],
                          scale, want[i]);
        uint32_t packed = (uint32_t)(sums[0] & 0xffff) | (uint32_t)sums[1] << 16;
        if (place[1] != packed)
            case_fail(bench, "the sums of block %u are %08x instead of %08x", b, place[1], packed);
    }
}

/* Rows of any size, one block in eight all zeros, one in sixteen too small for a scale. */
static void fill_rows(struct bench *bench, float *x, uint32_t rows, uint32_t stride,
                      uint32_t columns) {
    memset(x, 0, (size_t)rows * stride * sizeof *x);
    for (uint32_t t = 0; t < rows; t++)
        for (uint32_t i = 0; i < columns; i += QUANTISED_BLOCK) {
            uint32_t count = columns - i < QUANTISED_BLOCK ? columns - i : QUANTISED_BLOCK;
            float size =
                between(bench, 0, 7) == 0 ? 0 : expf(3 * (float)random_normal(&bench->random));
            if (between(bench, 0, 15) == 0)
                size = 1e-37f;
            float *values = x + (size_t)t * stride + i;
            fill_normal(bench, values, NULL, count);
            for (uint32_t j = 0; j < count; j++)
                values[j] *= size;
        }
}

void check_quantise(struct bench *bench, const struct kernel_variant *variant, uint32_t type) {
    bool norms = variant->kernel == KERNEL_quantise_norm;
    uint32_t rows = between(bench, 1, 20), recorded = rows + between(bench, 0, 5);
    uint32_t columns = between(bench, 1, 900);
    if (bench->shape) {
        rows = recorded = bench->shape->tokens;
        columns = norms ? bench->shape->d_model : bench->shape->hidden;
    }
    uint32_t blocks = divide_up(columns, QUANTISED_BLOCK);
    struct quantise_constants c = {
        .columns = columns,
        .blocks = blocks,
        .x_stride = QUANTISED_BLOCK * blocks + 4 * between(bench, 0, 2),
        .y_stride = 4 * (QUANTISED_QUADS(blocks) + between(bench, 0, 1)),
        .epsilon = 0.3f,
        .last_row = between(bench, 0, 1),
    };
    struct pipeline_key key = case_key(bench, variant, type);
    describe(bench, &key, "%u of %u rows, %u columns%s", rows, recorded, columns,
             c.last_row ? ", the last row" : "");

    case_begin(bench);
    struct plane *session = session_plane(bench, between(bench, 0, 99), rows);
    struct plane *x = plane_create(bench, "x", (uint64_t)recorded * c.x_stride * 4);
    struct plane *multiplier = plane_create(bench, "multiplier", (uint64_t)blocks * 128);
    struct plane *y = plane_create(bench, "y", (uint64_t)recorded * c.y_stride * 4);
    double *weight = reference_doubles(columns), *row = reference_doubles(blocks * 32);
    memset(multiplier->data, 0, multiplier->size);
    fill_normal(bench, multiplier->data, weight, columns);
    for (uint32_t i = 0; i < columns; i++)
        weight[i] -= 1; /* the reference adds it */
    fill_rows(bench, x->data, rows, c.x_stride, columns);
    c.x = x->address;
    c.multiplier = multiplier->address;
    c.y = y->address;
    c.session = session->address;
    struct plane *with_norm[] = {x, multiplier, y, session}, *without[] = {x, y, session};
    uint32_t groups = bench->shape ? divide_up(blocks, key.spec[SPEC_WORKGROUP])
                                   : between(bench, 1, 3); /* any number will do */
    uint32_t grid[3] = {norms ? 1 : groups, c.last_row ? 1 : recorded, 1};
    bench_run(bench, &key, &c, norms ? with_norm : without, grid, NULL, 0);
    for (uint32_t t = c.last_row ? rows - 1 : 0; t < rows && !session_of(session)->done; t++) {
        for (uint32_t i = 0; i < columns; i++)
            row[i] = ((const float *)x->data)[(size_t)t * c.x_stride + i];
        if (norms)
            reference_rmsnorm(row, row, weight, 1, columns, c.epsilon);
        uint64_t at = (uint64_t)t * c.y_stride * 4;
        expect_change(bench, y, at, (uint64_t)blocks * 40); /* of the padding, nothing */
        expect_quantised(bench, (const uint32_t *)y->data + at / 4, row, blocks);
    }
    case_end(bench);
    free(weight);
    free(row);
}

/* Each session at a position of its own; some are done, some at their context's end. */
void check_batch_rows(struct bench *bench, const struct kernel_variant *variant, uint32_t type) {
    struct pipeline_key key = case_key(bench, variant, type);
    uint32_t rows = between(bench, 1, BATCH_MAX);
    struct plane *sessions[BATCH_MAX] = {NULL};
    describe(bench, &key, "%u sessions", rows);
    case_begin(bench);
    struct plane *batch = session_plane(bench, 0, rows);
    struct session_block *block = session_of(batch);
    for (uint32_t r = 0; r < rows; r++) {
        sessions[r] = session_plane(bench, between(bench, 0, KV_CHUNK * KV_CHUNKS_MAX - 10), 1);
        struct session_block *own = session_of(sessions[r]);
        for (uint32_t i = 0; i < KV_CHUNKS_MAX; i++)
            own->kv_chunks[i] = 16 * (uint64_t)random_below(&bench->random, 1u << 30);
        if (between(bench, 0, 4) == 0)
            own->context = own->position;
        block->row_session[r] = sessions[r]->address;
    }
    struct batch_constants c = {.session = batch->address};
    struct plane *planes[] = {sessions[0], batch};
    bench_run(bench, &key, &c, planes, (uint32_t[3]){1, 1, 1}, NULL, 0);
    uint32_t left = 0;
    for (uint32_t r = 0; r < rows; r++) {
        const struct session_block *own = session_of(sessions[r]);
        bool runs = !own->done && own->position < own->context;
        uint32_t want = runs ? own->position : NO_POSITION;
        left += runs;
        if (block->row_position[r] != want)
            case_fail(bench, "row %u is at %u instead of %u", r, block->row_position[r], want);
        if (runs && block->kv_chunks[r] != own->kv_chunks[own->position / KV_CHUNK])
            case_fail(bench, "row %u has another KV chunk", r);
        expect_change(bench, batch, offsetof(struct session_block, row_position) + 4 * r, 4);
        if (runs)
            expect_change(bench, batch, offsetof(struct session_block, kv_chunks) + 8 * r, 8);
    }
    if (block->done != (left == 0))
        case_fail(bench, "of %u sessions %u run, and done is %u", rows, left, block->done);
    expect_change(bench, batch, offsetof(struct session_block, done), 4);
    case_end(bench);
}
