#include "registry/sources/variants.h"

#include <algorithm>
#include <array>
#include <map>

#include "registry/model_name.h"

namespace dsctl::registry {
namespace {

constexpr std::string_view kEnding = ".gguf";
constexpr int kMaxShards = 10'000;

char to_upper(char c) {
  return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
}

std::string upper(std::string_view text) {
  std::string result(text);
  std::transform(result.begin(), result.end(), result.begin(), to_upper);
  return result;
}

bool equal_ignoring_case(std::string_view a, std::string_view b) {
  return a.size() == b.size() && starts_with_ignoring_case(a, b);
}

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

std::string_view base_name(std::string_view path) {
  return path.substr(path.rfind('/') + 1);  // npos + 1 == 0
}

std::string_view folder_of(std::string_view path) {
  const size_t slash = path.rfind('/');
  return slash == std::string_view::npos ? std::string_view() : path.substr(0, slash);
}

/// A GGUF file's name: "STEM.gguf" or "STEM-00001-of-00003.gguf".
struct GgufName {
  std::string stem;
  int shard = 0;  // from 1; 0: no shard
  int n_shards = 0;
};

std::optional<GgufName> parse_gguf_name(std::string_view name) {
  if (name.size() <= kEnding.size() ||
      !equal_ignoring_case(name.substr(name.size() - kEnding.size()), kEnding)) {
    return std::nullopt;
  }
  name.remove_suffix(kEnding.size());
  GgufName result;
  result.stem = name;
  // "-NNNNN-of-NNNNN"
  constexpr size_t kTail = 15;
  if (name.size() <= kTail) return result;
  const std::string_view tail = name.substr(name.size() - kTail);
  const auto number = [&](size_t begin) {
    int value = 0;
    for (const char c : tail.substr(begin, 5)) {
      if (!is_digit(c)) return -1;
      value = value * 10 + (c - '0');
    }
    return value;
  };
  if (tail[0] != '-' || tail.substr(6, 4) != "-of-" || number(1) < 0 || number(10) < 0) {
    return result;
  }
  result.stem = name.substr(0, name.size() - kTail);
  result.shard = number(1);
  result.n_shards = number(10);
  return result;
}

/// True for the words that stand for how weights are stored: Q4_K_M, IQ1_S, BF16, MXFP4_MOE.
bool is_quant(std::string_view word) {
  static constexpr std::array<std::string_view, 11> kPlain{
      "F32", "F16", "BF16", "FP32", "FP16", "FP8", "F64", "MXFP4", "MXFP4_MOE", "NVFP4", "I2_S"};
  if (std::find(kPlain.begin(), kPlain.end(), word) != kPlain.end()) return true;
  if (word.starts_with("IQ") || word.starts_with("TQ")) word.remove_prefix(1);
  if (word.size() < 2 || word[0] != 'Q' || word[1] < '1' || word[1] > '9') return false;
  word.remove_prefix(2);
  while (!word.empty()) {
    if (word[0] != '_') return false;
    const size_t end = std::min(word.find('_', 1), word.size());
    if (end < 2 || end > 5) return false;  // one to four letters or digits: K, XXS, 0, 4
    word.remove_prefix(end);
  }
  return true;
}

/// What comes first in `text` that is a quant when it is cut after '_'s: "LLAMA_Q4_K_M" ->
/// "Q4_K_M".
std::string quant_in_word(std::string_view word) {
  for (;;) {
    if (is_quant(word)) return std::string(word);
    const size_t cut = word.find('_');
    if (cut == std::string_view::npos) return "";
    word.remove_prefix(cut + 1);
  }
}

bool is_projector_name(std::string_view name) {
  return upper(name).find("MMPROJ") != std::string::npos;
}

bool is_model_name(std::string_view name) {
  const std::string text = upper(name);
  return text.find("IMATRIX") == std::string::npos && !is_projector_name(name);
}

/// One model's shards, by their number.
struct Group {
  std::string stem;
  int n_shards = 0;
  std::map<int, size_t> file_idxs;
  bool has_duplicate = false;
};

std::string problem_of(const Group& group) {
  if (group.n_shards == 0) return "";
  if (group.n_shards > kMaxShards) return "has " + std::to_string(group.n_shards) + " shards";
  if (group.has_duplicate) return "a shard is there twice";
  for (int shard = 1; shard <= group.n_shards; ++shard) {
    if (!group.file_idxs.contains(shard)) {
      return "shard " + std::to_string(shard) + " of " + std::to_string(group.n_shards) +
             " is missing";
    }
  }
  return static_cast<int>(group.file_idxs.size()) == group.n_shards ? "" : "has too many shards";
}

RemoteVariant make_variant(const Group& group, std::span<const RemoteFile> files) {
  RemoteVariant variant;
  variant.problem = problem_of(group);
  for (const auto& [shard, file_idx] : group.file_idxs) {
    variant.file_idxs.push_back(file_idx);
    variant.size_bytes += std::max<int64_t>(files[file_idx].size_bytes, 0);
  }
  variant.label = quant_label(group.stem);
  // "BF16/Model-00001-of-00030.gguf": the folder has the name.
  const std::string_view folder = folder_of(files[variant.file_idxs.front()].path);
  if (variant.label.empty()) variant.label = quant_label(base_name(folder));
  if (variant.label.empty()) variant.label = group.stem;
  return variant;
}

}  // namespace

std::string quant_label(std::string_view stem) {
  const std::string text = upper(stem);
  std::vector<std::string_view> words;
  for (std::string_view rest = text;;) {
    const size_t end = rest.find_first_of("-. ");
    words.push_back(rest.substr(0, end));
    if (end == std::string_view::npos) break;
    rest.remove_prefix(end + 1);
  }
  for (size_t i = words.size(); i-- > 0;) {
    std::string label = quant_in_word(words[i]);
    if (label.empty()) continue;
    const bool dynamic = i > 0 && label.size() == words[i].size() && words[i - 1] == "UD";
    return dynamic ? "UD-" + label : label;
  }
  return "";
}

GroupedFiles group_files(std::span<const RemoteFile> files) {
  GroupedFiles grouped;
  std::map<std::string, Group> groups;  // by folder, stem and number of shards
  for (size_t i = 0; i < files.size(); ++i) {
    const std::string_view name = base_name(files[i].path);
    const std::optional<GgufName> parsed = parse_gguf_name(name);
    if (!parsed) continue;
    if (is_projector_name(name)) grouped.projector_idxs.push_back(i);
    if (!is_model_name(name)) continue;
    const std::string key = std::string(folder_of(files[i].path)) + "/" + parsed->stem + "/" +
                            std::to_string(parsed->n_shards);
    Group& group = groups[key];
    group.stem = parsed->stem;
    group.n_shards = parsed->n_shards;
    if (!group.file_idxs.emplace(parsed->shard, i).second) group.has_duplicate = true;
  }
  std::map<std::string, int> n_with_label;
  for (const auto& [key, group] : groups) {
    grouped.variants.push_back(make_variant(group, files));
    ++n_with_label[grouped.variants.back().label];
  }
  for (RemoteVariant& variant : grouped.variants) {
    if (n_with_label[variant.label] < 2) continue;
    const std::string& path = files[variant.file_idxs.front()].path;
    variant.label = parse_gguf_name(base_name(path))->stem;
    const auto same = std::count_if(files.begin(), files.end(), [&](const RemoteFile& file) {
      return base_name(file.path) == base_name(path);
    });
    if (same > 1) variant.label = path.substr(0, path.size() - kEnding.size());
  }
  std::stable_sort(
      grouped.variants.begin(), grouped.variants.end(),
      [](const RemoteVariant& a, const RemoteVariant& b) { return a.size_bytes < b.size_bytes; });
  std::stable_sort(grouped.projector_idxs.begin(), grouped.projector_idxs.end(),
                   [&](size_t a, size_t b) { return files[a].size_bytes < files[b].size_bytes; });
  return grouped;
}

std::optional<size_t> find_variant(std::span<const RemoteVariant> variants,
                                   std::span<const RemoteFile> files, std::string_view selector) {
  const auto only = [&](const auto& fits) -> std::optional<size_t> {
    std::optional<size_t> found;
    for (size_t i = 0; i < variants.size(); ++i) {
      if (!fits(variants[i])) continue;
      if (found) return std::nullopt;
      found = i;
    }
    return found;
  };
  const auto has_file = [&](const RemoteVariant& variant) {
    return std::any_of(variant.file_idxs.begin(), variant.file_idxs.end(), [&](size_t file_idx) {
      const std::string_view path = files[file_idx].path;
      const std::string_view stem = path.substr(0, path.size() - kEnding.size());
      return equal_ignoring_case(path, selector) || equal_ignoring_case(stem, selector) ||
             equal_ignoring_case(base_name(path), selector) ||
             equal_ignoring_case(base_name(stem), selector);
    });
  };
  if (selector.empty()) return std::nullopt;
  if (const auto found = only([&](const RemoteVariant& variant) {
        return equal_ignoring_case(variant.label, selector);
      })) {
    return found;
  }
  if (const auto found = only(has_file)) return found;
  return only([&](const RemoteVariant& variant) {
    const std::string& label = variant.label;
    return label.size() > selector.size() + 1 && label[label.size() - selector.size() - 1] == '-' &&
           equal_ignoring_case(std::string_view(label).substr(label.size() - selector.size()),
                               selector);
  });
}

std::optional<size_t> choose_projector(std::span<const size_t> projector_idxs,
                                       std::span<const RemoteFile> files) {
  for (const std::string_view wanted : {"F16", "BF16", "F32"}) {
    for (const size_t file_idx : projector_idxs) {
      const auto name = parse_gguf_name(base_name(files[file_idx].path));
      if (name && quant_label(name->stem) == wanted) return file_idx;
    }
  }
  if (projector_idxs.empty()) return std::nullopt;
  return projector_idxs.front();
}

}  // namespace dsctl::registry
