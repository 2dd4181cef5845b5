#include "registry/front_hasher.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "registry/crc32c.h"
#include "registry/error.h"
#include "registry/file_io.h"

namespace dsctl::registry {
namespace {

constexpr int64_t kReadBytes = 1 << 20;    // stays in the second-level cache between read and hash
constexpr int64_t kFlushBytes = 64 << 20;  // started towards the disk at a time

/// Reads [offset, offset + out.size()); fewer at the end of the file.
size_t read_at(int fd, std::span<std::byte> out, int64_t offset,
               const std::filesystem::path& path) {
  size_t n_read = 0;
  while (n_read < out.size()) {
    const ssize_t n = ::pread(fd, out.data() + n_read, out.size() - n_read,
                              static_cast<off_t>(offset + static_cast<int64_t>(n_read)));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw_errno(path, "can't read");
    if (n == 0) break;
    n_read += static_cast<size_t>(n);
  }
  return n_read;
}

}  // namespace

struct FrontHasher::Job {
  size_t id = 0;
  File file;
  std::vector<std::optional<uint32_t>> crcs;
  Hasher hasher;
  int64_t front = 0;
  int64_t position = 0;
  bool is_busy = false;
  bool is_blocked = false;  // by a bad block, until the next advance
  bool is_finished = false;

  bool has_work() const {
    return !is_busy && !is_blocked && !is_finished &&
           (position < front || position == file.size_bytes);
  }
};

/// What one read and its hashing brought; made without the lock.
struct FrontHasher::Step {
  int64_t n_bytes = 0;
  std::optional<size_t> bad_block;
};

FrontHasher::FrontHasher(int n_threads, std::function<void()> wake) : wake_(std::move(wake)) {
  for (int i = 0; i < n_threads; ++i)
    threads_.emplace_back([this] { work(); });
}

FrontHasher::~FrontHasher() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  threads_.clear();  // before what they use
}

void FrontHasher::add(size_t id, File file, std::vector<std::optional<uint32_t>> crcs) {
  {
    const std::lock_guard lock(mutex_);
    Job& job = jobs_[id];
    job.id = id;
    job.file = std::move(file);
    job.crcs = std::move(crcs);
  }
  changed_.notify_all();
}

void FrontHasher::advance(size_t id, int64_t front_bytes) {
  {
    const std::lock_guard lock(mutex_);
    Job& job = jobs_.at(id);
    if (job.is_blocked || front_bytes <= job.front) return;
    job.front = front_bytes;
  }
  changed_.notify_all();
}

void FrontHasher::repaired(size_t id, int64_t front_bytes, size_t n_blocks) {
  {
    const std::lock_guard lock(mutex_);
    Job& job = jobs_.at(id);
    const auto first = static_cast<size_t>(job.position / job.file.block_bytes);
    for (size_t b = first; b < std::min(first + n_blocks, job.crcs.size()); ++b) {
      job.crcs[b].reset();
    }
    job.is_blocked = false;
    job.front = front_bytes;
  }
  changed_.notify_all();
}

void FrontHasher::remove(size_t id) {
  std::unique_lock lock(mutex_);
  const auto job = jobs_.find(id);
  if (job == jobs_.end()) return;
  changed_.wait(lock, [&] { return !job->second.is_busy; });
  jobs_.erase(job);
  std::erase_if(results_, [id](const Result& result) { return result.id == id; });
}

std::vector<FrontHasher::Result> FrontHasher::take_results() {
  const std::lock_guard lock(mutex_);
  return std::exchange(results_, {});
}

FrontHasher::Job* FrontHasher::next_job() {
  for (auto& [id, job] : jobs_) {
    if (job.has_work()) return &job;
  }
  return nullptr;
}

void FrontHasher::work() {
  std::vector<std::byte> buffer;
  std::unique_lock lock(mutex_);
  while (true) {
    Job* job = nullptr;
    changed_.wait(lock, [&] { return stopping_ || (job = next_job()) != nullptr; });
    if (stopping_) return;
    job->is_busy = true;
    run(*job, buffer, lock);
    job->is_busy = false;
    changed_.notify_all();
  }
}

/// One read of `job`; called and left with the lock held, which is open in between: nobody else
/// touches a busy job but for its front.
void FrontHasher::run(Job& job, std::vector<std::byte>& buffer,
                      std::unique_lock<std::mutex>& lock) {
  const int64_t end =
      std::min(job.front, job.position + std::max(kReadBytes, job.file.block_bytes));
  Result result{.id = job.id, .digest = {}, .bad_block = {}, .error = {}};
  int64_t position = job.position;
  lock.unlock();
  try {
    buffer.resize(static_cast<size_t>(std::max(kReadBytes, job.file.block_bytes)));
    const std::span<std::byte> wanted(buffer.data(), static_cast<size_t>(end - position));
    const size_t n_read = read_at(job.file.fd, wanted, position, job.file.path);
    std::span<const std::byte> rest(buffer.data(), n_read);
    while (position < end) {
      // Up to the end of the block; blocks that need no comparison go together.
      const auto block = static_cast<size_t>(position / job.file.block_bytes);
      const int64_t block_end =
          std::min(end, (position / job.file.block_bytes + 1) * job.file.block_bytes);
      const auto n = static_cast<size_t>(block_end - position);
      const auto crc = block < job.crcs.size() ? job.crcs[block] : std::nullopt;
      if (n > rest.size() || (crc && crc32c(0, rest.first(n)) != *crc)) {
        result.bad_block = block;
        break;
      }
      job.hasher.update(rest.first(n));
      rest = rest.subspan(n);
      position = block_end;
    }
    // Towards the disk early: the last flush is short, and dirty pages don't pile up.
    if (position / kFlushBytes != job.position / kFlushBytes) {
      const int64_t begin = job.position / kFlushBytes * kFlushBytes;
      ::sync_file_range(job.file.fd, begin, position - begin, SYNC_FILE_RANGE_WRITE);
    }
    if (position == job.file.size_bytes && !result.bad_block) {
      sync_file(job.file.fd, job.file.path);
      result.digest = job.hasher.finish();
    }
  } catch (...) {
    result.error = std::current_exception();
  }
  lock.lock();
  job.position = position;
  job.is_finished = result.digest || result.error;
  if (result.bad_block) {
    job.is_blocked = true;
    if (job.crcs.size() <= *result.bad_block) job.crcs.resize(*result.bad_block + 1);
    job.front = position;
  }
  if (result.digest || result.bad_block || result.error) {
    results_.push_back(std::move(result));
    wake_();
  }
}

}  // namespace dsctl::registry
