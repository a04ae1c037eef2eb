/* Work as a list of dispatches with declared operands. The recorder, and nobody else, places
 * barriers: it derives them from what each dispatch reads and writes. Being a list, the same
 * recording can be shuffled between barriers, mirrored into transfers, or run one dispatch at a
 * time (tests/kernels). */
#ifndef ENGINE_RECORDER_H
#define ENGINE_RECORDER_H

#include "memory.h"
#include "pipelines.h"

/* A kernel's operands, and further buffers that it uses as one of them (recording_also). */
#define DISPATCH_OPERANDS_MAX 16

struct operand {
    const struct buffer *buffer;
    uint64_t offset, size;
};

/* What a dispatch costs, for cutting work into submissions. */
struct cost {
    double bytes; /* read and written in device memory */
    double flops;
};

struct dispatch {
    struct pipeline *pipeline;
    uint32_t grid[3]; /* unless indirect */
    uint32_t base[3]; /* the first workgroup's place; zero but in a part of a dispatch */
    const struct buffer *indirect; /* NULL: `grid` */
    uint64_t indirect_offset;
    uint32_t constants_size;
    unsigned char constants[128];
    uint32_t operand_count;
    struct operand operands[DISPATCH_OPERANDS_MAX]; /* in the kernel table's order, then more */
    enum access access[DISPATCH_OPERANDS_MAX];
    struct cost cost;
    struct cost growth; /* and what each position of the context adds */
    const char *label;  /* static text, for captures */
};

struct recording {
    struct device *device;
    struct dispatch *dispatches; /* stb_ds array */
    struct cost cost;            /* of all */
    peridot_result failed;       /* the first error; recording_emit returns it */
    char failure[256];
};

void recording_begin(struct recording *recording, struct device *device);
/* Adds a dispatch. `constants` is the kernel's push-constant struct; `operands` has as many entries
 * as the kernel table has for it. An entry with buffer NULL is an operand that this dispatch does
 * not use. Operands that do not lie in their buffers, and empty or oversized grids, fail at emit.
 */
struct dispatch *recording_dispatch(struct recording *recording, struct pipeline *pipeline,
                                    const void *constants, const struct operand *operands,
                                    const uint32_t grid[3]);
/* The dispatch, the last one added (NULL: it failed), uses one more range, which its kernel finds
 * by itself, as it does its operand `like`. */
void recording_also(struct recording *recording, struct dispatch *dispatch, uint32_t like,
                    struct operand operand);
void recording_free(struct recording *recording);
uint32_t recording_count(const struct recording *recording); /* of dispatches */

/* What the indirect grid in a buffer holds. */
struct indirect_grid {
    const struct buffer *buffer;
    uint32_t grid[3];
};

/* Part of a recording: dispatches `first` to `last`, of the first one only its groups from
 * `first_group` on, of the last one only those before `end_group`, all counted along the longest
 * side of the grid. */
struct recording_range {
    uint32_t first, first_group;
    uint32_t last, end_group;
    const struct indirect_grid *grids; /* of its dispatches that have an indirect one */
    uint32_t grid_count;
};
/* The side along which a grid is cut, 0 to 2. */
uint32_t grid_longest_side(const uint32_t grid[3]);
/* Makes `part` such a part of another; freed by recording_free. Workgroups are the same ones as in
 * the whole, so all parts of a recording one after another give what the whole gives. */
void recording_part(const struct recording *whole, const struct recording_range *range,
                    struct recording *part);

/* Whether one writes what the other reads or writes, indirect arguments included. */
bool dispatches_conflict(const struct dispatch *a, const struct dispatch *b);

/* Which dispatches need a barrier before them: barrier[i] for dispatch i. The fewest that order
 * every pair of conflicting dispatches, for this order of dispatches. Dispatch 0's is always set:
 * what was submitted earlier is unknown. Returns how many are set. */
uint32_t recording_barriers(const struct recording *recording, bool *barrier);

/* The barrier that stands before a dispatch: the first one of a recording also orders what was
 * submitted before. With `host_read` the one at the end, which lets the host read. */
VkMemoryBarrier2 recording_barrier(bool first, bool host_read);

struct emit_options {
    uint64_t shuffle_seed; /* not 0: dispatches between two barriers come in a random order */
    /* Not VK_NULL_HANDLE: the recording is timed. It resets timestamps [first_query, first_query +
     * recording_count + 1) and takes one before and one after each dispatch, each dispatch waiting
     * for the one before it; what is between two of them is that dispatch's alone. */
    VkQueryPool queries;
    uint32_t first_query;
    bool host_read; /* end with a barrier that makes writes visible to the host */
};
/* Errors: ARGUMENT (a faulty dispatch, named). recording_emit checks too. */
peridot_result recording_check(const struct recording *recording, peridot_error *error);
/* Writes the recording into a command buffer in the recording state. It begins with a barrier
 * against all earlier compute, transfer and indirect use. Errors: ARGUMENT (a faulty dispatch,
 * named), HOST_MEMORY. */
peridot_result recording_emit(const struct recording *recording, VkCommandBuffer commands,
                              const struct emit_options *options, peridot_error *error);

#endif
