#include "kernel_set.h"
#include "tuning.h"

#include <string.h>

/* What a lane of the subgroup attention variants may hold before GPUs spill registers: accumulators
 * for its share of each query's result, and ATTENTION_QUERY_REGISTERS more for each query. Intel's
 * lanes, known by subgroups that go below 32, have 128 registers, AMD's have 256. */
#define ATTENTION_REGISTERS_MAX 112
#define ATTENTION_REGISTERS_MAX_NARROW 44
#define ATTENTION_QUERY_REGISTERS 6

struct choice {
    const struct peridot_model *model;
    const struct device *device;
    peridot_kv kv;
    peridot_error *error;
    peridot_result result;
    bool tuned;
    /* instead of registering pipelines */
    void (*visit)(const struct kernel_want *want, void *user);
    void *user;
};

static uint32_t group_of(const struct peridot_model *model) {
    return model->config.heads / model->config.kv_heads;
}

/* Tokens that one workgroup of prefill attention takes: eight queries in all share a read of K and
 * V. */
static uint32_t prefill_columns(const struct peridot_model *model) {
    uint32_t group = group_of(model);
    return group < 8 ? 8 / group : 1;
}

static bool is_projection(enum kernel kernel) {
    return kernel >= KERNEL_matvec_qkv && kernel <= KERNEL_dot_head;
}

static bool is_attention(enum kernel kernel) {
    return kernel == KERNEL_attention_decode || kernel == KERNEL_attention_prefill;
}

static bool is_matmul(enum kernel kernel) {
    return kernel >= KERNEL_matmul_qkv && kernel <= KERNEL_matmul_head;
}

static bool is_dot(enum kernel kernel) {
    return kernel >= KERNEL_dot_qkv && kernel <= KERNEL_dot_head;
}

/* Tiles, which have a number of columns, are for many rows, but not for a CPU, which has no use for
 * shared memory. The instruction is slow where it is made of others. */
static bool suits_dot(const struct choice *choice, const struct kernel_variant *variant,
                      bool many) {
    bool packed = variant->needs & NEEDS_PACKED_DOT;
    bool tile = variant->columns != 0;
    return tile == (many && !device_is_software(choice->device)) &&
           (!packed || choice->device->info.limits.packed_dot_accelerated);
}

/* Whether a variant that the device can run is also a good idea for the model's sizes. */
static bool suits(const struct choice *choice, const struct kernel_variant *variant, bool many) {
    enum kernel kernel = variant->kernel;
    if (is_dot(kernel))
        return suits_dot(choice, variant, many);
    /* on a CPU the barriers of portable variants cost more than anything; other devices spill */
    if (variant->workgroup != 0 || device_is_software(choice->device))
        return true;
    /* the subgroup's small tile reads ten times as much through the caches as the tile in shared
     * memory */
    if (is_matmul(kernel))
        return false;
    if (!is_attention(kernel))
        return true;
    uint32_t queries = group_of(choice->model);
    if (kernel == KERNEL_attention_prefill)
        queries *= prefill_columns(choice->model);
    uint32_t lanes = choice->device->info.limits.subgroup_smallest;
    uint32_t octets = (choice->model->head_dim_padded / 8 + lanes - 1) / lanes; /* in each lane */
    uint32_t held = queries * (8 * octets + ATTENTION_QUERY_REGISTERS);
    return held <= (lanes < 32 ? ATTENTION_REGISTERS_MAX_NARROW : ATTENTION_REGISTERS_MAX);
}

/* Whether a lane of a subgroup variant holds so much that it wants the registers which the smallest
 * subgroup leaves it: the sums of several tokens, blocks of weights, or attention's results. */
static bool is_large(enum kernel kernel, uint32_t type, uint32_t columns) {
    if (is_projection(kernel))
        return columns > 1 || weight_type_info((enum weight_type)type)->block > 1;
    return is_attention(kernel);
}

static const struct kernel_variant *choose(const struct choice *choice, enum kernel kernel,
                                           uint32_t columns) {
    struct kernel_info info = kernel_info(kernel);
    const struct kernel_variant *variants = kernel_variants(NULL) + info.first_variant;
    for (uint32_t i = info.variant_count; i-- > 0;)
        if (kernel_variant_supported(choice->device, &variants[i], NULL) &&
            (i == 0 || suits(choice, &variants[i], columns == 0)))
            return &variants[i];
    return NULL;
}

const struct kernel_variant *kernel_set_variant(const struct peridot_model *model,
                                                enum kernel kernel, uint32_t columns) {
    struct choice choice = {.model = model, .device = model->device->engine};
    return choose(&choice, kernel, columns);
}

struct pipeline_key kernel_set_key(const struct peridot_model *model,
                                   const struct kernel_variant *variant, uint32_t type,
                                   uint32_t columns, peridot_kv kv) {
    const struct device *device = model->device->engine;
    enum kernel kernel = variant->kernel;
    struct pipeline_key key = pipeline_key(device, variant, type);
    if (is_dot(kernel) && columns == 0)
        columns = FEW_ROWS; /* where no tile is at hand */
    if (columns && !variant->columns)
        key.spec[SPEC_COLUMNS] = columns;
    /* a CPU keeps what does not fit its registers in its nearest cache: more rows share a read of x
     */
    if (is_projection(kernel) && variant->workgroup == 0 && device_is_software(device))
        key.spec[SPEC_ROWS] = 8;
    if (variant->workgroup == 0 && !device_is_software(device) && is_large(kernel, type, columns))
        key.spec[SPEC_WORKGROUP] = device->info.limits.subgroup_smallest;
    key.spec[SPEC_HEAD_DIM] = model->head_dim_padded;
    key.spec[SPEC_GROUP] = group_of(model);
    key.spec[SPEC_KV_TYPE] = (uint32_t)kv;
    return key;
}

uint32_t kernel_set_columns(const struct peridot_model *model, enum kernel kernel,
                            uint32_t columns[KERNEL_SET_COLUMNS_MAX]) {
    columns[0] = 0;
    if (kernel == KERNEL_attention_prefill)
        columns[0] = prefill_columns(model);
    if (!is_projection(kernel) || is_matmul(kernel))
        return 1;
    columns[0] = 1;
    columns[1] = FEW_ROWS;
    columns[2] = 0;
    return is_dot(kernel) ? 3 : 2;
}

struct tuning_place kernel_set_place(const struct peridot_model *model, enum kernel kernel,
                                     uint32_t type, uint32_t columns, peridot_kv kv) {
    struct tuning_place place = {.kernel = kernel, .type = type, .columns = columns};
    place.width = is_attention(kernel) ? model->head_dim_padded : model->config.d_model;
    place.group = is_attention(kernel) ? group_of(model) : 0;
    place.kv = is_attention(kernel) ? (uint32_t)kv : 0;
    return place;
}

/* What was measured goes before what is expected. */
static void take_tuned(struct choice *choice, struct kernel_want *wanted) {
    const struct tuned *tuned = tuning_find(&choice->model->device->tuning, &wanted->place);
    if (!tuned || !kernel_variant_supported(choice->device, tuned->variant, NULL))
        return;
    choice->tuned |= tuned->variant != wanted->key.variant ||
                     memcmp(tuned->spec, wanted->key.spec, sizeof tuned->spec) != 0;
    wanted->key.variant = tuned->variant;
    memcpy(wanted->key.spec, tuned->spec, sizeof tuned->spec);
}

/* As it is built untuned. False: the device can run no variant. */
static bool want_untuned(const struct choice *choice, enum kernel kernel, uint32_t type,
                         uint32_t columns, struct kernel_want *wanted) {
    const struct kernel_variant *variant = choose(choice, kernel, columns);
    if (!variant)
        return false;
    wanted->place = kernel_set_place(choice->model, kernel, type, columns, choice->kv);
    wanted->key = kernel_set_key(choice->model, variant, type, columns, choice->kv);
    return true;
}

bool kernel_set_used(const struct peridot_model *model, enum kernel kernel, uint32_t type,
                     uint32_t columns, peridot_kv kv, struct pipeline_key *key, bool *tuned) {
    struct choice choice = {.model = model, .device = model->device->engine, .kv = kv};
    struct kernel_want wanted;
    if (!want_untuned(&choice, kernel, type, columns, &wanted))
        return false;
    take_tuned(&choice, &wanted);
    *key = wanted.key;
    *tuned = choice.tuned;
    return true;
}

static struct pipeline *want(struct choice *choice, enum kernel kernel, uint32_t type,
                             uint32_t columns) {
    struct kernel_want wanted;
    if (!want_untuned(choice, kernel, type, columns, &wanted)) {
        if (!choice->result)
            choice->result = fail(choice->error, PERIDOT_ERROR_UNSUPPORTED,
                                  "device %s can run no variant of kernel %s",
                                  choice->device->info.name, kernel_info(kernel).name);
        return NULL;
    }
    if (choice->visit) {
        choice->visit(&wanted, choice->user);
        return NULL;
    }
    take_tuned(choice, &wanted);
    struct pipeline *pipeline = pipelines_want(choice->model->device->engine, &wanted.key);
    if (!pipeline && !choice->result)
        choice->result =
            fail(choice->error, PERIDOT_ERROR_HOST_MEMORY, "out of memory for pipelines");
    return pipeline;
}

bool kernel_set_quantises(const struct kernel_set *set, enum weight_type type) {
    return set->int8 && weight_type_info(type)->block > 1;
}

static void want_projections(struct choice *choice, struct kernel_set *set, enum projection role,
                             const struct weight *weight) {
    static const enum kernel matvec[] = {KERNEL_matvec_qkv, KERNEL_matvec_residual,
                                         KERNEL_matvec_geglu, KERNEL_matvec_head};
    static const enum kernel matmul[] = {KERNEL_matmul_qkv, KERNEL_matmul_residual,
                                         KERNEL_matmul_geglu, KERNEL_matmul_head};
    static const enum kernel dot[] = {KERNEL_dot_qkv, KERNEL_dot_residual, KERNEL_dot_geglu,
                                      KERNEL_dot_head};
    for (uint32_t i = 0; i < weight->shard_count; i++) {
        enum weight_type type = weight->shards[i].type;
        bool int8 = kernel_set_quantises(set, type);
        enum kernel few = int8 ? dot[role] : matvec[role], many = int8 ? dot[role] : matmul[role];
        set->project[PASS_ONE_ROW][role][type] = want(choice, few, type, 1);
        set->project[PASS_FEW_ROWS][role][type] = want(choice, few, type, FEW_ROWS);
        set->project[PASS_MANY_ROWS][role][type] = want(choice, many, type, 0);
    }
}

static void want_layers(struct choice *choice, struct kernel_set *set) {
    for (uint32_t i = 0; i < choice->model->layer_count; i++) {
        const struct layer *layer = &choice->model->layers[i];
        want_projections(choice, set, PROJECT_QKV, &layer->qkv);
        want_projections(choice, set, PROJECT_RESIDUAL, &layer->output);
        want_projections(choice, set, PROJECT_GEGLU, &layer->gate_up);
        want_projections(choice, set, PROJECT_RESIDUAL, &layer->down);
    }
}

/* What only home runs: the beginning and the end of a pass. */
static void want_ends(struct choice *choice, struct kernel_set *set) {
    const struct weight *table = &choice->model->embedding;
    for (uint32_t i = 0; i < table->shard_count; i++) {
        enum weight_type type = table->shards[i].type;
        set->embed[type] = want(choice, KERNEL_embed, type, 0);
    }
    want_projections(choice, set, PROJECT_HEAD, model_head(choice->model));
    set->sample_mark = want(choice, KERNEL_sample_mark, 0, 0);
    set->sample_score = want(choice, KERNEL_sample_score, 0, 0);
    set->sample_score_masked = want(choice, KERNEL_sample_score_masked, 0, 0);
    set->sample_histogram = want(choice, KERNEL_sample_histogram, 0, 0);
    set->sample_cut = want(choice, KERNEL_sample_cut, 0, 0);
    set->sample_draw = want(choice, KERNEL_sample_draw, 0, 0);
    set->sample_finish = want(choice, KERNEL_sample_finish, 0, 0);
}

static void want_all(struct choice *choice, bool int8, struct kernel_set *set) {
    const struct peridot_model *model = choice->model;
    *set = (struct kernel_set){.int8 = int8};
    set->rmsnorm = want(choice, KERNEL_rmsnorm, 0, 0);
    set->capture = want(choice, KERNEL_capture, 0, 0);
    if (int8) {
        set->quantise = want(choice, KERNEL_quantise, 0, 0);
        set->quantise_norm = want(choice, KERNEL_quantise_norm, 0, 0);
    }
    want_layers(choice, set);
    if (choice->kv == PERIDOT_KV_Q8)
        set->kv_store = want(choice, KERNEL_kv_store, 0, 0);
    set->attention_decode = want(choice, KERNEL_attention_decode, 0, 0);
    set->attention_join = want(choice, KERNEL_attention_join, 0, 0);
    set->attention_prefill = want(choice, KERNEL_attention_prefill, 0, prefill_columns(model));
    if (model->is_home)
        want_ends(choice, set);
}

peridot_result kernel_set_create(const struct peridot_model *model, peridot_kv kv, bool int8,
                                 struct kernel_set *set, peridot_error *error) {
    struct choice choice = {
        .model = model, .device = model->device->engine, .kv = kv, .error = error};
    want_all(&choice, int8, set);
    set->tuned = choice.tuned;
    return choice.result;
}

peridot_result kernel_set_visit(const struct peridot_model *model, peridot_kv kv, bool int8,
                                void (*visit)(const struct kernel_want *want, void *user),
                                void *user, peridot_error *error) {
    struct kernel_set none;
    struct choice choice = {.model = model,
                            .device = model->device->engine,
                            .kv = kv,
                            .error = error,
                            .visit = visit,
                            .user = user};
    want_all(&choice, int8, &none);
    return choice.result;
}

/* ---- Batches ---- */

/* What a lane of matvec.comp may hold before GPUs spill: the sums of ROWS weight rows with COLUMNS
 * tokens, twice where weights have scales (their parts are added up by themselves), and a row of
 * weights. Intel's lanes have the fewer registers the more of them share a subgroup. */
static uint32_t registers_of(const struct device *device, const struct pipeline_key *key) {
    if (key->variant->workgroup || device->info.limits.subgroup_smallest >= 32)
        return 128;
    return 1024 / key->spec[SPEC_WORKGROUP];
}

/* How many tokens a workgroup takes: all, if it can. */
static uint32_t batch_columns(const struct device *device, const struct pipeline_key *key,
                              uint32_t count) {
    uint32_t sums = weight_type_info(key->type)->block > 1 && !is_dot(key->variant->kernel) ? 2 : 1;
    uint32_t most = registers_of(device, key) / 2, columns = count;
    while (columns > 1 && !device_is_software(device) &&
           (key->spec[SPEC_ROWS] * sums + 1) * columns > most)
        columns = (columns + 1) / 2;
    return columns;
}

peridot_result kernel_set_for_batch(struct kernel_set *set, struct device *device, uint32_t count,
                                    peridot_error *error) {
    bool short_of_memory = false;
    for (uint32_t role = 0; role < PROJECTION_COUNT; role++)
        for (uint32_t type = 0; type < WEIGHT_TYPE_COUNT; type++) {
            if (!set->project[PASS_ONE_ROW][role][type])
                continue;
            struct pipeline_key key = set->project[PASS_ONE_ROW][role][type]->key;
            if (!key.variant->columns)
                key.spec[SPEC_COLUMNS] = batch_columns(device, &key, count);
            key.spec[SPEC_BATCH] = 1;
            struct pipeline *pipeline = pipelines_want(device, &key);
            set->project[PASS_FEW_ROWS][role][type] = pipeline;
            short_of_memory |= !pipeline;
        }
    uint32_t first = kernel_info(KERNEL_batch_rows).first_variant;
    struct pipeline_key key = pipeline_key(device, kernel_variants(NULL) + first, 0);
    set->batch_rows = pipelines_want(device, &key);
    if (short_of_memory || !set->batch_rows)
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory for pipelines");
    return PERIDOT_OK;
}
