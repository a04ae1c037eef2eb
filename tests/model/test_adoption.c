/* Peridot on an application's device: opened by the test itself, with intercepted functions that
 * count, check the queue's lock, and lose the device at a chosen call. */
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
    unsigned submissions, unlocked_submissions, destroyed, waits_idle;
    int lose_after;   /* submissions or waits until the device is lost; -1: never */
    int refuse_after; /* allocations until one is refused; -1: never */
    PFN_vkQueueSubmit2 submit;
    PFN_vkWaitSemaphores wait;
    PFN_vkDeviceWaitIdle idle;
    PFN_vkAllocateMemory allocate;
    PFN_vkGetDeviceProcAddr get_device;
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
        result = peridot_model_load(device, TEST_DATA "/small-f32", NULL, &model, error);
    if (!result)
        result = peridot_session_create(model, &with, &session, error);
    if (!result)
        result = peridot_session_sampling(session, &sampling, error);
    if (!result)
        result = peridot_session_prompt(session, prompt, 5, NULL, error);
    if (!result)
        result = peridot_session_generate(session, 10, NULL, NULL, generated, error);
    peridot_session_close(session);
    peridot_model_close(model);
    peridot_device_close(device);
    return result;
}

static void reset_shim(void) {
    shim.submissions = shim.unlocked_submissions = shim.destroyed = shim.waits_idle = 0;
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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_runs_on_an_adopted_device),
        cmocka_unit_test(test_device_lost_anywhere),
        cmocka_unit_test(test_memory_refused_anywhere),
        cmocka_unit_test(test_missing_feature_is_named),
    };
    return cmocka_run_group_tests_name("adoption", tests, open_application, close_application);
}
