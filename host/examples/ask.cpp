/* Asks a model a question, on the application's own Vulkan device: ask_cpp MODEL QUESTION */
#include <iostream>
#include <memory>
#include <peridot.h>
#include <stdexcept>
#include <vector>
#include <vulkan/vulkan.hpp>

static peridot_error error = {PERIDOT_ERROR_NO_DEVICE, "no Vulkan device here can run Peridot"};
static void must(bool good) {
    if (!good)
        throw std::runtime_error(error.message);
}
template <class T> using owned = std::unique_ptr<T, void (*)(T *)>;
template <class T> T sized() {
    T out{};
    out.struct_size = sizeof out;
    return out;
}
static bool show(const peridot_token *token, void *model) {
    const char *bytes;
    size_t size;
    if (!token->stop && !peridot_token_bytes(static_cast<peridot_model *>(model), token->token,
                                             &bytes, &size, nullptr))
        std::cout.write(bytes, size).flush();
    return bool(std::cout);
}

int main(int argc, char **argv) try {
    if (argc != 3)
        throw std::runtime_error("wants MODEL and QUESTION");
    vk::ApplicationInfo about("ask", 0, nullptr, 0, VK_API_VERSION_1_3);
    vk::UniqueInstance instance = vk::createInstanceUnique({{}, &about});
    auto needs = sized<peridot_device_requirements>();
    auto app = sized<peridot_adoption>();
    app.instance = *instance;
    app.get_instance_proc_addr = vkGetInstanceProcAddr;
    for (vk::PhysicalDevice found : instance->enumeratePhysicalDevices())
        if (!needs.usable)
            must(!peridot_requirements_for(*instance, app.physical_device = found,
                                           vkGetInstanceProcAddr, &needs, &error));
    must(needs.usable);
    app.queue_family = needs.queue_family;
    app.features = &needs.features;
    app.extensions = needs.extensions;
    app.extension_count = needs.extension_count;
    float priority = 0;
    vk::DeviceQueueCreateInfo queue({}, app.queue_family, 1, &priority);
    vk::DeviceCreateInfo info({}, 1, &queue, 0, nullptr, app.extension_count, app.extensions,
                              nullptr, app.features);
    vk::UniqueDevice own = vk::PhysicalDevice(app.physical_device).createDeviceUnique(info);
    app.device = *own;
    app.queue = own->getQueue(app.queue_family, 0);

    peridot_device *device;
    peridot_model *model;
    peridot_session *session;
    must(!peridot_device_adopt(&app, nullptr, &device, &error));
    owned<peridot_device> close_device(device, peridot_device_close);
    must(!peridot_model_load_wait(device, argv[1], nullptr, &model, &error));
    owned<peridot_model> close_model(model, peridot_model_close);
    must(!peridot_session_create(model, nullptr, &session, &error));
    owned<peridot_session> close_session(session, peridot_session_close_wait);
    std::string question = argv[2];
    peridot_message message = {"user", question.data(), question.size()};
    size_t length = 0;
    must(!peridot_chat_tokens(model, &message, 1, nullptr, 0, &length, &error));
    std::vector<int32_t> tokens(length);
    must(!peridot_chat_tokens(model, &message, 1, tokens.data(), length, &length, &error));
    must(!peridot_session_prompt_wait(session, tokens.data(), length, nullptr, &error));
    must(!peridot_session_generate_wait(session, 500, show, model, nullptr, &error));
    std::cout << '\n';
} catch (const std::exception &failure) {
    std::cerr << "ask: " << failure.what() << '\n';
    return 1;
}
