#include "upload.h"
#include "abi.h"
#include "half.h"
#include "platform.h"
#include "staging.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A matrix on the device is made of up to three matrices of the file, row by row. */
struct assembly {
    struct weight *weight;
    const char *name;
    const struct checkpoint_tensor *sources[3];
    enum { ROWS_AS_THEY_ARE, ROWS_QKV, ROWS_GATE_UP } order;
    uint32_t column_group, column_group_padded; /* columns are padded group by group */
};

struct upload {
    struct peridot_model *model;
    const struct checkpoint *checkpoint;
    const peridot_model_params *params;
    bool planned; /* the model's arena only counts: nothing is read or sent */
    struct staging staging;
    uint64_t done, all; /* bytes of the file */
};

static const uint32_t element_size[] = {[WEIGHT_F32] = 4, [WEIGHT_BF16] = 2, [WEIGHT_F16] = 2};

uint64_t weight_bytes(const struct weight *weight) {
    return (uint64_t)weight->rows * weight->stride * 16;
}

static peridot_result report(struct upload *upload, uint64_t bytes, peridot_error *error) {
    upload->done += bytes;
    const peridot_model_params *params = upload->params;
    peridot_progress progress = {"uploading", upload->done, upload->all};
    if (params->progress && !params->progress(&progress, params->progress_user))
        return fail(error, PERIDOT_ERROR_CANCELLED, "loading was cancelled");
    return PERIDOT_OK;
}

/* ---- One row ---- */

/* Whether any element is NaN or infinite: an exponent of all ones. */
static bool all_finite(enum tensor_type type, const uint8_t *data, size_t count) {
    uint32_t bad = 0;
    if (type == TENSOR_F32) {
        for (size_t i = 0; i < count; i++) {
            uint32_t bits;
            memcpy(&bits, data + 4 * i, 4);
            bad |= (bits & 0x7f800000) == 0x7f800000;
        }
    } else {
        uint16_t mask = type == TENSOR_BF16 ? 0x7f80 : 0x7c00;
        for (size_t i = 0; i < count; i++) {
            uint16_t bits;
            memcpy(&bits, data + 2 * i, 2);
            bad |= (bits & mask) == mask;
        }
    }
    return !bad;
}

static float read_element(enum tensor_type type, const uint8_t *data, size_t index) {
    uint16_t bits;
    float value;
    if (type == TENSOR_F32) {
        memcpy(&value, data + 4 * index, 4);
        return value;
    }
    memcpy(&bits, data + 2 * index, 2);
    return type == TENSOR_BF16 ? bfloat_to_float(bits) : half_to_float(bits);
}

/* `count` elements to the device's type; false: one does not fit in a float16. */
static bool convert(enum tensor_type from, const uint8_t *source, uint32_t to, uint8_t *target,
                    size_t count) {
    if ((uint32_t)from == to) {
        memcpy(target, source, count * element_size[to]);
        return true;
    }
    for (size_t i = 0; i < count; i++) {
        float value = read_element(from, source, i);
        uint16_t bits = to == WEIGHT_BF16 ? bfloat_from_float(value) : half_from_float(value);
        if (to == WEIGHT_F32)
            memcpy(target + 4 * i, &value, 4);
        else
            memcpy(target + 2 * i, &bits, 2);
        if (to == WEIGHT_F16 && (bits & 0x7c00) == 0x7c00)
            return false;
    }
    return true;
}

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

static peridot_result write_row(const struct upload *upload, const struct assembly *assembly,
                                uint32_t row, uint8_t *target, peridot_error *error) {
    uint32_t source = 0;
    const struct checkpoint_tensor *tensor = source_row(upload->model, assembly, row, &source);
    size_t from = tensor_type_size(tensor->type), to = element_size[assembly->weight->type];
    const uint8_t *data = tensor->data + (size_t)source * tensor->columns * from;
    if (!all_finite(tensor->type, data, tensor->columns))
        return fail(error, PERIDOT_ERROR_FORMAT,
                    "%s: tensor %s has a NaN or an infinity in row %u: the file is damaged, fetch "
                    "it again",
                    checkpoint_tensor_file(upload->checkpoint, tensor), tensor->name, source);
    memset(target, 0, (size_t)assembly->weight->stride * 16);
    for (uint32_t column = 0; column < tensor->columns; column += assembly->column_group) {
        size_t place = (size_t)(column / assembly->column_group) * assembly->column_group_padded;
        if (!convert(tensor->type, data + column * from, assembly->weight->type,
                     target + place * to, assembly->column_group))
            return fail(error, PERIDOT_ERROR_UNSUPPORTED,
                        "%s: tensor %s has a weight in row %u that is too large for float16: use "
                        "--weights auto",
                        checkpoint_tensor_file(upload->checkpoint, tensor), tensor->name, source);
    }
    return PERIDOT_OK;
}

/* ---- One matrix ---- */

static uint32_t choose_type(const struct assembly *assembly, peridot_weights wanted) {
    if (wanted == PERIDOT_WEIGHTS_F32)
        return WEIGHT_F32;
    if (wanted != PERIDOT_WEIGHTS_AUTO)
        return wanted == PERIDOT_WEIGHTS_BF16 ? WEIGHT_BF16 : WEIGHT_F16;
    enum tensor_type type = assembly->sources[0]->type;
    for (int i = 1; i < 3 && assembly->sources[i]; i++)
        if (assembly->sources[i]->type != type)
            return WEIGHT_F32; /* the only type that holds both exactly */
    return (uint32_t)type;
}

static peridot_result create_shards(struct upload *upload, const struct assembly *assembly,
                                    peridot_error *error) {
    struct weight *weight = assembly->weight;
    uint64_t row_bytes = (uint64_t)weight->stride * 16;
    uint64_t most = weight_piece_rows(upload->model, upload->params, row_bytes);
    if (most == 0)
        return fail(error, PERIDOT_ERROR_DEVICE_MEMORY,
                    "one row of %s has %llu bytes, more than the device allocates at once",
                    assembly->name, (unsigned long long)row_bytes);
    uint32_t count = (uint32_t)((weight->rows + most - 1) / most);
    weight->shards = calloc(count, sizeof *weight->shards);
    if (!weight->shards)
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory while loading %s",
                    assembly->name);
    peridot_result result = PERIDOT_OK;
    for (uint32_t begin = 0; begin < weight->rows && !result; begin += (uint32_t)most) {
        struct shard *shard = &weight->shards[weight->shard_count++];
        uint64_t rows = weight->rows - begin < most ? weight->rows - begin : most;
        *shard = (struct shard){NULL, begin, (uint32_t)rows};
        result = arena_buffer(upload->model->arena, rows * row_bytes, assembly->name,
                              &shard->buffer, error);
    }
    return result;
}

static peridot_result fill_shard(struct upload *upload, const struct assembly *assembly,
                                 const struct shard *shard, peridot_error *error) {
    uint64_t row_bytes = (uint64_t)assembly->weight->stride * 16;
    const struct checkpoint_tensor *source = assembly->sources[0];
    uint64_t file_row = (uint64_t)source->columns * element_size[source->type];
    uint32_t at_once = (uint32_t)(upload->staging.slot_bytes / row_bytes);
    peridot_result result = PERIDOT_OK;
    for (uint32_t begin = 0; begin < shard->row_count && !result; begin += at_once) {
        uint32_t count = shard->row_count - begin < at_once ? shard->row_count - begin : at_once;
        void *memory = NULL;
        result = staging_next(&upload->staging, &memory, error);
        for (uint32_t i = 0; i < count && !result; i++)
            result = write_row(upload, assembly, shard->row_begin + begin + i,
                               (uint8_t *)memory + i * row_bytes, error);
        if (!result)
            result = staging_send(&upload->staging, shard->buffer, begin * row_bytes,
                                  count * row_bytes, error);
        if (!result)
            result = report(upload, count * file_row, error);
    }
    return result;
}

static peridot_result upload_matrix(struct upload *upload, const struct checkpoint *checkpoint,
                                    struct assembly assembly, peridot_error *error) {
    const struct checkpoint_tensor *first = assembly.sources[0];
    struct weight *weight = assembly.weight;
    if (!assembly.column_group) {
        assembly.column_group = first->columns;
        assembly.column_group_padded = round_up(first->columns, ROW_ALIGNMENT);
    }
    weight->type = choose_type(&assembly, upload->params->weights);
    weight->columns = first->columns / assembly.column_group * assembly.column_group_padded;
    weight->stride = weight->columns * element_size[weight->type] / 16;
    for (int i = 0; i < 3 && assembly.sources[i]; i++)
        weight->rows += assembly.sources[i]->rows;
    weight->ideal_bytes = (uint64_t)weight->rows * first->columns * element_size[weight->type];
    peridot_result result = create_shards(upload, &assembly, error);
    for (uint32_t i = 0; i < weight->shard_count && !result && !upload->planned; i++)
        result = fill_shard(upload, &assembly, &weight->shards[i], error);
    for (int i = 0; i < 3 && assembly.sources[i] && !result; i++)
        checkpoint_release_pages(checkpoint, assembly.sources[i], 0, assembly.sources[i]->size);
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
    if (!all_finite(tensor->type, tensor->data, tensor->columns))
        return fail(error, PERIDOT_ERROR_FORMAT,
                    "%s: tensor %s has a NaN or an infinity: the file is damaged, fetch it again",
                    checkpoint_tensor_file(upload->checkpoint, tensor), tensor->name);
    float *values = calloc(upload->model->d_padded, sizeof *values);
    if (!values)
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory while loading %s",
                    tensor->name);
    for (uint32_t i = 0; i < tensor->columns; i++)
        values[i] = 1.0f + read_element(tensor->type, tensor->data, i);
    peridot_result result =
        upload_floats(upload, values, upload->model->d_padded, "norm", buffer, error);
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
#define TENSOR(role) checkpoint_tensor(checkpoint, TENSOR_##role, index)
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
        result = upload_matrix(upload, checkpoint, matrices[i], error);
    return result;
}

static uint64_t file_bytes(const struct checkpoint *checkpoint) {
    uint64_t bytes = 0;
    for (int role = 0; role < TENSOR_ROLE_COUNT; role++) {
        uint64_t count = role < TENSOR_INPUT_NORM ? 1 : checkpoint_config(checkpoint)->layers;
        bytes += count * checkpoint_tensor(checkpoint, role, 0)->size;
    }
    return bytes;
}

peridot_result upload_weights(struct peridot_model *model, const struct checkpoint *checkpoint,
                              const peridot_model_params *params, peridot_error *error) {
    struct upload upload = {.model = model,
                            .checkpoint = checkpoint,
                            .params = params,
                            .planned = arena_is_plan(model->arena),
                            .all = file_bytes(checkpoint)};
    struct device *device = model->device->engine;
    model->layers = calloc(model->config.layers, sizeof *model->layers);
    if (!model->layers)
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory while loading the model");
    peridot_result result = PERIDOT_OK;
    if (!upload.planned)
        result = staging_create(device, STAGING_SLOT_BYTES, &upload.staging, error);
    if (!result)
        result = upload_rope(&upload, error);
    if (!result)
        result = upload_norm(&upload, checkpoint_tensor(checkpoint, TENSOR_FINAL_NORM, 0),
                             &model->final_norm, error);
    if (!result)
        result = upload_matrix(
            &upload, checkpoint,
            (struct assembly){.weight = &model->embedding,
                              .name = "embedding",
                              .sources = {checkpoint_tensor(checkpoint, TENSOR_EMBEDDING, 0)}},
            error);
    for (uint32_t i = 0; i < model->config.layers && !result; i++)
        result = upload_layer(&upload, checkpoint, i, error);
    if (!result && !upload.planned)
        result = staging_finish(&upload.staging, error);
    staging_destroy(&upload.staging);
    return result;
}
