#!/usr/bin/env python3
"""Blocks of quantised weights beside the gguf package: the same values from any bytes, and no larger an error of
what is quantised.

usage: check_blocks.py LIBRARY [FOLDER]

LIBRARY exports blocks_dequantise, blocks_quantise and weight_type_info; FOLDER is where pip may put the package."""
import ctypes
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from gguf_package import gguf_package

gguf = gguf_package(sys.argv[2] if len(sys.argv) > 2 else None)
import numpy as np  # gguf brings it


class Info(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("block", ctypes.c_uint32), ("block_bytes", ctypes.c_uint32),
                ("gguf", ctypes.c_int32)]


library = ctypes.CDLL(os.path.abspath(sys.argv[1]))
library.weight_type_info.restype = ctypes.POINTER(Info)
for function in library.blocks_dequantise, library.blocks_quantise:
    function.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
    function.restype = None


def weight_types():
    """Number and name of each type that files have; nf4 ends the table."""
    number = 0
    while True:
        info = library.weight_type_info(number).contents
        if info.gguf < 0 and info.name == b"nf4":
            return
        kind = gguf.GGMLQuantizationType[info.name.decode().upper()]
        assert info.block_bytes == gguf.GGML_QUANT_SIZES[kind][1] and info.block == gguf.GGML_QUANT_SIZES[kind][0]
        assert info.gguf in (-1, int(kind))
        yield number, info, kind
        number += 1


def dequantise(number, info, blocks):
    values = np.empty(blocks.size // info.block_bytes * info.block, np.float32)
    library.blocks_dequantise(number, blocks.ctypes.data, values.size, values.ctypes.data)
    return values


def quantise(number, info, values):
    blocks = np.empty(values.size // info.block * info.block_bytes, np.uint8)
    library.blocks_quantise(number, values.ctypes.data, values.size, blocks.ctypes.data)
    return blocks


def theirs(blocks, info, kind):
    with np.errstate(all="ignore"):
        return gguf.quants.dequantize(blocks.reshape(-1, info.block_bytes), kind).reshape(-1)


passed = failed = 0


def check(good, what):
    global passed, failed
    if good:
        passed += 1
    else:
        failed += 1
        print("FAILED:", what)


def same_values(number, info, kind, blocks, what):
    got, expected = dequantise(number, info, blocks), theirs(blocks, info, kind)
    different = (got.view(np.uint32) != expected.view(np.uint32)) & ~(np.isnan(got) & np.isnan(expected))
    check(not different.any(), f"{info.name.decode()}: {different.sum()} other values from {what}")


seed = int(os.environ.get("PERIDOT_TEST_SEED", int.from_bytes(os.urandom(4), "little")))
print("seed", seed)
random = np.random.default_rng(seed)
COUNT = 1 << 18
weights = {"normal": random.standard_normal(COUNT), "Laplace": random.laplace(size=COUNT),
           "t": random.standard_t(4, size=COUNT)}
weights = {name: (0.02 * values).astype(np.float32) for name, values in weights.items()}

for number, info, kind in weight_types():
    name = info.name.decode()
    any_bytes = random.integers(0, 256, COUNT // info.block * info.block_bytes, dtype=np.uint8)
    same_values(number, info, kind, any_bytes, "random bytes")
    if name == "f16":
        same_values(number, info, kind, np.arange(65536, dtype=np.uint16).view(np.uint8), "all there are")
    for shape, values in weights.items():
        blocks = quantise(number, info, values)
        same_values(number, info, kind, blocks, f"{shape} weights")
        try:
            others = gguf.quants.quantize(values.reshape(-1, info.block), kind).view(np.uint8).reshape(-1)
        except NotImplementedError:
            continue
        if info.block == 1:
            check((blocks == others).all(), f"{name}: other bytes from {shape} weights")
            continue
        squares = [np.square((theirs(b, info, kind) - values).astype(np.float64)).reshape(-1, info.block).sum(axis=1)
                   for b in (blocks, others)]
        power = np.square(values.astype(np.float64)).sum()
        worse = int((squares[0] > 1.0001 * squares[1]).sum())
        print(f"{name} {shape:8} error {squares[0].sum() / power:.4e}, of gguf {squares[1].sum() / power:.4e},"
              f" worse in {worse} of {squares[0].size} blocks")
        check(squares[0].sum() < squares[1].sum(), f"{name}: a larger error than gguf's on {shape} weights")
        check(worse < 1e-3 * squares[0].size, f"{name}: a larger error in {worse} blocks of {shape} weights")

print(f"{passed} passed, {failed} failed")
sys.exit(failed > 0)
