/* Peridot as a guest on an application's device, whose functions are intercepted (adopt_shim.h):
 * under pressure for memory, with refused allocations and a lost device, without waits, threads or
 * objects that the application would not expect. */
#include "guest_adoption.h"
#include "must.h"
#include "refusing_memory.h"
#include "session.h"

#include <dirent.h>
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define SMALL TEST_DATA "/small-f32"
#define VOCABULARY_MOST 512

/* ---- The application ---- */

static VkPipelineCache cache; /* its own; what follows need not compile again */

static int open_application(void **state) {
    (void)state;
    const char *why = adopt_shim_open();
    if (why)
        print_message("%s\n", why);
    cache = why ? VK_NULL_HANDLE : adopt_shim_make_cache();
    return why != NULL;
}

static int close_application(void **state) {
    (void)state;
    adopt_shim_destroy_cache(cache);
    adopt_shim_close();
    return 0;
}

static peridot_adoption adoption(void) {
    const struct device_adoption from = adopt_shim_adoption();
    peridot_adoption made = guest_adoption(&from);
    made.pipeline_cache = cache;
    return made;
}

static peridot_device *adopt(void) {
    peridot_adoption from = adoption();
    peridot_device *device;
    MUST(peridot_device_adopt(&from, &guest_params, &device, &error));
    return device;
}

/* Of another VkDevice of the application's, which is to be closed after it. */
static peridot_device *adopt_second(void) {
    const struct device_adoption from = adopt_shim_second();
    assert_non_null(from.device);
    peridot_adoption second = guest_adoption(&from);
    peridot_device *device;
    MUST(peridot_device_adopt(&second, &guest_params, &device, &error));
    return device;
}

static peridot_model *load(peridot_device *device, const char *path) {
    peridot_model *model;
    MUST(peridot_model_load_wait(device, path, NULL, &model, &error));
    return model;
}

/* How a prompt is cut into passes, and so how sums round, follows from measured time where that
 * would be too long: never here, so that bits can be compared. */
#define ANY_TIME 1e6f

static const peridot_session_params short_context = {.struct_size = sizeof short_context,
                                                     .context = 64,
                                                     .prefill_rows = 8,
                                                     .submission_ms = ANY_TIME};
static const peridot_session_params whole_context = {.struct_size = sizeof whole_context,
                                                     .submission_ms = ANY_TIME};

static peridot_session *create(peridot_model *model, const peridot_session_params *params) {
    peridot_session *session;
    MUST(peridot_session_create(model, params, &session, &error));
    return session;
}

/* No call that a guest may not make, and all closed. */
static void check_guest(void) {
    assert_true(adopt_shim_sound(true));
}

/* ---- Work ---- */

static const int32_t prompt[] = {2, 38, 119, 342, 171, 231, 170, 230, 11, 261, 355, 17};
#define PROMPT_COUNT (sizeof prompt / sizeof *prompt)
#define WANTED 5 /* tokens */

struct answer {
    int32_t tokens[64];
    uint32_t count;
};

static bool take(const peridot_token *token, void *user) {
    struct answer *answer = user;
    answer->tokens[answer->count++] = token->token;
    return true;
}

static void set_sampling(peridot_session *session) {
    peridot_sampling sampling = {.struct_size = sizeof sampling,
                                 .temperature = 1.5f,
                                 .min_tokens = 40,
                                 .repetition_penalty = 1.3f,
                                 .seed = 11};
    MUST(peridot_session_sampling(session, &sampling, &error));
}

static peridot_result start(peridot_session *session, struct answer *answer, peridot_error *error) {
    bool first = peridot_session_length(session) == 0;
    peridot_work work = {.struct_size = sizeof work,
                         .tokens = first ? prompt : NULL,
                         .token_count = first ? PROMPT_COUNT : 0,
                         .generate = WANTED - answer->count,
                         .on_token = take,
                         .user = answer};
    return peridot_session_start(session, &work, error);
}

/* One frame: a slice, and a look at those before it. */
static peridot_result frame(peridot_session *session, bool *active, peridot_error *error) {
    peridot_advance advance = {.struct_size = sizeof advance, .budget_ms = 5};
    peridot_work_status status = {.struct_size = sizeof status};
    peridot_result result = peridot_session_advance(session, &advance, NULL, error);
    if (result == PERIDOT_NOT_READY)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    if (result >= 0)
        result = peridot_session_poll(session, &status, error);
    *active = status.active;
    return result;
}

/* The whole answer in slices. */
static peridot_result run(peridot_session *session, struct answer *answer, peridot_error *error) {
    peridot_result result = start(session, answer, error);
    for (bool active = true; active && !result;)
        result = frame(session, &active, error);
    return result;
}

static struct answer expected; /* what a session of short_context on SMALL gives */

static void make_expected(peridot_model *model) {
    peridot_session *session = create(model, &short_context);
    memset(&expected, 0, sizeof expected);
    set_sampling(session);
    MUST(peridot_session_prompt_wait(session, prompt, PROMPT_COUNT, NULL, &error));
    MUST(peridot_session_generate_wait(session, WANTED, take, &expected, NULL, &error));
    peridot_session_close_wait(session);
}

static void check_answer(const struct answer *answer) {
    assert_int_equal(answer->count, WANTED);
    assert_memory_equal(answer->tokens, expected.tokens, WANTED * sizeof *answer->tokens);
}

/* ---- Suspended ---- */

/* There and back again, and what it gave back meanwhile. */
struct absence {
    void (*away)(peridot_session *session, void *user);
    void *user;
    uint64_t memory; /* of the device, without the session */
    int32_t objects;
    bool stepped;
};

static void be_away(peridot_session *session, struct absence *absence) {
    float logits[VOCABULARY_MOST];
    peridot_session_statistics statistics = {.struct_size = sizeof statistics};
    peridot_error error = {0};
    peridot_result result;
    if (!absence)
        return;
    adopt_shim_forbid_waits(absence->stepped);
    if (absence->stepped) {
        while ((result = peridot_session_suspend_step(session, 10000, &error)) ==
               PERIDOT_NOT_READY) {
            assert_int_equal(peridot_session_prompt_wait(session, prompt, 1, NULL, NULL),
                             PERIDOT_ERROR_ARGUMENT);
            assert_int_equal(peridot_session_truncate(session, 0, NULL), PERIDOT_ERROR_ARGUMENT);
        }
        assert_int_equal(result, PERIDOT_OK);
    } else {
        MUST(peridot_session_suspend_wait(session, &error));
    }
    MUST(peridot_session_suspend_wait(session, &error)); /* it is already */
    assert_int_equal(adopt_shim_memory(), absence->memory);
    assert_int_equal(adopt_shim_live(), absence->objects);
    assert_int_equal(peridot_session_logits_wait(session, logits, &error), PERIDOT_ERROR_ARGUMENT);
    if (peridot_session_length(session))
        assert_non_null(strstr(error.message, "is suspended"));
    peridot_session_describe(session, &statistics);
    assert_true(statistics.suspended);
    assert_int_equal(statistics.kv_bytes + statistics.scratch_bytes, 0);
    if (absence->stepped) {
        while ((result = peridot_session_resume_step(session, 10000, &error)) == PERIDOT_NOT_READY)
            assert_int_equal(peridot_session_suspend_wait(session, NULL), PERIDOT_ERROR_ARGUMENT);
        assert_int_equal(result, PERIDOT_OK);
    } else {
        MUST(peridot_session_resume_wait(session, &error));
    }
    adopt_shim_forbid_waits(false);
    MUST(peridot_session_resume_wait(session, &error));
    peridot_session_describe(session, &statistics);
    assert_false(statistics.suspended);
    assert_true(statistics.kv_bytes > 0 && statistics.scratch_bytes > 0);
}

struct told {
    struct answer answer;
    float logits[3][VOCABULARY_MOST];
    float hidden[64 * 512]; /* states, where they are kept */
};

/* A conversation, away between all its parts. */
static void converse(peridot_session *session, const int32_t *tokens, size_t first, size_t second,
                     struct absence *absence, struct told *told) {
    memset(told, 0, sizeof *told);
    set_sampling(session);
    if (session->hidden_layer) {
        uint32_t mask[VOCABULARY_MOST / 32]; /* and odd tokens alone */
        memset(mask, 0xaa, sizeof mask);
        MUST(peridot_session_mask(session, mask, (session->model->config.vocabulary + 31) / 32,
                                  &error));
    }
    be_away(session, absence); /* with nothing computed */
    MUST(peridot_session_prompt_wait(session, tokens, first, NULL, &error));
    be_away(session, absence);
    MUST(peridot_session_logits_wait(session, told->logits[0], &error));
    MUST(peridot_session_generate_wait(session, 5, take, &told->answer, NULL, &error));
    be_away(session, absence);
    MUST(peridot_session_prompt_wait(session, tokens + first, second, NULL, &error));
    MUST(peridot_session_logits_wait(session, told->logits[1], &error));
    MUST(peridot_session_truncate(session, peridot_session_length(session) - 2, &error));
    be_away(session, absence);
    MUST(peridot_session_generate_wait(session, 5, take, &told->answer, NULL, &error));
    be_away(session, absence);
    MUST(peridot_session_logits_wait(session, told->logits[2], &error));
    if (session->hidden_layer)
        MUST(peridot_session_hidden_wait(session, 0, peridot_session_length(session), told->hidden,
                                         &error));
}

static void check_absence(const char *path, const peridot_session_params *params, size_t first,
                          size_t second) {
    static struct told stayed, left;
    int32_t tokens[600];
    for (int i = 0; i < 600; i++)
        tokens[i] = i ? 3 + i * 37 % 290 : 2;
    adopt_shim_reset();
    peridot_device *device = adopt();
    peridot_model *model = load(device, path);
    peridot_session *session = create(model, params);
    converse(session, tokens, first, second, NULL, &stayed);
    peridot_session_close_wait(session);
    struct absence absence = {.memory = adopt_shim_memory(), .objects = adopt_shim_live()};
    for (int i = 0; i < 2; i++) {
        absence.stepped = i > 0;
        session = create(model, params);
        converse(session, tokens, first, second, &absence, &left);
        assert_memory_equal(&stayed, &left, sizeof left);
        peridot_session_close_wait(session);
    }
    peridot_model_close(model);
    peridot_device_close(device);
    check_guest();
}

static void test_suspended(void **state) {
    (void)state;
    peridot_session_params hidden = short_context;
    hidden.hidden_layer = PERIDOT_HIDDEN_NORMED;
    check_absence(SMALL, &short_context, 12, 7);
    check_absence(SMALL, &hidden, 12, 7);
    check_absence(TEST_DATA "/gqa-bf16",
                  &(peridot_session_params){.struct_size = sizeof(peridot_session_params),
                                            .kv = PERIDOT_KV_Q8},
                  33, 3);
    check_absence(TEST_DATA "/long-f16", &whole_context, 508, 9); /* more than a chunk */
}

/* Truncated, saved and moved while it is away. */
static void test_away(void **state) {
    (void)state;
    char path[] = "/tmp/peridot-guest-XXXXXX";
    static float stayed[VOCABULARY_MOST], came[VOCABULARY_MOST];
    adopt_shim_reset();
    peridot_device *device = adopt(), *other;
    peridot_model *model = load(device, SMALL), *same, *another;
    MUST(peridot_device_open(&guest_params, &other, &error));
    same = load(other, SMALL);
    another = load(other, TEST_DATA "/gqa-bf16");
    peridot_session *session = create(model, &short_context), *loaded;
    peridot_session *here = create(model, &short_context);
    loaded = create(same, &short_context);
    assert_int_equal(close(mkstemp(path)), 0);
    MUST(peridot_session_prompt_wait(here, prompt, PROMPT_COUNT, NULL, &error));
    MUST(peridot_session_truncate(here, 7, &error));
    MUST(peridot_session_logits_wait(here, stayed, &error));
    MUST(peridot_session_prompt_wait(session, prompt, PROMPT_COUNT, NULL, &error));
    assert_int_equal(peridot_session_move(session, same, NULL), PERIDOT_ERROR_ARGUMENT);
    MUST(peridot_session_suspend_wait(session, &error));
    MUST(peridot_session_truncate(session, 7, &error));
    MUST(peridot_session_save_wait(session, path, NULL, 0, &error));
    MUST(peridot_session_load_wait(loaded, path, NULL, NULL, &error));
    MUST(peridot_session_logits_wait(loaded, came, &error));
    assert_memory_equal(stayed, came, sizeof came);
    assert_int_equal(peridot_session_load_wait(session, path, NULL, NULL, NULL),
                     PERIDOT_ERROR_ARGUMENT);
    assert_int_equal(peridot_session_move(session, another, NULL), PERIDOT_ERROR_UNSUPPORTED);
    MUST(peridot_session_move(session, same, &error));
    peridot_session_close_wait(here);
    peridot_model_close(model);
    peridot_device_close(device);
    check_guest();
    MUST(peridot_session_resume_wait(session, &error));
    MUST(peridot_session_logits_wait(session, came, &error));
    assert_memory_equal(stayed, came, sizeof came);
    peridot_session_close_wait(session);
    peridot_session_close_wait(loaded);
    peridot_model_close(same);
    peridot_model_close(another);
    peridot_device_close(other);
    remove(path);
}

/* ---- Less memory ---- */

static uint64_t used(const peridot_device *device) {
    peridot_device_info info = {.struct_size = sizeof info};
    peridot_device_describe(device, &info);
    assert_int_equal(info.memory_used, adopt_shim_memory());
    return info.memory_used;
}

/* The limit falls below what is taken: no new chunk, but sessions can leave, come back one at a
 * time, and go on as if nothing had been. `by_budget`: the driver's budget falls instead. */
static void check_pressure(bool by_budget) {
    static const char *const extensions[] = {VK_EXT_MEMORY_BUDGET_EXTENSION_NAME};
    static float stayed[VOCABULARY_MOST], came[VOCABULARY_MOST];
    int32_t tokens[600];
    for (int i = 0; i < 600; i++)
        tokens[i] = i ? 3 + i * 41 % 290 : 2;
    adopt_shim_reset();
    adopt_shim_set_free((uint64_t)1 << 30);
    peridot_adoption from = adoption();
    peridot_device *device;
    peridot_error error;
    from.extensions = extensions;
    from.extension_count = 1;
    MUST(peridot_device_adopt(&from, &guest_params, &device, &error));
    peridot_model *model = load(device, TEST_DATA "/long-f16");
    uint64_t alone = used(device);
    peridot_session *a = create(model, &whole_context), *b;
    MUST(peridot_session_prompt_wait(a, tokens, 500, NULL, &error));
    uint64_t with_a = used(device);
    b = create(model, &whole_context);
    MUST(peridot_session_prompt_wait(b, tokens, 500, NULL, &error));
    MUST(peridot_device_memory_limit(device, by_budget ? 0 : with_a - 1, &error));
    if (by_budget)
        adopt_shim_set_free(1000);
    else
        assert_int_equal(peridot_session_prompt_wait(a, tokens + 500, 100, NULL, &error),
                         PERIDOT_ERROR_DEVICE_MEMORY);
    assert_int_equal(peridot_session_length(a), 500);
    MUST(peridot_session_suspend_wait(a, &error));
    assert_int_equal(peridot_session_resume_wait(a, &error), PERIDOT_ERROR_DEVICE_MEMORY);
    assert_non_null(strstr(error.message, "500 tokens need"));
    assert_non_null(strstr(error.message, "it stays suspended"));
    MUST(peridot_session_suspend_wait(b, &error));
    assert_int_equal(used(device), alone);
    assert_int_equal(peridot_session_resume_step(a, 0, &error), PERIDOT_ERROR_DEVICE_MEMORY);
    MUST(peridot_device_memory_limit(device, by_budget ? 0 : with_a, &error));
    adopt_shim_set_free(by_budget ? with_a - alone : (uint64_t)1 << 30);
    MUST(peridot_session_resume_wait(a, &error)); /* one of them has room again */
    assert_int_equal(used(device), with_a);
    if (!by_budget)
        assert_int_equal(peridot_session_resume_wait(b, &error), PERIDOT_ERROR_DEVICE_MEMORY);
    adopt_shim_set_free((uint64_t)1 << 30);
    MUST(peridot_device_memory_limit(device, 0, &error));
    MUST(peridot_session_resume_wait(b, &error));
    MUST(peridot_session_prompt_wait(a, tokens + 500, 100, NULL, &error));
    MUST(peridot_session_prompt_wait(b, tokens + 500, 100, NULL, &error));
    MUST(peridot_session_logits_wait(a, stayed, &error));
    MUST(peridot_session_logits_wait(b, came, &error));
    assert_memory_equal(stayed, came, sizeof came);
    peridot_session_close_wait(a);
    peridot_session_close_wait(b);
    peridot_model_close(model);
    peridot_device_close(device);
    check_guest();
}

static void test_less_memory(void **state) {
    (void)state;
    check_pressure(false);
    check_pressure(true);
}

/* A saved session that there is no room for leaves the one that it was to take the place of. */
static void test_no_room_to_load(void **state) {
    (void)state;
    char path[] = "/tmp/peridot-guest-XXXXXX";
    static float before[VOCABULARY_MOST], after[VOCABULARY_MOST];
    int32_t tokens[600];
    for (int i = 0; i < 600; i++)
        tokens[i] = i ? 3 + i * 41 % 290 : 2;
    adopt_shim_reset();
    peridot_device *device = adopt();
    peridot_model *model = load(device, TEST_DATA "/long-f16");
    peridot_session *large = create(model, &whole_context), *small = create(model, &whole_context);
    assert_int_equal(close(mkstemp(path)), 0);
    MUST(peridot_session_prompt_wait(large, tokens, 600, NULL, &error));
    MUST(peridot_session_save_wait(large, path, "mine", 4, &error));
    MUST(peridot_session_prompt_wait(small, tokens, 90, NULL, &error));
    MUST(peridot_session_logits_wait(small, before, &error));
    MUST(peridot_device_memory_limit(device, used(device), &error));
    void *extra = tokens;
    size_t extra_size = 1;
    assert_int_equal(peridot_session_load_wait(small, path, &extra, &extra_size, NULL),
                     PERIDOT_ERROR_DEVICE_MEMORY);
    assert_null(extra);
    assert_int_equal(extra_size, 0);
    MUST(peridot_device_memory_limit(device, 0, &error));
    assert_int_equal(peridot_session_length(small), 90);
    MUST(peridot_session_logits_wait(small, after, &error));
    assert_memory_equal(before, after, sizeof after);
    MUST(peridot_session_load_wait(small, path, &extra, &extra_size, &error));
    assert_int_equal(peridot_session_length(small), 600);
    assert_int_equal(extra_size, 4);
    assert_string_equal(extra, "mine");
    peridot_free(extra);
    peridot_session_close_wait(small);
    peridot_session_close_wait(large);
    peridot_model_close(model);
    peridot_device_close(device);
    check_guest();
    remove(path);
}

/* A sliced answer that needs a chunk more than there is stops, and goes on when it may. */
static void test_limit_while_running(void **state) {
    (void)state;
    int32_t tokens[511];
    for (int i = 0; i < 511; i++)
        tokens[i] = i ? 3 + i * 43 % 290 : 2;
    adopt_shim_reset();
    peridot_device *device = adopt();
    peridot_model *model = load(device, TEST_DATA "/long-f16");
    static struct answer stayed, squeezed;
    struct answer *answers[] = {&stayed, &squeezed};
    for (int i = 0; i < 2; i++) {
        peridot_session *session = create(model, &whole_context);
        memset(answers[i], 0, sizeof **answers);
        set_sampling(session);
        peridot_work work = {sizeof work, tokens, 511, 6, take, answers[i], NULL};
        MUST(peridot_session_start(session, &work, &error));
        uint32_t refused = 0;
        for (bool active = true; active;) {
            peridot_error error = {0};
            peridot_result result = frame(session, &active, &error);
            if (result == PERIDOT_ERROR_DEVICE_MEMORY) {
                active = true;
                if (++refused == 3)
                    MUST(peridot_device_memory_limit(device, 0, &error));
            } else {
                assert_true(result >= 0);
            }
            if (i == 1 && !refused)
                MUST(peridot_device_memory_limit(device, used(device), &error));
        }
        assert_int_equal(refused, i ? 3 : 0);
        peridot_session_close_wait(session);
    }
    assert_int_equal(stayed.count, 6);
    assert_memory_equal(&stayed, &squeezed, sizeof stayed);
    peridot_model_close(model);
    peridot_device_close(device);
    check_guest();
}

/* ---- Refused ---- */

/* The first refusal that a call gives is noted, and the call made again: nothing else is refused,
 * so it must do. */
struct trial {
    uint32_t refusals;
    peridot_result expected;
};

static void note(struct trial *trial, peridot_result result, const peridot_error *error) {
    assert_int_equal(result, trial->expected);
    assert_true(error->message[0] != '\0');
    trial->refusals++;
}
#define AGAIN(call)                                                                                \
    do {                                                                                           \
        peridot_error error = {0};                                                                 \
        peridot_result result = (call);                                                            \
        if (result < 0) {                                                                          \
            note(trial, result, &error);                                                           \
            result = (call);                                                                       \
        }                                                                                          \
        if (result < 0)                                                                            \
            fail_msg("%s", error.message);                                                         \
    } while (0)

/* A session's life in slices, with an absence. */
static void live(peridot_model *model, struct trial *trial) {
    peridot_session *session;
    struct answer answer = {.count = 0};
    AGAIN(peridot_session_create(model, &short_context, &session, &error));
    set_sampling(session);
    while (answer.count < WANTED) {
        bool active = true;
        AGAIN(start(session, &answer, &error));
        while (active) {
            peridot_error error = {0};
            peridot_result result = frame(session, &active, &error);
            if (result < 0) {
                note(trial, result, &error);
                active = true;
            }
            if (result < 0 && peridot_session_poll(session, NULL, &error) >= 0) {
                peridot_work_status status = {.struct_size = sizeof status};
                MUST(peridot_session_poll(session, &status, &error));
                active = status.active;
            }
        }
        if (answer.count < WANTED)
            assert_true(trial->refusals > 0);
        AGAIN(peridot_session_suspend_wait(session, &error));
        AGAIN(peridot_session_resume_wait(session, &error));
    }
    check_answer(&answer);
    peridot_session_close_wait(session);
}

static void check_refusals(peridot_model *model, VkResult code, peridot_result result,
                           uint32_t stride) {
    int32_t objects = adopt_shim_live();
    uint64_t memory = adopt_shim_memory();
    uint32_t calls = 0, seen = 0;
    for (;; calls += stride) {
        struct trial trial = {.expected = result};
        if (code)
            adopt_shim_fail(NULL, calls, code);
        else
            refusing_memory_fail(LIBRARY_MEMORY, calls, 0);
        live(model, &trial);
        refusing_memory_mend(LIBRARY_MEMORY);
        assert_int_equal(adopt_shim_live(), objects);
        assert_int_equal(adopt_shim_memory(), memory);
        seen += trial.refusals;
        if (code ? !adopt_shim_failed() : !refusing_memory_refused(LIBRARY_MEMORY))
            break;
    }
    adopt_shim_mend();
    print_message("refused up to call %u: %u refusals seen\n", calls, seen);
    assert_true(calls > 20 && seen > calls / stride / 3);
}

static void test_refused(void **state) {
    (void)state;
    uint32_t stride = getenv("PERIDOT_TEST_LONG") ? 1 : 7;
    adopt_shim_reset();
    peridot_device *device = adopt();
    peridot_model *model = load(device, SMALL);
    make_expected(model);
    check_refusals(model, VK_ERROR_OUT_OF_DEVICE_MEMORY, PERIDOT_ERROR_DEVICE_MEMORY, stride);
    check_refusals(model, VK_ERROR_OUT_OF_HOST_MEMORY, PERIDOT_ERROR_HOST_MEMORY, stride + 4);
    check_refusals(model, VK_SUCCESS, PERIDOT_ERROR_HOST_MEMORY, stride);
    peridot_model_close(model);
    peridot_device_close(device);
    check_guest();
}

/* ---- Lost ---- */

/* What is left to do after a loss: on a new device, with what the host has. */
static void rebuild(peridot_model *model, const peridot_session *lost, peridot_session *away,
                    struct answer *answer) {
    struct answer second = {.count = 0};
    peridot_session *session = create(model, &short_context);
    set_sampling(session);
    MUST(peridot_session_prompt_wait(session, peridot_session_tokens(lost),
                                     peridot_session_length(lost), NULL, &error));
    if (answer->count < WANTED)
        MUST(peridot_session_generate_wait(session, WANTED - answer->count, take, answer, NULL,
                                           &error));
    check_answer(answer);
    MUST(peridot_session_move(away, model, &error));
    MUST(peridot_session_resume_wait(away, &error));
    MUST(peridot_session_generate_wait(away, WANTED, take, &second, NULL, &error));
    check_answer(&second);
    peridot_session_close_wait(session);
}

/* A lost session says so, once for what was in flight and then for whatever is new. */
static void check_lost(peridot_session *session, peridot_session *away) {
    bool active;
    peridot_error error = {0};
    peridot_work_status status = {.struct_size = sizeof status};
    assert_true(frame(session, &active, &error) < 0);
    peridot_session_cancel(session);
    peridot_result result = peridot_session_poll(session, &status, &error);
    assert_true(result == PERIDOT_OK || result == PERIDOT_ERROR_DEVICE_LOST);
    MUST(peridot_session_poll(session, &status, &error));
    assert_false(status.active);
    assert_int_equal(peridot_session_prompt_wait(session, prompt, 1, NULL, &error),
                     PERIDOT_ERROR_DEVICE_LOST);
    assert_int_equal(peridot_session_resume_wait(away, &error), PERIDOT_ERROR_DEVICE_LOST);
    assert_memory_equal(peridot_session_tokens(session), prompt, sizeof prompt);
}

/* In slices until the device is lost, at its `call`th call that can tell; false: it was not. What
 * is lost is closed before `again`, on another device, is used, or after. */
static bool lose(peridot_model *model, uint32_t call, peridot_model *again) {
    peridot_session *session = create(model, &short_context), *away = create(model, &short_context);
    struct answer answer = {.count = 0};
    peridot_error error = {0};
    set_sampling(session);
    set_sampling(away);
    MUST(peridot_session_prompt_wait(away, prompt, PROMPT_COUNT, NULL, &error));
    MUST(peridot_session_suspend_wait(away, &error));
    adopt_shim_forbid_waits(true);
    adopt_shim_fail(NULL, call, VK_ERROR_DEVICE_LOST);
    peridot_result result = run(session, &answer, &error);
    bool failed = adopt_shim_failed();
    if (!failed)
        assert_int_equal(result, PERIDOT_OK);
    else if (answer.count < WANTED) /* else a later call says it */
        assert_int_equal(result, PERIDOT_ERROR_DEVICE_LOST);
    if (failed) {
        assert_true(!result || strstr(error.message, "was lost"));
        check_lost(session, away);
        adopt_shim_mend();
        adopt_shim_forbid_waits(false);
        rebuild(again, session, away, &answer);
    }
    adopt_shim_mend();
    adopt_shim_forbid_waits(false);
    peridot_session_close_wait(away);
    peridot_session_close_wait(session);
    return failed;
}

static void test_lost(void **state) {
    (void)state;
    adopt_shim_reset();
    peridot_device *device = adopt(), *other = adopt_second(); /* there it goes on */
    peridot_model *model = load(device, SMALL), *again = load(other, SMALL);
    make_expected(again);
    peridot_session_close_wait(create(model, &short_context));
    int32_t objects = adopt_shim_live();
    uint32_t calls = 0;
    for (bool failed = true; failed; calls++) {
        failed = lose(model, calls, again);
        assert_int_equal(adopt_shim_live(), objects);
        if (calls == 3) { /* all anew */
            peridot_model_close(model);
            peridot_device_close(device);
            device = adopt();
            model = load(device, SMALL);
            peridot_session_close_wait(create(model, &short_context));
        }
        device->engine->lost = false; /* and otherwise as if */
    }
    assert_true(calls > 20);
    print_message("lost at each of %u calls\n", calls - 1);
    peridot_model_close(model);
    peridot_model_close(again);
    peridot_device_close(device);
    peridot_device_close(other);
    adopt_shim_close_second();
    check_guest();
}

/* ---- Lost while commands of the application's have slices in them ---- */

/* Into a command buffer of the application's, of which `app` is the queue. */
static void record(struct lane *app, peridot_session *session) {
    VkCommandBuffer commands;
    MUST(lane_commands(app, &commands, &error));
    MUST(lane_begin(app, commands, false, &error));
    const peridot_recording recording = {.struct_size = sizeof recording,
                                         .commands = commands,
                                         .budget_ms = 0.01f,
                                         .timeline = app->timeline,
                                         .value = app->submitted + 1};
    MUST(peridot_session_record(session, &recording, NULL, &error));
    MUST(lane_end(app, commands, &error));
    MUST(lane_submit(app, &(struct batch){&commands, 1}, 1, &error));
}

/* Told once by poll, and then by whatever is new; `elsewhere`: another session has found it out. */
static void lose_recorded(uint32_t slices, bool elsewhere) {
    peridot_device *device = adopt();
    peridot_model *model = load(device, SMALL);
    peridot_session *session = create(model, &short_context),
                    *other = create(model, &short_context);
    struct answer answer = {.count = 0};
    struct lane app;
    peridot_error error = {0};
    peridot_work_status status = {.struct_size = sizeof status};
    MUST(lane_create(device->engine, &app, &error));
    assert_int_equal(start(session, &answer, &error), PERIDOT_OK);
    for (uint32_t i = 0; i < slices; i++)
        record(&app, session);
    adopt_shim_fail(elsewhere ? "vkQueueSubmit2" : "vkGetSemaphoreCounterValue", 0,
                    VK_ERROR_DEVICE_LOST);
    if (elsewhere)
        assert_int_equal(peridot_session_prompt_wait(other, prompt, 3, NULL, &error),
                         PERIDOT_ERROR_DEVICE_LOST);
    adopt_shim_forbid_waits(true);
    assert_int_equal(peridot_session_poll(session, &status, &error), PERIDOT_ERROR_DEVICE_LOST);
    assert_non_null(strstr(error.message, "was lost"));
    MUST(peridot_session_poll(session, &status, &error));
    assert_false(status.active);
    assert_int_equal(status.slices_in_flight, 0);
    assert_int_equal(peridot_session_prompt_wait(session, prompt, 1, NULL, &error),
                     PERIDOT_ERROR_DEVICE_LOST);
    assert_memory_equal(peridot_session_tokens(session), prompt, sizeof prompt);
    assert_int_equal(peridot_session_close(session), PERIDOT_OK);
    assert_int_equal(peridot_session_close(other), PERIDOT_OK);
    lane_destroy(&app);
    peridot_model_close(model);
    peridot_device_close(device);
    adopt_shim_forbid_waits(false);
    adopt_shim_mend();
    check_guest();
}

static void test_lost_while_recorded(void **state) {
    (void)state;
    adopt_shim_reset();
    lose_recorded(1, false);
    lose_recorded(4, false);
    lose_recorded(4, true);
}

/* ---- Without surprises ---- */

static uint32_t threads(void) {
    uint32_t count = 0;
    DIR *folder = opendir("/proc/self/task");
    assert_non_null(folder);
    while (readdir(folder))
        count++;
    closedir(folder);
    return count;
}

/* Slices without a wait, each submission asked for; with names, and no thread but the caller's. */
static void test_no_surprises(void **state) {
    (void)state;
    adopt_shim_reset();
    VkPipelineCache kept = cache;
    cache = VK_NULL_HANDLE; /* so that Peridot makes its own */
    peridot_device *device = adopt();
    uint32_t before = threads();
    peridot_model *model = load(device, SMALL);
    make_expected(model);
    peridot_session *session = create(model, &short_context);
    struct answer answer = {.count = 0};
    peridot_error error = {0};
    uint32_t submissions = adopt_shim_calls("vkQueueSubmit2"), frames = 0;
    set_sampling(session);
    adopt_shim_forbid_waits(true);
    assert_int_equal(start(session, &answer, &error), PERIDOT_OK);
    for (bool active = true; active; frames++) {
        peridot_slice_plan plan = {.struct_size = sizeof plan};
        peridot_session_plan(session, 0.5f, &plan, NULL);
        assert_int_equal(frame(session, &active, &error), PERIDOT_OK);
        assert_true(adopt_shim_calls("vkQueueSubmit2") <= submissions + frames + 1);
        assert_int_equal(threads(), before);
    }
    check_answer(&answer);
    MUST(peridot_session_start(
        session, &(peridot_work){sizeof(peridot_work), prompt, 9, 0, 0, 0, 0}, &error));
    MUST(peridot_session_advance(session, NULL, NULL, &error));
    peridot_session_cancel(session);
    while (peridot_session_close(session) == PERIDOT_NOT_READY)
        continue;
    adopt_shim_forbid_waits(false);
    peridot_model_close(model);
    peridot_device_close(device);
    cache = kept;
    assert_int_equal(adopt_shim_foreign_calls(), 0);
    check_guest();
}

/* With leave to use threads, it does: the test above can fail. */
static void test_threads_are_seen(void **state) {
    (void)state;
    adopt_shim_reset();
    peridot_adoption from = adoption();
    peridot_device_params params = guest_params;
    peridot_device *device;
    from.pipeline_cache = VK_NULL_HANDLE;
    params.threads = 4;
    MUST(peridot_device_adopt(&from, &params, &device, &error));
    peridot_model *model = load(device, SMALL);
    peridot_session_close_wait(create(model, &short_context));
    assert_true(adopt_shim_foreign_calls() > 0);
    peridot_model_close(model);
    peridot_device_close(device);
}

/* The application's own pipeline cache, allocation callbacks and memory priority. */
static void test_what_is_given(void **state) {
    (void)state;
    static const char *const extensions[] = {VK_EXT_MEMORY_PRIORITY_EXTENSION_NAME};
    static const struct {
        peridot_priority asked;
        float got;
    } priorities[] = {{PERIDOT_PRIORITY_LOW, 0.25f},
                      {PERIDOT_PRIORITY_DEFAULT, 0.5f},
                      {PERIDOT_PRIORITY_HIGH, 0.5f}};
    VkPipelineCache given = adopt_shim_make_cache();
    for (int i = 0; i < 4; i++) {
        peridot_adoption from = adoption();
        peridot_device_params params = guest_params;
        peridot_device *device;
        from.pipeline_cache = given;
        from.allocator = &refusing_callbacks;
        from.extensions = extensions;
        from.extension_count = i < 3;
        params.priority = i < 3 ? priorities[i].asked : PERIDOT_PRIORITY_HIGH;
        adopt_shim_reset();
        adopt_shim_expect_callbacks(&refusing_callbacks);
        MUST(peridot_device_adopt(&from, &params, &device, &error));
        peridot_model *model = load(device, SMALL);
        make_expected(model);
        assert_float_equal(adopt_shim_priority(), i < 3 ? priorities[i].got : -1, 0);
        peridot_model_close(model);
        peridot_device_close(device);
        assert_true(adopt_shim_cache() == given);
        assert_int_equal(adopt_shim_calls("vkCreatePipelineCache"), 0);
        assert_int_equal(adopt_shim_calls("vkGetPipelineCacheData"), 0);
        assert_int_equal(refusing_memory_live(DRIVER_MEMORY), 0);
        check_guest();
    }
    adopt_shim_destroy_cache(given);
}

/* A session opened, used and closed a thousand times takes nothing that it does not give back. */
static void test_a_thousand_sessions(void **state) {
    (void)state;
    adopt_shim_reset();
    peridot_device *device = adopt();
    peridot_model *model = load(device, SMALL);
    peridot_session_params params = {
        .struct_size = sizeof params, .context = 16, .prefill_rows = 4};
    size_t in_use = 0;
    peridot_session_close_wait(create(model, &params)); /* compiles the pipelines, which stay */
    int32_t objects = adopt_shim_live();
    uint64_t memory = adopt_shim_memory();
    for (int i = 0; i < 1000; i++) {
        peridot_session *session = create(model, &params);
        struct answer answer = {.count = 0};
        peridot_work work = {sizeof work, prompt, 2, i % 50 == 0 ? 2 : 0, take, &answer, NULL};
        peridot_error error;
        if (i % 10 == 0) {
            MUST(peridot_session_start(session, &work, &error));
            for (bool active = true; active;)
                assert_int_equal(frame(session, &active, &error), PERIDOT_OK);
        }
        if (i % 100 == 0) {
            MUST(peridot_session_suspend_wait(session, &error));
            MUST(peridot_session_resume_wait(session, &error));
        }
        while (peridot_session_close(session) == PERIDOT_NOT_READY)
            continue;
        assert_int_equal(adopt_shim_live(), objects);
        assert_int_equal(adopt_shim_memory(), memory);
        if (i == 199)
            in_use = mallinfo2().uordblks;
    }
    size_t now = mallinfo2().uordblks;
    print_message("host memory in use: %zu bytes after 200 sessions, %zu after 1000\n", in_use,
                  now);
    assert_true(now < in_use + 65536);
    peridot_model_close(model);
    peridot_device_close(device);
    check_guest();
}

/* Two devices, the application's and one of Peridot's own, take turns. */
static void test_two_devices(void **state) {
    (void)state;
    adopt_shim_reset();
    peridot_device *devices[2] = {adopt(), NULL};
    peridot_model *models[2];
    peridot_session *sessions[2];
    struct answer answers[2] = {{.count = 0}, {.count = 0}};
    bool active[2] = {true, true};
    MUST(peridot_device_open(&guest_params, &devices[1], &error));
    for (int i = 0; i < 2; i++) {
        peridot_error error = {0};
        models[i] = load(devices[i], SMALL);
        sessions[i] = create(models[i], &short_context);
        set_sampling(sessions[i]);
        assert_int_equal(start(sessions[i], &answers[i], &error), PERIDOT_OK);
    }
    while (active[0] || active[1])
        for (int i = 0; i < 2; i++) {
            peridot_error error = {0};
            if (active[i])
                assert_int_equal(frame(sessions[i], &active[i], &error), PERIDOT_OK);
        }
    make_expected(models[1]);
    for (int i = 0; i < 2; i++) {
        check_answer(&answers[i]);
        peridot_session_close_wait(sessions[i]);
        peridot_model_close(models[i]);
        peridot_device_close(devices[i]);
    }
    check_guest();
}

/* Two devices of the application's own take turns; one is lost, and the other goes on. */
static void test_two_of_its_own(void **state) {
    (void)state;
    adopt_shim_reset();
    peridot_device *devices[2] = {adopt(), adopt_second()};
    peridot_model *models[2] = {load(devices[0], SMALL), load(devices[1], SMALL)};
    make_expected(models[0]);
    for (int lost = 0; lost < 2; lost++) {
        peridot_session *sessions[2];
        struct answer answers[2] = {{.count = 0}, {.count = 0}};
        bool active[2] = {true, true};
        peridot_error error = {0};
        for (int i = 0; i < 2; i++) {
            sessions[i] = create(models[i], &short_context);
            set_sampling(sessions[i]);
            assert_int_equal(start(sessions[i], &answers[i], &error), PERIDOT_OK);
        }
        while (active[0] || active[1]) {
            if (lost && active[0] && answers[0].count > 0 && !adopt_shim_failed())
                adopt_shim_fail(NULL, 0, VK_ERROR_DEVICE_LOST);
            for (int i = 0; i < 2; i++)
                if (active[i] && frame(sessions[i], &active[i], &error) < 0) {
                    assert_true(lost && i == 0 && error.code == PERIDOT_ERROR_DEVICE_LOST);
                    active[i] = false;
                }
        }
        assert_int_equal(adopt_shim_failed(), lost);
        for (int i = 0; i < 2; i++) {
            if (i == 1 || !lost)
                check_answer(&answers[i]);
            peridot_session_close_wait(sessions[i]);
        }
    }
    for (int i = 0; i < 2; i++) {
        peridot_model_close(models[i]);
        peridot_device_close(devices[i]);
    }
    adopt_shim_close_second();
    adopt_shim_mend();
    check_guest();
}

int main(int count, char **arguments) {
    if (count > 1)
        cmocka_set_test_filter(arguments[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_suspended),
        cmocka_unit_test(test_away),
        cmocka_unit_test(test_less_memory),
        cmocka_unit_test(test_no_room_to_load),
        cmocka_unit_test(test_limit_while_running),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_lost),
        cmocka_unit_test(test_no_surprises),
        cmocka_unit_test(test_threads_are_seen),
        cmocka_unit_test(test_what_is_given),
        cmocka_unit_test(test_a_thousand_sessions),
        cmocka_unit_test(test_two_devices),
        cmocka_unit_test(test_two_of_its_own),
        cmocka_unit_test(test_lost_while_recorded),
    };
    return cmocka_run_group_tests_name("guest", tests, open_application, close_application);
}
