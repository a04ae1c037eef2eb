/* Opening a device of one's own, or adopting an application's. */
#include "device.h"
#include "pipelines.h"
#include "platform.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const device_recommended_extensions[] = {
    VK_EXT_MEMORY_BUDGET_EXTENSION_NAME, VK_EXT_MEMORY_PRIORITY_EXTENSION_NAME,
    VK_EXT_PAGEABLE_DEVICE_LOCAL_MEMORY_EXTENSION_NAME,
    VK_NV_COMPUTE_OCCUPANCY_PRIORITY_EXTENSION_NAME, NULL};

/* Linked for good: a guest's threads may look at it at any time. */
static struct device_features required = {
    .base = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2, .pNext = &required.v11},
    .v11 = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES, .pNext = &required.v12},
    .v12 = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES,
            .pNext = &required.v13,
            .bufferDeviceAddress = VK_TRUE,
            .timelineSemaphore = VK_TRUE},
    .v13 = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_3_FEATURES,
            .synchronization2 = VK_TRUE,
            .maintenance4 = VK_TRUE,
            .shaderIntegerDotProduct = VK_TRUE,
            .subgroupSizeControl = VK_TRUE,
            .computeFullSubgroups = VK_TRUE},
};

const VkPhysicalDeviceFeatures2 *device_required_chain(void) {
    return &required.base;
}

void device_required_features(struct device_features *features) {
    *features = required;
    features->base.pNext = &features->v11;
    features->v11.pNext = &features->v12;
    features->v12.pNext = &features->v13;
}

uint32_t device_extensions(const struct device_info *info,
                           const char *names[DEVICE_EXTENSIONS_MAX]) {
    uint32_t count = 0;
    if (info->has_memory_budget)
        names[count++] = VK_EXT_MEMORY_BUDGET_EXTENSION_NAME;
    if (info->portability_subset)
        names[count++] = "VK_KHR_portability_subset";
    if (info->has_memory_priority)
        names[count++] = VK_EXT_MEMORY_PRIORITY_EXTENSION_NAME;
    if (info->has_pageable_memory)
        names[count++] = VK_EXT_PAGEABLE_DEVICE_LOCAL_MEMORY_EXTENSION_NAME;
    if (info->has_occupancy_priority)
        names[count++] = VK_NV_COMPUTE_OCCUPANCY_PRIORITY_EXTENSION_NAME;
    return count;
}

/* vkSetDeviceMemoryPriorityEXT is not called: all of a session's memory and its model's is needed
 * at every step, and a suspended session has none. */
void device_optional_features(const struct device_info *info,
                              struct device_optional_features *features) {
    *features = (struct device_optional_features){0};
    if (info->has_memory_priority)
        features->memory_priority = (VkPhysicalDeviceMemoryPriorityFeaturesEXT){
            .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_PRIORITY_FEATURES_EXT,
            .memoryPriority = VK_TRUE};
    if (info->has_pageable_memory)
        features->pageable_memory = (VkPhysicalDevicePageableDeviceLocalMemoryFeaturesEXT){
            .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PAGEABLE_DEVICE_LOCAL_MEMORY_FEATURES_EXT,
            .pageableDeviceLocalMemory = VK_TRUE};
    if (info->has_occupancy_priority)
        features->occupancy_priority = (VkPhysicalDeviceComputeOccupancyPriorityFeaturesNV){
            .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COMPUTE_OCCUPANCY_PRIORITY_FEATURES_NV,
            .computeOccupancyPriority = VK_TRUE};
}

/* ---- Errors and names ---- */

peridot_result device_fail(struct device *device, VkResult code, const char *what,
                           peridot_error *error) {
    switch (code) {
    case VK_ERROR_DEVICE_LOST:
        device->lost = true;
        return fail(error, PERIDOT_ERROR_DEVICE_LOST,
                    "the device %s was lost while %s: its sessions cannot continue, open it again",
                    device->info.name, what);
    case VK_ERROR_OUT_OF_DEVICE_MEMORY:
        return fail(error, PERIDOT_ERROR_DEVICE_MEMORY,
                    "%s ran out of device memory while %s: close other programs, or use a smaller "
                    "--context",
                    device->info.name, what);
    case VK_ERROR_OUT_OF_HOST_MEMORY:
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of host memory while %s", what);
    default:
        return fail(error, PERIDOT_ERROR_VULKAN, "%s failed on %s (Vulkan error %d)", what,
                    device->info.name, (int)code);
    }
}

void device_name_object(struct device *device, VkObjectType type, uint64_t handle,
                        const char *name) {
    if (!device->debug_names || !handle)
        return;
    VkDebugUtilsObjectNameInfoEXT info = {
        .sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_OBJECT_NAME_INFO_EXT,
        .objectType = type,
        .objectHandle = handle,
        .pObjectName = name,
    };
    (void)device->vk.SetDebugUtilsObjectNameEXT(device->handle, &info);
}

uint64_t device_memory_free(struct device *device) {
    struct device_info info = device->info;
    info.has_memory_budget = device->memory_budget; /* as enabled */
    device_measure_memory(&device->vi, device->memory_used, &info);
    return info.memory_free;
}

/* ---- Setting up ---- */

static bool copy_cache_directory(struct device *device, const struct device_params *params) {
    char path[4096];
    const char *directory = params ? params->cache_directory : NULL;
    if (!directory && platform_cache_directory(path, sizeof path))
        directory = path;
    if (!directory || !*directory)
        return true;
    device->cache_directory = malloc(strlen(directory) + 1);
    if (device->cache_directory)
        memcpy(device->cache_directory, directory, strlen(directory) + 1);
    return device->cache_directory != NULL;
}

static void load_optional(struct device *device) {
    /* NULL unless the instance, which may be an application's, has VK_EXT_debug_utils enabled */
#define LOAD(name)                                                                                 \
    device->vk.name = (PFN_vk##name)device->vi.GetInstanceProcAddr(device->instance, "vk" #name);
    LOAD(SetDebugUtilsObjectNameEXT)
    LOAD(CmdBeginDebugUtilsLabelEXT)
    LOAD(CmdEndDebugUtilsLabelEXT)
#undef LOAD
    device->debug_names = device->vk.SetDebugUtilsObjectNameEXT &&
                          device->vk.CmdBeginDebugUtilsLabelEXT &&
                          device->vk.CmdEndDebugUtilsLabelEXT;
#define LOAD(name)                                                                                 \
    device->vk.name = (PFN_vk##name)device->vi.GetDeviceProcAddr(device->handle, "vk" #name);
    if (device->occupancy_priority)
        LOAD(CmdSetComputeOccupancyPriorityNV)
    if (device->executable_properties) {
        LOAD(GetPipelineExecutablePropertiesKHR)
        LOAD(GetPipelineExecutableStatisticsKHR)
        LOAD(GetPipelineExecutableInternalRepresentationsKHR)
    }
#undef LOAD
}

static peridot_result load_functions(struct device *device, peridot_error *error) {
    const char *missing = NULL;
#define LOAD(name)                                                                                 \
    device->vk.name = (PFN_vk##name)device->vi.GetDeviceProcAddr(device->handle, "vk" #name);      \
    if (!device->vk.name)                                                                          \
        missing = "vk" #name;
    DEVICE_FUNCTIONS(LOAD)
    if (device->owned) {
        OWN_DEVICE_FUNCTIONS(LOAD)
    }
#undef LOAD
    if (missing)
        return fail(error, device->owned ? PERIDOT_ERROR_VULKAN : PERIDOT_ERROR_ARGUMENT,
                    "%s lacks the function %s of Vulkan 1.3 (an application asks for that version "
                    "in VkApplicationInfo)",
                    device->info.name, missing);
    load_optional(device);
    return PERIDOT_OK;
}

/* Vulkan's default is 0.5, and no guest asks for more. */
static float memory_priority(const struct device *device, const struct device_params *params) {
    switch (params ? params->priority : PRIORITY_DEFAULT) {
    case PRIORITY_LOW:
        return 0.25f;
    case PRIORITY_HIGH:
        return device->owned ? 1 : 0.5f;
    default:
        return 0.5f;
    }
}

/* 0 where normal will do: that is what every command buffer begins with. */
static float dispatch_priority(const struct device *device, const struct device_params *params) {
    if (!device->vk.CmdSetComputeOccupancyPriorityNV)
        return 0;
    switch (params ? params->priority : PRIORITY_DEFAULT) {
    case PRIORITY_LOW:
        return VK_COMPUTE_OCCUPANCY_PRIORITY_LOW_NV;
    case PRIORITY_HIGH:
        return VK_COMPUTE_OCCUPANCY_PRIORITY_HIGH_NV;
    default:
        return 0;
    }
}

/* A guest starts no thread that was not allowed. */
static uint32_t thread_count(const struct device *device, const struct device_params *params) {
    if (params && params->threads)
        return params->threads;
    uint32_t processors = platform_processor_count();
    return !device->owned ? 1 : processors > 8 ? 8 : processors;
}

/* What is alike for own and adopted devices, once `handle` and `info` are there. */
static peridot_result set_up(struct device *device, const struct device_params *params,
                             peridot_error *error) {
    device->minimal = params && params->minimal;
    device->needs_met = device->info.needs_met;
    device->threads = thread_count(device, params);
    device->memory_limit = params ? params->memory_limit : 0;
    device->priority = memory_priority(device, params);
    if (!copy_cache_directory(device, params))
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory while opening a device");
    peridot_result result = load_functions(device, error);
    if (result)
        return result;
    device->dispatch_priority = dispatch_priority(device, params);
    if (!device->queue)
        device->vk.GetDeviceQueue(device->handle, device->queue_family, 0, &device->queue);
    VkPhysicalDeviceMemoryProperties2 memory = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_PROPERTIES_2};
    device->vi.GetPhysicalDeviceMemoryProperties2(device->info.physical, &memory);
    device->memory = memory.memoryProperties;
    return pipelines_create(device, error);
}

static VKAPI_ATTR VkBool32 VKAPI_CALL hear(VkDebugUtilsMessageSeverityFlagBitsEXT severity,
                                           VkDebugUtilsMessageTypeFlagsEXT types,
                                           const VkDebugUtilsMessengerCallbackDataEXT *data,
                                           void *user) {
    (void)severity;
    (void)types;
    struct device *device = user;
    if (device->message)
        device->message(data->pMessage, device->message_user);
    return VK_FALSE;
}

static void create_messenger(struct device *device, const struct device_params *params) {
    device->message = params->message;
    device->message_user = params->message_user;
    PFN_vkCreateDebugUtilsMessengerEXT create =
        (PFN_vkCreateDebugUtilsMessengerEXT)device->vi.GetInstanceProcAddr(
            device->instance, "vkCreateDebugUtilsMessengerEXT");
    VkDebugUtilsMessengerCreateInfoEXT info = {
        .sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_MESSENGER_CREATE_INFO_EXT,
        .messageSeverity = VK_DEBUG_UTILS_MESSAGE_SEVERITY_WARNING_BIT_EXT |
                           VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT,
        .messageType = VK_DEBUG_UTILS_MESSAGE_TYPE_VALIDATION_BIT_EXT |
                       VK_DEBUG_UTILS_MESSAGE_TYPE_PERFORMANCE_BIT_EXT,
        .pfnUserCallback = hear,
        .pUserData = device,
    };
    if (create)
        (void)create(device->instance, &info, NULL, &device->messenger);
}

/* What a device of Peridot's own is created with. */
struct device_setup {
    struct device_features features;
    VkPhysicalDevicePipelineExecutablePropertiesFeaturesKHR executable;
    struct device_optional_features optional;
    VkDeviceQueueGlobalPriorityCreateInfoKHR global_priority;
    VkDeviceQueueCreateInfo queue;
    const char *extensions[DEVICE_EXTENSIONS_MAX + 2];
    float queue_priority;
    VkDeviceCreateInfo info;
};

static void enable(struct device_setup *setup, const char *extension) {
    setup->extensions[setup->info.enabledExtensionCount++] = extension;
}

/* Links a struct of features, unless it is empty. */
static void link_features(struct device_setup *setup, void *features) {
    VkBaseOutStructure *head = features;
    VkStructureType type; /* written as another struct's */
    memcpy(&type, features, sizeof type);
    if (!type)
        return;
    head->pNext = (void *)(uintptr_t)setup->info.pNext;
    setup->info.pNext = head;
}

static void set_up_creation(const struct device *device, struct device_setup *setup) {
    *setup = (struct device_setup){.queue_priority = 0.5f};
    device_required_features(&setup->features);
    setup->queue = (VkDeviceQueueCreateInfo){
        .sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
        .queueFamilyIndex = device->queue_family,
        .queueCount = 1,
        .pQueuePriorities = &setup->queue_priority,
    };
    setup->info = (VkDeviceCreateInfo){
        .sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
        .pNext = &setup->features.base,
        .queueCreateInfoCount = 1,
        .pQueueCreateInfos = &setup->queue,
        .ppEnabledExtensionNames = setup->extensions,
    };
    setup->executable = (VkPhysicalDevicePipelineExecutablePropertiesFeaturesKHR){
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PIPELINE_EXECUTABLE_PROPERTIES_FEATURES_KHR,
        .pipelineExecutableInfo = VK_TRUE};
    setup->info.enabledExtensionCount = device_extensions(&device->info, setup->extensions);
    device_optional_features(&device->info, &setup->optional);
    link_features(setup, &setup->optional.memory_priority);
    link_features(setup, &setup->optional.pageable_memory);
    link_features(setup, &setup->optional.occupancy_priority);
    if (device->executable_properties) {
        enable(setup, VK_KHR_PIPELINE_EXECUTABLE_PROPERTIES_EXTENSION_NAME);
        link_features(setup, &setup->executable);
    }
}

/* Asks for the queue's priority among all programs, where there is such a thing. */
static void add_global_priority(const struct device *device, enum device_priority priority,
                                struct device_setup *setup) {
    static const VkQueueGlobalPriorityKHR levels[] = {
        [PRIORITY_LOW] = VK_QUEUE_GLOBAL_PRIORITY_LOW_KHR,
        [PRIORITY_MEDIUM] = VK_QUEUE_GLOBAL_PRIORITY_MEDIUM_KHR,
        [PRIORITY_HIGH] = VK_QUEUE_GLOBAL_PRIORITY_HIGH_KHR,
    };
    if (priority == PRIORITY_DEFAULT || !device->info.global_priority)
        return;
    setup->global_priority = (VkDeviceQueueGlobalPriorityCreateInfoKHR){
        .sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_GLOBAL_PRIORITY_CREATE_INFO_KHR,
        .globalPriority = levels[priority]};
    enable(setup, device->info.global_priority);
    setup->queue.pNext = &setup->global_priority;
}

static peridot_result create_device(struct device *device, const struct device_params *params,
                                    peridot_error *error) {
    struct device_setup setup;
    set_up_creation(device, &setup);
    if (params)
        add_global_priority(device, params->priority, &setup);
    VkDevice handle = VK_NULL_HANDLE;
    VkResult code = device->vi.CreateDevice(device->info.physical, &setup.info, NULL, &handle);
    bool refused = setup.queue.pNext &&
                   (code == VK_ERROR_NOT_PERMITTED_KHR || code == VK_ERROR_INITIALIZATION_FAILED);
    if (refused) {
        setup.queue.pNext = NULL;
        code = device->vi.CreateDevice(device->info.physical, &setup.info, NULL, &handle);
    }
    if (code)
        return device_fail(device, code, "opening the device", error);
    if (refused && params->message)
        params->message("the driver does not permit the queue's priority that was asked for (more "
                        "than medium may need privileges): it has the default one",
                        params->message_user);
    device->handle = handle;
    return PERIDOT_OK;
}

/* The list's library and instance become the device's. */
static void take_over(struct device *device, struct device_list *list) {
    device->owned = true;
    device->vi = list->vi;
    device->library = list->library;
    device->instance = list->instance;
    list->library = NULL;
    list->instance = VK_NULL_HANDLE;
}

peridot_result device_open(const struct device_params *params, struct device **out,
                           peridot_error *error) {
    *out = NULL;
    struct device_list list;
    const struct device_info *picked = NULL;
    peridot_result result = device_list_open(params, &list, error);
    if (!result)
        result = device_list_pick(&list, params ? params->choice : NULL, &picked, error);
    struct device *device = result ? NULL : calloc(1, sizeof *device);
    if (!result && !device)
        result = fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory while opening a device");
    if (!result) {
        device->info = *picked;
        device->queue_family = picked->queue_family;
        device->memory_budget = picked->has_memory_budget;
        device->memory_priority = picked->has_memory_priority;
        device->occupancy_priority = picked->has_occupancy_priority;
        device->executable_properties =
            params && params->statistics && picked->has_executable_properties;
        device->machine_code = device->executable_properties && params->machine_code;
        bool validation = list.validation;
        take_over(device, &list);
        if (validation)
            create_messenger(device, params);
        result = create_device(device, params, error);
    }
    if (!result)
        result = set_up(device, params, error);
    device_list_close(&list);
    if (result)
        device_close(device);
    else
        *out = device;
    return result;
}

/* ---- Adoption ---- */

/* An application's instance, as a list without its devices. */
static peridot_result adopt_instance(VkInstance instance, PFN_vkGetInstanceProcAddr get,
                                     struct device_list *list, peridot_error *error) {
    *list = (struct device_list){.best = -1, .instance = instance};
    list->vi.GetInstanceProcAddr = get;
    const char *missing = device_load_instance(&list->vi, instance);
    if (missing)
        return fail(error, PERIDOT_ERROR_ARGUMENT,
                    "the application's vkGetInstanceProcAddr does not know %s: its instance must "
                    "be of Vulkan 1.3",
                    missing);
    return PERIDOT_OK;
}

peridot_result device_describe_physical(VkInstance instance, VkPhysicalDevice physical,
                                        PFN_vkGetInstanceProcAddr get_instance_proc_addr,
                                        struct device_info *info, peridot_error *error) {
    struct device_list list;
    *info = (struct device_info){.physical = physical};
    peridot_result result = adopt_instance(instance, get_instance_proc_addr, &list, error);
    if (!result)
        device_describe(&list, NULL, UINT32_MAX, info);
    return result;
}

/* What the application enabled, by the structs of 1.2 or 1.3 or the older ones in the chain. */
static const char *missing_feature(const VkPhysicalDeviceFeatures2 *features) {
    bool address = false, timeline = false, sync = false, maintenance = false, size = false,
         full = false;
    const VkBaseInStructure *next = features->pNext;
    for (; next; next = next->pNext) {
        if (next->sType == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES) {
            const VkPhysicalDeviceVulkan12Features *v = (const void *)next;
            address |= v->bufferDeviceAddress;
            timeline |= v->timelineSemaphore;
        } else if (next->sType == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_3_FEATURES) {
            const VkPhysicalDeviceVulkan13Features *v = (const void *)next;
            sync |= v->synchronization2;
            maintenance |= v->maintenance4;
            size |= v->subgroupSizeControl;
            full |= v->computeFullSubgroups;
        } else if (next->sType ==
                   VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_BUFFER_DEVICE_ADDRESS_FEATURES) {
            address |=
                ((const VkPhysicalDeviceBufferDeviceAddressFeatures *)next)->bufferDeviceAddress;
        } else if (next->sType == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_TIMELINE_SEMAPHORE_FEATURES) {
            timeline |=
                ((const VkPhysicalDeviceTimelineSemaphoreFeatures *)next)->timelineSemaphore;
        } else if (next->sType == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SYNCHRONIZATION_2_FEATURES) {
            sync |= ((const VkPhysicalDeviceSynchronization2Features *)next)->synchronization2;
        } else if (next->sType == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MAINTENANCE_4_FEATURES) {
            maintenance |= ((const VkPhysicalDeviceMaintenance4Features *)next)->maintenance4;
        } else if (next->sType ==
                   VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_FEATURES) {
            const VkPhysicalDeviceSubgroupSizeControlFeatures *v = (const void *)next;
            size |= v->subgroupSizeControl;
            full |= v->computeFullSubgroups;
        }
    }
    return !address       ? "bufferDeviceAddress"
           : !timeline    ? "timelineSemaphore"
           : !sync        ? "synchronization2"
           : !maintenance ? "maintenance4"
           : !size        ? "subgroupSizeControl"
           : !full        ? "computeFullSubgroups"
                          : NULL;
}

/* The struct of this type in an application's chain; NULL: there is none. */
static const void *find_features(const VkPhysicalDeviceFeatures2 *features, VkStructureType type) {
    const VkBaseInStructure *next = features->pNext;
    while (next && next->sType != type)
        next = next->pNext;
    return next;
}

static bool has_memory_priority(const VkPhysicalDeviceFeatures2 *features) {
    const VkPhysicalDeviceMemoryPriorityFeaturesEXT *found =
        find_features(features, VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_PRIORITY_FEATURES_EXT);
    return found && found->memoryPriority;
}

static bool has_occupancy_priority(const VkPhysicalDeviceFeatures2 *features) {
    const VkPhysicalDeviceComputeOccupancyPriorityFeaturesNV *found = find_features(
        features, VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COMPUTE_OCCUPANCY_PRIORITY_FEATURES_NV);
    return found && found->computeOccupancyPriority;
}

/* Which no kernel is without: an application that has not enabled it has the others. */
static bool has_packed_dot(const VkPhysicalDeviceFeatures2 *features) {
    const VkPhysicalDeviceVulkan13Features *all =
        find_features(features, VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_3_FEATURES);
    const VkPhysicalDeviceShaderIntegerDotProductFeatures *alone = find_features(
        features, VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_INTEGER_DOT_PRODUCT_FEATURES);
    return (all && all->shaderIntegerDotProduct) || (alone && alone->shaderIntegerDotProduct);
}

static peridot_result check_adoption(const struct device_adoption *adoption, peridot_error *error) {
    if (!adoption->instance || !adoption->physical || !adoption->device ||
        !adoption->get_instance_proc_addr || !adoption->queue)
        return fail(error, PERIDOT_ERROR_ARGUMENT,
                    "adoption needs the instance, physical device, device, queue and "
                    "vkGetInstanceProcAddr");
    if (!adoption->callbacks.lock_queue != !adoption->callbacks.unlock_queue)
        return fail(error, PERIDOT_ERROR_ARGUMENT,
                    "adoption needs both lock_queue and unlock_queue, or neither");
    const struct device_callbacks *transfer = &adoption->transfer_callbacks;
    if (!transfer->lock_queue != !transfer->unlock_queue)
        return fail(
            error, PERIDOT_ERROR_ARGUMENT,
            "adoption needs both lock_transfer_queue and unlock_transfer_queue, or neither");
    if (adoption->extension_count && !adoption->extensions)
        return fail(error, PERIDOT_ERROR_ARGUMENT, "adoption lacks its list of %u extensions",
                    adoption->extension_count);
    const char *missing = adoption->features ? missing_feature(adoption->features) : NULL;
    if (missing)
        return fail(error, PERIDOT_ERROR_ARGUMENT,
                    "the application's device was created without the feature %s: see "
                    "peridot_requirements_get",
                    missing);
    return PERIDOT_OK;
}

static bool has_enabled(const struct device_adoption *adoption, const char *extension) {
    for (uint32_t i = 0; i < adoption->extension_count; i++)
        if (strcmp(adoption->extensions[i], extension) == 0)
            return true;
    return false;
}

/* Another queue than that for compute. */
static peridot_result adopt_transfer_queue(struct device *device,
                                           const struct device_adoption *adoption,
                                           peridot_error *error) {
    if (!adoption->transfer_queue || adoption->transfer_queue == adoption->queue)
        return PERIDOT_OK;
    if (!device_family_copies(&device->vi, adoption->physical, adoption->transfer_family))
        return fail(error, PERIDOT_ERROR_ARGUMENT,
                    "the transfer queue cannot copy: %s has no queue family %u that transfers, "
                    "computes or draws",
                    device->info.name, adoption->transfer_family);
    device->transfer_queue = adoption->transfer_queue;
    device->transfer_family = adoption->transfer_family;
    device->transfer_callbacks = adoption->transfer_callbacks;
    return PERIDOT_OK;
}

peridot_result device_adopt(const struct device_adoption *adoption,
                            const struct device_params *params, struct device **out,
                            peridot_error *error) {
    *out = NULL;
    peridot_result result = check_adoption(adoption, error);
    if (result)
        return result;
    struct device_list list;
    result = adopt_instance(adoption->instance, adoption->get_instance_proc_addr, &list, error);
    if (result)
        return result;
    struct device *device = calloc(1, sizeof *device);
    if (!device)
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory while adopting a device");
    device->vi = list.vi;
    device->instance = adoption->instance;
    device->handle = adoption->device;
    device->queue = adoption->queue;
    device->queue_family = adoption->queue_family;
    device->allocator = adoption->allocator;
    device->callbacks = adoption->callbacks;
    device->info.physical = adoption->physical;
    device_describe(&list, params, adoption->queue_family, &device->info);
    if (!adoption->features || !has_packed_dot(adoption->features))
        device->info.needs_met &= ~(uint32_t)NEEDS_PACKED_DOT;
    device->memory_budget = has_enabled(adoption, VK_EXT_MEMORY_BUDGET_EXTENSION_NAME);
    device->memory_priority = has_enabled(adoption, VK_EXT_MEMORY_PRIORITY_EXTENSION_NAME) &&
                              (!adoption->features || has_memory_priority(adoption->features));
    device->occupancy_priority =
        has_enabled(adoption, VK_NV_COMPUTE_OCCUPANCY_PRIORITY_EXTENSION_NAME) &&
        adoption->features && has_occupancy_priority(adoption->features);
    device->given_cache = adoption->pipeline_cache;
    if (device->info.unsuitable[0])
        result = fail(error, PERIDOT_ERROR_NO_DEVICE, "%s cannot run Peridot: %s",
                      device->info.name, device->info.unsuitable);
    if (!result)
        result = adopt_transfer_queue(device, adoption, error);
    if (!result)
        result = set_up(device, params, error);
    if (result)
        device_close(device);
    else
        *out = device;
    return result;
}

void device_close(struct device *device) {
    if (!device)
        return;
    /* drivers that only compile cannot even wait */
    if (device->owned && device->submitted && !device->lost && device->vk.DeviceWaitIdle)
        (void)device->vk.DeviceWaitIdle(device->handle);
    pipelines_destroy(device);
    if (device->owned) {
        if (device->handle && device->vk.DestroyDevice)
            device->vk.DestroyDevice(device->handle, NULL);
        PFN_vkDestroyDebugUtilsMessengerEXT destroy =
            (PFN_vkDestroyDebugUtilsMessengerEXT)device->vi.GetInstanceProcAddr(
                device->instance, "vkDestroyDebugUtilsMessengerEXT");
        if (device->messenger && destroy)
            destroy(device->instance, device->messenger, NULL);
        if (device->instance)
            device->vi.DestroyInstance(device->instance, NULL);
        platform_close_library(device->library);
    }
    free(device->cache_directory);
    free(device);
}
