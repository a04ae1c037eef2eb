/* Peridot: Google's Gemma language models on any vendor's GPU, with Vulkan compute shaders.
 *
 * A device runs models; a model holds weights on its device, or on several; a session is one
 * conversation: a KV cache and a sampler. Close in the opposite order of opening.
 *
 *     peridot_device_open(NULL, &device, &error);
 *     peridot_model_load_wait(device, "gemma-2b-it", NULL, &model, &error);
 *     peridot_session_create(model, NULL, &session, &error);
 *     peridot_session_prompt_wait(session, tokens, count, NULL, &error);
 *     peridot_session_generate_wait(session, 200, on_token, user, &generated, &error);
 *
 * Functions that can fail return a peridot_result and write one clear sentence to `error`, which
 * may be NULL; where they were to write a handle, that is NULL after an error. Other pointers may
 * be NULL where that is said, and `params` may, for the defaults; elsewhere a function that has an
 * `error` answers ARGUMENT to NULL, and no other must be given it. Nothing here exits, aborts or
 * prints. A call that waits for the GPU has a name that ends in _wait; no other one does, but for
 * peridot_device_close of a device of Peridot's own. What takes the host long, reading files and
 * compiling pipelines, says so. Objects of one device may be used from one thread at a time, a
 * model on several devices being an object of each; different devices are independent. Functions
 * that take no object, and those that say so, may be called from any thread. Callbacks come on the
 * thread of the call, but for peridot_device_params.message and an adoption's allocator, which may
 * be called on threads that compile pipelines.
 *
 * Structs grow at their end in later versions, and application and library need not be of the same
 * one:
 *   - One that begins with struct_size is the caller's, who sets that to sizeof it before any call.
 *     Of what the application fills in, fields past struct_size count as zero, and zero is always
 *     the default; fields that the library does not know are ignored. What the library fills in, it
 *     writes up to struct_size and no further, leaves struct_size as it is, and leaves fields that
 *     it does not know alone: struct_size set and the rest zero is the right way to begin. In an
 *     array, the first one's struct_size is that of all.
 *   - One that the library hands to a callback (peridot_progress, peridot_token) is the library's,
 *     for the time of the call: there may be more behind the fields known here, so point to it or
 *     copy fields, and do not rely on its size.
 *   - peridot_error, peridot_file and peridot_message stay as they are for ever. */
#ifndef PERIDOT_H
#define PERIDOT_H

#include "peridot_result.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <vulkan/vulkan_core.h> /* with volk: define VK_NO_PROTOTYPES, or include volk.h before */

#ifdef __cplusplus
extern "C" {
#endif

#if defined(_WIN32)
#define PERIDOT_API
#elif defined(__GNUC__) || defined(__clang__)
#define PERIDOT_API __attribute__((visibility("default")))
#else
#define PERIDOT_API
#endif

typedef struct peridot_device peridot_device;
typedef struct peridot_model peridot_model;
typedef struct peridot_loading peridot_loading;
typedef struct peridot_session peridot_session;
typedef struct peridot_grammar peridot_grammar;
typedef struct peridot_batch peridot_batch;

/* The library's version, "0.1.0": it may be another one than the header's. From any thread. */
PERIDOT_API const char *peridot_version(void);

/* ---- Devices -----------------------------------------------------------------------------------
 */

/* Against the device's other users. */
typedef enum peridot_priority {
    PERIDOT_PRIORITY_DEFAULT = 0, /* the driver's: nothing is asked for */
    PERIDOT_PRIORITY_LOW,
    PERIDOT_PRIORITY_MEDIUM,
    PERIDOT_PRIORITY_HIGH /* the driver may want privileges for it */
} peridot_priority;

/* How a device is opened, or adopted. */
typedef struct peridot_device_params {
    size_t struct_size;
    const char *choice; /* an index, a part of the name, or a UUID; NULL: the best device */
    bool validation;    /* load VK_LAYER_KHRONOS_validation */
    bool minimal;       /* portable kernels only */
    uint32_t threads;   /* for compiling pipelines and converting weights; 1: none but yours; 0: one
                           per processor, 8 at most, and on an adopted device none but yours */
    uint64_t max_allocation; /* bytes of one buffer at most; 0: the device's own limit */
    uint64_t memory_limit;   /* bytes that Peridot may take of its memory; 0: what is free */
    const char
        *cache_directory; /* of the pipeline cache and the tuning; NULL: the user's, "": none */
    void (*message)(const char *text,
                    void *user); /* validation messages and warnings; NULL: dropped */
    void *message_user;
    bool no_tuning;   /* kernels as chosen without measuring, whatever `peridot tune` found */
    char reserved[7]; /* padding to older callers */
    /* Of the queue among all programs, by VK_KHR_global_priority or VK_EXT_global_priority, for a
     * device of Peridot's own (an adopted queue has what its application gave it, best
     * peridot_device_requirements::queue_next); what the driver refuses is left out, with a warning
     * to `message`. Of memory, by VK_EXT_memory_priority: 0.25 for LOW, 1 for HIGH, Vulkan's own
     * 0.5 for the others and, at most, on an adopted device. And of dispatches, by
     * VK_NV_compute_occupancy_priority: 0.25 for LOW, 0.75 for HIGH; for the others none is set,
     * which is Vulkan's own 0.5. */
    peridot_priority priority;
} peridot_device_params;

/* One Vulkan device. */
typedef struct peridot_device_info {
    size_t struct_size;
    uint32_t index;
    char name[256];
    char driver[320];      /* driver name and version, in words */
    char uuid[37];         /* 8-4-4-4-12 hexadecimal digits */
    const char *kind;      /* "discrete", "integrated", "virtual", "software" or "other"; static */
    uint64_t memory_total; /* bytes of device-local memory */
    uint64_t memory_free;  /* of those, free now, where the driver tells; else memory_total */
    uint64_t max_allocation; /* bytes of one allocation */
    uint32_t subgroup_size;
    bool chosen;      /* the one that NULL chooses */
    char reason[256]; /* why it is chosen, or why Peridot cannot use it, or empty */
    bool usable;
    uint32_t tuned;      /* choices that `peridot tune` has measured and that are in use; in a list:
                            those in the user's cache folder */
    uint32_t tuned_away; /* of those, other than would be chosen without measuring */
    int64_t tuned_at;    /* when, in seconds since 1970; 0: never */
    char tuning_warning[768]; /* why a tuning that there is is not in use, or not all; or empty */
    uint64_t memory_used;     /* bytes that Peridot has allocated on an open device; in a list 0 */
    uint64_t memory_limit;    /* that it may, see peridot_device_memory_limit; 0: what is free */
} peridot_device_info;

/* Lists every Vulkan device: writes at most `capacity` records, and how many there are to `count`.
 * `devices` may be NULL where `capacity` is 0. From any thread. Errors: ARGUMENT (the first
 * record's struct_size is not set), NO_VULKAN, NO_DEVICE (no driver), VULKAN, HOST_MEMORY. */
PERIDOT_API peridot_result peridot_devices_list(peridot_device_info *devices, uint32_t capacity,
                                                uint32_t *count, peridot_error *error);

/* Opens a device of its own, to be closed by peridot_device_close. What `params` points to is
 * copied, but for `message_user`. From any thread. Errors: ARGUMENT (struct_size is not set; no
 * such priority), NO_VULKAN, NO_DEVICE (no driver; `choice` means none, several, or one that cannot
 * run Peridot: why), VULKAN (also: no validation layer), HOST_MEMORY, DEVICE_MEMORY, DEVICE_LOST.
 */
PERIDOT_API peridot_result peridot_device_open(const peridot_device_params *params,
                                               peridot_device **device, peridot_error *error);

/* An application's device, for Peridot to run on. */
typedef struct peridot_adoption {
    size_t struct_size;
    VkInstance instance;
    VkPhysicalDevice physical_device;
    VkDevice device;
    PFN_vkGetInstanceProcAddr get_instance_proc_addr;
    VkQueue queue; /* with compute; submissions go here */
    uint32_t queue_family;
    const char *const *extensions; /* device extensions that the application enabled */
    uint32_t extension_count;
    const VkPhysicalDeviceFeatures2
        *features; /* what it enabled, chained; NULL: as created_with tells, or else what is
                      required and not shaderIntegerDotProduct */
    const VkAllocationCallbacks *allocator; /* NULL: none */
    /* Held around each submission, which is Peridot's only call on the queue. NULL: the queue is
     * not shared with other threads, or the device synchronises it: one that was created and
     * fetched with the flag of VK_KHR_internally_synchronized_queues needs no lock. */
    void (*lock_queue)(void *user);
    void (*unlock_queue)(void *user);
    void *user; /* of these and of transfer_queue's */
    /* Pipelines are compiled with it, on several threads if params->threads allows them, instead of
     * one that Peridot keeps on disk; so without
     * VK_PIPELINE_CACHE_CREATE_EXTERNALLY_SYNCHRONIZED_BIT, or with one thread, as is the default,
     * and the application's threads off it meanwhile. To keep what it holds is the application's.
     * VK_NULL_HANDLE: none. */
    VkPipelineCache pipeline_cache;
    /* Where weights are uploaded, while `queue` goes on with its own: of any family that can copy,
     * best of one that can do nothing else. NULL, or `queue` again: they go to `queue`. With one of
     * another family weights are made with VK_SHARING_MODE_CONCURRENT for both. */
    VkQueue transfer_queue;
    uint32_t transfer_family;
    /* held around each submission to transfer_queue; NULL: that is not shared. */
    void (*lock_transfer_queue)(void *user);
    void (*unlock_transfer_queue)(void *user);
    /* What peridot_requirements_for filled in and `device` was created with: tells the features
     * where `features` is NULL, and the extensions where `extensions` is. NULL: those two do. */
    const struct peridot_device_requirements *created_with;
} peridot_adoption;

/* Runs on the application's device. It stays the application's: all that was passed in outlives the
 * peridot_device, but for `extensions`, `features`, `created_with` and the two structs themselves,
 * which the call alone reads; closing it leaves the device as it was. Of `params` (may be NULL)
 * minimal, threads, max_allocation, memory_limit, cache_directory, no_tuning, priority (of memory
 * and dispatches) and, for warnings, message count. Of the extensions, VK_EXT_memory_budget tells
 * what is free; VK_EXT_memory_priority gives allocations a priority (its feature is enabled too),
 * by which drivers choose what leaves the card where VK_EXT_pageable_device_local_memory lets them;
 * VK_NV_compute_occupancy_priority gives dispatches one beside other work on the device, where
 * `features` has its feature too.
 * From any thread. Errors: ARGUMENT (a handle is missing; one of two lock callbacks is; a required
 * feature is not enabled: named; transfer_family cannot copy; the instance is older than
 * Vulkan 1.3), NO_DEVICE (the physical device cannot run Peridot: why), VULKAN, HOST_MEMORY,
 * DEVICE_MEMORY, DEVICE_LOST.
 */
PERIDOT_API peridot_result peridot_device_adopt(const peridot_adoption *adoption,
                                                const peridot_device_params *params,
                                                peridot_device **device, peridot_error *error);

/* What to enable before creating a device that Peridot is to adopt. */
typedef struct peridot_requirements {
    size_t struct_size;
    uint32_t api_version;                      /* of instance and device, at least */
    const VkPhysicalDeviceFeatures2 *features; /* required, but for shaderIntegerDotProduct, which
                                                  int8 activations are slower without; ready for
                                                  VkDeviceCreateInfo::pNext, and valid until the
                                                  library is unloaded */
    const char *const *recommended_extensions; /* enabled if present, with their features, Peridot
                                                  uses them */
    uint32_t recommended_extension_count;
    VkQueueFlags queue_flags; /* what the queue's family must be able to do */
} peridot_requirements;
/* The same for every device; peridot_requirements_for knows one. From any thread. */
PERIDOT_API void peridot_requirements_get(peridot_requirements *requirements);

#define PERIDOT_EXTENSIONS_MAX 16 /* in a peridot_device_requirements */

/* What to create a device with, that Peridot is to adopt, on one physical device. The structs of
 * features are the caller's and linked to each other: add what the application itself needs, chain
 * further ones to vulkan13.pNext, which is the last, and do not copy this, which points into
 * itself.
 */
typedef struct peridot_device_requirements {
    size_t struct_size;
    bool usable;           /* Peridot can run on it */
    char reason[544];      /* why not, in one sentence; or empty */
    uint32_t api_version;  /* of the instance and of the device, at least */
    uint32_t queue_family; /* which suits best: for compute, and without graphics if there is such
                              a one; any with compute will do. UINT32_MAX: none */
    uint32_t transfer_family; /* for transfers alone, which copy beside other work; UINT32_MAX: none
                               */
    uint32_t extension_count;
    /* Device extensions to enable, all of which it has; the names are the library's. */
    const char *extensions[PERIDOT_EXTENSIONS_MAX];
    VkPhysicalDeviceFeatures2 features; /* VkDeviceCreateInfo::pNext: what is required and what is
                                           recommended and there */
    VkPhysicalDeviceVulkan11Features vulkan11;
    VkPhysicalDeviceVulkan12Features vulkan12;
    VkPhysicalDeviceVulkan13Features vulkan13;
    /* Of the extensions; linked where the device has them, else zero. */
    VkPhysicalDeviceMemoryPriorityFeaturesEXT memory_priority;
    VkPhysicalDevicePageableDeviceLocalMemoryFeaturesEXT pageable_memory;
    /* VkPhysicalDeviceComputeOccupancyPriorityFeaturesNV, which not every vulkan_core.h has */
    struct {
        VkStructureType sType;
        void *pNext;
        VkBool32 computeOccupancyPriority;
    } occupancy_priority;
    /* VkDeviceQueueCreateInfo::pNext of Peridot's queue: asks that it come after other programs on
     * the device too, with VK_QUEUE_GLOBAL_PRIORITY_LOW_KHR, whose extension is then one of
     * `extensions`. For queue_family, and all queues of a family have the same: so where Peridot's
     * is the only one, or those beside it may wait too. Among the application's own, the queue's
     * pQueuePriorities 0 is the polite one. NULL: the family does not list that priority. */
    const void *queue_next;
    VkDeviceQueueGlobalPriorityCreateInfoKHR global_priority; /* where that points; or zero */
} peridot_device_requirements;

/* Asks one physical device, before a device is made on it; creates nothing. What it writes
 * peridot_adoption takes as created_with. One that cannot
 * run Peridot is no error. Whether the instance was made for Vulkan 1.3 cannot be asked:
 * peridot_device_adopt tells. May be called from any thread. Errors: ARGUMENT (an argument is NULL;
 * struct_size is not set). */
PERIDOT_API peridot_result
peridot_requirements_for(VkInstance instance, VkPhysicalDevice physical_device,
                         PFN_vkGetInstanceProcAddr get_instance_proc_addr,
                         peridot_device_requirements *requirements, peridot_error *error);

/* What it is, how much of its memory is free now, and what it is tuned to. */
PERIDOT_API void peridot_device_describe(const peridot_device *device, peridot_device_info *info);

/* Changes what Peridot may take of the device's memory, in bytes (0: what is free), at any time.
 * What it has stays its own: where that is more (peridot_device_info::memory_used tells), nothing
 * new is allocated, what needs a larger KV cache answers DEVICE_MEMORY, and suspending sessions
 * gives back what they have. A prompt that is refused leaves its session as it was, generation
 * keeps the tokens that it came to, and work in slices waits for its next call or to be cancelled.
 * Errors: ARGUMENT (no device). */
PERIDOT_API peridot_result peridot_device_memory_limit(peridot_device *device, uint64_t bytes,
                                                       peridot_error *error);

/* Accepts NULL; close its models first. Waits for the device where that is Peridot's own; an
 * adopted one is left as it was. */
PERIDOT_API void peridot_device_close(peridot_device *device);

/* ---- Models ------------------------------------------------------------------------------------
 */

/* How weights are held on the device. */
typedef enum peridot_weights {
    PERIDOT_WEIGHTS_FILE = -1, /* as the file has them */
    PERIDOT_WEIGHTS_AUTO = 0,  /* the same or, where that does not fit, the best that does */
    PERIDOT_WEIGHTS_F32,
    PERIDOT_WEIGHTS_BF16,
    PERIDOT_WEIGHTS_F16, /* refused where a weight does not fit in a float16 */
    /* ggml's blocks, made while loading with scales of least error: of 32 elements, */
    PERIDOT_WEIGHTS_Q8_0,
    PERIDOT_WEIGHTS_Q4_0,
    PERIDOT_WEIGHTS_Q4_1,
    PERIDOT_WEIGHTS_Q5_0,
    PERIDOT_WEIGHTS_Q5_1,
    /* and of 256; a matrix with rows that are no multiple of 256 gets the next better of the above
     */
    PERIDOT_WEIGHTS_Q2_K,
    PERIDOT_WEIGHTS_Q3_K,
    PERIDOT_WEIGHTS_Q4_K,
    PERIDOT_WEIGHTS_Q5_K,
    PERIDOT_WEIGHTS_Q6_K,
    PERIDOT_WEIGHTS_NF4 /* 4-bit NormalFloat (QLoRA) in blocks of 32 */
} peridot_weights;

/* How far a call is. */
typedef struct peridot_progress {
    const char *stage;  /* "reading", "uploading", "compiling", "converting"; static */
    uint64_t done, all; /* bytes, or pipelines when compiling */
} peridot_progress;

struct peridot_session_params;

#define PERIDOT_DEVICES_MAX 16 /* that one model's layers may be on */

/* How a model is loaded. */
typedef struct peridot_model_params {
    size_t struct_size;
    peridot_weights weights; /* below 8 bits the embedding table, which is the head, gets 8 */
    const struct peridot_session_params *session; /* AUTO leaves room for it; NULL: the default */
    uint64_t max_piece; /* larger tensors are split by rows, bytes; 0: what the device allocates at
                           once, 2 GiB at most */
    bool (*progress)(const peridot_progress *progress, void *user); /* false cancels; NULL: none */
    void *progress_user;
    /* Devices beside the one that the model is loaded on, `more_device_count` of them, each another
     * one, to hold a part of the layers: it gets them in this order, that one the first part. They
     * are the application's, opened or adopted, of any vendor, and are closed after the model. A
     * step copies one activation row from each device to the next through the host's memory. NULL
     * and 0: none. */
    peridot_device *const *more_devices;
    uint32_t more_device_count; /* PERIDOT_DEVICES_MAX - 1 at most, and fewer than layers */
    /* [1 + more_device_count] shares of the layers, in any unit, finite and not negative: whole
     * layers go to each device in proportion. NULL: in proportion to the memory that is free on
     * each beside what else it must hold (the first also has the embedding, the head and the
     * sampler), to none more than it has room for, and to software devices only what no GPU has
     * room for. A device that gets no layers is not used. */
    const float *split;
    /* Loading also compiles the pipelines that a session of `session` needs, so that
     * peridot_session_create compiles none. */
    bool compile_pipelines;
} peridot_model_params;

/* Loads a Hugging Face directory (config.json, safetensors, and tokenizer.model if there is one),
 * or a GGUF file, by any of its parts if it is split. Errors: DEVICE_MEMORY (what the weights need
 * and what is free, on which device; nothing was uploaded if that could be known before), ARGUMENT
 * (of the params: a device twice, a share that is none), FILE (missing or unreadable), FORMAT
 * (damaged, or files that contradict each other), UNSUPPORTED (no model that Peridot runs: why),
 * HOST_MEMORY, CANCELLED (by `progress`), VULKAN, DEVICE_LOST. */
PERIDOT_API peridot_result peridot_model_load_wait(peridot_device *device, const char *path,
                                                   const peridot_model_params *params,
                                                   peridot_model **model, peridot_error *error);

/* A file in memory. */
typedef struct peridot_file {
    const char *name; /* as in a directory: "config.json" */
    const void *data;
    size_t size;
} peridot_file;

/* The same from 1 to 64 files in memory, which must stay valid until the model is closed. */
PERIDOT_API peridot_result peridot_model_load_files_wait(peridot_device *device,
                                                         const peridot_file *files, uint32_t count,
                                                         const peridot_model_params *params,
                                                         peridot_model **model,
                                                         peridot_error *error);

/* ---- Loading in steps --------------------------------------------------------------------------
 *
 * For an application with frames to draw: none of these calls waits for the GPU, and advance does
 * as much as fits in the time that it is given.
 *
 *     peridot_model_load_begin(device, "gemma-2b-it", &params, &loading, &error);
 *     do {
 *         draw_frame();
 *         result = peridot_loading_advance(loading, 2.0f, &status, &error);
 *     } while (result == PERIDOT_NOT_READY);
 *     if (result == PERIDOT_OK)
 *         peridot_loading_finish(loading, &model, &error);
 *     else
 *         while (peridot_loading_cancel(loading) == PERIDOT_NOT_READY)
 *             draw_frame();
 *
 * A loading counts as an object of its device, and of more_devices. */

/* How far loading in steps is. */
typedef struct peridot_loading_status {
    size_t struct_size;
    const char *stage;  /* "reading", "uploading", "compiling", "finished"; static */
    uint64_t done, all; /* of the stage: bytes of the file, or pipelines; 0 while reading */
    bool waiting;       /* the GPU copies what it was sent: nothing else can be done before */
    bool finished;      /* the model is there for peridot_loading_finish */
} peridot_loading_status;

/* Begins what peridot_model_load_wait does, with the same `params` and errors, most of which
 * advance reports; it reads nothing yet. What `params` points to is copied, but for devices and
 * `progress_user`; files in memory must stay valid until the model is closed or the loading
 * cancelled. Errors: ARGUMENT (struct_size is not set), HOST_MEMORY. */
PERIDOT_API peridot_result peridot_model_load_begin(peridot_device *device, const char *path,
                                                    const peridot_model_params *params,
                                                    peridot_loading **loading,
                                                    peridot_error *error);
/* The same from files in memory. */
PERIDOT_API peridot_result peridot_model_load_files_begin(peridot_device *device,
                                                          const peridot_file *files, uint32_t count,
                                                          const peridot_model_params *params,
                                                          peridot_loading **loading,
                                                          peridot_error *error);

/* Works on the calling thread for about `budget_ms` milliseconds by the clock, but does one step at
 * least; INFINITY: until there is nothing to do before the GPU has got on. OK: the model is there.
 * NOT_READY: call again. `status` may be NULL. After an error, CANCELLED by `params->progress`
 * included, every call tells it again and the loading is to be cancelled.
 *
 * A step reads, converts and hands to the GPU a piece of a weight, of 1 MiB and as the clock
 * allows, in rows; what a call has made goes to the GPU in one or two submissions, 32 MiB at most.
 * These steps cannot be cut and may exceed the budget: one row; opening the files; reading the
 * tokenizer's pieces (some 10 ms for 256000); planning the weights' place; one vkAllocateMemory;
 * one vkCreateComputePipelines, of which none is begun in the rest of a budget that is shorter than
 * the longest so far; writing the pipeline cache to disk. A disk that must still be read is waited
 * for. Rows of a piece are converted on as many threads as the device may have
 * (peridot_device_params), none of which outlives the call. With an infinite budget pieces are of
 * 16 MiB, and pipelines are compiled on those threads too. Errors: as peridot_model_load_wait. */
PERIDOT_API peridot_result peridot_loading_advance(peridot_loading *loading, float budget_ms,
                                                   peridot_loading_status *status,
                                                   peridot_error *error);

/* Takes the model, which is the caller's to close, and frees the loading. NOT_READY: it is not
 * there yet, and nothing changes, nor does after an error. Errors: that of peridot_loading_advance,
 * as peridot_model_load_wait has them. */
PERIDOT_API peridot_result peridot_loading_finish(peridot_loading *loading, peridot_model **model,
                                                  peridot_error *error);

/* Frees the loading and all that it has made, whatever it has come to; accepts NULL. NOT_READY: the
 * GPU is still copying; call again later, of all calls this one. */
PERIDOT_API peridot_result peridot_loading_cancel(peridot_loading *loading);

/* What a model is. */
typedef struct peridot_model_info {
    size_t struct_size;
    uint32_t layers, d_model, heads, kv_heads, head_dim, hidden, vocabulary, context;
    uint64_t parameters;     /* the tied table counted once */
    uint64_t weight_bytes;   /* on the device, with norms and RoPE table */
    uint64_t ideal_bytes;    /* weights read for one decoded token, without padding */
    uint64_t padded_bytes;   /* the same as the kernels read them */
    uint64_t fingerprint;    /* tells one model from another */
    peridot_weights weights; /* of the projections; AUTO: of several types */
    bool weights_chosen;     /* by AUTO, because the file's own do not fit */
    bool has_tokenizer, has_chat;
    uint32_t bos;
    uint32_t stop_tokens[8]; /* what ends an answer: <eos>, and <end_of_turn> where there is one */
    uint32_t stop_token_count;
    double seconds_loading;                      /* reading and uploading */
    uint32_t device_count;                       /* the first, and more_devices */
    uint32_t device_layers[PERIDOT_DEVICES_MAX]; /* on each; all others hold nothing */
} peridot_model_info;
/* Its sizes, types and tokens, as they stay. From any thread while the model is open. */
PERIDOT_API void peridot_model_describe(const peridot_model *model, peridot_model_info *info);
/* Accepts NULL; close its sessions first. */
PERIDOT_API void peridot_model_close(peridot_model *model);

/* ---- GGUF files --------------------------------------------------------------------------------
 */

/* How a model is converted. */
typedef struct peridot_convert_params {
    size_t struct_size;
    peridot_weights weights; /* AUTO and FILE: each tensor as it is; NF4 has no place in GGUF */
    uint32_t threads;        /* 0: one per processor */
    bool (*progress)(const peridot_progress *progress, void *user); /* false cancels; NULL: none */
    void *progress_user;
    void (*message)(const char *text, void *user); /* what came out otherwise than asked for, in one
                                                      sentence each; NULL: dropped */
    void *message_user;
} peridot_convert_params;

/* Writes a model, a directory or GGUF file as peridot_model_load_wait takes it, to a new GGUF file
 * with its tokenizer, on the CPU alone. The file takes the place of `target` when it is whole and
 * on disk; on any error what was there stays. The embedding keeps 8 bits, and rows that no block
 * fits get a float type. From any thread. Errors: ARGUMENT (struct_size is not set; no such type;
 * `target` is one of the model's own files), FILE (also a full disk), FORMAT (also a weight that is
 * NaN or infinite: which tensor, which row), UNSUPPORTED (a weight too large for float16; NF4),
 * HOST_MEMORY, CANCELLED. */
PERIDOT_API peridot_result peridot_convert(const char *model, const char *target,
                                           const peridot_convert_params *params,
                                           peridot_error *error);

/* ---- Text --------------------------------------------------------------------------------------
 *
 * These read what does not change while the model is open, and may be called from any thread, by
 * several at once and whatever else goes on. */

/* Text to token ids, without <bos>. With `special`, pieces such as <start_of_turn> are recognised;
 * without it they are plain text, as what a person types must be. `text` is UTF-8 of `length`
 * bytes; bytes that are not become U+FFFD. Writes at most `capacity` ids to `tokens` (may be NULL
 * for 0) and the full number to `count`. Errors: UNSUPPORTED (no tokenizer), ARGUMENT (a text of
 * 512 MiB or more), HOST_MEMORY. */
PERIDOT_API peridot_result peridot_tokenize(const peridot_model *model, const char *text,
                                            size_t length, bool special, int32_t *tokens,
                                            size_t capacity, size_t *count, peridot_error *error);

/* The bytes that a token adds to a text: perhaps none, perhaps a part of a character. Owned by the
 * model, as long as it is open; no zero ends them. Errors: ARGUMENT (token out of range),
 * UNSUPPORTED (no tokenizer). */
PERIDOT_API peridot_result peridot_token_bytes(const peridot_model *model, int32_t token,
                                               const char **bytes, size_t *length,
                                               peridot_error *error);

/* One turn of a conversation, or what the system says before it. */
typedef struct peridot_message {
    const char *role;    /* "user", "model" (or "assistant"), "system" */
    const char *content; /* UTF-8 */
    size_t length;       /* its bytes */
} peridot_message;

/* A conversation in Gemma's chat template as token ids, from <bos> to the model's header: system
 * messages first, if any, then user and model in turn, a user's last. `tokens`, `capacity` and
 * `count` as peridot_tokenize has them. Errors: ARGUMENT (roles do not alternate: which message;
 * one without a role), UNSUPPORTED (no tokenizer, or one without turn markers), HOST_MEMORY. */
PERIDOT_API peridot_result peridot_chat_tokens(const peridot_model *model,
                                               const peridot_message *messages,
                                               size_t message_count, int32_t *tokens,
                                               size_t capacity, size_t *count,
                                               peridot_error *error);

/* ---- Sessions ----------------------------------------------------------------------------------
 */

/* How keys and values are kept. Q8 is signed bytes with a float16 scale for every 32 of them: 8.5
 * bits an element where head_dim is 256. */
typedef enum peridot_kv { PERIDOT_KV_F16 = 0, PERIDOT_KV_F32, PERIDOT_KV_Q8 } peridot_kv;

/* What weights in blocks are multiplied with: INT8 rounds activations to eight bits in blocks of
 * 32, for integer dot products; it is less accurate, and faster where the device has instructions
 * for them. Weights of float types are always multiplied with float32. */
typedef enum peridot_activations {
    PERIDOT_ACTIVATIONS_F32 = 0,
    PERIDOT_ACTIVATIONS_INT8
} peridot_activations;

/* How tokens are chosen. Applied in this order, after a mask or grammar: penalty, top-k, top-p,
 * min-p (on the distribution at temperature 1), temperature. */
typedef struct peridot_sampling {
    size_t struct_size;
    float temperature;        /* to 100; 0: the most likely token, lowest id on a tie */
    uint32_t top_k;           /* 0: off */
    float top_p;              /* to 1; 0 or 1: off */
    float min_p;              /* to 1; 0: off */
    float repetition_penalty; /* to 100; 0 or 1: off */
    uint32_t penalty_window;  /* tokens looked back at; 0: 64 */
    uint32_t min_tokens;      /* no stop token before so many have been sampled after the prompt */
    uint64_t seed; /* the same seed gives the same text, however many steps a submission has */
} peridot_sampling;

/* How a session is made. */
typedef struct peridot_session_params {
    size_t struct_size;
    uint32_t context; /* positions; 0: the model's, or as many as there is memory for */
    peridot_kv kv;
    uint32_t prefill_rows;         /* prompt tokens in one pass at most, to 4096; 0: 512 */
    uint32_t steps_per_submission; /* decode steps in one submission, to 64; 0: 4 */
    float submission_ms; /* GPU time of one submission at most, as predicted and measured; 0: 500 */
    uint64_t shuffle_seed; /* for tests: not 0 shuffles dispatches between barriers */
    peridot_activations activations;
    uint32_t
        hidden_layer; /* whose hidden states are kept (peridot_session_hidden_wait): the residual
                         stream after layer 1 to `layers`, or PERIDOT_HIDDEN_NORMED; 0: none.
                         They take 4 * d_model bytes for each position of the context */
} peridot_session_params;

#define PERIDOT_HIDDEN_NORMED UINT32_MAX /* after the last layer and the final norm */

/* Begins a conversation, with nothing in it. Compiles the pipelines that are missing, and fills the
 * session's device memory with zeros, in one submission to the device's queue (one on each device
 * that holds layers) that is not waited for. Errors: ARGUMENT (struct_size is not set; context over
 * the model's, or another value out of its range), UNSUPPORTED (hidden states of a model on several
 * devices), DEVICE_MEMORY (the message says what is needed, what is free and which context, or type
 * of KV cache, would fit; the whole context must fit, although the KV cache grows as tokens come),
 * HOST_MEMORY, VULKAN, DEVICE_LOST. */
PERIDOT_API peridot_result peridot_session_create(peridot_model *model,
                                                  const peridot_session_params *params,
                                                  peridot_session **session, peridot_error *error);
/* Closes a session; accepts NULL. NOT_READY: slices of it still run, or copies of a suspension, or
 * the zeros that it began with are on their way; then nothing has happened but that its work is
 * cancelled, and no other call is for it but this one, again. After calls that wait there is
 * nothing left to wait for. */
PERIDOT_API peridot_result peridot_session_close(peridot_session *session);
/* The same, but waits for what still runs. */
PERIDOT_API void peridot_session_close_wait(peridot_session *session);

/* The device memory that a model and one session on it need, in bytes as they are allocated; on all
 * its devices together, but for staging_bytes, which one device after the other takes. */
typedef struct peridot_memory_plan {
    size_t struct_size;
    uint64_t weight_bytes;    /* weights, norms and RoPE table */
    uint64_t kv_bytes;        /* the KV cache of the whole context; it grows as tokens come */
    uint64_t kv_token_bytes;  /* of that, one token's */
    uint64_t working_bytes;   /* activations, logits, the sampler's */
    uint64_t staging_bytes;   /* only while weights are uploaded */
    uint64_t total_bytes;     /* weights, KV cache and working memory */
    uint64_t free_bytes;      /* now; by VK_EXT_memory_budget where the device has it */
    uint32_t context;         /* positions that kv_bytes and total_bytes are for */
    uint32_t largest_context; /* that fits in free_bytes beside the weights; 0: none */
    bool fits;                /* model and session, each device's part in what is free there */
    /* Of that, each device: the first, and more_devices */
    uint32_t device_count;
    uint32_t device_layers[PERIDOT_DEVICES_MAX];
    uint64_t device_weight_bytes[PERIDOT_DEVICES_MAX];
    uint64_t device_kv_bytes[PERIDOT_DEVICES_MAX];
    uint64_t device_working_bytes[PERIDOT_DEVICES_MAX];
    uint64_t device_free_bytes[PERIDOT_DEVICES_MAX];
} peridot_memory_plan;

/* Tells what a model is and what memory it would need, without loading it: the files' headers and
 * the tokenizer are read, of the weights the few bytes that the fingerprint samples, and nothing is
 * uploaded; so a damaged weight is not noticed. `params` and `session` are those
 * that it would be loaded and run with, or NULL; `info` and `plan` may be NULL. Errors: as
 * peridot_model_load_wait and peridot_session_create, but memory that does not suffice is none. */
PERIDOT_API peridot_result peridot_model_inspect(peridot_device *device, const char *path,
                                                 const peridot_model_params *params,
                                                 const peridot_session_params *session,
                                                 peridot_model_info *info,
                                                 peridot_memory_plan *plan, peridot_error *error);
/* The same of files in memory. */
PERIDOT_API peridot_result peridot_model_inspect_files(
    peridot_device *device, const peridot_file *files, uint32_t count,
    const peridot_model_params *params, const peridot_session_params *session,
    peridot_model_info *info, peridot_memory_plan *plan, peridot_error *error);

/* Copies settings, which take effect with the next token; without a call all are zero. Errors:
 * ARGUMENT (struct_size is not set; a value out of its range; the session has work). */
PERIDOT_API peridot_result peridot_session_sampling(peridot_session *session,
                                                    const peridot_sampling *sampling,
                                                    peridot_error *error);

/* ---- What may be sampled ---- */

/* Which tokens may be sampled, until it is called again: uint32 [word_count], a bit a token, bit
 * t % 32 of word t / 32 set = token t may come; word_count is ceil(vocabulary / 32). Copied. NULL
 * takes the mask away. The others have no chance at all: sampling settings see a distribution over
 * those allowed, of which one is always sampled, while log_probability stays that under the softmax
 * of all. Whether an answer may end is the caller's business too: set the bits of the model's
 * stop_tokens if so; where only such are allowed, min_tokens gives way. For choosing one of N
 * actions: a mask of N tokens, and generate one.
 * From within on_token it is for the next token, if there was a mask or a grammar when
 * peridot_session_generate_wait or peridot_session_start was called; between slices for the next
 * one whose sampling has not begun. A session with a mask or a grammar runs one step in a
 * submission, whatever its params say. Errors: ARGUMENT (another number of words; a mask that
 * allows nothing; work in slices that began without any), HOST_MEMORY. */
PERIDOT_API peridot_result peridot_session_mask(peridot_session *session, const uint32_t *words,
                                                size_t word_count, peridot_error *error);

/* A grammar that answers must follow, in GBNF, from the rule `root` on:
 *     root   ::= "{" ws "\"action\":" ws action ws "}"   # rules, each on a line of its own
 *     action ::= "\"" ( "left" | "right" ) "\""        # or on several, within parentheses and at |
 *     ws     ::= [ \t\n]{0,20}
 * Items: "text", [a-z] and [^a-z], . for any character, names of rules, ( groups ); behind them *,
 * +, ?, {m}, {m,}, {m,n} or {,n}. In text and classes: \n \r \t \\ \" \[ \] \- \^ \xNN \uNNNN
 * \UNNNNNNNN. Text is UTF-8. Rules may use themselves, but not before any character of theirs.
 * `*grammar` is for sessions of this model, any number of them, and the caller's to free, after
 * those sessions have let go of it and before the model is closed. The first one for a model takes
 * a moment: the tokens' texts are put in order. Errors: FORMAT (in which line, what is wrong),
 * UNSUPPORTED (no tokenizer; more than a million nodes, 65536 rules, 16 MiB), HOST_MEMORY. */
PERIDOT_API peridot_result peridot_grammar_parse(peridot_model *model, const char *text,
                                                 size_t length, peridot_grammar **grammar,
                                                 peridot_error *error);
/* Accepts NULL. */
PERIDOT_API void peridot_grammar_free(peridot_grammar *grammar);

/* What the session holds from its present length on follows the grammar, a prompt that is still to
 * be given included: to have the answer to that follow it, set it behind the prompt, or by
 * peridot_work. Between slices it begins behind tokens whose sampling has begun. NULL: nothing need
 * follow, any more. Not copied. Before each token the host finds, while the layers run, which
 * tokens can come: all whose bytes go on with the text, even if they end within a character; stop
 * tokens exactly where the text may end, and where it must, only these; never the turn markers and
 * their like. With a mask too, both apply. Truncating is exact here too: tokens that go are as if
 * they had never been matched, and if that goes to before where the grammar began, it begins there.
 * Tokens of a prompt are matched like sampled ones. A stop token ends the text: for the next answer
 * set the grammar again. A saved session has neither mask nor grammar; in one that is loaded into,
 * they stay, and the grammar begins behind what was loaded. peridot_session_generate_wait then also
 * fails with ARGUMENT (nothing is allowed, because mask and grammar have nothing in common, the
 * model has no token for what must come, or a prompt's token did not fit: where) and UNSUPPORTED
 * (the grammar is too ambiguous); tokens before that stay. Errors: ARGUMENT (a grammar of another
 * model; work in slices that began without any), HOST_MEMORY, UNSUPPORTED. */
PERIDOT_API peridot_result peridot_session_grammar(peridot_session *session,
                                                   const peridot_grammar *grammar,
                                                   peridot_error *error);

/* ---- Prompt and answer ---- */

/* Appends tokens to the context and runs them; `tokens` is copied. `logits` may be NULL, else it
 * gets float32 [count][vocabulary], those after every token. A failed call leaves the session as it
 * was before. Errors: ARGUMENT (no tokens; a token out of range: which; the session is suspended or
 * has work), CONTEXT_FULL (how many fit), DEVICE_MEMORY (for the KV cache), HOST_MEMORY, VULKAN,
 * DEVICE_LOST. */
PERIDOT_API peridot_result peridot_session_prompt_wait(peridot_session *session,
                                                       const int32_t *tokens, size_t count,
                                                       float *logits, peridot_error *error);

/* A token that was sampled. */
typedef struct peridot_token {
    uint32_t position; /* in the context */
    int32_t token;
    float log_probability; /* natural log, under the softmax of the raw logits */
    bool stop;             /* an end token: the last of this answer */
} peridot_token;

/* Called on the calling thread for each token as it comes; false stops: the tokens after this one
 * are dropped, the session is as if they had never been sampled. It may read the session's length
 * and tokens, with this one, and set its mask or grammar, and calls nothing else for it. */
typedef bool (*peridot_on_token)(const peridot_token *token, void *user);

/* Samples up to `count` tokens, 1 at least, after the prompt, until a stop token or the context's
 * end. `on_token` may be NULL; `generated` (may be NULL): how many there were. Tokens that came
 * before an error stay. Errors: ARGUMENT (no prompt yet; none to make; the session is suspended or
 * has work), CONTEXT_FULL (not one fits), DEVICE_MEMORY (for the KV cache), HOST_MEMORY, VULKAN,
 * DEVICE_LOST; with a mask or a grammar those that peridot_session_grammar tells of. */
PERIDOT_API peridot_result peridot_session_generate_wait(peridot_session *session, uint32_t count,
                                                         peridot_on_token on_token, void *user,
                                                         uint32_t *generated, peridot_error *error);

/* How many tokens the session holds: prompt and sampled ones, a stop token included. */
PERIDOT_API uint32_t peridot_session_length(const peridot_session *session);
/* How many it can hold. */
PERIDOT_API uint32_t peridot_session_context(const peridot_session *session);
/* The tokens held: `length` of them; owned by the session, valid until it changes. */
PERIDOT_API const int32_t *peridot_session_tokens(const peridot_session *session);
/* Forgets all tokens from `length` on; exact, as if they had never been there. Errors: ARGUMENT
 * (longer than it is; it has work). */
PERIDOT_API peridot_result peridot_session_truncate(peridot_session *session, uint32_t length,
                                                    peridot_error *error);

/* What a session is to be given so that a conversation, as peridot_chat_tokens has it, goes on: it
 * is truncated to what it holds of it already, and the tokens behind that, 1 at least, are written
 * to `tokens`, for peridot_session_prompt_wait or peridot_work. Messages may have been changed or
 * left out since the last time. `count`: how many there are; where that is over `capacity` nothing
 * is written and the session stays as it was (peridot_session_context of them is always enough).
 * Errors: as peridot_chat_tokens, ARGUMENT (the session has work), CONTEXT_FULL (the conversation
 * is longer than the context: leave out its oldest turns). */
PERIDOT_API peridot_result peridot_session_chat(peridot_session *session,
                                                const peridot_message *messages,
                                                size_t message_count, int32_t *tokens,
                                                size_t capacity, size_t *count,
                                                peridot_error *error);

/* The logits after the last token, float32 [vocabulary]; computes them if that is still to be done.
 * Errors: ARGUMENT (no token yet; the session is suspended or has work), DEVICE_MEMORY,
 * HOST_MEMORY, VULKAN, DEVICE_LOST. */
PERIDOT_API peridot_result peridot_session_logits_wait(peridot_session *session, float *logits,
                                                       peridot_error *error);

/* Hidden states of tokens [first, first + count), float32 [count][d_model], of the layer that the
 * session's params name: embeddings, for one. Errors: ARGUMENT (none are kept; no tokens, or some
 * that are not there, or were sampled and have not been run through the model yet, as the last one
 * of an answer; the session is suspended or has work), DEVICE_MEMORY, HOST_MEMORY, VULKAN,
 * DEVICE_LOST. */
PERIDOT_API peridot_result peridot_session_hidden_wait(peridot_session *session, uint32_t first,
                                                       uint32_t count, float *hidden,
                                                       peridot_error *error);

/* ---- Results on the GPU ------------------------------------------------------------------------
 */

typedef enum peridot_result_kind {
    PERIDOT_RESULT_LOGITS, /* [1][vocabulary], after the last token that was run through the model;
                              one sampled since was drawn from them */
    PERIDOT_RESULT_HIDDEN, /* hidden states, [context][d_model], row by position */
    PERIDOT_RESULT_TOKENS  /* the context's tokens, int32 [1][context + 1], sampled ones too */
} peridot_result_kind;

/* Where results are, in 4-byte elements. */
typedef struct peridot_result_buffer {
    size_t struct_size;
    VkBuffer buffer; /* Peridot's; a storage buffer and a source of copies, of exclusive sharing */
    VkDeviceSize offset;     /* bytes, a multiple of 256 */
    VkDeviceAddress address; /* of the first element, for buffer references */
    uint32_t rows, columns;
    uint32_t stride; /* elements from row to row */
} peridot_result_buffer;

/* Results to be read where they are, by work of the application's on the same queue family, without
 * a trip to the host; the same place until the session is suspended or closed. What is there is
 * written by Peridot's compute shaders: read it behind a call that blocked, or in commands that
 * come after the slice that makes it (behind a memory barrier from compute shader writes, or a
 * semaphore), and before more work is begun; a barrier from those reads to Peridot's writes is not
 * needed on the same queue if it is compute or transfer that reads. Errors: ARGUMENT (no such kind;
 * the session keeps no hidden states; it is suspended). */
PERIDOT_API peridot_result peridot_session_result(const peridot_session *session,
                                                  peridot_result_kind kind,
                                                  peridot_result_buffer *result,
                                                  peridot_error *error);

/* ---- Saved sessions ---- */

/* Writes tokens, sampling settings, KV cache and `extra_size` bytes of the caller's to a file,
 * atomically and with a checksum. `extra` may be NULL where that is 0. Errors: ARGUMENT
 * (`extra_size` over 64 MiB; the session has work), FILE, HOST_MEMORY, DEVICE_MEMORY, VULKAN,
 * DEVICE_LOST. */
PERIDOT_API peridot_result peridot_session_save_wait(peridot_session *session, const char *path,
                                                     const void *extra, size_t extra_size,
                                                     peridot_error *error);
/* Reads them back; `*extra` is the caller's to free with peridot_free, and has a zero byte behind
 * its `*extra_size`; both may be NULL. What the session held is gone; an error leaves it as it was,
 * but for one of the device's while keys and values are copied, which leaves it empty. Errors:
 * UNSUPPORTED (another model's file, or of another type of KV cache), FORMAT (a damaged one), FILE,
 * CONTEXT_FULL, ARGUMENT (the session is suspended or has work), HOST_MEMORY, DEVICE_MEMORY,
 * VULKAN, DEVICE_LOST. */
PERIDOT_API peridot_result peridot_session_load_wait(peridot_session *session, const char *path,
                                                     void **extra, size_t *extra_size,
                                                     peridot_error *error);
/* Frees what a function here gave to its caller for that; accepts NULL. From any thread. */
PERIDOT_API void peridot_free(void *memory);

/* Counted since the session was created. */
typedef struct peridot_session_statistics {
    size_t struct_size;
    uint64_t prompt_tokens, decoded_tokens;
    double prompt_seconds, decode_seconds; /* wall time within the calls */
    double decode_host_seconds; /* of those, CPU time of the calling thread spent submitting */
    uint64_t submissions;       /* vkQueueSubmit2 calls */
    uint32_t dispatches_per_step;
    uint32_t barriers_per_step;
    double longest_submission_ms;     /* measured GPU time; 0: the queue has no timestamps */
    uint64_t kv_bytes, scratch_bytes; /* on the device now */
    uint64_t step_bytes;              /* weights and KV that a step reads at the present length */
    uint32_t pipelines_compiled;      /* since the device was opened */
    double seconds_compiling;
    uint64_t pipeline_cache_bytes; /* found on disk when the device was opened */
    char warning[512];             /* a pipeline cache that cannot be kept; empty: none */
    bool suspended;                /* to the host's memory */
    /* Of work in slices, of which tokens and seconds above know nothing: slices that have run, */
    uint64_t slices, slice_tokens; /* and tokens sampled, in a batch's too; */
    double slice_seconds;          /* measured GPU time; 0: the queue has no timestamps */
} peridot_session_statistics;
/* Fills in the figures as they are now. */
PERIDOT_API void peridot_session_describe(const peridot_session *session,
                                          peridot_session_statistics *statistics);

/* ---- Leaving the device ------------------------------------------------------------------------
 *
 * A session can give all its device memory back and wait in the host's, to make room for other
 * sessions or for the application's own needs, or because its device is about to go. What a batch
 * has of device memory stays the batch's (peridot_batch_statistics::scratch_bytes) until that is
 * closed. While a session is suspended, its length, context and tokens can be read, it can be
 * described, truncated, saved and given sampling settings, a mask or a grammar; what needs the
 * device answers ARGUMENT. What it goes on with after its return is the same to the bit as if it
 * had stayed.
 *
 * When a call answers DEVICE_LOST, every later one that needs that device does so too, at once and
 * without a wait; what was in flight is given up. To go on: open or adopt a new device, load the
 * model there, and
 *   - move a session that was suspended before (peridot_session_move), and resume it; or
 *   - create a session in place of one that was not, and prompt peridot_session_tokens of the lost
 *     one, which still answers: the text goes on, computed anew.
 * Then close the lost sessions, model and device; none of that waits for the lost device. */

/* Copies what was computed, keys, values, the last logits and hidden states, to the host's memory,
 * and gives back the session's device memory, command buffers and semaphores. The
 * copy passes through at most 16 MiB of host-visible memory, beyond the limit
 * on the device's if need be. On an error the session is as it was. OK if it is suspended already.
 * Errors: ARGUMENT (work in slices is active; it is being resumed), HOST_MEMORY, DEVICE_MEMORY,
 * DEVICE_LOST, VULKAN. */
PERIDOT_API peridot_result peridot_session_suspend_wait(peridot_session *session,
                                                        peridot_error *error);
/* The same without a wait: each call looks whether the last piece has come and submits the next,
 * of at most `bytes` bytes (0: 16 MiB). NOT_READY: call it again, in the next frame perhaps; until
 * it is done no other call but those that only read, peridot_session_close and
 * peridot_session_close_wait is for this session. */
PERIDOT_API peridot_result peridot_session_suspend_step(peridot_session *session, uint64_t bytes,
                                                        peridot_error *error);

/* Brings a suspended session back to its device, whose queue also gets the zeros that
 * peridot_session_create submits. OK if it is not suspended. On an error it stays suspended, and
 * nothing is lost. Errors: DEVICE_MEMORY (what it needs and what is free), ARGUMENT (it is being
 * suspended), HOST_MEMORY, DEVICE_LOST, VULKAN. */
PERIDOT_API peridot_result peridot_session_resume_wait(peridot_session *session,
                                                       peridot_error *error);
/* The same without a wait, as peridot_session_suspend_step; its first call allocates and submits
 * the zeros. */
PERIDOT_API peridot_result peridot_session_resume_step(peridot_session *session, uint64_t bytes,
                                                       peridot_error *error);

/* Makes a suspended session one of another handle of the same model, on any device or devices, to
 * be resumed there; the old handle may be closed then. Compiles the pipelines that are missing
 * there. On an error it stays with the old one. Where the devices differ, so
 * may the roundings of what is computed from now on. The call counts as one for both devices.
 * Batches that it is in cannot follow: close them before the old model.
 * Errors: ARGUMENT (it is not suspended; it has a grammar, which is the old handle's), UNSUPPORTED
 * (another model; hidden states, and a model on several devices), HOST_MEMORY, DEVICE_MEMORY,
 * VULKAN, DEVICE_LOST. */
PERIDOT_API peridot_result peridot_session_move(peridot_session *session, peridot_model *model,
                                                peridot_error *error);

/* ---- Batches -----------------------------------------------------------------------------------
 *
 * Several sessions that decode together: each step runs one token of each through the layers, and
 * reads the weights, most of what a step costs, once for all of them. Tokens, log-probabilities and
 * hidden states are those of separate runs. Each session keeps its own prompt, length, sampling
 * settings and seed, mask and grammar, and outside of peridot_batch_generate_wait and of work in
 * slices it is used as before: prompts are read one by one. With a mask or a grammar in one of
 * those that generate, a submission has one step, as in a session's own generation. For an
 * application that draws frames batches come in slices too (peridot_batch_start, below). */

#define PERIDOT_BATCH_MAX 8 /* sessions in a batch */

/* Makes a batch of `count` sessions, 1 to PERIDOT_BATCH_MAX, in this order: of one model on one
 * device, with the same type of KV cache and the same activations. A session may be in several
 * batches. It stays the caller's, and is closed after them. The pipelines for so many
 * sessions that are missing are compiled. The batch has a few megabytes of device memory and runs
 * as many steps in a submission as the session with the fewest, for as long as the shortest
 * submission_ms. Errors: ARGUMENT (which session, why), UNSUPPORTED (a model on several devices),
 * DEVICE_MEMORY, HOST_MEMORY, VULKAN, DEVICE_LOST. */
PERIDOT_API peridot_result peridot_batch_create(peridot_session *const *sessions, uint32_t count,
                                                peridot_batch **batch, peridot_error *error);
/* Closes a batch; accepts NULL. NOT_READY: something of it still runs; its work in slices is
 * cancelled, and nothing else has happened. */
PERIDOT_API peridot_result peridot_batch_close(peridot_batch *batch);
/* The same, but waits for that. */
PERIDOT_API void peridot_batch_close_wait(peridot_batch *batch);

/* Called on the calling thread for each token as it comes, step by step, within a step in the order
 * of the sessions; `session` counts them from 0. False ends that session's part, as in
 * peridot_on_token; the others go on. */
typedef bool (*peridot_on_batch_token)(uint32_t session, const peridot_token *token, void *user);

/* Samples up to counts[i] tokens in session i after its prompt, until a stop token or its context's
 * end; 0: it sits out. What peridot_session_generate_wait would give one
 * by one, to the bit; a session that is done costs the others little. `generated` (may be NULL,
 * else one number a session): how many tokens there were. `counts` has one number a session.
 * Errors, which name the session: ARGUMENT (one of them is at work in slices, is suspended or was
 * moved to another model; one that is to generate has no prompt yet; all counts are 0),
 * CONTEXT_FULL (of one that is to generate), and as peridot_session_generate_wait; the first one
 * ends it for all. Tokens that came before an error stay. */
PERIDOT_API peridot_result peridot_batch_generate_wait(peridot_batch *batch, const uint32_t *counts,
                                                       peridot_on_batch_token on_token, void *user,
                                                       uint32_t *generated, peridot_error *error);

/* Counted since the batch was created. */
typedef struct peridot_batch_statistics {
    size_t struct_size;
    uint32_t sessions;
    uint32_t dispatches_per_step; /* with the samplers of all */
    uint32_t barriers_per_step;
    uint64_t decoded_tokens;    /* of all sessions together; each counts its own too */
    double decode_seconds;      /* wall time within the calls, prompts that were pending included */
    double decode_host_seconds; /* of those, CPU time of the calling thread spent submitting */
    uint64_t submissions;       /* vkQueueSubmit2 calls */
    uint64_t scratch_bytes;     /* on the device, beside the sessions' */
    uint64_t slices;            /* that have run; their tokens each session counts */
    double slice_seconds;       /* measured GPU time of those; 0: the queue has no timestamps */
} peridot_batch_statistics;
/* Fills in the figures as they are now. */
PERIDOT_API void peridot_batch_describe(const peridot_batch *batch,
                                        peridot_batch_statistics *statistics);

/* ---- Work in slices ----------------------------------------------------------------------------
 *
 * For an application that draws frames. peridot_session_start says what is to be computed, and then
 * each frame a slice of it is submitted (peridot_session_advance) or written into a command buffer
 * of the application's (peridot_session_record), and what has come is handed over
 * (peridot_session_poll). None of these blocks, and none of them starts a thread. A slice is a list
 * of dispatches, of which the first and the last may be parts; the results are the same to the bit
 * however the work is sliced. All that is guaranteed is the work in a slice: its time is an
 * estimate, from times that the device's timestamps gave for earlier slices, and a busy device
 * takes longer.
 *
 * A session has one piece of work at a time. From peridot_session_start until poll says that it is
 * not active any more, the other functions that change the session, or read its results, answer
 * ARGUMENT, but for peridot_session_mask, peridot_session_grammar and peridot_session_result. A
 * model on several devices has no slices: UNSUPPORTED. */

#define PERIDOT_SLICES_MAX 8 /* in flight, of a session */

/* Tokens to read, tokens to sample after them, or both. */
typedef struct peridot_work {
    size_t struct_size;
    const int32_t *tokens; /* [token_count] appended to the context first; copied. May be none. */
    size_t token_count;
    uint32_t generate; /* tokens to sample after them at most, as peridot_session_generate_wait
                          does; 0: none */
    peridot_on_token on_token; /* called by peridot_session_poll; NULL: none */
    void *user;
    /* What is generated follows it, as by peridot_session_grammar behind `tokens`. NULL: the
     * grammar that the session has, if any, goes on, and `tokens` must fit it. */
    const peridot_grammar *grammar;
} peridot_work;

/* Takes up work; nothing is submitted. Command buffers for passes of a size that is new to the
 * session are recorded here. On an error the session is as it was. Errors: ARGUMENT (work is
 * active; the session is suspended; nothing to do; a token out of range; a grammar of another
 * model), CONTEXT_FULL, UNSUPPORTED (a model on several devices), HOST_MEMORY, DEVICE_MEMORY,
 * VULKAN, DEVICE_LOST. */
PERIDOT_API peridot_result peridot_session_start(peridot_session *session, const peridot_work *work,
                                                 peridot_error *error);

/* What a slice, or the work that is left, has in it. */
typedef struct peridot_slice_plan {
    size_t struct_size;
    uint32_t slices;     /* that the work left makes at this budget, up to the next token; */
    uint32_t dispatches; /* in the next slice, counting parts; 0: there is nothing to submit now */
    double bytes, flops; /* of the next slice */
    float estimated_ms;  /* GPU time of the next slice */
    float largest_ms;    /* of the largest of those slices */
    float left_ms;       /* of all of them */
    bool completes; /* with the next slice a token is sampled, or work that generates none is done,
                       and what peridot_session_result tells of is whole behind it. Of tokens that
                       come several to a slice, or with a part of the next, not each is told so */
} peridot_slice_plan;

/* Cuts what is left into slices of at most `budget_ms` milliseconds of GPU time each, by estimate
 * (0: the session's submission_ms), without submitting anything. A slice has at least the smallest
 * part of a dispatch that can be run by itself, which may take longer: largest_ms tells. Without
 * work there is nothing in the plan. Errors: ARGUMENT (struct_size is not set). */
PERIDOT_API peridot_result peridot_session_plan(peridot_session *session, float budget_ms,
                                                peridot_slice_plan *plan, peridot_error *error);

/* How the next slice is submitted. */
typedef struct peridot_advance {
    size_t struct_size;
    float budget_ms; /* GPU time at most, by estimate; 0: the session's submission_ms */
    /* Waited for before the slice runs and signalled after it, timeline or binary; they may be
     * none. With signals something is always submitted, if need be a batch without commands. */
    const VkSemaphoreSubmitInfo *waits;
    uint32_t wait_count;
    const VkSemaphoreSubmitInfo *signals;
    uint32_t signal_count;
} peridot_advance;

/* Submits the next slice to the device's queue, in one vkQueueSubmit2, and returns. Nothing is
 * submitted when there is no work, when the slices in flight are as many as a session may have
 * (PERIDOT_SLICES_MAX), or when a token must be polled first, as with a mask or a grammar:
 * NOT_READY. `advance` may be NULL, for all zero; `slice` (may be NULL): what was submitted.
 * Errors: ARGUMENT (a struct_size is not set; a count without its semaphores), DEVICE_MEMORY,
 * HOST_MEMORY, VULKAN, at which nothing is submitted and the work goes on with the next call or is
 * cancelled; DEVICE_LOST, and with a mask or a grammar those that peridot_session_grammar tells of,
 * at which the work ends. */
PERIDOT_API peridot_result peridot_session_advance(peridot_session *session,
                                                   const peridot_advance *advance,
                                                   peridot_slice_plan *slice, peridot_error *error);

/* Where the next slice is written to. */
typedef struct peridot_recording {
    size_t struct_size;
    VkCommandBuffer commands; /* primary, in the recording state and outside a render pass, of a
                                 pool for the device's queue family */
    float budget_ms;          /* as above */
    /* A timeline semaphore and the value that it will have when `commands` have run, and not
     * before, signalled by the application's submission of them; by this poll knows that they have.
     * It is looked at until then. */
    VkSemaphore timeline;
    uint64_t value;
} peridot_recording;

/* Writes the next slice into a command buffer of the application's, which is to be submitted once,
 * to the device's queue, in the order in which slices were recorded; one that will not be is told
 * of by peridot_session_discard. Slices that are recorded and slices that are submitted by
 * peridot_session_advance cannot be in flight together: NOT_READY.
 *
 * A slice begins with a memory barrier from compute, transfer and indirect reads to the same, and
 * has the barriers between its dispatches; none of them names the graphics stages, and none of them
 * is about anything but Peridot's own buffers. So it may run beside draws recorded around it, no
 * barrier of the application's is needed before or after it, and it leaves the state of the command
 * buffer changed in nothing but the bound compute pipeline and the push constants. Where dispatches
 * have a priority (peridot_device_params), it is set before them, and normal and without throttling
 * after them: what the application had set is to be set again. To read a buffer of Peridot's after
 * it, wait for compute shader writes (validation layers do not see them: Peridot's shaders write by
 * address). NOT_READY as peridot_session_advance. Errors: as that, and ARGUMENT (no command buffer,
 * no timeline, or one that has the value already). Behind an error at which the work ended the
 * command buffer may hold a part of the slice, and must not be submitted. */
PERIDOT_API peridot_result peridot_session_record(peridot_session *session,
                                                  const peridot_recording *recording,
                                                  peridot_slice_plan *slice, peridot_error *error);

/* Takes back the last slice that was recorded, because its commands will not be submitted: a window
 * was resized, say. Of several the last one first. The next slice is then the same again. Errors:
 * ARGUMENT (the last slice is none of a command buffer's, or is known to have run). */
PERIDOT_API peridot_result peridot_session_discard(peridot_session *session, peridot_error *error);

/* How far a session's work is. */
typedef struct peridot_work_status {
    size_t struct_size;
    bool active;               /* there is work, or slices of it are still running */
    uint32_t prompt_left;      /* of the context's tokens, those not yet run through the model */
    uint32_t generated;        /* tokens sampled and received by this work */
    uint32_t slices_in_flight; /* submitted or recorded, and not known to be done */
    float slice_ms;            /* GPU time of the last slice that was measured; 0: none yet */
    float slice_estimated_ms;  /* what it was estimated at */
} peridot_work_status;

/* Looks at what the device has done, without waiting: takes over tokens that came, in order, calls
 * on_token for each on this thread, and learns from the times measured. When on_token returns false
 * or a stop token came, the work ends, as it does on an error. `status` may be NULL; without work
 * it says so. Errors: ARGUMENT (struct_size is not set), DEVICE_LOST, HOST_MEMORY, DEVICE_MEMORY,
 * VULKAN. */
PERIDOT_API peridot_result peridot_session_poll(peridot_session *session,
                                                peridot_work_status *status, peridot_error *error);

/* Ends the work: nothing more of it is submitted; what is in flight runs out, and poll tells when.
 * Tokens that were appended stay in the context, and those received; what was not computed is
 * computed with the next work. Without work nothing happens, nor with NULL. */
PERIDOT_API void peridot_session_cancel(peridot_session *session);

/* ---- A batch's work in slices ------------------------------------------------------------------
 *
 * Several sessions that answer together, a slice a frame. What is said above of a session's
 * functions is true of these, with the batch in its place: from peridot_batch_start until poll says
 * that the work is not active any more, functions that change one of its sessions, or read its
 * results, answer ARGUMENT, those that have a count of 0 included, and peridot_session_close
 * NOT_READY. Tokens and log-probabilities are those of separate runs, to the bit, however the work
 * is sliced. */

/* What a batch's sessions are to sample. */
typedef struct peridot_batch_work {
    size_t struct_size;
    const uint32_t *counts; /* tokens to sample at most, one number a session; 0: it sits out.
                               Copied. */
    peridot_on_batch_token on_token; /* called by peridot_batch_poll; NULL: none */
    void *user;
} peridot_batch_work;

/* Takes up work; nothing is submitted. Where the tokens of a session that is to generate have not
 * all been run, or its last logits are gone (its work was cancelled, it was truncated), the work
 * begins with that. Errors, which name the session: ARGUMENT (the batch's work, or a session's, is
 * active; no counts, or all are 0; one that is to generate has no prompt yet; one is suspended or
 * was moved to another model), CONTEXT_FULL (of one that is to generate), HOST_MEMORY,
 * DEVICE_MEMORY, VULKAN. */
PERIDOT_API peridot_result peridot_batch_start(peridot_batch *batch, const peridot_batch_work *work,
                                               peridot_error *error);

/* As peridot_session_plan, up to the next token of each session; a budget of 0 is the shortest
 * submission_ms of the sessions. Errors: ARGUMENT (no place for the plan; struct_size is not set).
 */
PERIDOT_API peridot_result peridot_batch_plan(peridot_batch *batch, float budget_ms,
                                              peridot_slice_plan *plan, peridot_error *error);

/* As peridot_session_advance: NOT_READY when PERIDOT_SLICES_MAX slices of the batch are in flight,
 * or when tokens must be polled first. Errors as peridot_session_advance; those of a session's mask
 * or grammar name the session, and end the work of all. */
PERIDOT_API peridot_result peridot_batch_advance(peridot_batch *batch,
                                                 const peridot_advance *advance,
                                                 peridot_slice_plan *slice, peridot_error *error);

/* As peridot_session_record. Errors: as that and as peridot_batch_advance. */
PERIDOT_API peridot_result peridot_batch_record(peridot_batch *batch,
                                                const peridot_recording *recording,
                                                peridot_slice_plan *slice, peridot_error *error);
/* As peridot_session_discard. Errors: as that. */
PERIDOT_API peridot_result peridot_batch_discard(peridot_batch *batch, peridot_error *error);

/* How far a batch's work is. */
typedef struct peridot_batch_status {
    size_t struct_size;
    bool active;          /* there is work, or slices of it are still running */
    uint32_t prompt_left; /* of all sessions' tokens, those not yet run through the model */
    uint32_t generated[PERIDOT_BATCH_MAX]; /* tokens of each sampled and received by this work */
    uint32_t slices_in_flight;             /* submitted or recorded, and not known to be done */
    float slice_ms;           /* GPU time of the last slice that was measured; 0: none yet */
    float slice_estimated_ms; /* what it was estimated at */
} peridot_batch_status;

/* As peridot_session_poll: calls on_token for each token that came, step by step, within a step in
 * the order of the sessions. When that returns false, or a stop token came, that session's part
 * ends; the work ends when all have. Errors: as peridot_session_poll. */
PERIDOT_API peridot_result peridot_batch_poll(peridot_batch *batch, peridot_batch_status *status,
                                              peridot_error *error);

/* Ends the work of all, as peridot_session_cancel. */
PERIDOT_API void peridot_batch_cancel(peridot_batch *batch);

#ifdef __cplusplus
}
#endif
#endif
