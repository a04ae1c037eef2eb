#include "split.h"
#include "memory_plan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What a layer's buffers take beyond their bytes, and a part's last block of memory. */
#define LAYER_SLACK 4096
#define BLOCK_SLACK ((uint64_t)64 << 20)

/* ---- What a caller says ---- */

static bool same_device(const struct device *a, const struct device *b) {
    return a == b || memcmp(a->info.uuid, b->info.uuid, sizeof a->info.uuid) == 0;
}

static peridot_result check_devices(const peridot_device *home, const peridot_model_params *params,
                                    peridot_error *error) {
    uint32_t count = params->more_device_count;
    if (count >= PERIDOT_DEVICES_MAX)
        return fail(error, PERIDOT_ERROR_ARGUMENT, "%u devices: a model runs on %d at most",
                    count + 1, PERIDOT_DEVICES_MAX);
    if (count && !params->more_devices)
        return fail(error, PERIDOT_ERROR_ARGUMENT, "more_devices is missing");
    for (uint32_t i = 0; i < count; i++) {
        if (!params->more_devices[i])
            return fail(error, PERIDOT_ERROR_ARGUMENT, "more_devices[%u] is NULL", i);
        const struct device *device = params->more_devices[i]->engine;
        bool twice = same_device(device, home->engine);
        for (uint32_t j = 0; j < i; j++)
            twice |= same_device(device, params->more_devices[j]->engine);
        if (twice)
            return fail(error, PERIDOT_ERROR_ARGUMENT,
                        "%s is among the devices twice: name each device once", device->info.name);
    }
    return PERIDOT_OK;
}

peridot_result split_check(const peridot_device *home, const peridot_model_params *params,
                           uint32_t layers, peridot_error *error) {
    uint32_t count = 1 + params->more_device_count;
    float sum = 0;
    peridot_result result = check_devices(home, params, error);
    if (result)
        return result;
    if (count > layers)
        return fail(error, PERIDOT_ERROR_ARGUMENT,
                    "%u devices for %u layer%s: a model runs on as many as it has layers at most",
                    count, layers, layers == 1 ? "" : "s");
    for (uint32_t i = 0; params->split && i < count; i++) {
        if (!(params->split[i] >= 0 && params->split[i] <= 1e9f))
            return fail(error, PERIDOT_ERROR_ARGUMENT,
                        "share %u of the split is %g: shares are numbers from 0 to 1e9", i + 1,
                        (double)params->split[i]);
        sum += params->split[i];
    }
    if (params->split && !(sum > 0))
        return fail(error, PERIDOT_ERROR_ARGUMENT,
                    "every share of the split is 0: one device at least must have layers");
    return PERIDOT_OK;
}

static void split_by_shares(struct peridot_model *model, const float *shares, uint32_t count) {
    double sum = 0, so_far = 0;
    uint32_t first = 0;
    for (uint32_t i = 0; i < count; i++)
        sum += (double)shares[i];
    for (struct peridot_model *part = model; part; part = part->next) {
        so_far += (double)*shares++;
        uint32_t end = (uint32_t)floor(model->config.layers * (so_far / sum) + 0.5);
        part->first_layer = first;
        part->layer_count = end - first;
        first = end;
    }
}

/* ---- What fits ---- */

/* A device, and what there is for layers beside all else that it must hold. */
struct place {
    struct peridot_model *part;
    double room;    /* bytes */
    uint32_t holds; /* layers, of the largest kind */
};

static bool is_software(const struct place *place) {
    return device_is_software(place->part->device->engine);
}

static uint64_t layer_weights(const struct layer *layer) {
    return weight_bytes(&layer->qkv) + weight_bytes(&layer->output) +
           weight_bytes(&layer->gate_up) + weight_bytes(&layer->down);
}

/* Bytes that each layer takes where it is, its part of the KV cache included. */
static void measure_layers(const struct peridot_model *model, double kv, double *costs) {
    uint64_t norms = 2ull * model->d_padded * 4;
    for (uint32_t i = 0; i < model->config.layers; i++)
        costs[i] = (double)(layer_weights(&model->layers[i]) + norms + LAYER_SLACK) + kv;
}

/* Bytes that a device has for layers: while they are uploaded, beside the staging ring, and later,
 * beside a session's working memory. A layer takes less while the cache is not there, `grows` times
 * less. */
static peridot_result measure_room(const struct peridot_model *part,
                                   const peridot_session_params *session, uint32_t context,
                                   uint64_t slack, double grows, double *room,
                                   peridot_error *error) {
    struct device *device = part->device->engine;
    struct peridot_model bare = *part;
    struct session_memory memory;
    uint64_t rope = (uint64_t)part->config.context * (part->config.head_dim / 2) * 2 * 4;
    uint64_t rest = rope + part->d_padded * 4ull + LAYER_SLACK + slack, loading = 0;
    bare.layer_count = 0;
    if (part->is_home)
        rest += weight_bytes(&part->embedding) + weight_bytes(&part->head);
    peridot_result result = memory_plan_session(&bare, session, context, &memory, error);
    if (!result)
        result = memory_plan_loading(device, rest, &loading, error);
    if (result)
        return result;
    double there = (double)memory_free(device);
    double first = (there - (double)loading) * grows;
    double then = there - (double)(rest + memory.working);
    *room = first < then ? first : then;
    *room = *room > 0 ? *room : 0;
    return PERIDOT_OK;
}

/* Software devices get the layers that no other has room for: they are slow, whatever their memory.
 */
static void spare_software(struct place *places, uint32_t count, uint32_t layers, double largest) {
    uint32_t held = 0;
    double software = 0;
    for (uint32_t i = 0; i < count; i++)
        if (is_software(&places[i]))
            software += places[i].room;
        else
            held += places[i].holds;
    double rest = layers > held ? (layers - held) * largest : 0;
    if (held == 0 || software == 0)
        return;
    for (uint32_t i = 0; i < count; i++) {
        if (is_software(&places[i]))
            places[i].room *= rest < software ? rest / software : 1;
        else if (rest > 0)
            places[i].room = places[i].holds * largest;
    }
}

/* Whole layers in proportion to the rooms and, if all have a place, to none more than it holds. */
static void cut(struct place *places, uint32_t count, const double *costs, uint32_t layers) {
    double all = 0, rooms = 0, target = 0, done = 0;
    uint32_t later = 0, last = 0, layer = 0;
    for (uint32_t i = 0; i < layers; i++)
        all += costs[i];
    for (uint32_t i = 0; i < count; i++) {
        rooms += places[i].room;
        later += places[i].holds;
        last = places[i].room > 0 ? i : last;
    }
    last = rooms > 0 ? last : count - 1;
    bool can_fit = later >= layers;
    for (uint32_t i = 0; i < count; i++) {
        struct peridot_model *part = places[i].part;
        double room = places[i].room;
        later -= places[i].holds;
        target += rooms > 0 ? all * places[i].room / rooms : all / count;
        part->first_layer = layer;
        while (layer < layers) {
            bool near = done + costs[layer] / 2 <= target, fits = costs[layer] <= room;
            bool wanted = can_fit ? fits && (near || layers - layer > later) : near;
            if (!wanted && i != last)
                break;
            room -= costs[layer];
            done += costs[layer++];
        }
        part->layer_count = layer - part->first_layer;
    }
}

static peridot_result split_by_memory(struct peridot_model *model,
                                      const peridot_session_params *session, uint32_t context,
                                      double *costs, peridot_error *error) {
    struct place places[PERIDOT_DEVICES_MAX];
    struct session_shape shape;
    uint32_t count = 0, layers = model->config.layers;
    double largest = 0, all = 0;
    peridot_session_params given = *session;
    given.context = context;
    peridot_result result = session_shape_settle(&model->config, &given, &shape, error);
    if (result)
        return result;
    uint64_t chunks = (context + KV_CHUNK - 1) / KV_CHUNK;
    double kv = (double)(kv_chunk_size(&model->config, 1, shape.kv) * chunks);
    measure_layers(model, kv, costs);
    for (uint32_t i = 0; i < layers; i++) {
        largest = costs[i] > largest ? costs[i] : largest;
        all += costs[i];
    }
    uint64_t slack = all >= (double)BLOCK_SLACK ? BLOCK_SLACK : 0;
    for (struct peridot_model *part = model->next; part; part = part->next)
        part->layer_count = 1; /* until it is settled: what lies between devices takes memory too */
    for (struct peridot_model *part = model; part && !result; part = part->next) {
        double room = 0;
        result =
            measure_room(part, session, context, slack, largest / (largest - kv), &room, error);
        double holds = floor(room / largest);
        places[count++] = (struct place){part, room, holds < layers ? (uint32_t)holds : layers};
    }
    if (result)
        return result;
    spare_software(places, count, layers, largest);
    cut(places, count, costs, layers);
    return PERIDOT_OK;
}

peridot_result split_layers(struct peridot_model *model, const peridot_model_params *params,
                            const peridot_session_params *session, uint32_t context,
                            peridot_error *error) {
    if (params->split) {
        split_by_shares(model, params->split, 1 + params->more_device_count);
        return PERIDOT_OK;
    }
    double *costs = malloc(model->config.layers * sizeof *costs);
    if (!costs)
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory while loading the model");
    peridot_result result = split_by_memory(model, session, context, costs, error);
    free(costs);
    return result;
}
