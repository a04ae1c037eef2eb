#include "open_device.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static unsigned messages;

static bool is_set(const char *name) {
    const char *value = getenv(name);
    return value && strcmp(value, "1") == 0;
}

static void hear(const char *text, void *user) {
    (void)user;
    messages++;
    fprintf(stderr, "validation: %s\n", text);
}

peridot_device *open_test_device(void) {
    return open_chosen_device(NULL);
}

peridot_device *open_chosen_device(const char *choice) {
    peridot_device_params params = {
        .struct_size = sizeof params,
        .choice = choice,
        .minimal = is_set("PERIDOT_TEST_MINIMAL"),
        .validation = is_set("PERIDOT_TEST_VALIDATION"),
        .cache_directory = "",
        .message = hear,
    };
    peridot_device *device = NULL;
    peridot_error error = {0};
    if (peridot_device_open(&params, &device, &error))
        fail_msg("%s", error.message);
    return device;
}

unsigned validation_messages(void) {
    return messages;
}
