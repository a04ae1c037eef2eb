#!/usr/bin/python3
"""`peridot convert` beside the gguf package: PROGRAM [DRIVER [FOLDER]].

The package reads what was written: keys, tokens, types, and values within each type's error of the source. `peridot
logits` then gives the same from the file as from the source with --weights. FOLDER is where pip may put the package.
Where llama-cpp-python is importable, it loads the files too. Ends with a line "N passed, N failed".
"""
import importlib
import json
import os
import re
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..")]
from gguf_package import gguf_package
from checks import check, finish
from on_terminal import on_terminal

gguf = gguf_package(sys.argv[3] if len(sys.argv) > 3 else None)
import numpy as np  # gguf brings it

import make_gguf

DATA = os.path.join(HERE, "..", "data")
DEMO = os.path.join(HERE, "..", "..", "host", "demo", "model")
VECTORS = os.path.join(DATA, "tokenizer.vectors.jsonl")
TOKENIZER = os.path.join(DATA, "tokenizer.model")
NOTICE = re.compile(r"peridot: running on .*software.*\n")
SUBSTITUTE = re.compile(r"peridot: \d+ (?:matrix|matrices) are written as (\w+), for the rows are no multiple of \d+ .*\n")
NO_TOKENIZER = "peridot: there is no tokenizer beside the model: the file is without one\n"
FLOATS = ("f32", "bf16", "f16")
TYPES = FLOATS + ("q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k")
NEXT_BETTER = {"q2_k": "q4_0", "q3_k": "q4_0", "q4_k": "q5_0", "q5_k": "q5_1", "q6_k": "q8_0"}
# Mean square error over mean square, of normal weights; of a row at most ROW times as much.
ERROR = {"f32": 0, "bf16": 3.5e-6, "f16": 6e-8, "q8_0": 3e-5, "q4_0": 8e-3, "q4_1": 6e-3, "q5_0": 2e-3, "q5_1": 1.5e-3,
         "q2_k": 7.5e-2, "q3_k": 2.3e-2, "q4_k": 5.5e-3, "q5_k": 1.4e-3, "q6_k": 3.5e-4}
ROW = 6

program = os.path.abspath(sys.argv[1])
if len(sys.argv) > 2 and sys.argv[2]:
    os.environ["VK_DRIVER_FILES"] = sys.argv[2]


# ---- Running the program ----

def run(*arguments, stdin=b""):
    done = subprocess.run([program, *arguments], input=stdin, capture_output=True, timeout=300, check=False)
    said = NOTICE.sub("", done.stderr.decode())
    check(f"{arguments[0]} works", done.returncode == 0, done.returncode, said, arguments)
    return done.stdout, said


def convert(source, target, *arguments):
    """What it said, in a pipe: nothing but what was asked for otherwise."""
    out, said = run("convert", "-m", source, "-o", target, *arguments)
    check("convert prints nothing", out == b"", out)
    return said


def logits(model, tokens, work, *arguments):
    np.save(work + "/in.npy", np.asarray(tokens, np.int32))
    run("logits", "-m", model, "--tokens", work + "/in.npy", "-o", work + "/out.npy", *arguments)
    return np.load(work + "/out.npy")


def nmse(values, expected):
    values, expected = values.astype(np.float64), expected.astype(np.float64)
    return np.square(values - expected).sum() / np.square(expected).sum()


# ---- What is to be expected ----

class Source:
    """A Hugging Face directory: its tensors by their names in GGUF files, and what config.json says."""

    def __init__(self, directory):
        self.directory = directory
        with open(os.path.join(directory, "config.json"), encoding="utf-8") as file:
            self.config = json.load(file)
        self.raw = {make_gguf.gguf_name(name): values for name, values in make_gguf.load(directory).items()}
        self.float_type = {"bfloat16": "bf16", "float16": "f16", "float32": "f32"}[
            self.config.get("torch_dtype", "bfloat16")]

    def values(self, name):
        wide = self.raw[name].astype(np.float32)
        return wide + np.float32(1) if name.endswith("norm.weight") else wide

    def tokenizer(self):
        place = os.path.join(self.directory, "tokenizer.model")
        return place if os.path.exists(place) else None


def expected_type(wanted, name, columns, source_type):
    if name.endswith("norm.weight"):
        return "f32"
    if wanted == "file":
        return source_type
    if wanted not in FLOATS and name in ("token_embd.weight", "output.weight"):
        wanted = "q8_0"
    if wanted.endswith("_k") and columns % 256:
        wanted = NEXT_BETTER[wanted]
    if wanted not in FLOATS and columns % 32:
        return "f16" if source_type == "f16" else "bf16"
    return wanted


def expected_tokens(place, rows):
    """Texts, scores and types as llama.cpp's converter writes them where all special tokens are listed."""
    reserved = re.compile(rb"<start_of_turn>|<end_of_turn>|<mask>|<2mass>|\[@BOS@\]|<unused\d+>")
    tokens = []
    for text, score, kind in make_gguf.pieces(place):
        if reserved.fullmatch(text) or kind == make_gguf.CONTROL:
            tokens.append((text, -1000.0, make_gguf.CONTROL))
        elif kind == make_gguf.USER_DEFINED:
            tokens.append((text.replace("\u2581".encode(), b" "), -1000.0, kind))
        else:
            tokens.append((text, score, kind))
    return tokens + [(b"[PAD%d]" % i, -10000.0, make_gguf.UNUSED) for i in range(len(tokens), rows)]


FILE_TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q8_0": 7, "q5_0": 8, "q5_1": 9, "q2_k": 10, "q3_k": 11,
              "q4_k": 14, "q5_k": 16, "q6_k": 18, "bf16": 32}


# ---- Reading ----

class File:
    def __init__(self, place):
        self.place = place
        reader = gguf.GGUFReader(place)
        self.fields = {key: field for key, field in reader.fields.items() if not key.startswith("GGUF.")}
        self.tensors = {tensor.name: tensor for tensor in reader.tensors}
        self.version = reader.fields["GGUF.version"].contents()

    def content(self, key):
        return self.fields[key].contents() if key in self.fields else None

    def type(self, name):
        return self.tensors[name].tensor_type.name.lower()

    def values(self, name):
        tensor = self.tensors[name]
        return gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(tensor.shape[::-1])


def check_keys(name, file, source, quantised):
    config = source.config
    expected = {
        "general.architecture": "gemma", "general.type": "model",
        "general.name": os.path.basename(os.path.abspath(source.directory)),
        "gemma.context_length": config["max_position_embeddings"], "gemma.embedding_length": config["hidden_size"],
        "gemma.block_count": config["num_hidden_layers"], "gemma.feed_forward_length": config["intermediate_size"],
        "gemma.attention.head_count": config["num_attention_heads"],
        "gemma.attention.head_count_kv": config["num_key_value_heads"],
        "gemma.attention.key_length": config["head_dim"], "gemma.attention.value_length": config["head_dim"],
        "gemma.attention.layer_norm_rms_epsilon": float(np.float32(config["rms_norm_eps"])),
        "tokenizer.ggml.bos_token_id": config["bos_token_id"], "tokenizer.ggml.eos_token_id": config["eos_token_id"],
        "tokenizer.ggml.padding_token_id": config["pad_token_id"],
    }
    elements = {}
    for tensor in file.tensors.values():
        if len(tensor.shape) == 2 and tensor.name not in ("token_embd.weight", "output.weight"):
            kind = tensor.tensor_type.name.lower()
            elements[kind] = elements.get(kind, 0) + tensor.n_elements
    expected["general.file_type"] = FILE_TYPES[max(elements, key=elements.get)]
    if quantised:
        expected["general.quantization_version"] = 2
    if source.tokenizer():
        tokens = expected_tokens(source.tokenizer(), config["vocab_size"])
        texts = [token[0] for token in tokens]
        expected.update({
            "tokenizer.ggml.model": "llama", "tokenizer.ggml.pre": "default",
            "tokenizer.ggml.tokens": [text.decode() for text in texts],
            "tokenizer.ggml.scores": [float(np.float32(token[1])) for token in tokens],
            "tokenizer.ggml.token_type": [token[2] for token in tokens],
            "tokenizer.ggml.unknown_token_id": 3, "tokenizer.ggml.eot_token_id": texts.index(b"<end_of_turn>"),
            "tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.add_eos_token": False,
            "tokenizer.ggml.add_space_prefix": False,
        })
    else:
        expected.update({"tokenizer.ggml.model": "none", "gemma.vocab_size": config["vocab_size"]})
    check(f"{name}: the keys", set(file.fields) == set(expected), set(file.fields) ^ set(expected))
    for key, value in expected.items():
        check(f"{name}: {key}", file.content(key) == value, str(file.content(key))[:200], str(value)[:200])


def check_tensor(name, file, tensor, wanted, expected):
    """Its type, its shape in ggml's order, and values within the type's error of `expected`."""
    has = file.type(tensor)
    check(f"{name}: type of {tensor}", has == wanted, has, wanted)
    shape = list(file.tensors[tensor].shape[::-1])
    check(f"{name}: shape of {tensor}", shape == list(expected.shape), shape, expected.shape)
    got = file.values(tensor)
    if wanted in FLOATS:
        exact = expected if wanted == "f32" else gguf.quants.dequantize(
            gguf.quants.quantize(expected, file.tensors[tensor].tensor_type), file.tensors[tensor].tensor_type)
        check(f"{name}: {tensor} to the bit", (got.view(np.uint32) == exact.reshape(got.shape).view(np.uint32)).all())
    error = nmse(got, expected)
    check(f"{name}: error of {tensor}", error <= ERROR[wanted], wanted, error)
    wide = expected.astype(np.float64).reshape(got.shape)
    if wide.ndim == 2 and wanted not in FLOATS:
        rows = np.square(got - wide).sum(axis=1) / np.square(wide).sum(axis=1)
        check(f"{name}: error of the rows of {tensor}", rows.max() <= ROW * ERROR[wanted], wanted, rows.max())
    return error


def check_layout(name, file):
    """Version 3, every tensor aligned and padded, nothing behind the last one."""
    check(f"{name}: version", file.version == 3, file.version)
    end = 0
    for tensor in file.tensors.values():
        check(f"{name}: {tensor.name} is aligned", tensor.data_offset % 32 == 0, tensor.data_offset)
        end = max(end, (tensor.data_offset + tensor.n_bytes + 31) // 32 * 32)
    size = os.path.getsize(file.place)
    check(f"{name}: size of the file", size == end, size, end)


# ---- Checks ----

def check_said(name, said, file, source, wanted):
    """One sentence for each type that stands in for another, and one for the want of a tokenizer."""
    stand_in = set()
    for tensor in file.tensors.values():
        kind = tensor.tensor_type.name.lower()
        if len(tensor.shape) == 2 and wanted != "file" and kind != wanted and not (
                tensor.name in ("token_embd.weight", "output.weight") and kind == "q8_0"):
            stand_in.add(kind)
    check(f"{name}: what it says of types", sorted(SUBSTITUTE.findall(said)) == sorted(stand_in), said, stand_in)
    rest = SUBSTITUTE.sub("", said)
    check(f"{name}: what else it says", rest == ("" if source.tokenizer() else NO_TOKENIZER), rest)


def check_logits(name, source, target, wanted, padded, tokens, work):
    """The file computes what the source does with --weights, to the bit."""
    own = logits(target, tokens, work)
    direct = logits(source.directory, tokens, work, "--weights", wanted)
    if padded:  # on the device, rows that no block fits are filled up instead
        check(f"{name}: logits like those from the source", nmse(own, direct) < 0.5, nmse(own, direct))
    else:
        check(f"{name}: the logits of the source", (own == direct).all(), nmse(own, direct))
    return own


def check_type(source, wanted, tokens, work, llama):
    """One checkpoint as one type; without tokens, nothing is computed with it."""
    name = f"{os.path.basename(source.directory)} as {wanted}"
    target, again = work + "/converted.gguf", work + "/again.gguf"
    said = convert(source.directory, target, "--weights", wanted)
    file = File(target)
    check(f"{name}: its tensors", set(file.tensors) == set(source.raw), set(file.tensors) ^ set(source.raw))
    worst, quantised, padded = 0, False, False
    for tensor, values in source.raw.items():
        kind = expected_type(wanted, tensor, values.shape[-1], source.float_type)
        quantised |= kind not in FLOATS
        padded |= wanted not in FLOATS + ("file",) and values.ndim == 2 and kind in FLOATS
        worst = max(worst, check_tensor(name, file, tensor, kind, source.values(tensor)))
    check_keys(name, file, source, quantised)
    check_layout(name, file)
    check_said(name, said, file, source, wanted)
    if tokens is not None:
        own = check_logits(name, source, target, wanted, padded, tokens, work)
        if llama:
            check_llama(name, llama, target, tokens, own, source.float_type if wanted == "file" else wanted)
    said = convert(target, again)
    with open(target, "rb") as first, open(again, "rb") as second:
        check(f"{name}: the same file from the file", first.read() == second.read())
    check(f"{name}: what it says of a file", said == ("" if source.tokenizer() else NO_TOKENIZER), said)
    return worst


def check_demo(work):
    """The demo says the same from both; its tokenizer makes the same tokens."""
    target = work + "/demo.gguf"
    for wanted in ("file", "q8_0", "q4_k", "q2_k"):
        convert(DEMO, target, "--weights", wanted)
        for arguments in (["-p", "My name is", "-n", "40"], ["--chat", "-p", "I have a cat.", "-n", "40"]):
            one, _ = run("generate", "--temperature", "0", "-m", DEMO, "--weights", wanted, *arguments)
            other, _ = run("generate", "--temperature", "0", "-m", target, *arguments)
            check(f"demo as {wanted} says the same", one == other and len(one) > 5, one, other)


def check_tokens(work, llama):
    """Texts become the same tokens, whichever converter the pieces went through before."""
    with open(VECTORS, "rb") as file:
        texts = b"".join(json.dumps(json.loads(line)["text"]).encode() + b"\n" for line in file)
    wanted, _ = run("tokenize", "--jsonl", "--tokenizer", TOKENIZER, stdin=texts)
    check("there are texts", wanted.count(b"\n") == 340, wanted.count(b"\n"))
    directory = work + "/tokens"
    os.mkdir(directory)
    for name in ("config.json", "model.safetensors"):
        os.symlink(os.path.abspath(os.path.join(DATA, "gguf", name)), os.path.join(directory, name))
    os.symlink(os.path.abspath(TOKENIZER), os.path.join(directory, "tokenizer.model"))
    template = "{{ bos_token }}\u00e9"
    with open(directory + "/tokenizer_config.json", "w", encoding="utf-8") as file:
        json.dump({"chat_template": template}, file)
    lists = []
    for source in (directory, *(os.path.join(DATA, "gguf", name)
                                for name in ("early-bf16-00001-of-00003.gguf", "late-q4_0.gguf"))):
        target = work + "/tokens.gguf"
        convert(source, target, "--weights", "q8_0")
        got, _ = run("tokenize", "--jsonl", "-m", target, stdin=texts)
        check(f"tokens from {os.path.basename(source)}", got == wanted)
        file = File(target)
        lists.append([file.content("tokenizer.ggml." + key) for key in ("tokens", "token_type")])
        tokens = expected_tokens(TOKENIZER, 4128)
        check(f"{os.path.basename(source)}: its tokens", lists[-1] == [[token[0].decode() for token in tokens],
                                                                        [token[2] for token in tokens]])
        if source == directory:
            if llama:
                check_llama_tokens(llama, target)
            check("the chat template", file.content("tokenizer.chat_template") == template)
            convert(target, work + "/again.gguf")
            check("and again", File(work + "/again.gguf").content("tokenizer.chat_template") == template)


def check_gguf_source(work):
    """A split file, and one with blocks: their values are what is converted."""
    place = os.path.join(DATA, "gguf")
    parts = [File(f"{place}/early-bf16-{i:05}-of-00003.gguf") for i in (1, 2, 3)]
    late = File(place + "/late-q4_0.gguf")
    for source, files in ((parts[1].place, parts), (late.place, [late])):
        values = {name: file.values(name) for file in files for name in file.tensors}
        kinds = {name: file.type(name) for file in files for name in file.tensors}
        for wanted in ("f32", "q8_0", "file"):
            name = f"{os.path.basename(source)} as {wanted}"
            target = work + "/from_gguf.gguf"
            convert(source, target, "--weights", wanted)
            file = File(target)
            check(f"{name}: its tensors", set(file.tensors) == set(values))
            for tensor in values:
                kind = expected_type(wanted, tensor, values[tensor].shape[-1], kinds[tensor])
                if wanted != "file":
                    check_tensor(name, file, tensor, kind, values[tensor])
                else:
                    check(f"{name}: {tensor} as it was", file.type(tensor) == kind and
                          (file.values(tensor) == values[tensor]).all())
            check(f"{name}: general.name", file.content("general.name") == files[0].content("general.name"))


def with_head(place, target, head):
    """A GGUF file with one tensor more, copied by the gguf package."""
    file = File(place)
    writer = gguf.GGUFWriter(target, "gemma")
    for key, field in file.fields.items():
        if key != "general.architecture":
            writer.add_key_value(key, field.contents(), field.types[0],
                                 field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None)
    for tensor in file.tensors.values():
        writer.add_tensor(tensor.name, np.array(tensor.data).reshape(tensor.shape[::-1]))
    writer.add_tensor("output.weight", head)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def check_head(work):
    """A head of its own is kept at eight bits; a copy of the embedding is left out."""
    plain, headed, target = work + "/plain.gguf", work + "/headed.gguf", work + "/head.gguf"
    convert(os.path.join(DATA, "small-f32"), plain, "--weights", "f32")
    table = File(plain).values("token_embd.weight")
    with_head(plain, headed, np.ascontiguousarray(table[::-1]))
    convert(headed, target, "--weights", "q4_0")
    file = File(target)
    check("the head is there", "output.weight" in file.tensors)
    check_tensor("a head of its own", file, "output.weight", "q8_0", table[::-1])
    check_tensor("the embedding beside it", file, "token_embd.weight", "q8_0", table)
    tokens = np.arange(2, 40)
    own, direct = logits(target, tokens, work), logits(headed, tokens, work, "--weights", "q4_0")
    check("a head of its own: logits", (own == direct).all() and len(np.unique(own)) > 100, nmse(own, direct))
    with_head(plain, headed, table)
    convert(headed, target, "--weights", "q4_0")
    check("a copy is left out", "output.weight" not in File(target).tensors)


# ---- Ends that are none ----

def ended(name, process, target, words, before):
    """It says one sentence with these words, and leaves the folder as it was."""
    out, err = process.communicate(timeout=120)
    said = err.decode()
    check(f"{name}: one sentence", process.returncode == 1 and not out and said.count("\n") == 1 and
          said.startswith("peridot: ") and all(word in said for word in words), process.returncode, out, said)
    left = os.listdir(os.path.dirname(target))
    check(f"{name}: nothing is left", left == (["out.gguf"] if before else []), left)
    if before:
        with open(target, "rb") as file:
            check(f"{name}: what was there is there", file.read() == before)


def start(source, target, *arguments, **more):
    return subprocess.Popen([program, "convert", "-m", source, "-o", target, *arguments], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, **more)


def limit_files():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # writes then fail, as on a full disk
    resource.setrlimit(resource.RLIMIT_FSIZE, (200000, 200000))


def large(place):
    """A checkpoint of half a gigabyte that takes no room on disk: zeros all over."""
    os.mkdir(place)
    size = {"hidden_size": 2048, "num_hidden_layers": 1, "vocab_size": 256000 // 2, "num_attention_heads": 1,
            "num_key_value_heads": 1, "head_dim": 256, "intermediate_size": 256}
    with open(place + "/config.json", "w", encoding="utf-8") as file:
        json.dump({"model_type": "gemma", **size}, file)
    d, h, m = 2048, 256, 256
    shapes = {"embed_tokens": (size["vocab_size"], d), "norm": (d,)}
    layer = {"input_layernorm": (d,), "post_attention_layernorm": (d,), "self_attn.q_proj": (h, d),
             "self_attn.k_proj": (h, d), "self_attn.v_proj": (h, d), "self_attn.o_proj": (d, h),
             "mlp.gate_proj": (m, d), "mlp.up_proj": (m, d), "mlp.down_proj": (d, m)}
    shapes.update({"layers.0." + name: shape for name, shape in layer.items()})
    header, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * int(np.prod(shape))
        header[f"model.{name}.weight"] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with open(place + "/model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)


def check_ends(work):
    """A full disk and a signal: the target is as it was, or not there."""
    folder, source = work + "/ends", work + "/large"
    target = folder + "/out.gguf"
    os.mkdir(folder)
    large(source)
    for before in (b"", b"something else"):
        if before:
            with open(target, "wb") as file:
                file.write(before)
        ended("a full disk", start(DEMO, target, preexec_fn=limit_files), target, [target, "too large", "MiB"], before)
        for number in (signal.SIGINT, signal.SIGTERM):
            process = start(source, target, "--weights", "q4_0")
            begun = []
            for _ in range(6000):
                begun = [name for name in os.listdir(folder) if name != "out.gguf"]
                if begun or process.poll() is not None:
                    break
                time.sleep(0.01)
            time.sleep(0.1)
            process.send_signal(number)
            check("interrupted: while writing", len(begun) == 1, begun)
            ended(f"signal {number}", process, target, ["stopped", target], before)
    mode = 0o640
    os.chmod(target, mode)
    convert(DEMO, target)
    check("a file is replaced", File(target).version == 3 and os.stat(target).st_mode & 0o777 == mode)
    check("nothing beside it", os.listdir(folder) == ["out.gguf"])


def check_terminal(work):
    """Progress on a terminal, gone at the end."""
    status, out, shown = on_terminal([program, "convert", "-m", DEMO, "-o", work + "/terminal.gguf"])
    check("terminal: progress", re.search(rb"\rconverting +\d+ % ", shown), shown[:300])
    check("terminal: taken away", shown.endswith(b"\r" + b" " * 30 + b"\r"), shown[-100:])
    check("terminal: it worked", status == 0 and not out, out)


def check_without_vulkan(work):
    """No driver, and no loader either."""
    library = work + "/library"
    os.mkdir(library)
    with open(library + "/libvulkan.so.1", "wb") as file:
        file.write(b"this is no library")
    environment = {**os.environ, "VK_DRIVER_FILES": "/nonexistent.json", "LD_LIBRARY_PATH": library}
    process = start(DEMO, work + "/no_vulkan.gguf", "--weights", "q8_0", env=environment)
    out, err = process.communicate(timeout=120)
    check("without Vulkan", process.returncode == 0 and not out and not err, process.returncode, out, err)


# ---- llama.cpp ----

# It rounds the activations that meet weights of a type: to that type, or to blocks of eight bits.
LLAMA_ERROR = {"f32": 1e-6, "f16": 2e-6, "bf16": 5e-5}
LLAMA_BLOCKS = 1e-3


def import_llama():
    try:
        return importlib.import_module("llama_cpp")
    except (ImportError, OSError, RuntimeError):
        print("left out: llama.cpp itself, for there is no llama-cpp-python")
        return None


def check_llama(name, llama, place, tokens, expected, wanted):
    try:
        model = llama.Llama(place, n_ctx=512, n_threads=2, logits_all=True, verbose=False)
    except (ValueError, RuntimeError) as error:
        check(f"{name}: llama.cpp loads it", False, error)
        return
    model.eval([int(token) for token in tokens])
    error = nmse(np.array(model.scores[:len(tokens)]), expected)
    model.close()
    print(f"{name}: llama.cpp's logits differ by {error:.2e}")
    check(f"{name}: llama.cpp's logits", error < LLAMA_ERROR.get(wanted, LLAMA_BLOCKS), error)


def check_llama_tokens(llama, place):
    """The same tokens as here, but where a text has U+2581 itself: llama.cpp does not take that for a space."""
    with open(VECTORS, encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line in file]
    texts = [text for text in texts if "\u2581" not in text]
    lines, _ = run("tokenize", "--jsonl", "--no-special", "-m", place, stdin="\n".join(map(json.dumps, texts)).encode())
    ours = [json.loads(line) for line in lines.splitlines()]
    model = llama.Llama(place, vocab_only=True, verbose=False)
    theirs = [model.tokenize(text.encode(), add_bos=False, special=False) for text in texts]
    model.close()
    different = [text for text, a, b in zip(texts, ours, theirs) if a != b]
    check("llama.cpp's tokens", len(ours) > 200 and not different, len(different), different[:3])


def main():
    llama = import_llama()
    worst = {}
    with tempfile.TemporaryDirectory(prefix="peridot-convert-") as work:
        names = "mqa-bf16", "gqa-bf16", "long-f16", "small-f32", "deep-f32"
        for number, directory in enumerate((DEMO, *(os.path.join(DATA, name) for name in names))):
            source = Source(directory)
            tokens = np.random.default_rng(3).integers(3, source.config["vocab_size"], 24)
            tokens[0] = 2
            for place, wanted in enumerate(TYPES + ("file",)):
                run_it = number == 0 or place % len(names) == number - 1  # every type with the demo and one other
                error = check_type(source, wanted, tokens if run_it else None, work, llama)
                if source.float_type != wanted and wanted != "file":
                    worst[wanted] = max(worst.get(wanted, 0), error)
        print("worst errors:", ", ".join(f"{kind} {error:.1e}" for kind, error in worst.items()))
        check_demo(work)
        check_tokens(work, llama)
        check_gguf_source(work)
        check_head(work)
        check_ends(work)
        check_terminal(work)
        check_without_vulkan(work)
    finish()


if __name__ == "__main__":
    main()
