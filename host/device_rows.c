#include "device_rows.h"
#include "abi.h"

#include <string.h>

#define STEP 32 /* elements */

/* Where the codes of a step lie in a block of the file: those of elements `first` to
 * `first + count - 1` have `bits` bits, the lowest of which is bit `into` of the code, at bit
 * `shift` of the bytes from `at` on, one byte an element; or, as `packed` says, at bit first + i of
 * the word. */
struct field {
    uint32_t at, first, count, shift, bits, into;
    enum { BYTE_EACH, PACKED } kind;
};

#define FIELDS_MAX 3

/* The fields of step `step` of a block; returns how many there are. ggml's formats, and NF4 after
 * the manner of Q4_0. */
static uint32_t step_fields(enum weight_type type, uint32_t step, struct field fields[FIELDS_MAX]) {
    uint32_t half = step / 4, quarter = step % 4; /* of a block of 256 */
    uint32_t nibbles = 0;                         /* where 16 bytes hold 32 nibbles */
    switch (type) {
    case WEIGHT_Q8_0:
        fields[0] = (struct field){2, 0, 32, 0, 8, 0, BYTE_EACH};
        return 1;
    case WEIGHT_Q4_0:
    case WEIGHT_NF4:
        nibbles = 2;
        break;
    case WEIGHT_Q4_1:
        nibbles = 4;
        break;
    case WEIGHT_Q5_0:
        nibbles = 6;
        break;
    case WEIGHT_Q5_1:
        nibbles = 8;
        break;
    case WEIGHT_Q2_K:
        fields[0] = (struct field){16 + 32 * half, 0, 32, 2 * quarter, 2, 0, BYTE_EACH};
        return 1;
    case WEIGHT_Q3_K:
        fields[0] = (struct field){32 + 32 * half, 0, 32, 2 * quarter, 2, 0, BYTE_EACH};
        fields[1] = (struct field){0, 0, 32, step, 1, 2, BYTE_EACH};
        return 2;
    case WEIGHT_Q4_K:
        fields[0] = (struct field){16 + step / 2 * 32, 0, 32, step % 2 * 4, 4, 0, BYTE_EACH};
        return 1;
    case WEIGHT_Q5_K:
        fields[0] = (struct field){48 + step / 2 * 32, 0, 32, step % 2 * 4, 4, 0, BYTE_EACH};
        fields[1] = (struct field){16, 0, 32, step, 1, 4, BYTE_EACH};
        return 2;
    case WEIGHT_Q6_K:
        fields[0] =
            (struct field){64 * half + quarter % 2 * 32, 0, 32, quarter / 2 * 4, 4, 0, BYTE_EACH};
        fields[1] = (struct field){128 + 32 * half, 0, 32, 2 * quarter, 2, 4, BYTE_EACH};
        return 2;
    default:
        return 0;
    }
    fields[0] = (struct field){nibbles, 0, 16, 0, 4, 0, BYTE_EACH};
    fields[1] = (struct field){nibbles, 16, 16, 4, 4, 0, BYTE_EACH};
    fields[2] = (struct field){nibbles - 4, 0, 32, 0, 1, 4, PACKED};
    return type == WEIGHT_Q5_0 || type == WEIGHT_Q5_1 ? 3 : 2;
}

static void read_field(const struct field *field, const uint8_t *block, uint8_t *codes) {
    const uint8_t *bytes = block + field->at;
    uint32_t mask = (1u << field->bits) - 1;
    if (field->kind == PACKED)
        for (uint32_t i = 0; i < STEP; i++)
            codes[i] |= (uint8_t)((bytes[i / 8] >> i % 8 & 1) << field->into);
    else
        for (uint32_t i = 0; i < field->count; i++)
            codes[field->first + i] |= (uint8_t)((bytes[i] >> field->shift & mask) << field->into);
}

static void write_field(const struct field *field, const uint8_t *codes, uint8_t *block) {
    uint8_t *bytes = block + field->at;
    uint32_t mask = (1u << field->bits) - 1;
    if (field->kind == PACKED)
        for (uint32_t i = 0; i < STEP; i++)
            bytes[i / 8] |= (uint8_t)((codes[i] >> field->into & 1) << i % 8);
    else
        for (uint32_t i = 0; i < field->count; i++)
            bytes[i] |= (uint8_t)((codes[field->first + i] >> field->into & mask) << field->shift);
}

/* ---- Planes ---- */

struct row {
    uint32_t low, high, header, scale, end; /* where each plane begins, and the row's bytes */
};

static uint32_t plane(uint32_t bytes) {
    return (bytes + 15) / 16 * 16;
}

static struct row row_planes(enum weight_type type, uint32_t columns) {
    const struct weight_type_info *info = weight_type_info(type);
    uint32_t blocks = columns / info->block;
    struct row row = {0};
    row.high = plane(columns / 8 * info->low_bits);
    row.header = row.high + plane(columns / 8 * info->high_bits);
    row.scale = row.header + plane(blocks * info->header_bytes);
    row.end = row.scale + plane(blocks * info->scale_bytes);
    return row;
}

uint32_t device_row_columns(enum weight_type type, uint32_t columns) {
    uint32_t block = weight_type_info(type)->block;
    uint32_t multiple = block < ROW_ALIGNMENT ? ROW_ALIGNMENT : block;
    return (columns + multiple - 1) / multiple * multiple;
}

uint32_t device_row_quads(enum weight_type type, uint32_t columns) {
    return row_planes(type, columns).end / 16;
}

/* Bits `from` to `from + bits - 1` of 32 codes in a plane, and back. Codes 4g to 4g + 3 are the
 * four bytes of one word, groups of them filling each byte from its low bits on: so one shift and
 * one mask yield four elements. */
static void write_plane(const uint8_t *codes, uint32_t from, uint32_t bits, uint8_t *place) {
    uint32_t groups = 8 / bits, mask = (1u << bits) - 1; /* in a word */
    for (uint32_t g = 0; g < STEP / 4; g++)
        for (uint32_t b = 0; b < 4; b++)
            place[g / groups * 4 + b] |=
                (uint8_t)((codes[4 * g + b] >> from & mask) << g % groups * bits);
}

static void read_plane(const uint8_t *place, uint32_t into, uint32_t bits, uint8_t *codes) {
    uint32_t groups = 8 / bits, mask = (1u << bits) - 1;
    for (uint32_t g = 0; g < STEP / 4; g++)
        for (uint32_t b = 0; b < 4; b++)
            codes[4 * g + b] |=
                (uint8_t)((place[g / groups * 4 + b] >> g % groups * bits & mask) << into);
}

/* ---- Headers and scales ---- */

static uint32_t get_word(const uint8_t *bytes) {
    return bytes[0] | bytes[1] << 8 | bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

static void put_word(uint8_t *bytes, uint32_t word) {
    for (int i = 0; i < 4; i++)
        bytes[i] = (uint8_t)(word >> 8 * i);
}

/* The scale and the minimum, six bits each, of sub-block i of Q4_K and Q5_K in their 12 bytes. */
static void get_scale_k4(const uint8_t *packed, uint32_t i, uint32_t *scale, uint32_t *minimum) {
    if (i < 4) {
        *scale = packed[i] & 63;
        *minimum = packed[i + 4] & 63;
    } else {
        *scale = (packed[i + 4] & 15) | packed[i - 4] >> 6 << 4;
        *minimum = packed[i + 4] >> 4 | packed[i] >> 6 << 4;
    }
}

static void put_scale_k4(uint8_t *packed, uint32_t i, uint32_t scale, uint32_t minimum) {
    if (i < 4) {
        packed[i] |= (uint8_t)scale;
        packed[i + 4] |= (uint8_t)minimum;
    } else {
        packed[i + 4] |= (uint8_t)((scale & 15) | (minimum & 15) << 4);
        packed[i - 4] |= (uint8_t)(scale >> 4 << 6);
        packed[i] |= (uint8_t)(minimum >> 4 << 6);
    }
}

/* Q4_K, Q5_K: d and dmin; the scales' low four bits; the minima's; the high two bits of each. */
static void pack_header_k4(const uint8_t *block, uint8_t *header) {
    uint32_t words[3] = {0};
    for (uint32_t i = 0; i < 8; i++) {
        uint32_t scale, minimum;
        get_scale_k4(block + 4, i, &scale, &minimum);
        words[0] |= (scale & 15) << 4 * i;
        words[1] |= (minimum & 15) << 4 * i;
        words[2] |= (scale >> 4 | minimum >> 4 << 2) << 4 * i;
    }
    memcpy(header, block, 4);
    for (int i = 0; i < 3; i++)
        put_word(header + 4 + 4 * i, words[i]);
}

static void unpack_header_k4(const uint8_t *header, uint8_t *block) {
    uint32_t low = get_word(header + 4), low_minimum = get_word(header + 8);
    uint32_t high = get_word(header + 12);
    memcpy(block, header, 4);
    for (uint32_t i = 0; i < 8; i++)
        put_scale_k4(block + 4, i, (low >> 4 * i & 15) | (high >> 4 * i & 3) << 4,
                     (low_minimum >> 4 * i & 15) | (high >> (4 * i + 2) & 3) << 4);
}

/* Q3_K: d; the 16 scales' low four bits in two words; their high two bits. In the file, byte i of
 * the first eight holds the low bits of scales i and i + 8, byte 8 + i the high ones of i, i + 4,
 * ... */
static void pack_header_q3(const uint8_t *block, uint8_t *header) {
    const uint8_t *scales = block + 96;
    uint32_t words[3] = {0};
    for (uint32_t i = 0; i < 16; i++) {
        words[i / 8] |= (uint32_t)(scales[i % 8] >> i / 8 * 4 & 15) << i % 8 * 4;
        words[2] |= (uint32_t)(scales[8 + i % 4] >> i / 4 * 2 & 3) << i * 2;
    }
    memcpy(header, block + 108, 2);
    for (int i = 0; i < 3; i++)
        put_word(header + 4 + 4 * i, words[i]);
}

static void unpack_header_q3(const uint8_t *header, uint8_t *block) {
    uint8_t *scales = block + 96;
    for (uint32_t i = 0; i < 16; i++) {
        uint32_t low = get_word(header + 4 + i / 8 * 4) >> i % 8 * 4 & 15;
        uint32_t high = get_word(header + 12) >> i * 2 & 3;
        scales[i % 8] |= (uint8_t)(low << i / 8 * 4);
        scales[8 + i % 4] |= (uint8_t)(high << i / 4 * 2);
    }
    memcpy(block + 108, header, 2);
}

/* Where bytes of a block stand unchanged: `header_size` of them in the header, `scale_size` in the
 * scale plane. */
struct plain_bytes {
    uint32_t header, header_size, scale, scale_size;
};

static struct plain_bytes plain_bytes(enum weight_type type) {
    if (type == WEIGHT_Q2_K) /* sixteen scales and minima; d and dmin */
        return (struct plain_bytes){0, 16, 80, 4};
    if (type == WEIGHT_Q6_K) /* sixteen scales; d */
        return (struct plain_bytes){192, 16, 208, 2};
    return (struct plain_bytes){.scale_size = weight_type_info(type)->scale_bytes};
}

static void pack_scales(enum weight_type type, const uint8_t *block, uint8_t *header,
                        uint8_t *scale) {
    struct plain_bytes plain = plain_bytes(type);
    memcpy(header, block + plain.header, plain.header_size);
    memcpy(scale, block + plain.scale, plain.scale_size);
    if (type == WEIGHT_Q3_K)
        pack_header_q3(block, header);
    else if (type == WEIGHT_Q4_K || type == WEIGHT_Q5_K)
        pack_header_k4(block, header);
}

static void unpack_scales(enum weight_type type, const uint8_t *header, const uint8_t *scale,
                          uint8_t *block) {
    struct plain_bytes plain = plain_bytes(type);
    memcpy(block + plain.header, header, plain.header_size);
    memcpy(block + plain.scale, scale, plain.scale_size);
    if (type == WEIGHT_Q3_K)
        unpack_header_q3(header, block);
    else if (type == WEIGHT_Q4_K || type == WEIGHT_Q5_K)
        unpack_header_k4(header, block);
}

/* ---- Rows ---- */

void device_row_pack(enum weight_type type, const uint8_t *blocks, uint32_t columns, uint8_t *row) {
    const struct weight_type_info *info = weight_type_info(type);
    struct row at = row_planes(type, columns);
    if (info->block == 1) {
        memcpy(row, blocks, (size_t)columns * info->block_bytes);
        return;
    }
    memset(row, 0, at.end);
    for (uint32_t b = 0; b < columns / info->block; b++, blocks += info->block_bytes) {
        for (uint32_t s = 0; s < info->block / STEP; s++) {
            uint32_t step = b * (info->block / STEP) + s;
            struct field fields[FIELDS_MAX];
            uint8_t codes[STEP] = {0};
            uint32_t count = step_fields(type, s, fields);
            for (uint32_t i = 0; i < count; i++)
                read_field(&fields[i], blocks, codes);
            write_plane(codes, 0, info->low_bits, row + step * (STEP / 8) * info->low_bits);
            if (info->high_bits)
                write_plane(codes, info->low_bits, info->high_bits,
                            row + at.high + step * (STEP / 8) * info->high_bits);
        }
        pack_scales(type, blocks, row + at.header + b * info->header_bytes,
                    row + at.scale + b * info->scale_bytes);
    }
}

void device_row_unpack(enum weight_type type, const uint8_t *row, uint32_t columns,
                       uint8_t *blocks) {
    const struct weight_type_info *info = weight_type_info(type);
    struct row at = row_planes(type, columns);
    if (info->block == 1) {
        memcpy(blocks, row, (size_t)columns * info->block_bytes);
        return;
    }
    memset(blocks, 0, (size_t)columns / info->block * info->block_bytes);
    for (uint32_t b = 0; b < columns / info->block; b++, blocks += info->block_bytes) {
        for (uint32_t s = 0; s < info->block / STEP; s++) {
            uint32_t step = b * (info->block / STEP) + s;
            struct field fields[FIELDS_MAX];
            uint8_t codes[STEP] = {0};
            uint32_t count = step_fields(type, s, fields);
            read_plane(row + step * (STEP / 8) * info->low_bits, 0, info->low_bits, codes);
            if (info->high_bits)
                read_plane(row + at.high + step * (STEP / 8) * info->high_bits, info->low_bits,
                           info->high_bits, codes);
            for (uint32_t i = 0; i < count; i++)
                write_field(&fields[i], codes, blocks);
        }
        unpack_scales(type, row + at.header + b * info->header_bytes,
                      row + at.scale + b * info->scale_bytes, blocks);
    }
}
