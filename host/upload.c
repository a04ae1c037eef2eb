#include "upload.h"
#include "abi.h"
#include "blocks.h"
#include "device_rows.h"
#include "row_threads.h"
#include "staging.h"
#include "weight_rows.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SOURCES_MAX 3

/* A matrix on the device is made of up to three matrices of the file, row by row. */
struct assembly {
    struct weight *weight;
    const char *name;
    const struct checkpoint_tensor *sources[SOURCES_MAX];
    enum { ROWS_AS_THEY_ARE, ROWS_QKV, ROWS_GATE_UP } order;
    uint32_t column_group, column_group_padded; /* columns are padded group by group */
    bool is_table;                              /* the embedding or the head */
};

struct upload {
    struct peridot_model *model; /* one part */
    const struct checkpoint *checkpoint;
    const peridot_model_params *params;
    bool planned; /* the part's arena only counts: nothing is read or sent */
    struct staging staging;
    uint64_t *done, all; /* bytes of the file */
};

uint64_t weight_bytes(const struct weight *weight) {
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < weight->shard_count; i++)
        bytes += (uint64_t)weight->shards[i].row_count * weight->shards[i].stride * 16;
    return bytes;
}

static peridot_result report(struct upload *upload, uint64_t bytes, peridot_error *error) {
    *upload->done += bytes;
    const peridot_model_params *params = upload->params;
    peridot_progress progress = {"uploading", *upload->done, upload->all};
    if (params->progress && !params->progress(&progress, params->progress_user))
        return fail(error, PERIDOT_ERROR_CANCELLED, "loading was cancelled");
    return PERIDOT_OK;
}

static uint64_t file_row_bytes(const struct checkpoint_tensor *tensor) {
    const struct weight_type_info *info = weight_type_info(tensor->type);
    return (uint64_t)tensor->columns / info->block * info->block_bytes;
}

static uint64_t largest_row(const struct assembly *assembly) {
    uint64_t largest = 0;
    for (int i = 0; i < SOURCES_MAX && assembly->sources[i]; i++)
        if (file_row_bytes(assembly->sources[i]) > largest)
            largest = file_row_bytes(assembly->sources[i]);
    return largest;
}

/* ---- Rows ---- */

/* Which row of which source is row `row` on the device (abi.h, Weights). */
static const struct checkpoint_tensor *source_row(const struct peridot_model *model,
                                                  const struct assembly *assembly, uint32_t row,
                                                  uint32_t *source) {
    if (assembly->order == ROWS_GATE_UP) {
        *source = row / 2;
        return assembly->sources[row % 2];
    }
    *source = row;
    if (assembly->order == ROWS_AS_THEY_ARE)
        return assembly->sources[0];
    uint32_t part = 0;
    while (*source >= assembly->sources[part]->rows)
        *source -= assembly->sources[part++]->rows;
    uint32_t dim = model->config.head_dim, within = *source % dim;
    if (part < 2)
        *source += within / 2 + within % 2 * (dim / 2) - within;
    return assembly->sources[part];
}

struct shard_rows {
    const struct upload *upload;
    const struct assembly *assembly;
    const struct shard *shard;
    size_t convert_bytes; /* of scratch memory; a row of the file comes behind them */
};

static peridot_result write_row(const void *user, uint32_t row, uint8_t *target, void *scratch,
                                peridot_error *error) {
    const struct shard_rows *rows = user;
    const struct assembly *assembly = rows->assembly;
    const struct checkpoint *checkpoint = rows->upload->checkpoint;
    uint32_t source = 0;
    const struct checkpoint_tensor *tensor =
        source_row(rows->upload->model, assembly, rows->shard->row_begin + row, &source);
    const uint8_t *data = NULL;
    uint64_t bytes = file_row_bytes(tensor);
    peridot_result result = checkpoint_read(checkpoint, tensor, source * bytes, bytes,
                                            (uint8_t *)scratch + rows->convert_bytes, &data, error);
    if (result)
        return result;
    const struct weight_row shape = {
        .from = tensor->type,
        .to = rows->shard->type,
        .columns = tensor->columns,
        .group = assembly->column_group,
        .group_padded = assembly->column_group_padded,
        .padded = rows->shard->columns,
    };
    if (!weight_row_finite(tensor->type, data, tensor->columns))
        return fail(error, PERIDOT_ERROR_FORMAT,
                    "%s: tensor %s has a NaN or an infinity in row %u: the file is damaged, fetch "
                    "it again",
                    checkpoint_tensor_file(checkpoint, tensor), tensor->name, source);
    if (!weight_row_write(&shape, data, target, scratch))
        return fail(error, PERIDOT_ERROR_UNSUPPORTED,
                    "%s: tensor %s has a weight in row %u that is too large for float16: use "
                    "--weights auto",
                    checkpoint_tensor_file(checkpoint, tensor), tensor->name, source);
    return PERIDOT_OK;
}

/* ---- One matrix ---- */

/* The type that a source has on the device. */
static enum weight_type choose_type(const struct upload *upload, const struct assembly *assembly,
                                    const struct checkpoint_tensor *source) {
    enum weight_type type = source->type;
    if (upload->params->weights != PERIDOT_WEIGHTS_FILE)
        type = weight_row_type((enum weight_type)(upload->params->weights - 1), assembly->is_table,
                               source->columns);
    bool padded_within = assembly->column_group != assembly->column_group_padded &&
                         assembly->column_group != source->columns;
    if (padded_within && type == source->type && weight_type_info(type)->block > 1)
        return WEIGHT_F32; /* the file's blocks do not fall on those of padded rows */
    return type;
}

/* Types for all sources: rows of gate and up alternate, so they have one type. */
static void choose_types(const struct upload *upload, const struct assembly *assembly,
                         enum weight_type types[SOURCES_MAX]) {
    bool differ = false;
    for (int i = 0; i < SOURCES_MAX && assembly->sources[i]; i++) {
        types[i] = choose_type(upload, assembly, assembly->sources[i]);
        differ |= types[i] != types[0];
    }
    for (int i = 0; i < SOURCES_MAX && differ && assembly->order == ROWS_GATE_UP; i++)
        types[i] = WEIGHT_F32; /* the only type that holds both exactly */
}

static struct shard *add_shard(struct weight *weight) {
    struct shard *shards =
        realloc(weight->shards, (weight->shard_count + 1) * sizeof *weight->shards);
    if (!shards)
        return NULL;
    weight->shards = shards;
    return &shards[weight->shard_count++];
}

/* Shards for `rows` more rows of a type. */
static peridot_result create_shards(struct upload *upload, const struct assembly *assembly,
                                    enum weight_type type, uint32_t rows, peridot_error *error) {
    struct weight *weight = assembly->weight;
    const struct weight_type_info *info = weight_type_info(type);
    uint32_t columns = device_row_columns(type, weight->columns / assembly->column_group *
                                                    assembly->column_group_padded);
    struct shard shape = {.type = type,
                          .columns = columns,
                          .stride = device_row_quads(type, columns),
                          .steps = columns / (info->block == 1 ? 8 : 32)};
    uint64_t row_bytes = (uint64_t)shape.stride * 16;
    uint32_t most = weight_piece_rows(upload->model, upload->params, row_bytes);
    if (most == 0)
        return fail(error, PERIDOT_ERROR_DEVICE_MEMORY,
                    "one row of %s has %llu bytes, more than the device allocates at once",
                    assembly->name, (unsigned long long)row_bytes);
    peridot_result result = PERIDOT_OK;
    for (uint32_t begin = 0; begin < rows && !result; begin += most) {
        struct shard *shard = add_shard(weight);
        if (!shard)
            return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory while loading %s",
                        assembly->name);
        *shard = shape;
        shard->row_begin = weight->rows + begin;
        shard->row_count = rows - begin < most ? rows - begin : most;
        result = arena_buffer(upload->model->arena, shard->row_count * row_bytes, assembly->name,
                              &shard->buffer, error);
    }
    uint64_t blocks = (weight->columns + info->block - 1) / info->block;
    weight->rows += rows;
    weight->ideal_bytes += rows * blocks * info->block_bytes;
    return result;
}

static peridot_result fill_shard(struct upload *upload, const struct assembly *assembly,
                                 const struct shard *shard, peridot_error *error) {
    uint64_t row_bytes = (uint64_t)shard->stride * 16;
    uint32_t at_once = (uint32_t)(upload->staging.slot_bytes / row_bytes), source;
    const struct weight_row shape = {
        .to = shard->type, .columns = assembly->weight->columns, .padded = shard->columns};
    const struct shard_rows rows = {upload, assembly, shard, weight_row_scratch(&shape)};
    const struct row_threads work = {
        .make = write_row,
        .user = &rows,
        .row_bytes = row_bytes,
        .scratch_bytes = rows.convert_bytes + largest_row(assembly),
        .threads = upload->model->device->engine->threads,
        .doing = "loading",
        .object = assembly->name,
    };
    uint64_t file_row =
        file_row_bytes(source_row(upload->model, assembly, shard->row_begin, &source));
    peridot_result result = PERIDOT_OK;
    for (uint32_t begin = 0; begin < shard->row_count && !result; begin += at_once) {
        uint32_t count = shard->row_count - begin < at_once ? shard->row_count - begin : at_once;
        void *memory = NULL;
        result = staging_next(&upload->staging, &memory, error);
        if (!result)
            result = row_threads_run(&work, begin, count, memory, error);
        if (!result)
            result = staging_send(&upload->staging, shard->buffer, begin * row_bytes,
                                  count * row_bytes, error);
        if (!result)
            result = report(upload, count * file_row, error);
    }
    return result;
}

static peridot_result upload_matrix(struct upload *upload, struct assembly assembly,
                                    peridot_error *error) {
    struct weight *weight = assembly.weight;
    enum weight_type types[SOURCES_MAX];
    weight->columns = assembly.sources[0]->columns;
    if (!assembly.column_group)
        assembly.column_group = assembly.column_group_padded = weight->columns;
    choose_types(upload, &assembly, types);
    peridot_result result = PERIDOT_OK;
    for (int i = 0, next; i < SOURCES_MAX && assembly.sources[i] && !result; i = next) {
        uint32_t rows = 0;
        for (next = i; next < SOURCES_MAX && assembly.sources[next] && types[next] == types[i];)
            rows += assembly.sources[next++]->rows;
        result = create_shards(upload, &assembly, types[i], rows, error);
    }
    for (uint32_t i = 0; i < weight->shard_count && !result && !upload->planned; i++)
        result = fill_shard(upload, &assembly, &weight->shards[i], error);
    return result;
}

/* ---- Norms and the RoPE table ---- */

/* Sends `count` floats to a new buffer. */
static peridot_result upload_floats(struct upload *upload, const float *values, uint64_t count,
                                    const char *name, const struct buffer **buffer,
                                    peridot_error *error) {
    peridot_result result = arena_buffer(upload->model->arena, count * 4, name, buffer, error);
    uint64_t at_once = upload->staging.slot_bytes / 4;
    for (uint64_t begin = 0; begin < count && !result && !upload->planned; begin += at_once) {
        uint64_t part = count - begin < at_once ? count - begin : at_once;
        void *memory = NULL;
        result = staging_next(&upload->staging, &memory, error);
        if (result)
            break;
        memcpy(memory, values + begin, part * 4);
        result = staging_send(&upload->staging, *buffer, begin * 4, part * 4, error);
    }
    return result;
}

static peridot_result upload_norm(struct upload *upload, const struct checkpoint_tensor *tensor,
                                  const struct buffer **buffer, peridot_error *error) {
    if (upload->planned)
        return upload_floats(upload, NULL, upload->model->d_padded, "norm", buffer, error);
    float *values = calloc(upload->model->d_padded, sizeof *values);
    if (!values)
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory while loading %s",
                    tensor->name);
    peridot_result result = checkpoint_read_norm(upload->checkpoint, tensor, values, error);
    if (!result)
        result = upload_floats(upload, values, upload->model->d_padded, "norm", buffer, error);
    free(values);
    return result;
}

/* Angles are float32 products of float32 frequencies, as in training; only cos and sin are better.
 */
static peridot_result upload_rope(struct upload *upload, peridot_error *error) {
    const struct model_config *config = &upload->model->config;
    uint32_t pairs = config->head_dim / 2;
    uint64_t count = (uint64_t)config->context * pairs * 2;
    if (upload->planned)
        return upload_floats(upload, NULL, count, "rope", &upload->model->rope, error);
    float *values = malloc(count * sizeof *values);
    if (!values)
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory for the RoPE table");
    for (uint32_t pair = 0; pair < pairs; pair++) {
        float exponent = (float)(2 * pair) / (float)config->head_dim;
        float frequency = 1.0f / (float)pow(config->rope_theta, exponent);
        for (uint32_t position = 0; position < config->context; position++) {
            float angle = (float)position * frequency;
            float *entry = values + ((uint64_t)position * pairs + pair) * 2;
            entry[0] = (float)cos((double)angle);
            entry[1] = (float)sin((double)angle);
        }
    }
    peridot_result result =
        upload_floats(upload, values, count, "rope", &upload->model->rope, error);
    free(values);
    return result;
}

/* ---- All of it ---- */

static peridot_result upload_layer(struct upload *upload, const struct checkpoint *checkpoint,
                                   uint32_t index, peridot_error *error) {
    struct peridot_model *model = upload->model;
    struct layer *layer = &model->layers[index];
#define TENSOR(role) checkpoint_tensor(checkpoint, TENSOR_##role, model->first_layer + index)
    struct assembly matrices[] = {
        {.weight = &layer->qkv,
         .name = "qkv",
         .sources = {TENSOR(QUERY), TENSOR(KEY), TENSOR(VALUE)},
         .order = ROWS_QKV},
        {.weight = &layer->output,
         .name = "attention output",
         .sources = {TENSOR(OUTPUT)},
         .column_group = model->config.head_dim,
         .column_group_padded = model->head_dim_padded},
        {.weight = &layer->gate_up,
         .name = "gate and up",
         .sources = {TENSOR(GATE), TENSOR(UP)},
         .order = ROWS_GATE_UP},
        {.weight = &layer->down, .name = "down", .sources = {TENSOR(DOWN)}},
    };
    peridot_result result = upload_norm(upload, TENSOR(INPUT_NORM), &layer->input_norm, error);
    if (!result)
        result =
            upload_norm(upload, TENSOR(POST_ATTENTION_NORM), &layer->post_attention_norm, error);
#undef TENSOR
    for (size_t i = 0; i < sizeof matrices / sizeof *matrices && !result; i++)
        result = upload_matrix(upload, matrices[i], error);
    return result;
}

/* What only home has: the final norm, the embedding, and the head if it is another matrix. */
static peridot_result upload_ends(struct upload *upload, const struct checkpoint *checkpoint,
                                  peridot_error *error) {
    struct peridot_model *model = upload->model;
    const struct checkpoint_tensor *head = model->own_head;
    struct assembly matrices[] = {
        {.weight = &model->embedding,
         .name = "embedding",
         .sources = {checkpoint_tensor(checkpoint, TENSOR_EMBEDDING, 0)},
         .is_table = true},
        {.weight = &model->head, .name = "head", .sources = {head}, .is_table = true},
    };
    peridot_result result = upload_norm(upload, checkpoint_tensor(checkpoint, TENSOR_FINAL_NORM, 0),
                                        &model->final_norm, error);
    if (!result)
        result = upload_matrix(upload, matrices[0], error);
    if (!result && head)
        result = upload_matrix(upload, matrices[1], error);
    return result;
}

static uint64_t file_bytes(const struct checkpoint *checkpoint) {
    uint64_t bytes = 0;
    for (int role = 0; role < TENSOR_ROLE_COUNT; role++) {
        uint32_t count = role < TENSOR_INPUT_NORM ? 1 : checkpoint_config(checkpoint)->layers;
        for (uint32_t layer = 0; layer < count; layer++) {
            const struct checkpoint_tensor *tensor = checkpoint_tensor(checkpoint, role, layer);
            bytes += tensor ? tensor->size : 0; /* layers may differ in types */
        }
    }
    return bytes;
}

peridot_result upload_weights(struct peridot_model *model, const struct checkpoint *checkpoint,
                              const peridot_model_params *params, uint64_t *done,
                              peridot_error *error) {
    struct upload upload = {.model = model,
                            .checkpoint = checkpoint,
                            .params = params,
                            .planned = arena_is_plan(model->arena),
                            .done = done,
                            .all = file_bytes(checkpoint)};
    struct device *device = model->device->engine;
    model->layers = calloc(model->layer_count ? model->layer_count : 1, sizeof *model->layers);
    if (!model->layers)
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory while loading the model");
    peridot_result result = PERIDOT_OK;
    if (!upload.planned)
        result = staging_create(device, STAGING_SLOT_BYTES, &upload.staging, error);
    if (!result)
        result = upload_rope(&upload, error);
    if (!result && model->is_home)
        result = upload_ends(&upload, checkpoint, error);
    for (uint32_t i = 0; i < model->layer_count && !result; i++)
        result = upload_layer(&upload, checkpoint, i, error);
    if (!result && !upload.planned)
        result = staging_finish(&upload.staging, error);
    staging_destroy(&upload.staging);
    return result;
}
