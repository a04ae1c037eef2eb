/* Rows of weights as the device holds them, and back. A row is up to four planes one after another,
 * each padded with zeros to 16 bytes, so that a kernel's loads are whole and aligned: of each block
 * of 32 or 256 elements, taken in steps of 32,
 *   low, high: the low and the high bits of the elements' codes, in the order that kernels unpack
 *   header, scale: 16 bytes and a word or half a word; scales and minima, as shaders/blocks.glsl
 * reads them. Nothing is rounded: blocks come back as they were. A row of floats is their array. */
#ifndef HOST_DEVICE_ROWS_H
#define HOST_DEVICE_ROWS_H

#include "weight_types.h"

/* `columns`, padded as a row of the type is. */
uint32_t device_row_columns(enum weight_type type, uint32_t columns);
/* Of a row of so many padded columns, in quads (16 bytes). */
uint32_t device_row_quads(enum weight_type type, uint32_t columns);

/* Blocks as in a file, of so many padded columns, to a device row of device_row_quads; and back. */
void device_row_pack(enum weight_type type, const uint8_t *blocks, uint32_t columns, uint8_t *row);
void device_row_unpack(enum weight_type type, const uint8_t *row, uint32_t columns,
                       uint8_t *blocks);

#endif
