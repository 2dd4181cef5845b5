#include "engine/models/models.h"

#include "engine/error.h"

namespace dsctl::engine {
namespace {

constexpr Architecture kArchitectures[] = {
    {"llama", read_llama_config, load_llama},
    {"qwen2", read_qwen2_config, load_qwen2},
    {"qwen3", read_qwen3_config, load_qwen3},
    {"gemma3", read_gemma3_config, load_gemma3},
    {"gemma2", read_gemma2_config, load_gemma2},
    {"phi3", read_phi3_config, load_phi3},
    {"qwen3moe", read_qwen3moe_config, load_qwen3moe},
    {"deepseek2", read_deepseek2_config, load_deepseek2},
};

}  // namespace

std::span<const Architecture> architectures() {
  return kArchitectures;
}

const Architecture& find_architecture(const gguf::GgufFile& file) {
  const std::string_view name = file.architecture();
  std::string supported;
  for (const Architecture& architecture : kArchitectures) {
    if (architecture.name == name) return architecture;
    supported += (supported.empty() ? "" : ", ") + std::string(architecture.name);
  }
  throw Error("architecture \"" + std::string(name) + "\" is not supported, expected one of " +
              supported);
}

}  // namespace dsctl::engine
