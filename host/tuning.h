/* What `peridot tune` found out about a device: which variant of a kernel, with which constants, is
 * the fastest for a model's sizes. Kept in the cache folder, a file for each device. */
#ifndef HOST_TUNING_H
#define HOST_TUNING_H

#include "kernel_search.h"

/* What was measured. A choice holds for models of this width alone: what is best for a narrow
 * matrix need not be so for a wide one. */
struct tuning_place {
    enum kernel kernel;
    uint32_t type;    /* of weights; 0 for untyped kernels */
    uint32_t columns; /* as kernel_set_columns has them */
    uint32_t width;   /* d_model, or the padded head_dim in attention */
    uint32_t group;   /* query heads to a KV head, and the KV cache's type: in attention, else 0 */
    uint32_t kv;
};

struct tuned {
    struct tuning_place place;
    const struct kernel_variant *variant;
    uint32_t spec[SPEC_HEAD_DIM]; /* workgroup, rows, columns */
    double gain;                  /* the untuned time by this one; 1: what is used untuned stays */
};

/* All zero: nothing is tuned. */
struct tuning {
    struct tuned *entries; /* stb_ds */
    int64_t made;          /* seconds since 1970 */
};

/* The tuning of a device in a folder. Where it cannot be used, or in part, nothing is there of that
 * part and `word` [TUNING_WORD] says why, in a sentence; else it is empty. Every value is one that
 * kernel_search_list has for the device. Of `device` only info and needs_met count. */
#define TUNING_WORD 768
void tuning_read(const struct device *device, const char *directory, struct tuning *tuning,
                 char *word);
/* The same from a file's text; for tests and the fuzzer too. */
void tuning_parse(const struct device *device, const char *path, const char *text, size_t size,
                  struct tuning *tuning, char *word);
/* Keeps it, in place of what is there. Errors: FILE, HOST_MEMORY. */
peridot_result tuning_write(const struct device *device, const char *directory,
                            const struct tuning *tuning, peridot_error *error);
/* False: too long. */
bool tuning_path(const struct device *device, const char *directory, char *path, size_t size);
void tuning_free(struct tuning *tuning); /* leaves it all zero */

/* The entry of a place; NULL: it is not tuned. `tuning` may be NULL. */
const struct tuned *tuning_find(const struct tuning *tuning, const struct tuning_place *place);
/* Adds an entry, or replaces the one of that place. */
void tuning_set(struct tuning *tuning, const struct tuned *entry);

uint32_t tuning_count(const struct tuning *tuning);
/* Of those, other than what is used untuned. */
uint32_t tuning_count_away(const struct tuning *tuning);

/* Tells the SPIR-V of all variants of a kernel, in one type of weights, from any other. */
uint64_t tuning_hash(enum kernel kernel, uint32_t type);

#endif
