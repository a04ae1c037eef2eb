/* Choosing a device, opening one, and living on an application's. The device is the one that
 * VK_DRIVER_FILES names. */
#include "adopt_shim.h"
#include "memory.h"
#include "must.h"
#include "pipelines.h"
#include "platform.h"
#include "queue.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- Choosing, on made-up lists ---- */

static struct device_info made_up(const char *name, VkPhysicalDeviceType type, uint64_t free) {
    struct device_info info = {.type = type, .memory_free = free, .memory_total = free};
    snprintf(info.name, sizeof info.name, "%s", name);
    return info;
}

static int32_t best_of(struct device_info *devices, uint32_t count) {
    struct device_list list = {.devices = devices, .count = count};
    device_list_choose(&list);
    assert_int_equal(list.best >= 0, list.reason[0] != '\0');
    return list.best;
}

static void test_kinds_rank_before_memory(void **state) {
    (void)state;
    struct device_info devices[] = {
        made_up("software", VK_PHYSICAL_DEVICE_TYPE_CPU, 900),
        made_up("virtual", VK_PHYSICAL_DEVICE_TYPE_VIRTUAL_GPU, 800),
        made_up("integrated", VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU, 700),
        made_up("small card", VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU, 100),
        made_up("large card", VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU, 200),
    };
    static const int32_t order[] = {4, 3, 2, 1, 0, -1};
    for (int i = 0; i < 6; i++) { /* each best one in turn becomes unusable */
        assert_int_equal(best_of(devices, 5), order[i]);
        if (order[i] >= 0)
            strcpy(devices[order[i]].unsuitable, "it is broken");
    }
}

static void check_pick(const struct device_list *list, const char *choice, int expected) {
    const struct device_info *picked;
    peridot_error error = {0};
    peridot_result result = device_list_pick(list, choice, &picked, &error);
    if (expected >= 0) {
        assert_int_equal(result, PERIDOT_OK);
        assert_ptr_equal(picked, &list->devices[expected]);
    } else {
        assert_int_equal(result, PERIDOT_ERROR_NO_DEVICE);
        assert_true(strlen(error.message) > 20);
    }
}

static void test_choice_in_words(void **state) {
    (void)state;
    struct device_info devices[] = {
        made_up("Intel(R) Arc(tm) A770 Graphics", VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU, 16),
        made_up("AMD Radeon RX 7900 XTX", VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU, 24),
        made_up("AMD Radeon 780M", VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU, 8),
    };
    for (uint8_t i = 0; i < VK_UUID_SIZE; i++)
        devices[1].uuid[i] = (uint8_t)(0xa0 + i);
    strcpy(devices[2].unsuitable, "its driver is old");
    struct device_list list = {.devices = devices, .count = 3};
    device_list_choose(&list);
    check_pick(&list, NULL, 1);
    check_pick(&list, "", 1);
    check_pick(&list, "0", 0);
    check_pick(&list, "1", 1);
    check_pick(&list, "2", -1);  /* unsuitable */
    check_pick(&list, "770", 0); /* no such index: a part of a name */
    check_pick(&list, "7900", 1);
    check_pick(&list, "arc", 0);
    check_pick(&list, "radeon", -1); /* two */
    check_pick(&list, "geforce", -1);
    check_pick(&list, "a0a1a2a3a4a5a6a7a8a9aaabacadaeaf", 1);
    check_pick(&list, "A0A1A2A3-A4A5-A6A7-A8A9-AAABACADAEAF", 1);
    check_pick(&list, "a0a1a2a3a4a5a6a7a8a9aaabacadaeaf00", -1);
    list.count = 0;
    list.best = -1;
    check_pick(&list, NULL, -1);
}

static void test_subgroup_sizes(void **state) {
    (void)state;
    assert_int_equal(device_subgroup_size(32, 32, 32), 32); /* NVIDIA */
    assert_int_equal(device_subgroup_size(32, 64, 64), 32); /* RDNA */
    assert_int_equal(device_subgroup_size(64, 64, 64), 64); /* GCN */
    assert_int_equal(device_subgroup_size(8, 32, 32), 16);  /* Intel to Xe-HPG */
    assert_int_equal(device_subgroup_size(16, 32, 32), 16); /* Xe2 */
    assert_int_equal(device_subgroup_size(64, 128, 128), 128);
    assert_int_equal(device_subgroup_size(4, 4, 4), 4); /* SwiftShader */
    assert_int_equal(device_subgroup_size(8, 8, 8), 8); /* lavapipe */
}

/* ---- Opening ---- */

static void test_every_device_is_described(void **state) {
    (void)state;
    struct device_list list;
    MUST(device_list_open(NULL, &list, &error));
    assert_true(list.count > 0);
    for (uint32_t i = 0; i < list.count; i++) {
        const struct device_info *info = &list.devices[i];
        assert_int_equal(info->index, i);
        assert_true(info->name[0] && info->memory_total > 0);
        assert_true(info->memory_free <= info->memory_total);
        if (info->unsuitable[0])
            continue;
        uint32_t size = info->limits.subgroup_size;
        assert_true(size > 0 && (size & (size - 1)) == 0);
        assert_true(info->queue_family != UINT32_MAX);
        assert_true(info->limits.max_workgroup >= 128 && info->limits.max_shared >= 16384);
        assert_true(info->limits.max_allocation >= (1u << 30) - (64u << 10));
    }
    device_list_close(&list);
}

static void test_open_and_close(void **state) {
    (void)state;
    struct device_params params = {.cache_directory = "", .max_allocation = 1 << 20, .threads = 1};
    struct device *device, *same;
    MUST(device_open(&params, &device, &error));
    assert_true(device->owned && device->queue && device->handle);
    assert_int_equal(device->info.limits.max_allocation, 1 << 20);
    assert_true(device_memory_free(device) > 0);
    char choice[16];
    snprintf(choice, sizeof choice, "%u", device->info.index);
    params.choice = choice;
    params.minimal = true;
    MUST(device_open(&params, &same, &error)); /* two at once */
    assert_int_equal(same->needs_met, 0);
    assert_true(same->info.limits.max_workgroup <= 128);
    assert_true(same->info.limits.max_shared <= 16384);
    uint32_t count;
    const struct kernel_variant *variants = kernel_variants(&count);
    for (uint32_t i = 0; i < count; i++) {
        const char *why;
        bool portable = variants[i].needs == NEEDS_NOTHING;
        assert_int_equal(kernel_variant_supported(same, &variants[i], &why), portable);
        assert_int_equal(why == NULL, portable);
    }
    device_close(same);
    device_close(device);
    device_close(NULL);
    peridot_error error;
    params.choice = "no such device";
    assert_int_equal(device_open(&params, &device, &error), PERIDOT_ERROR_NO_DEVICE);
    assert_null(device);
    assert_non_null(strstr(error.message, "no such device"));
}

/* Each first variant needs nothing beyond the minimum: the table's promise. */
static void test_first_variants_are_portable(void **state) {
    (void)state;
    const struct kernel_variant *variants = kernel_variants(NULL);
    for (int i = 0; i < KERNEL_COUNT; i++) {
        struct kernel_info info = kernel_info((enum kernel)i);
        const struct kernel_variant *first = &variants[info.first_variant];
        assert_int_equal(first->kernel, i);
        assert_int_equal(first->needs, NEEDS_NOTHING);
        assert_string_equal(first->name, "portable");
        assert_true(first->workgroup > 0 && first->workgroup <= 128);
        assert_true(info.constants_size <= 128 && info.constants_size % 4 == 0);
        assert_true(info.operand_count > 0);
        bool blocks_only = i >= KERNEL_dot_qkv && i <= KERNEL_dot_head;
        for (uint32_t j = 0; j < info.variant_count; j++)
            for (int type = 0; type < (info.typed ? WEIGHT_TYPE_COUNT : 1); type++) {
                if (blocks_only && weight_type_info((enum weight_type)type)->block == 1) {
                    assert_null(first[j].module[type].words);
                    continue;
                }
                assert_true(first[j].kernel == (enum kernel)i &&
                            first[j].module[type].end - first[j].module[type].words >= 5);
                assert_int_equal(first[j].module[type].words[0], 0x07230203); /* SPIR-V */
            }
    }
}

static char *set_aside(const char *name, const char *value) {
    const char *old = getenv(name);
    char *kept = old ? strdup(old) : NULL;
    setenv(name, value, 1);
    return kept;
}

static void put_back(const char *name, char *kept) {
    if (kept)
        setenv(name, kept, 1);
    else
        unsetenv(name);
    free(kept);
}

static void test_no_driver(void **state) {
    (void)state;
    struct device *device;
    peridot_error error = {0};
    char *new = set_aside("VK_DRIVER_FILES", "/nonexistent.json");
    char *old = set_aside("VK_ICD_FILENAMES", "/nonexistent.json");
    peridot_result result = device_open(NULL, &device, &error);
    put_back("VK_DRIVER_FILES", new);
    put_back("VK_ICD_FILENAMES", old);
    assert_int_equal(result, PERIDOT_ERROR_NO_DEVICE);
    assert_non_null(strstr(error.message, "install"));
}

static void test_no_validation_layer(void **state) {
    (void)state;
    struct device *device;
    struct device_params params = {.validation = true, .cache_directory = ""};
    peridot_error error = {0};
    char *kept = set_aside("VK_LAYER_PATH", "/nonexistent");
    peridot_result result = device_open(&params, &device, &error);
    put_back("VK_LAYER_PATH", kept);
    assert_int_equal(result, PERIDOT_ERROR_VULKAN);
    assert_non_null(strstr(error.message, "not installed"));
}

/* ---- Adoption ---- */

/* A lane's whole life: fill a buffer on the device, read it back. */
static peridot_result use_lane(struct device *device, const struct buffer *buffer,
                               peridot_error *error) {
    struct lane lane;
    VkCommandBuffer commands = VK_NULL_HANDLE;
    peridot_result result = lane_create(device, &lane, error);
    if (result)
        return result;
    result = lane_commands(&lane, &commands, error);
    if (!result)
        result = lane_begin(&lane, commands, true, error);
    if (!result) {
        device->vk.CmdFillBuffer(commands, buffer->handle, 0, VK_WHOLE_SIZE, 0x01010101);
        result = lane_end(&lane, commands, error);
    }
    struct batch batches[] = {{&commands, 1}, {&commands, 1}};
    bool reached = false;
    if (!result)
        result = lane_submit(&lane, batches, 2, error);
    if (!result)
        result = lane_poll(&lane, lane.submitted, &reached, error);
    if (!result)
        result = lane_wait(&lane, lane.submitted, error);
    if (!result)
        result = lane_poll(&lane, lane.submitted, &reached, error);
    assert_true(result || reached);
    if (!result)
        result = buffer_invalidate(device, buffer, 0, buffer->size, error);
    assert_true(result || ((const unsigned char *)buffer->mapped)[buffer->size - 1] == 1);
    lane_destroy(&lane);
    return result;
}

/* Every part of the engine once, on the application's device; the first failure comes back. */
static peridot_result use_engine(peridot_error *error) {
    struct device_adoption adoption = adopt_shim_adoption();
    struct device_params params = {.cache_directory = "", .threads = 2};
    struct device *device;
    struct arena *arena = NULL;
    const struct buffer *buffer = NULL;
    peridot_result result = device_adopt(&adoption, &params, &device, error);
    if (result)
        return result;
    uint32_t count;
    const struct kernel_variant *variants = kernel_variants(&count);
    for (uint32_t i = 0; i < 4 && i < count; i++) {
        struct pipeline_key key = pipeline_key(device, &variants[i], 0);
        if (kernel_variant_supported(device, &variants[i], NULL))
            (void)pipelines_want(device, &key);
    }
    result = pipelines_compile(device, NULL, NULL, error);
    if (!result)
        result = arena_create(device, MEMORY_READBACK, 0, &arena, error);
    if (!result)
        result = arena_buffer(arena, 4096, "landing", &buffer, error);
    if (!result)
        result = buffer_flush(device, buffer, 0, 4096, error);
    if (!result)
        result = use_lane(device, buffer, error);
    arena_destroy(arena);
    device_close(device);
    return result;
}

static void check_guest(void) {
    assert_int_equal(adopt_shim_unnamed(), 0);
    assert_int_equal(adopt_shim_live(), 0);
    assert_int_equal(adopt_shim_trespasses(), 0);
    assert_int_equal(adopt_shim_unlocked_submissions(), 0);
}

static void test_a_good_guest(void **state) {
    (void)state;
    adopt_shim_reset();
    MUST(use_engine(&error));
    assert_int_equal(adopt_shim_calls("vkQueueSubmit2"), 1); /* both batches */
    assert_true(adopt_shim_calls("vkCreateComputePipelines") > 0);
    check_guest();
}

static void check_every_failure(VkResult code, peridot_result expected, const char *words) {
    uint32_t call = 0;
    for (;; call++) {
        peridot_error error = {0};
        adopt_shim_reset();
        adopt_shim_fail(NULL, call, code);
        peridot_result result = use_engine(&error);
        check_guest();
        if (!adopt_shim_failed()) {
            assert_int_equal(result, PERIDOT_OK);
            break;
        }
        if (result == PERIDOT_OK) /* a lesser block, or a cache that is not kept, may do */
            continue;
        assert_int_equal(result, expected);
        assert_int_equal(error.code, expected);
        assert_non_null(strstr(error.message, words));
    }
    print_message("%u calls failed in turn with %d\n", call, (int)code);
    assert_true(call > 1); /* a wait that is over already makes no call */
}

static void test_every_call_may_fail(void **state) {
    (void)state;
    check_every_failure(VK_ERROR_OUT_OF_DEVICE_MEMORY, PERIDOT_ERROR_DEVICE_MEMORY, " ");
    check_every_failure(VK_ERROR_OUT_OF_HOST_MEMORY, PERIDOT_ERROR_HOST_MEMORY, "memory");
    check_every_failure(VK_ERROR_UNKNOWN, PERIDOT_ERROR_VULKAN, "error -13");
    check_every_failure(VK_ERROR_DEVICE_LOST, PERIDOT_ERROR_DEVICE_LOST, "was lost");
}

static void test_bad_adoptions(void **state) {
    (void)state;
    struct device *device;
    peridot_error error;
    struct device_adoption adoption = adopt_shim_adoption();
    adoption.queue = VK_NULL_HANDLE;
    assert_int_equal(device_adopt(&adoption, NULL, &device, &error), PERIDOT_ERROR_ARGUMENT);
    adoption = adopt_shim_adoption();
    adoption.callbacks.unlock_queue = NULL;
    assert_int_equal(device_adopt(&adoption, NULL, &device, &error), PERIDOT_ERROR_ARGUMENT);
    adoption = adopt_shim_adoption();
    adoption.queue_family = 1000;
    assert_int_equal(device_adopt(&adoption, NULL, &device, &error), PERIDOT_ERROR_NO_DEVICE);
    assert_non_null(strstr(error.message, "family"));
    struct device_features features;
    device_required_features(&features);
    features.v13.synchronization2 = VK_FALSE;
    adoption = adopt_shim_adoption();
    adoption.features = &features.base;
    assert_int_equal(device_adopt(&adoption, NULL, &device, &error), PERIDOT_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "synchronization2"));
    features.v13.synchronization2 = VK_TRUE;
    const struct device_params params = {.cache_directory = ""};
    MUST(device_adopt(&adoption, &params, &device, &error));
    assert_true(device->needs_met & NEEDS_PACKED_DOT);
    device_close(device);
    features.v13.shaderIntegerDotProduct = VK_FALSE; /* not every kernel needs it */
    MUST(device_adopt(&adoption, &params, &device, &error));
    assert_false(device->needs_met & NEEDS_PACKED_DOT);
    device_close(device);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kinds_rank_before_memory),
        cmocka_unit_test(test_choice_in_words),
        cmocka_unit_test(test_subgroup_sizes),
        cmocka_unit_test(test_first_variants_are_portable),
        cmocka_unit_test(test_every_device_is_described),
        cmocka_unit_test(test_open_and_close),
        cmocka_unit_test(test_no_driver),
        cmocka_unit_test(test_no_validation_layer),
        cmocka_unit_test_setup_teardown(test_a_good_guest, adopt_shim_set_up, adopt_shim_tear_down),
        cmocka_unit_test_setup_teardown(test_every_call_may_fail, adopt_shim_set_up,
                                        adopt_shim_tear_down),
        cmocka_unit_test_setup_teardown(test_bad_adoptions, adopt_shim_set_up,
                                        adopt_shim_tear_down),
    };
    return cmocka_run_group_tests_name("device", tests, NULL, NULL);
}
