/* Rows of weights on their way from a file to the device. That the kernels read them rightly is
 * tests/kernels' business. */
#include "abi.h"
#include "blocks.h"
#include "device_rows.h"
#include "reference/random.h"
#include "weight_rows.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct random random_state;

static uint8_t *random_bytes(size_t size) {
    uint8_t *bytes = malloc(size);
    assert_non_null(bytes);
    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)random_below(&random_state, 256);
    return bytes;
}

/* Any bits, whatever they mean, come back as they were; and a row is hardly larger than its blocks.
 */
static void test_round_trip(void **state) {
    (void)state;
    for (int type = 0; type < WEIGHT_TYPE_COUNT; type++) {
        const struct weight_type_info *info = weight_type_info(type);
        for (uint32_t i = 0; i < 20; i++) {
            uint32_t columns =
                device_row_columns(type, 1 + (uint32_t)random_below(&random_state, 3000));
            size_t size = (size_t)columns / info->block * info->block_bytes;
            uint32_t quads = device_row_quads(type, columns);
            uint8_t *blocks = random_bytes(size), *row = random_bytes((size_t)quads * 16 + 1);
            uint8_t *back = random_bytes(size + 1), guard = row[(size_t)quads * 16],
                    last = back[size];
            device_row_pack(type, blocks, columns, row);
            device_row_unpack(type, row, columns, back);
            assert_memory_equal(blocks, back, size);
            assert_int_equal(row[(size_t)quads * 16], guard);
            assert_int_equal(back[size], last);
            free(blocks);
            free(row);
            free(back);
        }
        /* Gemma's widths: 3 % is what reading the device's layout may cost */
        for (uint32_t columns = 2048; columns <= 24576; columns += 1024) {
            double ideal = (double)columns / info->block * info->block_bytes;
            assert_true(device_row_quads(type, columns) * 16 <= 1.03 * ideal);
        }
    }
}

static void set_half(uint8_t *place, uint16_t bits) {
    memcpy(place, &bits, 2);
}

/* The values of the second block of two, as the type's formula has them, depend on each of its
 * scales: so a NaN there is a NaN that a kernel would meet, and must be seen. */
static void test_finite(void **state) {
    (void)state;
    for (int type = 0; type < WEIGHT_TYPE_COUNT; type++) {
        const struct weight_type_info *info = weight_type_info(type);
        uint32_t columns = 2 * info->block, found = 0;
        uint8_t *blocks = calloc(2, info->block_bytes);
        float *values = malloc(columns * sizeof *values);
        assert_true(blocks && values);
        memset(blocks, 0x11, 2 * info->block_bytes);
        for (uint32_t at = info->block_bytes; at + 2 <= 2 * info->block_bytes; at++) {
            uint8_t kept[2] = {blocks[at], blocks[at + 1]};
            set_half(blocks + at, type == WEIGHT_BF16 ? 0xff80 : 0xfc01);
            if (type == WEIGHT_F32) /* its upper half */
                set_half(blocks + at, 0x7f81);
            blocks_dequantise(type, blocks, columns, values);
            bool finite = true;
            for (uint32_t i = 0; i < columns; i++)
                finite &= isfinite(values[i]) != 0;
            assert_int_equal(weight_row_finite(type, blocks, columns), finite);
            found += !finite;
            memcpy(blocks + at, kept, 2);
        }
        assert_true(found >= 1);
        assert_true(weight_row_finite(type, blocks, columns));
        free(blocks);
        free(values);
    }
}

/* Rows that keep their type arrive unchanged, and others as the same values; padding is zero. */
static void test_conversion(void **state) {
    (void)state;
    const uint32_t columns = 40, group = 10, padded_group = 16;
    float source[40], got[64];
    for (uint32_t i = 0; i < columns; i++)
        source[i] = (float)(int)(random_below(&random_state, 15)) - 7;
    source[0] = -8; /* so that one is the scale of the 4-bit types, exactly */
    for (int to = WEIGHT_F32; to <= WEIGHT_Q4_0; to++) {
        struct weight_row row = {.from = WEIGHT_F32,
                                 .to = to,
                                 .columns = columns,
                                 .group = group,
                                 .group_padded = padded_group,
                                 .padded = device_row_columns(to, 64)};
        uint8_t target[64 * 4], blocks[64 * 4];
        void *scratch = malloc(weight_row_scratch(&row));
        assert_non_null(scratch);
        assert_true(weight_row_write(&row, (const uint8_t *)source, target, scratch));
        device_row_unpack(to, target, row.padded, blocks);
        blocks_dequantise(to, blocks, row.padded, got);
        for (uint32_t i = 0; i < 64; i++) {
            float want = i % 16 < group ? source[i / 16 * group + i % 16] : 0;
            assert_true(fabsf(got[i] - want) <= (to < WEIGHT_Q8_0    ? 0
                                                 : to == WEIGHT_Q8_0 ? 0.04f
                                                                     : 0.6f));
        }
        free(scratch);
    }
    source[3] = 1e6f;
    struct weight_row row = {WEIGHT_F32, WEIGHT_F16, columns, columns, columns, columns};
    uint8_t target[80];
    void *scratch = malloc(weight_row_scratch(&row));
    assert_false(weight_row_write(&row, (const uint8_t *)source, target, scratch));
    free(scratch);
}

static void test_type_for_width(void **state) {
    (void)state;
    for (int type = 0; type < WEIGHT_TYPE_COUNT; type++) {
        assert_int_equal(weight_row_type(type, false, 2048), type);
        enum weight_type other = weight_row_type(type, false, 2080);
        const struct weight_type_info *wanted = weight_type_info(type),
                                      *got = weight_type_info(other);
        assert_true(got->block <= 32);
        /* never fewer bits than asked for */
        assert_true(got->low_bits + got->high_bits >= wanted->low_bits + wanted->high_bits);
        enum weight_type table = weight_row_type(type, true, 2080);
        assert_int_equal(table, wanted->low_bits + wanted->high_bits < 8 ? WEIGHT_Q8_0 : type);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_finite),
        cmocka_unit_test(test_conversion),
        cmocka_unit_test(test_type_for_width),
    };
    random_state = random_announced();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
