/* Ctrl-C, while a file is written that must not be left half done. */
#ifndef CLI_INTERRUPT_H
#define CLI_INTERRUPT_H

#include <stdbool.h>

/* From now on a signal to end only sets a flag; a second one ends the program at once. */
void catch_interrupts(void);
bool was_interrupted(void);

#endif
