/* An application for Peridot to run in: an instance, a device and a queue made by the test, and a
 * vkGetInstanceProcAddr whose functions count, fail on demand and check the queue's lock. One at a
 * time. */
#ifndef TESTS_ADOPT_SHIM_H
#define TESTS_ADOPT_SHIM_H

#include "device.h"

/* Makes the application on the first device there is. NULL, or why that failed. */
const char *adopt_shim_open(void);
void adopt_shim_close(void);
/* What to adopt: intercepted functions, and callbacks that are the queue's lock. */
struct device_adoption adopt_shim_adoption(void);

/* The function that the intercepted ones stand before. */
PFN_vkGetInstanceProcAddr adopt_shim_loader(void);

/* Zeroes the counts and forgets failures asked for. */
void adopt_shim_reset(void);
/* Lets call number `nth` (from 0, since the reset) of a function fail with `code`; function NULL:
 * of all functions that may return that code. A lost device stays lost, and what was submitted to
 * it is let end first, as nothing runs on a lost device. */
void adopt_shim_fail(const char *function, uint32_t nth, VkResult code);
bool adopt_shim_failed(void); /* whether that has happened */

uint32_t adopt_shim_calls(const char *function); /* "vkQueueSubmit2" */
uint32_t adopt_shim_unlocked_submissions(void);
/* Objects made and not destroyed. */
int32_t adopt_shim_live(void);
/* Calls no guest may make: destroying the application's own objects, or what a failed call left in
 * its output; waiting for the whole device. */
uint32_t adopt_shim_trespasses(void);

#endif
