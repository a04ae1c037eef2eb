/* The tuning of a device on disk, and the search space that what stands there must lie in; of a
 * device that only looks like one. */
#include "checksum.h"
#include "must.h"
#include "platform.h"
#include "tuning.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <stb/stb_ds.h>

#define HEAD_BYTES 43 /* two lines: version and checksum */

static struct device device;
static char folder[] = "/tmp/peridot-tuning-XXXXXX";
static char path[4096], word[TUNING_WORD];

static void make_device(void) {
    device = (struct device){.info = {.driver_version = 7,
                                      .driver = "driver",
                                      .driver_info = "1.2 (rev 3)",
                                      .uuid = {1, 2, 3},
                                      .limits = {.subgroup_size = 64,
                                                 .subgroup_settable = true,
                                                 .subgroup_smallest = 32,
                                                 .max_workgroup = 1024,
                                                 .max_shared = 65536}},
                             .needs_met = ~0u};
}

static int set_up(void **state) {
    (void)state;
    make_device();
    if (!mkdtemp(folder))
        return -1;
    return !tuning_path(&device, folder, path, sizeof path);
}

static int tear_down(void **state) {
    (void)state;
    unlink(path);
    return rmdir(folder);
}

/* ---- The search space ---- */

static struct pipeline_key base_of(enum kernel kernel, uint32_t type, uint32_t columns) {
    const struct kernel_variant *variants = kernel_variants(NULL);
    struct pipeline_key key =
        pipeline_key(&device, &variants[kernel_info(kernel).first_variant], type);
    if (columns && !key.variant->columns)
        key.spec[SPEC_COLUMNS] = columns;
    if (kernel == KERNEL_attention_decode || kernel == KERNEL_attention_prefill) {
        key.spec[SPEC_HEAD_DIM] = 256;
        key.spec[SPEC_GROUP] = 8 / (columns ? columns : 1);
    }
    return key;
}

/* What the shaders say of themselves, in words of their own. */
static void check_key(const struct pipeline_key *key) {
    uint32_t workgroup = key->spec[SPEC_WORKGROUP], rows = key->spec[SPEC_ROWS];
    uint32_t columns = key->spec[SPEC_COLUMNS];
    const char *file = key->variant->file;
    bool tile = strcmp(file, "matmul.comp") == 0 || strcmp(file, "dot_tile.comp") == 0;
    assert_true(workgroup > 0 && workgroup <= device.info.limits.max_workgroup);
    assert_true(kernel_variant_supported(&device, key->variant, NULL));
    if (key->variant->workgroup == 0)
        assert_true(workgroup == device.info.limits.subgroup_size ||
                    workgroup == device.info.limits.subgroup_smallest);
    if (tile) {
        assert_int_equal(rows % 4, 0);
        assert_int_equal(rows * columns % (4 * workgroup), 0);
        assert_int_equal(workgroup % (rows / 4), 0);
    } else if (strcmp(file, "matvec.comp") == 0) {
        assert_int_equal(rows % 2, 0);
        assert_true(rows * columns <= 64);
    }
    if (strcmp(file, "matvec.comp") == 0 && key->variant->workgroup)
        assert_true(workgroup % 16 == 0 && workgroup * 17 * 4 < device.info.limits.max_shared);
    if (strcmp(file, "attention.comp") == 0)
        assert_int_equal(workgroup % 32, 0);
}

static uint32_t check_space(void) {
    static const uint32_t columns[] = {0, 1, 8};
    struct pipeline_key keys[KERNEL_SEARCH_MAX];
    uint32_t all = 0;
    for (uint32_t kernel = 0; kernel < KERNEL_COUNT; kernel++)
        for (uint32_t i = 0; i < 3; i++) {
            struct pipeline_key base = base_of((enum kernel)kernel, WEIGHT_Q8_0, columns[i]);
            if (!kernel_info((enum kernel)kernel).typed)
                base.type = 0;
            uint32_t count = kernel_search_list(&device, &base, columns[i], keys);
            assert_in_range(count, 1, KERNEL_SEARCH_MAX - 1);
            assert_memory_equal(&keys[0], &base, sizeof base);
            for (uint32_t j = 1; j < count; j++) {
                check_key(&keys[j]);
                assert_true(kernel_search_allows(&device, &base, columns[i], &keys[j]));
                for (uint32_t k = 0; k < j; k++)
                    assert_false(keys[k].variant == keys[j].variant &&
                                 memcmp(keys[k].spec, keys[j].spec, sizeof keys[k].spec) == 0);
            }
            all += count;
        }
    return all;
}

static void test_space(void **state) {
    (void)state;
    make_device();
    uint32_t large = check_space();
    device.info.limits.max_workgroup = 128; /* as little as Vulkan asks for */
    device.info.limits.max_shared = 16384;
    device.info.limits.subgroup_settable = false;
    device.needs_met = 0;
    uint32_t small = check_space();
    make_device();
    print_message("%u candidates, %u on the least device\n", large, small);
    assert_true(small < large / 2);
}

static void test_space_is_bounded(void **state) {
    (void)state;
    struct pipeline_key base = base_of(KERNEL_matmul_geglu, WEIGHT_BF16, 0), key = base;
    key.spec[SPEC_ROWS] = 30;
    assert_false(kernel_search_allows(&device, &base, 0, &key));
    key = base;
    key.spec[SPEC_WORKGROUP] = 512;
    assert_false(kernel_search_allows(&device, &base, 0, &key));
    key = base;
    key.spec[SPEC_KV_TYPE] = 1; /* not the tuner's to choose */
    assert_false(kernel_search_allows(&device, &base, 0, &key));
}

/* ---- On disk ---- */

static struct tuned entry_of(enum kernel kernel, uint32_t type, uint32_t columns, uint32_t index) {
    struct pipeline_key keys[KERNEL_SEARCH_MAX], base = base_of(kernel, type, columns);
    uint32_t count = kernel_search_list(&device, &base, columns, keys);
    const struct pipeline_key *key = &keys[index % count];
    struct tuned entry = {
        .place = {kernel, type, columns, 2048, 0, 0}, .variant = key->variant, .gain = 1.25};
    if (base.spec[SPEC_GROUP] > 1) {
        entry.place.width = 256;
        entry.place.group = base.spec[SPEC_GROUP];
    }
    memcpy(entry.spec, key->spec, sizeof entry.spec);
    return entry;
}

static struct tuning make_tuning(void) {
    struct tuning tuning = {.made = 1234567890};
    const struct tuned entries[] = {
        entry_of(KERNEL_matvec_geglu, WEIGHT_Q4_K, 1, 3),
        entry_of(KERNEL_matvec_geglu, WEIGHT_Q4_K, 8, 5),
        entry_of(KERNEL_matvec_geglu, WEIGHT_BF16, 1, 2),
        entry_of(KERNEL_matmul_residual, WEIGHT_BF16, 0, 9),
        entry_of(KERNEL_attention_decode, 0, 0, 1),
        entry_of(KERNEL_rmsnorm, 0, 0, 2),
    };
    for (size_t i = 0; i < sizeof entries / sizeof *entries; i++)
        tuning_set(&tuning, &entries[i]);
    tuning_set(&tuning, &entries[2]); /* again */
    return tuning;
}

/* The file's text, the caller's to free; the checksum is that of the body whatever is in it. */
static char *read_text(size_t *size) {
    struct file_bytes file;
    MUST(platform_read_file(path, &file, &error));
    char *text = malloc(file.size + 64);
    assert_non_null(text);
    memcpy(text, file.data, file.size);
    text[file.size] = '\0';
    *size = file.size;
    platform_free_file(&file);
    return text;
}

static void sum_again(char *text, size_t size) {
    char digits[17];
    snprintf(
        digits, sizeof digits, "%016llx",
        (unsigned long long)checksum_add(CHECKSUM_START, text + HEAD_BYTES, size - HEAD_BYTES));
    memcpy(text + HEAD_BYTES - 17, digits, 16);
}

static char *write_good(size_t *size) {
    struct tuning tuning = make_tuning();
    MUST(tuning_write(&device, folder, &tuning, &error));
    tuning_free(&tuning);
    return read_text(size);
}

/* How many entries a text has; `word` says what the reader did. */
static uint32_t parse(const char *text, size_t size) {
    struct tuning tuning;
    tuning_parse(&device, "the file", text, size, &tuning, word);
    uint32_t count = tuning_count(&tuning);
    tuning_free(&tuning);
    return count;
}

static void test_round_trip(void **state) {
    (void)state;
    struct tuning written = make_tuning(), read;
    assert_int_equal(tuning_count(&written), 6);
    MUST(tuning_write(&device, folder, &written, &error));
    tuning_read(&device, folder, &read, word);
    assert_string_equal(word, "");
    assert_int_equal(tuning_count(&read), 6);
    assert_int_equal(tuning_count_away(&read), 6);
    assert_int_equal(read.made, written.made);
    for (uint32_t i = 0; i < 6; i++) {
        const struct tuned *one = &written.entries[i];
        const struct tuned *other = tuning_find(&read, &one->place);
        assert_non_null(other);
        assert_ptr_equal(one->variant, other->variant);
        assert_memory_equal(one->spec, other->spec, sizeof one->spec);
        assert_true(one->gain == other->gain);
    }
    struct tuning_place elsewhere = written.entries[0].place;
    elsewhere.width = 3072;
    assert_null(tuning_find(&read, &elsewhere));
    tuning_free(&read);
    tuning_free(&written);
}

static void test_no_file(void **state) {
    (void)state;
    struct tuning tuning;
    size_t size;
    free(write_good(&size));
    device.info.uuid[15] = 1; /* another device would have a file of its own */
    tuning_read(&device, folder, &tuning, word);
    assert_string_equal(word, "");
    assert_int_equal(tuning_count(&tuning), 0);
    make_device();
    tuning_read(&device, folder, &tuning, word);
    assert_int_equal(tuning_count(&tuning), 6);
    tuning_free(&tuning);
}

static void test_damaged(void **state) {
    (void)state;
    size_t size;
    char *text = write_good(&size);
    assert_int_equal(parse(text, size), 6);
    for (size_t i = 0; i < size; i++) {
        text[i] ^= 1;
        assert_int_equal(parse(text, size), 0);
        assert_non_null(strstr(word, "damaged"));
        text[i] ^= 1;
        assert_int_equal(parse(text, i), 0);
        assert_non_null(strstr(word, "damaged"));
    }
    free(text);
}

static void test_other_driver(void **state) {
    (void)state;
    size_t size;
    char *text = write_good(&size);
    device.info.driver_version++;
    assert_int_equal(parse(text, size), 0);
    assert_non_null(strstr(word, "another driver"));
    make_device();
    snprintf(device.info.driver_info, sizeof device.info.driver_info, "1.3");
    assert_int_equal(parse(text, size), 0);
    assert_non_null(strstr(word, "another driver"));
    make_device();
    assert_int_equal(parse(text, size), 6);
    free(text);
}

/* Replaces the first `from` in the file by `to`, with a right checksum. */
static uint32_t parse_changed(const char *from, const char *to) {
    size_t size;
    char *text = write_good(&size), *at = strstr(text, from);
    if (!at)
        fail_msg("the file has no \"%s\"", from);
    memmove(at + strlen(to), at + strlen(from), strlen(at + strlen(from)) + 1);
    memcpy(at, to, strlen(to));
    size = strlen(text);
    sum_again(text, size);
    uint32_t count = parse(text, size);
    free(text);
    return count;
}

static void test_other_kernels(void **state) {
    (void)state;
    char hash[24], other[24];
    uint64_t sum = tuning_hash(KERNEL_matvec_geglu, WEIGHT_BF16);
    assert_true(sum != tuning_hash(KERNEL_matvec_geglu, WEIGHT_F16));
    assert_true(sum != tuning_hash(KERNEL_matvec_residual, WEIGHT_BF16));
    snprintf(hash, sizeof hash, "%016llx", (unsigned long long)sum);
    snprintf(other, sizeof other, "%016llx", (unsigned long long)(sum ^ 16));
    assert_int_equal(parse_changed(hash, hash), 6); /* nothing changed */
    assert_string_equal(word, "");
    assert_int_equal(parse_changed(hash, other), 5);
    assert_non_null(strstr(word, "1 of the 6"));
    assert_int_equal(parse_changed("matvec_geglu bf16", "matvec_gelu bf16"), 5);
    assert_non_null(strstr(word, "1 of the 6"));
}

/* Not what a search could have found. */
static void test_out_of_space(void **state) {
    (void)state;
    struct tuned entry = entry_of(KERNEL_rmsnorm, 0, 0, 2);
    char good[64], bad[64];
    snprintf(good, sizeof good, "%s %u,%u,%u", entry.variant->name, entry.spec[0], entry.spec[1],
             entry.spec[2]);
    assert_int_equal(parse_changed(good, good), 6);
    snprintf(bad, sizeof bad, "%s %u,%u,%u", entry.variant->name, entry.spec[0] + 1, entry.spec[1],
             entry.spec[2]);
    assert_int_equal(parse_changed(good, bad), 5);
    assert_non_null(strstr(word, "1 of the 6"));
    static const char *const hostile[][2] = {
        {" 2048 0 0 ", " 4294967295 0 0 "},
        {" 2048 0 0 ", " 2048 4294967295 0 "},
        {" 2048 0 0 ", " 2048 0 3 "},
        {" 2048 0 0 ", " 2048  0 0 "},
        {" 2048 0 0 ", " -2048 0 0 "},
        {"entry ", "Entry "},
        {"q4_k", "q4_z"},
        {"rmsnorm -", "rmsnorm bf16"},
        {"time 1", "time 99999999999999991"},
        {"entry", "entry entry"},
        {" 1250\n", " 12500000000000\n"},
        {" 1250\n", "\n"},
        {" 1250\n", " 1250 1\n"},
        {",", ",,"},
        {"driver 0", "Driver 0"},
    };
    for (size_t i = 0; i < sizeof hostile / sizeof *hostile; i++) {
        uint32_t count = parse_changed(hostile[i][0], hostile[i][1]);
        if (count || !strstr(word, "damaged"))
            fail_msg("\"%s\": %u entries, \"%s\"", hostile[i][1], count, word);
    }
    size_t size;
    char *text = write_good(&size);
    device.needs_met = 0; /* the variants that need something are gone */
    assert_true(parse(text, size) < 6);
    assert_non_null(strstr(word, "of the 6"));
    make_device();
    free(text);
}

static void test_written_nowhere(void **state) {
    (void)state;
    struct tuning tuning = make_tuning();
    peridot_error error;
    assert_int_equal(tuning_write(&device, "/proc/none/such", &tuning, &error), PERIDOT_ERROR_FILE);
    assert_non_null(strstr(error.message, "PERIDOT_CACHE_DIR"));
    tuning_free(&tuning);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_space),           cmocka_unit_test(test_space_is_bounded),
        cmocka_unit_test(test_round_trip),      cmocka_unit_test(test_no_file),
        cmocka_unit_test(test_damaged),         cmocka_unit_test(test_other_driver),
        cmocka_unit_test(test_other_kernels),   cmocka_unit_test(test_out_of_space),
        cmocka_unit_test(test_written_nowhere),
    };
    return cmocka_run_group_tests_name("tuning", tests, set_up, tear_down);
}
