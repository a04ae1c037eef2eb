#include "work_list.h"

#include <string.h>

/* ---- Stages ---- */

static uint32_t pass_rows(const struct peridot_session *session, uint32_t left) {
    return left < session->prefill_rows ? left : session->prefill_rows;
}

static void choose_stage(const struct peridot_session *session, const struct work_goal *goal,
                         struct work_place *place) {
    place->segment = place->dispatch = place->group = 0;
    place->base = place->computed;
    place->rows = 0;
    if (place->computed < goal->prompt_end) {
        place->stage = STAGE_PASS;
        place->rows = pass_rows(session, goal->prompt_end - place->computed);
    } else if (place->sampled >= goal->generate) {
        place->stage = STAGE_END;
    } else if (place->computed < goal->prompt_end + place->sampled) {
        place->stage = STAGE_STEP;
        place->rows = 1;
    } else {
        place->stage = STAGE_SAMPLE;
    }
    if (place->chunks * KV_CHUNK < place->base + place->rows)
        place->stage = STAGE_CLEAR;
}

void work_list_begin(const struct peridot_session *session, const struct work_goal *goal,
                     struct work_place *place) {
    *place = (struct work_place){.computed = session->computed, .chunks = session->chunk_count};
    choose_stage(session, goal, place);
}

static void end_stage(const struct peridot_session *session, const struct work_goal *goal,
                      struct work_place *place) {
    if (place->stage == STAGE_CLEAR)
        place->chunks++;
    else if (place->stage == STAGE_SAMPLE)
        place->sampled++;
    else
        place->computed += place->rows;
    choose_stage(session, goal, place);
}

/* ---- Segments ---- */

static struct pass *pass_for(const struct peridot_session *session, uint32_t rows) {
    const struct pass *pass = session->passes;
    while (pass->rows < rows)
        pass++;
    return (struct pass *)pass;
}

/* NULL after the stage's last. */
static const struct segment *segment_at(const struct peridot_session *session,
                                        const struct work_goal *goal,
                                        const struct work_place *place) {
    uint32_t layers = session->model->layer_count, index = place->segment;
    if (place->stage == STAGE_SAMPLE)
        return index == 0 ? &session->samplers[goal->kind] : NULL;
    const struct pass *pass = pass_for(session, place->rows);
    if (index == 0)
        return &pass->embed;
    if (index <= layers)
        return &pass->layers[index - 1];
    bool last = place->base + place->rows >= goal->prompt_end;
    return index == layers + 1 && last ? &session->head : NULL;
}

peridot_result work_list_record(struct peridot_session *session, const struct work_goal *goal,
                                peridot_error *error) {
    peridot_result result = forward_record_head(session, error);
    if (!result && goal->generate)
        result = forward_record_sampler(session, goal->kind, error);
    if (!result && goal->generate > 1)
        result = forward_record_pass(session, &session->passes[0], error);
    for (uint32_t done = session->computed, rows; done < goal->prompt_end && !result;
         done += rows) {
        rows = pass_rows(session, goal->prompt_end - done);
        result = forward_record_pass(session, pass_for(session, rows), error);
    }
    return result;
}

/* ---- Units ---- */

void work_list_attention_grid(const struct peridot_session *session, const struct work_place *place,
                              uint32_t grid[3]) {
    struct session_block block = session->head_state;
    forward_attention_grid(&block, place->base + place->rows, place->rows);
    memcpy(grid, block.attention_grid, sizeof block.attention_grid);
}

/* Passes are recorded for more rows than they may have: the others cost nothing. */
static double used_part(const struct peridot_session *session, const struct work_place *place) {
    return place->rows ? (double)place->rows / pass_for(session, place->rows)->rows : 1;
}

static uint64_t kind_of(const struct dispatch *dispatch) {
    double cost = dispatch->cost.bytes + dispatch->cost.flops;
    uint64_t bits;
    memcpy(&bits, &cost, sizeof bits);
    return (uint64_t)(uintptr_t)dispatch->pipeline * 0x9e3779b97f4a7c15u ^ bits;
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
    uint32_t grid[3];
    if (dispatch->indirect)
        work_list_attention_grid(session, place, grid);
    else
        memcpy(grid, dispatch->grid, sizeof grid);
    unit->key = kind_of(dispatch);
    unit->groups = grid[grid_longest_side(grid)];
    double length = place->base + place->rows, used = used_part(session, place);
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
