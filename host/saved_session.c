/* Sessions on disk: a header, tokens, the KV cache as [layer][K or V][head][position] rows just as
 * abi.h has them, the caller's bytes, and a checksum over all of it. */
#include "checksum.h"
#include "constraint.h"
#include "platform.h"
#include "suspension.h"

#include <stdlib.h>
#include <string.h>

#define MAGIC "PDOTSES1"
#define EXTRA_MAX (64u << 20)

struct header {
    char magic[8];
    uint64_t fingerprint;
    uint32_t kv, layers, kv_heads, head_dim; /* kv: an index of kv_types */
    uint32_t length, computed, prompt_end, reserved;
    uint64_t seed, extra_size;
    float temperature, top_p, min_p, repetition_penalty;
    uint32_t top_k, penalty_window, min_tokens, reserved_too;
};

/* In the order of the file format. */
static const peridot_kv kv_types[] = {PERIDOT_KV_F32, PERIDOT_KV_F16, PERIDOT_KV_Q8};
#define KV_TYPES (sizeof kv_types / sizeof *kv_types)

static uint32_t kv_index(peridot_kv kv) {
    uint32_t index = 0;
    while (kv_types[index] != kv)
        index++;
    return index;
}

static struct header describe(const struct peridot_session *session, size_t extra_size) {
    const struct peridot_model *model = session->model;
    const peridot_sampling *s = &session->sampling;
    struct header header = {
        .magic = MAGIC,
        .fingerprint = model->fingerprint,
        .kv = kv_index(session->kv),
        .layers = model->config.layers,
        .kv_heads = model->config.kv_heads,
        .head_dim = model->head_dim_padded,
        .length = session->length,
        .computed = session->computed,
        .prompt_end = session->prompt_end,
        .seed = s->seed,
        .extra_size = extra_size,
        .temperature = s->temperature,
        .top_p = s->top_p,
        .min_p = s->min_p,
        .repetition_penalty = s->repetition_penalty,
        .top_k = s->top_k,
        .penalty_window = s->penalty_window,
        .min_tokens = s->min_tokens,
    };
    return header;
}

/* Bytes of the KV cache of `computed` positions, and of one row of it. */
static uint64_t row_bytes(const struct header *header) {
    return kv_row_bytes(kv_types[header->kv], header->head_dim);
}

static uint64_t kv_bytes(const struct header *header) {
    return 2ull * header->layers * header->kv_heads * header->computed * row_bytes(header);
}

/* ---- The KV cache ---- */

static peridot_result read_cache(struct peridot_session *session, const struct header *header,
                                 uint8_t *kv, peridot_error *error) {
    if (session->suspension) {
        suspension_rows(session, header->computed, kv);
        return PERIDOT_OK;
    }
    return session_copy_run(&(struct session_copy){.session = session,
                                                   .to_host = true,
                                                   .rows = kv,
                                                   .positions = header->computed,
                                                   .stride = header->computed},
                            error);
}

static peridot_result write_cache(struct peridot_session *session, const struct header *header,
                                  const uint8_t *tokens, uint8_t *kv, peridot_error *error) {
    return session_copy_run(&(struct session_copy){.session = session,
                                                   .rows = kv,
                                                   .positions = header->computed,
                                                   .stride = header->computed,
                                                   .tokens = (const int32_t *)(const void *)tokens,
                                                   .token_count = header->length},
                            error);
}

/* ---- Saving ---- */

struct contents {
    struct header header;
    const int32_t *tokens;
    uint8_t *kv;
    const void *extra;
    uint64_t checksum;
};

static bool put(FILE *stream, struct contents *contents, const void *data, size_t size) {
    contents->checksum = checksum_add(contents->checksum, data, size);
    return size == 0 || fwrite(data, 1, size, stream) == size;
}

static bool write_contents(FILE *stream, void *user) {
    struct contents *c = user;
    c->checksum = CHECKSUM_START;
    return put(stream, c, &c->header, sizeof c->header) &&
           put(stream, c, c->tokens, c->header.length * sizeof *c->tokens) &&
           put(stream, c, c->kv, kv_bytes(&c->header)) &&
           put(stream, c, c->extra, c->header.extra_size) &&
           fwrite(&c->checksum, sizeof c->checksum, 1, stream) == 1;
}

peridot_result peridot_session_save_wait(peridot_session *session, const char *path,
                                         const void *extra, size_t extra_size,
                                         peridot_error *error) {
    if (!session || !path || (!extra && extra_size))
        return fail(error, PERIDOT_ERROR_ARGUMENT,
                    "peridot_session_save_wait needs a session, a path and the caller's bytes");
    peridot_result idle = session_check_idle(session, error);
    if (idle)
        return idle;
    if (extra_size > EXTRA_MAX)
        return fail(error, PERIDOT_ERROR_ARGUMENT, "more than 64 MiB of the caller's own to save");
    struct contents contents = {
        .header = describe(session, extra_size), .tokens = session->held, .extra = extra};
    contents.kv = malloc(kv_bytes(&contents.header) + 1);
    if (!contents.kv)
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory while saving %s", path);
    peridot_result result = read_cache(session, &contents.header, contents.kv, error);
    if (!result)
        result = platform_replace_file(path, write_contents, &contents, error);
    free(contents.kv);
    return result;
}

/* ---- Loading ---- */

static peridot_result refuse_other(const char *path, peridot_error *error) {
    return fail(error, PERIDOT_ERROR_FORMAT, "%s: not a saved Peridot session", path);
}

peridot_result saved_session_check(const uint8_t *data, size_t size, const char *path,
                                   peridot_error *error) {
    struct header header;
    if (size < sizeof header + 8 || memcmp(data, MAGIC, 8) != 0)
        return refuse_other(path, error);
    memcpy(&header, data, sizeof header);
    uint64_t sum = checksum_add(CHECKSUM_START, data, size - 8), stored;
    memcpy(&stored, data + size - 8, 8);
    bool sane = header.computed <= header.length && header.length <= 32768 &&
                header.kv < KV_TYPES && header.prompt_end <= header.length &&
                header.layers <= 1024 && header.kv_heads <= 1024 && header.head_dim <= 512 &&
                header.extra_size <= EXTRA_MAX;
    if (!sane || sum != stored ||
        size != sizeof header + header.length * 4ull + kv_bytes(&header) + header.extra_size + 8)
        return fail(error, PERIDOT_ERROR_FORMAT, "%s: the saved session is damaged or incomplete",
                    path);
    return PERIDOT_OK;
}

static peridot_result check_fit(const struct peridot_session *session, const struct header *header,
                                const uint8_t *tokens, const char *path, peridot_error *error) {
    struct header own = describe(session, 0);
    if (header->fingerprint != own.fingerprint || header->layers != own.layers ||
        header->kv_heads != own.kv_heads || header->head_dim != own.head_dim)
        return fail(error, PERIDOT_ERROR_UNSUPPORTED, "%s was saved with another model", path);
    if (header->kv != own.kv)
        return fail(error, PERIDOT_ERROR_UNSUPPORTED,
                    "%s was saved with --kv %s: use that here too", path,
                    kv_name(kv_types[header->kv]));
    if (header->length > session->context)
        return fail(error, PERIDOT_ERROR_CONTEXT_FULL,
                    "%s holds %u tokens and the context %u: give a larger --context", path,
                    header->length, session->context);
    for (uint32_t i = 0; i < header->length; i++) {
        int32_t id;
        memcpy(&id, tokens + 4 * i, 4);
        if (id < 0 || (uint32_t)id >= session->model->config.vocabulary)
            return fail(error, PERIDOT_ERROR_FORMAT, "%s: token %u is out of range", path, i);
    }
    return PERIDOT_OK;
}

static peridot_result restore(struct peridot_session *session, const struct header *header,
                              const uint8_t *tokens, peridot_error *error) {
    uint8_t *kv = (uint8_t *)(uintptr_t)tokens + header->length * 4ull; /* only read */
    peridot_result result = kv_cache_reserve(session, header->computed, error);
    if (result)
        return result; /* the session is as it was */
    result = write_cache(session, header, tokens, kv, error);
    session->computed = 0; /* whatever was there is written over */
    session->length = 0;
    session->logits_valid = false;
    constraint_truncate(session, 0);
    if (result)
        return result;
    memcpy(session->held, tokens, header->length * 4ull);
    session->length = header->length;
    session->computed = header->computed;
    session->prompt_end = header->prompt_end;
    constraint_restart(session);
    peridot_sampling sampling = {
        .struct_size = sizeof sampling,
        .temperature = header->temperature,
        .top_k = header->top_k,
        .top_p = header->top_p,
        .min_p = header->min_p,
        .repetition_penalty = header->repetition_penalty,
        .penalty_window = header->penalty_window,
        .min_tokens = header->min_tokens,
        .seed = header->seed,
    };
    return peridot_session_sampling(session, &sampling, error);
}

static peridot_result copy_extra(const struct header *header, const uint8_t *from, void **extra,
                                 size_t *extra_size, peridot_error *error) {
    if (!extra)
        return PERIDOT_OK;
    *extra = malloc(header->extra_size + 1);
    if (!*extra)
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory while loading the session");
    memcpy(*extra, from, header->extra_size);
    ((char *)*extra)[header->extra_size] = '\0';
    *extra_size = header->extra_size;
    return PERIDOT_OK;
}

static peridot_result check_magic(const char *path, peridot_error *error) {
    char magic[8];
    struct open_file file;
    peridot_result result = platform_open_file(path, &file, error);
    if (!result && file.size < sizeof magic)
        result = refuse_other(path, error);
    if (!result)
        result = platform_read_at(&file, path, 0, magic, sizeof magic, error);
    if (!result && memcmp(magic, MAGIC, sizeof magic) != 0)
        result = refuse_other(path, error);
    platform_close_file(&file);
    return result;
}

peridot_result peridot_session_load_wait(peridot_session *session, const char *path, void **extra,
                                         size_t *extra_size, peridot_error *error) {
    struct file_bytes file;
    struct header header;
    if (!session || !path || !extra != !extra_size)
        return fail(error, PERIDOT_ERROR_ARGUMENT,
                    "peridot_session_load_wait needs a session and a path, and places for the "
                    "caller's bytes and their number or for neither");
    if (extra) {
        *extra = NULL;
        *extra_size = 0;
    }
    peridot_result result = session_check_present(session, error);
    if (!result)
        result = check_magic(path, error); /* other files may be large */
    if (!result)
        result = platform_read_file(path, &file, error);
    if (result)
        return result;
    result = saved_session_check(file.data, file.size, path, error);
    if (!result) {
        memcpy(&header, file.data, sizeof header);
        result = check_fit(session, &header, file.data + sizeof header, path, error);
    }
    if (!result)
        result = copy_extra(&header, file.data + file.size - 8 - header.extra_size, extra,
                            extra_size, error);
    if (!result) {
        result = restore(session, &header, file.data + sizeof header, error);
        if (result && extra) {
            free(*extra);
            *extra = NULL;
            *extra_size = 0;
        }
    }
    platform_free_file(&file);
    return result;
}
