/* Every variant of every kernel in engine/kernels.def that the device can run, in every weight
 * type, on random cases of awkward sizes, against double precision. */
#include "kernel_checks.h"
#include "model.h"
#include "open_device.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "counting_modules.h"
#define MODULE(name) module_##name, module_##name##_end

static peridot_device *device;
static struct bench bench;
static uint32_t cases = 4; /* of each variant and type */

static void expect_pass(const struct kernel_variant *variant, uint32_t type) {
    kernel_check *check = kernel_check_of(variant->kernel);
    if (!check)
        fail_msg("kernel %s has no check", kernel_info(variant->kernel).name);
    if (!kernel_passes(&bench, check, variant, type))
        fail_msg("%s", bench.failure);
}

static int open_bench(void **state) {
    (void)state;
    device = open_test_device();
    uint64_t seed = random_seed();
    print_message("seed %llu\n", (unsigned long long)seed);
    MUST(bench_open(&bench, device->engine, seed, &error));
    const char *quick = getenv("PERIDOT_TEST_QUICK");
    if (quick && *quick == '1')
        cases = 2;
    return 0;
}

static int close_bench(void **state) {
    (void)state;
    bench_close(&bench);
    peridot_device_close(device);
    return 0;
}

/* Block types differ in what they unpack, not in sizes: one case each, or of a quarter of them. */
static uint32_t cases_of(uint32_t type) {
    if (type <= WEIGHT_F16)
        return cases;
    return cases > 2 || between(&bench, 0, 3) == 0;
}

/* All variants from kernel `first` to `last`, `more` times as many cases as usual. */
static void check_kernels(enum kernel first, enum kernel last, uint32_t more) {
    uint32_t count, run = 0;
    const struct kernel_variant *variants = kernel_variants(&count);
    for (uint32_t i = 0; i < count; i++) {
        if (variants[i].kernel < first || variants[i].kernel > last)
            continue;
        struct kernel_info info = kernel_info(variants[i].kernel);
        const char *why;
        if (!kernel_variant_supported(device->engine, &variants[i], &why)) {
            print_message("left out: %s %s: %s\n", info.name, variants[i].name, why);
            continue;
        }
        for (uint32_t type = 0; type < (info.typed ? WEIGHT_TYPE_COUNT : 1); type++)
            for (uint32_t j = 0; variants[i].module[type].words && j < more * cases_of(type);
                 j++, run++)
                expect_pass(&variants[i], type);
    }
    print_message("%u cases\n", run);
    assert_true(run > 0);
    assert_int_equal(validation_messages(), 0);
}

static void test_rows(void **state) {
    (void)state;
    check_kernels(KERNEL_embed, KERNEL_quantise_norm, 3);
}

static void test_matvec(void **state) {
    (void)state;
    check_kernels(KERNEL_matvec_qkv, KERNEL_matvec_head, 1);
}

static void test_matmul(void **state) {
    (void)state;
    check_kernels(KERNEL_matmul_qkv, KERNEL_matmul_head, 1);
}

static void test_kv_store(void **state) {
    (void)state;
    check_kernels(KERNEL_kv_store, KERNEL_kv_store, 8);
}

static void test_dot(void **state) {
    (void)state;
    check_kernels(KERNEL_dot_qkv, KERNEL_dot_head, 1);
}

static void test_attention(void **state) {
    (void)state;
    check_kernels(KERNEL_attention_decode, KERNEL_attention_prefill, 2);
}

/* Attention with modules that count: as before, and K and V are read no more often than they must.
 */
static void test_kv_reads(void **state) {
    (void)state;
    static const struct {
        enum kernel kernel;
        const char *variant;
        const uint32_t *words, *end;
    } counting[] = {
        {KERNEL_attention_decode, "portable", MODULE(count_decode_portable)},
        {KERNEL_attention_decode, "subgroup", MODULE(count_decode_subgroup)},
        {KERNEL_attention_prefill, "portable", MODULE(count_prefill_portable)},
        {KERNEL_attention_prefill, "subgroup", MODULE(count_prefill_subgroup)},
    };
    static struct kernel_variant copies[4]; /* the device keeps pointers to them */
    uint32_t count, checked = 0, attention = 0;
    const struct kernel_variant *variants = kernel_variants(&count);
    bench.counts_kv_reads = true;
    for (uint32_t i = 0; i < count; i++) {
        attention += variants[i].kernel == KERNEL_attention_decode ||
                     variants[i].kernel == KERNEL_attention_prefill;
        for (uint32_t j = 0; j < 4; j++) {
            if (variants[i].kernel != counting[j].kernel ||
                strcmp(variants[i].name, counting[j].variant) != 0)
                continue;
            checked++;
            copies[j] = variants[i];
            copies[j].module[0].words = counting[j].words;
            copies[j].module[0].end = counting[j].end;
            for (uint32_t k = 0;
                 k < cases && kernel_variant_supported(device->engine, &copies[j], NULL); k++)
                expect_pass(&copies[j], 0);
        }
    }
    bench.counts_kv_reads = false;
    assert_int_equal(checked, attention); /* every variant of theirs has a module that counts */
}

/* From here on to the end of the table: a new kernel must find its check. */
static void test_sampler(void **state) {
    (void)state;
    check_kernels(KERNEL_sample_mark, (enum kernel)(KERNEL_COUNT - 1), 8);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),     cmocka_unit_test(test_matvec),
        cmocka_unit_test(test_matmul),   cmocka_unit_test(test_kv_store),
        cmocka_unit_test(test_dot),      cmocka_unit_test(test_attention),
        cmocka_unit_test(test_kv_reads), cmocka_unit_test(test_sampler),
    };
    return cmocka_run_group_tests_name("kernels", tests, open_bench, close_bench);
}
