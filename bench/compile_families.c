#include "compile_families.h"
#include "bench.h"
#include "child_process.h"
#include "messages.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

const char *bench_program = "peridot-bench";

#define PATHS_MAX 2048

static bool is_intel(const char *family) {
    static const char *const platforms[] = {"tgl", "adl", "rpl", "dg1", "dg2",
                                            "mtl", "arl", "lnl", "bmg", "ptl"};
    for (size_t i = 0; i < sizeof platforms / sizeof *platforms; i++)
        if (strcmp(family, platforms[i]) == 0)
            return true;
    return false;
}

/* The drivers' files that begin so, with colons between them: of several processor architectures
 * the loader takes what it can load. */
static bool find_drivers(const char *start, char *paths, size_t size) {
    static const char *const folders[] = {"/usr/share/vulkan/icd.d",
                                          "/usr/local/share/vulkan/icd.d", "/etc/vulkan/icd.d"};
    size_t length = 0;
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        DIR *directory = opendir(folders[i]);
        for (struct dirent *entry; directory && length < size && (entry = readdir(directory));)
            if (strncmp(entry->d_name, start, strlen(start)) == 0)
                length += (size_t)snprintf(paths + length, size - length, "%s%s/%s",
                                           length ? ":" : "", folders[i], entry->d_name);
        if (directory)
            closedir(directory);
    }
    return length > 0 && length < size;
}

struct settings {
    char drivers[PATHS_MAX], family[128], preload[PATHS_MAX];
    const char *list[5];
};

static peridot_result make_settings(const char *family, struct settings *settings,
                                    peridot_error *error) {
    bool intel = is_intel(family);
    const char *given = getenv("VK_DRIVER_FILES"), *start = intel ? "intel_icd" : "radeon_icd";
    const char *shim = getenv("PERIDOT_INTEL_SHIM");
    char paths[PATHS_MAX - 32];
    uint32_t count = 0;
    if (!(given && strstr(given, start)) && !find_drivers(start, paths, sizeof paths))
        return fail(error, PERIDOT_ERROR_NO_DEVICE,
                    "%s needs Mesa's %s driver, which is not here: install it (Debian's package is "
                    "mesa-vulkan-drivers) or name it in VK_DRIVER_FILES",
                    family, intel ? "Intel" : "AMD");
    if (intel && !(shim && *shim))
        return fail(error, PERIDOT_ERROR_NO_DEVICE,
                    "%s needs PERIDOT_INTEL_SHIM, the folder of Mesa's libintel_noop_drm_shim.so",
                    family);
    if (!(given && strstr(given, start))) {
        snprintf(settings->drivers, sizeof settings->drivers, "VK_DRIVER_FILES=%s", paths);
        settings->list[count++] = settings->drivers;
    }
    snprintf(settings->family, sizeof settings->family, "%s=%s",
             intel ? "INTEL_STUB_GPU_PLATFORM" : "RADV_FORCE_FAMILY", family);
    settings->list[count++] = settings->family;
    if (intel) {
        snprintf(settings->preload, sizeof settings->preload,
                 "LD_PRELOAD=%s/libintel_noop_drm_shim.so", shim);
        settings->list[count++] = settings->preload;
    }
    settings->list[count] = NULL;
    return PERIDOT_OK;
}

/* Moves the rows that a child printed into the table. */
static peridot_result take_rows(const char *family, const char *output, size_t length,
                                struct table *table, peridot_error *error) {
    cJSON *file;
    peridot_result result = results_parse(output, length, family, "compile", &file, error);
    if (result)
        return result;
    cJSON *rows = cJSON_GetObjectItemCaseSensitive(file, table->key);
    for (cJSON *row; (row = cJSON_DetachItemFromArray(rows, 0));)
        cJSON_AddItemToArray(table->rows, row);
    cJSON_Delete(file);
    return PERIDOT_OK;
}

peridot_result compile_family(const char *family, const struct compile_choice *choice,
                              struct table *table, peridot_error *error) {
    struct settings settings;
    char *output = NULL;
    size_t length = 0;
    const char *arguments[16] = {bench_program, "compile", "--as-family", family,
                                 choice->code ? "--asm" : "--json"};
    uint32_t count = 5;
    if (choice->kernels) {
        arguments[count++] = "--kernel";
        arguments[count++] = choice->kernels;
    }
    if (choice->types) {
        arguments[count++] = "--type";
        arguments[count++] = choice->types;
    }
    arguments[count] = NULL;
    peridot_result result = make_settings(family, &settings, error);
    if (result)
        return result;
    progress("%s", family);
    result = child_run(family, arguments, settings.list, &output, &length, error);
    progress_end();
    if (!result && choice->code)
        fputs(output, stdout);
    else if (!result)
        result = take_rows(family, output, length, table, error);
    free(output);
    return result;
}
