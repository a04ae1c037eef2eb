/* The shim's application (adopt_shim.h) as the public header takes it. */
#ifndef TESTS_GUEST_ADOPTION_H
#define TESTS_GUEST_ADOPTION_H

#include "adopt_shim.h"
#include "peridot.h"

peridot_adoption guest_adoption(const struct device_adoption *from);

/* Opens the shim's application and adopts its device, for a group of tests. */
peridot_device *guest_open(void);

/* Everything on the calling thread, nothing on disk. */
extern const peridot_device_params guest_params;

#endif
