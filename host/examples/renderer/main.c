/* A scene, and a model to chat with that does its work between the frames. */
#include "panels.h"
#include "scene.h"

#define GLFW_INCLUDE_NONE
#include <GLFW/glfw3.h>
#include <stb/stb_ds.h>
#include <stdio.h>
#include <string.h>

struct application {
    struct options options;
    struct GLFWwindow *window;
    struct gpu gpu;
    struct frames frames;
    struct scene scene;
    struct overlay overlay;
    struct chat chat; /* all zero where there is to be no model */
    struct frame_history history;
    double began, last; /* seconds; of the program's first frame, and of the latest */
    char input[512];
};
static struct application app;

/* ---- The window ---- */

static void type_character(struct GLFWwindow *window, unsigned code) {
    (void)window;
    static const unsigned lead[] = {0, 0xc0, 0xe0, 0xf0};
    int more = code < 0x80 ? 0 : code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    char bytes[4] = {(char)(lead[more] | code >> 6 * more)};
    size_t used = strlen(app.input), count = 1;
    while (more--)
        bytes[count++] = (char)(0x80 | (code >> 6 * more & 0x3f));
    if (used + count < sizeof app.input)
        memcpy(app.input + used, bytes, count);
}

static void erase_character(void) {
    size_t length = strlen(app.input);
    while (length && (app.input[--length] & 0xc0) == 0x80)
        app.input[length] = '\0';
    app.input[length] = '\0';
}

static void press_key(struct GLFWwindow *window, int key, int scancode, int action, int modifiers) {
    (void)scancode;
    (void)modifiers;
    if (action == GLFW_RELEASE)
        return;
    if (key == GLFW_KEY_ESCAPE)
        glfwSetWindowShouldClose(window, GLFW_TRUE);
    if (key == GLFW_KEY_BACKSPACE)
        erase_character();
    if (key == GLFW_KEY_F2 && action == GLFW_PRESS) /* not while it is held */
        app.chat.on = !app.chat.on;
    if ((key == GLFW_KEY_ENTER || key == GLFW_KEY_KP_ENTER) && !app.chat.answering) {
        chat_ask(&app.chat, app.input);
        memset(app.input, 0, sizeof app.input);
    }
}

static void open_window(void) {
    if (!glfwInit())
        give_up("there is no display to open a window on: --headless N needs none");
    if (!glfwVulkanSupported())
        give_up("there is no Vulkan here that draws in windows");
    glfwWindowHint(GLFW_CLIENT_API, GLFW_NO_API);
    app.window = glfwCreateWindow((int)app.options.width, (int)app.options.height,
                                  "Peridot in a renderer", NULL, NULL);
    if (!app.window)
        give_up("no window can be opened: --headless N needs none");
    glfwSetCharCallback(app.window, type_character);
    glfwSetKeyCallback(app.window, press_key);
}

/* ---- Frames ---- */

/* False: nothing could be drawn. */
static bool draw_frame(void) {
    struct frames *frames = &app.frames;
    VkCommandBuffer commands = frames_begin(frames);
    if (!commands)
        return false;
    double seconds = app.window ? app.last - app.began : (double)app.history.count / 60;
    struct panels panels = {.gpu = &app.gpu,
                            .chat = app.options.model ? &app.chat : NULL,
                            .history = &app.history,
                            .input = app.input,
                            .seconds = seconds};
    overlay_begin(&app.overlay, frames);
    panels_draw(&panels, &app.overlay, frames);
    scene_draw(&app.scene, frames, commands, seconds);
    overlay_draw(&app.overlay, frames, commands);
    frames_drawn(frames);
    chat_record(&app.chat, frames, commands);
    frames_end(frames);
    chat_submit(&app.chat, frames);
    return true;
}

static void do_frame(void) {
    enum frame_kind kind = chat_work(&app.chat);
    chat_poll(&app.chat);
    bool drawn = draw_frame();
    chat_load(&app.chat);
    if (!drawn) {
        glfwWaitEventsTimeout(0.1);
        app.last = seconds_now();
        return;
    }
    double now = seconds_now();
    frame_history_add(&app.history, (float)((now - app.last) * 1e3), kind);
    app.last = now;
}

/* The frames that were asked for are not all drawn. */
static bool goes_on(void) {
    return !app.options.frames || app.history.count < app.options.frames;
}

static void run_in_window(void) {
    if (app.options.ask)
        chat_ask(&app.chat, app.options.ask);
    while (!glfwWindowShouldClose(app.window) && goes_on()) {
        glfwPollEvents();
        do_frame();
    }
}

/* Says how far it is with each stage and every ten per cent of it. */
static void load_headless(void) {
    const peridot_loading_status *progress = &app.chat.progress;
    const char *stage = "";
    uint64_t told = 0;
    while (app.chat.loading && goes_on()) {
        uint64_t tenths = progress->all ? 10 * progress->done / progress->all : 0;
        char text[80] = "";
        if (strcmp(progress->stage, stage) != 0 || tenths != told) {
            chat_describe_loading(&app.chat, text, sizeof text);
            stage = progress->stage;
            told = tenths;
        }
        do_frame();
        if (*text && !app.chat.failed)
            puts(text);
    }
}

/* Asks one question after the other; the first answer is always waited for. */
static void run_headless(void) {
    static const char *const questions[] = {"Hello!", "My name is Ana.", "I have a cat.",
                                            "What is my name?", "What is 4 + 5?"};
    uint32_t asked = 0;
    const char *first = app.options.ask ? app.options.ask : questions[asked++];
    load_headless();
    if (app.chat.failed)
        return;
    for (uint32_t i = 0; i < app.options.headless && goes_on(); i++)
        do_frame();
    if (!app.chat.session)
        return;
    chat_ask(&app.chat, first);
    for (uint32_t i = 0;
         (i < app.options.headless || app.chat.answers == 0) && !app.chat.failed && goes_on();
         i++) {
        if (!app.chat.answering)
            chat_ask(&app.chat, questions[asked++ % 5]);
        do_frame();
    }
}

/* ---- The program ---- */

static void report_times(const char *name, const struct frame_times *times) {
    struct frame_summary sum = frame_times_summary(times, 0);
    if (sum.frames)
        printf("%-18s %6zu frames: median %.2f ms, 99 %% %.2f ms, worst %.2f ms\n", name,
               sum.frames, sum.median, sum.percentile_99, sum.worst);
}

/* Of a model that could not be loaded there is nothing to tell but why. */
static void report(void) {
    if (app.chat.failed && !app.chat.session)
        return;
    report_times("without the model", &app.history.of[FRAME_ALONE]);
    report_times("with the model", &app.history.of[FRAME_WITH_MODEL]);
    report_times("while loading", &app.history.of[FRAME_LOADING]);
    if (app.chat.loading)
        puts("the program ended before the model was loaded");
    if (!app.chat.session)
        return;
    printf("%s: %u answers, %u tokens in %u slices\n", mode_names[app.chat.mode], app.chat.answers,
           app.chat.tokens, app.chat.slices);
    for (int i = 0; i < arrlen(app.chat.turns); i++)
        chat_print(&app.chat.turns[i]);
}

int main(int argc, char **argv) {
    app.options = options_read(argc, argv);
    if (!app.options.headless)
        open_window();
    gpu_open(&app.gpu, &app.options, app.window);
    frames_open(&app.frames, &app.gpu, &app.options, app.window);
    scene_open(&app.scene, &app.frames);
    overlay_open(&app.overlay, &app.frames, FONT);
    if (app.options.model)
        chat_open(&app.chat, &app.gpu, &app.options);
    app.began = app.last = seconds_now();
    if (app.window)
        run_in_window();
    else
        run_headless();
    if (app.options.screenshot)
        frames_screenshot(&app.frames, app.options.screenshot);
    bool failed = app.chat.failed;
    report();
    if (app.options.model)
        chat_close(&app.chat);
    frames_close(&app.frames);
    overlay_close(&app.overlay);
    scene_close(&app.scene);
    gpu_close(&app.gpu);
    if (app.window)
        glfwTerminate();
    if (failed)
        fprintf(stderr, "renderer: %s\n", app.chat.error.message);
    if (app.gpu.messages)
        fprintf(stderr, "renderer: the validation layer sent %u messages\n", app.gpu.messages);
    return failed || app.gpu.messages ? 1 : 0;
}
