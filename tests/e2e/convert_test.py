"""`convert` and `create` of a checkpoint written byte by byte: a tiny llama with known weights.
Needs no real model's files, numpy and gguf only."""

import json
import os
import pathlib
import random
import signal
import struct
import subprocess
import time

import gguf
import numpy as np
import pytest

PROGRAM = str(pathlib.Path(os.environ["DSCTL_PROGRAM"]).resolve())
DIM, FFN, LAYERS, VOCAB = 64, 128, 2, 288


def to_bf16(values):
    """f32 to bf16, to nearest even."""
    bits = values.astype("<f4").view("<u4")
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")


def write_safetensors(path, tensors):
    """`tensors`: name -> (type, array)."""
    header, data = {}, b""
    for name, (kind, array) in tensors.items():
        raw = array.tobytes()
        header[name] = {
            "dtype": kind,
            "shape": list(array.shape),
            "data_offsets": [len(data), len(data) + len(raw)],
        }
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def byte_symbols():
    """Byte-level BPE's symbol of each byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(b) if b in plain else chr(next(others)) for b in range(256)]


def write_tokenizer(folder):
    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+"
        r"[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    (folder / "tokenizer.json").write_text(
        json.dumps(
            {
                "model": {
                    "type": "BPE",
                    "ignore_merges": True,
                    "vocab": {s: i for i, s in enumerate([*byte_symbols(), "he", "ll"])},
                    "merges": ["h e", "l l"],
                },
                "added_tokens": [
                    {"id": 286, "content": "<|begin|>", "special": True},
                    {"id": 287, "content": "<|end|>", "special": True},
                ],
                "pre_tokenizer": {
                    "type": "Sequence",
                    "pretokenizers": [
                        {"type": "Split", "pattern": {"Regex": pattern}},
                        {"type": "ByteLevel", "use_regex": False},
                    ],
                },
                "decoder": {"type": "ByteLevel"},
            }
        )
    )
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"bos_token": "<|begin|>", "eos_token": "<|end|>", "add_bos_token": True})
    )


def write_checkpoint(folder, ffn=FFN):
    """Returns the weights as f32, by name."""
    folder.mkdir()
    (folder / "config.json").write_text(
        json.dumps(
            {
                "architectures": ["LlamaForCausalLM"],
                "hidden_size": DIM,
                "intermediate_size": ffn,
                "num_hidden_layers": LAYERS,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "vocab_size": VOCAB,
                "max_position_embeddings": 256,
                "rms_norm_eps": 1e-5,
                "bos_token_id": 286,
                "eos_token_id": 287,
                "tie_word_embeddings": True,
            }
        )
    )
    write_tokenizer(folder)
    shapes = {"model.embed_tokens.weight": (VOCAB, DIM), "model.norm.weight": (DIM,)}
    for i in range(LAYERS):
        layer = f"model.layers.{i}."
        shapes |= {
            layer + "input_layernorm.weight": (DIM,),
            layer + "post_attention_layernorm.weight": (DIM,),
            layer + "self_attn.q_proj.weight": (DIM, DIM),
            layer + "self_attn.k_proj.weight": (DIM // 2, DIM),
            layer + "self_attn.v_proj.weight": (DIM // 2, DIM),
            layer + "self_attn.o_proj.weight": (DIM, DIM),
            layer + "mlp.gate_proj.weight": (ffn, DIM),
            layer + "mlp.up_proj.weight": (ffn, DIM),
            layer + "mlp.down_proj.weight": (DIM, ffn),
        }
    generator = np.random.default_rng(7)
    halves = {
        name: to_bf16(generator.standard_normal(shape).astype("<f4") * 0.1 + (len(shape) == 1))
        for name, shape in shapes.items()
    }
    names = list(shapes)
    parts = [names[: len(names) // 2], names[len(names) // 2 :]]
    index = {}
    for i, part in enumerate(parts):
        file_name = f"model-{i + 1:05}-of-00002.safetensors"
        write_safetensors(folder / file_name, {name: ("BF16", halves[name]) for name in part})
        index |= dict.fromkeys(part, file_name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return {
        name: (half.astype("<u4") << 16).view("<f4").reshape(shapes[name])
        for name, half in halves.items()
    }


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub") / "tiny-llama-1M"
    return folder, write_checkpoint(folder)


@pytest.fixture
def environment(tmp_path):
    variables = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("DSCTL_", "OLLAMA_", "XDG_"))
    }
    variables.update(
        HOME=str(tmp_path), DSCTL_MODELS=str(tmp_path / "models"), DSCTL_HOST="127.0.0.1:9"
    )
    return variables


def run(environment, *arguments):
    return subprocess.run(
        [PROGRAM, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def read_tensor(reader, name):
    tensor = next(t for t in reader.tensors if t.name == name)
    return gguf.quants.dequantize(tensor.data, tensor.tensor_type)


def test_converts_what_python_reads(checkpoint, environment, tmp_path):
    folder, weights = checkpoint
    out = tmp_path / "out.gguf"
    result = run(environment, "convert", folder, out)
    assert result.returncode == 0, result.stderr
    reader = gguf.GGUFReader(out)
    assert reader.fields["general.architecture"].contents() == "llama"
    assert reader.fields["tokenizer.ggml.pre"].contents() == "llama-bpe"
    assert len(reader.tensors) == 2 + 9 * LAYERS
    for i in range(LAYERS):
        layer, block = f"model.layers.{i}.", f"blk.{i}."
        for source, target in {
            "mlp.gate_proj": "ffn_gate",
            "mlp.down_proj": "ffn_down",
            "self_attn.v_proj": "attn_v",
            "input_layernorm": "attn_norm",
        }.items():
            np.testing.assert_array_equal(
                read_tensor(reader, f"{block}{target}.weight"), weights[f"{layer}{source}.weight"]
            )
        q = weights[layer + "self_attn.q_proj.weight"].reshape(4, 2, 8, DIM)
        np.testing.assert_array_equal(
            read_tensor(reader, block + "attn_q.weight"), q.swapaxes(1, 2).reshape(DIM, DIM)
        )


def test_dry_run_lists_and_writes_nothing(checkpoint, environment, tmp_path):
    folder, _ = checkpoint
    result = run(environment, "convert", folder, "--dry-run", "--json", "--quantize", "Q8_0")
    assert result.returncode == 0, result.stderr
    plan = json.loads(result.stdout)
    assert {t["type"] for t in plan["tensors"]} == {"F32", "Q8_0"}
    assert plan["size"] == sum(t["size"] for t in plan["tensors"])
    assert list(tmp_path.iterdir()) == []


def test_create_from_a_directory_runs(checkpoint, environment, tmp_path):
    folder, _ = checkpoint
    (tmp_path / "Modelfile").write_text(
        f"FROM {folder}\nTEMPLATE {{{{ .Prompt }}}}\n"
        "PARAMETER temperature 0\nPARAMETER num_predict 16\n"
    )
    result = run(environment, "create", "tiny", "-f", tmp_path / "Modelfile", "-q", "Q8_0")
    assert result.returncode == 0, result.stderr
    listed = json.loads(run(environment, "list", "--json").stdout)
    entry = (listed["models"] if isinstance(listed, dict) else listed)[0]
    assert "tiny" in json.dumps(entry) and "Q8_0" in json.dumps(entry)
    staging = list((tmp_path / "models" / "blobs").glob(".dsctl-staging-*"))
    assert staging == []
    answers = [run(environment, "run", "tiny", "hello there") for _ in range(2)]
    assert [answer.returncode for answer in answers] == [0, 0], answers[0].stderr
    assert answers[0].stdout == answers[1].stdout != ""


def test_errors_are_one_line(checkpoint, environment, tmp_path):
    folder, _ = checkpoint
    result = run(environment, "convert", tmp_path, tmp_path / "out.gguf")
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1 and "config.json" in result.stderr
    assert run(environment, "convert", folder, tmp_path / "no" / "such" / "x.gguf").returncode == 1
    bad_flag = run(environment, "convert", folder, tmp_path / "x.gguf", "--outtype", "q9")
    assert bad_flag.returncode == 2


def test_a_file_is_replaced_only_when_told_to(checkpoint, environment, tmp_path):
    folder, _ = checkpoint
    out = tmp_path / "out.gguf"
    out.write_bytes(b"precious")
    result = run(environment, "convert", folder, out)
    assert result.returncode == 1 and out.read_bytes() == b"precious"
    assert result.stderr == f"error: {out}: exists already; --force replaces it\n"
    assert run(environment, "convert", folder, out, "--force").returncode == 0
    assert out.read_bytes()[:4] == b"GGUF"
    source = next(folder.glob("*.safetensors"))
    before = source.read_bytes()
    result = run(environment, "convert", folder, source, "--force")
    assert "is one of the files to be read" in result.stderr and source.read_bytes() == before


KILLS = int(os.environ.get("DSCTL_KILLS", "12"))


def test_killed_at_any_moment_the_file_is_whole_or_not_there(environment, tmp_path):
    """The old file, or the new one, whole: whichever moment the kill meets."""
    folder = tmp_path / "m"
    write_checkpoint(folder, ffn=60_000)
    whole = tmp_path / "whole.gguf"
    begin = time.monotonic()
    assert run(environment, "convert", folder, whole).returncode == 0
    duration = time.monotonic() - begin
    expected = whole.read_bytes()
    out = tmp_path / "out.gguf"
    moments = random.Random(7)
    for i in range(KILLS):
        old = b"the old file" if i % 2 else None
        if old:
            out.write_bytes(old)
        else:
            out.unlink(missing_ok=True)
        process = subprocess.Popen(
            [PROGRAM, "convert", str(folder), str(out), "--force"],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(moments.uniform(0, 1.1 * duration))
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert (out.read_bytes() if out.exists() else None) in (old, expected)
    assert run(environment, "convert", folder, out, "--force").returncode == 0
    assert out.read_bytes() == expected
    # What the killed ones left half done is gone.
    assert sorted(path.name for path in tmp_path.glob("*.gguf*")) == ["out.gguf", "whole.gguf"]
