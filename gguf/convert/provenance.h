// general.*: what a checkpoint says about itself (name, size, licence, recommended sampling), by
// the rules of llama.cpp's converter. Internal to gguf/convert.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "gguf/convert/hf_config.h"
#include "gguf/convert/metadata_list.h"

namespace dsctl::gguf::convert {

/// Numbers of parameters, by the GGUF tensors.
struct ParameterCount {
  int64_t total = 0;
  int64_t shared = 0;   // outside the experts
  int64_t experts = 0;  // of one expert in each layer
  int64_t n_experts = 0;
};

/// "1.1B", "256x14B".
std::string size_label(const ParameterCount& count);

/// A model's id taken apart: "Qwen3-0.6B-Base" is basename "Qwen3", size "0.6B", finetune "Base".
struct ModelIdParts {
  std::string name;  // without the organisation
  std::string organization;
  std::string basename;
  std::string finetune;
  std::string version;
  std::string size_label;
};
ModelIdParts split_model_id(std::string_view id, int64_t n_parameters);

/// Adds general.sampling.*, general.name and what else is known. `name` overrides; "" does not.
void add_provenance(const std::filesystem::path& dir, const HfConfig& config,
                    const ParameterCount& count, const std::string& name, MetadataList& metadata);

}  // namespace dsctl::gguf::convert
