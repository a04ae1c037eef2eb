#include "child_process.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static bool same_name(const char *a, const char *b) {
    size_t length = strcspn(a, "=");
    return strncmp(a, b, length + 1) == 0;
}

/* Ours without what is set anew, and that; the strings stay where they are. */
static char **make_environment(const char *const *settings) {
    size_t count = 0, used = 0;
    while (environ[count])
        count++;
    for (size_t i = 0; settings[i]; i++)
        count++;
    char **all = calloc(count + 1, sizeof *all);
    for (size_t i = 0; all && environ[i]; i++) {
        bool replaced = false;
        for (size_t j = 0; settings[j]; j++)
            replaced |= same_name(settings[j], environ[i]);
        if (!replaced)
            all[used++] = environ[i];
    }
    for (size_t i = 0; all && settings[i]; i++)
        memcpy(&all[used++], &settings[i], sizeof *all);
    return all;
}

static char *read_all(int descriptor, size_t *length) {
    size_t capacity = 1 << 16;
    char *text = malloc(capacity);
    ssize_t got = 1;
    for (*length = 0; text && got != 0;) {
        if (*length + 1 == capacity) {
            char *grown = realloc(text, capacity *= 2);
            if (!grown)
                free(text);
            text = grown;
            continue;
        }
        got = read(descriptor, text + *length, capacity - 1 - *length);
        if (got < 0 && errno != EINTR)
            break;
        *length += got > 0 ? (size_t)got : 0;
    }
    if (text)
        text[*length] = '\0';
    return text;
}

/* Starts it with `descriptor` as its standard output; an errno. */
static int spawn(pid_t *child, const char *const *arguments, char *const *environment,
                 const int ends[2]) {
    posix_spawn_file_actions_t actions;
    int cause = posix_spawn_file_actions_init(&actions);
    if (cause)
        return cause;
    cause = posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    if (!cause)
        cause = posix_spawn_file_actions_addclose(&actions, ends[0]);
    if (!cause && ends[1] != STDOUT_FILENO)
        cause = posix_spawn_file_actions_addclose(&actions, ends[1]);
    char *const *list;
    memcpy(&list, &arguments, sizeof list);
    if (!cause)
        cause = posix_spawnp(child, arguments[0], &actions, NULL, list, environment);
    posix_spawn_file_actions_destroy(&actions);
    return cause;
}

static peridot_result await(const char *name, pid_t child, peridot_error *error) {
    int status;
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            return fail(error, PERIDOT_ERROR_UNSUPPORTED, "%s: its process was lost", name);
    if (WIFSIGNALED(status))
        return fail(error, PERIDOT_ERROR_UNSUPPORTED, "%s: its process ended by signal %d (%s)",
                    name, WTERMSIG(status), strsignal(WTERMSIG(status)));
    if (WEXITSTATUS(status))
        return fail(error, PERIDOT_ERROR_UNSUPPORTED, "%s: its process failed, see above", name);
    return PERIDOT_OK;
}

peridot_result child_run(const char *name, const char *const *arguments,
                         const char *const *settings, char **output, size_t *length,
                         peridot_error *error) {
    int ends[2], cause = 0;
    pid_t child;
    *output = NULL;
    char **environment = make_environment(settings);
    if (!environment || pipe(ends) != 0) {
        free(environment);
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory while starting a process");
    }
    cause = spawn(&child, arguments, environment, ends);
    free(environment);
    close(ends[1]);
    if (!cause)
        *output = read_all(ends[0], length);
    close(ends[0]);
    if (cause)
        return fail(error, PERIDOT_ERROR_UNSUPPORTED, "%s: cannot start %s: %s", name, arguments[0],
                    strerror(cause));
    peridot_result result = await(name, child, error);
    if (!*output && !result)
        result = fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory for what a process printed");
    return result;
}
