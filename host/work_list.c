#include "work_list.h"

#include <string.h>

uint32_t work_list_members(const struct peridot_session *session) {
    return session->member_count ? session->member_count : 1;
}

struct peridot_session *work_list_member(const struct peridot_session *session, uint32_t index) {
    return session->member_count ? session->members[index] : (struct peridot_session *)session;
}

/* ---- Stages ---- */

static uint32_t pass_rows(const struct peridot_session *member, uint32_t left) {
    return left < member->prefill_rows ? left : member->prefill_rows;
}

/* From where a member's prompt is run: for its last token's logits that is run again, and its keys
 * and values are written again, alike. */
static uint32_t first_computed(const struct peridot_session *member,
                               const struct member_goal *goal) {
    bool again =
        member->computed == goal->prompt_end && !member->logits_valid && goal->generate > 0;
    return member->computed - again;
}

static bool is_live(const struct work_goal *goal, const struct work_place *place, uint32_t member) {
    return place->members[member].sampled < goal->members[member].generate;
}

/* Whether a member has no chunk, that is cleared, for positions before `end`; then that is what
 * comes now. */
static bool clears(struct work_place *place, uint32_t member, uint32_t end) {
    if (place->members[member].chunks * KV_CHUNK >= end)
        return false;
    place->stage = STAGE_CLEAR;
    place->member = member;
    return true;
}

/* A pass over a member's prompt. */
static void choose_pass(const struct peridot_session *session, const struct work_goal *goal,
                        struct work_place *place, uint32_t member) {
    place->stage = STAGE_PASS;
    place->member = member;
    place->base = place->members[member].computed;
    place->rows = pass_rows(work_list_member(session, member),
                            goal->members[member].prompt_end - place->base);
    (void)clears(place, member, place->base + place->rows);
}

/* The pass that the tokens sampled go through together. */
static void choose_step(const struct peridot_session *session, const struct work_goal *goal,
                        struct work_place *place) {
    uint32_t count = work_list_members(session), ended = 0;
    place->stage = STAGE_STEP;
    for (uint32_t i = 0; i < count; i++) {
        if (!is_live(goal, place, i))
            ended |= 1u << i;
        else if (clears(place, i, place->members[i].computed + 1))
            return;
    }
    place->stops = ended & ~place->stopped;
}

static void choose_stage(const struct peridot_session *session, const struct work_goal *goal,
                         struct work_place *place) {
    uint32_t count = work_list_members(session), live = 0;
    place->segment = place->dispatch = place->group = 0;
    place->base = place->rows = place->stops = place->member = 0;
    for (uint32_t i = 0; i < count; i++)
        if (place->members[i].computed < goal->members[i].prompt_end) {
            choose_pass(session, goal, place, i);
            return;
        }
    for (uint32_t i = 0; i < count; i++) {
        if (!is_live(goal, place, i))
            continue;
        live++;
        if (place->members[i].computed == goal->members[i].prompt_end + place->members[i].sampled) {
            place->stage = STAGE_SAMPLE;
            place->member = i;
            return;
        }
    }
    place->stage = STAGE_END;
    if (live)
        choose_step(session, goal, place);
}

void work_list_begin(const struct peridot_session *session, const struct work_goal *goal,
                     struct work_place *place) {
    *place = (struct work_place){.stage = STAGE_END};
    for (uint32_t i = 0; i < work_list_members(session); i++) {
        const struct peridot_session *member = work_list_member(session, i);
        place->members[i].computed = first_computed(member, &goal->members[i]);
        place->members[i].chunks = member->chunk_count;
    }
    choose_stage(session, goal, place);
}

static void end_step(const struct peridot_session *session, const struct work_goal *goal,
                     struct work_place *place) {
    place->steps++;
    place->stopped |= place->stops;
    for (uint32_t i = 0; i < work_list_members(session); i++)
        place->members[i].computed += is_live(goal, place, i);
}

static void end_stage(const struct peridot_session *session, const struct work_goal *goal,
                      struct work_place *place) {
    struct member_place *member = &place->members[place->member];
    if (place->stage == STAGE_CLEAR)
        member->chunks++;
    else if (place->stage == STAGE_SAMPLE)
        member->sampled++;
    else if (place->stage == STAGE_PASS)
        member->computed += place->rows;
    else
        end_step(session, goal, place);
    choose_stage(session, goal, place);
}

bool work_list_between(const struct work_place *place) {
    return !place->segment && !place->dispatch && !place->group;
}

bool work_list_head_runs(const struct peridot_session *session, const struct work_place *place) {
    return place->stage == STAGE_STEP && place->segment > session->model->layer_count &&
           (place->dispatch || place->group);
}

void work_list_end_member(const struct peridot_session *session, struct work_goal *goal,
                          struct work_place *place, uint32_t member) {
    bool between = work_list_between(place);
    bool sampling = place->stage == STAGE_SAMPLE && place->member == member && !between;
    goal->members[member].generate = place->members[member].sampled + sampling;
    if (between)
        choose_stage(session, goal, place);
}

/* ---- Segments ---- */

static struct pass *pass_for(const struct peridot_session *member, uint32_t rows) {
    const struct pass *pass = member->passes;
    while (pass->rows < rows)
        pass++;
    return (struct pass *)pass;
}

/* NULL after the stage's last. */
static const struct segment *segment_at(const struct peridot_session *session,
                                        const struct work_goal *goal,
                                        const struct work_place *place) {
    const struct peridot_session *member = work_list_member(session, place->member);
    const struct member_goal *of = &goal->members[place->member];
    uint32_t layers = session->model->layer_count, index = place->segment;
    if (place->stage == STAGE_SAMPLE)
        return index == 0 ? &member->samplers[of->kind] : NULL;
    bool step = place->stage == STAGE_STEP;
    const struct pass *pass = step ? &session->passes[0] : pass_for(member, place->rows);
    if (index == 0)
        return &pass->embed;
    if (index <= layers)
        return &pass->layers[index - 1];
    bool last = step || place->base + place->rows >= of->prompt_end;
    return index == layers + 1 && last ? step ? &session->head : &member->head : NULL;
}

static peridot_result record_member(struct peridot_session *member, const struct member_goal *goal,
                                    peridot_error *error) {
    uint32_t done = first_computed(member, goal);
    peridot_result result =
        done < goal->prompt_end ? forward_record_head(member, error) : PERIDOT_OK;
    if (!result && goal->generate)
        result = forward_record_sampler(member, goal->kind, error);
    for (uint32_t rows; done < goal->prompt_end && !result; done += rows) {
        rows = pass_rows(member, goal->prompt_end - done);
        result = forward_record_pass(member, pass_for(member, rows), error);
    }
    return result;
}

peridot_result work_list_record(struct peridot_session *session, const struct work_goal *goal,
                                peridot_error *error) {
    peridot_result result = PERIDOT_OK;
    bool steps = false;
    for (uint32_t i = 0; i < work_list_members(session) && !result; i++) {
        steps |= goal->members[i].generate > 1;
        result = record_member(work_list_member(session, i), &goal->members[i], error);
    }
    if (!result && steps)
        result = forward_record_pass(session, &session->passes[0], error);
    return result || !steps ? result : forward_record_head(session, error);
}

/* ---- Units ---- */

/* Of a member that is done a step has nothing to look at. */
static uint32_t attention_length(const struct work_place *place, uint32_t member) {
    bool done = (place->stops | place->stopped) >> member & 1;
    if (place->stage != STAGE_STEP)
        return place->base + place->rows;
    return done ? 1 : place->members[member].computed + 1;
}

static void attention_grid(const struct peridot_session *session, const struct work_place *place,
                           uint32_t index, struct indirect_grid *grid) {
    const struct peridot_session *member = work_list_member(session, index);
    struct session_block block = member->head_state;
    forward_attention_grid(&block, attention_length(place, index),
                           place->stage == STAGE_STEP ? 1 : place->rows);
    grid->buffer = member->block;
    memcpy(grid->grid, block.attention_grid, sizeof grid->grid);
}

uint32_t work_list_grids(const struct peridot_session *session, const struct work_place *place,
                         struct indirect_grid grids[BATCH_MAX]) {
    uint32_t count = 0;
    if (place->stage == STAGE_PASS)
        attention_grid(session, place, place->member, &grids[count++]);
    while (place->stage == STAGE_STEP && count < work_list_members(session)) {
        attention_grid(session, place, count, &grids[count]);
        count++;
    }
    return count;
}

/* Passes are recorded for more rows than they may have: the others cost nothing. */
static double used_part(const struct peridot_session *session, const struct work_place *place) {
    const struct peridot_session *member = work_list_member(session, place->member);
    return place->stage == STAGE_PASS ? (double)place->rows / pass_for(member, place->rows)->rows
                                      : 1;
}

static uint64_t kind_of(const struct dispatch *dispatch) {
    double cost = dispatch->cost.bytes + dispatch->cost.flops;
    uint64_t bits;
    memcpy(&bits, &cost, sizeof bits);
    return (uint64_t)(uintptr_t)dispatch->pipeline * 0x9e3779b97f4a7c15u ^ bits;
}

/* Whose context a dispatch looks at. */
static uint32_t reader(const struct peridot_session *session, const struct work_place *place,
                       const struct dispatch *dispatch) {
    uint32_t index = place->member, count = work_list_members(session);
    if (place->stage == STAGE_STEP && dispatch->indirect)
        for (index = 0; index + 1 < count; index++)
            if (work_list_member(session, index)->block == dispatch->indirect)
                break;
    return index;
}

void work_list_unit(const struct peridot_session *session, const struct work_goal *goal,
                    const struct work_place *place, struct work_unit *unit) {
    if (place->stage == STAGE_CLEAR) {
        uint64_t bytes = kv_chunk_bytes(session);
        *unit = (struct work_unit){.key = 0,
                                   .groups = (uint32_t)((bytes + CLEAR_BYTES - 1) / CLEAR_BYTES),
                                   .group = {.bytes = CLEAR_BYTES}};
        return;
    }
    unit->segment = segment_at(session, goal, place);
    const struct dispatch *dispatch = &unit->segment->recording.dispatches[place->dispatch];
    struct indirect_grid grid;
    uint32_t member = reader(session, place, dispatch);
    if (dispatch->indirect)
        attention_grid(session, place, member, &grid);
    else
        memcpy(grid.grid, dispatch->grid, sizeof grid.grid);
    unit->key = kind_of(dispatch);
    unit->groups = grid.grid[grid_longest_side(grid.grid)];
    double length = attention_length(place, member), used = used_part(session, place);
    unit->group.bytes = (dispatch->cost.bytes + dispatch->growth.bytes * length) / unit->groups;
    unit->group.flops =
        (dispatch->cost.flops + dispatch->growth.flops * length) * used / unit->groups;
}

bool work_list_advance(const struct peridot_session *session, const struct work_goal *goal,
                       const struct work_unit *unit, uint32_t groups, struct work_place *place) {
    place->group += groups;
    if (place->group < unit->groups)
        return false;
    place->group = 0;
    if (unit->segment && ++place->dispatch < recording_count(&unit->segment->recording))
        return false;
    place->dispatch = 0;
    place->segment++;
    if (!unit->segment || !segment_at(session, goal, place))
        end_stage(session, goal, place);
    return true;
}
