"""Small GGUF files with a header that `list` and `show` can read and as many bytes as are wanted."""

import random
import struct


def _text(value):
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def _entry(key, value):
    if isinstance(value, str):
        return _text(key) + struct.pack("<I", 8) + _text(value)
    if isinstance(value, tuple):  # (type id, format, number)
        return _text(key) + struct.pack("<I" + value[1], value[0], value[2])
    return _text(key) + struct.pack("<II", 4, value)


def tiny_gguf(size_bytes, seed=0, shard=None, architecture="llama", kind=None):
    """A file of about `size_bytes` with one tensor; `shard`: (index, count) of a split."""
    metadata = {}
    if shard is None or shard[0] == 0:
        metadata.update({"general.architecture": architecture, "general.file_type": 0,
                         f"{architecture}.context_length": 2048,
                         f"{architecture}.embedding_length": 64})
        if kind:
            metadata["general.type"] = kind
    if shard:
        metadata.update({"split.no": (2, "H", shard[0]), "split.count": (2, "H", shard[1]),
                         "split.tensors.count": (5, "i", shard[1])})
    n_elems = max(size_bytes // 4 // 64, 1) * 64
    name = f"blk.{shard[0] if shard else 0}.attn_q.weight"
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, len(metadata))
    head += b"".join(_entry(key, value) for key, value in metadata.items())
    head += _text(name) + struct.pack("<IQQIQ", 2, 64, n_elems // 64, 0, 0)
    head += b"\0" * (-len(head) % 32)
    return head + random.Random(seed).randbytes(n_elems * 4)
