/* Finding Vulkan devices, judging them, choosing one. */
#include "device.h"
#include "platform.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const loader_names[] = {"libvulkan.so.1", "libvulkan.1.dylib", "vulkan-1.dll"};

static void open_loader(struct device_list *list) {
    for (size_t i = 0; i < sizeof loader_names / sizeof *loader_names && !list->library; i++)
        list->library = platform_open_library(loader_names[i]);
    if (!list->library)
        return;
    void *symbol = platform_library_symbol(list->library, "vkGetInstanceProcAddr");
    memcpy(&list->vi.GetInstanceProcAddr, &symbol, sizeof symbol);
}

/* ---- Judging ---- */

static void describe_limits(const struct device_params *params,
                            const VkPhysicalDeviceProperties2 *two,
                            const VkPhysicalDeviceVulkan11Properties *v11,
                            const VkPhysicalDeviceVulkan13Properties *v13,
                            struct device_info *info) {
    struct device_limits *limits = &info->limits;
    const VkPhysicalDeviceLimits *own = &two->properties.limits;
    limits->max_workgroup = own->maxComputeWorkGroupInvocations < own->maxComputeWorkGroupSize[0]
                                ? own->maxComputeWorkGroupInvocations
                                : own->maxComputeWorkGroupSize[0];
    limits->max_shared = own->maxComputeSharedMemorySize;
    memcpy(limits->max_grid, own->maxComputeWorkGroupCount, sizeof limits->max_grid);
    limits->max_allocation = v11->maxMemoryAllocationSize < v13->maxBufferSize
                                 ? v11->maxMemoryAllocationSize
                                 : v13->maxBufferSize;
    if (params && params->max_allocation && params->max_allocation < limits->max_allocation)
        limits->max_allocation = params->max_allocation;
    limits->timestamp_period = own->timestampComputeAndGraphics ? own->timestampPeriod : 0;
    limits->non_coherent_atom = own->nonCoherentAtomSize;
    /* 32 suits most; where the default is the only size, or the range ends below, that it is.
     * Ranges that begin at 8 are SIMD widths, of which 16 leaves each lane the most registers
     * without idling. */
    uint32_t wanted = v13->minSubgroupSize == 8 && v13->maxSubgroupSize > 8 ? 16 : 32;
    if (wanted < v13->minSubgroupSize || wanted > v13->maxSubgroupSize)
        wanted = v11->subgroupSize;
    limits->subgroup_size = wanted;
    bool sized = v13->requiredSubgroupSizeStages & VK_SHADER_STAGE_COMPUTE_BIT;
    bool compute = v11->subgroupSupportedStages & VK_SHADER_STAGE_COMPUTE_BIT;
    if (!(params && params->minimal) && sized && compute) {
        if (v11->subgroupSupportedOperations & VK_SUBGROUP_FEATURE_ARITHMETIC_BIT) {
            info->needs_met |= NEEDS_SUBGROUP_ARITHMETIC;
            if (v11->subgroupSupportedOperations & VK_SUBGROUP_FEATURE_SHUFFLE_BIT)
                info->needs_met |= NEEDS_SUBGROUP_SHUFFLE;
        }
    }
    if (params && params->minimal) {
        limits->max_workgroup = limits->max_workgroup < 128 ? limits->max_workgroup : 128;
        limits->max_shared = limits->max_shared < 16384 ? limits->max_shared : 16384;
    }
}

static void find_queue(const struct device_list *list, struct device_info *info) {
    uint32_t count = 0;
    list->vi.GetPhysicalDeviceQueueFamilyProperties2(info->physical, &count, NULL);
    VkQueueFamilyProperties2 families[32];
    count = count < 32 ? count : 32;
    for (uint32_t i = 0; i < count; i++)
        families[i] =
            (VkQueueFamilyProperties2){.sType = VK_STRUCTURE_TYPE_QUEUE_FAMILY_PROPERTIES_2};
    list->vi.GetPhysicalDeviceQueueFamilyProperties2(info->physical, &count, families);
    info->queue_family = UINT32_MAX;
    for (uint32_t i = 0; i < count; i++) {
        VkQueueFlags flags = families[i].queueFamilyProperties.queueFlags;
        bool compute = flags & VK_QUEUE_COMPUTE_BIT;
        /* one without graphics leaves the desktop's queue alone */
        if (compute && (info->queue_family == UINT32_MAX || !(flags & VK_QUEUE_GRAPHICS_BIT))) {
            info->queue_family = i;
            info->limits.timestamp_bits = families[i].queueFamilyProperties.timestampValidBits;
        }
    }
}

static bool has_extension(const struct device_list *list, VkPhysicalDevice physical,
                          const char *name) {
    uint32_t count = 0;
    list->vi.EnumerateDeviceExtensionProperties(physical, NULL, &count, NULL);
    VkExtensionProperties *found = calloc(count ? count : 1, sizeof *found);
    bool has = false;
    if (found && list->vi.EnumerateDeviceExtensionProperties(physical, NULL, &count, found) >= 0)
        for (uint32_t i = 0; i < count && !has; i++)
            has = strcmp(found[i].extensionName, name) == 0;
    free(found);
    return has;
}

static void describe_memory(const struct device_list *list, struct device_info *info) {
    VkPhysicalDeviceMemoryBudgetPropertiesEXT budget = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_BUDGET_PROPERTIES_EXT};
    VkPhysicalDeviceMemoryProperties2 memory = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_PROPERTIES_2};
    info->has_memory_budget =
        has_extension(list, info->physical, VK_EXT_MEMORY_BUDGET_EXTENSION_NAME);
    if (info->has_memory_budget)
        memory.pNext = &budget;
    list->vi.GetPhysicalDeviceMemoryProperties2(info->physical, &memory);
    for (uint32_t i = 0; i < memory.memoryProperties.memoryHeapCount; i++) {
        if (!(memory.memoryProperties.memoryHeaps[i].flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT))
            continue;
        uint64_t size = memory.memoryProperties.memoryHeaps[i].size, free = size;
        if (info->has_memory_budget && budget.heapBudget[i] > 0)
            free = budget.heapBudget[i] > budget.heapUsage[i]
                       ? budget.heapBudget[i] - budget.heapUsage[i]
                       : 0;
        info->memory_total += size;
        info->memory_free += free;
    }
}

/* Features that the required list has and the device does not. */
static void judge_features(const struct device_list *list, struct device_info *info) {
    struct device_features has;
    device_required_features(&has);
    list->vi.GetPhysicalDeviceFeatures2(info->physical, &has.base);
    const struct {
        VkBool32 there;
        const char *name;
    } needed[] = {
        {has.v12.bufferDeviceAddress, "bufferDeviceAddress"},
        {has.v12.timelineSemaphore, "timelineSemaphore"},
        {has.v13.synchronization2, "synchronization2"},
        {has.v13.maintenance4, "maintenance4"},
        {has.v13.subgroupSizeControl, "subgroupSizeControl"},
        {has.v13.computeFullSubgroups, "computeFullSubgroups"},
    };
    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++)
        if (!needed[i].there)
            snprintf(info->unsuitable, sizeof info->unsuitable, "it lacks the feature %s",
                     needed[i].name);
}

static void describe(const struct device_list *list, const struct device_params *params,
                     struct device_info *info) {
    VkPhysicalDeviceVulkan13Properties v13 = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_3_PROPERTIES};
    VkPhysicalDeviceVulkan12Properties v12 = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_PROPERTIES, .pNext = &v13};
    VkPhysicalDeviceVulkan11Properties v11 = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_PROPERTIES, .pNext = &v12};
    VkPhysicalDeviceProperties2 two = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2};
    list->vi.GetPhysicalDeviceProperties2(info->physical, &two);
    bool new_enough = two.properties.apiVersion >= VK_API_VERSION_1_3;
    if (new_enough) {
        two.pNext = &v11;
        list->vi.GetPhysicalDeviceProperties2(info->physical, &two);
    }
    memcpy(info->name, two.properties.deviceName, sizeof info->name);
    memcpy(info->driver, v12.driverName, sizeof info->driver);
    memcpy(info->driver_info, v12.driverInfo, sizeof info->driver_info);
    memcpy(info->uuid, v11.deviceUUID, sizeof info->uuid);
    info->type = two.properties.deviceType;
    info->vendor_id = two.properties.vendorID;
    info->device_id = two.properties.deviceID;
    info->driver_version = two.properties.driverVersion;
    info->api_version = two.properties.apiVersion;
    describe_memory(list, info);
    find_queue(list, info);
    if (!new_enough) {
        snprintf(info->unsuitable, sizeof info->unsuitable,
                 "it has Vulkan %u.%u and Peridot needs 1.3: a newer driver may help",
                 VK_API_VERSION_MAJOR(info->api_version), VK_API_VERSION_MINOR(info->api_version));
        return;
    }
    describe_limits(params, &two, &v11, &v13, info);
    judge_features(list, info);
    if (info->queue_family == UINT32_MAX)
        snprintf(info->unsuitable, sizeof info->unsuitable, "it has no queue for compute");
}

/* ---- Choosing ---- */

static int kind_rank(VkPhysicalDeviceType type) {
    switch (type) {
    case VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU:
        return 4;
    case VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU:
        return 3;
    case VK_PHYSICAL_DEVICE_TYPE_VIRTUAL_GPU:
        return 2;
    case VK_PHYSICAL_DEVICE_TYPE_CPU:
        return 0;
    default:
        return 1;
    }
}

static bool better(const struct device_info *a, const struct device_info *b) {
    int rank = kind_rank(a->type) - kind_rank(b->type);
    return rank ? rank > 0 : a->memory_free > b->memory_free;
}

static void choose_best(struct device_list *list) {
    list->best = -1;
    uint32_t usable = 0;
    for (uint32_t i = 0; i < list->count; i++) {
        if (list->devices[i].unsuitable[0])
            continue;
        usable++;
        if (list->best < 0 || better(&list->devices[i], &list->devices[list->best]))
            list->best = (int32_t)i;
    }
    if (list->best < 0)
        return;
    const char *why = "the only usable one";
    int rank = kind_rank(list->devices[list->best].type);
    for (uint32_t i = 0; i < list->count; i++)
        if (!list->devices[i].unsuitable[0] && (int32_t)i != list->best &&
            kind_rank(list->devices[i].type) == rank)
            why = "the most free memory of its kind";
    if (usable > 1 && strcmp(why, "the only usable one") == 0)
        why = "discrete comes before integrated, and that before software";
    snprintf(list->reason, sizeof list->reason, "%s", why);
}

/* ---- Opening ---- */

static bool has_layer(const struct device_list *list, const char *name) {
    PFN_vkEnumerateInstanceLayerProperties enumerate =
        (PFN_vkEnumerateInstanceLayerProperties)list->vi.GetInstanceProcAddr(
            NULL, "vkEnumerateInstanceLayerProperties");
    uint32_t count = 0;
    if (!enumerate || enumerate(&count, NULL) < 0)
        return false;
    VkLayerProperties *layers = calloc(count ? count : 1, sizeof *layers);
    bool has = false;
    if (layers && enumerate(&count, layers) >= 0)
        for (uint32_t i = 0; i < count && !has; i++)
            has = strcmp(layers[i].layerName, name) == 0;
    free(layers);
    return has;
}

static peridot_result create_instance(const struct device_params *params, struct device_list *list,
                                      peridot_error *error) {
    PFN_vkCreateInstance create =
        (PFN_vkCreateInstance)list->vi.GetInstanceProcAddr(NULL, "vkCreateInstance");
    static const char *const layer = "VK_LAYER_KHRONOS_validation";
    static const char *const extension = VK_EXT_DEBUG_UTILS_EXTENSION_NAME;
    VkValidationFeatureEnableEXT enabled[2];
    VkValidationFeaturesEXT features = {.sType = VK_STRUCTURE_TYPE_VALIDATION_FEATURES_EXT,
                                        .pEnabledValidationFeatures = enabled};
    const char *more = getenv("PERIDOT_VALIDATION");
    if (more && strstr(more, "sync"))
        enabled[features.enabledValidationFeatureCount++] =
            VK_VALIDATION_FEATURE_ENABLE_SYNCHRONIZATION_VALIDATION_EXT;
    if (more && strstr(more, "gpu"))
        enabled[features.enabledValidationFeatureCount++] =
            VK_VALIDATION_FEATURE_ENABLE_GPU_ASSISTED_EXT;
    VkApplicationInfo application = {.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO,
                                     .pApplicationName = "peridot",
                                     .apiVersion = VK_API_VERSION_1_3};
    VkInstanceCreateInfo info = {.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO,
                                 .pApplicationInfo = &application};
    list->validation = params && params->validation;
    if (list->validation) {
        if (!has_layer(list, layer))
            return fail(
                error, PERIDOT_ERROR_VULKAN,
                "the validation layer %s is not installed (Debian: vulkan-validationlayers)",
                layer);
        info.pNext = &features;
        info.enabledLayerCount = info.enabledExtensionCount = 1;
        info.ppEnabledLayerNames = &layer;
        info.ppEnabledExtensionNames = &extension;
    }
    VkResult code = create ? create(&info, NULL, &list->instance) : VK_ERROR_INITIALIZATION_FAILED;
    if (code == VK_ERROR_INCOMPATIBLE_DRIVER)
        return fail(error, PERIDOT_ERROR_NO_DEVICE,
                    "there is no Vulkan driver on this machine: install your card's driver, or "
                    "mesa-vulkan-drivers for a software device");
    if (code)
        return fail(error, PERIDOT_ERROR_VULKAN, "Vulkan could not start (error %d)", (int)code);
#define LOAD(name)                                                                                 \
    list->vi.name = (PFN_vk##name)list->vi.GetInstanceProcAddr(list->instance, "vk" #name);
    INSTANCE_FUNCTIONS(LOAD)
#undef LOAD
    return PERIDOT_OK;
}

static peridot_result enumerate(const struct device_params *params, struct device_list *list,
                                peridot_error *error) {
    uint32_t count = 0;
    VkResult code = list->vi.EnumeratePhysicalDevices(list->instance, &count, NULL);
    VkPhysicalDevice *physical = calloc(count ? count : 1, sizeof *physical);
    list->devices = calloc(count ? count : 1, sizeof *list->devices);
    if (!physical || !list->devices) {
        free(physical);
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory while listing devices");
    }
    if (code >= 0 && count)
        code = list->vi.EnumeratePhysicalDevices(list->instance, &count, physical);
    for (uint32_t i = 0; code >= 0 && i < count; i++) {
        list->devices[i].index = i;
        list->devices[i].physical = physical[i];
        describe(list, params, &list->devices[i]);
        list->count++;
    }
    free(physical);
    if (code < 0)
        return fail(error, PERIDOT_ERROR_VULKAN, "listing Vulkan devices failed (error %d)",
                    (int)code);
    choose_best(list);
    return PERIDOT_OK;
}

peridot_result device_list_open(const struct device_params *params, struct device_list *list,
                                peridot_error *error) {
    *list = (struct device_list){.best = -1};
    open_loader(list);
    peridot_result result;
    if (!list->vi.GetInstanceProcAddr)
        result =
            fail(error, PERIDOT_ERROR_NO_VULKAN,
                 "there is no Vulkan loader (libvulkan.so.1) on this machine: install libvulkan1 "
                 "and a driver");
    else
        result = create_instance(params, list, error);
    if (!result)
        result = enumerate(params, list, error);
    if (result)
        device_list_close(list);
    return result;
}

void device_list_close(struct device_list *list) {
    if (list->instance && list->vi.DestroyInstance)
        list->vi.DestroyInstance(list->instance, NULL);
    platform_close_library(list->library);
    free(list->devices);
    *list = (struct device_list){.best = -1};
}

void device_describe(const struct device_list *list, const struct device_params *params,
                     struct device_info *info) {
    describe(list, params, info);
}
