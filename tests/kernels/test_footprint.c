/* What each dispatch of prefill and decode touches, against what it declares: bytes outside the
 * declared writes stay as they were, and a rerun with everything outside the declared reads
 * poisoned writes the same. Then with a fault planted in each operand's declaration, which must be
 * noticed. */
#include "constraint.h"
#include "forward.h"
#include "model.h"
#include "open_device.h"
#include "recorded_passes.h"
#include "reference/random.h"
#include "reference/reference.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <stb/stb_ds.h>

#define CONTEXT KV_CHUNK   /* one chunk, which stands for all */
#define POISON 0x7fc17fc1u /* a NaN as float32, bfloat16 and float16 */
#define RECORDINGS_MAX 16

/* Every buffer that some dispatch names, with copies. */
struct world {
    struct peridot_session *session;
    const struct buffer **buffers;   /* stb_ds arrays */
    unsigned char **before, **after; /* the dispatch at hand; `now` is after a rerun */
    unsigned char **now;
    /* What of faults planted in an operand; those that nobody noticed are planted again */
    enum { UNTRIED, UNNOTICED, NOTICED } planted[KERNEL_COUNT][DISPATCH_OPERANDS_MAX];
    char unnoticed[160]; /* the last one */
    uint32_t dispatches, faults;
};

static peridot_device *device;
static struct random generator;

static int open_device(void **state) {
    (void)state;
    device = open_test_device();
    generator = random_announced();
    return 0;
}

static int close_device(void **state) {
    (void)state;
    peridot_device_close(device);
    return 0;
}

/* ---- Buffers ---- */

static void add_buffer(struct world *world, const struct buffer *buffer) {
    for (ptrdiff_t i = 0; i < arrlen(world->buffers); i++)
        if (world->buffers[i] == buffer)
            return;
    arrput(world->buffers, buffer);
    arrput(world->before, reference_allocate(buffer->size, 1));
    arrput(world->after, reference_allocate(buffer->size, 1));
    arrput(world->now, reference_allocate(buffer->size, 1));
}

static void collect(struct world *world, const struct recording *const *list, uint32_t count) {
    for (uint32_t i = 0; i < count; i++)
        for (ptrdiff_t j = 0; j < arrlen(list[i]->dispatches); j++) {
            const struct dispatch *dispatch = &list[i]->dispatches[j];
            for (uint32_t k = 0; k < dispatch->operand_count; k++)
                if (dispatch->operands[k].buffer)
                    add_buffer(world, dispatch->operands[k].buffer);
        }
}

static void read_all(const struct world *world, unsigned char **to) {
    for (ptrdiff_t i = 0; i < arrlen(world->buffers); i++) {
        const struct buffer *buffer = world->buffers[i];
        if (buffer->mapped && buffer->coherent)
            memcpy(to[i], buffer->mapped, buffer->size);
        else
            MUST(session_read(world->session, buffer, 0, buffer->size, to[i], &error));
    }
}

static void write_one(const struct world *world, const struct buffer *buffer, const void *from) {
    if (buffer->mapped && buffer->coherent)
        memcpy(buffer->mapped, from, buffer->size);
    else
        MUST(session_write(world->session, buffer, from, buffer->size, &error));
}

static void write_all(const struct world *world, unsigned char *const *from) {
    for (ptrdiff_t i = 0; i < arrlen(world->buffers); i++)
        write_one(world, world->buffers[i], from[i]);
}

/* ---- Running one dispatch ---- */

static void run(const struct world *world, const struct dispatch *dispatch) {
    struct lane *lane = &world->session->lane;
    struct recording recording;
    VkCommandBuffer commands;
    struct emit_options options = {.host_read = true};
    recording_begin(&recording, lane->device);
    arrput(recording.dispatches, *dispatch);
    MUST(lane_commands(lane, &commands, &error));
    MUST(lane_begin(lane, commands, false, &error));
    MUST(recording_emit(&recording, commands, &options, &error));
    MUST(lane_end(lane, commands, &error));
    MUST(lane_submit(lane, &(struct batch){&commands, 1}, 1, &error));
    MUST(lane_wait(lane, lane->submitted, &error));
    lane_free_commands(lane, commands);
    recording_free(&recording);
}

/* Whether some operand of the dispatch declares this access to a byte. */
static bool is_declared(const struct dispatch *dispatch, const struct buffer *buffer, uint64_t byte,
                        enum access access) {
    for (uint32_t i = 0; i < dispatch->operand_count; i++) {
        const struct operand *operand = &dispatch->operands[i];
        if (operand->buffer == buffer && (dispatch->access[i] & access) &&
            byte >= operand->offset && byte - operand->offset < operand->size)
            return true;
    }
    return dispatch->indirect == buffer && access == ACCESS_READ &&
           byte >= dispatch->indirect_offset && byte < dispatch->indirect_offset + 12;
}

/* Whether the run from `before` to `after` wrote outside the declared writes. */
static bool wrote_outside(const struct world *world, const struct dispatch *dispatch) {
    for (ptrdiff_t i = 0; i < arrlen(world->buffers); i++) {
        if (memcmp(world->before[i], world->after[i], world->buffers[i]->size) == 0)
            continue;
        for (uint64_t byte = 0; byte < world->buffers[i]->size; byte++)
            if (world->before[i][byte] != world->after[i][byte] &&
                !is_declared(dispatch, world->buffers[i], byte, ACCESS_WRITE))
                return true;
    }
    return false;
}

/* Poison but for the declared reads. A poisoned token would lead a kernel astray: it is 0 instead.
 */
static void poison(const struct world *world, const struct dispatch *dispatch) {
    for (ptrdiff_t i = 0; i < arrlen(world->buffers); i++) {
        const struct buffer *buffer = world->buffers[i];
        uint32_t word = strcmp(buffer->name, world->session->tokens->name) == 0 ? 0 : POISON;
        for (uint64_t byte = 0; byte < buffer->size; byte++)
            world->now[i][byte] = (unsigned char)(word >> byte % 4 * 8);
        for (uint32_t k = 0; k < dispatch->operand_count; k++) {
            const struct operand *operand = &dispatch->operands[k];
            if (operand->buffer == buffer && (dispatch->access[k] & ACCESS_READ))
                memcpy(world->now[i] + operand->offset, world->before[i] + operand->offset,
                       operand->size);
        }
        if (dispatch->indirect == buffer)
            memcpy(world->now[i] + dispatch->indirect_offset,
                   world->before[i] + dispatch->indirect_offset, 12);
        write_one(world, buffer, world->now[i]);
    }
}

/* Whether the dispatch writes something else when all but its declared reads is poison: in what is
 * declared as written in `declared`. */
static bool reads_outside(const struct world *world, const struct dispatch *dispatch,
                          const struct dispatch *declared) {
    poison(world, dispatch);
    run(world, dispatch);
    read_all(world, world->now);
    for (ptrdiff_t i = 0; i < arrlen(world->buffers); i++)
        for (uint64_t byte = 0; byte < world->buffers[i]->size; byte++) {
            const struct buffer *buffer = world->buffers[i];
            bool same = world->now[i][byte] == world->after[i][byte];
            bool kept = world->before[i][byte] == world->after[i][byte];
            if (!same && is_declared(declared, buffer, byte, ACCESS_WRITE) &&
                (!kept || is_declared(declared, buffer, byte, ACCESS_READ)))
                return true;
        }
    return false;
}

/* ---- Planted faults ---- */

/* The last byte that an operand's dispatch changed, counted from the operand's beginning; -1: none.
 */
static int64_t last_change(const struct world *world, const struct operand *operand) {
    for (ptrdiff_t i = 0; i < arrlen(world->buffers); i++) {
        if (world->buffers[i] != operand->buffer)
            continue;
        for (uint64_t byte = operand->offset + operand->size; byte-- > operand->offset;)
            if (world->before[i][byte] != world->after[i][byte])
                return (int64_t)(byte - operand->offset);
    }
    return -1;
}

/* A fault may do no harm by chance: a sampler draws the same token. */
static bool judge(struct world *world, bool noticed, const struct dispatch *dispatch,
                  uint32_t operand, const char *fault) {
    world->faults++;
    if (!noticed)
        snprintf(world->unnoticed, sizeof world->unnoticed,
                 "%s, operand %u: nobody noticed that %s", dispatch->label, operand, fault);
    return noticed;
}

/* Declares an operand shorter than it is, or the residual stream as only written; whether that was
 * noticed each time. */
static bool plant_faults(struct world *world, const struct dispatch *dispatch, uint32_t index) {
    struct dispatch faulty = *dispatch;
    struct operand *operand = &faulty.operands[index];
    int64_t last = last_change(world, operand);
    bool noticed = true;
    if ((faulty.access[index] & ACCESS_WRITE) && last > 0) {
        operand->size = (uint64_t)last;
        noticed &=
            judge(world, wrote_outside(world, &faulty), dispatch, index, "its write was cut short");
        *operand = dispatch->operands[index];
    }
    enum kernel kernel = dispatch->pipeline->key.variant->kernel;
    bool residual = kernel == KERNEL_matvec_residual || kernel == KERNEL_matmul_residual ||
                    kernel == KERNEL_dot_residual;
    if (faulty.access[index] == ACCESS_BOTH && residual) {
        faulty.access[index] = ACCESS_WRITE;
        noticed &= judge(world, reads_outside(world, &faulty, dispatch), dispatch, index,
                         "its read was left out");
    }
    /* garbage in the block would be followed as addresses; the cut reads scores only for ties */
    bool is_block = strcmp(operand->buffer->name, world->session->block->name) == 0;
    bool essential = !is_block && kernel != KERNEL_sample_cut;
    if (faulty.access[index] == ACCESS_READ && essential) {
        operand->size = 16;
        noticed &= judge(world, reads_outside(world, &faulty, dispatch), dispatch, index,
                         "its read was cut short");
    }
    return noticed;
}

/* ---- Passes ---- */

static void check_dispatch(struct world *world, const struct dispatch *dispatch) {
    read_all(world, world->before);
    run(world, dispatch);
    read_all(world, world->after);
    if (wrote_outside(world, dispatch))
        fail_msg("%s wrote outside the writes it declares", dispatch->label);
    if (reads_outside(world, dispatch, dispatch))
        fail_msg("%s read outside the reads it declares", dispatch->label);
    enum kernel kernel = dispatch->pipeline->key.variant->kernel;
    for (uint32_t i = 0; i < dispatch->operand_count; i++) {
        if (dispatch->operands[i].buffer && world->planted[kernel][i] != NOTICED)
            world->planted[kernel][i] = plant_faults(world, dispatch, i) ? NOTICED : UNNOTICED;
    }
    write_all(world, world->after);
    world->dispatches++;
}

static void check_pass(struct world *world, uint32_t index, uint32_t sampler, uint32_t position,
                       uint32_t rows) {
    const struct recording *list[RECORDINGS_MAX];
    struct session_block *block = &world->session->head_state;
    block->position = position;
    block->rows = rows;
    forward_attention_grid(block, position + rows, rows);
    write_one(world, world->session->block, block);
    uint32_t count = list_pass(world->session, index, sampler, list);
    for (uint32_t i = 0; i < count; i++)
        for (ptrdiff_t j = 0; j < arrlen(list[i]->dispatches); j++)
            check_dispatch(world, &list[i]->dispatches[j]);
}

static bool has_unnoticed(const struct world *world) {
    for (uint32_t kernel = 0; kernel < KERNEL_COUNT; kernel++)
        for (uint32_t i = 0; i < DISPATCH_OPERANDS_MAX; i++)
            if (world->planted[kernel][i] == UNNOTICED)
                return true;
    return false;
}

static void fill_tokens(const struct world *world, const struct peridot_session *session) {
    uint32_t tokens[CONTEXT + 1];
    for (uint32_t i = 0; i <= CONTEXT; i++)
        tokens[i] = (uint32_t)random_below(&generator, session->model->config.vocabulary);
    write_one(world, session->tokens, tokens);
}

/* A pass of the session at hand and another one, at two positions. */
static void check_batch(struct world *world, peridot_model *model,
                        const peridot_session_params *params, uint32_t position) {
    const struct recording *list[RECORDINGS_MAX];
    peridot_session *sessions[2] = {world->session};
    peridot_batch *batch;
    MUST(peridot_session_create(model, params, &sessions[1], &error));
    MUST(forward_record_sampler(sessions[1], 0, &error));
    MUST(peridot_batch_create(sessions, 2, &batch, &error));
    uint32_t count = list_batch(batch, 0, list);
    collect(world, list, count);
    fill_tokens(world, sessions[1]);
    for (uint32_t i = 0; i < 2; i++) {
        forward_begin_pass(&sessions[i]->head_state, position - 2 * i, 1);
        write_one(world, sessions[i]->block, &sessions[i]->head_state);
    }
    batch_set_block(&batch->own);
    write_one(world, batch->own.block, &batch->own.head_state);
    for (uint32_t i = 0; i < count; i++)
        for (ptrdiff_t j = 0; j < arrlen(list[i]->dispatches); j++)
            check_dispatch(world, &list[i]->dispatches[j]);
    peridot_batch_close_wait(batch);
    peridot_session_close_wait(sessions[1]);
}

static void free_world(struct world *world) {
    for (ptrdiff_t i = 0; i < arrlen(world->buffers); i++) {
        free(world->before[i]);
        free(world->after[i]);
        free(world->now[i]);
    }
    arrfree(world->buffers);
    arrfree(world->before);
    arrfree(world->after);
    arrfree(world->now);
}

/* Half of the tokens are allowed; what the kernel's poison would set are others. */
static void fill_mask(const struct world *world, uint32_t vocabulary) {
    const struct buffer *mask = constraint_mask(world->session);
    uint32_t *words = reference_allocate(mask->size / 4, 4);
    for (uint32_t i = 0; i < (vocabulary + 31) / 32; i++)
        words[i] = (uint32_t)random_bits(&generator);
    write_one(world, mask, words);
    free(words);
}

static void set_sampling(struct session_block *block) {
    block->temperature = 0.9f;
    block->top_k = 40;
    block->top_p = 0.9f;
    block->min_p = 0.01f;
    block->repetition_penalty = 1.3f;
    block->penalty_window = CONTEXT;
    block->seed[0] = 1;
}

static void check_model(const char *name, peridot_weights weights, peridot_kv kv,
                        peridot_activations activations) {
    char path[512];
    const struct recording *list[RECORDINGS_MAX];
    peridot_model *model;
    struct world world = {0};
    peridot_session_params params = {
        .struct_size = sizeof params, .context = CONTEXT, .kv = kv, .activations = activations};
    peridot_model_params loading = {.struct_size = sizeof loading, .weights = weights};
    snprintf(path, sizeof path, "%s/%s", TEST_DATA, name);
    MUST(peridot_model_load_wait(device, path, &loading, &model, &error));
    MUST(peridot_session_create(model, &params, &world.session, &error));
    assert_true(model->config.layers + 3 <= RECORDINGS_MAX);
    record_everything(world.session);
    MUST(kv_cache_reserve(world.session, CONTEXT, &error));
    for (uint32_t i = 0; i < PASS_BUCKETS; i++)
        collect(&world, list, list_pass(world.session, i, SAMPLER_KINDS - 1, list));
    fill_tokens(&world, world.session);
    fill_mask(&world, model->config.vocabulary);
    set_sampling(&world.session->head_state);

    uint32_t position = 0;
    for (uint32_t i = 1; i < PASS_BUCKETS; i++) {
        uint32_t bucket = world.session->passes[i].rows, rows = bucket < 150 ? bucket - 1 : 150;
        check_pass(&world, i, 0, position, rows);
        position += rows;
    }
    check_pass(&world, 0, SAMPLER_KINDS - 1, position, 1);
    check_pass(&world, 0, 0, position + 1, 1);
    for (uint32_t i = 2; has_unnoticed(&world) && i < 10; i++)
        check_pass(&world, 0, SAMPLER_KINDS - 1, position + i, 1);
    check_batch(&world, model, &params, position + 12);
    if (has_unnoticed(&world))
        fail_msg("%s", world.unnoticed);
    print_message("%s: %u dispatches within their declarations, %u planted faults\n", name,
                  world.dispatches, world.faults);
    assert_true(world.faults > 30);
    free_world(&world);
    peridot_session_close_wait(world.session);
    peridot_model_close(model);
}

static void test_small(void **state) {
    (void)state;
    check_model("small-f32", PERIDOT_WEIGHTS_AUTO, PERIDOT_KV_F16, PERIDOT_ACTIVATIONS_F32);
}

static void test_grouped_heads(void **state) {
    (void)state;
    check_model("gqa-bf16", PERIDOT_WEIGHTS_AUTO, PERIDOT_KV_F16, PERIDOT_ACTIVATIONS_F32);
    assert_int_equal(validation_messages(), 0);
}

static void test_kv_in_q8(void **state) {
    (void)state;
    check_model("gqa-bf16", PERIDOT_WEIGHTS_AUTO, PERIDOT_KV_Q8, PERIDOT_ACTIVATIONS_F32);
    assert_int_equal(validation_messages(), 0);
}

static void test_quantised_activations(void **state) {
    (void)state;
    check_model("gqa-bf16", PERIDOT_WEIGHTS_Q8_0, PERIDOT_KV_Q8, PERIDOT_ACTIVATIONS_INT8);
    assert_int_equal(validation_messages(), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_small),
        cmocka_unit_test(test_grouped_heads),
        cmocka_unit_test(test_kv_in_q8),
        cmocka_unit_test(test_quantised_activations),
    };
    return cmocka_run_group_tests_name("footprint", tests, open_device, close_device);
}
