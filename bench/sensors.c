#include "sensors.h"
#include "platform.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- Files ---- */

/* The number that a file holds; NaN where there is none. */
static double read_number(const char *path) {
    double value = NAN;
    FILE *file = *path ? fopen(path, "r") : NULL;
    if (!file)
        return NAN;
    if (fscanf(file, "%lf", &value) != 1)
        value = NAN;
    fclose(file);
    return value;
}

/* folder/START*…/name for the first entry of `folder` that begins so and has a readable `name`;
 * "" otherwise. */
static void find_below(char path[SENSOR_PATH], const char *folder, const char *start,
                       const char *name) {
    DIR *directory = opendir(folder);
    path[0] = '\0';
    for (struct dirent *entry; directory && !path[0] && (entry = readdir(directory));) {
        if (strncmp(entry->d_name, start, strlen(start)) != 0)
            continue;
        int length = snprintf(path, SENSOR_PATH, "%s/%s/%s", folder, entry->d_name, name);
        if (length >= SENSOR_PATH || isnan(read_number(path)))
            path[0] = '\0';
    }
    if (directory)
        closedir(directory);
}

/* ---- Finding ---- */

void sensors_find(struct sensors *sensors, const char *root, const char *address) {
    static const struct {
        const char *folder, *start, *name;
        double scale;
    } clocks[] = {
        {"hwmon", "hwmon", "freq1_input", 1e-6}, /* amdgpu, Hz */
        {"drm", "card", "gt_act_freq_mhz", 1},   /* i915 */
        {"tile0", "gt0", "freq0/act_freq", 1},   /* xe */
    };
    static const char *const powers[] = {"power1_average", "power1_input"};
    char device[SENSOR_PATH / 2], folder[SENSOR_PATH];
    *sensors = (struct sensors){0};
    if (!*address || snprintf(device, sizeof device, "%s/bus/pci/devices/%s", root, address) >=
                         (int)sizeof device)
        return;
    snprintf(folder, sizeof folder, "%s/hwmon", device);
    find_below(sensors->energy, folder, "hwmon", "energy1_input");
    for (size_t i = 0; i < sizeof powers / sizeof *powers; i++)
        if (!sensors->energy[0] && !sensors->power[0])
            find_below(sensors->power, folder, "hwmon", powers[i]);
    for (size_t i = 0; i < sizeof clocks / sizeof *clocks && !sensors->clock[0]; i++) {
        snprintf(folder, sizeof folder, "%s/%s", device, clocks[i].folder);
        find_below(sensors->clock, folder, clocks[i].start, clocks[i].name);
        sensors->clock_scale = clocks[i].scale;
    }
}

void sensors_pci_address(const struct device *device, char address[PCI_ADDRESS_SIZE]) {
    const struct instance_functions *vi = &device->vi;
    VkExtensionProperties *extensions = NULL;
    uint32_t count = 0;
    bool told = false;
    address[0] = '\0';
    if (vi->EnumerateDeviceExtensionProperties(device->info.physical, NULL, &count, NULL) ==
            VK_SUCCESS &&
        (extensions = calloc(count + 1, sizeof *extensions)) &&
        vi->EnumerateDeviceExtensionProperties(device->info.physical, NULL, &count, extensions) ==
            VK_SUCCESS)
        for (uint32_t i = 0; i < count; i++)
            told |= strcmp(extensions[i].extensionName, VK_EXT_PCI_BUS_INFO_EXTENSION_NAME) == 0;
    free(extensions);
    if (!told)
        return;
    VkPhysicalDevicePCIBusInfoPropertiesEXT pci = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PCI_BUS_INFO_PROPERTIES_EXT};
    VkPhysicalDeviceProperties2 properties = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2, .pNext = &pci};
    vi->GetPhysicalDeviceProperties2(device->info.physical, &properties);
    snprintf(address, PCI_ADDRESS_SIZE, "%04x:%02x:%02x.%x", pci.pciDomain & 0xffff,
             pci.pciBus & 0xff, pci.pciDevice & 0xff, pci.pciFunction & 0xf);
}

double sensors_clock_mhz(const struct sensors *sensors) {
    return read_number(sensors->clock) * sensors->clock_scale;
}

/* ---- Energy ---- */

struct energy_meter {
    const struct sensors *sensors;
    double start; /* of the counter */
    struct platform_thread *thread;
    struct platform_mutex *mutex;
    bool stop; /* guarded by the mutex */
    double joules;
};

static bool stopped(struct energy_meter *meter) {
    platform_mutex_lock(meter->mutex);
    bool stop = meter->stop;
    platform_mutex_unlock(meter->mutex);
    return stop;
}

static void sample_power(void *user) {
    struct energy_meter *meter = user;
    double last = platform_seconds(), watts = read_number(meter->sensors->power) * 1e-6;
    for (bool more = true; more;) {
        more = !stopped(meter);
        if (more)
            nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
        double now = platform_seconds(), then = watts;
        watts = read_number(meter->sensors->power) * 1e-6;
        meter->joules += (now - last) * (then + watts) / 2;
        last = now;
    }
}

struct energy_meter *energy_begin(const struct sensors *sensors) {
    if (!sensors->energy[0] && !sensors->power[0])
        return NULL;
    struct energy_meter *meter = calloc(1, sizeof *meter);
    if (!meter)
        return NULL;
    meter->sensors = sensors;
    if (sensors->energy[0]) {
        meter->start = read_number(sensors->energy);
        return meter;
    }
    meter->mutex = platform_mutex_create();
    meter->thread = meter->mutex ? platform_thread_start(sample_power, meter) : NULL;
    if (!meter->thread)
        meter->joules = NAN;
    return meter;
}

double energy_end(struct energy_meter *meter) {
    if (!meter)
        return NAN;
    if (meter->sensors->energy[0])
        meter->joules = (read_number(meter->sensors->energy) - meter->start) * 1e-6;
    if (meter->thread) {
        platform_mutex_lock(meter->mutex);
        meter->stop = true;
        platform_mutex_unlock(meter->mutex);
        platform_thread_join(meter->thread);
    }
    double joules = meter->joules;
    platform_mutex_destroy(meter->mutex);
    free(meter);
    return joules;
}
