#include "weight_rows.h"
#include "blocks.h"
#include "device_rows.h"

#include <string.h>

enum weight_type weight_row_type(enum weight_type wanted, bool is_table, uint32_t columns) {
    const struct weight_type_info *info = weight_type_info(wanted);
    if (is_table && info->low_bits + info->high_bits < 8)
        return WEIGHT_Q8_0;
    if (columns % info->block == 0)
        return wanted;
    switch (wanted) {
    case WEIGHT_Q2_K:
    case WEIGHT_Q3_K:
        return WEIGHT_Q4_0;
    case WEIGHT_Q4_K:
        return WEIGHT_Q5_0;
    case WEIGHT_Q5_K:
        return WEIGHT_Q5_1;
    case WEIGHT_Q6_K:
        return WEIGHT_Q8_0;
    default:
        return wanted; /* blocks of 32 are filled up with zeros */
    }
}

/* ---- Finite? ---- */

static bool words_finite(const uint8_t *data, size_t count) {
    uint32_t bad = 0;
    for (size_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, data + 4 * i, 4);
        bad |= (bits & 0x7f800000) == 0x7f800000;
    }
    return !bad;
}

static bool halves_finite(const uint8_t *data, size_t count, size_t pitch, uint16_t exponent) {
    uint32_t bad = 0;
    for (size_t i = 0; i < count; i++) {
        uint16_t bits;
        memcpy(&bits, data + pitch * i, 2);
        bad |= (bits & exponent) == exponent;
    }
    return !bad;
}

bool weight_row_finite(enum weight_type type, const uint8_t *source, uint32_t columns) {
    const struct weight_type_info *info = weight_type_info(type);
    size_t blocks = columns / info->block, first = 0;
    bool two = type == WEIGHT_Q4_1 || type == WEIGHT_Q5_1; /* scales, one after another */
    switch (type) {
    case WEIGHT_F32:
        return words_finite(source, columns);
    case WEIGHT_BF16:
        return halves_finite(source, columns, 2, 0x7f80);
    case WEIGHT_F16:
        return halves_finite(source, columns, 2, 0x7c00);
    case WEIGHT_Q2_K:
        first = 80, two = true;
        break;
    case WEIGHT_Q3_K:
        first = 108;
        break;
    case WEIGHT_Q4_K:
    case WEIGHT_Q5_K:
        two = true;
        break;
    case WEIGHT_Q6_K:
        first = 208;
        break;
    default:
        break;
    }
    return halves_finite(source + first, blocks, info->block_bytes, 0x7c00) &&
           (!two || halves_finite(source + first + 2, blocks, info->block_bytes, 0x7c00));
}

/* ---- Conversion ---- */

static size_t row_bytes(enum weight_type type, uint32_t columns) {
    const struct weight_type_info *info = weight_type_info(type);
    return (size_t)columns / info->block * info->block_bytes;
}

size_t weight_row_scratch(const struct weight_row *row) {
    return ((size_t)row->columns + row->padded) * sizeof(float) + row_bytes(row->to, row->padded);
}

/* A row that keeps its type: elements group by group, or blocks, which have no groups to pad. */
static void copy_row(const struct weight_row *row, const uint8_t *source, uint8_t *blocks) {
    const struct weight_type_info *info = weight_type_info(row->to);
    memset(blocks, 0, row_bytes(row->to, row->padded));
    if (info->block > 1) {
        memcpy(blocks, source, row_bytes(row->to, row->columns));
        return;
    }
    for (uint32_t column = 0, place = 0; column < row->columns;
         column += row->group, place += row->group_padded)
        memcpy(blocks + (size_t)place * info->block_bytes,
               source + (size_t)column * info->block_bytes, (size_t)row->group * info->block_bytes);
}

static void pad_row(const struct weight_row *row, const float *values, float *padded) {
    memset(padded, 0, row->padded * sizeof *padded);
    for (uint32_t column = 0, place = 0; column < row->columns;
         column += row->group, place += row->group_padded)
        memcpy(padded + place, values + column, row->group * sizeof *padded);
}

static bool fit_halves(const float *values, uint32_t count) {
    bool fit = true;
    for (uint32_t i = 0; i < count; i++)
        fit &= values[i] > -65520.0f && values[i] < 65520.0f; /* what rounds to infinity */
    return fit;
}

bool weight_row_convert(const struct weight_row *row, const uint8_t *source, uint8_t *blocks,
                        void *scratch) {
    float *values = scratch, *padded = values + row->columns;
    if (row->from == row->to) {
        copy_row(row, source, blocks);
        return true;
    }
    blocks_dequantise(row->from, source, row->columns, values);
    pad_row(row, values, padded);
    blocks_quantise(row->to, padded, row->padded, blocks);
    return row->to != WEIGHT_F16 || fit_halves(values, row->columns);
}

bool weight_row_write(const struct weight_row *row, const uint8_t *source, uint8_t *target,
                      void *scratch) {
    uint8_t *blocks = (uint8_t *)((float *)scratch + row->columns + row->padded);
    bool fits = weight_row_convert(row, source, blocks, scratch);
    device_row_pack(row->to, blocks, row->padded, target);
    return fits;
}
