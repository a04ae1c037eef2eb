#include "timed_steps.h"
#include "forward.h"
#include "timestamps.h"

#include <stdlib.h>

#define GREEDY 0 /* the sampler's kind */

/* What a decode step replays, recorded if it was not yet. */
static peridot_result list_segments(struct timed_steps *timed, peridot_error *error) {
    struct peridot_session *session = timed->session;
    struct pass *pass = &session->passes[0];
    uint32_t layers = session->model->config.layers, count = 0, first = 0;
    timed->segments = calloc(layers + 3, sizeof *timed->segments);
    if (!timed->segments)
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory while timing a step");
    peridot_result result = forward_record_pass(session, pass, error);
    if (!result)
        result = forward_record_head(session, error);
    if (!result)
        result = forward_record_sampler(session, GREEDY, error);
    if (result)
        return result;
    timed->segments[count++].segment = &pass->embed;
    for (uint32_t i = 0; i < layers; i++)
        timed->segments[count++].segment = &pass->layers[i];
    timed->segments[count++].segment = &session->head;
    timed->segments[count++].segment = &session->samplers[GREEDY];
    for (uint32_t i = 0; i < count; i++) {
        timed->segments[i].first = first;
        first += recording_count(&timed->segments[i].segment->recording) + 1;
    }
    timed->segment_count = count;
    timed->dispatch_count = first - count;
    return PERIDOT_OK;
}

static peridot_result emit_timed(struct timed_steps *timed, struct timed_segment *segment,
                                 peridot_error *error) {
    struct lane *lane = &timed->session->lane;
    bool last = segment == &timed->segments[timed->segment_count - 1];
    struct emit_options options = {
        .queries = timed->queries,
        .first_query = segment->first,
        .host_read = last, /* the sampler's token */
    };
    VkCommandBuffer commands;
    peridot_result result = lane_commands(lane, &commands, error);
    if (result)
        return result;
    result = lane_begin(lane, commands, true, error);
    if (!result)
        result = recording_emit(&segment->segment->recording, commands, &options, error);
    if (!result)
        result = lane_end(lane, commands, error);
    if (result) {
        lane_free_commands(lane, commands);
        return result;
    }
    segment->plain = segment->segment->commands;
    segment->segment->commands = commands;
    return PERIDOT_OK;
}

peridot_result timed_steps_begin(struct peridot_session *session, struct timed_steps *timed,
                                 peridot_error *error) {
    struct device *device = session->lane.device;
    *timed = (struct timed_steps){.session = session};
    if (!timestamps_supported(device))
        return fail(error, PERIDOT_ERROR_UNSUPPORTED,
                    "%s has no timestamps on its compute queue: its kernels cannot be timed one by "
                    "one",
                    device->info.name);
    peridot_result result = list_segments(timed, error);
    uint32_t queries = timed->dispatch_count + timed->segment_count;
    if (!result)
        result = timestamps_create(device, queries, &timed->queries, error);
    for (uint32_t i = 0; i < timed->segment_count && !result; i++)
        result = emit_timed(timed, &timed->segments[i], error);
    if (result)
        timed_steps_end(timed);
    return result;
}

void timed_steps_end(struct timed_steps *timed) {
    if (!timed->session)
        return;
    struct lane *lane = &timed->session->lane;
    (void)lane_wait(lane, lane->submitted, NULL);
    for (uint32_t i = 0; i < timed->segment_count; i++) {
        struct timed_segment *segment = &timed->segments[i];
        if (!segment->plain)
            continue;
        lane_free_commands(lane, segment->segment->commands);
        segment->segment->commands = segment->plain;
    }
    timestamps_destroy(lane->device, timed->queries);
    free(timed->segments);
    *timed = (struct timed_steps){0};
}

const struct dispatch *timed_steps_dispatch(const struct timed_steps *timed, uint32_t index) {
    const struct timed_segment *segment = timed->segments;
    for (uint32_t count; (count = recording_count(&segment->segment->recording)) <= index;
         segment++)
        index -= count;
    return &segment->segment->recording.dispatches[index];
}

peridot_result timed_steps_read(const struct timed_steps *timed, double *seconds,
                                peridot_error *error) {
    struct device *device = timed->session->lane.device;
    uint32_t count = timed->dispatch_count + timed->segment_count;
    uint64_t *ticks = malloc(count * sizeof *ticks);
    if (!ticks)
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory while timing a step");
    peridot_result result = timestamps_read(device, timed->queries, 0, count, ticks, error);
    for (uint32_t i = 0; i < timed->segment_count && !result; i++) {
        const struct timed_segment *segment = &timed->segments[i];
        uint32_t dispatches = recording_count(&segment->segment->recording);
        for (uint32_t j = 0; j < dispatches; j++)
            *seconds++ = timestamps_seconds(device, ticks[segment->first + j],
                                            ticks[segment->first + j + 1]);
    }
    free(ticks);
    return result;
}
