/* peridot-bench kernels: is each variant right, and how fast is it? */
#include "bench.h"
#include "ceilings.h"
#include "crash_words.h"
#include "environment.h"
#include "kernel_interface.h"
#include "kernel_jobs.h"
#include "kernels/kernel_checks.h"
#include "messages.h"
#include "options.h"
#include "platform.h"
#include "statistics.h"
#include "timed_kernel.h"
#include "tuning.h"
#include "user_variants.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <stb/stb_ds.h>

static const char usage[] =
    "peridot-bench kernels: checks every variant in the table of kernels against double precision\n"
    "on random cases of awkward sizes, then at a model's own sizes, and times there what is "
    "right:\n"
    "by GPU timestamps, on copies of its data that follow each other so that no cache helps.\n"
    "\n"
    "  --kernel PATTERN,...   parts of kernel/variant, or all of it with *: matvec, */portable\n"
    "  --type PATTERN,...     weight types: q4_k, q8_0, q4* ... (f32 bf16 f16 q8_0 q4_0 q4_k)\n"
    "  --model NAME,...       the sizes: 2b, 7b, or small, which software devices are quick with\n"
    "                         (2b,7b)\n"
    "  --tokens N             of a prompt's pass (512)\n"
    "  --context N,N...       positions that attention looks back on (512,4096)\n"
    "  --kv f16|f32|q8        the KV cache's type (f16)\n"
    "  --device CHOICE        an index, a part of the name, or a UUID\n"
    "  --minimal              portable kernels only\n"
    "  --no-tuning            compares with what sessions use without peridot tune\n"
    "  --runs N               timed runs of each variant (30)\n"
    "  --cases N              random cases of each variant before (3)\n"
    "  --seed N               of the random numbers (a new one each time, shown)\n"
    "  --quick                small sizes, few runs, two types: does it work?\n"
    "  --json, --csv          instead of a table\n"
    "  -o, --output FILE      JSON into FILE (CSV with --csv), beside the table\n"
    "\n"
    "Variants of your own, beside ours, of the one kernel that --kernel names; as often as you "
    "like:\n"
    "  --variant FILE         GLSL, or SPIR-V; what follows is for it:\n"
    "  -D NAME=VALUE          a define; our first variant's are there, and the type's\n"
    "  --workgroup N          invocations; 0: one subgroup (as our first variant)\n"
    "  --rows N, --columns N  weight rows and tokens that a workgroup makes (as our first "
    "variant)\n"
    "  --spec ID=VALUE        any specialisation constant\n"
    "  --needs LIST           subgroup_arithmetic, subgroup_shuffle, packed_dot, beyond what the "
    "file\n"
    "                         says by itself\n"
    "  --include FOLDER       for #include, before the shaders that are inside this program\n"
    "  --interface KERNEL     shows what a variant of it is given and what it must do, and ends\n"
    "\n"
    "  peridot-bench kernels --kernel matvec --type q4_k --model 2b\n"
    "  peridot-bench kernels --kernel rmsnorm --variant my.comp --model 2b\n"
    "\n"
    "bandwidth %: of what a kernel or a copy reaches here that does nothing else;\n"
    "arithmetic %: the same of multiply-adds (or of packed dot products); limit %: of the\n"
    "roof that both are, so the larger. error: the largest normalised mean square error\n"
    "found, as a share of what is bearable.\n"
    "ratio: to the time of the variant that sessions use (*); ~ where the difference is noise.\n";

#define TURNS 5 /* in which the variants of a shape are timed */

struct kernels_options {
    const char *device;
    struct kernel_choice choice;
    uint32_t runs, cases, seed;
    bool quick, minimal, no_tuning;
    struct user_variants own;
    char kernels[64];      /* the pattern with `own` */
    const char *interface; /* a kernel that is only to be explained */
    struct output output;
};

/* A job that has proved right, and what it is timed on. */
struct entrant {
    const struct kernel_job *job;
    cJSON *row;
    struct timed_kernel *timed;
    double bytes, flops;
    double microseconds[SAMPLES_MAX];
};

struct lab {
    struct kernels_options *options;
    peridot_device *device;
    struct bench bench;
    struct ceilings ceilings;
    struct results results;
    struct table *table, *left_out;
    struct entrant *entrants; /* stb_ds; of the shape at hand, not timed yet */
    /* of the job at hand */
    struct timed_kernel *timed;
    double bytes, flops;
    peridot_error capture_error;
};

/* ---- Tables ---- */

static enum tone verdict_tone(const cJSON *row, const char *key) {
    (void)key;
    return *row_text(row, "fault") ? TONE_BAD : *row_text(row, "in_use") ? TONE_GOOD : TONE_PLAIN;
}

static enum tone ratio_tone(const cJSON *row, const char *key) {
    double ratio = row_value(row, key);
    return *row_text(row, "noise") ? TONE_FAINT
           : ratio < 1             ? TONE_GOOD
           : ratio > 1             ? TONE_BAD
                                   : TONE_PLAIN;
}

static enum tone fault_tone(const cJSON *row, const char *key) {
    (void)row, (void)key;
    return TONE_BAD;
}

const struct column kernels_columns[] = {
    {"kernel", "kernel", COLUMN_TEXT, 0, NULL},
    {"type", "type", COLUMN_TEXT, 0, NULL},
    {"shape", "shape", COLUMN_TEXT, 0, NULL},
    {"variant", "variant", COLUMN_TEXT, 0, verdict_tone},
    {"in_use", "", COLUMN_TEXT, 0, NULL},
    {"constants", "constants", COLUMN_DETAIL, 0, NULL},
    {"microseconds", "µs", COLUMN_NUMBER, 1, NULL},
    {"spread_percent", "± %", COLUMN_NUMBER, 1, NULL},
    {"gb_per_second", "GB/s", COLUMN_NUMBER, 2, NULL},
    {"gflop_per_second", "GFLOP/s", COLUMN_NUMBER, 1, NULL},
    {"bandwidth_percent", "bandwidth %", COLUMN_NUMBER, 1, NULL},
    {"arithmetic_percent", "arithmetic %", COLUMN_NUMBER, 1, NULL},
    {"limit_percent", "limit %", COLUMN_NUMBER, 1, NULL},
    {"error", "error", COLUMN_NUMBER, 3, NULL},
    {"ratio", "ratio", COLUMN_NUMBER, 2, ratio_tone},
    {"noise", "", COLUMN_TEXT, 0, NULL},
    {"fault", "fault", COLUMN_TEXT, 0, fault_tone},
    {"runs", "runs", COLUMN_DETAIL, 0, NULL},
    {"microseconds_samples", "", COLUMN_SAMPLES, 0, NULL},
    {NULL, NULL, COLUMN_TEXT, 0, NULL},
};

const struct column kernels_left_out_columns[] = {
    {"kernel", "kernel", COLUMN_TEXT, 0, NULL},
    {"variant", "variant", COLUMN_TEXT, 0, NULL},
    {"reason", "why", COLUMN_TEXT, 0, NULL},
    {NULL, NULL, COLUMN_TEXT, 0, NULL},
};

static void name_job(const struct kernel_job *job, cJSON *row) {
    struct kernel_info info = kernel_info(job->variant->kernel);
    char constants[96];
    cJSON_AddStringToObject(row, "kernel", info.name);
    cJSON_AddStringToObject(row, "type", info.typed ? weight_type_info(job->key.type)->name : "");
    cJSON_AddStringToObject(row, "shape", job->name);
    cJSON_AddStringToObject(row, "variant", job->label);
    cJSON_AddStringToObject(row, "in_use", job->in_use ? "*" : "");
    snprintf(constants, sizeof constants, "%u %u %u", job->key.spec[SPEC_WORKGROUP],
             job->key.spec[SPEC_ROWS], job->key.spec[SPEC_COLUMNS]);
    cJSON_AddStringToObject(row, "constants", constants);
}

/* ---- One job ---- */

static double operand_bytes(const struct bench_dispatch *dispatch) {
    struct kernel_info info = kernel_info(dispatch->pipeline->key.variant->kernel);
    double bytes = 0;
    for (uint32_t i = 0; i < info.operand_count; i++)
        if (dispatch->planes[i])
            bytes += (double)dispatch->planes[i]->size;
    return bytes;
}

/* Rates, and their shares of the roof: the bandwidth times operations a byte, or the arithmetic,
 * whichever is lower; so the larger of both shares is that of the roof. */
static void add_rates(struct lab *lab, const struct entrant *entrant, double seconds) {
    cJSON *row = entrant->row;
    double gbs = entrant->bytes / seconds * 1e-9, gflops = entrant->flops / seconds * 1e-9;
    bool packed_dot = entrant->job->variant->needs & NEEDS_PACKED_DOT;
    double bandwidth = 100 * gbs / ceilings_bandwidth(&lab->ceilings);
    double arithmetic = 100 * gflops / ceilings_arithmetic(&lab->ceilings, packed_dot);
    row_number(row, "gb_per_second", gbs);
    if (entrant->flops > 0)
        row_number(row, "gflop_per_second", gflops);
    row_number(row, "bandwidth_percent", bandwidth);
    if (entrant->flops > 0)
        row_number(row, "arithmetic_percent", arithmetic);
    row_number(row, "limit_percent", arithmetic > bandwidth ? arithmetic : bandwidth);
}

static void add_times(struct lab *lab, const struct entrant *entrant) {
    uint32_t count = lab->options->runs;
    struct spread spread = samples_spread(entrant->microseconds, count);
    row_number(entrant->row, "microseconds", spread.median);
    row_number(entrant->row, "spread_percent", 50 * spread.range / spread.median);
    add_rates(lab, entrant, spread.median * 1e-6);
    row_number(entrant->row, "runs", count);
    row_samples(entrant->row, "microseconds_samples", entrant->microseconds, count);
}

/* Last words, should a user's variant bring a software device down. */
static void mind_crashes(const struct lab *lab, const struct kernel_job *job) {
    if (lab->options->own.count)
        crash_words("peridot-bench: %s %s brought the device down, and this process with it: it "
                    "reaches far outside its operands",
                    kernel_info(job->variant->kernel).name, job->variant->name);
}

/* Runs of an entrant, [first, first + count) of all. */
static peridot_result run_entrant(struct lab *lab, struct entrant *entrant, uint32_t first,
                                  uint32_t count, peridot_error *error) {
    double seconds[SAMPLES_MAX];
    mind_crashes(lab, entrant->job);
    peridot_result result = timed_kernel_run(entrant->timed, count, seconds, error);
    for (uint32_t i = 0; i < count && !result; i++)
        entrant->microseconds[first + i] = 1e6 * seconds[i];
    return result;
}

/* Times all that wait for it, which are of one shape, and lets them go. They take turns, so that
 * what else the device or the machine does meets all alike. */
static peridot_result time_entrants(struct lab *lab, peridot_error *error) {
    uint32_t runs = lab->options->runs, turn = (runs + TURNS - 1) / TURNS;
    uint32_t warm = lab->options->quick ? 1 : 2, count = (uint32_t)arrlen(lab->entrants);
    peridot_result result = PERIDOT_OK;
    for (uint32_t i = 0; i < count && !result; i++)
        for (uint32_t j = 0; j < warm && !result; j++)
            result = run_entrant(lab, &lab->entrants[i], 0, 1, error);
    for (uint32_t first = 0; first < runs && !result; first += turn)
        for (uint32_t i = 0; i < count && !result; i++)
            result = run_entrant(lab, &lab->entrants[i], first,
                                 runs - first < turn ? runs - first : turn, error);
    for (uint32_t i = 0; i < count; i++) {
        if (!result)
            add_times(lab, &lab->entrants[i]);
        timed_kernel_destroy(lab->entrants[i].timed);
    }
    arrsetlen(lab->entrants, 0);
    return result;
}

/* Whether another copy of what a case works on leaves the device memory for two more. */
static bool has_room(const struct bench *bench) {
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < bench->plane_count; i++)
        bytes += bench->planes[i].size;
    return memory_free(bench->device) / 3 >= bytes;
}

/* Keeps what the dispatch works on; it is timed when it has proved right. Where there is no room
 * beside what waits for that, those are timed before. */
static void capture(const struct bench *bench, const struct bench_dispatch *dispatch, void *user) {
    struct lab *lab = user;
    bool software = device_is_software(bench->device);
    uint64_t rotate = lab->options->quick ? 1u << 20 : software ? 128u << 20 : 1u << 30;
    timed_kernel_destroy(lab->timed); /* of a kernel that runs several times, the last counts */
    lab->timed = NULL;
    lab->bytes = bench->bytes > 0 ? bench->bytes : operand_bytes(dispatch);
    lab->flops = bench->flops;
    if (!has_room(bench) && time_entrants(lab, &lab->capture_error))
        return;
    if (timed_kernel_create(bench, dispatch, rotate, &lab->timed, &lab->capture_error))
        lab->timed = NULL;
}

static bool check_awkward(struct lab *lab, const struct kernel_job *job) {
    kernel_check *check = kernel_check_of(job->variant->kernel);
    lab->bench.shape = NULL;
    lab->bench.watched = NULL;
    lab->bench.spec = job->key.spec;
    for (uint32_t i = 0; i < lab->options->cases; i++)
        if (!kernel_passes(&lab->bench, check, job->variant, job->key.type))
            return false;
    return true;
}

static bool check_real(struct lab *lab, const struct kernel_job *job) {
    lab->bench.shape = &job->shape;
    lab->bench.watched = job->variant;
    lab->capture_error = (peridot_error){.code = PERIDOT_OK};
    return kernel_passes(&lab->bench, kernel_check_of(job->variant->kernel), job->variant,
                         job->key.type);
}

/* Checks a job; what is right is then an entrant. */
static peridot_result admit_job(struct lab *lab, const struct kernel_job *job,
                                peridot_error *error) {
    cJSON *row = table_row(lab->table);
    name_job(job, row);
    lab->bench.worst = 0;
    if (!check_awkward(lab, job) || !check_real(lab, job)) {
        cJSON_AddStringToObject(row, "fault", lab->bench.failure);
    } else if (lab->capture_error.code) {
        cJSON_AddStringToObject(row, "fault", lab->capture_error.message);
    } else {
        struct entrant entrant = {job, row, lab->timed, lab->bytes, lab->flops, {0}};
        arrput(lab->entrants, entrant);
        lab->timed = NULL;
    }
    row_number(row, "error", lab->bench.worst);
    timed_kernel_destroy(lab->timed);
    lab->timed = NULL;
    if (!lab->device->engine->lost)
        return PERIDOT_OK;
    return fail(error, PERIDOT_ERROR_DEVICE_LOST, "%.200s was lost: %.700s",
                lab->device->engine->info.name, row_text(row, "fault"));
}

/* ---- Jobs that compare ---- */

static uint32_t samples_of(const cJSON *row, double *samples) {
    const cJSON *list = cJSON_GetObjectItem(row, "microseconds_samples"), *value;
    uint32_t count = 0;
    cJSON_ArrayForEach(value, list) {
        if (count < SAMPLES_MAX)
            samples[count++] = value->valuedouble;
    }
    return count;
}

/* The ratio to the variant in use, in rows [first, end). */
static void add_ratios(cJSON *rows, int first, int end) {
    double base[SAMPLES_MAX], other[SAMPLES_MAX];
    const cJSON *used = NULL;
    for (int i = first; i < end; i++)
        if (*row_text(cJSON_GetArrayItem(rows, i), "in_use"))
            used = cJSON_GetArrayItem(rows, i);
    uint32_t base_count = used ? samples_of(used, base) : 0;
    for (int i = first; i < end && base_count; i++) {
        cJSON *row = cJSON_GetArrayItem(rows, i);
        uint32_t count = samples_of(row, other);
        if (!count)
            continue;
        struct difference difference = samples_difference(base, base_count, other, count);
        row_number(row, "ratio", difference.after / difference.before);
        if (row != used && !difference.real)
            cJSON_AddStringToObject(row, "noise", "~");
    }
}

static int by_time(const void *a, const void *b) {
    double one = row_value(*(cJSON *const *)a, "microseconds");
    double other = row_value(*(cJSON *const *)b, "microseconds");
    if (isnan(one) || isnan(other)) /* a fault comes last */
        return isnan(one) - isnan(other);
    return (one > other) - (one < other);
}

/* The rows from `first` on by time. */
static void sort_rows(cJSON *rows, int first) {
    cJSON **sorted = NULL;
    while (cJSON_GetArraySize(rows) > first)
        arrput(sorted, cJSON_DetachItemFromArray(rows, first));
    if (sorted)
        qsort(sorted, (size_t)arrlen(sorted), sizeof *sorted, by_time);
    for (ptrdiff_t i = 0; i < arrlen(sorted); i++)
        cJSON_AddItemToArray(rows, sorted[i]);
    arrfree(sorted);
}

static void leave_out(struct lab *lab, const struct kernel_job *job) {
    const cJSON *row;
    const char *kernel = kernel_info(job->variant->kernel).name;
    cJSON_ArrayForEach(row, lab->left_out->rows) {
        if (strcmp(row_text(row, "kernel"), kernel) == 0 &&
            strcmp(row_text(row, "variant"), job->variant->name) == 0)
            return;
    }
    cJSON *added = table_row(lab->left_out);
    cJSON_AddStringToObject(added, "kernel", kernel);
    cJSON_AddStringToObject(added, "variant", job->variant->name);
    cJSON_AddStringToObject(added, "reason", job->left_out);
}

static peridot_result measure_jobs(struct lab *lab, const struct kernel_job *jobs,
                                   peridot_error *error) {
    int count = (int)arrlen(jobs), first = 0;
    peridot_result result = PERIDOT_OK;
    for (int i = 0; i < count && !result; i++) {
        struct kernel_info info = kernel_info(jobs[i].variant->kernel);
        progress("%d of %d: %s %s %s, %s", i + 1, count, info.name, jobs[i].label,
                 info.typed ? weight_type_info(jobs[i].key.type)->name : "", jobs[i].name);
        mind_crashes(lab, &jobs[i]);
        if (jobs[i].left_out)
            leave_out(lab, &jobs[i]);
        else
            result = admit_job(lab, &jobs[i], error);
        int end = cJSON_GetArraySize(lab->table->rows);
        if (i + 1 == count || !kernel_jobs_alike(&jobs[i], &jobs[i + 1])) {
            if (!result)
                result = time_entrants(lab, error);
            add_ratios(lab->table->rows, first, end);
            sort_rows(lab->table->rows, first);
            first = end;
        }
    }
    return result;
}

/* ---- The command ---- */

/* The device is opened without a cache, which random cases would fill; of what lies there only the
 * tuning counts. */
static void read_tuning(struct lab *lab) {
    const struct kernels_options *options = lab->options;
    peridot_device *device = lab->device;
    char directory[4096];
    if (options->minimal || options->no_tuning ||
        !platform_cache_directory(directory, sizeof directory))
        return;
    tuning_read(device->engine, directory, &device->tuning, device->tuning_warning);
    if (*device->tuning_warning)
        warn(device->tuning_warning);
}

static peridot_result open_lab(struct lab *lab, peridot_error *error) {
    const struct kernels_options *options = lab->options;
    peridot_device_params params = {.struct_size = sizeof params,
                                    .choice = options->device,
                                    .minimal = options->minimal,
                                    .cache_directory = ""};
    peridot_result result = peridot_device_open(&params, &lab->device, error);
    if (result)
        return result;
    read_tuning(lab);
    progress("measuring the device's bandwidth and arithmetic");
    result = ceilings_measure(lab->device->engine, options->quick, &lab->ceilings, error);
    if (!result)
        result = bench_open(&lab->bench, lab->device->engine, options->seed, error);
    lab->bench.watch = capture;
    lab->bench.watcher = lab;
    return result;
}

/* What `in use` is of. */
static const char *describe_variants(const struct lab *lab, const struct kernel_job *jobs) {
    for (ptrdiff_t i = 0; i < arrlen(jobs); i++)
        if (jobs[i].tuned)
            return "tuned";
    return lab->options->minimal ? "portable" : "all";
}

static void describe_lab(struct lab *lab, const struct kernel_job *jobs) {
    cJSON *about = lab->results.about;
    environment_describe(lab->device->engine, about);
    row_number(about, "read_gb_per_second", lab->ceilings.read_gbs);
    row_number(about, "copy_gb_per_second", lab->ceilings.copy_gbs);
    row_number(about, "multiply_add_gflop_per_second", lab->ceilings.multiply_add_gflops);
    if (lab->ceilings.packed_dot_gops > 0)
        row_number(about, "packed_dot_gop_per_second", lab->ceilings.packed_dot_gops);
    cJSON_AddStringToObject(about, "variants", describe_variants(lab, jobs));
    row_number(about, "seed", lab->options->seed);
    row_number(about, "runs", lab->options->runs);
    if (device_is_software(lab->device->engine))
        cJSON_AddStringToObject(about, "note",
                                "a software device shares the machine: times vary with its load");
}

static peridot_result measure(struct lab *lab, peridot_error *error) {
    peridot_result result = open_lab(lab, error);
    if (result)
        return result;
    lab->table = results_table(&lab->results, "kernels", "Kernels", kernels_columns);
    lab->left_out = results_table(&lab->results, "left_out", "Left out", kernels_left_out_columns);
    user_variants_ask(&lab->options->own, lab->device->engine);
    lab->options->choice.tuning = &lab->device->tuning;
    struct kernel_job *jobs = kernel_jobs_list(lab->device->engine, &lab->options->choice);
    describe_lab(lab, jobs);
    if (!jobs)
        result =
            fail(error, PERIDOT_ERROR_ARGUMENT,
                 "no kernel variant matches --kernel, --type and --model: patterns are such as "
                 "matvec, */subgroup, and q4_k, q4*");
    else
        result = measure_jobs(lab, jobs, error);
    arrfree(jobs);
    return result;
}

static void take_defaults(struct kernels_options *options, bool quick) {
    *options = (struct kernels_options){.runs = 30, .cases = 3, .seed = (uint32_t)random_seed()};
    options->choice = (struct kernel_choice){.types = "f32,bf16,f16,q8_0,q4_0,q4_k",
                                             .models = "2b,7b",
                                             .contexts = {{512, 4096}, 2},
                                             .tokens = 512,
                                             .plane_most = 512u << 20};
    if (!quick)
        return;
    options->quick = true;
    options->runs = 5;
    options->cases = 1;
    options->choice.types = "bf16,q4_k";
    options->choice.models = "small";
    options->choice.contexts = (struct numbers){{100}, 1};
    options->choice.tokens = 12;
}

/* Variants of one's own are of one kernel, which they are compared in. */
static peridot_result make_own(struct kernels_options *options, peridot_error *error) {
    struct kernel_choice *choice = &options->choice;
    enum kernel kernel;
    if (!options->own.count)
        return PERIDOT_OK;
    if (!user_variants_kernel(choice->kernels, &kernel))
        return fail(error, PERIDOT_ERROR_ARGUMENT,
                    "--variant needs --kernel with the whole name of the one kernel that it is a "
                    "variant of, such as matvec_geglu or rmsnorm%s%s",
                    choice->kernels ? ", not " : "", choice->kernels ? choice->kernels : "");
    if (!strchr(choice->kernels, '/')) { /* another kernel's name may have this one in it */
        snprintf(options->kernels, sizeof options->kernels, "%s/*", choice->kernels);
        choice->kernels = options->kernels;
    }
    choice->own = &options->own;
    return user_variants_make(&options->own, kernel, choice->types, error);
}

static bool parse(int argc, char **argv, struct kernels_options *options) {
    bool quick = false;
    for (int i = 0; i < argc; i++)
        quick |= strcmp(argv[i], "--quick") == 0;
    take_defaults(options, quick);
    struct kernel_choice *choice = &options->choice;
    if (!user_variants_parse(&options->own, &argc, argv))
        return false;
    const struct option table[] = {
        {"--kernel", "", OPTION_TEXT, &choice->kernels, 0, 0},
        {"--type", "", OPTION_TEXT, &choice->types, 0, 0},
        {"--model", "", OPTION_TEXT, &choice->models, 0, 0},
        {"--tokens", "", OPTION_NUMBER, &choice->tokens, 1, 4096},
        {"--context", "", OPTION_NUMBERS, &choice->contexts, 0, 16384},
        {"--kv", "", OPTION_KV, &choice->kv, 0, 0},
        {"--device", "", OPTION_TEXT, &options->device, 0, 0},
        {"--minimal", "", OPTION_FLAG, &options->minimal, 0, 0},
        {"--no-tuning", "", OPTION_FLAG, &options->no_tuning, 0, 0},
        {"--runs", "", OPTION_NUMBER, &options->runs, 1, SAMPLES_MAX},
        {"--cases", "", OPTION_NUMBER, &options->cases, 0, 1000},
        {"--seed", "", OPTION_NUMBER, &options->seed, 0, 4294967295.0},
        {"--quick", "", OPTION_FLAG, &options->quick, 0, 0},
        {"--interface", "", OPTION_TEXT, &options->interface, 0, 0},
        OUTPUT_OPTIONS(&options->output),
    };
    return options_parse("kernels", argc, argv, table, sizeof table / sizeof *table);
}

static int count_faults(const struct lab *lab) {
    int faults = 0;
    const cJSON *row;
    if (lab->table)
        cJSON_ArrayForEach(row, lab->table->rows) {
            faults += *row_text(row, "fault") != 0;
        }
    return faults;
}

/* Frees the lab and its results; `result` and `error` as they were. */
static int end_lab(struct lab *lab, peridot_result result, const peridot_error *error) {
    int faults = count_faults(lab);
    results_free(&lab->results);
    timed_kernel_destroy(lab->timed);
    for (ptrdiff_t i = 0; i < arrlen(lab->entrants); i++)
        timed_kernel_destroy(lab->entrants[i].timed);
    arrfree(lab->entrants);
    if (lab->bench.lane.device)
        bench_close(&lab->bench);
    peridot_device_close(lab->device);
    user_variants_free(&lab->options->own);
    free(lab);
    return result ? complain(error) : faults > 0;
}

int bench_kernels(int argc, char **argv) {
    struct kernels_options options;
    if (options_help(argc, argv)) {
        fputs(usage, stdout);
        return 0;
    }
    if (!parse(argc, argv, &options))
        return 1;
    if (options.interface)
        return kernel_interface_print(options.interface);
    struct lab *lab = calloc(1, sizeof *lab);
    peridot_error error;
    if (!lab) {
        fail(&error, PERIDOT_ERROR_HOST_MEMORY, "out of memory for the lab");
        return complain(&error);
    }
    lab->options = &options;
    results_begin(&lab->results, "kernels");
    peridot_result result = make_own(&options, &error);
    if (!result)
        result = measure(lab, &error);
    progress_end();
    if (!result)
        result = results_output(&lab->results, NULL, &options.output, &error);
    return end_lab(lab, result, &error);
}
