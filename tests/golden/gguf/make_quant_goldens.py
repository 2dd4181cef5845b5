#!/usr/bin/env python3
"""Writes quant_goldens.json: what the Python `gguf` package makes of random blocks.

usage: make_quant_goldens.py > quant_goldens.json      (needs gguf and numpy)

Inputs are not stored: both sides make them with splitmix64 (word i = mix(seed + (i + 1) * gamma)).
Of the outputs the file keeps an FNV-1a hash over the 32-bit words, every NaN written as 0x7fc00000,
and the first words for a human to compare. Random bytes hold infinite and NaN scales too.
"""
import json
import sys
import warnings

import gguf
import gguf.quants
import numpy as np

N_BLOCKS = 256
SEED = 20240601
MASK = (1 << 64) - 1
QUANTIZED = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "BF16", "F16"]


def splitmix64(seed: int, count: int) -> np.ndarray:
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def fnv1a(data: bytes) -> int:
    value = 0xCBF29CE484222325
    for byte in data:
        value = ((value ^ byte) * 0x100000001B3) & MASK
    return value


def random_bytes(seed: int, count: int) -> np.ndarray:
    return splitmix64(seed, (count + 7) // 8).view(np.uint8)[:count]


def random_floats(seed: int, count: int) -> np.ndarray:
    """Multiples of 2^-20 in [-2, 2), so exact in f32."""
    words = splitmix64(seed, count)
    return ((words >> np.uint64(42)).astype(np.int64) - (1 << 21)).astype(np.float32) / np.float32(1 << 20)


def dequantized(name: str) -> dict:
    kind = gguf.GGMLQuantizationType[name]
    elems, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = random_bytes(SEED + int(kind), N_BLOCKS * size).reshape(N_BLOCKS, size)
    values = np.ascontiguousarray(gguf.quants.dequantize(blocks, kind)).astype(np.float32)
    bits = values.reshape(-1).view(np.uint32).copy()
    bits[np.isnan(values.reshape(-1))] = 0x7FC00000
    assert bits.size == N_BLOCKS * elems
    return {"hash": f"{fnv1a(bits.tobytes()):016x}", "first": [f"{b:08x}" for b in bits[:8]]}


def quantized(name: str) -> dict:
    kind = gguf.GGMLQuantizationType[name]
    elems = max(gguf.GGML_QUANT_SIZES[kind][0], 32)
    values = random_floats(SEED + int(kind), N_BLOCKS * elems)
    values[: elems] = 0  # a block of zeros
    data = gguf.quants.quantize(values.reshape(N_BLOCKS, elems), kind)
    data = np.ascontiguousarray(data).view(np.uint8).reshape(-1)
    return {"hash": f"{fnv1a(data.tobytes()):016x}", "n_elems": int(values.size)}


def main() -> None:
    warnings.simplefilter("ignore")
    names = [kind.name for kind in gguf.quants._type_traits]
    names += ["F16", "F32"]
    result = {
        "made_with": "gguf " + __import__("importlib.metadata").metadata.version("gguf"),
        "n_blocks": N_BLOCKS,
        "seed": SEED,
        "dequantize": {name: dequantized(name) for name in sorted(set(names))},
        "quantize": {name: quantized(name) for name in QUANTIZED},
    }
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
    bits = halves.view(np.uint32).copy()
    bits[np.isnan(halves)] = 0x7FC00000
    result["all_halves"] = f"{fnv1a(bits.tobytes()):016x}"
    # Every float whose low 13 bits are at or next to a rounding boundary would be too many: random
    # bit patterns, scaled into the range of halves by taking 5 of the 8 exponent bits.
    words = splitmix64(SEED, 1 << 16)
    patterns = (words >> np.uint64(32)).astype(np.uint32)
    patterns = (patterns & np.uint32(0x87FFFFFF)) | np.uint32(0x30000000)
    as_half = patterns.view(np.float32).astype(np.float16).view(np.uint16)
    result["floats_to_half"] = f"{fnv1a(as_half.tobytes()):016x}"
    json.dump(result, sys.stdout, indent=1)
    print()


main()
