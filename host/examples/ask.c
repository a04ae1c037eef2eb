/* Asks a model a question, on the application's own Vulkan device: ask MODEL QUESTION */
#include <peridot.h>
#include <stdio.h>
#include <string.h>

static bool show(const peridot_token *token, void *model) {
    const char *bytes;
    size_t length;
    return token->stop || (!peridot_token_bytes(model, token->token, &bytes, &length, NULL) &&
                           fwrite(bytes, 1, length, stdout) == length && fflush(stdout) == 0);
}

int main(int argc, char **argv) {
    if (argc != 3)
        return fputs("ask: wants MODEL and QUESTION\n", stderr), 1;
    VkApplicationInfo app = {VK_STRUCTURE_TYPE_APPLICATION_INFO, .apiVersion = VK_API_VERSION_1_3};
    VkInstanceCreateInfo with = {VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO, .pApplicationInfo = &app};
    peridot_error error = {PERIDOT_ERROR_NO_DEVICE, "no Vulkan device here can run Peridot"};
    peridot_device_requirements needs = {.struct_size = sizeof needs}; /* of the first that can */
    peridot_adoption lent = {sizeof lent, .get_instance_proc_addr = vkGetInstanceProcAddr,
                             .created_with = &needs};
    VkPhysicalDevice found[16];
    uint32_t count = 16;
    bool good = !vkCreateInstance(&with, NULL, &lent.instance) &&
                vkEnumeratePhysicalDevices(lent.instance, &count, found) >= 0;
    for (uint32_t i = 0; good && !needs.usable && i < count; i++)
        good = !peridot_requirements_for(lent.instance, lent.physical_device = found[i],
                                         vkGetInstanceProcAddr, &needs, &error);
    VkDeviceQueueCreateInfo queue = {VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO, needs.queue_next,
                                     .queueFamilyIndex = needs.queue_family, .queueCount = 1,
                                     .pQueuePriorities = &(float){0}};
    VkDeviceCreateInfo info = {VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
                               .pNext = &needs.features,
                               .queueCreateInfoCount = 1,
                               .pQueueCreateInfos = &queue,
                               .enabledExtensionCount = needs.extension_count,
                               .ppEnabledExtensionNames = needs.extensions};
    good = good && needs.usable && !vkCreateDevice(lent.physical_device, &info, NULL, &lent.device);
    if (good)
        vkGetDeviceQueue(lent.device, lent.queue_family = needs.queue_family, 0, &lent.queue);
    peridot_device *guest = NULL;
    peridot_model *model = NULL;
    peridot_session *session = NULL;
    peridot_message message = {"user", argv[2], strlen(argv[2])};
    int32_t tokens[8192];
    size_t length = 0;
    good = good && !peridot_device_adopt(&lent, NULL, &guest, &error) &&
           !peridot_model_load_wait(guest, argv[1], NULL, &model, &error) &&
           !peridot_session_create(model, NULL, &session, &error) &&
           !peridot_chat_tokens(model, &message, 1, tokens, 8192, &length, &error) &&
           (length <= 8192 || !strcpy(error.message, "the question is too long")) &&
           !peridot_session_prompt_wait(session, tokens, length, NULL, &error) &&
           !peridot_session_generate_wait(session, 500, show, model, NULL, &error);
    peridot_session_close_wait(session);
    peridot_model_close(model);
    peridot_device_close(guest);
    vkDestroyDevice(lent.device, NULL);
    vkDestroyInstance(lent.instance, NULL);
    return good ? puts("") < 0 : (fprintf(stderr, "ask: %s\n", error.message), 1);
}
