/* A Vulkan device: opened by Peridot or adopted from an application. Knows nothing of models. */
#ifndef ENGINE_DEVICE_H
#define ENGINE_DEVICE_H

#include "error.h"
#include "vulkan_functions.h"

#include <stdbool.h>
#include <stddef.h>

/* What a kernel variant may need beyond Vulkan 1.3's minimum; bits, in kernels.def too. */
enum device_needs {
    NEEDS_NOTHING = 0,
    NEEDS_SUBGROUP_ARITHMETIC = 1 << 0, /* and a subgroup size that is known */
    NEEDS_SUBGROUP_SHUFFLE = 1 << 1,    /* arithmetic and shuffle */
    NEEDS_PACKED_DOT = 1 << 2,          /* shaderIntegerDotProduct, of four bytes in a word */
};

struct device_limits {
    uint32_t subgroup_size;      /* the size that subgroup variants are built for; a power of two */
    bool subgroup_settable;      /* it can be required of a pipeline; if not, it is the only one */
    uint32_t subgroup_smallest;  /* that can be required: where it is less than subgroup_size, its
                                    lanes have more registers each */
    bool packed_dot_accelerated; /* dot products of packed integers are instructions of its own */
    uint32_t max_workgroup;      /* invocations */
    uint32_t max_shared;         /* bytes */
    uint32_t max_grid[3];
    uint64_t max_allocation; /* bytes of one buffer */
    float timestamp_period;  /* nanoseconds a tick; 0: the queue has no timestamps */
    uint32_t timestamp_bits;
    uint64_t non_coherent_atom;
};

/* One physical device as found. */
struct device_info {
    VkPhysicalDevice physical;
    uint32_t index; /* in the order in which Vulkan lists them */
    char name[VK_MAX_PHYSICAL_DEVICE_NAME_SIZE];
    char driver[VK_MAX_DRIVER_NAME_SIZE];
    char driver_info[VK_MAX_DRIVER_INFO_SIZE];
    uint8_t uuid[VK_UUID_SIZE];
    VkPhysicalDeviceType type;
    uint32_t vendor_id, device_id, driver_version, api_version;
    uint64_t memory_total, memory_free; /* device-local heaps, see device_measure_memory */
    bool has_memory_budget;
    bool portability_subset; /* a layered driver (MoltenVK), which must be told that we know */
    struct device_limits limits;
    bool has_executable_properties;
    bool has_memory_priority;
    bool has_pageable_memory;
    bool has_occupancy_priority;
    const char *global_priority; /* the extension that has it; NULL: none */
    bool lists_low_priority;     /* of queue_family, among those that it can have by that */
    uint32_t needs_met;          /* device_needs that the device can meet */
    uint32_t queue_family;       /* compute; UINT32_MAX: none */
    uint32_t transfer_family; /* with transfer and neither graphics nor compute; UINT32_MAX: none */
    char unsuitable[256];     /* why Peridot cannot use it, one clause; empty: it can */
};

struct device_callbacks {
    void (*lock_queue)(void *user); /* around each submission; NULL: not shared */
    void (*unlock_queue)(void *user);
    void *user;
};

/* Against other users of the device: for the queue where Peridot makes it, for memory, and for
 * dispatches. */
enum device_priority {
    PRIORITY_DEFAULT, /* nothing is asked for */
    PRIORITY_LOW,
    PRIORITY_MEDIUM,
    PRIORITY_HIGH
};

/* How to open one. Zero fields mean the default. */
struct device_params {
    const char *choice; /* an index, a part of the name, or a UUID (with or without dashes); NULL or
                           "": the best */
    bool validation;    /* VK_LAYER_KHRONOS_validation, messages to `message` */
    bool minimal;       /* portable variants only: whatever exceeds the minimum is refused */
    bool statistics;    /* pipelines keep their compiler's figures (registers, spills) for
                           vkGetPipelineExecutableStatisticsKHR, where the driver has it */
    bool machine_code;  /* with statistics: and what they compile to, for
                           vkGetPipelineExecutableInternalRepresentationsKHR */
    uint64_t max_allocation; /* lowers the device's limit; 0: as it is */
    uint64_t memory_limit;   /* bytes that engine/memory.c may allocate there; 0: what there is */
    enum device_priority priority;
    uint32_t threads; /* of compilation and conversion; 1: the caller's own; 0: as many as
                         processors, 8 at most, and on an adopted device 1 */
    const char *cache_directory; /* of the pipeline cache; NULL: the user's; "": none */
    void (*message)(const char *text, void *user); /* validation messages and warnings, from any of
                                                      the device's threads; NULL: dropped */
    void *message_user;
};

/* An application's device. */
struct device_adoption {
    VkInstance instance;
    VkPhysicalDevice physical;
    VkDevice device;
    PFN_vkGetInstanceProcAddr get_instance_proc_addr;
    VkQueue queue;
    uint32_t queue_family;
    const char *const *extensions; /* enabled on the device */
    uint32_t extension_count;
    const VkPhysicalDeviceFeatures2
        *features; /* enabled; NULL: what Peridot requires, nothing more */
    const VkAllocationCallbacks *allocator;
    VkPipelineCache pipeline_cache; /* used instead of one kept on disk; VK_NULL_HANDLE: none */
    struct device_callbacks callbacks;
    VkQueue transfer_queue; /* for uploads; NULL, or `queue`: they go there */
    uint32_t transfer_family;
    struct device_callbacks transfer_callbacks;
};

struct device {
    struct instance_functions vi;
    struct device_functions vk;
    void *library; /* the loader, if Peridot opened it */
    VkInstance instance;
    VkDevice handle;
    VkQueue queue;
    uint32_t queue_family;
    bool owned; /* instance and device are Peridot's to destroy */
    bool minimal;
    bool debug_names;           /* objects and dispatches are named for validation and captures */
    bool memory_budget;         /* VK_EXT_memory_budget can be asked */
    bool executable_properties; /* the compiler's figures are kept and can be asked */
    bool machine_code;          /* and what it made */
    bool memory_priority;       /* VK_EXT_memory_priority is enabled, */
    float priority;             /* and this is what allocations get, from 0 to 1 */
    bool occupancy_priority;    /* VK_NV_compute_occupancy_priority is enabled, */
    float dispatch_priority; /* and this is what dispatches get, from 0 to 1; 0: it is left alone */
    struct device_info info;
    uint32_t needs_met; /* enabled and allowed: what variants may count on */
    struct device_callbacks callbacks;
    VkQueue transfer_queue; /* another one; NULL: uploads go to `queue` */
    uint32_t transfer_family;
    struct device_callbacks transfer_callbacks;
    const VkAllocationCallbacks *allocator;
    VkPhysicalDeviceMemoryProperties memory;
    VkPipelineCache given_cache; /* the application's */
    struct pipelines *pipelines; /* engine/pipelines.h */
    uint64_t memory_used;        /* bytes allocated by engine/memory.c where device memory lies */
    uint64_t memory_limit;       /* of them; 0: none */
    char *cache_directory;       /* NULL: none */
    uint32_t threads;
    bool lost;
    bool submitted; /* work has been given to it */
    VkDebugUtilsMessengerEXT messenger;
    void (*message)(const char *text, void *user);
    void *message_user;
};

/* The loader with an instance, for listing devices and for opening one.
 * Errors: NO_VULKAN (no loader), NO_DEVICE (no driver), VULKAN, HOST_MEMORY. */
struct device_list {
    void *library;
    struct instance_functions vi;
    VkInstance instance;
    bool validation;
    struct device_info *devices;
    uint32_t count;
    int32_t best;     /* index into devices of the one that would be chosen; -1: none */
    char reason[256]; /* why that one */
};
peridot_result device_list_open(const struct device_params *params, struct device_list *list,
                                peridot_error *error);
void device_list_close(struct device_list *list);
/* Fills in the record of one physical device, of which `physical` and `index` are set. Of its queue
 * families the given one counts, or with UINT32_MAX the best for compute. */
void device_describe(const struct device_list *list, const struct device_params *params,
                     uint32_t queue_family, struct device_info *info);
/* Sets `best` and `reason` from the records: discrete before integrated before virtual before
 * software, among equals the one with most free memory. */
void device_list_choose(struct device_list *list);
/* The record that `choice` (as in device_params) means. Errors: NO_DEVICE (none, several, or one
 * that cannot be used: the message says which). */
peridot_result device_list_pick(const struct device_list *list, const char *choice,
                                const struct device_info **picked, peridot_error *error);
/* The subgroup size to build for, of a device's smallest, largest and default one. */
uint32_t device_subgroup_size(uint32_t smallest, uint32_t largest, uint32_t usual);
/* Sets memory_total and memory_free from the device-local heaps: what is free for this process as
 * far as the driver tells, else all but the `used` bytes, and where the memory is the host's no
 * more than the operating system has. */
void device_measure_memory(const struct instance_functions *vi, uint64_t used,
                           struct device_info *info);
/* Whether queues of a family can copy buffers. */
bool device_family_copies(const struct instance_functions *vi, VkPhysicalDevice physical,
                          uint32_t family);
/* Fills the table through vi->GetInstanceProcAddr; the name of a function that is missing, or NULL.
 */
const char *device_load_instance(struct instance_functions *vi, VkInstance instance);

/* Errors: NO_VULKAN, NO_DEVICE (choice matches none, or several, or an unsuitable one: the message
 * says which there are), VULKAN, HOST_MEMORY, DEVICE_LOST. */
peridot_result device_open(const struct device_params *params, struct device **device,
                           peridot_error *error);
/* The application keeps everything it passed alive until device_close, which leaves it as it was.
 * Of params only minimal, max_allocation, memory_limit, priority, threads and cache_directory
 * count. */
peridot_result device_adopt(const struct device_adoption *adoption,
                            const struct device_params *params, struct device **device,
                            peridot_error *error);
void device_close(
    struct device *device); /* accepts NULL; waits until the device is idle if owned */

/* What an application must enable, ready to be chained into VkDeviceCreateInfo::pNext. The structs
 * are linked to each other inside `features`. */
struct device_features {
    VkPhysicalDeviceFeatures2 base;
    VkPhysicalDeviceVulkan11Features v11;
    VkPhysicalDeviceVulkan12Features v12;
    VkPhysicalDeviceVulkan13Features v13;
};
void device_required_features(struct device_features *features);
/* The same, static and from any thread. */
const VkPhysicalDeviceFeatures2 *device_required_chain(void);
extern const char *const device_recommended_extensions[]; /* NULL-terminated */
/* The extensions that a device is opened with, of those that it has; how many. */
#define DEVICE_EXTENSIONS_MAX 5
uint32_t device_extensions(const struct device_info *info,
                           const char *names[DEVICE_EXTENSIONS_MAX]);
/* The features of these that a device has, each with its sType, to be linked; the others are zero.
 */
struct device_optional_features {
    VkPhysicalDeviceMemoryPriorityFeaturesEXT memory_priority;
    VkPhysicalDevicePageableDeviceLocalMemoryFeaturesEXT pageable_memory;
    VkPhysicalDeviceComputeOccupancyPriorityFeaturesNV occupancy_priority;
};
void device_optional_features(const struct device_info *info,
                              struct device_optional_features *features);
/* The record of one of an application's physical devices, whether Peridot can use it or not.
 * Errors: ARGUMENT (a function is missing, which the message names). */
peridot_result device_describe_physical(VkInstance instance, VkPhysicalDevice physical,
                                        PFN_vkGetInstanceProcAddr get_instance_proc_addr,
                                        struct device_info *info, peridot_error *error);

const char *device_kind(const struct device_info *info); /* "discrete" … "software" */
static inline bool device_is_software(const struct device *device) {
    return device->info.type == VK_PHYSICAL_DEVICE_TYPE_CPU;
}

/* Turns a VkResult into a result and a sentence; marks the device lost. `what` names the attempt:
 * "submitting work". */
peridot_result device_fail(struct device *device, VkResult code, const char *what,
                           peridot_error *error);

/* Device memory that is free for new allocations now (the driver's budget where it tells). */
uint64_t device_memory_free(struct device *device);

void device_name_object(struct device *device, VkObjectType type, uint64_t handle,
                        const char *name);

#endif
