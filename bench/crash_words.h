/* Last words: a variant that reaches far outside its operands takes a software device down, and the
 * process with it. */
#ifndef BENCH_CRASH_WORDS_H
#define BENCH_CRASH_WORDS_H

#include "error.h"

/* From now on a crash ends the process with status 1 and this message. */
void crash_words(const char *format, ...) PRINTF_LIKE(1, 2);

#endif
