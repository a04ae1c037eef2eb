#define _GNU_SOURCE 1 /* pread */
#include "platform.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

peridot_result platform_open_file(const char *path, struct open_file *file, peridot_error *error) {
    *file = (struct open_file){0};
    /* a pipe without a writer must not block before it is refused */
    int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (descriptor < 0)
        return fail(error, PERIDOT_ERROR_FILE, "cannot open %s: %s", path, strerror(errno));
    struct stat status;
    peridot_result result = PERIDOT_OK;
    if (fstat(descriptor, &status) != 0)
        result = fail(error, PERIDOT_ERROR_FILE, "cannot read %s: %s", path, strerror(errno));
    else if (!S_ISREG(status.st_mode))
        result = fail(error, PERIDOT_ERROR_FILE, "cannot read %s: it is not a regular file", path);
    if (result) {
        close(descriptor);
        return result;
    }
    *file = (struct open_file){true, descriptor, (uint64_t)status.st_size};
    return PERIDOT_OK;
}

void platform_close_file(struct open_file *file) {
    if (file->is_open)
        close(file->descriptor);
    *file = (struct open_file){0};
}

peridot_result platform_read_at(const struct open_file *file, const char *path, uint64_t offset,
                                void *out, size_t size, peridot_error *error) {
    for (size_t done = 0; done < size;) {
        uint64_t at = offset + done;
        ssize_t got = pread(file->descriptor, (char *)out + done, size - done, (off_t)at);
        if (got == 0)
            return fail(error, PERIDOT_ERROR_FILE,
                        "%s ends at byte %llu and had %llu bytes when it was opened: something "
                        "wrote to it meanwhile; try again when it is whole",
                        path, (unsigned long long)at, (unsigned long long)file->size);
        if (got < 0 && errno != EINTR)
            return fail(error, PERIDOT_ERROR_FILE, "cannot read %s at byte %llu: %s", path,
                        (unsigned long long)at, strerror(errno));
        done += got > 0 ? (size_t)got : 0;
    }
    return PERIDOT_OK;
}

peridot_result platform_read_file(const char *path, struct file_bytes *bytes,
                                  peridot_error *error) {
    struct open_file file;
    *bytes = (struct file_bytes){0};
    peridot_result result = platform_open_file(path, &file, error);
    if (result || !file.size) {
        platform_close_file(&file);
        return result;
    }
    uint8_t *data = file.size <= SIZE_MAX ? malloc((size_t)file.size) : NULL;
    if (!data)
        result = fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory for the %.1f MiB of %s",
                      (double)file.size / (1 << 20), path);
    else
        result = platform_read_at(&file, path, 0, data, (size_t)file.size, error);
    if (result)
        free(data);
    else
        *bytes = (struct file_bytes){data, (size_t)file.size};
    platform_close_file(&file);
    return result;
}

void platform_free_file(struct file_bytes *bytes) {
    free(bytes->data);
    *bytes = (struct file_bytes){0};
}

#define NAME_TRIES 100

/* Opens a new file beside `path`, with the mode that the user's new files get: mkstemp's would be
 * 0600, and to ask for the user's mask is to change it, for all threads. `temporary` has room for
 * the path and TEMPORARY_BYTES more. */
#define TEMPORARY_BYTES 32
static int open_beside(const char *path, char *temporary) {
    static atomic_uint counter;
    size_t size = strlen(path) + TEMPORARY_BYTES;
    int descriptor = -1;
    for (int i = 0; i < NAME_TRIES && descriptor < 0; i++) {
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        snprintf(temporary, size, "%s.%lx-%x-%lx", path, (unsigned long)getpid() & 0xffffffff,
                 atomic_fetch_add(&counter, 1), (unsigned long)now.tv_nsec);
        descriptor = open(temporary, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0666);
        if (descriptor < 0 && errno != EEXIST)
            break;
    }
    return descriptor;
}

/* Written, on disk and in the place of `path`; errno says why not. */
static bool fill_and_move(int descriptor, const char *temporary, const char *path,
                          bool (*write)(FILE *stream, void *user), void *user) {
    FILE *stream = fdopen(descriptor, "wb");
    if (!stream) {
        close(descriptor);
        return false;
    }
    bool good = write(stream, user) && fflush(stream) == 0 && fsync(descriptor) == 0;
    int cause = errno;
    good = fclose(stream) == 0 && good;
    good = good && rename(temporary, path) == 0;
    if (!good)
        errno = errno ? errno : cause;
    return good;
}

peridot_result platform_replace_file(const char *path, bool (*write)(FILE *stream, void *user),
                                     void *user, peridot_error *error) {
    struct stat status;
    bool exists = stat(path, &status) == 0;
    if (exists && !S_ISREG(status.st_mode))
        return fail(error, PERIDOT_ERROR_FILE, "cannot write %s: it is not a regular file", path);
    char *temporary = malloc(strlen(path) + TEMPORARY_BYTES);
    if (!temporary)
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory while writing %s", path);
    peridot_result result = PERIDOT_OK;
    int descriptor = open_beside(path, temporary);
    if (descriptor >= 0 && exists) /* a replaced file keeps its mode */
        fchmod(descriptor, status.st_mode & 0777);
    if (descriptor < 0 || !fill_and_move(descriptor, temporary, path, write, user)) {
        result = fail(error, PERIDOT_ERROR_FILE, "cannot write %s: %s", path, strerror(errno));
        if (descriptor >= 0)
            unlink(temporary);
    }
    free(temporary);
    return result;
}

bool platform_is_directory(const char *path) {
    struct stat status;
    return stat(path, &status) == 0 && S_ISDIR(status.st_mode);
}

bool platform_is_file(const char *path) {
    struct stat status;
    return stat(path, &status) == 0 && S_ISREG(status.st_mode);
}

bool platform_same_file(const char *a, const char *b) {
    struct stat first, second;
    return stat(a, &first) == 0 && stat(b, &second) == 0 && first.st_dev == second.st_dev &&
           first.st_ino == second.st_ino;
}

bool platform_make_directories(const char *path) {
    char partial[4096];
    size_t length = strlen(path);
    if (length == 0 || length >= sizeof partial)
        return false;
    for (size_t i = 1; i <= length; i++) {
        if (path[i] != '/' && path[i] != '\0')
            continue;
        memcpy(partial, path, i);
        partial[i] = '\0';
        if (mkdir(partial, 0777) != 0 && errno != EEXIST)
            return false;
    }
    return platform_is_directory(path);
}

bool platform_cache_directory(char *out, size_t size) {
    const char *base = getenv("PERIDOT_CACHE_DIR");
    const char *suffix = "";
    if (!base || !*base) {
        base = getenv("XDG_CACHE_HOME");
        suffix = "/peridot";
    }
    if (!base || !*base) {
        base = getenv("HOME");
        suffix = "/.cache/peridot";
    }
    if (!base || !*base)
        return false;
    int written = snprintf(out, size, "%s%s", base, suffix);
    return written > 0 && (size_t)written < size;
}

void *platform_open_library(const char *name) {
    return dlopen(name, RTLD_NOW | RTLD_LOCAL);
}

void *platform_library_symbol(void *library, const char *name) {
    return dlsym(library, name);
}

void platform_close_library(void *library) {
    if (library)
        dlclose(library);
}

static double clock_seconds(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

double platform_seconds(void) {
    return clock_seconds(CLOCK_MONOTONIC);
}

double platform_cpu_seconds(void) {
    return clock_seconds(CLOCK_PROCESS_CPUTIME_ID);
}

unsigned platform_processor_count(void) {
    long count = sysconf(_SC_NPROCESSORS_ONLN);
    return count > 0 ? (unsigned)count : 1;
}

void platform_host_memory(uint64_t *available, uint64_t *total) {
    *available = *total = 0;
    FILE *file = fopen("/proc/meminfo", "re");
    char line[128];
    while (file && fgets(line, sizeof line, file)) {
        unsigned long long kib;
        if (sscanf(line, "MemTotal: %llu kB", &kib) == 1)
            *total = (uint64_t)kib * 1024;
        else if (sscanf(line, "MemAvailable: %llu kB", &kib) == 1)
            *available = (uint64_t)kib * 1024;
    }
    if (file)
        fclose(file);
}

struct platform_thread {
    pthread_t handle;
    void (*run)(void *user);
    void *user;
};

static void *enter_thread(void *argument) {
    struct platform_thread *thread = argument;
    thread->run(thread->user);
    return NULL;
}

struct platform_thread *platform_thread_start(void (*run)(void *user), void *user) {
    struct platform_thread *thread = malloc(sizeof *thread);
    if (!thread)
        return NULL;
    thread->run = run;
    thread->user = user;
    /* signals are for the application's threads to handle */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int code = pthread_create(&thread->handle, NULL, enter_thread, thread);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (code != 0) {
        free(thread);
        return NULL;
    }
    return thread;
}

void platform_thread_join(struct platform_thread *thread) {
    if (!thread)
        return;
    pthread_join(thread->handle, NULL);
    free(thread);
}

void platform_run_at_once(void (*run)(void *job), void *jobs, size_t size, unsigned count) {
    struct platform_thread *threads[PLATFORM_JOBS_MAX] = {0};
    for (unsigned i = 0; i < count; i++) {
        void *job = (char *)jobs + i * size;
        if (i + 1 < count && i < PLATFORM_JOBS_MAX)
            threads[i] = platform_thread_start(run, job);
        if (i >= PLATFORM_JOBS_MAX || !threads[i])
            run(job);
    }
    for (unsigned i = 0; i < count && i < PLATFORM_JOBS_MAX; i++)
        platform_thread_join(threads[i]);
}

struct platform_mutex {
    pthread_mutex_t handle;
};

struct platform_mutex *platform_mutex_create(void) {
    struct platform_mutex *mutex = malloc(sizeof *mutex);
    if (mutex && pthread_mutex_init(&mutex->handle, NULL) != 0) {
        free(mutex);
        mutex = NULL;
    }
    return mutex;
}

void platform_mutex_lock(struct platform_mutex *mutex) {
    pthread_mutex_lock(&mutex->handle);
}

void platform_mutex_unlock(struct platform_mutex *mutex) {
    pthread_mutex_unlock(&mutex->handle);
}

void platform_mutex_destroy(struct platform_mutex *mutex) {
    if (!mutex)
        return;
    pthread_mutex_destroy(&mutex->handle);
    free(mutex);
}
