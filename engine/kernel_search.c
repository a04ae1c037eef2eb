#include "kernel_search.h"

#include <string.h>

#define CHOICES 6
#define SUMS_MAX 64 /* products of rows and tokens that an invocation of matvec.comp adds up */
#define TILE_TOKENS_LEAST 2
#define TILE_TOKENS_MOST 16
#define QUERIES_MAX 8 /* of attention, that share a read of K and V */

typedef bool rule(const struct device *device, const uint32_t spec[SPEC_COUNT]);

static bool allows_matvec(const struct device *device, const uint32_t *spec) {
    return spec[SPEC_ROWS] * spec[SPEC_COLUMNS] <= SUMS_MAX &&
           spec[SPEC_WORKGROUP] <= device->info.limits.max_workgroup;
}

/* The workgroup's shared memory: all invocations' sums in batches of 16, then the parts of all. */
static bool allows_shared_matvec(const struct device *device, const uint32_t *spec) {
    uint32_t totals = (spec[SPEC_ROWS] + 1) * spec[SPEC_COLUMNS];
    uint32_t floats = spec[SPEC_WORKGROUP] * 17 + totals * (spec[SPEC_WORKGROUP] / 16);
    return allows_matvec(device, spec) && floats * 4 <= device->info.limits.max_shared;
}

/* Tiles: two pairs of rows an invocation, the same number of tokens each. */
static bool divides_tile(const struct device *device, const uint32_t *spec) {
    uint32_t blocks = spec[SPEC_ROWS] / 4, workgroup = spec[SPEC_WORKGROUP];
    if (workgroup > device->info.limits.max_workgroup || workgroup % blocks)
        return false;
    uint32_t stride = workgroup / blocks, tokens = spec[SPEC_COLUMNS] / stride;
    return spec[SPEC_COLUMNS] % stride == 0 && tokens >= TILE_TOKENS_LEAST &&
           tokens <= TILE_TOKENS_MOST;
}

static bool allows_matmul(const struct device *device, const uint32_t *spec) {
    uint32_t lines = spec[SPEC_ROWS] + spec[SPEC_COLUMNS];
    uint32_t pitch = lines <= 112 ? 9 : 5;
    return divides_tile(device, spec) && lines * pitch * 16 <= device->info.limits.max_shared;
}

static bool allows_dot_tile(const struct device *device, const uint32_t *spec) {
    uint32_t row = 5 * 16 + 2 * 2 * 8, token = 5 * 16 + 2 * 8; /* bytes in shared memory */
    return divides_tile(device, spec) &&
           spec[SPEC_ROWS] * row + spec[SPEC_COLUMNS] * token <= device->info.limits.max_shared;
}

/* More columns than one only where the queries of several tokens are few enough together. */
static bool allows_attention(const struct device *device, const uint32_t *spec) {
    return (spec[SPEC_COLUMNS] == 1 || spec[SPEC_GROUP] * spec[SPEC_COLUMNS] <= QUERIES_MAX) &&
           spec[SPEC_WORKGROUP] <= device->info.limits.max_workgroup;
}

static bool allows_shared_attention(const struct device *device, const uint32_t *spec) {
    uint32_t queries = spec[SPEC_GROUP] * spec[SPEC_COLUMNS], lanes = spec[SPEC_WORKGROUP];
    uint32_t floats = (lanes / 32 + 1) * queries * 32 + 3 * queries + 4 * lanes;
    return allows_attention(device, spec) && floats * 4 <= device->info.limits.max_shared;
}

static bool allows_workgroup(const struct device *device, const uint32_t *spec) {
    return spec[SPEC_WORKGROUP] <= device->info.limits.max_workgroup;
}

/* The search space of a shader; lists end with 0. A constant without a list stays as it is. */
static const struct space {
    const char *file;
    bool subgroup;                /* of its variants whose workgroup is one subgroup */
    uint32_t workgroups[CHOICES]; /* of those: the device's subgroup sizes */
    uint32_t rows[CHOICES], columns[CHOICES];
    bool one_token; /* passes of one row have SPEC_COLUMNS 1 */
    rule *allows;
} spaces[] = {
    {"matvec.comp", true, {0}, {2, 4, 8, 16}, {4, 8}, true, allows_matvec},
    {"matvec.comp", false, {32, 64, 128, 256}, {2, 4, 8}, {4, 8}, true, allows_shared_matvec},
    {"matmul.comp", false, {64, 128, 256}, {32, 64, 128}, {16, 32, 64}, false, allows_matmul},
    {"dot_tile.comp", false, {64, 128, 256}, {32, 64, 128}, {16, 32, 64}, false, allows_dot_tile},
    {"attention.comp", false, {64, 128, 256}, {0}, {1, 2, 4, 8}, true, allows_shared_attention},
    {"attention_subgroup.comp", true, {0}, {0}, {1, 2, 4, 8}, true, allows_attention},
    {"rmsnorm.comp", false, {64, 128, 256, 512}, {0}, {0}, false, allows_workgroup},
};

static const struct space *space_of(const struct kernel_variant *variant) {
    for (size_t i = 0; i < sizeof spaces / sizeof *spaces; i++)
        if (strcmp(spaces[i].file, variant->file) == 0 &&
            spaces[i].subgroup == (variant->workgroup == 0))
            return &spaces[i];
    return NULL;
}

static bool is_tile(const struct kernel_variant *variant) {
    const struct space *space = space_of(variant);
    return space && (space->allows == allows_matmul || space->allows == allows_dot_tile);
}

static bool is_prefill(enum kernel kernel) {
    return kernel == KERNEL_attention_prefill;
}

/* Tiles are for passes of many rows. */
static bool serves(const struct device *device, const struct kernel_variant *variant,
                   uint32_t columns) {
    return kernel_variant_supported(device, variant, NULL) && (columns == 0 || !is_tile(variant));
}

/* A variant as it is built by default, in the place of `base`. */
static struct pipeline_key default_key(const struct device *device,
                                       const struct kernel_variant *variant,
                                       const struct pipeline_key *base, uint32_t columns) {
    struct pipeline_key key = pipeline_key(device, variant, base->type);
    memcpy(key.spec + SPEC_HEAD_DIM, base->spec + SPEC_HEAD_DIM,
           (SPEC_COUNT - SPEC_HEAD_DIM) * sizeof *key.spec);
    if (!variant->columns && columns)
        key.spec[SPEC_COLUMNS] = columns;
    else if (!variant->columns) /* instead of a tile's */
        key.spec[SPEC_COLUMNS] = base->spec[SPEC_COLUMNS] < 8 ? base->spec[SPEC_COLUMNS] : 8;
    return key;
}

struct listing {
    const struct device *device;
    uint32_t columns, count;
    struct pipeline_key *keys;
};

static void add_key(struct listing *list, const struct pipeline_key *key) {
    for (uint32_t i = 0; i < list->count; i++)
        if (list->keys[i].variant == key->variant &&
            memcmp(list->keys[i].spec, key->spec, sizeof key->spec) == 0)
            return;
    if (list->count < KERNEL_SEARCH_MAX)
        list->keys[list->count++] = *key;
}

/* A list of choices, or the present value alone. */
static uint32_t choices(const uint32_t *list, uint32_t present, uint32_t *out) {
    uint32_t count = 0;
    while (count < CHOICES && list[count]) {
        out[count] = list[count];
        count++;
    }
    if (count == 0)
        out[count++] = present;
    return count;
}

static uint32_t subgroup_sizes(const struct device *device, uint32_t *out) {
    const struct device_limits *limits = &device->info.limits;
    uint32_t count = 0;
    out[count++] = limits->subgroup_size;
    if (limits->subgroup_settable && limits->subgroup_smallest &&
        limits->subgroup_smallest != limits->subgroup_size)
        out[count++] = limits->subgroup_smallest;
    return count;
}

static void add_space(struct listing *list, const struct pipeline_key *start) {
    const struct space *space = space_of(start->variant);
    if (!space)
        return;
    uint32_t workgroups[CHOICES], rows[CHOICES], columns[CHOICES];
    uint32_t workgroup_count =
        space->subgroup ? subgroup_sizes(list->device, workgroups)
                        : choices(space->workgroups, start->spec[SPEC_WORKGROUP], workgroups);
    uint32_t row_count = choices(space->rows, start->spec[SPEC_ROWS], rows);
    bool single = start->variant->kernel == KERNEL_attention_decode ||
                  (space->one_token && list->columns == 1 && !is_prefill(start->variant->kernel));
    uint32_t column_count = single ? choices((uint32_t[CHOICES]){1}, 1, columns)
                                   : choices(space->columns, start->spec[SPEC_COLUMNS], columns);
    for (uint32_t i = 0; i < workgroup_count * row_count * column_count; i++) {
        struct pipeline_key key = *start;
        key.spec[SPEC_WORKGROUP] = workgroups[i / column_count / row_count];
        key.spec[SPEC_ROWS] = rows[i / column_count % row_count];
        key.spec[SPEC_COLUMNS] = columns[i % column_count];
        if (space->allows(list->device, key.spec))
            add_key(list, &key);
    }
}

uint32_t kernel_search_list(const struct device *device, const struct pipeline_key *base,
                            uint32_t columns, struct pipeline_key keys[KERNEL_SEARCH_MAX]) {
    struct listing list = {device, columns, 0, keys};
    struct kernel_info info = kernel_info(base->variant->kernel);
    const struct kernel_variant *variants = kernel_variants(NULL) + info.first_variant;
    add_key(&list, base);
    for (uint32_t i = info.variant_count; i-- > 0;) {
        struct pipeline_key key = default_key(device, &variants[i], base, columns);
        const struct space *space = space_of(&variants[i]);
        if (serves(device, &variants[i], columns) && (!space || space->allows(device, key.spec)))
            add_key(&list, &key);
    }
    for (uint32_t i = info.variant_count; i-- > 0;) {
        struct pipeline_key key = default_key(device, &variants[i], base, columns);
        if (serves(device, &variants[i], columns))
            add_space(&list, &key);
    }
    return list.count;
}

bool kernel_search_allows(const struct device *device, const struct pipeline_key *base,
                          uint32_t columns, const struct pipeline_key *key) {
    struct pipeline_key keys[KERNEL_SEARCH_MAX];
    uint32_t count = kernel_search_list(device, base, columns, keys);
    for (uint32_t i = 0; i < count; i++)
        if (keys[i].variant == key->variant && keys[i].type == key->type &&
            memcmp(keys[i].spec, key->spec, sizeof key->spec) == 0)
            return true;
    return false;
}
