#include "registry/weight_import.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <numeric>
#include <string>
#include <thread>

#include "registry/error.h"

namespace dsctl::registry {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxThreads = 4;  // more would outrun the disks that hold such models

/// State that the threads of one import share.
struct Import {
  Staging& staging;
  const std::vector<fs::path>& paths;
  ImportMode mode;
  const Progress& progress;
  int64_t total_bytes = 0;
  std::vector<StagedBlob> staged{};
  std::vector<int64_t> done_bytes{};  // guarded by mutex, as is error
  std::mutex mutex{};
  std::exception_ptr error{};
  std::atomic<size_t> next{0};
  std::atomic<bool> failed{false};
};

void report(Import& import, size_t path_idx, int64_t done) {
  if (import.failed) throw Error("given up");  // never seen: the first error is the one thrown
  if (!import.progress) return;
  const std::lock_guard lock(import.mutex);
  if (import.done_bytes[path_idx] == done) return;
  import.done_bytes[path_idx] = done;
  const int64_t all =
      std::accumulate(import.done_bytes.begin(), import.done_bytes.end(), int64_t{0});
  const std::string what = import.paths.size() == 1
                               ? "hashing " + import.paths[0].filename().string()
                               : "hashing " + std::to_string(import.paths.size()) + " files";
  import.progress(what, all, import.total_bytes);
}

void work(Import& import) {
  while (!import.failed) {
    const size_t i = import.next.fetch_add(1);
    if (i >= import.paths.size()) return;
    try {
      import.staged[i] = import.staging.stage_file(
          import.paths[i], import.mode,
          [&import, i](std::string_view, int64_t done, int64_t) { report(import, i, done);
    });
    std::error_code ignored;
    report(import, i, static_cast<int64_t>(fs::file_size(import.paths[i], ignored)));
  }
  catch (...) {
    const std::lock_guard lock(import.mutex);
    if (!import.error) import.error = std::current_exception();
    import.failed = true;
  }
}
}  // namespace

}  // namespace dsctl::registry

std::vector<StagedBlob> stage_files(Staging& staging, const std::vector<fs::path>& paths,
                                    ImportMode mode, const Progress& progress) {
  Import import{staging, paths, mode, progress};
  import.staged.resize(paths.size());
  import.done_bytes.resize(paths.size());
  for (const fs::path& path : paths) {
    std::error_code error;
    const auto size = fs::file_size(path, error);
    if (error) throw Error(path.string() + ": " + error.message());
    import.total_bytes += static_cast<int64_t>(size);
  }
  const size_t n_threads = std::min(
      {paths.size(), kMaxThreads, static_cast<size_t>(std::thread::hardware_concurrency()) + 1});
  {
    std::vector<std::jthread> threads;
    for (size_t i = 1; i < n_threads; ++i)
      threads.emplace_back([&import] { work(import); });
    work(import);
  }
  if (import.error) std::rethrow_exception(import.error);
  return std::move(import.staged);
}

}  // namespace dsctl::registry
