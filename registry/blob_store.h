// BlobStore: content-addressed files. A blob under its final name is complete and is what its name
// says; everything unfinished lives in a staging directory that its owner holds locked.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "registry/digest.h"

namespace dsctl::registry {

/// Told now and then how far a long step is. May throw to give up: nothing stays behind.
using Progress = std::function<void(std::string_view what, int64_t done, int64_t total)>;

/// How a file of the user becomes a blob. Both share blocks by reflink where the file system can.
enum class ImportMode {
  kLink,  // else a hard link (one copy on disk); else a copy
  kCopy,  // else a copy, independent of the original
};

/// What `stage_file` did with the file.
enum class ImportMethod { kReflink, kHardLink, kCopy };

/// Holds the store's lock, so that one process at a time changes what is visible.
class StoreLock {
 public:
  /// Waits up to `timeout_ms` for the lock. `waiting` is told once, after a second, who holds it.
  /// Throws Error naming the holder when the time is over.
  StoreLock(const std::filesystem::path& root, std::string_view operation, int64_t timeout_ms,
            const std::function<void(std::string_view)>& waiting);
  ~StoreLock();
  StoreLock(const StoreLock&) = delete;
  StoreLock& operator=(const StoreLock&) = delete;

 private:
  int fd_ = -1;
};

/// A complete, verified file in staging that is not yet a blob.
struct StagedBlob {
  Digest digest;
  int64_t size_bytes = 0;
  std::filesystem::path path;  // inside the staging directory
  ImportMethod method = ImportMethod::kCopy;
  std::string import_record;  // JSON kept beside a blob that came from a file; may be empty
};

class BlobStore;

/// One creation in progress: a directory blobs/.dsctl-staging-*, locked against the cleaning of
/// others and removed when the object dies.
class Staging {
 public:
  /// Takes the store's lock for a moment: abandoned staging directories are removed first.
  explicit Staging(const BlobStore& store, const std::function<void(std::string_view)>& waiting);
  ~Staging();
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  /// Hashes `path` and links or copies it. The original is only read. Throws Error when it changes
  /// meanwhile.
  StagedBlob stage_file(const std::filesystem::path& path, ImportMode mode,
                        const Progress& progress);
  /// Writes and syncs `content`.
  StagedBlob stage_bytes(std::string_view content);

  /// A blob that arrives in pieces (an upload).
  class Writer {
   public:
    explicit Writer(Staging& staging);
    ~Writer();
    Writer(const Writer&) = delete;
    Writer& operator=(const Writer&) = delete;
    void write(std::span<const std::byte> data);
    /// Syncs and closes. Throws Error when `expected` is another digest.
    StagedBlob finish(const std::optional<Digest>& expected);

   private:
    std::filesystem::path path_;
    int fd_ = -1;
    int64_t size_bytes_ = 0;
    Hasher hasher_;
  };

  const std::filesystem::path& dir() const { return dir_; }

 private:
  std::filesystem::path next_path();
  std::optional<StagedBlob> known_file(const std::filesystem::path& path, int fd, ImportMode mode);

  const BlobStore& store_;
  std::filesystem::path dir_;
  int lock_fd_ = -1;
  std::atomic<int> n_files_{0};
};

/// Staging directories whose process is gone. Only under the store's lock is it sure that none of
/// them is just being made.
std::vector<std::filesystem::path> abandoned_staging(const BlobStore& store);

/// The blobs of a store. Reading needs no lock and writes nothing.
class BlobStore {
 public:
  explicit BlobStore(std::filesystem::path root);

  const std::filesystem::path& root() const { return root_; }
  std::filesystem::path blobs_dir() const { return root_ / "blobs"; }
  std::filesystem::path path_of(const Digest& digest) const;
  bool has(const Digest& digest) const;

  /// The content of a small blob. Throws Error when it is missing, or larger than `max_bytes`.
  std::string read(const Digest& digest, size_t max_bytes) const;

  /// Throws Error when the blob is missing, has not `size_bytes`, or is a hard link whose original
  /// was written to after the import. Does not read it.
  void check(const Digest& digest, int64_t size_bytes) const;

  /// Makes a staged blob visible. The caller holds the store's lock.
  void publish(const StagedBlob& staged) const;

  /// Removes a blob and its import record; no error when it is gone. The caller holds the lock.
  /// Returns the bytes that became free (0 for a hard link that lives on elsewhere).
  int64_t remove(const Digest& digest) const;

 private:
  std::filesystem::path root_;
};

}  // namespace dsctl::registry
