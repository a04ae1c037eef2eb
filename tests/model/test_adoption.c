/* Peridot on an application's device: opened by the test itself, with intercepted functions that
 * count, check the queue's lock, lose the device at a chosen call, and tell how much memory is
 * free. */
#include "peridot.h"

#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- The application ---- */

static struct {
    void *library;
    PFN_vkGetInstanceProcAddr get;
    VkInstance instance;
    VkPhysicalDevice physical;
    VkDevice device;
    VkQueue queue;
    uint32_t family;
} app;

/* What the intercepted functions see and do. */
static struct {
    bool locked;
    unsigned submissions, unlocked_submissions, destroyed, waits_idle, allocations;
    uint64_t memory_free; /* what VK_EXT_memory_budget tells */
    int lose_after;       /* submissions or waits until the device is lost; -1: never */
    int refuse_after;     /* allocations until one is refused; -1: never */
    PFN_vkQueueSubmit2 submit;
    PFN_vkWaitSemaphores wait;
    PFN_vkDeviceWaitIdle idle;
    PFN_vkAllocateMemory allocate;
    PFN_vkGetDeviceProcAddr get_device;
    PFN_vkGetPhysicalDeviceMemoryProperties2 memory_properties;
    bool no_timeline, transfer_family; /* a device without that feature; one with such a family */
} shim;

#define LOAD(name) ((PFN_##name)app.get(app.instance, #name))

/* Whether this call finds the device lost. A lost device runs nothing any more, so what was
 * submitted is let end first: memory may be freed then. */
static bool lost(void) {
    if (shim.lose_after < 0 || shim.lose_after-- > 0)
        return false;
    shim.lose_after = 0;
    shim.idle(app.device);
    return true;
}

static VKAPI_ATTR VkResult VKAPI_CALL submit(VkQueue queue, uint32_t count,
                                             const VkSubmitInfo2 *infos, VkFence fence) {
    shim.submissions++;
    shim.unlocked_submissions += !shim.locked;
    if (lost())
        return VK_ERROR_DEVICE_LOST;
    return shim.submit(queue, count, infos, fence);
}

static VKAPI_ATTR VkResult VKAPI_CALL wait(VkDevice device, const VkSemaphoreWaitInfo *info,
                                           uint64_t timeout) {
    if (lost()) {
        shim.lose_after = 0;
        shim.wait(device, info,
                  timeout); /* what was submitted does end: nothing may be freed under it */
        return VK_ERROR_DEVICE_LOST;
    }
    return shim.wait(device, info, timeout);
}

static VKAPI_ATTR VkResult VKAPI_CALL allocate(VkDevice device, const VkMemoryAllocateInfo *info,
                                               const VkAllocationCallbacks *callbacks,
                                               VkDeviceMemory *memory) {
    shim.allocations++;
    if (shim.refuse_after >= 0 && shim.refuse_after-- == 0)
        return VK_ERROR_OUT_OF_DEVICE_MEMORY;
    return shim.allocate(device, info, callbacks, memory);
}

static VKAPI_ATTR void VKAPI_CALL destroy_device(VkDevice device,
                                                 const VkAllocationCallbacks *callbacks) {
    (void)device;
    (void)callbacks;
    shim.destroyed++;
}

static VKAPI_ATTR VkResult VKAPI_CALL wait_idle(VkDevice device) {
    (void)device;
    shim.waits_idle++;
    return VK_SUCCESS;
}

/* With one more heap of device memory, which no memory type uses and nobody may count on. */
static VKAPI_ATTR void VKAPI_CALL memory_properties(VkPhysicalDevice physical,
                                                    VkPhysicalDeviceMemoryProperties2 *memory) {
    VkBaseOutStructure *next = memory->pNext;
    memory->pNext = NULL; /* the driver may not know the budget's struct */
    shim.memory_properties(physical, memory);
    memory->pNext = next;
    VkPhysicalDeviceMemoryProperties *heaps = &memory->memoryProperties;
    assert_true(heaps->memoryHeapCount < VK_MAX_MEMORY_HEAPS);
    heaps->memoryHeaps[heaps->memoryHeapCount++] =
        (VkMemoryHeap){(VkDeviceSize)1 << 30, VK_MEMORY_HEAP_DEVICE_LOCAL_BIT};
    for (; next; next = next->pNext)
        if (next->sType == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_BUDGET_PROPERTIES_EXT) {
            VkPhysicalDeviceMemoryBudgetPropertiesEXT *budget = (void *)next;
            for (uint32_t i = 0; i < VK_MAX_MEMORY_HEAPS; i++) {
                budget->heapUsage[i] = 12345;
                budget->heapBudget[i] = 12345 + (i ? (uint64_t)1 << 30 : shim.memory_free);
            }
        }
}

static VKAPI_ATTR void VKAPI_CALL features(VkPhysicalDevice physical,
                                           VkPhysicalDeviceFeatures2 *out) {
    LOAD(vkGetPhysicalDeviceFeatures2)(physical, out);
    for (VkBaseOutStructure *next = out->pNext; next; next = next->pNext)
        if (next->sType == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES)
            ((VkPhysicalDeviceVulkan12Features *)next)->timelineSemaphore &= !shim.no_timeline;
}

/* The device's first family, and behind it one for compute without graphics and one for transfers.
 */
static VKAPI_ATTR void VKAPI_CALL families(VkPhysicalDevice physical, uint32_t *count,
                                           VkQueueFamilyProperties2 *out) {
    static const VkQueueFlags more[] = {VK_QUEUE_COMPUTE_BIT | VK_QUEUE_TRANSFER_BIT,
                                        VK_QUEUE_TRANSFER_BIT | VK_QUEUE_SPARSE_BINDING_BIT};
    uint32_t one = 1;
    if (!shim.transfer_family || !out) {
        LOAD(vkGetPhysicalDeviceQueueFamilyProperties2)(physical, count, out);
        *count += out ? 0 : 2;
        return;
    }
    assert_true(*count >= 3);
    LOAD(vkGetPhysicalDeviceQueueFamilyProperties2)(physical, &one, out);
    for (int i = 1; i <= 2; i++) {
        out[i].queueFamilyProperties = out[0].queueFamilyProperties;
        out[i].queueFamilyProperties.queueFlags = more[i - 1];
    }
    *count = 3;
}

static VKAPI_ATTR PFN_vkVoidFunction VKAPI_CALL get_device_function(VkDevice device,
                                                                    const char *name) {
    static const struct {
        const char *name;
        PFN_vkVoidFunction function;
    } intercepted[] = {
        {"vkQueueSubmit2", (PFN_vkVoidFunction)submit},
        {"vkWaitSemaphores", (PFN_vkVoidFunction)wait},
        {"vkAllocateMemory", (PFN_vkVoidFunction)allocate},
        {"vkDestroyDevice", (PFN_vkVoidFunction)destroy_device},
        {"vkDeviceWaitIdle", (PFN_vkVoidFunction)wait_idle},
    };
    for (size_t i = 0; i < sizeof intercepted / sizeof *intercepted; i++)
        if (strcmp(name, intercepted[i].name) == 0)
            return intercepted[i].function;
    return shim.get_device(device, name);
}

static VKAPI_ATTR PFN_vkVoidFunction VKAPI_CALL get_function(VkInstance instance,
                                                             const char *name) {
    if (strcmp(name, "vkGetDeviceProcAddr") == 0)
        return (PFN_vkVoidFunction)get_device_function;
    if (strcmp(name, "vkGetPhysicalDeviceMemoryProperties2") == 0)
        return (PFN_vkVoidFunction)memory_properties;
    if (strcmp(name, "vkGetPhysicalDeviceFeatures2") == 0)
        return (PFN_vkVoidFunction)features;
    if (strcmp(name, "vkGetPhysicalDeviceQueueFamilyProperties2") == 0)
        return (PFN_vkVoidFunction)families;
    return app.get(instance, name);
}

static void lock(void *user) {
    (void)user;
    assert_false(shim.locked);
    shim.locked = true;
}

static void unlock(void *user) {
    (void)user;
    assert_true(shim.locked);
    shim.locked = false;
}

static void create_instance(void) {
    app.library = dlopen("libvulkan.so.1", RTLD_NOW);
    assert_non_null(app.library);
    *(void **)&app.get = dlsym(app.library, "vkGetInstanceProcAddr");
    VkApplicationInfo about = {.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO,
                               .apiVersion = VK_API_VERSION_1_3};
    VkInstanceCreateInfo info = {.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO,
                                 .pApplicationInfo = &about};
    assert_int_equal(LOAD(vkCreateInstance)(&info, NULL, &app.instance), VK_SUCCESS);
    uint32_t one = 1;
    assert_true(LOAD(vkEnumeratePhysicalDevices)(app.instance, &one, &app.physical) >= 0);
}

static void create_device(void) {
    peridot_requirements requirements = {.struct_size = sizeof requirements};
    peridot_requirements_get(&requirements);
    float priority = 1;
    VkDeviceQueueCreateInfo queue = {.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
                                     .queueFamilyIndex = app.family,
                                     .queueCount = 1,
                                     .pQueuePriorities = &priority};
    VkDeviceCreateInfo info = {.sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
                               .pNext = requirements.features,
                               .queueCreateInfoCount = 1,
                               .pQueueCreateInfos = &queue};
    assert_int_equal(LOAD(vkCreateDevice)(app.physical, &info, NULL, &app.device), VK_SUCCESS);
    shim.get_device = LOAD(vkGetDeviceProcAddr);
    shim.memory_properties = LOAD(vkGetPhysicalDeviceMemoryProperties2);
#define DEVICE(name) ((PFN_##name)shim.get_device(app.device, #name))
    DEVICE(vkGetDeviceQueue)(app.device, app.family, 0, &app.queue);
    shim.submit = DEVICE(vkQueueSubmit2);
    shim.wait = DEVICE(vkWaitSemaphores);
    shim.allocate = DEVICE(vkAllocateMemory);
    shim.idle = DEVICE(vkDeviceWaitIdle);
}

static int open_application(void **state) {
    (void)state;
    create_instance();
    create_device();
    return 0;
}

static int close_application(void **state) {
    (void)state;
    DEVICE(vkDestroyDevice)(app.device, NULL);
    LOAD(vkDestroyInstance)(app.instance, NULL);
    dlclose(app.library);
    return 0;
}

static peridot_adoption adoption(void) {
    return (peridot_adoption){
        .struct_size = sizeof(peridot_adoption),
        .instance = app.instance,
        .physical_device = app.physical,
        .device = app.device,
        .get_instance_proc_addr = get_function,
        .queue = app.queue,
        .queue_family = app.family,
        .lock_queue = lock,
        .unlock_queue = unlock,
    };
}

/* ---- Tests ---- */

static const int32_t prompt[] = {2, 4, 6, 8, 10};

/* Everything from adopting to ten tokens; the first failure comes back. */
static peridot_result run_once(peridot_error *error, uint32_t *generated) {
    peridot_adoption from = adoption();
    peridot_device_params params = {.struct_size = sizeof params, .cache_directory = ""};
    peridot_device *device = NULL;
    peridot_model *model = NULL;
    peridot_session *session = NULL;
    peridot_session_params with = {.struct_size = sizeof with, .context = 64};
    peridot_sampling sampling = {.struct_size = sizeof sampling, .min_tokens = 20};
    peridot_result result = peridot_device_adopt(&from, &params, &device, error);
    if (!result)
        result = peridot_model_load_wait(device, TEST_DATA "/small-f32", NULL, &model, error);
    if (!result)
        result = peridot_session_create(model, &with, &session, error);
    if (!result)
        result = peridot_session_sampling(session, &sampling, error);
    if (!result)
        result = peridot_session_prompt_wait(session, prompt, 5, NULL, error);
    if (!result)
        result = peridot_session_generate_wait(session, 10, NULL, NULL, generated, error);
    peridot_session_close_wait(session);
    peridot_model_close(model);
    peridot_device_close(device);
    return result;
}

static void reset_shim(void) {
    shim.submissions = shim.unlocked_submissions = shim.destroyed = shim.waits_idle = 0;
    shim.allocations = 0;
    shim.lose_after = shim.refuse_after = -1;
}

static void test_runs_on_an_adopted_device(void **state) {
    (void)state;
    peridot_error error = {0};
    uint32_t generated = 0;
    reset_shim();
    if (run_once(&error, &generated))
        fail_msg("%s", error.message);
    assert_int_equal(generated, 10);
    assert_true(shim.submissions > 0);
    assert_int_equal(shim.unlocked_submissions, 0);
    assert_int_equal(shim.destroyed, 0);
    assert_int_equal(shim.waits_idle, 0);
}

static void test_device_lost_anywhere(void **state) {
    (void)state;
    for (int call = 0;; call++) {
        peridot_error error = {0};
        uint32_t generated;
        reset_shim();
        shim.lose_after = call;
        peridot_result result = run_once(&error, &generated);
        if (!result) {
            assert_true(call > 10); /* past the last call: all places were tried */
            break;
        }
        assert_int_equal(result, PERIDOT_ERROR_DEVICE_LOST);
        assert_non_null(strstr(error.message, "was lost"));
    }
}

static void test_memory_refused_anywhere(void **state) {
    (void)state;
    for (int call = 0;; call++) {
        peridot_error error = {0};
        uint32_t generated;
        reset_shim();
        shim.refuse_after = call;
        peridot_result result = run_once(&error, &generated);
        if (shim.refuse_after >= 0)
            break; /* there were no more allocations */
        /* a refused block may still fit the one buffer alone */
        assert_true(result == PERIDOT_OK || result == PERIDOT_ERROR_DEVICE_MEMORY);
        if (result)
            assert_non_null(strstr(error.message, "refused"));
    }
}

static void test_missing_feature_is_named(void **state) {
    (void)state;
    VkPhysicalDeviceFeatures2 nothing = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2};
    peridot_adoption from = adoption();
    from.features = &nothing;
    peridot_device *device;
    peridot_error error = {0};
    assert_int_equal(peridot_device_adopt(&from, NULL, &device, &error), PERIDOT_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "bufferDeviceAddress"));
    from = adoption();
    from.queue = VK_NULL_HANDLE;
    assert_int_equal(peridot_device_adopt(&from, NULL, &device, &error), PERIDOT_ERROR_ARGUMENT);
}

/* ---- Memory that does not suffice ---- */

#define MODEL TEST_DATA "/gqa-bf16"

/* The application's device with VK_EXT_memory_budget, which says what shim.memory_free says. */
static peridot_device *adopt_with_budget(void) {
    static const char *const extensions[] = {VK_EXT_MEMORY_BUDGET_EXTENSION_NAME};
    peridot_adoption from = adoption();
    peridot_device_params params = {.struct_size = sizeof params, .cache_directory = ""};
    peridot_device *device = NULL;
    peridot_error error = {0};
    from.extensions = extensions;
    from.extension_count = 1;
    reset_shim();
    shim.memory_free = (uint64_t)1 << 30;
    if (peridot_device_adopt(&from, &params, &device, &error))
        fail_msg("%s", error.message);
    return device;
}

static const peridot_model_params as_file = {.struct_size = sizeof as_file,
                                             .weights = PERIDOT_WEIGHTS_FILE};

static peridot_memory_plan inspect(peridot_device *device, uint32_t context) {
    peridot_session_params params = {.struct_size = sizeof params, .context = context};
    peridot_memory_plan plan = {.struct_size = sizeof plan};
    peridot_error error = {0};
    shim.allocations = 0;
    if (peridot_model_inspect(device, MODEL, &as_file, &params, NULL, &plan, &error))
        fail_msg("%s", error.message);
    assert_int_equal(shim.allocations, 0);
    assert_int_equal(plan.free_bytes, shim.memory_free);
    return plan;
}

static void check_names(const char *message, uint64_t bytes) {
    char text[32];
    snprintf(text, sizeof text, " %.1f MiB", (double)bytes / (1 << 20));
    if (!strstr(message, text))
        fail_msg("%s names no%s", message, text);
}

/* One sentence: what is needed, what is free, and in the end the advice. */
static void check_refusal(peridot_result result, const peridot_error *error, uint64_t needed,
                          uint64_t free_bytes, const char *advice) {
    assert_int_equal(result, PERIDOT_ERROR_DEVICE_MEMORY);
    check_names(error->message, needed);
    check_names(error->message, free_bytes);
    size_t length = strlen(error->message), tail = strlen(advice);
    if (length < tail || strcmp(error->message + length - tail, advice) != 0)
        fail_msg("\"%s\" does not end with \"%s\"", error->message, advice);
    assert_null(strchr(error->message, '\n'));
}

static void test_plan_follows_the_budget(void **state) {
    (void)state;
    peridot_device *device = adopt_with_budget();
    peridot_memory_plan two = inspect(device, 2048), all = inspect(device, 0);
    assert_int_equal(all.context, 8192);
    assert_true(two.fits && all.fits);
    assert_int_equal(all.largest_context, 8192);
    /* on this device staging takes the same memory, so that it decides whether the model loads */
    shim.memory_free = two.weight_bytes + two.staging_bytes - 1;
    assert_false(inspect(device, 1).fits);
    assert_int_equal(inspect(device, 1).largest_context, 0);
    shim.memory_free++;
    peridot_memory_plan tight = inspect(device, 1);
    assert_true(tight.fits);
    assert_true(tight.largest_context > 0);
    assert_true(inspect(device, tight.largest_context).fits);
    if (tight.largest_context < 8192)
        assert_false(inspect(device, tight.largest_context + 1).fits);
    peridot_device_close(device);
}

static void test_weights_do_not_fit(void **state) {
    (void)state;
    peridot_device *device = adopt_with_budget();
    peridot_memory_plan plan = inspect(device, 0);
    peridot_model *model = NULL;
    peridot_error error = {0};
    uint64_t needed = plan.weight_bytes + plan.staging_bytes;
    shim.memory_free = needed - 1;
    shim.allocations = 0;
    check_refusal(peridot_model_load_wait(device, MODEL, &as_file, &model, &error), &error, needed,
                  shim.memory_free, ": --weights q8_0 would fit");
    assert_non_null(strstr(error.message, "the weights alone"));
    assert_null(model);
    assert_int_equal(shim.allocations, 0);
    shim.memory_free++;
    if (peridot_model_load_wait(device, MODEL, NULL, &model, &error))
        fail_msg("%s", error.message);
    peridot_model_close(model);
    peridot_device_close(device);
}

static peridot_result create(peridot_model *model, uint32_t context, peridot_session **session,
                             peridot_error *error) {
    peridot_session_params params = {.struct_size = sizeof params, .context = context};
    *session = NULL;
    shim.allocations = 0;
    return peridot_session_create(model, &params, session, error);
}

static void test_context_does_not_fit(void **state) {
    (void)state;
    peridot_device *device = adopt_with_budget();
    peridot_memory_plan two = inspect(device, 2048), all = inspect(device, 0);
    peridot_model *model;
    peridot_session *session;
    peridot_error error = {0};
    if (peridot_model_load_wait(device, MODEL, NULL, &model, &error))
        fail_msg("%s", error.message);
    uint64_t needed = two.kv_bytes + two.working_bytes;
    shim.memory_free = needed;
    check_refusal(create(model, 8192, &session, &error), &error, all.kv_bytes + all.working_bytes,
                  needed, ": a context of 2048 would fit");
    assert_null(session);
    assert_int_equal(shim.allocations, 0);
    if (create(model, 0, &session, &error))
        fail_msg("%s", error.message);
    assert_int_equal(peridot_session_context(session), 2048); /* what fits, where none is named */
    peridot_session_close_wait(session);
    if (create(model, 2048, &session, &error))
        fail_msg("%s", error.message);
    peridot_session_close_wait(session);
    shim.memory_free--;
    check_refusal(create(model, 2048, &session, &error), &error, needed, shim.memory_free,
                  ": a context of 1536 would fit, or this one with --kv q8");
    shim.memory_free = 1000;
    peridot_memory_plan one = inspect(device, 1);
    check_refusal(create(model, 1, &session, &error), &error, one.kv_bytes + one.working_bytes,
                  1000, ": no context fits beside the weights");
    peridot_model_close(model);
    peridot_device_close(device);
}

/* The budget promised it, the driver refuses all the same. */
static void test_refused_against_the_budget(void **state) {
    (void)state;
    int32_t tokens[600];
    peridot_device *device = adopt_with_budget();
    peridot_memory_plan plan = inspect(device, 2048);
    peridot_model *model;
    peridot_session *session;
    peridot_error error = {0};
    for (int i = 0; i < 600; i++)
        tokens[i] = i % 300;
    shim.refuse_after = 0;
    check_refusal(peridot_model_load_wait(device, MODEL, NULL, &model, &error), &error,
                  plan.weight_bytes, shim.memory_free, "this model does not fit there");
    assert_non_null(strstr(error.message, "refused"));
    if (peridot_model_load_wait(device, MODEL, NULL, &model, &error))
        fail_msg("%s", error.message);
    if (create(model, 2048, &session, &error))
        fail_msg("%s", error.message);
    shim.refuse_after = 0;
    check_refusal(peridot_session_prompt_wait(session, tokens, 600, NULL, &error), &error,
                  plan.kv_token_bytes * 512, shim.memory_free,
                  ": suspend or truncate sessions, or let Peridot have more memory");
    assert_int_equal(peridot_session_length(session), 0);
    if (peridot_session_prompt_wait(session, tokens, 600, NULL, &error))
        fail_msg("%s", error.message);
    peridot_session_close_wait(session);
    peridot_model_close(model);
    peridot_device_close(device);
}

static peridot_device_requirements requirements_of(VkPhysicalDevice physical) {
    peridot_device_requirements out = {.struct_size = sizeof out};
    peridot_error error = {0};
    if (peridot_requirements_for(app.instance, physical, get_function, &out, &error))
        fail_msg("%s", error.message);
    return out;
}

/* A device made as it says can be adopted with what it says. */
static void test_requirements_of_a_device(void **state) {
    (void)state;
    peridot_device_requirements needs = {.struct_size = sizeof needs};
    peridot_error error = {0};
    assert_int_equal(
        peridot_requirements_for(app.instance, app.physical, get_function, &needs, &error),
        PERIDOT_OK);
    assert_true(needs.usable);
    assert_string_equal(needs.reason, "");
    assert_int_equal(needs.api_version, VK_API_VERSION_1_3);
    assert_ptr_equal(needs.features.pNext, &needs.vulkan11);
    assert_ptr_equal(needs.vulkan11.pNext, &needs.vulkan12);
    assert_ptr_equal(needs.vulkan12.pNext, &needs.vulkan13);
    assert_null(needs.vulkan13.pNext);
    float priority = 0;
    VkDeviceQueueCreateInfo queue = {.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
                                     .queueFamilyIndex = needs.queue_family,
                                     .queueCount = 1,
                                     .pQueuePriorities = &priority};
    VkDeviceCreateInfo info = {.sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
                               .pNext = &needs.features,
                               .queueCreateInfoCount = 1,
                               .pQueueCreateInfos = &queue,
                               .enabledExtensionCount = needs.extension_count,
                               .ppEnabledExtensionNames = needs.extensions};
    peridot_adoption from = adoption();
    assert_int_equal(LOAD(vkCreateDevice)(app.physical, &info, NULL, &from.device), VK_SUCCESS);
    DEVICE(vkGetDeviceQueue)(from.device, needs.queue_family, 0, &from.queue);
    from.get_instance_proc_addr = app.get;
    from.queue_family = needs.queue_family;
    from.created_with = &needs;
    peridot_device *device;
    peridot_device_params params = {.struct_size = sizeof params, .cache_directory = ""};
    if (peridot_device_adopt(&from, &params, &device, &error))
        fail_msg("%s", error.message);
    peridot_device_close(device);
    needs.vulkan12.timelineSemaphore = VK_FALSE; /* what it tells is what counts */
    assert_int_equal(peridot_device_adopt(&from, &params, &device, &error), PERIDOT_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "timelineSemaphore"));
    needs.struct_size = 0;
    assert_int_equal(peridot_device_adopt(&from, &params, &device, &error), PERIDOT_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "created_with"));
    DEVICE(vkDestroyDevice)(from.device, NULL);
}

static void test_requirements_judge(void **state) {
    (void)state;
    shim.transfer_family = true;
    peridot_device_requirements needs = requirements_of(app.physical);
    shim.transfer_family = false;
    assert_int_equal(needs.queue_family, 1);
    assert_int_equal(needs.transfer_family, 2);
    assert_int_equal(requirements_of(app.physical).transfer_family, UINT32_MAX);
    shim.no_timeline = true;
    needs = requirements_of(app.physical);
    shim.no_timeline = false;
    assert_false(needs.usable);
    assert_non_null(strstr(needs.reason, "cannot run Peridot: it lacks the feature timeline"));
    peridot_error error = {0};
    assert_int_equal(
        peridot_requirements_for(app.instance, VK_NULL_HANDLE, get_function, &needs, &error),
        PERIDOT_ERROR_ARGUMENT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_requirements_of_a_device),
        cmocka_unit_test(test_requirements_judge),
        cmocka_unit_test(test_runs_on_an_adopted_device),
        cmocka_unit_test(test_device_lost_anywhere),
        cmocka_unit_test(test_memory_refused_anywhere),
        cmocka_unit_test(test_missing_feature_is_named),
        cmocka_unit_test(test_plan_follows_the_budget),
        cmocka_unit_test(test_weights_do_not_fit),
        cmocka_unit_test(test_context_does_not_fit),
        cmocka_unit_test(test_refused_against_the_budget),
    };
    return cmocka_run_group_tests_name("adoption", tests, open_application, close_application);
}
