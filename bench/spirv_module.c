#include "spirv_module.h"

#include <stdio.h>
#include <string.h>

/* Words and numbers of the SPIR-V specification. */
enum {
    MAGIC = 0x07230203,
    HEADER_WORDS = 5,
    BOUND_MAX = 4194304, /* ids, as SPIR-V's universal limits have it */
    OP_ENTRY_POINT = 15,
    OP_EXECUTION_MODE = 16,
    OP_CAPABILITY = 17,
    OP_CONSTANT = 43,
    OP_SPEC_CONSTANT_TRUE = 48,
    OP_SPEC_CONSTANT_FALSE = 49,
    OP_SPEC_CONSTANT = 50,
    OP_DECORATE = 71,
    OP_EXECUTION_MODE_ID = 331,
    DECORATION_SPEC_ID = 1,
    MODEL_COMPUTE = 5,
    MODE_LOCAL_SIZE = 17,
    MODE_LOCAL_SIZE_ID = 38,
};

struct instruction {
    const uint32_t *words;
    uint32_t op, count;
};

/* The instruction at word *at, which moves on; false at the end and before one that is cut. */
static bool next(const uint32_t *words, size_t count, size_t *at, struct instruction *found) {
    if (*at >= count)
        return false;
    *found = (struct instruction){words + *at, words[*at] & 0xffff, words[*at] >> 16};
    if (found->count == 0 || found->count > count - *at)
        return false;
    *at += found->count;
    return true;
}

static bool is_main(const struct instruction *found) {
    static const uint32_t name[] = {0x6e69616d, 0}; /* "main" */
    return found->op == OP_ENTRY_POINT && found->count >= 5 && found->words[1] == MODEL_COMPUTE &&
           memcmp(found->words + 3, name, sizeof name) == 0;
}

bool spirv_check(const uint32_t *words, size_t count, char *why, size_t size) {
    struct instruction found;
    size_t at = HEADER_WORDS;
    bool entry = false;
    if (count < HEADER_WORDS || words[0] != MAGIC)
        return snprintf(why, size, "it does not begin as SPIR-V does"), false;
    if (words[1] > 0x00010600 || words[1] < 0x00010000)
        return snprintf(why, size, "its version is not one from 1.0 to 1.6"), false;
    if (words[3] == 0 || words[3] > BOUND_MAX)
        return snprintf(why, size, "it has %u ids, of at most %u", words[3], BOUND_MAX), false;
    while (next(words, count, &at, &found))
        entry |= is_main(&found);
    if (at != count)
        return snprintf(why, size, "it is damaged: the instruction at word %zu of %zu is cut", at,
                        count),
               false;
    if (!entry)
        return snprintf(why, size, "it has no compute entry point \"main\""), false;
    return true;
}

/* ---- Capabilities ---- */

static const struct {
    uint32_t capability;
    uint32_t needs;                  /* device_needs */
    VkSubgroupFeatureFlags subgroup; /* which devices tell of, and nobody has to turn on */
    const char *name;
} known[] = {
    {0, 0, 0, "Matrix"},
    {1, 0, 0, "Shader"},
    {5347, 0, 0, "PhysicalStorageBufferAddresses"},
    {61, 0, VK_SUBGROUP_FEATURE_BASIC_BIT, "GroupNonUniform"},
    {62, 0, VK_SUBGROUP_FEATURE_VOTE_BIT, "GroupNonUniformVote"},
    {63, NEEDS_SUBGROUP_ARITHMETIC, 0, "GroupNonUniformArithmetic"},
    {64, 0, VK_SUBGROUP_FEATURE_BALLOT_BIT, "GroupNonUniformBallot"},
    {65, NEEDS_SUBGROUP_ARITHMETIC | NEEDS_SUBGROUP_SHUFFLE, 0, "GroupNonUniformShuffle"},
    {66, 0, VK_SUBGROUP_FEATURE_SHUFFLE_RELATIVE_BIT, "GroupNonUniformShuffleRelative"},
    {67, 0, VK_SUBGROUP_FEATURE_CLUSTERED_BIT, "GroupNonUniformClustered"},
    {68, 0, VK_SUBGROUP_FEATURE_QUAD_BIT, "GroupNonUniformQuad"},
    {6018, NEEDS_PACKED_DOT, 0, "DotProductInput4x8BitPacked"},
    {6019, NEEDS_PACKED_DOT, 0, "DotProduct"},
    /* the rest is of features that devices are not opened with */
    {9, 0, ~0u, "Float16"},
    {10, 0, ~0u, "Float64"},
    {11, 0, ~0u, "Int64"},
    {12, 0, ~0u, "Int64Atomics"},
    {22, 0, ~0u, "Int16"},
    {39, 0, ~0u, "Int8"},
    {4433, 0, ~0u, "StorageBuffer16BitAccess"},
    {4448, 0, ~0u, "StorageBuffer8BitAccess"},
    {5345, 0, ~0u, "VulkanMemoryModel"},
    {6017, 0, ~0u, "DotProductInput4x8Bit"},
    {6022, 0, ~0u, "CooperativeMatrixKHR"},
};

static VkSubgroupFeatureFlags subgroup_operations(const struct device *device) {
    VkPhysicalDeviceSubgroupProperties subgroup = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_PROPERTIES};
    VkPhysicalDeviceProperties2 properties = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2, .pNext = &subgroup};
    if (device->minimal)
        return VK_SUBGROUP_FEATURE_BASIC_BIT;
    device->vi.GetPhysicalDeviceProperties2(device->info.physical, &properties);
    return subgroup.supportedOperations;
}

static bool meets(const struct device *device, uint32_t capability, uint32_t *needs, char *why,
                  size_t size) {
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (known[i].capability != capability)
            continue;
        *needs |= known[i].needs;
        if (known[i].subgroup == ~0u)
            return snprintf(why, size, "it uses %s, which Peridot does not turn on in devices",
                            known[i].name),
                   false;
        if (known[i].subgroup & ~subgroup_operations(device))
            return snprintf(why, size, "the device has no %s, or it is not allowed", known[i].name),
                   false;
        return true;
    }
    return snprintf(why, size,
                    "it uses SPIR-V's capability %u, which Peridot does not turn on in devices",
                    capability),
           false;
}

/* A constant by its id; what is specialised has the value that the module gives it. */
static uint32_t constant(const uint32_t *words, size_t count, uint32_t id) {
    struct instruction found;
    for (size_t at = HEADER_WORDS; next(words, count, &at, &found);)
        if ((found.op == OP_CONSTANT || found.op == OP_SPEC_CONSTANT) && found.count == 4 &&
            found.words[2] == id)
            return found.words[3];
    return 1;
}

/* Whether the device can have the workgroup that an instruction sets. The one that --workgroup sets
 * is 1 here. */
static bool fits(const struct device *device, const uint32_t *words, size_t count,
                 const struct instruction *found) {
    bool literal = found->op == OP_EXECUTION_MODE && found->words[2] == MODE_LOCAL_SIZE;
    bool by_id = found->op == OP_EXECUTION_MODE_ID && found->words[2] == MODE_LOCAL_SIZE_ID;
    uint64_t most = device->info.limits.max_workgroup, invocations = 1;
    for (uint32_t i = 3; (literal || by_id) && i < found->count && invocations <= most; i++)
        invocations *= literal ? found->words[i] : constant(words, count, found->words[i]);
    return invocations <= most;
}

bool spirv_needs(const struct device *device, const uint32_t *words, size_t count, uint32_t *needs,
                 char *why, size_t size) {
    struct instruction found;
    for (size_t at = HEADER_WORDS; next(words, count, &at, &found);) {
        if (found.op == OP_CAPABILITY && found.count == 2 &&
            !meets(device, found.words[1], needs, why, size))
            return false;
        if (found.count == 6 && !fits(device, words, count, &found))
            return snprintf(why, size, "its workgroup is larger than the device allows"), false;
    }
    return true;
}

/* ---- Specialisation constants ---- */

static bool set_constant(uint32_t *words, size_t count, uint32_t result, uint32_t value) {
    struct instruction found;
    for (size_t at = HEADER_WORDS; next(words, count, &at, &found);) {
        uint32_t *place = words + at - found.count;
        if (found.count < 3 || place[2] != result)
            continue;
        if (found.op == OP_SPEC_CONSTANT && found.count == 4) {
            place[3] = value;
            return true;
        }
        if (found.op == OP_SPEC_CONSTANT_TRUE || found.op == OP_SPEC_CONSTANT_FALSE) {
            place[0] = found.count << 16 | (value ? OP_SPEC_CONSTANT_TRUE : OP_SPEC_CONSTANT_FALSE);
            return true;
        }
    }
    return false;
}

bool spirv_specialise(uint32_t *words, size_t count, uint32_t id, uint32_t value) {
    struct instruction found;
    for (size_t at = HEADER_WORDS; next(words, count, &at, &found);)
        if (found.op == OP_DECORATE && found.count == 4 && found.words[2] == DECORATION_SPEC_ID &&
            found.words[3] == id)
            return set_constant(words, count, found.words[1], value);
    return false;
}
