#include "device_choice.h"
#include "error.h"

#include <stdlib.h>
#include <string.h>

static peridot_result open_one(const struct options *options, const char *choice,
                               struct devices *devices, peridot_error *error) {
    peridot_device_params params = options->device;
    params.struct_size = sizeof params;
    params.message = show_message;
    params.choice = choice;
    peridot_result result = peridot_device_open(&params, &devices->list[devices->count], error);
    devices->count += result == PERIDOT_OK;
    return result;
}

/* Every name between commas. */
static peridot_result open_list(const struct options *options, struct devices *devices,
                                peridot_error *error) {
    peridot_result result = PERIDOT_OK;
    const char *end, *text = options->device.choice;
    for (const char *at = text; at && !result; at = *end ? end + 1 : NULL) {
        char name[320];
        end = at + strcspn(at, ",");
        if (end == at)
            return fail(error, PERIDOT_ERROR_ARGUMENT,
                        "--device has nothing before or after a comma in \"%.80s\": it takes "
                        "devices such as 0,1",
                        text);
        if (devices->count == PERIDOT_DEVICES_MAX)
            return fail(error, PERIDOT_ERROR_ARGUMENT, "--device takes up to %d devices",
                        PERIDOT_DEVICES_MAX);
        snprintf(name, sizeof name, "%.*s", (int)(end - at), at);
        result = open_one(options, name, devices, error);
    }
    return result;
}

peridot_result open_devices(const struct options *options, struct devices *devices,
                            peridot_error *error) {
    const char *choice = options->device.choice;
    devices->count = 0;
    peridot_result result = open_one(options, choice, devices, error);
    /* a comma may also be part of one device's name */
    if (result == PERIDOT_ERROR_NO_DEVICE && choice && strchr(choice, ','))
        result = open_list(options, devices, error);
    if (!result && options->share_count && options->share_count != devices->count)
        result = fail(error, PERIDOT_ERROR_ARGUMENT,
                      "--split has %u share%s and --device names %u device%s: give one share for "
                      "each device",
                      options->share_count, options->share_count == 1 ? "" : "s", devices->count,
                      devices->count == 1 ? "" : "s");
    if (result)
        close_devices(devices);
    return result;
}

void close_devices(struct devices *devices) {
    while (devices->count > 0)
        peridot_device_close(devices->list[--devices->count]);
}

peridot_model_params model_params(const struct options *options, const struct devices *devices,
                                  const peridot_session_params *session) {
    peridot_model_params params = options->weights;
    params.struct_size = sizeof params;
    params.session = session;
    params.more_devices = devices->list + 1;
    params.more_device_count = devices->count - 1;
    params.split = options->share_count ? options->shares : NULL;
    return params;
}

static bool fits(const struct options *options, const struct devices *devices) {
    peridot_session_params session = options->session;
    session.struct_size = sizeof session;
    peridot_model_params params = model_params(options, devices, &session);
    peridot_memory_plan plan = {.struct_size = sizeof plan};
    return options->model &&
           !peridot_model_inspect(devices->list[0], options->model, &params, &session, NULL, &plan,
                                  NULL) &&
           plan.fits;
}

void suggest_second_device(const struct options *options, const struct devices *devices,
                           peridot_error *error) {
    peridot_device_info all[32] = {{.struct_size = sizeof *all}};
    peridot_device_info first = {.struct_size = sizeof first};
    uint32_t count = 0;
    if (devices->count != 1 || peridot_devices_list(all, 32, &count, NULL))
        return;
    peridot_device_describe(devices->list[0], &first);
    for (int software = 0; software < 2; software++) /* only where nothing faster does */
        for (uint32_t i = 0; i < count && i < 32; i++) {
            struct devices both = {{devices->list[0]}, 1};
            bool is_software = strcmp(all[i].kind, "software") == 0;
            if (!all[i].usable || is_software != software || strcmp(all[i].uuid, first.uuid) == 0 ||
                open_one(options, all[i].uuid, &both, NULL))
                continue;
            bool enough = fits(options, &both);
            peridot_device_close(both.list[1]);
            if (!enough)
                continue;
            size_t length = strlen(error->message);
            snprintf(error->message + length, sizeof error->message - length,
                     "; on two devices it fits: --device %u,%u", first.index, all[i].index);
            return;
        }
}
