/* The devices that --device names. */
#ifndef CLI_DEVICE_CHOICE_H
#define CLI_DEVICE_CHOICE_H

#include "cli.h"

/* Opens the device or, where the option names several with commas between them, all of them.
 * Errors: as peridot_device_open, ARGUMENT (shares that are not one for each device). */
peridot_result open_devices(const struct options *options, struct devices *devices,
                            peridot_error *error);

/* The options' parameters of a model on these devices. */
peridot_model_params model_params(const struct options *options, const struct devices *devices,
                                  const peridot_session_params *session);

/* Where a model does not fit on the one device there is, adds to the error which second device
 * would do, if one does. */
void suggest_second_device(const struct options *options, const struct devices *devices,
                           peridot_error *error);

#endif
