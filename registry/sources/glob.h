// LfsFilter: which files of a repository are wanted, by the patterns that `git lfs pull --include
// --exclude` takes.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace dsctl::registry {

/// One pattern, as .gitignore has them. A pattern without a slash matches a name at any depth; one
/// with a slash starts at the root. `*`, `?` and `[a-z]` stay within a name, `**` crosses folders,
/// `\` takes the next character as it is. What matches a folder matches all in it; a final slash
/// makes it match folders only.
class LfsPattern {
 public:
  static constexpr size_t kMaxBytes = 4096;

  /// Throws Error when `text` is empty or too long.
  explicit LfsPattern(std::string_view text);
  bool matches(std::string_view path) const;

 private:
  std::vector<std::string> parts_;
  bool folders_only_ = false;
};

/// Include and exclude lists, patterns separated by commas. A path is wanted when it matches one of
/// the include list, or that is empty, and none of the exclude list.
class LfsFilter {
 public:
  LfsFilter() = default;
  LfsFilter(std::string_view include, std::string_view exclude);
  bool wants(std::string_view path) const;
  bool is_empty() const { return include_.empty() && exclude_.empty(); }

 private:
  std::vector<LfsPattern> include_;
  std::vector<LfsPattern> exclude_;
};

}  // namespace dsctl::registry
