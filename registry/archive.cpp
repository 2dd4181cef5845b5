#include "registry/archive.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <map>
#include <set>

#include "registry/error.h"
#include "registry/file_io.h"
#include "registry/manifest_scan.h"

namespace dsctl::registry {
namespace {

namespace fs = std::filesystem;

constexpr size_t kChunkBytes = 4 << 20;
constexpr size_t kMaxModels = 10'000;
constexpr size_t kDigestNameBytes = 7 + 64;  // "sha256-" and the digits

std::string manifest_entry(const ModelName& name) {
  return (fs::path("manifests") / name.relative_path()).string();
}

std::string blob_entry(const Digest& digest) {
  return "blobs/" + digest.file_name();
}

int64_t to_unix_time(std::chrono::system_clock::time_point time) {
  return std::chrono::duration_cast<std::chrono::seconds>(time.time_since_epoch()).count();
}

/// What an archive will hold, in its order.
struct Contents {
  struct Blob {
    Digest digest;
    int64_t size_bytes = 0;
    int64_t mtime_s = 0;  // of the model: the same models give the same bytes
  };
  struct Model {
    ModelName name;
    std::string manifest;
    int64_t mtime_s = 0;
  };
  std::vector<Model> models;
  std::vector<Blob> blobs;  // the small ones of a model first

  int64_t size_bytes() const {
    int64_t total = 1024;  // the end mark
    for (const Model& model : models) {
      total += TarWriter::entry_bytes(manifest_entry(model.name),
                                      static_cast<int64_t>(model.manifest.size()));
    }
    for (const Blob& blob : blobs)
      total += TarWriter::entry_bytes(blob_entry(blob.digest), blob.size_bytes);
    return total;
  }
};

Contents contents_of(const Registry& registry, const std::vector<ModelName>& names) {
  Contents contents;
  std::set<ModelName> seen_names;
  std::set<Digest> seen_blobs;
  for (const ModelName& name : names) {
    const auto model = registry.find(name);  // checks that every blob is there
    if (!model) throw Error("model '" + name.short_form() + "' not found");
    if (!seen_names.insert(model->name).second) continue;
    const auto manifest = read_manifest(registry.root(), model->name);
    if (!manifest || Digest::of(*manifest) != model->digest) {
      throw Error("model '" + name.short_form() + "' was replaced meanwhile; try again");
    }
    const int64_t mtime_s = to_unix_time(model->modified_at);
    contents.models.push_back({model->name, *manifest, mtime_s});
    std::vector<Layer> layers = all_layers(model->manifest);
    std::stable_sort(layers.begin(), layers.end(), [](const Layer& a, const Layer& b) {
      return a.size_bytes < b.size_bytes && a.media_type != b.media_type;
    });
    for (const Layer& layer : layers) {
      if (!seen_blobs.insert(layer.digest).second) continue;
      contents.blobs.push_back({layer.digest, layer.size_bytes, mtime_s});
    }
  }
  return contents;
}

void copy_blob(const BlobStore& blobs, const Contents::Blob& blob, TarWriter& tar,
               std::vector<std::byte>& chunk) {
  const fs::path path = blobs.path_of(blob.digest);
  const FileDescriptor in = open_file(path, O_RDONLY);
  ::posix_fadvise(in.get(), 0, 0, POSIX_FADV_SEQUENTIAL);
  Hasher hasher;
  int64_t left = blob.size_bytes;
  while (left > 0) {
    const auto wanted = static_cast<size_t>(std::min<int64_t>(left, kChunkBytes));
    const ssize_t n = ::read(in.get(), chunk.data(), wanted);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw_errno(path, "can't read");
    if (n == 0) throw Error(path.string() + ": ends early; it was cut while it was read");
    hasher.update(std::span(chunk).first(static_cast<size_t>(n)));
    tar.write({reinterpret_cast<const char*>(chunk.data()), static_cast<size_t>(n)});
    left -= n;
  }
  const Digest found = hasher.finish();
  if (found != blob.digest) {
    throw Error("blob " + blob.digest.to_string() + " is damaged: its bytes have digest " +
                found.to_string() + "; run verify to see which models use it");
  }
}

ExportResult write_contents(const Registry& registry, const Contents& contents,
                            const std::function<void(std::string_view)>& write,
                            const Observer& observer) {
  const int64_t total = contents.size_bytes();
  int64_t done = 0;
  TarWriter tar([&](std::string_view data) {
    write(data);
    done += static_cast<int64_t>(data.size());
    if (observer.progress) observer.progress("exporting", done, total);
  });
  ExportResult result;
  for (const Contents::Model& model : contents.models) {
    tar.begin(manifest_entry(model.name), static_cast<int64_t>(model.manifest.size()),
              model.mtime_s);
    tar.write(model.manifest);
    result.models.push_back(model.name);
  }
  std::vector<std::byte> chunk(kChunkBytes);
  for (const Contents::Blob& blob : contents.blobs) {
    tar.begin(blob_entry(blob.digest), blob.size_bytes, blob.mtime_s);
    copy_blob(registry.blobs(), blob, tar, chunk);
  }
  tar.finish();
  result.n_blobs = contents.blobs.size();
  result.size_bytes = done;
  return result;
}

/// A file beside `path` that is removed unless it gets that name.
class TemporaryFile {
 public:
  explicit TemporaryFile(const fs::path& path)
      : path_(path), temporary_(path.string() + ".dsctl-" + std::to_string(::getpid())) {
    file_ = open_file(temporary_, O_WRONLY | O_CREAT | O_TRUNC);
  }
  ~TemporaryFile() {
    if (!temporary_.empty()) ::unlink(temporary_.c_str());
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;

  void write(std::string_view data) { write_all(file_.get(), data, temporary_); }
  void finish() {
    sync_file(file_.get(), temporary_);
    if (::rename(temporary_.c_str(), path_.c_str()) != 0) throw_errno(path_, "can't create");
    temporary_.clear();
    const fs::path dir = path_.parent_path();
    sync_dir(dir.empty() ? fs::path(".") : dir);
  }

 private:
  fs::path path_;
  fs::path temporary_;
  FileDescriptor file_;
};

void check_space(const fs::path& dir, int64_t needed, const std::string& what) {
  std::error_code error;
  const fs::space_info space = fs::space(dir, error);
  if (error || static_cast<uint64_t>(needed) <= space.available) return;
  throw Error(dir.string() + ": " + what + " needs " + std::to_string(needed) + " bytes, " +
              std::to_string(space.available) + " are free");
}

/// Collects what an archive holds, in staging.
class Importer {
 public:
  Importer(Registry& registry, TarReader& tar, const Observer& observer)
      : registry_(registry), tar_(tar), observer_(observer), chunk_(kChunkBytes) {}

  ImportResult run() {
    while (const auto entry = tar_.next())
      take(*entry);
    if (manifests_.empty()) throw Error("archive: holds no model");
    check_complete();
    // Nothing was missing: begin all the same, since that clears what killed imports left.
    if (!staging_) staging_.emplace(registry_.blobs(), observer_.status);
    std::vector<StagedBlob> needed;
    for (auto& [digest, blob] : staged_) {
      if (!named_.contains(digest)) continue;  // nobody's: goes with the staging directory
      result_.new_bytes += blob.size_bytes;
      needed.push_back(blob);
    }
    result_.n_new_blobs = needed.size();
    for (const NamedManifest& manifest : manifests_)
      result_.models.push_back(manifest.name);
    registry_.install(needed, manifests_, observer_);
    return result_;
  }

 private:
  void take(const TarEntry& entry) {
    std::string_view path = entry.path;
    while (path.starts_with("./"))
      path.remove_prefix(2);
    if (entry.type == TarEntryType::kDirectory) return;  // ours are made as they are needed
    if (entry.type != TarEntryType::kFile) {
      throw Error("archive: \"" + entry.path + "\" is a link or a special file, refused");
    }
    if (path.starts_with("blobs/")) {
      take_blob(path.substr(6), entry);
    } else if (path.starts_with("manifests/")) {
      take_manifest(path.substr(10), entry);
    } else {
      refuse(entry);
    }
  }

  [[noreturn]] static void refuse(const TarEntry& entry) {
    throw Error("archive: \"" + entry.path.substr(0, 200) +
                "\" is neither manifests/HOST/OWNER/MODEL/TAG nor blobs/sha256-HEX, refused");
  }

  void take_manifest(std::string_view path, const TarEntry& entry) {
    std::vector<std::string> parts;
    for (size_t begin = 0; begin <= path.size();) {
      const size_t end = std::min(path.find('/', begin), path.size());
      parts.emplace_back(path.substr(begin, end - begin));
      begin = end + 1;
    }
    if (parts.size() == 1 && path.starts_with('.')) return;  // our own temporary, or the like
    if (parts.size() != 4) refuse(entry);
    const auto name =
        ModelName::try_parse(parts[0] + "/" + parts[1] + "/" + parts[2] + ":" + parts[3]);
    if (!name || name->relative_path() != fs::path(path)) refuse(entry);
    if (entry.size_bytes > static_cast<int64_t>(Manifest::kMaxBytes)) {
      throw Error("archive: the manifest of " + name->short_form() + " has " +
                  std::to_string(entry.size_bytes) + " bytes, at most " +
                  std::to_string(Manifest::kMaxBytes) + " are allowed");
    }
    if (manifests_.size() == kMaxModels) {
      throw Error("archive: holds more than " + std::to_string(kMaxModels) + " models");
    }
    std::string json;
    while (const size_t n = tar_.read(chunk_))
      json.append(reinterpret_cast<const char*>(chunk_.data()), n);
    try {
      const Manifest manifest = Manifest::parse(json);
      for (const Layer& layer : all_layers(manifest))
        named_[layer.digest] = layer.size_bytes;
    } catch (const Error& error) {
      throw Error("archive: the manifest of " + name->short_form() + ": " + error.what());
    }
    for (const NamedManifest& other : manifests_) {
      if (other.name.same_as(*name)) {
        throw Error("archive: holds model " + name->short_form() + " twice");
      }
    }
    manifests_.push_back({*name, std::move(json)});
  }

  /// True when the store has this blob, as far as that can be seen without reading it.
  bool is_known(const Digest& digest, int64_t size_bytes) const {
    try {
      registry_.blobs().check(digest, size_bytes);
      return true;
    } catch (const Error&) {
      return false;
    }
  }

  void take_blob(std::string_view name, const TarEntry& entry) {
    const auto digest = Digest::parse(name);
    // A store that was archived whole may have an unfinished download in it.
    const bool is_partial = name.size() > kDigestNameBytes &&
                            Digest::parse(name.substr(0, kDigestNameBytes)) &&
                            name.find('/') == std::string_view::npos;
    if (is_partial) return;
    if (!digest || digest->file_name() != name) refuse(entry);
    if (staged_.contains(*digest)) {
      throw Error("archive: holds blob " + digest->to_string() + " twice");
    }
    if (is_known(*digest, entry.size_bytes)) {
      ++result_.n_known_blobs;
      return;
    }
    if (!staging_) {
      staging_.emplace(registry_.blobs(), observer_.status);
      total_bytes_ = missing_bytes();
      check_space(registry_.root(), total_bytes_, "the import");
    }
    check_space(registry_.root(), entry.size_bytes, "blob " + digest->to_string());
    Staging::Writer writer(*staging_);
    while (const size_t n = tar_.read(chunk_)) {
      writer.write(std::span(chunk_).first(n));
      done_bytes_ += static_cast<int64_t>(n);
      if (observer_.progress) observer_.progress("importing", done_bytes_, total_bytes_);
    }
    try {
      staged_[*digest] = writer.finish(digest);
    } catch (const Error& error) {
      throw Error("archive: blob " + digest->to_string() + ": " + error.what());
    }
  }

  /// Of the blobs that the manifests so far name.
  int64_t missing_bytes() const {
    int64_t total = 0;
    for (const auto& [digest, size_bytes] : named_) {
      if (!is_known(digest, size_bytes)) total += size_bytes;
    }
    return total;
  }

  void check_complete() const {
    for (const NamedManifest& manifest : manifests_) {
      const Manifest parsed = Manifest::parse(manifest.json);
      for (const Layer& layer : all_layers(parsed)) {
        const auto staged = staged_.find(layer.digest);
        if (staged == staged_.end() && is_known(layer.digest, layer.size_bytes)) continue;
        if (staged == staged_.end()) {
          throw Error("archive: lacks blob " + layer.digest.to_string() + " of model " +
                      manifest.name.short_form());
        }
        if (staged->second.size_bytes != layer.size_bytes) {
          throw Error("archive: blob " + layer.digest.to_string() + " has " +
                      std::to_string(staged->second.size_bytes) + " bytes, model " +
                      manifest.name.short_form() + " says " + std::to_string(layer.size_bytes));
        }
      }
      check_config(manifest.name, parsed.config);
    }
  }

  /// A config that can't be read would make a model that can be neither listed nor shown.
  void check_config(const ModelName& name, const Layer& config) const {
    const auto staged = staged_.find(config.digest);
    const fs::path path =
        staged == staged_.end() ? registry_.blobs().path_of(config.digest) : staged->second.path;
    try {
      ModelConfig::parse(read_small_file(path, Manifest::kMaxBytes).value_or(""));
    } catch (const Error& error) {
      throw Error("archive: the config of model " + name.short_form() + ": " + error.what());
    }
  }

  Registry& registry_;
  TarReader& tar_;
  const Observer& observer_;
  std::vector<std::byte> chunk_;
  std::vector<NamedManifest> manifests_;
  std::map<Digest, int64_t> named_;
  int64_t done_bytes_ = 0;
  int64_t total_bytes_ = 0;  // to be written; 0 where the manifests come last
  std::optional<Staging> staging_;
  std::map<Digest, StagedBlob> staged_;
  ImportResult result_;
};

ImportResult import_from(Registry& registry, int fd, const fs::path& path,
                         const Observer& observer) {
  struct stat status {};
  if (::fstat(fd, &status) != 0) throw_errno(path, "can't stat");
  if (S_ISDIR(status.st_mode)) throw Error(path.string() + ": is a directory, expected a tar file");
  TarInput input;
  input.read = [&path, fd](std::span<std::byte> out) {
    while (true) {
      const ssize_t n = ::read(fd, out.data(), out.size());
      if (n >= 0) return static_cast<size_t>(n);
      if (errno != EINTR) throw_errno(path, "can't read");
    }
  };
  if (S_ISREG(status.st_mode)) {
    ::posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    input.skip = [fd, end = status.st_size](int64_t n) {
      const off_t here = ::lseek(fd, 0, SEEK_CUR);
      // That a file ends before is found, and told, by reading on.
      return here >= 0 && n <= end - here && ::lseek(fd, n, SEEK_CUR) >= 0;
    };
  }
  return import_archive(registry, std::move(input), observer);
}

}  // namespace

int64_t archive_size_bytes(const Registry& registry, const std::vector<ModelName>& names) {
  return contents_of(registry, names).size_bytes();
}

ExportResult export_models(const Registry& registry, const std::vector<ModelName>& names,
                           const std::function<void(std::string_view)>& write,
                           const Observer& observer) {
  return write_contents(registry, contents_of(registry, names), write, observer);
}

ExportResult export_to_file(const Registry& registry, const std::vector<ModelName>& names,
                            const fs::path& path, Overwrite overwrite, const Observer& observer) {
  std::error_code error;
  if (fs::is_directory(path, error)) {
    throw Error(path.string() + ": is a directory, expected the name of a file");
  }
  if (overwrite == Overwrite::kNo && fs::exists(fs::symlink_status(path, error))) {
    throw Error(path.string() + ": exists already; --force replaces it");
  }
  const Contents contents = contents_of(registry, names);
  const fs::path dir = path.parent_path();
  check_space(dir.empty() ? fs::path(".") : dir, contents.size_bytes(), "the archive");
  TemporaryFile file(path);
  ExportResult result = write_contents(
      registry, contents, [&file](std::string_view data) { file.write(data); }, observer);
  file.finish();
  return result;
}

ExportResult export_to_stdout(const Registry& registry, const std::vector<ModelName>& names,
                              const Observer& observer) {
  return export_models(
      registry, names,
      [](std::string_view data) { write_all(STDOUT_FILENO, data, "standard output"); }, observer);
}

ImportResult import_archive(Registry& registry, TarInput input, const Observer& observer) {
  TarReader tar(std::move(input));
  return Importer(registry, tar, observer).run();
}

ImportResult import_from_file(Registry& registry, const fs::path& path, const Observer& observer) {
  const FileDescriptor file = open_file(path, O_RDONLY);
  return import_from(registry, file.get(), path, observer);
}

ImportResult import_from_stdin(Registry& registry, const Observer& observer) {
  return import_from(registry, STDIN_FILENO, "standard input", observer);
}

}  // namespace dsctl::registry
