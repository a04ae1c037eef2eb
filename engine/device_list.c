/* Finding Vulkan devices, judging them, choosing one. */
#include "device.h"
#include "platform.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Kept of an allocation's limit, so that the largest buffer can be aligned within its memory. */
#define ALIGNMENT_SLACK (64u << 10)

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

uint32_t device_subgroup_size(uint32_t smallest, uint32_t largest, uint32_t usual) {
    /* Sizes below 32 in a range are SIMD widths that one core runs at: 16 leaves a lane more
     * registers than 32 and idles less than 8. Elsewhere 32 is the size of the hardware, or (AMD's
     * 32 to 64) the one with the lower latency. */
    uint32_t wanted = smallest < 32 && smallest < largest ? 16 : 32;
    return wanted < smallest || wanted > largest ? usual : wanted;
}

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
    limits->max_allocation = v11->maxMemoryAllocationSize - ALIGNMENT_SLACK < v13->maxBufferSize
                                 ? v11->maxMemoryAllocationSize - ALIGNMENT_SLACK
                                 : v13->maxBufferSize;
    if (params && params->max_allocation && params->max_allocation < limits->max_allocation)
        limits->max_allocation = params->max_allocation;
    limits->timestamp_period = own->timestampPeriod;
    limits->non_coherent_atom = own->nonCoherentAtomSize;
    limits->subgroup_size =
        device_subgroup_size(v13->minSubgroupSize, v13->maxSubgroupSize, v11->subgroupSize);
    limits->subgroup_settable = v13->requiredSubgroupSizeStages & VK_SHADER_STAGE_COMPUTE_BIT;
    limits->subgroup_smallest =
        limits->subgroup_settable ? v13->minSubgroupSize : limits->subgroup_size;
    limits->packed_dot_accelerated = v13->integerDotProduct4x8BitPackedSignedAccelerated;
    if (!(params && params->minimal))
        info->needs_met |= NEEDS_PACKED_DOT;
    bool sized = limits->subgroup_settable || v13->minSubgroupSize == v13->maxSubgroupSize;
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

#define FAMILIES_MAX 32

/* How many there are. `priorities` may be NULL. */
static uint32_t list_families(const struct instance_functions *vi, VkPhysicalDevice physical,
                              VkQueueFamilyProperties2 families[FAMILIES_MAX],
                              VkQueueFamilyGlobalPriorityPropertiesKHR priorities[FAMILIES_MAX]) {
    uint32_t count = 0;
    vi->GetPhysicalDeviceQueueFamilyProperties2(physical, &count, NULL);
    count = count < FAMILIES_MAX ? count : FAMILIES_MAX;
    for (uint32_t i = 0; i < count; i++) {
        families[i] =
            (VkQueueFamilyProperties2){.sType = VK_STRUCTURE_TYPE_QUEUE_FAMILY_PROPERTIES_2,
                                       .pNext = priorities ? &priorities[i] : NULL};
        if (priorities)
            priorities[i] = (VkQueueFamilyGlobalPriorityPropertiesKHR){
                .sType = VK_STRUCTURE_TYPE_QUEUE_FAMILY_GLOBAL_PRIORITY_PROPERTIES_KHR};
    }
    vi->GetPhysicalDeviceQueueFamilyProperties2(physical, &count, families);
    return count;
}

bool device_family_copies(const struct instance_functions *vi, VkPhysicalDevice physical,
                          uint32_t family) {
    const VkQueueFlags copying =
        VK_QUEUE_TRANSFER_BIT | VK_QUEUE_COMPUTE_BIT | VK_QUEUE_GRAPHICS_BIT;
    VkQueueFamilyProperties2 families[FAMILIES_MAX];
    return family < list_families(vi, physical, families, NULL) &&
           families[family].queueFamilyProperties.queueFlags & copying;
}

/* The family for compute, or `wanted` if that is one, and that for transfers alone; UINT32_MAX:
 * none. */
static void find_queue(const struct device_list *list, uint32_t wanted, struct device_info *info) {
    VkQueueFamilyProperties2 families[FAMILIES_MAX];
    uint32_t count = list_families(&list->vi, info->physical, families, NULL);
    info->queue_family = info->transfer_family = UINT32_MAX;
    bool with_graphics = true;
    for (uint32_t i = 0; i < count; i++) {
        VkQueueFlags flags = families[i].queueFamilyProperties.queueFlags;
        /* those of video and optical flow can copy too */
        VkQueueFlags kind =
            flags & ~(VkQueueFlags)(VK_QUEUE_SPARSE_BINDING_BIT | VK_QUEUE_PROTECTED_BIT);
        if (kind == VK_QUEUE_TRANSFER_BIT && info->transfer_family == UINT32_MAX)
            info->transfer_family = i;
        if (!(flags & VK_QUEUE_COMPUTE_BIT) || (wanted != UINT32_MAX && i != wanted))
            continue;
        /* one without graphics leaves the desktop's queue alone */
        if (info->queue_family == UINT32_MAX ||
            (with_graphics && !(flags & VK_QUEUE_GRAPHICS_BIT))) {
            info->queue_family = i;
            with_graphics = flags & VK_QUEUE_GRAPHICS_BIT;
            info->limits.timestamp_bits = families[i].queueFamilyProperties.timestampValidBits;
        }
    }
    if (info->limits.timestamp_bits == 0)
        info->limits.timestamp_period = 0;
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

static const char *global_priority(const struct device_list *list, VkPhysicalDevice physical) {
    static const char *const names[] = {VK_KHR_GLOBAL_PRIORITY_EXTENSION_NAME,
                                        VK_EXT_GLOBAL_PRIORITY_EXTENSION_NAME};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (has_extension(list, physical, names[i]))
            return names[i];
    return NULL;
}

/* VK_EXT_global_priority alone does not tell what a family can have: what it would refuse only
 * shows when the device is made, which an application does not expect to fail. */
static bool lists_low_priority(const struct device_list *list, const struct device_info *info) {
    VkQueueFamilyProperties2 families[FAMILIES_MAX];
    VkQueueFamilyGlobalPriorityPropertiesKHR priorities[FAMILIES_MAX];
    if (!info->global_priority ||
        (strcmp(info->global_priority, VK_KHR_GLOBAL_PRIORITY_EXTENSION_NAME) != 0 &&
         !has_extension(list, info->physical, VK_EXT_GLOBAL_PRIORITY_QUERY_EXTENSION_NAME)))
        return false;
    if (info->queue_family >= list_families(&list->vi, info->physical, families, priorities))
        return false;
    const VkQueueFamilyGlobalPriorityPropertiesKHR *has = &priorities[info->queue_family];
    for (uint32_t i = 0; i < has->priorityCount && i < VK_MAX_GLOBAL_PRIORITY_SIZE_KHR; i++)
        if (has->priorities[i] == VK_QUEUE_GLOBAL_PRIORITY_LOW_KHR)
            return true;
    return false;
}

static bool has_occupancy_priority(const struct device_list *list, VkPhysicalDevice physical) {
    VkPhysicalDeviceComputeOccupancyPriorityFeaturesNV has = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COMPUTE_OCCUPANCY_PRIORITY_FEATURES_NV};
    VkPhysicalDeviceFeatures2 features = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2,
                                          .pNext = &has};
    if (has_extension(list, physical, VK_NV_COMPUTE_OCCUPANCY_PRIORITY_EXTENSION_NAME))
        list->vi.GetPhysicalDeviceFeatures2(physical, &features);
    return has.computeOccupancyPriority;
}

void device_measure_memory(const struct instance_functions *vi, uint64_t used,
                           struct device_info *info) {
    VkPhysicalDeviceMemoryBudgetPropertiesEXT budget = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_BUDGET_PROPERTIES_EXT};
    VkPhysicalDeviceMemoryProperties2 memory = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_PROPERTIES_2,
        .pNext = info->has_memory_budget ? &budget : NULL};
    vi->GetPhysicalDeviceMemoryProperties2(info->physical, &memory);
    info->memory_total = info->memory_free = 0;
    for (uint32_t i = 0; i < memory.memoryProperties.memoryHeapCount; i++) {
        if (!(memory.memoryProperties.memoryHeaps[i].flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT))
            continue;
        info->memory_total += memory.memoryProperties.memoryHeaps[i].size;
        if (budget.heapBudget[i] > budget.heapUsage[i])
            info->memory_free += budget.heapBudget[i] - budget.heapUsage[i];
    }
    if (!info->has_memory_budget)
        info->memory_free = info->memory_total > used ? info->memory_total - used : 0;
    uint64_t host_free, host_total;
    platform_host_memory(&host_free, &host_total);
    bool shared = info->type == VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU ||
                  info->type == VK_PHYSICAL_DEVICE_TYPE_CPU;
    if (shared && host_total && info->memory_free > host_free)
        info->memory_free = host_free;
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
        {has.v13.shaderIntegerDotProduct, "shaderIntegerDotProduct"},
        {has.v13.subgroupSizeControl, "subgroupSizeControl"},
        {has.v13.computeFullSubgroups, "computeFullSubgroups"},
    };
    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++)
        if (!needed[i].there)
            snprintf(info->unsuitable, sizeof info->unsuitable, "it lacks the feature %s",
                     needed[i].name);
}

void device_describe(const struct device_list *list, const struct device_params *params,
                     uint32_t queue_family, struct device_info *info) {
    VkPhysicalDeviceVulkan13Properties v13 = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_3_PROPERTIES};
    VkPhysicalDeviceVulkan12Properties v12 = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_PROPERTIES, .pNext = &v13};
    VkPhysicalDeviceVulkan11Properties v11 = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_PROPERTIES, .pNext = &v12};
    VkPhysicalDeviceProperties2 two = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2};
    list->vi.GetPhysicalDeviceProperties2(info->physical, &two);
    bool new_enough = two.properties.apiVersion >= VK_API_VERSION_1_3;
    info->queue_family = info->transfer_family = UINT32_MAX;
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
    info->has_memory_budget =
        has_extension(list, info->physical, VK_EXT_MEMORY_BUDGET_EXTENSION_NAME);
    device_measure_memory(&list->vi, 0, info);
    info->portability_subset =
        has_extension(list, info->physical, "VK_KHR_portability_subset"); /* a provisional name */
    info->has_memory_priority =
        has_extension(list, info->physical, VK_EXT_MEMORY_PRIORITY_EXTENSION_NAME);
    info->has_pageable_memory =
        info->has_memory_priority &&
        has_extension(list, info->physical, VK_EXT_PAGEABLE_DEVICE_LOCAL_MEMORY_EXTENSION_NAME);
    info->has_occupancy_priority = has_occupancy_priority(list, info->physical);
    info->global_priority = global_priority(list, info->physical);
    info->lists_low_priority = false;
    info->has_executable_properties =
        has_extension(list, info->physical, VK_KHR_PIPELINE_EXECUTABLE_PROPERTIES_EXTENSION_NAME);
    if (!new_enough) {
        snprintf(info->unsuitable, sizeof info->unsuitable,
                 "it has Vulkan %u.%u and Peridot needs 1.3: a newer driver may help",
                 VK_API_VERSION_MAJOR(info->api_version), VK_API_VERSION_MINOR(info->api_version));
        return;
    }
    describe_limits(params, &two, &v11, &v13, info);
    judge_features(list, info);
    find_queue(list, queue_family, info);
    info->lists_low_priority = lists_low_priority(list, info);
    if (info->queue_family == UINT32_MAX)
        snprintf(info->unsuitable, sizeof info->unsuitable,
                 queue_family == UINT32_MAX ? "it has no queue for compute"
                                            : "the queue's family is not one for compute");
}

/* ---- Choosing ---- */

const char *device_kind(const struct device_info *info) {
    switch (info->type) {
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
    if (rank)
        return rank > 0;
    if (a->memory_free != b->memory_free)
        return a->memory_free > b->memory_free;
    return a->limits.max_allocation > b->limits.max_allocation;
}

void device_list_choose(struct device_list *list) {
    list->best = -1;
    list->reason[0] = '\0';
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

/* ---- Choosing by the user's words ---- */

static void lower(char *out, size_t size, const char *text) {
    size_t i = 0;
    for (; text[i] && i + 1 < size; i++)
        out[i] = (char)tolower((unsigned char)text[i]);
    out[i] = '\0';
}

static bool is_uuid(const char *choice, const uint8_t *uuid) {
    char hex[2 * VK_UUID_SIZE + 1], wanted[2 * VK_UUID_SIZE + 1];
    size_t length = 0;
    for (uint32_t i = 0; i < VK_UUID_SIZE; i++)
        snprintf(hex + 2 * i, 3, "%02x", uuid[i]);
    for (const char *c = choice; *c; c++) {
        if (*c == '-')
            continue;
        if (length == 2 * VK_UUID_SIZE)
            return false;
        wanted[length++] = (char)tolower((unsigned char)*c);
    }
    wanted[length] = '\0';
    return strcmp(hex, wanted) == 0;
}

static bool matches(const struct device_info *info, const char *choice) {
    char name[VK_MAX_PHYSICAL_DEVICE_NAME_SIZE], part[VK_MAX_PHYSICAL_DEVICE_NAME_SIZE];
    lower(name, sizeof name, info->name);
    lower(part, sizeof part, choice);
    return strstr(name, part) || is_uuid(choice, info->uuid);
}

static peridot_result pick_best(const struct device_list *list, const struct device_info **picked,
                                peridot_error *error) {
    if (list->best >= 0) {
        *picked = &list->devices[list->best];
        return PERIDOT_OK;
    }
    if (list->count == 0)
        return fail(error, PERIDOT_ERROR_NO_DEVICE,
                    "there is no Vulkan device on this machine: install your card's driver, or "
                    "mesa-vulkan-drivers for a software device");
    return fail(error, PERIDOT_ERROR_NO_DEVICE,
                "no Vulkan device here can run Peridot: `peridot devices` says why");
}

peridot_result device_list_pick(const struct device_list *list, const char *choice,
                                const struct device_info **picked, peridot_error *error) {
    *picked = NULL;
    if (!choice || !*choice)
        return pick_best(list, picked, error);
    char *end;
    unsigned long index = strtoul(choice, &end, 10);
    /* a number beyond the list is a part of a name: "770" */
    bool by_index = isdigit((unsigned char)choice[0]) && *end == '\0' && index < list->count;
    uint32_t found = 0;
    for (uint32_t i = 0; i < list->count; i++) {
        if (by_index ? i != index : !matches(&list->devices[i], choice))
            continue;
        *picked = &list->devices[i];
        found++;
    }
    if (found == 0)
        return fail(error, PERIDOT_ERROR_NO_DEVICE,
                    "no device matches \"%.80s\": `peridot devices` lists the %u there are", choice,
                    list->count);
    if (found > 1)
        return fail(error, PERIDOT_ERROR_NO_DEVICE,
                    "%u devices match \"%.80s\": give an index or a UUID from `peridot devices`",
                    found, choice);
    if ((*picked)->unsuitable[0])
        return fail(error, PERIDOT_ERROR_NO_DEVICE, "%s cannot run Peridot: %s", (*picked)->name,
                    (*picked)->unsuitable);
    return PERIDOT_OK;
}

/* ---- Opening ---- */

const char *device_load_instance(struct instance_functions *vi, VkInstance instance) {
    const char *missing = NULL;
#define LOAD(name)                                                                                 \
    vi->name = (PFN_vk##name)vi->GetInstanceProcAddr(instance, "vk" #name);                        \
    if (!vi->name)                                                                                 \
        missing = "vk" #name;
    INSTANCE_FUNCTIONS(LOAD)
#undef LOAD
    return missing;
}

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

/* Of the loader and the drivers, or of one layer. */
static bool has_instance_extension(const struct device_list *list, const char *layer,
                                   const char *name) {
    PFN_vkEnumerateInstanceExtensionProperties enumerate =
        (PFN_vkEnumerateInstanceExtensionProperties)list->vi.GetInstanceProcAddr(
            NULL, "vkEnumerateInstanceExtensionProperties");
    uint32_t count = 0;
    if (!enumerate || enumerate(layer, &count, NULL) < 0)
        return false;
    VkExtensionProperties *found = calloc(count ? count : 1, sizeof *found);
    bool has = false;
    if (found && enumerate(layer, &count, found) >= 0)
        for (uint32_t i = 0; i < count && !has; i++)
            has = strcmp(found[i].extensionName, name) == 0;
    free(found);
    return has;
}

static peridot_result load_functions(struct device_list *list, peridot_error *error) {
    const char *missing = device_load_instance(&list->vi, list->instance);
    if (missing)
        return fail(error, PERIDOT_ERROR_VULKAN,
                    "the Vulkan loader lacks the function %s: a newer libvulkan1 has it", missing);
    return PERIDOT_OK;
}

static const char *const validation_layer = "VK_LAYER_KHRONOS_validation";

struct instance_setup {
    const char *extensions[3];
    VkValidationFeatureEnableEXT enabled[2];
    VkValidationFeaturesEXT features;
    VkApplicationInfo application;
    VkInstanceCreateInfo info;
};

static void add_extension(struct instance_setup *setup, const char *name) {
    setup->extensions[setup->info.enabledExtensionCount++] = name;
    setup->info.ppEnabledExtensionNames = setup->extensions;
}

/* PERIDOT_VALIDATION adds checks that cost time: "sync", "gpu". */
static void add_validation(const struct device_list *list, struct instance_setup *setup) {
    setup->info.enabledLayerCount = 1;
    setup->info.ppEnabledLayerNames = &validation_layer;
    add_extension(setup, VK_EXT_DEBUG_UTILS_EXTENSION_NAME);
    const char *more = getenv("PERIDOT_VALIDATION");
    setup->features = (VkValidationFeaturesEXT){
        .sType = VK_STRUCTURE_TYPE_VALIDATION_FEATURES_EXT,
        .pEnabledValidationFeatures = setup->enabled,
    };
    uint32_t *count = &setup->features.enabledValidationFeatureCount;
    if (more && strstr(more, "sync"))
        setup->enabled[(*count)++] = VK_VALIDATION_FEATURE_ENABLE_SYNCHRONIZATION_VALIDATION_EXT;
    if (more && strstr(more, "gpu"))
        setup->enabled[(*count)++] = VK_VALIDATION_FEATURE_ENABLE_GPU_ASSISTED_EXT;
    if (*count == 0)
        return;
    if (has_instance_extension(list, validation_layer, VK_EXT_VALIDATION_FEATURES_EXTENSION_NAME))
        add_extension(setup, VK_EXT_VALIDATION_FEATURES_EXTENSION_NAME);
    setup->info.pNext = &setup->features;
}

static peridot_result create_instance(const struct device_params *params, struct device_list *list,
                                      peridot_error *error) {
    PFN_vkCreateInstance create =
        (PFN_vkCreateInstance)list->vi.GetInstanceProcAddr(NULL, "vkCreateInstance");
    struct instance_setup setup = {
        .application = {.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO,
                        .pApplicationName = "peridot",
                        .apiVersion = VK_API_VERSION_1_3},
        .info = {.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO,
                 .pApplicationInfo = &setup.application},
    };
    /* without it the loader hides layered drivers such as MoltenVK */
    if (has_instance_extension(list, NULL, VK_KHR_PORTABILITY_ENUMERATION_EXTENSION_NAME)) {
        add_extension(&setup, VK_KHR_PORTABILITY_ENUMERATION_EXTENSION_NAME);
        setup.info.flags |= VK_INSTANCE_CREATE_ENUMERATE_PORTABILITY_BIT_KHR;
    }
    list->validation = params && params->validation;
    if (list->validation && !has_layer(list, validation_layer))
        return fail(error, PERIDOT_ERROR_VULKAN,
                    "the validation layer %s is not installed (Debian: vulkan-validationlayers)",
                    validation_layer);
    if (list->validation)
        add_validation(list, &setup);
    VkInstance instance = VK_NULL_HANDLE;
    VkResult code = create ? create(&setup.info, NULL, &instance) : VK_ERROR_INITIALIZATION_FAILED;
    if (code == VK_ERROR_INCOMPATIBLE_DRIVER)
        return fail(error, PERIDOT_ERROR_NO_DEVICE,
                    "there is no Vulkan driver on this machine: install your card's driver, or "
                    "mesa-vulkan-drivers for a software device");
    if (code)
        return fail(error, PERIDOT_ERROR_VULKAN, "Vulkan could not start (error %d)", (int)code);
    list->instance = instance;
    return load_functions(list, error);
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
        device_describe(list, params, UINT32_MAX, &list->devices[i]);
        list->count++;
    }
    free(physical);
    if (code < 0)
        return fail(error, PERIDOT_ERROR_VULKAN, "listing Vulkan devices failed (error %d)",
                    (int)code);
    device_list_choose(list);
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
