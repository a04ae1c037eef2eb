#include "kernel_bench.h"
#include "blocks.h"
#include "device_rows.h"
#include "model.h"
#include "reference/reference.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FENCE 4096 /* bytes before and behind each plane */
#define POISON 0x7fc17fc1u

/* A call with `&error` as its last argument without which the case cannot go on. */
#define CASE_MUST(bench, call)                                                                     \
    do {                                                                                           \
        peridot_error error = {0};                                                                 \
        if ((call) != PERIDOT_OK)                                                                  \
            case_fail(bench, "%s", error.message);                                                 \
    } while (0)

peridot_result bench_open(struct bench *bench, struct device *device, uint64_t seed,
                          peridot_error *error) {
    *bench = (struct bench){.device = device, .random = random_start(seed)};
    return lane_create(device, &bench->lane, error);
}

void bench_close(struct bench *bench) {
    lane_destroy(&bench->lane);
}

void case_begin(struct bench *bench) {
    bench->plane_count = 0;
    bench->bytes = bench->flops = 0;
    CASE_MUST(bench, arena_create(bench->device, MEMORY_READBACK, 1 << 20, &bench->arena, &error));
}

struct plane *plane_create(struct bench *bench, const char *name, uint64_t size) {
    if (bench->plane_count == OPERANDS_MOST)
        case_fail(bench, "too many planes");
    struct plane *plane = &bench->planes[bench->plane_count++];
    uint64_t whole = (size + 3) / 4 * 4 + 2 * FENCE;
    *plane = (struct plane){.name = name, .size = size};
    CASE_MUST(bench, arena_buffer(bench->arena, whole, name, &plane->buffer, &error));
    uint32_t *words = plane->buffer->mapped;
    for (uint64_t i = 0; i < whole / 4; i++)
        words[i] = POISON;
    plane->data = (unsigned char *)words + FENCE;
    plane->address = plane->buffer->address + FENCE;
    return plane;
}

static void check_fence(struct bench *bench, const struct plane *plane, uint64_t begin,
                        uint64_t end) {
    const uint32_t *words = plane->buffer->mapped;
    for (uint64_t i = begin / 4; i < end / 4; i++)
        if (words[i] != POISON)
            case_fail(bench, "wrote %lld bytes from the beginning of %s, which has %llu",
                      (long long)(i * 4) - FENCE, plane->name, (unsigned long long)plane->size);
}

static void check_plane(struct bench *bench, const struct plane *plane) {
    check_fence(bench, plane, 0, FENCE);
    check_fence(bench, plane, FENCE + (plane->size + 3) / 4 * 4, plane->buffer->size);
    const unsigned char *data = plane->data;
    for (uint64_t i = 0; i < plane->size; i++)
        if (data[i] != plane->before[i] && !plane->changed[i] && !plane->unchecked)
            case_fail(bench, "changed byte %llu of %s, which it was to leave alone",
                      (unsigned long long)i, plane->name);
}

/* Remembers what a plane holds before a run; first judges the run before. */
static void keep_plane(struct bench *bench, struct plane *plane) {
    if (plane->before) {
        check_plane(bench, plane);
    } else {
        plane->before = reference_allocate(plane->size, 1);
        plane->changed = reference_allocate(plane->size, 1);
    }
    memcpy(plane->before, plane->data, plane->size);
    memset(plane->changed, 0, plane->size);
}

void case_end(struct bench *bench) {
    for (uint32_t i = 0; i < bench->plane_count; i++)
        check_plane(bench, &bench->planes[i]);
    case_abandon(bench);
}

void case_abandon(struct bench *bench) {
    for (uint32_t i = 0; i < bench->plane_count; i++) {
        free(bench->planes[i].before);
        free(bench->planes[i].changed);
    }
    arena_destroy(bench->arena);
    bench->arena = NULL;
    bench->plane_count = 0;
}

void case_fail(struct bench *bench, const char *format, ...) {
    int length = snprintf(bench->failure, sizeof bench->failure, "%s: ", bench->title);
    va_list list;
    va_start(list, format);
    vsnprintf(bench->failure + length, sizeof bench->failure - (size_t)length, format, list);
    va_end(list);
    longjmp(*bench->caught, 1);
}

/* ---- Running ---- */

static struct pipeline *compile(struct bench *bench, const struct pipeline_key *key) {
    struct pipeline *pipeline = pipelines_want(bench->device, key);
    if (!pipeline)
        case_fail(bench, "out of memory for pipelines");
    if (!pipeline->handle)
        CASE_MUST(bench, pipelines_compile(bench->device, NULL, NULL, &error));
    return pipeline;
}

static void submit(struct bench *bench, const struct recording *recording) {
    VkCommandBuffer commands;
    struct emit_options options = {.host_read = true};
    CASE_MUST(bench, lane_commands(&bench->lane, &commands, &error));
    CASE_MUST(bench, lane_begin(&bench->lane, commands, false, &error));
    CASE_MUST(bench, recording_emit(recording, commands, &options, &error));
    CASE_MUST(bench, lane_end(&bench->lane, commands, &error));
    CASE_MUST(bench, lane_submit(&bench->lane, &(struct batch){&commands, 1}, 1, &error));
    CASE_MUST(bench, lane_wait(&bench->lane, bench->lane.submitted, &error));
    lane_free_commands(&bench->lane, commands);
}

struct pipeline_key case_key(const struct bench *bench, const struct kernel_variant *variant,
                             uint32_t type) {
    struct pipeline_key key = pipeline_key(bench->device, variant, type);
    if (bench->spec)
        memcpy(key.spec, bench->spec, SPEC_HEAD_DIM * sizeof *key.spec);
    return key;
}

void bench_run(struct bench *bench, const struct pipeline_key *key, const void *constants,
               struct plane *const *planes, const uint32_t grid[3], const struct plane *indirect,
               uint64_t indirect_offset) {
    struct kernel_info info = kernel_info(key->variant->kernel);
    struct operand operands[KERNEL_OPERANDS_MAX] = {{0}};
    for (uint32_t i = 0; i < info.operand_count; i++)
        if (planes[i])
            operands[i] = (struct operand){planes[i]->buffer, FENCE, planes[i]->size};
    for (uint32_t i = 0; i < bench->plane_count; i++) {
        struct plane *plane = &bench->planes[i];
        keep_plane(bench, plane);
        CASE_MUST(bench,
                  buffer_flush(bench->device, plane->buffer, 0, plane->buffer->size, &error));
    }
    struct bench_dispatch given = {compile(bench, key), constants, planes, grid, indirect,
                                   indirect_offset};
    if (bench->watch && key->variant == bench->watched)
        bench->watch(bench, &given, bench->watcher);
    struct recording recording;
    recording_begin(&recording, bench->device);
    struct dispatch *dispatch =
        recording_dispatch(&recording, given.pipeline, constants, operands, grid);
    if (dispatch && indirect) {
        dispatch->indirect = indirect->buffer;
        dispatch->indirect_offset = FENCE + indirect_offset;
    }
    submit(bench, &recording);
    recording_free(&recording);
    for (uint32_t i = 0; i < bench->plane_count; i++)
        CASE_MUST(bench, buffer_invalidate(bench->device, bench->planes[i].buffer, 0,
                                           bench->planes[i].buffer->size, &error));
    for (uint32_t i = 0; i < info.operand_count; i++)
        if (planes[i] && info.operand_access[i] == ACCESS_READ)
            check_plane(bench, planes[i]);
}

/* ---- Checking ---- */

void expect_change(struct bench *bench, struct plane *plane, uint64_t offset, uint64_t size) {
    if (offset > plane->size || size > plane->size - offset)
        case_fail(bench, "the test expects a change outside %s", plane->name);
    memset(plane->changed + offset, 1, size);
}

void expect_near(struct bench *bench, const char *what, const double *got, const double *want,
                 uint64_t count, double scale, double limit) {
    double errors = 0, sizes = 0;
    uint64_t worst = 0;
    for (uint64_t i = 0; i < count; i++) {
        double error = got[i] - want[i];
        errors += error * error;
        sizes += want[i] * want[i] + scale * scale;
        if (!(fabs(error) <= fabs(got[worst] - want[worst])) && !isnan(got[worst]))
            worst = i;
    }
    if (sizes > 0 && errors / sizes / limit > bench->worst)
        bench->worst = errors / sizes / limit;
    if (!(errors <= limit * sizes))
        case_fail(bench, "number %llu of %llu of %s is %g instead of %g (NMSE of all %g)",
                  (unsigned long long)worst, (unsigned long long)count, what, got[worst],
                  want[worst], errors / sizes);
}

void expect_floats(struct bench *bench, struct plane *plane, uint64_t first, const double *want,
                   uint64_t count, double scale, double limit) {
    expect_change(bench, plane, first * 4, count * 4);
    double *got = reference_doubles(count);
    for (uint64_t i = 0; i < count; i++)
        got[i] = ((const float *)plane->data)[first + i];
    expect_near(bench, plane->name, got, want, count, scale, limit);
    free(got);
}

void describe(struct bench *bench, const struct pipeline_key *key, const char *sizes, ...) {
    const struct kernel_variant *variant = key->variant;
    struct kernel_info info = kernel_info(variant->kernel);
    int length = snprintf(bench->title, sizeof bench->title, "%s %s%s%s (constants", info.name,
                          variant->name, info.typed ? " " : "",
                          info.typed ? weight_type_info(key->type)->name : "");
    for (int i = 0; i < SPEC_COUNT; i++)
        length += snprintf(bench->title + length, sizeof bench->title - (size_t)length, " %u",
                           key->spec[i]);
    length += snprintf(bench->title + length, sizeof bench->title - (size_t)length, "), ");
    va_list list;
    va_start(list, sizes);
    vsnprintf(bench->title + length, sizeof bench->title - (size_t)length, sizes, list);
    va_end(list);
}

/* ---- Random contents ---- */

uint32_t between(struct bench *bench, uint32_t least, uint32_t most) {
    return least + (uint32_t)random_below(&bench->random, most - least + 1);
}

void fill_normal(struct bench *bench, float *values, double *doubles, uint64_t count) {
    for (uint64_t i = 0; i < count; i++) {
        values[i] = (float)random_normal(&bench->random);
        if (doubles)
            doubles[i] = values[i];
    }
}

/* ---- Weights ---- */

struct weight_shape weight_shape(enum weight_type type, uint32_t rows, uint32_t columns) {
    uint32_t block = weight_type_info(type)->block;
    if (block > 32)
        columns = round_up(columns, block);
    uint32_t padded = device_row_columns(type, columns);
    return (struct weight_shape){
        type, rows, columns, padded, device_row_quads(type, padded), padded / (block == 1 ? 8 : 32),
        rows};
}

/* Where a block's float16 scales are, and what a code is worth, roughly, for scales of 1. */
static const struct {
    uint32_t first, count;
    double code;
} scales[WEIGHT_TYPE_COUNT] = {
    [WEIGHT_Q8_0] = {0, 1, 70},     [WEIGHT_Q4_0] = {0, 1, 5},   [WEIGHT_Q4_1] = {0, 2, 8},
    [WEIGHT_Q5_0] = {0, 1, 9},      [WEIGHT_Q5_1] = {0, 2, 16},  [WEIGHT_Q2_K] = {80, 2, 12},
    [WEIGHT_Q3_K] = {108, 1, 40},   [WEIGHT_Q4_K] = {0, 2, 270}, [WEIGHT_Q5_K] = {0, 2, 550},
    [WEIGHT_Q6_K] = {208, 1, 1300}, [WEIGHT_NF4] = {0, 1, 0.5},
};

static double random_weight(struct bench *bench) {
    double value = random_normal(&bench->random);
    return random_below(&bench->random, 50) == 0 ? value * 1e-6 : value; /* subnormal in float16 */
}

static void fill_element(struct bench *bench, enum weight_type type, uint8_t *place) {
    double value = random_weight(bench);
    float single = (float)value;
    uint16_t half =
        type == WEIGHT_BF16 ? reference_double_to_bf16(value) : reference_double_to_f16(value);
    memcpy(place, type == WEIGHT_F32 ? (void *)&single : (void *)&half, type == WEIGHT_F32 ? 4 : 2);
}

/* Any bits, but for the scales. */
static void fill_block(struct bench *bench, enum weight_type type, uint8_t *block) {
    for (uint32_t i = 0; i < weight_type_info(type)->block_bytes; i++)
        block[i] = (uint8_t)random_below(&bench->random, 256);
    for (uint32_t i = 0; i < scales[type].count; i++) {
        uint16_t half = reference_double_to_f16(random_weight(bench) / scales[type].code);
        memcpy(block + scales[type].first + 2 * i, &half, 2);
    }
}

struct plane *weight_plane(struct bench *bench, const char *name, const struct weight_shape *shape,
                           double *doubles) {
    const struct weight_type_info *info = weight_type_info(shape->type);
    size_t row_bytes = (size_t)shape->stride * 16;
    struct plane *plane = plane_create(bench, name, shape->rows * row_bytes);
    uint8_t *rows = plane->data;
    uint32_t blocks = (shape->columns + info->block - 1) / info->block;
    uint8_t *row = reference_allocate(shape->padded / info->block, info->block_bytes);
    float *values = reference_allocate(shape->padded, sizeof *values);
    for (uint32_t r = 0; r < shape->rows && r < shape->distinct; r++) {
        for (uint32_t b = 0; b < blocks; b++)
            (info->block == 1 ? fill_element : fill_block)(bench, shape->type,
                                                           row + b * info->block_bytes);
        device_row_pack(shape->type, row, shape->padded, rows + r * row_bytes);
        blocks_dequantise(shape->type, row, shape->padded, values);
        for (uint32_t i = 0; i < shape->columns; i++)
            doubles[(size_t)r * shape->columns + i] = values[i];
    }
    for (uint32_t r = shape->distinct; r < shape->rows; r++)
        memcpy(rows + r * row_bytes, rows + (r - shape->distinct) * row_bytes, row_bytes);
    free(row);
    free(values);
    return plane;
}
