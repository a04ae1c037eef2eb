/* Structs that cross the API: each begins with struct_size, what the caller takes its size to be.
 * An application may have been compiled with an older or a newer header than the library. New
 * fields go to the end, and not into what was padding there: older callers count that as theirs. */
#ifndef HOST_CALLER_STRUCT_H
#define HOST_CALLER_STRUCT_H

#include "error.h"

#include <stddef.h>
#include <string.h>

/* Copies what the caller filled in; fields that it does not know become zero, fields that this
 * library does not know are left out. `given` may be NULL: all zero. ARGUMENT: struct_size is not
 * set; `name` is the struct's, for the message. */
static inline peridot_result caller_struct_read(void *own, size_t size, const void *given,
                                                const char *name, peridot_error *error) {
    size_t known = 0;
    memset(own, 0, size);
    if (!given)
        return PERIDOT_OK;
    memcpy(&known, given, sizeof known);
    if (known < sizeof known)
        return fail(error, PERIDOT_ERROR_ARGUMENT, "%s: set struct_size to sizeof(%s)", name, name);
    memcpy(own, given, known < size ? known : size);
    return PERIDOT_OK;
}

/* Whether there is a size to fill in a struct by; `given` may be NULL, where nothing will be. */
static inline peridot_result caller_struct_check(const void *given, const char *name,
                                                 peridot_error *error) {
    size_t known = sizeof known;
    if (given)
        memcpy(&known, given, sizeof known);
    return known < sizeof known ? fail(error, PERIDOT_ERROR_ARGUMENT,
                                       "%s: set struct_size to sizeof(%s)", name, name)
                                : PERIDOT_OK;
}

/* Fills in the caller's struct as far as the caller knows it; its struct_size stays. */
static inline void caller_struct_write(void *given, const void *own, size_t size) {
    size_t known = 0;
    memcpy(&known, given, sizeof known);
    known = known < size ? known : size;
    if (known > sizeof known)
        memcpy((char *)given + sizeof known, (const char *)own + sizeof known,
               known - sizeof known);
}

#endif
