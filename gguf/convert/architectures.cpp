#include <array>

#include "gguf/convert/architecture.h"
#include "gguf/error.h"
#include "gguf/printable.h"

namespace dsctl::gguf::convert {

std::span<const Architecture> architectures() {
  static const std::array<Architecture, 5> table = {kLlama, kQwen2, kQwen3, kGemma3, kDeepseek2};
  return table;
}

const Architecture& find_architecture(std::string_view class_name) {
  std::string supported;
  for (const Architecture& architecture : architectures()) {
    for (const std::string_view name : architecture.class_names) {
      if (name == class_name) return architecture;
      supported += (supported.empty() ? "" : ", ") + std::string(name);
    }
  }
  throw Error("config.json: architectures: \"" + printable(class_name) +
              "\" can't be converted; supported: " + supported);
}

}  // namespace dsctl::gguf::convert
