/* Keys and values packed into a KV cache in q8: scales exactly the reference's, codes to nearest.
 */
#include "kernel_checks.h"
#include "reference/reference.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct packing {
    struct bench *bench;
    uint32_t rows, recorded, position;
    struct kv_store_constants constants;
    struct kv_case kv;
    struct plane *session, *made;
};

/* Where token t's key or value begins among what was made. */
static float *made_row(const struct packing *p, uint32_t t, uint32_t which, uint32_t head) {
    const struct kv_store_constants *c = &p->constants;
    return (float *)p->made->data + (size_t)t * c->stride +
           (size_t)(c->heads + which * c->kv_heads + head) * p->kv.padded;
}

/* Blocks of every magnitude: scales are subnormal below 8e-3 and at their end above 8e6; some are
 * zero, some hold an infinity. */
static void fill_row(struct packing *p, float *row) {
    struct bench *bench = p->bench;
    memset(row, 0, p->kv.padded * sizeof *row);
    for (uint32_t begin = 0; begin < p->kv.head_dim; begin += KV_BLOCK) {
        uint32_t end = begin + KV_BLOCK < p->kv.head_dim ? begin + KV_BLOCK : p->kv.head_dim;
        bool usual = between(bench, 0, 1);
        double size = usual ? 1 : pow(10, 18 * random_uniform(&bench->random) - 10);
        if (between(bench, 0, 9) == 0)
            size = 0;
        for (uint32_t i = begin; i < end; i++)
            row[i] = (float)(size * random_normal(&bench->random));
        if (between(bench, 0, 30) == 0)
            row[between(bench, begin, end - 1)] = -INFINITY;
    }
}

static void create_planes(struct packing *p) {
    struct bench *bench = p->bench;
    struct kv_store_constants *c = &p->constants;
    p->session = session_plane(bench, p->position, p->rows);
    if (between(bench, 0, 5) == 0) /* rows past the context store nothing */
        session_of(p->session)->context = p->position + between(bench, 0, p->rows);
    kv_create(bench, &p->kv, p->session, p->position, p->position + p->rows);
    p->made = plane_create(bench, "made", (uint64_t)p->recorded * c->stride * sizeof(float));
    for (uint32_t t = 0; t < p->rows; t++)
        for (uint32_t i = 0; i < 2 * c->kv_heads; i++)
            fill_row(p, made_row(p, t, i / c->kv_heads, i % c->kv_heads));
    c->made = p->made->address;
    c->session = p->session->address;
    c->kv_layer = kv_layer_offset(&p->kv);
}

/* Codes may differ from the reference's where the shader's division rounds otherwise. */
static void expect_codes(const struct packing *p, const float *row, const int8_t *codes,
                         const int8_t *want, const uint16_t *scales) {
    for (uint32_t i = 0; i < p->kv.padded; i++) {
        double scale = reference_f16_to_double(scales[i / KV_BLOCK]);
        double exact = scale > 0 ? fmin(fmax(row[i] / scale, -127), 127) : 0;
        if (abs(codes[i] - want[i]) > 1 || fabs(codes[i] - exact) > 0.5001)
            case_fail(p->bench, "element %u, %g, became %d times %g", i, row[i], codes[i], scale);
    }
}

static void expect_row(const struct packing *p, uint32_t t, uint32_t which, uint32_t head) {
    uint32_t position = p->position + t, padded = p->kv.padded;
    uint32_t blocks = divide_up(padded, KV_BLOCK), code_bytes = 16 * KV_CODE_QUADS(padded);
    struct plane *chunk = p->kv.chunks[position / KV_CHUNK];
    uint64_t at = kv_row_at(&p->kv, which, head, position);
    int8_t codes[1024], want[1024];
    uint16_t scales[32], want_scales[32];
    const float *made = made_row(p, t, which, head);
    double *row = reference_doubles(padded);
    for (uint32_t i = 0; i < padded; i++)
        row[i] = made[i];
    reference_q8(row, padded, want, want_scales);
    memcpy(codes, (uint8_t *)chunk->data + at, padded);
    memcpy(scales, (uint8_t *)chunk->data + at + code_bytes, blocks * sizeof *scales);
    for (uint32_t i = 0; i < blocks; i++)
        if (scales[i] != want_scales[i])
            case_fail(p->bench, "the scale of block %u is 0x%04x instead of 0x%04x", i, scales[i],
                      want_scales[i]);
    expect_codes(p, made, codes, want, scales);
    expect_change(p->bench, chunk, at, code_bytes);
    expect_change(p->bench, chunk, at + code_bytes, divide_up(blocks, 2) * 4);
    free(row);
}

static void take_sizes(struct packing *p, const struct case_shape *shape) {
    p->kv.kv_heads = p->constants.kv_heads = shape->kv_heads;
    p->kv.head_dim = shape->head_dim;
    p->kv.padded = round_up(p->kv.head_dim, ROW_ALIGNMENT);
    p->constants.heads = shape->heads;
    p->rows = p->recorded = shape->tokens;
    p->position = shape->position;
}

void check_kv_store(struct bench *bench, const struct kernel_variant *variant, uint32_t type) {
    (void)type;
    struct packing p = {.bench = bench};
    p.kv = (struct kv_case){.layers = 2,
                            .layer = between(bench, 0, 1),
                            .kv_heads = between(bench, 1, 3),
                            .head_dim = 2 * between(bench, 1, between(bench, 0, 1) ? 40 : 200),
                            .type = KV_Q8};
    if (between(bench, 0, 3) == 0)
        p.kv.head_dim = 256;
    p.kv.padded = round_up(p.kv.head_dim, ROW_ALIGNMENT);
    p.recorded = between(bench, 1, 20);
    p.rows = between(bench, 1, p.recorded);
    p.position = between(bench, 0, 1) ? between(bench, 0, 40) : between(bench, 490, 700);
    struct kv_store_constants *c = &p.constants;
    c->kv_heads = p.kv.kv_heads;
    c->heads = c->kv_heads * between(bench, 1, 3);
    if (bench->shape)
        take_sizes(&p, bench->shape);
    c->stride = (c->heads + 2 * c->kv_heads) * p.kv.padded + ROW_ALIGNMENT * between(bench, 0, 2);
    struct pipeline_key key = case_key(bench, variant, 0);
    key.spec[SPEC_HEAD_DIM] = p.kv.padded;
    key.spec[SPEC_KV_TYPE] = KV_Q8;
    describe(bench, &key, "%u and 2 * %u heads of %u, %u of %u rows at %u", c->heads, c->kv_heads,
             p.kv.head_dim, p.rows, p.recorded, p.position);
    case_begin(bench);
    create_planes(&p);
    struct plane *planes[] = {p.made, p.kv.chunks[p.position / KV_CHUNK], p.session};
    uint32_t pairs = p.recorded * 2 * c->kv_heads * divide_up(p.kv.padded, 2 * KV_BLOCK);
    uint32_t grid[3] = {divide_up(pairs, key.spec[SPEC_WORKGROUP]), 1, 1};
    bench_run(bench, &key, c, planes, grid, NULL, 0);
    const struct session_block *block = session_of(p.session);
    for (uint32_t t = 0; t < p.rows && !block->done && p.position + t < block->context; t++)
        for (uint32_t i = 0; i < 2 * c->kv_heads; i++)
            expect_row(&p, t, i / c->kv_heads, i % c->kv_heads);
    case_end(bench);
}
