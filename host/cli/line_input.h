/* Lines from a person: edited and remembered on a terminal, plain in a pipe. */
#ifndef CLI_LINE_INPUT_H
#define CLI_LINE_INPUT_H

#include <stdbool.h>

struct line_input;
struct line_input *line_input_open(bool colour); /* NULL without memory */
/* The next message: one line, or several where a line ends in a backslash or all stands between
 * lines of three quotes. The caller's to free. NULL: the end, or Ctrl-C. */
char *line_input_read(struct line_input *input);
void line_input_close(struct line_input *input);

#endif
