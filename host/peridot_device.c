/* The public face of devices. */
#include "model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *peridot_version(void) {
    return PERIDOT_VERSION;
}

static const char *kind_name(VkPhysicalDeviceType type) {
    switch (type) {
    case VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU:
        return "discrete";
    case VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU:
        return "integrated";
    case VK_PHYSICAL_DEVICE_TYPE_VIRTUAL_GPU:
        return "virtual";
    case VK_PHYSICAL_DEVICE_TYPE_CPU:
        return "software";
    default:
        return "other";
    }
}

static void describe(const struct device_info *info, peridot_device_info *out) {
    *out = (peridot_device_info){
        .index = info->index,
        .kind = kind_name(info->type),
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

peridot_result peridot_devices_list(peridot_device_info *devices, uint32_t capacity,
                                    uint32_t *count, peridot_error *error) {
    struct device_list list;
    *count = 0;
    peridot_result result = device_list_open(NULL, &list, error);
    if (result)
        return result;
    *count = list.count;
    for (uint32_t i = 0; i < list.count && i < capacity; i++) {
        describe(&list.devices[i], &devices[i]);
        devices[i].chosen = list.best == (int32_t)i;
        if (devices[i].chosen)
            snprintf(devices[i].reason, sizeof devices[i].reason, "%s", list.reason);
    }
    device_list_close(&list);
    return PERIDOT_OK;
}

static struct device_params engine_params(const peridot_device_params *params) {
    peridot_device_params given = {0};
    if (params)
        memcpy(&given, params,
               params->struct_size < sizeof given ? params->struct_size : sizeof given);
    return (struct device_params){
        .choice = given.choice,
        .validation = given.validation,
        .minimal = given.minimal,
        .max_allocation = given.max_allocation,
        .threads = given.threads,
        .cache_directory = given.cache_directory,
        .message = given.message,
        .message_user = given.message_user,
    };
}

/* Wraps an engine device, or closes it where there is no memory even for that. */
static peridot_result wrap(struct device *engine, peridot_device **device, peridot_error *error) {
    *device = calloc(1, sizeof **device);
    if (!*device) {
        device_close(engine);
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory while opening a device");
    }
    (*device)->engine = engine;
    return PERIDOT_OK;
}

peridot_result peridot_device_open(const peridot_device_params *params, peridot_device **device,
                                   peridot_error *error) {
    struct device_params given = engine_params(params);
    struct device *engine;
    *device = NULL;
    peridot_result result = device_open(&given, &engine, error);
    return result ? result : wrap(engine, device, error);
}

peridot_result peridot_device_adopt(const peridot_adoption *adoption,
                                    const peridot_device_params *params, peridot_device **device,
                                    peridot_error *error) {
    peridot_adoption given = {0};
    if (!adoption || !device)
        return fail(error, PERIDOT_ERROR_ARGUMENT, "peridot_device_adopt needs an adoption");
    *device = NULL;
    memcpy(&given, adoption,
           adoption->struct_size < sizeof given ? adoption->struct_size : sizeof given);
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
        .callbacks = {given.lock_queue, given.unlock_queue, given.user},
    };
    struct device_params with = engine_params(params);
    struct device *engine;
    peridot_result result = device_adopt(&from, &with, &engine, error);
    return result ? result : wrap(engine, device, error);
}

void peridot_requirements_get(peridot_requirements *requirements) {
    /* written alike by every caller, so that a race is harmless */
    static struct device_features features;
    device_required_features(&features);
    size_t size = requirements->struct_size;
    uint32_t count = 0;
    while (device_recommended_extensions[count])
        count++;
    peridot_requirements full = {
        .struct_size = size,
        .api_version = VK_API_VERSION_1_3,
        .features = &features.base,
        .recommended_extensions = device_recommended_extensions,
        .recommended_extension_count = count,
        .queue_flags = VK_QUEUE_COMPUTE_BIT,
    };
    memcpy(requirements, &full, size < sizeof full ? size : sizeof full);
}

void peridot_device_describe(const peridot_device *device, peridot_device_info *info) {
    describe(&device->engine->info, info);
    info->memory_free = device_memory_free(device->engine);
}

void peridot_device_close(peridot_device *device) {
    if (!device)
        return;
    device_close(device->engine);
    free(device);
}
