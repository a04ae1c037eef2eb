#include "queue.h"
#include <memory.h>
#include <peridot.h>
#include <stdio.h>

int main(void) {
    return puts(peridot_version()) < 0 ? 1 : QUEUE_OF_THE_GAME;
}
