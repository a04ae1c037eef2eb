#ifndef TESTS_BEGIN_RECORDING_H
#define TESTS_BEGIN_RECORDING_H

#include "must.h"
#include "peridot.h"
#include "queue.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* A command buffer of the application's, begun, for a slice; the lane's submission number `ahead`
 * from now (1: the next one) is to be that of it. */
static inline peridot_recording begin_recording(struct lane *lane, float budget_ms,
                                                uint64_t ahead) {
    VkCommandBuffer commands;
    MUST(lane_commands(lane, &commands, &error));
    MUST(lane_begin(lane, commands, false, &error));
    return (peridot_recording){.struct_size = sizeof(peridot_recording),
                               .commands = commands,
                               .budget_ms = budget_ms,
                               .timeline = lane->timeline,
                               .value = lane->submitted + ahead};
}

#endif
