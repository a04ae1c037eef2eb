/* The matrix products with their epilogues, against plain loops in double precision. */
#include "kernel_checks.h"
#include "reference/reference.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum role { ROLE_QKV, ROLE_RESIDUAL, ROLE_GEGLU, ROLE_HEAD };

struct projection {
    struct bench *bench;
    enum role role;
    uint32_t type;
    bool norms, quantised;    /* the kernel norms its input; its input is quantised */
    bool batch;               /* each token is another session's */
    uint32_t columns, padded; /* of the weights */
    struct weight_shape shape;
    uint32_t rows;             /* of the shard */
    uint32_t all_rows, tokens; /* of the tensor; of the pass */
    uint32_t recorded;         /* rows that the dispatch was recorded for, >= tokens */
    struct project_constants constants;
    struct kv_case kv;
    struct plane *session, *weights, *x, *multiplier, *rope, *y;
    struct plane *logits[BATCH_MAX]; /* of a batch's sessions, in place of y */
    double *w, *products;            /* [distinct][columns], [tokens][distinct] */
    double *inputs;                  /* [tokens][padded]: what x is worth */
    float *originals;                /* [tokens][padded]: before x was quantised */
    double limit;                    /* NMSE at most */
    double size;                     /* of a product, were its terms random */
};

static double *allocate_results(const struct projection *p) {
    return reference_doubles((size_t)p->tokens * p->rows);
}

/* What token t's input and row r of the weights make. */
static double product(const struct projection *p, uint32_t t, uint32_t r) {
    return p->products[(size_t)t * p->shape.distinct + r % p->shape.distinct];
}

/* ---- Sizes ---- */

/* At a model's sizes rows repeat after a prime number of them: random weights take their time. */
#define DISTINCT_ROWS 61

static void take_sizes(struct projection *p, const struct case_shape *shape) {
    struct project_constants *c = &p->constants;
    uint32_t padded = round_up(shape->head_dim, ROW_ALIGNMENT);
    p->columns = p->role != ROLE_RESIDUAL ? shape->d_model
                 : shape->down            ? shape->hidden
                                          : shape->heads * padded;
    p->shape = weight_shape(p->type, 0, p->columns);
    p->columns = p->shape.columns;
    p->padded = p->shape.padded;
    c->kv_heads = shape->kv_heads;
    c->heads = shape->heads;
    c->head_dim = shape->head_dim;
    p->kv = (struct kv_case){.layers = 1,
                             .kv_heads = shape->kv_heads,
                             .head_dim = shape->head_dim,
                             .padded = padded,
                             .type = shape->kv};
    const uint32_t rows[] = {[ROLE_QKV] = (shape->heads + 2 * shape->kv_heads) * shape->head_dim,
                             [ROLE_RESIDUAL] = shape->d_model,
                             [ROLE_GEGLU] = 2 * shape->hidden,
                             [ROLE_HEAD] = shape->vocabulary};
    uint64_t most = shape->plane_most / ((uint64_t)p->shape.stride * 16) / 2 * 2;
    p->all_rows = rows[p->role];
    p->rows = p->all_rows < most ? p->all_rows : (uint32_t)most;
    p->tokens = p->recorded = shape->tokens;
    c->row_count = p->rows;
    c->last_row = p->role == ROLE_HEAD && p->tokens == 1;
}

static void choose_sizes(struct projection *p) {
    struct bench *bench = p->bench;
    if (bench->shape) {
        take_sizes(p, bench->shape);
        return;
    }
    bool tiles = !p->norms && !p->quantised && p->role != ROLE_RESIDUAL;
    p->columns = between(bench, 0, 2) ? between(bench, 1, 90) : between(bench, 91, 700);
    p->shape = weight_shape(p->type, 0, p->columns);
    p->columns = p->shape.columns;
    p->padded = p->shape.padded;
    p->recorded = between(bench, 1, tiles || between(bench, 0, 1) ? 70 : 19);
    p->tokens = between(bench, 1, p->recorded);
    struct project_constants *c = &p->constants;
    if (p->role == ROLE_QKV) {
        c->kv_heads = between(bench, 1, 2);
        c->heads = c->kv_heads * between(bench, 1, 4);
        c->head_dim = 2 * between(bench, 1, p->batch || between(bench, 0, 3) ? 12 : 68);
        p->all_rows = (c->heads + 2 * c->kv_heads) * c->head_dim;
        p->kv = (struct kv_case){.layers = 2,
                                 .layer = between(bench, 0, 1),
                                 .kv_heads = c->kv_heads,
                                 .head_dim = c->head_dim,
                                 .padded = round_up(c->head_dim, ROW_ALIGNMENT),
                                 .type = between(bench, KV_F16, KV_Q8)};
    } else {
        p->all_rows = p->role == ROLE_HEAD ? between(bench, 1, 160) : 2 * between(bench, 1, 80);
    }
    /* one shard out of all rows; it begins at an even one, and only the last may end at an odd one
     */
    c->row_begin = between(bench, 0, (p->all_rows - 1) / 2) * 2;
    p->rows = p->all_rows - c->row_begin;
    if (p->rows > 2 && between(bench, 0, 1))
        p->rows = 2 * between(bench, 1, p->rows / 2);
    c->row_count = p->rows;
    c->last_row = p->role == ROLE_HEAD && between(bench, 0, 1);
    if (p->batch) {
        p->tokens = p->recorded = between(bench, 1, BATCH_MAX);
        c->last_row = 0;
    }
}

static uint32_t y_width(const struct projection *p) {
    switch (p->role) {
    case ROLE_QKV:
        return (p->constants.heads + (p->kv.type == KV_Q8 ? 2 * p->kv.kv_heads : 0)) * p->kv.padded;
    case ROLE_GEGLU:
        return p->all_rows / 2;
    default:
        return p->all_rows;
    }
}

/* ---- Contents ---- */

static void fill_x(struct projection *p) {
    uint32_t stride = p->constants.x_stride;
    p->inputs = reference_doubles((size_t)p->tokens * p->padded);
    p->originals = reference_allocate((size_t)p->tokens * p->padded, sizeof *p->originals);
    for (uint32_t t = 0; t < p->tokens; t++) {
        float *row = p->originals + (size_t)t * p->padded;
        double *values = p->inputs + (size_t)t * p->padded;
        memset(row, 0, p->padded * sizeof *row);
        memset(values, 0, p->padded * sizeof *values);
        fill_normal(p->bench, row, values, p->columns);
        uint32_t *place = (uint32_t *)p->x->data + (size_t)t * stride;
        if (p->quantised)
            quantise_row(row, p->shape.steps, place, values);
        else
            memcpy(place, row, p->padded * sizeof *row);
    }
}

/* NF4's sixteen values are no integers, so its kernels round them: to the nearest of these units.
 */
#define NORMAL_UNIT 112.0302178

/* The weights as those kernels take them: code / NORMAL_UNIT * scale. */
static double *rounded_nf4(const struct projection *p) {
    double *rounded = reference_doubles((size_t)p->shape.distinct * p->columns);
    for (uint32_t r = 0; r < p->shape.distinct; r++)
        for (uint32_t i = 0; i < p->columns; i++) {
            const uint8_t *row =
                (const uint8_t *)p->weights->data + (size_t)r * p->shape.stride * 16;
            size_t at = (size_t)r * p->columns + i;
            uint16_t half;
            memcpy(&half, row + 16 * p->shape.steps + i / 32 * 2, 2);
            double scale = reference_f16_to_double(half);
            double value = scale == 0 ? 0 : p->w[at] / scale;
            rounded[at] = rint(value * NORMAL_UNIT) / NORMAL_UNIT * scale;
        }
    return rounded;
}

/* Where token t's session is: in a batch, with one in five that is done, somewhere in a chunk of
 * its own. */
static uint32_t position_of(const struct projection *p, uint32_t t) {
    const struct session_block *block = session_of(p->session);
    return p->batch ? block->row_position[t] : block->position + t;
}

static void create_rows(struct projection *p) {
    struct bench *bench = p->bench;
    struct session_block *block = session_of(p->session);
    block->context = NO_POSITION;
    for (uint32_t t = 0; t < p->tokens; t++) {
        uint32_t chunk = p->tokens - 1 - t;
        uint32_t position = chunk * KV_CHUNK + between(bench, 0, KV_CHUNK - 1);
        block->row_position[t] = between(bench, 0, 4) ? position : NO_POSITION;
        if (p->role == ROLE_HEAD) {
            p->logits[t] = plane_create(bench, "a session's logits", p->all_rows * 4ull);
            block->row_logits[t] = p->logits[t]->address;
        }
    }
}

/* Row t's chunk comes t-th, which is not where a pass of one session would look. */
static void create_row_chunks(struct projection *p) {
    struct session_block *block = session_of(p->session);
    kv_create(p->bench, &p->kv, p->session, 0, p->tokens * KV_CHUNK);
    for (uint32_t t = 0; t < p->tokens; t++)
        block->kv_chunks[t] = p->kv.chunks[p->tokens - 1 - t]->address;
}

static void create_planes(struct projection *p, uint32_t position) {
    struct bench *bench = p->bench;
    struct project_constants *c = &p->constants;
    p->session = session_plane(bench, position, p->tokens);
    if (p->batch)
        create_rows(p);
    else if (p->role == ROLE_QKV &&
             between(bench, 0, 5) == 0) /* rows past the context store nothing */
        session_of(p->session)->context = position + between(bench, 0, p->tokens);
    p->shape.rows = p->shape.distinct = p->rows;
    if (bench->shape && p->rows > DISTINCT_ROWS)
        p->shape.distinct = DISTINCT_ROWS;
    p->w = reference_doubles((size_t)p->shape.distinct * p->columns);
    p->weights = weight_plane(bench, "weights", &p->shape, p->w);
    c->x_stride = p->quantised ? 4 * QUANTISED_QUADS(p->shape.steps) : p->padded;
    c->x_stride += bench->shape ? 0 : ROW_ALIGNMENT * between(bench, 0, 1);
    p->x = plane_create(bench, "x", (uint64_t)p->recorded * c->x_stride * 4);
    fill_x(p);
    if (p->norms) {
        p->multiplier = plane_create(bench, "multiplier", p->padded * 4);
        memset(p->multiplier->data, 0, p->padded * 4);
        fill_normal(bench, p->multiplier->data, NULL, p->columns);
    }
    c->y_stride = y_width(p) + (bench->shape ? 0 : between(bench, 0, 3));
    if (p->role == ROLE_QKV)
        c->y_stride = round_up(c->y_stride, ROW_ALIGNMENT);
    p->y = plane_create(bench, "y", (uint64_t)(c->last_row ? 1 : p->recorded) * c->y_stride * 4);
    if (p->role == ROLE_RESIDUAL)
        fill_normal(bench, p->y->data, NULL, p->y->size / 4);
    if (p->role == ROLE_QKV) {
        uint32_t end = p->batch ? p->tokens * KV_CHUNK : position + p->tokens;
        uint32_t angles = end * c->head_dim;
        p->rope = plane_create(bench, "rope", (uint64_t)angles * 4);
        fill_normal(bench, p->rope->data, NULL, angles);
        if (p->batch)
            create_row_chunks(p);
        else
            kv_create(bench, &p->kv, p->session, position, end);
        c->kv_layer = kv_layer_offset(&p->kv);
    }
}

static void set_addresses(struct projection *p) {
    struct project_constants *c = &p->constants;
    c->weights = p->weights->address;
    c->x = p->x->address;
    c->multiplier = p->multiplier ? p->multiplier->address : 0;
    c->rope = p->rope ? p->rope->address : 0;
    c->y = p->y->address;
    c->session = p->session->address;
    c->stride = p->shape.stride;
    c->steps = p->shape.steps;
    c->columns = p->columns;
    c->epsilon = 0.3f;
}

/* ---- What must come out ---- */

static void make_products(struct projection *p, const double *w) {
    double *x = reference_doubles((size_t)p->tokens * p->columns);
    for (uint32_t t = 0; t < p->tokens; t++) {
        double *row = x + (size_t)t * p->columns, square = 0;
        for (uint32_t k = 0; k < p->columns; k++) {
            row[k] = p->inputs[(size_t)t * p->padded + k];
            square += row[k] * row[k];
        }
        if (!p->norms)
            continue;
        double scale = 1 / sqrt(square / p->columns + p->constants.epsilon);
        for (uint32_t k = 0; k < p->columns; k++)
            row[k] *= scale * ((const float *)p->multiplier->data)[k];
    }
    uint32_t distinct = p->shape.distinct;
    p->products = reference_doubles((size_t)p->tokens * distinct);
    reference_matmul(p->products, distinct, x, p->columns, w, p->columns, p->tokens, distinct,
                     p->columns);
    free(x);
}

/* The size of what was added up to a number: a product, or two multiplied. */
static double scale_of(const struct projection *p) {
    return p->role == ROLE_GEGLU ? p->size * p->size : p->size;
}

/* y += W x, y = gelu(gate) up, or the logits, row by row of y. */
static void expect_rows(struct projection *p) {
    const struct project_constants *c = &p->constants;
    double *want = reference_doubles(p->rows);
    for (uint32_t t = c->last_row ? p->tokens - 1 : 0; t < p->tokens; t++) {
        uint64_t at = (uint64_t)(c->last_row ? 0 : t) * c->y_stride + c->row_begin;
        uint32_t count = p->rows;
        struct plane *y = p->logits[0] ? p->logits[t] : p->y;
        if (p->logits[0] && position_of(p, t) == NO_POSITION)
            continue;
        if (p->logits[0])
            at = c->row_begin;
        if (p->role == ROLE_GEGLU) {
            at -= c->row_begin / 2;
            count /= 2;
        }
        for (uint32_t i = 0; i < count; i++) {
            if (p->role == ROLE_GEGLU)
                want[i] = reference_gelu_tanh(product(p, t, 2 * i)) * product(p, t, 2 * i + 1);
            else
                want[i] = product(p, t, i);
            if (p->role == ROLE_RESIDUAL)
                want[i] += ((const float *)p->y->before)[at + i];
        }
        expect_floats(p->bench, y, at, want, count, scale_of(p), p->limit);
    }
    free(want);
}

/* Queries and keys are rotated in pairs; keys and values go to the cache, or in q8 stay behind the
 * queries. Compares what the pairs of the shard became, all tokens together. */
static void expect_qkv(struct projection *p) {
    const struct project_constants *c = &p->constants;
    const struct session_block *session = session_of(p->session);
    double *want[2], *got[2]; /* of queries, of the cache */
    size_t count[2] = {0, 0};
    for (int i = 0; i < 2; i++) {
        want[i] = allocate_results(p);
        got[i] = allocate_results(p);
    }
    for (uint32_t t = 0; t < p->tokens; t++) {
        uint32_t position = position_of(p, t);
        for (uint32_t r = 0; r < p->rows && position < session->context; r += 2) {
            uint32_t row = c->row_begin + r, head = row / c->head_dim, i = row % c->head_dim;
            const double pair[] = {product(p, t, r), product(p, t, r + 1)};
            const float *angle = (const float *)p->rope->data + position * c->head_dim + i;
            bool rotated = head < c->heads + c->kv_heads;
            bool cached = head >= c->heads && p->kv.type != KV_Q8;
            double cosine = rotated ? angle[0] : 1, sine = rotated ? angle[1] : 0;
            size_t n = count[cached];
            want[cached][n] = pair[0] * cosine - pair[1] * sine;
            want[cached][n + 1] = pair[0] * sine + pair[1] * cosine;
            count[cached] += 2;
            uint32_t kv_head = (head - c->heads) % c->kv_heads;
            uint64_t at = (uint64_t)t * c->y_stride + head * p->kv.padded + i;
            if (cached)
                kv_expect_pair(p->bench, &p->kv, !rotated, kv_head, position, i);
            else
                expect_change(p->bench, p->y, at * 4, 8);
            for (uint32_t j = 0; j < 2; j++)
                got[cached][n + j] = cached ? kv_read(&p->kv, !rotated, kv_head, position, i + j)
                                            : ((const float *)p->y->data)[at + j];
        }
    }
    for (int i = 0; i < 2; i++) {
        expect_near(p->bench, i ? "keys and values" : "queries", got[i], want[i], count[i],
                    scale_of(p), i && p->kv.type == KV_F16 ? fmax(NMSE_F16, p->limit) : p->limit);
        free(want[i]);
        free(got[i]);
    }
}

static void expect_all(struct projection *p, const double *w, double limit, double size) {
    make_products(p, w);
    p->limit = limit;
    p->size = size;
    if (p->role == ROLE_QKV)
        expect_qkv(p);
    else
        expect_rows(p);
    free(p->products);
}

/* Near what the kernel was given, and near what had been quantised: there the error is that of a
 * few random numbers, to be measured by the size that products of these weights have. The product
 * of two of them may be twice as far off. */
static void expect_quantised(struct projection *p) {
    double *rounded = p->type == WEIGHT_NF4 ? rounded_nf4(p) : NULL, square = 0;
    expect_all(p, rounded ? rounded : p->w, NMSE_F32, sqrt(p->columns));
    free(rounded);
    for (size_t i = 0; i < (size_t)p->shape.distinct * p->columns; i++)
        square += p->w[i] * p->w[i];
    for (size_t i = 0; i < (size_t)p->tokens * p->padded; i++)
        p->inputs[i] = p->originals[i];
    expect_all(p, p->w, (p->role == ROLE_GEGLU ? 4 : 1) * NMSE_INT8,
               sqrt(square / p->shape.distinct));
}

/* ---- The check ---- */

static void choose_spec(struct bench *bench, const struct kernel_variant *variant,
                        struct pipeline_key *key, const struct projection *p) {
    static const uint32_t heights[] = {2, 4, 8};
    bool tiled = variant->columns != 0 && variant->workgroup != 0;
    if (!tiled && !bench->spec) {
        key->spec[SPEC_ROWS] = heights[between(bench, 0, 2)];
        key->spec[SPEC_COLUMNS] = between(bench, 0, 1) ? 8 : between(bench, 1, 4);
    }
    key->spec[SPEC_HEAD_DIM] = p->role == ROLE_QKV ? p->kv.padded : 8;
    key->spec[SPEC_KV_TYPE] = p->kv.type;
    key->spec[SPEC_GROUP] = 1;
    key->spec[SPEC_BATCH] = p->batch;
}

void check_projection(struct bench *bench, const struct kernel_variant *variant, uint32_t type) {
    bool is_matvec = variant->kernel <= KERNEL_matvec_head;
    struct projection p = {.bench = bench, .type = type};
    p.role = (enum role)((variant->kernel - KERNEL_matvec_qkv) % 4);
    p.norms = is_matvec && p.role != ROLE_RESIDUAL;
    p.quantised = variant->kernel >= KERNEL_dot_qkv;
    /* batches run what passes of one row do: no tiles */
    p.batch = !bench->shape && !bench->spec && !variant->columns && between(bench, 0, 3) == 0;
    choose_sizes(&p);
    struct pipeline_key key = case_key(bench, variant, type);
    choose_spec(bench, variant, &key, &p);
    describe(bench, &key, "%u of %u rows from %u on, %u columns, %u of %u tokens%s", p.rows,
             p.all_rows, p.constants.row_begin, p.columns, p.tokens, p.recorded,
             p.constants.last_row ? ", the last row"
             : p.batch            ? " of as many sessions"
                                  : "");

    case_begin(bench);
    create_planes(&p, bench->shape           ? bench->shape->position
                      : between(bench, 0, 2) ? between(bench, 0, 40)
                                             : between(bench, 480, 560));
    set_addresses(&p);
    struct plane *planes[KERNEL_OPERANDS_MAX];
    uint32_t count = 0;
    planes[count++] = p.weights;
    planes[count++] = p.x;
    if (p.norms)
        planes[count++] = p.multiplier;
    if (p.role == ROLE_QKV)
        planes[count++] = p.rope;
    planes[count++] = p.y;
    if (p.role == ROLE_QKV)
        planes[count++] = p.kv.type == KV_Q8 ? NULL
                          : p.batch          ? p.kv.chunks[0]
                                    : p.kv.chunks[session_of(p.session)->position / KV_CHUNK];
    planes[count++] = p.session;
    uint32_t grid[3] = {divide_up(p.rows, key.spec[SPEC_ROWS]),
                        p.constants.last_row ? 1 : divide_up(p.recorded, key.spec[SPEC_COLUMNS]),
                        1};
    bench->flops = 2.0 * p.rows * p.columns * p.tokens;
    bench_run(bench, &key, &p.constants, planes, grid, NULL, 0);
    if (!session_of(p.session)->done) {
        if (p.quantised)
            expect_quantised(&p);
        else
            expect_all(&p, p.w, NMSE_F32, sqrt(p.columns));
    }
    case_end(bench);
    free(p.w);
    free(p.inputs);
    free(p.originals);
}
