/* The device that the tests run on, as the environment says:
 *   VK_DRIVER_FILES          the driver (Vulkan's own variable)
 *   PERIDOT_TEST_MINIMAL=1   portable kernels only
 *   PERIDOT_TEST_VALIDATION=1 with the validation layer; any message fails the test program */
#ifndef TESTS_OPEN_DEVICE_H
#define TESTS_OPEN_DEVICE_H

#include "must.h"
#include "peridot.h"

/* Ends the test with a failure where there is no device. */
peridot_device *open_test_device(void);
/* One of several: `choice` as in peridot_device_params. */
peridot_device *open_chosen_device(const char *choice);
/* How many validation messages have come. */
unsigned validation_messages(void);

#endif
