#include "json_string.h"

#include <stdint.h>
#include <string.h>

static bool read_hex(const char *text, uint32_t *value) {
    *value = 0;
    for (int i = 0; i < 4; i++) {
        char c = text[i];
        uint32_t digit = c >= '0' && c <= '9'   ? (uint32_t)(c - '0')
                         : c >= 'a' && c <= 'f' ? (uint32_t)(c - 'a' + 10)
                         : c >= 'A' && c <= 'F' ? (uint32_t)(c - 'A' + 10)
                                                : 16;
        if (digit > 15)
            return false;
        *value = *value << 4 | digit;
    }
    return true;
}

/* The character as UTF-8; never longer than the escape that named it. */
static size_t put(char *out, uint32_t c) {
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    size_t more = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
    static const unsigned char leads[] = {0, 0xc0, 0xe0, 0xf0};
    out[0] = (char)(leads[more] | c >> 6 * more);
    for (size_t i = 1; i <= more; i++)
        out[i] = (char)(0x80 | (c >> 6 * (more - i) & 0x3f));
    return more + 1;
}

/* The escape at *at, which stands behind its backslash. */
static bool read_escape(const char **at, uint32_t *c) {
    static const char letters[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
    const char *letter = **at ? strchr(letters, **at) : NULL;
    if (letter) {
        *c = (unsigned char)meanings[letter - letters];
        (*at)++;
        return true;
    }
    if (**at != 'u' || !read_hex(*at + 1, c))
        return false;
    *at += 5;
    uint32_t low;
    if (*c >= 0xd800 && *c < 0xdc00 && (*at)[0] == '\\' && (*at)[1] == 'u' &&
        read_hex(*at + 2, &low) && low >= 0xdc00 && low < 0xe000) {
        *c = 0x10000 + ((*c - 0xd800) << 10) + (low - 0xdc00);
        *at += 6;
    } else if (*c >= 0xd800 && *c < 0xe000) {
        *c = 0xfffd;
    }
    return true;
}

bool json_string_read(char *text, size_t *length) {
    const char *at = text + strspn(text, " \t\r\n");
    char *out = text;
    if (*at++ != '"')
        return false;
    while (*at != '"') {
        uint32_t c;
        if ((unsigned char)*at < 0x20)
            return false; /* the end too */
        if (*at != '\\') {
            *out++ = *at++;
            continue;
        }
        at++;
        if (!read_escape(&at, &c))
            return false;
        out += put(out, c);
    }
    *length = (size_t)(out - text);
    at++;
    return at[strspn(at, " \t\r\n")] == '\0';
}

void json_string_write(FILE *file, const char *text, size_t length) {
    fputc('"', file);
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c == '"' || c == '\\')
            fprintf(file, "\\%c", c);
        else if (c == '\n')
            fputs("\\n", file);
        else if (c < 0x20 || c == 0x7f)
            fprintf(file, "\\u%04x", (unsigned)c);
        else
            fputc(c, file);
    }
    fputs("\"\n", file);
}
