#include "tuning.h"
#include "checksum.h"
#include "platform.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <stb/stb_ds.h>

#define FILE_MAX (1u << 20)
#define ENTRIES_MAX 4096
#define HEAD "peridot-tuning 1\nchecksum "
#define HEAD_BYTES (sizeof HEAD - 1 + 17) /* with sixteen digits and a line's end */
#define WORDS 12
#define GAIN_UNIT 1000.0

void tuning_free(struct tuning *tuning) {
    arrfree(tuning->entries);
    *tuning = (struct tuning){0};
}

static bool same_place(const struct tuning_place *a, const struct tuning_place *b) {
    return a->kernel == b->kernel && a->type == b->type && a->columns == b->columns &&
           a->width == b->width && a->group == b->group && a->kv == b->kv;
}

const struct tuned *tuning_find(const struct tuning *tuning, const struct tuning_place *place) {
    for (ptrdiff_t i = 0; tuning && i < arrlen(tuning->entries); i++)
        if (same_place(&tuning->entries[i].place, place))
            return &tuning->entries[i];
    return NULL;
}

void tuning_set(struct tuning *tuning, const struct tuned *entry) {
    for (ptrdiff_t i = 0; i < arrlen(tuning->entries); i++)
        if (same_place(&tuning->entries[i].place, &entry->place)) {
            tuning->entries[i] = *entry;
            return;
        }
    arrput(tuning->entries, *entry);
}

uint32_t tuning_count(const struct tuning *tuning) {
    return (uint32_t)arrlen(tuning->entries);
}

uint32_t tuning_count_away(const struct tuning *tuning) {
    uint32_t count = 0;
    for (ptrdiff_t i = 0; i < arrlen(tuning->entries); i++)
        count += tuning->entries[i].gain != 1;
    return count;
}

uint64_t tuning_hash(enum kernel kernel, uint32_t type) {
    struct kernel_info info = kernel_info(kernel);
    const struct kernel_variant *variants = kernel_variants(NULL) + info.first_variant;
    uint64_t sum = CHECKSUM_START;
    for (uint32_t i = 0; i < info.variant_count; i++) {
        sum = checksum_add(sum, variants[i].name, strlen(variants[i].name) + 1);
        const uint32_t *end = variants[i].module[type].end;
        for (const uint32_t *word = variants[i].module[type].words; word && word < end; word++)
            sum = (sum ^ *word) * 0x100000001b3u; /* a word at a time: there are many */
    }
    return sum;
}

bool tuning_path(const struct device *device, const char *directory, char *path, size_t size) {
    char uuid[2 * VK_UUID_SIZE + 1];
    for (uint32_t i = 0; i < VK_UUID_SIZE; i++)
        snprintf(uuid + 2 * i, 3, "%02x", device->info.uuid[i]);
    int length = snprintf(path, size, "%s/tuning-%s", directory, uuid);
    return length > 0 && (size_t)length < size;
}

/* The driver's line: one that says anything else was of another driver. */
static void driver_line(const struct device *device, char *line, size_t size) {
    snprintf(line, size, "driver %08x %.200s %.200s", device->info.driver_version,
             device->info.driver, device->info.driver_info);
    for (char *at = line; *at; at++)
        if ((unsigned char)*at < ' ')
            *at = ' ';
}

/* ---- Reading ---- */

struct reading {
    const struct device *device;
    struct tuning *tuning;
    char *at;       /* the next line */
    uint32_t stale; /* entries of kernels that are others now */
    bool damaged;
};

/* The next line, ended by a NUL; NULL: there is none. */
static char *next_line(struct reading *reading) {
    char *line = reading->at, *end = line ? strchr(line, '\n') : NULL;
    if (!end)
        return NULL;
    *end = '\0';
    reading->at = end + 1;
    return line;
}

/* Words with single spaces between; how many, or WORDS + 1: too many. */
static uint32_t split(char *line, char *words[WORDS]) {
    uint32_t count = 0;
    for (char *at = line; at;) {
        if (count == WORDS)
            return WORDS + 1;
        words[count++] = at;
        at = strchr(at, ' ');
        if (at)
            *at++ = '\0';
    }
    return count;
}

static bool read_digits(const char *text, uint32_t base, uint64_t most, uint64_t *value) {
    static const char digits[] = "0123456789abcdef";
    *value = 0;
    for (const char *at = text; *at; at++) {
        const char *digit = strchr(digits, *at);
        if (!digit || digit - digits >= (ptrdiff_t)base || at - text >= 16 ||
            *value > (UINT64_MAX - 15) / base)
            return false;
        *value = *value * base + (uint64_t)(digit - digits);
    }
    return *text && *value <= most;
}

static bool read_number(const char *text, uint32_t *number) {
    uint64_t value;
    if (!read_digits(text, 10, UINT32_MAX, &value))
        return false;
    *number = (uint32_t)value;
    return true;
}

static bool read_kernel(const char *name, enum kernel *kernel) {
    for (uint32_t i = 0; i < KERNEL_COUNT; i++)
        if (strcmp(kernel_info((enum kernel)i).name, name) == 0) {
            *kernel = (enum kernel)i;
            return true;
        }
    return false;
}

static bool read_type(const char *name, enum kernel kernel, uint32_t *type) {
    *type = 0;
    if (!kernel_info(kernel).typed)
        return strcmp(name, "-") == 0;
    for (; *type < WEIGHT_TYPE_COUNT; ++*type)
        if (strcmp(weight_type_info((enum weight_type) * type)->name, name) == 0)
            return true;
    return false;
}

static const struct kernel_variant *find_variant(enum kernel kernel, uint32_t type,
                                                 const char *name) {
    struct kernel_info info = kernel_info(kernel);
    const struct kernel_variant *variants = kernel_variants(NULL) + info.first_variant;
    for (uint32_t i = 0; i < info.variant_count; i++)
        if (strcmp(variants[i].name, name) == 0 && variants[i].module[type].words)
            return &variants[i];
    return NULL;
}

/* Whether the device can have such a choice for such a place. */
static bool is_possible(const struct device *device, const struct tuned *entry) {
    const struct tuning_place *place = &entry->place;
    const struct kernel_variant *first =
        kernel_variants(NULL) + kernel_info(place->kernel).first_variant;
    struct pipeline_key base = pipeline_key(device, first, place->type);
    if (place->columns && !first->columns)
        base.spec[SPEC_COLUMNS] = place->columns;
    if (place->group) {
        base.spec[SPEC_HEAD_DIM] = place->width;
        base.spec[SPEC_GROUP] = place->group;
        base.spec[SPEC_KV_TYPE] = place->kv;
    }
    struct pipeline_key key = base;
    key.variant = entry->variant;
    memcpy(key.spec, entry->spec, sizeof entry->spec);
    return kernel_search_allows(device, &base, place->columns, &key);
}

/* entry KERNEL TYPE COLUMNS WIDTH GROUP KV HASH VARIANT WORKGROUP,ROWS,COLUMNS GAIN */
enum {
    ENTRY,
    KERNEL_WORD,
    TYPE,
    COLUMNS,
    WIDTH,
    GROUP,
    KV,
    HASH,
    VARIANT_WORD,
    SPEC,
    GAIN,
    ENTRY_WORDS
};

static bool read_spec(char *text, uint32_t spec[SPEC_HEAD_DIM]) {
    for (uint32_t i = 0; i < SPEC_HEAD_DIM; i++) {
        char *end = strchr(text, ',');
        if (end)
            *end = '\0';
        if (!read_number(text, &spec[i]) || (end == NULL) != (i + 1 == SPEC_HEAD_DIM))
            return false;
        text = end ? end + 1 : text;
    }
    return true;
}

/* Bounds on sizes, so that sums of them do not overflow. */
static bool read_place(char *words[], struct tuning_place *place) {
    return read_kernel(words[KERNEL_WORD], &place->kernel) &&
           read_type(words[TYPE], place->kernel, &place->type) &&
           read_number(words[COLUMNS], &place->columns) && place->columns <= 64 &&
           read_number(words[WIDTH], &place->width) && place->width <= 1u << 20 &&
           read_number(words[GROUP], &place->group) && place->group <= 1024 &&
           read_number(words[KV], &place->kv) && place->kv <= KV_Q8;
}

static bool read_entry(struct reading *reading, char *line) {
    char *words[WORDS];
    struct tuned entry = {0};
    uint64_t hash;
    uint32_t gain;
    if (split(line, words) != ENTRY_WORDS || strcmp(words[ENTRY], "entry") != 0)
        return false;
    if (!read_kernel(words[KERNEL_WORD], &entry.place.kernel)) {
        reading->stale++; /* of another version of Peridot */
        return true;
    }
    if (!read_place(words, &entry.place) || !read_digits(words[HASH], 16, UINT64_MAX, &hash))
        return false;
    if (hash != tuning_hash(entry.place.kernel, entry.place.type)) {
        reading->stale++;
        return true;
    }
    entry.variant = find_variant(entry.place.kernel, entry.place.type, words[VARIANT_WORD]);
    if (!entry.variant || !read_spec(words[SPEC], entry.spec) || !read_number(words[GAIN], &gain) ||
        tuning_find(reading->tuning, &entry.place) ||
        arrlen(reading->tuning->entries) >= ENTRIES_MAX)
        return false;
    if (!is_possible(reading->device, &entry)) {
        reading->stale++; /* of another search space */
        return true;
    }
    entry.gain = gain / GAIN_UNIT;
    arrput(reading->tuning->entries, entry);
    return true;
}

static bool read_time(struct reading *reading, char *line) {
    uint64_t value;
    if (!line || strncmp(line, "time ", 5) != 0 || !read_digits(line + 5, 10, INT64_MAX, &value))
        return false;
    reading->tuning->made = (int64_t)value;
    return true;
}

/* The text after the head, NUL-terminated. False: it is of another driver. */
static bool read_body(struct reading *reading) {
    char driver[512], *line = next_line(reading);
    driver_line(reading->device, driver, sizeof driver);
    reading->damaged = !line || strncmp(line, "driver ", 7) != 0;
    if (!reading->damaged && strcmp(line, driver) != 0)
        return false;
    reading->damaged = reading->damaged || !read_time(reading, next_line(reading));
    while (!reading->damaged && (line = next_line(reading)))
        reading->damaged = !read_entry(reading, line);
    reading->damaged = reading->damaged || *reading->at;
    return true;
}

/* Whether the head is there and the checksum is that of what follows. */
static bool is_whole(const char *text, size_t size) {
    char digits[17] = {0};
    uint64_t sum;
    if (size < HEAD_BYTES || size > FILE_MAX || memcmp(text, HEAD, sizeof HEAD - 1) != 0 ||
        text[HEAD_BYTES - 1] != '\n' || memchr(text, '\0', size))
        return false;
    memcpy(digits, text + sizeof HEAD - 1, 16);
    return read_digits(digits, 16, UINT64_MAX, &sum) &&
           sum == checksum_add(CHECKSUM_START, text + HEAD_BYTES, size - HEAD_BYTES);
}

void tuning_parse(const struct device *device, const char *path, const char *text, size_t size,
                  struct tuning *tuning, char *word) {
    static const char again[] = "peridot tune makes it anew";
    *tuning = (struct tuning){0};
    *word = '\0';
    char *copy = is_whole(text, size) ? malloc(size + 1) : NULL;
    struct reading reading = {.device = device, .tuning = tuning, .damaged = !copy};
    bool same_driver = true;
    if (copy) {
        memcpy(copy, text, size);
        copy[size] = '\0';
        reading.at = copy + HEAD_BYTES;
        same_driver = read_body(&reading);
    }
    free(copy);
    if (reading.damaged)
        snprintf(word, TUNING_WORD, "the tuning in %.400s is damaged and not used; %s", path,
                 again);
    else if (!same_driver)
        snprintf(word, TUNING_WORD,
                 "the tuning in %.400s is of another driver version and not used; %s", path, again);
    else if (reading.stale)
        snprintf(word, TUNING_WORD,
                 "%u of the %td choices in %.400s are for kernels that have changed since, and not "
                 "used; %s",
                 reading.stale, arrlen(tuning->entries) + (ptrdiff_t)reading.stale, path, again);
    if (reading.damaged || !same_driver)
        tuning_free(tuning);
}

void tuning_read(const struct device *device, const char *directory, struct tuning *tuning,
                 char *word) {
    char path[4096];
    struct file_bytes file;
    peridot_error error;
    *tuning = (struct tuning){0};
    *word = '\0';
    if (!tuning_path(device, directory, path, sizeof path) || !platform_is_file(path))
        return;
    if (platform_read_file(path, &file, &error)) {
        snprintf(word, TUNING_WORD, "the tuning is not used: %.600s", error.message);
        return;
    }
    tuning_parse(device, path, (const char *)file.data, file.size, tuning, word);
    platform_free_file(&file);
}

/* ---- Writing ---- */

static void print_entry(char **body, const struct tuned *entry) {
    char line[512];
    const struct tuning_place *place = &entry->place;
    struct kernel_info info = kernel_info(place->kernel);
    double gain = entry->gain * GAIN_UNIT;
    int length = snprintf(
        line, sizeof line, "entry %s %s %u %u %u %u %016" PRIx64 " %s %u,%u,%u %u\n", info.name,
        info.typed ? weight_type_info((enum weight_type)place->type)->name : "-", place->columns,
        place->width, place->group, place->kv, tuning_hash(place->kernel, place->type),
        entry->variant->name, entry->spec[SPEC_WORKGROUP], entry->spec[SPEC_ROWS],
        entry->spec[SPEC_COLUMNS], gain > 0 && gain < 1e9 ? (unsigned)gain : 0);
    memcpy(arraddnptr(*body, length), line, (size_t)length);
}

static bool write_text(FILE *stream, void *user) {
    const char *body = user;
    size_t size = arrlenu(user);
    return fprintf(stream, HEAD "%016" PRIx64 "\n", checksum_add(CHECKSUM_START, body, size)) > 0 &&
           fwrite(body, 1, size, stream) == size;
}

peridot_result tuning_write(const struct device *device, const char *directory,
                            const struct tuning *tuning, peridot_error *error) {
    char path[4096], driver[512], *body = NULL;
    driver_line(device, driver, sizeof driver);
    if (!tuning_path(device, directory, path, sizeof path))
        return fail(error, PERIDOT_ERROR_FILE, "the cache folder's name is too long: %.200s",
                    directory);
    if (!platform_make_directories(directory))
        return fail(error, PERIDOT_ERROR_FILE,
                    "the cache folder %.400s cannot be made: set PERIDOT_CACHE_DIR to another",
                    directory);
    char head[600];
    int length = snprintf(head, sizeof head, "%s\ntime %lld\n", driver, (long long)tuning->made);
    memcpy(arraddnptr(body, length), head, (size_t)length);
    for (ptrdiff_t i = 0; i < arrlen(tuning->entries); i++)
        print_entry(&body, &tuning->entries[i]);
    peridot_result result = platform_replace_file(path, write_text, body, error);
    arrfree(body);
    return result;
}
