// The table of architectures: one line for each model file. A new architecture is a file and a
// line in models.cpp.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "engine/model_config.h"
#include "engine/models/model.h"
#include "engine/weights.h"

namespace dsctl::engine {

/// `max_model_len` is the longest sequence that will be run: longrope chooses its factors by it.
struct LoadOptions {
  int max_model_len = 0;
};

struct Architecture {
  std::string_view name;  // general.architecture
  ModelConfig (*read_config)(const ConfigReader& reader);
  std::unique_ptr<Model> (*load)(const ModelConfig& config, const LoadOptions& options,
                                 WeightLoader& loader);
};

std::span<const Architecture> architectures();

/// The entry for `file`. Throws Error naming its architecture and the supported ones.
const Architecture& find_architecture(const gguf::GgufFile& file);

// The files of this folder.
ModelConfig read_llama_config(const ConfigReader& reader);
std::unique_ptr<Model> load_llama(const ModelConfig& config, const LoadOptions& options,
                                  WeightLoader& loader);
ModelConfig read_qwen2_config(const ConfigReader& reader);
std::unique_ptr<Model> load_qwen2(const ModelConfig& config, const LoadOptions& options,
                                  WeightLoader& loader);
ModelConfig read_qwen3_config(const ConfigReader& reader);
std::unique_ptr<Model> load_qwen3(const ModelConfig& config, const LoadOptions& options,
                                  WeightLoader& loader);
ModelConfig read_gemma3_config(const ConfigReader& reader);
std::unique_ptr<Model> load_gemma3(const ModelConfig& config, const LoadOptions& options,
                                   WeightLoader& loader);
ModelConfig read_gemma2_config(const ConfigReader& reader);
std::unique_ptr<Model> load_gemma2(const ModelConfig& config, const LoadOptions& options,
                                   WeightLoader& loader);
ModelConfig read_phi3_config(const ConfigReader& reader);
std::unique_ptr<Model> load_phi3(const ModelConfig& config, const LoadOptions& options,
                                 WeightLoader& loader);
ModelConfig read_qwen3moe_config(const ConfigReader& reader);
std::unique_ptr<Model> load_qwen3moe(const ModelConfig& config, const LoadOptions& options,
                                     WeightLoader& loader);
ModelConfig read_deepseek2_config(const ConfigReader& reader);
std::unique_ptr<Model> load_deepseek2(const ModelConfig& config, const LoadOptions& options,
                                      WeightLoader& loader);

}  // namespace dsctl::engine
