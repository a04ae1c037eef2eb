/* One row of a weight matrix: from the type that a file has it in to another, for a file or the
 * device. */
#ifndef HOST_WEIGHT_ROWS_H
#define HOST_WEIGHT_ROWS_H

#include "weight_types.h"

#include <stdbool.h>
#include <stddef.h>

/* The type that a row of `columns` elements has if `wanted` is asked for: that, or where its blocks
 * of 256 would not fill the row, the next better one with blocks of 32. The rows of a table, the
 * embedding or the head, keep eight bits or more: fewer ruin it. */
enum weight_type weight_row_type(enum weight_type wanted, bool is_table, uint32_t columns);

struct weight_row {
    enum weight_type from, to;
    uint32_t columns;             /* of the file's row */
    uint32_t group, group_padded; /* each `group` columns are padded with zeros to so many */
    uint32_t padded;              /* columns of the device row, device_row_columns(to, ...) */
};

/* Bytes of memory that weight_row_convert and weight_row_write work in. */
size_t weight_row_scratch(const struct weight_row *row);
/* Whether every element, or every scale, is a finite number. `source` may be unaligned. */
bool weight_row_finite(enum weight_type type, const uint8_t *source, uint32_t columns);
/* Writes `padded` elements as a file has them: unchanged if both types are the same, widened
 * exactly, or rounded for the least error. False: an element does not fit in a float16. */
bool weight_row_convert(const struct weight_row *row, const uint8_t *source, uint8_t *blocks,
                        void *scratch);
/* The same as a device row, of device_row_quads(to, padded) quads. */
bool weight_row_write(const struct weight_row *row, const uint8_t *source, uint8_t *target,
                      void *scratch);

#endif
