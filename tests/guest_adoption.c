/* One struct to the other, and what a group of tests begins and ends with. */
#include "guest_adoption.h"
#include "must.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

const peridot_device_params guest_params = {
    .struct_size = sizeof guest_params, .threads = 1, .cache_directory = "", .no_tuning = true};

peridot_adoption guest_adoption(const struct device_adoption *from) {
    return (peridot_adoption){
        .struct_size = sizeof(peridot_adoption),
        .instance = from->instance,
        .physical_device = from->physical,
        .device = from->device,
        .get_instance_proc_addr = from->get_instance_proc_addr,
        .queue = from->queue,
        .queue_family = from->queue_family,
        .lock_queue = from->callbacks.lock_queue,
        .unlock_queue = from->callbacks.unlock_queue,
        .user = from->callbacks.user,
        .transfer_queue = from->transfer_queue,
        .transfer_family = from->transfer_family,
        .lock_transfer_queue = from->transfer_callbacks.lock_queue,
        .unlock_transfer_queue = from->transfer_callbacks.unlock_queue,
    };
}

peridot_device *guest_open(void) {
    const char *why = adopt_shim_open();
    if (why)
        fail_msg("%s", why);
    const struct device_adoption app = adopt_shim_adoption();
    const peridot_adoption adoption = guest_adoption(&app);
    const char *minimal = getenv("PERIDOT_TEST_MINIMAL");
    peridot_device_params params = guest_params;
    peridot_device *device;
    params.minimal = minimal && *minimal == '1';
    MUST(peridot_device_adopt(&adoption, &params, &device, &error));
    return device;
}

int guest_close(peridot_device *device) {
    peridot_device_close(device);
    bool sound = adopt_shim_sound(true);
    adopt_shim_close();
    return sound ? 0 : -1;
}
