/* Asks a model a question, on the application's own Vulkan device: ask MODEL QUESTION */
#include <peridot.h>
#include <stdio.h>
#include <string.h>
#include <vulkan/vulkan.h>

static peridot_error error = {PERIDOT_ERROR_VULKAN, "Vulkan failed, or has no device for Peridot"};
#define MUST(call)                                                                                 \
    if (call)                                                                                      \
    return fprintf(stderr, "ask: %s\n", error.message), 1

static bool show(const peridot_token *token, void *model) {
    const char *bytes;
    size_t length;
    if (!token->stop && !peridot_token_bytes(model, token->token, &bytes, &length, NULL))
        fwrite(bytes, 1, length, stdout);
    return true;
}

int main(int argc, char **argv) {
    MUST(argc != 3 && snprintf(error.message, sizeof error.message, "wants MODEL and QUESTION"));
    VkApplicationInfo about = {VK_STRUCTURE_TYPE_APPLICATION_INFO,
                               .apiVersion = VK_API_VERSION_1_3};
    VkInstanceCreateInfo with = {VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO,
                                 .pApplicationInfo = &about};
    peridot_adoption app = {sizeof app, .get_instance_proc_addr = vkGetInstanceProcAddr};
    VkPhysicalDevice found[16];
    uint32_t count = 16;
    MUST(vkCreateInstance(&with, NULL, &app.instance));
    MUST(vkEnumeratePhysicalDevices(app.instance, &count, found) < 0);
    peridot_device_requirements needs = {.struct_size = sizeof needs}; /* of the first that suits */
    for (uint32_t i = 0; i < count && !needs.usable; i++)
        MUST(peridot_requirements_for(app.instance, app.physical_device = found[i],
                                      vkGetInstanceProcAddr, &needs, &error));
    MUST(!needs.usable);
    app.queue_family = needs.queue_family;
    app.features = &needs.features;
    app.extensions = needs.extensions;
    app.extension_count = needs.extension_count;
    VkDeviceQueueCreateInfo queue = {
        VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO, NULL, 0, app.queue_family, 1, &(float){0}};
    VkDeviceCreateInfo device = {VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
                                 .pNext = app.features,
                                 .queueCreateInfoCount = 1,
                                 .pQueueCreateInfos = &queue,
                                 .enabledExtensionCount = app.extension_count,
                                 .ppEnabledExtensionNames = app.extensions};
    MUST(vkCreateDevice(app.physical_device, &device, NULL, &app.device));
    vkGetDeviceQueue(app.device, app.queue_family, 0, &app.queue);

    peridot_device *guest;
    peridot_model *model;
    peridot_session *session;
    peridot_message message = {"user", argv[2], strlen(argv[2])};
    int32_t tokens[8192];
    size_t length;
    MUST(peridot_device_adopt(&app, NULL, &guest, &error));
    MUST(peridot_model_load_wait(guest, argv[1], NULL, &model, &error));
    MUST(peridot_session_create(model, NULL, &session, &error));
    MUST(peridot_chat_tokens(model, &message, 1, tokens, 8192, &length, &error));
    MUST(length > 8192 && snprintf(error.message, sizeof error.message, "too long a question"));
    MUST(peridot_session_prompt_wait(session, tokens, length, NULL, &error));
    MUST(peridot_session_generate_wait(session, 500, show, model, NULL, &error));
    peridot_session_close_wait(session);
    peridot_model_close(model);
    peridot_device_close(guest);
    vkDestroyDevice(app.device, NULL);
    vkDestroyInstance(app.instance, NULL);
    return puts("") < 0;
}
