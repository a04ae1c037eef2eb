#include "cli.h"
int command_chat(struct options *options) {
    (void)options;
    return 1;
}
