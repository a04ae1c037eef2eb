#!/usr/bin/python3
"""Makes a Gemma checkpoint of any size with random weights, in Hugging Face's format.

    make_checkpoint.py --preset 2b DIRECTORY     the real shapes, 5 GB, two shards
    make_checkpoint.py --preset 7b-table DIRECTORY
    make_checkpoint.py --preset 7b --layers 2 DIRECTORY
    make_checkpoint.py --layers 2 --d-model 64 --heads 2 --kv-heads 1 --head-dim 32 --hidden 128 \\
        --vocab 300 --dtype f16 --shards 2 DIRECTORY
    make_checkpoint.py --preset 2b --layers 4 --lifelike DIRECTORY

Without --lifelike the logits single out one token, the one just read: the head is the embedding, and the layers add
little to it. With it the final norm turns the sign of every other column or so, which makes the head another matrix
than the embedding, and the logits have the spread at which the distribution has a few nats of entropy, as a trained
model's has: what an error in any matrix does to the distribution can be measured.
"""
import argparse
import json
import os
import struct
import sys

try:
    import numpy as np
except ImportError:
    sys.exit("make_checkpoint.py needs NumPy for this Python: install python3-numpy and run it with /usr/bin/python3")

PRESETS = {
    "2b": dict(layers=18, d_model=2048, heads=8, kv_heads=1, head_dim=256, hidden=16384, vocab=256000,
               shards=2),
    "7b": dict(layers=28, d_model=3072, heads=16, kv_heads=16, head_dim=256, hidden=24576, vocab=256000,
               shards=4),
    # the 7B's embedding table, 1.5 GiB in bf16, and one narrow layer
    "7b-table": dict(layers=1, d_model=3072, heads=2, kv_heads=1, head_dim=256, hidden=512, vocab=256000,
                     shards=1),
}
ENTROPY = 3
# lengths of a matrix's rows where they are not 1: layers add to what was read, and attend to a few positions each
LIFELIKE = {"embed_tokens": 2, "q_proj": 1.5, "k_proj": 1.5}
SIZES = {"f32": ("F32", 4), "bf16": ("BF16", 2), "f16": ("F16", 2)}


def tensors(o):
    """Names and shapes, in the order of the real files."""
    yield "model.embed_tokens.weight", (o.vocab, o.d_model)
    for i in range(o.layers):
        at = f"model.layers.{i}."
        yield at + "input_layernorm.weight", (o.d_model,)
        yield at + "mlp.down_proj.weight", (o.d_model, o.hidden)
        yield at + "mlp.gate_proj.weight", (o.hidden, o.d_model)
        yield at + "mlp.up_proj.weight", (o.hidden, o.d_model)
        yield at + "post_attention_layernorm.weight", (o.d_model,)
        yield at + "self_attn.k_proj.weight", (o.kv_heads * o.head_dim, o.d_model)
        yield at + "self_attn.o_proj.weight", (o.d_model, o.heads * o.head_dim)
        yield at + "self_attn.q_proj.weight", (o.heads * o.head_dim, o.d_model)
        yield at + "self_attn.v_proj.weight", (o.kv_heads * o.head_dim, o.d_model)
    yield "model.norm.weight", (o.d_model,)


def encode(values, dtype):
    if dtype == "bf16":
        return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return values.astype(np.float16 if dtype == "f16" else np.float32)


class Weights:
    """Random weights from one block, begun at another place for each row block: fast at any size."""

    def __init__(self, o):
        self.rng = np.random.default_rng(o.seed)
        self.block = self.rng.standard_normal(1 << 22)
        self.dtype = o.dtype
        self.lifelike = o.lifelike
        self.vocab = o.vocab

    def values(self, tensor, shape):
        """The block as a tensor's values."""
        if self.lifelike and tensor == "model.norm.weight":
            # of normal logits of deviation s, ln(vocab) - s^2 / 2 nats are left
            spread = np.sqrt(2 * max(np.log(self.vocab) - ENTROPY, 0.5))
            return np.sign(self.block) * spread / LIFELIKE["embed_tokens"] - 1
        gain = LIFELIKE.get(tensor.split(".")[-2], 1) if self.lifelike else 0.7
        return self.block * (0.05 if len(shape) == 1 else gain / np.sqrt(shape[1]))

    def write(self, file, tensor, shape):
        block = encode(self.values(tensor, shape), self.dtype)
        left = int(np.prod(shape))
        while left:
            start = int(self.rng.integers(0, len(block) // 2))
            part = block[start:start + min(left, len(block) - start)]
            file.write(part.tobytes())
            left -= len(part)


def write_shard(path, members, o, weights):
    name, size = SIZES[o.dtype]
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for tensor, shape in members:
        end = offset + int(np.prod(shape)) * size
        header[tensor] = {"dtype": name, "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor, shape in members:
            weights.write(file, tensor, shape)
    return offset


def write_weights(o):
    every, weights = list(tensors(o)), Weights(o)
    total = sum(int(np.prod(shape)) for _, shape in every)
    shards, share = [[]], 0
    for tensor, shape in every:
        if share > total / o.shards and len(shards) < o.shards:
            shards.append([])
            share = 0
        shards[-1].append((tensor, shape))
        share += int(np.prod(shape))
    if len(shards) == 1:
        write_shard(os.path.join(o.directory, "model.safetensors"), shards[0], o, weights)
        return
    index, size = {}, 0
    for i, members in enumerate(shards, 1):
        name = f"model-{i:05}-of-{len(shards):05}.safetensors"
        size += write_shard(os.path.join(o.directory, name), members, o, weights)
        index.update({tensor: name for tensor, _ in members})
    with open(os.path.join(o.directory, "model.safetensors.index.json"), "w") as file:
        json.dump({"metadata": {"total_size": size}, "weight_map": index}, file)


def write_config(o):
    config = {
        "architectures": ["GemmaForCausalLM"], "bos_token_id": 2, "eos_token_id": 1, "head_dim": o.head_dim,
        "hidden_act": "gelu", "hidden_size": o.d_model, "intermediate_size": o.hidden,
        "max_position_embeddings": o.context, "model_type": "gemma", "num_attention_heads": o.heads,
        "num_hidden_layers": o.layers, "num_key_value_heads": o.kv_heads, "pad_token_id": 0,
        "rms_norm_eps": 1e-06, "rope_scaling": None, "rope_theta": 10000.0, "vocab_size": o.vocab,
    }
    with open(os.path.join(o.directory, "config.json"), "w") as file:
        json.dump(config, file, indent=2)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory")
    parser.add_argument("--preset", choices=PRESETS)
    for name in ("layers", "d-model", "heads", "kv-heads", "head-dim", "hidden", "vocab", "shards"):
        parser.add_argument("--" + name, type=int)
    parser.add_argument("--context", type=int, default=8192)
    parser.add_argument("--dtype", choices=SIZES, default="bf16")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lifelike", action="store_true", help="logits that spread as a trained model's do")
    o = parser.parse_args()
    sizes = {**dict.fromkeys(PRESETS["2b"], 1), **PRESETS.get(o.preset, {})}
    for name, value in sizes.items():
        if getattr(o, name) is None:
            setattr(o, name, value)
    os.makedirs(o.directory, exist_ok=True)
    write_config(o)
    write_weights(o)


if __name__ == "__main__":
    main()
