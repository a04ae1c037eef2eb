/* Loading a model in steps, on an application's device: no step waits, all are bounded, and one may
 * stop after any of them. The application's transfer queue is of another family, of the same, or
 * not there. */
#include "guest_adoption.h"
#include "model.h"
#include "must.h"
#include "pipelines.h"
#include "platform.h"
#include "upload.h"

#include <dirent.h>
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SMALL TEST_DATA "/small-f32"
#define VOCABULARY 384 /* of that */
#define WITH_TOKENIZER DEMO_MODEL

enum transfer { NO_TRANSFER_QUEUE, SAME_FAMILY, OWN_FAMILY, TRANSFER_COUNT };

/* ---- The application ---- */

static peridot_device *adopt(enum transfer transfer, uint32_t threads) {
    adopt_shim_reset();
    const struct device_adoption from = transfer == NO_TRANSFER_QUEUE
                                            ? adopt_shim_adoption()
                                            : adopt_shim_adoption_transfer(transfer == OWN_FAMILY);
    peridot_adoption adoption = guest_adoption(&from);
    const peridot_device_params params = {
        .struct_size = sizeof params, .cache_directory = "", .threads = threads};
    peridot_device *device = NULL;
    if (transfer == NO_TRANSFER_QUEUE) { /* an older application's ends here */
        adoption.struct_size = offsetof(peridot_adoption, transfer_queue);
        memset((char *)&adoption + adoption.struct_size, 0xa5,
               sizeof adoption - adoption.struct_size);
    }
    MUST(peridot_device_adopt(&adoption, &params, &device, &error));
    return device;
}

/* Nothing is left, nothing was done that a guest may not do. */
static void leave(peridot_device *device) {
    peridot_device_close(device);
    assert_true(adopt_shim_sound(true));
}

static const peridot_session_params session_params = {
    .struct_size = sizeof session_params, .context = 64, .kv = PERIDOT_KV_F32};
static const peridot_model_params with_pipelines = {.struct_size = sizeof with_pipelines,
                                                    .weights = PERIDOT_WEIGHTS_FILE,
                                                    .session = &session_params,
                                                    .compile_pipelines = true};
static const peridot_model_params without = {.struct_size = sizeof without,
                                             .weights = PERIDOT_WEIGHTS_FILE};

static peridot_loading *begin(peridot_device *device, const char *path,
                              const peridot_model_params *params) {
    peridot_loading *loading = NULL;
    MUST(peridot_model_load_begin(device, path, params, &loading, &error));
    assert_non_null(loading);
    return loading;
}

static void cancel(peridot_loading *loading) {
    while (peridot_loading_cancel(loading) == PERIDOT_NOT_READY) {
    }
}

static void get_logits(peridot_model *model, float logits[VOCABULARY]) {
    static const int32_t prompt[] = {2, 7, 300, 41, 5, 5, 19, 100, 3, 77, 250, 8};
    peridot_session *session;
    MUST(peridot_session_create(model, &session_params, &session, &error));
    MUST(
        peridot_session_prompt_wait(session, prompt, sizeof prompt / sizeof *prompt, NULL, &error));
    MUST(peridot_session_logits_wait(session, logits, &error));
    peridot_session_close_wait(session);
}

/* ---- Steps ---- */

/* What one call of advance may do. */
struct bounds {
    uint64_t copied;
    uint32_t compiled, allocated;
};

static peridot_result advance_within(peridot_loading *loading, float budget_ms,
                                     const struct bounds *bounds, peridot_loading_status *status,
                                     peridot_error *error) {
    uint64_t copied = adopt_shim_copied();
    uint32_t compiled = adopt_shim_calls("vkCreateComputePipelines");
    uint32_t allocated = adopt_shim_calls("vkAllocateMemory");
    uint32_t submitted = adopt_shim_calls("vkQueueSubmit2");
    uint64_t done = status->done;
    const char *stage = status->stage;
    peridot_result result = peridot_loading_advance(loading, budget_ms, status, error);
    assert_true(adopt_shim_copied() - copied <= bounds->copied);
    if (adopt_shim_copied() > copied) /* what is made is sent */
        assert_true(adopt_shim_calls("vkQueueSubmit2") > submitted);
    assert_true(adopt_shim_calls("vkCreateComputePipelines") - compiled <= bounds->compiled);
    assert_true(adopt_shim_calls("vkAllocateMemory") - allocated <= bounds->allocated);
    assert_int_equal(adopt_shim_calls("vkWaitSemaphores"), 0);
    assert_true(status->done <= status->all);
    assert_true(stage != status->stage || status->done >= done);
    return result;
}

static const struct bounds one_step = {UPLOAD_PIECE, 1, 2 /* one block, or the staging memory */};

static void check_like_blocking(enum transfer transfer, float budget_ms,
                                const struct bounds *bounds, const float *expected) {
    peridot_device *device = adopt(transfer, 0);
    peridot_loading *loading = begin(device, SMALL, &with_pipelines);
    peridot_loading_status status = {.struct_size = sizeof status, .stage = "none"};
    peridot_model *model = NULL;
    peridot_error error = {0};
    peridot_result result;
    uint32_t calls = 0;
    assert_int_equal(peridot_loading_finish(loading, &model, &error), PERIDOT_NOT_READY);
    assert_null(model);
    while ((result = advance_within(loading, budget_ms, bounds, &status, &error)) ==
           PERIDOT_NOT_READY) {
        calls++;
        assert_false(status.finished);
    }
    if (result)
        fail_msg("%s", error.message);
    assert_true(status.finished && !status.waiting && status.done == status.all);
    assert_string_equal(status.stage, "finished");
    assert_true(adopt_shim_copied() > (2 << 20)); /* the RoPE table alone */
    assert_true(isinf(budget_ms) || adopt_shim_largest_copy() <= UPLOAD_PIECE);
    assert_true(budget_ms > 0 || calls > 20);
    assert_int_equal(adopt_shim_transfers() > 0, transfer != NO_TRANSFER_QUEUE);
    assert_int_equal(adopt_shim_handed_over(), transfer != NO_TRANSFER_QUEUE);
    MUST(peridot_loading_finish(loading, &model, &error));
    uint32_t compiled = adopt_shim_calls("vkCreateComputePipelines");
    assert_true(compiled > 5);
    float logits[VOCABULARY];
    get_logits(model, logits);
    assert_int_equal(adopt_shim_calls("vkCreateComputePipelines"), compiled);
    assert_memory_equal(logits, expected, sizeof logits);
    peridot_model_close(model);
    leave(device);
}

static void test_steps_make_the_same_model(void **state) {
    (void)state;
    static const struct bounds any = {2 * STAGING_SLOT_BYTES, UINT32_MAX, UINT32_MAX};
    float expected[VOCABULARY];
    peridot_device *device = adopt(NO_TRANSFER_QUEUE, 0);
    peridot_model *model;
    MUST(peridot_model_load_wait(device, SMALL, &without, &model, &error));
    get_logits(model, expected);
    peridot_model_close(model);
    leave(device);
    for (enum transfer transfer = 0; transfer < TRANSFER_COUNT; transfer++)
        check_like_blocking(transfer, 0, &one_step, expected);
    check_like_blocking(OWN_FAMILY, INFINITY, &any, expected);
    check_like_blocking(OWN_FAMILY, 2, &any, expected);
    check_like_blocking(OWN_FAMILY, 1000, &any, expected);
    check_like_blocking(OWN_FAMILY, NAN, &one_step, expected);
}

/* The blocking call takes the same way over the transfer queue. */
static void test_at_once(void **state) {
    (void)state;
    peridot_device *device = adopt(OWN_FAMILY, 0);
    peridot_model *model;
    MUST(peridot_model_load_wait(device, WITH_TOKENIZER, &with_pipelines, &model, &error));
    assert_true(adopt_shim_transfers() > 0 && adopt_shim_handed_over());
    peridot_session *session;
    uint32_t compiled = adopt_shim_calls("vkCreateComputePipelines");
    MUST(peridot_session_create(model, &session_params, &session, &error));
    assert_int_equal(adopt_shim_calls("vkCreateComputePipelines"), compiled);
    peridot_session_close_wait(session);
    peridot_model_close(model);
    leave(device);
}

/* Params and the list of files may go once loading has begun. */
static void test_files_in_memory(void **state) {
    (void)state;
    static const char *const names[] = {"config.json", "model.safetensors"};
    struct file_bytes bytes[2];
    peridot_file files[2];
    for (int i = 0; i < 2; i++) {
        char path[512];
        snprintf(path, sizeof path, "%s/%s", SMALL, names[i]);
        MUST(platform_read_file(path, &bytes[i], &error));
        files[i] = (peridot_file){names[i], bytes[i].data, bytes[i].size};
    }
    peridot_device *device = adopt(OWN_FAMILY, 0);
    peridot_session_params session = session_params;
    peridot_model_params params = with_pipelines;
    float split[] = {1};
    params.session = &session;
    params.split = split;
    peridot_loading *loading;
    MUST(peridot_model_load_files_begin(device, files, 2, &params, &loading, &error));
    memset(files, 0xa5, sizeof files);
    memset(&params, 0xa5, sizeof params);
    memset(&session, 0xa5, sizeof session);
    memset(split, 0xa5, sizeof split);
    peridot_error error = {0};
    peridot_result result;
    while ((result = peridot_loading_advance(loading, 5, NULL, &error)) == PERIDOT_NOT_READY) {
    }
    if (result)
        fail_msg("%s", error.message);
    peridot_model *model;
    MUST(peridot_loading_finish(loading, &model, &error));
    peridot_model_close(model);
    leave(device);
    for (int i = 0; i < 2; i++)
        platform_free_file(&bytes[i]);
}

/* ---- A device that gets nowhere ---- */

static void test_stuck_device(void **state) {
    (void)state;
    peridot_device *device = adopt(OWN_FAMILY, 0);
    int32_t live = adopt_shim_live();
    peridot_loading *loading = begin(device, WITH_TOKENIZER, &without);
    peridot_loading_status status = {.struct_size = sizeof status};
    peridot_error error = {0};
    adopt_shim_hold(true);
    for (int i = 0; i < 100; i++)
        assert_int_equal(peridot_loading_advance(loading, 10, &status, &error), PERIDOT_NOT_READY);
    assert_true(status.waiting);
    assert_string_equal(status.stage, "uploading");
    assert_true(adopt_shim_copied() <= 2 * STAGING_SLOT_BYTES);
    for (int i = 0; i < 100; i++)
        assert_int_equal(peridot_loading_cancel(loading), PERIDOT_NOT_READY);
    assert_int_equal(peridot_loading_advance(loading, 10, &status, &error),
                     PERIDOT_ERROR_CANCELLED);
    assert_int_equal(adopt_shim_calls("vkWaitSemaphores"), 0);
    adopt_shim_hold(false);
    cancel(loading);
    assert_int_equal(adopt_shim_calls("vkWaitSemaphores"), 0);
    assert_int_equal(adopt_shim_live(), live);
    leave(device);
}

/* ---- Stopping ---- */

/* After `calls` of advance; whether the loading was over by then. */
static bool cancel_after(peridot_device *device, const peridot_model_params *params,
                         uint32_t calls) {
    peridot_loading *loading = begin(device, SMALL, params);
    peridot_result result = PERIDOT_NOT_READY;
    peridot_error error = {0};
    for (uint32_t i = 0; i < calls && result == PERIDOT_NOT_READY; i++)
        result = peridot_loading_advance(loading, 0.2f, NULL, &error);
    assert_true(result == PERIDOT_OK || result == PERIDOT_NOT_READY);
    cancel(loading);
    assert_int_equal(pipelines_missing(device->engine), 0);
    return result == PERIDOT_OK;
}

static void test_cancelled_anywhere(void **state) {
    (void)state;
    assert_int_equal(peridot_loading_cancel(NULL), PERIDOT_OK);
    for (enum transfer transfer = 0; transfer < TRANSFER_COUNT; transfer++) {
        peridot_device *device = adopt(transfer, 0);
        int32_t live = adopt_shim_live();
        uint64_t used = device->engine->memory_used;
        uint32_t calls = 0;
        while (!cancel_after(device, &without, calls)) {
            assert_int_equal(adopt_shim_live(), live);
            assert_int_equal(device->engine->memory_used, used);
            calls += 1 + calls / 16;
        }
        assert_true(calls > 20);
        leave(device);
    }
    peridot_device *device = adopt(OWN_FAMILY, 0);
    for (uint32_t calls = 0; !cancel_after(device, &with_pipelines, calls);)
        calls += 1 + calls / 8;
    leave(device);
}

static bool stop_halfway(const peridot_progress *progress, void *user) {
    (void)user;
    return progress->done < progress->all / 2;
}

static void test_cancelled_by_progress(void **state) {
    (void)state;
    peridot_device *device = adopt(NO_TRANSFER_QUEUE, 0);
    int32_t live = adopt_shim_live();
    peridot_model_params params = without;
    params.progress = stop_halfway;
    peridot_loading *loading = begin(device, SMALL, &params);
    peridot_error error = {0};
    peridot_result result;
    while ((result = peridot_loading_advance(loading, 1, NULL, &error)) == PERIDOT_NOT_READY) {
    }
    assert_int_equal(result, PERIDOT_ERROR_CANCELLED);
    cancel(loading);
    assert_int_equal(adopt_shim_live(), live);
    leave(device);
}

/* ---- Failing ---- */

/* A loading, perhaps of pipelines, in which one call fails; every later call must tell it. */
static peridot_result load_with_failure(peridot_device *device, const peridot_model_params *params,
                                        peridot_error *error) {
    peridot_loading *loading = begin(device, SMALL, params);
    peridot_model *model = NULL;
    peridot_result result;
    while ((result = peridot_loading_advance(loading, 0.5f, NULL, error)) == PERIDOT_NOT_READY) {
    }
    if (!result) {
        MUST(peridot_loading_finish(loading, &model, &error));
        peridot_model_close(model);
        return result;
    }
    peridot_error again = {0};
    assert_int_equal(error->code, result);
    assert_int_equal(peridot_loading_advance(loading, 1, NULL, &again), result);
    assert_string_equal(again.message, error->message);
    assert_int_equal(peridot_loading_finish(loading, &model, &again), result);
    assert_null(model);
    cancel(loading);
    return result;
}

static void check_failures(const char *function, const peridot_model_params *params, VkResult code,
                           peridot_result expected, uint32_t most) {
    uint32_t call = 0;
    for (; call < most; call++) {
        peridot_device *device = adopt(OWN_FAMILY, 0);
        peridot_error error = {0};
        adopt_shim_fail(function, call, code);
        peridot_result result = load_with_failure(device, params, &error);
        bool failed = adopt_shim_failed();
        leave(device);
        if (!failed)
            break;
        /* a lesser block of memory may do, or another way to tell how much there is */
        assert_true(result == expected || (!result && code != VK_ERROR_DEVICE_LOST));
        assert_true(!result || strlen(error.message) > 10);
    }
    print_message("%u calls failed in turn with %d\n", call, (int)code);
    assert_true(call > 1);
}

static void test_every_call_may_fail(void **state) {
    (void)state;
    static const struct {
        VkResult code;
        peridot_result result;
    } failures[] = {
        {VK_ERROR_OUT_OF_DEVICE_MEMORY, PERIDOT_ERROR_DEVICE_MEMORY},
        {VK_ERROR_OUT_OF_HOST_MEMORY, PERIDOT_ERROR_HOST_MEMORY},
        {VK_ERROR_DEVICE_LOST, PERIDOT_ERROR_DEVICE_LOST},
    };
    for (size_t i = 0; i < sizeof failures / sizeof *failures; i++) {
        check_failures(NULL, &without, failures[i].code, failures[i].result, UINT32_MAX);
        check_failures("vkCreateShaderModule", &with_pipelines, failures[i].code,
                       failures[i].result, 2);
        check_failures("vkCreateComputePipelines", &with_pipelines, failures[i].code,
                       failures[i].result, 2);
    }
}

static peridot_result first_error(peridot_device *device, const char *path,
                                  const peridot_model_params *params, peridot_error *error) {
    peridot_loading *loading = begin(device, path, params);
    peridot_result result;
    while ((result = peridot_loading_advance(loading, 1, NULL, error)) == PERIDOT_NOT_READY) {
    }
    cancel(loading);
    return result;
}

static void test_bad_arguments(void **state) {
    (void)state;
    peridot_device *device = adopt(NO_TRANSFER_QUEUE, 0);
    peridot_loading *loading = NULL;
    peridot_model *model;
    peridot_error error = {0};
    peridot_model_params params = {0};
    peridot_session_params session = {.struct_size = sizeof session, .context = 100000};
    assert_int_equal(peridot_model_load_begin(NULL, SMALL, NULL, &loading, &error),
                     PERIDOT_ERROR_ARGUMENT);
    assert_int_equal(peridot_model_load_begin(device, NULL, NULL, &loading, &error),
                     PERIDOT_ERROR_ARGUMENT);
    assert_int_equal(peridot_model_load_begin(device, SMALL, &params, &loading, &error),
                     PERIDOT_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "struct_size"));
    assert_null(loading);
    params = (peridot_model_params){.struct_size = sizeof params, .weights = 99};
    assert_int_equal(peridot_model_load_begin(device, SMALL, &params, &loading, &error),
                     PERIDOT_ERROR_ARGUMENT);
    assert_int_equal(peridot_model_load_files_begin(device, NULL, 1, NULL, &loading, &error),
                     PERIDOT_ERROR_ARGUMENT);
    assert_int_equal(peridot_loading_advance(NULL, 1, NULL, &error), PERIDOT_ERROR_ARGUMENT);
    assert_int_equal(peridot_loading_finish(NULL, &model, &error), PERIDOT_ERROR_ARGUMENT);
    assert_int_equal(first_error(device, "/nowhere", NULL, &error), PERIDOT_ERROR_FILE);
    assert_non_null(strstr(error.message, "/nowhere"));
    params = with_pipelines;
    params.session = &session;
    assert_int_equal(first_error(device, SMALL, &params, &error), PERIDOT_ERROR_ARGUMENT);
    assert_int_equal(adopt_shim_calls("vkAllocateMemory"), 0);
    leave(device);
}

static void test_transfer_queue_that_cannot_be(void **state) {
    (void)state;
    struct device *device;
    peridot_error error;
    struct device_adoption adoption = adopt_shim_adoption_transfer(true);
    adoption.transfer_family = 1000;
    assert_int_equal(device_adopt(&adoption, NULL, &device, &error), PERIDOT_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "family 1000"));
    adoption = adopt_shim_adoption_transfer(true);
    adoption.transfer_callbacks.lock_queue = NULL;
    assert_int_equal(device_adopt(&adoption, NULL, &device, &error), PERIDOT_ERROR_ARGUMENT);
    adoption = adopt_shim_adoption();
    adoption.transfer_queue = adoption.queue; /* no other one */
    adoption.transfer_family = 1000;
    const struct device_params params = {.cache_directory = ""};
    MUST(device_adopt(&adoption, &params, &device, &error));
    assert_true(device->transfer_queue == VK_NULL_HANDLE);
    device_close(device);
}

/* ---- Threads ---- */

static unsigned threads_started;

/* Called instead of pthread_create by all of Peridot (the linker's --wrap). */
int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
                          void *user);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
                          void *user);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
                          void *user) {
    threads_started++;
    return __real_pthread_create(thread, attributes, run, user);
}

static unsigned count_threads(void) {
    DIR *tasks = opendir("/proc/self/task");
    unsigned count = 0;
    assert_non_null(tasks);
    while (readdir(tasks))
        count++;
    closedir(tasks);
    return count;
}

static void test_threads(void **state) {
    (void)state;
    static const uint32_t allowances[] = {0, 1, 4}; /* 0: a guest's default, which is none */
    for (int i = 0; i < 3; i++) {
        uint32_t allowed = allowances[i];
        peridot_device *device = adopt(NO_TRANSFER_QUEUE, allowed);
        unsigned before = count_threads();
        threads_started = 0;
        peridot_loading *loading = begin(device, WITH_TOKENIZER, &with_pipelines);
        peridot_error error = {0};
        peridot_result result;
        while ((result = peridot_loading_advance(loading, INFINITY, NULL, &error)) ==
               PERIDOT_NOT_READY)
            assert_int_equal(count_threads(), before);
        if (result)
            fail_msg("%s", error.message);
        assert_int_equal(threads_started > 0, allowed > 1);
        assert_int_equal(count_threads(), before);
        cancel(loading);
        leave(device);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_steps_make_the_same_model),
        cmocka_unit_test(test_at_once),
        cmocka_unit_test(test_files_in_memory),
        cmocka_unit_test(test_stuck_device),
        cmocka_unit_test(test_cancelled_anywhere),
        cmocka_unit_test(test_cancelled_by_progress),
        cmocka_unit_test(test_every_call_may_fail),
        cmocka_unit_test(test_bad_arguments),
        cmocka_unit_test(test_transfer_queue_that_cannot_be),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, adopt_shim_set_up, adopt_shim_tear_down);
}
