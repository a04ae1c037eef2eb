#include "messages.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <unistd.h>

static int shown; /* characters of the line that stands */

void progress(const char *format, ...) {
    char line[120];
    if (!isatty(STDERR_FILENO))
        return;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    shown = fprintf(stderr, "\r%-*s", shown, line) - 1;
    fflush(stderr);
}

void progress_end(void) {
    if (shown)
        fprintf(stderr, "\r%*s\r", shown, "");
    shown = 0;
}

void warn(const char *message) {
    progress_end();
    fputs("peridot-bench: ", stderr);
    /* a name out of a hostile file must not steer the terminal */
    for (const char *at = message; *at; at++)
        fputc((unsigned char)*at < 32 || *at == 127 ? '?' : *at, stderr);
    fputc('\n', stderr);
}

int complain(const peridot_error *error) {
    warn(error->message);
    return 1;
}
