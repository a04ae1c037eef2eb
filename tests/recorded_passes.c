#include "recorded_passes.h"
#include "forward.h"
#include "open_device.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

void record_everything(struct peridot_session *session) {
    MUST(forward_record_head(session, &error));
    for (uint32_t i = 0; i < PASS_BUCKETS; i++)
        MUST(forward_record_pass(session, &session->passes[i], &error));
    for (uint32_t kind = 0; kind < SAMPLER_KINDS; kind++)
        MUST(forward_record_sampler(session, kind, &error));
}

uint32_t list_pass(const struct peridot_session *session, uint32_t index, uint32_t sampler,
                   const struct recording **list) {
    const struct pass *pass = &session->passes[index];
    uint32_t count = 0;
    list[count++] = &pass->embed.recording;
    for (uint32_t i = 0; i < session->model->config.layers; i++)
        list[count++] = &pass->layers[i].recording;
    list[count++] = &session->head.recording;
    if (index == 0)
        list[count++] = &session->samplers[sampler].recording;
    return count;
}

uint32_t list_batch(const struct peridot_batch *batch, uint32_t sampler,
                    const struct recording **list) {
    const struct peridot_session *own = &batch->own;
    uint32_t count = 0;
    list[count++] = &own->passes[0].embed.recording;
    for (uint32_t i = 0; i < own->model->config.layers; i++)
        list[count++] = &own->passes[0].layers[i].recording;
    list[count++] = &own->head.recording;
    for (uint32_t i = 0; i < own->member_count; i++)
        list[count++] = &own->members[i]->samplers[sampler].recording;
    return count;
}
