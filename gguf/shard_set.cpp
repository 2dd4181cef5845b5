#include "gguf/shard_set.h"

#include <glob.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "gguf/error.h"
#include "gguf/foreign_file.h"
#include "gguf/printable.h"
#include "gguf/shard_parser.h"
#include "gguf/split.h"

namespace dsctl::gguf {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxListed = 3;  // file names in a message

std::string list_names(const std::vector<std::string>& names) {
  std::string text;
  for (size_t i = 0; i < names.size() && i < kMaxListed; ++i)
    text += (i > 0 ? ", " : "") + names[i];
  if (names.size() > kMaxListed) {
    text += " and " + std::to_string(names.size() - kMaxListed) + " more";
  }
  return text;
}

fs::path parent_of(const fs::path& path) {
  return path.parent_path().empty() ? "." : path.parent_path();
}

std::vector<fs::path> shards_in(const fs::path& directory) {
  std::vector<fs::path> shards;
  std::set<std::string> prefixes;
  std::error_code error;
  fs::directory_iterator entry(directory, error);
  for (const fs::directory_iterator end; !error && entry != end; entry.increment(error)) {
    const auto name = parse_shard_name(entry->path().filename().string());
    if (!name) continue;
    shards.push_back(entry->path());
    prefixes.insert(name->prefix);
  }
  if (error) throw Error(directory.string() + ": can't read the directory: " + error.message());
  if (shards.empty()) {
    throw Error(directory.string() +
                ": holds no shards (files named NAME-00001-of-0000N.gguf); name the files");
  }
  if (prefixes.size() > 1) {
    throw Error(directory.string() + ": holds shards of " + std::to_string(prefixes.size()) +
                " models (" + list_names({prefixes.begin(), prefixes.end()}) +
                "): name a shard of the one that is meant");
  }
  std::sort(shards.begin(), shards.end());
  return shards;
}

std::vector<fs::path> match_pattern(const fs::path& pattern) {
  glob_t found{};
  std::vector<fs::path> paths;
  if (::glob(pattern.c_str(), GLOB_NOSORT, nullptr, &found) == 0) {
    paths.assign(found.gl_pathv, found.gl_pathv + found.gl_pathc);
  }
  ::globfree(&found);
  if (paths.empty()) throw Error(pattern.string() + ": no file matches this pattern");
  std::sort(paths.begin(), paths.end());
  return paths;
}

/// The files that `inputs` name, each once.
std::vector<fs::path> expand(const std::vector<fs::path>& inputs) {
  std::vector<fs::path> files;
  const auto add = [&](const fs::path& path) {
    const bool is_known = std::any_of(files.begin(), files.end(), [&](const fs::path& file) {
      return file.lexically_normal() == path.lexically_normal();
    });
    if (!is_known) files.push_back(path);
  };
  for (const fs::path& input : inputs) {
    std::error_code error;
    const fs::file_status status = fs::status(input, error);
    if (fs::is_directory(status)) {
      for (const fs::path& path : shards_in(input))
        add(path);
    } else if (!fs::exists(status) && input.string().find_first_of("*?[") != std::string::npos) {
      for (const fs::path& path : match_pattern(input))
        add(path);
    } else {
      add(input);
    }
  }
  if (files.empty()) throw Error("no GGUF file given");
  return files;
}

/// The shards beside `path` under its name, those that are there.
std::vector<fs::path> siblings_of(const fs::path& path) {
  auto name = parse_shard_name(path.filename().string());
  if (!name) return {path};
  std::vector<fs::path> siblings;
  for (name->shard_idx = 0; name->shard_idx < name->n_shards; ++name->shard_idx) {
    std::error_code error;
    const fs::path sibling = path.parent_path() / shard_file_name(*name);
    if (fs::exists(sibling, error)) siblings.push_back(sibling);
  }
  return siblings;
}

std::optional<LfsPointer> read_pointer(const fs::path& path) {
  std::error_code error;
  if (!fs::is_regular_file(path, error) || fs::file_size(path, error) >= 1024) return std::nullopt;
  std::ifstream file(path, std::ios::binary);
  std::string text(1024, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(file.gcount()));
  return parse_lfs_pointer(text);
}

/// What `git lfs pull --include` wants for the files named `prefix` beside `path`: their path from
/// the top of the work tree.
std::string include_pattern(const fs::path& path) {
  std::error_code error;
  const fs::path full = fs::absolute(path, error).lexically_normal();
  const auto name = parse_shard_name(full.filename().string());
  const std::string last = name ? name->prefix + "*" : full.filename().string();
  for (fs::path top = full.parent_path(); top.has_relative_path(); top = top.parent_path()) {
    if (!fs::exists(top / ".git", error)) continue;
    return (full.parent_path().lexically_relative(top) / last).lexically_normal().string();
  }
  return last;
}

/// Throws when files of the set are Git-LFS pointers: one line for all of them.
void check_no_pointers(const std::vector<fs::path>& files) {
  std::vector<fs::path> all;
  for (const fs::path& file : files) {
    for (const fs::path& sibling : siblings_of(file)) {
      if (std::find(all.begin(), all.end(), sibling) == all.end()) all.push_back(sibling);
    }
  }
  size_t n_pointers = 0;
  int64_t size_bytes = 0;
  fs::path first;
  for (const fs::path& path : all) {
    const auto pointer = read_pointer(path);
    if (!pointer) continue;
    if (++n_pointers == 1) first = path;
    if (__builtin_add_overflow(size_bytes, pointer->size_bytes, &size_bytes)) size_bytes = 0;
  }
  if (n_pointers == 0) return;
  throw Error(first.string() + ": is a Git-LFS pointer, not the model itself (as are " +
              std::to_string(n_pointers) + " of the " + std::to_string(all.size()) +
              " files here; the real ones have " + printable_size(size_bytes) +
              "): run git lfs pull --include=\"" + include_pattern(first) +
              "\" in the repository, or fetch the model with dsctl pull --local-dir " +
              parent_of(first).string());
}

/// Files that name themselves as shards of one model and lie beside each other.
bool is_one_named_set(const std::vector<fs::path>& files) {
  std::set<std::pair<std::string, int>> sets;
  for (const fs::path& file : files) {
    const auto name = parse_shard_name(file.filename().string());
    if (!name) return false;
    sets.emplace(parent_of(file).lexically_normal().string() + "/" + name->prefix, name->n_shards);
  }
  return sets.size() == 1;
}

uint64_t find_split_number(const ParsedShard& shard, std::string_view key) {
  for (const KeyValue& entry : shard.metadata) {
    if (entry.key != key) continue;
    if (const auto* number = std::get_if<uint64_t>(&entry.value.data)) return *number;
    if (const auto* number = std::get_if<int64_t>(&entry.value.data)) {
      return *number < 0 ? 0 : static_cast<uint64_t>(*number);
    }
  }
  return 0;
}

/// Puts `files` in the order of their split.no and checks that each shard is there once.
std::vector<fs::path> order_by_content(const std::vector<fs::path>& files) {
  std::map<uint64_t, fs::path> by_number;
  uint64_t n_shards = 0;
  fs::path first;
  for (const fs::path& path : files) {
    const MappedFile file(path);
    const ParsedShard shard = parse_shard(file);
    const uint64_t count = find_split_number(shard, "split.count");
    const uint64_t number = find_split_number(shard, "split.no");
    if (count == 0) throw Error(path.string() + ": is no shard of a split model");
    if (n_shards == 0) {
      n_shards = count;
      first = path;
    }
    if (count != n_shards) {
      throw Error(path.string() + ": is one of " + std::to_string(count) + " shards, but " +
                  first.string() + " is one of " + std::to_string(n_shards) +
                  ": they are of two models");
    }
    const auto [twin, is_new] = by_number.emplace(number, path);
    if (is_new) continue;
    throw Error(path.string() + ": is shard " + std::to_string(number + 1) + " of " +
                std::to_string(n_shards) + ", and so is " + twin->second.string() +
                ": give each once");
  }
  std::vector<fs::path> ordered;
  std::vector<std::string> missing;
  for (uint64_t i = 0; i < std::min<uint64_t>(n_shards, 65536); ++i) {
    const auto found = by_number.find(i);
    if (found == by_number.end()) {
      missing.push_back(std::to_string(i + 1));
    } else {
      ordered.push_back(found->second);
    }
  }
  if (!missing.empty()) {
    throw Error("shards missing of the " + std::to_string(n_shards) + " that " + first.string() +
                " belongs to: " + list_names(missing) + "; give all of them");
  }
  return ordered;
}

}  // namespace

GgufFile open_shard_set(const std::vector<fs::path>& inputs) {
  const std::vector<fs::path> files = expand(inputs);
  check_no_pointers(files);
  if (files.size() == 1 || is_one_named_set(files)) return GgufFile::open(files.front());
  return GgufFile::open_shards(order_by_content(files));
}

}  // namespace dsctl::gguf
