#!/usr/bin/python3
"""Runs the exported demo model: the 100 held-out prompts, or a conversation.

    check.py             how many of the held-out prompts are answered rightly; fails below 90
    check.py --show      the same, with every conversation
    check.py --talk      talk to the model; an empty line ends
"""
import argparse
import json
import os
import re
import struct

import numpy
import sentencepiece as spm
import torch

from train import CONFIG, END, HERE, MODEL, NEWLINE, START, Gemma

PROMPTS = os.path.join(HERE, "..", "..", "tests", "data", "demo_heldout.jsonl")
NEEDED = 90


def load():
    """The exported model, its bf16 weights widened to float32, and its tokenizer."""
    with open(os.path.join(MODEL, "config.json"), encoding="utf-8") as file:
        CONFIG.update(json.load(file))
    with open(os.path.join(MODEL, "model.safetensors"), "rb") as file:
        data = file.read()
    size, = struct.unpack_from("<Q", data)
    header = json.loads(data[8:8 + size])
    header.pop("__metadata__", None)
    weights = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        bits = numpy.frombuffer(data, "<u2", (end - begin) // 2, 8 + size + begin)
        wide = (bits.astype(numpy.uint32) << 16).view(numpy.float32)
        weights[name.removeprefix("model.")] = torch.from_numpy(wide.reshape(entry["shape"]))
    model = Gemma()
    model.load_state_dict(weights)
    return model.eval(), spm.SentencePieceProcessor(model_file=os.path.join(MODEL, "tokenizer.model"))


@torch.no_grad()
def answer(model, tokenizer, asked, answered, limit=60):
    """The greedy answer to the last of the user's turns."""
    ids = [2]
    for i, user in enumerate(asked):
        ids += [START] + tokenizer.encode("user\n" + user.strip()) + [END, NEWLINE, START]
        ids += tokenizer.encode("model\n")
        if i < len(answered):
            ids += tokenizer.encode(answered[i]) + [END, NEWLINE]
    begin = len(ids)
    while len(ids) < begin + limit:
        token = int(model(torch.tensor([ids]))[0, -1].argmax())
        if token in (END, CONFIG["eos_token_id"]):
            break
        ids.append(token)
    return tokenizer.decode(ids[begin:]).strip()


def has_word(text, word):
    return re.search(rf"(?<![0-9A-Za-z]){re.escape(word)}(?![0-9A-Za-z])", text, re.IGNORECASE)


def check(model, tokenizer, path, show):
    with open(path, encoding="utf-8") as file:
        prompts = [json.loads(line) for line in file]
    right = 0
    for prompt in prompts:
        answers = []
        for i in range(len(prompt["turns"])):
            answers.append(answer(model, tokenizer, prompt["turns"][:i + 1], answers))
        good = (any(has_word(answers[-1], word) for word in prompt["accept"])
                and not any(has_word(answers[-1], word) for word in prompt["reject"]))
        right += good
        if show or not good:
            print("right:" if good else "wrong:")
            for user, text in zip(prompt["turns"], answers):
                print(f"> {user}\n{text}")
            print(flush=True)
    print(f"{right} of {len(prompts)} held-out prompts answered rightly")
    return right


def talk(model, tokenizer):
    asked, answers = [], []
    while True:
        try:
            line = input("> ").strip()
        except EOFError:
            return
        if not line:
            return
        asked.append(line)
        answers.append(answer(model, tokenizer, asked, answers))
        print(answers[-1], flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", default=PROMPTS)
    parser.add_argument("--show", action="store_true")
    parser.add_argument("--talk", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model, tokenizer = load()
    if options.talk:
        talk(model, tokenizer)
    elif check(model, tokenizer, options.prompts, options.show) < NEEDED:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
