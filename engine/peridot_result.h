/* The result codes and the error record that every fallible Peridot function reports through. */
#ifndef PERIDOT_RESULT_H
#define PERIDOT_RESULT_H

#ifdef __cplusplus
extern "C" {
#endif

/* What became of a call; errors are negative. */
typedef enum peridot_result {
    PERIDOT_OK = 0,
    PERIDOT_NOT_READY = 1,            /* not an error: nothing to report yet, ask again */
    PERIDOT_ERROR_ARGUMENT = -1,      /* the caller passed something that cannot be meant */
    PERIDOT_ERROR_FILE = -2,          /* a file is missing, unreadable or unwritable */
    PERIDOT_ERROR_FORMAT = -3,        /* a file's contents are damaged or contradict each other */
    PERIDOT_ERROR_UNSUPPORTED = -4,   /* well-formed, but not something Peridot can run */
    PERIDOT_ERROR_HOST_MEMORY = -5,   /* the host refused an allocation */
    PERIDOT_ERROR_DEVICE_MEMORY = -6, /* the device refused an allocation */
    PERIDOT_ERROR_NO_VULKAN = -7,     /* no Vulkan loader on this machine */
    PERIDOT_ERROR_NO_DEVICE = -8,     /* no device fits what was asked for */
    PERIDOT_ERROR_DEVICE_LOST = -9,   /* the device stopped; its sessions cannot continue */
    PERIDOT_ERROR_VULKAN = -10,       /* any other Vulkan failure */
    PERIDOT_ERROR_CONTEXT_FULL = -11, /* the tokens do not fit in the session's context */
    PERIDOT_ERROR_CANCELLED = -12     /* the caller's callback asked to stop */
} peridot_result;

/* One clear sentence: what, where, what to do. Owned by the caller; any function accepts NULL. */
typedef struct peridot_error {
    peridot_result code;
    char message[1024];
} peridot_error;

#ifdef __cplusplus
}
#endif
#endif
