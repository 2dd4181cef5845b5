#!/usr/bin/env python3
"""Writes encode_goldens.json: what llama-quantize makes of one tensor, with and without a matrix.

usage: make_encode_goldens.py DIR COMMAND... > encode_goldens.json      (needs gguf and numpy)

COMMAND... runs llama-quantize, and sees DIR under the same name or under the one given by
ENCODE_DIR (for a chroot: ENCODE_DIR=/tmp, DIR=<chroot>/tmp). Inputs are not stored: both sides make
them with splitmix64 (see test_rows here and in tests/gguf/encode_test.cpp). Of the outputs the file
keeps an FNV-1a hash and, for a human, the first bytes.
"""
import json
import os
import pathlib
import subprocess
import sys

import gguf
import numpy as np

N_COLS = 768
N_ROWS = 16
SEED = 20240602
TYPES = ["F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "MXFP4", "Q2_K", "Q3_K", "Q4_K",
         "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS"]


def fnv1a(data: bytes) -> int:
    value = 0xCBF29CE484222325
    for byte in data:
        value = ((value ^ byte) * 0x100000001B3) & ((1 << 64) - 1)
    return value


def random_floats(seed: int, count: int) -> np.ndarray:
    """Multiples of 2^-20 in [-2, 2), so exact in f32."""
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return ((z >> np.uint64(42)).astype(np.int64) - (1 << 21)).astype(np.float32) / np.float32(1 << 20)


def test_rows() -> np.ndarray:
    """Rows of different kinds: every operation is exact or rounded once, in f32."""
    x = random_floats(SEED, N_ROWS * N_COLS).reshape(N_ROWS, N_COLS).copy()
    f = np.float32
    for row in range(N_ROWS):
        kind = row % 8
        if kind == 1:
            x[row] = x[row] * x[row] * x[row]  # heavy tails
        elif kind == 2:
            x[row] = x[row] + f(2.5)  # all positive
        elif kind == 3:
            x[row, : N_COLS // 2] = 0
        elif kind == 4:
            x[row, ::97] = x[row, ::97] * f(16)  # outliers
        elif kind == 5:
            x[row] = x[row] * f(2.0**-17)
        elif kind == 6:
            x[row] = x[row] - f(2.5)  # all negative
        elif kind == 7:
            x[row, 32:64] = f(-0.75)  # constant
            x[row, 256:512] = f(0.125)
    return x


def importance() -> np.ndarray:
    values = random_floats(SEED + 1, N_COLS)
    values = values * values
    values[5::50] = 0
    return values


def write_model(path: pathlib.Path, rows: np.ndarray) -> None:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(N_COLS)
    writer.add_block_count(1)
    writer.add_feed_forward_length(N_COLS)
    writer.add_head_count(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_file_type(0)
    writer.add_tokenizer_model("none")
    writer.add_vocab_size(32)
    writer.add_tensor("blk.0.ffn_down.weight", rows)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_matrix(path: pathlib.Path, values: np.ndarray) -> None:
    writer = gguf.GGUFWriter(path, "")
    writer.add_type("imatrix")
    writer.add_array("imatrix.datasets", ["random"])
    writer.add_uint32("imatrix.chunk_count", 1)
    writer.add_uint32("imatrix.chunk_size", 512)
    writer.add_tensor("blk.0.ffn_down.weight.in_sum2", values.reshape(1, -1))
    writer.add_tensor("blk.0.ffn_down.weight.counts", np.ones((1, 1), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    directory = pathlib.Path(sys.argv[1])
    seen = os.environ.get("ENCODE_DIR", str(directory))
    command = sys.argv[2:]
    write_model(directory / "rows.gguf", test_rows())
    write_matrix(directory / "matrix.gguf", importance())
    result: dict = {"seed": SEED, "n_rows": N_ROWS, "n_cols": N_COLS, "plain": {}, "matrix": {}}
    for kind in TYPES:
        for form in ["plain", "matrix"]:
            ftype = {"MXFP4": "Q4_0", "Q2_K": "Q2_K", "Q3_K": "Q3_K_S", "Q4_K": "Q4_K_S",
                     "Q5_K": "Q5_K_S"}.get(kind, kind)
            options = ["--pure"]
            if kind == "MXFP4":
                options = ["--tensor-type", "ffn_down=mxfp4"]
            if form == "matrix":
                options += ["--imatrix", f"{seen}/matrix.gguf"]
            run = subprocess.run([*command, *options, f"{seen}/rows.gguf", f"{seen}/out.gguf", ftype],
                                 capture_output=True, text=True)
            if run.returncode != 0:
                sys.exit(f"{kind} {form}: {run.stdout[-2000:]}{run.stderr[-2000:]}")
            tensor = gguf.GGUFReader(directory / "out.gguf").tensors[0]
            assert tensor.tensor_type.name == kind, (tensor.tensor_type, kind)
            data = np.ascontiguousarray(tensor.data).view(np.uint8).tobytes()
            result[form][kind] = {"hash": f"{fnv1a(data):016x}", "first": data[:24].hex()}
    json.dump(result, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
