/* The public face of devices. */
#include "caller_struct.h"
#include "model.h"
#include "platform.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *peridot_version(void) {
    return PERIDOT_VERSION;
}

static void describe(const struct device_info *info, peridot_device_info *out) {
    *out = (peridot_device_info){
        .index = info->index,
        .kind = device_kind(info),
        .memory_total = info->memory_total,
        .memory_free = info->memory_free,
        .max_allocation = info->limits.max_allocation,
        .subgroup_size = info->limits.subgroup_size,
        .usable = info->unsuitable[0] == '\0',
    };
    snprintf(out->name, sizeof out->name, "%s", info->name);
    snprintf(out->driver, sizeof out->driver, "%.150s %.150s", info->driver, info->driver_info);
    snprintf(out->reason, sizeof out->reason, "%s", info->unsuitable);
    const uint8_t *u = info->uuid;
    snprintf(out->uuid, sizeof out->uuid,
             "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", u[0], u[1],
             u[2], u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13], u[14],
             u[15]);
}

static void describe_tuning(const struct tuning *tuning, peridot_device_info *out) {
    out->tuned = tuning_count(tuning);
    out->tuned_away = tuning_count_away(tuning);
    out->tuned_at = tuning->made;
}

/* What a device that is not open would be tuned to. */
static void describe_kept_tuning(const struct device_info *info, peridot_device_info *out) {
    char directory[4096];
    struct device device = {.info = *info, .needs_met = info->needs_met};
    struct tuning tuning;
    if (!out->usable || !platform_cache_directory(directory, sizeof directory))
        return;
    tuning_read(&device, directory, &tuning, out->tuning_warning);
    describe_tuning(&tuning, out);
    tuning_free(&tuning);
}

peridot_result peridot_devices_list(peridot_device_info *devices, uint32_t capacity,
                                    uint32_t *count, peridot_error *error) {
    struct device_list list;
    if (!count || (capacity && !devices))
        return fail(error, PERIDOT_ERROR_ARGUMENT,
                    "peridot_devices_list needs a place for the count, and for the records");
    *count = 0;
    if (capacity && devices->struct_size < sizeof devices->struct_size)
        return fail(error, PERIDOT_ERROR_ARGUMENT,
                    "peridot_device_info: set the first one's struct_size to sizeof it");
    peridot_result result = device_list_open(NULL, &list, error);
    if (result)
        return result;
    *count = list.count;
    size_t stride = capacity ? devices->struct_size : 0;
    for (uint32_t i = 0; i < list.count && i < capacity; i++) {
        char *place = (char *)devices + i * stride;
        peridot_device_info info;
        describe(&list.devices[i], &info);
        describe_kept_tuning(&list.devices[i], &info);
        info.chosen = list.best == (int32_t)i;
        if (info.chosen)
            snprintf(info.reason, sizeof info.reason, "%s", list.reason);
        memcpy(place, &stride, sizeof stride);
        caller_struct_write(place, &info, sizeof info);
    }
    device_list_close(&list);
    return PERIDOT_OK;
}

_Static_assert((int)PRIORITY_LOW == (int)PERIDOT_PRIORITY_LOW &&
                   (int)PRIORITY_HIGH == (int)PERIDOT_PRIORITY_HIGH,
               "callers and the engine count the priorities alike");

struct opening {
    struct device_params engine;
    bool tuned;
};

static peridot_result engine_params(const peridot_device_params *params, struct opening *out,
                                    peridot_error *error) {
    peridot_device_params given;
    peridot_result result =
        caller_struct_read(&given, sizeof given, params, "peridot_device_params", error);
    if (!result && (unsigned)given.priority > PERIDOT_PRIORITY_HIGH)
        result = fail(error, PERIDOT_ERROR_ARGUMENT,
                      "peridot_device_params: a priority is default, low, medium or high");
    out->tuned = !given.no_tuning && !given.minimal;
    out->engine = (struct device_params){
        .choice = given.choice,
        .validation = given.validation,
        .minimal = given.minimal,
        .max_allocation = given.max_allocation,
        .memory_limit = given.memory_limit,
        .priority = (enum device_priority)given.priority,
        .threads = given.threads,
        .cache_directory = given.cache_directory,
        .message = given.message,
        .message_user = given.message_user,
    };
    return result;
}

static void read_tuning(peridot_device *device, const struct opening *opening) {
    const char *directory = device->engine->cache_directory;
    if (!opening->tuned || !directory)
        return;
    tuning_read(device->engine, directory, &device->tuning, device->tuning_warning);
    if (device->tuning_warning[0] && opening->engine.message)
        opening->engine.message(device->tuning_warning, opening->engine.message_user);
}

/* Wraps an engine device, or closes it where there is no memory even for that. */
static peridot_result wrap(struct device *engine, const struct opening *opening,
                           peridot_device **device, peridot_error *error) {
    *device = calloc(1, sizeof **device);
    if (!*device) {
        device_close(engine);
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory while opening a device");
    }
    (*device)->engine = engine;
    read_tuning(*device, opening);
    return PERIDOT_OK;
}

peridot_result peridot_device_open(const peridot_device_params *params, peridot_device **device,
                                   peridot_error *error) {
    struct opening given;
    struct device *engine;
    if (!device)
        return fail(error, PERIDOT_ERROR_ARGUMENT,
                    "peridot_device_open needs a place for the device");
    *device = NULL;
    peridot_result result = engine_params(params, &given, error);
    if (!result)
        result = device_open(&given.engine, &engine, error);
    return result ? result : wrap(engine, &given, device, error);
}

/* What was enabled, as the application tells in either way. */
static peridot_result take_requirements(peridot_adoption *given, peridot_error *error) {
    const peridot_device_requirements *with = given->created_with;
    if (!with)
        return PERIDOT_OK;
    if (with->struct_size < offsetof(peridot_device_requirements, vulkan11))
        return fail(error, PERIDOT_ERROR_ARGUMENT,
                    "peridot_adoption::created_with must be as peridot_requirements_for filled it "
                    "in: its struct_size is %zu",
                    with->struct_size);
    if (!given->features)
        given->features = &with->features;
    if (!given->extensions) {
        given->extensions = with->extensions;
        given->extension_count = with->extension_count;
    }
    return PERIDOT_OK;
}

peridot_result peridot_device_adopt(const peridot_adoption *adoption,
                                    const peridot_device_params *params, peridot_device **device,
                                    peridot_error *error) {
    peridot_adoption given;
    struct opening with;
    if (device)
        *device = NULL;
    if (!adoption || !device)
        return fail(error, PERIDOT_ERROR_ARGUMENT,
                    "peridot_device_adopt needs an adoption and a place for the device");
    peridot_result result =
        caller_struct_read(&given, sizeof given, adoption, "peridot_adoption", error);
    if (!result)
        result = take_requirements(&given, error);
    if (!result)
        result = engine_params(params, &with, error);
    if (result)
        return result;
    struct device_adoption from = {
        .instance = given.instance,
        .physical = given.physical_device,
        .device = given.device,
        .get_instance_proc_addr = given.get_instance_proc_addr,
        .queue = given.queue,
        .queue_family = given.queue_family,
        .extensions = given.extensions,
        .extension_count = given.extension_count,
        .features = given.features,
        .allocator = given.allocator,
        .pipeline_cache = given.pipeline_cache,
        .callbacks = {given.lock_queue, given.unlock_queue, given.user},
        .transfer_queue = given.transfer_queue,
        .transfer_family = given.transfer_family,
        .transfer_callbacks = {given.lock_transfer_queue, given.unlock_transfer_queue, given.user},
    };
    struct device *engine;
    result = device_adopt(&from, &with.engine, &engine, error);
    return result ? result : wrap(engine, &with, device, error);
}

void peridot_requirements_get(peridot_requirements *requirements) {
    uint32_t count = 0;
    while (device_recommended_extensions[count])
        count++;
    peridot_requirements full = {
        .api_version = VK_API_VERSION_1_3,
        .features = device_required_chain(),
        .recommended_extensions = device_recommended_extensions,
        .recommended_extension_count = count,
        .queue_flags = VK_QUEUE_COMPUTE_BIT,
    };
    caller_struct_write(requirements, &full, sizeof full);
}

/* For a caller that knows both of these. */
static void link_queue(peridot_device_requirements *given) {
    if (given->struct_size >= offsetof(peridot_device_requirements, global_priority) +
                                  sizeof given->global_priority &&
        given->global_priority.sType)
        given->queue_next = &given->global_priority;
}

/* Links the caller's structs, as far as the caller knows them and the device has them: vulkan13 is
 * the last, for the caller to chain others to. */
static void link_features(peridot_device_requirements *given) {
    void **next = &given->features.pNext;
#define LINK(member)                                                                               \
    if (given->struct_size >=                                                                      \
            offsetof(peridot_device_requirements, member) + sizeof given->member &&                \
        given->member.sType) {                                                                     \
        *next = &given->member;                                                                    \
        next = &given->member.pNext;                                                               \
    }
    LINK(vulkan11)
    LINK(vulkan12)
    LINK(memory_priority)
    LINK(pageable_memory)
    LINK(occupancy_priority)
    LINK(vulkan13)
#undef LINK
}

peridot_result peridot_requirements_for(VkInstance instance, VkPhysicalDevice physical_device,
                                        PFN_vkGetInstanceProcAddr get_instance_proc_addr,
                                        peridot_device_requirements *requirements,
                                        peridot_error *error) {
    if (!instance || !physical_device || !get_instance_proc_addr || !requirements)
        return fail(error, PERIDOT_ERROR_ARGUMENT,
                    "peridot_requirements_for needs an instance, a physical device and "
                    "vkGetInstanceProcAddr");
    if (requirements->struct_size < sizeof requirements->struct_size)
        return fail(error, PERIDOT_ERROR_ARGUMENT,
                    "peridot_device_requirements: set struct_size to sizeof it");
    struct device_info info;
    peridot_result result =
        device_describe_physical(instance, physical_device, get_instance_proc_addr, &info, error);
    if (result)
        return result;
    struct device_features features;
    device_required_features(&features);
    struct device_optional_features optional;
    device_optional_features(&info, &optional);
    peridot_device_requirements full = {
        .usable = !info.unsuitable[0],
        .api_version = VK_API_VERSION_1_3,
        .queue_family = info.queue_family,
        .transfer_family = info.transfer_family,
        .features = features.base,
        .vulkan11 = features.v11,
        .vulkan12 = features.v12,
        .vulkan13 = features.v13,
        .memory_priority = optional.memory_priority,
        .pageable_memory = optional.pageable_memory,
        .occupancy_priority = {.sType = optional.occupancy_priority.sType,
                               .computeOccupancyPriority =
                                   optional.occupancy_priority.computeOccupancyPriority},
    };
    full.features.pNext = full.vulkan11.pNext = full.vulkan12.pNext = NULL;
    full.extension_count = device_extensions(&info, full.extensions);
    if (info.lists_low_priority) {
        full.extensions[full.extension_count++] = info.global_priority;
        full.global_priority = (VkDeviceQueueGlobalPriorityCreateInfoKHR){
            .sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_GLOBAL_PRIORITY_CREATE_INFO_KHR,
            .globalPriority = VK_QUEUE_GLOBAL_PRIORITY_LOW_KHR};
    }
    if (!full.usable)
        snprintf(full.reason, sizeof full.reason, "%.255s cannot run Peridot: %s", info.name,
                 info.unsuitable);
    caller_struct_write(requirements, &full, sizeof full);
    link_features(requirements);
    link_queue(requirements);
    return PERIDOT_OK;
}

void peridot_device_describe(const peridot_device *device, peridot_device_info *info) {
    peridot_device_info full;
    describe(&device->engine->info, &full);
    full.memory_free = device_memory_free(device->engine);
    full.memory_used = device->engine->memory_used;
    full.memory_limit = device->engine->memory_limit;
    describe_tuning(&device->tuning, &full);
    memcpy(full.tuning_warning, device->tuning_warning, sizeof full.tuning_warning);
    caller_struct_write(info, &full, sizeof full);
}

peridot_result peridot_device_memory_limit(peridot_device *device, uint64_t bytes,
                                           peridot_error *error) {
    if (!device)
        return fail(error, PERIDOT_ERROR_ARGUMENT, "peridot_device_memory_limit needs a device");
    device->engine->memory_limit = bytes;
    return PERIDOT_OK;
}

void peridot_device_close(peridot_device *device) {
    if (!device)
        return;
    device_close(device->engine);
    tuning_free(&device->tuning);
    free(device);
}
