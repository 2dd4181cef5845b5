#!/usr/bin/env python3
"""Makes tiny random models of each architecture with transformers (float32) and records their logits.

    make_goldens.py [OUT_DIR]        (needs numpy, torch, transformers, gguf)

For each case: NAME.gguf (F32 weights, written here tensor by tensor as llama.cpp's converter would)
and NAME.bin: int32 n_tokens, int32 vocab_size, int32 token_ids[n_tokens],
float32 logits[n_tokens, vocab_size], little-endian. NAME.pooled (not of adapters): int32 dim,
float32 mean[dim], float32 last[dim] of the tokens' last hidden states.
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


GEMMAS = ("gemma2", "gemma3")


def write_rope_scaling(writer, config, scaling):
    params = rope_parameters(config) if scaling else {}
    if scaling == "llama3":
        writer.add_tensor("rope_freqs.weight", llama3_factors(config))
    elif scaling in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(scaling))
        writer.add_rope_scaling_factor(params["factor"])
        if scaling == "yarn":
            writer.add_rope_scaling_orig_ctx_len(params["original_max_position_embeddings"])
        if params.get("mscale_all_dim"):
            writer.add_rope_scaling_yarn_log_mul(0.1 * params["mscale_all_dim"])
    elif scaling == "longrope":
        original = config.original_max_position_embeddings
        factor = config.max_position_embeddings / original
        writer.add_rope_scaling_orig_ctx_len(original)
        writer.add_rope_scaling_attn_factors(math.sqrt(1 + math.log(factor) / math.log(original)))
        for kind in ("long", "short"):
            writer.add_tensor(f"rope_factors_{kind}.weight", np.array(params[f"{kind}_factor"], dtype=np.float32))


def write_attention_keys(writer, arch, config):
    n_heads = config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // n_heads
    if arch in ("qwen3", "qwen3moe", *GEMMAS):
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
        rotated = rope_parameters(config).get("partial_rotary_factor", 1.0)
        writer.add_rope_freq_base(rope_parameters(config)["rope_theta"])
        writer.add_rope_dimension_count(int(head_dim * rotated))
    if arch in ("gemma2", "phi3") and config.sliding_window:
        writer.add_sliding_window(config.sliding_window)
    if arch == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)


def write_mla_keys(writer, config, layout):
    """What the converter writes before ("old") and after April 2025 ("new")."""
    rope_dim = config.qk_rope_head_dim
    key_length, value_length = config.qk_nope_head_dim + rope_dim, config.v_head_dim
    if config.q_lora_rank:
        writer.add_q_lora_rank(config.q_lora_rank)
    writer.add_kv_lora_rank(config.kv_lora_rank)
    writer.add_rope_dimension_count(rope_dim)
    writer.add_rope_freq_base(rope_parameters(config)["rope_theta"])
    if layout == "old":
        writer.add_key_length(key_length)
        writer.add_value_length(value_length)
    else:
        writer.add_key_length(config.kv_lora_rank + rope_dim)
        writer.add_value_length(config.kv_lora_rank)
        writer.add_key_length_mla(key_length)
        writer.add_value_length_mla(value_length)


def write_expert_keys(writer, arch, config):
    writer.add_expert_count(config.num_experts if arch == "qwen3moe" else config.n_routed_experts)
    writer.add_expert_used_count(config.num_experts_per_tok)
    writer.add_expert_feed_forward_length(config.moe_intermediate_size)
    if arch != "deepseek2":
        return
    is_v3 = config.model_type == "deepseek_v3"
    writer.add_expert_shared_count(config.n_shared_experts)
    writer.add_expert_weights_scale(config.routed_scaling_factor)
    writer.add_leading_dense_block_count(config.first_k_dense_replace)
    if is_v3:
        writer.add_expert_weights_norm(config.norm_topk_prob)
        writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
    if config.n_group and config.n_group > 1:
        writer.add_expert_group_count(config.n_group)
        writer.add_expert_group_used_count(config.topk_group)


NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "self_attn.qkv_proj": "attn_qkv", "mlp.gate_up_proj": "ffn_up",
    "self_attn.q_a_proj": "attn_q_a", "self_attn.q_a_layernorm": "attn_q_a_norm", "self_attn.q_b_proj": "attn_q_b",
    "self_attn.kv_a_proj_with_mqa": "attn_kv_a_mqa", "self_attn.kv_a_layernorm": "attn_kv_a_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    "mlp.gate": "ffn_gate_inp",
    "mlp.shared_experts.gate_proj": "ffn_gate_shexp", "mlp.shared_experts.up_proj": "ffn_up_shexp",
    "mlp.shared_experts.down_proj": "ffn_down_shexp",
    "input_layernorm": "attn_norm", "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
OUTER = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
         "lm_head.weight": "output.weight"}


def block_tensors(arch, config, layout, stem, suffix, values):
    """(GGUF name, values) of one parameter of a layer, as llama.cpp's converter makes them."""
    if stem == "mlp.experts" and suffix == "gate_up_proj":
        gate, up = np.split(values, 2, axis=1)
        return [("ffn_gate_exps.weight", gate), ("ffn_up_exps.weight", up)]
    if stem == "mlp.experts":
        return [("ffn_down_exps.weight", values)]
    if suffix == "e_score_correction_bias":
        return [("exp_probs_b.bias", values)]
    if stem == "self_attn.kv_b_proj" and layout == "old":
        return [("attn_kv_b.weight", values)]
    if stem == "self_attn.kv_b_proj":
        heads = values.reshape(config.num_attention_heads, -1, values.shape[-1])
        k, v = np.split(heads, [config.qk_nope_head_dim], axis=1)
        return [("attn_k_b.weight", k.swapaxes(1, 2)), ("attn_v_b.weight", v)]
    if arch == "llama" and stem == "self_attn.q_proj":
        values = permute(values, config.num_attention_heads)
    if arch == "llama" and stem == "self_attn.k_proj":
        values = permute(values, config.num_key_value_heads)
    if stem == "post_attention_layernorm":
        return [("post_attention_norm.weight" if arch in GEMMAS else "ffn_norm.weight", values)]
    return [(f"{NAMES[stem]}.{suffix}", values)]


def write_gguf(path, arch, config, state, *, scaling=None, layout=None):
    writer = gguf.GGUFWriter(str(path), arch)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(1 if layout == "new" else config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    if arch == "deepseek2":
        write_mla_keys(writer, config, layout)
    else:
        write_attention_keys(writer, arch, config)
    if arch in ("deepseek2", "qwen3moe"):
        write_expert_keys(writer, arch, config)
    write_rope_scaling(writer, config, scaling)
    for name, tensor in state.items():
        values = tensor.float().numpy()
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        if arch in GEMMAS and name.endswith("norm.weight"):
            values = values + 1
        if name in OUTER:
            parts = [(OUTER[name], values)]
        else:
            _, _, layer, rest = name.split(".", 3)
            parts = [(f"blk.{layer}.{target}", part)
                     for target, part in block_tensors(arch, config, layout, *rest.rsplit(".", 1), values)]
        for target, part in parts:
            writer.add_tensor(target, np.ascontiguousarray(part, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def make(out_dir, name, arch, model_class, config, seed, scaling=None, layout=None):
    torch.manual_seed(seed)
    model = random_model(model_class, config, arch)
    with torch.no_grad():
        tokens = torch.randint(0, VOCAB, (N_TOKENS,))
        logits = model(tokens[None]).logits[0].float().numpy()
        states = model.model(tokens[None]).last_hidden_state[0].double().numpy()
    write_gguf(out_dir / f"{name}.gguf", arch, config, model.state_dict(), scaling=scaling, layout=layout)
    write_logits(out_dir / f"{name}.bin", tokens, logits)
    write_pooled(out_dir / f"{name}.pooled", states)
    size = (out_dir / f"{name}.gguf").stat().st_size
    print(f"{name}: {size} bytes, logits of std {logits.std():.3f}")


def random_model(model_class, config, arch):
    model = model_class(config).eval().float()
    with torch.no_grad():
        # transformers starts with tiny weights, zero biases and unit norms, which would hide mistakes.
        for key, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter.copy_(torch.randn_like(parameter) * 0.3 + (1.0 if "norm" in key and arch not in GEMMAS else 0.0))
            else:
                parameter.copy_(torch.randn_like(parameter) * (1.5 / math.sqrt(parameter.shape[-1])))
        for key, buffer in model.named_buffers():
            if key.endswith("e_score_correction_bias"):
                buffer.copy_(torch.randn_like(buffer) * 0.2)
    return model


def write_logits(path, tokens, logits):
    with open(path, "wb") as file:
        file.write(struct.pack("<ii", N_TOKENS, VOCAB))
        file.write(tokens.numpy().astype("<i4").tobytes())
        file.write(logits.astype("<f4").tobytes())


def write_pooled(path, states):
    with open(path, "wb") as file:
        file.write(struct.pack("<i", states.shape[1]))
        for vector in (states.mean(axis=0), states[-1]):
            file.write(vector.astype("<f4").tobytes())


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
    gemma2 = {**small, "num_hidden_layers": 3, "hidden_size": 24, "intermediate_size": 32}
    make(out_dir, "gemma2", "gemma2", t.Gemma2ForCausalLM,
         t.Gemma2Config(**gemma2, head_dim=16, sliding_window=9, query_pre_attn_scalar=16, attn_logit_softcapping=5.0,
                        final_logit_softcapping=10.0, rope_parameters=rope()), 10)
    make(out_dir, "phi3", "phi3", t.Phi3ForCausalLM,
         t.Phi3Config(**small, sliding_window=11, pad_token_id=0, rope_parameters=rope()), 11)
    # The sequence of 40 is longer than what the model was trained with, or shorter; only six values of a head turn.
    phi3 = dict(rope_type="longrope", partial_rotary_factor=0.75, short_factor=[1.0, 1.1, 1.3],
                long_factor=[1.2, 2.5, 3.7])
    for name, original, seed in (("phi3_longrope_long", 24, 12), ("phi3_longrope_short", 64, 13)):
        make(out_dir, name, "phi3", t.Phi3ForCausalLM,
             t.Phi3Config(**small, original_max_position_embeddings=original, pad_token_id=0,
                          rope_parameters=rope(original_max_position_embeddings=original, **phi3)),
             seed, scaling="longrope")
    make(out_dir, "qwen3moe", "qwen3moe", t.Qwen3MoeForCausalLM,
         t.Qwen3MoeConfig(**small, head_dim=16, num_experts=8, num_experts_per_tok=3, moe_intermediate_size=20,
                          norm_topk_prob=True, tie_word_embeddings=False, rope_parameters=rope(rope_theta=1000000.0)), 14)
    make_deepseeks(out_dir, small, rope)
    make_lora(out_dir, "lora_llama", "llama", t.LlamaForCausalLM,
              t.LlamaConfig(**small, tie_word_embeddings=False, attention_bias=True, rope_parameters=rope()), 2,
              rank=4, alpha=6.0)


def make_lora(out_dir, name, arch, model_class, config, seed, rank, alpha):
    """NAME.gguf: an adapter for the model that `make` makes of the same config and seed, for all matrices of its
    blocks and the head; NAME.bin: logits with W + alpha / rank * B A, as peft merges them."""
    torch.manual_seed(seed)
    model = random_model(model_class, config, arch)
    tokens = torch.randint(0, VOCAB, (N_TOKENS,))
    writer = gguf.GGUFWriter(str(out_dir / f"{name}.gguf"), arch)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if parameter.dim() != 2 or "embed_tokens" in key:
                continue
            a = torch.randn(rank, parameter.shape[1]) / math.sqrt(parameter.shape[1])
            b = torch.randn(parameter.shape[0], rank) * 0.3
            parameter.add_(alpha / rank * b @ a)
            if key in OUTER:
                target, b = OUTER[key], b.numpy()
            else:
                _, _, layer, rest = key.split(".", 3)
                (target, b), = block_tensors(arch, config, None, *rest.rsplit(".", 1), b.numpy())
                target = f"blk.{layer}.{target}"
            writer.add_tensor(target + ".lora_a", np.ascontiguousarray(a.numpy()))
            writer.add_tensor(target + ".lora_b", np.ascontiguousarray(b))
        logits = model(tokens[None]).logits[0].float().numpy()
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    write_logits(out_dir / f"{name}.bin", tokens, logits)


def make_deepseeks(out_dir, small, rope):
    """V3 (sigmoid, bias) and V2 (softmax): groups, q_lora, YaRN on and off, both layouts."""
    t = transformers
    mla = {**small, "num_key_value_heads": 4, "max_position_embeddings": 1024, "kv_lora_rank": 24,
           "qk_nope_head_dim": 8, "qk_rope_head_dim": 16, "v_head_dim": 12, "tie_word_embeddings": False}
    moe = dict(n_routed_experts=8, num_experts_per_tok=3, moe_intermediate_size=20, first_k_dense_replace=1)
    yarn = lambda mscale: rope(rope_type="yarn", factor=40.0, original_max_position_embeddings=256, beta_fast=32,
                               beta_slow=1, mscale=mscale, mscale_all_dim=mscale)
    v3 = lambda q_lora, groups, rope_parameters, **more: t.DeepseekV3Config(
        **{**mla, **moe, **more}, q_lora_rank=q_lora, n_group=groups, topk_group=2 if groups > 1 else 1, n_shared_experts=1,
        routed_scaling_factor=2.5, norm_topk_prob=True, num_mtp_layers=0, rope_parameters=rope_parameters)
    v2 = lambda q_lora, groups, rope_parameters: t.DeepseekV2Config(
        **mla, **moe, q_lora_rank=q_lora, n_group=groups, topk_group=2 if groups > 1 else 1, n_shared_experts=2,
        topk_method="group_limited_greedy" if groups > 1 else "greedy", routed_scaling_factor=1.5,
        rope_parameters=rope_parameters)
    make_v3 = lambda name, *args, **kw: make(out_dir, name, "deepseek2", t.DeepseekV3ForCausalLM, *args, **kw)
    make_v2 = lambda name, *args, **kw: make(out_dir, name, "deepseek2", t.DeepseekV2ForCausalLM, *args, **kw)
    deep = dict(num_hidden_layers=3)
    # One model in both layouts.
    make_v3("deepseek_v3", v3(20, 4, yarn(1.0), **deep), 20, scaling="yarn", layout="new")
    make_v3("deepseek_v3_old", v3(20, 4, yarn(1.0), **deep), 20, scaling="yarn", layout="old")
    make_v3("deepseek_v3_no_q_lora", v3(None, 4, rope()), 21, layout="old")
    make_v3("deepseek_v3_no_groups", v3(None, 1, yarn(1.0)), 22, scaling="yarn", layout="new")
    make_v2("deepseek_v2", v2(20, 4, yarn(0.707)), 23, scaling="yarn", layout="old")
    make_v2("deepseek_v2_lite", v2(None, 1, rope()), 24, layout="new")


if __name__ == "__main__":
    main()
