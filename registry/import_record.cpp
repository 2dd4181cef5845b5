#include "registry/import_record.h"

#include <unistd.h>

#include <cerrno>
#include <ctime>
#include <nlohmann/json.hpp>

#include "registry/error.h"
#include "registry/file_io.h"

namespace dsctl::registry {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr size_t kMaxBytes = 65536;

fs::path records_dir(const fs::path& root) {
  return root / ".dsctl" / "imports";
}

// A record is advice: one that is damaged counts as absent.
std::optional<ImportRecord> parse_record(const std::string& text) {
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return std::nullopt;
  for (const char* key : {"device", "inode", "size", "mtime_ns", "recorded_ns"}) {
    if (!json.contains(key) || !json[key].is_number_integer()) return std::nullopt;
  }
  if (!json.contains("source") || !json["source"].is_string()) return std::nullopt;
  if (!json.contains("hard_link") || !json["hard_link"].is_boolean()) return std::nullopt;
  ImportRecord record;
  record.source = json["source"].get<std::string>();
  record.hard_link = json["hard_link"].get<bool>();
  record.device = json["device"].get<uint64_t>();
  record.inode = json["inode"].get<uint64_t>();
  record.size_bytes = json["size"].get<int64_t>();
  record.mtime_ns = json["mtime_ns"].get<int64_t>();
  record.recorded_ns = json["recorded_ns"].get<int64_t>();
  return record;
}

}  // namespace

int64_t modification_time_ns(const struct stat& status) {
  return status.st_mtim.tv_sec * 1'000'000'000LL + status.st_mtim.tv_nsec;
}

ImportRecord ImportRecord::of(const fs::path& path, const struct stat& status) {
  ImportRecord record;
  std::error_code ignored;
  record.source = fs::absolute(path, ignored).string();
  record.device = status.st_dev;
  record.inode = status.st_ino;
  record.size_bytes = status.st_size;
  record.mtime_ns = modification_time_ns(status);
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  record.recorded_ns = now.tv_sec * 1'000'000'000LL + now.tv_nsec;
  return record;
}

std::optional<ImportRecord> ImportRecord::load(const fs::path& root, const Digest& digest) {
  const auto text = read_small_file(records_dir(root) / digest.file_name(), kMaxBytes);
  return text ? parse_record(*text) : std::nullopt;
}

void ImportRecord::store(const fs::path& root, const Digest& digest, const std::string& json) {
  const fs::path dir = records_dir(root);
  create_directories_synced(dir);
  // The caller holds the store's lock, so one name for all temporaries is enough and cleans itself.
  replace_file(dir / digest.file_name(), dir / ".new", json);
}

void ImportRecord::remove(const fs::path& root, const Digest& digest) {
  const fs::path path = records_dir(root) / digest.file_name();
  if (::unlink(path.c_str()) != 0 && errno != ENOENT && errno != ENOTDIR) {
    throw_errno(path, "can't remove");
  }
}

std::vector<std::pair<Digest, ImportRecord>> ImportRecord::load_all(const fs::path& root) {
  std::vector<std::pair<Digest, ImportRecord>> records;
  std::error_code error;
  for (fs::directory_iterator entry(records_dir(root), error), end; !error && entry != end;
       entry.increment(error)) {
    const auto digest = Digest::parse(entry->path().filename().string());
    if (!digest) continue;
    if (auto record = load(root, *digest)) records.emplace_back(*digest, std::move(*record));
  }
  return records;
}

std::string ImportRecord::to_json() const {
  Json json;
  json["source"] = source;
  json["hard_link"] = hard_link;
  json["device"] = device;
  json["inode"] = inode;
  json["size"] = size_bytes;
  json["mtime_ns"] = mtime_ns;
  json["recorded_ns"] = recorded_ns;
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

bool ImportRecord::is_link(const struct stat& blob) const {
  // The device number may change when the machine starts; the inode does not.
  return hard_link && blob.st_ino == inode;
}

bool ImportRecord::is_changed_link(const struct stat& blob) const {
  return is_link(blob) && (blob.st_size != size_bytes || modification_time_ns(blob) != mtime_ns);
}

bool ImportRecord::vouches_for(const struct stat& file) const {
  constexpr int64_t kDoubtNs = 2'000'000'000;
  return file.st_dev == device && file.st_ino == inode && file.st_size == size_bytes &&
         modification_time_ns(file) == mtime_ns && mtime_ns < recorded_ns - kDoubtNs;
}

}  // namespace dsctl::registry
