#include "environment.h"
#include "commit.h" /* made by commit.cmake: PERIDOT_COMMIT */
#include "peridot.h"

#include <stdio.h>

void environment_program(cJSON *about) {
    cJSON_AddStringToObject(about, "peridot", peridot_version());
    cJSON_AddStringToObject(about, "commit", PERIDOT_COMMIT);
}

void environment_describe(const struct device *device, cJSON *about) {
    const struct device_info *info = &device->info;
    char driver[sizeof info->driver + sizeof info->driver_info + 32];
    snprintf(driver, sizeof driver, "%s %s (version %08x)", info->driver, info->driver_info,
             info->driver_version);
    environment_program(about);
    cJSON_AddStringToObject(about, "device", info->name);
    cJSON_AddStringToObject(about, "kind", device_kind(info));
    cJSON_AddStringToObject(about, "driver", driver);
    cJSON_AddNumberToObject(about, "subgroup_size", info->limits.subgroup_size);
}
