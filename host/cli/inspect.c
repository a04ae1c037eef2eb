/* peridot inspect: a model's configuration, and the memory that it needs on the device. */
#include "cli.h"

static const char *const weight_names[] = {"mixed", "float32", "bfloat16", "float16"};

static void print_model(const peridot_model_info *m) {
    printf("layers %u, d_model %u, MLP hidden %u\n", m->layers, m->d_model, m->hidden);
    printf("%u query heads and %u KV heads of %u\n", m->heads, m->kv_heads, m->head_dim);
    printf("vocabulary %u, context %u\n", m->vocabulary, m->context);
    printf("%.1f M parameters in %s\n", (double)m->parameters / 1e6, weight_names[m->weights]);
    printf("tokenizer: %s\n", !m->has_tokenizer ? "none"
                              : m->has_chat     ? "yes, with turn markers"
                                                : "yes, without turn markers");
    printf("fingerprint %016llx\n\n", (unsigned long long)m->fingerprint);
}

static void print_memory(const peridot_device_info *device, const peridot_model_info *m,
                         const struct options *options) {
    uint32_t context = options->context ? options->context : m->context;
    double element = options->session.kv == PERIDOT_KV_F32 ? 4 : 2;
    double token = 2 * element * m->layers * m->kv_heads * m->head_dim;
    printf("on %s\n", device->name);
    printf("  weights             %10.1f MiB\n", (double)m->weight_bytes / (1 << 20));
    printf("  KV cache, per token %10.1f KiB\n", token / 1024);
    printf("  KV cache, %6u    %10.1f MiB\n", context, token * context / (1 << 20));
    printf("  read per token      %10.1f MiB (%.2f %% more than the weights themselves)\n",
           (double)m->padded_bytes / (1 << 20),
           100.0 * ((double)m->padded_bytes / (double)m->ideal_bytes - 1));
    printf("  free now            %10.1f MiB\n", (double)device->memory_free / (1 << 20));
}

int command_inspect(struct options *options) {
    peridot_error error;
    peridot_device *device;
    peridot_model *model;
    if (open_model(options, &device, &model, &error))
        return complain(&error);
    peridot_model_info info;
    peridot_device_info on;
    peridot_model_describe(model, &info);
    peridot_device_describe(device, &on);
    print_model(&info);
    print_memory(&on, &info, options);
    peridot_model_close(model);
    peridot_device_close(device);
    return 0;
}
