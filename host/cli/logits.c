/* peridot logits: float32 [tokens][vocabulary] for int32 [tokens]. */
#include "cli.h"
#include "error.h"
#include "npy.h"

#include <stdlib.h>

static peridot_result check_tokens(const char *path, const int32_t *ids, size_t count,
                                   uint32_t vocabulary, peridot_error *error) {
    if (count == 0)
        return fail(error, PERIDOT_ERROR_ARGUMENT, "%s holds no tokens: give at least one", path);
    for (size_t i = 0; i < count; i++)
        if (ids[i] < 0 || (uint32_t)ids[i] >= vocabulary)
            return fail(error, PERIDOT_ERROR_ARGUMENT,
                        "%s: token %zu is %d; the model's tokens are 0 to %u", path, i, ids[i],
                        vocabulary - 1);
    return PERIDOT_OK;
}

static peridot_result run(struct options *options, peridot_model *model, const int32_t *ids,
                          size_t count, peridot_error *error) {
    peridot_model_info info = {.struct_size = sizeof info};
    peridot_model_describe(model, &info);
    peridot_session *session = NULL;
    peridot_result result = check_tokens(options->tokens, ids, count, info.vocabulary, error);
    if (result)
        return result;
    float *logits = malloc(count * info.vocabulary * sizeof *logits + 1);
    if (!logits)
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory for the logits of %zu tokens",
                    count);
    result = open_session(options, model, &session, error);
    if (!result) {
        report_start(options, model, session);
        result = peridot_session_prompt_wait(session, ids, count, logits, error);
    }
    if (!result)
        result = npy_write_floats(options->output, logits, count, info.vocabulary, error);
    peridot_session_close_wait(session);
    free(logits);
    return result;
}

int command_logits(struct options *options) {
    if (!options->tokens || !options->output || !options->model) {
        fprintf(stderr, "peridot: logits needs -m MODEL --tokens IN.npy -o OUT.npy\n");
        return 1;
    }
    peridot_error error;
    struct devices devices;
    peridot_model *model;
    int32_t *ids;
    size_t count;
    if (check_output(options->output, &error) ||
        npy_read_tokens(options->tokens, &ids, &count, &error))
        return complain(&error);
    peridot_result result = open_model(options, &devices, &model, &error);
    if (!result) {
        result = run(options, model, ids, count, &error);
        peridot_model_close(model);
        close_devices(&devices);
    }
    free(ids);
    return result ? complain(&error) : 0;
}
