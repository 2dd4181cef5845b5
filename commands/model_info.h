// Facts of a model for people and APIs: what Ollama's `details` object and `show` print, read from
// GGUF metadata.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "gguf/gguf_file.h"
#include "registry/manifest.h"

namespace dsctl::commands {

/// What `list`, `show` and /api/tags say of a model's weights.
struct ModelInfo {
  std::string format = "gguf";
  std::string family;  // general.architecture
  std::vector<std::string> families;
  int64_t n_parameters = 0;        // elements of all tensors
  std::string parameter_size;      // "671.0B", "134.52M"
  std::string quantization_level;  // "Q4_K_M"
  int64_t context_length = 0;      // 0: unknown
  int64_t embedding_length = 0;
};

/// Reads the facts of opened weights.
ModelInfo read_model_info(const gguf::GgufFile& file);

/// The same as the config blob of a manifest.
registry::ModelConfig to_config(const ModelInfo& info);

/// A count as Ollama prints it: "671.0B", "134.52M", "32.1K", "512".
std::string format_parameter_count(int64_t n);

/// The label of general.file_type ("Q4_K_M"), or "unknown".
std::string_view file_type_name(int64_t file_type);

/// Bytes in decimal units as Ollama prints them: "404 GB", "1.9 GB", "92 MB", "12 B".
std::string format_size(int64_t size_bytes);

/// A time as Ollama prints it: "3 weeks ago", "Less than a second ago", "5 minutes from now".
std::string format_relative_time(int64_t seconds_ago);

/// The parameters as `show --parameters` prints them: one line a value, names padded to 30 columns,
/// strings quoted.
std::string format_parameters(std::string_view parameters_json);

}  // namespace dsctl::commands
