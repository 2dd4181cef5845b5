#!/usr/bin/env python3
"""Makes tiny random models of each architecture with transformers (float32) and records their logits.

    make_goldens.py [OUT_DIR]        (needs numpy, torch, transformers, gguf)

For each case: NAME.gguf (F32 weights, written here tensor by tensor as llama.cpp's converter would)
and NAME.bin: int32 n_tokens, int32 vocab_size, int32 token_ids[n_tokens],
float32 logits[n_tokens, vocab_size], little-endian.
"""
import math
import struct
import sys
from pathlib import Path

import gguf
import numpy as np
import torch
import transformers

N_TOKENS = 40
VOCAB = 61


def permute(weight, n_heads):
    """HF's rotate-half rows to neighbouring pairs, as the converter does for llama."""
    rows = weight.shape[0]
    return weight.reshape(n_heads, 2, rows // n_heads // 2, -1).swapaxes(1, 2).reshape(weight.shape)


def llama3_factors(config):
    """rope_freqs.weight as the converter computes it from rope_scaling."""
    s = rope_parameters(config)
    dim = config.hidden_size // config.num_attention_heads
    base = s["rope_theta"]
    low_wavelen = s["original_max_position_embeddings"] / s["low_freq_factor"]
    high_wavelen = s["original_max_position_embeddings"] / s["high_freq_factor"]
    factors = []
    for i in range(0, dim, 2):
        wavelen = 2 * math.pi * base ** (i / dim)
        if wavelen < high_wavelen:
            factors.append(1.0)
        elif wavelen > low_wavelen:
            factors.append(s["factor"])
        else:
            smooth = (s["original_max_position_embeddings"] / wavelen - s["low_freq_factor"]) / (
                s["high_freq_factor"] - s["low_freq_factor"])
            factors.append(1 / ((1 - smooth) / s["factor"] + smooth))
    return np.array(factors, dtype=np.float32)


def rope_parameters(config):
    params = dict(getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {})
    params.setdefault("rope_theta", getattr(config, "rope_theta", 10000.0))
    return params


def write_gguf(path, arch, config, state, *, scaling=None):
    writer = gguf.GGUFWriter(str(path), arch)
    n_heads, n_kv_heads = config.num_attention_heads, config.num_key_value_heads
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(n_heads)
    writer.add_head_count_kv(n_kv_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // n_heads
    if arch in ("qwen3", "gemma3"):
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    if arch == "gemma3":
        rope = config.rope_parameters
        writer.add_rope_freq_base(rope["full_attention"]["rope_theta"])
        writer.add_sliding_window(config.sliding_window)
        if rope["full_attention"]["rope_type"] == "linear":
            writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
            writer.add_rope_scaling_factor(rope["full_attention"]["factor"])
    else:
        writer.add_rope_freq_base(rope_parameters(config)["rope_theta"])
        writer.add_rope_dimension_count(head_dim)
    if scaling == "llama3":
        writer.add_tensor("rope_freqs.weight", llama3_factors(config))
    elif scaling in ("linear", "yarn"):
        params = rope_parameters(config)
        writer.add_rope_scaling_type(gguf.RopeScalingType(scaling))
        writer.add_rope_scaling_factor(params["factor"])
        if scaling == "yarn":
            writer.add_rope_scaling_orig_ctx_len(params["original_max_position_embeddings"])

    names = {
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
        "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "post_attention_norm" if arch == "gemma3" else "ffn_norm",
        "pre_feedforward_layernorm": "ffn_norm", "post_feedforward_layernorm": "post_ffw_norm",
    }
    outer = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
             "lm_head.weight": "output.weight"}
    for name, tensor in state.items():
        values = tensor.float().numpy()
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        if arch == "gemma3" and name.endswith("norm.weight"):
            values = values + 1
        if name in outer:
            target = outer[name]
        else:
            _, _, layer, rest = name.split(".", 3)
            stem, suffix = rest.rsplit(".", 1)
            if arch == "llama" and stem in ("self_attn.q_proj", "self_attn.k_proj"):
                values = permute(values, n_heads if stem.endswith("q_proj") else n_kv_heads)
            target = f"blk.{layer}.{names[stem]}.{suffix}"
        writer.add_tensor(target, np.ascontiguousarray(values, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def make(out_dir, name, arch, model_class, config, seed, scaling=None):
    torch.manual_seed(seed)
    model = model_class(config).eval().float()
    with torch.no_grad():
        # transformers starts with tiny weights, zero biases and unit norms, which would hide mistakes.
        for key, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter.copy_(torch.randn_like(parameter) * 0.3 + (1.0 if "norm" in key and arch != "gemma3" else 0.0))
            else:
                parameter.copy_(torch.randn_like(parameter) * (1.5 / math.sqrt(parameter.shape[-1])))
        tokens = torch.randint(0, VOCAB, (N_TOKENS,))
        logits = model(tokens[None]).logits[0].float().numpy()
    write_gguf(out_dir / f"{name}.gguf", arch, config, model.state_dict(), scaling=scaling)
    with open(out_dir / f"{name}.bin", "wb") as file:
        file.write(struct.pack("<ii", N_TOKENS, VOCAB))
        file.write(tokens.numpy().astype("<i4").tobytes())
        file.write(logits.astype("<f4").tobytes())
    size = (out_dir / f"{name}.gguf").stat().st_size
    print(f"{name}: {size} bytes, logits of std {logits.std():.3f}")


def main():
    out_dir = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    small = dict(vocab_size=VOCAB, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
                 num_key_value_heads=2, max_position_embeddings=128, attn_implementation="eager")
    t = transformers
    rope = lambda **more: {"rope_theta": 10000.0, "rope_type": "default", **more}
    llama3 = rope(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                  original_max_position_embeddings=32)
    yarn = rope(rope_type="yarn", factor=4.0, original_max_position_embeddings=32)
    make(out_dir, "llama_tied", "llama", t.LlamaForCausalLM,
         t.LlamaConfig(**small, tie_word_embeddings=True, rope_parameters=rope()), 1)
    make(out_dir, "llama_untied_bias", "llama", t.LlamaForCausalLM,
         t.LlamaConfig(**small, tie_word_embeddings=False, attention_bias=True, rope_parameters=rope()), 2)
    make(out_dir, "llama_llama3_rope", "llama", t.LlamaForCausalLM,
         t.LlamaConfig(**small, tie_word_embeddings=False, rope_parameters=llama3), 3, scaling="llama3")
    make(out_dir, "llama_linear_rope", "llama", t.LlamaForCausalLM,
         t.LlamaConfig(**small, tie_word_embeddings=True, rope_parameters=rope(rope_type="linear", factor=4.0)), 4,
         scaling="linear")
    make(out_dir, "qwen2", "qwen2", t.Qwen2ForCausalLM,
         t.Qwen2Config(**small, tie_word_embeddings=False, rope_parameters=rope(rope_theta=1000000.0)), 5)
    make(out_dir, "qwen2_yarn", "qwen2", t.Qwen2ForCausalLM,
         t.Qwen2Config(**small, tie_word_embeddings=True, rope_parameters=yarn), 6, scaling="yarn")
    # A head size of its own: q is wider than the model.
    make(out_dir, "qwen3", "qwen3", t.Qwen3ForCausalLM,
         t.Qwen3Config(**small, head_dim=16, tie_word_embeddings=True, rope_parameters=rope(rope_theta=1000000.0)), 7)
    # Layer 5 is global, five are local.
    gemma = {**small, "num_hidden_layers": 6, "hidden_size": 24, "intermediate_size": 32}
    gemma_rope = lambda **more: {
        "full_attention": {"rope_type": "default", "rope_theta": 1000000.0, **more},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}}
    make(out_dir, "gemma3", "gemma3", t.Gemma3ForCausalLM,
         t.Gemma3TextConfig(**gemma, head_dim=16, sliding_window=9, query_pre_attn_scalar=16, rope_parameters=gemma_rope()), 8)
    make(out_dir, "gemma3_linear_rope", "gemma3", t.Gemma3ForCausalLM,
         t.Gemma3TextConfig(**gemma, head_dim=16, sliding_window=9, query_pre_attn_scalar=16,
                            rope_parameters=gemma_rope(rope_type="linear", factor=8.0)), 9)


if __name__ == "__main__":
    main()
