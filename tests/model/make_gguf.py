#!/usr/bin/python3
"""Converts a Hugging Face Gemma directory to GGUF as llama.cpp's convert_hf_to_gguf.py does: the same keys and
names, the 1 added to the norms, tokens by the same rules. Needs the PyPI package gguf.

    make_gguf.py [--type q8_0] [--embedding f16] [--tokens early|listed|late]
        [--tensors-per-file N] [--tokenizer tokenizer.model] DIRECTORY OUT.gguf

--tokens: `early` as in February 2024, where user-defined pieces became normal ones; `listed` as with a
tokenizer_config.json that lists the four control pieces and the turn markers; `late` as with one that lists all.

tests/data/gguf is make_checkpoint.py --layers 2 --d-model 32 --heads 2 --kv-heads 1 --head-dim 16 --hidden 64
--vocab 4128, and of it, with --tokenizer tests/data/tokenizer.model,
    --type bf16 --tokens early --tensors-per-file 8 tests/data/gguf early-bf16.gguf
    --type q4_0 --embedding q8_0 --tokens late tests/data/gguf late-q4_0.gguf
"""
import argparse
import glob
import json
import os
import struct

import gguf
import numpy as np

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED = 1, 2, 3, 4, 5
LAYER_NAMES = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}
END_OF_TURN = 107


def load(directory):
    """Every tensor by name; bfloat16 widened, as the converter does before it adds anything."""
    tensors = {}
    for path in sorted(glob.glob(os.path.join(directory, "*.safetensors"))):
        with open(path, "rb") as stream:
            data = stream.read()
        length = struct.unpack_from("<Q", data)[0]
        for name, entry in json.loads(data[8:8 + length]).items():
            if name == "__metadata__":
                continue
            begin, end = (8 + length + offset for offset in entry["data_offsets"])
            raw = data[begin:end]
            if entry["dtype"] == "BF16":
                values = (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
            else:
                values = np.frombuffer(raw, {"F32": "<f4", "F16": "<f2"}[entry["dtype"]])
            tensors[name] = values.reshape(entry["shape"])
    return tensors


def gguf_name(name):
    if name == "model.embed_tokens.weight":
        return "token_embd.weight"
    if name == "model.norm.weight":
        return "output_norm.weight"
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{LAYER_NAMES[rest.removesuffix('.weight')]}.weight"


def add_tensors(writer, tensors, o):
    for name, values in tensors.items():
        if name == "lm_head.weight":
            continue
        if name.endswith("norm.weight"):
            writer.add_tensor(gguf_name(name), (values + 1).astype(np.float32))
            continue
        wanted = o.embedding if name == "model.embed_tokens.weight" and o.embedding else o.type
        kind = gguf.GGMLQuantizationType[wanted.upper()]
        block = gguf.GGML_QUANT_SIZES[kind][0]
        if values.shape[1] % block:
            kind = gguf.GGMLQuantizationType.F16
        writer.add_tensor(gguf_name(name), gguf.quants.quantize(values.astype(np.float32), kind), raw_dtype=kind)


# ---- The tokenizer ----


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7f) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def fields(data):
    """The numbered fields of a protobuf message."""
    at = 0
    while at < len(data):
        tag, at = varint(data, at)
        if tag & 7 == 0:
            value, at = varint(data, at)
        else:
            size, at = varint(data, at) if tag & 7 == 2 else ({1: 8, 5: 4}[tag & 7], at)
            value = data[at:at + size]
            at += size
        yield tag >> 3, value


def pieces(path):
    with open(path, "rb") as stream:
        for number, message in fields(stream.read()):
            if number == 1:
                piece = dict(fields(message))
                score = struct.unpack("<f", piece[2])[0] if 2 in piece else 0.0
                yield piece[1], score, piece.get(3, NORMAL)


def looks_special(text):
    return text in (b"<pad>", b"<mask>", b"<2mass>", b"[@BOS@]") or (
        text.startswith(b"<unused") and text.endswith(b">"))


def convert_piece(index, text, score, kind, style):
    listed = style != "early" and (index < 4 or text in (b"<start_of_turn>", b"<end_of_turn>"))
    if listed or (style == "late" and looks_special(text)):
        return text, -1000.0, CONTROL
    if kind == USER_DEFINED and style == "late":
        return text.replace("\u2581".encode(), b" "), -1000.0, USER_DEFINED
    return text, score, NORMAL if kind == USER_DEFINED else kind


def add_tokenizer(writer, path, rows, style):
    converted = [convert_piece(i, *piece, style) for i, piece in enumerate(pieces(path))]
    converted += [(b"[PAD%d]" % i, -10000.0, UNUSED) for i in range(len(converted), rows)]
    tokens, scores, kinds = zip(*converted)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(list(tokens))
    writer.add_token_scores(list(scores))
    writer.add_token_types(list(kinds))
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(1)
    writer.add_unk_token_id(3)
    writer.add_pad_token_id(0)
    if style == "early":
        return
    writer.add_tokenizer_pre("default")
    writer.add_eot_token_id(END_OF_TURN)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template("{{ bos_token }}{% for message in messages %}...{% endfor %}")


def add_metadata(writer, config, o):
    writer.add_type("model")
    writer.add_name(os.path.basename(os.path.abspath(o.directory)))
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_quantization_version(2)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory")
    parser.add_argument("out")
    parser.add_argument("--type", default="f16", help="of the matrices: f32, f16, bf16, q8_0, q4_0, q4_1, q5_0, q5_1")
    parser.add_argument("--embedding", help="of the embedding table, if another")
    parser.add_argument("--tokens", choices=("early", "listed", "late"), default="listed")
    parser.add_argument("--tokenizer", help="a tokenizer.model that is not in the directory")
    parser.add_argument("--tensors-per-file", type=int, default=0, help="split the file")
    parser.add_argument("--big-endian", action="store_true")
    o = parser.parse_args()
    with open(os.path.join(o.directory, "config.json")) as stream:
        config = json.load(stream)
    order = gguf.GGUFEndian.BIG if o.big_endian else gguf.GGUFEndian.LITTLE
    writer = gguf.GGUFWriter(o.out, "gemma", endianess=order, split_max_tensors=o.tensors_per_file)
    add_metadata(writer, config, o)
    tokenizer = o.tokenizer or os.path.join(o.directory, "tokenizer.model")
    if os.path.exists(tokenizer):
        add_tokenizer(writer, tokenizer, config["vocab_size"], o.tokens)
    add_tensors(writer, load(o.directory), o)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
