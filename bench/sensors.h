/* What Linux tells of a card beside Vulkan: energy and clock, from its folder in sysfs (amdgpu,
 * i915, xe, nouveau). Other drivers and systems have no such files, and nothing is measured there.
 */
#ifndef BENCH_SENSORS_H
#define BENCH_SENSORS_H

#include "device.h"

#define SENSOR_PATH 400

struct sensors {
    char energy[SENSOR_PATH]; /* microjoules, counted up; empty: none */
    char power[SENSOR_PATH];  /* microwatts now, where there is no counter; empty: none */
    char clock[SENSOR_PATH];  /* empty: none */
    double clock_scale;       /* to MHz */
};

/* Those of the PCI device at `address`, "0000:03:00.0", under `root`, which is "/sys" but for
 * tests. An empty address has none. */
void sensors_find(struct sensors *sensors, const char *root, const char *address);
/* The device's PCI address, or "" where it has none or does not tell. */
#define PCI_ADDRESS_SIZE 32
void sensors_pci_address(const struct device *device, char address[PCI_ADDRESS_SIZE]);
double sensors_clock_mhz(const struct sensors *sensors); /* now; NaN: unknown */

/* The energy between begin and end: the counter's, or power sampled on a thread 50 times a second.
 */
struct energy_meter;
struct energy_meter *energy_begin(const struct sensors *sensors); /* NULL: nothing to measure by */
double energy_end(struct energy_meter *meter); /* joules; NaN for NULL and for a failed read */

#endif
