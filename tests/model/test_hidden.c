/* Hidden states of every layer: the head's product of them, after the final norm, is the logits of
 * a reference model that has no more layers; the same from a prompt, from decoding and in slices;
 * and results where they are on the device. */
#include "begin_recording.h"
#include "conformance.h"
#include "open_device.h"
#include "reference/random.h"
#include "reference/reference_checkpoint.h"
#include "session.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define COUNT 21

static peridot_device *device;
static peridot_model *model;
static peridot_model_info info = {.struct_size = sizeof(peridot_model_info)};
static struct reference_model *reference;
static int32_t tokens[COUNT];

static int open_all(void **state) {
    (void)state;
    struct random random = random_announced();
    struct checkpoint *checkpoint;
    device = open_test_device();
    MUST(peridot_model_load_wait(device, path_of("gqa-bf16"), NULL, &model, &error));
    MUST(checkpoint_open(path_of("gqa-bf16"), &checkpoint, &error));
    reference = reference_checkpoint_load(checkpoint);
    checkpoint_close(checkpoint);
    peridot_model_describe(model, &info);
    for (int i = 0; i < COUNT; i++)
        tokens[i] = i ? 3 + (int32_t)random_below(&random, info.vocabulary - 3) : 2;
    return 0;
}

static int close_all(void **state) {
    (void)state;
    unsigned messages = validation_messages();
    reference_checkpoint_free(reference);
    peridot_model_close(model);
    peridot_device_close(device);
    return messages != 0;
}

static peridot_session *create(uint32_t layer) {
    peridot_session *session;
    peridot_session_params params = {
        .struct_size = sizeof params, .kv = PERIDOT_KV_F32, .hidden_layer = layer};
    MUST(peridot_session_create(model, &params, &session, &error));
    return session;
}

/* Logits [COUNT][vocabulary] of hidden states [COUNT][d_model]. */
static double *head(const float *hidden, bool normed) {
    size_t D = info.d_model, V = info.vocabulary;
    double *logits = calloc(COUNT * V, sizeof *logits), *row = calloc(D, sizeof *row);
    assert_non_null(logits);
    assert_non_null(row);
    for (size_t t = 0; t < COUNT; t++) {
        for (size_t i = 0; i < D; i++)
            row[i] = hidden[t * D + i];
        if (!normed)
            reference_rmsnorm(row, row, reference->final_norm, 1, D, reference->rms_eps);
        for (size_t v = 0; v < V; v++)
            for (size_t i = 0; i < D; i++)
                logits[t * V + v] += row[i] * reference->embedding[v * D + i];
    }
    free(row);
    return logits;
}

static double *reference_logits(size_t layers) {
    struct reference_model shorter = *reference;
    shorter.layer_count = layers;
    double *logits = calloc((size_t)COUNT * info.vocabulary, sizeof *logits);
    assert_non_null(logits);
    struct reference_cache *cache = reference_cache_create(&shorter, REFERENCE_KV_DOUBLE);
    reference_model_append(&shorter, cache, tokens, COUNT, logits);
    reference_cache_free(cache);
    return logits;
}

static void check_states(const float *hidden, uint32_t layer) {
    bool normed = layer == PERIDOT_HIDDEN_NORMED;
    double *want = reference_logits(normed ? info.layers : layer), *got = head(hidden, normed);
    double off = 0, size = 0;
    for (size_t i = 0; i < (size_t)COUNT * info.vocabulary; i++) {
        off += (want[i] - got[i]) * (want[i] - got[i]);
        size += want[i] * want[i];
    }
    if (!(off <= 1e-9 * size))
        fail_msg("hidden states of layer %u: NMSE %g", layer, off / size);
    free(want);
    free(got);
}

static void run_slices(peridot_session *session) {
    peridot_work work = {sizeof work, tokens, COUNT, 0, NULL, NULL, NULL};
    peridot_advance advance = {.struct_size = sizeof advance, .budget_ms = 0.05f};
    peridot_work_status status = {.struct_size = sizeof status};
    MUST(peridot_session_start(session, &work, &error));
    do {
        peridot_error error = {0};
        if (peridot_session_advance(session, &advance, NULL, &error) < 0)
            fail_msg("%s", error.message);
        MUST(peridot_session_poll(session, &status, &error));
    } while (status.active);
}

static void test_every_layer(void **state) {
    (void)state;
    float *hidden = calloc((size_t)COUNT * info.d_model, sizeof *hidden);
    assert_non_null(hidden);
    for (uint32_t i = 1; i <= info.layers + 1; i++) {
        uint32_t layer = i > info.layers ? PERIDOT_HIDDEN_NORMED : i;
        for (int way = 0; way < 3; way++) {
            peridot_session *session = create(layer);
            for (int t = 0; way == 1 && t < COUNT; t++)
                MUST(peridot_session_prompt_wait(session, tokens + t, 1, NULL, &error));
            if (way == 0)
                MUST(peridot_session_prompt_wait(session, tokens, COUNT, NULL, &error));
            if (way == 2)
                run_slices(session);
            memset(hidden, 0xa5, (size_t)COUNT * info.d_model * sizeof *hidden);
            MUST(peridot_session_hidden_wait(session, 0, COUNT, hidden, &error));
            check_states(hidden, layer);
            peridot_session_close_wait(session);
        }
    }
    free(hidden);
}

/* What the application would find on the device is what the host gets. */
static void test_results_on_the_device(void **state) {
    (void)state;
    peridot_session *session = create(2);
    float *want = calloc(info.vocabulary, sizeof *want), *got = calloc(info.vocabulary, 4);
    assert_non_null(want);
    assert_non_null(got);
    peridot_result_buffer at = {.struct_size = sizeof at};
    int32_t copied[COUNT];
    MUST(peridot_session_prompt_wait(session, tokens, COUNT, NULL, &error));
    MUST(peridot_session_result(session, PERIDOT_RESULT_LOGITS, &at, &error));
    assert_int_equal(at.columns, info.vocabulary);
    struct buffer buffer = {.handle = at.buffer, .size = (uint64_t)at.columns * 4};
    MUST(session_read(session, &buffer, at.offset, buffer.size, got, &error));
    MUST(peridot_session_logits_wait(session, want, &error));
    assert_memory_equal(want, got, buffer.size);
    MUST(peridot_session_result(session, PERIDOT_RESULT_TOKENS, &at, &error));
    buffer.handle = at.buffer;
    MUST(session_read(session, &buffer, at.offset, sizeof copied, copied, &error));
    assert_memory_equal(copied, tokens, sizeof copied);
    MUST(peridot_session_result(session, PERIDOT_RESULT_HIDDEN, &at, &error));
    buffer.handle = at.buffer;
    uint32_t row = COUNT - 2;
    MUST(session_read(session, &buffer, at.offset + (uint64_t)row * at.stride * 4,
                      (uint64_t)at.columns * 4, got, &error));
    MUST(peridot_session_hidden_wait(session, row, 1, want, &error));
    assert_memory_equal(want, got, (size_t)at.columns * 4);
    assert_true(at.address != 0 && at.rows == peridot_session_context(session));
    free(want);
    free(got);
    peridot_session_close_wait(session);
}

/* ---- The application's commands ---- */

/* Copies of what a session has on the device, in memory of the application's. */
struct copies {
    struct arena *arena;
    const struct buffer *logits, *hidden, *tokens;
};

static void open_copies(struct device *engine, struct copies *copies) {
    MUST(arena_create(engine, MEMORY_READBACK, 0, &copies->arena, &error));
    MUST(arena_buffer(copies->arena, (uint64_t)info.vocabulary * 4, "logits", &copies->logits,
                      &error));
    MUST(arena_buffer(copies->arena, (uint64_t)COUNT * info.d_model * 4, "hidden states",
                      &copies->hidden, &error));
    MUST(arena_buffer(copies->arena, sizeof tokens, "tokens", &copies->tokens, &error));
}

static void write_copy(struct device *engine, VkCommandBuffer commands, peridot_session *session,
                       peridot_result_kind kind, const struct buffer *to) {
    peridot_result_buffer from = {.struct_size = sizeof from};
    MUST(peridot_session_result(session, kind, &from, &error));
    assert_int_equal(from.stride, from.columns); /* in this model */
    VkBufferCopy region = {.srcOffset = from.offset, .size = to->size};
    engine->vk.CmdCopyBuffer(commands, from.buffer, to->handle, 1, &region);
}

/* The header's barrier, from compute shader writes, and one for the host. */
static void write_barrier(struct device *engine, VkCommandBuffer commands, bool to_host) {
    VkMemoryBarrier2 barrier = {.sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER_2,
                                .srcStageMask = VK_PIPELINE_STAGE_2_COMPUTE_SHADER_BIT,
                                .srcAccessMask = VK_ACCESS_2_SHADER_STORAGE_WRITE_BIT,
                                .dstStageMask = VK_PIPELINE_STAGE_2_COPY_BIT,
                                .dstAccessMask = VK_ACCESS_2_TRANSFER_READ_BIT};
    if (to_host)
        barrier = (VkMemoryBarrier2){.sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER_2,
                                     .srcStageMask = VK_PIPELINE_STAGE_2_COPY_BIT,
                                     .srcAccessMask = VK_ACCESS_2_TRANSFER_WRITE_BIT,
                                     .dstStageMask = VK_PIPELINE_STAGE_2_HOST_BIT,
                                     .dstAccessMask = VK_ACCESS_2_HOST_READ_BIT};
    engine->vk.CmdPipelineBarrier2(commands,
                                   &(VkDependencyInfo){.sType = VK_STRUCTURE_TYPE_DEPENDENCY_INFO,
                                                       .memoryBarrierCount = 1,
                                                       .pMemoryBarriers = &barrier});
}

/* A frame: a slice, and behind it the application's reading. False: the work is over. */
static bool run_frame(struct lane *lane, peridot_session *session, float budget_ms,
                      const struct copies *copies, peridot_slice_plan *slice) {
    struct device *engine = lane->device;
    peridot_work_status status = {.struct_size = sizeof status};
    peridot_recording recording = begin_recording(lane, budget_ms, 1);
    VkCommandBuffer commands = recording.commands;
    assert_true(peridot_session_record(session, &recording, slice, NULL) >= 0);
    write_barrier(engine, commands, false);
    write_copy(engine, commands, session, PERIDOT_RESULT_LOGITS, copies->logits);
    write_copy(engine, commands, session, PERIDOT_RESULT_HIDDEN, copies->hidden);
    write_copy(engine, commands, session, PERIDOT_RESULT_TOKENS, copies->tokens);
    write_barrier(engine, commands, true);
    MUST(lane_end(lane, commands, &error));
    MUST(lane_submit(lane, &(struct batch){&commands, 1}, 1, &error));
    MUST(lane_wait(lane, lane->submitted, &error));
    lane_free_commands(lane, commands);
    MUST(peridot_session_poll(session, &status, &error));
    return status.active;
}

/* Read by commands of the application's in the same command buffer, behind the slice that makes
 * them, they are what the host gets. */
static void test_results_behind_a_slice(void **state) {
    (void)state;
    peridot_session *session = create(2);
    struct device *engine = session->lane.device;
    struct lane lane;
    struct copies copies;
    peridot_work work = {.struct_size = sizeof work, .tokens = tokens, .token_count = COUNT};
    size_t size = (size_t)COUNT * info.d_model * sizeof(float);
    float *want = malloc(size > info.vocabulary * sizeof(float) ? size : info.vocabulary * 4);
    assert_non_null(want);
    MUST(lane_create(engine, &lane, &error));
    open_copies(engine, &copies);
    MUST(peridot_session_start(session, &work, &error));
    while (run_frame(&lane, session, 0.1f, &copies, NULL))
        continue;
    MUST(buffer_invalidate(engine, copies.logits, 0, copies.logits->size, &error));
    MUST(buffer_invalidate(engine, copies.hidden, 0, copies.hidden->size, &error));
    MUST(buffer_invalidate(engine, copies.tokens, 0, copies.tokens->size, &error));
    MUST(peridot_session_logits_wait(session, want, &error));
    assert_memory_equal(want, copies.logits->mapped, info.vocabulary * sizeof(float));
    MUST(peridot_session_hidden_wait(session, 0, COUNT, want, &error));
    assert_memory_equal(want, copies.hidden->mapped, size);
    assert_memory_equal(tokens, copies.tokens->mapped, sizeof tokens);
    free(want);
    arena_destroy(copies.arena);
    lane_destroy(&lane);
    peridot_session_close_wait(session);
}

#define GENERATED 6

/* Logits before each of some tokens, and after them all, from calls that block. */
static void generate_waiting(float *logits) {
    peridot_session *session = create(2);
    MUST(peridot_session_prompt_wait(session, tokens, COUNT, NULL, &error));
    for (int i = 0; i <= GENERATED; i++) {
        MUST(peridot_session_logits_wait(session, logits + (size_t)i * info.vocabulary, &error));
        if (i < GENERATED)
            MUST(peridot_session_generate_wait(session, 1, NULL, NULL, NULL, &error));
    }
    peridot_session_close_wait(session);
}

static bool count_token(const peridot_token *token, void *user) {
    (void)token;
    ++*(uint32_t *)user;
    return true;
}

/* Behind a slice that completes a token the logits are whole: those that it was drawn from or,
 * where the slice went on so far, those after it. */
static void test_logits_of_each_token(void **state) {
    (void)state;
    size_t size = info.vocabulary * sizeof(float);
    float *expected = malloc((GENERATED + 1) * size);
    uint32_t completed = 0;
    assert_non_null(expected);
    generate_waiting(expected);
    for (int way = 0; way < 12; way++) {
        peridot_session *session = create(2);
        struct device *engine = session->lane.device;
        struct lane lane;
        struct copies copies;
        peridot_slice_plan slice = {.struct_size = sizeof slice};
        uint32_t sampled = 0;
        peridot_work work = {.struct_size = sizeof work,
                             .tokens = tokens,
                             .token_count = COUNT,
                             .generate = GENERATED,
                             .on_token = count_token,
                             .user = &sampled};
        MUST(lane_create(engine, &lane, &error));
        open_copies(engine, &copies);
        MUST(peridot_session_start(session, &work, &error));
        for (bool more = true; more;) {
            more = run_frame(&lane, session, 0.05f + 0.15f * (float)way, &copies, &slice);
            if (!slice.completes)
                continue;
            completed++;
            MUST(buffer_invalidate(engine, copies.logits, 0, size, &error));
            const float *drawn_from = expected + (size_t)(sampled - 1) * info.vocabulary;
            assert_true(memcmp(copies.logits->mapped, drawn_from, size) == 0 ||
                        memcmp(copies.logits->mapped, drawn_from + info.vocabulary, size) == 0);
        }
        assert_int_equal(sampled, GENERATED);
        arena_destroy(copies.arena);
        lane_destroy(&lane);
        peridot_session_close_wait(session);
    }
    print_message("%u of %d tokens completed by a slice\n", completed, 12 * GENERATED);
    assert_true(completed >= 12);
    free(expected);
}

static void test_refusals(void **state) {
    (void)state;
    peridot_error error;
    peridot_session *session = NULL;
    float hidden[1024];
    peridot_result_buffer at = {.struct_size = sizeof at};
    peridot_session_params params = {.struct_size = sizeof params, .hidden_layer = info.layers + 1};
    assert_int_equal(peridot_session_create(model, &params, &session, &error),
                     PERIDOT_ERROR_ARGUMENT);
    session = create(0);
    assert_int_equal(peridot_session_hidden_wait(session, 0, 1, hidden, &error),
                     PERIDOT_ERROR_ARGUMENT);
    assert_int_equal(peridot_session_result(session, PERIDOT_RESULT_HIDDEN, &at, &error),
                     PERIDOT_ERROR_ARGUMENT);
    peridot_session_close_wait(session);
    session = create(1);
    MUST(peridot_session_prompt_wait(session, tokens, 3, NULL, &error));
    assert_int_equal(peridot_session_hidden_wait(session, 2, 2, hidden, &error),
                     PERIDOT_ERROR_ARGUMENT);
    assert_int_equal(peridot_session_hidden_wait(session, UINT32_MAX, 2, hidden, &error),
                     PERIDOT_ERROR_ARGUMENT);
    peridot_session_close_wait(session);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_layer),
        cmocka_unit_test(test_results_on_the_device),
        cmocka_unit_test(test_results_behind_a_slice),
        cmocka_unit_test(test_logits_of_each_token),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
