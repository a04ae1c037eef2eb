/* peridot: chat, generate, tokenize, logits, perplexity, convert, inspect, tune, devices. */
#include "cli.h"

#include <errno.h>
#include <locale.h>
#include <string.h>

static const struct {
    const char *name;
    int (*run)(struct options *options);
    const char *help;
} commands[] = {
    {"chat", command_chat, "talk to a model (without -m: the built-in demo)"},
    {"generate", command_generate, "continue a text, or answer one message with --chat"},
    {"tokenize", command_tokenize, "text to token ids, or back with --decode"},
    {"logits", command_logits, "the logits after every token of a .npy file"},
    {"perplexity", command_perplexity, "how well a model predicts a text, and beside another one"},
    {"convert", command_convert, "a model to a GGUF file, perhaps with other weights"},
    {"inspect", command_inspect, "a model's configuration and memory"},
    {"tune", command_tune, "measure which kernels are fastest on a device, and keep it"},
    {"devices", command_devices, "the Vulkan devices here, and which would be chosen"},
};

static int help(void) {
    printf("peridot %s: Gemma language models in Vulkan compute shaders\n\n", peridot_version());
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        printf("  peridot %-10s %s\n", commands[i].name, commands[i].help);
    printf(
        "\n"
        "model     -m DIR|FILE.gguf  --context N  --kv f16|f32|q8  --activations f32|int8\n"
        "          --weights auto|file|f32|bf16|f16|int8|q4, or a type of GGUF: q8_0, q4_k ...\n"
        "device    --device INDEX|NAME|UUID  --memory MIB  --minimal  --no-tuning\n"
        "          --validation  --verbose\n"
        "          --device 0,1: the layers on several, by free memory or as --split 3,1 says\n"
        "generate  -p TEXT | -f FILE  -n N  --chat  --system TEXT  --stop TEXT  --json\n"
        "          --grammar FILE: answers, in chat too, follow a grammar in GBNF\n"
        "sampling  --temperature T  --top-k K  --top-p P  --min-p P  --repetition-penalty R\n"
        "          --min-tokens N  --seed S\n"
        "tokenize  -m DIR | --tokenizer FILE  -p TEXT | -f FILE  --decode  --jsonl  --no-special\n"
        "logits    --tokens IN.npy  -o OUT.npy\n"
        "perplexity  -f FILE  --context N (a window, else 512)  --stride N  --special  --json\n"
        "          --save-base FILE | --kl-base FILE\n"
        "          each window begins with <bos>; its second half is scored, a text that fits in\n"
        "          one from its first token on; --stride: where the next begins, else N - 1 on;\n"
        "          a base takes 2 bytes for every scored token and token of the vocabulary\n"
        "convert   -m DIR|FILE.gguf  -o FILE.gguf  --weights TYPE (any but nf4)|file\n"
        "inspect   --json\n"
        "tune      -m DIR|FILE.gguf | --shape 2b|7b  --weights TYPE  --kv TYPE  --activations "
        "TYPE\n"
        "          --seconds N (60): on this device with its driver, for models of that width;\n"
        "          devices tells what is tuned, --no-tuning runs a model without\n"
        "          --json or --csv instead of lines; -o FILE: JSON, or CSV, beside them\n"
        "devices   --json\n"
        "batching  --prefill-rows N  --steps N  --submission-ms MS\n");
    return 0;
}

static int run(int argc, char **argv) {
    const char *name = argc > 1 ? argv[1] : "help";
    if (strcmp(name, "help") == 0 || strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0)
        return help();
    if (strcmp(name, "--version") == 0) {
        printf("peridot %s\n", peridot_version());
        return 0;
    }
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        if (strcmp(name, commands[i].name) != 0)
            continue;
        /* the field's defaults: Gemma's own generation settings */
        struct options options = {.sampling = {.temperature = 1.0f, .top_k = 64, .top_p = 0.95f}};
        return options_parse(argc, argv, &options) ? commands[i].run(&options) : 1;
    }
    fprintf(stderr, "peridot: there is no command %s: see peridot help\n", name);
    return 1;
}

int main(int argc, char **argv) {
    setlocale(LC_CTYPE, "");
    int status = run(argc, argv);
    bool failed = ferror(stdout);
    if (fflush(stdout) != 0 || failed) {
        fprintf(stderr, "peridot: cannot write to standard output%s%s\n", failed ? "" : ": ",
                failed ? "" : strerror(errno));
        return 1;
    }
    return status;
}
