/* A checkpoint to a GGUF file, row by row: a piece of a tensor is in memory at a time. */
#include "blocks.h"
#include "caller_struct.h"
#include "checkpoint.h"
#include "convert_metadata.h"
#include "gguf_output.h"
#include "peridot.h"
#include "platform.h"
#include "row_threads.h"
#include "weight_rows.h"

#include <stdlib.h>
#include <string.h>

#define PIECE_BYTES (8u << 20) /* converted and written at once, or one row */

struct part {
    const struct checkpoint_tensor *source;
    enum weight_type type;
    bool norm;
};

struct conversion {
    const struct checkpoint *checkpoint;
    const char *target;
    peridot_convert_params params;
    struct gguf_output output;
    struct part *parts;
    uint32_t part_count;
    uint8_t *memory;       /* a piece */
    uint64_t done;         /* bytes of the file's data */
    peridot_result result; /* of writing, where it is no failed write */
    peridot_error *error;
};

static peridot_result out_of_memory(const struct conversion *conversion, peridot_error *error) {
    return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory while writing %s",
                conversion->target);
}

static size_t row_bytes(enum weight_type type, uint32_t columns) {
    const struct weight_type_info *info = weight_type_info(type);
    return (size_t)columns / info->block * info->block_bytes;
}

/* ---- What is written ---- */

/* Rows that no block fits keep the two bytes that they have, or get bfloat16: any weight fits in
 * it, and it is finer than eight bits a block. */
static enum weight_type choose_type(peridot_weights weights, const struct checkpoint_tensor *source,
                                    bool is_table) {
    if (weights == PERIDOT_WEIGHTS_FILE || weights == PERIDOT_WEIGHTS_AUTO)
        return source->type;
    enum weight_type type =
        weight_row_type((enum weight_type)(weights - 1), is_table, source->columns);
    if (source->columns % weight_type_info(type)->block == 0)
        return type;
    return source->type == WEIGHT_F16 ? WEIGHT_F16 : WEIGHT_BF16;
}

static bool is_norm(enum tensor_role role) {
    return role == TENSOR_FINAL_NORM || role == TENSOR_INPUT_NORM ||
           role == TENSOR_POST_ATTENTION_NORM;
}

static bool is_table(enum tensor_role role) {
    return role == TENSOR_EMBEDDING || role == TENSOR_HEAD;
}

static peridot_result add_part(struct conversion *conversion, enum tensor_role role, uint32_t layer,
                               peridot_error *error) {
    const struct checkpoint_tensor *source = checkpoint_tensor(conversion->checkpoint, role, layer);
    if (role == TENSOR_HEAD) {
        peridot_result result = checkpoint_own_head(conversion->checkpoint, &source, error);
        if (result)
            return result;
    }
    if (!source)
        return PERIDOT_OK;
    char name[64];
    struct part part = {source, WEIGHT_F32, is_norm(role)};
    if (!part.norm)
        part.type = choose_type(conversion->params.weights, source, is_table(role));
    checkpoint_gguf_name(role, layer, name, sizeof name);
    gguf_output_tensor(&conversion->output, name, part.type, source->columns,
                       part.norm ? 0 : source->rows);
    conversion->parts[conversion->part_count++] = part;
    return PERIDOT_OK;
}

static peridot_result list_parts(struct conversion *conversion, peridot_error *error) {
    uint32_t layers = checkpoint_config(conversion->checkpoint)->layers;
    size_t room = TENSOR_INPUT_NORM + (size_t)layers * (TENSOR_ROLE_COUNT - TENSOR_INPUT_NORM);
    conversion->parts = calloc(room, sizeof *conversion->parts);
    if (!conversion->parts)
        return out_of_memory(conversion, error);
    peridot_result result = PERIDOT_OK;
    for (int role = 0; role < TENSOR_INPUT_NORM && !result; role++)
        result = add_part(conversion, (enum tensor_role)role, 0, error);
    for (uint32_t layer = 0; layer < layers && !result; layer++)
        for (int role = TENSOR_INPUT_NORM; role < TENSOR_ROLE_COUNT && !result; role++)
            result = add_part(conversion, (enum tensor_role)role, layer, error);
    return result;
}

/* The type that most elements have, tables aside as llama.cpp's names for mixes leave them; and
 * whether any tensor has blocks. */
static enum weight_type most_frequent(const struct conversion *conversion, bool *quantised) {
    uint64_t elements[WEIGHT_TYPE_COUNT] = {0};
    enum weight_type most = WEIGHT_F32;
    *quantised = false;
    for (uint32_t i = 0; i < conversion->part_count; i++) {
        const struct part *part = &conversion->parts[i];
        *quantised |= weight_type_info(part->type)->block > 1;
        if (!part->norm && i >= TENSOR_INPUT_NORM)
            elements[part->type] += (uint64_t)part->source->rows * part->source->columns;
    }
    for (int type = 0; type < WEIGHT_TYPE_COUNT; type++)
        if (elements[type] > elements[most])
            most = (enum weight_type)type;
    return most;
}

/* ---- What came out otherwise ---- */

static void tell(const struct conversion *conversion, const char *text) {
    if (conversion->params.message)
        conversion->params.message(text, conversion->params.message_user);
}

/* Once for each type that stands in for the one asked for. */
static void tell_types(const struct conversion *conversion) {
    peridot_weights weights = conversion->params.weights;
    if (weights == PERIDOT_WEIGHTS_FILE || weights == PERIDOT_WEIGHTS_AUTO)
        return;
    enum weight_type asked = (enum weight_type)(weights - 1);
    uint32_t counts[WEIGHT_TYPE_COUNT] = {0};
    for (uint32_t i = 0; i < conversion->part_count; i++) {
        const struct part *part = &conversion->parts[i];
        uint32_t block = weight_type_info(part->type)->block;
        bool table = !part->norm && i < TENSOR_INPUT_NORM;
        counts[part->type] += !part->norm && part->type != asked && (!table || block == 1);
    }
    for (int type = 0; type < WEIGHT_TYPE_COUNT; type++) {
        char text[256];
        uint32_t block = weight_type_info((enum weight_type)type)->block > 1
                             ? weight_type_info(asked)->block
                             : weight_type_info(WEIGHT_Q8_0)->block;
        snprintf(text, sizeof text,
                 "%u %s are written as %s, for the rows are no multiple of %u elements, the blocks "
                 "of GGUF's types",
                 counts[type], counts[type] == 1 ? "matrix" : "matrices",
                 weight_type_info((enum weight_type)type)->name, block);
        if (counts[type])
            tell(conversion, text);
    }
}

/* ---- Rows ---- */

struct part_rows {
    const struct conversion *conversion;
    const struct part *part;
    size_t convert_bytes; /* of scratch memory; a row of the file comes behind them */
};

static peridot_result convert_row(const void *user, uint32_t row, uint8_t *target, void *scratch,
                                  peridot_error *error) {
    const struct part_rows *rows = user;
    const struct checkpoint_tensor *source = rows->part->source;
    const uint8_t *data = NULL;
    size_t bytes = row_bytes(source->type, source->columns);
    peridot_result result =
        checkpoint_read(rows->conversion->checkpoint, source, (uint64_t)row * bytes, bytes,
                        (uint8_t *)scratch + rows->convert_bytes, &data, error);
    if (result)
        return result;
    const struct weight_row shape = {source->type,    rows->part->type, source->columns,
                                     source->columns, source->columns,  source->columns};
    if (!weight_row_finite(source->type, data, source->columns))
        return fail(error, PERIDOT_ERROR_FORMAT,
                    "%s: tensor %s has a NaN or an infinity in row %u: the file is damaged, fetch "
                    "it again",
                    checkpoint_tensor_file(rows->conversion->checkpoint, source), source->name,
                    row);
    if (weight_row_convert(&shape, data, target, scratch))
        return PERIDOT_OK;
    return fail(error, PERIDOT_ERROR_UNSUPPORTED,
                "%s: tensor %s has a weight in row %u that is too large for float16: use --weights "
                "bf16 or f32",
                checkpoint_tensor_file(rows->conversion->checkpoint, source), source->name, row);
}

/* `count` rows from `begin` to the piece in memory. */
static peridot_result convert_rows(const struct conversion *conversion, const struct part *part,
                                   uint32_t begin, uint32_t count, peridot_error *error) {
    uint32_t columns = part->source->columns;
    const struct weight_row shape = {.to = part->type, .columns = columns, .padded = columns};
    const struct part_rows rows = {conversion, part, weight_row_scratch(&shape)};
    const struct row_threads work = {
        .make = convert_row,
        .user = &rows,
        .row_bytes = row_bytes(part->type, columns),
        .scratch_bytes = rows.convert_bytes + row_bytes(part->source->type, columns),
        .threads = conversion->params.threads,
        .doing = "writing",
        .object = conversion->target,
    };
    return row_threads_run(&work, begin, count, conversion->memory, error);
}

/* GGUF's norms are 1 + weight, in float32. */
static peridot_result convert_norm(const struct conversion *conversion, const struct part *part,
                                   peridot_error *error) {
    const struct checkpoint_tensor *source = part->source;
    float *values = malloc(source->columns * sizeof *values);
    if (!values)
        return out_of_memory(conversion, error);
    peridot_result result = checkpoint_read_norm(conversion->checkpoint, source, values, error);
    if (!result)
        blocks_quantise(WEIGHT_F32, values, source->columns, conversion->memory);
    free(values);
    return result;
}

/* ---- The file ---- */

static peridot_result report(const struct conversion *conversion, peridot_error *error) {
    const peridot_convert_params *params = &conversion->params;
    peridot_progress progress = {"converting", conversion->done, conversion->output.data_size};
    if (params->progress && !params->progress(&progress, params->progress_user))
        return fail(error, PERIDOT_ERROR_CANCELLED,
                    "stopped before %s was whole: it is not written", conversion->target);
    return PERIDOT_OK;
}

static bool write_part(struct conversion *conversion, const struct part *part, FILE *stream) {
    const struct checkpoint_tensor *source = part->source;
    size_t bytes = row_bytes(part->type, source->columns);
    uint32_t at_once = bytes < PIECE_BYTES ? (uint32_t)(PIECE_BYTES / bytes) : 1;
    for (uint32_t begin = 0; begin < source->rows; begin += at_once) {
        uint32_t count = source->rows - begin < at_once ? source->rows - begin : at_once;
        conversion->result = part->norm
                                 ? convert_norm(conversion, part, conversion->error)
                                 : convert_rows(conversion, part, begin, count, conversion->error);
        if (conversion->result || fwrite(conversion->memory, bytes, count, stream) != count)
            return false;
        conversion->done += count * bytes;
        if (begin + count == source->rows) {
            conversion->done = gguf_output_padded(conversion->done);
            if (!gguf_output_padding((uint64_t)source->rows * bytes, stream))
                return false;
        }
        conversion->result = report(conversion, conversion->error);
        if (conversion->result)
            return false;
    }
    return true;
}

static bool write_file(FILE *stream, void *user) {
    struct conversion *conversion = user;
    if (!gguf_output_header(&conversion->output, stream))
        return false;
    for (uint32_t i = 0; i < conversion->part_count; i++)
        if (!write_part(conversion, &conversion->parts[i], stream))
            return false;
    return true;
}

static size_t largest_piece(const struct conversion *conversion) {
    size_t largest = PIECE_BYTES;
    for (uint32_t i = 0; i < conversion->part_count; i++) {
        size_t row = row_bytes(conversion->parts[i].type, conversion->parts[i].source->columns);
        largest = row > largest ? row : largest;
    }
    return largest;
}

static peridot_result write_target(struct conversion *conversion, peridot_error *error) {
    peridot_error told;
    conversion->memory = malloc(largest_piece(conversion));
    if (!conversion->memory || conversion->output.failed)
        return out_of_memory(conversion, error);
    conversion->error = error;
    peridot_result result =
        platform_replace_file(conversion->target, write_file, conversion, &told);
    if (conversion->result)
        return conversion->result;
    if (result == PERIDOT_ERROR_FILE)
        return fail(error, result, "%s; the file takes %.1f MiB", told.message,
                    (double)gguf_output_size(&conversion->output) / (1 << 20));
    return result ? fail(error, result, "%s", told.message) : PERIDOT_OK;
}

static peridot_result convert(struct conversion *conversion, peridot_error *error) {
    bool quantised, has_tokenizer = false;
    peridot_result result = list_parts(conversion, error);
    if (result)
        return result;
    enum weight_type most = most_frequent(conversion, &quantised);
    result = convert_metadata(conversion->checkpoint, most, quantised, &conversion->output,
                              &has_tokenizer, error);
    if (result)
        return result;
    result = write_target(conversion, error);
    if (result)
        return result;
    tell_types(conversion);
    if (!has_tokenizer)
        tell(conversion, "there is no tokenizer beside the model: the file is without one");
    return PERIDOT_OK;
}

static peridot_result settle_params(const peridot_convert_params *given,
                                    peridot_convert_params *params, peridot_error *error) {
    peridot_result result =
        caller_struct_read(params, sizeof *params, given, "peridot_convert_params", error);
    if (result)
        return result;
    if (params->weights < PERIDOT_WEIGHTS_FILE || params->weights > PERIDOT_WEIGHTS_NF4)
        return fail(error, PERIDOT_ERROR_ARGUMENT, "peridot_convert_params: %d is no weight type",
                    (int)params->weights);
    if (params->weights > PERIDOT_WEIGHTS_AUTO &&
        weight_type_info((enum weight_type)(params->weights - 1))->gguf < 0)
        return fail(error, PERIDOT_ERROR_UNSUPPORTED,
                    "GGUF files have no %s: use q4_0, or q4_k which is better",
                    weight_type_info((enum weight_type)(params->weights - 1))->name);
    if (params->threads == 0)
        params->threads = platform_processor_count();
    return PERIDOT_OK;
}

peridot_result peridot_convert(const char *model, const char *target,
                               const peridot_convert_params *params, peridot_error *error) {
    struct conversion conversion = {.target = target};
    struct checkpoint *checkpoint;
    if (!model || !target)
        return fail(error, PERIDOT_ERROR_ARGUMENT, "peridot_convert needs a model and a target");
    peridot_result result = settle_params(params, &conversion.params, error);
    if (!result)
        result = checkpoint_open(model, &checkpoint, error);
    if (result)
        return result;
    conversion.checkpoint = checkpoint;
    if (!*target)
        result = fail(error, PERIDOT_ERROR_FILE, "cannot write to a file without a name");
    else if (checkpoint_reads(checkpoint, target))
        result = fail(error, PERIDOT_ERROR_ARGUMENT,
                      "%s is one of the model's own files: write to another one", target);
    if (!result)
        result = convert(&conversion, error);
    free(conversion.memory);
    free(conversion.parts);
    gguf_output_free(&conversion.output);
    checkpoint_close(checkpoint);
    return result;
}
