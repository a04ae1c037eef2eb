/* Submission: command buffers, one timeline semaphore, timestamps. */
#ifndef ENGINE_QUEUE_H
#define ENGINE_QUEUE_H

#include "recorder.h"

/* One batch of a submission: command buffers, then the timeline reaches the next value. */
struct batch {
    const VkCommandBuffer *commands;
    uint32_t count;
};

/* A user of one of the device's queues with a timeline and a command pool of its own. Not
 * thread-safe; several lanes of one device may be used from several threads if the queue is locked
 * by callbacks.
 */
struct lane {
    struct device *device;
    bool transfers; /* on the transfer queue */
    VkCommandPool pool;
    VkSemaphore timeline;
    uint64_t submitted;   /* the value that the last batch will signal */
    uint64_t completed;   /* the last value seen */
    uint64_t submissions; /* vkQueueSubmit2 calls made */
};

peridot_result lane_create(struct device *device, struct lane *lane, peridot_error *error);
/* On the transfer queue where the device has one, else the same. */
peridot_result lane_create_transfer(struct device *device, struct lane *lane, peridot_error *error);
void lane_destroy(struct lane *lane); /* waits for its own work, unless the device is lost */

/* A primary command buffer from the lane's pool. */
peridot_result lane_commands(struct lane *lane, VkCommandBuffer *commands, peridot_error *error);
void lane_free_commands(struct lane *lane, VkCommandBuffer commands);
/* Begins recording, and dispatches at the device's priority; `simultaneous` for command buffers
 * that are submitted again while pending. */
peridot_result lane_begin(struct lane *lane, VkCommandBuffer commands, bool simultaneous,
                          peridot_error *error);
peridot_result lane_end(struct lane *lane, VkCommandBuffer commands, peridot_error *error);
/* For Peridot's dispatches in an application's command buffer, where their priority is another than
 * the normal one that all begin with: between these they have it, and behind them that is back. */
void dispatches_begin(const struct device *device, VkCommandBuffer commands);
void dispatches_end(const struct device *device, VkCommandBuffer commands);

/* One vkQueueSubmit2 with `count` batches (at most 64); each signals the timeline. Returns without
 * waiting. */
peridot_result lane_submit(struct lane *lane, const struct batch *batches, uint32_t count,
                           peridot_error *error);
/* The same with one batch that also waits for other semaphores and signals others. */
peridot_result lane_submit_between(struct lane *lane, const struct batch *batch,
                                   const VkSemaphoreSubmitInfo *waits, uint32_t wait_count,
                                   const VkSemaphoreSubmitInfo *signals, uint32_t signal_count,
                                   peridot_error *error);
/* One submission of no work that waits for all that `before`, a lane of another queue, has
 * submitted: what comes after it on this lane's queue sees what that has written. Both lanes live
 * until it is over. */
peridot_result lane_follow(struct lane *lane, const struct lane *before, peridot_error *error);
/* Whether all that was submitted has run, as far as the device tells: a lost one does no more, and
 * of one that does not answer something may still run. A lane that was never made has nothing. */
bool lane_is_over(struct lane *lane);
/* Whether `value` is reached. Errors: DEVICE_LOST. */
peridot_result lane_poll(struct lane *lane, uint64_t value, bool *reached, peridot_error *error);
/* vkWaitSemaphores without an end; made again where it is refused memory, since what is in flight
 * can neither be used again nor freed. */
VkResult device_wait(struct device *device, const VkSemaphoreWaitInfo *info);
/* Blocks until `value` is reached. Errors: DEVICE_LOST. */
peridot_result lane_wait(struct lane *lane, uint64_t value, peridot_error *error);

#endif
