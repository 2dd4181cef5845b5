#!/usr/bin/env python3
"""Makes tiny random checkpoints as transformers saves them, one folder a case, for
compare_convert.py:

    make_models.py OUT --tokenizers DIR [CASE ...]

DIR holds deepseek_v3/, llama3_1/ and qwen3/ with tokenizer.json and tokenizer_config.json. Needs
torch, transformers, safetensors and sentencepiece."""
import argparse
import json
import pathlib
import shutil

import numpy as np
import sentencepiece
import torch
import transformers
from safetensors.torch import load_file, save_file

TEXT = ("The quick brown fox jumps over the lazy dog. Zwei flinke Boxer jagen die quirlige Eva. "
        "Portez ce vieux whisky au juge blond qui fume. 1234567890 !?.,;:()[]{} and so on")


def small(**more):
    return dict(hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
                num_key_value_heads=2, head_dim=16, max_position_embeddings=512,
                initializer_range=0.2) | more


def deepseek(**more):
    return dict(hidden_size=64, intermediate_size=96, moe_intermediate_size=32,
                num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=4,
                n_shared_experts=1, n_routed_experts=8, num_experts_per_tok=2, n_group=2,
                topk_group=1, first_k_dense_replace=1, kv_lora_rank=32, q_lora_rank=48,
                qk_rope_head_dim=16, qk_nope_head_dim=32, v_head_dim=32, vocab_size=129280,
                max_position_embeddings=512, initializer_range=0.2, scoring_func="sigmoid",
                norm_topk_prob=True, routed_scaling_factor=2.5, bos_token_id=0, eos_token_id=1,
                tie_word_embeddings=False) | more


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128,
        "rope_theta": 1000000.0}
DEEPSEEK_YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128,
                 "beta_fast": 32, "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0,
                 "rope_theta": 10000.0}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64, "rope_theta": 500000.0}

# name: (model class, config class, config, dtype, tokenizer, shard size)
CASES = {
    "llama3-tiny-bf16": ("LlamaForCausalLM", "LlamaConfig", small(
        vocab_size=128256, rope_parameters=LLAMA3, bos_token_id=128000, eos_token_id=128009,
        tie_word_embeddings=True), torch.bfloat16, "llama3_1", None),
    "llama3-shards-f32": ("LlamaForCausalLM", "LlamaConfig", small(
        vocab_size=128256, bos_token_id=128000, eos_token_id=[128001, 128008, 128009],
        tie_word_embeddings=False), torch.float32, "llama3_1", "12MB"),
    "llama2-spm-f16": ("LlamaForCausalLM", "LlamaConfig", small(
        vocab_size=512, num_key_value_heads=4, attention_bias=True), torch.float16, "spm", None),
    "qwen2-tiny-bf16": ("Qwen2ForCausalLM", "Qwen2Config", dict(small(
        vocab_size=151936, bos_token_id=151643, eos_token_id=151645, tie_word_embeddings=True)),
        torch.bfloat16, "qwen3", None),
    "qwen2-yarn-f16": ("Qwen2ForCausalLM", "Qwen2Config", small(
        vocab_size=151936, rope_parameters=YARN, tie_word_embeddings=False), torch.float16,
        "qwen3", None),
    "qwen3-0.6B-base": ("Qwen3ForCausalLM", "Qwen3Config", small(
        vocab_size=151936, head_dim=32, tie_word_embeddings=True), torch.bfloat16, "qwen3", None),
    "qwen3-shards": ("Qwen3ForCausalLM", "Qwen3Config", small(
        vocab_size=151936, head_dim=32, tie_word_embeddings=False), torch.bfloat16, "qwen3",
        "10MB"),
    "gemma3-tiny-bf16": ("Gemma3ForCausalLM", "Gemma3TextConfig", small(
        vocab_size=512, num_hidden_layers=7, sliding_window=64, query_pre_attn_scalar=16),
        torch.bfloat16, "spm", None),
    "gemma3-tiny-f16": ("Gemma3ForCausalLM", "Gemma3TextConfig", small(
        vocab_size=512, num_hidden_layers=7, sliding_window=64, query_pre_attn_scalar=16,
        rope_parameters={
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}}),
        torch.float16, "spm", None),
    "deepseek-v3-bf16": ("DeepseekV3ForCausalLM", "DeepseekV3Config", deepseek(
        rope_parameters=DEEPSEEK_YARN), torch.bfloat16, "deepseek_v3", None),
    "deepseek-v3-fp8": ("DeepseekV3ForCausalLM", "DeepseekV3Config", deepseek(
        hidden_size=192, moe_intermediate_size=160, rope_parameters=DEEPSEEK_YARN),
        torch.bfloat16, "deepseek_v3", "16MB"),
    "deepseek-v2-lite": ("DeepseekV2ForCausalLM", "DeepseekV2Config", deepseek(
        q_lora_rank=None, n_group=1, norm_topk_prob=False, routed_scaling_factor=1.0,
        scoring_func="softmax", topk_method="greedy"), torch.bfloat16, "deepseek_v3", None),
    "deepseek-v2-bf16": ("DeepseekV2ForCausalLM", "DeepseekV2Config", deepseek(
        norm_topk_prob=False, routed_scaling_factor=16.0, scoring_func="softmax",
        topk_method="group_limited_greedy"), torch.bfloat16, "deepseek_v3", None),
    "qwen2-gptq": ("Qwen2ForCausalLM", "Qwen2Config", small(
        hidden_size=256, intermediate_size=384, head_dim=64, vocab_size=151936,
        tie_word_embeddings=True), torch.float16, "qwen3", None),
}


def add_tokenizer(folder, kind, tokenizers, vocab_size):
    if kind != "spm":
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(tokenizers / kind / name, folder / name)
        return
    text = folder / "corpus.txt"
    text.write_text("\n".join(TEXT[i:] for i in range(0, 200, 3)))
    sentencepiece.SentencePieceTrainer.train(
        input=str(text), model_prefix=str(folder / "tokenizer"), vocab_size=vocab_size - 40,
        model_type="bpe", byte_fallback=True, hard_vocab_limit=False, minloglevel=2,
        user_defined_symbols=["<mask>", "▁▁"], pad_id=3)
    text.unlink()
    (folder / "tokenizer.vocab").unlink()
    (folder / "tokenizer_config.json").write_text(json.dumps({
        "add_bos_token": True, "add_eos_token": False, "bos_token": "<s>", "eos_token": "</s>",
        "unk_token": "<unk>", "pad_token": "<pad>", "tokenizer_class": "LlamaTokenizer",
        "legacy": False, "chat_template": "{{ bos_token }}{% for m in messages %}{{ m.content }}"
        "{% endfor %}",
        "added_tokens_decoder": {
            str(vocab_size - 8): {"content": "<|turn|>", "special": True},
            str(vocab_size - 7): {"content": "a▁b", "special": False},
            str(vocab_size - 6): {"content": "<|looks_special|>", "special": False}}}))


def shard_folder(folder, shard_size):
    """Files of at most `shard_size` MB each, as the Hub has them."""
    limit = int(shard_size.removesuffix("MB")) * 10**6
    tensors = load_file(folder / "model.safetensors")
    groups, size = [{}], 0
    for name, tensor in tensors.items():
        if groups[-1] and size + tensor.nbytes > limit:
            groups.append({})
            size = 0
        groups[-1][name] = tensor
        size += tensor.nbytes
    weight_map = {}
    for i, group in enumerate(groups):
        file_name = f"model-{i + 1:05}-of-{len(groups):05}.safetensors"
        save_file(group, folder / file_name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(group, file_name)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps(
        {"metadata": {"total_size": sum(t.nbytes for t in tensors.values())},
         "weight_map": weight_map}))


def split_experts(tensors):
    """transformers 5 may keep experts stacked; published checkpoints have one tensor each."""
    out = {}
    for name, tensor in tensors.items():
        base = name.removesuffix(".weight")
        if base.endswith("mlp.experts.gate_up_proj"):
            stem = base.removesuffix("gate_up_proj")
            half = tensor.shape[1] // 2
            for i in range(tensor.shape[0]):
                out[f"{stem}{i}.gate_proj.weight"] = tensor[i, :half].contiguous()
                out[f"{stem}{i}.up_proj.weight"] = tensor[i, half:].contiguous()
        elif base.endswith("mlp.experts.down_proj"):
            stem = base.removesuffix("down_proj")
            for i in range(tensor.shape[0]):
                out[f"{stem}{i}.down_proj.weight"] = tensor[i].contiguous()
        else:
            out[name] = tensor
    return out


def quantize_fp8(tensors):
    out = {}
    for name, tensor in tensors.items():
        if not (name.endswith("_proj.weight") or name.endswith("_mqa.weight")):
            out[name] = tensor
            continue
        rows, cols = tensor.shape
        scale = torch.empty((rows + 127) // 128, (cols + 127) // 128)
        weight = torch.empty(rows, cols, dtype=torch.float8_e4m3fn)
        for i in range(scale.shape[0]):
            for j in range(scale.shape[1]):
                block = tensor[128 * i:128 * i + 128, 128 * j:128 * j + 128].float()
                scale[i, j] = block.abs().max() / 448
                weight[128 * i:128 * i + 128, 128 * j:128 * j + 128] = (
                    block / scale[i, j]).to(torch.float8_e4m3fn)
        out[name] = weight
        out[name + "_scale_inv"] = scale
    return out


def quantize_gptq(tensors, group=128):
    out = {}
    generator = np.random.default_rng(1)
    for name, tensor in tensors.items():
        if not name.endswith("_proj.weight"):
            out[name] = tensor
            continue
        n_out, n_in = tensor.shape
        base = name.removesuffix("weight")
        codes = generator.integers(0, 16, (n_in, n_out), dtype=np.uint32)
        zeros = generator.integers(0, 15, (n_in // group, n_out), dtype=np.uint32)
        scales = (generator.random((n_in // group, n_out)) * 0.02 + 0.005).astype(np.float16)
        shifts = np.arange(0, 32, 4, dtype=np.uint32)
        qweight = (codes.reshape(n_in // 8, 8, n_out) << shifts[:, None]).sum(1, dtype=np.uint32)
        qzeros = (zeros.reshape(-1, n_out // 8, 8) << shifts).sum(2, dtype=np.uint32)
        out[base + "qweight"] = torch.from_numpy(qweight.view(np.int32))
        out[base + "qzeros"] = torch.from_numpy(qzeros.view(np.int32))
        out[base + "scales"] = torch.from_numpy(scales)
        out[base + "g_idx"] = torch.arange(n_in, dtype=torch.int32) // group
    return out


def make(name, folder, tokenizers):
    model_class, config_class, values, dtype, tokenizer, shard_size = CASES[name]
    torch.manual_seed(len(name))
    config = getattr(transformers, config_class)(**values)
    model = getattr(transformers, model_class)(config).to(dtype)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.copy_(torch.randn_like(parameter) * 0.2 + ("norm" in key))
        for key, buffer in model.named_buffers():
            if key.endswith("e_score_correction_bias"):
                buffer.copy_(torch.randn_like(buffer) * 0.1)
    model.generation_config.top_k = 20
    model.generation_config.do_sample = True
    model.generation_config.temperature = 0.6
    model.save_pretrained(folder)
    tensors = split_experts(load_file(folder / "model.safetensors"))
    config_file = folder / "config.json"
    config = json.loads(config_file.read_text())
    if name.endswith("-fp8"):
        tensors = quantize_fp8(tensors)
        # The layer of multi-token prediction that the published files have after the last one.
        tensors[f"model.layers.{values['num_hidden_layers']}.enorm.weight"] = torch.ones(4)
        config["quantization_config"] = {"quant_method": "fp8", "fmt": "e4m3",
                                         "activation_scheme": "dynamic",
                                         "weight_block_size": [128, 128]}
    if name.endswith("-gptq"):
        tensors = quantize_gptq(tensors)
        config["quantization_config"] = {"quant_method": "gptq", "bits": 4, "group_size": 128,
                                         "desc_act": False, "sym": False}
    config_file.write_text(json.dumps(config, indent=1))
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()},
              folder / "model.safetensors", metadata={"format": "pt"})
    if shard_size:
        shard_folder(folder, shard_size)
    add_tokenizer(folder, tokenizer, tokenizers, values["vocab_size"])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--tokenizers", type=pathlib.Path, required=True)
    parser.add_argument("cases", nargs="*", default=list(CASES))
    arguments = parser.parse_args()
    for name in arguments.cases:
        folder = arguments.out / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        make(name, folder, arguments.tokenizers)
        print(name, sorted(path.name for path in folder.iterdir()))


if __name__ == "__main__":
    main()
