/* The table of kernels and variants (kernels.def), read as data. */
#ifndef ENGINE_KERNELS_H
#define ENGINE_KERNELS_H

#include "device.h"
#include "weight_types.h"

enum kernel {
#define KERNEL(name, constants, operands, typed) KERNEL_##name,
#define VARIANT(kernel, variant, file, defines, needs, workgroup, rows, columns)
#include "kernels.def"
#undef KERNEL
#undef VARIANT
    KERNEL_COUNT
};

enum access { ACCESS_READ = 1, ACCESS_WRITE = 2, ACCESS_BOTH = 3 };

#define KERNEL_OPERANDS_MAX 8

struct kernel_info {
    const char *name;
    uint32_t constants_size; /* bytes of push constants */
    uint32_t operand_count;
    const char *operand_names[KERNEL_OPERANDS_MAX]; /* not NUL-terminated: up to ':' */
    enum access operand_access[KERNEL_OPERANDS_MAX];
    bool typed; /* compiled once for each type of weights, or for some of them */
    uint32_t first_variant, variant_count; /* in the table of variants */
};

struct kernel_variant {
    enum kernel kernel;
    const char *name; /* "portable" … */
    const char *file;
    uint32_t needs;                    /* device_needs */
    uint32_t workgroup, rows, columns; /* as in kernels.def */
    struct {
        const uint32_t *words, *end; /* SPIR-V */
    } module[WEIGHT_TYPE_COUNT];     /* by weight type, NULL where it has none; or [0] alone */
};

struct kernel_info kernel_info(enum kernel kernel);
const struct kernel_variant *kernel_variants(uint32_t *count);
/* Whether the device can run it; if not, `why` (may be NULL) says what is missing. */
bool kernel_variant_supported(const struct device *device, const struct kernel_variant *variant,
                              const char **why);

#endif
