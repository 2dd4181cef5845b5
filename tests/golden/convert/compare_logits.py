#!/usr/bin/env python3
"""Converts a checkpoint with our program, to F32, and compares the logits of our engine with those of
transformers, in float32, on the same random tokens; of FP8 blocks, with the weights that they stand for:

    compare_logits.py DIR --program build/dev/dsctl --tool build/dev/logits_tool [--tokens 48]

Prints the normalised mean square error and the largest difference. Exits with 1 above --bound."""
import argparse
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file


def dequantized(source, folder):
    """The checkpoint with each FP8 block multiplied by its scale: transformers' own FP8 is for GPUs."""
    config = json.loads((source / "config.json").read_text())
    quantization = config.pop("quantization_config", None)
    if quantization is None:
        return source
    assert quantization["quant_method"] == "fp8", quantization
    rows, cols = quantization["weight_block_size"]
    tensors = {}
    for path in source.glob("*.safetensors"):
        tensors |= load_file(path)
    scales = {name: tensors.pop(name) for name in list(tensors) if name.endswith("_scale_inv")}
    for name, scale in scales.items():
        name = name.removesuffix("_scale_inv")
        weight = tensors[name].float()
        blocks = scale.float().repeat_interleave(rows, 0).repeat_interleave(cols, 1)
        tensors[name] = weight * blocks[:weight.shape[0], :weight.shape[1]]
    layers = config["num_hidden_layers"]
    tensors = {name: tensor.float() for name, tensor in tensors.items()
               if not name.startswith(f"model.layers.{layers}.")}  # multi-token prediction
    folder.mkdir()
    for path in source.glob("*.json"):
        if not path.name.endswith(".index.json"):
            shutil.copy(path, folder)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dir", type=pathlib.Path)
    parser.add_argument("--program", default="build/dev/dsctl")
    parser.add_argument("--tool", default="build/dev/logits_tool")
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--bound", type=float, default=1e-9)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model, loading = transformers.AutoModelForCausalLM.from_pretrained(
            dequantized(arguments.dir, pathlib.Path(folder) / "f32"), dtype=torch.float32,
            attn_implementation="eager", output_loading_info=True)
    assert not any(loading.values()), loading
    vocab_size = model.config.vocab_size
    tokens = np.random.default_rng(3).integers(0, vocab_size, arguments.tokens).astype("<i4")
    with torch.no_grad():
        expected = model(torch.from_numpy(tokens.astype(np.int64))[None]).logits[0].numpy()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        subprocess.run([arguments.program, "convert", arguments.dir, folder / "m.gguf",
                        "--outtype", "f32"], check=True, stdout=subprocess.DEVNULL)
        (folder / "tokens").write_bytes(tokens.tobytes())
        subprocess.run([arguments.tool, folder / "m.gguf", folder / "tokens", folder / "logits",
                        "--kernels", "reference"], check=True, stdout=subprocess.DEVNULL)
        raw = (folder / "logits").read_bytes()
    ours = np.frombuffer(raw[-4 * expected.size:], "<f4").reshape(expected.shape)
    nmse = float(((ours - expected) ** 2).sum() / (expected ** 2).sum())
    same = int((ours.argmax(1) == expected.argmax(1)).sum())
    print(f"{arguments.dir.name}: nmse {nmse:.2e}, largest difference "
          f"{np.abs(ours - expected).max():.2e} of {np.abs(expected).max():.2f}, best token the same "
          f"in {same} of {len(tokens)}")
    sys.exit(0 if nmse <= arguments.bound else 1)


if __name__ == "__main__":
    main()
