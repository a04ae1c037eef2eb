/* Filling in a peridot_error. */
#ifndef ENGINE_ERROR_H
#define ENGINE_ERROR_H

#include "peridot_result.h"

#if defined(__GNUC__) || defined(__clang__)
#define PRINTF_LIKE(string, first) __attribute__((format(printf, string, first)))
#else
#define PRINTF_LIKE(string, first)
#endif

/* Writes the message (cut at the record's size), returns `code`: `return fail(e, CODE, "...")`. */
peridot_result fail(peridot_error *error, peridot_result code, const char *format, ...)
    PRINTF_LIKE(3, 4);

#endif
