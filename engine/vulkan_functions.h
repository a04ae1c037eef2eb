/* The Vulkan functions Peridot calls, listed once. They are loaded per instance and per device from
 * the vkGetInstanceProcAddr at hand, so that an application's own loader is never disturbed. */
#ifndef ENGINE_VULKAN_FUNCTIONS_H
#define ENGINE_VULKAN_FUNCTIONS_H

#include "occupancy_priority.h"

#define INSTANCE_FUNCTIONS(X)                                                                      \
    X(DestroyInstance)                                                                             \
    X(EnumeratePhysicalDevices)                                                                    \
    X(GetPhysicalDeviceProperties2)                                                                \
    X(GetPhysicalDeviceFeatures2)                                                                  \
    X(GetPhysicalDeviceMemoryProperties2)                                                          \
    X(GetPhysicalDeviceQueueFamilyProperties2)                                                     \
    X(EnumerateDeviceExtensionProperties)                                                          \
    X(CreateDevice)                                                                                \
    X(GetDeviceProcAddr)

#define DEVICE_FUNCTIONS(X)                                                                        \
    X(GetDeviceQueue)                                                                              \
    X(QueueSubmit2)                                                                                \
    X(CreateBuffer)                                                                                \
    X(DestroyBuffer)                                                                               \
    X(GetBufferMemoryRequirements2)                                                                \
    X(GetBufferDeviceAddress)                                                                      \
    X(BindBufferMemory2)                                                                           \
    X(AllocateMemory)                                                                              \
    X(FreeMemory)                                                                                  \
    X(MapMemory)                                                                                   \
    X(FlushMappedMemoryRanges)                                                                     \
    X(InvalidateMappedMemoryRanges)                                                                \
    X(CreateShaderModule)                                                                          \
    X(DestroyShaderModule)                                                                         \
    X(CreatePipelineLayout)                                                                        \
    X(DestroyPipelineLayout)                                                                       \
    X(CreateComputePipelines)                                                                      \
    X(DestroyPipeline)                                                                             \
    X(CreatePipelineCache)                                                                         \
    X(DestroyPipelineCache)                                                                        \
    X(GetPipelineCacheData)                                                                        \
    X(CreateCommandPool)                                                                           \
    X(DestroyCommandPool)                                                                          \
    X(AllocateCommandBuffers)                                                                      \
    X(FreeCommandBuffers)                                                                          \
    X(BeginCommandBuffer)                                                                          \
    X(EndCommandBuffer)                                                                            \
    X(CmdBindPipeline)                                                                             \
    X(CmdPushConstants)                                                                            \
    X(CmdDispatch)                                                                                 \
    X(CmdDispatchIndirect)                                                                         \
    X(CmdDispatchBase)                                                                             \
    X(CmdPipelineBarrier2)                                                                         \
    X(CmdCopyBuffer)                                                                               \
    X(CmdFillBuffer)                                                                               \
    X(CmdUpdateBuffer)                                                                             \
    X(CmdWriteTimestamp2)                                                                          \
    X(CmdResetQueryPool)                                                                           \
    X(CreateQueryPool)                                                                             \
    X(DestroyQueryPool)                                                                            \
    X(GetQueryPoolResults)                                                                         \
    X(CreateSemaphore)                                                                             \
    X(DestroySemaphore)                                                                            \
    X(WaitSemaphores)                                                                              \
    X(GetSemaphoreCounterValue)

/* Not for a guest: loaded for a device of Peridot's own alone. */
#define OWN_DEVICE_FUNCTIONS(X)                                                                    \
    X(DestroyDevice)                                                                               \
    X(DeviceWaitIdle)

/* Loaded where the extension is enabled; NULL otherwise. */
#define OPTIONAL_DEVICE_FUNCTIONS(X)                                                               \
    X(SetDebugUtilsObjectNameEXT)                                                                  \
    X(CmdBeginDebugUtilsLabelEXT)                                                                  \
    X(CmdEndDebugUtilsLabelEXT)                                                                    \
    X(CmdSetComputeOccupancyPriorityNV)                                                            \
    X(GetPipelineExecutablePropertiesKHR)                                                          \
    X(GetPipelineExecutableStatisticsKHR)                                                          \
    X(GetPipelineExecutableInternalRepresentationsKHR)

#define DECLARE(name) PFN_vk##name name;
struct instance_functions {
    PFN_vkGetInstanceProcAddr GetInstanceProcAddr;
    INSTANCE_FUNCTIONS(DECLARE)
};
struct device_functions {
    DEVICE_FUNCTIONS(DECLARE)
    OWN_DEVICE_FUNCTIONS(DECLARE)
    OPTIONAL_DEVICE_FUNCTIONS(DECLARE)
};
#undef DECLARE

#endif
