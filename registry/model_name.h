// ModelName: what people type to name a model, taken apart as Ollama does, so that both programs
// mean the same manifest by the same words.
#pragma once

#include <compare>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

namespace dsctl::registry {

/// A full, valid name: [host/[owner/]]model[:tag] with the defaults filled in.
struct ModelName {
  static constexpr std::string_view kDefaultHost = "registry.ollama.ai";
  static constexpr std::string_view kDefaultOwner = "library";
  static constexpr std::string_view kDefaultTag = "latest";

  std::string host{kDefaultHost};    // <= 350 bytes: alnum _ - . :
  std::string owner{kDefaultOwner};  // Ollama's namespace, <= 80 bytes: alnum _ -
  std::string model;                 // <= 80 bytes: alnum _ - .
  std::string tag{kDefaultTag};      // <= 80 bytes: alnum _ - .

  /// Parses `text`; a scheme ("https://") and an "@sha256:..." ending are allowed and dropped.
  /// Throws Error `invalid model name "...": why`.
  static ModelName parse(std::string_view text);

  /// As `parse`, but nothing instead of an error.
  static std::optional<ModelName> try_parse(std::string_view text);

  /// For people: "llama3:latest", "me/llama3:latest", "hf.co/me/llama3:latest". The tag is always
  /// shown; host and owner only where they are not the defaults.
  std::string short_form() const;

  /// "registry.ollama.ai/library/llama3:latest".
  std::string full_form() const;

  /// Where its manifest lies below manifests/: host/owner/model/tag.
  std::filesystem::path relative_path() const;

  /// True when the names differ in the case of letters at most; such names mean one model.
  bool same_as(const ModelName& other) const;

  auto operator<=>(const ModelName&) const = default;
};

/// True when `text` begins with `prefix`, letters compared without case (ASCII).
bool starts_with_ignoring_case(std::string_view text, std::string_view prefix);

}  // namespace dsctl::registry
