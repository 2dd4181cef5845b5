// GitTree: the files of one commit of a git remote, fetched into a temporary repository without a
// work tree. Large files are pointers there, so little is fetched.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "registry/sources/credentials.h"

namespace dsctl::registry {

/// A file of the tree.
struct GitEntry {
  std::string path;  // checked (remote_path.h)
  std::string sha1;  // of the blob, 40 hex digits
  int64_t size_bytes = 0;
};

class GitTree {
 public:
  /// Fetches `revision` (branch, tag or commit; empty: the remote's default branch) of `url` (http,
  /// https or file; without user info, after redirects). `credentials` are sent with every request.
  /// Throws Error: not found, no such revision, not reachable, refused.
  GitTree(const std::string& url, const std::string& revision,
          const std::optional<Credentials>& credentials, std::stop_token stop);
  ~GitTree();
  GitTree(const GitTree&) = delete;
  GitTree& operator=(const GitTree&) = delete;

  const std::string& commit() const { return commit_; }
  const std::string& ref_name() const { return ref_name_; }  // "refs/heads/main", or empty
  const std::vector<GitEntry>& entries() const { return entries_; }

  /// The content of a blob of at most `max_bytes`; throws Error when it is larger.
  std::string read(const GitEntry& entry, int64_t max_bytes) const;
  /// Writes a blob to `target`.
  void write(const GitEntry& entry, const std::filesystem::path& target) const;

 private:
  struct Repository;
  std::unique_ptr<Repository> repository_;
  std::string commit_;
  std::string ref_name_;
  std::vector<GitEntry> entries_;
};

}  // namespace dsctl::registry
