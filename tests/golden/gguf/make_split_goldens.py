"""Records what llama-gguf-split makes of two small models:

    python3 make_split_goldens.py LLAMA_GGUF_SPLIT

`split/` gets a tiny model, its shards and their merger, all as they are; split_sizes.json gets the
number of tensors in each shard of a larger model (of zeros, which tests make again) by size.
LLAMA_GGUF_SPLIT may be a command of several words; its working directory is the one it writes to.
"""

import json
import pathlib
import shlex
import shutil
import subprocess
import sys
import tempfile

import gguf
import numpy as np

HERE = pathlib.Path(__file__).parent
COMMAND = shlex.split(sys.argv[1])
# Where the command sees the directory that this script sees as WORK (for a chroot).
WORK = pathlib.Path(tempfile.mkdtemp(dir=sys.argv[2] if len(sys.argv) > 2 else None))
SEEN = pathlib.Path(sys.argv[3]) / WORK.name if len(sys.argv) > 3 else WORK

SIZES = [1_000_000, 31, 2_999_969, 2_000_000, 999_999, 4_500_000, 1, 2_999_999, 1_500_000,
         1_500_000, 1_500_000, 32, 999_968, 2_000_032, 700_000, 64]


def llama(*arguments):
    subprocess.run([*COMMAND, *arguments], check=True, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)


def make_tiny(path):
    rng = np.random.default_rng(7)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_block_count(2)
    writer.add_rope_freq_base(10000.5)
    writer.add_bool("tokenizer.ggml.add_bos_token", True)
    writer.add_token_list(["a", "é", "<|x|>"])
    writer.add_token_scores([0.5, -1.25, 3.0])
    writer.add_token_types([1, 1, 3])
    writer.add_array("some.flags", [True, False])
    writer.add_uint64("some.number", 2**63 + 5)
    for name, shape, dtype in [("token_embd.weight", (3, 32), np.float32),
                               ("blk.0.attn_norm.weight", (5,), np.float32),
                               ("blk.0.attn_q.weight", (7, 3), np.float16),
                               ("blk.1.attn_norm.weight", (1,), np.float32),
                               ("output.weight", (33,), np.int8)]:
        writer.add_tensor(name, (rng.standard_normal(shape) * 20).astype(dtype))
    blocks = rng.integers(0, 255, (2, 34), dtype=np.uint8)
    writer.add_tensor("blk.1.attn_q.weight", blocks, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def make_zeros(path):
    writer = gguf.GGUFWriter(path, "llama")
    for i, size in enumerate(SIZES):
        writer.add_tensor(f"t{i}", np.zeros(size, np.int8))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    out = HERE / "split"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    make_tiny(WORK / "tiny.gguf")
    llama("--split", "--split-max-tensors", "2", str(SEEN / "tiny.gguf"), str(SEEN / "two"))
    llama("--split", "--split-max-tensors", "4", "--no-tensor-first-split",
          str(SEEN / "tiny.gguf"), str(SEEN / "bare"))
    llama("--merge", str(SEEN / "two-00001-of-00003.gguf"), str(SEEN / "merged.gguf"))
    llama("--split", "--split-max-tensors", "5", str(SEEN / "merged.gguf"), str(SEEN / "again"))
    for path in sorted(WORK.glob("*.gguf")):
        shutil.copy(path, out / path.name)

    make_zeros(WORK / "zeros.gguf")
    cases = []
    for limit in ["3M", "4M", "5M", "7M", "30M"]:
        for bare in [False, True]:
            prefix = f"s{limit}{bare}"
            flags = ["--no-tensor-first-split"] if bare else []
            llama("--split", "--split-max-size", limit, *flags, str(SEEN / "zeros.gguf"),
                  str(SEEN / prefix))
            shards = sorted(WORK.glob(f"{prefix}-*.gguf"))
            cases.append({
                "max_size": int(limit[:-1]) * 1_000_000,
                "first_has_no_tensors": bare,
                "n_tensors": [len(gguf.GGUFReader(shard).tensors) for shard in shards],
            })
    (HERE / "split_sizes.json").write_text(
        json.dumps({"sizes": SIZES, "cases": cases}, indent=1) + "\n")
    shutil.rmtree(WORK)


main()
