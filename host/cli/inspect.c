/* peridot inspect: a model's configuration, and the memory that it needs on the device. */
#include "cli.h"
#include "demo.h"
#include "device_choice.h"

#include <cjson/cJSON.h>

struct inspection {
    peridot_model_info info;
    peridot_memory_plan plan;
};

/* Of all weights but the norms, which stay float32. */
static double bits_per_weight(const peridot_model_info *m) {
    uint64_t norms = (2ull * m->layers + 1) * m->d_model;
    return 8.0 * (double)m->ideal_bytes / (double)(m->parameters - norms);
}

static void print_model(const peridot_model_info *m) {
    printf("layers %u, d_model %u, MLP hidden %u\n", m->layers, m->d_model, m->hidden);
    printf("%u query heads and %u KV heads of %u\n", m->heads, m->kv_heads, m->head_dim);
    printf("vocabulary %u, context %u\n", m->vocabulary, m->context);
    printf("%.1f M parameters in %s, %.2f bits each%s\n", (double)m->parameters / 1e6,
           weights_name(m->weights), bits_per_weight(m),
           m->weights_chosen ? ", because the file's own do not fit" : "");
    printf("tokenizer: %s\n", !m->has_tokenizer ? "none"
                              : m->has_chat     ? "yes, with turn markers"
                                                : "yes, without turn markers");
    printf("fingerprint %016llx\n\n", (unsigned long long)m->fingerprint);
}

static double mebibytes(uint64_t bytes) {
    return (double)bytes / (1 << 20);
}

/* The same by device, in columns. */
static void print_devices(const peridot_device_info *on, const peridot_memory_plan *plan) {
    printf("  %-30s %7s %9s %9s %9s %9s\n", "MiB by device", "layers", "weights", "KV cache",
           "working", "free");
    for (uint32_t i = 0; i < plan->device_count; i++)
        printf("  %-30.30s %7u %9.1f %9.1f %9.1f %9.1f\n", on[i].name, plan->device_layers[i],
               mebibytes(plan->device_weight_bytes[i]), mebibytes(plan->device_kv_bytes[i]),
               mebibytes(plan->device_working_bytes[i]), mebibytes(plan->device_free_bytes[i]));
}

static void print_memory(const peridot_device_info *on, const peridot_model_info *m,
                         const peridot_memory_plan *plan) {
    for (uint32_t i = 0; i < plan->device_count; i++)
        printf("%s%s", i ? " and " : "on ", on[i].name);
    printf("\n");
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
    if (plan->device_count > 1)
        print_devices(on, plan);
}

static void add_devices(cJSON *json, const peridot_device_info *on,
                        const peridot_memory_plan *plan) {
    cJSON *list = cJSON_AddArrayToObject(json, "devices");
    for (uint32_t i = 0; i < plan->device_count; i++) {
        cJSON *device = cJSON_CreateObject();
        cJSON_AddStringToObject(device, "device", on[i].name);
        cJSON_AddNumberToObject(device, "layers", plan->device_layers[i]);
        cJSON_AddNumberToObject(device, "weight_bytes", (double)plan->device_weight_bytes[i]);
        cJSON_AddNumberToObject(device, "kv_bytes", (double)plan->device_kv_bytes[i]);
        cJSON_AddNumberToObject(device, "working_bytes", (double)plan->device_working_bytes[i]);
        cJSON_AddNumberToObject(device, "free_bytes", (double)plan->device_free_bytes[i]);
        cJSON_AddItemToArray(list, device);
    }
}

static void add_memory(cJSON *json, const peridot_memory_plan *plan) {
    cJSON_AddNumberToObject(json, "weight_bytes", (double)plan->weight_bytes);
    cJSON_AddNumberToObject(json, "kv_bytes", (double)plan->kv_bytes);
    cJSON_AddNumberToObject(json, "kv_token_bytes", (double)plan->kv_token_bytes);
    cJSON_AddNumberToObject(json, "working_bytes", (double)plan->working_bytes);
    cJSON_AddNumberToObject(json, "staging_bytes", (double)plan->staging_bytes);
    cJSON_AddNumberToObject(json, "total_bytes", (double)plan->total_bytes);
    cJSON_AddNumberToObject(json, "free_bytes", (double)plan->free_bytes);
    cJSON_AddNumberToObject(json, "kv_context", plan->context);
    cJSON_AddNumberToObject(json, "largest_context", plan->largest_context);
    cJSON_AddBoolToObject(json, "fits", plan->fits);
}

static void print_json(const peridot_device_info *device, const peridot_model_info *m,
                       const peridot_memory_plan *plan) {
    char fingerprint[20];
    snprintf(fingerprint, sizeof fingerprint, "%016llx", (unsigned long long)m->fingerprint);
    cJSON *json = cJSON_CreateObject();
    cJSON_AddNumberToObject(json, "layers", m->layers);
    cJSON_AddNumberToObject(json, "d_model", m->d_model);
    cJSON_AddNumberToObject(json, "hidden", m->hidden);
    cJSON_AddNumberToObject(json, "heads", m->heads);
    cJSON_AddNumberToObject(json, "kv_heads", m->kv_heads);
    cJSON_AddNumberToObject(json, "head_dim", m->head_dim);
    cJSON_AddNumberToObject(json, "vocabulary", m->vocabulary);
    cJSON_AddNumberToObject(json, "context", m->context);
    cJSON_AddNumberToObject(json, "parameters", (double)m->parameters);
    cJSON_AddStringToObject(json, "weights", weights_name(m->weights));
    cJSON_AddNumberToObject(json, "bits_per_weight", bits_per_weight(m));
    cJSON_AddBoolToObject(json, "tokenizer", m->has_tokenizer);
    cJSON_AddBoolToObject(json, "turn_markers", m->has_chat);
    cJSON_AddNumberToObject(json, "read_bytes", (double)m->padded_bytes); /* for a token */
    cJSON_AddStringToObject(json, "fingerprint", fingerprint);
    cJSON_AddStringToObject(json, "device", device->name);
    add_memory(json, plan);
    add_devices(json, device, plan);
    char *printed = cJSON_PrintUnformatted(json);
    if (printed)
        puts(printed);
    cJSON_free(printed);
    cJSON_Delete(json);
}

/* Whether it fits, or what would. */
static void print_verdict(const struct inspection *as_asked, const struct inspection *at_best) {
    const peridot_memory_plan *plan = &as_asked->plan;
    if (plan->fits)
        printf("it fits, with a context of up to %u\n", plan->largest_context);
    else if (plan->largest_context)
        printf("it does not fit: a context of %u would\n", plan->largest_context);
    else if (at_best->plan.largest_context)
        printf("it does not fit: --weights %s would, with a context of up to %u\n",
               at_best->info.weights_chosen ? weights_name(at_best->info.weights) : "file",
               at_best->plan.largest_context);
    else
        printf("it does not fit, with no context and not even as q2_k\n");
}

static peridot_result inspect(const struct options *options, const struct devices *devices,
                              peridot_weights weights, uint32_t context,
                              struct inspection *inspection, peridot_error *error) {
    peridot_session_params session = options->session;
    session.struct_size = sizeof session;
    session.context = context;
    peridot_model_params params = model_params(options, devices, &session);
    params.weights = weights;
    inspection->info = (peridot_model_info){.struct_size = sizeof inspection->info};
    inspection->plan = (peridot_memory_plan){.struct_size = sizeof inspection->plan};
    if (options->model)
        return peridot_model_inspect(devices->list[0], options->model, &params, &session,
                                     &inspection->info, &inspection->plan, error);
    peridot_file files[DEMO_FILES];
    demo_list(files);
    return peridot_model_inspect_files(devices->list[0], files, DEMO_FILES, &params, &session,
                                       &inspection->info, &inspection->plan, error);
}

int command_inspect(struct options *options) {
    peridot_error error;
    struct devices devices;
    if (open_devices(options, &devices, &error))
        return complain(&error);
    struct inspection as_asked, at_best;
    peridot_device_info on[PERIDOT_DEVICES_MAX];
    for (uint32_t i = 0; i < devices.count; i++) {
        on[i].struct_size = sizeof *on;
        peridot_device_describe(devices.list[i], &on[i]);
    }
    peridot_result result = inspect(options, &devices, options->weights.weights,
                                    options->session.context, &as_asked, &error);
    if (!result)
        result = inspect(options, &devices, PERIDOT_WEIGHTS_AUTO, 0, &at_best, &error);
    close_devices(&devices);
    if (result)
        return complain(&error);
    if (options->json) {
        print_json(on, &as_asked.info, &as_asked.plan);
        return 0;
    }
    print_model(&as_asked.info);
    print_memory(on, &as_asked.info, &as_asked.plan);
    print_verdict(&as_asked, &at_best);
    return 0;
}
