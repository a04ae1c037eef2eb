/* How long work will take on this device: predicted from bytes and operations, corrected by what
 * was measured. Submissions are cut by it, so that no watchdog sees a long one. */
#ifndef HOST_SCHEDULE_H
#define HOST_SCHEDULE_H

#include "recorder.h"

struct schedule {
    double bytes_per_second, flops_per_second;
    double correction; /* measured over predicted, smoothed */
    double limit;      /* seconds a submission may take */
};

void schedule_start(struct schedule *schedule, const struct device *device, double limit);
double schedule_seconds(const struct schedule *schedule, struct cost cost);
/* Learns from work that was predicted to take `predicted` seconds and took `measured`. */
void schedule_learn(struct schedule *schedule, double predicted, double measured);
/* The largest number of rows, 1 to `rows`, for which a unit of work that costs `fixed` plus
 * `per_row` for each row stays within the limit; 1 if even that does not. */
uint32_t schedule_rows(const struct schedule *schedule, struct cost fixed, struct cost per_row,
                       uint32_t rows);

#endif
