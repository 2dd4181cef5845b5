#include "registry/prune.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <set>

#include "registry/error.h"
#include "registry/file_io.h"
#include "registry/import_record.h"
#include "registry/manifest_scan.h"

namespace dsctl::registry {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kLockTimeoutMs = 60'000;
constexpr size_t kDigestNameBytes = 7 + 64;  // "sha256-" and the digits

/// Names in a directory; none when there is no such directory.
std::vector<std::string> names_in(const fs::path& dir) {
  std::vector<std::string> names;
  std::error_code error;
  fs::directory_iterator entry(dir, error);
  for (const fs::directory_iterator end; !error && entry != end; entry.increment(error))
    names.push_back(entry->path().filename().string());
  if (error && error != std::errc::no_such_file_or_directory) {
    throw Error(dir.string() + ": " + error.message());
  }
  std::sort(names.begin(), names.end());
  return names;
}

struct stat status_of(const fs::path& path) {
  struct stat status {};
  if (::lstat(path.c_str(), &status) != 0) status = {};
  return status;
}

/// What the files of one unfinished download have in common: "<key>" of "<key>-partial" with any
/// ending. Keys are "sha256-<hex>" (Ollama's too), "git-<hex>" and "path-<hex>".
std::optional<std::string> download_of(const std::string& name) {
  const bool is_ours = name.starts_with("git-") || name.starts_with("path-");
  if (is_ours) {
    const size_t end = name.find("-partial");
    return end == std::string::npos ? std::nullopt : std::optional(name.substr(0, end));
  }
  if (name.size() <= kDigestNameBytes) return std::nullopt;
  const std::string key = name.substr(0, kDigestNameBytes);
  return Digest::parse(key) ? std::optional(key) : std::nullopt;
}

/// Since the file got its content, its name or its last link.
std::chrono::seconds age_of(const struct stat& status) {
  const auto now = std::chrono::duration_cast<std::chrono::seconds>(
      std::chrono::system_clock::now().time_since_epoch());
  return now - std::chrono::seconds(std::max(status.st_mtim.tv_sec, status.st_ctim.tv_sec));
}

/// True when a process holds flock(2) on the file: a download in progress.
bool is_locked(const fs::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return errno != ENOENT;  // in doubt
  const FileDescriptor file(fd);
  return ::flock(fd, LOCK_EX | LOCK_NB) != 0;
}

int64_t bytes_on_disk(const struct stat& status) {
  // A partial file is sparse: its size says little.
  return static_cast<int64_t>(status.st_blocks) * 512;
}

int64_t tree_bytes(const fs::path& dir) {
  int64_t total = 0;
  std::error_code error;
  fs::recursive_directory_iterator entry(dir, error);
  for (const fs::recursive_directory_iterator end; !error && entry != end; entry.increment(error)) {
    const struct stat status = status_of(entry->path());
    if (S_ISREG(status.st_mode) && status.st_nlink == 1) total += bytes_on_disk(status);
  }
  return total;
}

class Pruner {
 public:
  Pruner(const Registry& registry, const PruneOptions& options)
      : registry_(registry), options_(options) {}

  PruneResult run() {
    find_partials();
    find_blobs();
    find_staging();
    find_records();
    find_empty_directories(registry_.root() / "manifests", 0);
    for (const PruneItem& item : result_.items)
      result_.freed_bytes += item.freed_bytes;
    return std::move(result_);
  }

 private:
  bool removes() const { return options_.mode == PruneOptions::Mode::kRemove; }
  fs::path blobs_dir() const { return registry_.blobs().blobs_dir(); }

  void add(PruneKind kind, const fs::path& path, int64_t freed_bytes) {
    result_.items.push_back({kind, path.lexically_relative(registry_.root()), freed_bytes});
  }

  void find_blobs() {
    const BlobUses uses = read_blob_uses(registry_.root());
    if (!uses.unknown.empty()) {
      result_.notes.push_back("blobs were kept, because " + uses.unknown);
      return;
    }
    // Shards of a model are blobs before the last of them has come and the manifest is written.
    const auto age_limit =
        has_young_partial_ ? std::max(options_.blob_age, options_.partial_age) : options_.blob_age;
    size_t n_young = 0;
    for (const std::string& name : names_in(blobs_dir())) {
      const auto digest = Digest::parse(name);
      if (!digest || digest->file_name() != name || uses.blobs.contains(*digest)) continue;
      const struct stat status = status_of(blobs_dir() / name);
      if (is_downloading_ || age_of(status) < age_limit) {
        ++n_young;
        continue;
      }
      add(PruneKind::kBlob, blobs_dir() / name, status.st_nlink == 1 ? status.st_size : 0);
      if (removes()) registry_.blobs().remove(*digest);
    }
    if (n_young > 0) {
      result_.notes.push_back(std::to_string(n_young) + " unused blob" +
                              (n_young == 1 ? " was" : "s were") + " kept: " +
                              (is_downloading_ || has_young_partial_
                                   ? "an unfinished pull may need "
                                   : "so new that a pull or an import may need ") +
                              (n_young == 1 ? "it" : "them"));
    }
  }

  /// All files of one download go or stay together.
  void find_partials() {
    std::map<std::string, std::vector<fs::path>> downloads;
    for (const std::string& name : names_in(blobs_dir())) {
      if (const auto key = download_of(name)) downloads[*key].push_back(blobs_dir() / name);
    }
    for (const auto& [key, paths] : downloads) {
      std::chrono::seconds age = std::chrono::seconds::max();
      for (const fs::path& path : paths)
        age = std::min(age, age_of(status_of(path)));
      if (std::any_of(paths.begin(), paths.end(), is_locked)) {
        is_downloading_ = true;
        result_.notes.push_back("the partial download " + key + " was kept: a process is at it");
        continue;
      }
      if (age < options_.partial_age) {
        has_young_partial_ = true;
        result_.notes.push_back("the partial download " + key + " was kept: it is less than " +
                                age_text() + " old");
        continue;
      }
      for (const fs::path& path : paths) {
        const struct stat status = status_of(path);
        add(PruneKind::kPartial, path, status.st_nlink == 1 ? bytes_on_disk(status) : 0);
        if (removes() && ::unlink(path.c_str()) != 0 && errno != ENOENT) {
          throw_errno(path, "can't remove");
        }
      }
    }
  }

  std::string age_text() const {
    const auto hours = std::chrono::duration_cast<std::chrono::hours>(options_.partial_age).count();
    if (hours >= 48) return std::to_string(hours / 24) + " days";
    if (hours >= 2) return std::to_string(hours) + " hours";
    return std::to_string(options_.partial_age.count()) + " seconds";
  }

  void find_staging() {
    for (const fs::path& dir : abandoned_staging(registry_.blobs())) {
      add(PruneKind::kStaging, dir, tree_bytes(dir));
      if (!removes()) continue;
      std::error_code error;
      fs::remove_all(dir, error);
      if (error) throw Error(dir.string() + ": can't remove: " + error.message());
    }
  }

  void find_records() {
    for (const auto& [digest, record] : ImportRecord::load_all(registry_.root())) {
      if (registry_.blobs().has(digest)) continue;
      const fs::path path = registry_.root() / ".dsctl" / "imports" / digest.file_name();
      add(PruneKind::kRecord, path, 0);
      if (removes()) ImportRecord::remove(registry_.root(), digest);
    }
  }

  /// True when nothing is in `dir`, or only what could be removed.
  bool find_empty_directories(const fs::path& dir, int level) {
    constexpr int kTagLevel = 4;  // host, owner, model, tag
    bool empty = true;
    for (const std::string& name : names_in(dir)) {
      const fs::path path = dir / name;
      const bool is_dir = S_ISDIR(status_of(path).st_mode) && level < kTagLevel;
      if (!is_dir || !find_empty_directories(path, level + 1)) empty = false;
    }
    if (level == 0 || !empty) return false;
    add(PruneKind::kDirectory, dir, 0);
    if (removes() && ::rmdir(dir.c_str()) != 0 && errno != ENOENT) {
      throw_errno(dir, "can't remove");
    }
    return true;
  }

  const Registry& registry_;
  const PruneOptions& options_;
  bool is_downloading_ = false;     // a process holds a partial download
  bool has_young_partial_ = false;  // one was kept that nobody holds
  PruneResult result_;
};

}  // namespace

std::string_view prune_kind_name(PruneKind kind) {
  switch (kind) {
    case PruneKind::kBlob:
      return "blob";
    case PruneKind::kPartial:
      return "partial";
    case PruneKind::kStaging:
      return "staging";
    case PruneKind::kDirectory:
      return "directory";
    case PruneKind::kRecord:
      return "record";
  }
  return "";
}

PruneResult prune(const Registry& registry, const PruneOptions& options, const Observer& observer) {
  std::error_code error;
  if (!fs::exists(registry.root(), error)) return {};
  if (options.mode == PruneOptions::Mode::kDryRun) return Pruner(registry, options).run();
  const StoreLock lock(registry.root(), "prune", kLockTimeoutMs, observer.status);
  return Pruner(registry, options).run();
}

}  // namespace dsctl::registry
