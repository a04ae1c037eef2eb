#!/usr/bin/python3
"""Trains the demo model: tokenizer and weights, in Hugging Face's Gemma format, into model/.

    train.py [--minutes 45] [--threads 2]

The tokenizer has Gemma's settings and its first 473 ids; the model is Gemma's architecture at 2.4 M
parameters. Weights are exported every few minutes, so that stopping early leaves a usable model.
"""
import argparse
import io
import json
import math
import os
import random
import struct
import time

import sentencepiece as spm
import torch
from torch.nn import functional as F

from corpus import conversation

HERE = os.path.dirname(os.path.abspath(__file__))
MODEL = os.path.join(HERE, "model")
CONFIG = {
    "architectures": ["GemmaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 2,
    "eos_token_id": 1,
    "head_dim": 256,
    "hidden_act": "gelu",
    "hidden_size": 160,
    "initializer_range": 0.02,
    "intermediate_size": 640,
    "max_position_embeddings": 8192,
    "model_type": "gemma",
    "num_attention_heads": 2,
    "num_hidden_layers": 4,
    "num_key_value_heads": 1,
    "pad_token_id": 0,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "vocab_size": 1024,
}
START, END, NEWLINE = 106, 107, 108
BYTES = 217  # the id of byte 0; below it lie control and user-defined pieces


def special_pieces(path, end):
    """The pieces of ids 0 to end - 1 of a tokenizer."""
    model = spm.SentencePieceProcessor(model_file=path)
    return [model.id_to_piece(i) for i in range(end)]


def train_tokenizer(reference):
    """Writes a tokenizer whose first ids are those of the reference, the path of a Gemma tokenizer."""
    rng = random.Random(7)
    lines = (text for _ in range(20000) for turn in conversation(rng) for text in turn)
    stream = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=lines, model_writer=stream, vocab_size=CONFIG["vocab_size"],
        model_type="bpe", byte_fallback=True, split_digits=True, add_dummy_prefix=False,
        normalization_rule_name="identity", remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True, character_coverage=1.0, hard_vocab_limit=False,
        pad_id=0, eos_id=1, bos_id=2, unk_id=3,
        pad_piece="<pad>", eos_piece="<eos>", bos_piece="<bos>", unk_piece="<unk>",
        user_defined_symbols=special_pieces(reference, BYTES)[4:], minloglevel=2)
    path = os.path.join(MODEL, "tokenizer.model")
    with open(path, "wb") as file:
        file.write(stream.getvalue())
    if special_pieces(path, BYTES + 256) != special_pieces(reference, BYTES + 256):
        raise SystemExit("the tokenizer's first pieces are not Gemma's")


def rope(x, cos, sin):
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


class Norm(torch.nn.Module):
    def __init__(self, size):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(size))

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * (1 + self.weight)


class Layer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        d, hidden = CONFIG["hidden_size"], CONFIG["intermediate_size"]
        self.heads, self.dim = CONFIG["num_attention_heads"], CONFIG["head_dim"]
        self.input_layernorm, self.post_attention_layernorm = Norm(d), Norm(d)

        def linear(rows, columns):
            return torch.nn.Linear(columns, rows, bias=False)

        self.self_attn = torch.nn.ModuleDict({
            "q_proj": linear(self.heads * self.dim, d), "k_proj": linear(self.dim, d),
            "v_proj": linear(self.dim, d), "o_proj": linear(d, self.heads * self.dim)})
        self.mlp = torch.nn.ModuleDict({
            "gate_proj": linear(hidden, d), "up_proj": linear(hidden, d),
            "down_proj": linear(d, hidden)})

    def forward(self, x, cos, sin, mask):
        batch, length, _ = x.shape
        normed = self.input_layernorm(x)
        q = self.self_attn["q_proj"](normed).view(batch, length, self.heads, self.dim).transpose(1, 2)
        k = self.self_attn["k_proj"](normed).unsqueeze(1)
        v = self.self_attn["v_proj"](normed).unsqueeze(1)
        q, k = rope(q, cos, sin), rope(k, cos, sin)
        scores = q @ k.transpose(-1, -2) / math.sqrt(self.dim) + mask
        attended = (scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, length, -1)
        x = x + self.self_attn["o_proj"](attended)
        normed = self.post_attention_layernorm(x)
        gate = F.gelu(self.mlp["gate_proj"](normed), approximate="tanh")
        return x + self.mlp["down_proj"](gate * self.mlp["up_proj"](normed))


class Gemma(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embed_tokens = torch.nn.Embedding(CONFIG["vocab_size"], CONFIG["hidden_size"])
        self.layers = torch.nn.ModuleList(Layer() for _ in range(CONFIG["num_hidden_layers"]))
        self.norm = Norm(CONFIG["hidden_size"])
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                torch.nn.init.normal_(parameter, std=0.05)

    def forward(self, tokens, start=0):
        half = CONFIG["head_dim"] // 2
        length = tokens.shape[1]
        frequency = CONFIG["rope_theta"] ** (-torch.arange(half) / half)
        angle = (start + torch.arange(length)).float()[:, None] * frequency
        mask = torch.full((length, length), -1e9).triu(1)
        x = self.embed_tokens(tokens) * math.sqrt(CONFIG["hidden_size"])
        for layer in self.layers:
            x = layer(x, angle.cos(), angle.sin(), mask)
        return self.norm(x) @ self.embed_tokens.weight.T


def encode(tokenizer, turns):
    """Token ids of a conversation in the chat template, and which of them are the model's."""
    ids, ours = [2], [0]
    for user, model in turns:
        asked = [START] + tokenizer.encode("user\n" + user) + [END, NEWLINE, START]
        asked += tokenizer.encode("model\n")
        answer = tokenizer.encode(model) + [END]
        ids += asked + answer + [NEWLINE]
        ours += [0] * len(asked) + [1] * len(answer) + [0]
    return ids, ours


def batches(tokenizer, rng, tokens=3072):
    """Endless batches of conversations of like length; some are several conversations in one."""
    while True:
        pool = []
        for _ in range(256):
            turns = conversation(rng)
            pool.append(encode(tokenizer, turns))
        pool.sort(key=lambda item: len(item[0]))
        groups, group = [], []
        for item in pool:
            if group and (len(group) + 1) * len(item[0]) > tokens:
                groups.append(group)
                group = []
            group.append(item)
        groups.append(group)
        rng.shuffle(groups)
        for group in groups:
            width = max(len(ids) for ids, _ in group)
            ids = torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in group])
            ours = torch.tensor([ours + [0] * (width - len(ours)) for _, ours in group])
            yield ids, ours


def export(model):
    header, offset, data = {"__metadata__": {"format": "pt"}}, 0, []
    for name, tensor in model.state_dict().items():
        raw = tensor.to(torch.bfloat16).contiguous().view(torch.int16).numpy().tobytes()
        header["model." + name] = {"dtype": "BF16", "shape": list(tensor.shape),
                                   "data_offsets": [offset, offset + len(raw)]}
        data.append(raw)
        offset += len(raw)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path = os.path.join(MODEL, "model.safetensors")
    with open(path + ".new", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + b"".join(data))
    os.replace(path + ".new", path)


def train(model, tokenizer, minutes):
    optimiser = torch.optim.AdamW(model.parameters(), lr=0, betas=(0.9, 0.98), weight_decay=0.01)
    rng = random.Random(11)
    start = exported = time.time()
    smooth, step = None, 0
    for ids, ours in batches(tokenizer, rng):
        elapsed = (time.time() - start) / 60 / minutes
        if elapsed >= 1:
            break
        rate = 2e-3 * min(1, (step + 1) / 100) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * elapsed)))
        for group in optimiser.param_groups:
            group["lr"] = rate
        # random positions, so that later turns of a long chat are no strangers
        logits = model(ids[:, :-1], start=rng.randrange(512))
        wanted = ours[:, 1:].reshape(-1).bool()
        loss = F.cross_entropy(logits.reshape(-1, logits.shape[-1])[wanted], ids[:, 1:].reshape(-1)[wanted])
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        smooth = loss.item() if smooth is None else 0.98 * smooth + 0.02 * loss.item()
        step += 1
        if step % 50 == 0:
            print(f"step {step}, {elapsed:.0%}, loss {smooth:.4f}", flush=True)
        if time.time() - exported > 240:
            export(model)
            exported = time.time()
    export(model)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=45)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pieces",
                        default=os.path.join(HERE, "..", "..", "tests", "data", "tokenizer.model"),
                        help="a tokenizer whose ids 0 to 472 are Gemma's")
    options = parser.parse_args()
    torch.manual_seed(3)
    torch.set_num_threads(options.threads)
    os.makedirs(MODEL, exist_ok=True)
    train_tokenizer(options.pieces)
    tokenizer = spm.SentencePieceProcessor(model_file=os.path.join(MODEL, "tokenizer.model"))
    CONFIG["vocab_size"] = tokenizer.vocab_size()
    with open(os.path.join(MODEL, "config.json"), "w", encoding="utf-8") as file:
        json.dump(CONFIG, file, indent=2)
        file.write("\n")
    train(Gemma(), tokenizer, options.minutes)


if __name__ == "__main__":
    main()
