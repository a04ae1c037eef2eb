/* VK_NV_compute_occupancy_priority, which the headers of distributions may not have yet. */
#ifndef ENGINE_OCCUPANCY_PRIORITY_H
#define ENGINE_OCCUPANCY_PRIORITY_H

#define VK_NO_PROTOTYPES 1
#include <vulkan/vulkan.h>

#ifndef VK_NV_compute_occupancy_priority
#define VK_NV_compute_occupancy_priority 1
#define VK_NV_COMPUTE_OCCUPANCY_PRIORITY_EXTENSION_NAME "VK_NV_compute_occupancy_priority"
#define VK_STRUCTURE_TYPE_COMPUTE_OCCUPANCY_PRIORITY_PARAMETERS_NV ((VkStructureType)1000645000)
#define VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COMPUTE_OCCUPANCY_PRIORITY_FEATURES_NV                   \
    ((VkStructureType)1000645001)
#define VK_COMPUTE_OCCUPANCY_PRIORITY_LOW_NV 0.25f
#define VK_COMPUTE_OCCUPANCY_PRIORITY_NORMAL_NV 0.50f
#define VK_COMPUTE_OCCUPANCY_PRIORITY_HIGH_NV 0.75f

typedef struct VkPhysicalDeviceComputeOccupancyPriorityFeaturesNV {
    VkStructureType sType;
    void *pNext;
    VkBool32 computeOccupancyPriority;
} VkPhysicalDeviceComputeOccupancyPriorityFeaturesNV;

typedef struct VkComputeOccupancyPriorityParametersNV {
    VkStructureType sType;
    const void *pNext;
    float occupancyPriority;   /* 0 to 1 */
    float occupancyThrottling; /* 0, none, to 1 */
} VkComputeOccupancyPriorityParametersNV;

typedef void(VKAPI_PTR *PFN_vkCmdSetComputeOccupancyPriorityNV)(
    VkCommandBuffer commands, const VkComputeOccupancyPriorityParametersNV *parameters);
#endif

#endif
