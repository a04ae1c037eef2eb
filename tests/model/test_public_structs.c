/* Applications compiled with an older or a newer peridot.h: of the structs that they fill in only
 * what they know counts, and in those that the library fills in nothing behind is touched. */
#include "model.h"
#include "open_device.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define POISON 0xa5
#define NEWER 64 /* bytes that a newer header may have at the end */

static peridot_device *device;
static peridot_model *model;
static peridot_session *session;
static peridot_batch *batch;
static peridot_loading *loading; /* at its end */

static int open_all(void **state) {
    (void)state;
    static const int32_t prompt[] = {2, 3, 5, 7};
    peridot_session_params params = {.struct_size = sizeof params, .context = 64};
    peridot_error error = {0};
    device = open_test_device();
    MUST(peridot_model_load_begin(device, TEST_DATA "/small-f32", NULL, &loading, &error));
    while (peridot_loading_advance(loading, 10, NULL, &error) == PERIDOT_NOT_READY) {
    }
    MUST(peridot_model_load_wait(device, TEST_DATA "/small-f32", NULL, &model, &error));
    MUST(peridot_session_create(model, &params, &session, &error));
    MUST(peridot_session_prompt_wait(session, prompt, 4, NULL, &error));
    MUST(peridot_session_generate_wait(session, 3, NULL, NULL, NULL, &error));
    return 0;
}

static int close_all(void **state) {
    (void)state;
    peridot_session_close_wait(session);
    peridot_model_close(model);
    assert_int_equal(peridot_loading_cancel(loading), PERIDOT_OK);
    peridot_device_close(device);
    return 0;
}

/* ---- What the library fills in ---- */

struct field {
    const char *name;
    size_t offset, size;
};
#define FIELD(type, member)                                                                        \
    { #member, offsetof(type, member), sizeof((type *)0)->member }

static bool is_poison(const unsigned char *bytes, size_t size) {
    for (size_t i = 0; i < size; i++)
        if (bytes[i] != POISON)
            return false;
    return true;
}

/* Fills a struct of every size from that of struct_size alone to one beyond what the library knows.
 * `fields`: those whose values stay the same from call to call. */
static void check_filling(void (*fill)(void *out), size_t size, const struct field *fields,
                          size_t count) {
    unsigned char *full = calloc(1, size), *bytes = malloc(size + NEWER);
    assert_non_null(full);
    assert_non_null(bytes);
    memcpy(full, &size, sizeof size);
    fill(full);
    for (size_t known = sizeof known; known <= size + NEWER; known++) {
        size_t after = 0, written = known < size ? known : size;
        memset(bytes, POISON, size + NEWER);
        memcpy(bytes, &known, sizeof known);
        fill(bytes);
        memcpy(&after, bytes, sizeof after);
        assert_int_equal(after, known);
        assert_true(is_poison(bytes + written, size + NEWER - written));
        for (size_t i = 0; i < count; i++)
            if (fields[i].offset + fields[i].size <= written &&
                memcmp(full + fields[i].offset, bytes + fields[i].offset, fields[i].size) != 0)
                fail_msg("%s differs when %zu bytes are known", fields[i].name, known);
    }
    free(full);
    free(bytes);
}
#define CHECK_FILLING(fill, type, fields)                                                          \
    check_filling(fill, sizeof(type), fields, sizeof fields / sizeof *fields)

static void fill_device(void *out) {
    peridot_device_describe(device, out);
}

static void fill_listed(void *out) {
    uint32_t count;
    MUST(peridot_devices_list(out, 1, &count, &error));
    assert_true(count > 0);
}

static void fill_model(void *out) {
    peridot_model_describe(model, out);
}

static void fill_inspected(void *out) {
    MUST(peridot_model_inspect(device, TEST_DATA "/small-f32", NULL, NULL, out, NULL, &error));
}

static void fill_plan(void *out) {
    MUST(peridot_model_inspect(device, TEST_DATA "/small-f32", NULL, NULL, NULL, out, &error));
}

static void fill_statistics(void *out) {
    peridot_session_describe(session, out);
}

static void fill_batch_statistics(void *out) {
    peridot_batch_describe(batch, out);
}

static void fill_loading(void *out) {
    MUST(peridot_loading_advance(loading, 0, out, &error));
}

static void fill_requirements(void *out) {
    peridot_requirements_get(out);
}

static void fill_requirements_for(void *out) {
    const struct device *own = device->engine;
    MUST(peridot_requirements_for(own->instance, own->info.physical, own->vi.GetInstanceProcAddr,
                                  out, &error));
}

static void test_devices(void **state) {
    (void)state;
    static const struct field fields[] = {
        FIELD(peridot_device_info, index),          FIELD(peridot_device_info, name),
        FIELD(peridot_device_info, driver),         FIELD(peridot_device_info, uuid),
        FIELD(peridot_device_info, kind),           FIELD(peridot_device_info, memory_total),
        FIELD(peridot_device_info, max_allocation), FIELD(peridot_device_info, subgroup_size),
        FIELD(peridot_device_info, chosen),         FIELD(peridot_device_info, usable),
        FIELD(peridot_device_info, tuned),          FIELD(peridot_device_info, tuned_at),
        FIELD(peridot_device_info, memory_used),    FIELD(peridot_device_info, memory_limit),
    };
    CHECK_FILLING(fill_device, peridot_device_info, fields);
}

/* Records of a caller's size lie one behind the other, in an array with room for more. */
static void test_list_of_devices(void **state) {
    (void)state;
    static const size_t strides[] = {offsetof(peridot_device_info, driver),
                                     sizeof(peridot_device_info),
                                     sizeof(peridot_device_info) + NEWER};
    enum { CAPACITY = 4 };
    unsigned char bytes[CAPACITY * (sizeof(peridot_device_info) + NEWER)];
    for (int i = 0; i < 3; i++) {
        size_t stride = strides[i];
        uint32_t count = 0;
        memset(bytes, POISON, sizeof bytes);
        memcpy(bytes, &stride, sizeof stride);
        MUST(peridot_devices_list((void *)bytes, CAPACITY, &count, &error));
        assert_true(count > 0);
        size_t written =
            stride < sizeof(peridot_device_info) ? stride : sizeof(peridot_device_info);
        for (uint32_t j = 0; j < count && j < CAPACITY; j++) {
            uint32_t index;
            size_t size;
            memcpy(&size, bytes + j * stride, sizeof size);
            memcpy(&index, bytes + j * stride + offsetof(peridot_device_info, index), sizeof index);
            assert_int_equal(size, stride);
            assert_int_equal(index, j);
            assert_true(is_poison(bytes + j * stride + written, stride - written));
        }
        size_t used = (count < CAPACITY ? count : CAPACITY) * stride;
        assert_true(is_poison(bytes + used, sizeof bytes - used));
    }
    peridot_device_info unset = {0};
    uint32_t count = 0;
    peridot_error error = {0};
    fill_listed(&(peridot_device_info){.struct_size = sizeof unset});
    assert_int_equal(peridot_devices_list(&unset, 1, &count, &error), PERIDOT_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "struct_size"));
    MUST(peridot_devices_list(NULL, 0, &count, &error));
    assert_true(count > 0);
}

static void test_models(void **state) {
    (void)state;
    static const struct field fields[] = {
        FIELD(peridot_model_info, layers),       FIELD(peridot_model_info, d_model),
        FIELD(peridot_model_info, context),      FIELD(peridot_model_info, parameters),
        FIELD(peridot_model_info, weight_bytes), FIELD(peridot_model_info, ideal_bytes),
        FIELD(peridot_model_info, fingerprint),  FIELD(peridot_model_info, weights),
        FIELD(peridot_model_info, bos),          FIELD(peridot_model_info, stop_tokens),
        FIELD(peridot_model_info, device_count), FIELD(peridot_model_info, device_layers),
    };
    CHECK_FILLING(fill_model, peridot_model_info, fields);
    CHECK_FILLING(fill_inspected, peridot_model_info, fields);
}

static void test_plans(void **state) {
    (void)state;
    static const struct field fields[] = {
        FIELD(peridot_memory_plan, weight_bytes),    FIELD(peridot_memory_plan, kv_bytes),
        FIELD(peridot_memory_plan, kv_token_bytes),  FIELD(peridot_memory_plan, working_bytes),
        FIELD(peridot_memory_plan, staging_bytes),   FIELD(peridot_memory_plan, total_bytes),
        FIELD(peridot_memory_plan, context),         FIELD(peridot_memory_plan, fits),
        FIELD(peridot_memory_plan, device_count),    FIELD(peridot_memory_plan, device_layers),
        FIELD(peridot_memory_plan, device_kv_bytes),
    };
    CHECK_FILLING(fill_plan, peridot_memory_plan, fields);
}

static void test_statistics(void **state) {
    (void)state;
    static const struct field fields[] = {
        FIELD(peridot_session_statistics, prompt_tokens),
        FIELD(peridot_session_statistics, decoded_tokens),
        FIELD(peridot_session_statistics, decode_seconds),
        FIELD(peridot_session_statistics, dispatches_per_step),
        FIELD(peridot_session_statistics, kv_bytes),
        FIELD(peridot_session_statistics, step_bytes),
        FIELD(peridot_session_statistics, pipelines_compiled),
        FIELD(peridot_session_statistics, warning),
        FIELD(peridot_session_statistics, suspended),
    };
    CHECK_FILLING(fill_statistics, peridot_session_statistics, fields);
    peridot_session_statistics statistics = {.struct_size = sizeof statistics};
    peridot_session_describe(session, &statistics);
    assert_int_equal(statistics.prompt_tokens, 4);
    assert_int_equal(statistics.decoded_tokens, 3);
}

static void test_batch_statistics(void **state) {
    (void)state;
    static const struct field fields[] = {
        FIELD(peridot_batch_statistics, sessions),
        FIELD(peridot_batch_statistics, dispatches_per_step),
        FIELD(peridot_batch_statistics, barriers_per_step),
        FIELD(peridot_batch_statistics, decoded_tokens),
        FIELD(peridot_batch_statistics, submissions),
        FIELD(peridot_batch_statistics, scratch_bytes),
    };
    MUST(peridot_batch_create(&session, 1, &batch, &error));
    CHECK_FILLING(fill_batch_statistics, peridot_batch_statistics, fields);
    peridot_batch_close_wait(batch);
}

static void test_loading_status(void **state) {
    (void)state;
    static const struct field fields[] = {
        FIELD(peridot_loading_status, stage), FIELD(peridot_loading_status, done),
        FIELD(peridot_loading_status, all), FIELD(peridot_loading_status, waiting),
        FIELD(peridot_loading_status, finished)};
    CHECK_FILLING(fill_loading, peridot_loading_status, fields);
}

static void test_requirements(void **state) {
    (void)state;
    static const struct field fields[] = {
        FIELD(peridot_requirements, api_version),
        FIELD(peridot_requirements, features),
        FIELD(peridot_requirements, recommended_extensions),
        FIELD(peridot_requirements, recommended_extension_count),
        FIELD(peridot_requirements, queue_flags),
    };
    CHECK_FILLING(fill_requirements, peridot_requirements, fields);
    static const struct field of_a_device[] = {
        FIELD(peridot_device_requirements, usable),
        FIELD(peridot_device_requirements, reason),
        FIELD(peridot_device_requirements, queue_family),
        FIELD(peridot_device_requirements, transfer_family),
        FIELD(peridot_device_requirements, extension_count),
        FIELD(peridot_device_requirements, extensions),
    };
    CHECK_FILLING(fill_requirements_for, peridot_device_requirements, of_a_device);
}

/* ---- What the application fills in ---- */

/* A struct of which the caller knows what lies before `member`; the rest would crash or be refused.
 */
#define OLDER(type, variable, member)                                                              \
    type variable;                                                                                 \
    memset(&variable, POISON, sizeof variable);                                                    \
    memset(&variable, 0, offsetof(type, member));                                                  \
    variable.struct_size = offsetof(type, member)

static void test_older_callers(void **state) {
    (void)state;
    OLDER(peridot_device_params, with, max_allocation);
    OLDER(peridot_device_params, before_priority, priority);
    OLDER(peridot_model_params, params, max_piece);
    OLDER(peridot_model_params, alone, more_devices);
    OLDER(peridot_model_params, lazy, compile_pipelines);
    OLDER(peridot_session_params, wanted, kv);
    OLDER(peridot_sampling, sampling, top_k);
    peridot_device *own = NULL;
    peridot_model *loaded = NULL;
    peridot_session *created = NULL;
    wanted.context = 77;
    MUST(peridot_device_open(&before_priority, &own, &error));
    peridot_device_close(own);
    MUST(peridot_device_open(&with, &own, &error));
    MUST(peridot_model_load_wait(own, TEST_DATA "/small-f32", &params, &loaded, &error));
    peridot_model_close(loaded);
    MUST(peridot_model_load_wait(own, TEST_DATA "/small-f32", &alone, &loaded, &error));
    peridot_model_close(loaded);
    MUST(peridot_model_load_wait(own, TEST_DATA "/small-f32", &lazy, &loaded, &error));
    MUST(peridot_session_create(loaded, &wanted, &created, &error));
    MUST(peridot_session_sampling(created, &sampling, &error));
    MUST(peridot_model_inspect(own, TEST_DATA "/small-f32", &params, &wanted, NULL, NULL, &error));
    assert_int_equal(peridot_session_context(created), 77);
    peridot_session_close_wait(created);
    peridot_model_close(loaded);
    peridot_device_close(own);
}

static void fill_slices(void *out) {
    MUST(peridot_session_plan(session, 0.001f, out, &error));
}

static void fill_status(void *out) {
    MUST(peridot_session_poll(session, out, &error));
}

/* Both ways, while a session has work. */
static void test_work(void **state) {
    (void)state;
    static const int32_t more[] = {11, 13, 17};
    static const struct field slices[] = {
        FIELD(peridot_slice_plan, slices),       FIELD(peridot_slice_plan, dispatches),
        FIELD(peridot_slice_plan, bytes),        FIELD(peridot_slice_plan, flops),
        FIELD(peridot_slice_plan, estimated_ms), FIELD(peridot_slice_plan, largest_ms),
        FIELD(peridot_slice_plan, left_ms),
    };
    static const struct field statuses[] = {
        FIELD(peridot_work_status, active),    FIELD(peridot_work_status, prompt_left),
        FIELD(peridot_work_status, generated), FIELD(peridot_work_status, slices_in_flight),
        FIELD(peridot_work_status, slice_ms),  FIELD(peridot_work_status, slice_estimated_ms),
    };
    peridot_error error = {0};
    peridot_work_status status = {.struct_size = sizeof status};
    OLDER(peridot_work, work, generate);
    OLDER(peridot_advance, advance, waits);
    work.tokens = more;
    work.token_count = 3;
    assert_int_equal(peridot_session_start(session, &(peridot_work){0}, &error),
                     PERIDOT_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "peridot_work"));
    MUST(peridot_session_start(session, &work, &error));
    CHECK_FILLING(fill_slices, peridot_slice_plan, slices);
    CHECK_FILLING(fill_status, peridot_work_status, statuses);
    assert_int_equal(peridot_session_advance(session, &(peridot_advance){0}, NULL, &error),
                     PERIDOT_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "peridot_advance"));
    assert_int_equal(peridot_session_record(session, &(peridot_recording){0}, NULL, &error),
                     PERIDOT_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "peridot_recording"));
    do {
        assert_true(peridot_session_advance(session, &advance, NULL, &error) >= 0);
        MUST(peridot_session_poll(session, &status, &error));
    } while (status.active);
    MUST(peridot_session_truncate(session, 7, &error));
}

static void fill_batch_slices(void *out) {
    MUST(peridot_batch_plan(batch, 0.001f, out, &error));
}

static void fill_batch_status(void *out) {
    MUST(peridot_batch_poll(batch, out, &error));
}

/* The same of a batch. */
static void test_batch_work(void **state) {
    (void)state;
    static const uint32_t counts[] = {3};
    static const struct field slices[] = {FIELD(peridot_slice_plan, dispatches),
                                          FIELD(peridot_slice_plan, bytes),
                                          FIELD(peridot_slice_plan, left_ms)};
    static const struct field statuses[] = {
        FIELD(peridot_batch_status, active),    FIELD(peridot_batch_status, prompt_left),
        FIELD(peridot_batch_status, generated), FIELD(peridot_batch_status, slices_in_flight),
        FIELD(peridot_batch_status, slice_ms),  FIELD(peridot_batch_status, slice_estimated_ms),
    };
    peridot_error error = {0};
    peridot_batch_status status = {.struct_size = sizeof status};
    OLDER(peridot_batch_work, work, on_token);
    OLDER(peridot_advance, advance, waits);
    MUST(peridot_batch_create(&session, 1, &batch, &error));
    work.counts = counts;
    assert_int_equal(peridot_batch_start(batch, &(peridot_batch_work){0}, &error),
                     PERIDOT_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "peridot_batch_work"));
    MUST(peridot_batch_start(batch, &work, &error));
    CHECK_FILLING(fill_batch_slices, peridot_slice_plan, slices);
    CHECK_FILLING(fill_batch_status, peridot_batch_status, statuses);
    do {
        assert_true(peridot_batch_advance(batch, &advance, NULL, &error) >= 0);
        MUST(peridot_batch_poll(batch, &status, &error));
    } while (status.active);
    assert_int_equal(status.generated[0], 3);
    peridot_batch_close_wait(batch);
    MUST(peridot_session_truncate(session, 7, &error));
}

/* What a newer header has behind is not looked at. */
static void test_newer_callers(void **state) {
    (void)state;
    struct {
        peridot_sampling known;
        unsigned char more[NEWER];
    } sampling;
    memset(&sampling, POISON, sizeof sampling);
    sampling.known = (peridot_sampling){.struct_size = sizeof sampling, .temperature = 0.5f};
    MUST(peridot_session_sampling(session, &sampling.known, &error));
}

static void test_size_not_set(void **state) {
    (void)state;
    peridot_device *own;
    peridot_model *loaded;
    peridot_session *created;
    peridot_error error = {0};
#define REFUSED_SIZE(call, type)                                                                   \
    assert_int_equal(call, PERIDOT_ERROR_ARGUMENT);                                                \
    assert_non_null(strstr(error.message, #type))
    REFUSED_SIZE(peridot_device_open(&(peridot_device_params){0}, &own, &error),
                 peridot_device_params);
    REFUSED_SIZE(peridot_device_adopt(&(peridot_adoption){0}, NULL, &own, &error),
                 peridot_adoption);
    REFUSED_SIZE(peridot_model_load_wait(device, TEST_DATA "/small-f32", &(peridot_model_params){0},
                                         &loaded, &error),
                 peridot_model_params);
    REFUSED_SIZE(peridot_session_create(model, &(peridot_session_params){0}, &created, &error),
                 peridot_session_params);
    REFUSED_SIZE(peridot_session_sampling(session, &(peridot_sampling){0}, &error),
                 peridot_sampling);
    const struct device *engine = device->engine;
    REFUSED_SIZE(peridot_requirements_for(engine->instance, engine->info.physical,
                                          engine->vi.GetInstanceProcAddr,
                                          &(peridot_device_requirements){0}, &error),
                 peridot_device_requirements);
}

/* ---- What is missing ---- */

#define REFUSED(call)                                                                              \
    do {                                                                                           \
        memset(&error, 0, sizeof error);                                                           \
        assert_int_equal(call, PERIDOT_ERROR_ARGUMENT);                                            \
        assert_int_equal(error.code, PERIDOT_ERROR_ARGUMENT);                                      \
        assert_true(error.message[0]);                                                             \
    } while (0)

/* and where a handle is to be written there is none */
#define REFUSED_HANDLE(call, handle)                                                               \
    do {                                                                                           \
        memset(&(handle), POISON, sizeof(handle));                                                 \
        REFUSED(call);                                                                             \
        assert_null(handle);                                                                       \
    } while (0)

static void test_null_devices_and_models(void **state) {
    (void)state;
    const char *path = TEST_DATA "/small-f32";
    const peridot_file nameless = {.data = path, .size = 1}, empty = {.name = "a", .size = 1};
    peridot_error error;
    peridot_device *own;
    peridot_model *loaded;
    peridot_loading *begun;
    uint32_t count;
    REFUSED(peridot_devices_list(NULL, 1, &count, &error));
    REFUSED(peridot_devices_list(NULL, 0, NULL, &error));
    REFUSED(peridot_device_open(NULL, NULL, &error));
    REFUSED_HANDLE(peridot_device_adopt(NULL, NULL, &own, &error), own);
    REFUSED(peridot_device_memory_limit(NULL, 1, &error));
    REFUSED_HANDLE(peridot_model_load_wait(device, NULL, NULL, &loaded, &error), loaded);
    REFUSED(peridot_model_load_wait(NULL, path, NULL, &loaded, &error));
    REFUSED(peridot_model_load_wait(device, path, NULL, NULL, &error));
    REFUSED_HANDLE(peridot_model_load_files_wait(NULL, &empty, 1, NULL, &loaded, &error), loaded);
    REFUSED_HANDLE(peridot_model_load_files_wait(device, NULL, 1, NULL, &loaded, &error), loaded);
    REFUSED(peridot_model_load_files_wait(device, &nameless, 1, NULL, &loaded, &error));
    REFUSED(peridot_model_load_files_wait(device, &empty, 1, NULL, &loaded, &error));
    REFUSED_HANDLE(peridot_model_load_begin(device, NULL, NULL, &begun, &error), begun);
    REFUSED_HANDLE(peridot_model_load_files_begin(device, &empty, 1, NULL, &begun, &error), begun);
    REFUSED(peridot_model_inspect(device, NULL, NULL, NULL, NULL, NULL, &error));
    REFUSED(peridot_model_inspect_files(device, NULL, 1, NULL, NULL, NULL, NULL, &error));
    REFUSED(peridot_loading_advance(NULL, 1, NULL, &error));
    REFUSED(peridot_loading_finish(loading, NULL, &error));
    REFUSED_HANDLE(peridot_loading_finish(NULL, &loaded, &error), loaded);
    REFUSED(peridot_convert(NULL, "out.gguf", NULL, &error));
    REFUSED(peridot_convert(path, NULL, NULL, &error));
}

static void test_null_texts(void **state) {
    (void)state;
    const peridot_message roleless = {.content = "a", .length = 1};
    const peridot_message empty = {.role = "user", .length = 1};
    peridot_error error;
    peridot_grammar *grammar;
    int32_t token;
    const char *bytes;
    size_t count;
    peridot_model *speaks; /* with a tokenizer */
    MUST(peridot_model_load_wait(device, DEMO_MODEL, NULL, &speaks, &error));
    MUST(peridot_tokenize(speaks, "a", 1, false, NULL, 0, &count, &error));
    assert_true(count > 0);
    REFUSED(peridot_tokenize(NULL, "a", 1, false, &token, 1, &count, &error));
    REFUSED(peridot_tokenize(model, NULL, 1, false, &token, 1, &count, &error));
    REFUSED(peridot_tokenize(model, "a", 1, false, NULL, 1, &count, &error));
    REFUSED(peridot_tokenize(model, "a", 1, false, &token, 1, NULL, &error));
    REFUSED(peridot_token_bytes(NULL, 1, &bytes, &count, &error));
    REFUSED(peridot_token_bytes(model, 1, NULL, &count, &error));
    REFUSED(peridot_token_bytes(model, 1, &bytes, NULL, &error));
    REFUSED(peridot_chat_tokens(NULL, &empty, 1, &token, 1, &count, &error));
    REFUSED(peridot_chat_tokens(model, NULL, 1, &token, 1, &count, &error));
    REFUSED(peridot_chat_tokens(model, &empty, 1, NULL, 1, &count, &error));
    REFUSED(peridot_chat_tokens(model, &empty, 1, &token, 1, NULL, &error));
    REFUSED(peridot_chat_tokens(speaks, &empty, 1, &token, 1, &count, &error));
    REFUSED(peridot_chat_tokens(speaks, &roleless, 1, &token, 1, &count, &error));
    REFUSED_HANDLE(peridot_grammar_parse(model, NULL, 1, &grammar, &error), grammar);
    REFUSED(peridot_grammar_parse(model, "root ::= .", 10, NULL, &error));
    peridot_model_close(speaks);
}

static void test_null_sessions(void **state) {
    (void)state;
    const peridot_sampling sampling = {.struct_size = sizeof sampling};
    const peridot_work work = {.struct_size = sizeof work, .generate = 1};
    const peridot_recording recording = {.struct_size = sizeof recording};
    peridot_result_buffer buffer = {.struct_size = sizeof buffer};
    peridot_slice_plan plan = {.struct_size = sizeof plan};
    peridot_session *created;
    peridot_error error;
    const int32_t token = 3;
    float floats[512];
    uint32_t word = 1;
    void *extra;
    size_t size;
    REFUSED_HANDLE(peridot_session_create(NULL, NULL, &created, &error), created);
    REFUSED(peridot_session_create(model, NULL, NULL, &error));
    REFUSED(peridot_session_sampling(NULL, &sampling, &error));
    REFUSED(peridot_session_sampling(session, NULL, &error));
    REFUSED(peridot_session_mask(NULL, &word, 1, &error));
    REFUSED(peridot_session_grammar(NULL, NULL, &error));
    REFUSED(peridot_session_prompt_wait(NULL, &token, 1, NULL, &error));
    REFUSED(peridot_session_prompt_wait(session, NULL, 1, NULL, &error));
    REFUSED(peridot_session_generate_wait(NULL, 1, NULL, NULL, NULL, &error));
    REFUSED(peridot_session_generate_wait(session, 0, NULL, NULL, NULL, &error));
    REFUSED(peridot_session_truncate(NULL, 0, &error));
    REFUSED(peridot_session_logits_wait(NULL, floats, &error));
    REFUSED(peridot_session_logits_wait(session, NULL, &error));
    REFUSED(peridot_session_hidden_wait(NULL, 0, 1, floats, &error));
    REFUSED(peridot_session_hidden_wait(session, 0, 1, NULL, &error));
    REFUSED(peridot_session_result(NULL, PERIDOT_RESULT_LOGITS, &buffer, &error));
    REFUSED(peridot_session_result(session, PERIDOT_RESULT_LOGITS, NULL, &error));
    REFUSED(peridot_session_save_wait(NULL, "saved", NULL, 0, &error));
    REFUSED(peridot_session_save_wait(session, NULL, NULL, 0, &error));
    REFUSED(peridot_session_save_wait(session, "saved", NULL, 1, &error));
    REFUSED(peridot_session_load_wait(NULL, "saved", NULL, NULL, &error));
    REFUSED(peridot_session_load_wait(session, NULL, NULL, NULL, &error));
    REFUSED(peridot_session_load_wait(session, "saved", &extra, NULL, &error));
    REFUSED(peridot_session_load_wait(session, "saved", NULL, &size, &error));
    REFUSED(peridot_session_suspend_wait(NULL, &error));
    REFUSED(peridot_session_suspend_step(NULL, 0, &error));
    REFUSED(peridot_session_resume_wait(NULL, &error));
    REFUSED(peridot_session_resume_step(NULL, 0, &error));
    REFUSED(peridot_session_move(NULL, model, &error));
    REFUSED(peridot_session_start(NULL, &work, &error));
    REFUSED(peridot_session_start(session, NULL, &error));
    REFUSED(peridot_session_plan(NULL, 1, &plan, &error));
    REFUSED(peridot_session_advance(NULL, NULL, NULL, &error));
    REFUSED(peridot_session_record(NULL, &recording, NULL, &error));
    REFUSED(peridot_session_poll(NULL, NULL, &error));
    MUST(peridot_session_start(session, &work, &error));
    REFUSED(peridot_session_plan(session, 1, NULL, &error));
    REFUSED(peridot_session_record(session, NULL, NULL, &error));
    peridot_session_cancel(session);
    /* what accepts NULL */
    peridot_session_cancel(NULL);
    assert_int_equal(peridot_session_close(NULL), PERIDOT_OK);
    peridot_session_close_wait(NULL);
    assert_int_equal(peridot_loading_cancel(NULL), PERIDOT_OK);
    peridot_model_close(NULL);
    peridot_device_close(NULL);
    peridot_grammar_free(NULL);
    peridot_free(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_devices),
        cmocka_unit_test(test_list_of_devices),
        cmocka_unit_test(test_models),
        cmocka_unit_test(test_plans),
        cmocka_unit_test(test_statistics),
        cmocka_unit_test(test_batch_statistics),
        cmocka_unit_test(test_requirements),
        cmocka_unit_test(test_work),
        cmocka_unit_test(test_older_callers),
        cmocka_unit_test(test_newer_callers),
        cmocka_unit_test(test_size_not_set),
        cmocka_unit_test(test_loading_status),
        cmocka_unit_test(test_null_devices_and_models),
        cmocka_unit_test(test_null_texts),
        cmocka_unit_test(test_null_sessions),
        cmocka_unit_test(test_batch_work),
    };
    return cmocka_run_group_tests_name("public structs", tests, open_all, close_all);
}
