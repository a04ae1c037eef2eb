/* Running a program and reading what it prints: what a process-wide environment variable decides
 * needs a process of its own. POSIX's part of the lab. */
#ifndef BENCH_CHILD_PROCESS_H
#define BENCH_CHILD_PROCESS_H

#include "error.h"

#include <stddef.h>

/* Runs arguments[0] (looked up in PATH) with this environment and "NAME=VALUE" `settings` over it,
 * both lists NULL-terminated. `*output` is its standard output, NUL-terminated, the caller's to
 * free, also where it failed; its errors go where ours go. `name` is for messages. Errors:
 * UNSUPPORTED (it cannot be run, failed or crashed: which), HOST_MEMORY. */
peridot_result child_run(const char *name, const char *const *arguments,
                         const char *const *settings, char **output, size_t *length,
                         peridot_error *error);

#endif
