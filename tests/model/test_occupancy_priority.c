/* Priorities, on a physical device that only pretends to have what gives them. Dispatches, by
 * VK_NV_compute_occupancy_priority, get the one that was asked for, an application's command buffer
 * is left with the normal one, and nothing is called where nothing was asked for or enabled. A
 * queue's among all programs is offered to an application where its family lists it, and asked for
 * by a device of Peridot's own, which does without where it is refused. That is also created with
 * the others, and with what priorities of memory need. */
#include "guest_adoption.h"
#include "must.h"
#include "session.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define SMALL TEST_DATA "/small-f32"
#define SET "vkCmdSetComputeOccupancyPriorityNV"

/* What the application enabled, and tells of. */
struct enabled {
    bool extension, feature;
    VkBool32 value; /* of the feature */
};

static peridot_device *adopt(const struct enabled *enabled, peridot_priority priority) {
    static const char *const extensions[] = {VK_NV_COMPUTE_OCCUPANCY_PRIORITY_EXTENSION_NAME};
    struct device_adoption from = adopt_shim_adoption_transfer(true);
    struct device_features features;
    VkPhysicalDeviceComputeOccupancyPriorityFeaturesNV occupancy = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COMPUTE_OCCUPANCY_PRIORITY_FEATURES_NV,
        .computeOccupancyPriority = enabled->value};
    device_required_features(&features);
    features.v13.pNext = enabled->feature ? &occupancy : NULL;
    peridot_adoption adoption = guest_adoption(&from);
    peridot_device_params params = guest_params;
    adoption.extensions = extensions;
    adoption.extension_count = enabled->extension;
    adoption.features = &features.base;
    params.priority = priority;
    peridot_device *device;
    MUST(peridot_device_adopt(&adoption, &params, &device, &error));
    return device;
}

static const int32_t prompt[] = {2, 38, 119, 342, 171, 231, 170, 230, 11, 261, 355, 17};
#define PROMPT_COUNT (sizeof prompt / sizeof *prompt)

static void use_calls_that_wait(peridot_session *const sessions[2]) {
    const uint32_t counts[2] = {2, 3};
    peridot_batch *batch;
    for (int i = 0; i < 2; i++) {
        MUST(peridot_session_prompt_wait(sessions[i], prompt, PROMPT_COUNT, NULL, &error));
        MUST(peridot_session_generate_wait(sessions[i], 2, NULL, NULL, NULL, &error));
    }
    MUST(peridot_batch_create(sessions, 2, &batch, &error));
    MUST(peridot_batch_generate_wait(batch, counts, NULL, NULL, NULL, &error));
    peridot_batch_close_wait(batch);
}

/* A slice in a command buffer of the application's, which begins as Vulkan says. */
static void record_slice(struct lane *lane, peridot_session *session) {
    const struct device_functions *vk = &lane->device->vk;
    VkCommandBufferBeginInfo begin = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO};
    VkCommandBuffer commands;
    MUST(lane_commands(lane, &commands, &error));
    assert_int_equal(vk->BeginCommandBuffer(commands, &begin), VK_SUCCESS);
    peridot_recording recording = {.struct_size = sizeof recording,
                                   .commands = commands,
                                   .budget_ms = 0.5f,
                                   .timeline = lane->timeline,
                                   .value = lane->submitted + 1};
    peridot_error error = {0};
    if (peridot_session_record(session, &recording, NULL, &error) < 0)
        fail_msg("%s", error.message);
    assert_float_equal(adopt_shim_priority_in(commands), VK_COMPUTE_OCCUPANCY_PRIORITY_NORMAL_NV,
                       0);
    MUST(lane_end(lane, commands, &error));
    MUST(lane_submit(lane, &(struct batch){&commands, 1}, 1, &error));
    MUST(lane_wait(lane, lane->submitted, &error));
    lane_free_commands(lane, commands);
}

static void use_slices(struct device *engine, peridot_session *session, bool recorded) {
    peridot_work work = {
        .struct_size = sizeof work, .tokens = prompt, .token_count = PROMPT_COUNT, .generate = 2};
    peridot_advance advance = {.struct_size = sizeof advance, .budget_ms = 0.5f};
    peridot_work_status status = {.struct_size = sizeof status};
    peridot_error error = {0};
    struct lane lane;
    MUST(lane_create(engine, &lane, &error));
    MUST(peridot_session_start(session, &work, &error));
    do {
        if (recorded)
            record_slice(&lane, session);
        else if (peridot_session_advance(session, &advance, NULL, &error) < 0)
            fail_msg("%s", error.message);
        MUST(peridot_session_poll(session, &status, &error));
    } while (status.active);
    lane_destroy(&lane);
}

/* Every way of running: at which priorities there were dispatches, and how often one was set. */
static uint32_t run(const struct enabled *enabled, peridot_priority priority, uint32_t *sets) {
    const peridot_session_params params = {.struct_size = sizeof params, .context = 64};
    adopt_shim_reset();
    adopt_shim_offer_occupancy_priority();
    peridot_device *device = adopt(enabled, priority);
    peridot_model *model;
    peridot_session *sessions[2];
    MUST(peridot_model_load_wait(device, SMALL, NULL, &model, &error));
    for (int i = 0; i < 2; i++)
        MUST(peridot_session_create(model, &params, &sessions[i], &error));
    use_calls_that_wait(sessions);
    for (int i = 0; i < 2; i++)
        use_slices(sessions[i]->lane.device, sessions[i], i == 1);
    MUST(peridot_session_suspend_wait(sessions[0], &error));
    MUST(peridot_session_resume_wait(sessions[0], &error));
    for (int i = 0; i < 2; i++)
        peridot_session_close_wait(sessions[i]);
    peridot_model_close(model);
    peridot_device_close(device);
    assert_true(adopt_shim_sound(true));
    assert_true(adopt_shim_transfers() > 0);
    *sets = adopt_shim_calls(SET);
    return adopt_shim_dispatch_priorities();
}

static void test_dispatches(void **state) {
    (void)state;
    static const struct enabled all = {true, true, VK_TRUE};
    uint32_t sets;
    assert_int_equal(run(&all, PERIDOT_PRIORITY_LOW, &sets), DISPATCHES_LOW);
    assert_true(sets > 0);
    assert_int_equal(run(&all, PERIDOT_PRIORITY_HIGH, &sets), DISPATCHES_HIGH);
    assert_true(sets > 0);
}

static void test_left_alone(void **state) {
    (void)state;
    static const struct {
        struct enabled enabled;
        peridot_priority priority;
    } cases[] = {
        {{true, true, VK_TRUE}, PERIDOT_PRIORITY_DEFAULT},
        {{true, true, VK_TRUE}, PERIDOT_PRIORITY_MEDIUM},
        {{false, true, VK_TRUE}, PERIDOT_PRIORITY_LOW},
        {{true, false, VK_FALSE}, PERIDOT_PRIORITY_LOW},
        {{true, true, VK_FALSE}, PERIDOT_PRIORITY_HIGH},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint32_t sets;
        assert_int_equal(run(&cases[i].enabled, cases[i].priority, &sets), DISPATCHES_NORMAL);
        assert_int_equal(sets, 0);
    }
}

/* ---- What is asked for ---- */

static bool recommends(const peridot_device_requirements *needs, const char *extension) {
    bool has = false;
    for (uint32_t i = 0; i < needs->extension_count; i++)
        has |= strcmp(needs->extensions[i], extension) == 0;
    return has;
}

/* The struct of features of a type in the chain; NULL: none. And the chain ends with vulkan13. */
static const void *chained(const peridot_device_requirements *needs, VkStructureType type) {
    const VkBaseInStructure *next = needs->features.pNext, *found = NULL, *last = NULL;
    for (; next; next = next->pNext) {
        last = next;
        if (next->sType == type)
            found = next;
    }
    assert_ptr_equal(last, &needs->vulkan13);
    return found;
}

static void check_requirements(size_t known, bool offered) {
    struct device_adoption from = adopt_shim_adoption();
    peridot_device_requirements needs = {.struct_size = known};
    const VkStructureType type =
        VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COMPUTE_OCCUPANCY_PRIORITY_FEATURES_NV;
    adopt_shim_reset();
    if (offered)
        adopt_shim_offer_occupancy_priority();
    MUST(peridot_requirements_for(from.instance, from.physical, from.get_instance_proc_addr, &needs,
                                  &error));
    assert_int_equal(recommends(&needs, VK_NV_COMPUTE_OCCUPANCY_PRIORITY_EXTENSION_NAME), offered);
    const VkPhysicalDeviceComputeOccupancyPriorityFeaturesNV *features = chained(&needs, type);
    assert_int_equal(features != NULL, offered && known == sizeof needs);
    if (features) {
        assert_ptr_equal(features, &needs.occupancy_priority);
        assert_int_equal(features->computeOccupancyPriority, VK_TRUE);
    }
}

/* The feature lies in a struct that an older caller does not have. */
static void test_requirements(void **state) {
    (void)state;
    check_requirements(sizeof(peridot_device_requirements), false);
    check_requirements(sizeof(peridot_device_requirements), true);
    check_requirements(offsetof(peridot_device_requirements, memory_priority), true);
    check_requirements(offsetof(peridot_device_requirements, occupancy_priority), true);
}

/* ---- What stands before the driver ---- */

/* The physical device pretends to have what gives priorities. */
static struct {
    bool on;
    PFN_vkGetInstanceProcAddr get;
    PFN_vkGetDeviceProcAddr get_device;
    VkInstance instance;
    uint32_t extensions, features; /* of those below, that the device was created with: bits */
    uint32_t sets;
    float priority;
    const char *const *global;        /* extensions for global priorities that it has */
    VkQueueGlobalPriorityKHR most;    /* that its families list; 0: none */
    VkResult refusal;                 /* of a queue with a global priority */
    bool global_enabled;              /* an extension, in what made the device */
    VkQueueGlobalPriorityKHR asked;   /* for its queue, */
    VkQueueGlobalPriorityKHR refused; /* in vain */
} loader;

static const char *const no_global[] = {NULL};
static const char *const khr[] = {VK_KHR_GLOBAL_PRIORITY_EXTENSION_NAME, NULL};
static const char *const ext[] = {VK_EXT_GLOBAL_PRIORITY_EXTENSION_NAME, NULL};
static const char *const ext_query[] = {VK_EXT_GLOBAL_PRIORITY_EXTENSION_NAME,
                                        VK_EXT_GLOBAL_PRIORITY_QUERY_EXTENSION_NAME, NULL};

static const struct {
    const char *extension;
    VkStructureType features;
} offered[] = {{VK_EXT_MEMORY_PRIORITY_EXTENSION_NAME,
                VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_PRIORITY_FEATURES_EXT},
               {VK_EXT_PAGEABLE_DEVICE_LOCAL_MEMORY_EXTENSION_NAME,
                VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PAGEABLE_DEVICE_LOCAL_MEMORY_FEATURES_EXT},
               {VK_NV_COMPUTE_OCCUPANCY_PRIORITY_EXTENSION_NAME,
                VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COMPUTE_OCCUPANCY_PRIORITY_FEATURES_NV}};
#define OFFERED (sizeof offered / sizeof *offered)
#define ALL_OFFERED ((1u << OFFERED) - 1)
#define REAL(name) ((PFN_##name)loader.get(loader.instance, #name))

static VKAPI_ATTR VkResult VKAPI_CALL list_extensions(VkPhysicalDevice physical, const char *layer,
                                                      uint32_t *count,
                                                      VkExtensionProperties *extensions) {
    uint32_t more = OFFERED;
    for (size_t i = 0; loader.global[i]; i++)
        more++;
    uint32_t room = extensions ? *count - more : 0;
    VkResult code = REAL(vkEnumerateDeviceExtensionProperties)(
        physical, layer, extensions ? &room : count, extensions);
    for (uint32_t i = 0; i < more && extensions; i++)
        strcpy(extensions[room + i].extensionName,
               i < OFFERED ? offered[i].extension : loader.global[i - OFFERED]);
    *count = (extensions ? room : *count) + more;
    return code;
}

static VKAPI_ATTR void VKAPI_CALL list_features(VkPhysicalDevice physical,
                                                VkPhysicalDeviceFeatures2 *features) {
    VkPhysicalDeviceComputeOccupancyPriorityFeaturesNV *asked = features->pNext;
    if (asked && asked->sType == offered[2].features)
        asked->computeOccupancyPriority = VK_TRUE;
    else
        REAL(vkGetPhysicalDeviceFeatures2)(physical, features);
}

/* All up to `most`; HIGH alone where that is it. */
static VKAPI_ATTR void VKAPI_CALL list_families(VkPhysicalDevice physical, uint32_t *count,
                                                VkQueueFamilyProperties2 *families) {
    VkQueueFamilyGlobalPriorityPropertiesKHR *asked[8] = {0};
    for (uint32_t i = 0; i < 8 && families && i < *count; i++) {
        asked[i] = families[i].pNext;
        families[i].pNext = NULL;
    }
    REAL(vkGetPhysicalDeviceQueueFamilyProperties2)(physical, count, families);
    for (uint32_t i = 0; i < 8 && asked[i]; i++) {
        families[i].pNext = asked[i];
        if (loader.most == VK_QUEUE_GLOBAL_PRIORITY_HIGH_KHR)
            asked[i]->priorities[asked[i]->priorityCount++] = VK_QUEUE_GLOBAL_PRIORITY_HIGH_KHR;
        for (VkQueueGlobalPriorityKHR level = VK_QUEUE_GLOBAL_PRIORITY_LOW_KHR;
             level <= loader.most && loader.most < VK_QUEUE_GLOBAL_PRIORITY_HIGH_KHR; level *= 2)
            asked[i]->priorities[asked[i]->priorityCount++] = level;
    }
}

static int32_t offered_extension(const char *name) {
    for (size_t i = 0; i < OFFERED; i++)
        if (strcmp(offered[i].extension, name) == 0)
            return (int32_t)i;
    return -1;
}

/* A struct with one feature, which is on; taken out of the chain, as the driver does not know it.
 */
static bool take_features(VkBaseOutStructure *before) {
    VkBaseOutStructure *next = before->pNext;
    VkBool32 value;
    for (size_t i = 0; i < OFFERED; i++) {
        if (next->sType != offered[i].features)
            continue;
        memcpy(&value, next + 1, sizeof value);
        loader.features |= (value == VK_TRUE) << i;
        before->pNext = next->pNext;
        return true;
    }
    return false;
}

static bool is_global(const char *extension) {
    for (size_t i = 0; loader.global[i]; i++)
        if (strcmp(loader.global[i], extension) == 0)
            return true;
    return false;
}

/* Takes the priority out of the queue's chain, as the driver does not know it. */
static VkResult take_global_priority(VkDeviceQueueCreateInfo *queue) {
    const VkDeviceQueueGlobalPriorityCreateInfoKHR *next = queue->pNext;
    loader.asked = next ? next->globalPriority : 0;
    if (!next)
        return VK_SUCCESS;
    assert_int_equal(next->sType, VK_STRUCTURE_TYPE_DEVICE_QUEUE_GLOBAL_PRIORITY_CREATE_INFO_KHR);
    assert_true(loader.global_enabled);
    queue->pNext = next->pNext;
    if (loader.refusal)
        loader.refused = next->globalPriority;
    return loader.refusal;
}

static VKAPI_ATTR VkResult VKAPI_CALL create_device(VkPhysicalDevice physical,
                                                    const VkDeviceCreateInfo *info,
                                                    const VkAllocationCallbacks *callbacks,
                                                    VkDevice *device) {
    const char *names[32];
    VkDeviceQueueCreateInfo queue = *info->pQueueCreateInfos; /* there is one */
    VkDeviceCreateInfo known = *info;
    known.pQueueCreateInfos = &queue;
    known.ppEnabledExtensionNames = names;
    known.enabledExtensionCount = 0;
    loader.global_enabled = false;
    for (uint32_t i = 0; i < info->enabledExtensionCount; i++) {
        int32_t which = offered_extension(info->ppEnabledExtensionNames[i]);
        if (is_global(info->ppEnabledExtensionNames[i]))
            loader.global_enabled = true;
        else if (which >= 0)
            loader.extensions |= 1u << which;
        else
            names[known.enabledExtensionCount++] = info->ppEnabledExtensionNames[i];
    }
    VkBaseOutStructure head = {.pNext = (void *)(uintptr_t)info->pNext}, *at = &head;
    while (at->pNext)
        if (!take_features(at))
            at = at->pNext;
    known.pNext = head.pNext;
    VkResult code = take_global_priority(&queue);
    return code ? code : REAL(vkCreateDevice)(physical, &known, callbacks, device);
}

static VKAPI_ATTR void VKAPI_CALL
set_priority(VkCommandBuffer commands, const VkComputeOccupancyPriorityParametersNV *parameters) {
    (void)commands;
    loader.sets++;
    loader.priority = parameters->occupancyPriority;
}

static VKAPI_ATTR PFN_vkVoidFunction VKAPI_CALL get_device_function(VkDevice device,
                                                                    const char *name) {
    if (strcmp(name, SET) == 0)
        return (PFN_vkVoidFunction)set_priority;
    return loader.get_device(device, name);
}

static VKAPI_ATTR PFN_vkVoidFunction VKAPI_CALL get_function(VkInstance instance,
                                                             const char *name) {
    static const struct {
        const char *name;
        PFN_vkVoidFunction function;
    } table[] = {
        {"vkEnumerateDeviceExtensionProperties", (PFN_vkVoidFunction)list_extensions},
        {"vkGetPhysicalDeviceFeatures2", (PFN_vkVoidFunction)list_features},
        {"vkGetPhysicalDeviceQueueFamilyProperties2", (PFN_vkVoidFunction)list_families},
        {"vkCreateDevice", (PFN_vkVoidFunction)create_device},
        {"vkGetDeviceProcAddr", (PFN_vkVoidFunction)get_device_function},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table && instance; i++) {
        if (strcmp(table[i].name, name) != 0)
            continue;
        loader.instance = instance;
        loader.get_device = REAL(vkGetDeviceProcAddr);
        return table[i].function;
    }
    return loader.get(instance, name);
}

/* Named by the linker, see tests/CMakeLists.txt: how Peridot comes by the loader's function. */
void *__real_platform_library_symbol(void *library, const char *name); /* NOLINT */
void *__wrap_platform_library_symbol(void *library, const char *name); /* NOLINT */

void *__wrap_platform_library_symbol(void *library, const char *name) { /* NOLINT */
    void *symbol = __real_platform_library_symbol(library, name);
    PFN_vkGetInstanceProcAddr own = get_function;
    if (!loader.on || !symbol)
        return symbol;
    memcpy(&loader.get, &symbol, sizeof symbol);
    memcpy(&symbol, &own, sizeof symbol);
    return symbol;
}

static void reset_loader(const char *const *global, VkQueueGlobalPriorityKHR most) {
    memset(&loader, 0, sizeof loader);
    loader.global = global;
    loader.most = most;
}

/* ---- What a queue is made with ---- */

static void check_queue(const char *const *global, VkQueueGlobalPriorityKHR most, size_t known,
                        bool extension, bool chained) {
    struct device_adoption from = adopt_shim_adoption();
    peridot_device_requirements needs = {.struct_size = known};
    adopt_shim_reset();
    reset_loader(global, most);
    loader.get = from.get_instance_proc_addr;
    MUST(peridot_requirements_for(from.instance, from.physical, get_function, &needs, &error));
    assert_int_equal(recommends(&needs, VK_KHR_GLOBAL_PRIORITY_EXTENSION_NAME),
                     extension && global == khr);
    assert_int_equal(recommends(&needs, VK_EXT_GLOBAL_PRIORITY_EXTENSION_NAME),
                     extension && global != khr);
    if (!chained) {
        assert_null(needs.queue_next);
        assert_int_equal(needs.global_priority.sType, 0);
        return;
    }
    const VkDeviceQueueGlobalPriorityCreateInfoKHR *next = needs.queue_next;
    assert_ptr_equal(next, &needs.global_priority);
    assert_int_equal(next->sType, VK_STRUCTURE_TYPE_DEVICE_QUEUE_GLOBAL_PRIORITY_CREATE_INFO_KHR);
    assert_null(next->pNext);
    assert_int_equal(next->globalPriority, VK_QUEUE_GLOBAL_PRIORITY_LOW_KHR);
}

static void test_queue(void **state) {
    (void)state;
    const VkQueueGlobalPriorityKHR medium = VK_QUEUE_GLOBAL_PRIORITY_MEDIUM_KHR,
                                   high = VK_QUEUE_GLOBAL_PRIORITY_HIGH_KHR;
    const size_t all = sizeof(peridot_device_requirements);
    check_queue(khr, medium, all, true, true);
    check_queue(ext_query, medium, all, true, true);
    check_queue(khr, high, all, false, false); /* and no lower one */
    check_queue(khr, 0, all, false, false);
    check_queue(ext, medium, all, false, false); /* nobody can ask for the list */
    check_queue(no_global, 0, all, false, false);
    /* older callers */
    check_queue(khr, medium, offsetof(peridot_device_requirements, queue_next), true, false);
    check_queue(khr, medium, offsetof(peridot_device_requirements, global_priority), true, false);
}

/* ---- A device of Peridot's own ---- */

static void hear(const char *text, void *user) {
    assert_non_null(strstr(text, "does not permit the queue's priority"));
    ++*(int *)user;
}

/* How often there was a warning. */
static int open_own(peridot_priority priority, const char *const *global, VkResult refusal) {
    peridot_device_params params = guest_params;
    peridot_device *device;
    peridot_model *model;
    peridot_session *session;
    int warnings = 0;
    params.priority = priority;
    params.message = hear;
    params.message_user = &warnings;
    reset_loader(global, 0);
    loader.refusal = refusal;
    loader.on = true;
    MUST(peridot_device_open(&params, &device, &error));
    loader.on = false;
    MUST(peridot_model_load_wait(device, SMALL, NULL, &model, &error));
    MUST(peridot_session_create(model, NULL, &session, &error));
    MUST(peridot_session_prompt_wait(session, prompt, PROMPT_COUNT, NULL, &error));
    peridot_session_close_wait(session);
    peridot_model_close(model);
    peridot_device_close(device);
    assert_int_equal(loader.extensions, ALL_OFFERED);
    assert_int_equal(loader.features, ALL_OFFERED);
    return warnings;
}

static void test_own_device(void **state) {
    (void)state;
    assert_int_equal(open_own(PERIDOT_PRIORITY_LOW, no_global, VK_SUCCESS), 0);
    assert_true(loader.sets > 0);
    assert_float_equal(loader.priority, VK_COMPUTE_OCCUPANCY_PRIORITY_LOW_NV, 0);
    assert_int_equal(open_own(PERIDOT_PRIORITY_DEFAULT, khr, VK_ERROR_NOT_PERMITTED_KHR), 0);
    assert_int_equal(loader.sets, 0);
    assert_false(loader.global_enabled);
}

static void test_own_queue(void **state) {
    (void)state;
    assert_int_equal(open_own(PERIDOT_PRIORITY_LOW, khr, VK_SUCCESS), 0);
    assert_int_equal(loader.asked, VK_QUEUE_GLOBAL_PRIORITY_LOW_KHR);
    assert_int_equal(open_own(PERIDOT_PRIORITY_MEDIUM, ext, VK_SUCCESS), 0);
    assert_int_equal(loader.asked, VK_QUEUE_GLOBAL_PRIORITY_MEDIUM_KHR);
    static const VkResult refusals[] = {VK_ERROR_NOT_PERMITTED_KHR, VK_ERROR_INITIALIZATION_FAILED};
    for (int i = 0; i < 2; i++) {
        assert_int_equal(open_own(PERIDOT_PRIORITY_HIGH, ext, refusals[i]), 1);
        assert_int_equal(loader.refused, VK_QUEUE_GLOBAL_PRIORITY_HIGH_KHR);
        assert_int_equal(loader.asked, 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dispatches),   cmocka_unit_test(test_left_alone),
        cmocka_unit_test(test_requirements), cmocka_unit_test(test_queue),
        cmocka_unit_test(test_own_device),   cmocka_unit_test(test_own_queue),
    };
    return cmocka_run_group_tests_name("occupancy priority", tests, adopt_shim_set_up,
                                       adopt_shim_tear_down);
}
