/* The command line. */
#include "options.h"
#include "gpu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const mode_names[] = {"own", "budgeted", "recorded"};

static const char help[] =
    "renderer: a scene that keeps its frame rate while a language model answers\n"
    "  --model PATH|off       a model to chat with (default: the demo model)\n"
    "  --mode MODE            how its work reaches the device: own (submissions as fast as they "
    "go),\n"
    "                         budgeted (a slice a frame), recorded (into the frame's own "
    "commands)\n"
    "  --budget MS            GPU time of a slice, for budgeted and recorded; and of each frame,\n"
    "                         time to load the model in (default: 2)\n"
    "  --ask TEXT             the first question\n"
    "  --headless N           without a window: as many frames as the model takes to load, then N\n"
    "                         in which it does nothing and N in which it answers\n"
    "  --frames N             ends after N frames of all kinds, also while the model loads\n"
    "  --screenshot FILE.png  writes the last frame\n"
    "  --size WIDTHxHEIGHT    default: 1280x720\n"
    "  --samples N            a pixel: 1, 2, 4 (default) or 8\n"
    "  --device NAME          a part of the device's name (default: the fastest kind)\n"
    "  --validation           with the validation layer; any message makes the program fail\n"
    "In the window: type a question, Enter; F2 turns the model off and on; Esc quits.\n";

static const char *value_of(int argc, char **argv, int *i) {
    if (*i + 1 >= argc)
        give_up("%s needs a value", argv[*i]);
    return argv[++*i];
}

static uint32_t number(const char *option, const char *text, uint32_t most) {
    char *end;
    unsigned long value = strtoul(text, &end, 10);
    if (*end || end == text || value < 1 || value > most)
        give_up("%s: not a number from 1 to %u: %s", option, most, text);
    return (uint32_t)value;
}

static enum mode mode_of(const char *text) {
    for (int i = 0; i < 3; i++)
        if (strcmp(text, mode_names[i]) == 0)
            return (enum mode)i;
    give_up("--mode: own, budgeted or recorded, not %s", text);
}

static float budget_of(const char *text) {
    char *end;
    float budget = strtof(text, &end);
    if (*end || !(budget > 0 && budget <= 1000))
        give_up("--budget: milliseconds, more than 0 and at most 1000, not %s", text);
    return budget;
}

static void read_size(const char *text, struct options *options) {
    char *end;
    unsigned long width = strtoul(text, &end, 10), height = 0;
    if (*end == 'x')
        height = strtoul(end + 1, &end, 10);
    if (*end || width < 16 || height < 16 || width > 8192 || height > 8192)
        give_up("--size: WIDTHxHEIGHT, from 16 to 8192 each, not %s", text);
    options->width = (uint32_t)width;
    options->height = (uint32_t)height;
}

static bool read_one(struct options *o, const char *name, const char *value) {
    if (strcmp(name, "--model") == 0)
        o->model = strcmp(value, "off") == 0 ? NULL : value;
    else if (strcmp(name, "--mode") == 0)
        o->mode = mode_of(value);
    else if (strcmp(name, "--budget") == 0)
        o->budget_ms = budget_of(value);
    else if (strcmp(name, "--ask") == 0)
        o->ask = value;
    else if (strcmp(name, "--headless") == 0)
        o->headless = number(name, value, 10000000);
    else if (strcmp(name, "--frames") == 0)
        o->frames = number(name, value, 10000000);
    else if (strcmp(name, "--screenshot") == 0)
        o->screenshot = value;
    else if (strcmp(name, "--size") == 0)
        read_size(value, o);
    else if (strcmp(name, "--samples") == 0)
        o->samples = number(name, value, 8);
    else if (strcmp(name, "--device") == 0)
        o->device = value;
    else
        return false;
    return true;
}

struct options options_read(int argc, char **argv) {
    struct options options = {.model = DEMO_MODEL,
                              .mode = MODE_BUDGETED,
                              .budget_ms = 2,
                              .width = 1280,
                              .height = 720,
                              .samples = 4};
    for (int i = 1; i < argc; i++) {
        const char *name = argv[i];
        if (strcmp(name, "--help") == 0) {
            fputs(help, stdout);
            exit(0);
        }
        if (strcmp(name, "--validation") == 0)
            options.validation = true;
        else if (!read_one(&options, name, strncmp(name, "--", 2) ? "" : value_of(argc, argv, &i)))
            give_up("there is no option %s: --help lists them", name);
    }
    if (options.samples & (options.samples - 1))
        give_up("--samples: 1, 2, 4 or 8");
    return options;
}
