#!/usr/bin/python3
"""How fast each weight type decodes, as a Markdown table, side by side on every driver given.

    speed.py PROGRAM -m MODEL [--driver ICD.json ...] [--weights bf16 q4_k ...] [--activations f32 int8] [-n 16]

MODEL may be one that tests/model/make_checkpoint.py generates: what the weights are does not matter. The types take
turns, round after round, and each one's best round counts, because machines are noisy. GB/s are weights read.
"""
import argparse
import itertools
import json
import os
import subprocess

TYPES = "f32 bf16 f16 q8_0 q6_k q5_k q5_1 q5_0 q4_k q4_1 q4_0 nf4 q3_k q2_k".split()


def run(options, driver, command, weights, *more):
    """One command's JSON; None after its complaint."""
    environment = dict(os.environ, **({"VK_DRIVER_FILES": driver} if driver else {}))
    done = subprocess.run([options.program, command, "--json", "-m", options.model, "--weights", weights, *more],
                          stdout=subprocess.PIPE, env=environment, check=False)
    return json.loads(done.stdout) if done.returncode == 0 else None


def measure(options, driver, weights, activations):
    """tokens/s and GB/s of one round, after a prompt of one token."""
    count = str(options.count)
    plan = run(options, driver, "inspect", weights, "--context", "512")
    result = run(options, driver, "generate", weights, "-p", "a", "-n", count, "--min-tokens", count, "--temperature",
                 "0", "--context", "512", "--activations", activations)
    if not (plan and result):
        return None
    rate = options.count / result["decode_seconds"]
    return rate, rate * plan["read_bytes"] / 1e9


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program")
    parser.add_argument("-m", "--model", required=True)
    parser.add_argument("--driver", nargs="*", default=[None], help="ICD files; by default what Vulkan finds")
    parser.add_argument("--weights", nargs="*", default=TYPES)
    parser.add_argument("--activations", nargs="*", choices=("f32", "int8"), default=["f32"])
    parser.add_argument("-n", "--count", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    for driver in options.driver:
        best = {}
        for _ in range(options.rounds):
            for kind in itertools.product(options.weights, options.activations):
                found = measure(options, driver, *kind)
                if found and (kind not in best or found[0] > best[kind][0]):
                    best[kind] = found
        print(f"\n{os.path.basename(driver) if driver else 'the default device'}\n")
        print("| weights | activations | tokens/s | GB/s |\n|---|---|---|---|")
        for (weights, activations), (rate, bandwidth) in best.items():
            print(f"| {weights} | {activations} | {rate:.3g} | {bandwidth:.3g} |", flush=True)


if __name__ == "__main__":
    main()
