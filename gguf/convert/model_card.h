// The front matter of a checkpoint's README.md: licence, tags, languages, what it was made from.
// Internal to gguf/convert.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace dsctl::gguf::convert {

/// What a card says; empty where it says nothing.
struct ModelCard {
  std::string name, author, version, organization, description, finetune, basename, size_label;
  std::string license, license_name, license_link;
  std::vector<std::string> base_models;  // ids or URLs
  std::vector<std::string> datasets;
  std::vector<std::string> tags;
  std::vector<std::string> languages;
};

/// Reads DIR/README.md; a card without front matter, or none, is empty.
ModelCard read_model_card(const std::filesystem::path& dir);

/// The same of the text: the part of YAML that cards use (keys at the margin with a scalar or a
/// list of scalars); anything else is skipped.
ModelCard parse_model_card(std::string_view text);

}  // namespace dsctl::gguf::convert
