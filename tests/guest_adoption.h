/* The shim's application (adopt_shim.h) as the public header takes it. */
#ifndef TESTS_GUEST_ADOPTION_H
#define TESTS_GUEST_ADOPTION_H

#include "adopt_shim.h"
#include "peridot.h"

peridot_adoption guest_adoption(const struct device_adoption *from);

/* Opens the shim's application and adopts its device, for a group of tests. */
peridot_device *guest_open(void);
/* Closes both; 0: it did nothing that a guest may not, and left nothing. For a group's teardown. */
int guest_close(peridot_device *device);

/* Everything on the calling thread, nothing on disk. */
extern const peridot_device_params guest_params;

#endif
