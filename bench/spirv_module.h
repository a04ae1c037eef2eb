/* A SPIR-V module from anywhere: whether it is whole, and what it wants of a device. */
#ifndef BENCH_SPIRV_MODULE_H
#define BENCH_SPIRV_MODULE_H

#include "device.h"

/* Whether its words are instructions from first to last, with a compute entry point "main"; `why`
 * says what is wrong. */
bool spirv_check(const uint32_t *words, size_t count, char *why, size_t size);
/* Adds the device_needs that its capabilities mean. False: `why` says which of them the device was
 * not opened with, or cannot do, or that its workgroup is too large. Of a module that is whole. */
bool spirv_needs(const struct device *device, const uint32_t *words, size_t count, uint32_t *needs,
                 char *why, size_t size);
/* Gives a specialisation constant another value; false: the module has none of that id. */
bool spirv_specialise(uint32_t *words, size_t count, uint32_t id, uint32_t value);

#endif
