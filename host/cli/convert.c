/* peridot convert: a model to a GGUF file; needs no device. */
#include "cli.h"
#include "interrupt.h"

#include <unistd.h>

static bool on_progress(const peridot_progress *progress, void *user) {
    if (isatty(STDERR_FILENO))
        show_progress(progress, user);
    return !was_interrupted();
}

int command_convert(struct options *options) {
    if (!options->model || !options->output) {
        fprintf(stderr, "peridot: convert needs -m MODEL -o FILE.gguf\n");
        return 1;
    }
    peridot_error error;
    peridot_convert_params params = {
        .struct_size = sizeof params,
        .weights = options->weights.weights,
        .progress = on_progress,
        .message = show_message,
    };
    if (check_output(options->output, &error))
        return complain(&error);
    catch_interrupts();
    if (peridot_convert(options->model, options->output, &params, &error))
        return complain(&error);
    return 0;
}
