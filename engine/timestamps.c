#include "timestamps.h"

bool timestamps_supported(const struct device *device) {
    return device->info.limits.timestamp_period > 0 && device->info.limits.timestamp_bits > 0;
}

peridot_result timestamps_create(struct device *device, uint32_t count, VkQueryPool *pool,
                                 peridot_error *error) {
    *pool = VK_NULL_HANDLE;
    if (!timestamps_supported(device))
        return PERIDOT_OK;
    VkQueryPoolCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_QUERY_POOL_CREATE_INFO,
        .queryType = VK_QUERY_TYPE_TIMESTAMP,
        .queryCount = count,
    };
    VkQueryPool made = VK_NULL_HANDLE;
    VkResult code = device->vk.CreateQueryPool(device->handle, &info, device->allocator, &made);
    if (code)
        return device_fail(device, code, "creating timestamps", error);
    *pool = made;
    device_name_object(device, VK_OBJECT_TYPE_QUERY_POOL, (uint64_t)made, "Peridot timestamps");
    return PERIDOT_OK;
}

void timestamps_destroy(struct device *device, VkQueryPool pool) {
    if (pool)
        device->vk.DestroyQueryPool(device->handle, pool, device->allocator);
}

static peridot_result read_ticks(struct device *device, VkQueryPool pool, uint32_t first,
                                 uint32_t count, uint64_t *ticks, VkQueryResultFlags flags,
                                 peridot_error *error) {
    VkResult code =
        device->vk.GetQueryPoolResults(device->handle, pool, first, count, count * sizeof *ticks,
                                       ticks, sizeof *ticks, VK_QUERY_RESULT_64_BIT | flags);
    if (code == VK_NOT_READY)
        return PERIDOT_NOT_READY;
    return code ? device_fail(device, code, "reading timestamps", error) : PERIDOT_OK;
}

peridot_result timestamps_read(struct device *device, VkQueryPool pool, uint32_t first,
                               uint32_t count, uint64_t *ticks, peridot_error *error) {
    return read_ticks(device, pool, first, count, ticks, VK_QUERY_RESULT_WAIT_BIT, error);
}

peridot_result timestamps_poll(struct device *device, VkQueryPool pool, uint32_t first,
                               uint32_t count, uint64_t *ticks, peridot_error *error) {
    return read_ticks(device, pool, first, count, ticks, 0, error);
}

double timestamps_seconds(const struct device *device, uint64_t begin, uint64_t end) {
    uint32_t bits = device->info.limits.timestamp_bits;
    uint64_t mask = bits >= 64 ? UINT64_MAX : ((uint64_t)1 << bits) - 1;
    return (double)((end - begin) & mask) * device->info.limits.timestamp_period * 1e-9;
}
