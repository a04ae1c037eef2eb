/* peridot devices: what there is, and what would be chosen. */
#include "cli.h"

#include <time.h>

static void print_tuning(const peridot_device_info *d) {
    char when[32] = "";
    time_t at = (time_t)d->tuned_at;
    struct tm local;
    if (d->tuned_at && localtime_r(&at, &local))
        strftime(when, sizeof when, "%Y-%m-%d", &local);
    if (d->tuned)
        printf("     tuned      %u kernels, %u of them to other than the default%s%s\n", d->tuned,
               d->tuned_away, *when ? ", on " : "", when);
    else if (d->usable)
        printf("     tuned      no: peridot tune\n");
    if (d->tuning_warning[0])
        printf("     warning    %s\n", d->tuning_warning);
}

int command_devices(struct options *options) {
    (void)options;
    peridot_device_info devices[32] = {{.struct_size = sizeof *devices}};
    peridot_error error;
    uint32_t count = 0;
    if (peridot_devices_list(devices, 32, &count, &error))
        return complain(&error);
    if (count == 0)
        printf("There is no Vulkan device here.\n");
    for (uint32_t i = 0; i < count && i < 32; i++) {
        const peridot_device_info *d = &devices[i];
        printf("%c %u  %s (%s)\n", d->chosen ? '*' : ' ', d->index, d->name, d->kind);
        printf("     driver     %s\n", d->driver);
        printf("     uuid       %s\n", d->uuid);
        printf("     memory     %.1f GiB, %.1f GiB free, up to %.1f GiB in one piece\n",
               (double)d->memory_total / (1 << 30), (double)d->memory_free / (1 << 30),
               (double)d->max_allocation / (1 << 30));
        printf("     subgroups  of %u\n", d->subgroup_size);
        print_tuning(d);
        if (d->chosen)
            printf("     chosen     %s\n", d->reason);
        else if (!d->usable)
            printf("     unusable   %s\n", d->reason);
    }
    return 0;
}
