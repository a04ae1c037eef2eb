/* Compiling pipelines in parallel, and keeping the driver's cache on disk. */
#include "pipelines.h"
#include "checksum.h"
#include "platform.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <stb/stb_ds.h>

#define CACHE_MAGIC "PDOTPC01"
#define CACHE_BYTES_MAX (256u << 20)
#define THREADS_MAX 16

struct pipelines {
    VkPipelineLayout layout;
    VkPipelineCache cache; /* all threads share it: internally synchronised, or an application's */
    struct pipeline **all; /* stb_ds */
    struct pipelines_statistics statistics;
    uint64_t written;                 /* size of the cache as last read or written */
    uint8_t cache_uuid[VK_UUID_SIZE]; /* changes when the driver's cache format does */
};

/* What precedes the driver's bytes on disk. */
struct cache_header {
    char magic[8];
    uint64_t size, checksum;
};

/* ---- The cache on disk ---- */

static void put_hex(char *out, const uint8_t *bytes) {
    for (uint32_t i = 0; i < VK_UUID_SIZE; i++)
        snprintf(out + 2 * i, 3, "%02x", bytes[i]);
}

static bool cache_path(const struct device *device, char *path, size_t size) {
    if (!device->cache_directory)
        return false;
    char uuid[2 * VK_UUID_SIZE + 1], format[2 * VK_UUID_SIZE + 1];
    put_hex(uuid, device->info.uuid);
    put_hex(format, device->pipelines->cache_uuid);
    int length = snprintf(path, size, "%s/pipelines-%s-%08x-%s", device->cache_directory, uuid,
                          device->info.driver_version, format);
    return length > 0 && (size_t)length < size;
}

/* Whether the driver's bytes are for this device and driver: some drivers do not look. */
static bool is_ours(const struct device *device, const uint8_t *bytes, size_t size) {
    VkPipelineCacheHeaderVersionOne header;
    if (size < sizeof header)
        return false;
    memcpy(&header, bytes, sizeof header);
    return header.headerVersion == VK_PIPELINE_CACHE_HEADER_VERSION_ONE &&
           header.vendorID == device->info.vendor_id && header.deviceID == device->info.device_id &&
           memcmp(header.pipelineCacheUUID, device->pipelines->cache_uuid, VK_UUID_SIZE) == 0;
}

/* The driver's bytes within a cache file, or NULL if the file is not one of ours, whole. */
static const uint8_t *cache_contents(const struct device *device, const struct file_bytes *file,
                                     size_t *size) {
    struct cache_header header;
    if (file->size < sizeof header || file->size > CACHE_BYTES_MAX)
        return NULL;
    memcpy(&header, file->data, sizeof header);
    *size = file->size - sizeof header;
    const uint8_t *bytes = file->data + sizeof header;
    bool good = memcmp(header.magic, CACHE_MAGIC, sizeof header.magic) == 0 &&
                header.size == *size &&
                header.checksum == checksum_add(CHECKSUM_START, bytes, *size) &&
                is_ours(device, bytes, *size);
    return good ? bytes : NULL;
}

static VkResult create_cache(struct device *device) {
    struct pipelines *pipelines = device->pipelines;
    char path[4096];
    struct file_bytes file = {0};
    if (device->given_cache) {
        pipelines->cache = device->given_cache;
        return VK_SUCCESS;
    }
    VkPipelineCacheCreateInfo info = {.sType = VK_STRUCTURE_TYPE_PIPELINE_CACHE_CREATE_INFO};
    if (cache_path(device, path, sizeof path) && platform_is_file(path) &&
        platform_read_file(path, &file, NULL) == PERIDOT_OK) {
        size_t size = 0;
        info.pInitialData = cache_contents(device, &file, &size);
        info.initialDataSize = info.pInitialData ? size : 0;
        pipelines->written = pipelines->statistics.cache_read = info.initialDataSize;
        if (!info.pInitialData)
            snprintf(pipelines->statistics.warning, sizeof pipelines->statistics.warning,
                     "the pipeline cache %.400s is damaged and is made anew", path);
    }
    VkPipelineCache cache = VK_NULL_HANDLE;
    VkResult code =
        device->vk.CreatePipelineCache(device->handle, &info, device->allocator, &cache);
    platform_free_file(&file);
    if (!code)
        pipelines->cache = cache;
    device_name_object(device, VK_OBJECT_TYPE_PIPELINE_CACHE, (uint64_t)pipelines->cache,
                       "Peridot pipeline cache");
    return code;
}

struct cache_data {
    struct cache_header header;
    const uint8_t *bytes;
};

static bool write_cache(FILE *stream, void *user) {
    const struct cache_data *data = user;
    return fwrite(&data->header, sizeof data->header, 1, stream) == 1 &&
           fwrite(data->bytes, 1, data->header.size, stream) == data->header.size;
}

static void save_cache(struct device *device) {
    struct pipelines *pipelines = device->pipelines;
    char path[4096];
    size_t size = 0;
    if (device->given_cache || !cache_path(device, path, sizeof path) ||
        device->vk.GetPipelineCacheData(device->handle, pipelines->cache, &size, NULL) !=
            VK_SUCCESS ||
        size <= pipelines->written || size > CACHE_BYTES_MAX)
        return;
    uint8_t *bytes = malloc(size);
    if (bytes && device->vk.GetPipelineCacheData(device->handle, pipelines->cache, &size, bytes) ==
                     VK_SUCCESS) {
        struct cache_data data = {
            .header = {.size = size, .checksum = checksum_add(CHECKSUM_START, bytes, size)},
            .bytes = bytes};
        memcpy(data.header.magic, CACHE_MAGIC, sizeof data.header.magic);
        peridot_error error;
        if (platform_make_directories(device->cache_directory) &&
            platform_replace_file(path, write_cache, &data, &error) == PERIDOT_OK)
            pipelines->written = size;
        else
            snprintf(
                pipelines->statistics.warning, sizeof pipelines->statistics.warning,
                "the pipeline cache cannot be kept: %.400s is not writable; each start compiles "
                "again",
                device->cache_directory);
    }
    free(bytes);
}

/* ---- The registry ---- */

peridot_result pipelines_create(struct device *device, peridot_error *error) {
    device->pipelines = calloc(1, sizeof *device->pipelines);
    if (!device->pipelines)
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory for pipelines");
    VkPushConstantRange range = {VK_SHADER_STAGE_COMPUTE_BIT, 0, 128};
    VkPipelineLayoutCreateInfo layout = {.sType = VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO,
                                         .pushConstantRangeCount = 1,
                                         .pPushConstantRanges = &range};
    VkPhysicalDeviceProperties2 properties = {.sType =
                                                  VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2};
    device->vi.GetPhysicalDeviceProperties2(device->info.physical, &properties);
    memcpy(device->pipelines->cache_uuid, properties.properties.pipelineCacheUUID, VK_UUID_SIZE);
    VkPipelineLayout made = VK_NULL_HANDLE;
    VkResult code =
        device->vk.CreatePipelineLayout(device->handle, &layout, device->allocator, &made);
    if (!code) {
        device->pipelines->layout = made;
        device_name_object(device, VK_OBJECT_TYPE_PIPELINE_LAYOUT, (uint64_t)made,
                           "Peridot pipeline layout");
        code = create_cache(device);
    }
    return code ? device_fail(device, code, "preparing pipelines", error) : PERIDOT_OK;
}

void pipelines_destroy(struct device *device) {
    struct pipelines *pipelines = device->pipelines;
    if (!pipelines)
        return;
    for (ptrdiff_t i = 0; i < arrlen(pipelines->all); i++) {
        device->vk.DestroyPipeline(device->handle, pipelines->all[i]->handle, device->allocator);
        free(pipelines->all[i]);
    }
    arrfree(pipelines->all);
    if (!device->given_cache)
        device->vk.DestroyPipelineCache(device->handle, pipelines->cache, device->allocator);
    device->vk.DestroyPipelineLayout(device->handle, pipelines->layout, device->allocator);
    free(pipelines);
    device->pipelines = NULL;
}

VkPipelineLayout pipelines_layout(const struct device *device) {
    return device->pipelines->layout;
}

struct pipeline_key pipeline_key(const struct device *device, const struct kernel_variant *variant,
                                 uint32_t type) {
    struct pipeline_key key = {.variant = variant, .type = type};
    key.spec[SPEC_WORKGROUP] =
        variant->workgroup ? variant->workgroup : device->info.limits.subgroup_size;
    key.spec[SPEC_ROWS] = variant->rows ? variant->rows : 1;
    key.spec[SPEC_COLUMNS] = variant->columns ? variant->columns : 1;
    key.spec[SPEC_HEAD_DIM] = ROW_ALIGNMENT;
    key.spec[SPEC_GROUP] = 1;
    return key;
}

static bool same_key(const struct pipeline_key *a, const struct pipeline_key *b) {
    return a->variant == b->variant && a->type == b->type &&
           memcmp(a->spec, b->spec, sizeof a->spec) == 0;
}

struct pipeline *pipelines_want(struct device *device, const struct pipeline_key *key) {
    struct pipelines *pipelines = device->pipelines;
    for (ptrdiff_t i = 0; i < arrlen(pipelines->all); i++)
        if (same_key(&pipelines->all[i]->key, key))
            return pipelines->all[i];
    struct pipeline *pipeline = calloc(1, sizeof *pipeline);
    if (!pipeline)
        return NULL;
    pipeline->key = *key;
    arrput(pipelines->all, pipeline);
    return pipeline;
}

/* ---- Compiling ---- */

static void name_as_kernel(struct device *device, const struct pipeline_key *key, VkObjectType type,
                           uint64_t handle) {
    struct kernel_info kernel = kernel_info(key->variant->kernel);
    char name[128];
    snprintf(name, sizeof name, "%s %s%s%s", kernel.name, key->variant->name,
             kernel.typed ? " " : "", kernel.typed ? weight_type_info(key->type)->name : "");
    device_name_object(device, type, handle, name);
}

static VkResult create_pipeline(struct device *device, const struct pipeline_key *key,
                                VkShaderModule module, VkPipeline *handle) {
    VkSpecializationMapEntry entries[SPEC_COUNT];
    for (uint32_t i = 0; i < SPEC_COUNT; i++)
        entries[i] = (VkSpecializationMapEntry){i, i * 4, 4};
    VkSpecializationInfo special = {SPEC_COUNT, entries, sizeof key->spec, key->spec};
    VkPipelineShaderStageRequiredSubgroupSizeCreateInfo size = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_REQUIRED_SUBGROUP_SIZE_CREATE_INFO,
        .requiredSubgroupSize = key->spec[SPEC_WORKGROUP]};
    bool sized = key->variant->workgroup == 0;
    /* dispatches may be cut (recording_part) */
    VkPipelineCreateFlags flags =
        VK_PIPELINE_CREATE_DISPATCH_BASE_BIT |
        (device->executable_properties ? VK_PIPELINE_CREATE_CAPTURE_STATISTICS_BIT_KHR : 0) |
        (device->machine_code ? VK_PIPELINE_CREATE_CAPTURE_INTERNAL_REPRESENTATIONS_BIT_KHR : 0);
    VkComputePipelineCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO,
        .flags = flags,
        .stage = {.sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO,
                  .pNext = sized && device->info.limits.subgroup_settable ? &size : NULL,
                  .flags = sized ? VK_PIPELINE_SHADER_STAGE_CREATE_REQUIRE_FULL_SUBGROUPS_BIT : 0,
                  .stage = VK_SHADER_STAGE_COMPUTE_BIT,
                  .module = module,
                  .pName = "main",
                  .pSpecializationInfo = &special},
        .layout = device->pipelines->layout,
    };
    VkResult code = device->vk.CreateComputePipelines(device->handle, device->pipelines->cache, 1,
                                                      &info, device->allocator, handle);
    if (code)
        *handle = VK_NULL_HANDLE;
    return code;
}

static VkResult compile(struct device *device, struct pipeline *pipeline) {
    const struct pipeline_key *key = &pipeline->key;
    const uint32_t *words = key->variant->module[key->type].words;
    const uint32_t *end = key->variant->module[key->type].end;
    VkShaderModuleCreateInfo info = {.sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO,
                                     .codeSize = (size_t)(end - words) * sizeof *words,
                                     .pCode = words};
    VkShaderModule module;
    VkResult code =
        device->vk.CreateShaderModule(device->handle, &info, device->allocator, &module);
    if (code)
        return code;
    name_as_kernel(device, key, VK_OBJECT_TYPE_SHADER_MODULE, (uint64_t)module);
    code = create_pipeline(device, key, module, &pipeline->handle);
    device->vk.DestroyShaderModule(device->handle, module, device->allocator);
    if (!code)
        name_as_kernel(device, key, VK_OBJECT_TYPE_PIPELINE, (uint64_t)pipeline->handle);
    return code;
}

/* Work shared by the threads of one pipelines_compile. */
struct compilation {
    struct device *device;
    struct platform_mutex *mutex;
    struct pipeline **pending; /* stb_ds */
    uint32_t next, done;
    bool cancelled;
    VkResult failed;
    const struct pipeline *culprit;
};

static struct pipeline *take(struct compilation *work) {
    platform_mutex_lock(work->mutex);
    struct pipeline *pipeline = NULL;
    if (!work->failed && !work->cancelled && work->next < (uint32_t)arrlen(work->pending))
        pipeline = work->pending[work->next++];
    platform_mutex_unlock(work->mutex);
    return pipeline;
}

static uint32_t finish(struct compilation *work, const struct pipeline *pipeline, VkResult code) {
    platform_mutex_lock(work->mutex);
    if (code) {
        work->failed = code;
        work->culprit = pipeline;
    }
    uint32_t done = work->done += !code;
    platform_mutex_unlock(work->mutex);
    return done;
}

/* Compiles one more; how many are done then, or 0 if there is none left or one failed. */
static uint32_t compile_next(struct compilation *work) {
    struct pipeline *pipeline = take(work);
    if (!pipeline)
        return 0;
    VkResult code = compile(work->device, pipeline);
    uint32_t done = finish(work, pipeline, code);
    return code ? 0 : done;
}

static void compile_all(void *user) {
    while (compile_next(user)) {
    }
}

static void cancel(struct compilation *work) {
    platform_mutex_lock(work->mutex);
    work->cancelled = true;
    platform_mutex_unlock(work->mutex);
}

static peridot_result refuse(struct device *device, VkResult code, const struct pipeline *culprit,
                             peridot_error *error) {
    char what[128];
    const struct kernel_variant *variant = culprit->key.variant;
    snprintf(what, sizeof what, "compiling kernel %s, variant %s",
             kernel_info(variant->kernel).name, variant->name);
    return device_fail(device, code, what, error);
}

static peridot_result run(struct compilation *work, bool (*progress)(uint32_t, uint32_t, void *),
                          void *user, peridot_error *error) {
    struct device *device = work->device;
    uint32_t all = (uint32_t)arrlen(work->pending);
    struct platform_thread *threads[THREADS_MAX] = {0};
    uint32_t helpers = device->threads > THREADS_MAX ? THREADS_MAX : device->threads;
    helpers = helpers > all ? all : helpers;
    for (uint32_t i = 1; i < helpers; i++)
        threads[i] = platform_thread_start(compile_all, work);
    uint32_t told = 0;
    for (uint32_t done; (done = compile_next(work)) > 0; told = done)
        if (progress && !progress(done, all, user))
            cancel(work);
    for (uint32_t i = 1; i < helpers; i++)
        platform_thread_join(threads[i]);
    if (progress && work->done == all && told < all)
        (void)progress(all, all, user); /* another thread finished the last one */
    device->pipelines->statistics.compiled += work->done;
    if (work->failed)
        return refuse(device, work->failed, work->culprit, error);
    if (work->cancelled && work->done < all)
        return fail(error, PERIDOT_ERROR_CANCELLED, "compiling pipelines was cancelled");
    return PERIDOT_OK;
}

peridot_result pipelines_compile(struct device *device,
                                 bool (*progress)(uint32_t done, uint32_t all, void *user),
                                 void *user, peridot_error *error) {
    struct pipelines *pipelines = device->pipelines;
    struct compilation work = {.device = device, .mutex = platform_mutex_create()};
    if (!work.mutex)
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory while compiling pipelines");
    double start = platform_seconds();
    for (ptrdiff_t i = 0; i < arrlen(pipelines->all); i++)
        if (!pipelines->all[i]->handle)
            arrput(work.pending, pipelines->all[i]);
    peridot_result result = PERIDOT_OK;
    if (arrlen(work.pending)) {
        result = run(&work, progress, user, error);
        pipelines->statistics.seconds += platform_seconds() - start;
        save_cache(device);
    }
    arrfree(work.pending);
    platform_mutex_destroy(work.mutex);
    return result;
}

uint32_t pipelines_missing(const struct device *device) {
    const struct pipelines *pipelines = device->pipelines;
    uint32_t missing = 0;
    for (ptrdiff_t i = 0; i < arrlen(pipelines->all); i++)
        missing += !pipelines->all[i]->handle;
    return missing;
}

void pipelines_forget(struct device *device) {
    struct pipelines *pipelines = device->pipelines;
    for (ptrdiff_t i = arrlen(pipelines->all); i-- > 0;)
        if (!pipelines->all[i]->handle) {
            free(pipelines->all[i]);
            arrdelswap(pipelines->all, i);
        }
}

peridot_result pipelines_compile_one(struct device *device, uint32_t *left, peridot_error *error) {
    struct pipelines *pipelines = device->pipelines;
    struct pipeline *pipeline = NULL;
    double start = platform_seconds();
    VkResult code = VK_SUCCESS;
    for (ptrdiff_t i = 0; i < arrlen(pipelines->all) && !pipeline; i++)
        if (!pipelines->all[i]->handle)
            pipeline = pipelines->all[i];
    if (pipeline)
        code = compile(device, pipeline);
    else
        save_cache(device);
    pipelines->statistics.compiled += pipeline && !code;
    pipelines->statistics.seconds += platform_seconds() - start;
    *left = pipelines_missing(device);
    return code ? refuse(device, code, pipeline, error) : PERIDOT_OK;
}

void pipelines_statistics(const struct device *device, struct pipelines_statistics *statistics) {
    *statistics = device->pipelines->statistics;
}
