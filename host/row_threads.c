#include "row_threads.h"
#include "platform.h"

#include <stdlib.h>

#define THREAD_BYTES (256u << 10) /* of rows; less is not worth a thread */

struct job {
    const struct row_threads *work;
    uint32_t begin, end;
    uint8_t *target;
    peridot_result result;
    peridot_error error;
};

static void run(void *user) {
    struct job *job = user;
    const struct row_threads *work = job->work;
    void *scratch = malloc(work->scratch_bytes);
    job->result = scratch ? PERIDOT_OK
                          : fail(&job->error, PERIDOT_ERROR_HOST_MEMORY,
                                 "out of memory while %s %s", work->doing, work->object);
    for (uint32_t row = job->begin; row < job->end && !job->result; row++)
        job->result =
            work->make(work->user, row, job->target + (row - job->begin) * work->row_bytes, scratch,
                       &job->error);
    free(scratch);
}

peridot_result row_threads_run(const struct row_threads *work, uint32_t begin, uint32_t count,
                               uint8_t *target, peridot_error *error) {
    uint64_t enough = ((uint64_t)count * work->row_bytes + THREAD_BYTES - 1) / THREAD_BYTES;
    uint32_t most = work->threads < PLATFORM_JOBS_MAX ? work->threads : PLATFORM_JOBS_MAX;
    uint32_t parts = enough < most ? (uint32_t)enough : most;
    struct job jobs[PLATFORM_JOBS_MAX];
    for (uint32_t i = 0; i < parts; i++) {
        uint32_t first = (uint32_t)((uint64_t)count * i / parts);
        jobs[i] = (struct job){
            .work = work,
            .begin = begin + first,
            .end = begin + (uint32_t)((uint64_t)count * (i + 1) / parts),
            .target = target + first * work->row_bytes,
        };
    }
    platform_run_at_once(run, jobs, sizeof *jobs, parts);
    for (uint32_t i = 0; i < parts; i++)
        if (jobs[i].result)
            return fail(error, jobs[i].result, "%s", jobs[i].error.message);
    return PERIDOT_OK;
}
