#include "gguf/convert/sources.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <string_view>

#include "gguf/convert/int4_weight.h"
#include "gguf/error.h"
#include "gguf/printable.h"

namespace dsctl::gguf::convert {
namespace {

/// Tensors of an encoder beside the language model, and buffers that are computed anew.
bool is_foreign(std::string_view name) {
  for (const std::string_view ending :
       {".rotary_emb.inv_freq", ".attention.bias", ".attention.masked_bias", ".input_scale",
        ".activation_scale", ".k_scale", ".v_scale"}) {
    if (name.ends_with(ending)) return true;
  }
  for (const std::string_view part :
       {"vision_", "visual.", "vision.", "audio_", "audio.", "projector."}) {
    if (name.find(part) != std::string_view::npos) return true;
  }
  return false;
}

std::string language_model_name(std::string name) {
  constexpr std::string_view kPrefix = "language_model.";
  if (const size_t at = name.find(kPrefix); at != std::string::npos) {
    name.erase(at, kPrefix.size());
  }
  return name;
}

class SourceReader {
 public:
  SourceReader(const Checkpoint& checkpoint, const HfConfig& config,
               const Architecture& architecture)
      : checkpoint_(checkpoint), config_(config), architecture_(architecture) {
    if (const Json* quantization = object_member(config.json(), "quantization_config")) {
      quantization_ = *quantization;
    }
    method_ = quantization_method(config);
  }

  std::vector<SourceWeight> read() {
    if (method_ == "awq" || method_ == "gptq") check_int4();
    if (method_ == "fp8") read_block_size();
    if (!method_.empty() && method_ != "awq" && method_ != "gptq" && method_ != "fp8") {
      throw Error("config.json: quantization_config.quant_method: \"" + printable(method_) +
                  "\" can't be converted; expected fp8, awq or gptq");
    }
    for (const SafeTensor& tensor : checkpoint_.tensors()) {
      const std::string name = language_model_name(tensor.name);
      if (is_foreign(name) || architecture_.is_skipped(config_, name)) continue;
      try {
        add(tensor, name);
      } catch (const Error& error) {
        const std::string message = error.what();
        if (message.find(tensor.name) != std::string::npos) throw;
        throw Error("tensor \"" + printable(tensor.name) + "\": " + message);
      }
    }
    for (SourceWeight& late : late_)
      sources_.push_back(std::move(late));
    return std::move(sources_);
  }

 private:
  void check_int4() {
    const auto bits = number_member(quantization_, "bits", "quantization_config.bits");
    if (bits && *bits != 4) {
      throw Error("config.json: quantization_config.bits: " + std::to_string(*bits) +
                  ", expected 4");
    }
    const std::string version = string_member(quantization_, "version").value_or("gemm");
    if (method_ == "awq" && version != "gemm" && version != "GEMM") {
      throw Error("config.json: quantization_config.version: \"" + printable(version) +
                  "\", expected gemm");
    }
    const std::string format = string_member(quantization_, "checkpoint_format").value_or("gptq");
    if (method_ == "gptq" && format != "gptq" && format != "gptq_v2") {
      throw Error("config.json: quantization_config.checkpoint_format: \"" + printable(format) +
                  "\", expected gptq or gptq_v2");
    }
    layout_ = method_ == "awq"      ? Int4Layout::kAwq
              : format == "gptq_v2" ? Int4Layout::kGptqV2
                                    : Int4Layout::kGptq;
  }

  void read_block_size() {
    const Json* block = array_member(quantization_, "weight_block_size");
    if (!block) return;  // one scale a tensor
    if (block->size() != 2 || !(*block)[0].is_number_unsigned() ||
        !(*block)[1].is_number_unsigned()) {
      throw Error("config.json: quantization_config.weight_block_size: expected two sizes");
    }
    block_rows_ = std::min<int64_t>((*block)[0].get<uint32_t>(), INT32_MAX);
    block_cols_ = std::min<int64_t>((*block)[1].get<uint32_t>(), INT32_MAX);
  }

  void add(const SafeTensor& tensor, const std::string& name) {
    if (method_ == "fp8") {
      if (name.ends_with("_scale_inv")) return need(tensor.name, "_scale_inv", "");
      if (const SafeTensor* scales = checkpoint_.find(tensor.name + "_scale_inv")) {
        sources_.push_back({name, scaled_fp8_weight(tensor, *scales, block_rows_, block_cols_)});
        return;
      }
    }
    if (method_ == "awq" || method_ == "gptq") {
      for (const std::string_view part : {".qzeros", ".scales", ".g_idx"}) {
        if (name.ends_with(part)) return need(tensor.name, part, ".qweight");
      }
      if (name.ends_with(".qweight")) return add_int4(tensor, name);
    }
    sources_.push_back({name, plain_weight(tensor)});
  }

  /// A part of a weight must have its main tensor.
  void need(const std::string& part, std::string_view ending, std::string_view main) const {
    std::string name = part.substr(0, part.size() - ending.size());
    name += main;
    if (!checkpoint_.find(name)) {
      throw Error("tensor \"" + printable(part) + "\": there is no \"" + printable(name) + "\"");
    }
  }

  void add_int4(const SafeTensor& qweight, const std::string& name) {
    constexpr std::string_view kEnding = ".qweight";
    const std::string base = qweight.name.substr(0, qweight.name.size() - kEnding.size());
    Int4Tensors tensors{.qweight = &qweight,
                        .qzeros = checkpoint_.find(base + ".qzeros"),
                        .scales = checkpoint_.find(base + ".scales"),
                        .g_idx = checkpoint_.find(base + ".g_idx")};
    if (!tensors.qzeros || !tensors.scales) {
      throw Error("tensor \"" + printable(qweight.name) + "\": there are no qzeros or scales");
    }
    const bool is_gptq = method_ == "gptq";
    if (is_gptq && !tensors.g_idx && bool_member(quantization_, "desc_act").value_or(false)) {
      throw Error("tensor \"" + printable(qweight.name) + "\": desc_act without a g_idx");
    }
    SourceWeight source{name.substr(0, name.size() - kEnding.size()) + ".weight",
                        int4_weight(layout_, tensors)};
    (is_gptq ? late_ : sources_).push_back(std::move(source));
  }

  const Checkpoint& checkpoint_;
  const HfConfig& config_;
  const Architecture& architecture_;
  Json quantization_;
  std::string method_;
  Int4Layout layout_ = Int4Layout::kAwq;
  int64_t block_rows_ = INT32_MAX;
  int64_t block_cols_ = INT32_MAX;
  std::vector<SourceWeight> sources_;
  std::vector<SourceWeight> late_;
};

}  // namespace

std::string quantization_method(const HfConfig& config) {
  const Json* quantization = object_member(config.json(), "quantization_config");
  if (!quantization) return "";
  const auto method = string_member(*quantization, "quant_method");
  return method ? *method : "without a method";
}

std::vector<SourceWeight> read_sources(const Checkpoint& checkpoint, const HfConfig& config,
                                       const Architecture& architecture) {
  return SourceReader(checkpoint, config, architecture).read();
}

}  // namespace dsctl::gguf::convert
