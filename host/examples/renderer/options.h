/* The command line. */
#ifndef RENDERER_OPTIONS_H
#define RENDERER_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

enum mode { MODE_OWN, MODE_BUDGETED, MODE_RECORDED };
extern const char *const mode_names[];

struct options {
    const char *model; /* a path; NULL: off */
    const char *device;
    const char *ask; /* the first question; NULL: none */
    const char *screenshot;
    enum mode mode;
    float budget_ms;
    uint32_t headless; /* frames without a window, once the model is loaded; 0: a window */
    uint32_t frames;   /* after which the program ends; 0: never */
    uint32_t width, height, samples;
    bool validation;
};

/* Ends the program on --help and on what cannot be meant. */
struct options options_read(int argc, char **argv);

#endif
