/* What of a variant may be tuned: the declared, bounded space of its first three specialisation
 * constants. `peridot tune` measures it, and what a tuning file says must lie in it. */
#ifndef ENGINE_KERNEL_SEARCH_H
#define ENGINE_KERNEL_SEARCH_H

#include "pipelines.h"

#define KERNEL_SEARCH_MAX 256

/* The keys that may take the place of `base`: every variant of its kernel that the device can run,
 * with every SPEC_WORKGROUP, SPEC_ROWS and SPEC_COLUMNS that the shader allows and the device has
 * room for. `base` is how an untuned session builds the kernel and comes first; the other variants
 * follow, then the rest of the space. `columns` as in kernel_set.h: tokens that one workgroup takes
 * at most, 0 for passes of many rows. Returns how many: at most KERNEL_SEARCH_MAX. */
uint32_t kernel_search_list(const struct device *device, const struct pipeline_key *base,
                            uint32_t columns, struct pipeline_key keys[KERNEL_SEARCH_MAX]);
/* Whether it is one of those. */
bool kernel_search_allows(const struct device *device, const struct pipeline_key *base,
                          uint32_t columns, const struct pipeline_key *key);

#endif
