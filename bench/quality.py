#!/usr/bin/python3
"""What each weight type, or each type of KV cache, costs in quality, as a Markdown table.

    quality.py PROGRAM                       the built-in demo model on conversations of its own kind
    quality.py PROGRAM -m DIR -f TEXT        another model, a text of yours
    quality.py PROGRAM --generated 4         random weights in that many layers of the 2B's width (1 GB on disk)
    quality.py PROGRAM --weights q8_0 q4_k   some types only
    quality.py PROGRAM --kv                  types of KV cache, with weights in float32
    quality.py PROGRAM --activations int8    the same with activations in eight bits

Every type is compared with float32 by `peridot perplexity` over the same windows; float32 beside itself shows
what the comparison's own rounding comes to. Bits are those of all weights together, the embedding table
included. A type that does not divide a matrix's rows gives way to another there, which the bits show too.
A generated model predicts nothing: what counts there is the divergence, at real widths, where rows have room for
every type's own blocks. Its weights are scaled so that the logits spread as a trained model's do; nothing in it makes
up for an error, as a trained model does. The demo model learned to predict the answers alone, so its perplexity is high
wherever a question stands.
VK_DRIVER_FILES chooses a driver.
"""
import argparse
import json
import math
import os
import random
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "host", "demo"))
sys.dont_write_bytecode = True
from corpus import conversation  # noqa: E402

TYPES = "f32 bf16 f16 q8_0 q6_k q5_k q5_1 q5_0 q4_k q4_1 q4_0 nf4 q3_k q2_k".split()
KV_TYPES = "f32 f16 q8".split()
COLUMNS = ("perplexity (from f32's)", "mean KL", "99.9 % KL", "same top token")
SEED = 31  # not the one that the demo model was trained with


def conversations(count):
    """Conversations in the chat template, one after another."""
    rng = random.Random(SEED)
    return "".join(f"<start_of_turn>user\n{user}<end_of_turn>\n<start_of_turn>model\n{model}<end_of_turn>\n"
                   for _ in range(count) for user, model in conversation(rng))


def generate_model(options, directory):
    """A checkpoint of random weights with the tests' tokenizer, whose pieces are a part of the vocabulary."""
    tests = os.path.join(HERE, "..", "tests")
    made = subprocess.run([sys.executable, os.path.join(tests, "model", "make_checkpoint.py"), "--preset", "2b",
                           "--layers", str(options.generated), "--vocab", "32000", "--lifelike", directory],
                          check=False)
    if made.returncode:
        sys.exit(1)
    shutil.copy(os.path.join(tests, "data", "tokenizer.model"), directory)
    options.model = directory


def run(options, command, kind, *more):
    """One command's JSON; None after its complaint."""
    types = ["--weights", "f32", "--kv", kind] if options.kv else ["--weights", kind]
    arguments = [options.program, command, "--json", *types, *more]
    if options.model:
        arguments += ["-m", options.model]
    if options.device:
        arguments += ["--device", options.device]
    if options.context:
        arguments += ["--context", str(options.context)]
    done = subprocess.run(arguments, stdout=subprocess.PIPE, check=False)
    return json.loads(done.stdout) if done.returncode == 0 else None


def line(kind, size, report):
    kl, ratio, error = report["kl"], math.expm1(report["log_ratio"]), report["log_ratio_error"]
    return (kind, size, f"{report['perplexity']:.5g} ({100 * ratio:+.2f} ± {100 * error:.2f} %)",
            f"{kl['mean']:.3g} ± {kl['error']:.1g}", f"{kl['p999']:.3g}", f"{100 * report['same_top']:.2f} %")


def show(row):
    print("| " + " | ".join(row) + " |", flush=True)


def measure(options, text, work):
    base = os.path.join(work, "base")
    scored = ["-f", text, *(["--special"] if options.special else [])]
    first = run(options, "perplexity", "f32", *scored, "--save-base", base)
    if not first:
        return 1
    print(f"{first['scored']} of {first['tokens']} tokens scored, in windows of {first['context']}; KL from f32 in "
          f"nats a token.\n")
    columns = ("KV cache", "bytes a token") + COLUMNS if options.kv else ("weights", "bits") + COLUMNS
    show(columns)
    show("---" for _ in columns)
    failed = 0
    for kind in KV_TYPES if options.kv else options.weights:
        inspected = run(options, "inspect", kind)
        report = inspected and run(options, "perplexity", kind, *scored, "--kl-base", base,
                                   "--activations", options.activations)
        failed += not report
        if report:
            size = str(inspected["kv_token_bytes"]) if options.kv else f"{inspected['bits_per_weight']:.2f}"
            show(line(kind, size, report))
        else:
            show((kind, *["-"] * (len(columns) - 1)))
    return failed > 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", help="build/host/cli/peridot")
    parser.add_argument("-m", "--model", help="a model's directory; without it, the demo model")
    parser.add_argument("--generated", type=int, metavar="LAYERS", help="a model of random weights, made for the run")
    parser.add_argument("-f", "--file", help="a text; without it, conversations of the demo model's small world")
    parser.add_argument("--special", action="store_true", help="pieces such as <start_of_turn> in the text are meant")
    parser.add_argument("--weights", nargs="+", choices=TYPES, default=TYPES, metavar="TYPE", help=" ".join(TYPES))
    parser.add_argument("--kv", action="store_true", help="compare types of KV cache instead: " + " ".join(KV_TYPES))
    parser.add_argument("--activations", choices=("f32", "int8"), default="f32",
                        help="of what is compared with float32 weights and activations")
    parser.add_argument("--context", type=int, help="tokens of a window")
    parser.add_argument("--conversations", type=int, default=40, help="of the built-in text; 40")
    parser.add_argument("--device", help="as peridot devices lists them")
    options = parser.parse_args()
    if not os.access(options.program, os.X_OK) or os.path.isdir(options.program):
        parser.error(f"{options.program} is no program: sh host/run.sh devices builds build/host/cli/peridot")
    with tempfile.TemporaryDirectory(prefix="peridot-quality-") as work:
        text = options.file
        if options.generated:
            generate_model(options, os.path.join(work, "model"))
        if not text:
            text, options.special = os.path.join(work, "text"), True
            with open(text, "w", encoding="utf-8") as file:
                file.write(conversations(options.conversations))
        return measure(options, text, work)


if __name__ == "__main__":
    sys.exit(main())
