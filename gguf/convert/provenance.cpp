#include "gguf/convert/provenance.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <cstdio>
#include <optional>
#include <set>
#include <vector>

#include "gguf/convert/model_card.h"

namespace dsctl::gguf::convert {
namespace {

namespace fs = std::filesystem;

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
bool is_alpha(char c) {
  return std::isalpha(static_cast<unsigned char>(c)) != 0;
}
char lower(char c) {
  return static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
}
char upper(char c) {
  return static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
}

std::string lower(std::string_view text) {
  std::string result(text);
  std::transform(result.begin(), result.end(), result.begin(), [](char c) { return lower(c); });
  return result;
}

size_t skip_digits(std::string_view text, size_t at) {
  while (at < text.size() && is_digit(text[at]))
    ++at;
  return at;
}

/// "2", "v1.5", "iter3".
bool is_version(std::string_view part) {
  std::string text = lower(part);
  if (text.starts_with("iter")) {
    text.erase(0, 4);
  } else if (text.starts_with("v")) {
    text.erase(0, 1);
  }
  size_t at = skip_digits(text, 0);
  if (at == 0) return false;
  while (at < text.size()) {
    if (text[at] != '.') return false;
    const size_t next = skip_digits(text, at + 1);
    if (next == at + 1) return false;
    at = next;
  }
  return true;
}

/// "q4_k", "iq2", "bf16", "fp32".
bool is_type(std::string_view part) {
  const std::string text = lower(part);
  for (const std::string_view name :
       {"f16", "f32", "fp16", "fp32", "bf16", "bf32", "bfp16", "bfp32"}) {
    if (text == name) return true;
  }
  size_t at = text.starts_with("i") ? 1 : 0;
  if (at >= text.size() || text[at] != 'q' || at + 1 >= text.size() || !is_digit(text[at + 1])) {
    return false;
  }
  at += 2;
  while (at + 1 < text.size() && text[at] == '_' &&
         std::isalnum(static_cast<unsigned char>(text[at + 1]))) {
    at += 2;
  }
  return at == text.size();
}

/// "7B", "8x22B", "A3B", "1.5b", "small", "xl".
bool is_size(std::string_view part) {
  const std::string text = lower(part);
  for (const std::string_view name : {"small", "mini", "medium", "large", "l", "xl", "xxl"}) {
    if (text == name) return name != "l";
  }
  size_t at = 0;
  if (text.starts_with("a")) {
    at = 1;
  } else {
    const size_t x = skip_digits(text, 0);
    if (x > 0 && x < text.size() && text[x] == 'x') at = x + 1;
  }
  const size_t digits = skip_digits(text, at);
  if (digits == at) return false;
  at = digits;
  if (at < text.size() && (text[at] == '.' || text[at] == '_')) {
    const size_t fraction = skip_digits(text, at + 1);
    if (fraction == at + 1) return false;
    at = fraction;
  }
  if (at == text.size() || std::string_view("kmbt").find(text[at]) == std::string_view::npos) {
    return false;
  }
  ++at;
  if (at < text.size() && is_digit(text[at])) ++at;
  return at == text.size();
}

bool is_known_finetune(std::string_view part) {
  const std::string text = lower(part);
  return text == "chat" || text == "instruct" || text == "vision" || text == "lora";
}

enum class Role { kBasename, kSize, kFinetune, kVersion, kType };

struct NamePart {
  std::string text;
  std::set<Role> roles;
  bool has(Role role) const { return roles.count(role) > 0; }
};

/// A size in a name counts when the model is about that large: it may be a context length.
void annotate_size(NamePart& part, int64_t n_parameters) {
  std::string& text = part.text;
  std::replace(text.begin(), text.end(), '_', '.');
  if (is_digit(text.back())) {  // "7b1" is 7.1B
    text = text.substr(0, text.size() - 2) + "." + text.back() + text[text.size() - 2];
  }
  if (text.size() > 1 && is_digit(text[text.size() - 2]) &&
      std::string_view("kmbt").find(text.back()) != std::string_view::npos) {
    text.back() = upper(text.back());
  }
  char* end = nullptr;
  const std::string digits = text.substr(0, text.size() - 1);
  const double number = std::strtod(digits.c_str(), &end);
  const size_t power = std::string_view(" KMBT").find(text.back());
  const bool is_number =
      !digits.empty() && end == digits.c_str() + digits.size() && power != std::string_view::npos;
  if (n_parameters != 0 && is_number) {
    const double size = number * std::pow(1000.0, static_cast<double>(power));
    if (std::abs(size - static_cast<double>(n_parameters)) >
        static_cast<double>(7 * n_parameters / 8)) {
      part.roles.insert(Role::kFinetune);
      text.back() = lower(text.back());
    }
  }
  if (part.roles.empty()) part.roles.insert(Role::kSize);
}

std::vector<NamePart> annotate(std::string_view name, int64_t n_parameters) {
  std::vector<NamePart> parts;
  size_t begin = 0;
  while (begin <= name.size()) {
    const size_t end = std::min(name.find('-', begin), name.size());
    if (end > begin) parts.push_back({std::string(name.substr(begin, end - begin)), {}});
    begin = end + 1;
  }
  for (size_t i = 0; i < parts.size(); ++i) {
    NamePart& part = parts[i];
    if (is_version(part.text)) {
      part.roles.insert(Role::kVersion);
    } else if (is_type(part.text)) {
      part.roles.insert(Role::kType);
      std::transform(part.text.begin(), part.text.end(), part.text.begin(),
                     [](char c) { return upper(c); });
    } else if (i > 0 && is_size(part.text)) {
      annotate_size(part, n_parameters);
    } else if (i > 0 && is_known_finetune(part.text)) {
      part.roles.insert(Role::kFinetune);
    }
  }
  return parts;
}

/// A size in words is left out beside one in numbers.
void drop_size_words(std::vector<NamePart>& parts) {
  const bool has_number = std::any_of(parts.begin(), parts.end(), [](const NamePart& part) {
    return part.has(Role::kSize) && std::any_of(part.text.begin(), part.text.end(), is_digit);
  });
  if (!has_number) return;
  for (NamePart& part : parts) {
    if (std::all_of(part.text.begin(), part.text.end(), is_alpha)) part.roles.erase(Role::kSize);
  }
}

void find_basename(std::vector<NamePart>& parts) {
  bool at_start = true;
  for (NamePart& part : parts) {
    const bool begins = (part.roles.empty() && is_alpha(part.text[0])) || part.has(Role::kVersion);
    if (at_start && begins) {
      part.roles.insert(Role::kBasename);
      continue;
    }
    at_start = false;
    if (part.roles.empty()) part.roles.insert(Role::kFinetune);
  }
  // A version at the end of the base name is the version.
  for (auto part = parts.rbegin(); part != parts.rend(); ++part) {
    if (!part->has(Role::kBasename) || part->roles.size() < 2) break;
    part->roles.erase(Role::kBasename);
  }
}

std::string join(const std::vector<NamePart>& parts, Role role, bool unique) {
  std::vector<std::string> found;
  for (const NamePart& part : parts) {
    if (!part.has(role) || (role == Role::kVersion && part.has(Role::kBasename))) continue;
    if (unique && std::find(found.begin(), found.end(), part.text) != found.end()) continue;
    found.push_back(part.text);
  }
  std::string text;
  for (const std::string& part : found)
    text += (text.empty() ? "" : "-") + part;
  return text;
}

/// "qwen3-0.6B-base" -> "Qwen3 0.6B Base": words in lower case get a capital.
std::string to_title(std::string_view id) {
  std::string title;
  size_t begin = 0;
  const auto is_separator = [&](char c) { return c == '-' || c == ' '; };
  while (begin < id.size()) {
    if (is_separator(id[begin])) {
      ++begin;
      continue;
    }
    size_t end = begin;
    while (end < id.size() && !is_separator(id[end]))
      ++end;
    std::string word(id.substr(begin, end - begin));
    begin = end;
    const bool has_letters = std::any_of(word.begin(), word.end(), is_alpha);
    const bool is_lower = has_letters && lower(word) == word;
    const bool is_number = is_digit(word[0]) || (word[0] == 'v' && is_version(word));
    if (is_lower && !is_number) {
      // A letter after anything but a letter is a capital.
      for (size_t i = 0; i < word.size(); ++i) {
        if (i == 0 || !is_alpha(word[i - 1])) word[i] = upper(word[i]);
      }
    }
    title += (title.empty() ? "" : " ") + word;
  }
  return title;
}

void set_if_unset(std::string& field, const std::string& value) {
  if (field.empty()) field = value;
}

void fill_from_id(std::string_view id, int64_t n_parameters, ModelCard& card) {
  const ModelIdParts parts = split_model_id(id, n_parameters);
  set_if_unset(card.name, to_title(parts.name));
  set_if_unset(card.organization, to_title(parts.organization));
  set_if_unset(card.basename, parts.basename);
  set_if_unset(card.finetune, parts.finetune);
  set_if_unset(card.version, parts.version);
  set_if_unset(card.size_label, parts.size_label);
}

void add_sampling(const fs::path& dir, MetadataList& metadata) {
  Json config = Json::object();
  if (const auto text = read_text(dir / "generation_config.json", kMaxConfigBytes)) {
    // Some checkpoints have a broken one; it is only advice.
    config = Json::parse(*text, nullptr, /*allow_exceptions=*/false);
    if (!config.is_object()) return;
  }
  const auto set_int = [&](const char* key, const char* source) {
    const Json* value = member(config, source);
    if (!value || !value->is_number_integer()) return;
    const int64_t number = value->get<int64_t>();
    if (number >= INT32_MIN && number <= INT32_MAX) {
      metadata.set(std::string("general.sampling.") + key, static_cast<int32_t>(number));
    }
  };
  const auto set_float = [&](const char* key, const char* source) {
    const Json* value = member(config, source);
    if (!value || !value->is_number()) return;
    metadata.set(std::string("general.sampling.") + key, value->get<float>());
  };
  set_int("top_k", "top_k");
  set_float("top_p", "top_p");
  set_float("min_p", "min_p");
  set_float("temp", "temperature");
  set_float("penalty_repeat", "repetition_penalty");
}

std::string rounded(int64_t n_parameters) {
  double scaled = static_cast<double>(n_parameters);
  std::string_view suffix = "K";
  if (scaled > 1e12) {
    scaled *= 1e-12;
    suffix = "T";
  } else if (scaled > 1e9) {
    scaled *= 1e-9;
    suffix = "B";
  } else if (scaled > 1e6) {
    scaled *= 1e-6;
    suffix = "M";
  } else {
    scaled *= 1e-3;
  }
  std::string digits = std::to_string(std::lrint(scaled));
  if (digits == "0") digits.clear();
  const int n_decimals = digits.size() >= 2 ? 0 : static_cast<int>(2 - digits.size());
  std::array<char, 64> text;
  std::snprintf(text.data(), text.size(), "%.*f", n_decimals, scaled);
  return text.data() + std::string(suffix);
}

void add_references(const std::string& prefix, const std::vector<std::string>& ids,
                    int64_t n_parameters, MetadataList& metadata) {
  if (ids.empty()) return;
  metadata.set("general." + prefix + ".count", static_cast<uint32_t>(ids.size()));
  for (size_t i = 0; i < ids.size(); ++i) {
    const std::string key = "general." + prefix + "." + std::to_string(i) + ".";
    std::string id = ids[i];
    std::string url;
    for (const std::string_view scheme : {"https://", "http://", "ssh://"}) {
      if (id.starts_with(scheme)) url = id;
    }
    if (!url.empty()) {
      const size_t host = url.find("://huggingface.co/");
      id = host == std::string::npos ? "" : url.substr(host + 18);
      if (std::count(id.begin(), id.end(), '/') != 1) id.clear();
    }
    if (!id.empty()) {
      const ModelIdParts parts = split_model_id(id, n_parameters);
      metadata.set(key + "name", to_title(parts.name));
      metadata.set(key + "version", parts.version);
      metadata.set(key + "organization", to_title(parts.organization));
      if (url.empty() && !parts.organization.empty()) {
        url = "https://huggingface.co/" + parts.organization + "/" + parts.name;
      }
    }
    metadata.set(key + "repo_url", url);
  }
}

}  // namespace

std::string size_label(const ParameterCount& count) {
  if (count.n_experts > 0) {
    return std::to_string(count.n_experts) + "x" + rounded(count.shared + count.experts);
  }
  return rounded(count.total);
}

ModelIdParts split_model_id(std::string_view id, int64_t n_parameters) {
  ModelIdParts result;
  if (id.find(' ') != std::string_view::npos) {
    result.name = id;
    return result;
  }
  if (const size_t slash = id.find('/'); slash != std::string_view::npos) {
    if (id[0] != '.') result.organization = id.substr(0, slash);
    id.remove_prefix(slash + 1);
  }
  result.name = id;
  std::vector<NamePart> parts = annotate(id, n_parameters);
  drop_size_words(parts);
  find_basename(parts);
  result.basename = join(parts, Role::kBasename, false);
  result.size_label = join(parts, Role::kSize, true);
  result.finetune = join(parts, Role::kFinetune, false);
  result.version = join(parts, Role::kVersion, false);
  // Too ambiguous then.
  if (result.size_label.empty() && result.finetune.empty() && result.version.empty()) {
    result.basename.clear();
  }
  return result;
}

void add_provenance(const fs::path& dir, const HfConfig& config, const ParameterCount& count,
                    const std::string& name, MetadataList& metadata) {
  ModelCard card = read_model_card(dir);
  const std::string path_name = config.find_string("_name_or_path").value_or("");
  if (!path_name.empty() && std::count(path_name.begin(), path_name.end(), '/') <= 1) {
    fill_from_id(path_name, count.total, card);
  }
  std::error_code error;
  const fs::path absolute = fs::weakly_canonical(dir, error);
  const fs::path& folder = absolute.filename().empty() ? absolute.parent_path() : absolute;
  fill_from_id(folder.filename().string(), count.total, card);
  if (!name.empty()) card.name = name;
  if (card.size_label.empty() && count.total > 0) card.size_label = size_label(count);

  metadata.set("general.type", "model");
  add_sampling(dir, metadata);
  metadata.set("general.name", card.name);
  metadata.set("general.author", card.author);
  metadata.set("general.version", card.version);
  metadata.set("general.organization", card.organization);
  metadata.set("general.finetune", card.finetune);
  metadata.set("general.basename", card.basename);
  metadata.set("general.description", card.description);
  metadata.set("general.size_label", card.size_label);
  metadata.set("general.license", card.license);
  metadata.set("general.license.name", card.license_name);
  metadata.set("general.license.link", card.license_link);
  add_references("base_model", card.base_models, count.total, metadata);
  add_references("dataset", card.datasets, count.total, metadata);
  metadata.set("general.tags", card.tags);
  metadata.set("general.languages", card.languages);
}

}  // namespace dsctl::gguf::convert
