// Facts of a model for people and APIs: what Ollama's `details` object and `show` print, read from
// GGUF metadata.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
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

/// Ollama's words for what the model can do: "completion" or "embedding", "tools", "insert",
/// "thinking", "vision". `go_template` is the model's TEMPLATE, else the weights' own one counts.
std::vector<std::string> read_capabilities(const gguf::GgufFile& file,
                                           const std::optional<std::string>& go_template,
                                           bool has_projector);

/// The label of general.file_type ("Q4_K_M"), else of the tensor type that most bytes have, else
/// empty. Never throws.
std::string quantization_label(const gguf::GgufFile& file);

/// The name of a number of general.file_type ("Q4_K_M"), or an empty view.
std::string_view file_type_name(uint64_t file_type);

/// A count as Ollama prints it: "671.0B", "134.52M", "32K", "512".
std::string format_parameter_count(int64_t n);

/// Bytes in decimal units as Ollama prints them: "404 GB", "1.9 GB", "92 MB", "12 B".
std::string format_size(int64_t size_bytes);

/// A time that lies so far back as Ollama prints it: "3 weeks ago", "About an hour ago"; negative:
/// "5 minutes from now".
std::string format_relative_time(std::chrono::seconds ago);

/// RFC 3339 with nanoseconds, UTC: "2026-01-31T12:00:00.123456789Z".
std::string format_time(std::chrono::system_clock::time_point time);

/// The parameters as `show --parameters` prints them: one line a value, names padded to 30 columns,
/// strings quoted; no final newline.
std::string format_parameters(std::string_view parameters_json);

/// Two or more columns with a gap of four spaces, as `list` and `ps` print them; the first row is
/// the heading.
std::string format_table(const std::vector<std::vector<std::string>>& rows);

}  // namespace dsctl::commands
