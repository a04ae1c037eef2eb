/* peridot inspect: a model's configuration, and the memory that it needs on the device. */
#include "cli.h"
#include "demo.h"

static void show_message(const char *text, void *user) {
    (void)user;
    fprintf(stderr, "peridot: %s\n", text);
}

static void print_model(const peridot_model_info *m) {
    printf("layers %u, d_model %u, MLP hidden %u\n", m->layers, m->d_model, m->hidden);
    printf("%u query heads and %u KV heads of %u\n", m->heads, m->kv_heads, m->head_dim);
    printf("vocabulary %u, context %u\n", m->vocabulary, m->context);
    printf("%.1f M parameters in %s%s\n", (double)m->parameters / 1e6, weights_name(m->weights),
           m->weights_chosen ? ", because the file's own do not fit" : "");
    printf("tokenizer: %s\n", !m->has_tokenizer ? "none"
                              : m->has_chat     ? "yes, with turn markers"
                                                : "yes, without turn markers");
    printf("fingerprint %016llx\n\n", (unsigned long long)m->fingerprint);
}

static double mebibytes(uint64_t bytes) {
    return (double)bytes / (1 << 20);
}

static void print_memory(const peridot_device_info *device, const peridot_model_info *m,
                         const peridot_memory_plan *plan) {
    printf("on %s\n", device->name);
    printf("  weights             %10.1f MiB\n", mebibytes(plan->weight_bytes));
    printf("  KV cache, %6u    %10.1f MiB (%.1f KiB a token)\n", plan->context,
           mebibytes(plan->kv_bytes), (double)plan->kv_token_bytes / 1024);
    printf("  working memory      %10.1f MiB\n", mebibytes(plan->working_bytes));
    printf("  all of these        %10.1f MiB\n", mebibytes(plan->total_bytes));
    printf("  staging             %10.1f MiB, while loading\n", mebibytes(plan->staging_bytes));
    printf("  free now            %10.1f MiB\n", mebibytes(plan->free_bytes));
    printf("  read per token      %10.1f MiB (%.2f %% more than the weights themselves)\n",
           mebibytes(m->padded_bytes),
           100.0 * ((double)m->padded_bytes / (double)m->ideal_bytes - 1));
    if (plan->fits)
        printf("it fits, with a context of up to %u\n", plan->largest_context);
    else if (plan->largest_context)
        printf("it does not fit: a context of %u would\n", plan->largest_context);
    else
        printf("it does not fit: the weights leave no room for any context\n");
}

int command_inspect(struct options *options) {
    peridot_error error;
    peridot_device *device;
    peridot_device_params with = options->device;
    with.struct_size = sizeof with;
    with.message = show_message;
    if (peridot_device_open(&with, &device, &error))
        return complain(&error);
    peridot_model_params params = options->weights;
    params.struct_size = sizeof params;
    peridot_session_params session = options->session;
    session.struct_size = sizeof session;
    params.session = &session;
    peridot_model_info info = {.struct_size = sizeof info};
    peridot_memory_plan plan = {.struct_size = sizeof plan};
    peridot_device_info on = {.struct_size = sizeof on};
    peridot_device_describe(device, &on);
    peridot_result result;
    if (options->model) {
        result =
            peridot_model_inspect(device, options->model, &params, &session, &info, &plan, &error);
    } else {
        peridot_file files[DEMO_FILES];
        demo_list(files);
        result = peridot_model_inspect_files(device, files, DEMO_FILES, &params, &session, &info,
                                             &plan, &error);
    }
    peridot_device_close(device);
    if (result)
        return complain(&error);
    print_model(&info);
    print_memory(&on, &info, &plan);
    return 0;
}
