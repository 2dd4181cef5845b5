// Weights that `create` makes itself: a checkpoint converted, a model quantised, on their way into
// the store.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "commands/console.h"
#include "registry/registry.h"

namespace dsctl::commands {

/// Whether weights that are quantised already may be quantised again, which loses more.
enum class Requantize { kNo, kYes };

/// Makes one file in a staging directory of the store, which goes away with this object, or at the
/// store's next operation when the process dies.
class MadeWeights {
 public:
  /// `quantize` is a type that the weights get; empty: none.
  MadeWeights(const registry::Registry& registry, std::string quantize, Console& console)
      : registry_(registry), quantize_(std::move(quantize)), console_(console) {}

  /// Converts a directory of safetensors, quantising on the way. Throws Error.
  std::filesystem::path convert(const std::filesystem::path& checkpoint);
  bool has_converted() const { return staging_.has_value(); }

  /// Replaces the model in `spec`, or of its parent, by one that is quantised; projectors and
  /// adapters stay. Throws Error, or gguf::Error naming the tensor that can't be quantised.
  void quantize(registry::CreateSpec& spec, Requantize requantize);

 private:
  std::filesystem::path new_path(const char* name);

  const registry::Registry& registry_;
  const std::string quantize_;
  Console& console_;
  std::optional<registry::Staging> staging_;
};

}  // namespace dsctl::commands
