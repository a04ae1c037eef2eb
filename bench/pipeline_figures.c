#include "pipeline_figures.h"

#include <stdlib.h>
#include <string.h>

/* ---- Names ---- */

static const struct {
    enum figure figure;
    const char *name;
} names[] = {
    {FIGURE_REGISTERS, "VGPRs"},              /* RADV, AMD */
    {FIGURE_REGISTERS, "Max live registers"}, /* ANV */
    {FIGURE_REGISTERS, "Number of GPRs"},     /* NVK */
    {FIGURE_REGISTERS, "Register Count"},     /* NVIDIA */
    {FIGURE_SPILLS, "Spilled SGPRs"},
    {FIGURE_SPILLS, "Spilled VGPRs"},
    {FIGURE_SPILLS, "Scratch size"},
    {FIGURE_SPILLS, "Spill count"},
    {FIGURE_SPILLS, "Fill count"},
    {FIGURE_SPILLS, "Scratch Memory Size"},
    {FIGURE_SPILLS, "SLM Size"},
    {FIGURE_SPILLS, "Local Memory Size"},
    {FIGURE_OCCUPANCY, "Subgroups per SIMD"},
    {FIGURE_OCCUPANCY, "Max warps/SM"},
    {FIGURE_INSTRUCTIONS, "Instructions"},
    {FIGURE_INSTRUCTIONS, "Instruction count"},
    {FIGURE_CYCLES, "Latency"},
    {FIGURE_CYCLES, "Cycle count"},
    {FIGURE_CYCLES, "Static cycle count"},
    {FIGURE_THROUGHPUT, "Inverse Throughput"},
    {FIGURE_CODE_BYTES, "Code size"},
    {FIGURE_CODE_BYTES, "Binary Size"},
};

/* Drivers change the case of their words from version to version. */
static bool same_words(const char *a, const char *b) {
    for (; *a && *b; a++, b++)
        if ((*a | 0x20) != (*b | 0x20))
            return false;
    return *a == *b;
}

static double value_of(const VkPipelineExecutableStatisticKHR *statistic) {
    switch (statistic->format) {
    case VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_BOOL32_KHR:
        return statistic->value.b32;
    case VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_INT64_KHR:
        return (double)statistic->value.i64;
    case VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_FLOAT64_KHR:
        return statistic->value.f64;
    default:
        return (double)statistic->value.u64;
    }
}

void figures_add(struct figures *figures, const VkPipelineExecutableStatisticKHR *statistic) {
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (same_words(names[i].name, statistic->name)) {
            figures->has[names[i].figure] = true;
            figures->at[names[i].figure] += value_of(statistic);
        }
}

/* ---- Asking ---- */

#define EXECUTABLES_MAX 8

static VkResult widest_executable(struct device *device, const struct pipeline *pipeline,
                                  uint32_t *widest) {
    VkPipelineInfoKHR info = {.sType = VK_STRUCTURE_TYPE_PIPELINE_INFO_KHR,
                              .pipeline = pipeline->handle};
    VkPipelineExecutablePropertiesKHR properties[EXECUTABLES_MAX];
    uint32_t count = EXECUTABLES_MAX;
    for (uint32_t i = 0; i < count; i++)
        properties[i] = (VkPipelineExecutablePropertiesKHR){
            .sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_PROPERTIES_KHR};
    VkResult code =
        device->vk.GetPipelineExecutablePropertiesKHR(device->handle, &info, &count, properties);
    *widest = 0;
    for (uint32_t i = 1; i < count && code >= 0; i++)
        if (properties[i].subgroupSize > properties[*widest].subgroupSize)
            *widest = i;
    return code < 0 ? code : VK_SUCCESS;
}

static VkPipelineExecutableInfoKHR executable_info(const struct pipeline *pipeline,
                                                   uint32_t index) {
    return (VkPipelineExecutableInfoKHR){.sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_INFO_KHR,
                                         .pipeline = pipeline->handle,
                                         .executableIndex = index};
}

peridot_result figures_read(struct device *device, const struct pipeline *pipeline,
                            struct figures *figures, peridot_error *error) {
    VkPipelineExecutableStatisticKHR statistics[64];
    uint32_t executable, count = sizeof statistics / sizeof *statistics;
    *figures = (struct figures){0};
    for (uint32_t i = 0; i < count; i++)
        statistics[i] = (VkPipelineExecutableStatisticKHR){
            .sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_STATISTIC_KHR};
    VkResult code = widest_executable(device, pipeline, &executable);
    VkPipelineExecutableInfoKHR info = executable_info(pipeline, executable);
    if (!code)
        code = device->vk.GetPipelineExecutableStatisticsKHR(device->handle, &info, &count,
                                                             statistics);
    if (code < 0)
        return device_fail(device, code, "asking for the compiler's figures", error);
    for (uint32_t i = 0; i < count; i++)
        figures_add(figures, &statistics[i]);
    return PERIDOT_OK;
}

/* ---- Machine code ---- */

#define REPRESENTATIONS_MAX 16

struct representations {
    VkPipelineExecutableInternalRepresentationKHR at[REPRESENTATIONS_MAX];
    uint32_t count;
};

static VkResult read_representations(struct device *device, const struct pipeline *pipeline,
                                     struct representations *all) {
    uint32_t executable;
    VkResult code = widest_executable(device, pipeline, &executable);
    VkPipelineExecutableInfoKHR info = executable_info(pipeline, executable);
    all->count = REPRESENTATIONS_MAX;
    for (uint32_t i = 0; i < REPRESENTATIONS_MAX; i++)
        all->at[i] = (VkPipelineExecutableInternalRepresentationKHR){
            .sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_INTERNAL_REPRESENTATION_KHR};
    if (!code) /* the sizes, then the texts */
        code = device->vk.GetPipelineExecutableInternalRepresentationsKHR(device->handle, &info,
                                                                          &all->count, all->at);
    for (uint32_t i = 0; i < all->count && code >= 0; i++)
        if (all->at[i].dataSize && !(all->at[i].pData = calloc(1, all->at[i].dataSize + 1)))
            return VK_ERROR_OUT_OF_HOST_MEMORY;
    if (code >= 0)
        code = device->vk.GetPipelineExecutableInternalRepresentationsKHR(device->handle, &info,
                                                                          &all->count, all->at);
    return code < 0 ? code : VK_SUCCESS;
}

static bool is_code(const VkPipelineExecutableInternalRepresentationKHR *text) {
    return strstr(text->name, "ssembl"); /* "Assembly", "Disassembly", "GEN Assembly" */
}

peridot_result figures_print_code(struct device *device, const struct pipeline *pipeline,
                                  FILE *stream, bool *printed, peridot_error *error) {
    struct representations all = {.count = 0};
    VkResult code = read_representations(device, pipeline, &all);
    bool any = false;
    *printed = false;
    for (uint32_t i = 0; i < all.count && !code; i++)
        any |= all.at[i].isText && is_code(&all.at[i]);
    for (uint32_t i = 0; i < all.count; i++) {
        const VkPipelineExecutableInternalRepresentationKHR *text = &all.at[i];
        if (!code && text->isText && text->pData && (is_code(text) || !any)) {
            fprintf(stream, "%s%s%s\n", any ? "" : text->name, any ? "" : ":\n",
                    (const char *)text->pData);
            *printed = true;
        }
        free(text->pData);
    }
    return code ? device_fail(device, code, "asking for machine code", error) : PERIDOT_OK;
}
