/* NumPy's .npy files: token ids in, logits out. Format: numpy.lib.format, versions 1.0 to 3.0. */
#ifndef HOST_NPY_H
#define HOST_NPY_H

#include "error.h"

#include <stddef.h>
#include <stdint.h>

/* A one-dimensional int32 or int64 array, little-endian; `*ids` is the caller's to free.
 * Errors: FILE, FORMAT (another type or shape: which; truncated; an id beyond int32: which),
 * HOST_MEMORY. */
peridot_result npy_read_tokens(const char *path, int32_t **ids, size_t *count,
                               peridot_error *error);
/* A two-dimensional float32 array, [rows][columns]; the caller's to free. */
peridot_result npy_read_floats(const char *path, float **values, size_t *rows, size_t *columns,
                               peridot_error *error);
/* Writes float32 [rows][columns], atomically. Errors: FILE. */
peridot_result npy_write_floats(const char *path, const float *values, size_t rows, size_t columns,
                                peridot_error *error);

#endif
