#include "registry/blob_store.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "registry/error.h"
#include "registry/file_io.h"
#include "registry/import_record.h"

namespace dsctl::registry {

namespace fs = std::filesystem;

BlobStore::BlobStore(fs::path root) : root_(std::move(root)) {}

fs::path BlobStore::path_of(const Digest& digest) const {
  return blobs_dir() / digest.file_name();
}

bool BlobStore::has(const Digest& digest) const {
  std::error_code error;
  return fs::is_regular_file(path_of(digest), error);
}

std::string BlobStore::read(const Digest& digest, size_t max_bytes) const {
  std::optional<std::string> content = read_small_file(path_of(digest), max_bytes);
  if (!content) throw Error("blob " + digest.to_string() + " is missing");
  return std::move(*content);
}

void BlobStore::check(const Digest& digest, int64_t size_bytes) const {
  struct stat status {};
  if (::stat(path_of(digest).c_str(), &status) != 0) {
    if (errno != ENOENT) throw_errno(path_of(digest), "can't stat");
    throw Error("blob " + digest.to_string() + " is missing");
  }
  const auto record = ImportRecord::load(root_, digest);
  if (record && record->is_changed_link(status)) {
    throw Error("blob " + digest.to_string() + " shares its bytes with " + record->source +
                ", which was changed after it was imported; create the model again (with --copy to "
                "keep the two apart)");
  }
  if (status.st_size != size_bytes) {
    throw Error("blob " + digest.to_string() + " has " + std::to_string(status.st_size) +
                " bytes, its manifest says " + std::to_string(size_bytes));
  }
}

void BlobStore::publish(const StagedBlob& staged) const {
  const fs::path target = path_of(staged.digest);
  struct stat status {};
  const bool exists = ::stat(target.c_str(), &status) == 0 && S_ISREG(status.st_mode);
  const auto old = ImportRecord::load(root_, staged.digest);
  const bool old_is_link = exists && old && old->is_link(status);
  const bool keep = exists && status.st_size == staged.size_bytes &&
                    !(old_is_link && old->is_changed_link(status)) &&
                    !(old_is_link && staged.method != ImportMethod::kHardLink);
  if (!staged.import_record.empty() && !(keep && old_is_link)) {
    // Before the blob: a crash between the two leaves a record that fits no blob, which is
    // harmless.
    ImportRecord::store(root_, staged.digest, staged.import_record);
  }
  if (keep) return;
  if (::rename(staged.path.c_str(), target.c_str()) != 0) throw_errno(target, "can't publish");
}

int64_t BlobStore::remove(const Digest& digest) const {
  const fs::path path = path_of(digest);
  struct stat status {};
  const bool exists = ::stat(path.c_str(), &status) == 0;
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) throw_errno(path, "can't remove");
  ImportRecord::remove(root_, digest);
  return exists && status.st_nlink == 1 ? status.st_size : 0;
}

}  // namespace dsctl::registry
