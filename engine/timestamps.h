/* GPU time: pools of timestamps, and ticks as seconds. */
#ifndef ENGINE_TIMESTAMPS_H
#define ENGINE_TIMESTAMPS_H

#include "device.h"

/* Whether the device's queue can take the time at all. */
bool timestamps_supported(const struct device *device);
/* A pool of `count` timestamps, to be destroyed by timestamps_destroy; VK_NULL_HANDLE, and no
 * error, where the queue has none. Errors: VULKAN, HOST_MEMORY, DEVICE_MEMORY. */
peridot_result timestamps_create(struct device *device, uint32_t count, VkQueryPool *pool,
                                 peridot_error *error);
void timestamps_destroy(struct device *device, VkQueryPool pool); /* accepts VK_NULL_HANDLE */
/* Waits for timestamps [first, first + count). Errors: VULKAN, DEVICE_LOST. */
peridot_result timestamps_read(struct device *device, VkQueryPool pool, uint32_t first,
                               uint32_t count, uint64_t *ticks, peridot_error *error);
/* The same without waiting. NOT_READY: they have not all been taken. */
peridot_result timestamps_poll(struct device *device, VkQueryPool pool, uint32_t first,
                               uint32_t count, uint64_t *ticks, peridot_error *error);
/* The time between two of them, which may have passed the counter's end once. */
double timestamps_seconds(const struct device *device, uint64_t begin, uint64_t end);

#endif
