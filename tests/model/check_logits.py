#!/usr/bin/python3
"""Runs `PROGRAM logits` on MODEL and compares with the same model computed here in float64.

    check_logits.py PROGRAM MODEL DRIVER...     each driver a Vulkan ICD file

For models too large for the conformance data. The tokens are the first and the last of the vocabulary and
those around every GiB of the embedding table, where devices with small allocations cut it; the last rows of
the table are checked by their logits, as all are.
"""
import json
import mmap
import os
import struct
import subprocess
import sys
import tempfile

import numpy as np

LIMIT = 1e-10  # normalised mean squared error, that of the conformance data with a float32 KV cache
ROWS_AT_ONCE = 1 << 14


def load(directory):
    """Every tensor as it lies in the files, by name."""
    tensors = {}
    for file in os.listdir(directory):
        if not file.endswith(".safetensors"):
            continue
        with open(os.path.join(directory, file), "rb") as stream:
            data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        size, = struct.unpack_from("<Q", data)
        for name, entry in json.loads(data[8:8 + size]).items():
            if name == "__metadata__":
                continue
            kind = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16}[entry["dtype"]]
            begin, end = entry["data_offsets"]
            values = np.frombuffer(data, kind, (end - begin) // np.dtype(kind).itemsize, 8 + size + begin)
            tensors[name] = values.reshape(entry["shape"])
    return tensors


def widen(values):
    if values.dtype == np.uint16:
        values = (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float64)


def rmsnorm(x, weight, epsilon):
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + epsilon) * (1 + widen(weight))


def rotate(x, theta):
    """x: [token][head][head_dim]; dimensions i and i + head_dim / 2 turn together."""
    half = x.shape[-1] // 2
    angles = np.arange(len(x))[:, None, None] * theta ** (-np.arange(half) / half)
    low, high = x[..., :half], x[..., half:]
    return np.concatenate([low * np.cos(angles) - high * np.sin(angles),
                           high * np.cos(angles) + low * np.sin(angles)], axis=-1)


def attend(h, tensors, at, config):
    head_dim = config["head_dim"]
    q, k, v = (h @ widen(tensors[f"{at}self_attn.{name}_proj.weight"]).T for name in "qkv")
    q, k, v = (part.reshape(len(h), -1, head_dim) for part in (q, k, v))
    q, k = rotate(q, config["rope_theta"]), rotate(k, config["rope_theta"])
    k, v = (np.repeat(part, q.shape[1] // part.shape[1], axis=1) for part in (k, v))
    scores = np.einsum("thd,shd->hts", q, k) / np.sqrt(head_dim)
    scores = np.where(np.tri(len(h), dtype=bool), scores, -np.inf)
    p = np.exp(scores - scores.max(axis=-1, keepdims=True))
    p /= p.sum(axis=-1, keepdims=True)
    mixed = np.einsum("hts,shd->thd", p, v).reshape(len(h), -1)
    return mixed @ widen(tensors[at + "self_attn.o_proj.weight"]).T


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x ** 3)))


def logits_of(tensors, config, ids):
    table, epsilon = tensors["model.embed_tokens.weight"], config["rms_norm_eps"]
    x = widen(table[ids]) * np.sqrt(config["hidden_size"])
    for i in range(config["num_hidden_layers"]):
        at = f"model.layers.{i}."
        h = rmsnorm(x, tensors[at + "input_layernorm.weight"], epsilon)
        x = x + attend(h, tensors, at, config)
        h = rmsnorm(x, tensors[at + "post_attention_layernorm.weight"], epsilon)
        gate, up, down = (widen(tensors[f"{at}mlp.{name}_proj.weight"]) for name in ("gate", "up", "down"))
        x = x + (gelu(h @ gate.T) * (h @ up.T)) @ down.T
    x = rmsnorm(x, tensors["model.norm.weight"], epsilon)
    return np.concatenate([x @ widen(table[row:row + ROWS_AT_ONCE]).T
                           for row in range(0, len(table), ROWS_AT_ONCE)], axis=1)


def choose_tokens(table):
    rows = len(table)
    ids = [2, rows - 1, 0, rows - 2]
    for edge in range(1 << 30, table.nbytes, 1 << 30):
        ids += [edge // table[0].nbytes + i for i in range(-2, 3)]
    return np.array(ids + [rows // 2 - 1, rows // 2, rows - 1], dtype=np.int32)


def run(program, model, driver, rows, work):
    """With at most `rows` tokens to a pass: other kernels run passes of few rows and of many."""
    subprocess.run([program, "logits", "-m", model, "--tokens", work + "/in.npy", "-o", work + "/out.npy",
                    "--kv", "f32", "--context", "64", "--prefill-rows", str(rows), "--verbose"],
                   env={**os.environ, "VK_DRIVER_FILES": driver}, check=True)
    return np.load(work + "/out.npy")


def main():
    program, model, *drivers = sys.argv[1:]
    with open(os.path.join(model, "config.json")) as file:
        config = json.load(file)
    tensors, bad = load(model), 0
    ids = choose_tokens(tensors["model.embed_tokens.weight"])
    expected = logits_of(tensors, config, ids)
    with tempfile.TemporaryDirectory() as work:
        np.save(work + "/in.npy", ids)
        for driver in drivers:
            for rows in (4, len(ids)):
                error = run(program, model, driver, rows, work) - expected
                nmse = np.mean(error ** 2) / np.mean(expected ** 2)
                worst = np.unravel_index(np.argmax(np.abs(error)), error.shape)
                bad += not nmse <= LIMIT
                print(f"{os.path.basename(driver)}, passes of {rows}: NMSE {nmse:.1e} (limit {LIMIT:.0e}), "
                      f"largest error {np.abs(error).max():.1e} at the logit of token {worst[1]}", flush=True)
    if bad:
        raise SystemExit(f"{bad} runs differ from the model computed in float64")


if __name__ == "__main__":
    main()
