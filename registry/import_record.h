// ImportRecord: which file of the user a blob came from and how that file looked. It tells when a
// hard-linked original was written to after the import, and spares hashing a file twice.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "registry/digest.h"

namespace dsctl::registry {

/// Stored as JSON under <root>/.dsctl/imports/sha256-<hex>.
struct ImportRecord {
  std::string source;  // absolute path, for messages
  bool hard_link = false;
  uint64_t device = 0;
  uint64_t inode = 0;
  int64_t size_bytes = 0;
  int64_t mtime_ns = 0;
  int64_t recorded_ns = 0;  // by the clock that stamps files

  /// The record of a file with this status, now.
  static ImportRecord of(const std::filesystem::path& path, const struct stat& status);

  static std::optional<ImportRecord> load(const std::filesystem::path& root, const Digest& digest);
  static void store(const std::filesystem::path& root, const Digest& digest,
                    const std::string& json);
  static void remove(const std::filesystem::path& root, const Digest& digest);
  /// All records that can be read.
  static std::vector<std::pair<Digest, ImportRecord>> load_all(const std::filesystem::path& root);

  std::string to_json() const;

  /// True when the blob with this status is the imported file itself.
  bool is_link(const struct stat& blob) const;
  /// True when it is, and was written to since.
  bool is_changed_link(const struct stat& blob) const;
  /// True when a file with this status is the one that was hashed, unchanged. False in doubt: a
  /// file stamped in the last two seconds before the record could have changed unseen after it.
  bool vouches_for(const struct stat& file) const;
};

int64_t modification_time_ns(const struct stat& status);

}  // namespace dsctl::registry
