#include "kernel_checks.h"
#include "reference/reference.h"
#include "session.h"

#include <math.h>
#include <string.h>

kernel_check *kernel_check_of(enum kernel kernel) {
    switch (kernel) {
    case KERNEL_embed:
        return check_embed;
    case KERNEL_rmsnorm:
        return check_rmsnorm;
    case KERNEL_capture:
        return check_capture;
    case KERNEL_quantise:
    case KERNEL_quantise_norm:
        return check_quantise;
    case KERNEL_kv_store:
        return check_kv_store;
    case KERNEL_attention_decode:
        return check_attention_decode;
    case KERNEL_attention_join:
        return check_attention_join;
    case KERNEL_attention_prefill:
        return check_attention_prefill;
    case KERNEL_batch_rows:
        return check_batch_rows;
    default:
        break;
    }
    if (kernel >= KERNEL_matvec_qkv && kernel <= KERNEL_dot_head)
        return check_projection;
    if (kernel >= KERNEL_sample_mark && kernel <= KERNEL_sample_finish)
        return check_sampler;
    return NULL;
}

struct case_shape case_shape_of(const struct model_config *config) {
    return (struct case_shape){.d_model = config->d_model,
                               .heads = config->heads,
                               .kv_heads = config->kv_heads,
                               .head_dim = config->head_dim,
                               .hidden = config->hidden,
                               .vocabulary = config->vocabulary,
                               .tokens = 1};
}

bool kernel_passes(struct bench *bench, kernel_check *check, const struct kernel_variant *variant,
                   uint32_t type) {
    jmp_buf caught;
    bool passes = false;
    bench->caught = &caught;
    if (setjmp(caught) == 0) {
        check(bench, variant, type);
        passes = true;
    } else {
        case_abandon(bench);
    }
    bench->caught = NULL;
    return passes;
}

uint32_t divide_up(uint32_t value, uint32_t by) {
    return (value + by - 1) / by;
}

struct session_block *session_of(struct plane *plane) {
    return plane->data;
}

struct plane *session_plane(struct bench *bench, uint32_t position, uint32_t rows) {
    struct plane *plane = plane_create(bench, "session", sizeof(struct session_block));
    struct session_block *block = session_of(plane);
    memset(block->kv_chunks, 0, sizeof block->kv_chunks);
    block->position = position;
    block->rows = rows;
    block->done = !bench->shape && between(bench, 0, 7) == 0;
    block->context = position + rows + between(bench, 0, 9);
    return plane;
}

/* ---- Quantised activations ---- */

void quantise_row(const float *x, uint32_t blocks, uint32_t *row, double *values) {
    int8_t *codes = (int8_t *)row;
    for (uint32_t b = 0; b < blocks; b++, x += QUANTISED_BLOCK) {
        float most = 0;
        int32_t sums[2] = {0, 0};
        for (uint32_t i = 0; i < QUANTISED_BLOCK; i++)
            most = fmaxf(most, fabsf(x[i]));
        float scale = most / 127;
        for (uint32_t i = 0; i < QUANTISED_BLOCK; i++) {
            int32_t code = scale > 0 ? (int32_t)lrint((double)x[i] / scale) : 0;
            codes[QUANTISED_BLOCK * b + i] = (int8_t)code;
            sums[i / (QUANTISED_BLOCK / 2)] += code;
            values[QUANTISED_BLOCK * b + i] = (double)scale * code;
        }
        uint32_t *place = row + QUANTISED_BLOCK / 4 * blocks + 2 * b;
        memcpy(place, &scale, 4);
        place[1] = (uint32_t)(sums[0] & 0xffff) | (uint32_t)sums[1] << 16;
    }
}

/* ---- The KV cache ---- */

static uint64_t row_size(const struct kv_case *kv) {
    return kv_row_bytes((peridot_kv)kv->type, kv->padded);
}

static uint64_t layer_size(const struct kv_case *kv) {
    return 2 * (uint64_t)kv->kv_heads * KV_CHUNK * row_size(kv);
}

void kv_create(struct bench *bench, struct kv_case *kv, struct plane *session, uint32_t begin,
               uint32_t end) {
    for (uint32_t i = begin / KV_CHUNK; i * KV_CHUNK < end; i++) {
        kv->chunks[i] = plane_create(bench, "a KV chunk", kv->layers * layer_size(kv));
        session_of(session)->kv_chunks[i] = kv->chunks[i]->address;
    }
}

uint32_t kv_layer_offset(const struct kv_case *kv) {
    return (uint32_t)(kv->layer * layer_size(kv) / 16);
}

uint64_t kv_row_at(const struct kv_case *kv, uint32_t which, uint32_t head, uint32_t position) {
    uint64_t row = (uint64_t)(which * kv->kv_heads + head) * KV_CHUNK + position % KV_CHUNK;
    return kv->layer * layer_size(kv) + row * row_size(kv);
}

void kv_write(const struct kv_case *kv, uint32_t which, uint32_t head, uint32_t position,
              double *row) {
    uint8_t *to =
        (uint8_t *)kv->chunks[position / KV_CHUNK]->data + kv_row_at(kv, which, head, position);
    if (kv->type == KV_Q8) {
        uint8_t *scales = to + 16 * KV_CODE_QUADS(kv->padded);
        reference_q8(row, kv->padded, (int8_t *)to, (uint16_t *)(void *)scales);
        return;
    }
    for (uint32_t i = 0; i < kv->padded; i++) {
        if (kv->type == KV_F16)
            ((uint16_t *)(void *)to)[i] = reference_double_to_f16(row[i]);
        else
            ((float *)(void *)to)[i] = (float)row[i];
        row[i] = kv_read(kv, which, head, position, i);
    }
}

double kv_read(const struct kv_case *kv, uint32_t which, uint32_t head, uint32_t position,
               uint32_t i) {
    const uint8_t *data = kv->chunks[position / KV_CHUNK]->data;
    const void *from = data + kv_row_at(kv, which, head, position);
    return kv->type == KV_F16 ? reference_f16_to_double(((const uint16_t *)from)[i])
                              : ((const float *)from)[i];
}

void kv_expect_pair(struct bench *bench, const struct kv_case *kv, uint32_t which, uint32_t head,
                    uint32_t position, uint32_t i) {
    uint64_t element = kv->type == KV_F16 ? 2 : 4;
    expect_change(bench, kv->chunks[position / KV_CHUNK],
                  kv_row_at(kv, which, head, position) + i * element, 2 * element);
}
