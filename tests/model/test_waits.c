/* Calls whose names do not end in _wait wait for nothing: each public one is made here while waits
 * are counted (adopt_shim.h), and those that submit while the device gets nowhere. */
#include "batch.h"
#include "begin_recording.h"
#include "guest_adoption.h"
#include "model.h"
#include "must.h"
#include "session.h"

#include <ctype.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SMALL TEST_DATA "/small-f32"
#define TEXT_MOST (1 << 18)

static const int32_t prompt[] = {2, 7, 300, 41, 5, 5, 19, 100, 3};
static const peridot_session_params session_params = {
    .struct_size = sizeof session_params, .context = 64, .prefill_rows = 8};

static peridot_error told;

static peridot_result again(peridot_result result) {
    if (result < 0)
        fail_msg("%s", told.message);
    return result;
}

static void check(void) {
    assert_true(adopt_shim_sound(false));
}

/* ---- The application ---- */

static peridot_device *adopt(void) {
    const struct device_adoption from = adopt_shim_adoption_transfer(true);
    const peridot_adoption adoption = guest_adoption(&from);
    peridot_requirements always = {.struct_size = sizeof always};
    peridot_device_requirements here = {.struct_size = sizeof here};
    peridot_device_info info = {.struct_size = sizeof info};
    peridot_device *device;
    peridot_requirements_get(&always);
    MUST(peridot_requirements_for(from.instance, from.physical, from.get_instance_proc_addr, &here,
                                  &error));
    MUST(peridot_device_adopt(&adoption, &guest_params, &device, &error));
    peridot_device_describe(device, &info);
    MUST(peridot_device_memory_limit(device, 0, &error));
    return device;
}

static peridot_model *finish(peridot_loading *loading) {
    peridot_model *model;
    while (again(peridot_loading_advance(loading, 1, NULL, &told)))
        continue;
    MUST(peridot_loading_finish(loading, &model, &error));
    return model;
}

static peridot_model *load(peridot_device *device, const char *path) {
    const peridot_model_params params = {
        .struct_size = sizeof params, .session = &session_params, .compile_pipelines = true};
    peridot_model_info info = {.struct_size = sizeof info};
    peridot_memory_plan plan = {.struct_size = sizeof plan};
    peridot_loading *loading;
    MUST(peridot_model_inspect(device, path, &params, &session_params, &info, &plan, &error));
    MUST(peridot_model_load_begin(device, path, &params, &loading, &error));
    (void)again(peridot_loading_advance(loading, 0, NULL, &told));
    while (again(peridot_loading_cancel(loading)))
        continue;
    MUST(peridot_model_load_begin(device, path, &params, &loading, &error));
    peridot_model *model = finish(loading);
    peridot_model_describe(model, &info);
    return model;
}

static peridot_session *create(peridot_model *model) {
    peridot_session *session;
    MUST(peridot_session_create(model, &session_params, &session, &error));
    return session;
}

static void close_session(peridot_session *session) {
    while (again(peridot_session_close(session)))
        continue;
}

/* ---- Running ---- */

static void start(peridot_session *session, uint32_t generate) {
    const peridot_work work = {.struct_size = sizeof work,
                               .tokens = prompt,
                               .token_count = sizeof prompt / sizeof *prompt,
                               .generate = generate};
    MUST(peridot_session_start(session, &work, &error));
}

static bool poll(peridot_session *session) {
    peridot_work_status status = {.struct_size = sizeof status};
    MUST(peridot_session_poll(session, &status, &error));
    return status.active;
}

static void submit(peridot_session *session) {
    const peridot_advance advance = {.struct_size = sizeof advance, .budget_ms = 1};
    peridot_slice_plan plan = {.struct_size = sizeof plan};
    MUST(peridot_session_plan(session, 1, &plan, &error));
    (void)again(peridot_session_advance(session, &advance, &plan, &told));
}

/* Slices of both in a command buffer that goes nowhere. */
static void discard(peridot_session *session, peridot_batch *batch, struct lane *lane) {
    const peridot_recording recording = begin_recording(lane, 1, 1);
    if (session) {
        MUST(peridot_session_record(session, &recording, NULL, &error));
        MUST(peridot_session_discard(session, &error));
    } else {
        MUST(peridot_batch_record(batch, &recording, NULL, &error));
        MUST(peridot_batch_discard(batch, &error));
    }
    MUST(lane_end(lane, recording.commands, &error));
    lane_free_commands(lane, recording.commands);
}

/* A slice of either's in a command buffer of the application's, which stays until its lane goes. */
static void record(peridot_session *session, peridot_batch *batch, struct lane *lane) {
    const peridot_recording recording = begin_recording(lane, 1, 1);
    (void)again(batch ? peridot_batch_record(batch, &recording, NULL, &told)
                      : peridot_session_record(session, &recording, NULL, &told));
    MUST(lane_end(lane, recording.commands, &error));
    MUST(lane_submit(lane, &(struct batch){&recording.commands, 1}, 1, &error));
}

/* Work that is begun while the device gets nowhere is cancelled and closed when it does. */
static void check_held(peridot_model *model) {
    adopt_shim_hold(true);
    peridot_session *session = create(model), *other = create(model);
    peridot_batch *batch;
    start(session, 4);
    for (int i = 0; i < 2 * PERIDOT_SLICES_MAX; i++) {
        submit(session);
        assert_true(poll(session));
    }
    assert_int_equal(peridot_session_suspend_step(other, 0, NULL), PERIDOT_NOT_READY);
    assert_int_equal(peridot_session_close(other), PERIDOT_NOT_READY);
    peridot_session_cancel(session);
    assert_int_equal(peridot_session_close(session), PERIDOT_NOT_READY);
    MUST(peridot_batch_create((peridot_session *[]){create(model)}, 1, &batch, &error));
    peridot_session *member = batch->own.members[0];
    assert_int_equal(peridot_batch_close(batch), PERIDOT_NOT_READY);
    adopt_shim_hold(false);
    while (again(peridot_batch_close(batch)))
        continue;
    close_session(member);
    close_session(other);
    close_session(session);
}

static void close_lane(struct lane *lane) {
    bool reached = false;
    while (!reached)
        MUST(lane_poll(lane, lane->submitted, &reached, &error));
    lane_destroy(lane);
}

static void check_running(peridot_model *model) {
    peridot_session *session = create(model);
    struct lane lane;
    MUST(lane_create(model->device->engine, &lane, &error));
    start(session, 3);
    while (poll(session))
        submit(session);
    start(session, 3);
    discard(session, NULL, &lane);
    while (poll(session))
        record(session, NULL, &lane);
    assert_int_equal(peridot_session_length(session), 2 * (sizeof prompt / sizeof *prompt + 3));
    close_lane(&lane);
    close_session(session);
}

/* A batch's slices, in both ways; its session has a prompt that was not run. */
static void check_batch(peridot_model *model) {
    peridot_session *session = create(model);
    peridot_batch *batch;
    peridot_batch_status status = {.struct_size = sizeof status};
    const peridot_advance advance = {.struct_size = sizeof advance, .budget_ms = 1};
    const peridot_batch_work work = {.struct_size = sizeof work, .counts = (uint32_t[]){3}};
    peridot_slice_plan plan = {.struct_size = sizeof plan};
    struct lane lane;
    MUST(peridot_batch_create(&session, 1, &batch, &error));
    MUST(lane_create(model->device->engine, &lane, &error));
    start(session, 0);
    peridot_session_cancel(session);
    for (int recorded = 0; recorded < 2; recorded++) {
        MUST(peridot_batch_start(batch, &work, &error));
        if (recorded)
            discard(NULL, batch, &lane);
        do {
            MUST(peridot_batch_plan(batch, 1, &plan, &error));
            if (recorded)
                record(NULL, batch, &lane);
            else
                (void)again(peridot_batch_advance(batch, &advance, NULL, &told));
            MUST(peridot_batch_poll(batch, &status, &error));
        } while (status.active);
    }
    MUST(peridot_batch_start(batch, &work, &error));
    (void)again(peridot_batch_advance(batch, &advance, NULL, &told));
    peridot_batch_cancel(batch);
    close_lane(&lane);
    while (again(peridot_batch_close(batch)))
        continue;
    close_session(session);
}

/* ---- What does not run anything ---- */

static void check_settings(peridot_model *model) {
    static const char text[] = "root ::= \"yes\" | \"no\"";
    const peridot_sampling sampling = {.struct_size = sizeof sampling, .temperature = 1};
    peridot_session_statistics statistics = {.struct_size = sizeof statistics};
    peridot_result_buffer buffer = {.struct_size = sizeof buffer};
    const peridot_message message = {"user", "hello", 5};
    peridot_session *session = create(model);
    peridot_grammar *grammar;
    int32_t tokens[64];
    const char *bytes;
    size_t count;
    MUST(peridot_tokenize(model, "hello", 5, false, tokens, 64, &count, &error));
    MUST(peridot_token_bytes(model, tokens[0], &bytes, &count, &error));
    MUST(peridot_chat_tokens(model, &message, 1, tokens, 64, &count, &error));
    MUST(peridot_grammar_parse(model, text, sizeof text - 1, &grammar, &error));
    MUST(peridot_session_chat(session, &message, 1, tokens, 64, &count, &error));
    start(session, 0);
    while (poll(session))
        submit(session);
    MUST(peridot_session_grammar(session, grammar, &error));
    MUST(peridot_session_sampling(session, &sampling, &error));
    const peridot_work answer = {.struct_size = sizeof answer, .generate = 8};
    MUST(peridot_session_start(session, &answer, &error));
    while (poll(session))
        submit(session);
    MUST(peridot_session_grammar(session, NULL, &error));
    MUST(peridot_session_mask(session, NULL, 0, &error));
    MUST(peridot_session_result(session, PERIDOT_RESULT_LOGITS, &buffer, &error));
    MUST(peridot_session_truncate(session, 3, &error));
    assert_int_equal(peridot_session_tokens(session)[2], prompt[2]);
    assert_int_equal(peridot_session_context(session), session_params.context);
    peridot_session_describe(session, &statistics);
    peridot_grammar_free(grammar);
    close_session(session);
}

static void check_away(peridot_model *model) {
    peridot_session *session = create(model);
    start(session, 1);
    while (poll(session))
        submit(session);
    while (again(peridot_session_suspend_step(session, 1000, &told)))
        continue;
    MUST(peridot_session_move(session, model, &error));
    while (again(peridot_session_resume_step(session, 1000, &told)))
        continue;
    close_session(session);
}

static void test_nothing_waits(void **state) {
    (void)state;
    adopt_shim_reset();
    adopt_shim_forbid_waits(true);
    peridot_device *device = adopt();
    peridot_model *model = load(device, DEMO_MODEL);
    check_running(model);
    check_batch(model);
    check_held(model);
    check_settings(model);
    check_away(model);
    check();
    peridot_model_close(model);
    peridot_device_close(device);
    assert_int_equal(adopt_shim_live(), 0);
    check();
}

static void test_the_shim_sees_waits(void **state) {
    (void)state;
    adopt_shim_reset();
    adopt_shim_forbid_waits(true);
    peridot_device *device = adopt();
    peridot_model *model = load(device, SMALL);
    peridot_session *session = create(model);
    check();
    MUST(peridot_session_prompt_wait(session, prompt, 3, NULL, &error));
    assert_true(adopt_shim_trespasses() > 0);
    peridot_session_close_wait(session);
    peridot_model_close(model);
    peridot_device_close(device);
}

/* ---- All of them ---- */

static void read_text(const char *path, char text[TEXT_MOST]) {
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    size_t size = fread(text, 1, TEXT_MOST - 1, file);
    assert_true(size < TEXT_MOST - 1);
    (void)fclose(file);
    text[size] = 0;
}

/* On the host alone, or with a device of Peridot's own, which the shim does not see. */
static bool is_excused(const char *name) {
    static const char *const names[] = {
        "peridot_version",        "peridot_devices_list",
        "peridot_device_open",    "peridot_convert",
        "peridot_free",           "peridot_model_inspect_files",
        "peridot_batch_describe", "peridot_model_load_files_begin",
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(name, names[i]) == 0)
            return true;
    return false;
}

/* A public function that this file does not call is missed. */
static void test_every_function(void **state) {
    (void)state;
    static char header[TEXT_MOST], here[TEXT_MOST];
    uint32_t calls = 0, waits = 0;
    read_text(PERIDOT_HEADER, header);
    read_text(__FILE__, here);
    for (char *at = header; (at = strstr(at, "PERIDOT_API ")); at++) {
        char *end = strchr(at, '('), *begin = end, call[128];
        while (begin > at && (isalnum((unsigned char)begin[-1]) || begin[-1] == '_'))
            begin--;
        if (!end || strncmp(begin, "peridot_", 8) != 0)
            continue; /* the macro's own definition */
        (void)snprintf(call, sizeof call, "%.*s", (int)(end - begin), begin);
        if (strlen(call) > 5 && strcmp(call + strlen(call) - 5, "_wait") == 0) {
            waits++;
            continue;
        }
        calls++;
        bool excused = is_excused(call);
        (void)strncat(call, "(", sizeof call - strlen(call) - 1);
        if (!excused && !strstr(here, call))
            fail_msg("%s…) is not among the calls that must not wait", call);
    }
    assert_true(calls > 40 && waits > 10);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_waits),
        cmocka_unit_test(test_the_shim_sees_waits),
        cmocka_unit_test(test_every_function),
    };
    return cmocka_run_group_tests(tests, adopt_shim_set_up, adopt_shim_tear_down);
}
