/* Compiling every variant, and the pipeline cache on disk, on the device that VK_DRIVER_FILES
 * names. */
#include "checksum.h"
#include "kernel_set.h"
#include "must.h"
#include "pipelines.h"
#include "platform.h"
#include "session.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[] = "peridot-cache-XXXXXX";
static char nested[64], file[512];

static int make_folder(void **state) {
    (void)state;
    if (!mkdtemp(folder))
        return 1;
    snprintf(nested, sizeof nested, "%s/a/b", folder); /* made on demand */
    return 0;
}

/* Finds the one file in the cache folder. */
static bool find_file(void) {
    DIR *directory = opendir(nested);
    file[0] = '\0';
    for (struct dirent *entry; directory && (entry = readdir(directory));)
        if (entry->d_name[0] != '.') {
            assert_int_equal(file[0], '\0'); /* and no temporary is left beside it */
            snprintf(file, sizeof file, "%s/%s", nested, entry->d_name);
        }
    if (directory)
        closedir(directory);
    return file[0] != '\0';
}

static int remove_folder(void **state) {
    (void)state;
    if (find_file())
        unlink(file);
    rmdir(nested);
    snprintf(nested, sizeof nested, "%s/a", folder);
    rmdir(nested);
    rmdir(folder);
    return 0;
}

static struct device *open_device(const char *cache, uint32_t threads) {
    struct device_params params = {.cache_directory = cache, .threads = threads};
    struct device *device = NULL;
    MUST(device_open(&params, &device, &error));
    return device;
}

/* Every variant in every type; on a CPU, whose compiler is slow and which runs them all in
 * test_kernels, in a quarter of the block types. */
static uint32_t want_all(struct device *device) {
    bool cpu = device_is_software(device);
    uint32_t count, wanted = 0;
    const struct kernel_variant *variants = kernel_variants(&count);
    for (uint32_t i = 0; i < count; i++) {
        bool typed = kernel_info(variants[i].kernel).typed;
        if (!kernel_variant_supported(device, &variants[i], NULL))
            continue;
        for (uint32_t type = 0; type < (typed ? WEIGHT_TYPE_COUNT : 1u); type++) {
            if (cpu && type > WEIGHT_F16 && type % 4 != i % 4)
                continue;
            if (!variants[i].module[type].words)
                continue;
            struct pipeline_key key = pipeline_key(device, &variants[i], type);
            key.spec[SPEC_HEAD_DIM] = 64;
            assert_non_null(pipelines_want(device, &key));
            wanted++;
        }
    }
    return wanted;
}

struct watched {
    uint32_t calls, last, all, cancel_at;
};

static bool watch(uint32_t done, uint32_t all, void *user) {
    struct watched *watched = user;
    assert_true(done >= watched->last && done <= all);
    watched->last = done;
    watched->all = all;
    return ++watched->calls != watched->cancel_at;
}

static void test_every_variant_compiles(void **state) {
    (void)state;
    for (uint32_t threads = 1; threads <= 4; threads += 3) {
        struct device *device = open_device("", threads);
        uint32_t wanted = want_all(device);
        struct watched watched = {0};
        MUST(pipelines_compile(device, watch, &watched, &error));
        assert_int_equal(watched.last, wanted);
        assert_int_equal(watched.all, wanted);
        struct pipelines_statistics statistics;
        pipelines_statistics(device, &statistics);
        assert_int_equal(statistics.compiled, wanted);
        assert_true(statistics.seconds > 0);
        assert_int_equal(statistics.warning[0], '\0');
        MUST(pipelines_compile(device, watch, &watched, &error)); /* nothing is left to do */
        pipelines_statistics(device, &statistics);
        assert_int_equal(statistics.compiled, wanted);
        device_close(device);
    }
}

static void test_keys(void **state) {
    (void)state;
    struct device *device = open_device("", 1);
    const struct kernel_variant *variant = kernel_variants(NULL);
    struct pipeline_key key = pipeline_key(device, variant, WEIGHT_BF16);
    assert_int_equal(key.spec[SPEC_WORKGROUP], variant->workgroup);
    struct pipeline *first = pipelines_want(device, &key);
    assert_ptr_equal(pipelines_want(device, &key), first);
    for (int i = 0; i < SPEC_COUNT + 1; i++) {
        struct pipeline_key other = key;
        if (i < SPEC_COUNT)
            other.spec[i]++;
        else
            other.type = WEIGHT_F32;
        assert_ptr_not_equal(pipelines_want(device, &other), first);
    }
    assert_ptr_equal(pipelines_want(device, &key), first);
    assert_true(first->handle == VK_NULL_HANDLE);
    device_close(device);
}

static void test_cancelling(void **state) {
    (void)state;
    struct device *device = open_device("", 1);
    uint32_t wanted = want_all(device);
    struct watched watched = {.cancel_at = 3};
    peridot_error error;
    assert_int_equal(pipelines_compile(device, watch, &watched, &error), PERIDOT_ERROR_CANCELLED);
    struct pipelines_statistics statistics;
    pipelines_statistics(device, &statistics);
    assert_int_equal(statistics.compiled, 3);
    MUST(pipelines_compile(device, NULL, NULL, &error)); /* the rest */
    pipelines_statistics(device, &statistics);
    assert_int_equal(statistics.compiled, wanted);
    device_close(device);
}

/* ---- The compiler's figures ---- */

/* Every driver that keeps figures is asked, those that only compile too (tests/run.sh): whether
 * what the program would run on the device spills registers, or keeps an array in memory because it
 * is indexed. With PERIDOT_TEST_FIGURES=1 all figures are printed. */

/* A model of which only the sizes are there: enough for kernel_set to choose its pipelines. */
struct sizes {
    struct peridot_device device;
    struct layer layer;
    struct shard shard;
    struct peridot_model model;
};

static void set_sizes(struct sizes *sizes, struct device *device, uint32_t type, uint32_t head_dim,
                      uint32_t group) {
    memset(sizes, 0, sizeof *sizes);
    sizes->device.engine = device;
    sizes->shard.type = type;
    struct weight weight = {.shards = &sizes->shard, .shard_count = 1};
    sizes->layer.qkv = sizes->layer.output = weight;
    sizes->layer.gate_up = sizes->layer.down = weight;
    sizes->model.device = &sizes->device;
    sizes->model.layers = &sizes->layer;
    sizes->model.is_home = true;
    sizes->model.config.layers = sizes->model.layer_count = 1;
    sizes->model.config.heads = 16;
    sizes->model.config.kv_heads = 16 / group;
    sizes->model.head_dim_padded = head_dim;
    sizes->model.embedding = weight;
}

#define KEYS_MAX 2048

struct keys {
    struct pipeline_key keys[KEYS_MAX];
    uint32_t count;
};

/* Once each: what a kernel does not depend on is the same for all. */
static void add_key(struct keys *keys, const struct pipeline *pipeline) {
    assert_non_null(pipeline);
    struct pipeline_key key = pipeline->key;
    enum kernel kernel = key.variant->kernel;
    if (kernel < KERNEL_kv_store || kernel > KERNEL_attention_prefill) {
        key.spec[SPEC_HEAD_DIM] = ROW_ALIGNMENT;
        key.spec[SPEC_GROUP] = 1;
        key.spec[SPEC_KV_TYPE] = 0;
    }
    for (uint32_t i = 0; i < keys->count; i++)
        if (memcmp(&keys->keys[i], &key, sizeof key) == 0)
            return;
    assert_true(keys->count < KEYS_MAX);
    keys->keys[keys->count++] = key;
}

static void add_set(struct keys *keys, const struct kernel_set *set, uint32_t type) {
    const struct pipeline *const others[] = {
        set->embed[type], set->rmsnorm,          set->attention_decode,  set->attention_join,
        set->sample_mark, set->sample_score,     set->attention_prefill, set->sample_cut,
        set->sample_draw, set->sample_histogram, set->sample_finish,     set->sample_score_masked,
    };
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        add_key(keys, others[i]);
    if (set->kv_store)
        add_key(keys, set->kv_store);
    for (uint32_t shape = 0; shape < PASS_SHAPE_COUNT; shape++)
        for (uint32_t role = 0; role < PROJECTION_COUNT; role++)
            add_key(keys, set->project[shape][role][type]);
    if (set->int8) {
        add_key(keys, set->quantise);
        add_key(keys, set->quantise_norm);
    }
}

/* What batches of two and of eight sessions run beside that. */
static void add_batches(struct keys *keys, struct device *device, const struct kernel_set *set,
                        uint32_t type) {
    for (uint32_t count = 2; count <= BATCH_MAX; count *= 4) {
        struct kernel_set batch = *set;
        MUST(kernel_set_for_batch(&batch, device, count, &error));
        add_key(keys, batch.batch_rows);
        for (uint32_t role = 0; role < PROJECTION_COUNT; role++)
            add_key(keys, batch.project[PASS_FEW_ROWS][role][type]);
    }
}

/* Of all combinations those that a CPU compiles: it takes its time, and has no registers to spill.
 */
static bool is_sample(uint32_t head_dim, uint32_t group, uint32_t type, int kv) {
    return head_dim != 128 && (group == 1 || group == 8) && kv == (int)type % 3;
}

/* What Gemma's shapes (head_dim 256; eight query heads to a KV head, or one) and smaller ones run,
 * in every precision; on a CPU a sample, and eight-bit activations with a quarter of that. */
static void collect_keys(const struct device_params *params, struct keys *keys) {
    struct device *device = NULL;
    MUST(device_open(params, &device, &error));
    bool cpu = device_is_software(device);
    for (uint32_t head_dim = 64; head_dim <= 256; head_dim *= 2)
        for (uint32_t group = 1; group <= 8; group *= 2)
            for (uint32_t type = 0; type < WEIGHT_TYPE_COUNT; type++)
                for (int kv = PERIDOT_KV_F16; kv <= PERIDOT_KV_Q8; kv++) {
                    if (cpu && !is_sample(head_dim, group, type, kv))
                        continue;
                    struct sizes sizes;
                    struct kernel_set set;
                    set_sizes(&sizes, device, type, head_dim, group);
                    for (int int8 = 0; int8 < (cpu && type % 4 ? 1 : 2); int8++) {
                        MUST(kernel_set_create(&sizes.model, (peridot_kv)kv, int8, &set, &error));
                        add_set(keys, &set, type);
                        if (!cpu)
                            add_batches(keys, device, &set, type);
                    }
                }
    device_close(device); /* not one of its pipelines has been compiled */
}

static void describe(const struct pipeline *pipeline, char *text, size_t size) {
    const struct pipeline_key *key = &pipeline->key;
    struct kernel_info kernel = kernel_info(key->variant->kernel);
    snprintf(
        text, size, "%s %s %s: workgroup %u, rows %u, columns %u, head_dim %u, group %u, KV %s%s",
        kernel.name, key->variant->name, kernel.typed ? weight_type_info(key->type)->name : "-",
        key->spec[SPEC_WORKGROUP], key->spec[SPEC_ROWS], key->spec[SPEC_COLUMNS],
        key->spec[SPEC_HEAD_DIM], key->spec[SPEC_GROUP],
        kv_name((peridot_kv)key->spec[SPEC_KV_TYPE]), key->spec[SPEC_BATCH] ? ", of a batch" : "");
}

/* Spills and scratch memory, in the drivers' words. */
static bool is_spill(const VkPipelineExecutableStatisticKHR *figure) {
    return strstr(figure->name, "pill") || strstr(figure->name, "Fill") ||
           strstr(figure->name, "cratch");
}

#define FIGURES_MAX 64

/* How many figures there are of one executable; `spilled` counts those that are not as they should
 * be. */
static uint32_t check_executable(struct device *device, const struct pipeline *pipeline,
                                 uint32_t executable, bool print, uint32_t *spilled) {
    VkPipelineExecutableInfoKHR info = {.sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_INFO_KHR,
                                        .pipeline = pipeline->handle,
                                        .executableIndex = executable};
    VkPipelineExecutableStatisticKHR figures[FIGURES_MAX];
    uint32_t count = FIGURES_MAX;
    char name[256];
    describe(pipeline, name, sizeof name);
    for (uint32_t i = 0; i < count; i++)
        figures[i] = (VkPipelineExecutableStatisticKHR){
            .sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_STATISTIC_KHR};
    assert_int_equal(
        device->vk.GetPipelineExecutableStatisticsKHR(device->handle, &info, &count, figures),
        VK_SUCCESS);
    for (uint32_t i = 0; i < count; i++) {
        unsigned long long value = figures[i].value.u64;
        bool bad = is_spill(&figures[i]) && value;
        if (bad || print)
            print_message("%s: %s: %s %llu\n", device->info.name, name, figures[i].name, value);
        *spilled += bad;
    }
    return count;
}

static uint32_t check_pipeline(struct device *device, const struct pipeline *pipeline, bool print,
                               uint32_t *spilled) {
    VkPipelineInfoKHR info = {.sType = VK_STRUCTURE_TYPE_PIPELINE_INFO_KHR,
                              .pipeline = pipeline->handle};
    uint32_t executables = 0, figures = 0;
    assert_int_equal(
        device->vk.GetPipelineExecutablePropertiesKHR(device->handle, &info, &executables, NULL),
        VK_SUCCESS);
    for (uint32_t i = 0; i < executables; i++)
        figures += check_executable(device, pipeline, i, print, spilled);
    return figures;
}

static void check_spills(bool minimal) {
    struct device_params params = {.cache_directory = "", .statistics = true, .minimal = minimal};
    struct device *device = NULL;
    struct keys keys = {.count = 0};
    struct pipeline *pipelines[KEYS_MAX];
    uint32_t figures = 0, spilled = 0;
    const char *print = getenv("PERIDOT_TEST_FIGURES");
    collect_keys(&params, &keys);
    MUST(device_open(&params, &device, &error));
    for (uint32_t i = 0; i < keys.count; i++)
        assert_non_null(pipelines[i] = pipelines_want(device, &keys.keys[i]));
    MUST(pipelines_compile(device, NULL, NULL, &error));
    for (uint32_t i = 0; i < keys.count && device->executable_properties; i++)
        figures += check_pipeline(device, pipelines[i], print && *print == '1', &spilled);
    print_message("%s: %u figures of %u pipelines, subgroups of %u\n", device->info.name, figures,
                  keys.count, device->info.limits.subgroup_size);
    if (spilled)
        fail_msg("%u figures of spilling on %s, see above", spilled, device->info.name);
    device_close(device);
}

static void test_nothing_spills(void **state) {
    (void)state;
    check_spills(false);
}

static void test_nothing_spills_in_portable_kernels(void **state) {
    (void)state;
    check_spills(true);
}

/* ---- The cache on disk ---- */

static struct pipelines_statistics compile_with(const char *cache) {
    struct device *device = open_device(cache, 2);
    struct pipelines_statistics statistics;
    want_all(device);
    MUST(pipelines_compile(device, NULL, NULL, &error));
    pipelines_statistics(device, &statistics);
    device_close(device);
    return statistics;
}

static void patch(long offset, const void *bytes, size_t size) {
    FILE *stream = fopen(file, "r+b");
    assert_non_null(stream);
    fseek(stream, offset, offset < 0 ? SEEK_END : SEEK_SET);
    assert_int_equal(fwrite(bytes, 1, size, stream), size);
    fclose(stream);
}

static void check_damaged(void) {
    struct pipelines_statistics statistics = compile_with(nested);
    assert_int_equal(statistics.cache_read, 0);
    assert_non_null(strstr(statistics.warning, "damaged"));
    statistics = compile_with(nested); /* and it was made anew */
    assert_true(statistics.cache_read > 0);
    assert_int_equal(statistics.warning[0], '\0');
}

static void test_cache_is_kept_and_checked(void **state) {
    (void)state;
    struct pipelines_statistics statistics = compile_with(nested);
    assert_int_equal(statistics.cache_read, 0);
    assert_int_equal(statistics.warning[0], '\0');
    assert_true(find_file());
    struct file_bytes whole;
    MUST(platform_read_file(file, &whole, &error));
    statistics = compile_with(nested);
    assert_int_equal(statistics.cache_read, whole.size - 24); /* without our header */
    platform_free_file(&whole);

    patch(0, "X", 1);
    check_damaged();
    patch(-1, "\x5a\xa5", 2); /* a byte changed, one more than the header says */
    check_damaged();
    assert_int_equal(truncate(file, 10), 0);
    check_damaged();
    assert_int_equal(truncate(file, 0), 0);
    check_damaged();
}

/* Whole by its checksum, and of another driver. */
static void test_foreign_cache_is_refused(void **state) {
    (void)state;
    compile_with(nested);
    assert_true(find_file());
    unsigned char image[24 + 32];
    FILE *stream = fopen(file, "rb");
    assert_non_null(stream);
    assert_int_equal(fread(image, 1, sizeof image, stream), sizeof image);
    fclose(stream);
    image[24 + 16] ^= 1; /* the driver's UUID */
    uint64_t size = 32, sum = checksum_add(CHECKSUM_START, image + 24, size);
    memcpy(image + 8, &size, 8);
    memcpy(image + 16, &sum, 8);
    assert_int_equal(truncate(file, sizeof image), 0);
    patch(0, image, sizeof image);
    check_damaged();
}

static void test_unwritable_folder(void **state) {
    (void)state;
    char blocked[80];
    snprintf(blocked, sizeof blocked, "%s/taken", folder);
    FILE *stream = fopen(blocked, "w"); /* a file where the folder should be; root may write all */
    assert_non_null(stream);
    fclose(stream);
    struct pipelines_statistics statistics = compile_with(blocked);
    assert_true(statistics.compiled > 0);
    assert_non_null(strstr(statistics.warning, "not writable"));
    assert_non_null(strstr(statistics.warning, blocked));
    unlink(blocked);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_variant_compiles),
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_cancelling),
        cmocka_unit_test(test_nothing_spills),
        cmocka_unit_test(test_nothing_spills_in_portable_kernels),
        cmocka_unit_test(test_cache_is_kept_and_checked),
        cmocka_unit_test(test_foreign_cache_is_refused),
        cmocka_unit_test(test_unwritable_folder),
    };
    return cmocka_run_group_tests_name("pipelines", tests, make_folder, remove_folder);
}
