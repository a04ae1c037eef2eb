#include "schedule.h"

/* Where nothing is measured yet: on the low side of each kind, so that the first guess is not too
 * long. */
void schedule_start(struct schedule *schedule, const struct device *device, double limit) {
    schedule->limit = limit;
    schedule->correction = 1;
    switch (device->info.type) {
    case VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU:
        schedule->bytes_per_second = 100e9;
        schedule->flops_per_second = 1e12;
        break;
    case VK_PHYSICAL_DEVICE_TYPE_CPU:
        schedule->bytes_per_second = 0.5e9;
        schedule->flops_per_second = 1e9;
        break;
    default:
        schedule->bytes_per_second = 15e9;
        schedule->flops_per_second = 150e9;
        break;
    }
}

double schedule_seconds(const struct schedule *schedule, struct cost cost) {
    double moving = cost.bytes / schedule->bytes_per_second;
    double computing = cost.flops / schedule->flops_per_second;
    return (moving > computing ? moving : computing) * schedule->correction;
}

void schedule_learn(struct schedule *schedule, double predicted, double measured) {
    if (!(predicted > 0) || !(measured > 0))
        return;
    /* slower than thought counts at once, faster only gradually: the limit is an upper one */
    double corrected = schedule->correction * measured / predicted;
    double weight = corrected > schedule->correction ? 0.8 : 0.2;
    schedule->correction += (corrected - schedule->correction) * weight;
}

uint32_t schedule_rows(const struct schedule *schedule, struct cost fixed, struct cost per_row,
                       uint32_t rows) {
    while (rows > 1) {
        struct cost cost = {fixed.bytes + rows * per_row.bytes, fixed.flops + rows * per_row.flops};
        if (schedule_seconds(schedule, cost) <= schedule->limit)
            break;
        rows /= 2;
    }
    return rows;
}
