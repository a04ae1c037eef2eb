/* Attention over a KV cache in chunks, of which all but the context is poison. */
#include "forward.h"
#include "kernel_checks.h"
#include "reference/reference.h"

#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

struct attention {
    struct bench *bench;
    uint32_t heads, group, rows, recorded, position;
    uint32_t
        stride; /* every how many rows are compared: the reference is slow at a model's sizes */
    struct attention_constants constants;
    struct kv_case kv;
    struct plane *session, *query, *result, *partial;
    /* As the reference wants them: [positions][kv_heads][head_dim], [rows][heads][head_dim] */
    double *keys, *values, *queries, *want;
};

static void take_sizes(struct attention *a, const struct case_shape *shape) {
    a->group = shape->heads / shape->kv_heads;
    a->heads = shape->heads;
    a->kv = (struct kv_case){.layers = 1,
                             .kv_heads = shape->kv_heads,
                             .head_dim = shape->head_dim,
                             .padded = round_up(shape->head_dim, ROW_ALIGNMENT),
                             .type = shape->kv};
    a->rows = a->recorded = shape->tokens;
    a->position = shape->position;
    a->stride = a->rows > 8 ? a->rows - 1 : 1;
}

static void choose_sizes(struct attention *a, uint32_t rows_most) {
    static const uint32_t groups[] = {1, 1, 2, 3, 4, 8};
    struct bench *bench = a->bench;
    a->stride = 1;
    if (bench->shape) {
        take_sizes(a, bench->shape);
        return;
    }
    a->group = groups[between(bench, 0, 5)];
    while (bench->spec && a->group > 1 && a->group * bench->spec[SPEC_COLUMNS] > 8)
        a->group /= 2; /* more queries than shared memory holds */
    a->kv = (struct kv_case){.layers = 2,
                             .layer = between(bench, 0, 1),
                             .kv_heads = between(bench, 1, 2),
                             .head_dim = 2 * between(bench, 1, 40),
                             .type = between(bench, KV_F16, KV_Q8)};
    if (between(bench, 0, 3) == 0)
        a->kv.head_dim = 256;
    a->kv.padded = round_up(a->kv.head_dim, ROW_ALIGNMENT);
    a->heads = a->group * a->kv.kv_heads;
    a->recorded = between(bench, 1, rows_most);
    a->rows = between(bench, 1, a->recorded);
    /* one or two chunks; the border of chunks, or of a split, among the rows at times */
    a->position = between(bench, 0, 2) ? between(bench, 0, 200) : between(bench, 490, 700);
    if (between(bench, 0, 1))
        a->position = round_up(a->position, 32) + 32 - between(bench, 1, a->rows);
}

/* Where vector `i` of [rows][heads] begins in a plane of queries or results with such rows. */
static uint64_t vector_place(const struct attention *a, uint32_t i, uint32_t stride) {
    return (uint64_t)(i / a->heads) * stride + i % a->heads * a->kv.padded;
}

/* Queries in their planes and as doubles; padding is zero. */
static void fill_queries(struct attention *a) {
    uint32_t dim = a->kv.head_dim;
    for (uint32_t i = 0; i < a->rows * a->heads; i++) {
        float *vector = (float *)a->query->data + vector_place(a, i, a->constants.query_stride);
        memset(vector, 0, a->kv.padded * sizeof *vector);
        fill_normal(a->bench, vector, a->queries + (size_t)i * dim, dim);
    }
}

static void fill_cache(struct attention *a, uint32_t positions) {
    double *row = reference_doubles(a->kv.padded);
    for (uint32_t which = 0; which < 2; which++)
        for (uint32_t p = 0; p < positions; p++)
            for (uint32_t head = 0; head < a->kv.kv_heads; head++) {
                for (uint32_t i = 0; i < a->kv.padded; i++)
                    row[i] = i < a->kv.head_dim ? random_normal(&a->bench->random) : 0;
                kv_write(&a->kv, which, head, p, row);
                size_t at = ((size_t)p * a->kv.kv_heads + head) * a->kv.head_dim;
                memcpy((which ? a->values : a->keys) + at, row, a->kv.head_dim * sizeof *row);
            }
    free(row);
}

static void create_planes(struct attention *a) {
    struct bench *bench = a->bench;
    struct attention_constants *c = &a->constants;
    uint32_t positions = a->position + a->rows;
    size_t vectors = (size_t)a->rows * a->heads * a->kv.head_dim;
    size_t cached = (size_t)positions * a->kv.kv_heads * a->kv.head_dim;
    a->session = session_plane(bench, a->position, a->rows);
    a->session->unchecked = bench->counts_kv_reads;
    session_of(a->session)->reserved = 0;
    kv_create(bench, &a->kv, a->session, 0, positions);
    c->stride = round_up(a->heads * a->kv.padded, ACTIVATION_ALIGNMENT);
    c->query_stride = c->stride + ROW_ALIGNMENT * between(bench, 0, 9);
    a->query =
        plane_create(bench, "query", (uint64_t)a->recorded * c->query_stride * sizeof(float));
    a->queries = reference_doubles(vectors);
    a->want = reference_doubles(vectors);
    a->keys = reference_doubles(cached);
    a->values = reference_doubles(cached);
    fill_queries(a);
    fill_cache(a, positions);
    c->query = a->query->address;
    c->session = a->session->address;
    c->heads = a->heads;
    c->kv_heads = a->kv.kv_heads;
    c->kv_layer = kv_layer_offset(&a->kv);
    c->scale = (float)(2 / sqrt(a->kv.head_dim)); /* steeper than the model's */
    for (uint32_t t = 0; t < a->rows; t += a->stride) {
        size_t at = (size_t)t * a->heads * a->kv.head_dim;
        reference_attention(a->want + at, a->queries + at, a->keys, a->values, 1, a->heads,
                            a->kv.kv_heads, a->kv.head_dim, a->position + t, c->scale);
    }
}

static void free_case(struct attention *a) {
    free(a->keys);
    free(a->values);
    free(a->queries);
    free(a->want);
}

/* The result holds these vectors [rows][heads][head_dim], zero in their padding. */
static void expect_vectors(struct attention *a, const double *want) {
    double *padded = reference_doubles(a->kv.padded);
    for (uint32_t i = 0; i < a->rows * a->heads && !session_of(a->session)->done; i++) {
        if (i / a->heads % a->stride != 0) {
            expect_change(a->bench, a->result, vector_place(a, i, a->constants.stride) * 4,
                          a->kv.padded * sizeof(float));
            continue;
        }
        memcpy(padded, want + (size_t)i * a->kv.head_dim, a->kv.head_dim * sizeof *padded);
        expect_floats(a->bench, a->result, vector_place(a, i, a->constants.stride), padded,
                      a->kv.padded, 0.1, NMSE_F32);
    }
    free(padded);
}

static struct pipeline_key choose_key(const struct attention *a,
                                      const struct kernel_variant *variant) {
    struct pipeline_key key = case_key(a->bench, variant, 0);
    key.spec[SPEC_HEAD_DIM] = a->kv.padded;
    key.spec[SPEC_GROUP] = a->group;
    key.spec[SPEC_KV_TYPE] = a->kv.type;
    if (!a->bench->spec)
        key.spec[SPEC_COLUMNS] = 1;
    return key;
}

static void describe_sizes(const struct attention *a, const struct pipeline_key *key) {
    describe(a->bench, key, "%u heads of %u, %u of %u rows at %u", a->heads, a->kv.head_dim,
             a->rows, a->recorded, a->position);
}

/* K and V are read once for all query heads that share them, and for `columns` rows at once. */
static void expect_kv_reads(const struct attention *a, uint32_t columns) {
    const struct session_block *block = session_of(a->session);
    uint64_t positions = 0;
    for (uint32_t row = 0; row < a->rows && !block->done; row += columns)
        positions += a->position + (row + columns < a->rows ? row + columns : a->rows);
    uint64_t want = 2 * positions * a->kv.kv_heads * a->kv.padded;
    if (a->bench->counts_kv_reads && block->reserved != want)
        case_fail(a->bench, "%u elements of K and V read instead of %llu", block->reserved,
                  (unsigned long long)want);
}

/* ---- Prefill ---- */

/* What a pass cannot do without: queries, results, and K and V once. */
static void tell_cost(const struct attention *a, bool splits) {
    const struct attention_constants *c = &a->constants;
    uint32_t length = a->position + a->rows;
    double cache = 2.0 * length * a->kv.kv_heads * 16 * KV_ROW_QUADS(a->kv.type, a->kv.padded);
    a->bench->bytes = cache + 4.0 * a->rows * (c->query_stride + (splits ? 0 : c->stride));
    a->bench->flops = 4.0 * a->kv.head_dim * a->heads * a->rows * (a->position + a->rows / 2.0);
}

void check_attention_prefill(struct bench *bench, const struct kernel_variant *variant,
                             uint32_t type) {
    (void)type;
    struct attention a = {.bench = bench};
    choose_sizes(&a, 40);
    struct pipeline_key key = choose_key(&a, variant);
    if (!bench->spec)
        key.spec[SPEC_COLUMNS] = between(bench, 1, a.group < 8 ? 8 / a.group : 1);
    describe_sizes(&a, &key);
    case_begin(bench);
    create_planes(&a);
    a.result = plane_create(bench, "result", (uint64_t)a.recorded * a.constants.stride * 4);
    a.constants.result = a.result->address;
    struct plane *planes[] = {a.query, a.kv.chunks[0], a.result, a.session};
    uint32_t grid[3] = {divide_up(a.recorded, key.spec[SPEC_COLUMNS]), a.kv.kv_heads, 1};
    tell_cost(&a, false);
    bench_run(bench, &key, &a.constants, planes, grid, NULL, 0);
    expect_vectors(&a, a.want);
    expect_kv_reads(&a, key.spec[SPEC_COLUMNS]);
    case_end(bench);
    free_case(&a);
}

/* ---- Decode ---- */

static uint32_t part_floats(const struct attention *a) {
    return a->kv.padded + 8;
}

/* What attention_join must make of a vector's parts, [splits][padded + 8]. */
static void join(const struct attention *a, const float *parts, uint32_t splits, double *vector) {
    double top = -INFINITY, weight = 0;
    for (uint32_t s = 0; s < splits; s++)
        top = fmax(top, parts[(size_t)s * part_floats(a) + a->kv.padded]);
    memset(vector, 0, a->kv.head_dim * sizeof *vector);
    for (uint32_t s = 0; s < splits; s++) {
        const float *part = parts + (size_t)s * part_floats(a);
        double share = exp(part[a->kv.padded] - top);
        weight += share * part[a->kv.padded + 1];
        for (uint32_t i = 0; i < a->kv.head_dim; i++)
            vector[i] += share * part[i];
    }
    for (uint32_t i = 0; i < a->kv.head_dim; i++)
        vector[i] /= weight;
}

/* A case of a few rows whose context is cut as at a decode step on a device that wants some number
 * of workgroups. */
static struct pipeline_key begin_decode(struct attention *a, const struct kernel_variant *variant) {
    choose_sizes(a, 8);
    struct pipeline_key key = choose_key(a, variant);
    case_begin(a->bench);
    create_planes(a);
    a->partial = plane_create(a->bench, "partial",
                              (uint64_t)a->recorded * a->heads * SPLITS_MAX * part_floats(a) * 4);
    a->constants.partial = a->partial->address;
    struct session_block *block = session_of(a->session);
    block->split_target = between(a->bench, 1, 200);
    block->kv_heads = a->kv.kv_heads;
    forward_attention_grid(block, a->position + a->rows, a->rows);
    describe_sizes(a, &key);
    return key;
}

void check_attention_decode(struct bench *bench, const struct kernel_variant *variant,
                            uint32_t type) {
    (void)type;
    struct attention a = {.bench = bench};
    struct pipeline_key key = begin_decode(&a, variant);
    uint32_t splits = session_of(a.session)->attention_grid[0];
    struct plane *planes[] = {a.query, a.kv.chunks[0], a.partial, a.session};
    tell_cost(&a, true);
    bench_run(bench, &key, &a.constants, planes, (uint32_t[3]){1, 1, 1}, a.session,
              offsetof(struct session_block, attention_grid));
    double *joined = reference_doubles(a.kv.head_dim);
    for (uint32_t i = 0; i < a.rows * a.heads && !session_of(a.session)->done; i++) {
        uint64_t first = (uint64_t)i * SPLITS_MAX * part_floats(&a);
        join(&a, (const float *)a.partial->data + first, splits, joined);
        expect_near(bench, "the joined parts", joined, a.want + (size_t)i * a.kv.head_dim,
                    a.kv.head_dim, 0.1, NMSE_F32);
        for (uint32_t s = 0; s < splits; s++) /* a vector, a maximum, a weight, two zeros */
            expect_change(bench, a.partial, (first + s * part_floats(&a)) * 4,
                          (a.kv.padded + 4) * 4);
    }
    expect_kv_reads(&a, 1);
    case_end(bench);
    free(joined);
    free_case(&a);
}

void check_attention_join(struct bench *bench, const struct kernel_variant *variant,
                          uint32_t type) {
    (void)type;
    struct attention a = {.bench = bench};
    struct pipeline_key key = begin_decode(&a, variant);
    uint32_t split_length = session_of(a.session)->split_length;
    double *want = reference_doubles((size_t)a.rows * a.heads * a.kv.head_dim);
    for (uint32_t i = 0; i < a.rows * a.heads; i++) {
        /* a row sees as many parts as its context touches; the others stay poison */
        uint32_t splits = (a.position + i / a.heads) / split_length + 1;
        float *parts = (float *)a.partial->data + (size_t)i * SPLITS_MAX * part_floats(&a);
        for (uint32_t s = 0; s < splits; s++) {
            float *part = parts + (size_t)s * part_floats(&a);
            memset(part, 0, a.kv.padded * sizeof *part);
            fill_normal(bench, part, NULL, a.kv.head_dim);
            part[a.kv.padded] = 5 * (float)random_normal(&bench->random);
            part[a.kv.padded + 1] = 1 + 9 * (float)random_uniform(&bench->random);
        }
        join(&a, parts, splits, want + (size_t)i * a.kv.head_dim);
    }
    a.result = plane_create(bench, "result", (uint64_t)a.recorded * a.constants.stride * 4);
    a.constants.result = a.result->address;
    struct plane *planes[] = {a.partial, a.result, a.session};
    bench_run(bench, &key, &a.constants, planes, (uint32_t[3]){a.heads, a.recorded, 1}, NULL, 0);
    expect_vectors(&a, want);
    case_end(bench);
    free(want);
    free_case(&a);
}
