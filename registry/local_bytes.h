// Bytes of remote files that are on this machine already, because git-lfs, huggingface_hub or
// ModelScope's client brought them, whole or in part. Nothing is believed before it is hashed.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "registry/blob_store.h"
#include "registry/download.h"
#include "registry/sources/source.h"

namespace dsctl::registry {

/// Where another program may have left bytes of a repository's files.
struct LocalPlaces {
  std::filesystem::path dir;  // of --local-dir: a clone, or what huggingface_hub filled; or empty
  std::filesystem::path hub_cache;         // huggingface_hub's cache of this repository, or empty
  std::filesystem::path modelscope_cache;  // ModelScope's, or empty

  /// The places for `ref`, by the environment (HF_HUB_CACHE, HF_HOME, MODELSCOPE_CACHE).
  static LocalPlaces of(const RemoteRef& ref, const std::filesystem::path& local_dir);
};

/// A file that may be another one's content.
struct LocalBytes {
  std::filesystem::path path;
  bool may_share = false;  // its blocks and inode may be shared with a hard link
};

/// Files of the right size, best first; the file's own place in a local directory is not one.
std::vector<LocalBytes> find_whole(const RemoteFile& file, const LocalPlaces& places);

/// A beginning of the file that an interrupted program left, or nothing. `may_share`: it may be
/// moved.
std::optional<LocalBytes> find_beginning(const RemoteFile& file, const LocalPlaces& places);

/// Whether the file at `path` has the content of `file`: by SHA-256 or git's SHA-1, else by size.
/// False when it can't be read.
bool has_content(const std::filesystem::path& path, const RemoteFile& file,
                 const Progress& progress);

/// Puts the content of `source` at `target`, all or nothing: by reflink, else by hard link where
/// allowed, else as a copy.
void place_content(const LocalBytes& source, const std::filesystem::path& target);

/// huggingface_hub notes beside a file of a local directory which content it has and when that was
/// so (.cache/huggingface/download/PATH.metadata). We believe such a note, and leave one.
bool is_noted(const std::filesystem::path& dir, const RemoteFile& file);
void write_note(const std::filesystem::path& dir, const RemoteFile& file, const Digest& sha256,
                const std::string& revision);

}  // namespace dsctl::registry
