#include "kernel_jobs.h"
#include "kernel_set.h"

#include <stdio.h>
#include <string.h>

#include <stb/stb_ds.h>

/* Logits of as many rows at once: those of a whole prompt would be half a gigabyte. */
#define HEAD_TOKENS 32

/* What of a shape a kernel's work depends on. */
enum {
    BY_TOKENS = 1,
    BY_CONTEXT = 2,
    BY_PART = 4,     /* attention's output projection and the MLP's second */
    PROMPT = 8,      /* of a pass of many rows only */
    PROMPT_TOO = 16, /* without columns of many rows */
};

static unsigned dependence(enum kernel kernel) {
    switch (kernel) {
    case KERNEL_embed:
    case KERNEL_rmsnorm:
    case KERNEL_capture:
        return BY_TOKENS | PROMPT;
    case KERNEL_matvec_residual:
        return BY_TOKENS | BY_PART;
    case KERNEL_matmul_residual:
        return BY_TOKENS | BY_PART | PROMPT;
    case KERNEL_matmul_qkv:
    case KERNEL_matmul_geglu:
    case KERNEL_matmul_head:
        return BY_TOKENS | PROMPT;
    case KERNEL_attention_decode:
    case KERNEL_attention_join:
        return BY_CONTEXT;
    case KERNEL_attention_prefill:
        return BY_TOKENS | BY_CONTEXT | PROMPT;
    case KERNEL_dot_residual:
        return BY_TOKENS | BY_PART | PROMPT_TOO;
    case KERNEL_dot_qkv:
    case KERNEL_dot_geglu:
    case KERNEL_dot_head:
        return BY_TOKENS | PROMPT_TOO;
    default:
        return kernel >= KERNEL_sample_mark ? 0 : BY_TOKENS;
    }
}

struct listing {
    struct device *device;
    const struct kernel_choice *choice;
    struct gemma gemma;
    const struct gemma_sizes *sizes;
    struct kernel_job *jobs;
};

static void name_shape(struct kernel_job *job, const char *model, unsigned by) {
    const struct case_shape *shape = &job->shape;
    char *at = job->name, *end = job->name + sizeof job->name;
    at += snprintf(at, (size_t)(end - at), "%s", model);
    if (by & BY_PART)
        at += snprintf(at, (size_t)(end - at), " %s", shape->down ? "down" : "output");
    if (by & BY_TOKENS)
        at += snprintf(at, (size_t)(end - at), ", %u token%s", shape->tokens,
                       shape->tokens == 1 ? "" : "s");
    if (by & BY_CONTEXT)
        snprintf(at, (size_t)(end - at), " at %u", shape->position);
}

/* What was asked of a variant that is not in the table. */
static void heed_user(const struct user_variants *own, struct kernel_job *job) {
    for (uint32_t i = 0; own && i < own->count; i++) {
        const struct user_variant *user = &own->at[i];
        const int64_t asked[] = {user->workgroup, user->rows, user->columns};
        if (&user->variant != job->variant)
            continue;
        for (int spec = SPEC_WORKGROUP; spec <= SPEC_COLUMNS; spec++)
            if (asked[spec] > 0)
                job->key.spec[spec] = (uint32_t)asked[spec];
        if (*user->left_out)
            job->left_out = user->left_out;
    }
}

/* The same job with other constants, which its label tells. */
static struct kernel_job with_constants(const struct kernel_job *job,
                                        const uint32_t spec[SPEC_HEAD_DIM]) {
    static const char *const words[SPEC_HEAD_DIM] = {"workgroup", "rows", "columns"};
    struct kernel_job other = *job;
    char *at = other.label + strlen(other.label), *end = other.label + sizeof other.label;
    for (int i = 0; i < SPEC_HEAD_DIM; i++)
        if (spec[i] != job->key.spec[i])
            at += snprintf(at, (size_t)(end - at), " %s=%u", words[i], spec[i]);
    memcpy(other.key.spec, spec, sizeof *spec * SPEC_HEAD_DIM);
    return other;
}

static void add_job(struct listing *list, const struct kernel_variant *variant, uint32_t type,
                    uint32_t columns, struct case_shape shape, unsigned by) {
    const struct peridot_model *model = &list->gemma.model;
    struct kernel_job job = {.variant = variant, .shape = shape};
    struct pipeline_key used = {0};
    bool tuned = false;
    job.key = kernel_set_key(model, variant, type, columns, list->choice->kv);
    if (!kernel_variant_supported(list->device, variant, &job.left_out) && !job.left_out)
        job.left_out = "the device cannot run it";
    heed_user(list->choice->own, &job);
    name_shape(&job, list->sizes->name, by);
    snprintf(job.label, sizeof job.label, "%s", variant->name);
    kernel_set_used(model, variant->kernel, type, columns, list->choice->kv, &used, &tuned);
    bool runs = used.variant == variant;
    bool alike = memcmp(used.spec, job.key.spec, SPEC_HEAD_DIM * sizeof *used.spec) == 0;
    job.in_use = runs && alike;
    job.tuned = job.in_use && tuned;
    arrput(list->jobs, job);
    if (!runs || alike)
        return;
    job = with_constants(&job, used.spec);
    job.in_use = job.tuned = true;
    arrput(list->jobs, job);
}

/* A variant in one type and number of columns, on all shapes that tell. */
static void add_shapes(struct listing *list, const struct kernel_variant *variant, uint32_t type,
                       uint32_t columns) {
    const struct kernel_choice *choice = list->choice;
    unsigned by = dependence(variant->kernel);
    struct case_shape shape = case_shape_of(&list->sizes->config);
    shape.kv = (uint32_t)choice->kv;
    shape.plane_most = choice->plane_most;
    bool prompt = by & PROMPT || (by & PROMPT_TOO && columns == 0);
    shape.tokens = prompt ? choice->tokens : columns ? columns : 1;
    if ((variant->kernel == KERNEL_matmul_head || variant->kernel == KERNEL_dot_head) &&
        shape.tokens > HEAD_TOKENS)
        shape.tokens = HEAD_TOKENS;
    for (uint32_t part = 0; part < (by & BY_PART ? 2u : 1u); part++)
        for (uint32_t i = 0; i < (by & BY_CONTEXT ? choice->contexts.count : 1u); i++) {
            shape.down = part == 1;
            shape.position = by & BY_CONTEXT ? choice->contexts.at[i] : 0;
            add_job(list, variant, type, columns, shape, by);
        }
}

static void add_variant(struct listing *list, const struct kernel_variant *variant, uint32_t type) {
    uint32_t columns[KERNEL_SET_COLUMNS_MAX];
    uint32_t count = kernel_set_columns(&list->gemma.model, variant->kernel, columns);
    for (uint32_t i = 0; i < count; i++)
        add_shapes(list, variant, type, columns[i]);
}

static bool wanted(const struct kernel_choice *choice, const struct kernel_variant *variant,
                   uint32_t type) {
    char name[128];
    struct kernel_info info = kernel_info(variant->kernel);
    snprintf(name, sizeof name, "%s/%s", info.name, variant->name);
    return variant->module[type].words && pattern_matches(choice->kernels, name, true) &&
           (!info.typed || pattern_matches(choice->types, weight_type_info(type)->name, false));
}

bool kernel_jobs_alike(const struct kernel_job *a, const struct kernel_job *b) {
    return a->variant->kernel == b->variant->kernel && a->key.type == b->key.type &&
           strcmp(a->name, b->name) == 0;
}

/* Jobs that compare come together: the n-th shape of each variant of a kernel in one type. */
static void interleave(struct kernel_job *jobs, ptrdiff_t count) {
    for (ptrdiff_t i = 1; i < count; i++)
        for (ptrdiff_t j = i; j < count; j++)
            if (kernel_jobs_alike(&jobs[i - 1], &jobs[j])) {
                struct kernel_job job = jobs[j];
                memmove(&jobs[i + 1], &jobs[i], (size_t)(j - i) * sizeof job);
                jobs[i] = job;
                break;
            }
}

struct kernel_job *kernel_jobs_list(struct device *device, const struct kernel_choice *choice) {
    struct listing list = {.device = device, .choice = choice};
    uint32_t count;
    const struct kernel_variant *variants = kernel_variants(&count);
    for (int size = 0; size < GEMMA_COUNT; size++) {
        list.sizes = &gemma_sizes[size];
        gemma_set(&list.gemma, device, list.sizes);
        if (choice->tuning)
            list.gemma.device.tuning = *choice->tuning;
        if (!pattern_matches(choice->models, list.sizes->name, false))
            continue;
        for (uint32_t i = 0; i < count; i++) {
            bool typed = kernel_info(variants[i].kernel).typed;
            for (uint32_t type = 0; type < (typed ? WEIGHT_TYPE_COUNT : 1u); type++)
                if (wanted(choice, &variants[i], type))
                    add_variant(&list, &variants[i], type);
        }
        for (uint32_t i = 0; choice->own && i < choice->own->count; i++)
            for (uint32_t type = 0; type < WEIGHT_TYPE_COUNT; type++)
                if (choice->own->at[i].variant.module[type].words)
                    add_variant(&list, &choice->own->at[i].variant, type);
    }
    interleave(list.jobs, arrlen(list.jobs));
    return list.jobs;
}
