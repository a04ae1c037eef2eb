/* The demo model's files, embedded in the program. */
#ifndef CLI_DEMO_H
#define CLI_DEMO_H

#include "peridot.h"

#define DEMO_FILES 3
/* Fills in config.json, model.safetensors and tokenizer.model. */
void demo_list(peridot_file files[DEMO_FILES]);

#endif
