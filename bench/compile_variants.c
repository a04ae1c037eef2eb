#include "compile_variants.h"
#include "gemma_sizes.h"
#include "kernel_set.h"
#include "messages.h"
#include "options.h"
#include "pipeline_figures.h"

#include <string.h>

#include <stb/stb_ds.h>

const char *const compile_figure_keys[FIGURE_COUNT] = {
    [FIGURE_REGISTERS] = "registers",   [FIGURE_SPILLS] = "spills",
    [FIGURE_OCCUPANCY] = "occupancy",   [FIGURE_INSTRUCTIONS] = "instructions",
    [FIGURE_CYCLES] = "cycles",         [FIGURE_THROUGHPUT] = "busy_cycles",
    [FIGURE_CODE_BYTES] = "code_bytes",
};

/* ---- What to build ---- */

struct job {
    struct pipeline *pipeline;
    char shape[32];
    bool in_use;
};

struct jobs {
    const struct compile_choice *choice;
    struct device *device;
    struct gemma gemmas[GEMMA_SMALL];
    struct job *all; /* stb_ds */
};

/* Attention alone depends on the model's heads. */
static bool depends_on_heads(enum kernel kernel) {
    return kernel == KERNEL_attention_decode || kernel == KERNEL_attention_prefill;
}

static void name_shape(struct job *job, const struct pipeline_key *key, uint32_t columns) {
    if (depends_on_heads(key->variant->kernel))
        snprintf(job->shape, sizeof job->shape, "group %u", key->spec[SPEC_GROUP]);
    else if (columns)
        snprintf(job->shape, sizeof job->shape, "%u column%s", columns, columns == 1 ? "" : "s");
}

static bool add_job(struct jobs *jobs, const struct gemma *gemma,
                    const struct kernel_variant *variant, uint32_t type, uint32_t columns) {
    struct job job = {.in_use =
                          kernel_set_variant(&gemma->model, variant->kernel, columns) == variant};
    struct pipeline_key key = kernel_set_key(&gemma->model, variant, type, columns, PERIDOT_KV_F16);
    if (!depends_on_heads(variant->kernel)) {
        key.spec[SPEC_HEAD_DIM] = ROW_ALIGNMENT; /* the same whatever these are */
        key.spec[SPEC_GROUP] = 1;
    }
    name_shape(&job, &key, columns);
    job.pipeline = pipelines_want(jobs->device, &key);
    arrput(jobs->all, job);
    return job.pipeline != NULL;
}

static bool add_variant(struct jobs *jobs, const struct kernel_variant *variant) {
    bool typed = kernel_info(variant->kernel).typed;
    int models = depends_on_heads(variant->kernel) ? GEMMA_SMALL : 1;
    for (uint32_t type = 0; type < (typed ? WEIGHT_TYPE_COUNT : 1u); type++) {
        if (!variant->module[type].words)
            continue;
        if (typed && !pattern_matches(jobs->choice->types, weight_type_info(type)->name, false))
            continue;
        for (int model = 0; model < models; model++) {
            uint32_t columns[KERNEL_SET_COLUMNS_MAX];
            const struct gemma *gemma = &jobs->gemmas[model];
            uint32_t count = kernel_set_columns(&gemma->model, variant->kernel, columns);
            for (uint32_t i = 0; i < count; i++)
                if (!add_job(jobs, gemma, variant, type, columns[i]))
                    return false;
        }
    }
    return true;
}

static peridot_result list_jobs(struct jobs *jobs, peridot_error *error) {
    uint32_t count;
    const struct kernel_variant *variants = kernel_variants(&count);
    for (int i = 0; i < GEMMA_SMALL; i++)
        gemma_set(&jobs->gemmas[i], jobs->device, &gemma_sizes[i]);
    for (uint32_t i = 0; i < count; i++) {
        char name[128];
        snprintf(name, sizeof name, "%s/%s", kernel_info(variants[i].kernel).name,
                 variants[i].name);
        if (pattern_matches(jobs->choice->kernels, name, true) &&
            kernel_variant_supported(jobs->device, &variants[i], NULL) &&
            !add_variant(jobs, &variants[i]))
            return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory for pipelines");
    }
    if (arrlen(jobs->all) == 0)
        return fail(error, PERIDOT_ERROR_ARGUMENT,
                    "no kernel variant that %s can run matches --kernel and --type: patterns are "
                    "such as matvec, */subgroup, and q4_k, q4*",
                    jobs->device->info.name);
    return PERIDOT_OK;
}

/* ---- Results ---- */

static void name_job(const struct jobs *jobs, const struct job *job, const char *family,
                     cJSON *row) {
    const struct pipeline_key *key = &job->pipeline->key;
    const struct device_info *info = &jobs->device->info;
    struct kernel_info kernel = kernel_info(key->variant->kernel);
    char driver[sizeof info->driver + sizeof info->driver_info + 2];
    snprintf(driver, sizeof driver, "%s %s", info->driver, info->driver_info);
    cJSON_AddStringToObject(row, "family", family ? family : info->name);
    cJSON_AddStringToObject(row, "driver", driver);
    cJSON_AddStringToObject(row, "kernel", kernel.name);
    cJSON_AddStringToObject(row, "variant", key->variant->name);
    cJSON_AddStringToObject(row, "type", kernel.typed ? weight_type_info(key->type)->name : "");
    cJSON_AddStringToObject(row, "shape", job->shape);
    cJSON_AddStringToObject(row, "in_use", job->in_use ? "yes" : "");
}

static peridot_result add_rows(const struct jobs *jobs, const char *family, struct table *table,
                               peridot_error *error) {
    for (ptrdiff_t i = 0; i < arrlen(jobs->all); i++) {
        struct figures figures = {0};
        if (jobs->device->executable_properties) {
            peridot_result result =
                figures_read(jobs->device, jobs->all[i].pipeline, &figures, error);
            if (result)
                return result;
        }
        cJSON *row = table_row(table);
        name_job(jobs, &jobs->all[i], family, row);
        for (int figure = 0; figure < FIGURE_COUNT; figure++)
            if (figures.has[figure])
                row_number(row, compile_figure_keys[figure], figures.at[figure]);
    }
    return PERIDOT_OK;
}

static peridot_result print_code(const struct jobs *jobs, const char *family,
                                 peridot_error *error) {
    bool printed = true;
    if (!jobs->device->machine_code)
        printed = false;
    for (ptrdiff_t i = 0; i < arrlen(jobs->all) && printed; i++) {
        cJSON *row = cJSON_CreateObject();
        name_job(jobs, &jobs->all[i], family, row);
        printf("==== %s: %s/%s%s%s%s%s ====\n", row_text(row, "family"), row_text(row, "kernel"),
               row_text(row, "variant"), *row_text(row, "type") ? " " : "", row_text(row, "type"),
               *row_text(row, "shape") ? ", " : "", row_text(row, "shape"));
        cJSON_Delete(row);
        peridot_result result =
            figures_print_code(jobs->device, jobs->all[i].pipeline, stdout, &printed, error);
        if (result)
            return result;
    }
    return printed ? PERIDOT_OK
                   : fail(error, PERIDOT_ERROR_UNSUPPORTED,
                          "the driver of %s shows no machine code", jobs->device->info.name);
}

static bool show_progress(uint32_t done, uint32_t all, void *user) {
    progress("%s: %u of %u pipelines", (const char *)user, done, all);
    return true;
}

peridot_result compile_variants(const char *device, const char *family,
                                const struct compile_choice *choice, struct table *table,
                                peridot_error *error) {
    struct device_params params = {
        .choice = device, .statistics = true, .machine_code = choice->code, .cache_directory = ""};
    struct jobs jobs = {.choice = choice};
    peridot_result result = device_open(&params, &jobs.device, error);
    if (result)
        return result;
    result = list_jobs(&jobs, error);
    if (!result)
        result = pipelines_compile(jobs.device, show_progress,
                                   family ? (char *)family : jobs.device->info.name, error);
    progress_end();
    if (!result)
        result =
            choice->code ? print_code(&jobs, family, error) : add_rows(&jobs, family, table, error);
    arrfree(jobs.all);
    device_close(jobs.device);
    return result;
}
