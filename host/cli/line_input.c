#include "line_input.h"

#include <histedit.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct line_input {
    EditLine *editor; /* NULL: not a terminal */
    History *history;
    bool colour, more;
};

/* libedit's callbacks get nothing but the editor, which keeps our record for us. */
static char *prompt(EditLine *editor) {
    static char plain[] = "> ", more[] = ". ", colour[] = "\1\033[1;32m\1> \1\033[0m\1",
                colour_more[] = "\1\033[32m\1. \1\033[0m\1";
    struct line_input *input = NULL;
    el_get(editor, EL_CLIENTDATA, &input);
    if (input->colour)
        return input->more ? colour_more : colour;
    return input->more ? more : plain;
}

struct line_input *line_input_open(bool colour) {
    struct line_input *input = calloc(1, sizeof *input);
    if (!input || !isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO))
        return input;
    input->colour = colour;
    input->editor = el_init("peridot", stdin, stdout, stderr);
    input->history = history_init();
    if (input->editor && input->history) {
        HistEvent event;
        history(input->history, &event, H_SETSIZE, 500);
        el_set(input->editor, EL_CLIENTDATA, input);
        el_set(input->editor, EL_PROMPT_ESC, prompt, '\1');
        el_set(input->editor, EL_EDITOR, "emacs");
        el_set(input->editor, EL_HIST, history, input->history);
    }
    return input;
}

void line_input_close(struct line_input *input) {
    if (!input)
        return;
    if (input->history)
        history_end(input->history);
    if (input->editor)
        el_end(input->editor);
    free(input);
}

/* One line without its newline, the caller's to free; NULL at the end. */
static char *read_line(struct line_input *input) {
    char *own = NULL;
    if (input->editor) {
        int length = 0;
        const char *line = el_gets(input->editor, &length);
        if (!line || length <= 0 || !(own = malloc((size_t)length + 1)))
            return NULL;
        memcpy(own, line, (size_t)length + 1);
    } else {
        size_t capacity = 0;
        if (getline(&own, &capacity, stdin) < 0) {
            free(own);
            return NULL;
        }
    }
    own[strcspn(own, "\n")] = '\0';
    return own;
}

/* text + newline + line, in text's place; NULL without memory. */
static char *append_line(char *text, const char *line) {
    size_t have = text ? strlen(text) + 1 : 0, more = strlen(line);
    char *grown = realloc(text, have + more + 1);
    if (!grown) {
        free(text);
        return NULL;
    }
    if (have)
        grown[have - 1] = '\n';
    memcpy(grown + have, line, more + 1);
    return grown;
}

char *line_input_read(struct line_input *input) {
    char *text = NULL;
    bool quoted = false, more = true;
    while (more) {
        input->more = quoted || text;
        char *line = read_line(input);
        if (!line)
            break;
        size_t length = strlen(line);
        bool fence = strcmp(line, "\"\"\"") == 0;
        more = quoted ? !fence : fence || (length && line[length - 1] == '\\');
        if (!fence) {
            if (more && !quoted)
                line[length - 1] = '\0';
            text = append_line(text, line);
        }
        quoted = (quoted || fence) && more;
        free(line);
        if (!text && !quoted)
            text = append_line(NULL, "");
    }
    if (text && *text && input->history && input->editor) {
        HistEvent event;
        history(input->history, &event, H_ENTER, text);
    }
    return text;
}
