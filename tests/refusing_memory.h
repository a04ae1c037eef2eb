/* Allocations that fail on demand, and are counted: those of the library and the test, whose
 * malloc, calloc, realloc and free the linker gives to this file (refuse_memory in
 * tests/CMakeLists.txt), and those that a driver makes through an application's callbacks. */
#ifndef TESTS_REFUSING_MEMORY_H
#define TESTS_REFUSING_MEMORY_H

#include <stdbool.h>
#include <stdint.h>
#include <vulkan/vulkan_core.h>

enum memory_source { LIBRARY_MEMORY, DRIVER_MEMORY, MEMORY_SOURCES };

/* Lets allocation number `nth` (from 0 for the next) fail and, unless that is 0, every `every`th
 * one after it. One thread may allocate meanwhile; the driver's may be of several. */
void refusing_memory_fail(enum memory_source source, uint32_t nth, uint32_t every);
void refusing_memory_mend(enum memory_source source);        /* nothing fails any more */
uint32_t refusing_memory_refused(enum memory_source source); /* since fail was called */
/* Allocated and not freed. */
int64_t refusing_memory_live(enum memory_source source);

/* Refuses only while *pUserData, a bool, is true; NULL: at any time. */
extern const VkAllocationCallbacks refusing_callbacks;

#endif
