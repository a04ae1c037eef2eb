#!/usr/bin/python3
"""What the program says to bad input, end to end: bad_input.py PROGRAM [DRIVER] [-v].

Every case must end with exit status 1, nothing on standard output and one line on standard error
that begins as all of the program's errors do and holds the words given here; a crash, a sanitizer's
report or a hang fails it. -v shows the sentences.
"""
import concurrent.futures
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
DATA = os.path.join(HERE, "..", "data")
DEMO = os.path.join(HERE, "..", "..", "host", "demo", "model")
SMALL = os.path.join(DATA, "small-f32")
SHARDED = os.path.join(DATA, "mha-wide-bf16-sharded")
GGUF = os.path.join(DATA, "gguf")
SWIFTSHADER = "/usr/lib/chromium/vk_swiftshader_icd.json"
TOKENIZER = os.path.join(DATA, "tokenizer.model")
NOTICE = re.compile(r"peridot: running on .*software.*\n")

verbose = "-v" in sys.argv
positional = [a for a in sys.argv[1:] if a != "-v"]
program = os.path.abspath(positional[0])
scratch = tempfile.mkdtemp(prefix="peridot-bad-input-")
environment = {**os.environ, "PERIDOT_CACHE_DIR": os.path.join(scratch, "cache"), "LC_ALL": "C.UTF-8"}
if len(positional) > 1 and positional[1]:
    environment["VK_DRIVER_FILES"] = positional[1]
passed = failed = 0
lock = threading.Lock()


# ---- Running ----

def start(arguments, stdin=b"", variables=None, stdout=subprocess.PIPE):
    try:
        run = subprocess.run([program, *arguments], input=stdin, stdout=stdout, stderr=subprocess.PIPE,
                             env={**environment, **(variables or {})}, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        return None, b"", "no end within a minute\n"
    return run.returncode, run.stdout or b"", NOTICE.sub("", run.stderr.decode(errors="replace"))


def judge(name, faults, status, out, err):
    with lock:
        count_case(name, faults, status, out, err)


def count_case(name, faults, status, out, err):
    global passed, failed
    if verbose:
        print(f"{name}\n    {err.rstrip()}")
    if not faults:
        passed += 1
        return
    failed += 1
    print(f"FAILED {name}: {'; '.join(faults)}")
    print(f"    status {status}, stdout {out[:200]!r}\n    stderr {err[:2000]!r}")


def one_line(err, words):
    lines = err.splitlines()
    faults = [] if len(lines) == 1 and err.endswith("\n") else [f"{len(lines)} lines on stderr"]
    if not err.startswith("peridot: "):
        faults.append("stderr does not begin with peridot:")
    if any(ord(c) < 32 and c != "\n" for c in err):
        faults.append("control characters on stderr")
    return faults + [f"stderr lacks {word!r}" for word in words if word not in err]


def refused(name, arguments, *words, stdin=b"", variables=None):
    """The program must refuse, in one sentence with these words."""
    status, out, err = start(arguments, stdin, variables)
    faults = one_line(err, words)
    if status != 1:
        faults.append(f"exit status {status}")
    if out:
        faults.append("something on stdout")
    judge(name, faults, status, out, err)


def accepted(name, arguments, *words, stdin=b"", variables=None, said=b""):
    """The program must work; with words, it says them in one line on standard error."""
    status, out, err = start(arguments, stdin, variables)
    faults = one_line(err, words) if words else [f"stderr {err!r}"] * bool(err)
    if status != 0:
        faults.append(f"exit status {status}")
    if not out or said not in out:
        faults.append("not the right thing on stdout")
    judge(name, faults, status, out, err)


def chat(name, lines, *words, model=DEMO, said=b""):
    """A chat through a pipe: one complaint with these words, the conversation goes on."""
    status, out, err = start(["chat", "-m", model, "--temperature", "0"], "\n".join(lines).encode() + b"\n")
    faults = one_line(err, words)
    if status != 1:
        faults.append(f"exit status {status}")
    if said not in out:
        faults.append(f"stdout lacks {said!r}")
    judge(name, faults, status, out, err)


# ---- Broken files ----

def path(name=""):
    """A new place for files."""
    return os.path.join(tempfile.mkdtemp(prefix="case-", dir=scratch), name)


def write(place, content):
    with open(place, "wb") as file:
        file.write(content)
    return place


def read(place):
    with open(place, "rb") as file:
        return file.read()


def model(base=SMALL, without=(), **files):
    """A copy of a checkpoint; files are given by name, dots as in 'config.json' written __."""
    place = path()
    files = {name.replace("__", "."): content for name, content in files.items()}
    for name in os.listdir(base):
        if name not in files and name not in without and not name.endswith(".npy"):
            os.symlink(os.path.abspath(os.path.join(base, name)), os.path.join(place, name))
    for name, content in files.items():
        write(os.path.join(place, name), content)
    return place


def with_config(base=SMALL, **changes):
    config = json.loads(read(os.path.join(base, "config.json")))
    config.update(changes)
    return model(base, config__json=json.dumps(config).encode())


class Weights:
    """A safetensors file taken apart: change header and data, then pack."""

    def __init__(self, place=os.path.join(SMALL, "model.safetensors")):
        whole = read(place)
        length, = struct.unpack("<Q", whole[:8])
        self.header = json.loads(whole[8:8 + length])
        self.data = bytearray(whole[8 + length:])

    def pack(self, text=None, length=None):
        text = json.dumps(self.header).encode() if text is None else text
        return struct.pack("<Q", len(text) if length is None else length) + text + self.data


def with_weights(change):
    weights = Weights()
    packed = change(weights)
    return model(model__safetensors=packed if isinstance(packed, bytes) else weights.pack())


def with_element(tensor, index, pattern):
    def change(weights):
        begin = weights.header[tensor]["data_offsets"][0] + index * len(pattern)
        weights.data[begin:begin + len(pattern)] = pattern
    return with_weights(change)


def npy(dtype, shape, data, magic=b"\x93NUMPY"):
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return write(path("tokens.npy"), magic + b"\1\0" + struct.pack("<H", len(header)) + header + data)


def tokens(*ids):
    return npy("<i4", f"({len(ids)},)", struct.pack(f"<{len(ids)}i", *ids))


def varint(value):
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


# ---- Cases ----

Q = "model.layers.0.self_attn.q_proj.weight"
NORM = "model.layers.1.input_layernorm.weight"


def directories():
    for command in (["inspect"], ["generate", "-p", "x"], ["chat"], ["tokenize", "-p", "x"],
                    ["logits", "--tokens", tokens(1), "-o", path("out.npy")]):
        refused(f"missing directory, {command[0]}", [*command, "-m", "/nonexistent/gemma"], "/nonexistent/gemma")
    refused("model is a file", ["inspect", "-m", os.path.join(SMALL, "config.json")], "config.json is a file", "directory")
    refused("no config.json", ["inspect", "-m", model(without=["config.json"])], "config.json", "give")
    refused("no safetensors", ["inspect", "-m", model(without=["model.safetensors"])], "model.safetensors", "fetch")
    refused("no tokenizer, generate", ["generate", "-m", SMALL, "-p", "x"], "tokenizer.model", "put")
    refused("no tokenizer, tokenize", ["tokenize", "-m", SMALL, "-p", "x"], "tokenizer.model", "--tokenizer")
    refused("no tokenizer, chat", ["chat", "-m", SMALL], "tokenizer.model", "put")
    shard = "model-00002-of-00002.safetensors"
    refused("missing shard", ["inspect", "-m", model(SHARDED, without=[shard])], shard, "model.safetensors.index.json", "fetch")
    index = json.loads(read(os.path.join(SHARDED, "model.safetensors.index.json")))
    for name, value in (("absolute", "/etc/passwd"), ("parent", "../x.safetensors"), ("number", 3), ("empty", "")):
        index["weight_map"]["model.norm.weight"] = value
        bad = model(SHARDED, model__safetensors__index__json=json.dumps(index).encode())
        refused(f"index with a shard's name {name}", ["inspect", "-m", bad], "weight_map", "model.norm.weight")
    refused("index without a map", ["inspect", "-m", model(SHARDED, model__safetensors__index__json=b"{}")], "weight_map")
    refused("index not JSON", ["inspect", "-m", model(SHARDED, model__safetensors__index__json=b"<html>")], "index.json", "JSON")


def headers():
    whole = read(os.path.join(SMALL, "model.safetensors"))
    header_length, = struct.unpack("<Q", whole[:8])

    def packed(content):
        return ["inspect", "-m", model(model__safetensors=content)]

    file = "model.safetensors"
    refused("empty file", packed(b""), file, "too few", "fetch")
    refused("7 bytes", packed(whole[:7]), file, "too few", "fetch")
    refused("truncated header", packed(whole[:8 + header_length // 2]), file, "truncated", "fetch")
    refused("truncated data", packed(whole[:-1]), file, "truncated", "fetch")
    refused("half of the data", packed(whole[:len(whole) // 2]), file, "truncated", "fetch")
    refused("header beyond the file", packed(struct.pack("<Q", len(whole)) + whole[8:]), file, "truncated")
    for length in (2**63, 2**64 - 1, 2**64 - 8, 100000001):
        refused(f"header of {length} bytes", packed(struct.pack("<Q", length) + whole[8:]), file, str(length), "fetch")
    for name, text in (("empty", b""), ("not JSON", b"hello, world"), ("cut JSON", b'{"model.norm.weight": {"dtype"'),
                       ("an array", b"[1, 2]"), ("two objects", b"{} {}"), ("binary", bytes(range(256))),
                       ("deep", b'{"a":' + b"[" * 100000 + b"]" * 100000 + b"}"), ("not UTF-8", b'{"\xff\xfe": 1}')):
        refused(f"header {name}", ["inspect", "-m", with_weights(lambda w, t=text: w.pack(t))], file)
    refused("git-lfs pointer", packed(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"), file, "fetch")


def tensors():
    def broken(name, change, *words):
        refused(name, ["inspect", "-m", with_weights(change)], "model.safetensors", *words)

    def entry(tensor, **fields):
        return lambda w: w.header[tensor].update(fields)

    def move(w):
        begin = w.header["model.norm.weight"]["data_offsets"][0]
        size = w.header[NORM]["data_offsets"][1] - w.header[NORM]["data_offsets"][0]
        w.header[NORM]["data_offsets"] = [begin, begin + size]

    def repeated(w):
        text = json.dumps(w.header)
        return w.pack((text[:-1] + "," + json.dumps({NORM: w.header[NORM]})[1:]).encode())

    broken("overlap", move, "overlap", NORM)
    broken("name twice", repeated, NORM, "twice")
    broken("offset beyond the file", entry(NORM, data_offsets=[2**40, 2**40 + 384]), NORM, "truncated", "fetch")
    broken("offset of 2^63", entry(NORM, data_offsets=[2**63, 2**63 + 384]), NORM, "data_offsets")
    broken("offset of 1e300", entry(NORM, data_offsets=[0, 1e300]), NORM, "data_offsets")
    broken("offsets backwards", entry(NORM, data_offsets=[400, 16]), NORM, "data_offsets")
    broken("negative offset", entry(NORM, data_offsets=[-384, 0]), NORM, "data_offsets")
    broken("offset of a half", entry(NORM, data_offsets=[0.5, 384.5]), NORM, "data_offsets")
    broken("one offset", entry(NORM, data_offsets=[0]), NORM, "data_offsets")
    broken("offsets not a list", entry(NORM, data_offsets="0-384"), NORM, "data_offsets")
    broken("no offsets", lambda w: w.header[NORM].pop("data_offsets"), NORM, "data_offsets")
    broken("offsets disagree with shape", entry(NORM, shape=[95]), NORM, "384", "380")
    broken("shape overflows", entry(NORM, shape=[2**33, 2**33, 2**33]), NORM, "shape")
    broken("shape wraps to the right size", entry(NORM, shape=[2**32, 2**32, 96]), NORM, "shape")
    broken("negative shape", entry(NORM, shape=[-96]), NORM, "shape")
    broken("nine dimensions", entry(NORM, shape=[1] * 8 + [96]), NORM, "shape")
    broken("no shape", lambda w: w.header[NORM].pop("shape"), NORM, "shape")
    broken("tensor is a number", lambda w: w.header.update({NORM: 5}), NORM)
    broken("dtype I64", entry(NORM, dtype="I64", shape=[48]), NORM, "I64", "F32, BF16 and F16")
    broken("dtype I32", entry(NORM, dtype="I32"), NORM, "I32", "F32, BF16 and F16")
    broken("unknown dtype", entry(NORM, dtype="Q4_K"), NORM, "Q4_K", "F32, BF16 and F16")
    broken("dtype missing", lambda w: w.header[NORM].pop("dtype"), NORM, "dtype")
    broken("wrong rank", entry(NORM, shape=[96, 1]), NORM, "[96, 1]", "[96]")
    broken("no dimensions", entry(NORM, shape=[], data_offsets=[0, 4]), NORM)
    broken("wrong shape", entry(Q, shape=[96, 128]), Q, "[96, 128]", "[128, 96]", "config.json")
    broken("missing tensor", lambda w: w.header.pop(NORM), NORM, "missing")
    broken("no tensors", lambda w: w.header.clear(), "missing")
    nothing = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    broken("layer too many", lambda w: w.header.update({"model.layers.2.mlp.up_proj.weight": nothing}),
           "model.layers.2", "num_hidden_layers")
    broken("a bias", lambda w: w.header.update({"model.layers.0.self_attn.q_proj.bias": nothing}), "q_proj.bias", "Gemma")
    broken("name with control characters", lambda w: w.header.update({"a\n\x1b[2Jpwned\r": 5}), "pwned")
    broken("very long name", lambda w: w.header.update({"x" * 100000: 5}), "xxx")
    accepted("surplus tensors", ["inspect", "-m", with_weights(lambda w: w.header.update(
        {"lm_head.weight": nothing, "model.layers.0.self_attn.rotary_emb.inv_freq": {**nothing, "dtype": "I64"}}))])


def values():
    def logits(place, *more):
        return ["logits", "-m", place, "--tokens", some, "-o", out, *more]

    some, out = tokens(1), path("out.npy")
    nan, inf = struct.pack("<f", float("nan")), struct.pack("<f", float("inf"))
    for tensor, index, pattern in ((Q, 128 * 96 - 1, nan), (NORM, 95, nan), (NORM, 0, inf), ("model.norm.weight", 3, inf),
                                   ("model.embed_tokens.weight", 384 * 96 - 1, struct.pack("<f", float("-inf"))),
                                   ("model.layers.1.mlp.down_proj.weight", 5000, struct.pack("<I", 0x7f800001)),
                                   ("model.layers.0.mlp.gate_proj.weight", 0, struct.pack("<I", 0xffffffff)),
                                   ("model.layers.0.self_attn.o_proj.weight", 77, nan)):
        bad = with_element(tensor, index, pattern)
        refused(f"NaN or infinity in {tensor}", logits(bad), "model.safetensors", tensor, "NaN", "fetch")
    half = os.path.join(SHARDED, "model-00001-of-00002.safetensors")
    weights = Weights(half)
    name = "model.embed_tokens.weight"
    weights.data[weights.header[name]["data_offsets"][1] - 2:weights.header[name]["data_offsets"][1]] = b"\x80\x7f"
    place = model(SHARDED, without=[os.path.basename(half)])
    write(os.path.join(place, os.path.basename(half)), weights.pack())
    refused("infinite bf16", logits(place), "model-00001-of-00002.safetensors", name, "NaN")
    large = with_element(Q, 5, struct.pack("<f", 1e30))
    refused("too large for float16", logits(large, "--weights", "f16"), Q, "--weights")
    status, said, err = start(logits(large))
    judge("large but finite", [f"status {status}"] * (status != 0) + ["no output"] * (not os.path.exists(out)), status, said, err)


def configurations():
    def bad(name, *words, **changes):
        refused(name, ["inspect", "-m", with_config(**changes)], "config.json", *words)

    bad("llama", "llama", "gemma", model_type="llama")
    bad("gemma2", "gemma2", "gemma-2b", model_type="gemma2")
    bad("no model_type", "model_type", model_type=None)
    bad("model_type a number", "model_type", model_type=7)
    bad("model_type with control characters", "model_type", model_type="\x1b[31m\nx")
    bad("odd head_dim", "head_dim", "63", head_dim=63)
    bad("head_dim too large", "head_dim", "512", head_dim=4096)
    bad("heads no multiple of kv_heads", "num_attention_heads", "num_key_value_heads", num_attention_heads=3)

    def one_kv_head(weights):
        for tensor, entry in weights.header.items():
            if "k_proj" in tensor or "v_proj" in tensor:
                begin = entry["data_offsets"][0]
                entry.update(shape=[4, 96], data_offsets=[begin, begin + 4 * 96 * 4])

    config = json.loads(read(os.path.join(SMALL, "config.json")))
    config.update(num_attention_heads=32, num_key_value_heads=1, head_dim=4)
    place = with_weights(one_kv_head)
    os.remove(os.path.join(place, "config.json"))
    write(os.path.join(place, "config.json"), json.dumps(config).encode())
    refused("32 heads on one KV head", ["inspect", "-m", place], "32 query heads", "up to 16")
    for field in ("num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim",
                  "intermediate_size", "vocab_size", "max_position_embeddings"):
        for value in (-1, 0, 1.5, 2**31, 2**64, 1e300, "96", [96], True):
            bad(f"{field} {value!r}", field, "whole number", **{field: value})
    bad("sizes whose product overflows", "config.json", "model.embed_tokens.weight", vocab_size=2**24, hidden_size=2**20)
    bad("1024 layers", "model.layers.2.", num_hidden_layers=1024)
    bad("one layer of two", "model.layers.1.", "num_hidden_layers", num_hidden_layers=1)
    bad("other vocabulary", "model.embed_tokens.weight", "[383, 96]", vocab_size=383)
    bad("negative epsilon", "rms_norm_eps", rms_norm_eps=-1)
    bad("theta of 0", "rope_theta", rope_theta=0)
    bad("theta a string", "rope_theta", rope_theta="x")
    bad("bos beyond the vocabulary", "bos_token_id", "384", bos_token_id=384)
    bad("negative bos", "bos_token_id", bos_token_id=-2)
    bad("eos beyond the vocabulary", "eos_token_id", "384", eos_token_id=[1, 100000])
    bad("nine eos", "eos_token_id", eos_token_id=list(range(9)))
    bad("activation", "hidden_act", "gelu", hidden_act="silu")
    bad("quantised", "quantization_config", quantization_config={"bits": 4})
    bad("rope scaling", "rope_scaling", rope_scaling={"type": "linear"})
    bad("untied head", "tie_word_embeddings", tie_word_embeddings=False)
    for name, text in (("empty", b""), ("cut", read(os.path.join(SMALL, "config.json"))[:200]), ("a list", b"[]"),
                       ("binary", bytes(range(256))), ("deep", b'{"a":' * 100000)):
        refused(f"config {name}", ["inspect", "-m", model(config__json=text)], "config.json", "JSON")
    refused("generation_config damaged", ["inspect", "-m", model(generation_config__json=b"{")], "generation_config.json", "JSON")
    refused("generation_config's eos beyond the vocabulary",
            ["inspect", "-m", model(generation_config__json=b'{"eos_token_id": [1, 999]}')], "generation_config.json", "384")


def tokenizers():
    demo = read(os.path.join(DEMO, "tokenizer.model"))
    refused("tokenizer with too many pieces", ["inspect", "-m", model(tokenizer__model=read(TOKENIZER))],
            "tokenizer.model", "384", "do not belong together")
    for name, content in (("empty", b""), ("cut", demo[:len(demo) // 2]), ("text", b"hello"), ("random", bytes(range(256)) * 8),
                          ("of an absurd length", b"\x0a" + varint(2**63) + demo)):
        refused(f"tokenizer {name}", ["generate", "-p", "x", "-m", model(DEMO, tokenizer__model=content)], "tokenizer.model")
        refused(f"tokenizer {name}, tokenize", ["tokenize", "-p", "x", "--tokenizer", write(path("t.model"), content)], "t.model")
    refused("--tokenizer missing", ["tokenize", "-p", "x", "--tokenizer", "/nonexistent/t.model"], "/nonexistent/t.model")
    refused("--tokenizer a directory", ["tokenize", "-p", "x", "--tokenizer", scratch], scratch)
    refused("a path too long", ["tokenize", "-p", "x", "-m", "x" * 5000], "xxx", "long")
    refused("decode a negative id", ["tokenize", "--decode", "-p", "-5"], "-5", "1024")
    refused("decode a large id", ["tokenize", "--decode", "-p", "1 99999999999"], "99999999999", "numbers")
    refused("decode words", ["tokenize", "--decode", "-p", "hello"], "hello", "numbers")
    refused("jsonl that is none", ["tokenize", "--jsonl"], "line 1", "JSON", stdin=b"hello\n")
    refused("jsonl with a NUL", ["tokenize", "--jsonl"], "line 1", "JSON", stdin=b'"a"\0\n"b"\n')
    refused("jsonl ids that are none", ["tokenize", "--jsonl", "--decode"], "line 1", stdin=b'["x"]\n')
    status, out, err = start(["tokenize", "--jsonl"], b'"a"\n\n"b\n')
    judge("jsonl line numbers", one_line(err, ["line 3"]) + [f"exit status {status}"] * (status != 1), status, out, err)


def ggufs():
    whole = read(os.path.join(GGUF, "late-q4_0.gguf"))

    def packed(content):
        return ["inspect", "-m", write(path("m.gguf"), content)]

    refused("GGUF empty", packed(b""), "m.gguf", "0 bytes", "fetch")
    refused("GGUF a web page", packed(b"<!doctype html>"), "m.gguf", "does not begin as a GGUF file", "fetch")
    refused("GGUF cut in its header", packed(whole[:1000]), "m.gguf", "1000 bytes", "incomplete", "fetch")
    refused("GGUF without its last byte", packed(whole[:-1]), "m.gguf", f"{len(whole) - 1} bytes of {len(whole)}", "incomplete")
    for version, words in ((1, ["version 1", "newer"]), (9, ["version 9", "older"]), (3 << 24, ["big-endian"])):
        refused(f"GGUF version {version}", packed(whole[:4] + struct.pack("<I", version) + whole[8:]), "m.gguf", *words)
    refused("GGUF of another model", packed(whole.replace(b"gemma", b"llama", 1)), "m.gguf", '"llama"', '"gemma"')
    for at in range(8, 24):  # every byte of the counts
        refused(f"GGUF with byte {at} changed", packed(whole[:at] + b"\xff" + whole[at + 1:]), "m.gguf", "fetch")
    for part, missing in ((1, 2), (3, 1)):
        place = path(f"early-bf16-{part:05}-of-00003.gguf")
        shutil.copy(os.path.join(GGUF, os.path.basename(place)), place)
        refused(f"GGUF split, part {part} alone", ["inspect", "-m", place],
                f"early-bf16-{missing:05}-of-00003.gguf", "is not there", "fetch")
    text = ["-p", "<h1>Hello,  world</h1>\n"]
    status, out, err = start(["tokenize", "--tokenizer", TOKENIZER, *text])
    accepted("GGUF's tokenizer", ["tokenize", "-m", os.path.join(GGUF, "late-q4_0.gguf"), *text], said=out)
    refused("tokenizer in another part", ["tokenize", "-m", os.path.join(GGUF, "early-bf16-00002-of-00003.gguf"), *text],
            "early-bf16-00002-of-00003.gguf", "first part")


def token_files():
    def bad(name, file, *words):
        refused(name, ["logits", "-m", SMALL, "--tokens", file, "-o", path("out.npy")], *words)

    bad("token too large", tokens(1, 2, 384), "token 2", "384", "tokens.npy")
    bad("token negative", tokens(1, -7), "token 1", "-7", "tokens.npy")
    bad("int64 beyond int32", npy("<i8", "(2,)", struct.pack("<2q", 1, 2**40)), "token 1", str(2**40), "tokens.npy")
    bad("float tokens", npy("<f4", "(1,)", bytes(4)), "tokens.npy", "<f4", "int32")
    bad("big-endian tokens", npy(">i4", "(1,)", bytes(4)), "tokens.npy", ">i4", "int32")
    bad("two dimensions", npy("<i4", "(1, 1)", bytes(4)), "tokens.npy", "int32", "2 dimensions")
    bad("three dimensions", npy("<i4", "(1, 1, 1)", bytes(4)), "tokens.npy")
    bad("no dimensions", npy("<i4", "()", bytes(4)), "tokens.npy")
    bad("truncated npy", npy("<i4", "(3,)", bytes(8)), "tokens.npy", "truncated")
    bad("absurd shape", npy("<i4", "(4611686018427387904,)", bytes(8)), "tokens.npy")
    bad("negative shape", npy("<i4", "(-1,)", bytes(8)), "tokens.npy")
    bad("no tokens", npy("<i4", "(0,)", b""), "tokens.npy", "no tokens", "at least one")
    bad("no npy", write(path("tokens.npy"), b"1 2 3\n" * 20), "tokens.npy", "NumPy")
    bad("empty npy", write(path("tokens.npy"), b""), "tokens.npy", "NumPy")
    bad("npy with its header cut", write(path("tokens.npy"), b"\x93NUMPY\1\0\x76\0{'descr': '<i4'"), "tokens.npy", "NumPy")
    bad("an .npz", npy("<i4", "(1,)", bytes(4), magic=b"PK\3\4\0\0"), "tokens.npy", "NumPy")
    bad("missing npy", "/nonexistent/tokens.npy", "/nonexistent/tokens.npy")
    bad("more tokens than the context", tokens(*[3] * 8193), "8193", "8192", "tokens")
    refused("more tokens than --context", ["logits", "-m", SMALL, "--tokens", tokens(*[3] * 65), "-o", path("out.npy"),
                                           "--context", "64"], "65", "64", "--context")


def prompts():
    refused("prompt longer than the context", ["generate", "-m", DEMO, "-f", "-", "--context", "32"], "--context", "32",
            stdin=b"hello " * 500)
    refused("prompt that fills the context", ["generate", "--context", "1", "-p", "hello"], "--context")
    refused("message longer than the context", ["generate", "--chat", "-f", "-", "--context", "32"], "--context",
            stdin=b"hello " * 500)
    refused("prompt file missing", ["generate", "-f", "/nonexistent/prompt"], "/nonexistent/prompt", "No such file")
    refused("prompt file a directory", ["generate", "-f", scratch], scratch, "directory")
    refused("context beyond the model's", ["generate", "-p", "x", "--context", "8193"], "8193", "8192")
    accepted("prompt not UTF-8", ["generate", "-n", "2", "--temperature", "0", "-f", "-"], stdin=b"\xff\xfe\xc3(\x80 hello")


def grammars():
    def bad(name, text, *words):
        for command in (["generate", "-p", "x"], ["chat"]):
            refused(f"{command[0]}, grammar: {name}", [*command, "-m", DEMO, "--grammar", write(path("rules.gbnf"), text)], *words)

    bad("empty", b"", '"root"')
    bad("no such rule", b"root ::= \"a\" |\n  thing | thing", "line 2", '"thing"')
    bad("left recursion", b"root ::= list\nlist ::= list \"a\" | \"b\"", "line 2", '"list"', "left recursion")
    bad("a rule broken off", b"root ::= \"a\"\n  \"b\"", "line 2", "name is missing")
    bad("a rule that goes on", b"root ::= a\n  b\na ::= \"b\"", "line 2", "within parentheses")
    bad("no text", bytes(range(256)), "grammar, line 1")
    bad("too large", b"root ::= [a-z]{1000}{1000}{1000}", "too large")
    refused("grammar missing", ["generate", "-p", "x", "--grammar", "/nonexistent/g"], "/nonexistent/g", "No such file")
    refused("grammar missing, chat", ["chat", "--grammar", "/nonexistent/g"], "/nonexistent/g", "No such file")
    refused("grammar a directory", ["generate", "-p", "x", "--grammar", scratch], scratch, "directory")
    choice = write(path("rules.gbnf"), b'root ::= "yes" | "no"')
    accepted("a choice", ["generate", "-p", "x", "--grammar", choice, "--temperature", "0"])


def options():
    refused("unknown command", ["frobnicate"], "frobnicate", "help")
    refused("unknown option", ["generate", "--frob", "1"], "--frob", "help")
    refused("stray word", ["generate", "hello"], "hello", "help")
    for option in ("-m", "-p", "-f", "-n", "--context", "--device", "--split", "--seed", "--stop",
                   "--grammar", "--kv", "--activations"):
        refused(f"{option} without a value", ["generate", option], "needs a value", option)
    for value in ("0", "-1", "32769", "x", "", "12x", "1.5", "nan", "inf", "1e99", "99999999999999999999"):
        refused(f"--context {value!r}", ["generate", "-p", "x", "--context", value], "--context", "32768", f'"{value}"')
    refused("--temperature nan", ["generate", "-p", "x", "--temperature", "nan"], "--temperature")
    refused("--top-p 2", ["generate", "-p", "x", "--top-p", "2"], "--top-p", "from 0 to 1")
    refused("-n 0", ["generate", "-p", "x", "-n", "0"], "--count", "1000000")
    for value in ("x", "-1", "", " -1", "99999999999999999999999"):
        refused(f"--seed {value!r}", ["generate", "-p", "x", "--seed", value], "--seed")
    refused("--weights q3", ["generate", "-p", "x", "--weights", "q3"], "--weights", "q3", "q3_k")
    refused("--kv q4", ["generate", "-p", "x", "--kv", "q4"], "--kv", "q4", "f16, f32, q8")
    refused("--activations f16", ["generate", "-p", "x", "--activations", "f16"], "--activations", "f16", "int8")
    refused("--stop empty", ["generate", "-p", "x", "--stop", ""], "--stop")
    refused("logits without files", ["logits", "-m", SMALL], "--tokens")
    refused("unknown device", ["generate", "-p", "x", "--device", "no such card"], "no such card", "peridot devices")
    refused("device 99", ["inspect", "--device", "99"], "99", "peridot devices")
    devices()


def devices():
    def run(name, options, *words):
        for command in (["generate", "-p", "x"], ["inspect"]):
            refused(f"{command[0]}: {name}", [*command, "-m", DEMO, *options], *words, variables=drivers)

    drivers = {}
    run("a device twice", ["--device", "0,0"], "twice")
    run("unknown second device", ["--device", "0,no such card"], "no such card", "peridot devices")
    run("device 99 beside another", ["--device", "0,99"], "99", "peridot devices")
    run("a comma too many", ["--device", "0,"], "--device", "0,1")
    run("shares for one device", ["--split", "1,2"], "2 shares", "1 device")
    run("no share for any", ["--split", "0"], "share")
    for value in ("x", "-1", "1,-1", "nan,1", "inf", "1,", ",", "", "1;2", "1e10", "1," * 16 + "1"):
        run(f"--split {value!r}", ["--device", "0", "--split", value], "--split", f'"{value}"')
    for more, said in ((["--weights", "f32"], b"--weights q8_0 would"), ([], b"it fits, with a context of up to 7168"),
                       (["--context", "8000"], b"--weights q8_0 would, with a context of up to 7168"),
                       (["--memory", "12"], b"not even as q2_k")):
        accepted(f"inspect --memory 44 {more}", ["inspect", "--device", "0", "--memory", "44", *more], said=said)
    if not os.path.exists(SWIFTSHADER) or SWIFTSHADER in environment.get("VK_DRIVER_FILES", SWIFTSHADER):
        return
    drivers = {"VK_DRIVER_FILES": environment["VK_DRIVER_FILES"] + ":" + SWIFTSHADER}
    run("one share for two devices", ["--device", "0,1", "--split", "1"], "1 share", "2 devices")
    run("three shares for two devices", ["--device", "0,1", "--split", "1,1,1"], "3 shares", "2 devices")
    run("no share for either", ["--device", "0,1", "--split", "0,0"], "share")
    refused("fewer layers than devices", ["inspect", "-m", os.path.join(DATA, "deep-f32"), "--device", "0,1"],
            "2 devices for 1 layer", variables=drivers)
    refused("too little memory, and enough on two",
            ["generate", "-p", "x", "-m", DEMO, "--device", "0", "--memory", "44", "--context", "8000"],
            "44.0 MiB free", "--device 0,1", variables=drivers)
    refused("too little memory on both", ["generate", "-p", "x", "-m", DEMO, "--device", "0,1", "--memory", "40"],
            "layers 0 to 1", "40.0 MiB free", variables=drivers)
    accepted("two devices", ["generate", "-p", "x", "-n", "2", "--device", "0,1", "--split", "1,3"], variables=drivers)


def machines():
    library = path("libvulkan.so.1")
    write(library, b"this is no library")
    broken = {"LD_LIBRARY_PATH": os.path.dirname(library)}
    none = {"VK_DRIVER_FILES": "/nonexistent.json", "VK_ICD_FILENAMES": "/nonexistent.json"}
    for command in (["devices"], ["inspect"], ["generate", "-p", "x"], ["chat"]):
        refused(f"no Vulkan loader, {command[0]}", command, "Vulkan loader", "install", variables=broken)
        refused(f"no device, {command[0]}", command, "driver", "install", variables=none)
    accepted("tokenize needs no device", ["tokenize", "-p", "x"], variables=none)
    cache = os.path.join(write(path("file"), b""), "cache")
    accepted("cache folder that cannot be made", ["generate", "-p", "x", "-n", "2"], cache, "cache",
             variables={"PERIDOT_CACHE_DIR": cache})
    accepted("cache folder that cannot be made, chat", ["chat"], cache, "cache", stdin=b"hello\n",
             variables={"PERIDOT_CACHE_DIR": cache})


def outputs():
    def logits(name, out, *words):
        refused(name, ["logits", "-m", SMALL, "--tokens", tokens(1), "-o", out], *words)

    logits("output in no directory", "/nonexistent/out.npy", "/nonexistent/out.npy", "No such file")
    logits("output a directory", path(), "directory")
    os.mkfifo(pipe := path("out.npy"))
    logits("output a pipe", pipe, pipe, "not a regular file")
    logits("output without a name", "", "cannot write")
    text = write(path("text"), b"hello")
    for arguments in (["generate", "-p", "x", "-n", "2"], ["tokenize", "-p", "x"], ["inspect"], ["inspect", "--json"],
                      ["perplexity", "-f", text], ["perplexity", "-f", text, "--json"], ["devices"], ["help"]):
        with open("/dev/full", "wb") as full:
            status, out, err = start(arguments, stdout=full)
        faults = one_line(err, ["standard output"]) + [f"exit status {status}"] * (status != 1)
        judge(f"full standard output, {' '.join(arguments)}", faults, status, out, err)


def with_vocabulary(rows):
    """The demo model with a table of so many rows more: tokens that have no text."""
    place = model(DEMO, without=["model.safetensors", "config.json"])
    config = json.loads(read(os.path.join(DEMO, "config.json")))
    weights = Weights(os.path.join(DEMO, "model.safetensors"))
    entry = weights.header["model.embed_tokens.weight"]
    begin, end = entry["data_offsets"]
    row = (end - begin) // entry["shape"][0]
    for other in weights.header.values():
        if "data_offsets" in other and other["data_offsets"][0] >= end:
            other["data_offsets"] = [offset + rows * row for offset in other["data_offsets"]]
    weights.data[end:end] = bytes(rows * row)
    entry["data_offsets"], entry["shape"] = [begin, end + rows * row], [entry["shape"][0] + rows, entry["shape"][1]]
    config["vocab_size"] += rows
    write(os.path.join(place, "config.json"), json.dumps(config).encode())
    write(os.path.join(place, "model.safetensors"), weights.pack())
    return place


def perplexities():
    text, base = write(path("text"), b"My name is Ana. I have a cat. I live in Rome."), path("base")
    command = ["perplexity", "-f", text]

    def bad(name, arguments, *words):
        refused(f"perplexity: {name}", ["perplexity", *arguments], *words)

    bad("no text", [], "-f", "text")
    bad("no such file", ["-f", "/nonexistent/text"], "/nonexistent/text", "No such file")
    bad("a directory", ["-f", scratch], scratch, "directory")
    bad("an empty file", ["-f", write(path("text"), b"")], "text", "empty")
    bad("--context 1", ["-f", text, "--context", "1"], "--context 1", "2 or more")
    bad("context beyond the model's", ["-f", text, "--context", "8193"], "8193", "8192")
    bad("--stride 0", ["-f", text, "--stride", "0"], "--stride", "from 1")
    bad("--stride of a window", ["-f", text, "--stride", "512"], "--stride 512", "511")
    bad("--stride of a small window", ["-f", text, "--context", "9", "--stride", "9"], "--stride 9", "8 at most")
    bad("no tokenizer", ["-f", text, "-m", SMALL], "tokenizer.model", "put")
    bad("no model", ["-f", text, "-m", "/nonexistent/gemma"], "/nonexistent/gemma")
    bad("both bases", ["-f", text, "--save-base", base, "--kl-base", base], "--save-base", "--kl-base")
    bad("base in no directory", ["-f", text, "--save-base", "/nonexistent/base"], "/nonexistent/base", "No such file")
    bad("base a directory", ["-f", text, "--save-base", scratch], scratch, "directory")
    bad("base to a full disk", ["-f", text, "--save-base", "/dev/full"], "/dev/full", "not a regular file")
    def with_norm(pattern):
        weights = Weights(os.path.join(DEMO, "model.safetensors"))
        begin = weights.header["model.norm.weight"]["data_offsets"][0]
        weights.data[begin:begin + 2] = struct.pack("<H", pattern)
        place = model(DEMO, without=["model.safetensors"])
        write(os.path.join(place, "model.safetensors"), weights.pack())
        return place

    accepted("perplexity: logits of 1e30", [*command, "-m", with_norm(0x7149), "--save-base", path("base")], said=b"perplexity")
    bad("logits that overflow", ["-f", text, "-m", with_norm(0x7f7f), "--save-base", base], "not finite", "token")
    if os.path.exists(base):
        judge("perplexity: no base after an error", ["there is one"], 0, b"", "")
    accepted("perplexity: a base", [*command, "--save-base", base], said=b"perplexity")
    accepted("perplexity: beside it", [*command, "--kl-base", base], said=b"KL divergence")
    whole = read(base)
    row = 16 + 2 * 1024 + 8
    if len(whole) <= 40 + row or (len(whole) - 40) % row:
        judge("perplexity: the base's size", [f"{len(whole)} bytes"], 0, b"", "")

    def changed(name, content, word="damaged"):
        bad(name, ["-f", text, "--kl-base", write(path("changed"), content)], "changed", "--save-base", word)

    bad("no base", ["-f", text, "--kl-base", "/nonexistent/base"], "/nonexistent/base", "No such file")
    bad("the base a directory", ["-f", text, "--kl-base", scratch], scratch, "regular file")
    for size in (0, 1, 7, 8, 39, 40, 41, 40 + row - 1, 40 + row, len(whole) // 2, len(whole) - row, len(whole) - 1):
        changed(f"base cut at {size}", whole[:size], "damaged" if size >= 40 else "not the base")
    changed("base with a byte more", whole + b"\0")
    changed("base with a row more", whole + whole[-row:])
    for place in (9, 17, 21, 25, 29, 33, 40, 49, 53, 57, 40 + row - 1, len(whole) // 2, len(whole) - 1):
        content = bytearray(whole)
        content[place] ^= 0x10
        changed(f"base with a bit of byte {place} changed", bytes(content))
    changed("base with rows that changed places", whole[:-2 * row] + whole[-row:] + whole[-2 * row:-row])
    changed("base that is text", b"hello " * 1000, "not the base")
    changed("base that is a model", read(os.path.join(DEMO, "model.safetensors")), "not the base")
    other = write(path("text"), b"My name is Ben. I have a cat. I live in Rome.")
    bad("base of another text", ["-f", other, "--kl-base", base], base, "another text")
    bad("base of a longer text", ["-f", write(path("text"), read(text) * 2), "--kl-base", base], base, "another text")
    bad("base with other windows", ["-f", text, "--kl-base", base, "--context", "9"], base, "--context 512")
    bad("base with another stride", ["-f", text, "--kl-base", base, "--stride", "9"], base, "--stride 511")
    bad("base of another vocabulary", ["-f", text, "--kl-base", base, "-m", with_vocabulary(8)], base, "1024", "1032")


def conversions():
    def bad(name, arguments, *words):
        refused(f"convert: {name}", ["convert", *arguments], *words)
        left = [file for file in os.listdir(folder) if file != "there.gguf"]
        if left or read(there) != b"there":
            judge(f"convert: {name}: files", [f"{left} is left, or what was there is not"], 0, b"", "")

    there = write(path("there.gguf"), b"there")
    folder = os.path.dirname(there)
    out = os.path.join(folder, "out.gguf")
    bad("no model", ["-o", out], "-m MODEL", "-o FILE.gguf")
    bad("no output", ["-m", DEMO], "-m MODEL", "-o FILE.gguf")
    bad("nf4", ["-m", DEMO, "-o", out, "--weights", "nf4"], "no nf4", "q4_k")
    bad("an unknown type", ["-m", DEMO, "-o", out, "--weights", "q4_2"], "q4_2", "q4_k")
    bad("no such model", ["-m", "/nonexistent/gemma", "-o", out], "/nonexistent/gemma")
    bad("no directory", ["-m", DEMO, "-o", "/nonexistent/out.gguf"], "/nonexistent/out.gguf", "No such file")
    bad("no name", ["-m", DEMO, "-o", ""], "cannot write")
    bad("a directory", ["-m", DEMO, "-o", scratch], scratch, "directory")
    bad("a device", ["-m", DEMO, "-o", "/dev/full"], "/dev/full", "not a regular file")
    place = model(DEMO)
    for name in os.listdir(place):  # links, which lead to the files
        bad(f"over {name}", ["-m", place, "-o", os.path.join(place, name)], name, "own files", "another")
    bad("over the file a link leads to", ["-m", place, "-o", os.path.join(DEMO, "model.safetensors")], "own files")
    for name in ("model-00002-of-00002.safetensors", "model.safetensors.index.json"):
        bad(f"over {name}", ["-m", SHARDED, "-o", os.path.join(SHARDED, name)], name, "own files")
    parts = path()
    for name in os.listdir(GGUF):
        shutil.copy(os.path.join(GGUF, name), parts)
    for name in ("early-bf16-00001-of-00003.gguf", "early-bf16-00003-of-00003.gguf"):
        bad(f"over {name}", ["-m", os.path.join(parts, "early-bf16-00001-of-00003.gguf"), "-o", os.path.join(parts, name)],
            name, "own files")
    nan = struct.pack("<f", float("nan"))
    for tensor, index, row in ((Q, 5 * 96 + 1, "row 5"), (NORM, 95, "infinity"),
                               ("model.embed_tokens.weight", 383 * 96, "row 383")):
        for weights in ("q4_0", "f32", "file"):
            bad(f"NaN in {tensor}, {weights}", ["-m", with_element(tensor, index, nan), "-o", there, "--weights", weights],
                "model.safetensors", tensor, "NaN", row, "fetch")
    bad("too large for float16", ["-m", with_element(Q, 96, struct.pack("<f", 1e30)), "-o", there, "--weights", "f16"],
        Q, "row 1", "float16", "--weights")
    bad("a damaged template", ["-m", model(DEMO, tokenizer_config__json=b"{"), "-o", there], "tokenizer_config.json", "JSON")
    bad("a tokenizer of another model", ["-m", model(tokenizer__model=read(TOKENIZER)), "-o", there], "tokenizer.model",
        "384", "do not belong together")


def conversations():
    place = path("saved")
    status, out, err = start(["chat", "-m", DEMO, "--temperature", "0"], f"My name is Ana.\n/save {place}\n".encode())
    judge("saving", one_line("peridot: x\n" + err, []) + [f"exit status {status}"] * (status != 0), status, out, err)
    saved = read(place)
    again = ["What is my name?"]
    ana = b"Ana"

    def load(name, content, *words, model=DEMO):
        file = write(path("damaged"), content)
        chat(f"load: {name}", ["My name is Ana.", f"/load {file}", *again], *words, model=model, said=ana)

    load("empty", b"", "damaged", "saved")
    load("text", b"hello " * 100, "damaged", "saved")
    load("cut", saved[:len(saved) // 2], "damaged")
    load("one byte short", saved[:-1], "damaged")
    load("one byte more", saved + b"\0", "damaged")
    for place_in_file in (9, 20, 32, 40, 100, len(saved) // 2, len(saved) - 1):
        changed = bytearray(saved)
        changed[place_in_file] ^= 0x40
        load(f"a bit at {place_in_file}", bytes(changed), "damaged")
    other = with_config(DEMO, rms_norm_eps=1e-5)
    load("another model's", saved, "another model", model=other)
    chat("load: no file", ["My name is Ana.", "/load /nonexistent/saved", *again], "/nonexistent/saved", said=ana)
    chat("load: a directory", ["My name is Ana.", f"/load {scratch}", *again], scratch, said=ana)
    chat("save: no directory", ["My name is Ana.", "/save /nonexistent/saved", *again], "/nonexistent/saved", said=ana)
    chat("save: a directory", ["My name is Ana.", f"/save {scratch}", *again], scratch, said=ana)
    os.mkfifo(pipe := path("saved"))
    chat("save: a pipe", ["My name is Ana.", f"/save {pipe}", *again], pipe, "not a regular file", said=ana)
    chat("load: a pipe", ["My name is Ana.", f"/load {pipe}", *again], pipe, "not a regular file", said=ana)
    chat("message longer than the context", ["My name is Ana.", "hello " * 9000, *again], "context", said=ana)
    chat("/set with nonsense", ["My name is Ana.", "/set temperature hot", *again], "temperature", "hot", said=ana)
    status, out, err = start(["chat", "-m", DEMO, "--temperature", "0"], f"/load {place}\nWhat is my name?\n".encode())
    judge("loading", [f"stderr {err!r}"] * bool(err) + ["stdout lacks Ana"] * (ana not in out), status, out, err)


def main():
    begin = time.monotonic()
    try:
        groups = (conversations, prompts, grammars, machines, values, configurations, tensors, directories, headers, ggufs,
                  tokenizers, token_files, options, outputs, perplexities, conversions)
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            for end in [pool.submit(group) for group in groups]:
                end.result()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if verbose:
        print(f"{time.monotonic() - begin:.1f} s")
    print(f"{passed} passed, {failed} failed")
    return failed > 0


sys.exit(main())
