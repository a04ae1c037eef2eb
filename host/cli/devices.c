/* peridot devices: what there is, and what would be chosen. */
#include "cli.h"

#include <time.h>

#include <cjson/cJSON.h>

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

static cJSON *describe(const peridot_device_info *d) {
    cJSON *device = cJSON_CreateObject();
    cJSON_AddNumberToObject(device, "index", d->index);
    cJSON_AddStringToObject(device, "name", d->name);
    cJSON_AddStringToObject(device, "kind", d->kind);
    cJSON_AddStringToObject(device, "driver", d->driver);
    cJSON_AddStringToObject(device, "uuid", d->uuid);
    cJSON_AddNumberToObject(device, "memory_bytes", (double)d->memory_total);
    cJSON_AddNumberToObject(device, "free_bytes", (double)d->memory_free);
    cJSON_AddNumberToObject(device, "max_allocation", (double)d->max_allocation);
    cJSON_AddNumberToObject(device, "subgroup_size", d->subgroup_size);
    cJSON_AddBoolToObject(device, "usable", d->usable);
    cJSON_AddBoolToObject(device, "chosen", d->chosen);
    cJSON_AddStringToObject(device, "reason", d->reason);
    cJSON_AddNumberToObject(device, "tuned", d->tuned);
    cJSON_AddNumberToObject(device, "tuned_away", d->tuned_away);
    cJSON_AddNumberToObject(device, "tuned_at", (double)d->tuned_at); /* seconds since 1970 */
    cJSON_AddStringToObject(device, "tuning_warning", d->tuning_warning);
    return device;
}

static void print_json(const peridot_device_info *devices, uint32_t count) {
    cJSON *list = cJSON_CreateArray();
    for (uint32_t i = 0; i < count; i++)
        cJSON_AddItemToArray(list, describe(&devices[i]));
    char *printed = cJSON_PrintUnformatted(list);
    if (printed)
        puts(printed);
    cJSON_free(printed);
    cJSON_Delete(list);
}

static void print_device(const peridot_device_info *d) {
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

int command_devices(struct options *options) {
    peridot_device_info devices[32] = {{.struct_size = sizeof *devices}};
    peridot_error error;
    uint32_t count = 0;
    if (peridot_devices_list(devices, 32, &count, &error))
        return complain(&error);
    count = count < 32 ? count : 32;
    if (options->json) {
        print_json(devices, count);
        return 0;
    }
    if (count == 0)
        printf("There is no Vulkan device here.\n");
    for (uint32_t i = 0; i < count; i++)
        print_device(&devices[i]);
    return 0;
}
