/* Arenas on the device that VK_DRIVER_FILES names. */
#include "memory.h"
#include "queue.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#define MUST(call)                                                                                 \
    do {                                                                                           \
        peridot_error error = {0};                                                                 \
        if ((call) != PERIDOT_OK)                                                                  \
            fail_msg("%s", error.message);                                                         \
    } while (0)

#define MIB ((uint64_t)1 << 20)

static struct device *device;
static uint32_t random_state;

static uint32_t random_below(uint32_t bound) {
    random_state = random_state * 1664525 + 1013904223;
    return (random_state >> 8) % bound;
}

static int open_device(void **state) {
    (void)state;
    peridot_error error = {0};
    struct device_params params = {.cache_directory = "", .max_allocation = 100 * MIB};
    if (device_open(&params, &device, &error))
        fail_msg("%s", error.message);
    return 0;
}

static int close_device(void **state) {
    (void)state;
    device_close(device);
    return 0;
}

static bool apart(const struct buffer *a, const struct buffer *b) {
    bool memory = a->memory != b->memory || a->memory_offset + a->size <= b->memory_offset ||
                  b->memory_offset + b->size <= a->memory_offset;
    bool address = a->address + a->size <= b->address || b->address + b->size <= a->address;
    return memory && address;
}

static void test_buffers_lie_apart(void **state) {
    (void)state;
    static const enum memory_kind kinds[] = {MEMORY_DEVICE, MEMORY_UPLOAD, MEMORY_READBACK};
    for (int k = 0; k < 3; k++) {
        struct arena *arena;
        const struct buffer *buffers[60];
        uint64_t before = device->memory_used, sum = 0;
        MUST(arena_create(device, kinds[k], 256 << 10, &arena, &error));
        for (int i = 0; i < 60; i++) {
            uint64_t size = 1 + random_below(random_below(4) ? 3000 : 400000);
            char name[16];
            snprintf(name, sizeof name, "buffer %d", i);
            MUST(arena_buffer(arena, size, name, &buffers[i], &error));
            assert_int_equal(buffers[i]->size, size);
            assert_int_equal(buffers[i]->address % 256, 0);
            assert_string_equal(buffers[i]->name, name);
            assert_int_equal(buffers[i]->mapped != NULL, kinds[k] != MEMORY_DEVICE);
            for (int j = 0; j < i; j++)
                assert_true(apart(buffers[i], buffers[j]));
            sum += size;
        }
        assert_true(arena_bytes(arena) >= sum);
        assert_true(device->memory_used - before >= arena_bytes(arena));
        arena_destroy(arena);
        assert_int_equal(device->memory_used, before);
    }
    arena_destroy(NULL);
}

/* Small buffers use up the room that a large one left in an earlier block. */
static void test_blocks_are_filled(void **state) {
    (void)state;
    struct arena *arena;
    const struct buffer *first, *large, *last;
    MUST(arena_create(device, MEMORY_DEVICE, MIB, &arena, &error));
    MUST(arena_buffer(arena, 1000, "first", &first, &error));
    MUST(arena_buffer(arena, 3 * MIB, "large", &large, &error));
    MUST(arena_buffer(arena, 1000, "last", &last, &error));
    assert_true(first->memory != large->memory && first->memory == last->memory);
    arena_destroy(arena);
}

static void test_sizes_are_judged(void **state) {
    (void)state;
    struct arena *arena;
    const struct buffer *buffer;
    peridot_error error;
    MUST(arena_create(device, MEMORY_DEVICE, 0, &arena, &error));
    assert_int_equal(arena_buffer(arena, 0, "nothing", &buffer, &error), PERIDOT_ERROR_ARGUMENT);
    assert_null(buffer);
    assert_int_equal(arena_buffer(arena, 100 * MIB + 1, "too large", &buffer, &error),
                     PERIDOT_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "too large"));
    assert_non_null(strstr(error.message, "100.0 MiB"));
    assert_int_equal(arena_buffer(arena, UINT64_MAX, "absurd", &buffer, &error),
                     PERIDOT_ERROR_ARGUMENT);
    assert_int_equal(arena_bytes(arena), 0);
    MUST(arena_buffer(arena, 100 * MIB, "the largest", &buffer, &error));
    arena_destroy(arena);
}

/* What the host writes goes through the device and comes back. */
static void test_there_and_back(void **state) {
    (void)state;
    struct arena *up, *there, *back;
    const struct buffer *from, *via, *to;
    struct lane lane;
    VkCommandBuffer commands;
    const uint64_t size = 70001;
    MUST(arena_create(device, MEMORY_UPLOAD, 0, &up, &error));
    MUST(arena_create(device, MEMORY_DEVICE, 0, &there, &error));
    MUST(arena_create(device, MEMORY_READBACK, 0, &back, &error));
    MUST(arena_buffer(up, size, "from", &from, &error));
    MUST(arena_buffer(there, size, "via", &via, &error));
    MUST(arena_buffer(back, size, "to", &to, &error));
    for (uint64_t i = 0; i < size; i++)
        ((unsigned char *)from->mapped)[i] = (unsigned char)random_below(256);
    MUST(buffer_flush(device, from, 0, size, &error));
    MUST(lane_create(device, &lane, &error));
    MUST(lane_commands(&lane, &commands, &error));
    MUST(lane_begin(&lane, commands, false, &error));
    VkBufferCopy region = {0, 0, size};
    VkMemoryBarrier2 barrier = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER_2,
        .srcStageMask = VK_PIPELINE_STAGE_2_ALL_TRANSFER_BIT,
        .srcAccessMask = VK_ACCESS_2_TRANSFER_WRITE_BIT,
        .dstStageMask = VK_PIPELINE_STAGE_2_ALL_TRANSFER_BIT | VK_PIPELINE_STAGE_2_HOST_BIT,
        .dstAccessMask = VK_ACCESS_2_TRANSFER_READ_BIT | VK_ACCESS_2_HOST_READ_BIT};
    VkDependencyInfo info = {.sType = VK_STRUCTURE_TYPE_DEPENDENCY_INFO,
                             .memoryBarrierCount = 1,
                             .pMemoryBarriers = &barrier};
    device->vk.CmdCopyBuffer(commands, from->handle, via->handle, 1, &region);
    device->vk.CmdPipelineBarrier2(commands, &info);
    device->vk.CmdCopyBuffer(commands, via->handle, to->handle, 1, &region);
    device->vk.CmdPipelineBarrier2(commands, &info);
    MUST(lane_end(&lane, commands, &error));
    MUST(lane_submit(&lane, &(struct batch){&commands, 1}, 1, &error));
    MUST(lane_wait(&lane, lane.submitted, &error));
    MUST(buffer_invalidate(device, to, 0, size, &error));
    assert_memory_equal(from->mapped, to->mapped, size);
    peridot_error error;
    assert_int_equal(lane_submit(&lane, NULL, 0, &error), PERIDOT_ERROR_ARGUMENT);
    lane_destroy(&lane);
    arena_destroy(up);
    arena_destroy(there);
    arena_destroy(back);
}

int main(void) {
    random_state = (uint32_t)time(NULL);
    print_message("seed %u\n", random_state);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_buffers_lie_apart),
        cmocka_unit_test(test_blocks_are_filled),
        cmocka_unit_test(test_sizes_are_judged),
        cmocka_unit_test(test_there_and_back),
    };
    return cmocka_run_group_tests_name("memory", tests, open_device, close_device);
}
