/* UTF-8 as it comes: whole characters out of a stream of bytes, and stop strings within it. */
#ifndef HOST_UTF8_H
#define HOST_UTF8_H

#include <stdbool.h>
#include <stddef.h>

/* Length of the valid UTF-8 sequence at the start of text; 0: there is none. */
size_t utf8_sequence(const char *text, size_t length);

/* Holds back at most three bytes of a character that is not yet whole; all-zero is empty. */
struct utf8_stream {
    char held[4];
    size_t count;
};
/* Takes bytes, writes only whole characters to `out`, which has room for 3 * (length + 4) bytes;
 * bytes that can be part of no character become U+FFFD, one each. Returns how many bytes were
 * written. */
size_t utf8_stream_push(struct utf8_stream *stream, const char *bytes, size_t length, char *out);
/* The end: what is held back will not become a character. At most 9 bytes. */
size_t utf8_stream_flush(struct utf8_stream *stream, char *out);

/* Looks for stop strings in a text that grows. */
struct stop_matcher {
    const char *const *stops; /* not empty strings; not owned */
    size_t count;
};
/* Where in text[0, length) the stop string begins that is complete first (the longest of those that
 * end there), so that the answer does not depend on how the text was cut into tokens; or, if there
 * is none, how much of the text can be given out because no stop string can begin in it any more.
 * `*found` tells which. What was given out need not be passed again. */
size_t stop_matcher_scan(const struct stop_matcher *matcher, const char *text, size_t length,
                         bool *found);

#endif
