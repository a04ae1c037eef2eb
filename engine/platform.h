/* The operating system in one place: files read and replaced, libraries, threads, time, folders.
 * Everything above this file is plain C11. */
#ifndef ENGINE_PLATFORM_H
#define ENGINE_PLATFORM_H

#include "error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Files are read, never mapped: of a mapped file that shrinks, or whose disk fails, the system
 * tells by ending the process. */

/* A regular file, open for reading. */
struct open_file {
    bool is_open;
    int descriptor;
    uint64_t size; /* when it was opened */
};

/* Errors: FILE (missing, not a regular file, unreadable). */
peridot_result platform_open_file(const char *path, struct open_file *file, peridot_error *error);
void platform_close_file(struct open_file *file); /* accepts an all-zero record */
/* Bytes [offset, offset + size) to `out`; `path` is for messages. Any number of threads at once;
 * waits for the disk. Errors: FILE (the disk fails, or the file has become shorter). */
peridot_result platform_read_at(const struct open_file *file, const char *path, uint64_t offset,
                                void *out, size_t size, peridot_error *error);

/* A whole file in memory. An empty one has data NULL and size 0. */
struct file_bytes {
    uint8_t *data;
    size_t size;
};

/* Errors: as platform_open_file and platform_read_at; HOST_MEMORY. */
peridot_result platform_read_file(const char *path, struct file_bytes *bytes, peridot_error *error);
void platform_free_file(struct file_bytes *bytes); /* accepts an all-zero record */

/* Replaces `path` atomically: written to a new file beside it, flushed to disk, renamed. On any
 * error the old file is as it was. `write` gets the stream and `user`, and returns false after a
 * failed write. Errors: FILE (also what exists and is no regular file), HOST_MEMORY. */
peridot_result platform_replace_file(const char *path, bool (*write)(FILE *stream, void *user),
                                     void *user, peridot_error *error);

bool platform_is_directory(const char *path);
bool platform_is_file(const char *path);
/* Whether both paths lead to one file, by whatever links; false if either leads to none. */
bool platform_same_file(const char *a, const char *b);
/* Creates `path` and its parents; true if it exists afterwards. */
bool platform_make_directories(const char *path);
/* The user's cache folder for Peridot (PERIDOT_CACHE_DIR, else XDG_CACHE_HOME/peridot, else
 * ~/.cache/peridot) into out; false if none can be named. Creates nothing. */
bool platform_cache_directory(char *out, size_t size);

void *platform_open_library(const char *name); /* NULL if there is none */
void *platform_library_symbol(void *library, const char *name);
void platform_close_library(void *library);

double platform_seconds(void);     /* monotonic */
double platform_cpu_seconds(void); /* that all threads of this process have run */
unsigned platform_processor_count(void);
/* Host memory in bytes: free for new work, and all of it; 0 where the system does not say. */
void platform_host_memory(uint64_t *available, uint64_t *total);

struct platform_thread;
/* Starts `run(user)` on a new thread; NULL if the system refuses. */
struct platform_thread *platform_thread_start(void (*run)(void *user), void *user);
void platform_thread_join(struct platform_thread *thread); /* frees it; accepts NULL */
/* Calls run(job) for each of an array of jobs, `size` bytes each, at once: the last on the calling
 * thread, and so those for which there is no thread to be had. Returns when all have ended. */
#define PLATFORM_JOBS_MAX 64
void platform_run_at_once(void (*run)(void *job), void *jobs, size_t size, unsigned count);

struct platform_mutex;
struct platform_mutex *platform_mutex_create(void); /* NULL without memory */
void platform_mutex_lock(struct platform_mutex *mutex);
void platform_mutex_unlock(struct platform_mutex *mutex);
void platform_mutex_destroy(struct platform_mutex *mutex); /* accepts NULL */

#endif
