/* Work from start to end, in slices: what a session's and a batch's public functions share.
 * `session` is a session or a batch's own (batch.h). */
#ifndef HOST_WORK_H
#define HOST_WORK_H

#include "slices.h"

/* Whether there is work to go on with. */
bool work_is_active(const struct peridot_session *session);
/* Makes place for work, with what it needs of the device. Errors: HOST_MEMORY, VULKAN. */
peridot_result work_make(struct peridot_session *session, peridot_error *error);
/* The goal of a member that samples up to `generate` tokens when it holds `length`. */
struct member_goal work_member_goal(const struct peridot_session *member, uint32_t length,
                                    uint32_t generate);
/* Takes up work that was made place for and recorded (work_list_record); its callback is set by the
 * caller. */
void work_begin(struct peridot_session *session, const struct work_goal *goal);

/* As peridot_session_plan, _advance, _record, _discard, _poll and _cancel, whether there is work or
 * not. */
void work_plan(struct peridot_session *session, float budget_ms, peridot_slice_plan *plan);
peridot_result work_advance(struct peridot_session *session, const peridot_advance *advance,
                            peridot_slice_plan *slice, peridot_error *error);
peridot_result work_record(struct peridot_session *session, const peridot_recording *recording,
                           peridot_slice_plan *slice, peridot_error *error);
peridot_result work_discard(struct peridot_session *session, peridot_error *error);
peridot_result work_poll(struct peridot_session *session, peridot_error *error);
void work_cancel(struct peridot_session *session);
/* Cancels, waits for what is in flight and takes it over. */
void work_end_wait(struct peridot_session *session);
/* Cancels, and whether something is still in flight, so that closing would wait. */
bool work_holds(struct peridot_session *session);
/* What may come next in a session, which may be a batch's member, is being changed between slices:
 * the next mask is made anew. `*ahead`: tokens of it on their way, which the masks before that one
 * were for; 0 without work. Errors: ARGUMENT (its work has no mask). */
peridot_result work_change_mask(struct peridot_session *member, uint32_t *ahead,
                                peridot_error *error);
/* Of a member's prompt, tokens that have not been run. */
uint32_t work_prompt_left(const struct peridot_session *session, uint32_t member);

#endif
