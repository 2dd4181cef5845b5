#!/usr/bin/env python3
"""Writes a model that is DeepSeek-R1 in everything but size, for rehearsing what its users do.

    make_r1_toy.py OUT_DIR TOKENIZER_DIR [--layout old|new] [--groups]      (needs numpy, gguf)

Nine shards DeepSeek-R1-Q4_K_M-0000N-of-00009.gguf with the metadata, the 1025 tensor names and the
kinds of tensors of unsloth/DeepSeek-R1-GGUF (January 2025), 61 layers and 256 experts, but rows of
32 values and random weights: some 40 MB. TOKENIZER_DIR holds the model's own tokenizer.json and
tokenizer_config.json, which are nobody's to commit.

--layout new writes what converters write since April 2025 (attn_k_b and attn_v_b, sizes of the
latent cache), --groups the keys that say how the experts' groups are limited, which the files of
January 2025 lack.
"""
import argparse
import json
from pathlib import Path

import gguf
import numpy as np

N_LAYERS, N_DENSE, N_EXPERTS = 61, 3, 256
DIM, FFN_DIM, EXPERT_DIM, N_HEADS = 32, 64, 32, 4
Q_RANK, KV_RANK, NOPE, ROPE, VALUE = 32, 32, 32, 64, 32
BLOCK = 32


class Weights:
    """Random tensors whose products keep the size of their inputs."""

    def __init__(self, seed):
        self.random = np.random.default_rng(seed)

    def f32(self, *shape, around=0.0, spread=1.0):
        return (self.random.standard_normal(shape, dtype=np.float32) * spread + around).astype(np.float32)

    def quantised(self, dtype, *shape):
        """(bytes as (..., row bytes)) of normally distributed scales and uniform integers."""
        n_blocks = int(np.prod(shape)) // BLOCK
        n_bytes = {"Q4_0": 16, "Q8_0": 32}[dtype]
        spread = {"Q4_0": 4.6, "Q8_0": 74.0}[dtype]  # of uniform integers of the type
        scale = 1.0 / (spread * np.sqrt(shape[-1]))
        scales = (scale * (1 + 0.2 * self.random.standard_normal((n_blocks, 1)))).astype("<f2").view(np.uint8)
        integers = self.random.integers(0, 256, (n_blocks, n_bytes), dtype=np.uint8)
        blocks = np.concatenate([scales, integers], axis=1)
        return blocks.reshape(*shape[:-1], shape[-1] // BLOCK * blocks.shape[1])


def write_keys(writer, layout, groups):
    writer.add_type("model")
    writer.add_name("DeepSeek R1 BF16")
    writer.add_quantized_by("Unsloth")
    writer.add_size_label("256x20B")
    writer.add_block_count(N_LAYERS)
    writer.add_context_length(163840)
    writer.add_embedding_length(DIM)
    writer.add_feed_forward_length(FFN_DIM)
    writer.add_head_count(N_HEADS)
    writer.add_head_count_kv(N_HEADS if layout == "old" else 1)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_expert_used_count(8)
    writer.add_leading_dense_block_count(N_DENSE)
    writer.add_vocab_size(129280)
    writer.add_q_lora_rank(Q_RANK)
    writer.add_kv_lora_rank(KV_RANK)
    writer.add_key_length(NOPE + ROPE if layout == "old" else KV_RANK + ROPE)
    writer.add_value_length(VALUE if layout == "old" else KV_RANK)
    if layout == "new":
        writer.add_key_length_mla(NOPE + ROPE)
        writer.add_value_length_mla(VALUE)
    writer.add_expert_feed_forward_length(EXPERT_DIM)
    writer.add_expert_count(N_EXPERTS)
    writer.add_expert_shared_count(1)
    writer.add_expert_weights_scale(2.5)
    writer.add_expert_weights_norm(True)
    writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
    if groups:
        writer.add_expert_group_count(8)
        writer.add_expert_group_used_count(4)
    writer.add_rope_dimension_count(ROPE)
    writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
    writer.add_rope_scaling_factor(40.0)
    writer.add_rope_scaling_orig_ctx_len(4096)
    writer.add_rope_scaling_yarn_log_mul(0.1)
    writer.add_quantization_version(2)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_K_M)


def write_tokenizer(writer, folder, vocab_size=129280):
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    config = json.loads((folder / "tokenizer_config.json").read_text())
    tokens = [f"[PAD{i}]" for i in range(vocab_size)]
    types = [gguf.TokenType.UNUSED] * vocab_size
    for text, token in tokenizer["model"]["vocab"].items():
        tokens[token], types[token] = text, gguf.TokenType.NORMAL
    for added in tokenizer["added_tokens"]:
        tokens[added["id"]] = added["content"]
        types[added["id"]] = gguf.TokenType.CONTROL if added["special"] else gguf.TokenType.USER_DEFINED
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in tokenizer["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("deepseek-v3")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_pad_token_id(128815)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_chat_template(config["chat_template"])


def write_tensors(writer, layout, seed=1):
    weights = Weights(seed)

    def matrix(name, dtype, *shape):
        raw = gguf.GGMLQuantizationType[dtype]
        writer.add_tensor(name, weights.quantised(dtype, *shape), raw_dtype=raw)

    def norm(name, n):
        writer.add_tensor(name, weights.f32(n, around=1.0, spread=0.1))

    matrix("token_embd.weight", "Q8_0", 129280, DIM)
    for i in range(N_LAYERS):
        block = f"blk.{i}."
        norm(block + "attn_norm.weight", DIM)
        matrix(block + "attn_q_a.weight", "Q4_0", Q_RANK, DIM)
        norm(block + "attn_q_a_norm.weight", Q_RANK)
        matrix(block + "attn_q_b.weight", "Q4_0", N_HEADS * (NOPE + ROPE), Q_RANK)
        matrix(block + "attn_kv_a_mqa.weight", "Q8_0", KV_RANK + ROPE, DIM)
        norm(block + "attn_kv_a_norm.weight", KV_RANK)
        if layout == "old":
            matrix(block + "attn_kv_b.weight", "Q4_0", N_HEADS * (NOPE + VALUE), KV_RANK)
        else:
            matrix(block + "attn_k_b.weight", "Q8_0", N_HEADS, KV_RANK, NOPE)
            matrix(block + "attn_v_b.weight", "Q4_0", N_HEADS, VALUE, KV_RANK)
        matrix(block + "attn_output.weight", "Q4_0", DIM, N_HEADS * VALUE)
        norm(block + "ffn_norm.weight", DIM)
        if i < N_DENSE:
            matrix(block + "ffn_gate.weight", "Q4_0", FFN_DIM, DIM)
            matrix(block + "ffn_up.weight", "Q4_0", FFN_DIM, DIM)
            matrix(block + "ffn_down.weight", "Q8_0", DIM, FFN_DIM)
            continue
        writer.add_tensor(block + "ffn_gate_inp.weight", weights.f32(N_EXPERTS, DIM, spread=DIM**-0.5))
        writer.add_tensor(block + "exp_probs_b.bias", weights.f32(N_EXPERTS, spread=0.1))
        matrix(block + "ffn_gate_exps.weight", "Q4_0", N_EXPERTS, EXPERT_DIM, DIM)
        matrix(block + "ffn_up_exps.weight", "Q4_0", N_EXPERTS, EXPERT_DIM, DIM)
        matrix(block + "ffn_down_exps.weight", "Q4_0", N_EXPERTS, DIM, EXPERT_DIM)
        matrix(block + "ffn_gate_shexp.weight", "Q4_0", EXPERT_DIM, DIM)
        matrix(block + "ffn_up_shexp.weight", "Q4_0", EXPERT_DIM, DIM)
        matrix(block + "ffn_down_shexp.weight", "Q8_0", DIM, EXPERT_DIM)
    norm("output_norm.weight", DIM)
    matrix("output.weight", "Q8_0", 129280, DIM)


def make(out_dir, tokenizer_dir, layout, groups):
    out_dir.mkdir(parents=True, exist_ok=True)
    # 1025 tensors: nine shards of 114 or fewer.
    n_tensors = 1025 if layout == "old" else 1025 + N_LAYERS
    writer = gguf.GGUFWriter(str(out_dir / "DeepSeek-R1-Q4_K_M.gguf"), "deepseek2",
                             split_max_tensors=-(-n_tensors // 9))
    write_keys(writer, layout, groups)
    write_tokenizer(writer, tokenizer_dir)
    write_tensors(writer, layout)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out_dir", type=Path)
    parser.add_argument("tokenizer_dir", type=Path)
    parser.add_argument("--layout", choices=["old", "new"], default="old")
    parser.add_argument("--groups", action="store_true")
    make(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
