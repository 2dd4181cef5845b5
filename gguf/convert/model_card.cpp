#include "gguf/convert/model_card.h"

#include <map>

#include "gguf/convert/json_file.h"

namespace dsctl::gguf::convert {
namespace {

std::string_view trim(std::string_view text) {
  const auto is_space = [](char c) { return c == ' ' || c == '\t' || c == '\r'; };
  while (!text.empty() && is_space(text.front()))
    text.remove_prefix(1);
  while (!text.empty() && is_space(text.back()))
    text.remove_suffix(1);
  return text;
}

/// A scalar without its quotes and without a comment behind it.
std::string scalar(std::string_view text) {
  text = trim(text);
  if (text.size() >= 2 && (text.front() == '"' || text.front() == '\'')) {
    const size_t end = text.find(text.front(), 1);
    if (end != std::string_view::npos) return std::string(text.substr(1, end - 1));
  }
  if (const size_t comment = text.find(" #"); comment != std::string_view::npos) {
    text = trim(text.substr(0, comment));
  }
  if (text == "null" || text == "~") return "";
  return std::string(text);
}

using Values = std::map<std::string, std::vector<std::string>, std::less<>>;

/// A value on the key's own line: a scalar or [a, b].
std::vector<std::string> inline_values(std::string_view text) {
  text = trim(text);
  if (text.empty() || text.front() == '#') return {};
  if (text.front() != '[') {
    // Blocks and nested maps have no use here.
    if (text.front() == '|' || text.front() == '>' || text.front() == '{') return {};
    const std::string value = scalar(text);
    return value.empty() ? std::vector<std::string>() : std::vector<std::string>{value};
  }
  std::vector<std::string> values;
  text.remove_prefix(1);
  if (const size_t end = text.rfind(']'); end != std::string_view::npos) text = text.substr(0, end);
  while (!text.empty()) {
    const size_t comma = std::min(text.find(','), text.size());
    const std::string value = scalar(text.substr(0, comma));
    if (!value.empty()) values.push_back(value);
    text.remove_prefix(std::min(comma + 1, text.size()));
  }
  return values;
}

Values read_front_matter(std::string_view text) {
  Values values;
  std::vector<std::string>* list = nullptr;
  bool is_first = true;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    if (is_first) {
      if (line != "---") return {};
      is_first = false;
      continue;
    }
    if (line == "---") return values;
    const std::string_view item = trim(line);
    if (item.starts_with("- ")) {
      // "- a: b" is a map.
      const std::string value = scalar(item.substr(2));
      if (list && !value.empty() && value.find(": ") == std::string::npos) list->push_back(value);
      continue;
    }
    list = nullptr;
    if (line.empty() || line.front() == ' ' || line.front() == '\t' || line.front() == '#')
      continue;
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos) continue;
    auto& entry = values[std::string(trim(line.substr(0, colon)))];
    entry = inline_values(line.substr(colon + 1));
    list = &entry;
  }
  return {};  // no end
}

}  // namespace

ModelCard parse_model_card(std::string_view text) {
  const Values values = read_front_matter(text);
  const auto first = [&](std::initializer_list<const char*> keys) {
    for (const char* key : keys) {
      const auto found = values.find(key);
      if (found != values.end() && !found->second.empty()) return found->second.front();
    }
    return std::string();
  };
  const auto all = [&](std::initializer_list<const char*> keys) {
    std::vector<std::string> joined;
    for (const char* key : keys) {
      const auto found = values.find(key);
      if (found == values.end()) continue;
      joined.insert(joined.end(), found->second.begin(), found->second.end());
    }
    return joined;
  };
  const auto either = [&](std::initializer_list<const char*> keys) {
    for (const char* key : keys) {
      const auto found = values.find(key);
      if (found != values.end()) return found->second;
    }
    return std::vector<std::string>();
  };
  ModelCard card;
  card.name = first({"name", "model_name"});
  card.author = first({"author", "model_author", "model_creator"});
  card.version = first({"version", "model_version"});
  card.organization = first({"organization", "model_organization"});
  card.description = first({"description", "model_description"});
  card.finetune = first({"finetune", "model_finetune"});
  card.basename = first({"basename", "model_basename", "model_type"});
  card.size_label = first({"size_label", "model_size_label"});
  for (const std::string& license : all({"license"}))
    card.license += (card.license.empty() ? "" : ",") + license;
  card.license_name = first({"license_name"});
  card.license_link = first({"license_link"});
  card.base_models = either({"base_model", "base_models", "base_model_sources"});
  card.datasets = either({"datasets", "dataset", "dataset_sources"});
  card.tags = all({"tags", "pipeline_tag"});
  card.languages = all({"languages", "language"});
  return card;
}

ModelCard read_model_card(const std::filesystem::path& dir) {
  return parse_model_card(read_text(dir / "README.md", kMaxConfigBytes).value_or(""));
}

}  // namespace dsctl::gguf::convert
