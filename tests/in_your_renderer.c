/* What the snippets of host/manual/in_your_renderer.md take for granted, around them as they stand
 * there: in_your_renderer WAY QUESTION, with WAY own, budgeted, recorded, or "waiting", which gives
 * up loading in steps and then loads in one call. tests/package.sh takes the snippets out: N-M.h is
 * the Mth of section N. */
#include <peridot.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vulkan/vulkan.h>

struct chat {
    peridot_model *model;
};

static VkDevice device;
static VkQueue queue;
static VkSemaphore timeline;
static VkCommandBuffer commands;
static uint64_t n;
static int locked;

_Noreturn static void report(const char *sentence) {
    fprintf(stderr, "in_your_renderer: %s\n", sentence);
    exit(1);
}

static void must(bool good) {
    if (!good)
        report("something of Vulkan failed");
}

static void append(struct chat *chat, const char *bytes, size_t length) {
    (void)chat;
    fwrite(bytes, 1, length, stdout);
}

static void lock(void *user) {
    must(user == &device && locked++ == 0);
}

static void unlock(void *user) {
    must(user == &device && --locked == 0);
}

/* A frame of this one may be recorded when the last one is drawn. */
static void record_frame(VkCommandBuffer frame) {
    VkSemaphoreWaitInfo last = {VK_STRUCTURE_TYPE_SEMAPHORE_WAIT_INFO, NULL, 0, 1, &timeline, &n};
    VkCommandBufferBeginInfo begin = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO};
    must(!vkWaitSemaphores(device, &last, UINT64_MAX) && !vkBeginCommandBuffer(frame, &begin));
    n++;
}

static void submit_frame(VkCommandBuffer frame, VkSemaphore semaphore, uint64_t value) {
    VkCommandBufferSubmitInfo drawn = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_SUBMIT_INFO,
                                       .commandBuffer = frame};
    VkSemaphoreSubmitInfo signal = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_SUBMIT_INFO,
                                    .semaphore = semaphore,
                                    .value = value,
                                    .stageMask = VK_PIPELINE_STAGE_2_ALL_COMMANDS_BIT};
    VkSubmitInfo2 info = {.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO_2,
                          .commandBufferInfoCount = 1,
                          .pCommandBufferInfos = &drawn,
                          .signalSemaphoreInfoCount = 1,
                          .pSignalSemaphoreInfos = &signal};
    must(!vkEndCommandBuffer(frame) && !vkQueueSubmit2(queue, 1, &info, VK_NULL_HANDLE));
}

static void draw_frame(void) {
    record_frame(commands);
    submit_frame(commands, timeline, n);
}

#include "5-1.h" /* on_token */

static void make_frames(uint32_t family) {
    VkSemaphoreTypeCreateInfo type = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_TYPE_CREATE_INFO,
                                      .semaphoreType = VK_SEMAPHORE_TYPE_TIMELINE};
    VkSemaphoreCreateInfo semaphore = {VK_STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO, &type, 0};
    VkCommandPoolCreateInfo pool_info = {VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO, NULL,
                                         VK_COMMAND_POOL_CREATE_RESET_COMMAND_BUFFER_BIT, family};
    VkCommandBufferAllocateInfo buffer = {VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO, NULL,
                                          NULL, VK_COMMAND_BUFFER_LEVEL_PRIMARY, 1};
    must(!vkCreateSemaphore(device, &semaphore, NULL, &timeline) &&
         !vkCreateCommandPool(device, &pool_info, NULL, &buffer.commandPool) &&
         !vkAllocateCommandBuffers(device, &buffer, &commands));
}

/* What is said together is what was said alone. */
struct scene {
    const int32_t *tokens; /* of the one alone */
    uint32_t length, said[4];
};

static bool on_batch_token(uint32_t session, const peridot_token *token, void *user) {
    struct scene *scene = user;
    must(token->position < scene->length && scene->tokens[token->position] == token->token);
    scene->said[session]++;
    return true;
}

static void talk_together(peridot_model *model, const peridot_session_params *wanted,
                          const peridot_work *question, struct scene *scene) {
    peridot_session *sessions[4];
    peridot_batch *batch;
    peridot_error error;
    peridot_work prompt = *question;
    peridot_batch_status status = {.struct_size = sizeof status, .active = true};
    peridot_advance advance = {.struct_size = sizeof advance, .budget_ms = 2};
    prompt.generate = 0;
    for (int i = 0; i < 4; i++) {
        must(!peridot_session_create(model, wanted, &sessions[i], &error) &&
             !peridot_session_start(sessions[i], &prompt, &error));
        peridot_session_cancel(sessions[i]); /* the batch runs it */
    }
#include "9-1.h" /* several characters */
    while (status.active) {
        must(peridot_batch_advance(batch, &advance, NULL, &error) >= 0);
        must(peridot_batch_poll(batch, &status, &error) == PERIDOT_OK);
    }
    must(scene->said[0] && scene->said[1] && !scene->said[2] && scene->said[3]);
    while (peridot_batch_close(batch) == PERIDOT_NOT_READY)
        draw_frame();
    for (int i = 0; i < 4; i++)
        while (peridot_session_close(sessions[i]) == PERIDOT_NOT_READY)
            draw_frame();
}

int main(int argc, char **argv) {
    must(argc == 3);
    const char *way = argv[1], *text = argv[2];
    VkApplicationInfo about = {.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO,
                               .apiVersion = VK_API_VERSION_1_3};
    VkInstanceCreateInfo with = {.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO,
                                 .pApplicationInfo = &about};
    VkInstance instance;
    VkPhysicalDevice physical = VK_NULL_HANDLE;
    uint32_t count_of_one = 1, family, queue_count = 1, extension_count = 0;
    const char *extensions[PERIDOT_EXTENSIONS_MAX];
    must(!vkCreateInstance(&with, NULL, &instance) &&
         vkEnumeratePhysicalDevices(instance, &count_of_one, &physical) >= 0 && count_of_one);
#include "2-1.h" /* ask before the device is created */
    memcpy(extensions, needs.extensions, sizeof extensions);
    extension_count = needs.extension_count;
#include "2-2.h" /* Peridot's queue, which is also that of the frames here */
    VkDeviceQueueCreateInfo queues[] = {guests};
    family = needs.queue_family;
#include "2-3.h"
    must(!vkCreateDevice(physical, &info, NULL, &device));
    vkGetDeviceQueue(device, family, 0, &queue);
    make_frames(family);
    VkQueue transfer_queue = VK_NULL_HANDLE;
    void *renderer = &device;
#include "3-1.h" /* lend the device */
#include "4-1.h" /* begin to load */
    bool waiting = strcmp(way, "waiting") == 0;
    for (;;) {
        draw_frame();
#include "4-2.h" /* load, a piece a frame */
        if (result != PERIDOT_NOT_READY || waiting)
            break;
    }
    if (waiting) {
#include "4-3.h" /* give loading up */
#include "4-4.h" /* load in one call */
    }
    struct chat chat = {model};
#include "5-2.h" /* work */
    for (;;) {
#include "6-1.h" /* poll */
        if (!status.active)
            break;
        if (strcmp(way, "budgeted") == 0) {
#include "6-2.h"
        } else if (strcmp(way, "recorded") == 0) {
#include "6-4.h"
        } else {
#include "6-3.h"
        }
    }
    if (status.generated == 0)
        report("there is no answer");
    puts("");
    struct scene scene = {peridot_session_tokens(session), peridot_session_length(session), {0}};
    talk_together(model, &wanted, &work, &scene);
#include "12-1.h" /* the end */
    return 0;
}
