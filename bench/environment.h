/* What a result was measured on: device, driver, and the commit of the program. */
#ifndef BENCH_ENVIRONMENT_H
#define BENCH_ENVIRONMENT_H

#include "device.h"

#include <cjson/cJSON.h>

/* Adds program, commit, device, kind, driver and subgroup size. */
void environment_describe(const struct device *device, cJSON *about);
/* The program's version and commit alone. */
void environment_program(cJSON *about);

#endif
