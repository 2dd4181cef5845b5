#!/usr/bin/env python3
"""Compares our logits with llama.cpp's on the same GGUF file and the same tokens.

First let llama.cpp write its log-probabilities (it records the second half of each window):

    llama-perplexity -m MODEL -f TEXT -c 512 --chunks 8 --save-all-logits BASE

then

    compare_llamacpp.py MODEL BASE --tool build/release/logits_tool [--kernels fast|reference] [--tp N]
    compare_llamacpp.py MODEL BASE --transformers      (float32 model of the dequantised weights)
    compare_llamacpp.py MODEL BASE --against BASE2     (llama.cpp with llama.cpp, e.g. of a file with
                                                        the same weights as F32)

prints the mean KL divergence KL(llama.cpp || ours) over all recorded rows, its median and 99th
percentile, and how often the best token is the same. Exits with 1 when the mean is above --bound.

The file keeps log-probabilities down to 16 below the best one; what is less likely has the same
smallest value there, and a vocabulary of such values would count for up to 1e-2. So both
distributions are taken over the tokens above it, as llama.cpp does in its own comparison.
"""
import argparse
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np


def read_base(path):
    """n_ctx, vocab_size, tokens (n_chunks, n_ctx), and a generator of the rows: which tokens are
    recorded, and their log-probabilities."""
    file = open(path, "rb")
    assert file.read(8) == b"_logits_", f"{path}: not a file of llama-perplexity --save-all-logits"
    n_ctx, vocab_size, n_chunks = struct.unpack("<Iii", file.read(12))
    tokens = np.frombuffer(file.read(4 * n_ctx * n_chunks), dtype="<i4").reshape(n_chunks, n_ctx)
    # A row: f32 scale, f32 smallest log-probability, u16 values (padded to an even number).
    row_values = 2 * ((vocab_size + 1) // 2) + 4
    n_rows = n_chunks * (n_ctx - 1 - n_ctx // 2)

    def rows():
        for _ in range(n_rows):
            raw = np.frombuffer(file.read(2 * row_values), dtype="<u2")
            scale, smallest = raw[:4].view("<f4")
            values = raw[4:4 + vocab_size]
            recorded = np.flatnonzero(values)
            yield recorded, values[recorded].astype(np.float64) * scale + smallest

    return n_ctx, vocab_size, tokens.copy(), rows()


def full_rows(vocab_size, rows):
    """The recorded rows as whole rows; what was not recorded is below all others."""
    for recorded, values in rows:
        row = np.full(vocab_size, values.min() - 1.0)
        row[recorded] = values
        yield row


def log_softmax(logits):
    logits = logits.astype(np.float64)
    logits -= logits.max()
    return logits - np.log(np.exp(logits).sum())


def tool_logits(arguments, tokens, n_ctx, vocab_size, folder):
    """(n_chunks, n_ctx - n_ctx // 2, vocab_size) from our engine."""
    if arguments.logits:
        folder = Path(arguments.logits)
        folder.mkdir(exist_ok=True)
    if (folder / "logits").exists():
        return np.memmap(folder / "logits", dtype="<f4", mode="r").reshape(
            len(tokens), n_ctx - n_ctx // 2, vocab_size)
    (folder / "tokens").write_bytes(tokens.astype("<i4").tobytes())
    command = [arguments.tool, arguments.model, folder / "tokens", folder / "logits", "--window", str(n_ctx),
               "--skip", str(n_ctx // 2), "--kernels", arguments.kernels, "--tp", str(arguments.tp)]
    subprocess.run([str(part) for part in command], check=True)
    logits = np.memmap(folder / "logits", dtype="<f4", mode="r")
    return logits.reshape(len(tokens), n_ctx - n_ctx // 2, vocab_size)


def transformers_logits(arguments, tokens, n_ctx, vocab_size, folder):
    import torch
    import transformers
    model_path = Path(arguments.model)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        str(model_path.parent), gguf_file=model_path.name, dtype=torch.float32).eval()
    out = np.memmap(folder / "logits", dtype="<f4", mode="w+",
                    shape=(len(tokens), n_ctx - n_ctx // 2, vocab_size))
    with torch.no_grad():
        for i, window in enumerate(tokens):
            out[i] = model(torch.tensor(window[None].astype(np.int64))).logits[0, n_ctx // 2:].numpy()
    return out


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("base")
    parser.add_argument("--tool", default="build/release/logits_tool")
    parser.add_argument("--kernels", default="fast", choices=["fast", "reference"])
    parser.add_argument("--tp", type=int, default=1)
    parser.add_argument("--transformers", action="store_true")
    parser.add_argument("--against")
    parser.add_argument("--logits", help="folder that keeps our logits from one run to the next")
    parser.add_argument("--bos", type=int, help="token that llama.cpp put at the start of each window")
    parser.add_argument("--bound", type=float, default=1e-3)
    arguments = parser.parse_args()
    n_ctx, vocab_size, tokens, base_rows = read_base(arguments.base)
    if arguments.bos is not None:
        tokens[:, 0] = arguments.bos
    with tempfile.TemporaryDirectory() as folder:
        if arguments.against:
            our_rows = full_rows(*read_base(arguments.against)[1::2])
        else:
            compute = transformers_logits if arguments.transformers else tool_logits
            logits = compute(arguments, tokens, n_ctx, vocab_size, Path(folder))
            # A window's last row predicts a token that the file does not have.
            our_rows = (row for window in logits for row in window[:n_ctx - 1 - n_ctx // 2])
        divergences, n_same_best = [], 0
        for (recorded, theirs), row in zip(base_rows, our_rows):
            theirs = log_softmax(theirs)
            ours = log_softmax(row[recorded])
            divergences.append(float((np.exp(theirs) * (theirs - ours)).sum()))
            n_same_best += int(row.argmax() == recorded[theirs.argmax()])
    name = f"{arguments.kernels} kernels, tp {arguments.tp}"
    if arguments.against or arguments.transformers:
        name = arguments.against or "transformers"
    mean = np.mean(divergences)
    print(f"{Path(arguments.model).name}, {name}: {len(divergences)} rows, mean KL {mean:.3e}, "
          f"median {np.median(divergences):.3e}, 99 % {np.quantile(divergences, 0.99):.3e}, "
          f"best token the same {100 * n_same_best / len(divergences):.2f} %")
    sys.exit(0 if mean <= arguments.bound else 1)


if __name__ == "__main__":
    main()
