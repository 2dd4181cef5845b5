#include "registry/model_name.h"

#include <algorithm>

#include "registry/error.h"

namespace dsctl::registry {
namespace {

enum class Part { kHost, kOwner, kModel, kTag };

std::string_view part_name(Part part) {
  switch (part) {
    case Part::kHost:
      return "host";
    case Part::kOwner:
      return "namespace";
    case Part::kModel:
      return "model";
    case Part::kTag:
      return "tag";
  }
  return "";
}

bool is_word(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

char to_lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

bool equal_ignoring_case(std::string_view a, std::string_view b) {
  return a.size() == b.size() && starts_with_ignoring_case(a, b);
}

/// Why `text` is no valid part of a name; empty when it is valid.
std::string complaint(Part part, std::string_view text) {
  const size_t limit = part == Part::kHost ? 350 : 80;
  const std::string name(part_name(part));
  if (text.empty()) return "the " + name + " is empty";
  if (text.size() > limit) {
    return "the " + name + " has " + std::to_string(text.size()) + " bytes, expected at most " +
           std::to_string(limit);
  }
  if (!is_word(text[0])) return "the " + name + " must begin with a letter, a digit or '_'";
  for (const char c : text.substr(1)) {
    const bool allowed = is_word(c) || c == '-' || (c == '.' && part != Part::kOwner) ||
                         (c == ':' && part == Part::kHost);
    if (!allowed) {
      const bool printable = c > ' ' && c < 127;
      return "the " + name + " can't contain " +
             (printable ? "'" + std::string(1, c) + "'" : std::string("such a character"));
    }
  }
  return "";
}

struct ParsedName {
  ModelName name;
  std::string error;  // empty: `name` is valid
};

ParsedName parse_name(std::string_view text) {
  ParsedName parsed;
  ModelName& name = parsed.name;
  if (const size_t at = text.find('@'); at != std::string_view::npos) text = text.substr(0, at);
  // A colon after the last slash separates the tag; one before it belongs to the host's port.
  const size_t colon = text.rfind(':');
  const size_t slash = text.rfind('/');
  if (colon != std::string_view::npos && (slash == std::string_view::npos || colon > slash)) {
    name.tag = text.substr(colon + 1);
    text = text.substr(0, colon);
  }
  const auto take_last = [&text](std::string& part) {
    const size_t cut = text.rfind('/');
    part = cut == std::string_view::npos ? text : text.substr(cut + 1);
    text = cut == std::string_view::npos ? std::string_view() : text.substr(0, cut);
    return cut != std::string_view::npos;
  };
  if (take_last(name.model) && take_last(name.owner)) {
    const size_t scheme = text.find("://");
    name.host = scheme == std::string_view::npos ? text : text.substr(scheme + 3);
  }
  for (const auto& [part, value] : {std::pair<Part, std::string_view>{Part::kModel, name.model},
                                    {Part::kTag, name.tag},
                                    {Part::kOwner, name.owner},
                                    {Part::kHost, name.host}}) {
    parsed.error = complaint(part, value);
    if (!parsed.error.empty()) break;
  }
  return parsed;
}

}  // namespace

bool starts_with_ignoring_case(std::string_view text, std::string_view prefix) {
  return text.size() >= prefix.size() &&
         std::equal(prefix.begin(), prefix.end(), text.begin(),
                    [](char a, char b) { return to_lower(a) == to_lower(b); });
}

ModelName ModelName::parse(std::string_view text) {
  ParsedName parsed = parse_name(text);
  if (!parsed.error.empty()) {
    throw Error("invalid model name \"" + std::string(text.substr(0, 500)) + "\": " + parsed.error);
  }
  return std::move(parsed.name);
}

std::optional<ModelName> ModelName::try_parse(std::string_view text) {
  ParsedName parsed = parse_name(text);
  if (!parsed.error.empty()) return std::nullopt;
  return std::move(parsed.name);
}

std::string ModelName::short_form() const {
  std::string text;
  const bool default_host = equal_ignoring_case(host, kDefaultHost);
  if (!default_host) text += host + "/";
  if (!default_host || !equal_ignoring_case(owner, kDefaultOwner)) text += owner + "/";
  return text + model + ":" + tag;
}

std::string ModelName::full_form() const {
  return host + "/" + owner + "/" + model + ":" + tag;
}

std::filesystem::path ModelName::relative_path() const {
  return std::filesystem::path(host) / owner / model / tag;
}

bool ModelName::same_as(const ModelName& other) const {
  return equal_ignoring_case(host, other.host) && equal_ignoring_case(owner, other.owner) &&
         equal_ignoring_case(model, other.model) && equal_ignoring_case(tag, other.tag);
}

}  // namespace dsctl::registry
