#include "gguf/quant_mixture.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <regex>

#include "gguf/error.h"
#include "gguf/printable.h"

namespace dsctl::gguf {
namespace {

constexpr std::array kFileTypes{
    FileType{"Q2_K_S", 21, DType::Q2_K, "2.6 bits a weight, needs an importance matrix"},
    FileType{"Q2_K", 10, DType::Q2_K, "2.6 bits a weight, the important tensors 3 to 6"},
    FileType{"Q3_K_S", 11, DType::Q3_K, "3.4 bits a weight"},
    FileType{"Q3_K_M", 12, DType::Q3_K, "3.4 bits a weight, the important tensors 4 and 5"},
    FileType{"Q3_K_L", 13, DType::Q3_K, "3.4 bits a weight, the important tensors 5"},
    FileType{"IQ4_XS", 30, DType::IQ4_XS, "4.25 bits a weight, codes of a table"},
    FileType{"MXFP4_MOE", 38, DType::MXFP4, "experts 4.25 bits a weight, the rest 8.5"},
    FileType{"IQ4_NL", 25, DType::IQ4_NL, "4.5 bits a weight, codes of a table"},
    FileType{"Q4_0", 2, DType::Q4_0, "4.5 bits a weight, one scale for 32"},
    FileType{"Q4_K_S", 14, DType::Q4_K, "4.5 bits a weight"},
    FileType{"Q4_K_M", 15, DType::Q4_K, "4.5 bits a weight, the important tensors 6.6"},
    FileType{"Q4_1", 3, DType::Q4_1, "5 bits a weight, scale and minimum for 32"},
    FileType{"Q5_0", 8, DType::Q5_0, "5.5 bits a weight, one scale for 32"},
    FileType{"Q5_K_S", 16, DType::Q5_K, "5.5 bits a weight"},
    FileType{"Q5_K_M", 17, DType::Q5_K, "5.5 bits a weight, the important tensors 6.6"},
    FileType{"Q5_1", 9, DType::Q5_1, "6 bits a weight, scale and minimum for 32"},
    FileType{"Q6_K", 18, DType::Q6_K, "6.6 bits a weight"},
    FileType{"Q8_0", 7, DType::Q8_0, "8.5 bits a weight"},
    FileType{"F16", 1, DType::F16, "16 bits a weight"},
    FileType{"BF16", 32, DType::BF16, "16 bits a weight, the range of F32"},
    FileType{"F32", 0, DType::F32, "32 bits a weight"},
};

enum class Category {
  kEmbedding,
  kQ,
  kK,
  kV,
  kQkv,
  kKvB,
  kAttentionOutput,
  kUp,
  kGate,
  kDown,
  kOutput,
  kOther
};

bool has(std::string_view name, std::string_view part) {
  return name.find(part) != std::string_view::npos;
}

Category category_of(std::string_view name) {
  if (name == "output.weight") return Category::kOutput;
  if (name == "token_embd.weight" || name == "per_layer_token_embd.weight") {
    return Category::kEmbedding;
  }
  if (has(name, "attn_qkv.weight")) return Category::kQkv;
  if (has(name, "attn_kv_b.weight")) return Category::kKvB;
  if (has(name, "attn_v.weight")) return Category::kV;
  if (has(name, "attn_k.weight")) return Category::kK;
  if (has(name, "attn_q.weight")) return Category::kQ;
  if (has(name, "attn_output.weight")) return Category::kAttentionOutput;
  if (has(name, "ffn_up")) return Category::kUp;
  if (has(name, "ffn_gate")) return Category::kGate;
  if (has(name, "ffn_down")) return Category::kDown;
  return Category::kOther;
}

bool is_like_v(Category category) {
  return category == Category::kV || category == Category::kQkv || category == Category::kKvB;
}

/// The first of a number that may be one for each layer; 0 when it is missing.
int64_t first_number(const GgufFile& file, const std::string& key) {
  const Value* value = file.find(key);
  if (value == nullptr) return 0;
  if (value->type != ValueType::ARRAY) return file.find_int(key).value_or(0);
  const auto& elements = std::get<ArrayValue>(value->data).elements;
  if (const auto* list = std::get_if<std::vector<int64_t>>(&elements)) {
    return list->empty() ? 0 : list->front();
  }
  if (const auto* list = std::get_if<std::vector<uint64_t>>(&elements)) {
    return list->empty() ? 0 : static_cast<int64_t>(list->front());
  }
  return 0;
}

/// What the rules want to know of the model.
struct ModelFacts {
  int n_layers = 0;
  int64_t n_experts = 0;
  int64_t gqa = 0;  // query heads of one key head
  bool is_falcon = false;
  bool is_70b = false;
  bool is_tied = true;
  int n_like_v = 0;
};

ModelFacts facts_of(const GgufFile& file, std::span<const TensorInfo> tensors) {
  ModelFacts facts;
  const std::string arch(file.architecture());
  facts.n_layers = static_cast<int>(
      std::clamp<int64_t>(file.find_int(arch + ".block_count").value_or(0), 0, 100000));
  facts.n_experts = file.find_int(arch + ".expert_count").value_or(0);
  const int64_t n_heads = first_number(file, arch + ".attention.head_count");
  const std::string kv_key = arch + ".attention.head_count_kv";
  const int64_t n_kv_heads = file.find(kv_key) != nullptr ? first_number(file, kv_key) : n_heads;
  facts.gqa = n_kv_heads > 0 ? n_heads / n_kv_heads : 0;
  facts.is_falcon = arch == "falcon";
  facts.is_70b = facts.n_layers == 80 &&
                 (arch == "qwen2" || arch == "deci" || (arch == "llama" && n_heads != n_kv_heads));
  for (const TensorInfo& tensor : tensors) {
    const Category category = category_of(tensor.name);
    if (category == Category::kOutput) facts.is_tied = false;
    if (is_like_v(category)) ++facts.n_like_v;
  }
  return facts;
}

bool use_more_bits(int layer, int n_layers) {
  return layer < n_layers / 8 || layer >= 7 * n_layers / 8 || (layer - n_layers / 8) % 3 == 2;
}

int layer_of(std::string_view name) {
  constexpr std::string_view kPrefix = "blk.";
  int layer = -1;
  if (name.starts_with(kPrefix)) {
    std::from_chars(name.data() + kPrefix.size(), name.data() + name.size(), layer);
  }
  return layer;
}

/// The rules of one file type, applied to tensor after tensor.
class Mixture {
 public:
  Mixture(const ModelFacts& facts, const FileType& file_type, const MixtureOptions& options)
      : facts_(facts), name_(file_type.name), dtype_(file_type.dtype), options_(options) {}

  DType choose(const TensorInfo& tensor) {
    const Category category = category_of(tensor.name);
    if (category == Category::kOutput || (facts_.is_tied && category == Category::kEmbedding)) {
      return output_type(tensor);
    }
    if (is("MXFP4_MOE")) return tensor.dims[2] > 1 ? DType::MXFP4 : DType::Q8_0;
    if (is_like_v(category)) return v_type();
    switch (category) {
      case Category::kK:
        return facts_.n_experts == 8 ? DType::Q8_0 : dtype_;
      case Category::kDown:
        return down_type(tensor);
      case Category::kAttentionOutput:
        return attention_output_type();
      case Category::kEmbedding:
      case Category::kQ:
      case Category::kV:
      case Category::kQkv:
      case Category::kKvB:
      case Category::kUp:
      case Category::kGate:
      case Category::kOutput:
      case Category::kOther:
        break;
    }
    return dtype_;
  }

 private:
  bool is(std::string_view name) const { return name_ == name; }
  bool is_table() const { return is("IQ4_NL") || is("IQ4_XS"); }

  DType output_type(const TensorInfo& tensor) const {
    if (options_.output_type) return *options_.output_type;
    const bool fits = tensor.dims[0] % dtype_info(dtype_).block_elems == 0;
    if (is("MXFP4_MOE") || facts_.is_falcon || !fits) return DType::Q8_0;
    return dtype_ == DType::Q8_0 ? DType::Q8_0 : DType::Q6_K;
  }

  DType v_type() {
    const int idx = n_seen_v_++;
    DType type = dtype_;
    if (is("Q2_K")) {
      type = facts_.gqa >= 4 ? DType::Q4_K : DType::Q3_K;
    } else if (is("Q2_K_S") && facts_.gqa >= 4) {
      type = DType::Q4_K;
    } else if (is("Q3_K_M")) {
      type = idx < 2 ? DType::Q5_K : DType::Q4_K;
    } else if (is("Q3_K_L") || (is_table() && facts_.gqa >= 4)) {
      type = DType::Q5_K;
    } else if ((is("Q4_K_M") || is("Q5_K_M")) && use_more_bits(idx, facts_.n_like_v)) {
      type = DType::Q6_K;
    } else if (is("Q4_K_S") && idx < 4) {
      type = DType::Q5_K;
    }
    if (facts_.is_70b && (type == DType::Q3_K || type == DType::Q4_K)) type = DType::Q5_K;
    return facts_.n_experts == 8 ? DType::Q8_0 : type;
  }

  DType down_type(const TensorInfo& tensor) {
    int layer = n_seen_down_++;
    const int n_layers = facts_.n_layers;
    if (facts_.n_experts > 1) {  // experts' tensors may lie in any order: the name says the layer
      layer = layer_of(tensor.name);
      if (layer < 0 || layer >= n_layers) {
        throw Error(printable(tensor.name) + ": no layer from 0 to " +
                    std::to_string(n_layers - 1) + " in the name");
      }
    }
    const bool is_early = layer < n_layers / 8;
    const bool is_first = layer < n_layers / 16;
    const bool more = use_more_bits(layer, n_layers);
    if (is("Q2_K")) return DType::Q3_K;
    if (is("Q2_K_S")) return is_early ? DType::Q4_K : dtype_;
    if (is("Q3_K_M")) {
      if (is_first) return DType::Q5_K;
      return !facts_.is_falcon || more ? DType::Q4_K : DType::Q3_K;
    }
    if (is("Q3_K_L")) return facts_.is_falcon ? DType::Q4_K : DType::Q5_K;
    if (is("Q4_K_M")) {
      if (!facts_.is_falcon) return more ? DType::Q6_K : dtype_;
      return is_first ? DType::Q6_K : more ? DType::Q5_K : DType::Q4_K;
    }
    if (is_early && is_table() && !options_.has_matrix) return DType::Q5_K;
    if (is("Q5_K_M") && more) return DType::Q6_K;
    if (is("Q4_K_S") && !facts_.is_falcon && is_early) return DType::Q5_K;
    // With a matrix the first layers may go wrong without a minimum.
    if (is_early && options_.has_matrix && is("Q4_0")) return DType::Q4_1;
    if (is_early && options_.has_matrix && is("Q5_0")) return DType::Q5_1;
    return dtype_;
  }

  DType attention_output_type() const {
    if (facts_.is_falcon) return is("Q3_K_L") ? DType::Q4_K : dtype_;
    if (facts_.n_experts == 8) {
      const bool is_small =
          is("Q2_K") || is("Q3_K_S") || is("Q3_K_M") || is("Q4_K_S") || is("Q4_K_M") || is_table();
      return is_small ? DType::Q5_K : dtype_;
    }
    if (is("Q2_K")) return DType::Q3_K;
    if (is("Q3_K_M")) return DType::Q4_K;
    if (is("Q3_K_L")) return DType::Q5_K;
    return dtype_;
  }

  ModelFacts facts_;
  std::string_view name_;
  DType dtype_;
  const MixtureOptions& options_;
  int n_seen_v_ = 0;
  int n_seen_down_ = 0;
};

bool is_plain(DType dtype) {
  return dtype_info(dtype).block_elems == 1;
}

/// What takes the place of `dtype` where rows are no whole blocks of it.
TypeChoice fitting(const TensorInfo& tensor, DType dtype) {
  if (tensor.dims[0] % dtype_info(dtype).block_elems == 0) return {dtype, std::nullopt};
  DType other = DType::F16;
  switch (dtype) {
    case DType::IQ4_XS:
      other = DType::IQ4_NL;
      break;
    case DType::Q2_K:
    case DType::Q3_K:
      other = DType::Q4_0;
      break;
    case DType::Q4_K:
      other = DType::Q5_0;
      break;
    case DType::Q5_K:
      other = DType::Q5_1;
      break;
    case DType::Q6_K:
      other = DType::Q8_0;
      break;
    default:  // blocks of 32: nothing smaller
      break;
  }
  if (tensor.dims[0] % dtype_info(other).block_elems != 0) other = DType::F16;
  return {other, dtype};
}

std::vector<std::pair<std::regex, DType>> compiled(const std::vector<TensorTypeRule>& rules) {
  std::vector<std::pair<std::regex, DType>> patterns;
  for (const TensorTypeRule& rule : rules) {
    try {
      patterns.emplace_back(std::regex(rule.pattern), rule.dtype);
    } catch (const std::regex_error&) {
      throw Error("tensor pattern '" + printable(rule.pattern) + "': no regular expression");
    }
  }
  return patterns;
}

}  // namespace

std::span<const FileType> file_types() {
  return kFileTypes;
}

std::optional<FileType> file_type_from_name(std::string_view name) {
  std::string upper(name);
  for (char& c : upper)
    c = c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
  if (upper == "Q3_K" || upper == "Q4_K" || upper == "Q5_K") upper += "_M";
  for (const FileType& type : kFileTypes) {
    if (type.name == upper) return type;
  }
  return std::nullopt;
}

bool may_quantize(const TensorInfo& tensor) {
  if (tensor.n_rows() < 2) return false;
  const std::string_view name = tensor.name;
  if (!name.ends_with("weight")) return false;
  // Small, or read in a way that needs floats: norms, routers, convolutions, positions, RWKV's
  // mixers, projectors' patches, codebooks.
  constexpr std::string_view kKept[] = {"_norm.weight",
                                        "ffn_gate_inp.weight",
                                        "ffn_gate_tid2eid.weight",
                                        "altup",
                                        "laurel",
                                        "per_layer_model_proj",
                                        "ssm_conv1d",
                                        "shortconv.conv.weight",
                                        "indexer.k_proj.weight",
                                        "indexer.q_proj.weight",
                                        "time_mix_first.weight",
                                        "time_mix_w0.weight",
                                        "time_mix_w1.weight",
                                        "time_mix_w2.weight",
                                        "time_mix_v0.weight",
                                        "time_mix_v1.weight",
                                        "time_mix_v2.weight",
                                        "time_mix_a0.weight",
                                        "time_mix_a1.weight",
                                        "time_mix_a2.weight",
                                        "time_mix_g1.weight",
                                        "time_mix_g2.weight",
                                        "time_mix_decay_w1.weight",
                                        "time_mix_decay_w2.weight",
                                        "time_mix_lerp_fused.weight",
                                        "attn_rel_b.weight",
                                        ".position_embd",
                                        "sam.pos_embd",
                                        "sam.neck.",
                                        "sam.net_",
                                        ".rel_pos",
                                        ".patch_embd",
                                        ".patch_merger",
                                        "a.rvq.codebook",
                                        "mm.a.code_embd"};
  if (name == "position_embd.weight" || name == "token_types.weight") return false;
  return std::none_of(std::begin(kKept), std::end(kKept),
                      [&](std::string_view part) { return has(name, part); });
}

std::vector<TypeChoice> choose_types(const GgufFile& file, std::span<const TensorInfo> tensors,
                                     const FileType& file_type, const MixtureOptions& options) {
  const auto patterns = compiled(options.rules);
  Mixture mixture(facts_of(file, tensors), file_type, options);
  std::vector<TypeChoice> choices;
  for (const TensorInfo& tensor : tensors) {
    const Category category = category_of(tensor.name);
    if (!may_quantize(tensor) || (options.leave_output && category == Category::kOutput)) {
      choices.push_back({tensor.dtype, std::nullopt});
      continue;
    }
    if (category == Category::kEmbedding && options.embedding_type) {
      choices.push_back(fitting(tensor, *options.embedding_type));
      continue;
    }
    if (category == Category::kOutput && options.output_type) {
      choices.push_back(fitting(tensor, *options.output_type));
      continue;
    }
    if (is_plain(file_type.dtype)) {
      choices.push_back({file_type.dtype, std::nullopt});
      continue;
    }
    const std::string name(tensor.name);
    const auto rule = std::find_if(patterns.begin(), patterns.end(), [&](const auto& pattern) {
      return std::regex_search(name, pattern.first);
    });
    choices.push_back(fitting(tensor, rule != patterns.end() ? rule->second
                                      : options.pure         ? file_type.dtype
                                                             : mixture.choose(tensor)));
  }
  return choices;
}

}  // namespace dsctl::gguf
