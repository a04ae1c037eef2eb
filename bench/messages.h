/* What a command says beside its results, on stderr. */
#ifndef BENCH_MESSAGES_H
#define BENCH_MESSAGES_H

#include "error.h"

/* Prints an error in one line; returns 1, the exit status. */
int complain(const peridot_error *error);
/* The same of something that goes on. */
void warn(const char *message);
/* A line of progress that replaces the last one, on a terminal alone; progress_end clears it. */
void progress(const char *format, ...) PRINTF_LIKE(1, 2);
void progress_end(void);

#endif
