/* Runs one dispatch on random data and finds out what it did: operands begin as poison, lie between
 * fences, and may change only where the kernel was to write. What is wrong is said in words: tests
 * fail by it, the shader lab shows it. */
#ifndef TESTS_KERNEL_BENCH_H
#define TESTS_KERNEL_BENCH_H

#include "queue.h"
#include "reference/random.h"

#include <setjmp.h>

#define OPERANDS_MOST 16

/* A buffer of a case, mapped. Poison is 0x7fc17fc1: a NaN as float32, as bfloat16 and as float16,
 * so that whatever is read beyond its place shows in the result. */
struct plane {
    const char *name;
    const struct buffer *buffer;
    uint64_t size;                   /* bytes between the fences */
    uint64_t address;                /* of the first byte between the fences */
    void *data;                      /* the same, for the host */
    unsigned char *before, *changed; /* [size]: a copy; 1 where a change was expected */
    bool unchecked;                  /* may change everywhere */
};

/* Real sizes for a case instead of random ones: a model's, and those of the pass at hand. */
struct case_shape {
    uint32_t d_model, heads, kv_heads, head_dim, hidden, vocabulary;
    uint32_t tokens, position; /* of the pass; how many came before it */
    bool down;                 /* a residual product is the MLP's second, not attention's */
    uint32_t kv;               /* KV_F16 ... */
    uint64_t plane_most;       /* bytes: a matrix that takes more is one of its shards */
};

/* What bench_run runs. */
struct bench_dispatch {
    struct pipeline *pipeline;
    const void *constants;
    struct plane *const *planes; /* in the order of the kernel table */
    const uint32_t *grid;        /* [3] */
    const struct plane *indirect;
    uint64_t indirect_offset;
};

struct bench {
    struct device *device;
    struct lane lane;
    struct random random;
    struct arena *arena; /* of the case at hand */
    struct plane planes[OPERANDS_MOST];
    uint32_t plane_count;
    bool counts_kv_reads; /* the variants at hand count them in the session block */
    char title[400];      /* describe() */
    jmp_buf *caught;      /* where case_fail goes */
    char failure[1600];
    double bytes, flops; /* of the dispatch at hand, where a check says more than its operands do */
    double worst; /* the largest NMSE that expect_near found, as a share of what is bearable */
    /* The shader lab's wishes, NULL in tests. */
    const struct case_shape *shape; /* sizes for the next case */
    const uint32_t *spec;           /* [SPEC_HEAD_DIM]: the first constants of every pipeline */
    /* Is told of each run of this variant, whose planes hold what the kernel will read. */
    const struct kernel_variant *watched;
    void (*watch)(const struct bench *bench, const struct bench_dispatch *dispatch, void *user);
    void *watcher;
};

peridot_result bench_open(struct bench *bench, struct device *device, uint64_t seed,
                          peridot_error *error);
void bench_close(struct bench *bench);

/* A case: planes, then one or several runs, each with its checks. The next run and case_end fail
 * the test where a plane changed in a place where no change was expected of the run before. */
void case_begin(struct bench *bench);
void case_end(struct bench *bench);
/* Ends the case, which is wrong, and returns from kernel_passes. */
_Noreturn void case_fail(struct bench *bench, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* After case_fail: frees the case. */
void case_abandon(struct bench *bench);

/* A poisoned plane, to be filled before the first run; stays valid until case_end. */
struct plane *plane_create(struct bench *bench, const char *name, uint64_t size);

/* How a case compiles a variant: by default, or as the lab wants it. */
struct pipeline_key case_key(const struct bench *bench, const struct kernel_variant *variant,
                             uint32_t type);
/* Compiles the variant and runs it once. `spec` as in pipeline_key. `planes` are in the order of
 * the kernel table, NULL for an operand not used. `indirect` (may be NULL): the plane that holds
 * the grid, at indirect_offset. Fences and operands declared as read must stay as they were. */
void bench_run(struct bench *bench, const struct pipeline_key *key, const void *constants,
               struct plane *const *planes, const uint32_t grid[3], const struct plane *indirect,
               uint64_t indirect_offset);

/* What is being checked, for messages: the variant, its type and constants, and the case's sizes.
 */
void describe(struct bench *bench, const struct pipeline_key *key, const char *sizes, ...)
    __attribute__((format(printf, 3, 4)));
/* Numbers that a kernel made: sum (got - want)^2 <= limit * sum (want^2 + scale^2), where `scale`
 * is the size of what was added up, for a sum may come out near zero; 0 where nothing cancels. */
void expect_near(struct bench *bench, const char *what, const double *got, const double *want,
                 uint64_t count, double scale, double limit);
/* Floats [first, first + count) of a plane were to become `want`, in the sense of expect_near. */
void expect_floats(struct bench *bench, struct plane *plane, uint64_t first, const double *want,
                   uint64_t count, double scale, double limit);
/* These bytes may have changed; what is in them was checked otherwise. */
void expect_change(struct bench *bench, struct plane *plane, uint64_t offset, uint64_t size);

/* ---- Random sizes and contents ---- */

uint32_t between(struct bench *bench, uint32_t least, uint32_t most);
/* Normal numbers into floats [count], and the same as doubles. */
void fill_normal(struct bench *bench, float *values, double *doubles, uint64_t count);
/* A weight matrix on the device: rows in the layout of host/device_rows.h. */
struct weight_shape {
    enum weight_type type;
    uint32_t rows, columns;
    uint32_t padded, stride, steps; /* as in struct shard; stride in quads */
    uint32_t distinct;              /* rows that differ, one after another, again and again */
};
/* Of about so many columns: K formats have whole blocks. */
struct weight_shape weight_shape(enum weight_type type, uint32_t rows, uint32_t columns);
/* A plane of random weights, subnormal ones or subnormal scales among them; `doubles`
 * [distinct][columns] gets their exact values. */
struct plane *weight_plane(struct bench *bench, const char *name, const struct weight_shape *shape,
                           double *doubles);

#endif
