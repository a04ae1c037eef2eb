#include "utf8.h"

#include <string.h>

/* How many bytes a character has that begins with this one; 0: none does. */
static size_t expected(unsigned char lead) {
    return lead < 0x80   ? 1
           : lead < 0xc2 ? 0
           : lead < 0xe0 ? 2
           : lead < 0xf0 ? 3
           : lead < 0xf5 ? 4
                         : 0;
}

/* Whether the first `length` bytes can begin a valid sequence (Unicode 15, table 3-7). */
static bool plausible(const unsigned char *text, size_t length) {
    if (expected(text[0]) == 0)
        return false;
    for (size_t i = 1; i < length; i++) {
        unsigned char least = 0x80, most = 0xbf;
        if (i == 1) {
            least = text[0] == 0xe0 ? 0xa0 : text[0] == 0xf0 ? 0x90 : 0x80;
            most = text[0] == 0xed ? 0x9f : text[0] == 0xf4 ? 0x8f : 0xbf;
        }
        if (text[i] < least || text[i] > most)
            return false;
    }
    return true;
}

size_t utf8_sequence(const char *text, size_t length) {
    const unsigned char *bytes = (const unsigned char *)text;
    size_t size = length ? expected(bytes[0]) : 0;
    return size && size <= length && plausible(bytes, size) ? size : 0;
}

static size_t put_replacement(char *out) {
    memcpy(out, "\xef\xbf\xbd", 3);
    return 3;
}

/* Gives out the held bytes as far as they are decided. */
static size_t settle(struct utf8_stream *stream, char *out) {
    size_t written = 0;
    while (stream->count) {
        const unsigned char *held = (const unsigned char *)stream->held;
        size_t size = utf8_sequence(stream->held, stream->count), taken = size ? size : 1;
        if (!size && expected(held[0]) > stream->count && plausible(held, stream->count))
            break;
        if (size) {
            memcpy(out + written, stream->held, size);
            written += size;
        } else {
            written += put_replacement(out + written);
        }
        stream->count -= taken;
        memmove(stream->held, stream->held + taken, stream->count);
    }
    return written;
}

size_t utf8_stream_push(struct utf8_stream *stream, const char *bytes, size_t length, char *out) {
    size_t written = 0;
    for (size_t i = 0; i < length; i++) {
        stream->held[stream->count++] = bytes[i];
        written += settle(stream, out + written);
    }
    return written;
}

size_t utf8_stream_flush(struct utf8_stream *stream, char *out) {
    size_t written = 0;
    for (; stream->count; stream->count--)
        written += put_replacement(out + written);
    return written;
}

/* Whether all that is there of a stop string at `at` agrees with it. */
static bool agrees(const char *stop, size_t size, const char *text, size_t length, size_t at) {
    size_t left = length - at;
    return memcmp(text + at, stop, size < left ? size : left) == 0;
}

size_t stop_matcher_scan(const struct stop_matcher *matcher, const char *text, size_t length,
                         bool *found) {
    size_t safe = length, begin = 0, end = length + 1;
    for (size_t at = 0; at < length; at++)
        for (size_t i = 0; i < matcher->count; i++) {
            size_t size = strlen(matcher->stops[i]);
            if (size == 0 || !agrees(matcher->stops[i], size, text, length, at))
                continue;
            if (size > length - at) {
                safe = at < safe ? at : safe;
            } else if (at + size < end) {
                begin = at;
                end = at + size;
            }
        }
    *found = end <= length;
    return *found ? begin : safe;
}
