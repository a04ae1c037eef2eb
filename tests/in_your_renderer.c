/* What the snippets of host/manual/in_your_renderer.md take for granted, around them as they stand
 * there: in_your_renderer WAY QUESTION, with WAY own, budgeted, recorded, or "waiting", which gives
 * up loading in steps and then loads in one call. It prints the answer, and checks for itself what
 * comes after. tests/package.sh takes the snippets out: N-M.h is the Mth of section N. */
#include <peridot.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vulkan/vulkan.h>

struct chat {
    peridot_model *model;
    peridot_message messages[12];
    size_t count;
    char *answer; /* that comes, or came last */
    size_t length;
    bool answering;
};

static VkDevice device;
static VkQueue queue;
static VkSemaphore timeline;
static VkCommandBuffer commands;
static VkBuffer scores; /* where the logits are copied to */
static uint64_t n;
static int locked;
static const char *way;
static struct chat chat;

_Noreturn static void report(const char *sentence) {
    fprintf(stderr, "in_your_renderer: %s\n", sentence);
    exit(1);
}

static void must_at(bool good, int line) {
    char sentence[32];
    snprintf(sentence, sizeof sentence, "line %d failed", line);
    if (!good)
        report(sentence);
}
#define must(good) must_at(good, __LINE__)

static void append(struct chat *chat, const char *bytes, size_t length) {
    chat->answer = realloc(chat->answer, chat->length + length + 1);
    must(chat->answer);
    memcpy(chat->answer + chat->length, bytes, length);
    chat->length += length;
    chat->answer[chat->length] = '\0';
}

static float longest_left;
static void show_progress(float milliseconds, uint32_t frames) {
    must((milliseconds > 0) == (frames > 0));
    longest_left = milliseconds > longest_left ? milliseconds : longest_left;
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

/* It is not shown, and its number is the next one's. */
static void drop_frame(VkCommandBuffer frame) {
    must(!vkResetCommandBuffer(frame, 0));
    n--;
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

/* ---- One conversation ---- */

/* Each frame, until the answer is there. Of recorded ones every third is not shown. */
static void draw_frames(peridot_session *session, peridot_work_status status) {
    peridot_error error;
    for (int frame = 0;; frame++) {
        bool shown = frame % 3;
#include "6-1.h" /* poll */
        if (!chat.answering)
            break;
        if (strcmp(way, "budgeted") == 0) {
#include "6-2.h"
        } else if (strcmp(way, "recorded") == 0) {
#include "6-4.h"
#include "6-5.h" /* submit or discard */
            if (!shown)
                drop_frame(commands);
        } else {
#include "6-3.h"
        }
#include "6-6.h" /* how far it is */
    }
    if (status.generated == 0)
        report("there is no answer");
}

static void ask(peridot_model *model, peridot_session *session, const char *text) {
    peridot_error error;
    chat.model = model;
#include "5-2.h" /* work */
    draw_frames(session, status);
}

/* A conversation that goes on is what it would be if it were read anew. */
static void check_whole(peridot_model *model, const peridot_session_params *wanted,
                        peridot_session *session) {
    peridot_session *anew;
    int32_t tokens[2048];
    size_t count;
    uint32_t length = peridot_session_length(session);
    must(!peridot_session_create(model, wanted, &anew, NULL) &&
         !peridot_session_chat(anew, chat.messages, chat.count - 1, tokens, 2048, &count, NULL) &&
         !peridot_session_prompt_wait(anew, tokens, count, NULL, NULL) &&
         !peridot_session_generate_wait(anew, 200, NULL, NULL, NULL, NULL));
    must(peridot_session_length(anew) == length &&
         !memcmp(peridot_session_tokens(anew), peridot_session_tokens(session),
                 length * sizeof *tokens));
    peridot_session_close_wait(anew);
}

/* ---- More than text ---- */

/* Work that begins a conversation. */
static peridot_work question(peridot_session *session, const char *text, int32_t tokens[2048]) {
    peridot_work work = {.struct_size = sizeof work,
                         .tokens = tokens,
                         .generate = 60,
                         .on_token = on_token,
                         .user = &chat};
    peridot_message message = {"user", text, strlen(text)};
    must(!peridot_session_chat(session, &message, 1, tokens, 2048, &work.token_count, NULL));
    chat.answer = NULL;
    chat.length = 0;
    chat.answering = true;
    return work;
}

static void choose(peridot_model *model, peridot_session *session) {
    const peridot_work_status status = {.struct_size = sizeof status};
    int32_t tokens[2048];
    peridot_error error;
#include "5-3.h" /* sampling settings */
    peridot_work work = question(session, "A: stay. B: go left. C: go right.", tokens);
#include "8-1.h" /* one of three */
    draw_frames(session, status);
    must(chat.length == 1 && strchr("ABC", chat.answer[0]));
#include "8-2.h"
}

static void answer_in_json(peridot_model *model, peridot_session *session) {
    const peridot_work_status status = {.struct_size = sizeof status};
    int32_t tokens[2048];
    peridot_error error;
    peridot_work work = question(session, "Where do you go?", tokens);
#include "8-3.h"
    draw_frames(session, status);
    must(!strncmp(chat.answer, "{\"go\": \"", 8) && strstr(chat.answer, "\", \"steps\": ") &&
         chat.answer[chat.length - 1] == '}');
#include "8-4.h"
}

static const float *make_scores(VkPhysicalDevice physical, VkDeviceSize size) {
    VkBufferCreateInfo info = {.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
                               .size = size,
                               .usage = VK_BUFFER_USAGE_TRANSFER_DST_BIT};
    VkMemoryAllocateInfo allocation = {.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO};
    VkMemoryPropertyFlags seen =
        VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
    VkPhysicalDeviceMemoryProperties types;
    VkMemoryRequirements needs;
    VkDeviceMemory memory;
    void *mapped;
    must(!vkCreateBuffer(device, &info, NULL, &scores));
    vkGetBufferMemoryRequirements(device, scores, &needs);
    vkGetPhysicalDeviceMemoryProperties(physical, &types);
    while (!(needs.memoryTypeBits >> allocation.memoryTypeIndex & 1) ||
           (types.memoryTypes[allocation.memoryTypeIndex].propertyFlags & seen) != seen)
        must(++allocation.memoryTypeIndex < types.memoryTypeCount);
    allocation.allocationSize = needs.size;
    must(!vkAllocateMemory(device, &allocation, NULL, &memory) &&
         !vkBindBufferMemory(device, scores, memory, 0) &&
         !vkMapMemory(device, memory, 0, VK_WHOLE_SIZE, 0, &mapped));
    return mapped;
}

/* What was copied behind the last slice is there for the host. */
static void show_scores(void) {
    VkMemoryBarrier copied = {VK_STRUCTURE_TYPE_MEMORY_BARRIER, NULL, VK_ACCESS_TRANSFER_WRITE_BIT,
                              VK_ACCESS_HOST_READ_BIT};
    record_frame(commands);
    vkCmdPipelineBarrier(commands, VK_PIPELINE_STAGE_TRANSFER_BIT, VK_PIPELINE_STAGE_HOST_BIT, 0, 1,
                         &copied, 0, NULL, 0, NULL);
    submit_frame(commands, timeline, n);
    draw_frame(); /* begins when that one is drawn */
}

static void read_logits(VkPhysicalDevice physical, peridot_model *model, peridot_session *session) {
    peridot_work_status status = {.struct_size = sizeof status, .active = true};
    peridot_model_info about = {.struct_size = sizeof about};
    int32_t tokens[2048], completed = 0;
    peridot_error error;
    peridot_model_describe(model, &about);
    size_t size = about.vocabulary * sizeof(float);
    const float *copied = make_scores(physical, size);
    float *logits_then = malloc(size);
    peridot_work work = question(session, "Who are you?", tokens);
    work.generate = 0;
    must(logits_then && !peridot_session_start(session, &work, &error));
    while (status.active) {
#include "8-5.h"
        completed += slice.completes;
        must(!peridot_session_poll(session, &status, &error));
    }
    show_scores();
    must(completed == 1 && !peridot_session_logits_wait(session, logits_then, &error) &&
         !memcmp(copied, logits_then, size));
    free(logits_then);
}

/* ---- Several characters ---- */

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
                          struct scene *scene) {
    peridot_session *sessions[4];
    struct {
        int32_t tokens[2048];
        size_t count;
    } heard[4];
    peridot_batch *batch;
    peridot_error error;
    peridot_batch_status status = {.struct_size = sizeof status, .active = true};
    peridot_advance advance = {.struct_size = sizeof advance, .budget_ms = 2};
    for (int i = 0; i < 4; i++)
        must(!peridot_session_create(model, wanted, &sessions[i], &error) &&
             !peridot_session_chat(sessions[i], chat.messages, 1, heard[i].tokens, 2048,
                                   &heard[i].count, &error));
#include "9-1.h" /* several characters */
#include "9-2.h" /* and what each was asked */
#include "9-3.h"
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

/* ---- All of it ---- */

/* The first answer is printed. */
static void talk(peridot_model *model, const peridot_session_params *wanted,
                 peridot_session *session, const char *text) {
    static int32_t alone[2048];
    ask(model, session, text);
    printf("%s\n", chat.answer);
    must(longest_left > 0);
    struct scene scene = {alone, peridot_session_length(session), {0}};
    memcpy(alone, peridot_session_tokens(session), scene.length * sizeof *alone);
    ask(model, session, "And why is that so?");
    check_whole(model, wanted, session);
    talk_together(model, wanted, &scene);
}

int main(int argc, char **argv) {
    must(argc == 3);
    const char *text = argv[2];
    way = argv[1];
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
    talk(model, &wanted, session, text);
    choose(model, session);
    answer_in_json(model, session);
    read_logits(physical, model, session);
#include "12-1.h" /* the end */
    return 0;
}
