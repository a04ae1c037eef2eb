#include "upload.h"
#include "abi.h"
#include "device_rows.h"
#include "platform.h"
#include "row_threads.h"
#include "weight_rows.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SOURCES_MAX 3
#define STEP_SECONDS 1e-4 /* that a step takes, in however little time it is to be done */

/* A matrix on the device is made of up to three matrices of the file, row by row. */
struct assembly {
    struct weight *weight;
    const char *name;
    const struct checkpoint_tensor *sources[SOURCES_MAX];
    enum { ROWS_AS_THEY_ARE, ROWS_QKV, ROWS_GATE_UP } order;
    uint32_t column_group, column_group_padded; /* columns are padded group by group */
    bool is_table;                              /* the embedding or the head */
};

/* What a part is made of, one after the other. */
struct item {
    enum { ITEM_ROPE, ITEM_NORM, ITEM_MATRIX } kind;
    const struct buffer **buffer; /* of the RoPE table or a norm */
    const struct checkpoint_tensor *norm;
    struct assembly assembly; /* of a matrix */
};

/* Rows of one buffer, in the making. */
struct rows {
    struct row_threads work;
    const struct buffer *buffer;
    uint32_t count;
};

uint64_t weight_bytes(const struct weight *weight) {
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < weight->shard_count; i++)
        bytes += (uint64_t)weight->shards[i].row_count * weight->shards[i].stride * 16;
    return bytes;
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

/* What makes a row of any kind. */
struct row_source {
    const struct upload *upload;
    const struct assembly *assembly; /* of a matrix */
    const struct shard *shard;
    const struct checkpoint_tensor *norm;
    size_t convert_bytes; /* of scratch memory; a row of the file comes behind them */
};

static peridot_result write_row(const void *user, uint32_t row, uint8_t *target, void *scratch,
                                peridot_error *error) {
    const struct row_source *from = user;
    const struct assembly *assembly = from->assembly;
    const struct checkpoint *checkpoint = from->upload->checkpoint;
    uint32_t source = 0;
    const struct checkpoint_tensor *tensor =
        source_row(from->upload->model, assembly, from->shard->row_begin + row, &source);
    const uint8_t *data = NULL;
    uint64_t bytes = file_row_bytes(tensor);
    peridot_result result = checkpoint_read(checkpoint, tensor, source * bytes, bytes,
                                            (uint8_t *)scratch + from->convert_bytes, &data, error);
    if (result)
        return result;
    const struct weight_row shape = {
        .from = tensor->type,
        .to = from->shard->type,
        .columns = tensor->columns,
        .group = assembly->column_group,
        .group_padded = assembly->column_group_padded,
        .padded = from->shard->columns,
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

/* A matrix's shards. */
static peridot_result place_matrix(struct upload *upload, const struct assembly *assembly,
                                   peridot_error *error) {
    struct weight *weight = assembly->weight;
    enum weight_type types[SOURCES_MAX];
    weight->columns = assembly->sources[0]->columns;
    choose_types(upload, assembly, types);
    peridot_result result = PERIDOT_OK;
    for (int i = 0, next; i < SOURCES_MAX && assembly->sources[i] && !result; i = next) {
        uint32_t rows = 0;
        for (next = i; next < SOURCES_MAX && assembly->sources[next] && types[next] == types[i];)
            rows += assembly->sources[next++]->rows;
        result = create_shards(upload, assembly, types[i], rows, error);
    }
    return result;
}

/* ---- Norms and the RoPE table ---- */

static peridot_result write_norm(const void *user, uint32_t row, uint8_t *target, void *scratch,
                                 peridot_error *error) {
    const struct row_source *from = user;
    const struct upload *upload = from->upload;
    const struct checkpoint_tensor *tensor = from->norm;
    (void)row;
    float *values = scratch;
    memset(values, 0, upload->model->d_padded * sizeof *values);
    peridot_result result = checkpoint_read_norm(upload->checkpoint, tensor, values, error);
    if (result)
        return result;
    memcpy(target, values, upload->model->d_padded * sizeof *values);
    return PERIDOT_OK;
}

/* Angles are float32 products of float32 frequencies, as in training; only cos and sin are better.
 */
static bool make_frequencies(struct upload *upload) {
    const struct model_config *config = &upload->model->config;
    uint32_t pairs = config->head_dim / 2;
    upload->frequencies = malloc(pairs * sizeof *upload->frequencies);
    for (uint32_t pair = 0; upload->frequencies && pair < pairs; pair++) {
        float exponent = (float)(2 * pair) / (float)config->head_dim;
        upload->frequencies[pair] = 1.0f / (float)pow(config->rope_theta, exponent);
    }
    return upload->frequencies != NULL;
}

static peridot_result write_angles(const void *user, uint32_t position, uint8_t *target,
                                   void *scratch, peridot_error *error) {
    const struct upload *upload = ((const struct row_source *)user)->upload;
    float *entry = (float *)target;
    (void)scratch;
    (void)error;
    for (uint32_t pair = 0; pair < upload->model->config.head_dim / 2; pair++) {
        float angle = (float)position * upload->frequencies[pair];
        *entry++ = (float)cos((double)angle);
        *entry++ = (float)sin((double)angle);
    }
    return PERIDOT_OK;
}

/* ---- Items ---- */

#define ITEMS_OF_LAYER 6

/* Of the ends, which only home has: the final norm, the embedding, and the head if it is another
 * matrix. */
static uint32_t count_ends(const struct peridot_model *model) {
    return !model->is_home ? 0 : model->own_head ? 3 : 2;
}

static uint32_t count_items(const struct peridot_model *model) {
    return 1 + count_ends(model) + ITEMS_OF_LAYER * model->layer_count;
}

static struct item end_item(const struct upload *upload, uint32_t index) {
    struct peridot_model *model = upload->model;
    const struct checkpoint *checkpoint = upload->checkpoint;
    if (index == 0)
        return (struct item){.kind = ITEM_NORM,
                             .buffer = &model->final_norm,
                             .norm = checkpoint_tensor(checkpoint, TENSOR_FINAL_NORM, 0)};
    if (index == 1)
        return (struct item){
            .kind = ITEM_MATRIX,
            .assembly = {.weight = &model->embedding,
                         .name = "embedding",
                         .sources = {checkpoint_tensor(checkpoint, TENSOR_EMBEDDING, 0)},
                         .is_table = true}};
    return (struct item){.kind = ITEM_MATRIX,
                         .assembly = {.weight = &model->head,
                                      .name = "head",
                                      .sources = {model->own_head},
                                      .is_table = true}};
}

static struct item layer_item(const struct upload *upload, uint32_t index, uint32_t which) {
    struct peridot_model *model = upload->model;
    struct layer *layer = &model->layers[index];
#define TENSOR(role)                                                                               \
    checkpoint_tensor(upload->checkpoint, TENSOR_##role, model->first_layer + index)
    switch (which) {
    case 0:
        return (struct item){
            .kind = ITEM_NORM, .buffer = &layer->input_norm, .norm = TENSOR(INPUT_NORM)};
    case 1:
        return (struct item){.kind = ITEM_NORM,
                             .buffer = &layer->post_attention_norm,
                             .norm = TENSOR(POST_ATTENTION_NORM)};
    case 2:
        return (struct item){.kind = ITEM_MATRIX,
                             .assembly = {.weight = &layer->qkv,
                                          .name = "qkv",
                                          .sources = {TENSOR(QUERY), TENSOR(KEY), TENSOR(VALUE)},
                                          .order = ROWS_QKV}};
    case 3:
        return (struct item){.kind = ITEM_MATRIX,
                             .assembly = {.weight = &layer->output,
                                          .name = "attention output",
                                          .sources = {TENSOR(OUTPUT)},
                                          .column_group = model->config.head_dim,
                                          .column_group_padded = model->head_dim_padded}};
    case 4:
        return (struct item){.kind = ITEM_MATRIX,
                             .assembly = {.weight = &layer->gate_up,
                                          .name = "gate and up",
                                          .sources = {TENSOR(GATE), TENSOR(UP)},
                                          .order = ROWS_GATE_UP}};
    default:
        return (struct item){
            .kind = ITEM_MATRIX,
            .assembly = {.weight = &layer->down, .name = "down", .sources = {TENSOR(DOWN)}}};
    }
#undef TENSOR
}

static struct item get_item(const struct upload *upload) {
    uint32_t ends = count_ends(upload->model), index = upload->item;
    if (index == 0)
        return (struct item){.kind = ITEM_ROPE, .buffer = &upload->model->rope};
    struct item item = index <= ends ? end_item(upload, index - 1)
                                     : layer_item(upload, (index - 1 - ends) / ITEMS_OF_LAYER,
                                                  (index - 1 - ends) % ITEMS_OF_LAYER);
    struct assembly *assembly = &item.assembly;
    if (item.kind == ITEM_MATRIX && !assembly->column_group)
        assembly->column_group = assembly->column_group_padded = assembly->sources[0]->columns;
    return item;
}

static peridot_result place_item(struct upload *upload, const struct item *item,
                                 peridot_error *error) {
    const struct peridot_model *model = upload->model;
    const struct model_config *config = &model->config;
    struct arena *arena = model->arena;
    switch (item->kind) {
    case ITEM_ROPE:
        return arena_buffer(arena, (uint64_t)config->context * (config->head_dim / 2) * 8, "rope",
                            item->buffer, error);
    case ITEM_NORM:
        return arena_buffer(arena, (uint64_t)model->d_padded * 4, "norm", item->buffer, error);
    default:
        return place_matrix(upload, &item->assembly, error);
    }
}

/* ---- Steps ---- */

/* `from` is read while the rows are made. */
static struct rows item_rows(const struct upload *upload, const struct item *item,
                             const struct row_source *from) {
    const struct model_config *config = &upload->model->config;
    const size_t norm_bytes = (size_t)upload->model->d_padded * 4;
    struct rows rows = {.count = 1};
    if (item->kind == ITEM_ROPE) {
        rows.work = (struct row_threads){.make = write_angles,
                                         .row_bytes = (size_t)config->head_dim / 2 * 8,
                                         .scratch_bytes = 1,
                                         .object = "the RoPE table"};
        rows.count = config->context;
    } else if (item->kind == ITEM_NORM) {
        rows.work = (struct row_threads){.make = write_norm,
                                         .row_bytes = norm_bytes,
                                         .scratch_bytes = norm_bytes,
                                         .object = item->norm->name};
    } else {
        const struct shard *shard = from->shard;
        rows.work = (struct row_threads){.make = write_row,
                                         .row_bytes = (size_t)shard->stride * 16,
                                         .scratch_bytes =
                                             from->convert_bytes + largest_row(&item->assembly),
                                         .object = item->assembly.name};
        rows.count = shard->row_count;
    }
    rows.buffer = item->kind == ITEM_MATRIX ? from->shard->buffer : *item->buffer;
    rows.work.user = from;
    rows.work.doing = "loading";
    rows.work.threads = upload->model->device->engine->threads;
    return rows;
}

/* How many rows to make in `seconds`. */
static uint32_t piece_rows(const struct upload *upload, const struct rows *rows, uint64_t room,
                           double seconds) {
    uint64_t left = rows->count - upload->row, fit = room / rows->work.row_bytes;
    fit = fit < left ? fit : left;
    if (isinf(seconds))
        return (uint32_t)fit;
    uint64_t most = UPLOAD_PIECE / rows->work.row_bytes;
    most = most < fit ? most : fit;
    /* half of it: rows are not alike, and another piece may follow */
    double worth = seconds / 2 > STEP_SECONDS ? seconds / 2 : STEP_SECONDS;
    double expected = upload->row_seconds > 0 ? worth / upload->row_seconds : 1;
    if (expected < (double)most)
        most = expected < 1 ? 1 : (uint64_t)expected;
    return (uint32_t)(most ? most : 1);
}

/* Counts the file's bytes that rows of a matrix were made of. */
static void count_bytes(struct upload *upload, const struct row_source *from, uint32_t begin,
                        uint32_t count) {
    begin += from->shard->row_begin;
    for (uint32_t row = begin, source; row < begin + count; row++)
        upload->bytes += file_row_bytes(source_row(upload->model, from->assembly, row, &source));
}

static void leave_shard(struct upload *upload, const struct item *item) {
    upload->row = 0;
    upload->row_seconds = 0;
    upload->shard++;
    if (item->kind == ITEM_MATRIX && upload->shard < item->assembly.weight->shard_count)
        return;
    upload->bytes += item->kind == ITEM_NORM ? item->norm->size : 0;
    upload->shard = 0;
    upload->placed = false;
    upload->item++;
}

static peridot_result fill_rows(struct upload *upload, const struct item *item, double seconds,
                                peridot_error *error) {
    const bool is_matrix = item->kind == ITEM_MATRIX;
    struct row_source from = {.upload = upload,
                              .assembly = &item->assembly,
                              .shard =
                                  is_matrix ? &item->assembly.weight->shards[upload->shard] : NULL,
                              .norm = item->norm};
    if (is_matrix) {
        const struct weight_row shape = {.to = from.shard->type,
                                         .columns = item->assembly.weight->columns,
                                         .padded = from.shard->columns};
        from.convert_bytes = weight_row_scratch(&shape);
    }
    const struct rows rows = item_rows(upload, item, &from);
    const uint64_t row_bytes = rows.work.row_bytes;
    uint64_t room;
    void *memory;
    if (row_bytes > upload->staging.slot_bytes)
        return fail(error, PERIDOT_ERROR_UNSUPPORTED,
                    "one row of %s has %llu bytes: Peridot uploads rows of %llu at most",
                    rows.work.object, (unsigned long long)row_bytes,
                    (unsigned long long)upload->staging.slot_bytes);
    peridot_result result = staging_room(&upload->staging, row_bytes, &memory, &room, error);
    upload->waits = result == PERIDOT_NOT_READY;
    if (result)
        return upload->waits ? PERIDOT_OK : result;
    uint32_t begin = upload->row, count = piece_rows(upload, &rows, room, seconds);
    double start = platform_seconds();
    result = row_threads_run(&rows.work, begin, count, memory, error);
    upload->row_seconds = (platform_seconds() - start) / count;
    if (!result)
        result =
            staging_put(&upload->staging, rows.buffer, begin * row_bytes, count * row_bytes, error);
    if (result)
        return result;
    if (is_matrix)
        count_bytes(upload, &from, begin, count);
    upload->row += count;
    if (upload->row == rows.count)
        leave_shard(upload, item);
    return PERIDOT_OK;
}

peridot_result upload_step(struct upload *upload, double seconds, peridot_error *error) {
    upload->waits = false;
    if (upload->item == count_items(upload->model)) {
        upload->sent = true;
        return staging_flush(&upload->staging, error);
    }
    const struct item item = get_item(upload);
    if (upload->placed)
        return fill_rows(upload, &item, seconds, error);
    upload->placed = true;
    return place_item(upload, &item, error);
}

peridot_result upload_poll(struct upload *upload, bool *arrived, peridot_error *error) {
    struct lane *lane = &upload->staging.lane;
    *arrived = true;
    return lane->device ? lane_poll(lane, lane->submitted, arrived, error) : PERIDOT_OK;
}

peridot_result upload_wait(struct upload *upload, peridot_error *error) {
    return upload->sent ? staging_finish(&upload->staging, error)
                        : staging_wait(&upload->staging, error);
}

/* ---- Beginning and end ---- */

static peridot_result create_layers(struct peridot_model *model, peridot_error *error) {
    model->layers = calloc(model->layer_count ? model->layer_count : 1, sizeof *model->layers);
    if (!model->layers)
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory while loading the model");
    return PERIDOT_OK;
}

peridot_result upload_plan(struct peridot_model *model, const struct checkpoint *checkpoint,
                           const peridot_model_params *params, peridot_error *error) {
    struct upload plan = {.model = model, .checkpoint = checkpoint, .params = params};
    peridot_result result = create_layers(model, error);
    for (; plan.item < count_items(model) && !result; plan.item++) {
        const struct item item = get_item(&plan);
        result = place_item(&plan, &item, error);
    }
    return result;
}

peridot_result upload_begin(struct peridot_model *model, const struct checkpoint *checkpoint,
                            const peridot_model_params *params, struct upload *upload,
                            peridot_error *error) {
    *upload = (struct upload){.model = model, .checkpoint = checkpoint, .params = params};
    peridot_result result = create_layers(model, error);
    if (!result && !make_frequencies(upload))
        result = fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory for the RoPE table");
    if (!result)
        result = staging_create_transfer(model->device->engine, STAGING_SLOT_BYTES,
                                         &upload->staging, error);
    if (result)
        upload_end(upload);
    return result;
}

void upload_end(struct upload *upload) {
    staging_destroy(&upload->staging);
    free(upload->frequencies);
    *upload = (struct upload){0};
}

uint64_t upload_file_bytes(const struct checkpoint *checkpoint, bool with_head) {
    uint64_t bytes = 0;
    for (int role = 0; role < TENSOR_ROLE_COUNT; role++) {
        uint32_t count = role < TENSOR_INPUT_NORM ? 1 : checkpoint_config(checkpoint)->layers;
        for (uint32_t layer = 0; layer < count && (role != TENSOR_HEAD || with_head); layer++) {
            const struct checkpoint_tensor *tensor = checkpoint_tensor(checkpoint, role, layer);
            bytes += tensor ? tensor->size : 0; /* layers may differ in types */
        }
    }
    return bytes;
}
