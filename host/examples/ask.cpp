/* Asks a model a question, on the application's own Vulkan device: ask_cpp MODEL QUESTION */
#include <cstring>
#include <iostream>
#include <peridot.h>
#include <vulkan/vulkan.hpp>

static bool show(const peridot_token *token, void *model) {
    const char *bytes = "";
    size_t size = 0;
    if (!token->stop)
        peridot_token_bytes((peridot_model *)model, token->token, &bytes, &size, nullptr);
    return bool(std::cout.write(bytes, size).flush());
}

int main(int argc, char **argv) try {
    if (argc != 3)
        throw std::runtime_error("wants MODEL and QUESTION");
    vk::ApplicationInfo about("ask", 0, nullptr, 0, VK_API_VERSION_1_3);
    vk::UniqueInstance instance = vk::createInstanceUnique({{}, &about});
    peridot_error error = {PERIDOT_ERROR_NO_DEVICE, "no Vulkan device here can run Peridot"};
    peridot_device_requirements needs{}; // of the first device that can
    needs.struct_size = sizeof needs;
    peridot_adoption lent{};
    lent.struct_size = sizeof lent;
    lent.get_instance_proc_addr = vkGetInstanceProcAddr;
    lent.instance = *instance;
    for (vk::PhysicalDevice found : instance->enumeratePhysicalDevices())
        if (!needs.usable)
            peridot_requirements_for(*instance, lent.physical_device = found, vkGetInstanceProcAddr,
                                     &needs, &error);
    if (!needs.usable)
        throw std::runtime_error(error.message);
    float priority = 0;
    vk::DeviceQueueCreateInfo queue({}, needs.queue_family, 1, &priority, needs.queue_next);
    vk::DeviceCreateInfo info({}, 1, &queue, 0, nullptr, needs.extension_count, needs.extensions,
                              nullptr, &needs.features);
    vk::UniqueDevice device = vk::PhysicalDevice(lent.physical_device).createDeviceUnique(info);
    lent.device = *device;
    lent.queue = device->getQueue(lent.queue_family = needs.queue_family, 0);
    lent.created_with = &needs;
    peridot_device *guest = nullptr;
    peridot_model *model = nullptr;
    peridot_session *session = nullptr;
    peridot_message message = {"user", argv[2], strlen(argv[2])};
    int32_t tokens[8192];
    size_t length = 0;
    bool good = !peridot_device_adopt(&lent, nullptr, &guest, &error) &&
                !peridot_model_load_wait(guest, argv[1], nullptr, &model, &error) &&
                !peridot_session_create(model, nullptr, &session, &error) &&
                !peridot_chat_tokens(model, &message, 1, tokens, 8192, &length, &error) &&
                (length <= 8192 || !strcpy(error.message, "the question is too long")) &&
                !peridot_session_prompt_wait(session, tokens, length, nullptr, &error) &&
                !peridot_session_generate_wait(session, 500, show, model, nullptr, &error);
    peridot_session_close_wait(session);
    peridot_model_close(model);
    peridot_device_close(guest);
    good ? void(std::cout << std::endl) : throw std::runtime_error(error.message);
} catch (const std::exception &failure) {
    return std::cerr << "ask: " << failure.what() << std::endl, 1;
}
