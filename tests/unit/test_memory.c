/* Arenas on the device that VK_DRIVER_FILES names. */
#include "memory.h"
#include "must.h"
#include "queue.h"
#include "reference/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MIB ((uint64_t)1 << 20)

static struct device *device;
static struct random generator;

static uint32_t below(uint32_t bound) {
    return (uint32_t)random_below(&generator, bound);
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
            uint64_t size = 1 + below(below(4) ? 3000 : 400000);
            char name[24];
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
        assert_true(device->memory_used - before >=
                    (memory_shared(device, kinds[k]) ? arena_bytes(arena) : 0));
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

/* An arena that only counts comes to the figures of one that allocates, for the same requests. */
static void test_plans_are_exact(void **state) {
    (void)state;
    static const enum memory_kind kinds[] = {MEMORY_DEVICE, MEMORY_UPLOAD, MEMORY_READBACK};
    static const uint64_t blocks[] = {1, 5000, 256 << 10, 0, 101 * MIB};
    for (int k = 0; k < 3 * 5; k++) {
        struct arena *plan, *arena;
        const struct buffer *buffer;
        uint64_t before = device->memory_used;
        MUST(arena_plan(device, kinds[k % 3], blocks[k / 3], &plan, &error));
        MUST(arena_create(device, kinds[k % 3], blocks[k / 3], &arena, &error));
        assert_true(arena_is_plan(plan) && !arena_is_plan(arena));
        for (int i = 0; i < 60; i++) {
            uint64_t size = 1 + below(below(4) ? 3000 : 400000);
            MUST(arena_buffer(plan, size, "planned", &buffer, &error));
            assert_null(buffer);
            MUST(arena_buffer(arena, size, "real", &buffer, &error));
            assert_int_equal(arena_bytes(plan), arena_bytes(arena));
            assert_int_equal(arena_allocated(plan), arena_allocated(arena));
            if (memory_shared(device, kinds[k % 3]))
                assert_int_equal(device->memory_used - before, arena_allocated(arena));
        }
        assert_true(arena_allocated(arena) >= arena_bytes(arena));
        peridot_error error;
        assert_int_equal(arena_buffer(plan, 100 * MIB + 1, "too large", &buffer, &error),
                         PERIDOT_ERROR_ARGUMENT);
        arena_destroy(plan);
        if (memory_shared(device, kinds[k % 3]))
            assert_int_equal(device->memory_used - before, arena_allocated(arena));
        arena_destroy(arena);
        assert_int_equal(device->memory_used, before);
    }
}

/* ---- A card's two heaps ---- */

static struct device_functions real;

static VKAPI_ATTR VkResult VKAPI_CALL allocate_any(VkDevice handle,
                                                   const VkMemoryAllocateInfo *info,
                                                   const VkAllocationCallbacks *callbacks,
                                                   VkDeviceMemory *memory) {
    VkMemoryAllocateInfo own = *info;
    own.memoryTypeIndex = 0;
    return real.AllocateMemory(handle, &own, callbacks, memory);
}

static VKAPI_ATTR void VKAPI_CALL allow_both(VkDevice handle,
                                             const VkBufferMemoryRequirementsInfo2 *info,
                                             VkMemoryRequirements2 *needs) {
    real.GetBufferMemoryRequirements2(handle, info, needs);
    needs->memoryRequirements.memoryTypeBits = 3;
}

/* The limit is that of the device's memory: what lies in the host's is neither counted nor refused.
 */
static void test_limit_of_one_heap(void **state) {
    (void)state;
    const VkPhysicalDeviceMemoryProperties memory = device->memory;
    const VkMemoryPropertyFlags host =
        VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
    struct arena *arenas[2];
    const struct buffer *buffer;
    peridot_error error;
    real = device->vk;
    device->vk.AllocateMemory = allocate_any;
    device->vk.GetBufferMemoryRequirements2 = allow_both;
    device->memory.memoryTypeCount = device->memory.memoryHeapCount = 2;
    device->memory.memoryTypes[0] = (VkMemoryType){VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT, 0};
    device->memory.memoryTypes[1] = (VkMemoryType){host, 1};
    device->memory_limit = 2 * MIB;
    MUST(arena_create(device, MEMORY_UPLOAD, 0, &arenas[0], &error));
    MUST(arena_create(device, MEMORY_DEVICE, 0, &arenas[1], &error));
    MUST(arena_buffer(arenas[0], 20 * MIB, "the host's", &buffer, &error));
    assert_int_equal(device->memory_used, 0);
    MUST(arena_buffer(arenas[1], MIB, "the device's", &buffer, &error));
    assert_true(device->memory_used >= MIB);
    assert_int_equal(arena_buffer(arenas[1], 20 * MIB, "too much", &buffer, &error),
                     PERIDOT_ERROR_DEVICE_MEMORY);
    arena_destroy(arenas[0]);
    assert_true(device->memory_used >= MIB);
    arena_destroy(arenas[1]);
    assert_int_equal(device->memory_used, 0);
    device->memory_limit = 0;
    device->memory = memory;
    device->vk = real;
}

static void test_free_memory(void **state) {
    (void)state;
    uint64_t available = memory_free(device);
    assert_true(available > 0);
    if (device->info.type == VK_PHYSICAL_DEVICE_TYPE_CPU)
        assert_true(memory_shared(device, MEMORY_UPLOAD) && memory_shared(device, MEMORY_READBACK));
    assert_true(memory_shared(device, MEMORY_DEVICE));
}

/* Copies `size` bytes between buffers at any offsets, and waits. */
static void copy(struct device *on, const struct buffer *from, uint64_t from_offset,
                 const struct buffer *to, uint64_t to_offset, uint64_t size) {
    struct lane lane;
    VkCommandBuffer commands;
    VkBufferCopy region = {from_offset, to_offset, size};
    VkMemoryBarrier2 barrier = {.sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER_2,
                                .srcStageMask = VK_PIPELINE_STAGE_2_ALL_TRANSFER_BIT,
                                .srcAccessMask = VK_ACCESS_2_TRANSFER_WRITE_BIT,
                                .dstStageMask = VK_PIPELINE_STAGE_2_HOST_BIT,
                                .dstAccessMask = VK_ACCESS_2_HOST_READ_BIT};
    VkDependencyInfo info = {.sType = VK_STRUCTURE_TYPE_DEPENDENCY_INFO,
                             .memoryBarrierCount = 1,
                             .pMemoryBarriers = &barrier};
    MUST(lane_create(on, &lane, &error));
    MUST(lane_commands(&lane, &commands, &error));
    MUST(lane_begin(&lane, commands, false, &error));
    on->vk.CmdCopyBuffer(commands, from->handle, to->handle, 1, &region);
    on->vk.CmdPipelineBarrier2(commands, &info);
    MUST(lane_end(&lane, commands, &error));
    MUST(lane_submit(&lane, &(struct batch){&commands, 1}, 1, &error));
    MUST(lane_wait(&lane, lane.submitted, &error));
    lane_destroy(&lane);
}

/* Every 2^28 bytes of the largest buffer that the device allocates, and its last ones, hold what is
 * written there: no offset is cut to 32 bits, or to 31. Only the pages touched take memory on a
 * software device. */
static void test_far_ends_of_the_largest_buffer(void **state) {
    (void)state;
    enum { SPOTS = 24, SPOT = 64 };
    struct device *own;
    struct arena *arena, *host;
    const struct buffer *large, *up, *back;
    struct device_params params = {.cache_directory = ""};
    MUST(device_open(&params, &own, &error));
    uint64_t size = own->info.limits.max_allocation, room = memory_free(own) / 2;
    size = size < room ? size : room;
    size = size < 5 * 1024 * MIB ? size : 5 * 1024 * MIB;
    size = size / SPOT * SPOT;
    MUST(arena_create(own, MEMORY_DEVICE, 0, &arena, &error));
    MUST(arena_create(own, MEMORY_UPLOAD, 0, &host, &error));
    MUST(arena_buffer(arena, size, "the largest", &large, &error));
    MUST(arena_buffer(host, SPOTS * SPOT, "written", &up, &error));
    MUST(arena_buffer(host, SPOTS * SPOT, "read", &back, &error));
    for (int i = 0; i < SPOTS * SPOT; i++)
        ((unsigned char *)up->mapped)[i] = (unsigned char)below(256);
    MUST(buffer_flush(own, up, 0, up->size, &error));
    uint64_t spots = (size - SPOT) >> 28;
    spots = spots < SPOTS - 1 ? spots : SPOTS - 1;
    for (int pass = 0; pass < 2; pass++)
        for (uint64_t i = 0; i <= spots; i++) {
            uint64_t at = i == spots ? size - SPOT : i << 28;
            if (pass == 0)
                copy(own, up, i * SPOT, large, at, SPOT);
            else
                copy(own, large, at, back, i * SPOT, SPOT);
        }
    MUST(buffer_invalidate(own, back, 0, back->size, &error));
    assert_memory_equal(up->mapped, back->mapped, (spots + 1) * SPOT);
    print_message("a buffer of %.1f MiB\n", (double)size / MIB);
    arena_destroy(arena);
    arena_destroy(host);
    device_close(own);
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
        ((unsigned char *)from->mapped)[i] = (unsigned char)below(256);
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
    generator = random_announced();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_buffers_lie_apart),
        cmocka_unit_test(test_blocks_are_filled),
        cmocka_unit_test(test_sizes_are_judged),
        cmocka_unit_test(test_plans_are_exact),
        cmocka_unit_test(test_limit_of_one_heap),
        cmocka_unit_test(test_free_memory),
        cmocka_unit_test(test_far_ends_of_the_largest_buffer),
        cmocka_unit_test(test_there_and_back),
    };
    return cmocka_run_group_tests_name("memory", tests, open_device, close_device);
}
