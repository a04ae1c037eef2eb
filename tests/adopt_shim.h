/* An application for Peridot to run in: an instance, a device and a queue made by the test, and a
 * vkGetInstanceProcAddr whose functions count, fail on demand and check the queue's lock. One at a
 * time. */
#ifndef TESTS_ADOPT_SHIM_H
#define TESTS_ADOPT_SHIM_H

#include "device.h"

/* By VK_NV_compute_occupancy_priority; bits of adopt_shim_dispatch_priorities. */
enum dispatch_priority { DISPATCHES_LOW = 1, DISPATCHES_NORMAL = 2, DISPATCHES_HIGH = 4 };

/* Makes the application on the first device there is. NULL, or why that failed. */
const char *adopt_shim_open(void);
void adopt_shim_close(void);
/* The same for a cmocka group. */
int adopt_shim_set_up(void **state);
int adopt_shim_tear_down(void **state);
/* What to adopt: intercepted functions, and callbacks that are the queue's lock. */
struct device_adoption adopt_shim_adoption(void);
/* The same with a transfer queue of the queue's family, or of one that is for transfers alone. The
 * device need have neither: what is submitted there runs on the one queue that it has. */
struct device_adoption adopt_shim_adoption_transfer(bool own_family);

/* A second VkDevice of the application's beside it, whose functions are the driver's own: nothing
 * of it is counted, fails or is lost. */
struct device_adoption adopt_shim_second(void);
void adopt_shim_close_second(void);

/* The function that the intercepted ones stand before. */
PFN_vkGetInstanceProcAddr adopt_shim_loader(void);

/* Zeroes the counts and forgets failures asked for. */
void adopt_shim_reset(void);
/* Lets call number `nth` (from 0 for the next) of a function fail with `code`; function NULL: of
 * all functions that may return that code. A lost device stays lost, and what was submitted to it
 * is let end first, as nothing runs on a lost device. */
void adopt_shim_fail(const char *function, uint32_t nth, VkResult code);
bool adopt_shim_failed(void); /* whether that has happened */
/* Lets every `every`th call of a function that may return `code` fail, until adopt_shim_mend: of
 * all, or of those alone that allocate or make an object. Calls count on from the last such time.
 */
void adopt_shim_refuse(uint32_t every, bool allocations, VkResult code);
/* Whether the driver is at work on such a call. */
const bool *adopt_shim_making(void);
/* Nothing fails any more, and a lost device is as good as new. */
void adopt_shim_mend(void);
/* While set, a call that waits is a trespass. */
void adopt_shim_forbid_waits(bool forbid);
/* What VK_EXT_memory_budget says is free of each heap, for a device adopted with that extension; 0:
 * what the driver says. */
void adopt_shim_set_free(uint64_t bytes);

/* Until the reset, the physical device seems to have VK_NV_compute_occupancy_priority; the function
 * is there in any case. */
void adopt_shim_offer_occupancy_priority(void);
/* At which priorities the dispatches since the reset were recorded; any other, and throttling, is a
 * trespass. */
uint32_t adopt_shim_dispatch_priorities(void);
/* What dispatches that followed in a command buffer would have. */
float adopt_shim_priority_in(VkCommandBuffer commands);

uint32_t adopt_shim_calls(const char *function); /* "vkQueueSubmit2" */
uint32_t adopt_shim_unlocked_submissions(void);
/* Objects made and not destroyed. */
int32_t adopt_shim_live(void);
/* Bytes of device memory allocated and not freed. */
uint64_t adopt_shim_memory(void);
/* Objects, command buffers too, that got no name before they were destroyed, or have none yet. */
uint32_t adopt_shim_unnamed(void);
/* Priority of the last allocation; negative: it had none. */
float adopt_shim_priority(void);
/* What the last pipeline was made with. */
VkPipelineCache adopt_shim_cache(void);
/* Calls from other threads than that of the reset. */
uint32_t adopt_shim_foreign_calls(void);
/* Calls no guest may make: destroying the application's own objects, or what a failed call left in
 * its output; asking for a function that destroys the device, waits for more than a semaphore,
 * signals one, or submits in another way than vkQueueSubmit2; commands of one family on the other's
 * queue; copies by the transfer queue to what its family may not use; priorities of dispatches on
 * the transfer queue; passing other allocation callbacks than the adoption's (adopt_shim_adoption
 * has none; a test that adds some sets them here). */
uint32_t adopt_shim_trespasses(void);
/* Whether there was none of these, no submission without its lock, no object without a name and no
 * message of the validation layer; with `closed`, nothing is left either. Says on stderr what there
 * was. */
bool adopt_shim_sound(bool closed);
void adopt_shim_expect_callbacks(const VkAllocationCallbacks *callbacks);
/* Objects of the application's own, not counted. */
VkPipelineCache adopt_shim_make_cache(void);
void adopt_shim_destroy_cache(VkPipelineCache cache);

/* While held, all semaphores have the value 0, as if the device got nowhere. */
void adopt_shim_hold(bool held);
uint64_t adopt_shim_copied(void); /* bytes, by vkCmdCopyBuffer */
uint64_t adopt_shim_largest_copy(void);
uint32_t adopt_shim_transfers(void); /* submissions to the transfer queue */
/* Whether the queue for compute has waited for the last of them. */
bool adopt_shim_handed_over(void);
/* Of the validation layer, which is there with PERIDOT_TEST_VALIDATION=1. */
uint32_t adopt_shim_messages(void);

#endif
