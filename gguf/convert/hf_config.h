// HfConfig: what config.json says about a checkpoint, with the defaults of the transformers class
// it is for. Internal to gguf/convert.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "gguf/convert/json_file.h"

namespace dsctl::gguf::convert {

class HfConfig {
 public:
  /// Reads DIR/config.json; the members of text_config (of a model that sees images, too) lie over
  /// the others. Throws Error naming the field.
  static HfConfig open(const std::filesystem::path& dir);
  explicit HfConfig(Json json);

  /// The class that the checkpoint is for: "LlamaForCausalLM".
  const std::string& class_name() const { return class_name_; }
  const Json& json() const { return json_; }

  /// The value that transformers takes when config.json has none.
  void set_default(std::string_view key, Json value);

  // Typed access; a value of another type is an Error naming the key.
  /// A count or a size: 0 to 2^31 - 1.
  std::optional<uint32_t> find_uint(std::string_view key) const;
  uint32_t get_uint(std::string_view key) const;  // throws Error when it is missing
  std::optional<double> find_number(std::string_view key) const;
  double get_number(std::string_view key) const;
  std::optional<bool> find_bool(std::string_view key) const;
  std::optional<std::string> find_string(std::string_view key) const;

 private:
  Json json_;
  std::string class_name_;
};

/// A member of `object` as a finite number; `name` is for messages.
std::optional<double> number_member(const Json& object, std::string_view key,
                                    std::string_view name);

/// How positions are encoded, from rope_parameters (new) or rope_theta and rope_scaling (old).
struct RopeParameters {
  std::optional<double> theta;        // of layers with full attention
  std::optional<double> local_theta;  // of layers with a window
  std::string type = "default";       // "linear", "yarn", "llama3", ...
  Json values = Json::object();       // factor and the like
};

RopeParameters read_rope(const HfConfig& config);

}  // namespace dsctl::gguf::convert
