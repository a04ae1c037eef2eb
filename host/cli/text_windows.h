/* A text's tokens cut into windows, each of which a model reads from <bos> on.
 *
 * A window is <bos> and up to size - 1 tokens of the text; the next begins `stride` tokens later,
 * so with a stride of size - 1 none is read twice. A token is scored in the first window that has
 * at least size / 2 tokens before it, <bos> included: predictions with hardly any context would say
 * more about how the text was cut than about the model. A text that fits in one window is scored
 * from its first token on. A last, partial window is read if it has something to score. */
#ifndef CLI_TEXT_WINDOWS_H
#define CLI_TEXT_WINDOWS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct text_windows {
    size_t count;          /* tokens of the text */
    uint32_t size, stride; /* 2 at least; 1 to size - 1 */
    /* the present window, as places in the text */
    size_t begin, end; /* its tokens */
    size_t scored;     /* the first that it scores: all from here to `end` */
    bool open;
};

/* Begins before the first window. */
struct text_windows text_windows(size_t count, uint32_t size, uint32_t stride);
/* Goes on to the next window; false: there is none. */
bool text_windows_next(struct text_windows *windows);

/* What all windows come to. */
struct text_windows_sum {
    size_t windows, scored;
    size_t run; /* tokens that the model reads: up to the last but one of each window, with <bos> */
};
struct text_windows_sum text_windows_sum(size_t count, uint32_t size, uint32_t stride);

#endif
