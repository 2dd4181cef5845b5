#!/usr/bin/env python3
"""Compares our tokenizers with Hugging Face's `tokenizers` (Rust), and measures both.

    compare_hf.py compare --bench build/release/tokenizer_bench --data shared/data/tokenizers
        10,000 random texts, every vocabulary, special tokens parsed and as text; and decoding.
    compare_hf.py golden --data shared/data/tokenizers
        Writes hf_texts.json and hf_ids_NAME.txt beside this script (what the tests read).
    compare_hf.py unicode
        The general category of every code point, by HF's regex engine and by unicodedata2 16.0.
    compare_hf.py speed --bench build/release/tokenizer_bench --data shared/data/tokenizers
        1 MB of English, Chinese and code, one thread each, interleaved.

Needs the packages tokenizers and gguf, and tar with xz. --gguf NAME=FILE takes the vocabulary of a
real model file instead of one made from tokenizer.json; smollm2 has only that (its HF twin is built
from the file's own tokens and merges).
"""
import argparse
import json
import os
import pathlib
import random
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import unicodedata

os.environ["RAYON_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import gguf  # noqa: E402
import tokenizers  # noqa: E402
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
PRE = {"qwen3": "qwen2", "deepseek_v3": "deepseek-v3", "llama3_1": "llama-bpe", "gemma3": None}
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
SPACE_MARK = "\u2581"
FOUND_BY_TEXT = {"<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|fim_pad|>", "<|repo_name|>",
                 "<|file_sep|>", "<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"}


# --- vocabularies -------------------------------------------------------------------------------

def write_gguf(json_path, pre, out_path):
    """Writes the vocabulary of a tokenizer.json with a BPE model as a converter would."""
    data = json.loads(json_path.read_text())
    vocab = data["model"]["vocab"]
    added = data["added_tokens"]
    size = max(max(vocab.values()), max(token["id"] for token in added)) + 1
    tokens = [f"[UNUSED_{i}]" for i in range(size)]
    types = [UNUSED] * size
    is_spm = bool(data["model"].get("byte_fallback"))
    for text, i in vocab.items():
        tokens[i] = text
        types[i] = BYTE if is_spm and len(text) == 6 and text.startswith("<0x") else NORMAL
    for token in added:
        # A user-defined token is matched in the text as it came, where a space is a space.
        text = token["content"].replace(SPACE_MARK, " ") if is_spm else token["content"]
        tokens[token["id"]] = text
        types[token["id"]] = CONTROL if token["special"] else USER_DEFINED
    merges = [m if isinstance(m, str) else " ".join(m) for m in data["model"]["merges"]]
    writer = gguf.GGUFWriter(str(out_path), "llama")
    writer.add_tokenizer_model("llama" if is_spm else "gpt2")
    if pre:
        writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    if is_spm:
        scores = [-1e6] * size
        for rank, merge in enumerate(data["model"]["merges"]):
            i = vocab["".join(merge)]
            if scores[i] == -1e6:
                scores[i] = -float(rank)
        writer.add_token_scores(scores)
        writer.add_add_space_prefix(False)
    else:
        writer.add_token_merges(merges)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def hf_of_gguf(path):
    """The HF tokenizer of a GGUF file with the pre-tokenizer `smollm`: digits, then GPT-2's."""
    fields = gguf.GGUFReader(str(path)).fields
    assert fields["tokenizer.ggml.pre"].contents() == "smollm"
    tokens = fields["tokenizer.ggml.tokens"].contents()
    merges = [tuple(m.split(" ")) for m in fields["tokenizer.ggml.merges"].contents()]
    hf = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, merges))
    hf.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True),
         pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
    hf.decoder = decoders.ByteLevel()
    types = fields["tokenizer.ggml.token_type"].contents()
    hf.add_special_tokens([t for t, kind in zip(tokens, types) if kind == CONTROL])
    return hf


def vocabularies(args, directory):
    """Yields (name, HF tokenizer, GGUF path)."""
    real = dict(pair.split("=", 1) for pair in args.gguf)
    for name, pre in PRE.items():
        folder = directory / name
        folder.mkdir()
        subprocess.run(["tar", "-xJf", args.data / f"{name}.tar.xz", "-C", folder], check=True)
        path = folder / "vocabulary.gguf"
        write_gguf(folder / "tokenizer.json", pre, path)
        hf = Tokenizer.from_file(str(folder / "tokenizer.json"))
        yield name, hf, path
        if name in real:
            yield f"{name} (model file)", hf, real[name]
    if "smollm2" in real:
        yield "smollm2 (model file)", hf_of_gguf(real["smollm2"]), real["smollm2"]


class Ours:
    """tokenizer_bench --batch."""

    def __init__(self, bench, path):
        self.process = subprocess.Popen([bench, "--batch", path], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE)

    def ask(self, what, data, parse=True):
        self.process.stdin.write(f"{what} {int(parse)} {len(data)}\n".encode() + data)
        self.process.stdin.flush()
        return self.process.stdout.readline().decode()

    def encode(self, text, parse):
        return [int(word) for word in self.ask("ids", text.encode(), parse).split()]

    def decode(self, ids, parse):
        size = int(self.ask("decode", " ".join(map(str, ids)).encode(), parse))
        return self.process.stdout.read(size).decode()

    def nanoseconds(self, text):
        return int(self.ask("time", text.encode()))

    def close(self):
        self.process.stdin.close()
        self.process.wait()


# --- texts --------------------------------------------------------------------------------------

BLOCKS = [(0x20, 0x7E), (0x20, 0x7E), (0x61, 0x7A), (0x41, 0x5A), (0x30, 0x39), (0x00, 0x1F),
          (0x7F, 0xFF), (0x100, 0x24F), (0x2B0, 0x36F), (0x370, 0x3FF), (0x400, 0x4FF),
          (0x590, 0x5FF), (0x600, 0x6FF), (0x900, 0x97F), (0xE00, 0xE7F), (0x10A0, 0x10FF),
          (0x1100, 0x11FF), (0x1E00, 0x1FFF), (0x2000, 0x206F), (0x2070, 0x20CF), (0x2150, 0x218F),
          (0x2190, 0x23FF), (0x2460, 0x24FF), (0x3000, 0x303F), (0x3040, 0x30FF), (0x3400, 0x4DBF),
          (0x4E00, 0x9FFF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xE000, 0xE010), (0xFE00, 0xFE0F),
          (0xFF00, 0xFFEF), (0x10400, 0x104FF), (0x1D400, 0x1D7FF), (0x1F300, 0x1FAFF),
          (0x20000, 0x2A6DF)]
PARTS = [" ", "  ", "\n", "\r\n", "\n\n", "\t", "\t\t", "    ", " \n ", "'s", "'LL", "'re", "'Ve",
         "'\u017f", "'", "I'm", "don't", "The", " quick", " brown", "HTTP", "camelCase", "x1", "123",
         "12345", " 7", "1,000", "3.14", "\u0663\u0664", "½", "Ⅳ", "()", "{}", "//", "/*", "->",
         "::", "==", "!=", "<|", "|>", "...", "!!", "#include <vector>", "return ", "def f(self):",
         "</p>", "https://", "\\n", "$x", "@a", "_", "你好", "世界", "，", "。", "こんにちは", "한국어",
         "Привет", "مرحبا", "नमस्ते", "สวัสดี", "é", "e\u0301", "\u200d", "👩\u200d💻", "🇩🇪", "\u00a0",
         "\u3000", "\u2028", "\u0085", "\u180e", "\ufffd", "ǅ", "ʰ", "\ufeff", "™", "€", "^~`+"]
SPECIALS = ["<|im_end|>", "<|endoftext|>", "<|begin_of_text|>", "<|eot_id|>", "<bos>", "<think>",
            "</think>", "<start_of_turn>", "<unused7>", "<table>", "<0x0A>", "<s>", "<tool_call>",
            "<｜User｜>", "<｜end▁of▁sentence｜>", "<｜tool▁call▁begin｜>", "<|fim_prefix|>", "[INST]"]


def random_text(rng):
    out = b""
    for _ in range(rng.randint(1, rng.choice([3, 12, 40]))):
        kind = rng.randrange(10)
        block = rng.choice(BLOCKS)
        if kind < 2:
            part = chr(rng.randint(*block))
        elif kind == 2:
            part = chr(rng.randint(*block)) * rng.randint(1, rng.choice([6, 70]))
        elif kind == 3:
            part = "".join(chr(rng.randint(*block)) for _ in range(rng.randint(1, 8)))
        elif kind == 4:
            part = "".join(chr(rng.randint(97, 122)) for _ in range(rng.randint(1, 9)))
        elif kind == 5 and rng.randrange(4) == 0:
            part = rng.choice(SPECIALS)
        else:
            part = rng.choice(PARTS)
        out += part.encode()
        if rng.randrange(20) == 0:
            out += bytes([rng.randrange(256)])
        if rng.randrange(25) == 0:
            out = out[:-1]
    # HF takes str: broken UTF-8 becomes U+FFFD on both sides.
    return out.decode("utf-8", errors="replace")


def plain_in_hf(path, hf):
    """Tokens that a GGUF tokenizer takes for control tokens, and HF does not call special."""
    fields = gguf.GGUFReader(str(path)).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    types = fields["tokenizer.ggml.token_type"].contents()
    control = {text for text, kind in zip(tokens, types) if kind == CONTROL} | FOUND_BY_TEXT
    return [token.content for token in hf.get_added_tokens_decoder().values()
            if not token.special and token.content in control]


def missing_bytes(hf):
    """Characters of one byte that a byte-level vocabulary (SmolLM2's) has no token for."""
    if hf.model.byte_fallback or not isinstance(hf.decoder, decoders.ByteLevel):
        return []
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return [chr(byte) for byte in range(128)
            if hf.token_to_id(byte_level.pre_tokenize_str(chr(byte))[0][0]) is None]


def strip_differences(name, text, plain):
    """Takes out of `text` what the two are known to treat differently, and says which class it was.

    nfc: Qwen's HF tokenizer normalises to NFC, GGUF has no normaliser (nor has llama.cpp).
    mark: HF's Gemma matches added tokens such as "▁▁" against the raw text, so that literal U+2581
        is a token of its own; in GGUF (and SentencePiece) U+2581 and the space are one character.
    plain: as text (special tokens not parsed), HF still splits the added tokens that it does not
        call special. Some of them are control tokens in GGUF: by type (Gemma's <unusedN>) or because
        they are found by their text (fill-in-the-middle tokens); those stay plain text.
        (Given in the same list: characters whose byte has no token. HF drops them before it merges,
        so that their neighbours can merge; here, as in llama.cpp, they only give no token.)
    """
    classes = []
    if name.startswith("qwen") and unicodedata.normalize("NFC", text) != text:
        text = unicodedata.normalize("NFC", text)
        classes.append("nfc")
    if name.startswith("gemma") and SPACE_MARK in text:
        text = text.replace(SPACE_MARK, "")
        classes.append("mark")
    for token in plain:
        if token in text:
            text = text.replace(token, "")
            classes.append("plain" if len(token) > 1 else "missing")
    return text, classes


# --- what the script does -----------------------------------------------------------------------

def compare(args):
    n_bad = 0
    with tempfile.TemporaryDirectory() as temp:
        for name, hf, path in vocabularies(args, pathlib.Path(temp)):
            ours = Ours(args.bench, path)
            rng = random.Random(args.seed)
            counts = {"texts": 0, "tokens": 0, "nfc": 0, "mark": 0, "plain": 0, "missing": 0,
                      "different": 0, "decode": 0}
            plain, missing = plain_in_hf(path, hf), missing_bytes(hf)
            for _ in range(args.n):
                original = random_text(rng)
                counts["texts"] += 1
                for parse in (True, False):
                    text, classes = strip_differences(name, original, missing if parse else missing + plain)
                    for name_of_class in classes:
                        counts[name_of_class] += 1
                    hf.encode_special_tokens = not parse
                    expected = hf.encode(text, add_special_tokens=False).ids
                    actual = ours.encode(text, parse)
                    counts["tokens"] += len(expected)
                    if expected == actual:
                        continue
                    counts["different"] += 1
                    if counts["different"] <= args.show:
                        at = next((i for i, pair in enumerate(zip(expected, actual))
                                   if pair[0] != pair[1]), min(len(expected), len(actual)))
                        print(f"  {name} parse={parse}: {text[:200]!r}, from token {at}:\n"
                              f"    HF   {[hf.id_to_token(i) for i in expected[at:at + 8]]}\n"
                              f"    ours {[hf.id_to_token(i) for i in actual[at:at + 8]]}")
                text, _ = strip_differences(name, original, missing)
                ids = ours.encode(text, True)
                if ours.decode(ids, True) != hf.decode(ids, skip_special_tokens=False):
                    counts["decode"] += 1
                    if counts["decode"] <= args.show:
                        print(f"  {name} decodes {ids[:50]}: HF "
                              f"{hf.decode(ids, skip_special_tokens=False)[:200]!r} ours "
                              f"{ours.decode(ids, True)[:200]!r}")
            ours.close()
            n_bad += counts["different"] + counts["decode"]
            print(f"{name}: {counts}", flush=True)
    return 1 if n_bad else 0


def digest(ids):
    """FNV-1a, 64 bits, over the ids as little-endian 32-bit numbers."""
    value = 0xCBF29CE484222325
    for byte in struct.pack(f"<{len(ids)}i", *ids):
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return f"{value:016x}"


def golden(args):
    rng = random.Random(20261)
    texts = []
    while len(texts) < 1000:
        text = random_text(rng)
        if text == unicodedata.normalize("NFC", text) and SPACE_MARK not in text and len(text) < 120:
            texts.append(text)
    (HERE / "hf_texts.json").write_text(json.dumps(texts, indent=0) + "\n")
    with tempfile.TemporaryDirectory() as temp:
        args.gguf = []
        for name, hf, _ in vocabularies(args, pathlib.Path(temp)):
            lines = [digest(hf.encode(text, add_special_tokens=False).ids) for text in texts]
            (HERE / f"hf_ids_{name}.txt").write_text("\n".join(lines) + "\n")
    return 0


def unicode_classes(_):
    import unicodedata2
    points = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    text = "".join(map(chr, points))
    n_different = 0
    for name in ("L", "M", "N", "P", "S", "Z", "Lu", "Ll", "Lt", "Lm", "Lo"):
        splitter = pre_tokenizers.Split(Regex(rf"\p{{{name}}}"), "removed")
        other = bytearray(len(points))
        for _, (begin, end) in splitter.pre_tokenize_str(text):
            other[begin:end] = b"\1" * (end - begin)
        for point, is_other in zip(points, other):
            if unicodedata2.category(chr(point)).startswith(name) == bool(is_other):
                n_different += 1
    print(f"tokenizers {tokenizers.__version__}, Unicode {unicodedata2.unidata_version}: "
          f"{n_different} differences")
    return 1 if n_different else 0


def mo_texts(path):
    """The translations in a gettext .mo file."""
    data = path.read_bytes()
    order = "<" if data[:4] == b"\xde\x12\x04\x95" else ">"
    n, _, table = struct.unpack_from(order + "3I", data, 8)
    for i in range(1, n):
        size, offset = struct.unpack_from(order + "2I", data, table + 8 * i)
        yield data[offset:offset + size].decode("utf-8", errors="replace").replace("\0", "\n")


def mixed_text():
    """1 MB of English, Chinese and code by thirds, in paragraphs of 2 kB, from this machine."""
    root = HERE.parents[2]
    english = "".join(p.read_text(errors="replace") for p in
                      sorted(pathlib.Path("/usr/share/common-licenses").iterdir()) if p.is_file())
    chinese = "\n".join("\n".join(mo_texts(p)) for p in
                        sorted(pathlib.Path("/usr/share/locale/zh_CN/LC_MESSAGES").glob("*.mo"))
                        if p.stem in ("bash", "coreutils", "dpkg", "apt", "git", "gnupg2", "gtk20"))
    code = "".join(p.read_text() for folder in ("engine", "gguf", "templates", "commands", "tests")
                   for p in sorted((root / folder).rglob("*.cpp")))
    out = b""
    parts = [part.encode() for part in (english, chinese, code)]
    at = 0
    while len(out) < 1_000_000:
        for part in parts:
            start = at % max(1, len(part) - 2048)
            out += part[start:start + 2048] + b"\n"
        at += 2048
    return out[:1_000_000].decode("utf-8", errors="ignore")


def documents_of(text):
    """The text in documents of about 2 kB, cut at lines."""
    documents, current = [], ""
    for line in text.splitlines(keepends=True):
        current += line
        if len(current.encode()) >= 2048:
            documents.append(current)
            current = ""
    return documents + [current]


def interleaved(args, hf, ours, documents):
    """Seconds that HF and ours take for all documents: the medians of the runs, and the bests."""
    theirs_s, ours_s = [], []
    for _ in range(args.runs):
        start = time.perf_counter()
        hf.encode_batch_fast(documents, add_special_tokens=False)  # without offsets
        theirs_s.append(time.perf_counter() - start)
        ours_s.append(sum(ours.nanoseconds(document) for document in documents) / 1e9)
    return (statistics.median(theirs_s), min(theirs_s), statistics.median(ours_s), min(ours_s))


def speed(args):
    text = pathlib.Path(args.text).read_text() if args.text else mixed_text()
    text = unicodedata.normalize("NFC", text).replace(SPACE_MARK, "")
    mb = len(text.encode()) / 1e6
    print(f"{mb:.3f} MB, one thread, tokenizers {tokenizers.__version__}, "
          f"{args.runs} interleaved runs, median MB/s (best)")
    slower = 0
    with tempfile.TemporaryDirectory() as temp:
        for name, hf, path in vocabularies(args, pathlib.Path(temp)):
            ours = Ours(args.bench, path)
            for what, documents in (("whole", [text]), ("by 2 kB", documents_of(text))):
                same = all(ours.encode(document, True) ==
                           hf.encode(document, add_special_tokens=False).ids
                           for document in documents)
                hf_s, hf_best_s, ours_s, ours_best_s = interleaved(args, hf, ours, documents)
                slower += hf_s < ours_s
                print(f"{name:22} {what:8} HF {mb / hf_s:6.2f} ({mb / hf_best_s:6.2f})   "
                      f"ours {mb / ours_s:6.2f} ({mb / ours_best_s:6.2f})   "
                      f"ratio {hf_s / ours_s:5.2f}   ids {'equal' if same else 'DIFFERENT'}",
                      flush=True)
            ours.close()
    return 1 if slower else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["compare", "golden", "speed", "unicode"])
    parser.add_argument("--bench", help="the program tokenizer_bench")
    parser.add_argument("--data", type=pathlib.Path, help="the folder with NAME.tar.xz")
    parser.add_argument("--gguf", action="append", default=[], metavar="NAME=FILE")
    parser.add_argument("--n", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--show", type=int, default=5, help="differences to print")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--text", help="the text to measure with")
    args = parser.parse_args()
    return {"compare": compare, "golden": golden, "speed": speed,
            "unicode": unicode_classes}[args.action](args)


sys.exit(main())
