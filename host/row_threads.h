/* Rows made one by one, by several threads at once. */
#ifndef HOST_ROW_THREADS_H
#define HOST_ROW_THREADS_H

#include "error.h"

#include <stddef.h>
#include <stdint.h>

struct row_threads {
    /* Makes row `row` at `target`; from any thread. `scratch` is that thread's memory. */
    peridot_result (*make)(const void *user, uint32_t row, uint8_t *target, void *scratch,
                           peridot_error *error);
    const void *user;
    size_t row_bytes, scratch_bytes;
    uint32_t threads;           /* at most; fewer where the rows are too little for so many */
    const char *doing, *object; /* for the message of HOST_MEMORY: "loading", "qkv" */
};

/* Rows `begin` to `begin + count - 1`, one behind the other from `target` on. Errors: HOST_MEMORY,
 * and that of the first row that has one. */
peridot_result row_threads_run(const struct row_threads *work, uint32_t begin, uint32_t count,
                               uint8_t *target, peridot_error *error);

#endif
