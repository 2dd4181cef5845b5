#include "registry/verify.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <exception>
#include <map>
#include <mutex>
#include <set>
#include <thread>

#include "registry/error.h"
#include "registry/file_io.h"
#include "registry/import_record.h"
#include "registry/manifest_scan.h"

namespace dsctl::registry {
namespace {

namespace fs = std::filesystem;

constexpr size_t kChunkBytes = 4 << 20;
constexpr int64_t kLockTimeoutMs = 60'000;

/// One blob to look at.
struct Job {
  Digest digest;
  int64_t size_bytes = -1;  // as manifests say; -1: none names it
  std::vector<ModelName> models;
};

/// The blobs of the models called `names`.
std::vector<Job> jobs_of(const Registry& registry, const std::vector<ModelName>& names,
                         VerifyResult& result) {
  std::map<Digest, Job> jobs;
  for (const ModelName& name : names) {
    const auto stored = registry.stored_name(name);
    const auto json = stored ? read_manifest(registry.root(), *stored) : std::nullopt;
    if (!json) throw Error("model '" + name.short_form() + "' not found");
    ++result.n_models;
    try {
      for (const Layer& layer : all_layers(Manifest::parse(*json))) {
        Job& job = jobs[layer.digest];
        job.digest = layer.digest;
        job.size_bytes = layer.size_bytes;
        if (job.models.empty() || job.models.back() != *stored) job.models.push_back(*stored);
      }
    } catch (const Error& error) {
      throw Error("model '" + stored->short_form() + "': " + error.what());
    }
  }
  std::vector<Job> list;
  for (auto& [digest, job] : jobs)
    list.push_back(std::move(job));
  return list;
}

/// Every blob that a manifest names or that is there.
std::vector<Job> all_jobs(const Registry& registry, VerifyResult& result) {
  BlobUses uses = read_blob_uses(registry.root());
  result.problems = std::move(uses.problems);
  std::map<Digest, Job> jobs;
  std::set<ModelName> models;
  for (auto& [digest, use] : uses.blobs) {
    models.insert(use.models.begin(), use.models.end());
    jobs[digest] = {digest, use.size_bytes, std::move(use.models)};
  }
  result.n_models = models.size();
  std::error_code error;
  fs::directory_iterator entry(registry.blobs().blobs_dir(), error);
  for (const fs::directory_iterator end; !error && entry != end; entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    const auto digest = Digest::parse(name);
    if (digest && digest->file_name() == name && !jobs.contains(*digest)) {
      jobs[*digest] = {*digest, -1, {}};
    }
  }
  if (error && error != std::errc::no_such_file_or_directory) {
    throw Error(registry.blobs().blobs_dir().string() + ": " + error.message());
  }
  std::vector<Job> list;
  for (auto& [digest, job] : jobs)
    list.push_back(std::move(job));
  return list;
}

/// State that the threads share.
struct Run {
  const BlobStore& blobs;
  const Progress& progress;
  std::vector<Job> jobs{};
  int64_t total_bytes = 0;
  std::atomic<size_t> next{0};
  std::atomic<bool> failed{false};
  std::mutex mutex{};  // guards what follows
  int64_t done_bytes = 0;
  std::vector<BadBlob> bad{};
  std::exception_ptr error{};
};

/// Why this blob is bad; empty when it is sound.
std::string check_job(Run& run, const Job& job, std::vector<std::byte>& chunk, uint64_t& inode) {
  const fs::path path = run.blobs.path_of(job.digest);
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0 && errno == ENOENT) return job.models.empty() ? "" : "missing";
  if (fd < 0) return "can't be opened: " + std::string(std::strerror(errno));
  const FileDescriptor file(fd);
  struct stat status {};
  if (::fstat(fd, &status) != 0) throw_errno(path, "can't stat");
  inode = status.st_ino;
  if (!S_ISREG(status.st_mode)) return "is no regular file";
  ::posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
  Hasher hasher;
  int64_t size_bytes = 0;
  while (!run.failed) {
    const ssize_t n = ::read(fd, chunk.data(), chunk.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return "can't be read: " + std::string(std::strerror(errno));
    if (n == 0) break;
    hasher.update(std::span(chunk).first(static_cast<size_t>(n)));
    size_bytes += n;
    const std::lock_guard lock(run.mutex);
    run.done_bytes += n;
    if (run.progress) run.progress("verifying", run.done_bytes, run.total_bytes);
  }
  const Digest found = hasher.finish();
  if (found == job.digest) {
    if (job.size_bytes < 0 || job.size_bytes == size_bytes) return "";
    return "has " + std::to_string(size_bytes) + " bytes, a manifest says " +
           std::to_string(job.size_bytes);
  }
  const auto record = ImportRecord::load(run.blobs.root(), job.digest);
  if (record && record->is_changed_link(status)) {
    return "shares its bytes with " + record->source + ", which was changed after it was imported";
  }
  if (job.size_bytes >= 0 && job.size_bytes != size_bytes) {
    return "has " + std::to_string(size_bytes) + " of " + std::to_string(job.size_bytes) + " bytes";
  }
  return "its bytes have digest " + found.to_string();
}

void work(Run& run) {
  try {
    std::vector<std::byte> chunk(kChunkBytes);
    while (!run.failed) {
      const size_t i = run.next.fetch_add(1);
      if (i >= run.jobs.size()) return;
      const Job& job = run.jobs[i];
      uint64_t inode = 0;
      std::string problem = check_job(run, job, chunk, inode);
      if (problem.empty()) continue;
      const std::lock_guard lock(run.mutex);
      run.bad.push_back({job.digest, std::move(problem), job.models, inode});
    }
  } catch (...) {
    const std::lock_guard lock(run.mutex);
    if (!run.error) run.error = std::current_exception();
    run.failed = true;
  }
}

int64_t size_on_disk(const BlobStore& blobs, const Digest& digest) {
  std::error_code error;
  const auto size_bytes = fs::file_size(blobs.path_of(digest), error);
  return error ? 0 : static_cast<int64_t>(size_bytes);
}

}  // namespace

VerifyResult verify(const Registry& registry, const std::vector<ModelName>& names, int n_threads,
                    const Progress& progress) {
  VerifyResult result;
  Run run{registry.blobs(), progress};
  run.jobs = names.empty() ? all_jobs(registry, result) : jobs_of(registry, names, result);
  result.n_blobs = run.jobs.size();
  std::vector<int64_t> sizes;
  std::map<Digest, int64_t> size_of;
  for (const Job& job : run.jobs) {
    size_of[job.digest] = size_on_disk(registry.blobs(), job.digest);
    run.total_bytes += size_of[job.digest];
  }
  // The largest first: one thread's long blob must not start when the others are done.
  std::stable_sort(run.jobs.begin(), run.jobs.end(), [&](const Job& a, const Job& b) {
    return size_of[a.digest] > size_of[b.digest];
  });
  const size_t n_cores = std::max(1U, std::thread::hardware_concurrency());
  const size_t wanted = n_threads > 0 ? static_cast<size_t>(n_threads) : n_cores;
  {
    std::vector<std::jthread> threads;
    for (size_t i = 1; i < std::min(wanted, run.jobs.size()); ++i)
      threads.emplace_back([&run] { work(run); });
    work(run);
  }
  if (run.error) std::rethrow_exception(run.error);
  result.read_bytes = run.done_bytes;
  result.bad = std::move(run.bad);
  std::sort(result.bad.begin(), result.bad.end(),
            [](const BadBlob& a, const BadBlob& b) { return a.digest < b.digest; });
  return result;
}

std::vector<Digest> remove_bad(const Registry& registry, const std::vector<BadBlob>& bad,
                               const Observer& observer) {
  std::vector<Digest> removed;
  if (bad.empty()) return removed;
  const StoreLock lock(registry.root(), "verify", kLockTimeoutMs, observer.status);
  for (const BadBlob& blob : bad) {
    struct stat status {};
    const bool there = ::stat(registry.blobs().path_of(blob.digest).c_str(), &status) == 0;
    if (!there || status.st_ino != blob.inode) continue;
    registry.blobs().remove(blob.digest);
    removed.push_back(blob.digest);
  }
  return removed;
}

}  // namespace dsctl::registry
