#include "refusing_memory.h"

#include <malloc.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static struct {
    atomic_bool armed;
    atomic_uint left, refused; /* left: allocations until one is refused */
    uint32_t every;
    atomic_llong live;
} sources[MEMORY_SOURCES];

void refusing_memory_fail(enum memory_source source, uint32_t nth, uint32_t every) {
    sources[source].left = nth;
    sources[source].every = every;
    sources[source].refused = 0;
    sources[source].armed = true;
}

void refusing_memory_mend(enum memory_source source) {
    sources[source].armed = false;
}

uint32_t refusing_memory_refused(enum memory_source source) {
    return sources[source].refused;
}

int64_t refusing_memory_live(enum memory_source source) {
    return sources[source].live;
}

static bool refuses(enum memory_source source) {
    if (!sources[source].armed || atomic_fetch_sub(&sources[source].left, 1) > 0)
        return false;
    sources[source].left = sources[source].every - 1;
    sources[source].armed = sources[source].every > 0;
    sources[source].refused++;
    return true;
}

static void *count(enum memory_source source, void *memory) {
    sources[source].live += memory != NULL;
    return memory;
}

/* ---- The library's ---- */

/* Named by the linker: what Peridot, and the test, calls. */
void *__real_malloc(size_t size);               /* NOLINT(bugprone-reserved-identifier) */
void *__real_calloc(size_t count, size_t size); /* NOLINT(bugprone-reserved-identifier) */
void *__real_realloc(void *old, size_t size);   /* NOLINT(bugprone-reserved-identifier) */
void __real_free(void *memory);                 /* NOLINT(bugprone-reserved-identifier) */
void *__wrap_malloc(size_t size);               /* NOLINT(bugprone-reserved-identifier) */
void *__wrap_calloc(size_t count, size_t size); /* NOLINT(bugprone-reserved-identifier) */
void *__wrap_realloc(void *old, size_t size);   /* NOLINT(bugprone-reserved-identifier) */
void __wrap_free(void *memory);                 /* NOLINT(bugprone-reserved-identifier) */

/* An array of stb_ds cannot say that there is no memory. */
void *__real_stbds_arrgrowf(void *array, size_t size, size_t more, /* NOLINT */
                            size_t capacity);
void *__wrap_stbds_arrgrowf(void *array, size_t size, size_t more, /* NOLINT */
                            size_t capacity);

void *__wrap_stbds_arrgrowf(void *array, size_t size, size_t more, size_t capacity) { /* NOLINT */
    bool armed = sources[LIBRARY_MEMORY].armed;
    sources[LIBRARY_MEMORY].armed = false;
    void *grown = __real_stbds_arrgrowf(array, size, more, capacity);
    sources[LIBRARY_MEMORY].armed = armed;
    return grown;
}

void *__wrap_malloc(size_t size) { /* NOLINT(bugprone-reserved-identifier) */
    return refuses(LIBRARY_MEMORY) ? NULL : count(LIBRARY_MEMORY, __real_malloc(size));
}

void *__wrap_calloc(size_t items, size_t size) { /* NOLINT(bugprone-reserved-identifier) */
    return refuses(LIBRARY_MEMORY) ? NULL : count(LIBRARY_MEMORY, __real_calloc(items, size));
}

void *__wrap_realloc(void *old, size_t size) { /* NOLINT(bugprone-reserved-identifier) */
    if (refuses(LIBRARY_MEMORY))
        return NULL;
    void *grown = __real_realloc(old, size);
    return old ? grown : count(LIBRARY_MEMORY, grown);
}

void __wrap_free(void *memory) { /* NOLINT(bugprone-reserved-identifier) */
    sources[LIBRARY_MEMORY].live -= memory != NULL;
    __real_free(memory);
}

/* ---- A driver's ---- */

static void *allocate_aligned(size_t size, size_t alignment) {
    return aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
}

static void *allocate(void *user, size_t size, size_t alignment, VkSystemAllocationScope scope) {
    const bool *may = user;
    (void)scope;
    if ((!may || *may) && refuses(DRIVER_MEMORY))
        return NULL;
    return count(DRIVER_MEMORY, allocate_aligned(size, alignment));
}

static void release(void *user, void *memory) {
    (void)user;
    sources[DRIVER_MEMORY].live -= memory != NULL;
    __real_free(memory);
}

static void *reallocate(void *user, void *old, size_t size, size_t alignment,
                        VkSystemAllocationScope scope) {
    void *grown = size ? allocate(user, size, alignment, scope) : NULL;
    size_t held = old ? malloc_usable_size(old) : 0;
    if (grown && old)
        memcpy(grown, old, held < size ? held : size);
    if (grown || !size)
        release(user, old);
    return grown;
}

const VkAllocationCallbacks refusing_callbacks = {
    .pfnAllocation = allocate, .pfnReallocation = reallocate, .pfnFree = release};
