#include "kernels.h"
#include "abi.h"
#include "kernel_modules.h" /* generated: MODULES_<kernel>_<variant> */

#include <string.h>

#define KERNEL(name, constants, operands, typed)                                                   \
    [KERNEL_##name] = {#name, sizeof(struct constants), operands, typed},
#define VARIANT(kernel, variant, file, defines, needs, workgroup, rows, columns)
static const struct {
    const char *name;
    uint32_t constants_size;
    const char *operands;
    bool typed;
} rows[KERNEL_COUNT] = {
#include "kernels.def"
};
#undef KERNEL
#undef VARIANT

#define KERNEL(name, constants, operands, typed)
#define VARIANT(kernel, variant, file, defines, needs, workgroup, rows, columns)                   \
    {KERNEL_##kernel, #variant, #file,   needs,                                                    \
     workgroup,       rows,     columns, MODULES_##kernel##_##variant},
static const struct kernel_variant variants[] = {
#include "kernels.def"
};
#undef KERNEL
#undef VARIANT

#define VARIANT_COUNT (sizeof variants / sizeof *variants)

static enum access parse_access(char letter) {
    return letter == 'r' ? ACCESS_READ : letter == 'w' ? ACCESS_WRITE : ACCESS_BOTH;
}

struct kernel_info kernel_info(enum kernel kernel) {
    struct kernel_info info = {
        .name = rows[kernel].name,
        .constants_size = rows[kernel].constants_size,
        .typed = rows[kernel].typed,
    };
    for (const char *at = rows[kernel].operands; *at;) {
        info.operand_names[info.operand_count] = at;
        at = strchr(at, ':');
        info.operand_access[info.operand_count++] = parse_access(at[1]);
        at += at[2] == ' ' ? 3 : 2;
    }
    for (uint32_t i = 0; i < VARIANT_COUNT; i++) {
        if (variants[i].kernel != kernel)
            continue;
        if (info.variant_count++ == 0)
            info.first_variant = i;
    }
    return info;
}

const struct kernel_variant *kernel_variants(uint32_t *count) {
    if (count)
        *count = VARIANT_COUNT;
    return variants;
}

bool kernel_variant_supported(const struct device *device, const struct kernel_variant *variant,
                              const char **why) {
    const char *missing = NULL;
    uint32_t needs = variant->needs & ~device->needs_met;
    if (needs & NEEDS_SUBGROUP_ARITHMETIC)
        missing = "the device has no subgroup arithmetic, or it is not allowed";
    else if (needs & NEEDS_SUBGROUP_SHUFFLE)
        missing = "the device has no subgroup shuffle, or it is not allowed";
    else if (needs & NEEDS_PACKED_DOT)
        missing = "the device has no dot product of packed integers, or it is not allowed";
    else if (variant->workgroup > device->info.limits.max_workgroup)
        missing = "its workgroup is larger than the device allows";
    if (why)
        *why = missing;
    return !missing;
}
