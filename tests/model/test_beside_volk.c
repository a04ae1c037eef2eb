/* Peridot in a program that loads Vulkan through volk: every vk* name is a variable of the program,
 * set to its own device's functions. Built against the shared and the static library; neither must
 * see those names, nor change them. */
#define VOLK_IMPLEMENTATION
#include <volk.h>

#include "must.h"
#include "peridot.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MUST_VK(call) assert_int_equal(call, VK_SUCCESS)
#define TOKENS 6

static struct {
    VkInstance instance;
    VkPhysicalDevice physical;
    VkDevice device;
    VkQueue queue;
    uint32_t family;
} app;

/* ---- The program's own Vulkan ---- */

static uint32_t compute_family(VkPhysicalDevice physical) {
    VkQueueFamilyProperties families[16];
    uint32_t count = 16;
    vkGetPhysicalDeviceQueueFamilyProperties(physical, &count, families);
    for (uint32_t i = 0; i < count; i++)
        if (families[i].queueFlags & VK_QUEUE_COMPUTE_BIT)
            return i;
    fail_msg("no queue for compute");
    return 0;
}

static void create_device(void) {
    peridot_requirements requirements = {.struct_size = sizeof requirements};
    peridot_requirements_get(&requirements);
    float priority = 1;
    app.family = compute_family(app.physical);
    VkDeviceQueueCreateInfo queue = {.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
                                     .queueFamilyIndex = app.family,
                                     .queueCount = 1,
                                     .pQueuePriorities = &priority};
    VkDeviceCreateInfo info = {.sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
                               .pNext = requirements.features,
                               .queueCreateInfoCount = 1,
                               .pQueueCreateInfos = &queue};
    MUST_VK(vkCreateDevice(app.physical, &info, NULL, &app.device));
    volkLoadDevice(app.device);
    vkGetDeviceQueue(app.device, app.family, 0, &app.queue);
}

static int open_application(void **state) {
    (void)state;
    VkApplicationInfo about = {.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO,
                               .apiVersion = VK_API_VERSION_1_3};
    VkInstanceCreateInfo info = {.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO,
                                 .pApplicationInfo = &about};
    uint32_t one = 1;
    MUST_VK(volkInitialize());
    MUST_VK(vkCreateInstance(&info, NULL, &app.instance));
    volkLoadInstance(app.instance);
    assert_true(vkEnumeratePhysicalDevices(app.instance, &one, &app.physical) >= 0 && one == 1);
    create_device();
    return 0;
}

static int close_application(void **state) {
    (void)state;
    vkDestroyDevice(app.device, NULL);
    vkDestroyInstance(app.instance, NULL);
    return 0;
}

/* Work of the program's own, through the names that volk set. */
static void use_own_device(void) {
    VkFenceCreateInfo about = {.sType = VK_STRUCTURE_TYPE_FENCE_CREATE_INFO};
    VkSubmitInfo2 nothing = {.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO_2};
    VkFence fence;
    MUST_VK(vkCreateFence(app.device, &about, NULL, &fence));
    MUST_VK(vkQueueSubmit2(app.queue, 1, &nothing, fence));
    MUST_VK(vkWaitForFences(app.device, 1, &fence, VK_TRUE, UINT64_MAX));
    vkDestroyFence(app.device, fence, NULL);
    MUST_VK(vkDeviceWaitIdle(app.device));
}

/* ---- Peridot ---- */

static void answer(peridot_device *device, int32_t tokens[TOKENS]) {
    static const int32_t prompt[] = {2, 4, 6, 8};
    peridot_model *model;
    peridot_session *session;
    peridot_session_params params = {.struct_size = sizeof params, .context = 64};
    peridot_sampling sampling = {.struct_size = sizeof sampling, .min_tokens = TOKENS};
    uint32_t generated = 0;
    MUST(peridot_model_load_wait(device, TEST_DATA "/small-f32", NULL, &model, &error));
    MUST(peridot_session_create(model, &params, &session, &error));
    MUST(peridot_session_sampling(session, &sampling, &error));
    MUST(peridot_session_prompt_wait(session, prompt, 4, NULL, &error));
    MUST(peridot_session_generate_wait(session, TOKENS, NULL, NULL, &generated, &error));
    assert_int_equal(generated, TOKENS);
    memcpy(tokens, peridot_session_tokens(session) + 4, TOKENS * sizeof *tokens);
    peridot_session_close_wait(session);
    peridot_model_close(model);
}

static peridot_device *adopt(void) {
    peridot_adoption from = {
        .struct_size = sizeof from,
        .instance = app.instance,
        .physical_device = app.physical,
        .device = app.device,
        .get_instance_proc_addr = vkGetInstanceProcAddr,
        .queue = app.queue,
        .queue_family = app.family,
    };
    peridot_device_params params = {.struct_size = sizeof params, .cache_directory = ""};
    peridot_device *device = NULL;
    MUST(peridot_device_adopt(&from, &params, &device, &error));
    return device;
}

static peridot_device *open_own(void) {
    peridot_device_params params = {.struct_size = sizeof params, .cache_directory = ""};
    peridot_device *device = NULL;
    MUST(peridot_device_open(&params, &device, &error));
    return device;
}

static void test_side_by_side(void **state) {
    (void)state;
    PFN_vkCreateBuffer create_buffer = vkCreateBuffer;
    PFN_vkCreateInstance create_instance = vkCreateInstance;
    int32_t adopted[TOKENS], own[TOKENS];
    use_own_device();
    peridot_device *guest = adopt(), *other = open_own();
    answer(guest, adopted);
    use_own_device();
    answer(other, own);
    assert_memory_equal(adopted, own, sizeof own);
    peridot_device_close(guest);
    use_own_device();
    peridot_device_close(other);
    use_own_device();
    assert_true(vkCreateBuffer == create_buffer && vkCreateInstance == create_instance);
}

/* volk's names point nowhere yet or any more in a program that came to Peridot first. */
static void test_without_the_names(void **state) {
    (void)state;
    PFN_vkCreateBuffer create_buffer = vkCreateBuffer;
    PFN_vkQueueSubmit2 submit = vkQueueSubmit2;
    PFN_vkCreateInstance create_instance = vkCreateInstance;
    int32_t tokens[TOKENS];
    vkCreateBuffer = NULL;
    vkQueueSubmit2 = NULL;
    vkCreateInstance = NULL;
    peridot_device *device = open_own();
    answer(device, tokens);
    peridot_device_close(device);
    device = adopt();
    answer(device, tokens);
    peridot_device_close(device);
    assert_null(vkCreateBuffer);
    vkCreateBuffer = create_buffer;
    vkQueueSubmit2 = submit;
    vkCreateInstance = create_instance;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_side_by_side),
        cmocka_unit_test(test_without_the_names),
    };
    return cmocka_run_group_tests_name("beside volk", tests, open_application, close_application);
}
