"""Writes the nine shards of DeepSeek-R1-Q4_K_M as people download them, with holes for data:

    python3 make_sparse_r1.py DIRECTORY

Every tensor has its real name, type, shape and place, and every file its real size (404 GB
together), but takes only its header on disk. Vocabulary and merges are made up, as long as the real
ones; the first file's metadata is filled up to the size of the real one. Prints the first path.
"""

import pathlib
import struct
import sys

N_LAYERS = 61
N_DENSE = 3
BLOCK = {"F32": (0, 1, 4), "Q4_K": (12, 256, 144), "Q6_K": (14, 256, 210)}  # id, elements, bytes
SIZES = [48339779936, 49429396320, 49527312640, 48272509536, 49422027488, 48272509536, 49429396320,
         46938773696, 14798482144]
MAX_SHARD_BYTES = 50_000_000_000


def align(size):
    return (size + 31) // 32 * 32


def tensors():
    """(name, dims, type) in the order of the file."""
    yield "output.weight", (7168, 129280), "Q6_K"
    yield "output_norm.weight", (7168,), "F32"
    yield "token_embd.weight", (7168, 129280), "Q4_K"
    for i in range(N_LAYERS):
        # The rule of Q4_K_M: the outer eighths and every third layer between get more bits.
        eighth = N_LAYERS // 8
        more = i < eighth or i >= 7 * N_LAYERS // 8 or (i - eighth) % 3 == 2
        down = "Q6_K" if more else "Q4_K"
        layer = [
            ("attn_kv_a_mqa.weight", (7168, 576), "Q4_K"),
            ("attn_kv_a_norm.weight", (512,), "F32"),
            ("attn_kv_b.weight", (512, 32768), "Q4_K"),
            ("attn_norm.weight", (7168,), "F32"),
            ("attn_output.weight", (16384, 7168), "Q4_K"),
            ("attn_q_a.weight", (7168, 1536), "Q4_K"),
            ("attn_q_a_norm.weight", (1536,), "F32"),
            ("attn_q_b.weight", (1536, 24576), "Q4_K"),
        ]
        if i < N_DENSE:
            layer += [
                ("ffn_down.weight", (18432, 7168), down),
                ("ffn_gate.weight", (7168, 18432), "Q4_K"),
                ("ffn_norm.weight", (7168,), "F32"),
                ("ffn_up.weight", (7168, 18432), "Q4_K"),
            ]
        else:
            layer += [
                ("exp_probs_b.bias", (256,), "F32"),
                ("ffn_down_exps.weight", (2048, 7168, 256), down),
                ("ffn_down_shexp.weight", (2048, 7168), down),
                ("ffn_gate_exps.weight", (7168, 2048, 256), "Q4_K"),
                ("ffn_gate_inp.weight", (7168, 256), "F32"),
                ("ffn_gate_shexp.weight", (7168, 2048), "Q4_K"),
                ("ffn_norm.weight", (7168,), "F32"),
                ("ffn_up_exps.weight", (7168, 2048, 256), "Q4_K"),
                ("ffn_up_shexp.weight", (7168, 2048), "Q4_K"),
            ]
        for name, dims, dtype in layer:
            yield f"blk.{i}.{name}", dims, dtype


def size_of(dims, dtype):
    elements = 1
    for dim in dims:
        elements *= dim
    _, block, block_bytes = BLOCK[dtype]
    return elements // block * block_bytes


def text(value):
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def entry(key, type_id, value):
    return text(key) + struct.pack("<I", type_id) + value


def u16(key, value):
    return entry(key, 2, struct.pack("<H", value))


def u32(key, value):
    return entry(key, 4, struct.pack("<I", value))


def i32(key, value):
    return entry(key, 5, struct.pack("<i", value))


def f32(key, value):
    return entry(key, 6, struct.pack("<f", value))


def boolean(key, value):
    return entry(key, 7, struct.pack("<B", value))


def string(key, value):
    return entry(key, 8, text(value))


def array(key, type_id, items):
    return entry(key, 9, struct.pack("<IQ", type_id, len(items)) + b"".join(items))


def model_metadata():
    arch = "deepseek2"
    tokens = [f"t{i:06d}" for i in range(129280)]
    return [
        string("general.architecture", arch),
        string("general.type", "model"),
        string("general.name", "DeepSeek R1 BF16"),
        string("general.size_label", "256x20B"),
        u32(f"{arch}.block_count", N_LAYERS),
        u32(f"{arch}.context_length", 163840),
        u32(f"{arch}.embedding_length", 7168),
        u32(f"{arch}.feed_forward_length", 18432),
        u32(f"{arch}.attention.head_count", 128),
        u32(f"{arch}.attention.head_count_kv", 128),
        f32(f"{arch}.rope.freq_base", 10000.0),
        f32(f"{arch}.attention.layer_norm_rms_epsilon", 1e-6),
        u32(f"{arch}.expert_used_count", 8),
        u32(f"{arch}.leading_dense_block_count", N_DENSE),
        u32(f"{arch}.vocab_size", 129280),
        u32(f"{arch}.attention.q_lora_rank", 1536),
        u32(f"{arch}.attention.kv_lora_rank", 512),
        u32(f"{arch}.attention.key_length", 192),
        u32(f"{arch}.attention.value_length", 128),
        u32(f"{arch}.expert_feed_forward_length", 2048),
        u32(f"{arch}.expert_count", 256),
        u32(f"{arch}.expert_shared_count", 1),
        f32(f"{arch}.expert_weights_scale", 2.5),
        boolean(f"{arch}.expert_weights_norm", 1),
        u32(f"{arch}.expert_gating_func", 2),
        u32(f"{arch}.rope.dimension_count", 64),
        string(f"{arch}.rope.scaling.type", "yarn"),
        f32(f"{arch}.rope.scaling.factor", 40.0),
        u32(f"{arch}.rope.scaling.original_context_length", 4096),
        f32(f"{arch}.rope.scaling.yarn_log_multiplier", 0.1),
        string("tokenizer.ggml.model", "gpt2"),
        string("tokenizer.ggml.pre", "deepseek-v3"),
        array("tokenizer.ggml.tokens", 8, [text(token) for token in tokens]),
        array("tokenizer.ggml.token_type", 5, [struct.pack("<i", 1)] * len(tokens)),
        array("tokenizer.ggml.merges", 8, [text(f"{i % 97} {i}") for i in range(127741)]),
        u32("tokenizer.ggml.bos_token_id", 0),
        u32("tokenizer.ggml.eos_token_id", 1),
        u32("tokenizer.ggml.padding_token_id", 1),
        boolean("tokenizer.ggml.add_bos_token", 1),
        boolean("tokenizer.ggml.add_eos_token", 0),
        string("tokenizer.chat_template", "{{ messages[0]['content'] }}"),
        u32("general.quantization_version", 2),
        u32("general.file_type", 15),
    ]


def header(metadata, infos):
    out = b"GGUF" + struct.pack("<IQQ", 3, len(infos), len(metadata)) + b"".join(metadata)
    offset = 0
    for name, dims, dtype in infos:
        out += text(name) + struct.pack("<I", len(dims))
        out += b"".join(struct.pack("<Q", dim) for dim in dims)
        out += struct.pack("<IQ", BLOCK[dtype][0], offset)
        offset += align(size_of(dims, dtype))
    return out + bytes(align(len(out)) - len(out)), offset


def main():
    directory = pathlib.Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    shards = [[]]
    filled = 0
    n_tensors = 0
    for tensor in tensors():
        size = align(size_of(*tensor[1:]))
        if filled + size > MAX_SHARD_BYTES:
            shards.append([])
            filled = 0
        shards[-1].append(tensor)
        filled += size
        n_tensors += 1
    assert len(shards) == len(SIZES)
    for i, infos in enumerate(shards):
        metadata = model_metadata() if i == 0 else []
        metadata += [u16("split.no", i), i32("split.tensors.count", n_tensors),
                     u16("split.count", len(shards))]
        head, data_bytes = header(metadata, infos)
        if i == 0:
            metadata.insert(4, string("general.description", ""))
            head, _ = header(metadata, infos)
            lacking = SIZES[0] - data_bytes - len(head)
            assert lacking >= 0, lacking
            metadata[4] = string("general.description", "x" * lacking)
            head, _ = header(metadata, infos)
        assert len(head) + data_bytes == SIZES[i], (i, len(head) + data_bytes, SIZES[i])
        path = directory / f"DeepSeek-R1-Q4_K_M-{i + 1:05d}-of-{len(shards):05d}.gguf"
        with open(path, "wb") as file:
            file.write(head)
            file.truncate(SIZES[i])
    print(directory / f"DeepSeek-R1-Q4_K_M-00001-of-{len(shards):05d}.gguf")


main()
